"""Under torch.compile every method does what it does without: the same weights move, the teacher stays."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from rsatoolbox.rdm import RDMs
from torch import nn

from brainrdl.layers import record_layers
from brainrdl.notes import ResultWarning
from brainrdl.objectives import (
    DeepSupervision,
    Distillation,
    Hints,
    LinearCKA,
    RDLObjective,
    RelationalDistillation,
    SimilarityPreserving,
    Stage,
    sgd,
)
from brainrdl.sources.rdms import MeasuredRDMs
from brainrdl.stimuli import Stimuli
from brainrdl.training import Trainer

UP_TO_POOL2 = {"conv1", "conv2"}
ALL = {"conv1", "conv2", "fc", "norm", "readout"}
RELATIONS = (RelationalDistillation, SimilarityPreserving, LinearCKA)

METHODS = {
    "baseline": (lambda t: Stage(), ALL),
    "finetuning": (lambda t: Stage(initial_weights=t.network.state_dict()), ALL),
    "rdl": (
        lambda t: Stage(RDLObjective(t, {"pool1": "pool1", "pool2": "pool2"}, pairs=30), task_weight=0),
        UP_TO_POOL2,
    ),
    "deep supervision": (lambda t: Stage(DeepSupervision(["pool2"]), task_weight=0), UP_TO_POOL2),
    "hints": (lambda t: Stage(Hints(t, {"pool2": "pool2"}), task_weight=0), UP_TO_POOL2),
    "distillation": (lambda t: Stage(Distillation(t), task_weight=0), ALL),
    "relations": (
        lambda t: Stage([kind(t, {"pool2": "pool2"}) for kind in RELATIONS], task_weight=0),
        UP_TO_POOL2,
    ),
    "combined": (lambda t: Stage([RDLObjective(t, {"fc": "fc"}), Distillation(t)], [1.0, 0.5]), ALL),
}


@pytest.fixture
def tracing_only(monkeypatch):
    """All of torch.compile but the making of machine code, which takes most of the time and changes nothing here."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method(
    tracing_only, make_net, teacher, train, validation, fit, snapshot, moved_parts, assert_equal_states, method
):
    make, reached = METHODS[method]
    compiled, plain = make_net(0, dropout=0), make_net(0, dropout=0)
    before, of_teacher = snapshot(compiled), snapshot(teacher.network)
    even = train.subset(torch.arange(48))
    rows = fit(compiled, make(teacher), even, validation=validation, compile=True)
    expected = fit(plain, make(teacher), even, validation=validation)
    assert moved_parts(before, snapshot(compiled)) == reached
    assert_equal_states(of_teacher, snapshot(teacher.network))
    for name, value in snapshot(plain).items():
        torch.testing.assert_close(snapshot(compiled)[name], value, rtol=1e-4, atol=1e-5)
    assert rows[0].keys() == expected[0].keys()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.Identity])
def test_brain_data_beside_a_task(tracing_only, make_net, train, fit, snapshot, norm):
    """Two forwards with batch norm, of which the stimuli's has it in eval mode; one without."""
    ids = tuple(f"2/{k}" for k in range(24))
    values = np.random.default_rng(0).random((1, 276)) - 0.2
    source = MeasuredRDMs(RDMs(values, "crossnobis", pattern_descriptors={"stimulus": list(ids)}))
    shown = Stimuli(torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(2)), ids)
    objective = RDLObjective(source, {"fc": "rdm-0"}, pairs=30, stream="stimuli")
    states = []
    for compiled in (True, False):
        student = make_net(0, dropout=0, norm=norm)
        stage = Stage(objective, epochs=2)
        (*_, row) = fit(student, stage, train.subset(torch.arange(48)), shown, stimulus_batch_size=8, compile=compiled)
        assert row["n_pairs/rdl/fc"] == 28
        states.append(snapshot(student))
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=1e-4, atol=1e-5)


def test_stages_and_evaluations_that_record_other_layers(tracing_only, make_net, teacher, train, fit, snapshot):
    """A compiled network knows the hooks it was compiled with; each stage and each evaluation has its own."""

    def evaluate(network, epoch):
        with record_layers(network, ["conv1", "readout"]) as patterns:
            network(train.images)
            return {"recorded": len(patterns)}

    stages = [
        Stage(RDLObjective(teacher, {"pool1": "pool1"}, pairs=30), name="one layer"),
        Stage(RDLObjective(teacher, {"pool1": "pool1", "fc": "fc"}, pairs=30), name="two layers"),
    ]
    student, plain = make_net(0, dropout=0), make_net(0, dropout=0)
    even = train.subset(torch.arange(48))
    rows = fit(student, stages, even, compile=True, evaluations={"mine": evaluate})
    fit(plain, stages, even)
    for name, value in snapshot(plain).items():
        torch.testing.assert_close(snapshot(student)[name], value, rtol=1e-4, atol=1e-5)
    assert [row["recorded"] for row in rows] == [2, 2]
    assert {"rdl/pool1", "rdl/fc"} <= rows[1].keys()
    assert not hasattr(student, "_orig_mod")
    with record_layers(student, ["conv2"]) as patterns:
        student(train.images)
    assert patterns["conv2"].shape[0] == 50


class Faint:
    """A term of which nothing comes: its gradient is compared with the others'."""

    layers, stream = ("2",), "task"

    def prepare(self, patterns, stimuli):
        pass

    def __call__(self, patterns, stimuli, draw=None):
        return {"faint/2": 1e-12 * patterns["2"].square().mean()}


def test_with_machine_code(teacher, train, fit, snapshot):
    """The default compiler, on a network that it compiles quickly."""
    if not any(map(shutil.which, ("g++", "clang++", "cl"))):
        pytest.skip("torch.compile needs a C++ compiler; there is none")
    torch.manual_seed(0)
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    before = snapshot(student)
    stage = Stage([RDLObjective(teacher, {"2": "fc"}, pairs=30), Faint()], task_weight=0, optimizer=sgd(0.1))
    with pytest.warns(ResultWarning, match="term 'faint/2' takes no part"):
        (row,) = fit(student, stage, train.subset(torch.arange(48)), compile=True)
    after = snapshot(student)
    assert row["rdl/2"] > 0
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"1.weight", "1.bias"}
    assert Trainer(student, stage, compile=True, accelerator="cpu").compile
