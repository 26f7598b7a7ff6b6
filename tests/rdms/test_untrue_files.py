"""Files that say what they do not hold, or lead elsewhere: refused by name, before memory is taken for them."""

import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.sparse
import torch
from rsatoolbox.rdm import RDMs, load_rdm
from scipy.io import savemat

from brainrdl.rdms import load_features, load_rdms, save_rdms
from brainrdl.rdms.checks import as_vectors
from brainrdl.rdms.hdf5 import hdf5_array, rsatoolbox_contents
from brainrdl.rdms.matlab import mat_variables

pytestmark = pytest.mark.usefixtures("little_memory")

IDS = list("abcd")


@pytest.fixture
def hdf5(tmp_path):
    """A function: rsatoolbox's layout over four stimuli, changed by a function of the open file."""

    def make(change=lambda file: None):
        path = tmp_path / "rdm.h5"
        with h5py.File(path, "w") as file:
            file["dissimilarities"] = np.arange(6.0)[None] + 1
            for name in ("descriptors", "rdm_descriptors", "pattern_descriptors"):
                file.create_group(name)
            file["dissimilarity_measure"] = "euclidean"
            change(file)
        return path

    return make


def replaced(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def added(name, value):
    return lambda file: file.__setitem__(name, value)


def outside(file):
    del file["dissimilarities"]
    file.create_dataset("dissimilarities", (1, 6), "f8", external=[("numbers.bin", 0, 48)])


def virtual(file):
    del file["dissimilarities"]
    layout = h5py.VirtualLayout((1, 6), "f8")
    layout[0] = h5py.VirtualSource("other.h5", "x", (6,))
    file.create_virtual_dataset("dissimilarities", layout)


def claimed(file):
    del file["dissimilarities"]
    file.create_dataset("dissimilarities", (1, 2**40), "f8", chunks=(1, 1024), compression="gzip")


def in_circles(file):
    file["rdm_descriptors/loop"] = file["rdm_descriptors"]


def references(file):
    file.create_dataset("pattern_descriptors/stimulus", (4,), h5py.ref_dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("dissimilarities", h5py.ExternalLink("other.h5", "/x")), "'dissimilarities' is a link into another"),
        (added("descriptors/n", h5py.SoftLink("/n")), "'n' is a link; put what it stands for in"),
        (outside, "the numbers of 'dissimilarities' lie in another file; copy them into this one"),
        (virtual, "the numbers of 'dissimilarities' lie in another file; copy them into this one"),
        (claimed, r"'dissimilarities': says that it holds 1099511627776 numbers, and is \d+ bytes long: damaged, or"),
        (in_circles, "'loop' is a group within 3 others; expected RDMs of rsatoolbox"),
        (references, "'/pattern_descriptors/stimulus' holds neither numbers nor text; leave it out"),
        (replaced("dissimilarities", np.ones((1, 6), complex)), r"expected real numbers, .*got complex128 of"),
        (replaced("dissimilarities", np.ones((1, 4, 4))), r"expected real numbers, .*got float64 of shape \(1, 4, 4\)"),
        (replaced("dissimilarities", h5py.Empty("f8")), r"expected real numbers, \(n_rdms, n_pairs\), got nothing"),
        (lambda file: file.pop("dissimilarities"), r"is not an RDM file .* \(it has no 'dissimilarities'\)"),
        (lambda file: file.pop("descriptors"), r"is not an RDM file of rsatoolbox \(HDF5\) \('descriptors'\)"),
    ],
)  # fmt: skip
def test_hdf5_that_leads_elsewhere_or_is_of_another_kind_is_refused(change, message, hdf5):
    with pytest.raises(ValueError, match=f"rdm.h5(:|, ).*{message}"):
        load_rdms(hdf5(change))


def test_many_texts_that_are_one_long_one_are_refused(hdf5):
    path = hdf5()
    with h5py.File(path, "r+") as file:
        texts = file.create_dataset("pattern_descriptors/stimulus", (6400,), h5py.string_dtype(), chunks=(6400,))
        texts[0] = "x" * 20_000
        first = texts.id.read_direct_chunk((0,))[1][:16]
        texts.id.write_direct_chunk((0,), first * 6400)
    with pytest.raises(ValueError, match="'/pattern_descriptors/stimulus' has longer texts than the file; write it"):
        load_rdms(path)


def test_groups_in_groups_are_read(hdf5):
    path = hdf5(added("descriptors/about/session", 3))
    assert rsatoolbox_contents(path, "words", "remedy")["descriptors"]["about"] == {"session": 3}


def test_text_is_text_however_it_was_written(hdf5):
    """h5py's own text, bytes of a fixed length and attributes; rsatoolbox gives b'a' for the first."""
    for written in (IDS, np.array(IDS, "S"), np.array(["é", "b", "c", "d"], dtype=object)):
        path = hdf5(lambda file, ids=written: file.create_dataset("pattern_descriptors/stimulus", data=ids))
        rdms = load_rdms(path)
        expected = [one.decode() if isinstance(one, bytes) else one for one in written]
        assert list(rdms.pattern_descriptors["stimulus"]) == expected and rdms.dissimilarity_measure == "euclidean"


@pytest.mark.parametrize("ours", [True, False])
def test_whole_files_are_read_as_rsatoolbox_reads_them(ours, tmp_path):
    made = RDMs(
        np.random.default_rng(0).random((2, 6)),
        "correlation",
        {"session": "1", "n": 3},
        {"roi": ["V1", "IT"], "n": [1, 2], "x": [0.5, np.nan]},
        {"stimulus": IDS, "size": [1.0, 2.0, 3.0, 4.0]},
    )
    path = tmp_path / "r.h5"
    save_rdms(made, path) if ours else made.save(str(path), "hdf5")
    theirs, read = load_rdm(str(path)), load_rdms(path)
    assert np.array_equal(read.dissimilarities, theirs.dissimilarities)
    assert read.dissimilarity_measure == theirs.dissimilarity_measure and read.descriptors == theirs.descriptors
    for kind in ("rdm_descriptors", "pattern_descriptors"):
        own, others = getattr(read, kind), getattr(theirs, kind)
        assert list(own) == list(others)
        for name in own:
            np.testing.assert_array_equal(own[name], others[name])


def test_a_key_does_not_lead_into_another_file(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.eye(4)
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["a"], file["b"] = np.eye(4), h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(ValueError, match=r"plain.h5: 'b' is a link into another file, which is not followed; copy"):
        hdf5_array(tmp_path / "plain.h5", "b")
    with pytest.raises(ValueError, match=r"text.h5: no HDF5 file, or one cut short or damaged \(.*\); write it again"):
        (tmp_path / "text.h5").write_text("no HDF5")
        hdf5_array(tmp_path / "text.h5", None)
    with pytest.raises(ValueError, match=r"text.h5: words \(.*\); remedy"):
        rsatoolbox_contents(tmp_path / "text.h5", "words", "remedy")


# MATLAB


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind, shape, content, name=b"a"):
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, head + element(1, name) + content)


def nested(depth):
    """Cells in cells, the innermost a number."""
    inner, head = matrix(6, (1, 1), element(9, bytes(8)), b""), matrix(1, (1, 1), b"", b"")[8:]
    parts, length = [inner], len(inner)
    for _ in range(depth):
        parts.append(struct.pack("<II", 14, len(head) + length) + head)
        length += len(parts[-1])
    return b"".join(reversed(parts))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (matrix(6, (20_000, 20_000), element(9, bytes(8))), r"an array of size \(20000, 20000\) in \d+ bytes"),
        (matrix(1, (20_000, 20_000), b""), r"an array of size \(20000, 20000\) in \d+ bytes"),
        (matrix(4, (1, 200_000_000), element(4, b"")), r"an array of size \(1, 200000000\) in"),
        (matrix(6, (2, -1), element(9, bytes(8))), r"an array of size \(2, -1\) in"),
        (nested(50_000), "cells or structs in one another, more than 20"),
        (element(14, element(6, bytes(8))), "an array without its size"),
        (struct.pack("<II", 14, 800) + bytes(80), "800 bytes are said to follow, 80 do"),
        (element(14, struct.pack("<II", 6, 800)), "800 bytes are said to follow, 0 do"),
    ],
)
def test_sizes_of_a_matlab_file_are_those_of_its_bytes(content, message, tmp_path):
    """scipy would take memory for what is only claimed, and ends the program where cells lie too deep."""
    path = tmp_path / "r.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + content)
    with pytest.raises(ValueError, match=rf"r.mat: no MATLAB file, or one cut short or damaged \({message}"):
        mat_variables(path)


def test_a_matlab_array_of_no_dimensions_is_a_number(tmp_path):
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "r.mat").write_bytes(header + matrix(6, (), element(9, struct.pack("<d", 3.5))))
    assert mat_variables(tmp_path / "r.mat") == {"a": 3.5}


def test_packed_zeros_of_a_matlab_file_are_not_unpacked(tmp_path):
    path, packer = tmp_path / "r.mat", zlib.compressobj()
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(128)) + packer.flush()
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(
        ValueError, match=r"r.mat: says that it holds \d+ numbers, and is \d+ bytes long: damaged, or p"
    ):
        mat_variables(path)


@pytest.mark.parametrize("packed", [True, False])
def test_whole_matlab_files_of_all_kinds_are_read(packed, tmp_path):
    values = {
        "square": np.eye(4),
        "whole": np.arange(5, dtype=np.int8),
        "struct": {"c": np.arange(4), "d": [1, "x", np.zeros((3, 0))]},
        "text": "héllo",
        "empty": np.zeros((0, 3)),
        "cells": np.array([[1, "a", {"q": 3}]], dtype=object),
        "sparse": scipy.sparse.csc_matrix(np.eye(1000)),
        "complex": np.array([1 + 2j]),
    }
    savemat(tmp_path / "r.mat", values, do_compression=packed)
    read = mat_variables(tmp_path / "r.mat")
    assert set(read) == set(values) and np.array_equal(read["square"], np.eye(4))
    assert list(mat_variables(tmp_path / "r.mat", ("whole",))) == ["whole"]
    with pytest.raises(ValueError, match=r"r.mat: 'sparse' is a csc_.*; in MATLAB, save full\(sparse\)"):
        load_rdms(tmp_path / "r.mat", IDS, "sparse")
    with pytest.raises(ValueError, match=r"r.mat: 'text' holds no real numbers, but <U5; give another key"):
        load_features(tmp_path / "r.mat", IDS, "text")


def test_condensed_rdms_of_matlabs_newer_format_stand_the_right_way(tmp_path):
    """MATLAB's (n_rdms, n_pairs) is (n_pairs, n_rdms) in the file; with three stimuli it is square both ways."""
    vectors = np.arange(18.0).reshape(3, 6)
    with h5py.File(tmp_path / "r.mat", "w") as file:
        file["r"] = vectors.T
    assert np.array_equal(load_rdms(tmp_path / "r.mat", IDS).dissimilarities, vectors)


# tables, tensors, numbers


def test_cells_of_a_table_are_numbers_as_others_write_them(tmp_path):
    (tmp_path / "r.csv").write_text("0,1_0\n1_0,0\n")
    with pytest.raises(ValueError, match=r"r.csv: .*"):
        load_rdms(tmp_path / "r.csv", ["a", "b"])
    (tmp_path / "r.csv").write_text(",a,b\na,0,1_0\nb,10,0\n")
    with pytest.raises(ValueError, match=r"r.csv: expected numbers, got '1_0' in row 1, column 2 of the values"):
        load_rdms(tmp_path / "r.csv")


def test_one_long_cell_does_not_make_all_cells_long(tmp_path):
    ids = [f"{k}" for k in range(300)]
    ids[0] = "x" * 100_000
    rows = [",".join(["", *ids]), *(",".join([one, *["0"] * 300]) for one in ids)]
    (tmp_path / "r.csv").write_text("\n".join(rows))
    assert load_rdms(tmp_path / "r.csv").n_cond == 300


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            torch.ones(1, 1).expand(100_000, 1_000_000),
            "its rows share their numbers .an expanded tensor.; save a clone",
        ),
        (torch.eye(4).to_sparse(), "expected a plain tensor of numbers"),
        (torch.eye(4, device="meta"), "no file of a tensor|expected a plain tensor of numbers"),
        (torch.eye(4, dtype=torch.complex64), "expected real numbers, got values of type complex64"),
    ],
)
def test_a_tensor_that_is_no_table_of_numbers_is_refused(tensor, message, tmp_path):
    torch.save(tensor, tmp_path / "f.pt")
    with pytest.raises(ValueError, match=rf"f.pt: ({message})"):
        load_features(tmp_path / "f.pt", IDS)


def test_features_of_no_stimulus_are_refused(tmp_path):
    np.save(tmp_path / "f.npy", np.zeros((0, 5)))
    with pytest.raises(ValueError, match=r"f.npy: there is no stimulus in it; give each stimulus a row of its units"):
        load_features(tmp_path / "f.npy", [])
    (tmp_path / "f.csv").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(ValueError, match=r"f.csv: expected rows of numbers alone \(.*\); save them with numpy.save"):
        load_features(tmp_path / "f.csv", IDS)


def test_values_whose_squares_are_infinite_are_refused():
    square = np.zeros((3, 3))
    square[0, 1] = square[1, 0] = 1.6e308
    with pytest.raises(
        ValueError, match="r: 2 values beyond 1e\\+150, the first between 'a' and 'b'; their squares are"
    ):
        as_vectors(square, list("abc"), "r")
    single = np.array([np.inf, 1, 1], dtype=np.float32)
    with pytest.raises(ValueError, match="r: 1 infinite values, the first between 'a' and 'b'"):
        as_vectors(single, list("abc"), "r")
