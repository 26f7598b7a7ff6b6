"""The module of a step: student, recorded layers and objectives behind one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from brainrdl.layers import Patterns, evaluating, record_layers
from brainrdl.objectives.base import Objective, Stage, at_least_float32
from brainrdl.randomness import Draw
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli

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
    apart, known after `prepare_objectives`. stimulus_norm: as in `Trainer`.
    """

    def __init__(
        self,
        student: nn.Module,
        preprocess: Callable[[Tensor], Tensor] | None,
        objectives: tuple[Objective, ...],
        patterns: Patterns,
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

    def train(self, mode: bool = True) -> StageModule:
        """As of any module; running statistics of idle parts must not move."""
        super().train(mode)
        for part in self.idle:
            part.eval()
        return self

    def forward(self, task: Stimuli | None, stimuli: Stimuli | None, draw: Draw) -> dict[str, Tensor]:
        """The terms of one step, those of each objective under its own names."""
        terms: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for shown in self._show(self._laid_out(task), self._laid_out(stimuli)):
            if shown.stream == "task" and self.with_task:
                terms.update(_task_terms(shown.output, shown.batch))
            for k, objective in enumerate(self._objectives):
                if objective.stream == shown.stream:
                    new = objective(shown.patterns, shown.batch, draw)
                    self.objective_of.update(dict.fromkeys(new, k))
                    self.stream_of.update(dict.fromkeys(new, shown.stream))
                    if terms.keys() & new.keys():
                        raise ValueError(
                            f"two objectives give a term '{sorted(terms.keys() & new.keys())[0]}'; "
                            "map each student layer in one objective of a kind"
                        )
                    terms.update(new)
                    counts.update({N_PAIRS + name: n for name, n in getattr(objective, "n_measured", {}).items()})
        return {**terms, **counts}

    def run_student(self, batch: Stimuli) -> tuple[Tensor, _Recorded]:
        """The student's output and what its recorded layers gave."""
        return self._run(self._preprocessed(batch))

    def _show(self, task: Stimuli | None, stimuli: Stimuli | None) -> list[_Shown]:
        """The student's answer to what there is of both: in one forward where that makes no difference, else in two."""
        norms = [part for part in self.student.modules() if part.training and _keeps_statistics(part)]
        if task is None or stimuli is None:
            stream, batch = ("stimuli", stimuli) if task is None else ("task", task)
            assert batch is not None
            fixed = norms if stream == "stimuli" and self.stimulus_norm == "eval" else []
            with _in_eval_mode(fixed):
                return [_Shown(stream, batch, *self.run_student(batch))]
        of_task, of_stimuli = self._preprocessed(task), self._preprocessed(stimuli)
        if not norms and of_task.shape[1:] == of_stimuli.shape[1:]:
            n_task, n_images = len(of_task), len(of_task) + len(of_stimuli)
            output, patterns = self._run(torch.cat([of_task, of_stimuli]))
            of_output = output[:n_task] if self.with_task else output  # which may be no tensor
            return [
                _Shown("task", task, of_output, patterns.of_rows(slice(n_task), n_images)),
                _Shown("stimuli", stimuli, output, patterns.of_rows(slice(n_task, None), n_images)),
            ]
        shown = _Shown("task", task, *self._run(of_task))
        with _in_eval_mode([] if self.stimulus_norm == "train" else norms):
            return [shown, _Shown("stimuli", stimuli, *self._run(of_stimuli))]

    def _laid_out(self, batch: Stimuli | None) -> Stimuli | None:
        """The batch, its images in the memory format; every objective is given the same tensor."""
        if batch is None or batch.images.is_contiguous(memory_format=self.memory_format):
            return batch
        return batch._replace(images=batch.images.contiguous(memory_format=self.memory_format))

    def _preprocessed(self, batch: Stimuli) -> Tensor:
        return batch.images if self.preprocess is None else self.preprocess(batch.images)

    def _run(self, images: Tensor) -> tuple[Tensor, _Recorded]:
        self._patterns.clear()  # what a compiled student would not record must be missed, not taken from the last batch
        output = self.run(images)
        return output, _Recorded(self._patterns)


class _Shown(NamedTuple):
    """A batch and what the student made of it."""

    stream: str
    batch: Stimuli
    output: Tensor
    patterns: Mapping[str, Tensor]


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
    own = {parameter.data_ptr() for parameter in student.parameters()}
    for objective in stage.objectives:
        teacher = getattr(objective, "teacher", None)
        if isinstance(teacher, NetworkTeacher) and own & {p.data_ptr() for p in teacher.network.parameters()}:
            raise ValueError("student and teacher share weights, so the teacher would change; give the teacher a copy")
    layers = dict.fromkeys(layer for objective in stage.objectives for layer in objective.layers)
    with record_layers(student, layers) as patterns:
        assert isinstance(patterns, Patterns)
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
            for objective in concerned:
                with torch.no_grad():
                    objective.prepare(patterns, batch)


def check_task(output: object, batch: Stimuli) -> int:
    """How many classes the student's output tells apart. Raises ValueError where it or the batch has no task."""
    if batch.labels is None:
        raise ValueError("the task needs labels; these stimuli have none (set task_weight=0 to train without)")
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the task needs class scores (n_stimuli, n_classes) from the student; it gives {shape}")
    return output.shape[1]


def check_classes(largest_label: int, n_classes: int) -> None:
    """Raise ValueError where the student has fewer outputs than the labels need."""
    if largest_label >= n_classes:
        raise ValueError(f"label {largest_label} is outside the student's {n_classes} outputs; widen its last layer")


def loss_of(terms: Mapping[str, Tensor], module: StageModule, task_weight: float, alphas: Sequence[float]) -> Tensor:
    """task_weight · task + Σ_k alpha_k · Σ (terms of objective k)."""
    loss = task_weight * terms[TASK] if TASK in terms else torch.zeros((), device=next(iter(terms.values())).device)
    for name, term in terms.items():
        if name in module.objective_of:
            loss = loss + alphas[module.objective_of[name]] * term
    return loss


def unused_parameters(module: StageModule, task: Stimuli | None, stimuli: Stimuli | None) -> list[nn.Parameter]:
    """The trainable parameters that no loss term depends on: layers after a hint, say."""
    modes = {part: part.training for part in module.modules()}
    module.eval()  # running statistics must not move
    try:
        terms = module(task, stimuli, Draw(0))
    finally:
        for part, mode in modes.items():
            part.training = mode
    total = torch.stack([term for name, term in terms.items() if is_loss(name)]).sum()
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not total.requires_grad:
        return trainable
    gradients = torch.autograd.grad(total, trainable, allow_unused=True)
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
