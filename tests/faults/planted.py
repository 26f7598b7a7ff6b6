"""A small network, images, teachers and a training, in which the tests of guards plant their faults."""

import re

import numpy as np
import torch
from rsatoolbox.rdm import RDMs
from torch import nn

from brainrdl import (
    MeasuredRDMs,
    NetworkTeacher,
    RDLObjective,
    Stimuli,
    Trainer,
)
from brainrdl.notes import noting


class Net(nn.Module):
    """Batch normalisation and dropout, an inner layer `pool`, a late one `fc`."""

    def __init__(self, seed=0, norm=nn.BatchNorm2d, n_classes=3):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm(4), nn.ReLU())
            self.pool = nn.MaxPool2d(2)
            self.fc = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU())
            self.dropout = nn.Dropout(0.5)
            self.readout = nn.Linear(10, n_classes)

    def forward(self, images):
        return self.readout(self.dropout(self.fc(self.pool(self.conv(images)))))


def draw(n, seed, prefix="image"):
    """Noisy copies of one image a class, 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    prototypes = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    images = 0.6 * prototypes[labels] + 0.4 * torch.rand(n, 1, 8, 8, generator=generator)
    return Stimuli(images, tuple(f"{prefix}-{seed}/{k:02d}" for k in range(n)), labels)


TRAIN, VALIDATION = draw(48, 1), draw(24, 2)


def fit(student, stage, task=TRAIN, stimuli=None, validation=None, **settings):
    """A training to its end: its history, and what was told."""
    told = []
    with noting(told.append):
        trainer = Trainer(student, stage, batch_size=16, accelerator="cpu", **settings)
        rows = [record.history for record in trainer.fit(task, stimuli, validation)]
    return rows, told


def told_of(call):
    told = []
    with noting(told.append):
        call()
    return told


def assert_told(told, *messages):
    """Each message is told once, in that order, and nothing else."""
    assert len(told) == len(messages), told
    for one, message in zip(told, messages, strict=True):
        assert re.search(message, one), one


def teacher(net=None, layers=("pool", "fc"), **settings):
    return NetworkTeacher(net or Net(1), list(layers), **settings)


def rdl(of=None, layers=("pool", "fc"), **settings):
    of = of or teacher()
    return RDLObjective(of, {layer: layer for layer in layers}, **settings)


def measured_rdms(ids, seed=0, measure="correlation", low=0.0, high=2.0):
    values = np.random.default_rng(seed).uniform(low, high, (1, len(ids) * (len(ids) - 1) // 2))
    descriptors = {"stimulus": list(ids)}
    return RDMs(values, measure, pattern_descriptors=descriptors, rdm_descriptors={"roi": ["IT"]})


def measured(ids, **settings):
    return MeasuredRDMs(measured_rdms(ids, **settings))
