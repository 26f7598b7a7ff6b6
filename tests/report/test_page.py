"""report.html: what is packed into it, what it says, and that nothing of a name becomes code."""

from __future__ import annotations

import base64
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from rsatoolbox.rdm import RDMs

from brainrdl.data.thumbnails import save_thumbnails
from brainrdl.report import write_report
from brainrdl.report.blocks import Bullets, Heading, Paragraph, Table, as_markdown, inline
from brainrdl.report.dots import DotPlot, DotRow, known
from brainrdl.report.drawing import Figures
from brainrdl.report.page import Page, Section, render
from brainrdl.report.rdm_view import RDMView, fit_view, pack, shown_stimuli, view_data
from brainrdl.report.set_up import citation, environment_lines, settings_text, without_path
from brainrdl.report.task_report import make_task_report

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr("brainrdl.report.task_report.draw", lambda run, out, formats: Figures())
    monkeypatch.setattr("brainrdl.report.brain_report.draw", lambda run, tables, out, formats: Figures())


def data_of(html):
    text = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', html, re.DOTALL).group(1)
    return json.loads(text)


def unpacked(packed):
    codes = np.frombuffer(base64.b64decode(packed["codes"]), dtype="<u2")
    values = np.full(len(codes), np.nan)
    if packed["low"] is not None:
        values = packed["low"] + codes / 65534 * (packed["high"] - packed["low"])
    return np.where(codes == 65535, np.nan, values)


# RDMs that are packed


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_a_packed_rdm_is_its_values_to_half_a_step(scale):
    vector = scale * np.random.default_rng(0).normal(size=300)
    vector[[0, 17]] = np.nan
    again = unpacked(pack(vector))
    np.testing.assert_array_equal(np.isnan(again), np.isnan(vector))
    step = (np.nanmax(vector) - np.nanmin(vector)) / 65534
    assert np.nanmax(np.abs(again - vector)) <= 0.5001 * step
    assert np.nanmin(again) == np.nanmin(vector) and np.nanmax(again) == pytest.approx(np.nanmax(vector), rel=1e-12)


def test_constant_and_empty_rdms_are_packed():
    np.testing.assert_array_equal(unpacked(pack(np.full(6, 0.3))), np.full(6, 0.3))
    packed = pack(np.full(6, np.nan))
    assert (packed["low"], packed["high"]) == (None, None)
    assert np.isnan(unpacked(packed)).all()


def logged(n_stimuli=12, seeds=(3, 4), epochs=(-1, 0, 1, 3), n_methods=2):
    """RDMs of methods at epochs and seeds, and of pixels."""
    rows = [("pixels", "pixels", -1, -1)]
    rows += [(f"m{m}", "fc", seed, epoch) for seed in seeds for m in range(n_methods) for epoch in epochs]
    vectors = np.random.default_rng(0).random((len(rows), n_stimuli * (n_stimuli - 1) // 2))
    names = ("network", "layer", "seed", "epoch")
    classes = [k % 3 for k in range(n_stimuli)]
    stimuli = {
        "stimulus": [f"s{k}" for k in range(n_stimuli)],
        "label": classes,
        "category": [f"c{c}" for c in classes],
    }
    descriptors = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    rdms = RDMs(vectors, "euclidean", rdm_descriptors=descriptors, pattern_descriptors=stimuli)
    methods = tuple(f"m{m}" for m in range(n_methods))
    return RDMView("run", rdms, methods, methods)


def packed_bytes(view):
    return sum(len(rdm["codes"]) for rdm in view_data(view)["rdms"])


def test_what_fits_is_shown_whole_with_classes_in_a_row():
    view = fit_view(logged(), 10**6)
    assert view.rdms.n_rdm == 17
    assert view.notes == ()
    assert list(view.rdms.pattern_descriptors["label"]) == [0] * 4 + [1] * 4 + [2] * 4
    # Matched by id: a pair has the value that it had.
    ids = list(view.rdms.pattern_descriptors["stimulus"])
    i, j = ids.index("s1"), ids.index("s5")
    np.testing.assert_array_equal(view.rdms.get_matrices()[:, i, j], logged().rdms.get_matrices()[:, 1, 5])


def test_labels_are_sorted_as_numbers():
    rdms = logged(n_stimuli=24).rdms
    rdms.pattern_descriptors["label"] = [10, 9] * 12
    assert shown_stimuli(rdms)[:2] == ["s1", "s3"]
    assert len(shown_stimuli(rdms, 6)) == 6
    assert {int(stimulus[1:]) % 2 for stimulus in shown_stimuli(rdms, 6)} == {0, 1}


@pytest.mark.parametrize(
    ("n_rdms", "expected", "words"),
    [
        (13, {(3, e) for e in (-1, 0, 1, 3)} | {(4, 3)}, "Of seed 4 the last epoch alone is in this page"),
        (10, {(3, e) for e in (-1, 0, 1, 3)}, "RDMs of seed 4 are not in this page"),
        (7, {(3, -1), (3, 1), (3, 3)}, "In this page are 2 of the 4 logged epochs of seed 3, and the last of each"),
        (5, {(3, -1), (3, 3)}, "In this page are 1 of the 4 logged epochs of seed 3"),
    ],
)
def test_what_does_not_fit_is_left_out_epochs_before_seeds_and_said(n_rdms, expected, words):
    of_one = packed_bytes(logged(seeds=(0,), epochs=(0,), n_methods=0))
    view = fit_view(logged(), n_rdms * of_one)
    assert packed_bytes(view) <= n_rdms * of_one
    descriptors = view.rdms.rdm_descriptors
    kept = set(zip(descriptors["seed"], descriptors["epoch"], strict=True)) - {(-1, -1)}
    assert kept == expected
    assert "pixels" in descriptors["network"]
    assert any(words in note for note in view.notes)


def test_stimuli_are_left_out_last():
    view = fit_view(logged(n_stimuli=60), 3000)
    assert packed_bytes(view) <= 3000
    assert view.rdms.n_cond < 60
    assert f"Shown are {view.rdms.n_cond} of 60 stimuli, evenly out of classes." in view.notes
    assert set(view.rdms.pattern_descriptors["label"]) == {0, 1, 2}


def test_the_demos_rdms_leave_room_for_the_rest_of_the_page():
    """Seven methods, four layers, eight epochs, five seeds, 100 stimuli: below 15 MB with plotly's script."""
    view = logged(n_stimuli=100, seeds=range(5), epochs=range(8), n_methods=28)
    html = render(Page("kind", "demo", "?", {}, [], views=[view]))
    assert len(html.encode()) < 13e6  # figures take 1 MB


def test_the_map_is_of_the_first_seed_and_says_what_it_leaves_out():
    view = logged()
    view.rdms.dissimilarities[1] = 0.5
    data = view_data(view)
    assert set(data["map"]["points"]) == {str(k) for k in range(9)} - {"1"}
    assert data["notes"] == [
        "Not in the map: RDM 1 (network 'm0', layer 'fc') is constant (all dissimilarities are 0.5)."
    ]
    few = view_data(RDMView("two", view.rdms[[0, 2]], ("m0",)))
    assert few["map"] is None
    assert few["notes"] == ["There is no map: it needs 3 RDMs to compare, and there are 2."]


def test_references_have_no_seed_and_no_epoch_in_the_page():
    data = view_data(logged())
    assert [(rdm["seed"], rdm["epoch"]) for rdm in data["rdms"][:2]] == [(None, None), (3, -1)]


# Blocks


def test_blocks_are_markdown_and_html_of_the_same_words():
    table = Table(pd.DataFrame({"a": ["x|y"], "b": ["**z**"]}))
    text = as_markdown([Heading("Title"), Paragraph("Words `code`."), Bullets(("one", "two")), table])
    assert text == "## Title\n\nWords `code`.\n\n- one\n- two\n\n| a | b |\n| --- | --- |\n| x\\|y | **z** |\n"
    assert inline("**a** `b` <i>") == "<strong>a</strong> <code>b</code> &lt;i&gt;"


def test_dots_stand_in_proportion():
    rows = [DotRow("a", 2.0, 1.0, 3.0, (), "", "#000"), DotRow("b", 9.0, None, None, (8.0,), "", "#000")]
    plot = DotPlot("t", "u", rows, reference=0.0)
    assert plot.ticks[0] <= 0 and plot.ticks[-1] >= 9
    assert plot.place(plot.ticks[0]) == 0 and plot.place(plot.ticks[-1]) == 100
    assert plot.place(3.0) - plot.place(1.0) == pytest.approx(plot.place(9.0) - plot.place(7.0), abs=1e-2)
    alike = DotPlot("t", "u", [DotRow("a", 0.0, None, None, (), "", "#000")])
    assert 0 < alike.place(0.0) < 100
    assert known(float("nan")) is None


# Set-up


def test_settings_are_read_in_a_line_without_paths():
    settings = {"spec": "/home/someone/data/set.yaml", "size": [8, 8], "arguments": {"a": 1, "b": None}, "none": None}
    assert settings_text(settings) == "spec: set.yaml; size: 8, 8; arguments: a: 1"
    assert without_path("~/x/y.h5") == "y.h5"
    assert without_path("C:\\data\\y.h5") == "y.h5"
    assert without_path("package.module:callable") == "package.module:callable"


def test_data_of_ours_is_cited_and_a_spec_of_ones_own_is_not(tmp_path):
    (block,) = citation([("digits", "images"), ("/own/spec.yaml", "images")]).blocks
    assert len(block.items) == 3
    assert "10.3389/fncom.2016.00131" in block.items[0]
    assert block.items[2].startswith("The data (digits): Alpaydin")


def test_a_damaged_environment_file_is_refused_by_name(tmp_path):
    assert environment_lines(tmp_path)[0] == "Versions and machine: not known; the run has no environment.json."
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(ValueError, match=r"environment\.json: cannot be read .*delete it to have it made anew"):
        environment_lines(tmp_path)
    for text in ("[]", '{"packages": null}'):
        (tmp_path / "environment.json").write_text(text)
        with pytest.raises(ValueError, match=r"environment\.json: expected versions by name; delete it"):
            environment_lines(tmp_path)


# Pages of runs


@pytest.fixture(scope="module")
def task_run(tmp_path_factory, synthetic_run):
    methods = {"baseline": (0.1, 0.0), HOSTILE: (0.06, 0.6)}
    names = ["</script><script>alert(2)</script>", "{{ 7 * 7 }}"]
    folder = tmp_path_factory.mktemp("pages") / "run"
    return synthetic_run(folder, methods, (0, 1), n_test=60, n_classes=2, names=names, n_figure=12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<img src=x>", "&lt;img src=x>"),
        ("\\<b>`<i>`</b>", "\\&lt;b>`&lt;i>`&lt;/b>"),  # no backslash undoes it
        ("[x](javascript:y)", "[x]&#40;javascript:y)"),
        ("[x]: javascript:y", "[x]&#58; javascript:y"),
        ("p < 0.05, [0.1 … 0.2]: (a) [x.md](x.md)", "p < 0.05, [0.1 … 0.2]: (a) [x.md](x.md)"),
    ],
)
def test_html_and_links_to_elsewhere_are_text_in_markdown(text, expected):
    blocks = [Heading(text), Paragraph(text), Bullets((text,)), Table(pd.DataFrame({text: [text]}))]
    heading, paragraph, bullets, table = as_markdown(blocks).strip().split("\n\n")
    assert (heading, paragraph, bullets) == (f"## {expected}", expected, f"- {expected}")
    assert table.count(f"| {expected} |") == 2


def test_a_name_is_text_and_nothing_else(task_run, without_figures):
    html = write_report(task_run).page.read_text(encoding="utf-8")
    assert HOSTILE not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "<script>alert(2)" not in html
    assert set(data_of(html)["views"][0]["categories"]) == {"</script><script>alert(2)</script>", "{{ 7 * 7 }}"}
    assert data_of(html)["views"][0]["networks"] == ["pixels", "labels", "baseline", HOSTILE, "teacher"]


def test_the_page_says_nothing_of_the_machine(task_run, without_figures):
    html = write_report(task_run).page.read_text(encoding="utf-8")
    assert str(task_run.parent) not in html
    assert "/tmp" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_the_page_is_the_same_when_written_again(task_run, without_figures):
    first = write_report(task_run).page.read_bytes()
    assert write_report(task_run).page.read_bytes() == first


def test_the_page_holds_the_results_of_the_tables(task_run, without_figures):
    made = make_task_report(task_run, ("png",))
    html = render(made.page)
    for mean in made.errors["mean"]:
        assert f">{100 * mean:.2f}" in html
    assert [section.title for section in made.page.sections] == [
        "Results",
        "McNemar's test",
        "RDMs to look into",
        "Epoch by epoch",
        "Set-up",
        "How to cite",
    ]
    curve = next(curve for curve in data_of(html)["curves"] if curve["name"] == "train error (%)")["lines"][0]
    histories = [pd.read_csv(task_run / "baseline" / f"seed-{seed}" / "history.csv") for seed in (0, 1)]
    expected = 100 * np.mean([history["train_error"] for history in histories], axis=0)
    np.testing.assert_allclose(curve["mean"], expected)
    assert curve["epochs"] == list(range(8))


def test_what_is_not_finished_stands_at_the_top(task_run, tmp_path, without_figures):
    run = shutil.copytree(task_run, tmp_path / "run")
    (run / "baseline" / "seed-1" / "predictions.csv").unlink()
    html = write_report(run).page.read_text(encoding="utf-8")
    assert "<strong>Not finished.</strong>" in html
    assert html.index("seed 1 is at epoch 8") < html.index("<main")
    assert "<strong>Not finished.</strong>" not in write_report(task_run).page.read_text(encoding="utf-8")
    for path in run.glob("*/seed-*/predictions.csv"):
        path.unlink()
    html = write_report(run).page.read_text(encoding="utf-8")
    assert "RDMs to look into" in html and "McNemar" not in html
    assert {rdm["epoch"] for rdm in data_of(html)["views"][0]["rdms"]} == {None, -1, 7}


def test_pictures_of_stimuli_stand_in_the_page_and_damaged_ones_are_told(task_run, tmp_path, without_figures):
    run = shutil.copytree(task_run, tmp_path / "run")
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    save_thumbnails({"synthetic/0003": picture}, run / "thumbnails.npz")
    view = data_of(write_report(run).page.read_text(encoding="utf-8"))["views"][0]
    there = dict(zip(view["stimuli"], view["pictures"], strict=True))
    assert there["synthetic/0003"].startswith("data:image/png;base64,iVBOR")
    assert sum(picture is not None for picture in there.values()) == 1
    (run / "thumbnails.npz").write_bytes(b"no pictures")
    with pytest.raises(ValueError, match=r"thumbnails\.npz"):
        write_report(run)


def test_a_long_table_is_folded():
    for n_rows, folded in ((40, False), (41, True)):
        section = Section("Numbers", [Table(pd.DataFrame({"a": ["1"] * n_rows}))])
        html = render(Page("kind", "title", "?", {}, [section]))
        assert (f"<summary>Table of {n_rows} rows</summary>" in html) == folded
        assert html.count("<script") == 1  # the data alone: nothing is drawn


def test_a_brain_run_becomes_a_page_of_its_scores(tmp_path, brain_run, without_figures):
    run = brain_run(tmp_path / "brains")
    tables = write_report(run)
    html = (run / "report" / "report.html").read_text(encoding="utf-8")
    rows = tables.agreement[(tables.agreement["pairs"] == "held_out") & (tables.agreement["kind"] == "all")]
    assert len(rows) == 3  # two methods and the teacher's own RDM
    for score in rows["score"]:
        assert f"{score:.3f}".replace("-", "−") in html
    low = rows["ceiling_low"].round(3).iloc[0]
    assert f"IT, all pairs: noise ceiling between subjects {low:.3f} to" in html
    assert "/somewhere/private" not in html and str(tmp_path) not in html
    view = data_of(html)["views"][0]
    assert view["networks"] == ["pixels", "untrained", "it", "brain"]
    assert all(rdm["epoch"] is None for rdm in view["rdms"])
    assert "Cichy et al. 2014" in html
    text = (run / "report" / "results.md").read_text(encoding="utf-8")
    assert text.startswith("# brains: agreement with the brain on what was not learned\n\n- Scored: RDMs of fc")
    assert "\n## Gains\n\nOver the untrained network" in text


def test_an_unfinished_brain_run_says_so_at_the_top(tmp_path, brain_run, without_figures):
    run = brain_run(tmp_path / "brains")
    part = run / "it" / "cnn" / "seed-0" / "split-0_fold-1" / "part.json"
    part.write_text(json.dumps({"finished": False, "settings": {}}))
    write_report(run)
    html = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert html.index("it, seed 0: 1 of 2 networks are finished") < html.index("<main")


def test_damaged_files_of_a_brain_run_are_named(tmp_path, brain_run, without_figures):
    run = brain_run(tmp_path / "brains")
    part = run / "it" / "cnn" / "seed-0" / "split-0_fold-1"
    for path, text, message in (
        (
            run / "experiment.yaml",
            "stimuli: {}\nmethods: {}",
            r"experiment\.yaml: expected the keys methods .* students",
        ),
        (part / "part.json", "[1]", r"split-0_fold-1/part\.json: expected the keys finished; delete the folder"),
        (part / "fold.json", '{"split": 0}', r"split-0_fold-1/fold\.json: expected the keys split, fold, group"),
        (run / "stimuli.csv", "", r"stimuli\.csv' is not a table"),
        (run / "stimuli.csv", "a,b\n1,2\n", r"stimuli\.csv': column 'stimulus' is missing"),
    ):
        whole = path.read_text()
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            write_report(run)
        path.write_text(whole)
    (run / "stimuli.csv").unlink()
    with pytest.raises(ValueError, match=r"stimuli\.csv' is missing; restore it, or run the experiment again"):
        write_report(run)
