"""Readers of the known formats: files written here in their layout, the real ones where they are."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision.datasets
from sklearn.datasets import load_digits
from torch.utils.data import IterableDataset, TensorDataset

from brainrdl.data import load_spec, stimuli_from_dataset
from brainrdl.data.readers import read_contents


def test_digits_are_scikit_learns(tmp_path):
    contents = read_contents(load_spec("digits"), tmp_path)
    assert contents.test is None and contents.classes == tuple("0123456789")
    images, ids, labels, _ = contents.train
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.float32
    assert np.array_equal(images[:, 0].numpy() * 16, load_digits().images)
    assert np.array_equal(labels.numpy(), load_digits().target) and labels.dtype == torch.int64
    assert (images.min(), images.max()) == (0, 1)
    assert ids[3] == "digits/0003" and len(set(ids)) == 1797


def write_mnist(root, n_train=12, n_test=5):
    """Random images in the published binary format; returns pixels and labels by split."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    written = {}
    for split, prefix, n in (("train", "train", n_train), ("test", "t10k", n_test)):
        pixels = generator.integers(0, 256, size=(n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        sizes = np.array(pixels.shape, dtype=">i4").tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + pixels.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels.tobytes())
        written[split] = pixels, labels
    return written


def test_mnist_comes_from_torchvisions_layout(tmp_path):
    written = write_mnist(tmp_path)
    contents = read_contents(load_spec("mnist"), tmp_path)
    for split, stimuli in (("train", contents.train), ("test", contents.test)):
        pixels, labels = written[split]
        assert np.array_equal((stimuli.images[:, 0] * 255).round().numpy(), pixels)
        assert stimuli.images.min() >= 0 and stimuli.images.max() <= 1 and stimuli.images.dtype == torch.float32
        assert np.array_equal(stimuli.labels.numpy(), labels) and stimuli.labels.dtype == torch.int64
        assert stimuli.ids[3] == f"mnist/{split}/00003"


def write_cifar(root, kind, monkeypatch):
    """Two random images a file in the published pickles; torchvision is told their checksums."""
    cifar = getattr(torchvision.datasets, kind)
    folder = root / cifar.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    key = "labels" if kind == "CIFAR10" else "fine_labels"
    pixels = {}

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for part in "train_list", "test_list":
        listed = []
        for name, _ in getattr(cifar, part):
            data = generator.integers(0, 256, size=(2, 3072), dtype=np.uint8)
            listed.append([name, write(name, {"data": data, key: [1, 3]})])
            pixels.setdefault(part, []).append(data.reshape(2, 3, 32, 32))
        monkeypatch.setattr(cifar, part, listed)
    classes = [str(number) for number in range(100)]
    checksum = write(cifar.meta["filename"], {cifar.meta["key"]: classes})
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": checksum})
    return {part: np.concatenate(arrays) for part, arrays in pixels.items()}


@pytest.mark.parametrize("kind", ["CIFAR10", "CIFAR100"])
def test_cifar_comes_from_torchvisions_layout(kind, tmp_path, monkeypatch):
    pixels = write_cifar(tmp_path, kind, monkeypatch)
    name = kind.lower()
    contents = read_contents(load_spec(name), tmp_path)
    assert np.array_equal((contents.train.images * 255).round().numpy(), pixels["train_list"])
    assert np.array_equal((contents.test.images * 255).round().numpy(), pixels["test_list"])
    assert contents.train.images.is_contiguous() and contents.train.images.dtype == torch.float32
    assert contents.test.labels.tolist() == [1, 3]
    assert contents.test.ids == (f"{name}/test/00000", f"{name}/test/00001")
    assert len(contents.classes) == (10 if kind == "CIFAR10" else 100)


@pytest.mark.parametrize(
    ("name", "below", "file", "kind"),
    [
        ("mnist", "MNIST/raw", "t10k-labels-idx1-ubyte", "MNIST"),
        ("cifar10", "cifar-10-batches-py", "data_batch_1 to data_batch_5", "CIFAR10"),
        ("cifar100", "cifar-100-python", "train, test, meta", "CIFAR100"),
    ],
)
def test_what_is_not_there_is_told_with_place_layout_and_remedy(name, below, file, kind, tmp_path):
    place = tmp_path / below
    message = (
        f"{name}: not found in {place}, or damaged; expected there .*{file}.*BRAINRDL_DATA .* download it: python -c"
    )
    with pytest.raises(ValueError, match=message) as raised:
        read_contents(load_spec(name), tmp_path)
    assert f"import {kind}; {kind}('{tmp_path}', download=True)" in str(raised.value)
    assert not place.exists()


def test_the_spec_says_where_below_the_root_a_set_lies(tmp_path):
    write_mnist(tmp_path / "sets")
    spec = load_spec("mnist").model_copy(update={"folder": "sets"})
    assert len(read_contents(spec, tmp_path).test.ids) == 5


@pytest.mark.parametrize("keep", [0, 2, 16, 500])
def test_a_damaged_file_is_told_the_same_way(keep, tmp_path):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"mnist: not found in .*, or damaged; expected there the unpacked files"):
        read_contents(load_spec("mnist"), tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"size": (32, 32)},
            r"mnist: images have shape \(1, 28, 28\), but its spec's channels and size say \(1, 32, 32\)",
        ),
        ({"channels": 3}, r"say \(3, 28, 28\); correct the spec"),
        ({"classes": ("0", "1", "2")}, "mnist: found label 9, but its spec names 3 classes, counted from 0; correct"),
    ],
)
def test_data_that_are_not_what_the_spec_says_are_refused(changed, message, tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_contents(load_spec("mnist").model_copy(update=changed), tmp_path)


def test_real_mnist_is_what_is_published(real_data):
    contents = read_contents(load_spec("mnist"), real_data("MNIST/raw"))
    assert contents.train.images.shape == (60000, 1, 28, 28) and contents.test.images.shape == (10000, 1, 28, 28)
    assert contents.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert contents.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert contents.train.images.mean().item() == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "folder", "n", "mean"),
    [
        ("cifar10", "cifar-10-batches-py", 1000, (0.4914, 0.4822, 0.4465)),
        ("cifar100", "cifar-100-python", 100, (0.5071, 0.4866, 0.4409)),
    ],
)
def test_real_cifar_is_what_is_published(name, folder, n, mean, real_data):
    root = real_data(folder)
    spec = load_spec(name)
    assert getattr(torchvision.datasets, name.upper())(root, train=False).classes == list(spec.classes)
    contents = read_contents(spec, root)
    assert contents.train.images.shape == (50000, 3, 32, 32)
    assert contents.test.labels.bincount().tolist() == [n] * len(spec.classes)
    assert contents.train.images.mean((0, 2, 3)).tolist() == pytest.approx(mean, abs=1e-3)


class Pictures(torch.utils.data.Dataset):
    """A dataset of anyone's."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, k):
        return self.items[k]


def test_any_dataset_becomes_stimuli():
    images = torch.rand(4, 3, 5, 6)
    stimuli = stimuli_from_dataset(TensorDataset(images, torch.tensor([0, 1, 1, 0])), "mine")
    assert torch.equal(stimuli.images, images)
    assert stimuli.ids == ("mine/00000", "mine/00001", "mine/00002", "mine/00003")
    assert stimuli.labels.tolist() == [0, 1, 1, 0] and stimuli.labels.dtype == torch.int64


def test_pil_images_and_bytes_are_brought_to_0_to_1():
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, size=(5, 6, 3), dtype=np.uint8)
    stimuli = stimuli_from_dataset(Pictures([(Image.fromarray(pixels), 0)]), "mine")
    assert np.array_equal((stimuli.images[0] * 255).round().numpy(), pixels.transpose(2, 0, 1))
    grey = stimuli_from_dataset(Pictures([(torch.from_numpy(pixels[..., 0]), torch.tensor(1))]), "mine")
    assert np.array_equal((grey.images[0, 0] * 255).round().numpy(), pixels[..., 0])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "mine: the dataset is empty"),
        ([torch.rand(1, 4, 4)], "mine: item 0 is a Tensor, expected .image, label."),
        (
            [(torch.rand(1, 4, 4), 0), (torch.rand(1, 4, 5), 0)],
            r"mine: image 1 has shape \(1, 4, 5\), expected .*all alike",
        ),
        ([(torch.rand(4), 0)], r"mine: image 0 has shape \(4,\)"),
        ([(torch.full((1, 4, 4), torch.nan), 0)], "mine: 1 of 1 images hold NaN"),
    ],
)
def test_a_dataset_of_something_else_is_refused(items, message):
    with pytest.raises(ValueError, match=message):
        stimuli_from_dataset(Pictures(items), "mine")


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.rand(1, 4, 4), 0


def test_a_dataset_without_a_length_is_refused():
    with pytest.raises(ValueError, match=r"mine: expected a map-style dataset with a length, got Endless"):
        stimuli_from_dataset(Endless(), "mine")
