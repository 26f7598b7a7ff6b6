"""Schedules against the recurrences they were printed as."""

import pytest

from brainrdl.schedule import constant, halving, lee_decay, linear_decay, warm_up


def values(schedule, n_epochs):
    return [schedule(epoch, n_epochs) for epoch in range(n_epochs)]


def test_constant():
    assert values(constant(0.3), 4) == [0.3] * 4


def test_linear_decay_of_the_paper():
    # alpha_{t+1} = alpha_0 (1 - t / t_max)
    assert values(linear_decay(2.0), 4) == pytest.approx([2.0, 1.5, 1.0, 0.5])
    assert values(linear_decay(2.0), 1) == [2.0]


def test_lee_decay_as_printed():
    # alpha_{t+1} = alpha_t · 0.1 (1 - t / t_max)
    expected = [5.0]
    for t in range(9):
        expected.append(expected[t] * 0.1 * (1 - t / 10))
    assert values(lee_decay(5.0), 10) == pytest.approx(expected, rel=1e-12)
    assert expected[1] == pytest.approx(0.5)
    assert expected[2] == pytest.approx(0.045)


def test_warm_up_is_linear_and_then_over():
    assert values(warm_up(constant(1.0), 3), 6) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert values(warm_up(constant(2.0), 0), 3) == [2.0] * 3


def test_warm_up_multiplies_any_schedule():
    decay, warmed = linear_decay(4.0), warm_up(linear_decay(4.0), 1)
    assert values(warmed, 5) == pytest.approx([0.5 * decay(0, 5), *values(decay, 5)[1:]])


def test_halving():
    assert values(halving(0.8, 2), 7) == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1])


@pytest.mark.parametrize("schedule", [constant(1.0), linear_decay(1.0), lee_decay(1.0), warm_up(linear_decay(1.0), 2)])
def test_alpha_stays_above_zero_and_within_its_start(schedule):
    assert all(0 < value <= 1 for value in values(schedule, 20))
