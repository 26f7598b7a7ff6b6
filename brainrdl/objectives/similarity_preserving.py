"""Similarity-preserving distillation: the same stimuli alike for student and teacher (Tung & Mori 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from brainrdl.dissimilarity import inner_products
from brainrdl.objectives.base import Stage
from brainrdl.objectives.mapped import MappedObjective, MappedSettings
from brainrdl.objectives.method import MethodContext


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||G_S - G_T||² / n², a scalar; each row of G is one of the inner products X Xᵀ, divided by its length.

    student, teacher: (n_stimuli, n_units), each with its own n_units. The row of a zero pattern, which is similar
    to nothing, stays zero and has no gradient. Source: Tung & Mori (2019).
    """
    return (_similarities(student) - _similarities(teacher)).square().mean()


def _similarities(patterns: Tensor) -> Tensor:
    products = inner_products(patterns)
    is_zero = (products.detach() == 0).all(1, keepdim=True)
    length = torch.linalg.vector_norm(torch.where(is_zero, 1, products), dim=1, keepdim=True)
    return torch.where(is_zero, 0, products / length)


class SimilarityPreserving(MappedObjective):
    """The mean squared difference between the similarities of a batch's stimuli in a student and a teacher layer.

    Similarities are inner products of patterns that are not centred, each stimulus's divided by their length
    (Tung & Mori 2019; their alpha is 3000).

    teacher: a network. layers: student layer (module path) -> teacher layer.

    A call returns {"similarity_preserving/<student layer>": term}; `similarity_loss` is its equation. All pairs of a
    batch take part, and each stimulus with itself. A zero pattern is similar to nothing. Raises ValueError for layers
    the teacher does not record.
    """

    name = "similarity_preserving"

    def compare(self, student: Tensor, teacher: Tensor) -> Mapping[str, Tensor]:
        """The one term of a layer."""
        return {"": similarity_loss(student, teacher)}


class SimilarityPreservingSettings(MappedSettings):
    """The task and, with weight alpha, the teacher's similarities of every two stimuli (3000 in the article)."""

    method: Literal["similarity_preserving"] = "similarity_preserving"

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage."""
        return [context.stage(SimilarityPreserving(context.teacher("euclidean"), self.layers), self.alpha_schedule())]
