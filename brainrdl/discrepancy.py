"""Discrepancies between predicted and target dissimilarities, over the measured pairs.

`mse` compares units, `scaled_mse` does so after fitting the scale of the prediction; the others compare shape: one
minus a similarity, each the cosine between two vectors of dissimilarities after centring (`correlation`, `corr_cov`)
and whitening (`cosine_cov`, `corr_cov`). Their names are rsatoolbox's.
"""

from __future__ import annotations

from typing import NamedTuple

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
    """How far the predicted dissimilarities are from the target, a scalar >= 0.

    name: one of `DISCREPANCIES`. predicted: (n_pairs,); where the target's weight is 0 its value does not
    matter and it gets no gradient. pairs, n_stimuli: which stimuli the pairs share, for the whitened ones.

    `mse`: Σ w (d - t)² / Σ w. `scaled_mse`: Σ w (s d - t)² / Σ w, s >= 0 the scale that fits best, so in the target's
    units, whatever the size of d. Both are 0 where nothing was measured. The others: 1 - similarity, in 0…2; 1 and
    without gradient where the similarity is not defined (nothing measured, or no variance over the pairs).
    """
    values, weights = target
    predicted = torch.where(weights > 0, predicted, 0)
    values, weights = values.to(predicted.dtype), weights.to(predicted.dtype)
    if name == "mse":
        return (weights * (predicted - values).square()).sum() / _nonzero(weights.sum())
    if name == "scaled_mse":
        return _scaled_mse(predicted, values, weights)
    # Neither the size of the dissimilarities nor that of the weights matters: made 1, their squares cannot overflow.
    weights = weights / _nonzero(weights.sum())
    raw = torch.stack([predicted, values])  # (2, n_pairs)
    raw = raw / _nonzero(raw.detach().abs().sum(1, keepdim=True))
    root = weights.sqrt()
    # Centring a constant leaves rounding errors, which are no shape.
    noise = torch.finfo(raw.dtype).eps * (root * raw.detach().abs()).sum(1)
    if name in ("correlation", "corr_cov"):
        raw = raw - (weights * raw).sum(1, keepdim=True)
    vectors = root * raw
    has_shape = (vectors.square().sum(1).sqrt() > noise).all()
    vectors = torch.where(has_shape, vectors, torch.ones_like(vectors))
    whitened = _whiten(vectors, weights > 0, pairs, n_stimuli) if name.endswith("_cov") else vectors
    # Sums and not a matrix product, which autocast would round to half precision.
    squared_norms = (vectors * whitened).sum(1)  # (2,)
    cosine = (vectors[0] * whitened[1]).sum() / squared_norms.prod().sqrt()
    return 1 - torch.where(has_shape, cosine, 0)


def _scaled_mse(predicted: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Σ w (s d - t)² / Σ w with s = max(0, Σ w d t / Σ w d²), the least-squares scale.

    s carries no gradient and needs none: it minimises the loss, whose derivative by s is therefore 0 (or s is 0 all
    around), so that this is the whole gradient. The loss does not know the size of d, hence the gradient is orthogonal
    to d: it neither draws the prediction towards 0 nor away from it. (A scale fitted to t instead would have d = 0 as
    its minimum.) Where d and t point apart (Σ w d t <= 0) s is 0 and nothing is learnt from the batch.
    """
    weights = weights / _nonzero(weights.sum())
    shape = predicted / _nonzero(predicted.detach().abs().sum())  # its square cannot overflow
    fixed = shape.detach()
    scale = (weights * fixed * values).sum() / _nonzero((weights * fixed.square()).sum())
    return (weights * (scale.clamp(min=0) * shape - values).square()).sum()


def _nonzero(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, 1)


def _whiten(vectors: Tensor, taking_part: Tensor, pairs: Pairs, n_stimuli: int) -> Tensor:
    """V⁻¹ v for each row v, V the covariance of dissimilarity estimates as in rsatoolbox (identity noise).

    V has 4 on its diagonal and 1 where two pairs share a stimulus. With A the (n_pairs, n_stimuli) matrix
    that marks each pair's two stimuli, V = 2 I + A Aᵀ, so that V⁻¹ = (I - A (2 I + Aᵀ A)⁻¹ Aᵀ) / 2: a system
    of n_stimuli equations instead of n_pairs. Pairs that take no part have empty rows in A.
    """
    i, j = pairs
    # The system is small and its condition number grows with the number of stimuli: float64 where there is one.
    v = vectors if vectors.device.type == "mps" else vectors.double()
    marks = taking_part.to(v.dtype)
    shared = v.new_zeros(n_stimuli * n_stimuli).index_add_(0, i * n_stimuli + j, marks).view(n_stimuli, n_stimuli)
    shared = shared + shared.T
    shared = shared + torch.diag(shared.sum(1) + 2)  # 2 I + Aᵀ A
    masked = v * marks
    per_stimulus = v.new_zeros(len(v), n_stimuli).index_add(1, i, masked).index_add(1, j, masked)
    solved: Tensor = torch.linalg.solve(shared, per_stimulus.T).T  # (n_vectors, n_stimuli)
    return ((v - marks * (solved[:, i] + solved[:, j])) / 2).to(vectors.dtype)
