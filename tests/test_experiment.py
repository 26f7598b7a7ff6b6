"""An experiment from its file to its folder: what is written, what is run again, what is refused."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from brainrdl.analysis.rdms import load_rdms, save_rdms
from brainrdl.cli import app, telling
from brainrdl.data import DataSettings, load_data
from brainrdl.data.thumbnails import load_thumbnails
from brainrdl.experiment import RunOptions, run_experiment, task
from brainrdl.experiment.common import PartRunner
from brainrdl.experiment.processes import in_processes
from brainrdl.experiment_file import load_experiment
from brainrdl.failures import WorkerLostError
from brainrdl.run_folder import Part
from brainrdl.training.checkpoint import load_checkpoint

# But for the runs of module-wide fixtures, which have theirs.
pytestmark = pytest.mark.usefixtures("without_figures")
# The command in a process of its own, of whose report no figure is drawn.
UNDRAWN = """
from brainrdl.cli import main
from brainrdl.report import drawing, task_report

task_report.draw = lambda *_: drawing.Figures()
main()
"""

SMALL = {
    "name": "small",
    "data": {"spec": "digits", "train": 100, "validation": 100, "test": 200},
    "student": {
        "network": "mnist_cnn",
        "arguments": {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [4, 8]},
    },
    "teacher": {
        "network": "mnist_cnn",
        "arguments": {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [4, 8]},
        "deformed": {"train": 300, "validation": 50},
        "training": {"epochs": 1, "batch_size": 50, "clip": 2.0},
    },
    "training": {"epochs": 3, "batch_size": 50, "learning_rate": 0.05, "clip": 2.0},
    "methods": {
        "baseline": None,
        "hints": {"layers": {"pool2": "pool2"}, "hint_epochs": 1},
        "rdl": {"layers": {"pool1": "pool1", "fc": "fc"}, "pairs": 100, "alpha": 3.0},
    },
    "seeds": [0, 1],
    "analysis": {"layers": ["conv1", "fc"], "n_per_class": 3, "every": 2},
}


def write(folder: Path, changes: dict | None = None, **top) -> Path:
    experiment = {**json.loads(json.dumps(SMALL)), **top}
    for path, value in (changes or {}).items():
        *keys, last = path.split(".")
        place = experiment
        for key in keys:
            place = place[key]
        place[last] = value
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(experiment, sort_keys=False))
    return file


def call(*words: str | Path):
    """The command in this process; other processes would each take seconds to start."""
    alone = ("--jobs", "1") if words[0] == "run" and "--jobs" not in words else ()
    return CliRunner().invoke(app, [str(word) for word in (*words, *alone)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The small experiment, run once for the tests that only look."""
    folder = tmp_path_factory.mktemp("finished")
    out = folder / "run"
    result = call("run", write(folder), "--out", out, "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    return out


def test_a_run_holds_what_its_documentation_says(finished):
    for label in ("baseline", "hints", "rdl"):
        for seed in (0, 1):
            part = finished / label / f"seed-{seed}"
            history = pd.read_csv(part / "history.csv")
            n_epochs = 4 if label == "hints" else 3
            assert history["epoch"].tolist() == list(range(n_epochs))
            assert history["test_error"].between(0, 1).all()
            assert (pd.read_csv(part / "timing.csv")["images_per_second"] > 0).all()
            predictions = pd.read_csv(part / "predictions.csv")
            assert len(predictions) == 200 and predictions["stimulus"].is_unique
            error = (predictions["label"] != predictions["predicted"]).mean()
            assert error == pytest.approx(history["test_error"].iloc[-1])
            rdms = load_rdms(part / "rdms.h5")
            assert rdms.n_cond == 30
            assert set(rdms.rdm_descriptors["layer"]) == {"conv1", "fc", "softmax"}
            logged = {-1, 1, 3} if label == "hints" else {-1, 1, 2}
            assert set(map(int, rdms.rdm_descriptors["epoch"])) == logged
            assert (part / "weights.safetensors").exists() and (part / "checkpoint" / "last.pt").exists()
    history = pd.read_csv(finished / "rdl" / "seed-0" / "history.csv")
    assert history["alpha"].tolist() == pytest.approx([3.0, 2.0, 1.0])
    assert (history[["rdl/pool1", "rdl/fc"]] > 0).all(axis=None)
    assert (finished / "teacher" / "predictions.csv").exists()
    resolved = yaml.safe_load((finished / "experiment.yaml").read_text())
    assert resolved["training"]["momentum"] == 0.9 and resolved["methods"]["rdl"]["discrepancy"] == "mse"
    assert json.loads((finished / "environment.json").read_text())["packages"]["torch"] in torch.__version__
    for name in ("results.csv", "results.md", "mcnemar.csv", "rdm_grid.png", "second_order_mds.pdf"):
        assert (finished / "report" / name).stat().st_size > 0, name


@pytest.mark.parametrize(("every", "logged"), [(0, []), (2, [1, 3]), ([1, 4], [0, 3]), ([], [])])
def test_rdms_are_kept_every_so_many_epochs_or_after_those_named(tmp_path, every, logged):
    experiment = load_experiment(str(write(tmp_path, {"analysis.every": every})))
    run = task.TaskRun(experiment, tmp_path / "run", RunOptions())
    log = run._rdm_log(next(run._parts()), lambda images: images)
    kept = []
    log.keep = lambda network, epoch: kept.append(epoch)
    assert [log.evaluate(None, epoch) for epoch in range(4)] == [{}] * 4
    assert kept == logged


def test_epochs_that_cannot_be_are_refused(tmp_path):
    for every in (-1, [0], "often"):
        with pytest.raises(ValueError, match=r"analysis\.every"):
            load_experiment(str(write(tmp_path, {"analysis.every": every})))


def test_a_run_holds_pictures_of_its_figure_stimuli(finished):
    ids = [str(stimulus) for stimulus in load_rdms(finished / "references.h5").pattern_descriptors["stimulus"]]
    pictures = load_thumbnails(finished / "thumbnails.npz", ids)
    assert list(pictures) == ids
    images = load_data(DataSettings(spec="digits", train=100, validation=100, test=200)).test
    shown = (images.images[images.ids.index(ids[7])] * 255).round().byte()
    np.testing.assert_array_equal(pictures[ids[7]][:, :, 0], shown[0])


def test_methods_of_one_seed_start_alike_and_see_the_same_order(finished):
    start = [load_rdms(finished / label / "seed-0" / "rdms.h5").subset("epoch", -1) for label in ("baseline", "rdl")]
    np.testing.assert_array_equal(start[0].dissimilarities, start[1].dissimilarities)
    other = load_rdms(finished / "baseline" / "seed-1" / "rdms.h5").subset("epoch", -1)
    assert not np.allclose(start[0].dissimilarities, other.dissimilarities)


def test_the_resolved_file_gives_the_same_run_to_the_bit(finished, tmp_path):
    out = tmp_path / "again"
    result = call("run", finished / "experiment.yaml", "--out", out, "--accelerator", "cpu", "--methods", "rdl")
    assert result.exit_code == 0, result.output
    for name in ("history.csv", "predictions.csv", "weights.safetensors"):
        first, second = (folder / "rdl" / "seed-1" / name for folder in (finished, out))
        assert first.read_bytes() == second.read_bytes(), name


def test_finished_parts_are_not_run_again_and_seeds_and_methods_extend(tmp_path):
    out = tmp_path / "run"
    file = write(tmp_path)
    first = call("run", file, "--out", out, "--methods", "baseline", "--seeds", "0", "--accelerator", "cpu")
    assert first.exit_code == 0, first.output
    weights = out / "baseline" / "seed-0" / "weights.safetensors"
    stamp = weights.stat().st_mtime_ns
    second = call("run", file, "--out", out, "--methods", "baseline,rdl", "--seeds", "0,2", "--accelerator", "cpu")
    assert second.exit_code == 0, second.output
    assert weights.stat().st_mtime_ns == stamp
    assert (out / "rdl" / "seed-2" / "predictions.csv").exists()
    stored = yaml.safe_load((out / "experiment.yaml").read_text())
    assert stored["seeds"] == [0, 2] and list(stored["methods"]) == ["baseline", "rdl"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("training.epochs=4", "training.epochs: 3 before, 4 now"),
        ("methods.rdl.alpha=5", "methods.rdl.alpha: 3.0 before, 5.0 now"),
        ("data.train=90", "data.train: 100 before, 90 now"),
    ],
)
def test_a_changed_setting_is_refused_by_its_name_and_nothing_is_overwritten(finished, tmp_path, change, told):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    result = call("run", write(tmp_path), "--out", finished, "--set", change)
    assert result.exit_code == 2 and told in result.output
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_a_part_that_was_made_with_other_settings_is_refused(finished, tmp_path):
    part = tmp_path / "run" / "rdl" / "seed-1"
    shutil.copytree(finished, tmp_path / "run")
    marks = json.loads((part / "part.json").read_text())
    marks["settings"]["training"]["epochs"] = 7
    (part / "part.json").write_text(json.dumps({key: marks[key] for key in ("finished", "settings", "files")}))
    result = call("run", write(tmp_path), "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 2
    told = f"{part} was made with other settings, nothing was changed in it: training.epochs: 7 before, 3 now; give"
    assert told in result.output.replace("\n", " "), result.output


def test_what_a_kind_of_run_does_not_say_is_told_to_its_writer(tmp_path):
    class Halfway(PartRunner):
        """Of someone who forgot."""

    run = Halfway(load_experiment(str(write(tmp_path))), tmp_path / "run", RunOptions())
    part = Part("rdl", 0, tmp_path / "run" / "rdl", {})
    with pytest.raises(TypeError, match="Halfway does not say how a part is run"):
        run.run_method(part, "rdl")
    with pytest.raises(TypeError, match="Halfway does not say how a part is trained"):
        run.training_of(part)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = call("run", write(tmp_path), "--out", tmp_path)
    assert result.exit_code == 2 and "not empty" in result.output
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_jobs_give_to_the_bit_what_parts_alone_give(tmp_path):
    file = write(tmp_path, {"training.threads": 2, "teacher.training.threads": 2})
    words = (sys.executable, "-c", UNDRAWN, "run", str(file), "--accelerator", "cpu", "--methods", "rdl")
    two = ("--jobs", "2", "--out", str(tmp_path / "jobs"))
    together = subprocess.run([*words, *two], capture_output=True, text=True)
    assert together.returncode == 0, together.stderr
    alone = ("--jobs", "1", "--seeds", "1", "--out", str(tmp_path / "alone"))
    assert subprocess.run([*words, *alone], capture_output=True, text=True).returncode == 0
    for name in ("history.csv", "predictions.csv", "weights.safetensors"):
        first, second = (tmp_path / run / "rdl" / "seed-1" / name for run in ("jobs", "alone"))
        assert first.read_bytes() == second.read_bytes(), name
    assert not list(tmp_path.rglob("patterns"))


class Dying:
    """A run whose process is gone as soon as it begins."""

    def run_part(self, part, title, show=True):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_lost_is_told_of(tmp_path, monkeypatch):
    parts = [Part(label, 0, tmp_path / label, {}) for label in ("a", "b")]
    told = "a process that trained was ended from outside .* go on with --resume, perhaps with fewer --jobs"
    another = get_context("spawn").Process(target=time.sleep, args=(60,))  # of a program that calls this
    another.start()
    try:
        with pytest.raises(WorkerLostError, match=told):
            list(in_processes(Dying, (), parts, 2))
        assert another.is_alive()
    finally:
        another.kill()
        another.join()

    def lost(*arguments):
        raise WorkerLostError("a process is gone")

    monkeypatch.setattr("brainrdl.experiment.run_experiment", lost)
    result = call("run", write(tmp_path), "--out", tmp_path / "run")
    assert result.exit_code == 1 and result.output.strip() == "error: a process is gone"


def test_threads_are_those_of_the_settings_and_put_back(tmp_path, monkeypatch):
    seen, before = [], torch.get_num_threads()
    method = task.TaskRun.run_method

    def look(self, part, title, show=True):
        seen.append((part.label, torch.get_num_threads()))
        return method(self, part, title, show)

    monkeypatch.setattr(task.TaskRun, "run_method", look)
    changes = {"training.threads": 2, "methods.rdl.training": {"threads": 1}, "training.epochs": 1}
    result = call("run", write(tmp_path, changes, seeds=[0]), "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    assert seen == [("baseline", 2), ("hints", 2), ("rdl", 1)] and torch.get_num_threads() == before


def test_as_many_jobs_as_cores_unless_told_otherwise(tmp_path, monkeypatch):
    experiment = load_experiment(str(write(tmp_path, {"training.threads": 2})))
    for cores, given, n in [(1, None, 1), (5, None, 2), (64, None, 8), (64, 3, 3)]:
        monkeypatch.setattr(task, "n_cores", lambda cores=cores: cores)
        run = task.TaskRun(experiment, tmp_path / "run", RunOptions(jobs=given, accelerator="cpu"))
        assert run.jobs([part for part in run._parts() if part.label == "rdl"]) == n


def test_fewer_training_images_are_a_part_of_all_and_the_rest_stays(tmp_path):
    methods = {"baseline": None, "few": {"method": "rdl", "n_train": 60, "layers": {"fc": "fc"}, "pairs": 100}}
    experiment = load_experiment(str(write(tmp_path, methods=methods)))
    images = task.TaskData(experiment)
    few, every = images.of_method("few"), images.of_method("baseline")
    assert len(few.train.ids) == 60 and set(few.train.ids) < set(every.train.ids)
    assert few.validation.ids == every.validation.ids and few.test.ids == every.test.ids
    # Of this data set's own test images there are none, and what is not learned from is not tested on.
    experiment = load_experiment(str(write(tmp_path, {"data.test": None}, methods=methods)))
    images = task.TaskData(experiment)
    assert images.of_method("few").test.ids == images.of_method("baseline").test.ids
    result = call("run", write(tmp_path, methods=methods, seeds=[0]), "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    timing = pd.read_csv(tmp_path / "run" / "few" / "seed-0" / "timing.csv")
    assert len(timing) == 3
    result = call("run", write(tmp_path, methods={"few": {**methods["few"], "n_train": 101}}), "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert "methods.few.n_train: 101 images are asked for, data.train has 100" in result.output
    assert not (tmp_path / "x").exists()


def test_the_teacher_looks_at_each_training_image_once_a_run(tmp_path, monkeypatch):
    """With its patterns kept the same is learned as with the teacher asked at every step."""
    file = write(tmp_path, methods={"rdl": SMALL["methods"]["rdl"], "kd": {"method": "distillation"}})
    result = call("run", file, "--out", tmp_path / "kept", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    monkeypatch.setattr(task.TaskRun, "keep_patterns", lambda self, todo: None)
    assert call("run", file, "--out", tmp_path / "asked", "--accelerator", "cpu").exit_code == 0
    for label in ("rdl", "kd"):
        kept, asked = (pd.read_csv(tmp_path / run / label / "seed-0" / "history.csv") for run in ("kept", "asked"))
        pd.testing.assert_frame_equal(kept, asked, rtol=1e-4)


def test_patterns_are_of_all_images_whichever_methods_are_left(tmp_path, monkeypatch):
    """What is looked at together decides on the last bits, and must not depend on what is finished already."""
    kept = []
    monkeypatch.setattr(task, "keep_patterns", lambda teacher, images, folder: kept.append(len(images.ids)))
    rdl = SMALL["methods"]["rdl"]
    experiment = load_experiment(
        str(write(tmp_path, methods={"rdl": rdl, "few": {**rdl, "method": "rdl", "n_train": 60}}))
    )
    run = task.TaskRun(experiment, tmp_path / "run", RunOptions(accelerator="cpu"))
    monkeypatch.setattr(run, "_make_teacher", lambda layers: None)
    parts = [part for part in run._parts() if part.label != "teacher"]
    run.keep_patterns(parts)
    run.keep_patterns([part for part in parts if part.label == "few"])
    assert kept == [100, 100]


def test_ctrl_c_stops_after_saving_and_the_run_can_go_on(tmp_path):
    # Long enough that the signal comes in the middle of a training.
    file = write(tmp_path, {"training.epochs": 400, "analysis.every": 0, "analysis.test_every": 400})
    out = tmp_path / "run"
    words = [sys.executable, "-m", "brainrdl", "run", str(file), "--out", str(out), "--accelerator", "cpu"]
    words += ["--methods", "rdl", "--seeds", "0"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = out / "rdl" / "seed-0" / "checkpoint" / "last.pt"
    while not checkpoint.exists() and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130 and "--resume" in told and "Traceback" not in told, told
    state = load_checkpoint(checkpoint)
    assert 0 < state["epoch"] < 400

    refused = call("run", file, "--out", out, "--methods", "rdl", "--seeds", "0")
    assert refused.exit_code == 2 and "unfinished" in refused.output and "--resume" in refused.output


def test_an_interrupted_run_ends_as_an_uninterrupted_one(finished, tmp_path, monkeypatch):
    from brainrdl.experiment import task as module

    class Interrupted(module.Trainer):
        def fit(self, *args, **kwargs):
            for number, record in enumerate(super().fit(*args, **kwargs)):
                yield record
                if self.seed == 1 and number == 1:
                    raise KeyboardInterrupt

    monkeypatch.setattr(module, "Trainer", Interrupted)
    out, file = tmp_path / "run", write(tmp_path)
    words = ("run", file, "--out", out, "--methods", "hints", "--accelerator", "cpu")
    assert call(*words).exit_code == 130
    monkeypatch.undo()
    result = call(*words, "--resume")
    assert result.exit_code == 0, result.output
    for name in ("history.csv", "predictions.csv", "weights.safetensors"):
        first, second = (folder / "hints" / "seed-1" / name for folder in (finished, out))
        assert first.read_bytes() == second.read_bytes(), name
    first, second = (load_rdms(folder / "hints" / "seed-1" / "rdms.h5") for folder in (finished, out))
    np.testing.assert_array_equal(first.dissimilarities, second.dissimilarities)


def test_rdms_that_lack_an_epoch_are_not_added_to(finished, tmp_path):
    out, part = tmp_path / "run", tmp_path / "run" / "baseline" / "seed-0"
    shutil.copytree(finished, out)
    marks = json.loads((part / "part.json").read_text())
    (part / "part.json").write_text(json.dumps({"finished": False, "settings": marks["settings"]}))
    save_rdms(load_rdms(part / "rdms.h5").subset("epoch", [-1, 2]), part / "rdms.h5")
    words = ("run", write(tmp_path), "--out", out, "--accelerator", "cpu", "--resume")
    result = call(*words, "--methods", "baseline", "--seeds", "0")
    assert result.exit_code == 2, result.output
    told = f"{part / 'rdms.h5'}: the RDMs of epoch 1 are missing; delete the folder {part} and run the experiment again"
    assert told in result.output.replace("\n", " "), result.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"training.epoch": 3}, r"training.epoch: unknown key; did you mean 'epochs'\?"),
        ({"methods.rdl.pair": 5}, r"methods.rdl.pair: unknown key; did you mean 'pairs'\?"),
        ({"methods.rdl.dissimilarity": "euclidian"}, "methods.rdl.dissimilarity: input should be 'euclidean'"),
        ({"methods.rdl.method": ["rdl"]}, r"methods.rdl: unknown method '\['rdl'\]'"),
        ({"methods.rdll": {}}, r"methods.rdll: unknown method 'rdll'; did you mean 'rdl'\?"),
        ({"methods.rdl.layers": {"pool9": "pool1"}}, "layer 'pool9' is not in the student"),
        ({"methods.rdl.layers": {"pool1": "pool9"}}, "layer 'pool9' is not in the teacher"),
        ({"analysis.layers": ["nowhere"]}, "layer 'nowhere' is not in the student"),
        ({"student.network": "mnist_cn"}, "unknown network 'mnist_cn'; did you mean 'mnist_cnn'"),
        ({"student.network": "my.nets:Net"}, "--allow-code"),
        ({"student.arguments": {"image_size": 28}}, "student of 'baseline'.*cannot take images of shape"),
        ({"student.arguments.n_classes": 4}, "gives shape .2, 4.*10 classes"),
        ({"data.spec": "digitz"}, "digitz.*digits"),
        ({"data.train": 5000}, "5000"),
        ({"training.batch_size": 101}, "methods.baseline: 100 training images are fewer than a batch of 101"),
        ({"training.accumulate": 51}, "methods.baseline: training.accumulate: expected at least 1 part.* got 51 parts"),
        ({"teacher.training.accumulate": 51}, "teacher: training.accumulate: expected at least 1 part.* got 51 parts"),
        ({"training.checkpoint_activations": ["pool9"]}, r"'pool9' is not in the network of methods.*checkpoint_act"),
        ({"methods.rdl.reduce": {"fc": {"project": 10**6}}}, r"methods.rdl.reduce: layer 'fc' has \d+ units: expected"),
        (
            {"methods.rdl.reduce": {"fc": {"pool": 1}}, "methods.rdl.discrepancy": "correlation"},
            "methods.rdl.reduce: layer 'fc' gives shape .*expected feature maps .* to pool; use project or units",
        ),
        ({"training.batch_size": 0}, "training.batch_size.*greater than or equal to 1"),
        ({"teacher": None}, "needs a teacher"),
        ({"teacher.weights": "nowhere.safetensors"}, "either weights .* or training"),
        ({"seeds": [0, 0]}, r"seeds: expected different numbers from 0 to 2147483647, got \[0, 0\]"),
        ({"seeds": [2**40]}, r"seeds: expected different numbers from 0 to 2147483647, got \[1099511627776\]"),
        ({"name": "../elsewhere"}, "name '../elsewhere' cannot be a folder's name"),
        ({"data.validation": 0, "training.keep": "best"}, "need validation images: data.validation > 0"),
        ({"analysis.n_per_class": 1000}, "n_per_class: 1000 test images"),
        ({"student.arguments": {"image_size": 9}}, "small.yaml: network 'mnist_cnn' cannot be made"),
        ({"student.preprocess": {"size": [0, 8]}}, "student.preprocess.size.0: input should be greater than 0"),
        ({"methods.baseline": {"training": {"epoch": 1}}}, r"methods.baseline.training.epoch: unknown key; did you"),
        ({"methods": {}}, "methods: expected at least one"),
        ({"training.learning_rate": "fast"}, "training.learning_rate.*number.*'fast'"),
        ({"teacher.data": SMALL["data"]}, "teacher: a teacher learns from either data or deformed, not from both"),
        (
            {"methods.rdl.data": "deformed", "teacher.deformed": None},
            "method 'rdl' trains on deformed images; say how under teacher.deformed",
        ),
    ],
)
def test_wrong_settings_are_told_in_one_message(tmp_path, change, told):
    result = call("run", write(tmp_path, change), "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 2, result.output
    message = result.output.strip()
    assert re.search(told, message, flags=re.DOTALL), message
    assert "\n" not in message and "Traceback" not in message


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--accelerator", "abacus"], "abacus"),
        (["--seeds", "0,one"], "whole numbers separated by commas"),
        (["--methods", "magic"], "no method 'magic'; it has: baseline, hints, rdl"),
        (["--set", "training"], "expected key.path=value"),
        (["--set", "training.epochs=[1"], r"--set training.epochs=.1: '.1' is no YAML value \(while|expected|\)"),
        (["--set", "name=" + "[" * 3000], r"--set name=[\[]+\.\.\.: .* is no YAML value \(nested more than 50 deep"),
        (["--set", "x=&a [*a]"], r"is no YAML value \(an alias stands inside what it stands for\); quote it"),
        (["--set", "training.epochs.more=1"], "'epochs' in .* holds a value"),
        (["--precision", "7-bits"], "precision"),
        (["--precision", "16"], "precision: expected 32-true, 16-mixed or bf16-mixed .*, got '16'"),
        (
            ["--devices", "100000"],
            "batch_size: a batch of .* cannot be shared by 100000 processes; raise it, or take f",
        ),
        (["--nodes", "2"], "× 1 × 2 nodes.*processes on other machines are not started from here; start by torchrun"),
    ],
)
def test_wrong_options_are_told_in_one_message(tmp_path, words, told):
    result = call("run", write(tmp_path), "--out", tmp_path / "run", *words)
    assert result.exit_code == 2 and re.search(told, result.output), result.output


def test_a_file_that_is_no_experiment(tmp_path):
    for text, told in (("a: [", "not valid YAML"), ("- 1", "expected 'key: value' lines"), ("", "an empty file")):
        file = tmp_path / "broken.yaml"
        file.write_text(text)
        result = call("run", file)
        assert result.exit_code == 2 and told in result.output and str(file) in result.output.replace("\n", "")
    assert call("run", tmp_path / "missing.yaml").exit_code == 2


def test_a_full_disk_loses_nothing_that_was_there(tmp_path):
    """A file-size limit stands for a disk without room: writing fails in the middle of a file."""
    file, out = write(tmp_path), tmp_path / "run"
    words = ["run", str(file), "--out", str(out), "--accelerator", "cpu", "--methods", "baseline", "--seeds", "0"]
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2); "
        "from brainrdl.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", limited, "40000", *words], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "make room" in done.stderr
    assert not list(out.rglob("*draft*"))
    again = call(*words, "--resume")
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, ": make room, then go on"),
        (errno.EDQUOT, ": make room, then go on"),
        (errno.EACCES, ": choose a place that you may read and write, then go on"),
        (errno.EROFS, ": choose a place that can be written, or copy the run to one, then go on"),
        (errno.EIO, ""),
    ],
)
def test_an_error_of_the_system_names_the_file_and_says_what_helps(capsys, number, remedy):
    with pytest.raises(typer.Exit) as end, telling.told(SimpleNamespace(obj=None)):
        raise OSError(number, os.strerror(number), "history.csv")
    assert end.value.exit_code == 1
    said = f"error: history.csv: {os.strerror(number)}; nothing that was finished is lost{remedy}\n"
    assert capsys.readouterr().err == said


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        result = call("run", write(tmp_path), "--out", out, "--accelerator", "cpu")
        assert result.exit_code == 2 and "expected a folder, or a place for one, got a file" in result.output
    assert (tmp_path / "file").read_text() == ""


def test_a_loss_that_is_no_longer_finite_stops_the_run_and_keeps_what_was_there(tmp_path):
    file = write(tmp_path, {"training.learning_rate": 1e18, "training.clip": None})
    result = call("run", file, "--out", tmp_path / "run", "--methods", "baseline", "--accelerator", "cpu")
    assert result.exit_code == 1
    assert "epoch 0, step" in result.output and "lower the learning rate" in result.output
    assert (tmp_path / "run" / "teacher" / "weights.safetensors").exists()


def test_a_teacher_from_a_file_is_taken_as_it_is(finished, tmp_path):
    teacher = {key: SMALL["teacher"][key] for key in ("network", "arguments")}
    weights = finished / "teacher" / "weights.safetensors"
    file = write(tmp_path, teacher={**teacher, "weights": str(weights)})
    result = call("run", file, "--out", tmp_path / "run", "--methods", "rdl", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "teacher" / "weights.safetensors").read_bytes() == weights.read_bytes()
    first, second = (folder / "rdl" / "seed-0" / "predictions.csv" for folder in (finished, tmp_path / "run"))
    assert first.read_bytes() == second.read_bytes()


def test_weights_that_finetuning_cannot_take_over_are_said(finished, tmp_path):
    teacher = {key: SMALL["teacher"][key] for key in ("network", "arguments")}
    teacher["weights"] = str(finished / "teacher" / "weights.safetensors")
    changes = {"student.arguments.n_hidden": 9, "training.epochs": 1}
    file = write(tmp_path, changes, teacher=teacher, methods={"finetuning": None}, seeds=[0])
    result = call("run", file, "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    copied = json.loads((tmp_path / "run" / "finetuning" / "seed-0" / "copied.json").read_text())
    assert "conv1.0.weight" in copied["copied"] and "readout.weight" in copied["not_copied"]
    told = f"finetuning, seed 0: weights not copied from the teacher: {', '.join(copied['not_copied'])}"
    assert told in result.output.replace("\n", " "), result.output


def test_combined_methods_and_deformed_training(tmp_path):
    file = write(
        tmp_path,
        methods={
            "both": {
                "method": "combined",
                "parts": [
                    {"method": "rdl", "layers": {"fc": "fc"}, "pairs": 50},
                    {"method": "distillation", "alpha": 0.5},
                ],
            },
            "rkd": {"layers": {"fc": "fc"}, "alpha": 0.1},
            "similarity_preserving": {"layers": {"pool2": "pool2"}, "alpha": 30.0},
            "cka": {"layers": {"pool2": "pool2", "fc": "fc"}, "unbiased": True, "decay": "linear"},
            "deformed": {"method": "baseline", "data": "deformed", "training": {"epochs": 1}},
        },
        seeds=[0],
    )
    result = call("run", file, "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    history = pd.read_csv(tmp_path / "run" / "both" / "seed-0" / "history.csv")
    assert {"rdl/fc", "distillation/output", "alpha/rdl", "alpha/distillation"} <= set(history.columns)
    for method, terms in {
        "rkd": ["rkd/fc/distance", "rkd/fc/angle"],
        "similarity_preserving": ["similarity_preserving/pool2"],
        "cka": ["cka/pool2", "cka/fc"],
    }.items():
        history = pd.read_csv(tmp_path / "run" / method / "seed-0" / "history.csv")
        assert len(history) == 3 and (history[terms] > 0).all(axis=None)
    assert history["alpha"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert len(pd.read_csv(tmp_path / "run" / "deformed" / "seed-0" / "history.csv")) == 1


def test_patience_and_best_weights(tmp_path):
    file = write(tmp_path, {"training.epochs": 30, "training.patience": 2, "training.keep": "best"})
    result = call(
        "run", file, "--out", tmp_path / "run", "--methods", "baseline", "--seeds", "0", "--accelerator", "cpu"
    )
    assert result.exit_code == 0, result.output
    history = pd.read_csv(tmp_path / "run" / "baseline" / "seed-0" / "history.csv")
    best = history["validation_error"].idxmin()
    assert len(history) == best + 3 < 30
    predictions = pd.read_csv(tmp_path / "run" / "baseline" / "seed-0" / "predictions.csv")
    assert (predictions["label"] != predictions["predicted"]).mean() == pytest.approx(history["test_error"][best])


def test_an_image_folder_of_ones_own_with_a_file_of_twenty_lines(tmp_path):
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for k, (image, label) in enumerate(zip(digits.images[:400], digits.target[:400], strict=True)):
        if label < 4:
            folder = tmp_path / "mine" / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype(np.uint8)).resize((16, 16)).save(folder / f"{k}.png")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntitle: Own images\nformat: image_folder\n"
        f"folder: {tmp_path / 'mine'}\nchannels: 1\nsource: {{publisher: me}}\n"
    )
    experiment = f"""
name: mine
data: {{spec: {tmp_path / "mine.yaml"}, train: 60, validation: 30}}
student:
  network: torchvision:resnet18
  arguments: {{num_classes: 4}}
  preprocess: {{size: [32, 32], channels: 3}}
teacher:
  network: mnist_cnn
  arguments: {{image_size: 16, kernel_size: 3, n_classes: 4}}
  training: {{epochs: 1, batch_size: 20}}
training: {{epochs: 1, batch_size: 20, clip: 2.0}}
methods:
  baseline:
  rdl:
    layers: {{layer1: pool1, avgpool: fc}}
    discrepancy: correlation
analysis: {{layers: [layer1], n_per_class: 3}}
"""
    assert len(experiment.strip().splitlines()) <= 20
    file = tmp_path / "experiment.yaml"
    file.write_text(experiment)
    assert call("check", tmp_path / "mine.yaml").exit_code == 0
    result = call("run", file, "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    assert np.isfinite(pd.read_csv(tmp_path / "run" / "rdl" / "seed-0" / "history.csv")["rdl/avgpool"]).all()


def test_a_short_version_of_the_mnist_experiment_on_the_real_digits(tmp_path, real_data):
    real_data("MNIST/raw")
    changes = [
        "data.train=1000", "data.validation=200", "data.test=500", "teacher.deformed.train=2000",
        "teacher.deformed.validation=100", "teacher.training.epochs=1", "training.epochs=1", "seeds=[0]",
        "methods.hints.hint_epochs=1", "methods.baseline_deformed.training.epochs=1",
    ]  # fmt: skip
    run_experiment(load_experiment("mnist", changes), tmp_path / "run", RunOptions(accelerator="cpu", jobs=1))
    history = pd.read_csv(tmp_path / "run" / "rdl" / "seed-0" / "history.csv")
    assert np.isfinite(history[["task", "rdl/pool1", "rdl/pool2", "rdl/fc"]]).all(axis=None)
    finetuned = pd.read_csv(tmp_path / "run" / "finetuning" / "seed-0" / "history.csv")["test_error"].iloc[-1]
    baseline = pd.read_csv(tmp_path / "run" / "baseline" / "seed-0" / "history.csv")["test_error"].iloc[-1]
    assert finetuned < baseline  # the teacher has seen more


def test_a_folder_called_like_a_built_in_experiment_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_experiment("digits").name == "digits"


def test_what_stands_in_a_message_can_do_nothing_to_a_terminal(tmp_path):
    result = call("run", write(tmp_path), "--methods", "\x1b[31mred\n" + "x" * 5000, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "no method '\\x1b[31mred\\nxxx" in result.output
    assert len(result.output) < 1300
    assert len(result.output.splitlines()) == 1


def test_a_path_that_cannot_be_is_wrong_input(tmp_path):
    for words in (("check", "a" * 300), ("run", str(tmp_path / ("b" * 300 + ".yaml")))):
        result = call(*words)
        assert result.exit_code == 2, result.output
        assert re.search(r"error: .*(aaa|bbb).*File name too long", result.output)
