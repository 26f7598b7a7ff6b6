"""Stages: what they hold, and what is refused."""

import pytest
import torch
from torch import nn

from brainrdl.objectives import DeepSupervision, Distillation, Hints, Objective, RDLObjective, Stage, adamw, sgd
from brainrdl.schedule import linear_decay


def test_one_objective_or_several(teacher):
    rdl, hints = RDLObjective(teacher, {"high": "high"}), Hints(teacher, {"low": "low"})
    assert Stage().objectives == ()
    assert Stage(rdl).objectives == (rdl,)
    assert Stage([rdl, hints]).objectives == (rdl, hints)


def test_alpha_is_a_number_a_schedule_or_one_each(teacher):
    two = [RDLObjective(teacher, {"high": "high"}), Hints(teacher, {"low": "low"})]
    assert [alpha(3, 10) for alpha in Stage(two, 2.0).alphas] == [2.0, 2.0]
    assert [alpha(5, 10) for alpha in Stage(two, linear_decay(4.0)).alphas] == [2.0, 2.0]
    assert [alpha(5, 10) for alpha in Stage(two, [linear_decay(4.0), 0.5]).alphas] == [2.0, 0.5]
    assert Stage(alpha=[]).alphas == ()


def test_every_objective_keeps_the_protocol(teacher):
    for objective in (
        RDLObjective(teacher, {"high": "high"}),
        Hints(teacher, {"low": "low"}),
        DeepSupervision(["low"]),
        Distillation(teacher),
    ):
        assert isinstance(objective, Objective)
        assert isinstance(objective, nn.Module)
        assert objective.stream == "task"
        assert isinstance(objective.layers, tuple)


def test_messages(teacher):
    with pytest.raises(ValueError, match="stage 'main': expected at least 1 epoch, got 0"):
        Stage(epochs=0)
    with pytest.raises(ValueError, match="stage 'first' has neither a task nor an objective; give it one of them"):
        Stage(task_weight=0, name="first")
    with pytest.raises(ValueError, match="stage 'main': 2 alphas for 1 objectives; give one each"):
        Stage(RDLObjective(teacher, {"high": "high"}), [1.0, 2.0])


def test_optimizers_are_made_when_the_parameters_are_known():
    weight = nn.Parameter(torch.ones(3))
    group = sgd(0.3, momentum=0.5, weight_decay=0.1, nesterov=True)([weight]).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.3, 0.5, 0.1, True)
    optimizer = adamw(0.02, 0.3)([weight])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.02, 0.3)
