"""NSD's layout, on small files of it: units, axes, numbering, sessions, masked voxels."""

import tracemalloc
from collections import Counter

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from brainrdl.fmri.layouts import nsd as layout
from brainrdl.fmri.layouts import read_layout

SHAPE = (4, 5, 3)
BETAS = "nsddata_betas/ppdata/{subject}/{space}/betas_fithrf_GLMdenoise_RR"
ATLAS = "nsddata/ppdata/{subject}/func1pt8mm/roi/prf-visualrois.nii.gz"
ROIS = {"V1": {"atlas": ATLAS, "labels": (1, 2)}}
ALL = {"shared_only": False, "min_repetitions": 1}
RUNS = [run for run in range(1, 13) for _ in range(63 if run % 2 else 62)]


def session_numbers(generator):
    """10KID of the 750 trials of a session; the first 250 images are in every session."""
    return np.concatenate([np.arange(1, 251), generator.choice(np.arange(251, 10_001), 500, replace=False)])


class Nsd:
    """A root folder with subject 3 (32 sessions), of whom `sessions` are there."""

    def __init__(self, root, sessions=(1, 2), shape=SHAPE, subject="subj03"):
        self.root, self.subject, self.shape = root, subject, shape
        self.generator = np.random.default_rng(0)
        self.raw = {k: self.generator.integers(-3000, 3000, (*shape, 750), dtype=np.int16) for k in sessions}
        self.images_of_10k = self.generator.permutation(73_000)[:10_000] + 1  # 73KID, from 1
        self.numbers = {k: session_numbers(self.generator) for k in sessions}
        self.labels = self.generator.choice([-1, 0, 1, 2, 3], shape).astype(np.int16)
        self.labels[:2, 0, 0] = 1, 2
        self.affine = np.diag([1.8, 1.8, 1.8, 1])
        self.write_atlas()
        self.write_behaviour()

    def folder(self, space="func1pt8mm"):
        folder = self.root / BETAS.format(subject=self.subject, space=space)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_atlas(self):
        path = self.root / ATLAS.format(subject=self.subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.Nifti1Image(self.labels, self.affine).to_filename(path)

    def write_behaviour(self, change=lambda table: table):
        parts = [
            pd.DataFrame(
                {
                    "SUBJECT": 3,
                    "SESSION": k,
                    "RUN": RUNS,
                    "TRIAL": 1,
                    "73KID": self.images_of_10k[numbers - 1],
                    "10KID": numbers,
                    "CHANGEMIND": np.nan,
                }
            )
            for k, numbers in self.numbers.items()
        ]
        path = self.root / f"nsddata/ppdata/{self.subject}/behav/responses.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        change(pd.concat(parts)).to_csv(path, sep="\t", index=False)
        return path

    def write_design(self):
        order = np.concatenate([*self.numbers.values(), np.ones(30_000 - 750 * len(self.numbers), int)])
        images = np.tile(self.generator.permutation(73_000)[:10_000] + 1, (8, 1))
        images[2] = self.images_of_10k
        path = self.root / "nsddata/experiments/nsd/nsd_expdesign.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"masterordering": order[None], "subjectim": images})
        return path

    def write_hdf5(self):
        """As MATLAB's h5create of [x y z 750] in chunks [1 1 1 750] stands in Python."""
        for k, values in self.raw.items():
            with h5py.File(self.folder() / f"betas_session{k:02d}.hdf5", "w") as file:
                file.create_dataset("betas", data=values.transpose(), chunks=(750, 1, 1, 1))
        return self.folder()

    def write_nifti(self):
        for k, values in self.raw.items():
            nibabel.Nifti1Image(values, self.affine).to_filename(self.folder() / f"betas_session{k:02d}.nii.gz")
        return self.folder()

    def expected(self, rows=slice(None)):
        inside = np.isin(self.labels, (1, 2))
        return np.concatenate([values[inside].T for values in self.raw.values()])[rows] / np.float32(300)


@pytest.fixture
def nsd(tmp_path):
    return Nsd(tmp_path)


def read(nsd, spec, rois=ROIS, **data):
    return read_layout(spec("nsd", rois, **{**ALL, **data}), nsd.root, nsd.subject, "V1")


def test_hdf5_integers_become_percent_and_every_trial_and_voxel_is_the_right_one(nsd, spec):
    nsd.write_hdf5()
    trials = read(nsd, spec)
    assert trials.responses.dtype == np.float32
    assert np.array_equal(trials.responses, nsd.expected())
    assert trials.table["session"].tolist() == ["01"] * 750 + ["02"] * 750
    assert trials.table["run"].tolist() == [f"{run:02d}" for run in RUNS] * 2
    assert not trials.averaged and trials.repeated_only is None


def test_nifti_integers_give_the_same_as_hdf5(nsd, spec):
    nsd.write_nifti()
    packed = read(nsd, spec)
    nsd.write_hdf5()
    assert np.array_equal(packed.responses, read(nsd, spec).responses)


def test_images_are_counted_from_0_in_ids_and_from_1_in_the_publishers_columns(nsd, spec):
    nsd.images_of_10k[:2] = 1, 73_000
    nsd.write_behaviour()
    nsd.write_hdf5()
    table = read(nsd, spec).table
    assert table["stimulus"][:2].tolist() == ["nsd-00000", "nsd-72999"]
    assert table["73KID"][:2].tolist() == [1, 73_000] and table["10KID"][:2].tolist() == [1, 2]
    assert (table["shared"] == (table["10KID"] <= 1000)).all() and 0 < table["shared"].sum() < 1500


def test_the_published_design_gives_the_same_table_as_the_behaviour(nsd, spec):
    nsd.write_hdf5()
    behaviour = read(nsd, spec)
    (nsd.root / "nsddata/ppdata/subj03/behav/responses.tsv").unlink()
    nsd.write_design()
    design = read(nsd, spec)
    columns = ["stimulus", "session", "run", "73KID", "10KID", "shared"]
    pd.testing.assert_frame_equal(design.table[columns], behaviour.table[columns], check_dtype=False)
    assert np.array_equal(design.responses, behaviour.responses)


def test_repetitions_and_the_shared_images_are_chosen_over_all_sessions_read(nsd, spec):
    nsd.write_hdf5()
    whole = read(nsd, spec)
    numbers = Counter(whole.table["stimulus"])
    repeated = read(nsd, spec, min_repetitions=2)
    rows = [k for k, stimulus in enumerate(whole.table["stimulus"]) if numbers[stimulus] >= 2]
    assert 250 <= len(set(repeated.table["stimulus"])) < len(numbers)
    assert np.array_equal(repeated.responses, whole.responses[rows])
    shared = read(nsd, spec, shared_only=True)
    assert np.array_equal(shared.responses, whole.responses[whole.table["shared"].to_numpy()])
    with pytest.raises(ValueError, match=r"no stimulus stands in 3 of the 1500 trials; lower data.min_repetitions"):
        read(nsd, spec, min_repetitions=3)


def write_surfaces(nsd, change=lambda values: values):
    """Two hemispheres of 6 and 7 vertices, float32, of which vertices 1 and 2 left and 4 right are labelled 5."""
    labels = nsd.root / "nsddata/freesurfer/fsaverage/label"
    labels.mkdir(parents=True)
    written = {}
    for hemi, n, inside in (("lh", 6, (1, 2)), ("rh", 7, (4,))):
        atlas = np.zeros((n, 1, 1), np.int32)
        atlas[list(inside)] = 5
        nibabel.MGHImage(atlas, np.eye(4)).to_filename(labels / f"{hemi}.streams.mgz")
        for k in nsd.raw:
            values = change(nsd.generator.normal(size=(n, 1, 1, 750)).astype(np.float32))
            nibabel.MGHImage(values, np.eye(4)).to_filename(
                nsd.folder("fsaverage") / f"{hemi}.betas_session{k:02d}.mgh"
            )
            written[hemi, k] = values[list(inside), 0, 0].T
    return np.concatenate([np.concatenate([written[hemi, k] for hemi in ("lh", "rh")], axis=1) for k in nsd.raw])


SURFACE = {"V1": {"atlas": "nsddata/freesurfer/fsaverage/label/{hemi}.streams.mgz", "labels": (5,)}}


def test_fsaverage_floats_are_percent_already_and_never_divided(nsd, spec):
    expected = write_surfaces(nsd)
    trials = read(nsd, spec, SURFACE, space="fsaverage")
    assert np.array_equal(trials.responses, expected)


def test_surface_files_of_integers_are_refused(nsd, spec):
    write_surfaces(nsd, lambda values: (values * 300).astype(np.int16))
    with pytest.raises(ValueError, match=r"betas_session01.mgh: expected float32 as published, got int16"):
        read(nsd, spec, SURFACE, space="fsaverage")


def test_voxels_that_are_0_throughout_a_session_are_dropped_and_counted(nsd, spec):
    inside = np.argwhere(np.isin(nsd.labels, (1, 2)))
    nsd.raw[1][tuple(inside[0])] = 0
    nsd.raw[2][tuple(inside[0])] = 0
    nsd.raw[2][tuple(inside[3])] = 0  # outside the slices of one session only
    nsd.raw[1][(*inside[1], 5)] = 0  # one response that happens to be 0
    nsd.write_hdf5()
    trials = read(nsd, spec)
    assert np.array_equal(trials.responses, np.delete(nsd.expected(), [0, 3], axis=1))
    assert f"2 of {len(inside)} voxels dropped: 0 in all trials of a session (outside the brain mask)" in trials.notes


def test_a_region_outside_the_brain_mask_is_refused(nsd, spec):
    nsd.raw[1][:] = 0
    nsd.write_hdf5()
    with pytest.raises(ValueError, match=r"roi 'V1': none of its .* voxels was measured .*; correct the roi"):
        read(nsd, spec)


def test_sessions_are_those_asked_for_or_all_that_are_there(nsd, spec):
    nsd.write_hdf5()
    second = read(nsd, spec, sessions=("2",))
    assert np.array_equal(second.responses, nsd.expected(slice(750, None)))
    assert "1 of the subject's 32 sessions" in second.notes
    (nsd.folder() / "betas_session01.hdf5").unlink()
    assert set(read(nsd, spec).table["session"]) == {"02"}


@pytest.mark.parametrize(
    ("sessions", "message"),
    [
        (("33",), "nsd, subj03 has sessions 1 to 32, got '33'; correct data.sessions"),
        (("0",), "has sessions 1 to 32, got '0'"),
        (("one",), "has sessions 1 to 32, got 'one'"),
        (("3",), "session 3 has no file; expected .*betas_session01.hdf5 or .nii.gz; fetch it"),
    ],
)
def test_sessions_that_are_not_there_are_refused(sessions, message, nsd, spec):
    nsd.write_hdf5()
    with pytest.raises(ValueError, match=message):
        read(nsd, spec, sessions=sessions)


def test_no_session_at_all_and_an_unknown_subject(nsd, spec):
    with pytest.raises(ValueError, match=r"nsd, subj03: no session file; expected .*betas_session01.hdf5"):
        read(nsd, spec)
    with pytest.raises(ValueError, match=r"subject 'sub-01' is unknown; expected one of: subj01, .*subj08"):
        read_layout(spec("nsd"), nsd.root, "sub-01", "V1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(**{"73KID": t["73KID"] * 0}), "73KID of 1 to 73000 .* counted from 1, got 0 to 0"),
        (lambda t: t.assign(**{"10KID": t["10KID"] - 1}), "10KID of 1 to 10000, counted from 1, got .* and 0 to"),
        (lambda t: t.iloc[1:], "session 01 has 749 trials, expected 750; fetch it again"),
        (lambda t: t.iloc[::-1], "expected the trials in the order of the sessions"),
        (lambda t: t.drop(columns="10KID"), "table of whole numbers, with the columns SESSION, RUN, 73KID, 10KID"),
    ],
)
def test_a_table_of_trials_in_another_form_is_refused(change, message, nsd, spec):
    nsd.write_hdf5()
    nsd.write_behaviour(change)
    with pytest.raises(ValueError, match=f"responses.tsv: .*{message}"):
        read(nsd, spec)


def test_a_design_in_another_form_and_none_are_refused(nsd, spec):
    nsd.write_hdf5()
    (nsd.root / "nsddata/ppdata/subj03/behav/responses.tsv").unlink()
    with pytest.raises(ValueError, match=r"no order of trials: expected .*responses.tsv or .*nsd_expdesign.mat"):
        read(nsd, spec)
    path = nsd.write_design()
    savemat(path, {"masterordering": np.zeros((1, 30_000)), "subjectim": np.ones((8, 10_000))})
    with pytest.raises(ValueError, match=r"expected masterordering of at least 24000 trials, counted from 1, .*from 0"):
        read(nsd, spec)
    savemat(path, {"order": np.ones(3)})
    with pytest.raises(ValueError, match=r"nsd_expdesign.mat: expected masterordering and subjectim"):
        read(nsd, spec)


def test_responses_that_are_not_as_published_are_refused(nsd, spec):
    folder = nsd.write_hdf5()
    path = folder / "betas_session01.hdf5"

    def rewrite(name, values):
        with h5py.File(path, "w") as file:
            file[name] = values

    rewrite("betas", nsd.raw[1].transpose() / 300)
    with pytest.raises(ValueError, match="hdf5: expected int16 as published, got float64; its unit cannot be known"):
        read(nsd, spec)
    rewrite("betas", nsd.raw[1])  # (x, y, z, trials): not turned round as MATLAB's files are in Python
    with pytest.raises(
        ValueError, match=r"expected \(4, 5, 3, 750\) \(the space of roi 'V1', 750 trials\), got \(750, 3"
    ):
        read(nsd, spec)
    rewrite("betas", nsd.raw[1][..., :700].transpose())
    with pytest.raises(ValueError, match=r"expected \(4, 5, 3, 750\) .* got \(4, 5, 3, 700\)"):
        read(nsd, spec)
    rewrite("b", nsd.raw[1])
    with pytest.raises(ValueError, match="expected the data set 'betas', got: b; fetch it again"):
        read(nsd, spec)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"betas_session01.hdf5: cannot be read .*; fetch it again"):
        read(nsd, spec)


def test_nifti_that_is_not_as_published_is_refused(nsd, spec):
    path = nsd.write_nifti() / "betas_session01.nii.gz"
    nibabel.Nifti1Image(nsd.raw[1].astype(np.float32), nsd.affine).to_filename(path)
    with pytest.raises(ValueError, match=r"nii.gz: expected int16 as published, got float32"):
        read(nsd, spec)
    scaled = nibabel.Nifti1Image(nsd.raw[1], nsd.affine)
    scaled.header.set_slope_inter(1 / 300, 0)
    scaled.to_filename(path)
    with pytest.raises(ValueError, match=r"expected integers without a scale in the header, got slope 0.00333"):
        read(nsd, spec)
    nsd.raw[1] %= 3  # compressed, damage can be told from data
    nsd.write_nifti()
    packed = path.read_bytes()
    for damaged in (packed[:3000], packed[:3000] + b"\xff" * 500 + packed[3500:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"betas_session01.nii.gz: .*fetch it again"):
            read(nsd, spec)
    nibabel.Nifti1Image(nsd.raw[1][..., 0], nsd.affine).to_filename(path)
    with pytest.raises(ValueError, match=r"expected \(x, y, z, trials\), got shape \(4, 5, 3\)"):
        read(nsd, spec)


def test_a_mask_is_refused_because_not_cortex_is_minus_1(nsd, spec):
    nsd.write_hdf5()
    with pytest.raises(ValueError, match="roi 'V1' is given as a mask, but NSD's files of regions have -1 outside"):
        read(nsd, spec, {"V1": {"mask": ATLAS}})


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_session_only_the_region_is_kept_in_memory(packed, tmp_path, spec):
    nsd = Nsd(tmp_path, sessions=(1,), shape=(24, 24, 24))
    nsd.labels[:] = 0
    nsd.labels[3, 4, :5] = 1
    nsd.write_atlas()
    nsd.write_nifti() if packed else nsd.write_hdf5()
    read(nsd, spec)  # what is imported on first use does not count
    tracemalloc.start()
    trials = read(nsd, spec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(trials.responses, nsd.expected())
    assert peak < nsd.raw[1].nbytes / 4


def test_the_published_numbers_agree_with_each_other():
    """NSD Data Manual, Technical notes: images seen by each subject, and of these how many of the shared 1,000."""
    seen = [10_000, 10_000, 9_411, 9_209, 10_000, 9_411, 10_000, 9_209]
    shared = [1_000, 1_000, 930, 907, 1_000, 930, 1_000, 907]
    own = sum(all_of_them - of_shared for all_of_them, of_shared in zip(seen, shared, strict=True))
    assert own + layout.SHARED_IMAGES == layout.IMAGES_SHOWN == 70_566
    assert list(layout.SESSIONS.values()) == [40, 40, 32, 30, 40, 32, 40, 30]
    assert sum(layout.SESSIONS.values()) * layout.TRIALS_PER_SESSION == 213_000
    assert layout.SHARED_SHOWN_3_TIMES == 515
    assert len(RUNS) == layout.TRIALS_PER_SESSION


def test_coverage_counts_what_was_shown_in_the_sessions_that_were_measured():
    generator = np.random.default_rng(1)
    order = generator.permutation(np.repeat(np.arange(1, 10_001), 3))
    images = generator.permutation(np.arange(1_001, 73_001)).reshape(8, 9_000)
    images = np.concatenate([np.tile(np.arange(1, 1_001), (8, 1)), images], axis=1)
    counts = [Counter(images[row, order[: n * 750] - 1].tolist()) for row, n in enumerate(layout.SESSIONS.values())]
    shown = set().union(*counts)
    three_times = [image for image in range(1, 1_001) if all(count[image] == 3 for count in counts)]
    assert layout.coverage(order, images) == (len(shown), len(three_times))
    assert 0 < len(three_times) < 1_000 and 70_000 < len(shown) < 73_000
