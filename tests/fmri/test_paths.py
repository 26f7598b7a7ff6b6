"""Paths with placeholders: which files they name, which runs are there."""

import pytest

from brainrdl.fmri.paths import Run, fill, find_runs, placeholders

PATTERN = "sub-{subject}/ses-{session}/sub-{subject}_ses-{session}_run-{run}_bold.nii.gz"


@pytest.fixture
def folder(tmp_path):
    for session, run in (("1", "1"), ("1", "2"), ("1", "10"), ("2", "1")):
        path = tmp_path / PATTERN.format(subject="01", session=session, run=run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "sub-01/ses-1/sub-01_ses-2_run-7_bold.nii.gz").touch()  # a session in the wrong folder is none
    (tmp_path / "sub-01/ses-1/sub-01_ses-1_run-1_sbref.nii.gz").touch()
    return tmp_path


def test_runs_are_found_in_their_order(folder):
    assert find_runs(PATTERN, folder, "01") == [Run("1", "1"), Run("1", "2"), Run("1", "10"), Run("2", "1")]
    assert find_runs(PATTERN, folder, "01", sessions=["2"]) == [Run("2", "1")]
    assert find_runs(PATTERN, folder, "01", runs=["1"]) == [Run("1", "1"), Run("2", "1")]


def test_listed_runs_are_taken_as_they_are(folder):
    assert find_runs(PATTERN, folder, "01", ["2", "1"], ["3"]) == [Run("2", "3"), Run("1", "3")]
    assert find_runs("{subject}.nii", folder, "01") == [Run("", "")]
    assert find_runs("{run}.nii", folder, "01", runs=["b", "a"]) == [Run("", "b"), Run("", "a")]


def test_files_are_named(tmp_path):
    assert placeholders(PATTERN) == {"subject", "session", "run"}
    assert fill("{subject}_{run}.nii", tmp_path, "01", Run("", "2")) == [tmp_path / "01_2.nii"]
    assert fill("{hemi}.gii", tmp_path, "01", hemispheres=("lh", "rh")) == [tmp_path / "lh.gii", tmp_path / "rh.gii"]


def test_special_characters_of_a_folder_are_no_pattern(tmp_path):
    folder = tmp_path / "data (new) [1]"
    folder.mkdir()
    (folder / "run+1.nii").touch()
    assert find_runs("run+{run}.nii", folder, "01") == [Run("", "1")]


def test_missing_files_are_told(folder):
    with pytest.raises(ValueError, match=r"no file is named .* for subject '02'; correct the pattern, or fetch them"):
        find_runs(PATTERN, folder, "02")
    with pytest.raises(ValueError, match="no file of subject '01', session '3'"):
        find_runs(PATTERN, folder, "01", sessions=["1", "3"])
    with pytest.raises(ValueError, match="no file of subject '01', run '9'"):
        find_runs(PATTERN, folder, "01", runs=["1", "9"])


def test_digits_that_are_no_numbers(tmp_path):
    for run in ("²", "1", "10", "2"):
        (tmp_path / f"run-{run}.nii").touch()
    assert [run.run for run in find_runs("run-{run}.nii", tmp_path, "sub-01")] == ["²", "1", "2", "10"]
