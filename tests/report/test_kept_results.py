"""Runs that the repository keeps: the same tables without weights or data, and pages that are filled from them."""

import gzip
import json
import shutil
from pathlib import Path

import fill_results
import pandas as pd
import pytest
import yaml
from keep_results import keep_results
from typer.testing import CliRunner

from brainrdl.analysis.rdms import load_rdms
from brainrdl.cli import app
from brainrdl.experiment import RunOptions, run_experiment
from brainrdl.experiment_file import load_experiment
from brainrdl.report import write_report
from brainrdl.report.task_run import read_task_run
from brainrdl.run_folder import extended

NETWORK = {
    "network": "mnist_cnn",
    "arguments": {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [4, 8]},
}
SMALL = {
    "name": "small",
    "data": {"spec": "digits", "train": 100, "validation": 50, "test": 200},
    "student": NETWORK,
    "teacher": {**NETWORK, "deformed": {"train": 200, "validation": 50}, "training": {"epochs": 1, "batch_size": 50}},
    "training": {"epochs": 2, "batch_size": 50, "learning_rate": 0.05, "clip": 2.0},
    "methods": {"baseline": None, "rdl": {"layers": {"pool1": "pool1"}, "pairs": 100, "alpha": 3.0}},
    "seeds": [0, 1],
    "analysis": {"layers": ["conv1", "fc"], "n_per_class": 3, "every": 1},
    "published": {"source": "Table 2", "test_error_percent": {"baseline": 30.5, "hints": 20}},
}
TABLES = ("results_csv", "per_seed_csv", "mcnemar_csv", "mcnemar_md")


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The small experiment, run once."""
    folder = tmp_path_factory.mktemp("whole")
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    run_experiment(load_experiment(file), folder / "run", RunOptions(accelerator="cpu", jobs=1))
    return folder / "run"


@pytest.fixture(scope="module")
def kept(run, tmp_path_factory) -> Path:
    dest = tmp_path_factory.mktemp("results") / "runs" / "small"
    size = keep_results(run, dest)
    assert size == sum(file.stat().st_size for file in dest.rglob("*") if file.is_file())
    return dest


@pytest.fixture(autouse=True)
def nothing_read_before():
    fill_results._kept.cache_clear()


def test_the_tables_of_a_kept_run_are_those_of_the_whole_run(run, kept, without_saving, monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINRDL_DATA", str(tmp_path / "no data"))
    shutil.copytree(kept, tmp_path / "small")
    whole, again = write_report(run, ("png",)), write_report(tmp_path / "small", ("png",))
    for name in TABLES:
        assert getattr(again, name).read_bytes() == getattr(whole, name).read_bytes()
    assert whole.notes == ()
    assert again.notes == ("curves, training: RDMs are of seed 0 alone; there are none of seed 1",)
    assert {path.name for path in again.figures} == {path.name for path in whole.figures}


def test_what_is_kept_is_no_weight_no_picture_and_no_path(run, kept):
    names = {path.name for path in kept.rglob("*") if path.is_file()}
    assert names == {
        "environment.json",
        "experiment.yaml",
        "history.csv",
        "part.json",
        "predictions.csv.gz",
        "rdms.h5",
        "references.h5",
        "timing.csv",
    }
    assert {path.parent.name for path in kept.rglob("rdms.h5")} == {"teacher", "seed-0"}
    for part in ("teacher", "baseline/seed-0", "rdl/seed-1"):
        packed = (kept / part / "predictions.csv.gz").read_bytes()
        assert gzip.decompress(packed) == (run / part / "predictions.csv").read_bytes()
        assert (kept / part / "history.csv").read_bytes() == (run / part / "history.csv").read_bytes()
    assert str(run) not in "".join(path.read_text() for path in kept.rglob("*.yaml"))


def test_rdms_are_kept_of_the_first_and_the_last_epoch_to_seven_digits(run, kept):
    whole, own = (load_rdms(folder / "rdl" / "seed-0" / "rdms.h5") for folder in (run, kept))
    assert set(whole.rdm_descriptors["epoch"]) == {-1, 0, 1}
    assert list(own.rdm_descriptors["epoch"]) == [-1] * 3 + [1] * 3
    same = whole.subset("epoch", [-1, 1])
    assert own.dissimilarities == pytest.approx(same.dissimilarities, rel=1e-7)
    for name in ("layer", "network", "seed"):
        assert list(own.rdm_descriptors[name]) == list(same.rdm_descriptors[name])
    assert list(own.pattern_descriptors["stimulus"]) == list(whole.pattern_descriptors["stimulus"])
    packed, plain = ((folder / "rdl" / "seed-0" / "rdms.h5").stat().st_size for folder in (kept, run))
    assert packed < plain


def test_kept_again_it_is_the_same_to_the_byte(run, kept, tmp_path):
    for source in (run, kept):  # what is kept can be kept elsewhere
        keep_results(source, tmp_path / "copy")
        files = {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()}
        copied = {path.relative_to(tmp_path / "copy"): path for path in (tmp_path / "copy").rglob("*")}
        assert {name for name, path in copied.items() if path.is_file()} == set(files)
        for name, content in files.items():
            if source == run or name.suffix != ".h5":
                assert copied[name].read_bytes() == content


def test_paths_of_the_machine_are_names_in_what_is_kept(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "experiment.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["data"]["spec"] = "/home/somebody/private/faces.yaml"
    file.write_text(yaml.safe_dump(settings))
    (tmp_path / "run" / "checksums.json").unlink()  # it was changed on purpose
    keep_results(tmp_path / "run", tmp_path / "kept")
    assert yaml.safe_load((tmp_path / "kept" / "experiment.yaml").read_text())["data"]["spec"] == "faces.yaml"


def test_only_a_finished_run_with_a_task_is_kept_and_nothing_else_is_replaced(run, kept, brain_run, tmp_path):
    with pytest.raises(ValueError, match="is a run with brains as teachers"):
        keep_results(brain_run(tmp_path / "brains"), tmp_path / "dest")
    shutil.copytree(run, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "rdl" / "seed-1")
    with pytest.raises(ValueError, match=r"half' is not finished: rdl, seed 1 is missing; let `brainrdl run` end"):
        keep_results(tmp_path / "half", tmp_path / "dest")
    assert not (tmp_path / "dest").exists()
    (tmp_path / "other").mkdir()
    for dest in (tmp_path / "half", tmp_path / "other"):  # a whole run, and what is no run
        with pytest.raises(ValueError, match="is there and holds no kept run; give another folder"):
            keep_results(run, dest)
    with pytest.raises(ValueError, match="is there and holds no kept run"):
        keep_results(kept, kept)
    assert (kept / "experiment.yaml").is_file()


def test_a_damaged_packed_table_is_named(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    path = tmp_path / "run" / "rdl" / "seed-0" / "predictions.csv.gz"
    for content in (b"no gzip", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"rdl/seed-0/predictions.csv.gz' is not a table"):
            read_task_run(tmp_path / "run")


# published results


def test_what_was_published_changes_nothing_that_is_run(run, tmp_path, without_figures):
    shutil.copytree(run, tmp_path / "run")
    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("part.json")}
    other = {"source": "elsewhere", "test_error_percent": {"rdl": 12.25}}
    file = tmp_path / "small.yaml"
    for published in (other, None):
        file.write_text(yaml.safe_dump({**SMALL, "published": published}))
        result = call("run", file, "--out", tmp_path / "run", "--accelerator", "cpu", "--jobs", "1")
        assert result.exit_code == 0, result.output
        assert "5 of 5 parts are finished already" in result.output
        assert yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())["published"] == published
        text = (tmp_path / "run" / "report" / "results.md").read_text()
        assert ("12.25" in text) == (published is not None)
    assert marks == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("part.json")}
    assert "published" not in json.loads((run / "rdl" / "seed-0" / "part.json").read_text())["settings"]


def test_a_run_from_before_there_was_such_a_key_is_extended(run, tmp_path):
    settings = yaml.safe_load((run / "experiment.yaml").read_text())
    before = {key: value for key, value in settings.items() if key != "published"}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(before))
    assert extended(tmp_path, settings)["published"] == settings["published"]
    with pytest.raises(ValueError, match="name: 'small' before, 'other' now"):
        extended(tmp_path, {**settings, "name": "other"})


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (
            {"source": "x", "test_error_percent": {"rdl": 101}},
            r"published.test_error_percent.rdl: .*less than or equal",
        ),
        ({"source": "x", "test_error": {"rdl": 1}}, "published.test_error: unknown key; did you mean"),
        ({"test_error_percent": {"rdl": 1}}, "published.source: missing"),
    ],
)
def test_mistakes_in_what_was_published_are_told(run, tmp_path, published, message, without_figures):
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "published": published}))
    result = call("check", file)
    assert result.exit_code == 2
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "experiment.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "published": published}))
    (tmp_path / "run" / "checksums.json").unlink()  # it was changed on purpose
    with pytest.raises(ValueError, match=f"experiment.yaml: {message}"):
        write_report(tmp_path / "run")


# pages that are filled


@pytest.fixture
def page(kept, tmp_path) -> Path:
    shutil.copytree(kept, tmp_path / "runs" / "small")
    tables = "\n\n".join(f"<!-- table: {kind} of runs/small -->\n<!-- end -->" for kind in fill_results.KINDS)
    (tmp_path / "search.csv").write_text("method,trial,alpha,validation_error,chosen\nrdl,0,3.0,0.25,True\n")
    shutil.copy(tmp_path / "search.csv", tmp_path / "runs" / "small" / "search.csv")
    file = tmp_path / "small.md"
    file.write_text(f"# Small\n\n{tables}\n\nAn end.\n", "utf-8")
    return file


def test_every_kind_of_table_is_filled_and_filled_again_is_the_same(page):
    text = fill_results.filled(page)
    inside = [part.split("<!-- end -->")[0].split("-->")[1] for part in text.split("<!-- table: ")[1:]]
    assert len(inside) == len(fill_results.KINDS)
    assert all(part.strip() for part in inside)
    assert text.startswith("# Small\n\n") and text.endswith("\n\nAn end.\n")
    assert "| rdl | **0** | **alpha=3** | **25.00** |" in text
    page.write_text(text, "utf-8")
    fill_results._kept.cache_clear()
    assert fill_results.filled(page) == text


def test_tables_on_a_page_are_the_reports(page, without_figures):
    files = write_report(page.parent / "runs" / "small", ("png",))
    text = fill_results.filled(page)
    results = files.results_md.read_text("utf-8").splitlines()
    rows = [line for line in results if line.startswith(("|", "- **"))]
    assert len(rows) > 5
    assert [row for row in rows if row not in text.splitlines()] == []
    made = fill_results.made(page.parent)
    for name, path in {
        "small.csv": files.results_csv,
        "small_per_seed.csv": files.per_seed_csv,
        "small_mcnemar.csv": files.mcnemar_csv,
    }.items():
        assert made[page.parent / name] == path.read_text("utf-8")


def test_what_is_out_of_date_is_found(page):
    results = page.parent
    assert {path.name for path in fill_results.out_of_date(results)} == {
        "small.md",
        "small.csv",
        "small_per_seed.csv",
        "small_mcnemar.csv",
    }
    for file, text in fill_results.made(results).items():
        file.write_text(text, "utf-8")
    assert fill_results.out_of_date(results) == {}
    page.write_text(page.read_text("utf-8").replace("| baseline | 2 |", "| baseline | 3 |"), "utf-8")
    assert list(fill_results.out_of_date(results)) == [page]
    table = results / "small_per_seed.csv"
    first = pd.read_csv(table)["seconds"].iloc[0]
    text = table.read_text("utf-8")
    table.write_text(text.replace(str(first), str(first * (1 + 1e-12))), "utf-8")  # another version's last digit
    assert list(fill_results.out_of_date(results)) == [page]
    table.write_text(text.replace(str(first), str(first * 1.001)), "utf-8")
    assert list(fill_results.out_of_date(results)) == [page, table]
    (results / "other.md").write_text("<!-- table: results of runs/not_yet -->\n<!-- end -->\n", "utf-8")
    assert list(fill_results.out_of_date(results, ["small"])) == [page, table]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: errors of runs/small -->\n<!-- end -->", "no table 'errors'; expected one of results, published"),
        ("<!-- table: results of runs/small -->\n", "expected '<!-- table: KIND of runs/NAME -->', a table and"),
        ("<!-- table: results of runs/absent -->\n<!-- end -->", "absent' is no run"),
    ],
)
def test_mistakes_on_a_page_are_told(page, text, message):
    page.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        fill_results.filled(page)


def test_a_page_asks_in_vain_for_a_search_that_is_not_kept(page):
    (page.parent / "runs" / "small" / "search.csv").unlink()
    with pytest.raises(ValueError, match=r"has no search.csv; give it to docs/keep_results.py with --search"):
        fill_results.filled(page)
