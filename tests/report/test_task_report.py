from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from rsatoolbox.rdm import load_rdm

from brainrdl.analysis import save_rdms
from brainrdl.report import results_table, write_report
from brainrdl.report.run_files import read_predictions
from brainrdl.report.task_run import final_rdms, logged_rdms, read_task_run

LAYERS = ("conv1", "conv2", "fc", "softmax")
METHODS = ("baseline", "finetuning", "rdl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, synthetic_run):
    folder = synthetic_run(tmp_path_factory.mktemp("runs") / "run", n_figure=30)
    return folder, write_report(folder, formats=("png",))


@pytest.fixture
def run(tmp_path, finished):
    """A copy of the run, without its report, to be damaged."""
    shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    return tmp_path / "run"


def error_of(part):
    frame = pd.read_csv(part / "predictions.csv")
    return (frame["label"] != frame["predicted"]).mean()


# a finished run


def test_the_report_is_tables_figures_and_a_page(finished):
    folder, files = finished
    names = {path.name for path in (folder / "report").iterdir()}
    drawn = ("errors_vs_epoch", "curves", "rdm_grid", "second_order_mds", "training")
    figures = {f"{name}.png" for name in drawn}
    tables = {"results.csv", "results.md", "per_seed.csv", "mcnemar.csv", "mcnemar.md"}
    assert names == figures | tables | {"report.html"}
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
    rdms, notes = final_rdms(read_task_run(folder))
    assert notes == []
    assert list(dict.fromkeys(rdms.rdm_descriptors["network"])) == ["pixels", "labels", *METHODS, "teacher"]
    for method in METHODS:
        saved = load_rdm(str(folder / method / "seed-0" / "rdms.h5")).subset("epoch", 7)
        np.testing.assert_array_equal(rdms.subset("network", method).dissimilarities, saved.dissimilarities)
        assert list(rdms.subset("network", method).rdm_descriptors["layer"]) == list(LAYERS)


def test_a_network_still_in_training_is_not_shown(run):
    (run / "rdl" / "seed-0" / "predictions.csv").unlink()
    rdms, notes = final_rdms(read_task_run(run))
    assert "rdl" not in rdms.rdm_descriptors["network"]
    assert notes == ["rdl (seed 0 is not finished)"]


def test_logged_rdms_are_all_epochs_of_one_seed_with_references_and_teacher(run):
    (run / "rdl" / "seed-1" / "predictions.csv").unlink()  # still in training
    task_run = read_task_run(run)
    for seed, first in ((None, 0), (1, 1)):
        rdms = logged_rdms(task_run, seed)
        networks = np.array(rdms.rdm_descriptors["network"])
        assert list(dict.fromkeys(networks)) == ["pixels", "labels", *METHODS, "teacher"]
        for method in METHODS:
            saved = load_rdm(str(run / method / f"seed-{first}" / "rdms.h5"))
            own = rdms.subset("network", method)
            np.testing.assert_array_equal(own.dissimilarities, saved.dissimilarities)
            assert set(own.rdm_descriptors["epoch"]) == {-1, 7}
    with pytest.raises(ValueError, match=r"run' has no RDMs of seed 5; it has: 0, 1, 2"):
        logged_rdms(task_run, 5)
    for path in run.glob("*/seed-*/rdms.h5"):
        path.unlink()
    with pytest.raises(ValueError, match=r"run' has no RDMs of any network; let `brainrdl run` go on"):
        logged_rdms(task_run)


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


def test_one_seed_shows_dashes_and_never_nan(tmp_path, synthetic_run, without_figures):
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


def test_what_cannot_be_drawn_is_noted_and_the_rest_is_drawn(run, without_saving):
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
        "errors_vs_epoch, curves: no finished part has a history.csv",
        "rdm_grid, second_order_mds: teacher (teacher/rdms.h5 is missing)",
        "second_order_mds: RDM 12 (network 'rdl', layer 'fc') is constant (all dissimilarities are 0)",
        "training: no RDM is of the target 'teacher'; the networks are: pixels, labels, baseline, finetuning, rdl",
    )
    text = files.results_md.read_text(encoding="utf-8")
    assert all(f"- {note}" in text for note in files.notes)


def test_rdms_that_cannot_be_compared_are_noted(run, without_saving):
    for path in run.glob("**/rdms.h5"):
        rdms = load_rdm(str(path))
        rdms.dissimilarities[:] = 1
        save_rdms(rdms, path)
    (run / "references.h5").unlink()
    files = write_report(run, formats=("png",))
    assert {path.name for path in files.figures} == {"errors_vs_epoch.png", "curves.png", "rdm_grid.png"}
    assert files.notes[-2] == "second_order_mds: expected at least 3 RDMs that can be shown, got 0"


def test_without_any_rdms_the_curves_remain(run, without_saving):
    for path in run.glob("**/*.h5"):
        path.unlink()
    files = write_report(run, formats=("png",))
    assert {path.name for path in files.figures} == {"errors_vs_epoch.png", "curves.png"}
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
        ("methods: [rdl]\nseeds: [0]", "experiment.yaml: expected the keys methods"),
        ("methods: {}\nseeds: [a]", "experiment.yaml: expected the keys methods"),
    ],
)
def test_a_damaged_experiment_file_is_refused(tmp_path, text, message):
    (tmp_path / "experiment.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path)


def test_a_run_in_which_nothing_is_finished_is_a_page_of_what_there_is(run, without_saving):
    for path in run.glob("*/seed-*/predictions.csv"):
        path.unlink()
    files = write_report(run, formats=("png",))
    assert {path.name for path in (run / "report").iterdir()} == {"results.md", "report.html"}
    assert [path.name for path in files.figures] == ["training.png"]
    assert (files.results_csv, files.per_seed_csv, files.mcnemar_csv, files.mcnemar_md) == (None, None, None, None)
    text = files.results_md.read_text(encoding="utf-8")
    assert "- Not finished: rdl, seeds 0, 1, 2. In training: seed 0 is at epoch 8; seed 1" in text
    assert "- Compared: nothing yet;" in text
    assert results_table(run).empty


def test_a_run_of_which_nothing_has_begun_is_refused(run):
    for method in METHODS:
        shutil.rmtree(run / method)
    with pytest.raises(ValueError, match="has no finished part yet; let `brainrdl run` finish at least one"):
        write_report(run)
    assert not (run / "report").exists()


def test_an_unfinished_network_need_not_have_come_to_its_main_stage(run):
    (run / "rdl" / "seed-0" / "predictions.csv").unlink()
    path = run / "rdl" / "seed-0" / "history.csv"
    pd.read_csv(path).drop(columns=["train_error", "test_error"]).head(3).to_csv(path, index=False)
    assert len(read_task_run(run).histories["rdl", 0]) == 3
    assert ("rdl", 0) not in read_task_run(run).finished_histories


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
        final_rdms(read_task_run(run))
    del rdms.rdm_descriptors["epoch"]
    save_rdms(rdms, path)
    with pytest.raises(ValueError, match=r"rdl/seed-0/rdms.h5': the rdm_descriptor 'epoch' is missing"):
        final_rdms(read_task_run(run))


def test_unknown_formats_are_refused_before_anything_is_written(run):
    with pytest.raises(ValueError, match="unknown figure format 'bmp'"):
        write_report(run, formats=("bmp",))
    assert not (run / "report").exists()


def test_stimulus_ids_that_look_like_numbers_or_gaps_stay_text(run):
    path = run / "baseline" / "seed-0" / "predictions.csv"
    path.write_text("stimulus,label,predicted\n007,1,1\nNA,2,2\n")
    frame = read_predictions(path)
    assert list(frame["stimulus"]) == ["007", "NA"]
