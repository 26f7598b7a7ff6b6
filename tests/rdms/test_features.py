"""Features as others write them: thingsvision's folders, numpy's, MATLAB's and HDF5 files."""

import h5py
import numpy as np
import pytest
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm
from scipy.io import savemat

from brainrdl.analysis.rdms import pattern_rdms
from brainrdl.rdms import load_features
from brainrdl.rdms.features import check_features

NAMES = ["cat.jpg", "Käfer.png", "owl/owl 1.JPEG", "犬.jpg"]
VALUES = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
FLAT = VALUES.reshape(4, 6)


@pytest.fixture
def folder(tmp_path):
    """thingsvision's: the features go beside its list of images."""
    (tmp_path / "file_names.txt").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    return tmp_path


def write(path, values):
    """A file of the kind its name says."""
    match path.suffix:
        case ".npy":
            np.save(path, values)
        case ".npz":
            np.savez(path, features=values)
        case ".pt":
            torch.save(torch.from_numpy(values), path)
        case ".h5" | ".hdf5":
            with h5py.File(path, "w") as file:
                file.create_dataset("features", data=values)
        case ".mat":
            savemat(path, {"features": values})
        case ".txt":
            np.savetxt(path, values)
        case ".csv":
            np.savetxt(path, values, delimiter=",")
    return path


@pytest.mark.parametrize("name", ["f.npy", "f.npz", "f.pt", "f.h5", "f.hdf5", "f.mat", "F.NPY"])
@pytest.mark.parametrize("values", [VALUES, FLAT], ids=["maps", "flat"])
def test_arrays_beside_their_list_of_images(folder, name, values):
    path = folder / name
    if path.suffix == ".NPY":
        with open(path, "wb") as file:
            np.save(file, values)
    features = load_features(write(path, values))
    assert features.ids == tuple(NAMES)
    np.testing.assert_array_equal(features.values, FLAT)


@pytest.mark.parametrize("name", ["f.txt", "f.csv"])
def test_text(folder, name):
    path = write(folder / name, FLAT)
    np.testing.assert_allclose(load_features(path).values, FLAT)
    np.testing.assert_allclose(load_features(path.rename(folder / name.upper())).values, FLAT)


@pytest.mark.parametrize("n_units", [1, 6])
def test_text_of_one_unit_is_no_single_row(folder, n_units):
    assert load_features(write(folder / "f.txt", FLAT[:, :n_units])).values.shape == (4, n_units)


def test_square_stacks_of_maps_stay_as_they_are(folder):
    values = np.random.default_rng(0).normal(size=(4, 4, 3))  # in files of RDMs a stack along the last dimension
    for name in ("f.h5", "f.mat", "f.npy"):
        np.testing.assert_array_equal(load_features(write(folder / name, values)).values, values.reshape(4, 12))


def test_matlabs_newer_files_have_their_dimensions_the_other_way_round(folder):
    with h5py.File(folder / "f.mat", "w") as file:
        file.create_dataset("features", data=FLAT.T)
    np.testing.assert_array_equal(load_features(folder / "f.mat").values, FLAT)


def test_a_list_in_the_folder_above(folder):
    (folder / "conv1").mkdir()
    assert load_features(write(folder / "conv1" / "features.npy", VALUES)).ids == tuple(NAMES)


def test_a_list_beside_comes_before_one_in_the_folder_above(folder):
    (folder / "conv1").mkdir()
    (folder / "conv1" / "file_names.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    assert load_features(write(folder / "conv1" / "features.npy", VALUES)).ids == tuple("abcd")


def test_a_tensor_in_bfloat16(folder):
    values = torch.from_numpy(FLAT).bfloat16().requires_grad_()
    torch.save(values, folder / "f.pt")
    np.testing.assert_array_equal(load_features(folder / "f.pt").values, values.detach().float().numpy())


def test_given_stimuli_come_before_a_list_beside(folder, tmp_path):
    path = write(folder / "features.npy", VALUES)
    assert load_features(path, list("abcd")).ids == tuple("abcd")
    (tmp_path / "ids.tsv").write_text("stimulus\tcategory\na\tx\nb\tx\nc\ty\nd\ty\n", encoding="utf-8")
    assert load_features(path, tmp_path / "ids.tsv").ids == tuple("abcd")


def test_an_array_a_stimulus_is_matched_by_name(folder):
    names = ["cat", "Kaefer", "owl", "犬"]
    (folder / "file_names.txt").write_text("cat.jpg\nKaefer.png\nowl\n", encoding="utf-8")
    savemat(folder / "features.mat", {name: VALUES[k] for k, name in reversed(list(enumerate(names[:3])))})
    features = load_features(folder / "features.mat")
    assert features.ids == ("cat.jpg", "Kaefer.png", "owl")
    np.testing.assert_array_equal(features.values, FLAT[:3])


def test_an_array_a_stimulus_names_its_own_stimuli(tmp_path):
    savemat(tmp_path / "features.mat", {"b": FLAT[1], "a": FLAT[0]})
    features = load_features(tmp_path / "features.mat")
    assert features.ids == ("b", "a")
    np.testing.assert_array_equal(features.values, FLAT[[1, 0]])


@pytest.mark.parametrize("name", ["f.npz", "f.h5", "f.mat"])
def test_one_of_several_arrays_by_its_name(folder, name):
    path = folder / name
    if path.suffix == ".npz":
        np.savez(path, conv1=VALUES, fc=FLAT[:, :2])
    elif path.suffix == ".mat":
        savemat(path, {"conv1": VALUES, "fc": FLAT[:, :2]})
    else:
        with h5py.File(path, "w") as file:
            file["conv1"], file["fc"] = VALUES, FLAT[:, :2]
    np.testing.assert_array_equal(load_features(path, key="fc").values, FLAT[:, :2])
    with pytest.raises(ValueError, match="no key 'fc9'; give one of: conv1, fc"):
        load_features(path, key="fc9")


def test_a_npy_file_is_not_read_into_memory(folder):
    values = load_features(write(folder / "features.npy", VALUES)).values
    assert isinstance(values, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1


def test_to_rdms_as_rsatoolbox_makes_them(folder):
    features = load_features(write(folder / "features.npy", VALUES))
    rdm = pattern_rdms(features.values, features.ids, "correlation", network="vgg16", layer="features.3")
    expected = calc_rdm(Dataset(FLAT.astype(float)), method="correlation").dissimilarities
    np.testing.assert_allclose(rdm.dissimilarities, expected, rtol=1e-9)
    assert rdm.pattern_descriptors["stimulus"] == NAMES
    assert rdm.rdm_descriptors["layer"] == ["features.3"]


@pytest.mark.parametrize("name", ["f.npy", "f.npz", "f.pt", "f.h5", "f.mat", "f.txt"])
def test_damaged_files_are_refused_by_name(folder, name):
    whole = write(folder / name, FLAT).read_bytes()
    for content in (whole[: len(whole) // 2], b"no such thing", b""):
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_features(folder / name)


def test_no_pickle_is_run(folder, tmp_path):
    class Runs:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    np.save(folder / "f.npy", np.array([Runs()] * 4, dtype=object))
    np.savez(folder / "f.npz", f=np.array([Runs()] * 4, dtype=object))
    torch.save(Runs(), folder / "f.pt")
    for name, message in (
        ("f.npy", "got Python objects"),
        ("f.npz", "got Python objects"),
        ("f.pt", "no file of a ten"),
    ):
        with pytest.raises(ValueError, match=message):
            load_features(folder / name)
    assert not (tmp_path / "ran").exists()


def test_wrong_files_are_refused(folder, tmp_path):
    path = write(folder / "features.npy", VALUES)
    with pytest.raises(ValueError, match=r"absent.npy: no such file of features; correct its name"):
        load_features(folder / "absent.npy")
    with pytest.raises(ValueError, match=r"x.pkl: features are read from .npy, .* and '.pkl' is none of them"):
        load_features(path.rename(folder / "x.pkl"))
    path = write(folder / "features.npy", VALUES)
    with pytest.raises(ValueError, match=r"features.npy: holds one array, so there is no key 'fc'; leave the key out"):
        load_features(path, key="fc")
    with pytest.raises(ValueError, match=r"features.npy: 4 rows, but 3 stimulus ids; give one id a row"):
        load_features(path, ["a", "b", "c"])
    with pytest.raises(ValueError, match="stimulus id 'a' occurs 2 times"):
        load_features(path, ["a", "b", "c", "a"])
    (folder / "file_names.txt").unlink()
    with pytest.raises(ValueError, match=r"which stimuli are its rows\? There is no file_names.txt beside it; give"):
        load_features(path)
    (folder / "file_names.txt").write_text("a\nb\na\nd\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"file_names.txt: stimulus id 'a' occurs 2 times"):
        load_features(path)
    torch.save({"fc": torch.ones(4, 2)}, folder / "f.pt")
    with pytest.raises(ValueError, match=r"f.pt: expected a tensor, got a dict; save the features alone"):
        load_features(folder / "f.pt", list("abcd"))
    (folder / "f.csv").write_text("stimulus,fc\na,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"f.csv: expected rows of numbers alone .*; save them with numpy.save"):
        load_features(folder / "f.csv", list("abcd"))


def test_arrays_that_are_no_pattern_a_stimulus_are_refused(folder):
    path = folder / "features.mat"
    savemat(path, {"a": np.ones(3), "b": np.ones(4)})
    with pytest.raises(ValueError, match=r"features.mat: its variables differ in size, .* give `key`, .*: a, b"):
        load_features(path, ["a", "b"])
    with pytest.raises(ValueError, match=r"features.mat: no variable is called 'c.jpg', with or without its suffix"):
        load_features(path, ["a.jpg", "c.jpg"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(4), r"f: expected \(n_stimuli, n_units\), got shape \(4,\); give each stimulus a row"),
        (np.array(1.0), r"f: expected \(n_stimuli, n_units\), got shape \(\)"),
        (np.ones((4, 0)), r"f: expected \(n_stimuli, n_units\), got shape \(4, 0\)"),
        (np.full((4, 2), "x"), "f: expected real numbers, got values of type <U1"),
        (np.array([[1, 2], [np.nan, 2], [1, 2], [1, -np.inf]]), "f: 2 of 4 rows hold NaN or infinite values, .* 'b'"),
    ],
)
def test_wrong_features_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_features(values, list("abcd"), "f")


def test_rows_that_are_not_finite_are_found_in_any_block(monkeypatch):
    monkeypatch.setattr("brainrdl.rdms.features._BLOCK", 4)
    values = np.ones((7, 2))
    values[5, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 7 rows hold NaN or infinite values, the first is that of stimulus 's5'"):
        check_features(values, [f"s{k}" for k in range(7)], "f")
