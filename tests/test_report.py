from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import RDMs, calc_rdm, load_rdm

from brainrdl.analysis import save_rdms
from brainrdl.report import results_table, write_report
from brainrdl.report import task as report

LAYERS = ("conv1", "conv2", "fc", "softmax")
# method -> (its test error, how far its fc layer lies towards the teacher's)
METHODS = {"baseline": (0.10, 0.0), "finetuning": (0.07, 0.9), "rdl": (0.06, 0.6)}


def synthetic_run(
    folder, methods=METHODS, seeds=(0, 1, 2), n_test=400, n_classes=10, n_epochs=8, names=None, n_figure=100
):
    """A run directory as an experiment leaves it, out of random but structured networks."""
    random = np.random.default_rng(0)
    names = names or [str(k) for k in range(n_classes)]
    ids = [f"synthetic/{k:04d}" for k in range(n_test)]
    labels = np.arange(n_test) % n_classes
    figure_labels = random.permutation(np.repeat(np.arange(n_classes), n_figure // n_classes))
    stimuli = {
        "stimulus": [f"synthetic/{k:04d}" for k in range(len(figure_labels))],
        "label": figure_labels.tolist(),
        "category": [names[k] for k in figure_labels],
    }
    folder.mkdir(parents=True)
    experiment = {"name": "synthetic", "methods": {name: {} for name in methods}, "seeds": list(seeds), "data": {}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))

    pixels = random.normal(size=(len(figure_labels), 60)) + 0.3 * random.normal(size=(n_classes, 60))[figure_labels]
    one_hot = np.eye(n_classes)[figure_labels]
    references = [(pixels, "pixels", "pixels", -1), (one_hot, "labels", "labels", -1)]
    save_rdms(_rdms(references, stimuli), folder / "references.h5")

    class_means = random.normal(size=(n_classes, 60))[figure_labels]
    shared = {layer: random.normal(size=pixels.shape) for layer in LAYERS}

    def network(name, pull, epochs):
        rows = []
        for epoch in epochs:
            learned = 1.0 if epoch == epochs[-1] else 0.2
            for depth, layer in enumerate(LAYERS):
                share = learned * (depth + 1) / len(LAYERS)
                own = random.normal(size=pixels.shape)
                noise = pull * shared[layer] + (1 - pull) * own
                patterns = (1 - share) * pixels + share * (1.5 * class_means + 0.8 * noise)
                if layer == "softmax":
                    logits = 6 * (one_hot + 0.25 * random.normal(size=one_hot.shape))
                    patterns = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                rows.append((patterns, name, layer, epoch))
        return _rdms(rows, stimuli)

    def predictions(error):
        wrong = random.random(n_test) < error
        predicted = np.where(wrong, (labels + 1) % n_classes, labels)
        order = random.permutation(n_test)
        return pd.DataFrame({"stimulus": ids, "label": labels, "predicted": predicted}).iloc[order]

    teacher = folder / "teacher"
    teacher.mkdir()
    predictions(0.03).to_csv(teacher / "predictions.csv", index=False)
    save_rdms(network("teacher", 1.0, [0]), teacher / "rdms.h5")
    for method, (error, pull) in methods.items():
        for seed in seeds:
            part = folder / method / f"seed-{seed}"
            part.mkdir(parents=True)
            predictions(error).to_csv(part / "predictions.csv", index=False)
            save_rdms(network(method, pull, [-1, n_epochs - 1]), part / "rdms.h5")
            epoch = np.arange(n_epochs)
            decay = 0.8 * np.exp(-6 * epoch / n_epochs) * random.uniform(0.9, 1.1)
            history = pd.DataFrame({"stage": 0, "epoch": epoch, "learning_rate": 0.1, "task": decay, "alpha": 1.0})
            history["train_error"] = np.where(epoch > 0.8 * n_epochs, 0, decay / 3)
            history["validation_error"] = history["test_error"] = decay + error * random.uniform(0.9, 1.1)
            history.to_csv(part / "history.csv", index=False)
    return folder


def _rdms(rows, stimuli):
    vectors = np.concatenate([calc_rdm(Dataset(patterns), method="euclidean").dissimilarities for patterns, *_ in rows])
    descriptors = {name: [row[k] for row in rows] for k, name in enumerate(("network", "layer", "epoch"), start=1)}
    return RDMs(vectors, "euclidean", rdm_descriptors=descriptors, pattern_descriptors=dict(stimuli))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = synthetic_run(tmp_path_factory.mktemp("runs") / "run", n_figure=30)
    return folder, write_report(folder)


@pytest.fixture
def run(tmp_path, finished):
    """A copy of the run, without its report, to be damaged."""
    shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    return tmp_path / "run"


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr(report, "_draw", lambda run, out, formats: ((), ()))


def error_of(part):
    frame = pd.read_csv(part / "predictions.csv")
    return (frame["label"] != frame["predicted"]).mean()


# a finished run


def test_the_report_is_tables_and_three_figures(finished):
    folder, files = finished
    names = {path.name for path in (folder / "report").iterdir()}
    figures = {
        f"{name}.{suffix}" for name in ("errors_vs_epoch", "rdm_grid", "second_order_mds") for suffix in ("png", "pdf")
    }
    assert names == figures | {"results.csv", "results.md", "mcnemar.csv", "mcnemar.md"}
    assert {path.name for path in files.figures} == figures
    assert all(path.stat().st_size > 1000 for path in files.figures)
    assert files.notes == ()


def test_results_are_the_errors_in_the_predictions(finished):
    folder, files = finished
    table = pd.read_csv(files.results_csv).set_index("method")
    assert list(table.index) == [*METHODS, "teacher"]
    for method in METHODS:
        errors = [error_of(folder / method / f"seed-{seed}") for seed in (0, 1, 2)]
        assert table.loc[method, "mean"] == pytest.approx(np.mean(errors))
        assert table.loc[method, "std"] == pytest.approx(np.std(errors, ddof=1))
        assert table.loc[method, "n_seeds"] == 3
    assert table.loc["teacher", "mean"] == pytest.approx(error_of(folder / "teacher"))
    assert table["missing_seeds"].isna().all()


def test_mcnemar_has_a_row_a_pair_a_seed(finished):
    table = pd.read_csv(finished[1].mcnemar_csv)
    assert len(table) == 3 * 6  # seeds x pairs of three methods and the teacher
    assert set(table["seed"]) == {0, 1, 2}
    assert (table["n_stimuli"] == 400).all()


def test_results_md_says_in_plain_words_what_was_compared(finished):
    folder, files = finished
    text = files.results_md.read_text(encoding="utf-8")
    teacher = 100 * error_of(folder / "teacher")
    for line in (
        "- Compared: baseline, finetuning, rdl;",
        "- Seeds: 0, 1, 2.",
        "- Test set: 400 images",
        f"- Teacher: one network for all seeds, wrong on {teacher:.2f} % of the test images.",
        "One teacher serves all seeds, so the variance between teachers is not in the intervals.",
        "McNemar's test is made within each seed, is uncorrected, and is never pooled over seeds.",
        "(rdm_grid.png)",
    ):
        assert line in text
    assert "nan" not in text.lower()
    errors = [100 * error_of(folder / "rdl" / f"seed-{seed}") for seed in (0, 1, 2)]
    assert f"| rdl | 3 | {np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} |" in text


def test_mcnemar_md_holds_the_papers_table_and_explains_it(finished):
    text = finished[1].mcnemar_md.read_text(encoding="utf-8")
    assert "| | baseline | finetuning | rdl | teacher |" in text
    assert "never pooled" in text
    assert "uncorrected" in text
    assert "↑" in text and "←" in text


def test_the_tables_are_the_same_when_written_again(finished, run, without_figures):
    first, again = finished[1], write_report(run)
    for name in ("results_csv", "mcnemar_csv", "mcnemar_md"):
        assert getattr(again, name).read_bytes() == getattr(first, name).read_bytes()


def test_results_table_is_text_to_print(finished):
    table = results_table(str(finished[0]))
    assert list(table["method"]) == [*METHODS, "teacher"]
    assert table.map(lambda cell: isinstance(cell, str)).all(axis=None)
    assert list(table["seeds"]) == ["3", "3", "3", "one network"]
    assert table.loc[0, "difference to baseline"] == "—"
    assert table.loc[2, "difference to baseline"].startswith("−")


# what the figures are given


def test_the_figures_show_the_last_epoch_of_the_first_seed(finished):
    folder, _ = finished
    rdms, notes = report._final_rdms(report._read_run(folder))
    assert notes == []
    assert list(dict.fromkeys(rdms.rdm_descriptors["network"])) == ["pixels", "labels", *METHODS, "teacher"]
    for method in METHODS:
        saved = load_rdm(str(folder / method / "seed-0" / "rdms.h5")).subset("epoch", 7)
        np.testing.assert_array_equal(rdms.subset("network", method).dissimilarities, saved.dissimilarities)
        assert list(rdms.subset("network", method).rdm_descriptors["layer"]) == list(LAYERS)


def test_a_network_still_in_training_is_not_shown(run):
    (run / "rdl" / "seed-0" / "predictions.csv").unlink()
    rdms, notes = report._final_rdms(report._read_run(run))
    assert "rdl" not in rdms.rdm_descriptors["network"]
    assert notes == ["rdm_grid, second_order_mds: rdl (seed 0 is not finished)"]


# a partly finished run


def test_missing_seeds_are_said(run, without_figures):
    shutil.rmtree(run / "rdl" / "seed-2")
    (run / "finetuning" / "seed-0" / "predictions.csv").unlink()
    (run / "finetuning" / "seed-1" / "predictions.csv").unlink()
    files = write_report(run)
    text = files.results_md.read_text(encoding="utf-8")
    assert "- Not finished: rdl, seed 2." in text
    assert "- Not finished: finetuning, seeds 0, 1." in text
    table = pd.read_csv(files.results_csv, dtype=str).set_index("method")
    assert table.loc["finetuning", "missing_seeds"] == "0 1"
    assert table.loc["rdl", "n_paired"] == "2"
    mcnemar = pd.read_csv(files.mcnemar_csv)
    assert set(mcnemar.loc[mcnemar["method_a"] == "finetuning", "seed"]) == {2}


def test_a_method_that_has_not_begun_is_left_out_of_the_table(run, without_figures):
    shutil.rmtree(run / "rdl")
    text = write_report(run).results_md.read_text(encoding="utf-8")
    assert "test error of 2 training methods" in text
    assert "- Not finished: rdl, seeds 0, 1, 2." in text
    assert "| rdl |" not in text


def test_one_seed_shows_dashes_and_never_nan(tmp_path, without_figures):
    folder = synthetic_run(tmp_path / "run", seeds=(4,), n_figure=20)
    text = write_report(folder).results_md.read_text(encoding="utf-8")
    assert "One seed: no spread and no interval (—)." in text
    row = next(line for line in text.splitlines() if line.startswith("| rdl |"))
    assert row.split(" | ")[3] == "—"
    assert row.endswith("| — | — |")
    assert "nan" not in text.lower()
    assert results_table(folder).map(lambda cell: "nan" not in cell.lower()).all(axis=None)


def test_without_a_baseline_no_difference_is_given_and_that_is_said(run, without_figures):
    shutil.rmtree(run / "baseline")
    files = write_report(run)
    text = files.results_md.read_text(encoding="utf-8")
    assert "There is no finished method 'baseline', so there are no differences to it." in text
    assert (results_table(run)["difference to baseline"] == "—").all()


def test_without_a_teacher_tested_on_these_images_that_is_said(run, without_figures):
    (run / "teacher" / "predictions.csv").unlink()
    files = write_report(run)
    text = files.results_md.read_text(encoding="utf-8")
    assert "- Teacher: its predictions on these test images are not part of this run." in text
    assert "teacher" not in set(results_table(run)["method"])
    assert len(pd.read_csv(files.mcnemar_csv)) == 3 * 3


def test_one_finished_network_has_no_mcnemar_table(run, without_figures):
    shutil.rmtree(run / "teacher")
    shutil.rmtree(run / "rdl")
    shutil.rmtree(run / "finetuning")
    files = write_report(run)
    assert "Only one network is finished" in files.mcnemar_md.read_text(encoding="utf-8")
    assert pd.read_csv(files.mcnemar_csv).empty


def test_what_cannot_be_drawn_is_noted_and_the_rest_is_drawn(run):
    (run / "teacher" / "rdms.h5").unlink()
    for history in run.glob("*/*/history.csv"):
        history.unlink()
    path = run / "rdl" / "seed-0" / "rdms.h5"
    rdms = load_rdm(str(path))
    rdms.dissimilarities[-2] = 0  # a dead layer in the last epoch: fc
    save_rdms(rdms, path)
    files = write_report(run, formats=("png",))
    assert {path.name for path in files.figures} == {"rdm_grid.png", "second_order_mds.png"}
    assert files.notes == (
        "errors_vs_epoch: no finished part has a history.csv",
        "rdm_grid, second_order_mds: teacher (teacher/rdms.h5 is missing)",
        "second_order_mds: RDM 12 (network 'rdl', layer 'fc') is constant (all dissimilarities are 0)",
    )
    text = files.results_md.read_text(encoding="utf-8")
    assert all(f"- {note}" in text for note in files.notes)


def test_rdms_that_cannot_be_compared_are_noted(run):
    for path in run.glob("**/rdms.h5"):
        rdms = load_rdm(str(path))
        rdms.dissimilarities[:] = 1
        save_rdms(rdms, path)
    (run / "references.h5").unlink()
    files = write_report(run, formats=("png",))
    assert {path.name for path in files.figures} == {"errors_vs_epoch.png", "rdm_grid.png"}
    assert files.notes[-1] == "second_order_mds: expected at least 3 RDMs to compare, got 0"


def test_without_any_rdms_the_curves_remain(run):
    for path in run.glob("**/*.h5"):
        path.unlink()
    files = write_report(run, formats=("png",))
    assert {path.name for path in files.figures} == {"errors_vs_epoch.png"}
    assert files.notes == ("rdm_grid, second_order_mds: no finished part has an rdms.h5",)


# what is no run


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"is no run: it has no experiment.yaml; give the folder that `brainrdl run` wrote"
    ):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="absent' is no run"):
        results_table(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [", "experiment.yaml: not valid YAML in line 1"),
        ("- a list", "experiment.yaml: expected 'key: value' lines"),
        ("methods: {rdl: {}}", r"experiment.yaml: expected the keys methods \(label: settings\) and seeds"),
        ("methods: 3\nseeds: [0]", "experiment.yaml: expected the keys methods"),
        ("methods: {}\nseeds: [a]", "experiment.yaml: expected the keys methods"),
    ],
)
def test_a_damaged_experiment_file_is_refused(tmp_path, text, message):
    (tmp_path / "experiment.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path)


def test_a_run_without_a_finished_part_is_refused(run):
    for path in run.glob("*/*/predictions.csv"):
        path.unlink()
    with pytest.raises(ValueError, match="has no finished part yet"):
        write_report(run)
    assert not (run / "report").exists()


def test_damaged_tables_are_refused_by_name(run):
    path = run / "rdl" / "seed-1" / "predictions.csv"
    whole = path.read_text()
    for text, message in (
        ("stimulus,label\na,1\n", "column 'predicted' is missing; expected stimulus, label, predicted"),
        ("stimulus,label,predicted\n", "it has no rows; expected stimulus, label, predicted"),
        ("", "is not a table"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"rdl/seed-1/predictions.csv'.*{message}"):
            results_table(run)
    path.write_text(whole.replace("synthetic/0003", "other"))
    with pytest.raises(
        ValueError, match="predictions of 'rdl', seed 1 and predictions of 'baseline', seed 0 are not on"
    ):
        write_report(run)


def test_rdms_of_other_stimuli_or_without_descriptors_are_refused(run, finished):
    path = run / "rdl" / "seed-0" / "rdms.h5"
    rdms = load_rdm(str(path))
    rdms.pattern_descriptors["stimulus"][0] = "other"
    save_rdms(rdms, path)
    with pytest.raises(ValueError, match="not over the same stimuli: 2 differ"):
        report._final_rdms(report._read_run(run))
    del rdms.rdm_descriptors["epoch"]
    save_rdms(rdms, path)
    with pytest.raises(ValueError, match=r"rdl/seed-0/rdms.h5': the rdm_descriptor 'epoch' is missing"):
        report._final_rdms(report._read_run(run))


def test_unknown_formats_are_refused_before_anything_is_written(run):
    with pytest.raises(ValueError, match="unknown figure format 'bmp'"):
        write_report(run, formats=("bmp",))
    assert not (run / "report").exists()


def test_stimulus_ids_that_look_like_numbers_or_gaps_stay_text(run):
    path = run / "baseline" / "seed-0" / "predictions.csv"
    path.write_text("stimulus,label,predicted\n007,1,1\nNA,2,2\n")
    frame = report._read_csv(path, ("stimulus", "label", "predicted"))
    assert list(frame["stimulus"]) == ["007", "NA"]
