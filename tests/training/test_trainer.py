"""The trainer against a plain loop, and what it leaves behind."""

import random

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from brainrdl.models import Preprocessing
from brainrdl.objectives import RDLObjective, Stage, adamw, sgd
from brainrdl.randomness import Draw
from brainrdl.schedule import constant, halving
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Stimuli
from brainrdl.training import Trainer


def plain_loop(student, teacher, train, layers, alpha, epochs, lr, momentum, batch_size, seed):
    """Task and RDL over all pairs (Eq. 2 and 5) in plain PyTorch; only the order of the images is brainrdl's."""
    optimizer = torch.optim.SGD(student.parameters(), lr=lr, momentum=momentum)
    patterns = {}
    for network in (student, teacher):
        for layer in layers:
            tap = lambda module, inputs, output, key=(network, layer): patterns.update({key: output})  # noqa: E731
            network.get_submodule(layer).register_forward_hook(tap)
    student.train()
    teacher.eval()

    def rdm(network, layer):
        flat = patterns[network, layer].flatten(1)
        i, j = torch.triu_indices(len(flat), len(flat), 1)
        return (flat[i] - flat[j]).square().mean(1)

    for epoch in range(epochs):
        order = torch.from_numpy(Draw(seed, epoch=epoch).generator("order").permutation(len(train.ids)))
        for rows in order.split(batch_size):
            images, labels = train.images[rows], train.labels[rows]
            loss = functional.cross_entropy(student(images), labels)
            with torch.no_grad():
                teacher(images)
            for layer in layers:
                loss = loss + alpha * (rdm(student, layer) - rdm(teacher, layer)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@pytest.mark.parametrize("normalization", ["image", "pair"])
def test_same_weights_as_a_plain_loop(make_net, train, snapshot, normalization):
    """In float64, so that what differs is the method and not the rounding."""
    layers = ["pool1", "pool2", "fc"]
    double = train._replace(images=train.images.double())
    states = {}
    for name, alpha in (("with RDL", 3.0), ("without", 0.0)):
        student = make_net(0, dropout=0).double()
        plain_loop(student, make_net(1).double(), double, layers, alpha, 6, 0.05, 0.9, 16, seed=7)
        states[name] = snapshot(student)
    student = make_net(0, dropout=0)
    teacher = NetworkTeacher(make_net(1).double(), layers)
    objective = RDLObjective(teacher, dict(zip(layers, layers, strict=True)), normalization=normalization)
    stage = Stage(objective, alpha=3.0, epochs=6, optimizer=sgd(0.05, momentum=0.9))
    fabric = Fabric(accelerator="cpu", precision="64-true")
    list(Trainer(student, stage, batch_size=16, seed=7, fabric=fabric).fit(train))
    trained = snapshot(student)
    for name, value in trained.items():
        torch.testing.assert_close(value, states["with RDL"][name], rtol=1e-9, atol=1e-11)
    assert (trained["conv1.0.weight"] - states["without"]["conv1.0.weight"]).abs().max() > 1e-2


def test_a_row_is_the_epochs_mean_over_images(make_net, teacher, train, validation, fit):
    """Without learning, every image counts once, however the batches fall."""
    student = make_net(0, dropout=0, norm=nn.Identity)
    objective = RDLObjective(teacher, {"fc": "fc"})
    stage = Stage(objective, optimizer=sgd(0.0), learning_rate=constant(1.0))
    (row,) = fit(student, stage, train, validation=validation)
    with torch.no_grad():
        scores, of_validation = student(train.images), student(validation.images)
    assert row["task"] == pytest.approx(functional.cross_entropy(scores, train.labels).item(), rel=1e-5)
    assert row["train_error"] == pytest.approx((scores.argmax(1) != train.labels).float().mean().item())
    assert row["validation_error"] == pytest.approx(
        (of_validation.argmax(1) != validation.labels).float().mean().item()
    )
    assert row["rdl/fc"] > 0
    assert (row["stage"], row["epoch"], row["alpha"]) == ("main", 0, 1.0)


def test_learning_rate_and_alpha_follow_their_schedules(student, teacher, train, fit):
    objective = RDLObjective(teacher, {"fc": "fc"})
    stage = Stage(objective, alpha=halving(8.0, 1), epochs=4, optimizer=sgd(0.1), learning_rate=halving(1.0, 2))
    rows = fit(student, stage, train)
    assert [row["alpha"] for row in rows] == [8, 4, 2, 1]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.1, 0.1, 0.05, 0.05])


def test_learning_rate_zero_leaves_the_weights(student, train, fit, snapshot):
    before = {name: value.clone() for name, value in student.named_parameters()}
    fit(student, Stage(learning_rate=constant(0.0), optimizer=adamw(0.1, weight_decay=0)), train)
    assert all(torch.equal(before[name], value) for name, value in student.named_parameters())


def test_clip_bounds_the_step(make_net, train, fit):
    def step(clip):
        student = make_net(0, dropout=0)
        before = torch.cat([p.detach().flatten().clone() for p in student.parameters()])
        fit(student, Stage(optimizer=sgd(1.0, momentum=0)), train, batch_size=50, clip=clip)
        return (torch.cat([p.detach().flatten() for p in student.parameters()]) - before).norm().item()

    assert step(None) > 0.2
    assert step(0.01) == pytest.approx(0.01, rel=1e-3)


def test_the_task_is_learnt(make_net, train, validation, fit):
    rows = fit(make_net(0, dropout=0), Stage(epochs=40, optimizer=sgd(0.05)), train, validation=validation)
    assert rows[0]["validation_error"] > 0.2
    assert rows[-1]["validation_error"] < 0.05


def test_equal_seeds_give_equal_runs_and_other_seeds_others(make_net, teacher, train, fit, snapshot):
    def run(seed):
        student = make_net(0)
        rows = fit(student, Stage(RDLObjective(teacher, {"fc": "fc"}, pairs=20), epochs=2), train, seed=seed)
        return rows, snapshot(student)

    (rows, state), (again, same), (other, different) = run(3), run(3), run(4)
    assert rows == again
    assert all(torch.equal(state[name], same[name]) for name in state)
    assert rows != other
    assert not torch.equal(state["conv1.0.weight"], different["conv1.0.weight"])


class Draws(nn.Module):
    """A layer that notes what it draws from torch, as dropout does."""

    def __init__(self):
        super().__init__()
        self.drawn = []
        self.readout = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, images):
        if self.training:
            self.drawn.append(torch.rand(()).item())
        return self.readout(images)


def test_a_networks_draws_are_its_own_in_every_step_epoch_stage_and_seed(train, fit):
    def drawn(seed):
        network = Draws()
        fit(network, [Stage(epochs=2), Stage(epochs=2)], train, seed=seed)
        return network.drawn

    one, again, other = drawn(1), drawn(1), drawn(2)
    assert one == again
    assert len(one) == 4 * 4
    assert len({*one, *other}) == 2 * 4 * 4


def test_of_equally_good_epochs_the_first_is_kept(student, train, validation):
    stage = Stage(epochs=3, learning_rate=lambda epoch, n: 0.1 * (epoch == 0), optimizer=sgd(1.0, momentum=0))
    trainer = Trainer(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), stage, batch_size=16, keep="best", accelerator="cpu"
    )
    rows = [record.history for record in trainer.fit(train, validation=validation)]
    assert len({row["validation_error"] for row in rows}) == 1
    assert trainer._best["epoch"] == 0


def test_keep_best_by_validation_error(make_net, train, validation, fit, snapshot, assert_equal_states):
    student = make_net(0)
    states = []
    stage = Stage(epochs=8, optimizer=sgd(0.3))

    def keep(network, epoch):
        states.append(snapshot(network))
        return {}

    rows = fit(student, stage, train, validation=validation, keep="best", evaluations={"keep": keep})
    errors = [row["validation_error"] for row in rows]
    assert min(errors) < errors[-1] or errors.index(min(errors)) < 7, (
        "the problem must have a best epoch before the last"
    )
    assert_equal_states(states[errors.index(min(errors))], snapshot(student))


def test_best_of_an_earlier_fit_is_forgotten(student, train, validation):
    rate = [0.1]
    stage = Stage(epochs=4, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate[0]))
    trainer = Trainer(student, stage, batch_size=16, accelerator="cpu", keep="best")
    list(trainer.fit(train, validation=validation))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    rate[0] = 0.0
    list(trainer.fit(train, validation=validation))
    assert not any(parameter.any() for parameter in student.parameters())


def test_break_leaves_the_student_as_of_that_epoch(make_net, train, validation, fit, snapshot, assert_equal_states):
    whole, stopped = make_net(0), make_net(0)
    fit(whole, Stage(epochs=2), train)
    for record in Trainer(stopped, Stage(epochs=5, learning_rate=constant(1.0)), batch_size=16, accelerator="cpu").fit(
        train
    ):
        if record.history["epoch"] == 1:
            break
    assert_equal_states(snapshot(whole), snapshot(stopped))


def test_half_precision(make_net, teacher, train, validation, fit):
    """Under autocast the terms are computed in full precision, from patterns that are not."""
    from brainrdl.objectives import (
        DeepSupervision,
        Distillation,
        Hints,
        LinearCKA,
        RelationalDistillation,
        SimilarityPreserving,
    )

    def run(precision):
        objectives = [
            RDLObjective(teacher, {"pool2": "pool2"}),
            RDLObjective(teacher, {"fc": "fc"}, discrepancy="corr_cov"),
            DeepSupervision(["pool1"]),
            Hints(teacher, {"pool1": "pool1"}),
            Distillation(teacher),
            RelationalDistillation(teacher, {"fc": "fc"}),
            SimilarityPreserving(teacher, {"pool2": "pool2"}),
            LinearCKA(teacher, {"pool2": "pool2"}),
        ]
        student = make_net(0, dropout=0)
        stage = Stage(objectives, 0.5, optimizer=sgd(0.0))
        (row,) = fit(student, stage, train, validation=validation, precision=precision)
        assert all(p.dtype == torch.float32 for p in student.parameters())
        return row

    half, full = run("bf16-mixed"), run("32-true")
    assert half.keys() == full.keys()
    for name in full:
        if "/" in name:
            assert half[name] == pytest.approx(full[name], rel=0.03)
            assert name.startswith("alpha") or half[name] != full[name]


# -- evaluations -----------------------------------------------------------------------------------------------


def test_evaluations_see_the_student_in_eval_mode(student, train, fit):
    seen = []

    def evaluate(network, epoch):
        seen.append((network is student, epoch, network.training, torch.is_grad_enabled()))
        return {"numpy": np.float32(0.25), "tensor": torch.tensor(2.0)}

    rows = fit(student, Stage(epochs=2), train, evaluations={"mine": evaluate})
    assert seen == [(True, 0, False, False), (True, 1, False, False)]
    assert [(row["numpy"], row["tensor"]) for row in rows] == [(0.25, 2.0)] * 2
    assert type(rows[0]["numpy"]) is float


def test_an_evaluation_may_record_layers(student, teacher, train, fit):
    from brainrdl.layers import record_layers

    def evaluate(network, epoch):
        with record_layers(network, ["conv2", "fc"]) as patterns:
            network(train.images)
            return {"n": patterns["conv2"].shape[0] + patterns["fc"].shape[1]}

    rows = fit(student, Stage(RDLObjective(teacher, {"fc": "fc"}), epochs=2), train, evaluations={"mine": evaluate})
    assert [row["n"] for row in rows] == [58, 58]


# -- what is left behind -----------------------------------------------------------------------------------------


def random_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize("as_dataset", [False, True])
def test_global_random_state_is_untouched(make_net, teacher, train, validation, fit, as_dataset):
    torch.manual_seed(123)
    student = make_net(0)
    before = random_states()
    task = TensorDataset(train.images, train.labels) if as_dataset else train
    objective = RDLObjective(teacher, {"fc": "fc"}, pairs=10)
    trainer = Trainer(student, Stage(objective, epochs=2), batch_size=16, accelerator="cpu")
    for _ in trainer.fit(task, validation=validation):
        assert random_states() == before, "between epochs too"
    assert random_states() == before


def test_modes_hooks_and_gradients_flags_are_put_back(student, teacher, train, validation, fit):
    student.train()
    student.conv1[1].eval()
    student.readout.bias.requires_grad_(False)
    modes = {name: module.training for name, module in student.named_modules()}
    flags = {name: p.requires_grad for name, p in student.named_parameters()}
    frozen = student.readout.bias.clone()

    def check():
        assert {name: module.training for name, module in student.named_modules()} == modes
        assert {name: p.requires_grad for name, p in student.named_parameters()} == flags
        assert all(not m._forward_hooks and not m._forward_pre_hooks for m in student.modules())

    rdl = RDLObjective(teacher, {"pool1": "pool1"})
    fit(student, [Stage(rdl, task_weight=0), Stage()], train, validation=validation)
    check()
    assert torch.equal(student.readout.bias, frozen), "what its owner froze stays frozen"

    def fail(network, epoch):
        raise RuntimeError("my evaluation")

    with pytest.raises(RuntimeError, match="my evaluation"):
        fit(student, Stage(rdl, task_weight=0), train, evaluations={"fail": fail})
    check()
    for _ in Trainer(student, Stage(rdl, epochs=3), batch_size=16, accelerator="cpu").fit(train):
        break
    check()


# -- streams and networks that differ ------------------------------------------------------------------------------


class Known:
    """A source that knows a part of the stimuli: dissimilarities looked up by id."""

    names, dissimilarity = ("it",), "correlation"

    def __init__(self, ids):
        self.rows = {s: k for k, s in enumerate(ids)}
        self.rdm = torch.rand(len(ids), len(ids), generator=torch.Generator().manual_seed(9))
        self.asked = []

    def covers(self, ids):
        return {"it": torch.tensor([s in self.rows for s in ids], dtype=torch.bool)}

    def targets(self, stimuli, pairs):
        from brainrdl.stimuli import Targets

        self.asked += stimuli.ids
        rows = torch.tensor([self.rows[s] for s in stimuli.ids])
        i, j = rows[pairs.i], rows[pairs.j]
        return {"it": Targets(self.rdm[torch.minimum(i, j), torch.maximum(i, j)])}


def draw_more(n_stimuli, prefix):
    images = torch.rand(n_stimuli, 1, 8, 8, generator=torch.Generator().manual_seed(n_stimuli))
    return Stimuli(images, tuple(f"{prefix}/{k}" for k in range(n_stimuli)))


def test_an_objective_of_the_stimulus_stream_beside_the_task(student, train, fit, snapshot, moved_parts):
    measured = draw_more(40, "measured")
    source = Known(measured.ids)
    objective = RDLObjective(source, {"pool2": "it"}, discrepancy="correlation", stream="stimuli")
    rows = fit(student, Stage(objective, epochs=3), train, measured)
    assert {"task", "rdl/pool2", "train_error"} <= rows[0].keys()
    # One batch is looked at twice before. Then 3 epochs of 4 steps are 4 passes over the stimuli of 3 batches each.
    asked = source.asked[2 * 16 :]
    assert len(asked) == 4 * 40
    passes = [asked[start : start + 40] for start in range(0, 160, 40)]
    assert all(sorted(one) == sorted(measured.ids) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_the_stimulus_stream_alone(student, fit, snapshot, moved_parts):
    measured = draw_more(20, "measured")
    objective = RDLObjective(Known(measured.ids), {"pool2": "it"}, discrepancy="correlation", stream="stimuli")
    before = snapshot(student)
    rows = fit(student, Stage(objective, task_weight=0, epochs=40), None, measured)
    assert moved_parts(before, snapshot(student)) == {"conv1", "conv2"}
    assert rows[-1]["rdl/pool2"] < 0.8 * rows[0]["rdl/pool2"]


def test_stimuli_nobody_reads_are_not_shown(student, train, fit, make_net, snapshot, assert_equal_states):
    other = make_net(0)
    fit(student, Stage(), train)
    fit(other, Stage(), train, draw_more(20, "measured"))
    assert_equal_states(snapshot(student), snapshot(other))


def small_cnn(n_classes):
    from brainrdl.models import MnistCNN

    return MnistCNN(image_size=12, features=(4, 6), kernel_size=3, pools=(2, 2), n_hidden=8, n_classes=n_classes)


@pytest.mark.parametrize("student_is", ["resnet", "cnn"])
def test_architectures_may_differ(fit, student_is):
    """Other depth, layer names, widths, input size and colour: the same call (ResNet-18 and the paper's network)."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    networks = {"resnet": resnet18(num_classes=3), "cnn": small_cnn(3)}
    preprocess = {"resnet": Preprocessing(size=(32, 32), channels=3, mean=[0.5] * 3), "cnn": Preprocessing(channels=1)}
    layers = {"resnet": ["layer1", "avgpool"], "cnn": ["pool1", "fc"]}
    teacher_is = "cnn" if student_is == "resnet" else "resnet"
    images = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    stimuli = Stimuli(images, tuple(map(str, range(16))), torch.arange(16) % 3)
    teacher = NetworkTeacher(networks[teacher_is], layers[teacher_is], preprocess=preprocess[teacher_is])
    mapping = dict(zip(layers[student_is], layers[teacher_is], strict=True))
    student = networks[student_is]
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    of_teacher = {name: value.clone() for name, value in networks[teacher_is].state_dict().items()}
    objective = RDLObjective(teacher, mapping, pairs=20, discrepancy="correlation")
    stage = Stage(objective, epochs=2)
    rows = fit(student, stage, stimuli, validation=stimuli, batch_size=8, preprocess=preprocess[student_is])
    assert set(rows[0]) >= {f"rdl/{layer}" for layer in layers[student_is]}
    assert all(not torch.equal(before[name], p) for name, p in student.named_parameters())
    assert all(torch.equal(of_teacher[name], value) for name, value in networks[teacher_is].state_dict().items())
