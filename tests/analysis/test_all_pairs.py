"""All pairs in blocks: as `pair_dissimilarities`, whatever the blocks, and within their memory."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from brainrdl.analysis import all_pairs as module
from brainrdl.analysis.all_pairs import all_pair_dissimilarities
from brainrdl.dissimilarity import DISSIMILARITIES, pair_dissimilarities
from brainrdl.pairs import all_pairs

NAMES = tuple(name for name in DISSIMILARITIES if name != "mahalanobis")


@pytest.fixture
def blocks(monkeypatch):
    """Sets the blocks: rows that pass by at a time, and rows that are held."""

    def set_blocks(rows, held, n_units):
        monkeypatch.setattr(module, "_BLOCK_ROWS", rows)
        monkeypatch.setattr(module, "_HELD", 8 * held * n_units)

    return set_blocks


def draw(n_stimuli=41, n_units=30, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n_stimuli, n_units, generator=generator, dtype=torch.float64).exp().to(dtype)


class Seen:
    """Patterns that note which rows were read."""

    def __init__(self, patterns):
        self.patterns, self.shape, self.reads = patterns, patterns.shape, []

    def __getitem__(self, rows):
        self.reads.append(rows.indices(len(self.patterns))[:2])
        return self.patterns[rows]


@pytest.mark.parametrize(("rows", "held"), [(512, 10**6), (41, 41), (10, 20), (10, 41), (7, 7), (1, 3), (1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_any_blocks_give_the_pair_dissimilarities(blocks, name, rows, held):
    patterns = draw()
    blocks(rows, held, patterns.shape[1])
    found = all_pair_dissimilarities(patterns, name)
    expected = pair_dissimilarities(patterns.double(), all_pairs(len(patterns)), name).numpy()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("name", "metric"), [("sqeuclidean", "sqeuclidean"), ("correlation", "correlation")])
def test_as_scipys(blocks, name, metric):
    patterns = draw()
    blocks(6, 12, patterns.shape[1])
    np.testing.assert_allclose(all_pair_dissimilarities(patterns, name), pdist(patterns.double(), metric), rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_large_common_offset_keeps_the_digits(blocks, name):
    # The offset is exact in float32, and no pattern is like another: what is lost is lost in the differences.
    patterns = torch.randint(0, 64, (20, 50), generator=torch.Generator().manual_seed(0)).float() + 2.0**17
    blocks(4, 8, 50)
    metric = "sqeuclidean" if name == "euclidean" else name
    expected = pdist(patterns.double().numpy(), metric) / (50 if name == "euclidean" else 1)
    if name == "cosine":  # itself a difference of numbers near one: compared with what is exact
        exact = patterns.numpy().astype(np.longdouble)
        unit = exact / np.sqrt(np.square(exact).sum(1, keepdims=True))
        i, j = np.triu_indices(20, 1)
        expected = (np.square(unit[i] - unit[j]).sum(1) / 2).astype(np.float64)
    found = all_pair_dissimilarities(patterns, name)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if name == "cosine" else 1e-10)


@pytest.mark.parametrize(("name", "value"), [("correlation", 0.1), ("correlation", 0.0), ("cosine", 0.0)])
def test_pairs_of_a_pattern_without_a_dissimilarity_are_nan(blocks, name, value):
    patterns = draw()
    patterns[[3, 30]] = value
    blocks(8, 16, patterns.shape[1])
    found = all_pair_dissimilarities(patterns, name)
    expected = pair_dissimilarities(patterns.double(), all_pairs(len(patterns)), name).numpy()
    assert 0 < np.isnan(expected).sum() < len(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_equal_patterns_are_at_zero_and_none_below(blocks, name):
    patterns = draw()
    patterns[40] = patterns[0]
    blocks(8, 16, patterns.shape[1])
    found = all_pair_dissimilarities(patterns, name)
    assert (found >= 0).all()
    assert found[39] < 1e-12 * found.max()  # the last of the first row


def test_no_block_is_larger_than_said(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 8 * 30 * 5)
    monkeypatch.setattr(module, "_HELD", 8 * 30 * 10)
    seen = Seen(draw())
    all_pair_dissimilarities(seen)
    assert max(stop - start for start, stop in seen.reads) == 5
    # Read for the mean and, from where they are held, once for each ten rows.
    assert len(seen.reads) == 9 + (9 + 7 + 5 + 3 + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_patterns_of_any_precision_are_compared_in_float64(dtype):
    patterns = draw(dtype=dtype)
    np.testing.assert_array_equal(all_pair_dissimilarities(patterns), all_pair_dissimilarities(patterns.double()))


def test_patterns_with_gradient_are_compared_without():
    patterns = draw().requires_grad_()
    np.testing.assert_array_equal(all_pair_dissimilarities(patterns), all_pair_dissimilarities(patterns.detach()))


def test_two_stimuli_and_one_unit():
    np.testing.assert_allclose(all_pair_dissimilarities(torch.tensor([[1.0], [4.0]])), [9])


@pytest.mark.parametrize(
    ("shape", "name", "message"),
    [
        ((1, 3), "euclidean", r"at least 2 stimuli and 1 unit, got shape \(1, 3\)"),
        ((4, 0), "euclidean", r"at least 2 stimuli and 1 unit, got shape \(4, 0\)"),
        ((4, 3), "manhattan", "unknown dissimilarity 'manhattan'"),
        ((4, 3), "mahalanobis", "'mahalanobis' needs a precision matrix"),
    ],
)
def test_wrong_input_is_refused(shape, name, message):
    with pytest.raises(ValueError, match=message):
        all_pair_dissimilarities(torch.ones(shape), name)
