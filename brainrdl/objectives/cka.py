"""Linear centred kernel alignment with a teacher's layers (Kornblith et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from brainrdl.dissimilarity import inner_products
from brainrdl.objectives.base import Stage
from brainrdl.objectives.mapped import MappedObjective, MappedSettings, centred
from brainrdl.objectives.method import MethodContext
from brainrdl.sources.network import NetworkTeacher


def linear_cka(student: Tensor, teacher: Tensor, unbiased: bool = False) -> Tensor:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K, L the inner products of the patterns; a scalar, 1 = aligned.

    student, teacher: (n_stimuli, n_units), each with its own n_units. unbiased: with the estimate of HSIC that does
    not grow with n_units / n_stimuli (Song et al. 2012), as Nguyen et al. (2021) for minibatches; it can be below 0.
    Either is a cosine between centred K and L. 0 without gradient where it is not defined: no variance over the
    stimuli, or fewer than 2 of them, 4 if unbiased. Source: Kornblith et al. (2019).
    """
    of_student, of_teacher = (_unit_kernel(patterns, unbiased) for patterns in (student, teacher))
    return (of_student * of_teacher).sum()


def _unit_kernel(patterns: Tensor, unbiased: bool) -> Tensor:
    """The centred kernel, (n_stimuli, n_stimuli), divided by its length; 0 where there is none."""
    kernel = inner_products(centred(patterns))
    size = torch.linalg.vector_norm(kernel.detach())
    if unbiased:
        kernel = _u_centred(kernel)
    # Centring what is equal off the diagonal (equidistant patterns) leaves rounding errors, which are no variance.
    noise = 16 * torch.finfo(kernel.dtype).eps * size
    varies = torch.linalg.vector_norm(kernel.detach()) > noise
    kernel = torch.where(varies, kernel, 1)
    return torch.where(varies, kernel / torch.linalg.vector_norm(kernel), 0)


def _u_centred(kernel: Tensor) -> Tensor:
    """The kernel without its diagonal, centred so that inner products of two such are n (n - 3) times unbiased HSIC."""
    n_stimuli = len(kernel)
    diagonal = torch.eye(n_stimuli, dtype=torch.bool, device=kernel.device)
    if n_stimuli < 4:  # nothing is left then
        return kernel.masked_fill(torch.ones_like(diagonal), 0)
    kernel = kernel.masked_fill(diagonal, 0)
    rows = kernel.sum(1) / (n_stimuli - 2)
    kernel = kernel - rows[:, None] - rows + rows.sum() / (n_stimuli - 1)
    return kernel.masked_fill(diagonal, 0)


class LinearCKA(MappedObjective):
    """1 - linear CKA between a student and a teacher layer (Kornblith et al. 2019), over a whole batch.

    teacher: a network. layers: student layer (module path) -> teacher layer.
    unbiased: with the unbiased estimate of HSIC (Song et al. 2012). The standard one is biased upwards: in a batch of
        fewer stimuli than units any two layers look aligned, so the term is too small.

    A call returns {"cka/<student layer>": term}; `linear_cka` is its equation. It is 1 - the cosine of the centred
    inner products, which takes no notice of orthogonal maps and of one scale for all units; RDL with all pairs,
    `dissimilarity="sqeuclidean"` and `discrepancy="cosine_cov"` is the same where it is not `unbiased`. Without
    variance over the stimuli it is 1, without gradient. Raises ValueError for layers the teacher does not record.
    """

    name = "cka"

    def __init__(self, teacher: NetworkTeacher, layers: Mapping[str, str], *, unbiased: bool = False) -> None:
        super().__init__(teacher, layers)
        self.unbiased = unbiased
        self.min_stimuli = 4 if unbiased else 2

    def compare(self, student: Tensor, teacher: Tensor) -> Mapping[str, Tensor]:
        """The one term of a layer."""
        return {"": 1 - linear_cka(student, teacher, self.unbiased)}


class LinearCKASettings(MappedSettings):
    """The task and, with weight alpha, 1 - linear CKA with the teacher's layers.

    unbiased: with the unbiased estimate of HSIC; the standard one is biased upwards in small batches.
    """

    method: Literal["cka"] = "cka"
    unbiased: bool = False

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage."""
        objective = LinearCKA(context.teacher("euclidean"), self.layers, unbiased=self.unbiased)
        return [context.stage(objective, self.alpha_schedule())]
