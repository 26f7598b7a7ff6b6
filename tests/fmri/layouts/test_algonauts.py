"""Algonauts 2023, on small files of its layout."""

import numpy as np
import pytest

from brainrdl.fmri.dissimilarities import measured_rdm
from brainrdl.fmri.layouts import read_layout
from brainrdl.fmri.patterns import split_halves

ATLAS = "{subject}/roi_masks/{hemi}.prf-visualrois_challenge_space.npy"
NAMES = {0: "Unknown", 1: "V1v", 2: "V1d", 7: "hV4"}


class Algonauts:
    def __init__(self, root):
        self.root = root
        generator = np.random.default_rng(0)
        self.values = {hemi: generator.normal(size=(6, n)).astype(np.float32) for hemi, n in (("lh", 5), ("rh", 4))}
        self.labels = {"lh": np.array([1, 0, 2, 7, 0]), "rh": np.array([0, 0, 1, 2])}
        self.images = [f"train-{k + 1:04d}_nsd-{number:05d}.png" for k, number in enumerate((13, 9, 72_999, 0, 4, 21))]
        for name in ("training_split/training_fmri", "training_split/training_images", "roi_masks"):
            (root / "subj02" / name).mkdir(parents=True)
        self.write()

    def write(self):
        base = self.root / "subj02"
        for hemi, values in self.values.items():
            np.save(base / f"training_split/training_fmri/{hemi}_training_fmri.npy", values)
            np.save(base / f"roi_masks/{hemi}.prf-visualrois_challenge_space.npy", self.labels[hemi])
        np.save(base / "roi_masks/mapping_prf-visualrois.npy", NAMES)  # an object array, as published
        folder = base / "training_split/training_images"
        for path in folder.iterdir():
            path.unlink()
        for name in self.images:
            (folder / name).touch()


@pytest.fixture
def algonauts(tmp_path):
    return Algonauts(tmp_path)


def read(algonauts, spec, labels):
    rois = {"roi": {"atlas": ATLAS, "labels": labels}}
    return read_layout(spec("algonauts2023", rois), algonauts.root, "subj02", "roi")


def test_rows_are_images_and_a_region_is_its_vertices_in_both_hemispheres(algonauts, spec):
    trials = read(algonauts, spec, ("V1v", "V1d"))
    left, right = algonauts.values["lh"], algonauts.values["rh"]
    assert np.array_equal(trials.responses, np.concatenate([left[:, [0, 2]], right[:, [2, 3]]], axis=1))
    assert trials.responses.dtype == np.float32
    assert trials.table["stimulus"].tolist() == [
        "nsd-00013",
        "nsd-00009",
        "nsd-72999",
        "nsd-00000",
        "nsd-00004",
        "nsd-00021",
    ]
    assert trials.table["file"].tolist() == algonauts.images


def test_labels_are_names_of_the_mapping_or_numbers(algonauts, spec):
    by_name, by_number = (read(algonauts, spec, labels) for labels in (("hV4",), (7,)))
    assert np.array_equal(by_name.responses, by_number.responses)
    assert np.array_equal(by_name.responses, algonauts.values["lh"][:, [3]])  # not every region is in every hemisphere
    with pytest.raises(ValueError, match=r"mapping_prf-visualrois.npy: no label 'V3v'; it has: Unknown, V1v, V1d, hV4"):
        read(algonauts, spec, ("V3v",))


def test_means_over_repetitions_give_neither_crossnobis_nor_reliability(algonauts, spec):
    trials = read(algonauts, spec, ("V1v", "V1d"))
    assert trials.averaged
    with pytest.raises(ValueError, match="means over repetitions, which cannot be cross-validated"):
        measured_rdm(trials, "crossnobis")
    with pytest.raises(ValueError, match="means over repetitions, which cannot be split"):
        split_halves(trials, "run")
    assert measured_rdm(trials, "correlation").n_cond == 6


def test_the_files_must_fit_together(algonauts, spec):
    algonauts.images = algonauts.images[:-1]
    algonauts.write()
    with pytest.raises(ValueError, match=r"lh_training_fmri.npy: 6 rows for 5 training images"):
        read(algonauts, spec, (1,))
    algonauts.images = ["train-0002_nsd-00013.png"]
    algonauts.write()
    with pytest.raises(
        ValueError, match=r"training_images: expected train-0001_nsd-XXXXX.png .*without gaps, got 1 images"
    ):
        read(algonauts, spec, (1,))


def test_a_region_of_another_subject_is_refused(algonauts, spec):
    algonauts.labels["rh"] = np.array([1, 0, 0])
    algonauts.write()
    with pytest.raises(ValueError, match=r"have 8 vertices, .* have 9; use the mask of the same surface"):
        read(algonauts, spec, (1,))


def test_a_mapping_that_is_code_is_not_run(algonauts, spec, tmp_path):
    class RunsCode:
        def __reduce__(self):
            return open, (str(tmp_path / "code_was_run"), "w")

    np.save(tmp_path / "subj02/roi_masks/mapping_prf-visualrois.npy", np.array({1: RunsCode()}, dtype=object))
    with pytest.raises(ValueError, match=r"mapping_prf-visualrois.npy: holds a pickle that asks for"):
        read(algonauts, spec, ("V1v",))
    assert not (tmp_path / "code_was_run").exists()


def test_missing_responses_are_told(algonauts, spec):
    (algonauts.root / "subj02/training_split/training_fmri/rh_training_fmri.npy").unlink()
    with pytest.raises(ValueError, match=r"no surface file .*rh_training_fmri.npy"):
        read(algonauts, spec, (1,))
