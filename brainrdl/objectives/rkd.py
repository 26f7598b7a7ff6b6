"""Relational knowledge distillation: distances between stimuli and angles of triplets (Park et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from brainrdl.dissimilarity import inner_products
from brainrdl.objectives.base import Stage
from brainrdl.objectives.mapped import MappedObjective, MappedSettings, centred
from brainrdl.objectives.method import MethodContext
from brainrdl.sources.network import NetworkTeacher

# So many angles are held at a time.
_MAX_ANGLES = 1 << 20


class _Distances(NamedTuple):
    """Euclidean distances, (n_stimuli, n_stimuli), and their squares; exactly 0, without gradient, where none is."""

    length: Tensor
    squared: Tensor

    @classmethod
    def of(cls, patterns: Tensor) -> _Distances:
        products = inner_products(centred(patterns))
        norms = products.diagonal()
        both = norms[:, None] + norms
        squared = both - 2 * products
        # What rounding leaves between equal patterns is no distance, and the root's slope would be immense.
        apart = squared.detach() > 16 * torch.finfo(squared.dtype).eps * both.detach()
        return cls(torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0), torch.where(apart, squared, 0))


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss (delta 1) between Euclidean distances, each side's divided by its mean over the pairs; a scalar.

    student, teacher: (n_stimuli, n_units), each with its own n_units. The mean over all pairs of stimuli; 0 where there
    are none. Between equal patterns there is no gradient. Source: Park et al. (2019), who print the sum.
    """
    return _distance_loss(_Distances.of(student), _Distances.of(teacher))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss (delta 1) between the cosines of the angles at x_j between x_i and x_k; a scalar.

    student, teacher: (n_stimuli, n_units), each with its own n_units. The mean over all triplets of stimuli, angles
    at a pattern that equals one of the other two left out, which have no cosine; 0 where none is left. Time
    grows with n_stimuli³; a million angles are held in memory at a time. Source: Park et al. (2019), who print the sum.
    """
    return _angle_loss(_Distances.of(student), _Distances.of(teacher))


def _distance_loss(student: _Distances, teacher: _Distances) -> Tensor:
    n_stimuli = len(student.length)
    n_pairs = max(1, n_stimuli * (n_stimuli - 1))  # each in both orders, as the matrices have them
    of_student, of_teacher = (_relative(side.length, n_pairs) for side in (student, teacher))
    return functional.huber_loss(of_student, of_teacher, reduction="sum") / n_pairs


def _relative(length: Tensor, n_pairs: int) -> Tensor:
    mean = length.sum() / n_pairs
    return length / torch.where(mean > 0, mean, 1)


def _angle_loss(student: _Distances, teacher: _Distances) -> Tensor:
    has_angle = (student.length > 0) & (teacher.length > 0)
    n_arms = has_angle.sum(1)  # of each vertex
    n_angles = (n_arms * (n_arms - 1)).sum()
    total = torch.as_tensor(_AllAngles.apply(*student, *teacher, has_angle))
    return total / n_angles.clamp(min=1)


class _AllAngles(torch.autograd.Function):
    """`_angles_at` all vertices, some at a time; a part's gradient is taken at once, so that nothing of it is kept."""

    @staticmethod
    def forward(ctx: Any, length: Tensor, squared: Tensor, *others: Tensor) -> Tensor:
        n_vertices = max(1, _MAX_ANGLES // length.numel())
        total = length.new_zeros(())
        gradients = [torch.zeros_like(length), torch.zeros_like(squared)]
        leaves = [part.detach().requires_grad_(ctx.needs_input_grad[0]) for part in (length, squared)]
        for vertices in torch.arange(len(length), device=length.device).split(n_vertices):
            with torch.enable_grad():
                part = _angles_at(vertices, *leaves, *others)
            total += part.detach()
            if part.requires_grad:
                for sum_, new in zip(gradients, torch.autograd.grad(part, leaves), strict=True):
                    sum_ += new
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_length, of_squared = ctx.saved_tensors
        return gradient * of_length, gradient * of_squared, None, None, None


def _angles_at(
    vertices: Tensor, length: Tensor, squared: Tensor, of_length: Tensor, of_squared: Tensor, has_angle: Tensor
) -> Tensor:
    """The sum of the Huber losses at some vertices; `of_…` is the teacher's."""
    arms = has_angle[vertices]
    counted = arms[:, :, None] & arms[:, None, :]  # (n_vertices, n_stimuli, n_stimuli)
    of_student = _cosines(length[vertices], squared[vertices], squared, arms)
    of_teacher = _cosines(of_length[vertices], of_squared[vertices], of_squared, arms)
    losses = functional.huber_loss(of_student, of_teacher, reduction="none")
    return torch.where(counted, losses, 0).sum()  # an arm with itself adds nothing: its cosine is 1 on both sides


def _cosines(length: Tensor, squared: Tensor, opposite: Tensor, arms: Tensor) -> Tensor:
    """By the law of cosines, which needs no tensor of differences between patterns; 0 arms count as 1."""
    length = torch.where(arms, length, 1)
    return (squared[:, :, None] + squared[:, None, :] - opposite) / (2 * length[:, :, None] * length[:, None, :])


class RelationalDistillation(MappedObjective):
    """Distances between the stimuli of a batch, and angles of its triplets, as in the teacher (RKD; Park et al. 2019).

    teacher: a network. layers: student layer (module path) -> teacher layer.
    distance, angle: weights of the two terms, >= 0; the article's for both together are 1 and 2. A term of weight 0
        is left out.

    A call returns {"rkd/<student layer>/distance": term, "rkd/<student layer>/angle": term}, each with its weight in
    it; `distance_loss` and `angle_loss` are their equations. All pairs and triplets of a batch take part, as means,
    where the article prints sums. Neither term knows the size of the patterns, or a rotation or shift of them. Raises
    ValueError for layers the teacher does not record, and for weights that are not numbers >= 0 or both 0.
    """

    name = "rkd"

    def __init__(
        self, teacher: NetworkTeacher, layers: Mapping[str, str], *, distance: float = 1.0, angle: float = 2.0
    ) -> None:
        super().__init__(teacher, layers)
        _check_weights(distance, angle)
        self.weights = {"distance": distance, "angle": angle}
        self.min_stimuli = 3 if angle else 2

    def compare(self, student: Tensor, teacher: Tensor) -> Mapping[str, Tensor]:
        """The terms of a layer, by name."""
        sides = _Distances.of(student), _Distances.of(teacher)
        losses = {"distance": _distance_loss, "angle": _angle_loss}
        return {f"/{name}": weight * losses[name](*sides) for name, weight in self.weights.items() if weight}


def _check_weights(distance: float, angle: float) -> None:
    for name, weight in (("distance", distance), ("angle", angle)):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"rkd: expected a weight >= 0 for '{name}', got {weight}")
    if not distance and not angle:
        raise ValueError("rkd: the weights of 'distance' and 'angle' are both 0; give one of them")


class RelationalDistillationSettings(MappedSettings):
    """The task and, with weight alpha, the teacher's relative distances and angles.

    distance: weight of the distances between every two stimuli. angle: weight of the angles of every three.
    """

    method: Literal["rkd"] = "rkd"
    distance: float = Field(1.0, ge=0, allow_inf_nan=False)
    angle: float = Field(2.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_weight(self) -> RelationalDistillationSettings:
        _check_weights(self.distance, self.angle)
        return self

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage."""
        teacher = context.teacher("euclidean")
        objective = RelationalDistillation(teacher, self.layers, distance=self.distance, angle=self.angle)
        return [context.stage(objective, self.alpha_schedule())]
