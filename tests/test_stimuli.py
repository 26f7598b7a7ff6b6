"""Stimuli: rows follow their ids, and what cannot be used is refused by name."""

import pytest
import torch

from brainrdl.stimuli import Stimuli, Targets, check_stimuli, check_unique, without_waiting


def stimuli(**change):
    images = torch.arange(5 * 4, dtype=torch.float32).reshape(5, 1, 2, 2) / 20
    return Stimuli(images, tuple("abcde"), torch.tensor([0, 1, 0, 1, 2]))._replace(**change)


def test_subset_keeps_images_ids_and_labels_together():
    rows = torch.tensor([3, 0, 3])
    part = stimuli().subset(rows)
    assert part.ids == ("d", "a", "d")
    assert torch.equal(part.images, stimuli().images[rows])
    assert part.labels.tolist() == [1, 0, 1]


def test_subset_without_labels_and_of_nothing():
    part = stimuli(labels=None).subset(torch.tensor([1]))
    assert part.labels is None
    assert part.ids == ("b",)
    assert stimuli().subset(torch.zeros(0, dtype=torch.int64)).images.shape == (0, 1, 2, 2)


def test_images_and_labels_move_together():
    moved = stimuli().to("meta")
    assert moved.images.device.type == moved.labels.device.type == "meta"
    assert moved.ids == stimuli().ids
    assert stimuli(labels=None).to("meta").labels is None


def test_targets_are_alike_unless_weighted():
    assert Targets(torch.ones(3)).weights is None


@pytest.mark.parametrize("given", [stimuli(), stimuli(labels=None), stimuli(images=stimuli().images.double())])
def test_usable_stimuli_are_returned_unchanged(given):
    assert check_stimuli(given, "train") is given


def spoiled(value):
    images = stimuli().images.clone()
    images[2, 0, 1, 1] = value
    images[4, 0, 0, 0] = value
    return images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(5, 2, 2)}, r"train: expected float images of shape \(n_stimuli, channels.*\(5, 2, 2\)"),
        ({"images": torch.zeros(5, 1, 2, 2, dtype=torch.uint8)}, "train: expected float images .* got torch.uint8"),
        ({"ids": tuple("abcd")}, "train: 5 images but 4 ids; give each image one id"),
        ({"ids": ("a", "b", 3, 4, "e")}, r"train: expected stimulus ids as text, got 3; use str\(...\)"),
        ({"ids": tuple("abcbb")}, "train: stimulus id 'b' occurs 3 times; ids must be different"),
        ({"images": spoiled(torch.nan)}, "train: 2 of 5 images hold NaN or infinite values, the first is 'c'; repair"),
        ({"images": spoiled(torch.inf)}, "train: 2 of 5 images hold NaN or infinite values, the first is 'c'"),
        ({"labels": torch.zeros(5)}, "train: expected one integer label an image, got torch.float32"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"one integer label an image, got torch.int64 of shape \(4,\)"),
        ({"labels": torch.tensor([0, 1, -1, 1, 2])}, r"train: a label is negative \(-1\); classes are counted from 0"),
    ],
)
def test_unusable_stimuli_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        check_stimuli(stimuli(**change), "train")


def test_ids_must_be_different():
    check_unique(["a", "b"], "teacher")
    with pytest.raises(ValueError, match="teacher: stimulus id 'a' occurs 2 times"):
        check_unique(["a", "b", "a"], "teacher")


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("cuda:1", False), ("cpu", True), ("mps", True)])
def test_copies_to_cuda_alone_are_not_waited_for(device, waits):
    class Asked:
        def to(self, device, non_blocking):
            return device, non_blocking

    assert without_waiting(Asked(), device) == (device, not waits)
    assert without_waiting(Asked(), torch.device(device)) == (torch.device(device), not waits)


def test_what_is_copied_without_waiting_is_the_same():
    values = torch.arange(3)
    assert torch.equal(without_waiting(values, "cpu"), values)
