"""Laws of the stratified order, and scikit-learn's stratified split beside it."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedShuffleSplit

from brainrdl.data.folds import stratified_order


def drawn(seed):
    """Labels of a random number of classes of random sizes, mixed."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 60, size=generator.integers(1, 12))
    return torch.from_numpy(generator.permutation(np.repeat(np.arange(len(sizes)), sizes)))


def order_of(labels, seed=0):
    return stratified_order(labels, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(30))
def test_every_row_comes_once_and_every_stretch_holds_the_classes_in_proportion(seed):
    labels = drawn(seed)
    order = order_of(labels, seed)
    assert torch.equal(order.sort().values, torch.arange(len(labels)))
    share = torch.bincount(labels) / len(labels)
    generator = np.random.default_rng(seed)
    for _ in range(20):
        start, stop = sorted(generator.integers(0, len(labels) + 1, size=2))
        counts = torch.bincount(labels[order[start:stop]], minlength=len(share))
        assert ((counts - (stop - start) * share).abs() <= 1 + len(share) * share).all()


def test_classes_of_equal_size_differ_by_at_most_1_and_stretches_of_all_classes_have_each():
    labels = torch.arange(7).repeat(20)
    order = order_of(labels)
    for start in range(0, 130, 3):
        assert sorted(labels[order[start : start + 7]].tolist()) == list(range(7))
        counts = torch.bincount(labels[order[start : start + 10]], minlength=7)
        assert counts.max() - counts.min() == 1


@pytest.mark.parametrize("size", [50, 200, 777])
def test_class_counts_are_those_of_scikit_learn_to_within_1(size):
    labels = torch.from_numpy(np.random.default_rng(0).choice(10, size=1000, p=np.linspace(0.05, 0.15, 10)))
    splitter = StratifiedShuffleSplit(1, train_size=size, random_state=0)
    expected = torch.bincount(labels[next(splitter.split(labels, labels))[0]], minlength=10)
    assert (torch.bincount(labels[order_of(labels)[:size]], minlength=10) - expected).abs().max() <= 1


def test_the_order_is_the_generators_and_no_class_keeps_its_own():
    labels = drawn(3)
    assert torch.equal(order_of(labels, 5), order_of(labels, 5))
    assert not torch.equal(order_of(labels, 5), order_of(labels, 6))
    order = order_of(torch.zeros(100, dtype=torch.int64))
    assert not torch.equal(order, torch.arange(100))


def test_every_image_is_equally_likely_to_be_chosen():
    labels = torch.tensor([0] * 3 + [1] * 9)
    chosen = torch.stack([torch.isin(torch.arange(12), order_of(labels, seed)[:4]) for seed in range(2000)])
    # 4 of 12; a binomial share over 2000 draws has a standard deviation of 0.0105.
    torch.testing.assert_close(chosen.double().mean(0), torch.full((12,), 1 / 3).double(), atol=0.05, rtol=0)
