"""What a teacher says of the training images, kept for the students of a run."""

import shutil
from collections import namedtuple

import pytest
import torch
from torch import nn

from brainrdl.experiment import teacher_patterns
from brainrdl.experiment.teacher_patterns import keep_patterns, kept_patterns, remove_patterns
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return NetworkTeacher(nn.Sequential(nn.Flatten(), nn.Linear(36, 6)), ["1"])


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return Stimuli(torch.rand(1203, 1, 6, 6, generator=generator), tuple(f"image-{k}" for k in range(1203)))


def test_every_image_is_kept_whatever_stood_there_before(teacher, images, tmp_path):
    folder = tmp_path / "teacher" / "patterns"
    assert kept_patterns(folder) is None
    other = NetworkTeacher(nn.Sequential(nn.Flatten(), nn.Linear(36, 6)), ["1"])
    assert keep_patterns(other, images, folder) and keep_patterns(teacher, images, folder)

    def never(stimuli):
        raise AssertionError("computed again")

    cache = kept_patterns(folder)
    found = cache.fetch(images.subset(torch.tensor([1202, 0, 600])), never)
    torch.testing.assert_close(found["1"], teacher.patterns(images)["1"][[1202, 0, 600]])
    remove_patterns(folder)
    assert not folder.exists()
    remove_patterns(folder)


def test_what_is_too_large_is_not_kept(teacher, images, tmp_path, monkeypatch):
    n_bytes = 1203 * (6 + 6) * 4  # of the layer, and of the output
    usage = namedtuple("usage", "free")
    for free, largest, kept in [(2 * n_bytes, n_bytes, True), (2 * n_bytes - 2, n_bytes, False), (10**9, 10, False)]:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: usage(free))
        monkeypatch.setattr(teacher_patterns, "_LARGEST", largest)
        assert keep_patterns(teacher, images, tmp_path / "patterns") is kept
        assert (tmp_path / "patterns").exists() is kept
