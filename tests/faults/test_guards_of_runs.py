"""Faults planted in whole runs: what is refused, what is noted, and that who reads the figures reads the notes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from killed_experiments import brain
from PIL import Image
from planted import assert_told
from tiny_experiments import call, write_brain, write_yaml

from brainrdl.data.folds import Fold
from brainrdl.experiment import RunOptions, choosing, run_experiment
from brainrdl.experiment_file import load_experiment
from brainrdl.models import build_network
from brainrdl.notes import keep_note, read_notes, run_notes, warn_result
from brainrdl.notes import keeping_notes as keeping
from brainrdl.run_folder import Part, read_marks

NETWORK = {
    "network": "mnist_cnn",
    "arguments": {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [4, 8], "n_hidden": 30},
}


def task(**changes):
    """A small experiment with a teacher, and one method that asks it."""
    settings = {
        "name": "planted",
        "data": {"spec": "digits", "train": 60, "validation": 40, "test": 60},
        "student": NETWORK,
        "teacher": {**NETWORK, "training": {"epochs": 1, "batch_size": 20}},
        "training": {"epochs": 1, "batch_size": 20},
        "methods": {"rdl": {"layers": {"fc": "fc"}}},
        "seeds": [0],
        "analysis": {"layers": ["fc"], "n_per_class": 2},
    }
    return {**settings, **changes}


def write(folder, settings):
    return write_yaml(folder / "experiment.yaml", settings)


def run(folder, settings):
    """`brainrdl run`; its result, and the run's folder."""
    return call(
        "run", write(folder, settings), "--out", folder / "run", "--accelerator", "cpu", "--jobs", "1"
    ), folder / "run"


def run_without_report(folder, settings):
    """The run's folder; what it says goes to the standard output."""
    options = RunOptions(jobs=1, accelerator="cpu")
    assert run_experiment(load_experiment(str(write(folder, settings))), folder / "run", options)
    return folder / "run"


def lines_with(text, words):
    return [line for line in text.splitlines() if words in line]


def assert_refused(result, *words):
    assert result.exit_code == 2, result.output
    assert all(one in " ".join(result.output.split()) for one in words), result.output


# -- what is tested must not choose or teach ---------------------------------------------------------------------------


def test_a_teacher_that_learned_the_test_images(tmp_path):
    data = {"spec": "digits", "train": 60, "validation": 40, "test": 60}
    # Another split of the same images: some that this teacher learns from are the students' test images.
    settings = task(teacher={**task()["teacher"], "data": {**data, "train": 900, "split_seed": 1}})
    result, out = run(tmp_path, settings)
    assert_refused(
        result, "experiment.yaml: teacher.data: ", "of the experiment's 60 test images would be seen by the teacher"
    )
    assert not out.exists()
    same = task(teacher={**task()["teacher"], "data": data})
    assert call("check", write(tmp_path, same)).exit_code == 0


@pytest.fixture
def folder_of_images(tmp_path):
    """Two classes of 20 images for training and 6 for tests, all different."""
    draw = np.random.default_rng(0)
    for split, n in (("train", 20), ("test", 6)):
        for label in ("cat", "dog"):
            place = tmp_path / "pets" / split / label
            place.mkdir(parents=True)
            for k in range(n):
                Image.fromarray(draw.integers(0, 255, (8, 8)).astype(np.uint8)).save(place / f"{k:02d}.png")
    spec = {"name": "pets", "title": "Pets", "format": "image_folder", "folder": str(tmp_path / "pets"), "channels": 1}
    path = tmp_path / "pets.yaml"
    path.write_text(yaml.safe_dump({**spec, "source": {"publisher": "me"}}))
    return path


def baseline_on(spec, **changes):
    student = {**NETWORK, "arguments": {**NETWORK["arguments"], "n_classes": 2}}
    settings = task(data={"spec": str(spec), "validation": 10}, student=student, methods={"baseline": None})
    return {key: value for key, value in {**settings, **changes}.items() if key != "teacher"}


def test_test_images_among_the_training_images(folder_of_images, tmp_path):
    settings = baseline_on(folder_of_images)
    assert "note" not in call("check", write(tmp_path, settings)).output
    pets = tmp_path / "pets"
    shutil.copy(pets / "test" / "cat" / "03.png", pets / "train" / "cat" / "found_again.png")
    shutil.copy(pets / "test" / "dog" / "00.png", pets / "test" / "dog" / "twice.png")  # on one side: no fault
    result, out = run(tmp_path, settings)
    assert result.exit_code == 0, result.output
    (note,) = read_notes(out)
    # It may have come to the validation images.
    assert_told(
        [note], r"^data: 1 test images are (training|validation) images too, to the pixel, .*'pets/test/cat/03.png'"
    )
    assert len(lines_with(result.output, note)) == 1 and f"note: {note}" in result.output
    assert f"  note      {note}" in call("check", tmp_path / "experiment.yaml").output
    assert note in (out / "report" / "results.md").read_text().replace("\\", "")
    assert "To be known" in (out / "report" / "report.html").read_text()


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brains")
    return write_brain(folder)


def test_choosing_by_stimuli_of_the_outer_fold(brains, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "inner_folds", lambda fold, *more: (Fold(fold.trained, fold.held_out),))
    settings = brain(brains)
    result, out = run(tmp_path, {**settings, "methods": {"it": settings["methods"]["it"]}})
    assert_refused(result, "9 stimuli that the fold holds out would be used to choose its settings (such as 'stim")
    assert not list(out.rglob("rdms.h5"))


def test_an_inner_fold_that_is_scored_on_what_it_learned(brains, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "inner_folds", lambda fold, *more: (Fold(fold.trained, fold.trained[:4]),))
    settings = brain(brains)
    result, _ = run(tmp_path, {**settings, "methods": {"it": settings["methods"]["it"]}})
    assert_refused(result, "is both trained on and scored (4 such in all)")


def test_a_network_trained_on_what_it_is_scored_on(brains, tmp_path, monkeypatch):
    from brainrdl.experiment import brain_data

    def overlapping(ids, *more):
        return (Fold(tuple(ids), tuple(ids[:9])), Fold(tuple(ids[:9]), tuple(ids[9:])))

    monkeypatch.setattr(brain_data, "stimulus_folds", overlapping)
    settings = {key: value for key, value in brain(brains).items() if key != "choose"}
    result, _ = run(tmp_path, {**settings, "methods": {"it": settings["methods"]["it"]}})
    assert_refused(result, "stimulus 'stim00' is both trained on and scored (9 such in all)")


def test_a_finished_run_whose_folds_were_changed(brains, tmp_path, capsys):
    settings = {key: value for key, value in brain(brains).items() if key != "choose"}
    out = run_without_report(tmp_path, {**settings, "methods": {"it": settings["methods"]["it"]}})
    assert "note" not in capsys.readouterr().out
    assert not (out / "notes.txt").exists() and run_notes(out) == []
    place = out / "it" / "cnn" / "seed-0" / "split-0_fold-0"
    fold = json.loads((place / "fold.json").read_text())
    (place / "fold.json").write_text(json.dumps({**fold, "held_out": fold["trained"]}))
    # As if the file had been written so.
    Part("it", 0, place, read_marks(place)["settings"]).mark(finished=True)
    assert_refused(call("report", out), "is both trained on and scored")


def test_one_image_under_two_ids_may_be_learned_and_held_out(tmp_path):
    spec = write_brain(tmp_path)
    images = tmp_path / "brain" / "images"
    shutil.copy(images / "stim03.png", images / "stim06.png")
    settings = brain(spec)
    message = r"stimuli: 1 are the same image file as another one \(such as 'stim03' and 'stim06'\), so what a network"
    told = lines_with(call("check", write(tmp_path, settings)).output, "note")
    assert_told([" ".join(line.split()[1:]) for line in told], message)
    # Both are of the category "animal", so in one group.
    together = {**settings, "folds": {"n": 2, "group": "category"}}
    assert "same image file" not in call("check", write(tmp_path, together)).output


def test_measured_stimuli_whose_ids_are_written_otherwise(tmp_path):
    spec = write_brain(tmp_path)
    table = tmp_path / "brain" / "stimuli.tsv"
    images = tmp_path / "brain" / "images"
    measured = tmp_path / "measured.yaml"
    shutil.copytree(tmp_path / "brain", tmp_path / "measured")
    (images / "stim03.png").rename(images / "Stim03.png")
    measured.write_text(spec.read_text().replace("folder: brain", "folder: measured"))
    table.write_text(table.read_text().replace("stim03", "Stim03"))
    settings = brain(spec)
    settings["teachers"]["it"]["spec"] = settings["score"]["spec"] = str(measured)
    told = lines_with(call("check", write(tmp_path, settings)).output, "note")
    assert len(told) == 4  # of teacher and score: not shown, and not measured
    assert all("1 would match after changing case, the first is 'stim03' for 'Stim03'" in line for line in told)


# -- how it is told ----------------------------------------------------------------------------------------------------


def test_seeds_that_change_nothing_and_notes_of_parts_are_said_once_and_kept(tmp_path, capsys):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(build_network("mnist_cnn", NETWORK["arguments"]).state_dict(), tmp_path / "start.safetensors")
    still = {"weights": str(tmp_path / "start.safetensors")}
    methods = {
        "still": {"method": "baseline", "student": still, "training": {"learning_rate": 1e-30}},
        "moving": {"method": "baseline"},
        "rdl": {"layers": {"fc": "fc"}, "alpha": 1e-9},
    }
    out = run_without_report(tmp_path, task(methods=methods, seeds=[0, 1]))
    said = capsys.readouterr().out
    of_run = read_notes(out)
    assert_told(
        of_run, r"^still: seeds 0, 1 ended with the same weights, so the seed changes nothing: they are one netw"
    )
    of_parts = [read_notes(out / "rdl" / f"seed-{seed}") for seed in (0, 1)]
    for notes in of_parts:
        assert_told(notes, "^term 'rdl/fc' takes no part: with its weight it is ")
    for note in (*of_run, *of_parts[0], *of_parts[1]):
        assert len(lines_with(said, f"note: {note}")) == 1
    assert read_notes(out / "moving" / "seed-0") == read_notes(out / "teacher") == []
    assert run_notes(out) == [*of_run, f"{of_parts[0][0]} (rdl/seed-0)", f"{of_parts[1][0]} (rdl/seed-1)"]


def test_notes_are_kept_once_each_in_a_line_and_go_on(tmp_path):
    part = tmp_path / "a" / "seed-0"
    with keeping(part):
        warn_result("first")
        warn_result("first")
        warn_result("of two\n  lines")
    with keeping(tmp_path / "b"), pytest.warns(DeprecationWarning, match="another kind"):
        import warnings

        warnings.warn("another kind", DeprecationWarning, stacklevel=1)
    with keeping(tmp_path / "c", writes=False):
        warn_result("nobody writes")
    assert read_notes(part) == ["first", "of two lines"]
    assert not (tmp_path / "b").exists() and not (tmp_path / "c").exists()
    assert not keep_note(part, "first") and keep_note(part, "after going on")
    assert read_notes(part)[-1] == "after going on"
    for folder in (Path("b"), Path("c")):
        keep_note(tmp_path / folder, "first")
    keep_note(tmp_path, "of the run")
    assert run_notes(tmp_path) == [
        "of the run",
        "first (a/seed-0 and 2 others)",
        "of two lines (a/seed-0)",
        "after going on (a/seed-0)",
    ]
    (part / "notes.txt").write_bytes(b"damaged \xff\n")
    assert read_notes(part) == ["damaged �"]
