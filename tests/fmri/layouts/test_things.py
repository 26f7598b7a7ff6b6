"""THINGS-fMRI's table format, on small files of it."""

import pickle

import h5py
import numpy as np
import pandas as pd
import pytest

from brainrdl.brain_rdms import measured_region
from brainrdl.fmri.dissimilarities import measured_rdm
from brainrdl.fmri.layouts import read_layout

VOXELS = "betas_csv/sub-{subject}_VoxelMetadata.csv"
ROIS = {"V1": {"atlas": VOXELS, "labels": ("V1",)}, "LOC": {"atlas": VOXELS, "labels": ("lLOC", "rLOC")}}
N_VOXELS = 9


class RunsCode:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Things:
    """Subject 01: 3 sessions of 2 runs with 4 training images each, 2 test images in each session."""

    def __init__(self, root):
        self.root = root / "betas_csv"
        self.root.mkdir()
        generator = np.random.default_rng(0)
        rows = []
        for session in (1, 2, 3):
            for run in (1, 2):
                shown = [f"dog_{session}{run}{k}s.jpg" for k in range(4)] + [f"candle_holder_1{run}s.jpg"]
                for name in generator.permutation(shown):
                    kind = "test" if name.startswith("candle") else "train"
                    rows.append((kind, session, run, 1, len(rows), name, name[: name.rindex("_")]))
        columns = ["trial_type", "session", "run", "subject_id", "trial_id", "stimulus", "concept"]
        self.table = pd.DataFrame(rows, columns=columns)
        self.values = generator.normal(size=(N_VOXELS, len(rows)))  # voxels x trials
        self.voxels = pd.DataFrame({"voxel_id": np.arange(N_VOXELS), "nc_testset": 1.5})
        self.voxels["V1"] = [0, 1, 1, 0, 0, 0, 1, 0, 0]
        self.voxels["lLOC"] = [1, 0, 0, 0, 0, 0, 0, 0, 0]
        self.voxels["rLOC"] = [0, 0, 0, 0, 0, 0, 0, 0, 1]
        self.path = self.root / "sub-01_ResponseData.h5"
        self.write()

    def write(self, values=None):
        self.table.to_csv(self.root / "sub-01_StimulusMetadata.csv", index=False)
        self.voxels.to_csv(self.root / "sub-01_VoxelMetadata.csv", index=False)
        values = self.values if values is None else values
        with h5py.File(self.path, "w") as file:  # a frame in pandas's fixed format; the trials' numbers are pickled
            group = file.create_group("ResponseData")
            group.attrs["pandas_type"] = np.bytes_("frame")
            numbers = np.frombuffer(pickle.dumps(RunsCode(self.root / "code_was_run")), np.uint8)
            group.create_dataset("block0_items", (1,), h5py.vlen_dtype(np.uint8))[0] = numbers
            group["block0_values"] = values
            group["block1_items"] = np.array([b"voxel_id"])
            group["block1_values"] = self.voxels[["voxel_id"]].to_numpy()


@pytest.fixture
def things(tmp_path):
    return Things(tmp_path)


def read(things, spec, roi="V1", rois=ROIS, **data):
    return read_layout(spec("things_fmri", rois, **{"min_repetitions": 1, **data}), things.root.parent, "01", roi)


def test_voxels_are_rows_in_the_file_and_columns_here(things, spec):
    trials = read(things, spec)
    assert trials.responses.dtype == np.float32
    assert np.array_equal(trials.responses, things.values[[1, 2, 6]].T.astype(np.float32))
    assert trials.table["stimulus"].tolist() == things.table["stimulus"].tolist()
    assert trials.table["session"].tolist() == things.table["session"].astype(str).tolist()
    assert trials.table["concept"].iloc[0] in ("dog", "candle_holder")


def test_a_region_of_two_columns_is_their_union(things, spec):
    assert np.array_equal(read(things, spec, "LOC").responses, things.values[[0, 8]].T.astype(np.float32))


def test_what_pandas_writes_and_reads_is_what_is_read_here(things, spec):
    pytest.importorskip("tables", reason="PyTables, with which pandas writes HDF5, is not installed")
    frame = pd.DataFrame(things.values, columns=range(things.values.shape[1]))
    frame.insert(0, "voxel_id", things.voxels["voxel_id"])
    frame.to_hdf(things.path, key="ResponseData", mode="w")
    by_pandas = pd.read_hdf(things.path).drop(columns="voxel_id").to_numpy()
    assert np.array_equal(read(things, spec).responses, by_pandas[[1, 2, 6]].T.astype(np.float32))


def test_no_pickle_in_the_file_is_run(things, spec):
    read(things, spec)
    assert not (things.root / "code_was_run").exists()


def test_columns_follow_the_trial_ids_whatever_the_tables_order(things, spec):
    ordered = read(things, spec)
    things.table = things.table.sample(frac=1, random_state=0)
    things.write()
    shuffled = read(things, spec)
    order = np.argsort(shuffled.table["trial_id"].astype(int))
    assert np.array_equal(shuffled.responses[order], ordered.responses)
    assert shuffled.table["stimulus"].iloc[order].tolist() == ordered.table["stimulus"].tolist()


def test_crossnobis_is_for_the_test_images_alone(things, spec):
    everything = read(things, spec)
    test_images = {"candle_holder_11s.jpg", "candle_holder_12s.jpg"}
    assert everything.repeated_only == test_images
    with pytest.raises(ValueError, match="crossnobis is asked for 24 stimuli that were shown once, the first is 'dog_"):
        measured_rdm(everything, "crossnobis", "session")
    assert measured_rdm(everything, "correlation").n_cond == 26
    repeated = read(things, spec, min_repetitions=2)
    assert set(repeated.table["stimulus"]) == test_images and len(repeated.table) == 6
    rdm = measured_rdm(repeated, "crossnobis", "session")
    assert rdm.n_cond == 2 and np.isfinite(rdm.dissimilarities).all()


def test_reliability_is_of_the_test_images_alone(things, spec):
    made = spec("things_fmri", ROIS, min_repetitions=1)
    made = made.model_copy(
        update={"folder": str(things.root.parent), "measure": "correlation", "noise": "none", "folds": "session"}
    )
    region = measured_region(made, "01", "V1")
    assert region.rdms.n_cond == region.quality["n_stimuli"] == 26 and len(region.repeated) == 2
    assert "reliability and ceilings are of 2 of the 26 stimuli, those meant to be repeated" in region.quality["notes"]
    assert np.isnan(region.quality["rdm_reliability"])  # of a single pair


def test_sessions_can_be_chosen(things, spec):
    trials = read(things, spec, sessions=("3", "1"))
    rows = things.table["session"].isin([1, 3]).to_numpy()
    assert np.array_equal(trials.responses, things.values[[1, 2, 6]][:, rows].T.astype(np.float32))
    with pytest.raises(ValueError, match="things_fmri, subject '01' has sessions 1 to 3, got '4'"):
        read(things, spec, sessions=("4",))


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        ({"atlas": VOXELS, "labels": ("LOC",)}, "names the column 'LOC', which it has not; near it: .*LOC"),
        (
            {"mask": "mask.nii.gz"},
            r"roi 'V1': expected sub-\{subject\}_VoxelMetadata.csv as the atlas.*got 'mask.nii.gz'",
        ),
        ({"atlas": "other.csv", "labels": ("V1",)}, "no table of voxels file .*other.csv"),
    ],
)
def test_a_region_in_another_form_is_refused(roi, message, things, spec):
    with pytest.raises(ValueError, match=message):
        read(things, spec, rois={"V1": roi})


def test_a_region_without_a_voxel_is_refused(things, spec):
    things.voxels["V1"] = 0
    things.write()
    with pytest.raises(ValueError, match=r"roi 'V1' \(V1\) has no voxel in subject '01'"):
        read(things, spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(trial_type="catch"), "expected trial_type train or test, got 'catch'"),
        (lambda t: t.assign(trial_id=t["trial_id"] + 1), "expected trial_id of 0 to 29, each once"),
        (lambda t: t.drop(columns="run"), "the column 'run' is missing; it has: trial_type, session"),
        (lambda t: t.iloc[:-1], r"expected one block of \(9, 29\) .*got: \(9, 30\) of float64, \(9, 1\) of int"),
    ],
)
def test_a_table_of_stimuli_in_another_form_is_refused(change, message, things, spec):
    change(things.table).to_csv(things.root / "sub-01_StimulusMetadata.csv", index=False)
    with pytest.raises(ValueError, match=message):
        read(things, spec)


def test_responses_in_another_form_are_refused(things, spec):
    things.write(np.concatenate([np.arange(N_VOXELS)[:, None], things.values], axis=1))  # voxel_id among the responses
    with pytest.raises(ValueError, match=r"expected one block of \(9, 30\) .*got: \(9, 31\) of float64.*; take"):
        read(things, spec)
    things.write()
    things.voxels["voxel_id"] = np.arange(N_VOXELS)[::-1]
    things.voxels.to_csv(things.root / "sub-01_VoxelMetadata.csv", index=False)
    with pytest.raises(ValueError, match="its voxel_id are not those of VoxelMetadata"):
        read(things, spec)
    things.path.write_bytes(things.path.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"ResponseData.h5: cannot be read .*; fetch it again"):
        read(things, spec)
    things.path.unlink()
    with pytest.raises(ValueError, match=r"no file of responses .*ResponseData.h5; fetch the data set"):
        read(things, spec)
