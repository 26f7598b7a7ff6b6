"""Stopping and going on gives, bit by bit, the run that was never stopped."""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest
import torch

from brainrdl.interruption import SIGNALS, Interrupted, ending_on_signals, heeded, is_asked, let_end, postponed
from brainrdl.objectives import (
    DeepSupervision,
    Distillation,
    Hints,
    LinearCKA,
    RDLObjective,
    RelationalDistillation,
    SimilarityPreserving,
    Stage,
    adamw,
    sgd,
)
from brainrdl.schedule import linear_decay
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Targets
from brainrdl.training import Trainer, saving
from brainrdl.training import trainer as trainer_module
from brainrdl.training.checkpoint import load_checkpoint, previous_checkpoint, save_checkpoint


def jitter(images, generator):
    return images + 0.05 * torch.from_numpy(generator.standard_normal(images.shape, np.float32))


class Training:
    """Everything with a memory at once: two stages, dropout, augmentation, momentum, the best epoch so far."""

    def __init__(self, make_net, train, validation):
        self.make_net, self.train, self.validation = make_net, train, validation

    def trainer(self, checkpoint, evaluations=None, augment=jitter):
        teacher = NetworkTeacher(self.make_net(1, n_hidden=10), ["pool1", "fc"])
        objectives = [RDLObjective(teacher, {"fc": "fc"}, pairs=30), Distillation(teacher)]
        stages = [
            Stage(Hints(teacher, {"pool1": "pool1"}), task_weight=0, epochs=2, optimizer=sgd(0.2), name="hints"),
            Stage(
                objectives, [linear_decay(2.0), 0.5], epochs=3, optimizer=sgd(0.3, 0.9), initial_weights=self.other()
            ),
        ]
        return Trainer(
            self.make_net(0), stages, batch_size=16, accelerator="cpu", seed=5, clip=2.0, keep="best",
            augment=augment, evaluations=evaluations, checkpoint=checkpoint,
        )  # fmt: skip

    def other(self):
        """A part of other weights, which the second stage begins with."""
        state = self.make_net(3).state_dict()
        return {name: value for name, value in state.items() if name.startswith("conv2")}

    def run(self, trainer, stop=None, resume=False):
        rows = []
        for record in trainer.fit(self.train, validation=self.validation, resume=resume):
            rows.append(record.history)
            if stop == len(rows):
                break
        return rows


@pytest.fixture
def training(make_net, train, validation):
    return Training(make_net, train, validation)


@pytest.fixture
def whole(training, snapshot):
    """The run that is never stopped, written down without a checkpoint."""
    trainer = training.trainer(None)
    return training.run(trainer), snapshot(trainer.student), trainer._best["epoch"]


def test_a_checkpoint_changes_nothing(training, whole, snapshot, assert_equal_states, tmp_path):
    trainer = training.trainer(tmp_path / "last.pt")
    assert training.run(trainer) == whole[0]
    assert_equal_states(snapshot(trainer.student), whole[1])


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_break_and_resume(training, whole, snapshot, assert_equal_states, tmp_path, stop):
    place = tmp_path / "part" / "last.pt"
    first = training.trainer(place)
    assert training.run(first, stop) == whole[0][:stop]
    second = training.trainer(place)
    assert training.run(second, resume=True) == whole[0]
    assert_equal_states(snapshot(second.student), whole[1])
    assert second._best["epoch"] == whole[2]
    assert set(second.copied) == set(training.other())


@pytest.mark.parametrize("epoch", [0, 1, 2, 4])
def test_killed_in_an_epoch_and_resumed(training, whole, snapshot, assert_equal_states, tmp_path, epoch):
    calls = []

    def killed(images, generator):
        calls.append(1)
        # A first batch is drawn before each stage; an epoch has 4 steps.
        if len(calls) == 1 + (epoch >= 2) + 4 * epoch + 3:
            raise KeyboardInterrupt
        return jitter(images, generator)

    place = tmp_path / "last.pt"
    with pytest.raises(KeyboardInterrupt):
        training.run(training.trainer(place, augment=killed))
    assert place.exists() == (epoch > 0)
    second = training.trainer(place)
    assert training.run(second, resume=True) == whole[0]
    assert_equal_states(snapshot(second.student), whole[1])


def test_stopped_again_and_again(training, whole, snapshot, assert_equal_states, tmp_path):
    place = tmp_path / "last.pt"
    for stop in (1, 2, 3, 4):
        training.run(training.trainer(place), stop, resume=True)
    last = training.trainer(place)
    assert training.run(last, resume=True) == whole[0]
    assert_equal_states(snapshot(last.student), whole[1])


def test_epochs_done_before_come_first_and_are_not_repeated(training, tmp_path):
    place = tmp_path / "last.pt"
    training.run(training.trainer(place), 3)
    evaluated = []
    trainer = training.trainer(place, {"count": lambda student, epoch: evaluated.append(epoch) or {}})
    records = list(trainer.fit(training.train, validation=training.validation, resume=True))
    assert [bool(record.timing) for record in records] == [False, False, False, True, True]
    assert evaluated == [3, 4]


def test_stopping_among_the_old_epochs_leaves_the_checkpoints_student(
    training, snapshot, assert_equal_states, tmp_path
):
    place = tmp_path / "last.pt"
    first = training.trainer(place)
    training.run(first, 2)
    second = training.trainer(place)
    training.run(second, 1, resume=True)
    assert_equal_states(snapshot(second.student), load_checkpoint(place)["student"])


def test_a_finished_training_gives_its_student(training, whole, snapshot, assert_equal_states, tmp_path):
    place = tmp_path / "last.pt"
    training.run(training.trainer(place))
    before = place.read_bytes()
    again = training.trainer(place)
    assert training.run(again, resume=True) == whole[0]
    assert_equal_states(snapshot(again.student), whole[1])
    assert place.read_bytes() == before


def test_without_resume_a_checkpoint_is_not_looked_at(training, whole, tmp_path):
    place = tmp_path / "last.pt"
    place.write_bytes(b"not a checkpoint")
    assert training.run(training.trainer(place)) == whole[0]


@pytest.mark.parametrize("optimizer", [adamw(0.01), sgd(0.1, 0.9, nesterov=True)])
def test_optimizers_go_on(make_net, train, fit, snapshot, assert_equal_states, tmp_path, optimizer):
    a, b = make_net(0), make_net(0)
    stage = Stage(epochs=3, optimizer=optimizer)
    fit(a, stage, train)
    for _ in Trainer(make_net(0), stage, batch_size=16, accelerator="cpu", checkpoint=tmp_path / "c.pt").fit(train):
        break
    fit(b, stage, train, checkpoint=tmp_path / "c.pt", resume=True)
    assert_equal_states(snapshot(a), snapshot(b))


# -- what cannot be gone on from ----------------------------------------------------------------------------------


@pytest.fixture
def stopped(make_net, train, tmp_path):
    """A checkpoint after the first of three epochs."""
    place = tmp_path / "last.pt"
    stage = Stage(epochs=3, optimizer=sgd(0.1))
    for _ in Trainer(make_net(0), stage, batch_size=16, accelerator="cpu", checkpoint=place).fit(train):
        break
    return place


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", b"\x80\x02."])
def test_damaged_checkpoint(make_net, train, fit, stopped, damage):
    stopped.write_bytes(damage)
    with pytest.raises(
        ValueError, match=r"checkpoint .*last.pt cannot be read .*; delete it to start this training again"
    ):
        fit(make_net(0), Stage(epochs=3), train, checkpoint=stopped, resume=True)


def test_half_a_checkpoint(make_net, train, fit, stopped):
    whole = stopped.read_bytes()
    stopped.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last.pt cannot be read"):
        fit(make_net(0), Stage(epochs=3), train, checkpoint=stopped, resume=True)


def test_another_kind_of_file(make_net, train, fit, tmp_path):
    for content in ({"weights": torch.zeros(2)}, [1, 2], {"format": 0}):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(
            ValueError, match=r"x.pt is no checkpoint of this version; delete it to start this training"
        ):
            fit(make_net(0), Stage(), train, checkpoint=tmp_path / "x.pt", resume=True)


def test_code_in_a_checkpoint_is_not_run(make_net, train, fit, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code was run",))

    torch.save({"format": 1, "x": Evil()}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt cannot be read"):
        fit(make_net(0), Stage(), train, checkpoint=tmp_path / "x.pt", resume=True)


def test_checkpoint_of_another_network(make_net, train, fit, stopped):
    with pytest.raises(ValueError, match=r"last.pt holds another network than this student; delete it or give another"):
        fit(make_net(0, n_hidden=9), Stage(epochs=3), train, checkpoint=stopped, resume=True)


@pytest.mark.parametrize(
    ("epochs", "settings", "difference"),
    [
        (3, {"seed": 1}, "seed: 0 before, 1 now"),
        (3, {"batch_size": 25}, "batch_size: 16 before, 25 now"),
        (4, {}, r"stages: \['main: 3 epochs'\] before, \['main: 4 epochs'\] now"),
    ],
)
def test_checkpoint_of_another_training(make_net, train, fit, stopped, epochs, settings, difference):
    with pytest.raises(ValueError, match=rf"last.pt is of another training: {difference}; delete it or give another"):
        fit(make_net(0), Stage(epochs=epochs), train, checkpoint=stopped, resume=True, **settings)


def test_checkpoint_of_another_optimizer_or_objective(make_net, teacher, train, fit, stopped):
    message = r"last.pt holds other objectives or another optimizer; delete it or give another place"
    with pytest.raises(ValueError, match=message):
        fit(make_net(0), Stage(epochs=3, optimizer=adamw()), train, checkpoint=stopped, resume=True)
    with pytest.raises(ValueError, match=message):
        stage = Stage(Hints(teacher, {"pool1": "pool1"}), epochs=3)
        fit(make_net(0), stage, train, checkpoint=stopped, resume=True)


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    place = tmp_path / "last.pt"
    save_checkpoint(place, {"epoch": 1})

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(place, {"epoch": 2})
    assert load_checkpoint(place)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


# -- in the middle of an epoch ------------------------------------------------------------------------------------


class Counted:
    """A map-style data set that counts what is read."""

    def __init__(self, stimuli):
        self.stimuli, self.ids, self.read = stimuli, stimuli.ids, []

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, row):
        self.read.append(row)
        return self.stimuli.images[row] + 0.1 * torch.rand(()), int(self.stimuli.labels[row])


class Brain:
    """A measured teacher of two names, each with its own stimuli."""

    names, dissimilarity, unbiased = ("sub-1", "sub-2"), "crossnobis", True

    def __init__(self, seed=4):
        self.rows = {"sub-1": range(18), "sub-2": range(10, 30)}
        self.rdm = torch.rand(30, 30, generator=torch.Generator().manual_seed(seed))

    def covers(self, ids):
        return {n: torch.tensor([int(s.split("/")[1]) in rows for s in ids]) for n, rows in self.rows.items()}

    def targets(self, stimuli, pairs):
        rows = torch.tensor([int(s.split("/")[1]) for s in stimuli.ids])
        low, high = torch.minimum(rows[pairs.i], rows[pairs.j]), torch.maximum(rows[pairs.i], rows[pairs.j])
        return {
            n: Targets(self.rdm[low, high].where((low >= min(r)) & (high <= max(r)), torch.nan))
            for n, r in self.rows.items()
        }

    def fingerprint(self):
        return str(float(self.rdm.sum()))


def killed_after(n_saves):
    """A `save_checkpoint` after whose n-th call the process is as good as dead."""
    calls = []

    def save(path, state, keep_last=False):
        save_checkpoint(path, state, keep_last)
        calls.append(1)
        if len(calls) == n_saves:
            raise SystemExit

    return save


def assert_resumes(begin, snapshot, tmp_path, monkeypatch, saves, **settings):
    """Killed after any checkpoint, at every step or each second one, a training ends as one that had none."""
    train, trainer = begin(None)
    whole = [record.history for record in train(trainer)]
    expected = snapshot(trainer.student)
    for k in saves:
        place = tmp_path / f"{k}" / "last.pt"
        monkeypatch.setattr(saving, "save_checkpoint", killed_after(k))
        train, first = begin(place, checkpoint_steps=settings.get("steps", 1))
        with pytest.raises(SystemExit):
            list(train(first))
        monkeypatch.undo()
        train, second = begin(place)
        rows = [record.history for record in train(second, resume=True)]
        assert repr(rows) == repr(whole), "nan, too, is where it was"
        for name, value in snapshot(second.student).items():
            assert torch.equal(value, expected[name]), (k, name)
    return whole


def test_killed_after_any_step(training, snapshot, tmp_path, monkeypatch):
    def begin(place, **settings):
        trainer = training.trainer(place)
        trainer._saving.steps = settings.get("checkpoint_steps")
        return lambda one, resume=False: one.fit(training.train, validation=training.validation, resume=resume), trainer

    # 5 epochs of 4 steps: three checkpoints within each and one at its end.
    assert len(assert_resumes(begin, snapshot, tmp_path, monkeypatch, range(1, 21, 3))) == 5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_brain_data_beside_a_task_and_a_data_set(make_net, train, snapshot, tmp_path, monkeypatch, accumulate):
    shown = train.subset(torch.arange(30))._replace(ids=tuple(f"3/{k}" for k in range(30)))

    def begin(place, **settings):
        objective = RDLObjective(Brain(), {"fc": {"sub-1": 1.0, "sub-2": 0.5}}, stream="stimuli")
        trainer = Trainer(
            make_net(0), Stage(objective, epochs=2, optimizer=adamw(0.01)), batch_size=16, stimulus_batch_size=9,
            accelerator="cpu", accumulate=accumulate, checkpoint=place, **settings,
        )  # fmt: skip
        return lambda one, resume=False: one.fit(Counted(train), shown, resume=resume), trainer

    whole = assert_resumes(begin, snapshot, tmp_path, monkeypatch, range(1, 5), steps=2)
    assert whole[0]["n_pairs/rdl/fc/sub-1"] > 0


def test_stimuli_alone(make_net, train, snapshot, tmp_path, monkeypatch):
    shown = train.subset(torch.arange(30))._replace(ids=tuple(f"3/{k}" for k in range(30)), labels=None)

    def begin(place, **settings):
        objective = RDLObjective(Brain(), {"fc": {"sub-1": 1.0, "sub-2": 1.0}}, stream="stimuli")
        stage = Stage(objective, epochs=2, task_weight=0)
        trainer = Trainer(make_net(0), stage, batch_size=7, accelerator="cpu", checkpoint=place, **settings)
        return lambda one, resume=False: one.fit(None, shown, resume=resume), trainer

    assert_resumes(begin, snapshot, tmp_path, monkeypatch, range(1, 6, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda teacher: DeepSupervision(["pool2"]),
        lambda teacher: LinearCKA(teacher, {"fc": "fc"}),
        lambda teacher: RelationalDistillation(teacher, {"fc": "fc"}),
        lambda teacher: SimilarityPreserving(teacher, {"fc": "fc"}),
    ],
)
def test_other_objectives(make_net, train, snapshot, tmp_path, monkeypatch, make):
    def begin(place, **settings):
        objective = make(NetworkTeacher(make_net(1, n_hidden=10), ["pool1", "fc"]))
        trainer = Trainer(
            make_net(0), Stage(objective), batch_size=16, accelerator="cpu", checkpoint=place, **settings
        )  # fmt: skip
        return lambda one, resume=False: one.fit(train, resume=resume), trainer

    assert_resumes(begin, snapshot, tmp_path, monkeypatch, [1], steps=2)


def test_images_of_steps_that_are_done_are_not_read_again(make_net, train, tmp_path, monkeypatch):
    place, stage = tmp_path / "last.pt", Stage()
    monkeypatch.setattr(saving, "save_checkpoint", killed_after(1))
    trainer = Trainer(make_net(0), stage, batch_size=10, accelerator="cpu", checkpoint=place, checkpoint_steps=3)
    with pytest.raises(SystemExit):
        list(trainer.fit(Counted(train)))
    monkeypatch.undo()
    images = Counted(train)
    list(Trainer(make_net(0), stage, batch_size=10, accelerator="cpu", checkpoint=place).fit(images, resume=True))
    first, rest = images.read[:10], images.read[10:]
    assert len(rest) == 20, "a first batch is looked at, then the two of five that are left"
    assert not set(rest) & set(first)


def test_seconds_go_on(training, tmp_path, monkeypatch):
    place = tmp_path / "last.pt"
    trainer = training.trainer(place)
    trainer._saving.steps = 2
    monkeypatch.setattr(saving, "save_checkpoint", killed_after(1))
    with pytest.raises(SystemExit):
        training.run(trainer)
    monkeypatch.undo()
    state = load_checkpoint(place)
    assert (state["epoch"], state["step"]) == (0, 2) and 0 < state["seconds"] < 60
    save_checkpoint(place, {**state, "seconds": 1000.0})
    second = training.trainer(place)
    record = next(second.fit(training.train, validation=training.validation, resume=True))
    assert 1000 < record.timing["seconds"] < 1060


def test_minutes(make_net, train, tmp_path, monkeypatch):
    """Looked at every 50 steps: 60 steps of an epoch, and time that passes quickly."""
    now, saved = [0.0], []
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(saving, "save_checkpoint", lambda path, state, keep_last: saved.append(state.get("step", 0)))

    def augment(images, generator):
        now[0] += 9.0
        return images

    many = train.subset(torch.arange(120) % 50)._replace(ids=tuple(map(str, range(120))))
    settings = {"batch_size": 2, "accelerator": "cpu", "augment": augment, "checkpoint": tmp_path / "last.pt"}
    stage = Stage(epochs=2)
    for minutes, expected in ((7.0, [50, 0, 50, 0]), (7.6, [50, 0, 0]), (60.0, [0, 0]), (None, [0, 0])):
        list(Trainer(make_net(0), stage, checkpoint_minutes=minutes, **settings).fit(many))
        assert saved == expected, minutes
        saved.clear()


@pytest.mark.parametrize("wrong", [{"checkpoint_steps": 0}, {"checkpoint_minutes": 0}, {"checkpoint_minutes": -1.0}])
def test_wrong_intervals(make_net, wrong):
    with pytest.raises(ValueError, match=r"expected checkpoint_steps >= 1 and checkpoint_minutes > 0, got checkpoint"):
        Trainer(make_net(0), Stage(), accelerator="cpu", **wrong)


def test_no_checkpoint_of_a_training_that_diverged(make_net, train, tmp_path):
    stage = Stage(epochs=2, optimizer=sgd(1e18))
    place = tmp_path / "last.pt"
    trainer = Trainer(make_net(0), stage, batch_size=16, accelerator="cpu", checkpoint=place, checkpoint_steps=1)
    with pytest.raises(FloatingPointError, match="stage 'main', epoch 0"):
        list(trainer.fit(train))
    if place.exists():
        assert all(torch.isfinite(value).all() for value in load_checkpoint(place)["student"].values())


# -- signals ------------------------------------------------------------------------------------------------------


def test_a_signal_ends_a_training_after_its_step(training, whole, snapshot, assert_equal_states, tmp_path):
    place, calls = tmp_path / "last.pt", []

    def interrupted(images, generator):
        calls.append(1)
        if len(calls) == 1 + 4 + 2:  # a first batch, an epoch, and in the second step of the next
            os.kill(os.getpid(), signal.SIGTERM)
        return jitter(images, generator)

    with pytest.raises(Interrupted), ending_on_signals():
        training.run(training.trainer(place, augment=interrupted))
    state = load_checkpoint(place)
    assert (state["epoch"], state["step"], len(calls)) == (1, 2, 7)
    second = training.trainer(place)
    assert training.run(second, resume=True) == whole[0]
    assert_equal_states(snapshot(second.student), whole[1])


def test_a_signal_in_an_evaluation_loses_no_step(training, whole, snapshot, assert_equal_states, tmp_path):
    place, evaluated = tmp_path / "last.pt", []

    def interrupted(student, epoch):
        evaluated.append(epoch)
        if epoch == 3 and evaluated.count(3) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return {}

    with pytest.raises(Interrupted), ending_on_signals():
        training.run(training.trainer(place, {"x": interrupted}))
    state = load_checkpoint(place)
    assert (state["epoch"], state["step"]) == (3, 4)
    second = training.trainer(place, {"x": interrupted})
    assert training.run(second, resume=True) == whole[0] and evaluated == [0, 1, 2, 3, 3, 4]
    assert_equal_states(snapshot(second.student), whole[1])


@pytest.mark.parametrize("place_of", ["training_state", "check_sizes"])
def test_a_signal_at_the_end_of_an_epoch_loses_nothing(
    training, whole, snapshot, assert_equal_states, tmp_path, monkeypatch, place_of
):
    place, calls, original = tmp_path / "last.pt", [], getattr(trainer_module, place_of)

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(trainer_module, place_of, interrupted)
    with pytest.raises(Interrupted), ending_on_signals():
        training.run(training.trainer(place))
    assert load_checkpoint(place)["epoch"] == len(load_checkpoint(place)["history"]) == 2
    second = training.trainer(place)
    assert training.run(second, resume=True) == whole[0]
    assert_equal_states(snapshot(second.student), whole[1])


def test_a_second_ctrl_c_ends_at_once(training, tmp_path):
    place, calls = tmp_path / "last.pt", []

    def twice(images, generator):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)  # which is no second Ctrl-C
            calls.append("still there")
            os.kill(os.getpid(), signal.SIGINT)
        return jitter(images, generator)

    with pytest.raises(Interrupted), ending_on_signals():
        training.run(training.trainer(place, augment=twice))
    assert calls == [1, 1, 1, "still there"] and not place.exists()


def test_an_ignored_signal_stays_ignored():
    """What a script starts with & is not ended by the Ctrl-C that is meant for the script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_on_signals():
            os.kill(os.getpid(), signal.SIGINT)
            assert not is_asked()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_while_an_object_ends_comes_a_moment_later():
    """What is raised there Python only prints, and the program goes on."""
    came_to = []

    class Ending:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            came_to.append("its end")

    with pytest.raises(Interrupted), ending_on_signals():
        Ending()
        time.sleep(60)
        came_to.append("the end")
    assert came_to == ["its end"]


def test_a_program_that_is_ending_is_not_ended_again():
    ended = []
    with ending_on_signals():
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        let_end()
        os.kill(os.getpid(), signal.SIGINT)
        ended.append("in its own time")
    assert ended == ["in its own time"]


def test_signals_do_what_they_did_before(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), ending_on_signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with ending_on_signals(), postponed():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert is_asked()
        with pytest.raises(Interrupted), heeded():
            pytest.fail("was not ended")
    assert not is_asked()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(_handlers_inside()))
    thread.start()
    thread.join()
    assert seen == [before], "only the main thread can be told of signals"


def _handlers_inside():
    with ending_on_signals():
        return [signal.getsignal(number) for number in SIGNALS]


# -- two files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(make_net, train, tmp_path):
    """A checkpoint after the second of four epochs, and the one before; the training that goes on from them."""
    place = tmp_path / "part" / "last.pt"

    def trainer(**settings):
        return Trainer(make_net(0), Stage(epochs=4), batch_size=16, accelerator="cpu", checkpoint=place, **settings)

    whole = [record.history for record in trainer().fit(train)]
    for _, record in zip(range(2), trainer().fit(train), strict=False):
        assert record.history == whole[record.history["epoch"]]
    assert load_checkpoint(place)["epoch"] == 2 and load_checkpoint(previous_checkpoint(place))["epoch"] == 1
    return place, trainer, whole


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1],
    "a bit in the middle": lambda content: _flipped(content, len(content) // 2),
    "a bit in the checksum": lambda content: _flipped(content, len(content) - 5),
    "a bit in the trailer's name": lambda content: _flipped(content, len(content) - 80),
    "another file": lambda content: b"epoch,seconds\n0,1\n",
}


def _flipped(content, position):
    changed = bytearray(content)
    changed[position] ^= 4
    return bytes(changed)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_and_the_one_before(two, train, capsys, damage):
    place, trainer, whole = two
    place.write_bytes(DAMAGES[damage](place.read_bytes()))
    rows = list(trainer().fit(train, resume=True))
    assert [row.history for row in rows] == whole
    assert [bool(row.timing) for row in rows] == [False, True, True, True]
    told = capsys.readouterr().err
    assert re.fullmatch(r"note: .*last.pt .*; going on from the one before, last.previous.pt\n", told), told
    # What was whole has not given way to what was damaged.
    assert load_checkpoint(place)["epoch"] == 4 and load_checkpoint(previous_checkpoint(place))["epoch"] == 3


def test_the_first_save_after_damage_keeps_the_whole_one(two, train):
    place, trainer, _ = two
    place.write_bytes(b"")
    for record in trainer().fit(train, resume=True):
        if record.timing:
            break
    assert load_checkpoint(place)["epoch"] == 2 and load_checkpoint(previous_checkpoint(place))["epoch"] == 1


def test_a_missing_checkpoint_and_the_one_before(two, train, capsys):
    place, trainer, whole = two
    place.unlink()
    assert [row.history for row in trainer().fit(train, resume=True)] == whole
    assert "last.pt is missing; going on from the one before, last.previous.pt" in capsys.readouterr().err


def test_both_damaged(two, train):
    place, trainer, _ = two
    place.write_bytes(b"")
    previous_checkpoint(place).write_bytes(_flipped(previous_checkpoint(place).read_bytes(), 1000))
    message = (
        r"checkpoint .*last.pt cannot be read \(.*\), and checkpoint .*last.previous.pt is damaged \(its checksum is "
        r"another\); delete both to start this training again"
    )
    with pytest.raises(ValueError, match=message):
        list(trainer().fit(train, resume=True))


def test_a_new_training_leaves_no_checkpoint_of_the_old_one(two, train):
    place, trainer, _ = two
    next(iter(trainer(seed=7).fit(train)))
    assert load_checkpoint(place)["training"]["seed"] == 7 and not previous_checkpoint(place).exists()


def test_without_hard_links(two, train, monkeypatch):
    place, trainer, whole = two

    def refused(*arguments, **others):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    assert [row.history for row in trainer().fit(train, resume=True)] == whole
    assert load_checkpoint(previous_checkpoint(place))["epoch"] == 3
    assert sorted(file.name for file in place.parent.iterdir()) == ["last.previous.pt", "last.pt"]


def test_a_checkpoint_of_the_version_before(two, train):
    """It had no checksum, no steps and no teachers."""
    place, trainer, whole = two
    state = load_checkpoint(place)
    del state["teachers"]
    torch.save({**state, "format": 1}, place)
    assert [row.history for row in trainer().fit(train, resume=True)] == whole


# -- another teacher ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda net, k: NetworkTeacher(net(k, n_hidden=10), ["fc"]), "RDLObjective"),
        (lambda net, k: Brain(4 + k), "RDLObjective"),
    ],
)
def test_another_teacher_is_refused(make_net, train, tmp_path, make, name):
    ids = tuple(f"3/{k % 30}-{k // 30}" if k >= 30 else f"3/{k}" for k in range(50))
    images = train._replace(ids=ids).subset(torch.arange(30))

    def trainer(k):
        teacher = make(make_net, k)
        objective = RDLObjective(teacher, {"fc": teacher.names[0]})
        return Trainer(
            make_net(0), Stage(objective, epochs=3), batch_size=16, accelerator="cpu", checkpoint=tmp_path / "last.pt"
        )

    next(iter(trainer(1).fit(images)))
    message = (
        rf"checkpoint .*last.pt was made with another teacher: the teacher of {name} in stage 'main' has fingerprint "
        r"\w{12}, it had \w{12}; give that teacher, or delete the checkpoint to start again"
    )
    with pytest.raises(ValueError, match=message):
        list(trainer(2).fit(images, resume=True))
    assert len(list(trainer(1).fit(images, resume=True))) == 3


def test_other_initial_weights_are_refused(make_net, train, tmp_path):
    def trainer(k):
        stage = Stage(epochs=3, initial_weights=make_net(k).state_dict())
        return Trainer(make_net(0), stage, batch_size=16, accelerator="cpu", checkpoint=tmp_path / "last.pt")

    next(iter(trainer(1).fit(train)))
    with pytest.raises(ValueError, match=r"another teacher: the weights that stage 'main' begins with has fingerprint"):
        list(trainer(2).fit(train, resume=True))
