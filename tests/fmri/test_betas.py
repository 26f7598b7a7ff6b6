"""Single-trial responses in image files, and their tables."""

import numpy as np
import pandas as pd
import pytest

from brainrdl.fmri.read import read_trials
from brainrdl.fmri.spec import BrainSpec


@pytest.fixture
def betas_set(tmp_path, save_volume):
    generator = np.random.default_rng(0)
    values = {session: generator.normal(size=(4, 3, 2, 6)).astype(np.float32) for session in ("1", "2")}
    for session, betas in values.items():
        save_volume(tmp_path / f"sub-01_ses-{session}.nii.gz", betas)
        table = pd.DataFrame({"image": ["a", "b", "c", "c", "b", "a"], "run": [1, 1, 1, 2, 2, 2]})
        table.to_csv(tmp_path / f"sub-01_ses-{session}.tsv", sep="\t", index=False)
    save_volume(tmp_path / "mask.nii.gz", np.ones((4, 3, 2), np.uint8))
    spec = {
        "kind": "brain",
        "name": "small",
        "folder": str(tmp_path),
        "data": {
            "format": "betas",
            "images": "sub-{subject}_ses-{session}.nii.gz",
            "trials": "sub-{subject}_ses-{session}.tsv",
            "stimulus": "image",
        },
        "subjects": ["01"],
        "rois": {"all": {"mask": "mask.nii.gz"}},
    }
    return BrainSpec.model_validate(spec), tmp_path, values


def test_volumes_are_trials_in_their_order(betas_set):
    spec, _, values = betas_set
    trials = read_trials(spec, "01", "all")
    expected = np.concatenate([values[session].reshape(24, 6).T for session in ("1", "2")])
    assert np.array_equal(trials.responses, expected)
    assert trials.table["stimulus"].tolist() == list("abccba") * 2
    assert trials.table["session"].tolist() == ["1"] * 6 + ["2"] * 6
    assert trials.table["run"].tolist() == ["1", "1", "1", "2", "2", "2"] * 2
    assert trials.residuals is None


def test_tables_that_do_not_fit_are_told(betas_set):
    spec, folder, _ = betas_set
    path = folder / "sub-01_ses-2.tsv"
    for text, message in (
        ("image\na\nb\n", r"ses-2.tsv: 2 trials for the 6 volumes of .*ses-2.nii.gz"),
        ("stimulus\na\n", "the column 'image' is missing; it has: stimulus"),
        ("image\na\nn/a\n", "the trial in line 3 has no image; name it"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_trials(spec, "01", "all")
    path.unlink()
    with pytest.raises(ValueError, match=r"no trial table file .*ses-2.tsv"):
        read_trials(spec, "01", "all")
