"""What `brainrdl check` says of brain data."""

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from brainrdl.cli import app


@pytest.fixture
def spec(tmp_path):
    """Three stimuli with images and one RDM; the spec's file."""
    (tmp_path / "images").mkdir()
    for k in range(3):
        Image.fromarray(np.full((4, 4), 40 * k, np.uint8)).save(tmp_path / "images" / f"s{k}.png")
    table = pd.DataFrame({"stimulus": ["s0", "s1", "s2"], "category": ["a", "a", "b"]})
    table.to_csv(tmp_path / "stimuli.tsv", sep="\t", index=False)
    np.save(tmp_path / "rdm.npy", np.array([1.0, 2.0, 3.0]))
    settings = {
        "kind": "brain",
        "name": "mine",
        "stimuli": {"table": "stimuli.tsv", "file": "images/{stimulus}.png", "size": [4, 4], "channels": 1},
        "data": {
            "format": "rdms",
            "files": [{"file": "rdm.npy", "measure": "euclidean", "descriptors": {"roi": "V1", "subject": "sub-01"}}],
        },
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def check(what):
    return CliRunner().invoke(app, ["check", str(what)])


def test_what_is_there_is_told(spec):
    result = check(spec)
    assert result.exit_code == 0, result.output
    told = {line[:12].strip(): line[12:] for line in result.output.splitlines()}
    assert told["brain data"] == "mine"
    assert told["stimuli"] == "3: s0 … s2"
    assert told["columns"] == "category"
    assert told["images"] == "3 of 1 x 4 x 4"
    assert (told["subjects"], told["regions"], told["RDMs"]) == ("sub-01", "V1", "1, euclidean")
    assert told["usable"] == "yes"


def test_what_is_missing_is_told_with_exit_status_2(spec):
    (spec.parent / "images" / "s1.png").unlink()
    result = check(spec)
    assert result.exit_code == 2
    assert "no. mine: 1 of 3 stimuli have no image file, the first is 's1'" in result.output


def test_an_image_that_cannot_be_read_is_told(spec):
    (spec.parent / "images" / "s0.png").write_bytes(b"no image")
    result = check(spec)
    assert result.exit_code == 2
    assert "s0.png cannot be read" in result.output


def test_responses_are_not_read(monkeypatch, tmp_path):
    (tmp_path / "haxby2001" / "runs").mkdir(parents=True)
    for name in (
        "mask.nii.gz",
        *(f"runs/run-{k:02d}_{what}" for k in (1, 2) for what in ("bold.nii.gz", "events.tsv")),
    ):
        (tmp_path / "haxby2001" / name).touch()
    monkeypatch.setenv("BRAINRDL_DATA", str(tmp_path))
    result = check("haxby2001")
    assert result.exit_code == 0 and "runs        2 in all" in result.output
    assert "to be made by `brainrdl rdms`: crossnobis over runs, noise precision from residuals" in result.output


def test_files_of_runs_and_regions_that_are_not_there_are_told(monkeypatch, tmp_path):
    (tmp_path / "haxby2001" / "runs").mkdir(parents=True)
    monkeypatch.setenv("BRAINRDL_DATA", str(tmp_path))
    assert "no file is named " in check("haxby2001").output
    (tmp_path / "haxby2001" / "runs" / "run-01_bold.nii.gz").touch()
    result = check("haxby2001")
    assert result.exit_code == 2
    assert "no. haxby2001: 2 of 3 files are not there, the first is " in result.output
    assert "run-01_events.tsv; correct the spec's paths, or add the files" in result.output


@pytest.mark.parametrize(("name", "rdms"), [("kriegeskorte2008", "8, correlation"), ("cichy2014", "30, correlation")])
def test_the_92_objects(name, rdms, real_data):
    real_data("kriegeskorte2008", "cichy2014")
    result = check(name)
    assert result.exit_code == 0, result.output
    assert "92: stim01 … stim92" in result.output
    assert rdms in result.output
