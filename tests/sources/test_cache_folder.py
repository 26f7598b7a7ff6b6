"""A folder of kept patterns: layers in the order in which they were written, and none where nothing is to be kept."""

import pytest
import torch

from brainrdl.sources.cache import PatternCache
from brainrdl.stimuli import Stimuli


@pytest.fixture
def stimuli():
    images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return Stimuli(images, tuple(f"image-{k}" for k in range(8)))


def compute(stimuli):
    """Twelve layers: more than there are digits."""
    return {f"layer {k}": (k + 1) * stimuli.images.flatten(1)[:, : k + 1] for k in range(12)}


def test_more_than_ten_layers_are_read_again_each_with_its_own_checksums(stimuli, tmp_path):
    first = stimuli.subset(torch.arange(5))
    PatternCache(tmp_path).fetch(first, compute)
    again = PatternCache(tmp_path)
    found = again.fetch(first, lambda _: pytest.fail("they are known"))
    assert list(found) == [f"layer {k}" for k in range(12)]
    grown = again.fetch(stimuli, compute)
    for cache in (again, PatternCache(tmp_path, read_only=True)):
        grown = cache.fetch(stimuli, lambda _: pytest.fail("they are known"))
        for layer, expected in compute(stimuli).items():
            assert torch.equal(grown[layer], expected)


def test_a_folder_that_is_only_read_is_not_made(stimuli, tmp_path):
    found = PatternCache(tmp_path / "kept", read_only=True).fetch(stimuli, compute)
    assert torch.equal(found["layer 3"], compute(stimuli)["layer 3"])
    assert list(tmp_path.iterdir()) == []
    PatternCache(tmp_path / "kept")
    assert [folder.name for folder in tmp_path.iterdir()] == ["kept"]
