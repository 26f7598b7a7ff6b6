"""Files of published layouts that hold what the layout does not: each is refused by file and column."""

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from brainrdl.fmri.layouts import read_layout
from brainrdl.fmri.layouts.algonauts import _numbered
from brainrdl.fmri.layouts.nsd import _trial_table
from brainrdl.fmri.layouts.selection import whole_numbers
from brainrdl.fmri.spec import Roi

VOXELS = "betas_csv/sub-{subject}_VoxelMetadata.csv"
THINGS_ROIS = {"V1": {"atlas": VOXELS, "labels": ("V1",)}}
TYPED = "TYPED_FITHRF_GLMDENOISE_RR"


@pytest.mark.parametrize("cell", ["", "1.0", "one", "n/a", "1_0", "1" * 16, "²"])
def test_whole_numbers_are_digits(cell, tmp_path):
    table = pd.DataFrame({"run": ["1", "-2", cell]}, dtype="str")
    with pytest.raises(ValueError, match=f"t.tsv: run in line 4 is '{cell}'; expected a whole number"):
        whole_numbers(table, "run", tmp_path / "t.tsv")
    assert whole_numbers(table.iloc[:2], "run", tmp_path / "t.tsv").tolist() == [1, -2]


@pytest.fixture
def things(tmp_path, spec):
    """A function: subject 01 of three voxels and four trials, its tables changed; reads it."""

    def read(trials=lambda table: table, voxels=lambda table: table, block=None):
        folder = tmp_path / "betas_csv"
        folder.mkdir(exist_ok=True)
        table = pd.DataFrame(
            {"trial_type": "test", "session": ["1", "1", "2", "2"], "run": "1", "stimulus": list("abab")}
        )
        table["trial_id"] = [str(k) for k in range(4)]
        trials(table).to_csv(folder / "sub-01_StimulusMetadata.csv", index=False)
        known = pd.DataFrame({"voxel_id": ["0", "1", "2"], "V1": ["0", "1", "1"]})
        voxels(known).to_csv(folder / "sub-01_VoxelMetadata.csv", index=False)
        with h5py.File(folder / "sub-01_ResponseData.h5", "w") as file:
            group = file.create_group("ResponseData")
            group["block0_values"] = np.arange(12.0).reshape(3, 4) if block is None else block
            group.create_group("block1_values")
        return read_layout(spec("things_fmri", THINGS_ROIS, min_repetitions=1), tmp_path, "01", "V1")

    return read


def test_things_tables_and_blocks_are_looked_at(things):
    assert np.array_equal(things().responses, np.arange(12.0).reshape(3, 4)[1:].T)
    for changes, message in (
        (
            {"trials": lambda t: t.assign(session="one")},
            "StimulusMetadata.csv: session in line 2 is 'one'; expected a who",
        ),
        (
            {"trials": lambda t: t.assign(trial_id="x")},
            "StimulusMetadata.csv: trial_id in line 2 is 'x'; expected a whol",
        ),
        ({"trials": lambda t: t.iloc[:0]}, "StimulusMetadata.csv: there is no trial in it; fetch it again"),
        (
            {"voxels": lambda t: t.assign(voxel_id="1.5")},
            "VoxelMetadata.csv: voxel_id in line 2 is '1.5'; expected a wh",
        ),
        ({"voxels": lambda t: t.assign(V1="yes")}, "VoxelMetadata.csv: V1 in line 2 is 'yes'; expected a number"),
        (
            {"block": np.zeros((3, 4), complex)},
            r"expected one block of \(3, 4\) .* of numbers, got: \(3, 4\) of complex12",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            things(**changes)


def test_nsds_orders_of_trials_are_whole_numbers(tmp_path):
    behaviour = tmp_path / "nsddata/ppdata/subj03/behav/responses.tsv"
    behaviour.parent.mkdir(parents=True)
    behaviour.write_text("SESSION\tRUN\t73KID\t10KID\n")
    with pytest.raises(ValueError, match=r"responses.tsv: there is no trial in it; fetch it again"):
        _trial_table(tmp_path, "subj03")
    behaviour.write_text("SESSION\tRUN\t73KID\t10KID\n1\t1\tx\t1\n")
    with pytest.raises(ValueError, match=r"responses.tsv: expected a table of whole numbers, with the columns SESSION"):
        _trial_table(tmp_path, "subj03")
    behaviour.unlink()
    design = tmp_path / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design.parent.mkdir(parents=True)
    order, images = np.ones((1, 30_000)), np.ones((8, 10))
    for changed, message in (
        ({"subjectim": images}, r"expected masterordering and subjectim \('masterordering' is missing\)"),
        (
            {"masterordering": order * 1.5, "subjectim": images},
            "'masterordering' is not of whole numbers; fetch it again",
        ),
        ({"masterordering": order * np.nan, "subjectim": images}, "'masterordering' is not of whole numbers"),
        (
            {"masterordering": order, "subjectim": "text"},
            "'subjectim' holds no real numbers, but <U4; give another key",
        ),
        (
            {"masterordering": order * 11, "subjectim": images},
            r"expected masterordering of at least 24000 trials.*\(8, 10\)",
        ),
        (
            {"masterordering": order[:, :0], "subjectim": images},
            r"expected masterordering .*got 0 \(from 1\) and \(8, 10\)",
        ),
    ):
        savemat(design, changed)
        with pytest.raises(ValueError, match=f"nsd_expdesign.mat: {message}"):
            _trial_table(tmp_path, "subj03")


@pytest.mark.parametrize("ending", [".npy", ".hdf5"])
def test_glmsingles_responses_are_real_numbers(ending, tmp_path, spec):
    (tmp_path / "out").mkdir()
    betas = np.zeros((3, 4, 2, 8), np.complex64)
    if ending == ".npy":
        np.save(tmp_path / f"out/{TYPED}.npy", {"betasmd": betas})
    else:
        with h5py.File(tmp_path / f"out/{TYPED}.hdf5", "w") as file:
            file["betasmd"] = betas
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 2), np.uint8), np.eye(4)), tmp_path / "IT.nii")
    pd.DataFrame({"stimulus": list("abcdabcd")}).to_csv(tmp_path / "trials.tsv", sep="\t", index=False)
    changed = spec("glmsingle", {"IT": {"mask": "IT.nii"}}, min_repetitions=1, outputs="out", trials="trials.tsv")
    with pytest.raises(ValueError, match=f"{TYPED}{ending}: expected betasmd of real numbers, got complex64; run GLMs"):
        read_layout(changed, tmp_path, "01", "IT")


def test_algonauts_labels_have_numbers(tmp_path):
    np.save(tmp_path / "mapping_V.npy", {"one": "V1v"})
    with pytest.raises(
        ValueError, match=r"mapping_V.npy: expected a number and a name of each label \(invalid literal"
    ):
        _numbered(Roi(atlas="{hemi}.V_challenge_space.npy", labels=("V1v",)), tmp_path, "01")


def test_bold5000s_list_of_images_is_text(tmp_path, spec):
    image = nibabel.Nifti1Image(np.ones((2, 2, 2, 37), np.float32), np.eye(4))
    nibabel.save(image, tmp_path / "CSI4_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-01.nii.gz")
    (tmp_path / "CSI4_imgnames.txt").write_bytes(b"\xff\xfe")
    changed = spec("bold5000", {"PPA": {"mask": "mask.nii"}}, min_repetitions=1)
    with pytest.raises(ValueError, match=r"CSI4_imgnames.txt: expected the images' names \('utf-8' codec .*; fetch it"):
        read_layout(changed, tmp_path, "CSI4", "PPA")
