"""What GLMsingle writes, on small files: pickled dict and HDF5, volumes and units."""

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest

from brainrdl.fmri.layouts import read_layout
from brainrdl.fmri.read import read_trials

SHAPE = (3, 4, 2)
TYPED = "TYPED_FITHRF_GLMDENOISE_RR"


class Glmsingle:
    """8 trials of 4 stimuli in 2 runs, chronological."""

    def __init__(self, root):
        self.root = root
        self.outputs = root / "sub-01/glmsingle"
        self.outputs.mkdir(parents=True)
        generator = np.random.default_rng(0)
        self.betas = generator.normal(size=(*SHAPE, 8)).astype(np.float32)
        self.mask = np.zeros(SHAPE, np.uint8)
        self.mask[0, 1:3, 1] = self.mask[2, 0] = 1
        self.table = pd.DataFrame({"stimulus": list("badcbadd"), "run": list("11112222")})
        self.write_mask()
        self.write_table()

    def write_mask(self):
        path = self.root / "sub-01/masks/IT.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nibabel.Nifti1Image(self.mask, np.eye(4)).to_filename(path)

    def write_table(self):
        self.table.to_csv(self.root / "sub-01/trials.tsv", sep="\t", index=False)

    def contents(self):
        """Of the kinds of values that are in GLMsingle's dict."""
        ragged = [np.zeros((5, 2)), np.zeros((6, 2))]
        return {
            "HRFindex": np.ones(SHAPE),
            "pcnum": np.int64(3),
            "pcregressors": ragged,
            "xvaltrend": None,
            "betasmd": self.betas,
            "R2": np.zeros(SHAPE, np.float32),
            "FRACvalue": np.ones(SHAPE),
        }

    def write_npy(self, name=TYPED):
        np.save(self.outputs / f"{name}.npy", self.contents())

    def write_hdf5(self, name=TYPED):
        with h5py.File(self.outputs / f"{name}.hdf5", "w") as file:
            file["betasmd"] = self.betas
            file.create_dataset("xvaltrend", data=h5py.Empty("f"))

    def expected(self):
        return self.betas[self.mask.astype(bool)].T


@pytest.fixture
def glmsingle(tmp_path):
    return Glmsingle(tmp_path)


def read(glmsingle, spec, rois=None, **data):
    changed = spec("glmsingle", rois, **{"min_repetitions": 1, **data})
    return read_layout(changed, glmsingle.root, "sub-01", "IT")


@pytest.mark.parametrize("form", ["npy", "hdf5"])
def test_trials_follow_the_table_and_voxels_the_mask(form, glmsingle, spec):
    getattr(glmsingle, f"write_{form}")()
    trials = read(glmsingle, spec)
    assert np.array_equal(trials.responses, glmsingle.expected()) and trials.responses.dtype == np.float32
    assert trials.table["stimulus"].tolist() == list("badcbadd") and trials.table["run"].tolist() == list("11112222")
    assert set(trials.table["session"]) == {""}
    assert any("denoised over all runs" in note for note in trials.notes)


def test_a_spec_is_read_from_the_data_folder(glmsingle, spec):
    glmsingle.write_npy()
    here = spec("glmsingle").model_copy(update={"folder": "."})
    trials = read_trials(here, "sub-01", "IT", glmsingle.root)
    assert trials.table["stimulus"].tolist() == list("badbadd")
    assert np.array_equal(trials.responses, np.delete(glmsingle.expected(), 3, axis=0))


def test_hdf5_goes_before_the_pickled_dict(glmsingle, spec):
    glmsingle.write_npy()
    glmsingle.betas = glmsingle.betas + 1
    glmsingle.write_hdf5()
    assert np.array_equal(read(glmsingle, spec).responses, glmsingle.expected())


@pytest.mark.parametrize("form", ["npy", "hdf5"])
def test_units_without_a_volume_take_a_mask_of_units(form, glmsingle, spec):
    """GLMsingle writes (n, 1, 1, n_trials) where it was given units x time."""
    glmsingle.betas = glmsingle.betas.reshape(24, 1, 1, 8)
    getattr(glmsingle, f"write_{form}")()
    mask = np.zeros(24, np.uint8)
    mask[[3, 20]] = 1
    np.save(glmsingle.root / "units.npy", mask)
    trials = read(glmsingle, spec, {"IT": {"mask": "units.npy"}})
    assert np.array_equal(trials.responses, glmsingle.betas[[3, 20], 0, 0].T)


def test_repetitions_and_sessions_are_chosen(glmsingle, spec):
    glmsingle.table["session"] = list("aabbaabb")
    glmsingle.write_table()
    glmsingle.write_hdf5()
    assert np.array_equal(
        read(glmsingle, spec, min_repetitions=2).responses, np.delete(glmsingle.expected(), 3, axis=0)
    )
    first = read(glmsingle, spec, sessions=("a",))
    assert np.array_equal(first.responses, glmsingle.expected()[[0, 1, 4, 5]])
    with pytest.raises(ValueError, match=r"trials.tsv: no session 'c'; it has: a, b"):
        read(glmsingle, spec, sessions=("c",))


def test_voxels_outside_the_brain_are_dropped_and_counted(glmsingle, spec):
    glmsingle.betas[0, 1, 1, 2] = np.nan
    glmsingle.betas[2, 0, 1] = 0
    glmsingle.write_hdf5()
    trials = read(glmsingle, spec)
    assert np.array_equal(trials.responses, np.delete(glmsingle.expected(), [0, 3], axis=1))
    assert "2 of 4 voxels dropped: NaN, or 0 throughout" in trials.notes


def test_a_pickle_with_code_is_not_run(glmsingle, spec, tmp_path):
    class RunsCode:
        def __reduce__(self):
            return open, (str(tmp_path / "code_was_run"), "w")

    np.save(glmsingle.outputs / f"{TYPED}.npy", {**glmsingle.contents(), "more": RunsCode()})
    with pytest.raises(ValueError, match=f"{TYPED}.npy: holds a pickle that asks for"):
        read(glmsingle, spec)
    assert not (tmp_path / "code_was_run").exists()


def test_the_model_without_single_trials_and_matlabs_files_are_told(glmsingle, spec):
    with pytest.raises(
        ValueError, match=r"data.betas 'TYPEA_ONOFF' has no single trials; expected one of: TYPEB_FITHRF"
    ):
        read(glmsingle, spec, betas="TYPEA_ONOFF")
    with pytest.raises(ValueError, match=f"glmsingle: no {TYPED}.hdf5 or {TYPED}.npy; correct data.outputs"):
        read(glmsingle, spec)
    (glmsingle.outputs / f"{TYPED}.mat").touch()
    with pytest.raises(ValueError, match=r"but a .mat of GLMsingle's MATLAB version, which is not read"):
        read(glmsingle, spec)


def test_files_that_do_not_fit_together_are_refused(glmsingle, spec):
    glmsingle.write_hdf5()
    glmsingle.table = glmsingle.table.iloc[:-1]
    glmsingle.write_table()
    with pytest.raises(ValueError, match=r"trials.tsv: 7 rows for the 8 trials of .*hdf5; expected a row a trial"):
        read(glmsingle, spec)
    glmsingle.table = glmsingle.table.rename(columns={"stimulus": "image"})
    glmsingle.write_table()
    with pytest.raises(ValueError, match=r"trials.tsv: the column 'stimulus' is missing; it has: image, run"):
        read(glmsingle, spec)


def test_a_region_in_another_space_is_refused(glmsingle, spec):
    glmsingle.write_hdf5()
    glmsingle.mask = glmsingle.mask.transpose(1, 0, 2)
    glmsingle.write_mask()
    with pytest.raises(ValueError, match=r"betasmd has shape \(3, 4, 2, 8\) \(voxels, trials\), roi 'IT' \(4, 3, 2\)"):
        read(glmsingle, spec)


def test_a_file_of_something_else_is_refused(glmsingle, spec):
    np.save(glmsingle.outputs / f"{TYPED}.npy", {"R2": np.zeros(3)})
    with pytest.raises(ValueError, match="npy: expected a dict with the array 'betasmd'"):
        read(glmsingle, spec)
    with h5py.File(glmsingle.outputs / f"{TYPED}.hdf5", "w") as file:
        file["R2"] = np.zeros(3)
    with pytest.raises(ValueError, match="hdf5: expected the data set 'betasmd', got: R2"):
        read(glmsingle, spec)
    path = glmsingle.outputs / f"{TYPED}.hdf5"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="hdf5: cannot be read"):
        read(glmsingle, spec)
