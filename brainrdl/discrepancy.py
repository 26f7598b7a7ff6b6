"""Discrepancies between predicted and target dissimilarities, over the measured pairs.

`mse` compares units, `scaled_mse` does so after fitting the scale of the prediction; the others compare shape: one
minus a similarity, each the cosine between two vectors of dissimilarities after centring (`correlation`, `corr_cov`)
and whitening (`cosine_cov`, `corr_cov`). Their names are rsatoolbox's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from brainrdl.pairs import Pairs

DISCREPANCIES = ("mse", "correlation", "cosine", "corr_cov", "cosine_cov", "scaled_mse")
NORMALIZATIONS = ("image", "pair")
# Through two pairs any two RDMs correlate perfectly: so many measured ones are the least that say anything.
MIN_MEASURED = 3


class Measured(NamedTuple):
    """Targets in which what was not measured is 0 with weight 0, so that it can take part in no sum.

    values: (n_pairs,) finite. weights: (n_pairs,), >= 0.
    """

    values: Tensor
    weights: Tensor


def measured(values: Tensor, weights: Tensor | None = None, excluded: Tensor | None = None) -> Measured:
    """Replace NaN targets, those of weight 0 and `excluded` pairs (bool) before any arithmetic.

    Masking afterwards would give NaN gradients, and results that depend on what stands where nothing was measured.
    """
    missing = values.isnan() if excluded is None else values.isnan() | excluded
    if weights is None:
        weights = torch.ones_like(values)
    else:
        missing = missing | (weights == 0)
    return Measured(values.masked_fill(missing, 0), weights.masked_fill(missing, 0))


def check_discrepancy(name: str, normalization: str | None = None) -> str:
    """Return the normalization in force, or raise ValueError where names are unknown or do not go together.

    `mse` without a normalization takes "image" (Eq. 4); the others know none.
    """
    if name not in DISCREPANCIES:
        raise ValueError(f"unknown discrepancy '{name}'; expected one of {', '.join(DISCREPANCIES)}")
    if normalization is not None and normalization not in NORMALIZATIONS:
        raise ValueError(f"unknown normalization '{normalization}'; expected one of {', '.join(NORMALIZATIONS)}")
    if name != "mse" and normalization == "image":
        raise ValueError(f"normalization 'image' (Eq. 4) is defined for 'mse' alone; leave it out with '{name}'")
    return normalization or ("image" if name == "mse" else "pair")


def discrepancy(name: str, predicted: Tensor, target: Measured, pairs: Pairs, n_stimuli: int) -> Tensor:
    """How far the predicted dissimilarities are from the target, a scalar >= 0, or one for each row.

    name: one of `DISCREPANCIES`. predicted: (n_pairs,), or (n_rows, n_pairs) with targets of the same shape; where the
    target's weight is 0 its value does not matter and it gets no gradient. pairs, n_stimuli: which stimuli the pairs
    share, for the whitened ones. Returns () or (n_rows,).

    `mse`: Σ w (d - t)² / Σ w. `scaled_mse`: Σ w (s d - t)² / Σ w, s >= 0 the scale that fits best, so in the target's
    units, whatever the size of d. Both are 0 where nothing was measured. The others: 1 - similarity, in 0…2; 1 and
    without gradient where the similarity is not defined (nothing measured, or no variance over the pairs).
    """
    result: Tensor = _Discrepancy.apply(predicted, *target, name, pairs, n_stimuli)
    return result


class _Discrepancy(torch.autograd.Function):
    """The discrepancies together with their gradients, which are short formulas: autograd would keep a step for each
    of the many small operations, and start as many more."""

    @staticmethod
    def forward(
        ctx: Any, predicted: Tensor, values: Tensor, weights: Tensor, name: str, pairs: Pairs, n_stimuli: int
    ) -> Tensor:
        shape, dtype = predicted.shape, predicted.dtype
        predicted, values, weights = (torch.atleast_2d(part) for part in (predicted, values, weights))
        taking_part = weights > 0
        predicted, values, weights = torch.where(taking_part, predicted, 0), values.to(dtype), weights.to(dtype)
        # Neither the size of dissimilarities nor that of weights matters: made 1, their squares cannot overflow.
        weights = weights / _nonzero(weights.sum(1, keepdim=True))
        if name == "mse":
            result, gradient = _mse(predicted, values, weights)
        elif name == "scaled_mse":
            result, gradient = _scaled_mse(predicted, values, weights)
        else:
            whiten = (taking_part, pairs, n_stimuli) if name.endswith("_cov") else None
            result, gradient = _one_minus_cosine(predicted, values, weights, name.startswith("corr"), whiten)
        ctx.save_for_backward(gradient.view(shape))
        return result.view(shape[:-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (of_result,) = ctx.saved_tensors
        return of_result * gradient[..., None], None, None, None, None, None


# Each gives the discrepancies (n_rows,) and their gradients (n_rows, n_pairs), from (n_rows, n_pairs) each; what takes
# no part is 0 in all, and weights sum to 1.


def _mse(predicted: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    difference = predicted - values
    weighted = weights * difference
    return (weighted * difference).sum(1), 2 * weighted


def _scaled_mse(predicted: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Σ w (s d - t)² / Σ w with s = max(0, Σ w d t / Σ w d²), the least-squares scale.

    s carries no gradient and needs none: it minimises the loss, whose derivative by s is therefore 0 (or s is 0 all
    around), so that this is the whole gradient. The loss does not know the size of d, hence the gradient is orthogonal
    to d: it neither draws the prediction towards 0 nor away from it. (A scale fitted to t instead would have d = 0 as
    its minimum.) Where d and t point apart (Σ w d t <= 0) s is 0 and nothing is learnt from the batch.
    """
    size = _nonzero(predicted.abs().sum(1, keepdim=True))
    shape = predicted / size
    weighted = weights * shape
    scale = (weighted * values).sum(1, keepdim=True) / _nonzero((weighted * shape).sum(1, keepdim=True))
    scale = scale.clamp(min=0)
    difference = scale * shape - values
    weighted = weights * difference
    return (weighted * difference).sum(1), 2 * scale / size * weighted


def _one_minus_cosine(
    predicted: Tensor, values: Tensor, weights: Tensor, centre: bool, whiten: tuple[Tensor, Pairs, int] | None
) -> tuple[Tensor, Tensor]:
    """1 - aᵀ V⁻¹ b / √(aᵀ V⁻¹ a · bᵀ V⁻¹ b), a and b made of predicted and target; V is the identity, or as `_whiten`.

    Its derivative by a is ((1 - loss) V⁻¹ a / aᵀ V⁻¹ a) - V⁻¹ b / √(…).
    """
    raw = torch.stack([predicted, values])  # (2, n_rows, n_pairs)
    size = raw.abs()
    total = _nonzero(size.sum(2, keepdim=True))
    raw = raw / total
    root = weights.sqrt()
    # Centring a constant leaves rounding errors, which are no shape.
    noise = torch.finfo(raw.dtype).eps * (root * size / total).sum(2)
    if centre:
        raw = raw - (weights * raw).sum(2, keepdim=True)
    vectors = root * raw
    # What is NaN is not shapeless: it must show in the result.
    shapeless = (vectors.square().sum(2).sqrt() <= noise).any(0)  # (n_rows,)
    vectors = vectors.masked_fill(shapeless[:, None], 1)
    whitened = vectors if whiten is None else _whiten(vectors, *whiten)
    # Sums and not a matrix product, which autocast would round to half precision.
    squared_norms = (vectors * whitened).sum(2)  # (2, n_rows)
    norm = squared_norms.prod(0).sqrt()
    cosine = (vectors[0] * whitened[1]).sum(1) / norm
    gradient = whitened[0] * (cosine / squared_norms[0])[:, None] - whitened[1] / norm[:, None]
    gradient = gradient * root
    if centre:
        gradient = gradient - weights * gradient.sum(1, keepdim=True)
    return 1 - cosine.masked_fill(shapeless, 0), (gradient / total[0]).masked_fill(shapeless[:, None], 0)


def _nonzero(total: Tensor) -> Tensor:
    return total.masked_fill(total <= 0, 1)


def _whiten(vectors: Tensor, taking_part: Tensor, pairs: Pairs, n_stimuli: int) -> Tensor:
    """V⁻¹ v for each vector v, V the covariance of dissimilarity estimates as in rsatoolbox (identity noise).

    vectors: (2, n_rows, n_pairs). taking_part: (n_rows, n_pairs).
    V has 4 on its diagonal and 1 where two pairs share a stimulus. With A the (n_pairs, n_stimuli) matrix
    that marks each pair's two stimuli, V = 2 I + A Aᵀ, so that V⁻¹ = (I - A (2 I + Aᵀ A)⁻¹ Aᵀ) / 2: a system
    of n_stimuli equations instead of n_pairs. Pairs that take no part have empty rows in A.
    """
    i, j = pairs
    # The system is small and its condition number grows with the number of stimuli: float64 where there is one.
    v = vectors if vectors.device.type == "mps" else vectors.double()
    marks = taking_part.to(v.dtype)
    shared = v.new_zeros(len(marks), n_stimuli * n_stimuli).index_add_(1, i * n_stimuli + j, marks)
    shared = shared.view(-1, n_stimuli, n_stimuli)
    shared = shared + shared.mT
    shared = shared + torch.diag_embed(shared.sum(2) + 2)  # 2 I + Aᵀ A
    masked = v * marks
    per_stimulus = v.new_zeros(2, len(marks), n_stimuli).index_add_(2, i, masked).index_add_(2, j, masked)
    solved: Tensor = torch.linalg.solve(shared, per_stimulus.permute(1, 2, 0)).permute(2, 0, 1)
    return ((v - marks * (solved[..., i] + solved[..., j])) / 2).to(vectors.dtype)
