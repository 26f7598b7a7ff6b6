"""Random draws are functions of where they are made."""

import numpy as np
import pytest
import torch

from brainrdl.randomness import Draw, from_torch, torch_seeded

HERE = Draw(seed=3, epoch=2, step=5, rank=1)
ELSEWHERE = [HERE._replace(**change) for change in ({"seed": 4}, {"epoch": 3}, {"step": 6}, {"rank": 0})]


def test_equal_places_draw_equal_numbers():
    again = Draw(3, 2, 5, 1)
    assert np.array_equal(HERE.generator("pairs").random(50), again.generator("pairs").random(50))
    assert HERE.torch_seed("dropout") == again.torch_seed("dropout")


@pytest.mark.parametrize("other", ELSEWHERE)
def test_every_part_of_the_place_counts(other):
    assert not np.array_equal(HERE.generator("pairs").random(50), other.generator("pairs").random(50))
    assert HERE.torch_seed("dropout") != other.torch_seed("dropout")


def test_parts_of_the_place_are_not_exchangeable():
    places = [Draw(0, 0, 1, 0), Draw(0, 1, 0, 0), Draw(1, 0, 0, 0), Draw(0, 0, 0, 1)]
    assert len({place.torch_seed("order") for place in places}) == 4


def test_purposes_are_independent():
    draws = {purpose: HERE.generator(purpose).random(2000) for purpose in ("pairs", "order", "augmentation")}
    correlation = np.corrcoef(list(draws.values()))[np.triu_indices(3, 1)]
    assert (np.abs(correlation) < 4 / np.sqrt(2000)).all()
    assert HERE.torch_seed("dropout") != HERE.torch_seed("weights")


def test_draws_are_the_same_on_every_machine():
    # What a run drew must be drawn again when it is resumed, whatever process or machine that is.
    assert HERE.generator("pairs").integers(1000, size=4).tolist() == [937, 671, 892, 470]
    assert HERE.torch_seed("dropout") == 8405606453635374539


def test_torch_accepts_every_seed():
    for seed in range(200):
        torch.Generator().manual_seed(Draw(seed).torch_seed("weights"))
        assert 0 <= Draw(seed).torch_seed("weights") < 2**63


def test_torch_seeded_decides_inside_and_leaves_the_outside_alone():
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    before = torch.rand(2)
    with torch_seeded(7):
        first = torch.rand(3)
    with torch_seeded(7):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.cat([before, torch.rand(2)]), expected)


def test_torch_seeded_puts_the_state_back_after_an_error():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"), torch_seeded(7):
        torch.rand(3)
        raise RuntimeError("stop")
    assert torch.equal(torch.get_rng_state(), state)


def test_from_torch_follows_manual_seed():
    def draws(seed):
        torch.manual_seed(seed)
        return [from_torch().random(), from_torch().random()]

    assert draws(1) == draws(1)
    assert len({*draws(1), *draws(2)}) == 4
