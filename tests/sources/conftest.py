"""The contract every teacher keeps, whatever it is made of."""

import numpy as np
import pytest
import torch

from brainrdl.pairs import Pairs, all_pairs
from brainrdl.sources.base import TeacherRDMSource


def matrix(values, pairs, n_stimuli):
    """Values at all pairs as a symmetric matrix, its diagonal NaN."""
    square = torch.full((n_stimuli, n_stimuli), torch.nan, dtype=torch.float64)
    square[pairs.i, pairs.j] = values.double()
    square[pairs.j, pairs.i] = values.double()
    return square


def assert_contract(source, stimuli):
    """`source` answers by stimulus id as `TeacherRDMSource` says; it may not know all of `stimuli`."""
    assert isinstance(source, TeacherRDMSource)
    assert isinstance(source.names, tuple)
    assert source.names
    assert len(set(source.names)) == len(source.names)
    assert isinstance(source.dissimilarity, str)
    n_stimuli = len(stimuli.ids)
    order = np.random.default_rng(0).permutation(n_stimuli)
    assert (order != np.arange(n_stimuli)).any()

    covered = source.covers(stimuli.ids)
    shuffled = source.covers([stimuli.ids[row] for row in order])
    nothing = source.covers([])
    assert set(covered) == set(source.names)
    for name in source.names:
        assert covered[name].dtype == torch.bool
        assert covered[name].shape == (n_stimuli,)
        assert torch.equal(covered[name][order], shuffled[name]), "covers goes by id"
        assert nothing[name].shape == (0,)

    pairs = all_pairs(n_stimuli)
    none = source.targets(stimuli, Pairs(pairs.i[:0], pairs.j[:0]))
    before = stimuli.images.clone()
    asked = stimuli._replace(images=stimuli.images.clone().requires_grad_(), labels=None)
    with torch.enable_grad():
        targets = source.targets(asked, pairs)
        assert torch.is_grad_enabled()
    again = source.targets(stimuli, pairs)
    permuted = source.targets(stimuli.subset(torch.from_numpy(order)), pairs)
    some = Pairs(pairs.i[::3], pairs.j[::3])
    few = source.targets(stimuli, some)
    assert torch.equal(stimuli.images, before)
    assert set(targets) == set(source.names)
    for name in source.names:
        values, weights = targets[name]
        assert values.shape == (len(pairs.i),)
        assert values.is_floating_point()
        assert not values.requires_grad
        assert values.device == stimuli.images.device
        assert not values.isinf().any()
        known = covered[name][pairs.i] & covered[name][pairs.j]
        assert values[~known].isnan().all(), "what is not covered is NaN"
        if weights is not None:
            assert weights.shape == values.shape
            assert not weights.requires_grad
            assert (weights >= 0).all()

        def close(a, b):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)

        close(again[name].values, values)
        close(few[name].values, values[::3])
        by_id = matrix(values, pairs, n_stimuli)
        close(matrix(permuted[name].values, pairs, n_stimuli), by_id[order][:, order])
        assert none[name].values.shape == (0,)
        assert none[name].weights is None or none[name].weights.shape == (0,)


@pytest.fixture
def check_contract():
    """`check_contract(source, stimuli)`, for the tests of every source."""
    return assert_contract
