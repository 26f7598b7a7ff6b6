"""A small network with everything that can go wrong in it (batch norm, dropout), and images with classes."""

import pytest
import torch
from torch import nn

from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Stimuli
from brainrdl.training import Trainer


class Net(nn.Module):
    """Layers in order: conv1, pool1, conv2, pool2, fc, (dropout), readout."""

    def __init__(self, n_hidden=8, n_classes=3, dropout=0.5, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), norm(3), nn.ReLU())
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm(4), nn.ReLU(inplace=True))
        self.pool2 = nn.MaxPool2d(2)
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(16, n_hidden), nn.ReLU())
        self.norm = nn.BatchNorm1d(n_hidden) if norm is nn.BatchNorm2d else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(n_hidden, n_classes)

    def forward(self, images):
        maps = self.pool2(self.conv2(self.pool1(self.conv1(images))))
        return self.readout(self.dropout(self.norm(self.fc(maps))))


def draw_stimuli(n_stimuli, seed, n_classes=3):
    """Noisy copies of one image a class."""
    labels = torch.arange(n_stimuli) % n_classes
    prototypes = torch.rand(n_classes, 1, 8, 8, generator=torch.Generator().manual_seed(100))
    noise = torch.rand(n_stimuli, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Stimuli(0.6 * prototypes[labels] + 0.4 * noise, tuple(f"{seed}/{k}" for k in range(n_stimuli)), labels)


@pytest.fixture
def make_net():
    """`make_net(seed, **arguments)`: the network with the initial weights of a seed."""

    def make(seed=0, **arguments):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Net(**arguments)

    return make


@pytest.fixture
def student(make_net):
    return make_net(0)


@pytest.fixture
def teacher(make_net):
    return NetworkTeacher(make_net(1, n_hidden=10), ["pool1", "pool2", "fc"])


@pytest.fixture
def train():
    return draw_stimuli(50, seed=1)


@pytest.fixture
def validation():
    return draw_stimuli(30, seed=2)


@pytest.fixture
def fit():
    """`fit(student, stages, task, ...)`: train on the CPU to the end, in batches of 16; the history's rows."""

    def run(student, stages, task=None, stimuli=None, validation=None, resume=False, **settings):
        settings = {"batch_size": 16, "accelerator": "cpu", **settings}
        trainer = Trainer(student, stages, **settings)
        return [record.history for record in trainer.fit(task, stimuli, validation, resume)]

    return run


@pytest.fixture
def snapshot():
    """`snapshot(network)`: its weights and buffers, copied."""

    def copy(network):
        return {name: value.detach().clone() for name, value in network.state_dict().items()}

    return copy


@pytest.fixture
def moved_parts():
    """`moved_parts(before, after)`: the network's parts in which any weight or buffer changed.

    "PART, not all" where a weight of the part did not: its running statistics alone, say.
    """

    def parts(before, after):
        assert before.keys() == after.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        found = set()
        for part in {name.partition(".")[0] for name in changed}:
            weights = {name for name in before if name.startswith(f"{part}.") and name.endswith("weight")}
            found.add(part if weights <= changed else f"{part}, not all")
        return found

    return parts


@pytest.fixture
def assert_equal_states():
    """`assert_equal_states(a, b)`: bit by bit the same weights and buffers."""

    def check(a, b):
        assert a.keys() == b.keys()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []

    return check
