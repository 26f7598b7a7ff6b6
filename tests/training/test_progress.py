"""What a person sees of a training."""

import io

import pytest
import torch
from rich.console import Console

from brainrdl.objectives import RDLObjective, Stage
from brainrdl.training import progress, trainer
from brainrdl.training.progress import show_progress
from brainrdl.training.trainer import EpochRecord


def record(epoch, **values):
    return EpochRecord({"stage": "main", "epoch": epoch, "task": 0.5, "alpha": 1.0, "train_error": 0.25, **values}, {})


def test_lines_where_there_is_no_terminal(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    with show_progress("rdl, seed 0", Console(file=out, width=40)) as shown:
        for epoch in range(10):
            clock[0] += 4
            shown.step("main", epoch, 10, 1, 2, {"task": 1.0, "n_wrong": 3})
            shown.epoch(record(epoch), 10)
    # Seldom enough for a log file, and always at the end; each in one line.
    lines = out.getvalue().splitlines()
    assert lines == [
        "rdl, seed 0: epoch 3/10, task 0.5 alpha 1 train_error 0.25, 28 s left",
        "rdl, seed 0: epoch 6/10, task 0.5 alpha 1 train_error 0.25, 16 s left",
        "rdl, seed 0: epoch 9/10, task 0.5 alpha 1 train_error 0.25, 4 s left",
        "rdl, seed 0: epoch 10/10, task 0.5 alpha 1 train_error 0.25, 0 s left",
    ]


def test_time_left_counts_this_sittings_epochs(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    with show_progress("resumed", Console(file=out)) as shown:
        for epoch in (6, 7):
            clock[0] += 20
            shown.epoch(record(epoch), 10)
    assert "epoch 7/10" in out.getvalue().splitlines()[0]
    assert out.getvalue().splitlines()[0].endswith("60 s left")
    assert out.getvalue().splitlines()[1].endswith("40 s left")


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, color_system=None)
    with show_progress("rdl, seed 0", console) as shown:
        shown.step("main", 0, 4, 50, 100, {"task": 2.0, "rdl/fc": 0.125, "n_wrong": 3})
        shown.epoch(record(0, validation_error=0.5), 4)
        shown.step("main", 1, 4, 50, 100, {"task": 1.5, "rdl/fc": 0.0625, "n_wrong": 3})
        shown.bar.refresh()
    text = out.getvalue()
    for part in ("rdl, seed 0", "1/4 epochs", "left", "task 1.5 rdl/fc 0.0625", "alpha 1", "validation_error 0.5"):
        assert part in text
    assert "n_wrong" not in text


@pytest.mark.parametrize("terminal", [False, True])
def test_the_trainer_tells_it(student, teacher, train, validation, fit, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, color_system=None)
    with show_progress("mine", console) as shown:
        fit(student, Stage(RDLObjective(teacher, {"fc": "fc"}), epochs=3), train, validation=validation, progress=shown)
    assert "mine" in out.getvalue()
    assert ("epoch 3/3" in out.getvalue()) == (not terminal)


def test_steps_are_told_at_intervals_and_at_the_end(student, train, fit, monkeypatch):
    monkeypatch.setattr(trainer, "_LOOK_EVERY", 10)
    told = []

    class Teller:
        def step(self, stage, epoch, n_epochs, step, n_steps, values):
            told.append((stage, epoch, n_epochs, step, n_steps, sorted(values)))

        def epoch(self, record, n_epochs):
            told.append(("end", record.history["epoch"], n_epochs))

    fit(student, Stage(epochs=2, name="only"), train.subset(torch.arange(48)), batch_size=2, progress=Teller())
    assert told == [
        ("only", 0, 2, 10, 24, ["n_wrong", "task"]),
        ("only", 0, 2, 20, 24, ["n_wrong", "task"]),
        ("only", 0, 2, 24, 24, ["n_wrong", "task"]),
        ("end", 0, 2),
        ("only", 1, 2, 10, 24, ["n_wrong", "task"]),
        ("only", 1, 2, 20, 24, ["n_wrong", "task"]),
        ("only", 1, 2, 24, 24, ["n_wrong", "task"]),
        ("end", 1, 2),
    ]
