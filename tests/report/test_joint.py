"""Several runs reported together: side by side, never pooled."""

from __future__ import annotations

import json
import re
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from brainrdl.cli import app
from brainrdl.report import write_reports
from brainrdl.report.drawing import Figures
from brainrdl.report.joint import run_names

METHODS = {"baseline": (0.10, 0.0), "rdl": (0.06, 0.6)}


@pytest.fixture(scope="module", autouse=True)
def without_figures():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("brainrdl.report.task_report.draw", lambda run, out, formats: Figures())
        patched.setattr("brainrdl.report.brain_report.draw", lambda run, tables, out, formats: Figures())
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory, synthetic_run, brain_run):
    """Two runs on the same images, one on others, one with brains."""
    folder = tmp_path_factory.mktemp("joint")
    for name, n_test in (("first", 60), ("second", 60), ("larger", 80)):
        synthetic_run(folder / name, METHODS, (0, 1), n_test=n_test, n_classes=2, n_figure=12)
    brain_run(folder / "brains")
    return folder


def text_of(joint):
    return joint.page.read_text(encoding="utf-8")


def test_each_run_has_its_own_report_and_one_table_holds_all(runs):
    joint = write_reports([runs / "first", runs / "second"])
    assert joint.page == runs / "report" / "report.html"  # beside the first run
    assert (runs / "second" / "report" / "report.html").is_file()
    table = pd.read_csv(joint.results_csv)
    assert list(table["run"]) == ["first"] * 3 + ["second"] * 3
    for name in ("first", "second"):
        own = pd.read_csv(runs / name / "report" / "results.csv")
        pd.testing.assert_frame_equal(
            table[table["run"] == name].drop(columns=["run", "kind_of_result"]).reset_index(drop=True), own
        )
    assert joint.notes == ()
    text = text_of(joint)
    assert "All runs are tested on the same 60 images." in text
    names = re.findall('<span class="dots-name">([^<]+)</span>', text)
    assert names == [f"{method}, {run}" for method in ("baseline", "rdl", "teacher") for run in ("first", "second")]
    # Rows of one method next to each other.
    table_text = text[text.index('<th scope="col">method</th><th scope="col">run</th>') :]
    rows = [row.split("</th><td>") for row in table_text.split('<th scope="row">')[1:7]]
    assert [(row[0], row[1].split("<")[0]) for row in rows] == [
        (method, run) for method in ("baseline", "rdl", "teacher") for run in ("first", "second")
    ]


def test_references_that_are_the_same_in_all_runs_stand_once_in_the_common_map(runs, tmp_path):
    copy = shutil.copytree(runs / "first", tmp_path / "copy")
    text = text_of(write_reports([runs / "first", copy], tmp_path / "both"))
    data = re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL).group(1)
    networks = json.loads(data)["views"][0]["networks"]
    of_runs = [f"{run}: {method}" for run in ("first", "copy") for method in METHODS]
    assert networks == ["pixels", "labels", *of_runs[:2], "teacher", *of_runs[2:]]


def test_errors_on_other_images_are_not_compared(runs, tmp_path):
    text = text_of(write_reports([runs / "first", runs / "larger"], tmp_path))
    assert "The runs are tested on different images (60, 80 of them): errors of different runs are not" in text
    assert "first: test error" in text and "larger: test error" in text


def test_runs_of_different_kinds_stand_in_their_own_tables_and_have_no_common_map(runs, tmp_path):
    joint = write_reports([runs / "first", runs / "brains"], tmp_path)
    table = pd.read_csv(joint.results_csv)
    assert set(table["kind_of_result"]) == {"test error", "agreement with the brain"}
    assert table.loc[table["run"] == "brains", "mean"].isna().all()
    text = text_of(joint)
    assert "Test errors" in text and "Agreement with the brain" in text
    assert joint.notes[-1].startswith("no common map of the runs: first, brains: 0 stimuli are common to all")
    assert str(runs) not in text


def test_stimuli_that_only_one_run_has_are_left_out_of_the_common_map_and_said(runs, tmp_path, synthetic_run):
    more = synthetic_run(tmp_path / "more", METHODS, (0,), n_test=60, n_classes=2, n_figure=16)
    joint = write_reports([runs / "first", more], tmp_path / "both")
    (note,) = joint.notes
    assert note.startswith("more: 4 of 16 stimuli are left out, which not all RDMs have; the first is 'synthetic/0012'")
    assert "all runs, 12 common stimuli" in text_of(joint)


def test_an_unfinished_run_is_named_at_the_top(runs, tmp_path):
    run = shutil.copytree(runs / "first", tmp_path / "begun", ignore=shutil.ignore_patterns("report"))
    (run / "rdl" / "seed-1" / "predictions.csv").unlink()
    text = text_of(write_reports([run, runs / "second"], tmp_path / "both"))
    assert text.index("begun: Not finished: rdl, seed 1.") < text.index("<main")
    for path in run.glob("*/seed-*/predictions.csv"):
        path.unlink()
    text = text_of(write_reports([run, runs / "second"], tmp_path / "both"))
    assert "One run with a task has finished networks." in text


def test_runs_that_are_called_alike_are_told_apart(tmp_path):
    assert run_names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert run_names([tmp_path / "x" / "a" / "run", tmp_path / "y" / "a" / "run"]) == ["a/run (1)", "a/run (2)"]
    with pytest.raises(ValueError, match="run 'run' is given twice; give each run once"):
        run_names([tmp_path / "run", tmp_path / "other" / ".." / "run"])


def test_what_cannot_be_reported_together_is_refused_before_anything_is_written(runs, tmp_path):
    with pytest.raises(ValueError, match="needs at least 2, got 1; use write_report for one"):
        write_reports([runs / "first"])
    with pytest.raises(ValueError, match="second is a run; give a folder of its own for the report of several runs"):
        write_reports([runs / "first", runs / "second"], runs / "second")
    with pytest.raises(ValueError, match="absent' is no run"):
        write_reports([runs / "first", tmp_path / "absent"])


def test_the_command_reports_several_runs(runs, tmp_path):
    call = CliRunner().invoke(
        app, ["report", str(runs / "first"), str(runs / "second"), "--out", str(tmp_path / "both")]
    )
    assert call.exit_code == 0
    assert f"all runs: {tmp_path / 'both' / 'report.html'}" in call.output
    assert call.output.count("baseline") >= 2
    call = CliRunner().invoke(app, ["report", str(runs / "first"), "--out", str(tmp_path / "one")])
    assert call.exit_code == 2
    assert "--out is for the report of several runs" in call.output


def test_the_command_says_where_nothing_is_finished_yet(runs, tmp_path):
    run = shutil.copytree(runs / "first", tmp_path / "begun", ignore=shutil.ignore_patterns("report"))
    for path in run.glob("*/seed-*/predictions.csv"):
        path.unlink()
    call = CliRunner().invoke(app, ["report", str(run)])
    assert call.exit_code == 0
    assert f"{run}: no network is finished yet" in call.output
