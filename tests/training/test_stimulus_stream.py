"""Batches of stimuli with brain data: each from what one name covers, names in turn, as a function of the draw."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainrdl.data.image_folder import ImageFiles
from brainrdl.randomness import Draw
from brainrdl.training.stimulus_stream import CoveredStimuli
from brainrdl.training.streams import make_stream, open_images

CPU = torch.device("cpu")
FIRST = Draw(0)


class Covering:
    """Stands for an objective: what its teacher's names cover."""

    def __init__(self, covered, **teacher):
        self.covered, self.teacher = covered, SimpleNamespace(**teacher)

    def covers(self, ids):
        return {name: torch.tensor([s in known for s in ids], dtype=torch.bool) for name, known in self.covered.items()}


def stream_of(data, covered, batch_size=6, rank=0, world_size=1, augment=None):
    images = open_images(data, "stimuli", CPU, augment, has_task=False)
    return CoveredStimuli(images, [Covering(covered)], batch_size, rank, world_size)


def ids(stream, draw=FIRST, n_steps=None):
    return [batch.ids for batch in stream.batches(draw, n_steps)]


@pytest.fixture
def subjects(train):
    """Two subjects with 20 stimuli each, 6 of them shared; stimuli 34 to 49 nobody has seen."""
    return {"sub-1": set(train.ids[:20]), "sub-2": set(train.ids[14:34])}


def test_every_batch_is_of_one_name_and_names_take_turns(train, subjects):
    stream = stream_of(train, subjects)
    assert [group.names for group in stream.covered] == [("sub-1",), ("sub-2",)]
    for epoch in range(3):
        batches = ids(stream, Draw(0, epoch=epoch))
        assert len(batches) == stream.n_batches == 6  # a last batch of 2 is left out
        for k, batch in enumerate(batches):
            assert set(batch) <= subjects[f"sub-{k % 2 + 1}"]
            assert len(batch) == 6
    drawn = {one for epoch in range(9) for batch in ids(stream, Draw(0, epoch=epoch)) for one in batch}
    assert drawn == set(train.ids[:34]), "what nobody covers is never drawn, all else is"


def test_an_epoch_is_one_pass_in_an_order_of_its_own(train, subjects):
    stream = stream_of(train, {"sub-1": subjects["sub-1"]}, batch_size=5)
    passes = [sum(ids(stream, Draw(0, epoch=epoch)), ()) for epoch in range(4)]
    assert all(sorted(one) == sorted(subjects["sub-1"]) for one in passes)
    assert len(set(passes)) == 4


def test_a_name_with_less_goes_round_more_often(train):
    few, many = set(train.ids[:6]), set(train.ids[10:34])
    stream = stream_of(train, {"few": few, "many": many}, batch_size=6)
    assert stream.n_batches == 8
    batches = ids(stream)
    assert all(set(batch) == few for batch in batches[::2])
    assert len(set(batches[::2])) == 4
    assert sorted(sum(batches[1::2], ())) == sorted(many)


def test_beside_a_task_it_goes_on_over_the_tasks_epochs(train, subjects):
    """20 stimuli in batches of 5: 4 batches a pass for each name. The task makes 3 steps an epoch."""
    stream = stream_of(train, subjects, batch_size=5)
    steps = [batch for epoch in range(8) for batch in ids(stream, Draw(0, epoch=epoch), n_steps=3)]
    assert len(steps) == 24
    for name in (0, 1):
        of_name = steps[name::2]
        for start in range(0, 12, 4):
            assert sorted(sum(of_name[start : start + 4], ())) == sorted(subjects[f"sub-{name + 1}"])
    # The same steps as where it leads.
    assert steps == [batch for epoch in range(3) for batch in ids(stream, Draw(0, epoch=epoch))]


def test_names_with_the_same_coverage_are_one(train, subjects):
    shared = set(train.ids[:9])
    stream = stream_of(train, {"V1": shared, "other": subjects["sub-2"], "IT": shared})
    assert [group.names for group in stream.covered] == [("V1", "IT"), ("other",)]
    everyone = stream_of(train, dict.fromkeys("abc", shared), batch_size=9)
    assert everyone.n_batches == 1


def test_it_is_a_function_of_the_draw(train, subjects):
    stream = stream_of(train, subjects)
    first = ids(stream, Draw(1, epoch=2))
    assert ids(stream_of(train, subjects), Draw(1, epoch=2)) == first
    for other in (Draw(2, epoch=2), Draw(1, epoch=3), Draw(1, epoch=2, stage=1)):
        assert ids(stream, other) != first


def test_its_order_is_independent_of_the_tasks(train):
    task = make_stream(train, 10, CPU, "images")
    stream = stream_of(train, {"it": set(train.ids)}, batch_size=10)
    assert [batch.ids for batch in task.batches(Draw(0))] != ids(stream)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_every_batch(train, subjects, world_size):
    whole = stream_of(train, subjects, 11, 0, 1)
    shares = [stream_of(train, subjects, 11, rank, world_size) for rank in range(world_size)]
    # 20 = 11 + 9: a last batch of 9 is enough for three processes.
    assert {share.n_batches for share in shares} == {whole.n_batches} == {4}
    for k, batch in enumerate(ids(whole)):
        parts = [ids(share)[k] for share in shares]
        assert sorted(sum(parts, ())) == sorted(batch)
        assert min(map(len, parts)) >= 3


@pytest.mark.parametrize(
    ("n", "batch_size", "world_size", "n_batches"),
    [(14, 6, 1, 2), (15, 6, 1, 3), (15, 6, 2, 2), (18, 6, 2, 3), (24, 10, 1, 2), (25, 10, 1, 3), (28, 10, 3, 2)],
)
def test_a_small_rest_is_left_out(train, n, batch_size, world_size, n_batches):
    """Of less than half a batch, or of less than three stimuli a process."""
    stream = stream_of(train, {"it": set(train.ids[:n])}, batch_size, 0, world_size)
    assert stream.n_batches == n_batches
    assert len(ids(stream)) == n_batches


def test_a_batch_is_capped_to_what_a_name_covers(train):
    stream = stream_of(train, {"few": set(train.ids[:4]), "many": set(train.ids[10:40])}, batch_size=12)
    assert [len(batch) for batch in ids(stream)] == [4, 12, 4, 12, 4, 6]


def test_images_and_ids_belong_together_and_labels_are_left_out(train, subjects):
    where = {name: k for k, name in enumerate(train.ids)}
    for data in (train, train._replace(labels=torch.full((50,), -1))):
        for batch in stream_of(data, subjects).batches(Draw(0)):
            assert torch.equal(batch.images, train.images[[where[name] for name in batch.ids]])
            assert batch.labels is None


def test_image_files_give_the_same_batches_without_a_class(train, subjects, tmp_path):
    from PIL import Image

    files = []
    for k, image in enumerate(train.images):
        files.append(Path(tmp_path) / f"{k}.png")
        Image.fromarray((255 * image[0]).byte().numpy()).save(files[-1])
    stored = ImageFiles(files, train.ids, torch.full((50,), -1), (8, 8), 1)
    in_memory = stored.read()._replace(labels=None)
    for one, other in zip(
        stream_of(stored, subjects).batches(Draw(3)), stream_of(in_memory, subjects).batches(Draw(3)), strict=True
    ):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)
        assert one.labels is None
    with pytest.raises(ValueError, match=r"training images: a label is negative \(-1\); classes are counted from 0"):
        next(make_stream(stored, 6, CPU, "training images").batches(Draw(0)))


def test_augmentation_is_a_draw_of_its_own(train, subjects):
    def noise(images, generator):
        return torch.from_numpy(generator.random(images.shape, np.float32))

    first, again = (next(stream_of(train, subjects, augment=noise).batches(Draw(0))).images for _ in range(2))
    of_task = next(make_stream(train, 6, CPU, "images", noise).batches(Draw(0))).images
    second = list(stream_of(train, subjects, augment=noise).batches(Draw(0)))[1].images
    assert torch.equal(first, again)
    assert not torch.equal(first, of_task)
    assert not torch.equal(first, second)


def test_an_objective_that_does_not_say_what_it_covers_takes_all(train):
    images = open_images(train, "stimuli", CPU, has_task=False)
    stream = CoveredStimuli(images, [SimpleNamespace()], 25)
    assert sorted(sum(ids(stream), ())) == sorted(train.ids)


# -- messages ----------------------------------------------------------------------------------------------------------


def test_no_overlap(train):
    images = open_images(train, "stimuli", CPU, has_task=False)
    unknown = Covering({"it": {"x"}})
    message = (
        r"stimuli: the teacher's 'it' covers 0 of 50 images, expected at least 3; ids of the images are '1/0', '1/1', "
        r"'1/2', …. name stimuli alike in both"
    )
    with pytest.raises(ValueError, match=message):
        CoveredStimuli(images, [unknown], 6)
    told = Covering({"it": {"face-1"}}, ids=("face-1", "face-2"))
    with pytest.raises(ValueError, match=r"'1/2', …, the teacher's 'face-1', 'face-2'. name stimuli alike"):
        CoveredStimuli(images, [told], 6)
    close = Covering({"it": {"1/0.png"}}, ids=("1/0.png", "1/1.png"))
    with pytest.raises(ValueError, match=r"2 would match after .*, the first is '1/0' for '1/0.png'"):
        CoveredStimuli(images, [close], 6)


def test_too_few(train, subjects):
    with pytest.raises(ValueError, match="the teacher's 'sub-2' covers 2 of 50 images, expected at least 3"):
        stream_of(train, {**subjects, "sub-2": set(train.ids[:2])})
    with pytest.raises(ValueError, match="covers 5 of 50 images, expected at least 6"):
        stream_of(train, {"it": set(train.ids[:5])}, world_size=2)
    with pytest.raises(ValueError, match=r"at least 6 \(3 stimuli a process\), got 5; raise stimulus_batch_size"):
        stream_of(train, subjects, batch_size=5, world_size=2)
