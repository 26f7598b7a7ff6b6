"""BOLD5000's second release, on small files of its layout."""

import nibabel
import numpy as np
import pytest

from brainrdl.fmri.layouts import read_layout
from brainrdl.fmri.layouts.bold5000 import SESSIONS, VERSIONS, image_source

SHAPE = (4, 3, 5)
MASK = "derivatives/spm/sub-{subject}/sub-{subject}_mask-{hemi}PPA.nii.gz"
ROIS = {"PPA": {"mask": MASK}}
TYPED = "TYPED-FITHRF-GLMDENOISE-RR"


class Bold5000:
    """CSI4 (9 sessions), of whom the first two are there, with 2 and 3 runs of 37 trials."""

    def __init__(self, root, betas=TYPED):
        self.root, self.betas = root, betas
        generator = np.random.default_rng(0)
        self.values = {k: generator.normal(size=(*SHAPE, n * 37)).astype(np.float32) for k, n in ((1, 2), (2, 3))}
        self.masks = {hemi: np.zeros(SHAPE, np.uint8) for hemi in ("LH", "RH")}
        self.masks["LH"][0, :, 1] = 1
        self.masks["RH"][3, 1, :2] = 1
        names = [f"n{k:08d}_{k}.JPEG" for k in range(60)] + [f"COCO_train2014_{k:012d}.jpg" for k in range(60)]
        names += [f"kitchen{k}.jpg" for k in range(60)]
        names += names[:5]  # five ImageNet images again
        self.names = names + [f"later{k}.jpg" for k in range(7 * 37)]
        self.write()

    def file(self, session):
        return self.root / f"CSI4_GLMbetas-{self.betas}_ses-{session:02d}.nii.gz"

    def write(self):
        (self.root / "CSI4_imgnames.txt").write_text("\n".join(self.names) + "\n")
        for session, values in self.values.items():
            nibabel.Nifti1Image(values, np.diag([2, 2, 2, 1])).to_filename(self.file(session))
        for hemi, mask in self.masks.items():
            path = self.root / MASK.format(subject="CSI4", hemi=hemi)
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(mask, np.diag([-2, 2, 2, 1])).to_filename(path)

    def expected(self):
        inside = (self.masks["LH"] + self.masks["RH"]).astype(bool)
        return np.concatenate([values[inside].T for values in self.values.values()])


@pytest.fixture
def bold(tmp_path):
    return Bold5000(tmp_path)


def read(bold, spec, rois=ROIS, **data):
    return read_layout(
        spec("bold5000", rois, **{"betas": bold.betas, "min_repetitions": 1, **data}), bold.root, "CSI4", "PPA"
    )


def test_hemispheres_of_other_shapes_are_told(bold, spec):
    bold.masks["RH"] = bold.masks["RH"][:, :, :4]
    bold.write()
    told = r"roi 'PPA': .*mask-LHPPA.nii.gz and .*mask-RHPPA.nii.gz have shapes \(4, 3, 5\) and \(4, 3, 4\)"
    with pytest.raises(ValueError, match=told):
        read(bold, spec)


def test_the_list_of_images_tells_session_run_and_stimulus_of_each_volume(bold, spec):
    trials = read(bold, spec)
    assert np.array_equal(trials.responses, bold.expected())
    assert trials.table["stimulus"].tolist() == bold.names[: 5 * 37]
    assert trials.table["session"].tolist() == ["01"] * 74 + ["02"] * 111
    assert trials.table["run"].tolist() == ["01"] * 37 + ["02"] * 37 + ["01"] * 37 + ["02"] * 37 + ["03"] * 37


def test_a_later_session_keeps_its_place_in_the_list(bold, spec):
    second = read(bold, spec, sessions=("2",))
    assert second.table["stimulus"].tolist() == bold.names[74:185]
    assert np.array_equal(second.responses, bold.expected()[74:])
    bold.file(1).unlink()
    with pytest.raises(ValueError, match=r"no image file .*_ses-01.nii.gz"):
        read(bold, spec, sessions=("2",))


def test_nearly_all_images_were_shown_once(bold, spec):
    repeated = read(bold, spec, min_repetitions=2)
    assert set(repeated.table["stimulus"]) == set(bold.names[:5])
    assert np.array_equal(repeated.responses, bold.expected()[[0, 1, 2, 3, 4, 180, 181, 182, 183, 184]])
    with pytest.raises(ValueError, match="bold5000, CSI4: no stimulus stands in 3 of the 185 trials"):
        read(bold, spec, min_repetitions=3)


def test_where_an_image_comes_from_is_told_and_that_networks_may_have_seen_it(bold, spec):
    trials = read(bold, spec)
    assert trials.table["source"].value_counts().to_dict() == {"ImageNet": 65, "COCO": 60, "Scene": 60}
    (note,) = [note for note in trials.notes if "ImageNet" in note]
    assert "60 ImageNet" in note and "60 COCO" in note and "may have seen them" in note
    assert [
        image_source(name) for name in ("n01440764_10026.JPEG", "COCO_train2014_000000000036.jpg", "nook12.jpg")
    ] == [
        "ImageNet",
        "COCO",
        "Scene",
    ]


@pytest.mark.parametrize("betas", VERSIONS)
def test_every_version_is_read_by_the_name_its_publisher_gave_it(betas, tmp_path, spec):
    bold = Bold5000(tmp_path, betas)
    trials = read(bold, spec)
    assert np.array_equal(trials.responses, bold.expected())
    assert any("denoised over all runs" in note for note in trials.notes) == ("DENOISE" in betas)
    assert "TYBEB-FITHRF" in VERSIONS and list(SESSIONS.values()) == [15, 15, 15, 9]


def test_a_version_nobody_published_is_refused(bold, spec):
    with pytest.raises(ValueError, match=r"data.betas 'TYPEB-FITHRF' is unknown; expected one of: .*TYBEB-FITHRF"):
        read(bold, spec, betas="TYPEB-FITHRF")


def test_masks_are_matched_by_index_and_so_it_is_said(bold, spec):
    assert (
        "the mask's affine is another than the responses': voxels are matched by their index" in read(bold, spec).notes
    )
    bold.masks = dict.fromkeys(bold.masks, np.ones((3, 3, 5), np.uint8))
    bold.write()
    with pytest.raises(ValueError, match=r"responses of shape \(4, 3, 5\), roi 'PPA' of \(3, 3, 5\)"):
        read(bold, spec)


def test_resampling_is_refused_because_the_responses_tell_no_space(bold, spec):
    with pytest.raises(ValueError, match=r"roi 'PPA': resample cannot be had, because these responses tell no space"):
        read(bold, spec, {"PPA": {"mask": MASK, "resample": "nearest"}})


def test_voxels_outside_the_measured_volume_are_dropped_and_counted(bold, spec):
    bold.values[2][0, 0, 1, 7] = np.nan
    bold.values[1][3, 1, 0] = 0
    bold.write()
    trials = read(bold, spec)
    assert np.array_equal(trials.responses, np.delete(bold.expected(), [0, 3], axis=1))
    assert "2 of 5 voxels dropped: NaN, or 0 throughout a session" in trials.notes


def test_files_that_do_not_fit_together_are_refused(bold, spec):
    bold.names = bold.names[:100]
    bold.write()
    with pytest.raises(ValueError, match=r"CSI4_imgnames.txt: 100 images for 185 trials in 2 sessions; fetch it again"):
        read(bold, spec)
    bold.values[1] = bold.values[1][..., :50]
    bold.write()
    with pytest.raises(ValueError, match=r"ses-01.nii.gz: 50 trials, expected a multiple of 37"):
        read(bold, spec)
    (bold.root / "CSI4_imgnames.txt").unlink()
    with pytest.raises(ValueError, match=r"no order of trials .*CSI4_imgnames.txt"):
        read(bold, spec)


def test_all_sessions_have_all_images(bold, spec):
    bold.values |= dict.fromkeys(range(3, 10), bold.values[1])
    bold.write()
    with pytest.raises(ValueError, match=r"CSI4_imgnames.txt: 444 images for 703 trials in 9 sessions"):
        read(bold, spec)
    bold.names = [f"scene{k}.jpg" for k in range(703)]
    bold.write()
    assert len(read(bold, spec).table) == 703


def test_unknown_subjects_and_sessions_are_refused(bold, spec):
    with pytest.raises(ValueError, match="subject 'CSI5' is unknown; expected one of: CSI1, CSI2, CSI3, CSI4"):
        read_layout(spec("bold5000"), bold.root, "CSI5", "PPA")
    with pytest.raises(ValueError, match="bold5000, CSI4 has sessions 1 to 9, got '10'"):
        read(bold, spec, sessions=("10",))
