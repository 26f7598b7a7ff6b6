"""Images that say of their size, type and place what is not so: refused by name, before memory is taken for them."""

import base64
import gzip
import struct
import zlib

import nibabel
import numpy as np
import pytest

from brainrdl.fmri.images import load_volume, read_region, read_vertices, scan_interval
from brainrdl.fmri.spec import Roi

pytestmark = pytest.mark.usefixtures("little_memory")

SHAPE = (4, 3, 2)


def with_header(path, **fields):
    """A small image whose header was changed afterwards."""
    image = nibabel.Nifti1Image(np.ones((*SHAPE, 5), np.float32), np.diag([3.0, 3, 3, 1]))
    content = bytearray(image.to_bytes())
    places = {"dim": (40, "8h"), "datatype": (70, "h"), "vox_offset": (108, "f"), "srow_x": (280, "4f"), "t": (92, "f")}
    for name, value in fields.items():
        place, kind = places[name]
        struct.pack_into(f"<{kind}", content, place, *np.ravel(value).tolist())
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"dim": (4, 2000, 2000, 2000, 50, 1, 1, 1)},
            r"says that it holds 400000000000 numbers, and is \d+ bytes long",
        ),
        ({"dim": (4, 4, 3, 2, 0, 1, 1, 1)}, r"expected a volume of 3 or 4 dimensions, got \(4, 3, 2, 0\)"),
        ({"dim": (5, 4, 3, 2, 1, 5, 1, 1)}, r"expected a volume of 3 or 4 dimensions, got \(4, 3, 2, 1, 5\)"),
        ({"datatype": 32}, "expected real numbers, got values of type complex64; save them as numbers"),
        ({"datatype": 128}, "expected real numbers, got values of type .*'R'.*; save them as numbers"),
        (
            {"srow_x": (0, 0, 0, 0)},
            "the affine of its header says no place in space .*; write it with the affine of the",
        ),
        ({"srow_x": (np.nan, 0, 0, 0)}, "the affine of its header says no place in space"),
        ({"vox_offset": 2e9}, r"says that it holds 500000000 numbers, and is \d+ bytes long"),
        ({"vox_offset": np.nan}, r"cannot be read \(cannot convert float NaN to integer\); fetch it again"),
    ],
)
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_header_that_is_not_true_is_refused(name, fields, message, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        load_volume(with_header(tmp_path / name, **fields))


def test_what_is_mostly_0_may_pack_well(tmp_path):
    atlas = np.zeros((100, 100, 100), np.uint8)
    atlas[50, 50, 50] = 1
    nibabel.save(nibabel.Nifti1Image(atlas, np.eye(4)), tmp_path / "atlas.nii.gz")
    assert load_volume(tmp_path / "atlas.nii.gz").shape == (100, 100, 100)
    assert (tmp_path / "atlas.nii.gz").stat().st_size < 5000


@pytest.mark.parametrize("seconds", [np.inf, np.nan, 0, -2])
def test_a_scan_interval_that_is_no_time_is_not_told(seconds, tmp_path):
    assert scan_interval(with_header(tmp_path / "image.nii", t=seconds)) is None


# surfaces


def gifti(path, change=lambda text: text):
    array = nibabel.gifti.GiftiDataArray(np.arange(6, dtype=np.float32), datatype="NIFTI_TYPE_FLOAT32")
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[array]), path)
    path.write_text(change(path.read_text()))
    return path


def with_data(text, data):
    start, end = text.index("<Data>") + 6, text.index("</Data>")
    return text[:start] + data + text[end:]


def packed_zeros():
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(128)) + packer.flush()
    return base64.b64encode(packed).decode()


def with_entity(text):
    start, end = text.index("<!DOCTYPE"), text.index(">", text.index("<!DOCTYPE")) + 1
    return text[:start] + '<!DOCTYPE GIFTI [<!ENTITY e "1 2 3">]>' + text[end:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace('ExternalFileName=""', 'ExternalFileName="n.bin"'),
            "its values lie in another file",
        ),
        (
            lambda text: text.replace("GZipBase64Binary", "ExternalFileBinary"),
            "its values lie in another file; save it",
        ),
        (
            lambda text: with_data(text, packed_zeros()),
            r"says that it holds \d+ numbers, and is \d+ bytes long: damaged",
        ),
        (lambda text: with_data(text, "!!!"), r"cannot be read \(.*\); fetch it again"),
        (with_entity, "its XML declares entities, which are not read; save it again"),
        (lambda text: text[:-20], r"cannot be read \(.*\); fetch it again"),
        (
            lambda text: text.replace("FLOAT32", "COMPLEX64").replace('Dim0="6"', 'Dim0="3"'),
            "expected real numbers, got",
        ),
    ],
)
def test_a_gifti_file_that_is_not_true_is_refused(change, message, tmp_path):
    assert np.array_equal(read_vertices(gifti(tmp_path / "L.gii")), np.arange(6)[None])
    with pytest.raises(ValueError, match=f"L.gii: {message}"):
        read_vertices(gifti(tmp_path / "L.gii", change))


def test_an_mgh_file_that_is_not_true_is_refused(tmp_path):
    path = tmp_path / "L.mgh"
    nibabel.save(nibabel.MGHImage(np.ones((6, 1, 1), np.float32), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    struct.pack_into(">4i", content, 4, 2**30, 1, 1, 40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"L.mgh: says that it holds {40 * 2**30} numbers, and is \d+ bytes long"):
        read_vertices(path)
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4)), tmp_path / "volume.nii")
    (tmp_path / "volume.nii").rename(tmp_path / "L.gii")
    with pytest.raises(ValueError, match=r"L.gii: cannot be read \(.*\); fetch it again"):
        read_vertices(tmp_path / "L.gii")


@pytest.mark.parametrize(("place", "number"), [(0, 2**31 - 1), (0, -1), (2, 2**28), (3, 2**28)])
def test_an_annot_file_that_is_not_true_is_refused(place, number, tmp_path):
    path = tmp_path / "L.annot"
    colours = np.array([[10, 20, 30, 0], [40, 50, 60, 0]])
    nibabel.freesurfer.write_annot(path, np.array([0, 1, 1, 0]), colours, ["out", "in"], fill_ctab=True)
    np.save(tmp_path / "L.npy", np.ones((2, 4)))
    roi = Roi(atlas="L.annot", labels=("in",))
    assert read_region(roi, tmp_path, "01", [tmp_path / "L.npy"]).mask.tolist() == [False, True, True, False]
    content = bytearray(path.read_bytes())
    struct.pack_into(">i", content, 0 if place == 0 else 4 + 8 * 4 + 4 * (place - 1), number)
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"L.annot: cannot be read \(-?\d+ vertices or labels in \d+ bytes\); fetch it"
    ):
        read_region(roi, tmp_path, "01", [tmp_path / "L.npy"])
