"""What lets networks grow: reduced patterns, batches in parts, activations computed again; alone and together."""

import copy
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from brainrdl.experiment import RunOptions, run_experiment
from brainrdl.experiment_file import load_experiment
from brainrdl.layers import record_layers
from brainrdl.objectives import RDLObjective, Stage, sgd
from brainrdl.randomness import Draw, torch_seeded
from brainrdl.ranks import Share
from brainrdl.reductions import Reducer, Reduction
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Stimuli
from brainrdl.training import Trainer
from brainrdl.training.parts import split_batches
from brainrdl.training.recomputation import recomputed
from brainrdl.training.stage import stage_module

CONVOLUTIONS = ["conv1", "conv2"]


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.2), nn.Linear(2 * width, width))

    def forward(self, tokens):
        normed = self.norm1(tokens)
        tokens = tokens + self.attend(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.norm2(tokens))


class Transformer(nn.Module):
    """Of images of 8 × 8 pixels, in patches of 2 × 2; as a ViT, with dropout."""

    def __init__(self, width=8, n_blocks=2, n_classes=3, recompute=False):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.blocks = nn.ModuleList(Block(width) for _ in range(n_blocks))
        self.readout = nn.Linear(width, n_classes)
        self.recompute = recompute

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if self.recompute else block(tokens)
        return self.readout(tokens.mean(1))


def transformer(seed=0, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Transformer(**arguments)


@pytest.fixture
def of_tokens():
    return NetworkTeacher(transformer(1, width=12), ["patches", "blocks.0", "blocks.1"])


REDUCED = {"conv1": Reduction(pool=2), "conv2": Reduction(project=20), "fc": Reduction(units=5)}
LAYERS = {"conv1": "pool1", "conv2": "pool2", "fc": "fc"}
TOKENS = {"patches": Reduction(pool=2), "blocks.0": Reduction(project=20), "blocks.1": Reduction(pool=1)}


def assert_alike(one, other, rel=1e-5):
    """Rows of two histories, text left out."""
    assert one.keys() == other.keys()
    numbers = [name for name, value in one.items() if not isinstance(value, str)]
    assert [one[name] for name in numbers] == pytest.approx([other[name] for name in numbers], rel=rel, abs=1e-5)


def even(stimuli):
    return stimuli.subset(torch.arange(48))


# Reduced patterns in a training


@pytest.mark.parametrize("task_weight", [0, 1])
def test_reduced_layers_pull(make_net, teacher, train, fit, snapshot, moved_parts, task_weight):
    student = make_net(0)
    before = snapshot(student)
    objective = RDLObjective(teacher, LAYERS, pairs=40, reductions=REDUCED, discrepancy="correlation")
    rows = fit(student, Stage(objective, epochs=8, task_weight=task_weight, optimizer=sgd(0.1)), train)
    assert {"conv1", "conv2", "fc"} <= moved_parts(before, snapshot(student))
    assert all(rows[-1][f"rdl/{layer}"] < rows[0][f"rdl/{layer}"] for layer in LAYERS)


def test_each_objective_is_given_its_own(make_net, teacher, train, fit):
    """The same layer whole, pooled and projected, beside each other."""
    shapes = {}

    class Looks(RDLObjective):
        def forward(self, patterns, stimuli, draw=None):
            shapes.setdefault(self.name, patterns["conv1"].shape[1:])
            return {f"{self.name}/{term}": value for term, value in super().forward(patterns, stimuli, draw).items()}

    objectives = []
    for name, reductions in (("a", None), ("b", Reduction(pool=2)), ("c", Reduction(project=9)), ("d", None)):
        objective = Looks(
            teacher, {"conv1": "pool1"}, reductions=reductions and {"conv1": reductions}, discrepancy="correlation"
        )
        objective.name = name
        objectives.append(objective)
    fit(make_net(0), Stage(objectives), train)
    assert shapes == {"a": (3, 8, 8), "b": (3, 2, 2), "c": (9,), "d": (3, 8, 8)}


def test_a_projection_is_the_same_after_going_on(
    make_net, teacher, train, fit, snapshot, tmp_path, assert_equal_states
):
    states = []
    for stops in (False, True):
        student = make_net(0)
        stage = Stage(RDLObjective(teacher, LAYERS, pairs=40, reductions=REDUCED, discrepancy="correlation"), epochs=2)
        place = tmp_path / f"{stops}.pt"
        if stops:
            next(Trainer(student, stage, batch_size=16, accelerator="cpu", checkpoint=place).fit(train))
            student = make_net(5)
            stage = Stage(
                RDLObjective(teacher, LAYERS, pairs=40, reductions=REDUCED, discrepancy="correlation"), epochs=2
            )
        fit(student, stage, train, resume=stops, checkpoint=place)
        states.append(snapshot(student))
    assert_equal_states(*states)


# A batch in parts


@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_a_batch_in_parts_is_the_batch(make_net, train, fit, snapshot, accumulate):
    """Where no image sees another: no batch norm, no dropout. The last batch has 2 of 16 images."""
    states, histories = [], []
    for n_parts in (1, accumulate):
        student = make_net(0, norm=nn.Identity, dropout=0)
        stage = Stage(epochs=2, optimizer=sgd(0.1))
        histories.append(fit(student, stage, train, accumulate=n_parts, clip=1.0))
        states.append(snapshot(student))
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)
    for one, other in zip(*histories, strict=True):
        assert_alike(one, other)


def test_parts_against_a_loop_by_hand(make_net, teacher, train, fit, snapshot):
    """Pairs are drawn within a part, of which `pairs` speaks; terms count as the part's images do."""
    even_train, alpha, rate = even(train), 0.7, 0.05
    student, by_hand = make_net(0, dropout=0), make_net(0, dropout=0)
    settings = {"pairs": 8, "reductions": {"conv1": Reduction(project=20)}}
    layers = {"conv1": "pool1", "pool2": "pool2"}
    fit(
        student,
        Stage(RDLObjective(teacher, layers, **settings), alpha, optimizer=sgd(rate, momentum=0)),
        even_train,
        accumulate=3,
        seed=4,
    )
    objective = RDLObjective(teacher, layers, **settings)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=rate)
    order = Draw(4).generator("order").permutation(48)
    by_hand.train()
    with record_layers(by_hand, objective.layers, objective.reductions) as patterns:
        for step in range(3):
            batch = even_train.subset(torch.from_numpy(order[16 * step : 16 * (step + 1)]))
            optimizer.zero_grad()
            for part, rows in enumerate((slice(0, 5), slice(5, 10), slice(10, 16))):
                images = batch.subset(torch.arange(16)[rows])
                task = functional.cross_entropy(by_hand(images.images), images.labels)
                # 8 pairs of the first part's 5 images; of 6 as many, which are not fewer.
                terms = objective(patterns, images, Draw(4, step=step, part=part))
                (len(images.ids) / 16 * (task + alpha * sum(terms.values()))).backward()
            optimizer.step()
    for name, value in snapshot(by_hand).items():
        torch.testing.assert_close(snapshot(student)[name], value, rtol=1e-5, atol=1e-6)


def test_brain_data_beside_a_task_in_parts(make_net, teacher, train, fit, snapshot):
    """Both streams are parted; the history is of all images."""
    shown = Stimuli(
        torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(2)), tuple("abcdefghijklmnopqrstuvwx")
    )
    rows, states = [], []
    for accumulate in (1, 2):
        student = make_net(0, norm=nn.Identity, dropout=0)
        stage = Stage(Whole(teacher, {"fc": "fc"}, stream="stimuli"), epochs=1, optimizer=sgd(0.1))
        (row,) = fit(student, stage, even(train), shown, stimulus_batch_size=12, accumulate=accumulate)
        rows.append(row)
        states.append(snapshot(student))
    assert_alike(*rows)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-6)


class Whole(RDLObjective):
    """A term that is the mean over images, as the task's is: parts make no difference."""

    def forward(self, patterns, stimuli, draw=None):
        return {"rdl/fc": patterns["fc"].square().mean()}


def test_what_was_begun_in_parts_goes_on_in_as_many(
    make_net, teacher, train, fit, snapshot, tmp_path, assert_equal_states
):
    stage = Stage(RDLObjective(teacher, {"fc": "fc"}, pairs=9), epochs=2)
    whole, stopped, gone_on = make_net(0), make_net(0), make_net(3)
    fit(whole, stage, train, accumulate=2)
    settings = {"batch_size": 16, "accelerator": "cpu", "checkpoint": tmp_path / "last.pt"}
    next(Trainer(stopped, stage, accumulate=2, **settings).fit(train))
    with pytest.raises(ValueError, match=r"another training: accumulate: 2 before, 4 now"):
        fit(gone_on, stage, train, resume=True, accumulate=4, **settings)
    fit(gone_on, stage, train, resume=True, accumulate=2, **settings)
    assert_equal_states(snapshot(whole), snapshot(gone_on))


@pytest.mark.parametrize("n_processes", [1, 2, 3])
@pytest.mark.parametrize(("n_task", "n_stimuli"), [(16, None), (17, 9), (5, 3), (None, 20), (2, None), (23, 31)])
def test_parts_are_the_whole_batch_in_every_process(n_processes, n_task, n_stimuli):
    if n_processes * 3 > min(n for n in (n_task, n_stimuli) if n is not None):
        n_task, n_stimuli = n_task and n_task + 6, n_stimuli and n_stimuli + 6
    of_processes = []
    for rank in range(n_processes):
        batches = [None if n is None else share_of(n, rank, n_processes) for n in (n_task, n_stimuli)]
        parts = split_batches(*batches, 4, Draw(1, step=2, rank=rank))
        assert [part.draw.part for part in parts] == list(range(len(parts)))
        assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
        for k, whole in enumerate(batches):
            if whole is not None:
                assert sum((part.batches[k].ids for part in parts), ()) == whole.ids
                assert torch.equal(torch.cat([part.batches[k].images for part in parts]), whole.images)
                assert torch.equal(torch.cat([part.batches[k].labels for part in parts]), whole.labels)
                assert min(len(part.batches[k].ids) for part in parts) >= (2, 3)[k]
        of_processes.append(parts)
    assert len({len(parts) for parts in of_processes}) == 1
    if len(of_processes[0]) > 1:
        for stream, k in (("task", 0), ("stimuli", 1)):
            if (n_task, n_stimuli)[k] is not None:
                fractions = [[part.fractions[stream] for part in parts] for parts in of_processes]
                assert all(one == fractions[0] for one in fractions)
                assert sum(fractions[0]) == pytest.approx(1)
                for number, of_part in enumerate(zip(*of_processes, strict=True)):
                    ids = [part.batches[k].ids for part in of_part]
                    if n_processes > 1:  # together they are the part's batch, in its order
                        whole = of_part[0].batches[k].share
                        assert all(whole.ids[rank::n_processes] == own for rank, own in enumerate(ids))
                        weights = [part.batches[k].share.weight for part in of_part]
                        assert sum(weights) == pytest.approx(n_processes)
                    n = sum(map(len, ids))
                    assert fractions[0][number] == pytest.approx(n / (n_task, n_stimuli)[k])


def share_of(n_images, rank, n_processes):
    names = tuple(str(k) for k in range(100, 100 + n_images))
    rows = torch.arange(n_images)[rank::n_processes]
    images = torch.arange(float(n_images))[:, None, None, None][rows]
    share = None if n_processes == 1 else Share(names, torch.arange(n_images).numpy(), rank, n_processes)
    return Stimuli(images, names[rank::n_processes], rows, share)


def test_one_part_is_the_batch_itself(train):
    (part,) = split_batches(train, None, 1, Draw(0))
    assert part.task is train
    assert part.fractions == {}


def test_the_first_part_draws_as_the_batch_does():
    draws = [Draw(3, 1, 2).torch_seed("network"), *(Draw(3, 1, 2, part=k).torch_seed("network") for k in range(3))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 0}, "accumulate: expected at least 1 part"),
        ({"accumulate": 9}, "2 of each batch_size in a part of a process, got 9 parts of 16 in 1 process; lower"),
        ({"accumulate": 4, "stimulus_batch_size": 10}, "3 of each stimulus_batch_size .* got 4 parts of 10"),
        ({"checkpoint_activations": ["conv9"]}, "layer 'conv9' is not in the network; did you mean 'conv"),
    ],
)
def test_what_is_refused(make_net, train, fit, settings, message):
    with pytest.raises(ValueError, match=message):
        fit(make_net(0), Stage(), train, **settings)


# Activations that are computed again


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_computed_again_is_bit_by_bit_the_same(
    make_net, teacher, train, validation, fit, snapshot, assert_equal_states, precision
):
    """With dropout and batch norm, layers recorded inside, and patterns reduced there."""
    layers, reductions = {"conv1.0": "pool1", **LAYERS}, {"conv1.0": Reduction(project=9), **REDUCED}
    states, histories = [], []
    for parts in ([], [*CONVOLUTIONS, "fc", "norm", "dropout"]):
        student = make_net(0)
        stage = Stage(
            RDLObjective(teacher, layers, pairs=40, reductions=reductions, discrepancy="correlation"), epochs=2
        )
        histories.append(
            fit(student, stage, train, validation=validation, checkpoint_activations=parts, precision=precision)
        )
        states.append(snapshot(student))
    assert_equal_states(*states)
    assert histories[0] == histories[1]


def test_several_gradients_of_one_forward_that_is_computed_again(make_net, train):
    """With batch norm and dropout; each is that of a network which keeps everything."""
    gradients = []
    for parts in ([], [*CONVOLUTIONS, "dropout"]):
        network = make_net(0)
        with recomputed(network, parts), torch_seeded(3):
            output = network(train.images)
            weights = list(network.parameters())
            both = [torch.autograd.grad(output[:, k].sum(), weights, retain_graph=True) for k in (0, 1)]
        gradients.append([gradient for one in both for gradient in one])
    assert len(gradients[0]) == len(gradients[1]) and any(gradient.any() for gradient in gradients[1])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_brain_data_whose_batch_norm_stays_as_it_is(make_net, teacher, train, fit, snapshot, assert_equal_states):
    """The mode of the forward, not that of the backward, is the one that counts."""
    shown = train.subset(torch.arange(24))._replace(labels=None)
    states = []
    for parts in ([], CONVOLUTIONS):
        student = make_net(0)
        stage = Stage(RDLObjective(teacher, {"conv2": "pool2"}, pairs=9, stream="stimuli"))
        fit(student, stage, even(train), shown, stimulus_batch_size=8, checkpoint_activations=parts)
        states.append(snapshot(student))
    assert_equal_states(*states)


class Counting(nn.Linear):
    """Its forward replaces a buffer, of integers, on which it depends."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        self.register_buffer("n_forwards", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs):
        self.n_forwards = self.n_forwards + 1
        return super().forward(inputs * self.n_forwards).tanh()


@pytest.mark.parametrize("make_part", [lambda *size: spectral_norm(nn.Linear(*size)), Counting])
def test_a_part_that_depends_on_its_buffers(make_part):
    """Spectral norm takes one step of a power iteration in each forward."""
    gradients = []
    for parts in ([], ["0"]):
        torch.manual_seed(0)
        network = nn.Sequential(make_part(4, 4), nn.Linear(4, 2))
        with recomputed(network, parts):
            for _ in range(2):
                network(torch.ones(3, 4)).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()] + list(network.buffers()))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_network_is_as_before(make_net):
    network = make_net(0)
    own = network.conv1.forward
    network.__dict__["own"] = None
    network.conv2.__dict__["forward"] = other = network.conv2.forward
    with pytest.raises(ZeroDivisionError), recomputed(network, CONVOLUTIONS):
        assert network.conv1.forward != own
        raise ZeroDivisionError
    assert network.conv1.forward == own
    assert "forward" not in network.conv1.__dict__
    assert network.conv2.__dict__["forward"] is other


def test_a_copy_has_its_own_weights(make_net):
    network, images = make_net(0).eval(), torch.rand(4, 1, 8, 8)
    with recomputed(network, CONVOLUTIONS):
        twin = copy.deepcopy(network)
        nn.init.zeros_(twin.conv2[0].weight)
        assert not torch.equal(twin(images), network(images))
    twin_after = make_net(0).eval()
    nn.init.zeros_(twin_after.conv2[0].weight)
    torch.testing.assert_close(twin(images), twin_after(images))


def test_a_network_that_computes_again_by_itself(of_tokens, train, fit, snapshot, assert_equal_states):
    states = []
    for recompute in (False, True):
        student = transformer(0, recompute=recompute)
        layers = {"patches": "patches", "blocks.0": "blocks.0", "blocks.1.mlp": "blocks.1"}
        fit(student, Stage(RDLObjective(of_tokens, layers, pairs=20)), train)
        states.append(snapshot(student))
    assert_equal_states(*states)


def test_timms_own_way(train, fit, snapshot, assert_equal_states):
    timm = pytest.importorskip("timm")
    states = []
    for own in (False, True):
        torch.manual_seed(0)
        arguments = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "num_heads": 2, "num_classes": 3}
        student = timm.models.vision_transformer.VisionTransformer(depth=2, **arguments)
        student.set_grad_checkpointing(own)
        objective = RDLObjective(
            NetworkTeacher(transformer(1), ["blocks.0"]),
            {"blocks.0": "blocks.0", "blocks.1.mlp": "blocks.0"},
            reductions={"blocks.0": Reduction(pool=1)},
            discrepancy="correlation",
        )
        fit(student, Stage(objective, optimizer=sgd(0.01)), even(train))
        states.append(snapshot(student))
    assert_equal_states(*states)


# Memory


def kept_bytes(student, stage, images):
    """Bytes of the distinct storages that a training step keeps between its forward and its backward."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with stage_module(student, stage) as module:
        module.train()
        for step in range(3):
            kept.clear()
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                terms = module(images, None, Draw(0, step=step))
            assert not any(module._patterns)  # nothing is held but by autograd
            sum(value for name, value in terms.items() if name != "n_wrong").backward()
    return sum(kept.values())


class Maps(nn.Module):
    """A ResNet's beginning, wide enough that its patterns are what counts."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.relu = nn.ReLU(inplace=True)
        self.narrow = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.readout = nn.Linear(32, 3)

    def forward(self, images):
        maps = self.stem(images)
        maps = self.relu(maps + self.block(maps))
        return self.readout(self.narrow(maps).relu().mean((2, 3)))


WAYS = {
    "whole": {},  # where the network keeps the tensor itself; what `narrow` gives it does not
    "pooled": dict.fromkeys(("stem", "relu", "narrow"), Reduction(pool=2)),
    "projected": dict.fromkeys(("stem", "relu", "narrow"), Reduction(project=64)),
    "some units": dict.fromkeys(("stem", "relu", "narrow"), Reduction(units=64)),
}
MEMORY = Stimuli(torch.rand(32, 1, 24, 24), tuple(map(str, range(32))), torch.arange(32) % 3)


@pytest.fixture
def as_if_large(monkeypatch):
    """Dissimilarities of few units are computed plainly, which keeps something; here they stand for many."""
    for module in ("pair_distances", "dissimilarity"):
        monkeypatch.setattr(f"brainrdl.{module}.SMALL", 0)


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dissimilarity", ["euclidean", "correlation"])
@pytest.mark.parametrize("way", WAYS)
def test_a_convolutional_network_keeps_no_more_with_rdl(way, dissimilarity, precision):
    torch.manual_seed(0)
    teacher = NetworkTeacher(Maps(), ["stem", "relu", "narrow"], dissimilarity)
    objective = RDLObjective(
        teacher,
        {name: name for name in teacher.names if way != "whole" or name != "narrow"},
        dissimilarity=dissimilarity,
        reductions=WAYS[way],
        discrepancy="correlation",
    )
    for layout in (torch.contiguous_format, torch.channels_last):
        images = MEMORY._replace(images=MEMORY.images.to(memory_format=layout))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            students = [Maps().to(memory_format=layout) for _ in range(2)]
            plain = kept_bytes(students[0], Stage(), images)
            with_rdl = kept_bytes(students[1], Stage(objective), images)
        assert with_rdl <= 1.05 * plain


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize("way", ["whole", "pooled", "projected", "some units"])
def test_a_transformer_keeps_no_more_with_rdl(way):
    images = Stimuli(torch.rand(64, 1, 8, 8), tuple(map(str, range(64))), torch.arange(64) % 3)
    ways = {"whole": None, "pooled": {"pool": 1}, "projected": {"project": 64}, "some units": {"units": 64}}
    layers = ["patches", "blocks.0"] if way == "whole" else ["blocks.0", "blocks.1.mlp", "blocks.1"]
    teacher = NetworkTeacher(transformer(1, width=32), layers)
    reductions = {} if ways[way] is None else dict.fromkeys(layers, Reduction(**ways[way]))
    objective = RDLObjective(
        teacher, dict(zip(layers, layers, strict=True)), reductions=reductions, discrepancy="correlation"
    )
    plain, student = transformer(0, width=32), transformer(0, width=32)
    assert kept_bytes(student, Stage(objective), images) <= 1.05 * kept_bytes(plain, Stage(), images)


def test_parts_that_are_computed_again_keep_less():
    kept = []
    for parts in ([], ["stem", "block"]):
        student = Maps()
        with recomputed(student, parts):
            kept.append(kept_bytes(student, Stage(), MEMORY))
    assert kept[1] < 0.6 * kept[0]


# All of it together, also compiled


@pytest.fixture
def tracing_only(monkeypatch):
    """All of torch.compile but the making of machine code."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


EVERYTHING = {
    "reduced": {},
    "in parts": {"accumulate": 2},
    "computed again": {"checkpoint_activations": True},
    "bf16": {"precision": "bf16-mixed"},
    "everything": {"accumulate": 2, "checkpoint_activations": True, "precision": "bf16-mixed"},
}


def assert_compiled_is_the_same(make, stage, parts, settings, train, fit, snapshot):
    settings = {**settings, "checkpoint_activations": parts if settings.get("checkpoint_activations") else ()}
    plain, compiled = make(), make()
    before = snapshot(plain)
    histories = [
        fit(student, stage, even(train), compile=student is compiled, **settings) for student in (plain, compiled)
    ]
    assert_alike(histories[0][-1], histories[1][-1], rel=1e-3)
    assert any(not torch.equal(before[name], value) for name, value in snapshot(plain).items())
    tolerance = {"rtol": 1e-2, "atol": 1e-3} if "precision" in settings else {"rtol": 1e-4, "atol": 1e-5}
    for name, value in snapshot(plain).items():
        torch.testing.assert_close(snapshot(compiled)[name], value, **tolerance)


@pytest.mark.parametrize("settings", EVERYTHING.values(), ids=EVERYTHING)
def test_a_compiled_convolutional_network(tracing_only, make_net, teacher, train, fit, snapshot, settings):
    stage = Stage(
        RDLObjective(teacher, LAYERS, pairs=20, reductions=REDUCED, discrepancy="correlation"), optimizer=sgd(0.05)
    )
    make = partial(make_net, 0, dropout=0)
    assert_compiled_is_the_same(make, stage, [*CONVOLUTIONS, "fc"], settings, train, fit, snapshot)


@pytest.mark.parametrize("settings", EVERYTHING.values(), ids=EVERYTHING)
def test_a_compiled_transformer(tracing_only, of_tokens, train, fit, snapshot, settings):
    objective = RDLObjective(
        of_tokens, {layer: layer for layer in TOKENS}, pairs=20, reductions=TOKENS, discrepancy="correlation"
    )

    def make():
        student = transformer(0)
        for block in student.blocks:
            block.mlp[2].p = 0.0  # compiled, dropout draws other numbers
        return student

    stage = Stage(objective, optimizer=sgd(0.05))
    assert_compiled_is_the_same(make, stage, ["blocks.0", "blocks.1"], settings, train, fit, snapshot)


def test_reductions_are_compiled_without_having_been_run(tracing_only, make_net):
    torch.compiler.reset()
    network, images = make_net(0).eval(), torch.rand(5, 1, 8, 8)
    reductions = {layer: Reducer(layer, way, "correlation") for layer, way in REDUCED.items() if layer != "fc"}
    with record_layers(network, reductions, reductions) as patterns:
        torch.compile(network)(images)
        compiled = dict(patterns)
        network(images)
        for layer, value in compiled.items():
            torch.testing.assert_close(value, patterns[layer], rtol=1e-4, atol=1e-6)


def test_machine_code_keeps_no_more_with_recording():
    """The copies that hooks make under torch.compile are taken out where the tensor is kept anyway."""
    if not any(map(shutil.which, ("g++", "clang++", "cl"))):
        pytest.skip("torch.compile needs a C++ compiler; there is none")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(inplace=True), nn.Linear(256, 3)
    )
    inputs, kept = torch.rand(100, 64), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    found = []
    for layers in ([], ["1", "3"]):
        torch.compiler.reset()
        with record_layers(network, layers) as patterns:
            compiled = torch.compile(lambda images: network(images))
            compiled(inputs).sum().backward()
            kept.clear()
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                compiled(inputs)
            recorded = dict(patterns)
            kept.update({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in recorded.values()})
            network(inputs)
            for layer, value in recorded.items():
                torch.testing.assert_close(value, patterns[layer], rtol=1e-4, atol=1e-6)
        found.append(sum(kept.values()))
    assert found[1] <= 1.05 * found[0]


def test_in_half_precision_images_are_those_that_were_cached(make_net, train, fit):
    """The network computes in bfloat16; what it and the teacher are shown is as it was given."""
    shown = []

    class Looks(RDLObjective):
        def forward(self, patterns, stimuli, draw=None):
            shown.append(stimuli.images)
            return super().forward(patterns, stimuli, draw)

    teacher = NetworkTeacher(make_net(1), ["pool1"], cache="memory")
    stage = Stage(Looks(teacher, {"pool1": "pool1"}), epochs=2)
    rows = fit(make_net(0), stage, even(train), precision="bf16-mixed")
    assert rows[1]["rdl/pool1"] > 0
    given = set(train.images.flatten(1).sum(1).tolist())
    assert all(set(images.flatten(1).sum(1).tolist()) <= given for images in shown)


# In two processes

SCRIPT = """
import importlib.util, sys
from pathlib import Path

import torch
import yaml
from torch import nn

from brainrdl.objectives import RDLObjective, Stage, sgd
from brainrdl.reductions import Reduction
from brainrdl.sources import NetworkTeacher
from brainrdl.training import Trainer
from brainrdl.training.devices import make_fabric

here, *files = sys.argv[1:]
parts = []
for name, file in zip(("conftest", "test_big_networks"), files):
    spec = importlib.util.spec_from_file_location(name, file)
    parts.append(importlib.util.module_from_spec(spec))
    spec.loader.exec_module(parts[-1])
tools, tests = parts
torch.set_num_threads(1)


def make_net(seed, **arguments):
    torch.manual_seed(seed)
    return tools.Net(**arguments)


fabric = make_fabric("cpu", devices=2)
result = tests.trained_in_parts(make_net, tools.draw_stimuli(50, seed=1).subset(torch.arange(47)), fabric=fabric)
if fabric.global_rank == 0:
    torch.save(result, Path(here) / "result.pt")
"""


def trained_in_parts(make_net, train, **settings):
    """The task alone, and RDL with pairs across ranks: weights and history."""
    result = {}
    for name in ("baseline", "rdl"):
        student = make_net(0, norm=nn.Identity, dropout=0)
        teacher = NetworkTeacher(make_net(1, norm=nn.Identity, dropout=0, n_hidden=10), ["pool1", "pool2", "fc"])
        objective = RDLObjective(
            teacher,
            {"conv1": "pool1", "fc": "fc"},
            pairs=12,
            across_ranks=True,
            reductions={"conv1": Reduction(project=20)},
        )
        stage = Stage(objective if name == "rdl" else None, optimizer=sgd(0.1))
        parts = {"accumulate": 2, "checkpoint_activations": CONVOLUTIONS}
        trainer = Trainer(student, stage, batch_size=16, **parts, **settings)
        history = [record.history for record in trainer.fit(train)]
        result[name] = {"state": student.state_dict(), "history": history}
    return result


def test_parts_in_two_processes(make_net, train, tmp_path):
    """The whole batch's gradient, with 47 images in batches of 16, half of each at a time in either process."""
    file, here = tmp_path / "script.py", Path(__file__)
    file.write_text(SCRIPT)
    command = [sys.executable, file, tmp_path, here.with_name("conftest.py"), here]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    in_two = torch.load(tmp_path / "result.pt", weights_only=True)
    alone = trained_in_parts(make_net, train.subset(torch.arange(47)), accelerator="cpu")
    for name, one in alone.items():
        for weight, value in one["state"].items():
            torch.testing.assert_close(in_two[name]["state"][weight], value, rtol=1e-4, atol=1e-5)
        assert_alike(one["history"][-1], in_two[name]["history"][-1], rel=1e-4)


# In a file


def test_an_experiments_file_says_all_of_it(tmp_path, monkeypatch):
    network = {
        "network": "mnist_cnn",
        "arguments": {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [4, 8]},
    }
    training = {"epochs": 1, "batch_size": 20}
    rdl = {
        "layers": {"pool1": "pool1", "fc": "fc"},
        "reduce": {"pool1": {"pool": 2}, "fc": {"project": 30, "seed": 2}},
        "discrepancy": "correlation",
        "training": {"accumulate": 2, "checkpoint_activations": ["conv1", "conv2"]},
    }
    file = tmp_path / "grown.yaml"
    experiment = {
        "name": "grown",
        "data": {"spec": "digits", "train": 60, "validation": 20, "test": 20},
        "student": network,
        "teacher": {**network, "training": training},
        "training": training,
        "methods": {"rdl": rdl},
        "analysis": {"layers": ["fc"], "n_per_class": 2},
    }
    file.write_text(yaml.safe_dump(experiment))
    trainers = []

    class Spied(Trainer):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            trainers.append(self)

    monkeypatch.setattr("brainrdl.experiment.task.Trainer", Spied)
    run_experiment(load_experiment(file), tmp_path / "run", RunOptions(accelerator="cpu"))
    of_teacher, of_student = trainers
    assert (of_teacher.accumulate, of_teacher.checkpoint_activations) == (1, ())
    assert (of_student.accumulate, of_student.checkpoint_activations) == (2, ("conv1", "conv2"))
    (objective,) = of_student.stages[0].objectives
    ways = {layer: reducer.reduction for layer, reducer in objective.reductions.items()}
    assert ways == {"pool1": Reduction(pool=2), "fc": Reduction(project=30, seed=2)}
