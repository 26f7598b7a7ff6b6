"""Pairs: all, a uniform sample, all among a few images."""

from math import comb

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from brainrdl.pairs import Pairs, all_pairs, rows_of_pairs, sample_images, sample_pairs
from brainrdl.randomness import Draw


def assert_distinct_rows(pairs, n_stimuli):
    assert pairs.i.dtype == pairs.j.dtype == torch.int64
    assert (pairs.i >= 0).all()
    assert (pairs.i < pairs.j).all()
    assert (pairs.j < n_stimuli).all()
    assert len(set(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True))) == len(pairs.i)


@pytest.mark.parametrize("n_stimuli", [2, 3, 10, 92])
def test_all_pairs_are_in_condensed_order(n_stimuli):
    expected_i, expected_j = np.triu_indices(n_stimuli, 1)
    pairs = all_pairs(n_stimuli)
    assert np.array_equal(pairs.i, expected_i)
    assert np.array_equal(pairs.j, expected_j)


@pytest.mark.parametrize("n_stimuli", [0, 1])
def test_fewer_than_two_stimuli_have_no_pairs(n_stimuli):
    assert len(all_pairs(n_stimuli).i) == 0


@pytest.mark.parametrize("n_stimuli", [2, 3, 4, 7, 30, 1001])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_samples_are_distinct_and_in_condensed_order(n_stimuli, share):
    n_pairs = max(1, min(int(share * comb(n_stimuli, 2)), 20_000))
    pairs = sample_pairs(n_stimuli, n_pairs, np.random.default_rng(0))
    assert len(pairs.i) == n_pairs
    assert_distinct_rows(pairs, n_stimuli)
    assert (np.diff(pairs.i * n_stimuli + pairs.j) > 0).all()


def test_a_sample_of_all_but_one_leaves_out_every_pair_at_times():
    left_out = set()
    for seed in range(200):
        pairs = sample_pairs(5, 9, np.random.default_rng(seed))
        left_out |= set((5 * all_pairs(5).i + all_pairs(5).j).tolist()) - set((5 * pairs.i + pairs.j).tolist())
    assert left_out == {5 * i + j for i in range(5) for j in range(i + 1, 5)}


@pytest.mark.parametrize("n_pairs", [None, 15, 16, 10**9])
def test_as_many_as_there_are_gives_all(n_pairs):
    pairs = sample_pairs(6, n_pairs, np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(pairs, all_pairs(6), strict=True))


def test_a_large_batch():
    n_stimuli = 200_000  # 2 · 10¹⁰ pairs: positions do not fit 32 bits
    pairs = sample_pairs(n_stimuli, 1000, np.random.default_rng(0))
    assert_distinct_rows(pairs, n_stimuli)
    # Row i holds n - 1 - i pairs: the mean of i is (n - 2) / 3, of j twice that, and each has a deviation of n / √18.
    for rows, mean in ((pairs.i, n_stimuli / 3), (pairs.j, 2 * n_stimuli / 3)):
        assert abs(rows.double().mean() - mean) < 4 * n_stimuli / np.sqrt(18 * 1000)


def chi_square(counts, n_draws, n_drawn):
    """Cells drawn without replacement: their covariance is p(1 - p) m / (m - 1) (I - 1/m)."""
    m = counts.size
    p = n_drawn / m
    return float(((counts - n_draws * p) ** 2).sum() * (m - 1) / (n_draws * p * (1 - p) * m))


def test_every_pair_is_drawn_equally_often():
    generator, counts = np.random.default_rng(0), np.zeros((7, 7))
    for _ in range(4000):
        pairs = sample_pairs(7, 5, generator)
        counts[pairs.i, pairs.j] += 1
    counts = counts[np.triu_indices(7, 1)]
    assert counts.sum() == 20_000
    statistic = chi_square(counts, 4000, 5)
    assert chi2.ppf(0.001, 20) < statistic < chi2.ppf(0.999, 20)


def test_every_image_is_drawn_equally_often():
    generator, counts = np.random.default_rng(0), np.zeros(9)
    for _ in range(4000):
        counts[torch.cat(sample_images(9, 4, generator)).unique()] += 1
    assert counts.sum() == 16_000
    assert chi2.ppf(0.001, 8) < chi_square(counts, 4000, 4) < chi2.ppf(0.999, 8)


@pytest.mark.parametrize(("n_stimuli", "n_images"), [(2, 2), (10, 2), (10, 4), (10, 9), (10, 10), (10, 50)])
def test_images_sampling_gives_all_pairs_among_them(n_stimuli, n_images):
    pairs = sample_images(n_stimuli, n_images, np.random.default_rng(3))
    n_drawn = min(n_images, n_stimuli)
    assert len(torch.cat(pairs).unique()) == n_drawn
    assert len(pairs.i) == comb(n_drawn, 2)
    assert_distinct_rows(pairs, n_stimuli)


@pytest.mark.parametrize("draw", [lambda g: sample_pairs(50, 20, g), lambda g: sample_images(50, 7, g)])
def test_the_generator_alone_decides(draw):
    first, again, other = (draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.i, again.i)
    assert torch.equal(first.j, again.j)
    assert not torch.equal(first.i, other.i)


def test_the_pairs_of_a_seed_stay_the_same():
    """What an experiment file has drawn, it draws again with every version."""
    pairs = sample_pairs(100, 6, Draw(3, 2, 5, 1).generator("pairs"))
    assert torch.stack(pairs, 1).tolist() == [[20, 57], [27, 34], [41, 63], [42, 66], [66, 94], [74, 88]]
    images = sample_images(100, 3, Draw(3, 2, 5, 1).generator("pairs"))
    assert torch.stack(images, 1).tolist() == [[66, 89], [66, 91], [89, 91]]
    # Of more than 10,000 pairs numpy draws in another way, which its `shuffle` decides.
    many = sample_pairs(150, 300, np.random.default_rng(3))
    assert torch.stack(many, 1)[:4].tolist() == [[0, 17], [0, 52], [0, 93], [1, 70]]
    assert int((150 * many.i + many.j).sum()) == 2226300


def test_pairs_move_between_devices():
    pairs = all_pairs(4).to("meta")
    assert isinstance(pairs, Pairs)
    assert pairs.i.device.type == pairs.j.device.type == "meta"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda g: sample_pairs(1, None, g), "expected at least 2 stimuli to form a pair, got 1"),
        (lambda g: sample_pairs(0, 5, g), "expected at least 2 stimuli to form a pair, got 0"),
        (lambda g: sample_pairs(5, 0, g), "expected at least 1 pair, got 0"),
        (lambda g: sample_images(5, 1, g), "expected at least 2 images out of 2 stimuli, got 1 out of 5"),
        (lambda g: sample_images(1, 3, g), "expected at least 2 images out of 2 stimuli, got 3 out of 1"),
    ],
)
def test_too_few_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(np.random.default_rng(0))


def test_rows_of_pairs_are_those_that_occur():
    pairs = Pairs(torch.tensor([7, 2, 2]), torch.tensor([9, 7, 5]))
    rows, positions = rows_of_pairs(pairs)
    assert rows.tolist() == [2, 5, 7, 9]
    assert torch.equal(rows[positions.i], pairs.i)
    assert torch.equal(rows[positions.j], pairs.j)
    nothing, none = rows_of_pairs(Pairs(pairs.i[:0], pairs.j[:0]))
    assert len(nothing) == len(none.i) == 0
