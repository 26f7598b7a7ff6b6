"""Inside an epoch the program waits for the device only at the stated intervals."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from rsatoolbox.rdm import RDMs
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from brainrdl.objectives import (
    DeepSupervision,
    Distillation,
    Hints,
    LinearCKA,
    RDLObjective,
    RelationalDistillation,
    SimilarityPreserving,
    Stage,
    adamw,
    sgd,
)
from brainrdl.sources import CombinedTeacher, MeasuredPatterns, MeasuredRDMs, NetworkTeacher, PatternTable
from brainrdl.training import Trainer
from brainrdl.training.sums import EpochSums

IDS = tuple(f"1/{k}" for k in range(50))  # of the fixture `train`
LAYERS = {"pool1": "pool1", "fc": "fc"}
COMBINED = {"fc": {"seen/fc": 1.0, "mean": 0.5}}

# What hands numbers of a tensor to the program, or needs them to know the shape of its result.
_METHODS = "item tolist numpy cpu __bool__ __int__ __float__ __index__ __contains__ nonzero unique masked_select equal"
_FUNCTIONS = "nonzero argwhere unique unique_consecutive masked_select equal allclose bincount histc"
WAITING = {f"torch.Tensor.{name}" for name in _METHODS.split()}
WAITING |= {f"torch.{part}{name}" for name in _FUNCTIONS.split() for part in ("", "functional.")}


class Watch(TorchFunctionMode):
    """Follows some tensors, and all that is made of them, and notes where the program reads one.

    They say that they are not on the processor, so that what is done for a device is done. Of copies only `.cpu()`
    and `.to("cpu")` are noticed, not `.to(device)`.
    """

    def __init__(self, tensors):
        super().__init__()
        self.storages, self.reads, self.paused = {}, [], False
        self.follow(tensors)

    def follow(self, tensors):
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.storages[storage.data_ptr()] = storage  # kept, so that nothing else gets its place

    def is_followed(self, tensor):
        return tensor.untyped_storage().data_ptr() in self.storages

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function == Tensor.is_cpu.__get__:
            return not self.is_followed(args[0])
        followed = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and self.is_followed(t)]
        if followed and not self.paused and self.waits(resolve_name(function), args, kwargs):
            self.reads.append(resolve_name(function))
        result = function(*args, **kwargs)
        if followed:
            self.follow(t for t in tree_leaves(result) if isinstance(t, Tensor))
        return result

    def waits(self, name, args, kwargs):
        if name == "torch.Tensor.__getitem__":
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            return any(isinstance(p, Tensor) and p.dtype == torch.bool and self.is_followed(p) for p in parts)
        if name == "torch.Tensor.to":
            return "cpu" in (*args[1:2], kwargs.get("device")) and self.is_followed(args[0])
        return name in WAITING

    @contextmanager
    def pause(self):
        self.paused = True
        try:
            yield
        finally:
            self.paused = False


@pytest.fixture
def watched(monkeypatch):
    """`watched(student, stage, task, ...)`: train, and what of the device was read inside the epochs' steps."""

    def run(student, stage, task, stimuli=None, **settings):
        reads = []
        epoch = Trainer._run_epoch

        def run_epoch(trainer, *arguments):
            given = [part for data in (task, stimuli) if data is not None for part in data if isinstance(part, Tensor)]
            with Watch([*given, *trainer.student.parameters(), *trainer.student.buffers()]) as watch:
                for name in ("look", "check_weights", "means"):
                    monkeypatch.setattr(EpochSums, name, unwatched(watch, original[name]))
                record = epoch(trainer, *arguments)
            reads.extend(watch.reads)
            return record

        original = {name: getattr(EpochSums, name) for name in ("look", "check_weights", "means")}
        monkeypatch.setattr(Trainer, "_run_epoch", run_epoch)
        list(Trainer(student, stage, accelerator="cpu", batch_size=16, **settings).fit(task, stimuli))
        return reads

    return run


def unwatched(watch, function):
    def run(*arguments):
        with watch.pause():
            return function(*arguments)

    return run


def first(n, stimuli):
    """Whole batches of 16: a rest of two images has too few measured pairs."""
    return stimuli.subset(torch.arange(n))


def measured_rdms():
    values = np.random.default_rng(0).random((2, 50 * 49 // 2))
    values[0, ::7] = np.nan
    names = {"roi": ["pool1", "fc"]}
    return MeasuredRDMs(RDMs(values, "correlation", rdm_descriptors=names, pattern_descriptors={"stimulus": list(IDS)}))


def measured_patterns(dissimilarity="correlation"):
    values = np.random.default_rng(0).standard_normal((150, 20))
    fold = np.repeat([0, 1, 2], 50).tolist()
    return MeasuredPatterns({name: PatternTable(values, IDS * 3, fold) for name in LAYERS}, dissimilarity)


def combined(teacher):
    seen = NetworkTeacher(teacher.network, ["fc"], "correlation")
    return CombinedTeacher({"seen": seen, "measured": measured_rdms()}, {"mean": {"seen/fc": 1.0, "measured/fc": 0.5}})


OBJECTIVES = {
    "rdl, pairs": lambda t: RDLObjective(t, LAYERS, pairs=30),
    "rdl, images": lambda t: RDLObjective(t, LAYERS, images=6, dissimilarity="euclidean"),
    "rdl, all pairs": lambda t: RDLObjective(t, LAYERS, discrepancy="corr_cov"),
    "rdl, scaled": lambda t: RDLObjective(t, LAYERS, pairs=30, dissimilarity="cosine", discrepancy="scaled_mse"),
    "rdl, measured rdms": lambda t: RDLObjective(measured_rdms(), LAYERS, pairs=30, dissimilarity="correlation"),
    "rdl, measured patterns": lambda t: RDLObjective(measured_patterns(), LAYERS, pairs=30),
    "rdl, crossnobis": lambda t: RDLObjective(measured_patterns("crossnobis"), LAYERS, discrepancy="cosine_cov"),
    "rdl, combined": lambda t: RDLObjective(combined(t), COMBINED, pairs=30),
    "deep supervision": lambda t: DeepSupervision(["pool1", "pool2"]),
    "hints": lambda t: Hints(t, {"pool2": "pool2"}),
    "distillation": lambda t: Distillation(t),
    "rkd": lambda t: RelationalDistillation(t, {"pool2": "pool2"}),
    "similarity preserving": lambda t: SimilarityPreserving(t, {"pool1": "pool2"}),
    "cka": lambda t: LinearCKA(t, LAYERS),
    "unbiased cka": lambda t: LinearCKA(t, LAYERS, unbiased=True),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_reads_nothing_of_the_device(student, teacher, train, watched, name):
    stage = Stage(OBJECTIVES[name](teacher), 0.1, epochs=2, optimizer=sgd(0.05))
    assert watched(student, stage, first(48, train), clip=1.0) == []


def test_a_step_of_the_task_alone(student, train, watched):
    flip = lambda images, generator: images.flip(-1)  # noqa: E731
    assert watched(student, Stage(epochs=2, optimizer=adamw(0.01)), train, augment=flip) == []


def test_a_stream_of_stimuli(student, teacher, train, watched):
    objective = RDLObjective(measured_rdms(), LAYERS, pairs=30, stream="stimuli")
    stimuli = first(48, train)._replace(labels=None)
    assert watched(student, Stage(objective, 0.1, epochs=2), train, stimuli) == []


class Reading(torch.nn.Module):
    """An objective that reads its term in some way."""

    layers, stream = ("fc",), "task"

    def __init__(self, read):
        super().__init__()
        self.read = read

    def prepare(self, patterns, stimuli):
        pass

    def forward(self, patterns, stimuli, draw=None):
        self.read(patterns["fc"])
        return {"reading/fc": patterns["fc"].square().mean()}


@pytest.mark.parametrize(
    "read",
    [
        lambda p: p.mean().item(),
        lambda p: float(p.mean()),
        lambda p: bool((p > 0).any()),
        lambda p: p.detach().cpu(),
        lambda p: p.to("cpu"),
        lambda p: p[p > 0],
        lambda p: (p > 0).nonzero(),
        lambda p: torch.unique(p),
        lambda p: p.detach().tolist(),
    ],
)
def test_this_test_notices(student, train, watched, read):
    assert len(watched(student, Stage(Reading(read), 0.1), train)) == 4  # one a step, with the last of two images


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that could be waited for")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_on_a_gpu(make_net, teacher, train, monkeypatch, name):
    """torch itself refuses to wait inside the steps."""
    stage = Stage(OBJECTIVES[name](teacher), 0.1, epochs=2, optimizer=sgd(0.05))
    epoch = Trainer._run_epoch

    def run_epoch(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return epoch(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def allowed(function):
        def run(*arguments):
            torch.cuda.set_sync_debug_mode("default")
            try:
                return function(*arguments)
            finally:
                torch.cuda.set_sync_debug_mode("error")

        return run

    monkeypatch.setattr(Trainer, "_run_epoch", run_epoch)
    for method in ("look", "check_weights", "means"):
        monkeypatch.setattr(EpochSums, method, allowed(getattr(EpochSums, method)))
    records = list(Trainer(make_net(0), stage, accelerator="cuda", batch_size=16, clip=1.0).fit(first(48, train)))
    assert len(records) == 2
