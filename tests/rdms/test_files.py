"""Files of RDMs: every format gives back what was written, and what is wrong with one is told."""

import pickle
import re
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import RDMs, calc_rdm, load_rdm
from scipy.io import loadmat, savemat
from scipy.spatial.distance import squareform

from brainrdl.analysis.rdms import label_rdm, network_rdms, pixel_rdm
from brainrdl.rdms import join_rdms, load_rdms, measure_name, save_rdms, select_rdms, stimulus_ids
from brainrdl.rdms.formats import read_cells
from brainrdl.stimuli import Stimuli


def ids_of(n):
    return [f"img {k}.png" for k in range(n)]


def draw(n_stimuli, n_rdms, seed, missing=0.0):
    """(n_rdms, n_pairs) values, some of them negative as crossnobis can be."""
    generator = np.random.default_rng(seed)
    values = generator.normal(0.5, 0.4, size=(n_rdms, n_stimuli * (n_stimuli - 1) // 2))
    values[generator.random(values.shape) < missing] = np.nan
    return values


def squares(vectors):
    return np.stack([squareform(vector, checks=False) for vector in vectors])


# Every way of writing n_rdms RDMs over n_stimuli: (values, path) -> what load_rdms needs to be told, and the precision.


def as_rsatoolbox(vectors, ids, folder):
    RDMs(vectors, pattern_descriptors={"stimulus": list(ids)}).save(str(folder / "r.h5"), "hdf5", overwrite=True)
    return folder / "r.h5", {}, 0


def as_hdf5(vectors, ids, folder):
    with h5py.File(folder / "plain.h5", "w") as file:
        file["brain/rdms"] = squares(vectors)
        file["n"] = 3
    return folder / "plain.h5", {"stimuli": ids, "key": "brain/rdms"}, 0


def as_npy(vectors, ids, folder):
    np.save(folder / "square.npy", squares(vectors))
    return folder / "square.npy", {"stimuli": ids}, 0


def as_npy_of_one(vectors, ids, folder):
    np.save(folder / "one.npy", squares(vectors)[0] if len(vectors) == 1 else vectors)
    return folder / "one.npy", {"stimuli": ids}, 0


def as_condensed_npy(vectors, ids, folder):
    np.save(folder / "condensed.npy", vectors[0] if len(vectors) == 1 else vectors)
    return folder / "condensed.npy", {"stimuli": ids}, 0


def as_single_precision_npy(vectors, ids, folder):
    np.save(folder / "single.npy", np.asfortranarray(squares(vectors), dtype=">f4"))
    return folder / "single.npy", {"stimuli": ids}, 1e-6


def as_npz(vectors, ids, folder):
    np.savez(folder / "a.npz", other=np.ones(3), Net_RDM=squares(vectors))
    return folder / "a.npz", {"stimuli": ids, "key": "Net_RDM"}, 0


def as_npz_with_one_key(vectors, ids, folder):
    np.savez_compressed(folder / "one.npz", Net_RDM=vectors)
    return folder / "one.npz", {"stimuli": ids}, 0


def as_mat(vectors, ids, folder):
    savemat(folder / "plain.mat", {"rdm": np.moveaxis(squares(vectors), 0, -1), "n": 3.0})  # stacked as in MATLAB
    return folder / "plain.mat", {"stimuli": ids, "key": "rdm"}, 0


def as_condensed_mat(vectors, ids, folder):
    savemat(folder / "condensed.mat", {"rdm": vectors}, do_compression=True)
    return folder / "condensed.mat", {"stimuli": ids}, 0


def as_struct_mat(vectors, ids, folder):
    structs = np.empty((len(vectors), 1), dtype=[("RDM", "O"), ("name", "O"), ("color", "O")])
    for k, matrix in enumerate(squares(vectors)):
        structs[k, 0] = matrix, f"IT | {k}", np.array([0, 0, 1])
    savemat(folder / "struct.mat", {"RDMs": structs})
    return folder / "struct.mat", {"stimuli": ids}, 0


def as_mat_7_3(vectors, ids, folder):
    """MATLAB's HDF5 holds the transposed array after 512 bytes of text."""
    with h5py.File(folder / "new.mat", "w", userblock_size=512) as file:
        file["rdm"] = squares(vectors)
        file["#refs#/a"] = np.ones(3)
    with open(folder / "new.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    return folder / "new.mat", {"stimuli": ids}, 0


def as_hdf5_stacked_last(vectors, ids, folder):
    """As MATLAB writes what was (n_rdms, n, n) in it."""
    with h5py.File(folder / "last.h5", "w") as file:
        file["rdm"] = np.moveaxis(squares(vectors), 0, -1) if len(vectors) != len(ids) else squares(vectors)
    return folder / "last.h5", {"stimuli": ids, "key": "rdm"}, 0


def as_condensed_csv(vectors, ids, folder):
    pd.DataFrame(vectors).to_csv(folder / "condensed.csv", header=False, index=False)
    return folder / "condensed.csv", {"stimuli": ids}, 1e-12


def as_square_csv(vectors, ids, folder):
    pd.DataFrame(squares(vectors)[0]).to_csv(folder / "square.csv", header=False, index=False)
    return folder / "square.csv", {"stimuli": ids}, 1e-12


def as_labelled_tsv(vectors, ids, folder):
    pd.DataFrame(squares(vectors)[0], ids, ids).to_csv(folder / "labelled.tsv", sep="\t", na_rep="NA")
    return folder / "labelled.tsv", {}, 1e-12


def as_labelled_csv(vectors, ids, folder):
    order = np.random.default_rng(0).permutation(len(ids))  # of the columns alone
    table = pd.DataFrame(squares(vectors)[0], ids, ids).iloc[:, order]
    np.fill_diagonal(table.loc[:, ids].to_numpy(copy=True), np.nan)
    table.to_csv(folder / "labelled.csv", index_label="stimulus")
    return folder / "labelled.csv", {"stimuli": ids}, 1e-12


OF_ONE = [as_square_csv, as_labelled_tsv, as_labelled_csv]
OF_MANY = [
    as_rsatoolbox,
    as_hdf5,
    as_npy,
    as_npy_of_one,
    as_condensed_npy,
    as_single_precision_npy,
    as_npz,
    as_npz_with_one_key,
    as_mat,
    as_condensed_mat,
    as_struct_mat,
    as_mat_7_3,
    as_hdf5_stacked_last,
    as_condensed_csv,
]


@pytest.mark.parametrize("write", OF_MANY + OF_ONE)
def test_every_format_gives_back_what_was_written(write, tmp_path):
    for seed, (n_stimuli, n_rdms, missing) in enumerate([(2, 1, 0), (5, 1, 0.2), (7, 3, 0), (9, 4, 0.3), (12, 12, 0)]):
        if write in OF_ONE:
            n_rdms = 1
        vectors, ids = draw(n_stimuli, n_rdms, seed, missing), ids_of(n_stimuli)
        path, told, precision = write(vectors, ids, tmp_path)
        rdms = load_rdms(path, **told)
        np.testing.assert_allclose(rdms.dissimilarities, vectors, rtol=precision, atol=0)
        assert rdms.dissimilarities.dtype == np.float64
        assert stimulus_ids(rdms) == tuple(ids)
        assert rdms.dissimilarity_measure is None
        save_rdms(rdms, tmp_path / "again.h5")
        again = load_rdms(tmp_path / "again.h5")
        np.testing.assert_array_equal(again.dissimilarities, rdms.dissimilarities)
        assert stimulus_ids(again) == tuple(ids)


def test_a_cell_of_a_table_may_hold_a_line_end(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'"one\r\ntwo",b\r\n"c\n",""\r\n')
    assert read_cells(tmp_path / "a.csv").tolist() == [["one\r\ntwo", "b"], ["c\n", ""]]


def test_single_precision_leaves_sides_that_differ_a_little(tmp_path):
    matrix = squares(draw(30, 1, 0))[0]
    noise = np.random.default_rng(0).uniform(-1e-6, 1e-6, matrix.shape)
    np.save(tmp_path / "a.npy", matrix * (1 + noise) + 1e-7 * np.eye(30))
    rdms = load_rdms(tmp_path / "a.npy", ids_of(30))
    np.testing.assert_allclose(rdms.get_matrices()[0], matrix, rtol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_order_of_rows_changes_no_bit(missing, tmp_path):
    matrix = squares(draw(20, 1, 0, missing))[0] * (1 + np.random.default_rng(0).uniform(-1e-6, 1e-6, (20, 20)))
    order, ids = np.random.default_rng(1).permutation(20), ids_of(20)
    np.save(tmp_path / "a.npy", matrix)
    np.save(tmp_path / "b.npy", matrix[order][:, order])
    one = load_rdms(tmp_path / "a.npy", ids).get_matrices()[0]
    other = load_rdms(tmp_path / "b.npy", [ids[k] for k in order]).get_matrices()[0]
    np.testing.assert_array_equal(one[order][:, order], other)


def test_a_diagonal_that_was_not_measured_is_fine(tmp_path):
    matrix = squares(draw(4, 1, 0))[0]
    np.fill_diagonal(matrix, np.nan)
    np.save(tmp_path / "a.npy", matrix)
    pd.DataFrame(matrix).to_csv(tmp_path / "a.csv", header=False, index=False)
    whole = np.round(10 * matrix)
    pd.DataFrame(whole).to_csv(tmp_path / "whole.csv", header=False, index=False, float_format="%.0f")
    pd.DataFrame(matrix, range(4), range(4)).to_csv(tmp_path / "numbered.csv")
    expected = matrix[np.triu_indices(4, 1)]
    for name in ("a.npy", "a.csv"):
        rdms = load_rdms(tmp_path / name, ids_of(4))
        np.testing.assert_allclose(rdms.dissimilarities[0], expected, rtol=1e-12)
    whole_rdms = load_rdms(tmp_path / "whole.csv", ids_of(4))
    np.testing.assert_array_equal(whole_rdms.dissimilarities[0], whole[np.triu_indices(4, 1)])
    numbered = load_rdms(tmp_path / "numbered.csv")
    np.testing.assert_allclose(numbered.dissimilarities[0], expected, rtol=1e-12)
    assert stimulus_ids(numbered) == ("0", "1", "2", "3")
    with pytest.raises(ValueError, match=r"a.csv: the file does not say which stimuli its rows are; give `stimuli`"):
        load_rdms(tmp_path / "a.csv")


# what is told beside the numbers


def test_ids_come_from_a_list_or_a_file(tmp_path):
    vectors, ids = draw(3, 1, 0), ["Käfer", "犬", "owl "]
    np.save(tmp_path / "a.npy", vectors)
    (tmp_path / "ids.txt").write_text("\n".join(ids) + "\n\n", encoding="utf-8")
    for suffix, separator in ((".tsv", "\t"), (".csv", ",")):
        pd.DataFrame({"file": "x", "stimulus": ids}).to_csv(tmp_path / f"ids{suffix}", sep=separator, index=False)
    for given in (ids, tuple(ids), tmp_path / "ids.txt", str(tmp_path / "ids.tsv"), tmp_path / "ids.csv"):
        assert stimulus_ids(load_rdms(tmp_path / "a.npy", given)) == tuple(ids)
    with pytest.raises(ValueError, match=r"absent.txt: no such file of stimuli; give a list of ids"):
        load_rdms(tmp_path / "a.npy", tmp_path / "absent.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bytes.txt: expected text with an id a line, got something else"):
        load_rdms(tmp_path / "a.npy", tmp_path / "bytes.txt")
    pd.DataFrame({"file": ids}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(ValueError, match=r"other.csv: the column 'stimulus' is missing; it has: file"):
        load_rdms(tmp_path / "a.npy", tmp_path / "other.csv")
    with pytest.raises(ValueError, match="stimuli: stimulus id 'a' occurs 2 times"):
        load_rdms(tmp_path / "a.npy", ["a", "b", "a"])
    (tmp_path / "twice.txt").write_text("a\na\nb\n")
    with pytest.raises(ValueError, match=r"twice.txt: stimulus id 'a' occurs 2 times"):
        load_rdms(tmp_path / "a.npy", tmp_path / "twice.txt")


def test_descriptors_are_one_an_rdm_or_one_for_all(tmp_path):
    np.save(tmp_path / "a.npy", draw(4, 3, 0))
    descriptors = {"subject": ["a", "b", "c"], "roi": "IT", "session": np.array([1, 2, 3])}
    rdms = load_rdms(tmp_path / "a.npy", ids_of(4), dissimilarity="crossnobis", descriptors=descriptors)
    assert rdms.dissimilarity_measure == "crossnobis"
    assert rdms.rdm_descriptors["subject"] == ["a", "b", "c"]
    assert rdms.rdm_descriptors["roi"] == ["IT"] * 3
    assert select_rdms(rdms, session=2).rdm_descriptors["subject"] == ["b"]
    with pytest.raises(ValueError, match=r"a.npy: descriptor 'subject': 2 values for 3 RDMs; give one an RDM, or one"):
        load_rdms(tmp_path / "a.npy", ids_of(4), descriptors={"subject": ["a", "b"]})


@pytest.mark.parametrize("method", ["euclidean", "correlation", "mahalanobis", "crossnobis"])
def test_measures_of_rsatoolbox_are_called_as_here(method, tmp_path):
    generator = np.random.default_rng(0)
    data = Dataset(
        generator.normal(size=(8, 5)), obs_descriptors={"stimulus": list("abcd") * 2, "run": [0] * 4 + [1] * 4}
    )
    noise = np.eye(5) if method == "mahalanobis" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rsatoolbox's, of descriptors it cannot average
        rdms = calc_rdm(data, method, descriptor="stimulus", noise=noise, cv_descriptor="run")
    rdms.save(str(tmp_path / "a.h5"))
    assert load_rdms(tmp_path / "a.h5").dissimilarity_measure == method
    assert load_rdms(tmp_path / "a.h5", dissimilarity=method).dissimilarity_measure == method
    with pytest.raises(ValueError, match=rf"a.h5: its dissimilarities are '{method}', but 'poisson' was given; leave"):
        load_rdms(tmp_path / "a.h5", dissimilarity="poisson")
    assert measure_name("squared euclidean") == "euclidean"
    assert measure_name(None) is None


def test_ids_for_a_file_that_names_its_own_must_be_those(tmp_path):
    save_rdms(RDMs(draw(3, 1, 0), pattern_descriptors={"stimulus": ["a", "b", "c"]}), tmp_path / "a.h5")
    pd.DataFrame(squares(draw(3, 1, 0))[0], list("abc"), list("abc")).to_csv(tmp_path / "a.csv")
    for name in ("a.h5", "a.csv"):
        assert stimulus_ids(load_rdms(tmp_path / name, ["a", "b", "c"])) == ("a", "b", "c")
        told = rf"{name}: the file names its own stimuli, and not those given: row 1 is 'b', and 'c' was given; leave"
        with pytest.raises(ValueError, match=told):
            load_rdms(tmp_path / name, ["a", "c", "b"])
        with pytest.raises(ValueError, match=rf"{name}: .* it has 3 stimuli and 2 were given"):
            load_rdms(tmp_path / name, ["a", "b"])
        with pytest.raises(ValueError, match=rf"{name}: .* 3 would match after changing case"):
            load_rdms(tmp_path / name, ["A", "B", "C"])


def test_an_rsatoolbox_file_without_ids_takes_them(tmp_path):
    RDMs(draw(3, 1, 0), pattern_descriptors={"conds": ["x", "y", "z"]}).save(str(tmp_path / "a.h5"))
    assert stimulus_ids(load_rdms(tmp_path / "a.h5"), "conds") == ("x", "y", "z")
    assert stimulus_ids(load_rdms(tmp_path / "a.h5", ["a", "b", "c"])) == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"a.h5: RDMs over 3 stimuli, but 2 ids were given; give one a row"):
        load_rdms(tmp_path / "a.h5", ["a", "b"])


# what is wrong


def save_matrix(path, matrix):
    np.save(path, matrix)
    return path


def test_what_is_no_rdm_is_told_with_the_ids(tmp_path):
    good, ids, path = squares(draw(5, 1, 0))[0], ids_of(5), tmp_path / "a.npy"

    def refused(told, matrix, given=ids):
        with pytest.raises(ValueError, match=told):
            load_rdms(save_matrix(path, matrix), given)

    refused(r"a.npy: not square: an array of shape \(4, 5\), expected \(5, 5\) or \(10,\) for 5 stimuli", good[:4])
    refused(
        r"a.npy: an RDM of 5 × 5, expected \(4, 4\) or \(6,\) for 4 stimuli, .*give the stimuli of this", good, ids[:4]
    )
    for vectors in (draw(5, 2, 0), draw(5, 1, 0)[0]):
        refused(r"a.npy: 10 pairs, which 5 stimuli have, expected \(6, 6\) or \(15,\)", vectors, ids_of(6))
    refused(r"a.npy: not square: an array of shape \(2, 7\)", np.ones((2, 7)))
    refused(r"a.npy: not square: an array of shape \(\)", np.array(1.0))
    refused(r"a.npy: not square: an array of shape \(0, 5, 5\)|an RDM of 5 × 5", np.ones((0, 5, 5)))
    refused(r"a.npy: an RDM needs at least 2 stimuli, got 1", np.zeros((1, 1)), ["a"])
    refused(r"a.npy: expected real numbers, got values of type complex128", good * 1j)
    refused(r"a.npy: expected real numbers, got values of type <U3", np.full((5, 5), "abc"))

    other = good.copy()
    other[1, 3] += 0.25
    other[2, 4] += 0.01
    told = f"'img 1.png' to 'img 3.png' is {other[1, 3]:g}, back {good[3, 1]:g} (the largest difference); average"
    refused("a.npy: not symmetric: " + re.escape(told), other)
    refused("a.npy, RDM 1 of 2: not symmetric", np.stack([good, other]))
    other = good.copy()
    other[3, 0] = np.nan
    refused(r"a.npy: not symmetric: from 'img 3.png' to 'img 0.png' is NaN \(not measured\), back is", other)
    other = good.copy()
    other[2, 2] = 0.5
    refused(r"a.npy: the diagonal is not zero: 'img 2.png' to itself is 0.5; .* save 1 - r", other)
    refused(r"a.npy: the diagonal is not zero: 'img 0.png' to itself is 1;", 1 - good)
    other = good.copy()
    other[1, 2] = other[2, 1] = np.inf
    refused(r"a.npy: 2 infinite values, the first between 'img 1.png' and 'img 2.png'; save .* as NaN", other)
    vectors = draw(5, 2, 0)
    vectors[1, 4] = -np.inf
    refused(r"a.npy, RDM 1 of 2: 1 infinite values, the first between 'img 1.png' and 'img 2.png'", vectors)
    with pytest.raises(ValueError, match=r"a.npy: the file does not say which stimuli its rows are; give `stimuli`"):
        load_rdms(save_matrix(path, good))


def test_three_rdms_over_three_stimuli_are_taken_for_a_square_and_then_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a.npy: not symmetric|a.npy: the diagonal is not zero"):
        load_rdms(save_matrix(tmp_path / "a.npy", draw(3, 3, 0)), ids_of(3))


def test_objects_and_pickles_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([squares(draw(3, 1, 0))[0], None], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects.npy: expected an array of numbers, got Python objects"):
        load_rdms(tmp_path / "objects.npy", ids_of(3))
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match=r"objects.npz, key 'a': expected an array of numbers, got Python objects"):
        load_rdms(tmp_path / "objects.npz", ids_of(3))
    (tmp_path / "a.npy").write_bytes(pickle.dumps(draw(3, 1, 0)))
    with pytest.raises(ValueError, match=r"a.npy: expected a .npy file, got a pickle"):
        load_rdms(tmp_path / "a.npy", ids_of(3))
    RDMs(draw(3, 1, 0)).save(str(tmp_path / "a.pkl"), "pkl")
    with pytest.raises(ValueError, match=r"a.pkl: RDMs are read from .npy, .*; a pickle is code to be run: save them"):
        load_rdms(tmp_path / "a.pkl")
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a.xlsx: RDMs are read from .*; '.xlsx' is none of them"):
        load_rdms(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    "write", [as_rsatoolbox, as_hdf5, as_npy, as_npz, as_npz_with_one_key, as_mat, as_condensed_mat, as_mat_7_3]
)
def test_a_file_that_is_cut_short_is_told(write, tmp_path):
    path, told, _ = write(draw(12, 3, 0), ids_of(12), tmp_path)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ValueError, match=rf"{path.name}'?:? .*(cut short|is not an RDM file of rsatoolbox)"):
            load_rdms(path, **told)


@pytest.mark.parametrize("suffix", ["h5", "npy", "npz", "mat", "csv", "tsv"])
def test_a_file_of_another_kind_is_told(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\xff\xd8\xff\xe0 a picture, perhaps")
    with pytest.raises(ValueError, match=rf"a.{suffix}'?:? (is not|expected|no \.npz|no MATLAB)"):
        load_rdms(path, ids_of(3))
    with pytest.raises(ValueError, match=rf"RDM file '.*absent.{suffix}' is not there"):
        load_rdms(tmp_path / f"absent.{suffix}", ids_of(3))


def test_tables_that_are_no_rdms_are_told(tmp_path):
    path, matrix = tmp_path / "a.csv", squares(draw(3, 1, 0))[0]

    def refused(told, text, given=None):
        path.write_text(text)
        with pytest.raises(ValueError, match=told):
            load_rdms(path, given)

    labelled = pd.DataFrame(matrix, list("abc"), list("abc"))
    refused(r"a.csv: not square: 2 rows and 3 columns whose ids differ, the first is 'c'", labelled.iloc[:2].to_csv())
    refused(
        r"a.csv: not square: 3 rows and 3 columns whose ids differ, the first is 'A'",
        labelled.rename({"a": "A"}).to_csv(),
    )
    refused(r"a.csv, first column: stimulus id 'b' occurs 2 times", labelled.rename({"a": "b"}).to_csv())
    refused(r"a.csv: not square: 3 rows and 3 columns", labelled.rename(columns={"a": "b"}).to_csv())
    text = labelled.to_csv().replace("0.0", "none", 1)
    refused(r"a.csv: expected numbers, got 'none' in row 1, column 1 of the values; a table of RDMs has a", text)
    refused(
        r"a.csv: row 3 has 2 columns, the first 3: cut short, or separated by other than commas",
        "1,2,3\n1,2,3\n1,2\n",
        ids_of(3),
    )
    refused(r"a.csv: row 2 has 3 columns, the first 2", "1,2\n1,2,3\n", ids_of(3))
    refused(r"a.csv: expected a table, got an empty file", "")
    refused(r"a.csv: expected commas between the columns, got one column .*'a;b…'; save it again", "a;b\n0;1\n1;0\n")
    with pytest.raises(ValueError, match=r"a.csv: holds one array, so there is no key 'x'; leave the key out"):
        load_rdms(path, key="x")


def test_keys_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", one=draw(3, 1, 0), two=draw(3, 1, 0))
    savemat(tmp_path / "a.mat", {"one": draw(3, 1, 0), "two": draw(3, 1, 0)})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["group/two"] = draw(3, 1, 0), draw(3, 1, 0)
    for name, second in (("a.npz", "two"), ("a.mat", "two"), ("a.h5", "group/two")):
        with pytest.raises(ValueError, match=rf"{name}: no key 'third'; give one of: "):
            load_rdms(tmp_path / name, ids_of(3), key="third")
        assert load_rdms(tmp_path / name, ids_of(3), key=second).n_rdm == 1
        if name != "a.h5":
            with pytest.raises(
                ValueError, match=rf"{name}: several arrays and no key was given; give one of: one, two"
            ):
                load_rdms(tmp_path / name, ids_of(3))
    np.save(tmp_path / "a.npy", draw(3, 1, 0))
    with pytest.raises(ValueError, match=r"a.npy: holds one array, so there is no key 'one'"):
        load_rdms(tmp_path / "a.npy", ids_of(3), key="one")


def test_matlab_variables_that_are_no_rdms_are_told(tmp_path):
    savemat(tmp_path / "cell.mat", {"a": np.array([[1, "x"]], object)})
    with pytest.raises(
        ValueError, match=r"cell.mat: 'a' holds neither numbers nor structs with a field RDM, but object"
    ):
        load_rdms(tmp_path / "cell.mat", ids_of(3))
    savemat(tmp_path / "other.mat", {"a": {"rdm": np.ones(3), "label": "x"}})
    with pytest.raises(ValueError, match=r"other.mat: 'a' holds neither .* but structs with rdm, label; give another"):
        load_rdms(tmp_path / "other.mat", ids_of(3))
    structs = np.empty((1, 2), dtype=[("RDM", "O"), ("name", "O")])
    structs[0, 0], structs[0, 1] = (np.zeros((3, 3)), "a"), (np.zeros((4, 4)), "b")
    savemat(tmp_path / "sizes.mat", {"RDMs": structs})
    with pytest.raises(
        ValueError, match=r"sizes.mat: expected RDMs of one size in 'RDMs', got 2 .* \(3, 3\), \(4, 4\)"
    ):
        load_rdms(tmp_path / "sizes.mat", ids_of(3))
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["#refs#/a"] = np.ones((3, 3))
        file["RDMs/RDM"] = np.array([[file["#refs#/a"].ref]], dtype=h5py.ref_dtype)
    with pytest.raises(ValueError, match=r"new.mat: a MATLAB v7.3 file without a plain array.*save\(..., '-v7'\)"):
        load_rdms(tmp_path / "new.mat", ids_of(3))


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (3, 1, 2)])
def test_a_struct_array_of_any_shape_is_read_with_its_names(shape, tmp_path):
    vectors = draw(5, 6, 0)
    structs = np.empty(shape, dtype=[("RDM", "O"), ("name", "O")])
    for k, place in enumerate(np.ndindex(shape)):
        structs[place] = (squares(vectors)[k] if k % 2 else squareform(squares(vectors)[k]), f"RDM {k}" if k else "")
    for k, place in enumerate(np.ndindex(shape)):
        structs[place] = squares(vectors)[k], f"RDM {k}" if k else ""
    savemat(tmp_path / "a.mat", {"RDMs": structs})
    rdms = load_rdms(tmp_path / "a.mat", ids_of(5))
    np.testing.assert_array_equal(rdms.dissimilarities, vectors)
    assert rdms.rdm_descriptors["name"] == ["", *(f"RDM {k}" for k in range(1, 6))]


# rsatoolbox's own files


@pytest.fixture
def stimuli():
    images = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Stimuli(images, tuple(f"img{k}" for k in range(12)), torch.arange(12) % 3)


@pytest.mark.parametrize("names", [["cat", "dog", "owl"], ["Käfer", "犬", "owl"]])
def test_a_file_holds_the_rdms_and_rsatoolbox_reads_it(stimuli, tmp_path, names):
    network = torch.nn.Flatten()
    rdms = network_rdms(network, [""], stimuli, name="rdl", epoch=3, class_names=names)
    save_rdms(rdms, tmp_path / "rdms.h5")
    for again in (load_rdms(tmp_path / "rdms.h5"), load_rdm(str(tmp_path / "rdms.h5"))):
        np.testing.assert_array_equal(again.dissimilarities, rdms.dissimilarities)
        assert again.dissimilarity_measure == "euclidean"
        for kind in ("rdm_descriptors", "pattern_descriptors"):
            for name, values in getattr(rdms, kind).items():
                assert list(getattr(again, kind)[name]) == values, name
    assert [path.name for path in tmp_path.iterdir()] == ["rdms.h5"]


def test_thousands_of_names_of_any_characters_are_written(tmp_path):
    descriptors = {"name": [f"Käfer {k}" for k in range(5000)], "roi": ["犬"] * 5000, "subject": list(range(5000))}
    rdms = RDMs(
        np.arange(15000.0).reshape(5000, 3),
        "euclidean",
        rdm_descriptors=dict(descriptors),
        pattern_descriptors={"stimulus": ["ä", "b", "c"], "label": [0, 1, 1]},
    )
    save_rdms(rdms, tmp_path / "rdms.h5")
    for again in (load_rdms(tmp_path / "rdms.h5"), load_rdm(str(tmp_path / "rdms.h5"))):
        np.testing.assert_array_equal(again.dissimilarities, rdms.dissimilarities)
        for name, values in descriptors.items():
            assert list(again.rdm_descriptors[name]) == values, name
        assert list(again.pattern_descriptors["stimulus"]) == ["ä", "b", "c"]
    assert rdms.rdm_descriptors["name"] == descriptors["name"]


def test_a_joined_file_without_a_measure_can_be_read(stimuli, tmp_path):
    save_rdms(join_rdms([pixel_rdm(stimuli), label_rdm(stimuli)]), tmp_path / "references.h5")
    assert load_rdms(tmp_path / "references.h5").dissimilarity_measure is None


def test_equal_rdms_give_equal_files_and_replace_older_ones(stimuli, tmp_path):
    save_rdms(label_rdm(stimuli), tmp_path / "a.h5")
    save_rdms(pixel_rdm(stimuli), tmp_path / "a.h5")
    save_rdms(pixel_rdm(stimuli), tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_name_under_which_rdms_could_not_be_read_again_is_refused(stimuli, tmp_path):
    with pytest.raises(ValueError, match=r"a.npy: RDMs are written as HDF5; expected a name that ends with .h5"):
        save_rdms(pixel_rdm(stimuli), tmp_path / "a.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_older_file(stimuli, tmp_path):
    save_rdms(pixel_rdm(stimuli), tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    broken = pixel_rdm(stimuli)
    broken.descriptors["not storable"] = object()
    with pytest.raises(TypeError):
        save_rdms(broken, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_an_hdf5_file_that_is_missing_or_something_else_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"RDM file '.*absent.h5' is not there; correct its name"):
        load_rdms(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match=r"text.h5: is not an RDM file of rsatoolbox \(HDF5\)"):
        load_rdms(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = np.ones(3)
    with pytest.raises(ValueError, match=r"other.h5: is not an RDM file .*\(it has no 'dissimilarities'\)"):
        load_rdms(tmp_path / "other.h5")


def test_damaged_bytes_of_an_hdf5_file_are_data_or_a_named_error(tmp_path):
    path, generator = tmp_path / "a.h5", np.random.default_rng(0)
    save_rdms(RDMs(draw(4, 2, 0), pattern_descriptors={"stimulus": list("abcd")}), path)
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 5):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            load_rdms(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 10


def test_rsatoolbox_files_with_impossible_numbers_are_told(tmp_path):
    RDMs(np.ones((1, 5))).save(str(tmp_path / "pairs.h5"))
    with pytest.raises(ValueError, match=r"pairs.h5: its RDMs have 5 pairs, which no number of stimuli has"):
        load_rdms(tmp_path / "pairs.h5")
    RDMs(np.array([[1, np.inf, 2]]), pattern_descriptors={"stimulus": list("abc")}).save(str(tmp_path / "inf.h5"))
    with pytest.raises(ValueError, match=r"inf.h5: 1 infinite values, the first between 'a' and 'c'"):
        load_rdms(tmp_path / "inf.h5")
    RDMs(np.ones((1, 3)), pattern_descriptors={"stimulus": list("aab")}).save(str(tmp_path / "twice.h5"))
    with pytest.raises(ValueError, match=r"twice.h5: pattern descriptor 'stimulus': stimulus id 'a' occurs 2 times"):
        load_rdms(tmp_path / "twice.h5")


# real


def test_the_92_objects_struct_array_is_rsatoolboxs_file(real_data):
    folder = real_data("kriegeskorte2008") / "kriegeskorte2008"
    ours = load_rdms(folder / "92_brainRDMs.mat", folder / "stimuli.tsv", dissimilarity="correlation")
    theirs = load_rdms(folder / "human_it_rdms.h5")
    np.testing.assert_array_equal(ours.dissimilarities, theirs.dissimilarities)
    assert stimulus_ids(ours) == stimulus_ids(theirs)
    assert ours.dissimilarity_measure == theirs.dissimilarity_measure == "correlation"
    assert ours.rdm_descriptors["name"] == [
        f"hIT | {subject} | Session: {session}" for subject in ("BE", "KO", "SN", "TI") for session in (1, 2)
    ]


@pytest.mark.parametrize("roi", ["EVC", "IT"])
def test_net2brains_arrays_are_read_as_they_are(roi, real_data):
    root = real_data("cichy2014", "kriegeskorte2008")
    path = root / "cichy2014" / f"fmri_{roi}_RDMs.npz"
    ids = root / "kriegeskorte2008" / "stimuli.tsv"
    subjects = [f"sub-{k:02d}" for k in range(1, 16)]
    rdms = load_rdms(path, ids, descriptors={"roi": roi, "subject": subjects})
    np.testing.assert_allclose(rdms.get_matrices(), np.load(path)["Net_RDM"], rtol=1e-12, atol=1e-15)
    assert (rdms.n_rdm, rdms.n_cond) == (15, 92)
    assert rdms.rdm_descriptors["subject"] == subjects


def test_loadmat_stacks_the_struct_array_as_said(real_data):
    structs = loadmat(real_data("kriegeskorte2008") / "kriegeskorte2008" / "92_brainRDMs.mat")["RDMs"]
    assert structs.shape == (1, 4, 2)
