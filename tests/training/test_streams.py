"""Batches: a function of the draw, shared out among processes, and any data set."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from brainrdl.objectives import Distillation, RDLObjective, Stage
from brainrdl.randomness import Draw
from brainrdl.training.streams import make_stream

CPU = torch.device("cpu")


def ids(stream, draw):
    return [batch.ids for batch in stream.batches(draw)]


def test_every_image_once_an_epoch_in_an_order_of_the_draw(train):
    stream = make_stream(train, 16, CPU, "images")
    first = ids(stream, Draw(0))
    assert stream.n_batches == len(first) == 4
    assert [len(batch) for batch in first] == [16, 16, 16, 2]
    assert sorted(sum(first, ())) == sorted(train.ids)
    assert ids(stream, Draw(0)) == first
    assert ids(make_stream(train, 16, CPU, "again"), Draw(0)) == first
    for other in (Draw(1), Draw(0, epoch=1), Draw(0, stage=1)):
        assert ids(stream, other) != first


def test_a_last_image_by_itself_is_left_out(train):
    """It forms no pair and has no batch statistics; each epoch it is another image."""
    stream = make_stream(train, 7, CPU, "images")
    assert stream.n_batches == 7
    left_out = {next(iter({*train.ids}.difference(*ids(stream, Draw(0, epoch=epoch))))) for epoch in range(5)}
    assert len(left_out) > 1
    assert [len(batch) for batch in ids(make_stream(train, 1, CPU, "images"), Draw(0))] == [1] * 50


def test_a_row_keeps_its_image_label_and_id(train):
    where = {name: k for k, name in enumerate(train.ids)}
    for batch in make_stream(train, 16, CPU, "images").batches(Draw(0)):
        rows = [where[name] for name in batch.ids]
        assert torch.equal(batch.images, train.images[rows])
        assert torch.equal(batch.labels, train.labels[rows])


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_every_batch(train, world_size):
    whole = ids(make_stream(train, 16, CPU, "images"), Draw(5))
    shares = [ids(make_stream(train, 16, CPU, "images", None, rank, world_size), Draw(5)) for rank in range(world_size)]
    # A last batch with less than two for each process is left out, so that all of them make equally many steps.
    kept = [batch for batch in whole if len(batch) >= 2 * world_size]
    assert len(kept) == 3
    assert {len(share) for share in shares} == {len(kept)}
    for k, batch in enumerate(kept):
        parts = [share[k] for share in shares]
        assert sorted(sum(parts, ())) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_order_is_the_same_for_every_method_of_a_seed(make_net, teacher, train, fit):
    """A method with a first stage has the main stage's batches in common with the others."""

    def order(stages):
        seen = []
        augment = lambda images, generator: seen.append(images.clone()) or images  # noqa: E731
        fit(make_net(0), stages, train, augment=augment, seed=3)
        return [image for image in seen if len(image)]

    plain = order(Stage(epochs=2))
    with_rdl = order(Stage(RDLObjective(teacher, {"fc": "fc"}, pairs=7), epochs=2))
    first = Stage(Distillation(teacher), task_weight=0, epochs=1, name="first")
    with_first = order([first, Stage(epochs=2)])
    assert len(plain) == 1 + 8
    assert all(torch.equal(a, b) for a, b in zip(plain, with_rdl, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, with_first[5:], strict=True))
    assert not torch.equal(with_first[1], plain[1])


def noisy(images, generator):
    return images + torch.from_numpy(generator.random(images.shape, np.float32))


def test_augmentation_is_a_function_of_the_draw(train):
    def images(seed, rank=0, world_size=1):
        stream = make_stream(train, 16, CPU, "images", noisy, rank, world_size)
        return [batch.images for batch in stream.batches(Draw(seed))]

    plain = [batch.images for batch in make_stream(train, 16, CPU, "images").batches(Draw(0))]
    noise = [a - b for a, b in zip(images(0), plain, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(images(0), images(0), strict=True))
    assert not torch.allclose(noise[0], noise[1])
    ranks = [images(0, rank, 2)[0] - make_share(train, rank)[0] for rank in range(2)]
    assert not torch.allclose(ranks[0], ranks[1])


def make_share(train, rank):
    return [batch.images for batch in make_stream(train, 16, CPU, "images", None, rank, 2).batches(Draw(0))]


# -- torch data sets -----------------------------------------------------------------------------------------------


class Listed(Dataset):
    def __init__(self, items, ids=None):
        self.items = items
        if ids is not None:
            self.ids = ids

    def __len__(self):
        return len(self.items)

    def __getitem__(self, k):
        return self.items[k]


class RandomlyFlipped(Listed):
    """As torchvision's random transforms: it draws from torch's global generator."""

    def __getitem__(self, k):
        image, label = self.items[k]
        return image + torch.rand(()), label


def test_a_dataset_gives_the_same_batches(train):
    dataset = TensorDataset(train.images, train.labels)
    in_memory = list(make_stream(train, 16, CPU, "images").batches(Draw(2, epoch=3)))
    stream = make_stream(dataset, 16, CPU, "images")
    from_dataset = list(stream.batches(Draw(2, epoch=3)))
    assert stream.n_batches == 4
    for a, b in zip(in_memory, from_dataset, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert tuple(train.ids[int(k)] for k in b.ids) == a.ids, "without ids of its own: the index"


def test_a_dataset_trains_like_stimuli(make_net, train, fit, snapshot, assert_equal_states):
    a, b = make_net(0), make_net(0)
    fit(a, Stage(epochs=2), train)
    fit(b, Stage(epochs=2), Listed([(image, int(label)) for image, label in zip(*train[::2], strict=True)]))
    assert_equal_states(snapshot(a), snapshot(b))


def test_ids_of_a_dataset(train):
    items = [(image, 0) for image in train.images]
    stream = make_stream(Listed(items, ids=train.ids), 16, CPU, "images")
    assert set(sum(ids(stream, Draw(0)), ())) == set(train.ids)
    with pytest.raises(ValueError, match="images: stimulus id 'a' occurs 50 times; ids must be different"):
        make_stream(Listed(items, ids=["a"] * 50), 16, CPU, "images")
    with pytest.raises(ValueError, match="images: 50 images but 2 ids; give each image one id"):
        make_stream(Listed(items, ids=["a", "b"]), 16, CPU, "images")


def test_a_datasets_own_random_transforms_follow_the_draw(train):
    dataset = RandomlyFlipped(list(zip(train.images, train.labels.tolist(), strict=True)))

    def read(draw):
        torch.manual_seed(int(np.random.default_rng().integers(1000)))  # whatever the global state is
        before = torch.get_rng_state()
        images = [batch.images for batch in make_stream(dataset, 16, CPU, "images").batches(draw)]
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat(images)

    assert torch.equal(read(Draw(0)), read(Draw(0)))
    assert not torch.equal(read(Draw(0)).sort().values, read(Draw(0, epoch=1)).sort().values)


def test_images_without_labels(train):
    for items in (list(train.images), [(image,) for image in train.images], [(image, None) for image in train.images]):
        batches = list(make_stream(Listed(items), 16, CPU, "images").batches(Draw(0)))
        assert [batch.labels for batch in batches] == [None] * 4


class NotATensor:
    """Stands for a PIL image."""


IMAGE = torch.zeros(1, 8, 8)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [(NotATensor(), 0)] * 4,
            r"expected items \(image, label\) .*got NotATensor as image '\d'; add torchvision.*ToT",
        ),
        ([(IMAGE.byte(), 0)] * 4, r"float images .* in 0…1, got torch.uint8 of shape \(1, 8, 8\)"),
        ([(IMAGE[0], 0)] * 4, r"got torch.float32 of shape \(8, 8\) as image"),
        ([{"image": IMAGE}] * 4, "got dict as image"),
        ([(IMAGE, 0), (torch.zeros(1, 8, 9), 0)] * 2, r"image '\d' has shape .* give all images one size"),
        ([(IMAGE, "cat")] * 4, r"expected integer labels, got 'cat' for image '\d'"),
        ([(IMAGE, 0.5)] * 4, "expected one integer label an image, got torch.float32"),
        ([(IMAGE, -1)] * 4, r"a label is negative \(-1\); classes are counted from 0"),
        ([(IMAGE + torch.nan, 0)] * 4, "4 of 4 images hold NaN or infinite values, the first is"),
    ],
)
def test_a_wrong_dataset(items, message):
    stream = make_stream(Listed(items), 4, CPU, "training images")
    with pytest.raises(ValueError, match=f"training images: .*{message}"):
        next(iter(stream.batches(Draw(0))))


def test_wrong_data(train):
    with pytest.raises(
        ValueError, match="images: 50 images are fewer than a batch of 51; lower batch_size or give more"
    ):
        make_stream(train, 51, CPU, "images")
    with pytest.raises(ValueError, match="images: expected Stimuli or a Dataset with a length, got generator"):
        make_stream((image for image in train.images), 16, CPU, "images")
    with pytest.raises(ValueError, match="images: a batch of 2 cannot be shared by 3 processes; raise batch_size"):
        make_stream(train, 2, CPU, "images", None, 0, 3)
    with pytest.raises(ValueError, match="images: 1 of 50 images hold NaN or infinite values, the first is '1/4'"):
        images = train.images.clone()
        images[4, 0, 0, 0] = torch.inf
        make_stream(train._replace(images=images), 16, CPU, "images")
