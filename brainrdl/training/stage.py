"""The module of a step: student, recorded layers and objectives behind one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from brainrdl.layers import Patterns, evaluating, record_layers
from brainrdl.models.checks import are_probabilities
from brainrdl.notes import warn_result
from brainrdl.objectives.base import Objective, Stage, at_least_float32
from brainrdl.randomness import Draw
from brainrdl.stimuli import Stimuli
from brainrdl.training.guards import check_apart, check_gradients, check_student_patterns

TASK, N_WRONG, N_PAIRS = "task", "n_wrong", "n_pairs/"


def is_loss(name: str) -> bool:
    """Whether what a stage's forward gives under this name is a loss term, and no count."""
    return name != N_WRONG and not name.startswith(N_PAIRS)


class StageModule(nn.Module):
    """What Fabric, DDP and torch.compile see of a stage: one module whose forward returns named loss terms.

    `forward(task, stimuli, draw)` gives "task" (cross-entropy, averaged), "n_wrong" (a count, no gradient), the
    objectives' terms and, as "n_pairs/<term>", how many measured pairs are behind those of a measured teacher (counts).
    Made by `stage_module`, which sets the hooks once.

    objective_of: term -> which objective gave it; stream_of: term -> the stream it comes from; known after a forward.
    run: what is called for the student, itself or a compiled version of it. memory_format: of the images it is given.
    idle: parts of it that the stage does not train, which stay in eval mode. n_classes: how many the student tells
    apart, known after `prepare_objectives`. stimulus_norm: as in `Trainer`. without_gradient: where it is a list, a
    forward adds (objective, layer) of the patterns that no gradient goes through.
    """

    def __init__(
        self,
        student: nn.Module,
        preprocess: Callable[[Tensor], Tensor] | None,
        objectives: tuple[Objective, ...],
        patterns: Sequence[Patterns],
        with_task: bool,
        stimulus_norm: str | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.preprocess = preprocess
        self.objectives = nn.ModuleList(o for o in objectives if isinstance(o, nn.Module))
        self._objectives = objectives
        self._patterns = patterns
        self.with_task = with_task
        self.stimulus_norm = stimulus_norm
        self.objective_of: dict[str, int] = {}
        self.stream_of: dict[str, str] = {TASK: "task", N_WRONG: "task"}
        self.run: Callable[[Tensor], Any] = student.__call__
        self.memory_format = torch.contiguous_format
        self.idle: list[nn.Module] = []
        self.n_classes = 0
        self.without_gradient: list[tuple[int, str]] | None = None

    def train(self, mode: bool = True) -> StageModule:
        """As of any module; running statistics of idle parts must not move."""
        super().train(mode)
        for part in self.idle:
            part.eval()
        return self

    def forward(
        self, task: Stimuli | Batches | None, stimuli: Stimuli | None = None, draw: Draw | None = None
    ) -> dict[str, Tensor]:
        """The terms of one step, those of each objective under its own names. task: or all three."""
        if isinstance(task, Batches):
            return self.forward(*task.held)
        terms: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for shown in self._show(self._laid_out(task), self._laid_out(stimuli)):
            if shown.stream == "task" and self.with_task:
                terms.update(_task_terms(shown.output, shown.batch))
            for k, objective in enumerate(self._objectives):
                if objective.stream == shown.stream:
                    if self.without_gradient is not None:
                        seen = shown.patterns[k]
                        self.without_gradient += [
                            (k, layer) for layer in objective.layers if not seen[layer].requires_grad
                        ]
                    new = objective(shown.patterns[k], shown.batch, draw)
                    self.objective_of.update(dict.fromkeys(new, k))
                    self.stream_of.update(dict.fromkeys(new, shown.stream))
                    if terms.keys() & new.keys():
                        raise ValueError(
                            f"two objectives give a term '{sorted(terms.keys() & new.keys())[0]}'; "
                            "map each student layer in one objective of a kind"
                        )
                    terms.update(new)
                    counts.update({N_PAIRS + name: n for name, n in getattr(objective, "n_measured", {}).items()})
        for patterns in self._patterns:
            patterns.clear()  # the backward keeps what it needs, and lets go of it when it is done
        return {**terms, **counts}

    def run_student(self, batch: Stimuli) -> tuple[Tensor, list[_Recorded]]:
        """The student's output and, for each objective, what its layers gave."""
        return self._run(self._preprocessed(batch))

    def _show(self, task: Stimuli | None, stimuli: Stimuli | None) -> list[_Shown]:
        """The student's answer to what there is of both: in one forward where that makes no difference, else in two."""
        if stimuli is None:
            assert task is not None
            return [_Shown("task", task, *self.run_student(task))]
        norms = [part for part in self.student.modules() if part.training and _keeps_statistics(part)]
        if task is None:
            with _in_eval_mode(norms if self.stimulus_norm == "eval" else []):
                return [_Shown("stimuli", stimuli, *self.run_student(stimuli))]
        of_task, of_stimuli = self._preprocessed(task), self._preprocessed(stimuli)
        if not norms and of_task.shape[1:] == of_stimuli.shape[1:]:
            n_task, n_images = len(of_task), len(of_task) + len(of_stimuli)
            output, patterns = self._run(torch.cat([of_task, of_stimuli]))
            of_output = output[:n_task] if self.with_task else output  # which may be no tensor
            return [
                _Shown("task", task, of_output, [p.of_rows(slice(n_task), n_images) for p in patterns]),
                _Shown("stimuli", stimuli, output, [p.of_rows(slice(n_task, None), n_images) for p in patterns]),
            ]
        shown = _Shown("task", task, *self._run(of_task))
        with _in_eval_mode([] if self.stimulus_norm == "train" else norms):
            return [shown, _Shown("stimuli", stimuli, *self._run(of_stimuli))]

    def _laid_out(self, batch: Stimuli | None) -> Stimuli | None:
        """The batch, its images in memory format and type of the weights; all objectives are given the same tensor."""
        if batch is None:
            return None
        dtype = next((p.dtype for p in self.student.parameters() if p.is_floating_point()), batch.images.dtype)
        if batch.images.dtype == dtype and batch.images.is_contiguous(memory_format=self.memory_format):
            return batch
        return batch._replace(images=batch.images.to(dtype).contiguous(memory_format=self.memory_format))

    def _preprocessed(self, batch: Stimuli) -> Tensor:
        return batch.images if self.preprocess is None else self.preprocess(batch.images)

    def _run(self, images: Tensor) -> tuple[Tensor, list[_Recorded]]:
        for patterns in self._patterns:
            patterns.clear()  # what a compiled student would not record must be missed, not taken from the last batch
        output = self.run(images)
        return output, [_Recorded(patterns) for patterns in self._patterns]


class Batches:
    """A step's batches and draw as one object, which Fabric and DDP hand on as it is.

    In tuples they would look at every id, and round the images where a training is in half precision: a teacher with a
    cache would be shown other images than those that it has patterns of.
    """

    def __init__(self, task: Stimuli | None, stimuli: Stimuli | None, draw: Draw) -> None:
        self.held = task, stimuli, draw


class _Shown(NamedTuple):
    """A batch and what the student made of it. patterns: for each objective, what its layers gave."""

    stream: str
    batch: Stimuli
    output: Tensor
    patterns: Sequence[Mapping[str, Tensor]]


class _Recorded(dict[str, Tensor]):
    """A copy of the recorded patterns, kept when the student runs again; reading a missing layer says so."""

    def __init__(self, patterns: Mapping[str, Tensor]) -> None:
        super().__init__(patterns)
        self._source = patterns

    def __missing__(self, layer: str) -> Tensor:
        return self._source[layer]

    def of_rows(self, rows: slice, n_images: int) -> _Recorded:
        """The patterns of some of the images; what has no row an image stays, for `as_patterns` to refuse."""
        part = _Recorded(self._source)
        part.update({layer: p[rows] if len(p) == n_images else p for layer, p in self.items()})
        return part


def _keeps_statistics(part: nn.Module) -> bool:
    """Whether a batch shown in train mode changes this part, or the images of one batch each other's patterns."""
    return isinstance(part, _BatchNorm) or (isinstance(part, _NormBase) and part.running_mean is not None)


@contextmanager
def _in_eval_mode(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, these parts alone are in eval mode."""
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _task_terms(output: Tensor, batch: Stimuli) -> dict[str, Tensor]:
    assert batch.labels is not None  # `check_task` has looked
    scores = at_least_float32(output)
    wrong = (scores.detach().argmax(1) != batch.labels).sum()
    return {TASK: functional.cross_entropy(scores, batch.labels), N_WRONG: wrong}


@contextmanager
def stage_module(
    student: nn.Module,
    stage: Stage,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    stimulus_norm: str | None = None,
) -> Iterator[StageModule]:
    """The module of a stage, its hooks in place until the block ends.

    Raises ValueError for a layer the student does not have, and for a teacher that shares weights with it.
    """
    check_apart(student, stage)
    with ExitStack() as stack:
        # What is recorded whole is recorded once for all.
        whole = [objective for objective in stage.objectives if not getattr(objective, "reductions", None)]
        layers = dict.fromkeys(layer for objective in whole for layer in objective.layers)
        shared = stack.enter_context(record_layers(student, layers))
        patterns = []
        for objective in stage.objectives:
            reductions = getattr(objective, "reductions", None)
            recorded = record_layers(student, objective.layers, reductions) if reductions else nullcontext(shared)
            patterns.append(stack.enter_context(recorded))
        yield StageModule(student, preprocess, stage.objectives, patterns, stage.task_weight != 0, stimulus_norm)


def prepare_objectives(module: StageModule, task: Stimuli | None, stimuli: Stimuli | None) -> None:
    """Let each objective see the student's patterns of a first batch, in eval mode and without gradient."""
    for name, batch in (("task", task), ("stimuli", stimuli)):
        concerned = [objective for objective in module._objectives if objective.stream == name]
        if batch is None and concerned:
            raise ValueError(f"an objective reads the stream '{name}', but fit was given no such data")
        if batch is not None:
            with evaluating(module.student):
                output, patterns = module.run_student(batch)
            if name == "task" and module.with_task:
                module.n_classes = check_task(output, batch)
            for objective, recorded in zip(module._objectives, patterns, strict=True):
                if objective in concerned:
                    with torch.no_grad():
                        objective.prepare(recorded, batch)
                        check_student_patterns(objective, recorded, batch)


def check_task(output: object, batch: Stimuli) -> int:
    """How many classes the student's output tells apart. Raises ValueError where it or the batch has no task."""
    if batch.labels is None:
        raise ValueError("the task needs labels; these stimuli have none (set task_weight=0 to train without)")
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the task needs class scores (n_stimuli, n_classes) from the student; it gives {shape}")
    if are_probabilities(output):
        warn_result(
            "the student's outputs are probabilities (each image's are 0 or more and sum to 1), and the task's loss "
            "takes their softmax once more; let it give class scores, without a softmax of its own"
        )
    return output.shape[1]


def check_classes(largest_label: int, n_classes: int) -> None:
    """Raise ValueError where the student has fewer outputs than the labels need."""
    if largest_label >= n_classes:
        raise ValueError(f"label {largest_label} is outside the student's {n_classes} outputs; widen its last layer")


def loss_of(
    terms: Mapping[str, Tensor],
    module: StageModule,
    task_weight: float,
    alphas: Sequence[float],
    shares: Mapping[str, float] | None = None,
    fractions: Mapping[str, float] | None = None,
) -> Tensor:
    """task_weight · task + Σ_k alpha_k · Σ (terms of objective k).

    shares: stream -> what this process's means over its share of a batch count, so that the mean over processes is of
    the whole batch (`Share.weight`); 1 unless given, and for terms that are of the whole batch in every process.
    fractions: stream -> how much of a batch these terms are of, where it is worked through in parts; 1 unless given.
    """
    shares, fractions = shares or {}, fractions or {}
    loss = torch.zeros((), device=next(iter(terms.values())).device)
    if TASK in terms:
        loss = task_weight * shares.get("task", 1.0) * fractions.get("task", 1.0) * terms[TASK]
    for name, term in terms.items():
        if name in module.objective_of:
            k = module.objective_of[name]
            of_whole = getattr(module._objectives[k], "across_ranks", False)
            stream = module.stream_of[name]
            weight = alphas[k] * (1.0 if of_whole else shares.get(stream, 1.0)) * fractions.get(stream, 1.0)
            loss = loss + weight * term
    return loss


def shares_of(task: Stimuli | None, stimuli: Stimuli | None) -> dict[str, float]:
    """stream -> `Share.weight` of its batch, where several processes share it."""
    both = {"task": task, "stimuli": stimuli}
    return {stream: b.share.weight for stream, b in both.items() if b is not None and b.share is not None}


def unused_parameters(module: StageModule, task: Stimuli | None, stimuli: Stimuli | None) -> list[nn.Parameter]:
    """The trainable parameters that no loss term depends on: layers after a hint, say.

    Raises ValueError, by term and layer, for an objective's term without a gradient. Warns of one whose gradient
    reaches its objective's own parameters, but none of the student's that others train.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()  # running statistics must not move
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.without_gradient = found = list[tuple[int, str]]()
    try:
        terms = module(task, stimuli, Draw(0))
        total = torch.stack([term for name, term in terms.items() if is_loss(name)]).sum()
        if not total.requires_grad:
            return trainable
        check_gradients(module, terms, found)
        gradients = torch.autograd.grad(total, trainable, allow_unused=True)  # which may run parts again, in this mode
    finally:
        module.without_gradient = None
        for part, mode in modes.items():
            part.training = mode
    return [parameter for parameter, gradient in zip(trainable, gradients, strict=True) if gradient is None]


def trainable_parameters(module: StageModule, stage: Stage) -> list[nn.Parameter]:
    """The parameters of student and objectives that are trained. Raises ValueError where there are none."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            f"stage '{stage.name}' trains nothing: its loss depends on no parameter with requires_grad; unfreeze some"
        )
    return parameters


def alpha_names(module: StageModule, n_objectives: int) -> list[str]:
    """The columns of the alphas: by what the terms of an objective begin with, or by its first where two are alike."""
    if n_objectives == 1:
        return ["alpha"]
    first = [next(name for name, k in module.objective_of.items() if k == index) for index in range(n_objectives)]
    kinds = [name.partition("/")[0] for name in first]
    return [f"alpha/{kind if kinds.count(kind) == 1 else name}" for kind, name in zip(kinds, first, strict=True)]


@contextmanager
def frozen(module: StageModule, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, these parameters need no gradient, and layers that have no others are idle.

    Left in, what no loss term depends on would stop DDP, and weight decay would change it.
    """
    left_out = set(parameters)
    own = {part: set(part.parameters(recurse=False)) for part in module.modules()}
    module.idle = [part for part, of_part in own.items() if of_part and of_part <= left_out]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def copy_weights(student: nn.Module, weights: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Copy into the student what fits by name and shape; return the names that were and were not copied.

    Names are the student's; weights the student has no place for are left out silently. Raises ValueError where
    nothing fits.
    """
    own = student.state_dict()
    fitting = [name for name, value in own.items() if name in weights and weights[name].shape == value.shape]
    if not fitting:
        raise ValueError(
            "none of the given weights fits the student by name and shape, so there is nothing to start from; "
            "finetuning needs a student of the teacher's architecture"
        )
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(weights[name])
    return fitting, [name for name in own if name not in fitting]
