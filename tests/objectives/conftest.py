"""A small student, a teacher and stimuli, for every objective."""

import pytest
import torch
from torch import nn

from brainrdl.layers import record_layers
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Stimuli


class Net(nn.Module):
    def __init__(self, n_hidden=6, n_classes=3):
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        self.high = nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 4, n_hidden), nn.ReLU())
        self.readout = nn.Linear(n_hidden, n_classes)

    def forward(self, images):
        return self.readout(self.high(self.low(images)))


@pytest.fixture
def make_net():
    return Net


@pytest.fixture
def student():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def teacher():
    """Wider than the student, its weights larger."""
    torch.manual_seed(1)
    net = Net(n_hidden=9)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return NetworkTeacher(net, ["low", "high"])


@pytest.fixture
def stimuli():
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(20, 1, 6, 6, generator=generator)
    return Stimuli(images, tuple(f"image-{k}" for k in range(20)), torch.arange(20) % 3)


@pytest.fixture
def patterns_of():
    """`patterns_of(student, layers, stimuli)`: what the layers give, with their gradient."""

    def recorded(student, layers, stimuli):
        with record_layers(student, layers) as patterns:
            student(stimuli.images)
        return dict(patterns)

    return recorded


@pytest.fixture
def moved():
    """`moved(student, loss)`: the student's parts that have a gradient other than zero."""

    def parts(student, loss):
        student.zero_grad()
        loss.backward()
        return {name.partition(".")[0] for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}

    return parts
