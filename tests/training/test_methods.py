"""Every method moves the student's weights where it should and nowhere else; a teacher never changes."""

from itertools import pairwise

import pytest
import torch

import brainrdl.layers
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
from brainrdl.objectives.method import MethodContext
from brainrdl.objectives.methods import METHODS
from brainrdl.schedule import constant
from brainrdl.sources import NetworkTeacher

UP_TO_POOL1 = {"conv1"}
UP_TO_POOL2 = {"conv1", "conv2"}
UP_TO_FC = {"conv1", "conv2", "fc"}
ALL = {"conv1", "conv2", "fc", "norm", "readout"}

# The auxiliary term by itself: what it is, and which parts of the student it must reach.
OBJECTIVES = {
    "rdl pool1": (lambda t: RDLObjective(t, {"pool1": "pool1"}, pairs=30), UP_TO_POOL1),
    "rdl pool2": (lambda t: RDLObjective(t, {"pool2": "pool2"}, pairs=30), UP_TO_POOL2),
    "rdl fc": (lambda t: RDLObjective(t, {"fc": "fc"}, images=6, discrepancy="correlation"), UP_TO_FC),
    "rdl output": (lambda t: RDLObjective(t, {"": "fc"}, discrepancy="corr_cov"), ALL),
    "deep supervision": (lambda t: DeepSupervision(["pool1", "pool2"]), UP_TO_POOL2),
    "hints": (lambda t: Hints(t, {"pool2": "pool2"}), UP_TO_POOL2),
    "distillation": (lambda t: Distillation(t), ALL),
    "rkd": (lambda t: RelationalDistillation(t, {"pool2": "pool2"}), UP_TO_POOL2),
    "similarity preserving": (lambda t: SimilarityPreserving(t, {"pool1": "pool2"}), UP_TO_POOL1),
    "cka": (lambda t: LinearCKA(t, {"fc": "fc"}), UP_TO_FC),
    "unbiased cka": (lambda t: LinearCKA(t, {"": "fc"}, unbiased=True), ALL),
}


@pytest.fixture
def context(teacher):
    def source(dissimilarity):
        return NetworkTeacher(teacher.network, ["pool1", "pool2", "fc"], dissimilarity)

    return MethodContext(2, sgd(0.05), constant(1.0), source, lambda: teacher.network)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_term_alone_moves_the_layers_up_to_its_own(
    make_net, teacher, train, fit, snapshot, moved_parts, assert_equal_states, name
):
    make, reached = OBJECTIVES[name]
    of_teacher = snapshot(teacher.network)
    for decay in (0.0, 0.1):  # which moves whatever is in the optimizer's hands
        student = make_net(0)
        before = snapshot(student)
        fit(student, Stage(make(teacher), task_weight=0, optimizer=sgd(0.1, weight_decay=decay)), train)
        assert moved_parts(before, snapshot(student)) == reached
        assert all(p.requires_grad for p in student.parameters()), "what was frozen is put back"
    assert_equal_states(of_teacher, snapshot(teacher.network))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_these_tests_notice_a_cut_gradient(student, teacher, train, fit, snapshot, moved_parts, monkeypatch, name):
    make, _ = OBJECTIVES[name]
    whole = brainrdl.layers._single_tensor
    monkeypatch.setattr(brainrdl.layers, "_single_tensor", lambda *args: whole(*args).detach())
    before = snapshot(student)
    stage = Stage(make(teacher), task_weight=0, name="cut")
    if list(stage.objectives[0].parameters()) or name in ("hints", "deep supervision"):
        fit(student, stage, train)
    else:
        with pytest.raises(ValueError, match="stage 'cut' trains nothing: its loss depends on no parameter"):
            fit(student, stage, train)
    assert moved_parts(before, snapshot(student)) == set()


METHOD_SETTINGS = {
    "baseline": {},
    "finetuning": {},
    "deep_supervision": {"layers": ["pool1"], "decay": "linear"},
    "hints": {"layers": {"pool1": "pool1"}, "hint_epochs": 1},
    "distillation": {},
    "rkd": {"layers": {"pool1": "pool1", "fc": "fc"}},
    "similarity_preserving": {"layers": {"pool1": "pool1", "fc": "fc"}},
    "cka": {"layers": {"pool1": "pool1", "fc": "fc"}},
    "rdl": {"layers": {"pool1": "pool1", "fc": "fc"}, "pairs": 30},
    "combined": {
        "parts": [
            {"method": "hints", "layers": {"pool1": "pool1"}, "hint_epochs": 1},
            {"method": "rdl", "layers": {"pool1": "pool1", "fc": "fc"}, "pairs": 30},
            {"method": "distillation"},
        ]
    },
}
TERMS = {
    "baseline": set(),
    "finetuning": set(),
    "deep_supervision": {"deep_supervision/pool1"},
    "hints": {"hints/pool1"},
    "distillation": {"distillation/output"},
    "rkd": {"rkd/pool1/distance", "rkd/pool1/angle", "rkd/fc/distance", "rkd/fc/angle"},
    "similarity_preserving": {"similarity_preserving/pool1", "similarity_preserving/fc"},
    "cka": {"cka/pool1", "cka/fc"},
    "rdl": {"rdl/pool1", "rdl/fc"},
    "combined": {"hints/pool1", "rdl/pool1", "rdl/fc", "distillation/output"},
}


def test_every_method_is_here():
    assert METHOD_SETTINGS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_from_beginning_to_end(
    make_net, train, validation, context, fit, snapshot, moved_parts, assert_equal_states, method
):
    student = make_net(0, n_hidden=10)
    before, of_teacher = snapshot(student), snapshot(context.teacher_network())
    settings = METHODS[method].model_validate(METHOD_SETTINGS[method])
    history = fit(student, settings.stages(context), train, validation=validation)
    assert moved_parts(before, snapshot(student)) == ALL
    assert_equal_states(of_teacher, snapshot(context.teacher_network()))
    terms = {name for row in history for name in row if "/" in name and not name.startswith("alpha")}
    assert terms == TERMS[method], "every term of every layer is logged by itself"
    assert [row["epoch"] for row in history] == list(range(len(history)))
    assert history[-1]["stage"] == "main"
    assert {"task", "train_error", "validation_error"} <= history[-1].keys()


def test_hints_first_train_only_the_layers_up_to_the_hint(make_net, train, context, snapshot, moved_parts, fit):
    student = make_net(0)
    stages = METHODS["hints"](layers={"pool2": "pool2"}, hint_epochs=2).stages(context)
    states = [snapshot(student)]

    def keep(network, epoch):
        states.append(snapshot(network))
        return {}

    history = fit(student, stages, train, evaluations={"keep": keep})
    assert [row["stage"] for row in history] == ["hints", "hints", "main", "main"]
    moved = [moved_parts(a, b) for a, b in pairwise(states)]
    # Running statistics of batch normalisation after the hint count as well: they belong to nothing that learns.
    assert moved == [UP_TO_POOL2, UP_TO_POOL2, ALL, ALL]
    assert all(p.requires_grad for p in student.parameters())


def test_hints_regressors_learn_and_the_error_falls(student, teacher, train, fit):
    hints = Hints(teacher, {"pool1": "pool1"})
    history = fit(student, Stage(hints, task_weight=0, epochs=15, optimizer=sgd(0.2)), train)
    assert history[-1]["hints/pool1"] < 0.5 * history[0]["hints/pool1"]
    assert "train_error" not in history[0]


def test_finetuning_starts_from_the_teachers_weights(make_net, teacher, train, fit, snapshot, moved_parts):
    from brainrdl.training import Trainer

    student = make_net(0, n_hidden=10, n_classes=4)
    initial, weights = snapshot(student), snapshot(teacher.network)
    stage = Stage(initial_weights=weights, optimizer=sgd(0.0, momentum=0))
    trainer = Trainer(student, stage, batch_size=16, accelerator="cpu")
    list(trainer.fit(train))
    after = snapshot(student)
    assert set(trainer.not_copied) == {"readout.weight", "readout.bias"}
    assert set(trainer.copied) == set(after) - set(trainer.not_copied)
    for name, value in student.named_parameters():
        assert torch.equal(value, initial[name] if name in trainer.not_copied else weights[name])


def test_finetuning_nothing_fits(student, train, fit):
    with pytest.raises(ValueError, match="none of the given weights fits the student by name and shape"):
        fit(student, Stage(initial_weights={"conv1.0.weight": torch.zeros(2), "other": torch.zeros(1)}), train)


def test_alpha_zero_is_the_baseline(make_net, teacher, train, fit, snapshot, assert_equal_states):
    plain, with_rdl = make_net(0), make_net(0)
    fit(plain, Stage(epochs=2), train)
    fit(with_rdl, Stage(RDLObjective(teacher, {"pool1": "pool1"}, pairs=9), alpha=0.0, epochs=2), train)
    assert_equal_states(snapshot(plain), snapshot(with_rdl))


def test_objectives_share_the_teachers_forward(student, teacher, train, fit):
    seen = []
    teacher.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    objectives = [
        RDLObjective(teacher, {"pool1": "pool1", "fc": "fc"}, pairs=10),
        Distillation(teacher),
        Hints(teacher, {"pool2": "pool2"}),
    ]
    fit(student, Stage(objectives, [1.0, 0.5, 0.5]), train)
    # A first batch is looked at before the training, 8 of its images (and 4 of them alone) once more to see whether
    # they give the same; then 50 images in batches of 16, each image once.
    assert sum(seen) == 16 + (8 + 8 + 4) + 50


def test_alphas_stand_in_the_history(student, teacher, train, fit):
    objectives = [RDLObjective(teacher, {"pool1": "pool1"}), Distillation(teacher)]
    (row,) = fit(student, Stage(objectives, [2.0, 0.5]), train)
    assert (row["alpha/rdl"], row["alpha/distillation"]) == (2.0, 0.5)
    two = [RDLObjective(teacher, {"pool1": "pool1"}), RDLObjective(teacher, {"fc": "fc"}, discrepancy="cosine")]
    (row,) = fit(student, Stage(two, [2.0, 0.5]), train)
    assert (row["alpha/rdl/pool1"], row["alpha/rdl/fc"]) == (2.0, 0.5)
    (row,) = fit(student, Stage(two[0], 3.0), train)
    assert row["alpha"] == 3.0


def test_rdl_lowers_its_own_error_on_the_way(make_net, teacher, train, fit):
    """Next to the task, and more than the task alone does."""
    objective = RDLObjective(teacher, {"pool2": "pool2", "fc": "fc"}, discrepancy="correlation")
    settings = {"epochs": 15, "optimizer": sgd(0.05)}
    rows = fit(make_net(0, dropout=0), Stage(objective, alpha=2.0, **settings), train)
    without = fit(make_net(0, dropout=0), Stage(objective, alpha=0.0, **settings), train)
    for term in ("rdl/pool2", "rdl/fc"):
        assert rows[-1][term] < 0.7 * rows[0][term]
        assert rows[-1][term] < 0.7 * without[-1][term]
    assert rows[-1]["train_error"] < rows[0]["train_error"]
