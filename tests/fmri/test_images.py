"""Voxels of a region: volumes and surfaces, masks in other spaces, damaged files."""

import nibabel
import numpy as np
import pytest
from nilearn.masking import apply_mask

from brainrdl.fmri.images import read_region, read_voxels, scan_interval, usable_voxels
from brainrdl.fmri.spec import Roi

SHAPE = (4, 3, 2)


@pytest.fixture
def image(tmp_path, save_volume):
    values = np.random.default_rng(0).normal(size=(*SHAPE, 5)).astype(np.float32)
    return save_volume(tmp_path / "bold.nii.gz", values)


@pytest.fixture
def mask():
    values = np.zeros(SHAPE, np.uint8)
    values[1:3, :, 0] = 1
    values[0, 0, 0] = 7
    return values


def region(roi, folder, image, **given):
    return read_region(Roi.model_validate(roi), folder, "01", [image], name="V1", **given)


def test_a_mask_gives_the_voxels_nilearn_gives(tmp_path, save_volume, image, mask):
    file = save_volume(tmp_path / "mask_01.nii.gz", mask)
    found = region({"mask": "mask_{subject}.nii.gz"}, tmp_path, image)
    assert found.notes == () and np.array_equal(found.mask, mask != 0)
    expected = apply_mask(
        nibabel.load(image), nibabel.Nifti1Image((mask > 0).astype(np.uint8), nibabel.load(file).affine)
    )
    assert np.array_equal(read_voxels([image], found), expected)


def test_labels_of_an_atlas_choose_voxels(tmp_path, save_volume, image, mask):
    save_volume(tmp_path / "atlas.nii", mask)
    assert region({"atlas": "atlas.nii", "labels": [7]}, tmp_path, image).mask.sum() == 1
    assert region({"atlas": "atlas.nii", "labels": [1, 7]}, tmp_path, image).mask.sum() == 7
    assert region({"atlas": "atlas.nii", "labels": [7, 8, 9]}, tmp_path, image).notes == (
        "roi 'V1': no voxel of atlas.nii has the label 8, 9",
    )
    with pytest.raises(ValueError, match=r"roi 'V1': .*atlas.nii has no voxel in it; correct the mask or its labels"):
        region({"atlas": "atlas.nii", "labels": [8]}, tmp_path, image)
    with pytest.raises(ValueError, match=r"atlas.nii has no label 'V1'; it names none; give their numbers"):
        region({"atlas": "atlas.nii", "labels": ["V1"]}, tmp_path, image)


def test_one_volume_is_one_row_and_nan_stays_nan(tmp_path, save_volume, mask):
    values = np.ones(SHAPE, np.float32)
    values[1, 0, 0] = np.nan
    image = save_volume(tmp_path / "beta.nii.gz", values)
    save_volume(tmp_path / "mask.nii.gz", mask)
    read = read_voxels([image], region({"mask": "mask.nii.gz"}, tmp_path, image))
    assert read.shape == (1, 7) and np.isnan(read).sum() == 1


def test_a_mask_in_another_space_is_refused_with_both_spaces(tmp_path, save_volume, image, mask):
    save_volume(tmp_path / "mask.nii.gz", mask, affine=np.diag([2.0, 2, 2, 1]))
    with pytest.raises(
        ValueError, match=r"roi 'V1': .*mask.nii.gz lies in another space than .*bold.nii.gz: shape .*2.*3"
    ):
        region({"mask": "mask.nii.gz"}, tmp_path, image)
    save_volume(tmp_path / "mask.nii.gz", np.ones((5, 5, 5), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(5, 5, 5\) .* shape \(4, 3, 2\) .*set resample: nearest"):
        region({"mask": "mask.nii.gz"}, tmp_path, image)


def test_resampling_is_said_and_nearest(tmp_path, save_volume, image):
    """A mask of half the voxel size, every voxel cut into eight, comes back as the one it was made of."""
    coarse = np.zeros(SHAPE, np.uint8)
    coarse[1:3, 1:, :] = 1
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = -0.75
    save_volume(tmp_path / "mask.nii.gz", coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2), affine=affine)
    found = region({"mask": "mask.nii.gz", "resample": "nearest"}, tmp_path, image)
    assert np.array_equal(found.mask, coarse != 0)
    assert len(found.notes) == 1 and "roi 'V1' resampled (nearest) from shape (8, 6, 4)" in found.notes[0]
    assert np.isfinite(read_voxels([image], found)).all()


def test_an_empty_mask_is_told(tmp_path, save_volume, image, mask):
    save_volume(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match=r"roi 'V1': .*mask.nii.gz has no voxel in it; correct the mask"):
        region({"mask": "mask.nii.gz"}, tmp_path, image)
    far = np.diag([3.0, 3, 3, 1])
    far[:3, 3] = 500
    save_volume(tmp_path / "mask.nii.gz", mask, affine=far)
    with pytest.raises(ValueError, match="has no voxel in it after resampling"):
        region({"mask": "mask.nii.gz", "resample": "nearest"}, tmp_path, image)


def test_damaged_and_missing_images_are_told(tmp_path, save_volume, image, mask):
    save_volume(tmp_path / "mask.nii.gz", mask)
    found = region({"mask": "mask.nii.gz"}, tmp_path, image)
    whole = image.read_bytes()
    for n_bytes in (len(whole) // 2, 100, 5):
        image.write_bytes(whole[:n_bytes])
        with pytest.raises(ValueError, match=r"bold.nii.gz: cannot be read \(.*\); fetch it again"):
            read_voxels([image], found)
    plain = save_volume(tmp_path / "plain.nii", np.ones((*SHAPE, 5), np.float32))
    whole_plain = plain.read_bytes()
    plain.write_bytes(whole_plain[:-40])
    with pytest.raises(ValueError, match=r"plain.nii: cannot be read"):
        read_voxels([plain], found)
    plain.write_bytes(whole_plain[:70] + b"\xff\x7f" + whole_plain[72:])  # the type of its numbers
    with pytest.raises(ValueError, match=r"plain.nii: cannot be read \(data code 32767 not recognized\)"):
        read_voxels([plain], found)
    with pytest.raises(ValueError, match=r"no image file .*gone.nii; correct its name in the spec"):
        read_voxels([tmp_path / "gone.nii"], found)
    plain.write_bytes(whole_plain)
    (tmp_path / "mask.nii.gz").write_bytes((tmp_path / "mask.nii.gz").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"mask.nii.gz: cannot be read"):
        region({"mask": "mask.nii.gz"}, tmp_path, plain)


def test_images_of_other_spaces_or_shapes_are_told(tmp_path, save_volume, image, mask):
    save_volume(tmp_path / "mask.nii.gz", mask)
    found = region({"mask": "mask.nii.gz"}, tmp_path, image)
    other = save_volume(tmp_path / "other.nii.gz", np.ones((4, 3, 3, 5), np.float32))
    with pytest.raises(ValueError, match=r"other.nii.gz lies in another space than roi 'V1'"):
        read_voxels([other], found, "V1")
    with pytest.raises(ValueError, match=r"roi 'V1': .*bold.nii.gz has shape \(4, 3, 2, 5\); expected one volume"):
        region({"mask": "bold.nii.gz"}, tmp_path, image)
    flat = save_volume(tmp_path / "flat.nii.gz", np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match=r"flat.nii.gz: expected a volume of 3 or 4 dimensions, got \(4, 3\)"):
        read_voxels([flat], found)


def save_gifti(path, *maps, labels=None):
    arrays = [nibabel.gifti.GiftiDataArray(np.asarray(values)) for values in maps]
    table = nibabel.gifti.GiftiLabelTable()
    for key, name in (labels or {}).items():
        label = nibabel.gifti.GiftiLabel(key)
        label.label = name
        table.labels.append(label)
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays, labeltable=table), path)


def save_mgh(path, values):
    data = values.T.reshape(-1, 1, 1, len(values)) if len(values) > 1 else values.reshape(-1, 1, 1)
    nibabel.save(nibabel.freesurfer.MGHImage(data.astype(np.float32), np.eye(4)), path)


def save_npy(path, values):
    np.save(path, values)


@pytest.mark.parametrize(
    ("ending", "save"), [("gii", lambda path, values: save_gifti(path, *values)), ("mgh", save_mgh), ("npy", save_npy)]
)
def test_hemispheres_are_joined_in_their_order(tmp_path, ending, save):
    generator = np.random.default_rng(0)
    data = {hemi: generator.normal(size=(6, n)).astype(np.float32) for hemi, n in (("lh", 10), ("rh", 8))}
    inside = {hemi: (generator.random((1, values.shape[1])) < 0.5).astype(np.float32) for hemi, values in data.items()}
    for hemi in data:
        save(tmp_path / f"{hemi}.{ending}", data[hemi])
        save(tmp_path / f"{hemi}.mask.{ending}", inside[hemi])
    files = [tmp_path / f"{hemi}.{ending}" for hemi in ("lh", "rh")]
    roi = Roi(mask="{hemi}.mask." + ending)
    found = read_region(roi, tmp_path, "01", files, ("lh", "rh"))
    expected = np.hstack([data["lh"][:, inside["lh"][0] > 0], data["rh"][:, inside["rh"][0] > 0]])
    assert np.allclose(read_voxels(files, found), expected, rtol=0, atol=1e-7)


def test_labels_of_surfaces_go_by_name(tmp_path):
    save_gifti(tmp_path / "data.gii", np.zeros(5, np.float32))
    save_gifti(tmp_path / "atlas.gii", np.array([0, 3, 3, 4, 0], np.int32), labels={3: "V1", 4: "V2"})
    roi = {"atlas": "atlas.gii", "labels": ["V1"]}
    assert region(roi, tmp_path, tmp_path / "data.gii").mask.tolist() == [False, True, True, False, False]
    with pytest.raises(ValueError, match=r"atlas.gii has no label 'V4'; it has: V1, V2"):
        region({"atlas": "atlas.gii", "labels": ["V4"]}, tmp_path, tmp_path / "data.gii")
    names = ["unknown", "V1", "V2"]
    colours = np.array([[k, k, k, 0, k] for k in range(3)], np.int32)
    nibabel.freesurfer.write_annot(
        tmp_path / "lh.annot", np.array([0, 1, 1, 2, 0], np.int32), colours, names, fill_ctab=True
    )
    roi = {"atlas": "lh.annot", "labels": ["V1", "V2"]}
    assert region(roi, tmp_path, tmp_path / "data.gii").mask.tolist() == [False, True, True, True, False]


def test_surfaces_that_do_not_fit_are_told(tmp_path, save_volume, image):
    np.save(tmp_path / "data.npy", np.zeros((3, 5)))
    np.save(tmp_path / "mask.npy", np.ones(4))
    with pytest.raises(
        ValueError, match=r"have 4 vertices, .*data.npy and its like have 5; use the mask of the same surface"
    ):
        region({"mask": "mask.npy"}, tmp_path, tmp_path / "data.npy")
    with pytest.raises(ValueError, match="are not both volumes or both surfaces"):
        region({"mask": "mask.npy"}, tmp_path, image)
    np.save(tmp_path / "mask.npy", np.ones(5))
    found = region({"mask": "mask.npy"}, tmp_path, tmp_path / "data.npy")
    np.save(tmp_path / "longer.npy", np.zeros((3, 6)))
    with pytest.raises(ValueError, match=r"have shapes \(3, 6\) \(volumes, vertices\); roi 'V1' has 5 vertices in all"):
        read_voxels([tmp_path / "longer.npy"], found, "V1")
    with pytest.raises(ValueError, match="expected one value a vertex, got 3 maps"):
        region({"mask": "data.npy"}, tmp_path, tmp_path / "data.npy")
    np.save(tmp_path / "deep.npy", np.zeros((3, 5, 2)))
    with pytest.raises(ValueError, match=r"deep.npy: expected \(n_maps, n_vertices\), got \(3, 5, 2\)"):
        read_voxels([tmp_path / "deep.npy"], found)
    nibabel.save(nibabel.freesurfer.MGHImage(np.zeros((3, 3, 3), np.float32), np.eye(4)), tmp_path / "volume.mgh")
    with pytest.raises(ValueError, match=r"volume.mgh: expected values of vertices, \(n, 1, 1\), got \(3, 3, 3\)"):
        read_voxels([tmp_path / "volume.mgh"], found)
    save_gifti(tmp_path / "empty.gii")
    save_gifti(tmp_path / "uneven.gii", np.zeros(5, np.float32), np.zeros(4, np.float32))
    for name in ("empty.gii", "uneven.gii"):
        with pytest.raises(ValueError, match=f"{name}: expected maps of one value a vertex, got "):
            read_voxels([tmp_path / name], found)
    (tmp_path / "page.gii").write_text("<html></html>")  # as a server answers in a file's place
    with pytest.raises(ValueError, match=r"page.gii: holds no values of vertices; fetch it again, or correct"):
        read_voxels([tmp_path / "page.gii"], found)
    for name in ("gone.gii", "gone.annot"):
        with pytest.raises(ValueError, match=f"no surface file .*{name}"):
            region({"atlas": name, "labels": [1]}, tmp_path, tmp_path / "data.npy")
    np.save(tmp_path / "text.npy", np.array([["1", "2", "3", "4", "5"]]))
    with pytest.raises(ValueError, match=r"text.npy: expected real numbers, got values of type <U1; save them as"):
        read_voxels([tmp_path / "text.npy"], found)
    (tmp_path / "nameless.annot").write_bytes(
        np.array([1, 0, 1, 0], ">i4").tobytes()
    )  # one vertex, no table of colours
    with pytest.raises(ValueError, match=r"nameless.annot: cannot be read \(Color table not found"):
        region({"atlas": "nameless.annot", "labels": ["V1"]}, tmp_path, tmp_path / "data.npy")
    for name in ("broken.gii", "broken.mgh", "broken.annot", "nothing.gii", "nothing.mgh", "nothing.annot"):
        (tmp_path / name).write_bytes(b"<GIFTI" if name.startswith("broken") else b"")
        with pytest.raises(ValueError, match=f"{name}: cannot be read"):
            region({"atlas": name, "labels": [1]}, tmp_path, tmp_path / "data.npy")


def test_objects_in_a_vertex_file_are_refused(tmp_path):
    np.save(tmp_path / "data.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"data.npy"):
        region({"mask": "data.npy"}, tmp_path, tmp_path / "data.npy")


def test_constant_and_nan_voxels_are_counted():
    first, second = np.random.default_rng(0).normal(size=(2, 6, 5))
    first[:, 1] = 3
    second[2, 3] = np.nan
    usable = usable_voxels([first, second], "sub-01")
    assert usable.keep.tolist() == [True, False, True, False, True]
    assert usable.note == "1 with NaN and 1 constant of 5 voxels dropped"
    assert usable_voxels([first[:, [0, 2]]], "sub-01").note == ""
    with pytest.raises(ValueError, match=r"sub-01: 1 usable of 2 voxels \(1 constant\); a pattern needs at least 2"):
        usable_voxels([first[:, :2]], "sub-01")


def test_the_header_tells_the_scan_interval(tmp_path, save_volume):
    image = save_volume(tmp_path / "bold.nii.gz", np.ones((*SHAPE, 3), np.float32), t_r=1.5)
    assert scan_interval(image) == 1.5
    milliseconds = nibabel.load(image)
    milliseconds.header.set_zooms((3, 3, 3, 1500))
    milliseconds.header.set_xyzt_units("mm", "msec")
    nibabel.save(milliseconds, tmp_path / "ms.nii.gz")
    assert scan_interval(tmp_path / "ms.nii.gz") == 1.5
    assert scan_interval(save_volume(tmp_path / "3d.nii.gz", np.ones(SHAPE, np.float32))) is None
