"""What an auxiliary objective is, and the stages a method is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from brainrdl.randomness import Draw
from brainrdl.schedule import Schedule, constant
from brainrdl.stimuli import Stimuli


@runtime_checkable
class Objective(Protocol):
    """An auxiliary term; an `nn.Module`, whose own parameters are trained with the student's.

    layers: the student's layers it must see, by module path; "" is the network's output.
    stream: which batches it reads, "task" or "stimuli": those of the task, or those of the stimuli with brain data.

    More attributes are looked at where an objective has them. reductions: layer -> a function of what the layer gives,
    whose result is recorded in its place. covers: (ids) -> {name: (n_stimuli,) bool}, what its
    teacher has measured; each batch of the stimulus stream is drawn from what one name covers. n_measured: term ->
    number of measured pairs (a tensor, no gradient) of the last call; terms without any are left out of the means.
    """

    layers: tuple[str, ...]
    stream: str

    def prepare(self, patterns: Mapping[str, Tensor], stimuli: Stimuli) -> None:
        """Check the student's patterns of a first, full batch; make parameters of the right width."""
        ...

    def __call__(
        self, patterns: Mapping[str, Tensor], stimuli: Stimuli, draw: Draw | None = None
    ) -> Mapping[str, Tensor]:
        """Named scalar terms, one a layer, each with its weight in it: their sum, times alpha, joins the loss.

        patterns: what the student's layers gave for `stimuli`. draw: where the training is; None in one's own
        loop, where random draws follow `torch.manual_seed`.
        """
        ...


def at_least_float32(values: Tensor) -> Tensor:
    """The values as float32, or as they are where that is float64: losses are not computed in half precision."""
    return values if values.dtype == torch.float64 else values.float()


Optimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


def sgd(lr: float = 0.05, momentum: float = 0.9, weight_decay: float = 0.0, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent, to be made when the parameters are known."""
    return lambda parameters: torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )


def adamw(lr: float = 1e-3, weight_decay: float = 0.01) -> Optimizer:
    """AdamW, to be made when the parameters are known."""
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)


@dataclass(frozen=True)
class Stage:
    """A part of a training with one loss: task_weight · task + Σ_k alpha_k · Σ objective_k's terms.

    objective: none, one or several. alpha: a number or schedule for each of them, or one for all.
    epochs: how many. task_weight: 0 leaves the task out; layers nothing depends on are then not trained.
    optimizer: makes the optimizer from the parameters. learning_rate: what its rate is multiplied by.
    initial_weights: a state dict whose entries are copied into the student, before the stage, where name and
        shape fit. name: for messages and history.csv.
    """

    objective: Objective | Sequence[Objective] | None = None
    alpha: float | Schedule | Sequence[float | Schedule] = 1.0
    epochs: int = 1
    task_weight: float = 1.0
    optimizer: Optimizer = field(default_factory=sgd)
    learning_rate: Schedule = field(default_factory=lambda: constant(1.0))
    initial_weights: Mapping[str, Tensor] | None = None
    name: str = "main"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"stage '{self.name}': expected at least 1 epoch, got {self.epochs}")
        if self.task_weight == 0 and not self.objectives:
            raise ValueError(f"stage '{self.name}' has neither a task nor an objective; give it one of them")
        if isinstance(self.alpha, Sequence) and len(self.alpha) != len(self.objectives):
            raise ValueError(
                f"stage '{self.name}': {len(self.alpha)} alphas for {len(self.objectives)} objectives; give one each"
            )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, none or more."""
        if self.objective is None:
            return ()
        return tuple(self.objective) if isinstance(self.objective, Sequence) else (self.objective,)

    @property
    def alphas(self) -> tuple[Schedule, ...]:
        """One schedule an objective."""
        several = self.alpha if isinstance(self.alpha, Sequence) else [self.alpha] * len(self.objectives)
        return tuple(a if callable(a) else constant(a) for a in several)
