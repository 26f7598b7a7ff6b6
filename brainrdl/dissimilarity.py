"""Differentiable dissimilarities at sampled pairs: a transform of the patterns, then one squared distance.

Every dissimilarity is `scale * ||t(x_i) - t(x_j)||²` with its own transform t, so one kernel with one hand-written
backward (`brainrdl.pair_distances`) serves all. Names and units are rsatoolbox's where it has them (`euclidean`,
`correlation`, `mahalanobis`); `cosine` is scipy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brainrdl.pair_distances import SMALL, RowTransform, squared_distances
from brainrdl.pairs import Pairs, rows_of_pairs
from brainrdl.precision import full_precision


class Transformed(NamedTuple):
    """Patterns, and what makes a squared distance of them.

    patterns: (n_stimuli, n_dimensions). scale: what the squared distance is multiplied by. row_transform: what is done
    to each pattern before; None where nothing is. undefined: (n_stimuli,) bool, patterns that have no such
    dissimilarity; None where all have one.
    """

    patterns: Tensor
    scale: float
    row_transform: RowTransform | None = None
    undefined: Tensor | None = None

    def explicit(self) -> Tensor:
        """(n_stimuli, n_dimensions), the transformed patterns themselves, without the gradient of `row_transform`."""
        if self.row_transform is None:
            return self.patterns
        first, norm, mean = self.row_transform
        return ((self.patterns - first) / norm).sub_(mean)


def sqeuclidean(patterns: Tensor) -> Transformed:
    """Sum over units of the squared difference: the paper's gradient (Eq. 3) to the letter."""
    return Transformed(patterns, 1.0)


def euclidean(patterns: Tensor) -> Transformed:
    """Mean over units of the squared difference, as rsatoolbox's "euclidean" (which is squared)."""
    return Transformed(patterns, 1.0 / patterns.shape[1])


def cosine(patterns: Tensor) -> Transformed:
    """1 - cos(x_i, x_j), as scipy's. A zero pattern has no angle: undefined.

    Half the squared distance between unit vectors is one minus their inner product.
    """
    if not _is_small(patterns):
        return _unit_length(patterns, centred=False)
    return _small_unit_length(patterns.to(precise(patterns)))


def correlation(patterns: Tensor) -> Transformed:
    """1 - r (Pearson over units), as rsatoolbox's "correlation". A constant pattern has none: undefined.

    Subtracting the first unit before the mean makes a constant pattern exactly zero, whatever its size.
    """
    if not _is_small(patterns):
        return _unit_length(patterns, centred=True)
    patterns = patterns.to(precise(patterns))
    shifted = patterns - patterns[:, :1].detach()  # what is the same for all units cancels, and so does its gradient
    return _small_unit_length(shifted - shifted.mean(1, keepdim=True))


def _is_small(patterns: Tensor) -> bool:
    return patterns.is_cpu and patterns.numel() <= SMALL


def _small_unit_length(patterns: Tensor) -> Transformed:
    """x / |x| as it is written; what is small is not worth preparing anything for."""
    norm = torch.linalg.vector_norm(patterns, dim=1, keepdim=True)
    undefined = norm.detach()[:, 0] == 0
    return Transformed(patterns / _divisor(norm), 0.5, None, undefined)


def _divisor(norm: Tensor) -> Tensor:
    """What a pattern is divided by: 1 where it is zero, NaN where its length is more than the type can hold."""
    return norm.masked_fill(norm == 0, 1).masked_fill(norm == torch.inf, torch.nan)


@torch.no_grad()
def _unit_length(patterns: Tensor, centred: bool) -> Transformed:
    """How patterns, after their mean over units is taken away where `centred`, are divided by their length."""
    n_stimuli, n_units = patterns.shape
    first = patterns[:, :1].to(precise(patterns))
    first = first if centred else torch.zeros_like(first)
    mean, norm = torch.zeros_like(first), torch.zeros_like(first)
    # Some rows at a time, which stay in the processor's cache while they are read again.
    size = max(1, _ROWS_BYTES // (first.itemsize * max(1, n_units)))
    for start in range(0, n_stimuli, size):
        rows = slice(start, start + size)
        block = patterns[rows].to(first.dtype)
        if centred:
            block = block - first[rows]
            mean[rows] = block.mean(1, keepdim=True)
            block.sub_(mean[rows])
        norm[rows] = torch.linalg.vector_norm(block, dim=1, keepdim=True)
    undefined = norm[:, 0] == 0
    norm = _divisor(norm)
    return Transformed(patterns, 0.5, RowTransform(first, norm, mean / norm), undefined)


_ROWS_BYTES = 1 << 20


def mahalanobis(patterns: Tensor, factor: Tensor) -> Transformed:
    """(x_i - x_j)ᵀ P (x_i - x_j) / n_units with P = factor factorᵀ, as rsatoolbox's "mahalanobis".

    factor: (n_units, n_units), of the noise precision P; `precision_factor` makes it.
    """
    n_units = patterns.shape[1]
    if factor.shape != (n_units, n_units):
        raise ValueError(
            f"precision has shape {tuple(factor.shape)}; patterns of {n_units} units need ({n_units}, {n_units})"
        )
    patterns = patterns.to(precise(patterns))
    # The common mean cancels in every difference; subtracting it keeps the digits.
    whitened: Tensor = _Product.apply(patterns - patterns.detach().mean(0), factor.to(patterns))
    return Transformed(whitened, 1.0 / n_units)


def precise(patterns: Tensor) -> torch.dtype:
    """What dissimilarities are computed in: float64 for float64 patterns, else float32."""
    return torch.float64 if patterns.dtype == torch.float64 else torch.float32


def precision_factor(precision: Tensor) -> Tensor:
    """Lower triangular L with L Lᵀ = precision, in float64 on the CPU.

    precision: (n_units, n_units), the inverse of a noise covariance. Raises ValueError where it is not
    square, finite, symmetric and positive definite.
    """
    if precision.ndim != 2 or precision.shape[0] != precision.shape[1]:
        raise ValueError(f"expected a square precision matrix, got shape {tuple(precision.shape)}")
    exact = precision.detach().cpu().double()
    if not exact.isfinite().all():
        raise ValueError("precision holds NaN or infinite values; regularise the covariance before inverting it")
    if not torch.allclose(exact, exact.T, rtol=1e-4, atol=1e-6 * float(exact.abs().max())):
        raise ValueError("precision is not symmetric; give the inverse of a covariance matrix")
    factor, failed = torch.linalg.cholesky_ex((exact + exact.T) / 2)
    if failed:
        raise ValueError("precision is not positive definite; regularise the covariance before inverting it")
    return torch.as_tensor(factor)


class PrecisionFactors:
    """`precision_factor` of noise precisions by name, each also as patterns of a type and device need it.

    precision: name -> (n_units, n_units). Raises ValueError as `precision_factor`.
    """

    def __init__(self, precision: Mapping[str, Tensor]) -> None:
        self._exact = {name: precision_factor(matrix) for name, matrix in precision.items()}
        self._ready: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def get(self, name: str, patterns: Tensor) -> Tensor | None:
        """The factor that goes with patterns; None where there is none of the name."""
        if name not in self._exact:
            return None
        key = (name, precise(patterns), patterns.device)
        if key not in self._ready:
            self._ready[key] = self._exact[name].to(patterns.device, key[1])
        return self._ready[key]


DISSIMILARITIES: dict[str, Callable[..., Transformed]] = {
    "euclidean": euclidean,
    "sqeuclidean": sqeuclidean,
    "correlation": correlation,
    "cosine": cosine,
    "mahalanobis": mahalanobis,
}


def check_dissimilarity(name: str, precision: object = None) -> str:
    """Return `name`, or raise ValueError where it is unknown or does not go with `precision`."""
    if name not in DISSIMILARITIES:
        raise ValueError(f"unknown dissimilarity '{name}'; expected one of {', '.join(DISSIMILARITIES)}")
    if (name == "mahalanobis") != (precision is not None):
        raise ValueError(
            "dissimilarity 'mahalanobis' needs a precision matrix"
            if precision is None
            else f"a precision matrix goes with 'mahalanobis', not with '{name}'"
        )
    return name


def pair_dissimilarities(
    patterns: Tensor, pairs: Pairs, dissimilarity: str = "euclidean", precision: Tensor | None = None
) -> Tensor:
    """Dissimilarities between the patterns of the asked pairs, differentiable (Eq. 1, McClure & Kriegeskorte 2016).

    patterns: (n_stimuli, ...), everything after the first dimension counts as units.
    pairs: rows of `patterns`. dissimilarity: a name in `DISSIMILARITIES`. precision: for `mahalanobis`.
    Returns (n_pairs,), float32 (float64 for float64 patterns) also for half precision and under autocast.
    NaN where the measure is not defined: a constant pattern has no correlation, a zero pattern no angle;
    no gradient flows from there. Raises ValueError for an unknown name, a missing or misshapen precision.
    """
    check_dissimilarity(dissimilarity, precision)
    factor = None if precision is None else precision_factor(precision)
    if 8 * len(pairs.i) < len(patterns) and patterns.numel() > SMALL:
        rows, pairs = rows_of_pairs(pairs)
        patterns = patterns.index_select(0, rows)
    transformed = transform_patterns(patterns, dissimilarity, factor)
    return dissimilarities(transformed, pairs)


def transform_patterns(patterns: Tensor, dissimilarity: str, factor: Tensor | None = None) -> Transformed:
    """The patterns as rows, and how their squared distance becomes the dissimilarity.

    patterns: (n_stimuli, ...). factor: of the precision, for `mahalanobis`. Raises ValueError where they are integers,
    or have no unit.
    """
    flat = patterns.flatten(1) if patterns.ndim > 1 else patterns[:, None]
    if not flat.is_floating_point():
        raise ValueError(f"expected patterns of a floating-point type, got {flat.dtype}")
    if not flat.shape[1]:
        raise ValueError(f"expected patterns of at least one unit, got shape {tuple(patterns.shape)}")
    return DISSIMILARITIES[dissimilarity](flat, *(() if factor is None else (factor,)))


def dissimilarities(transformed: Transformed, pairs: Pairs) -> Tensor:
    """(n_pairs,) dissimilarities, NaN and without gradient where a pattern has none."""
    values = defined_dissimilarities(transformed, pairs)
    undefined = undefined_pairs(transformed, pairs)
    return values if undefined is None else values.masked_fill(undefined, torch.nan)


def defined_dissimilarities(transformed: Transformed, pairs: Pairs, row_scale: Tensor | None = None) -> Tensor:
    """(n_pairs,) dissimilarities; what they are for undefined patterns means nothing.

    row_scale: (n_stimuli,) by which the gradient of each pattern is multiplied.
    """
    return squared_distances(
        transformed.patterns, pairs, transformed.scale, transformed.row_transform, row_scale=row_scale
    )


def undefined_pairs(transformed: Transformed, pairs: Pairs) -> Tensor | None:
    """(n_pairs,) bool: a pattern of the pair has no such dissimilarity; None where all have one."""
    undefined = transformed.undefined
    if undefined is not None and undefined.is_cpu and not undefined.any():
        return None
    return None if undefined is None else undefined[pairs.i] | undefined[pairs.j]


def inner_products(patterns: Tensor) -> Tensor:
    """X Xᵀ, (n_stimuli, n_stimuli), of patterns (n_stimuli, n_units); in their precision, also under autocast."""
    return torch.as_tensor(_InnerProducts.apply(patterns))


class _InnerProducts(torch.autograd.Function):
    """X Xᵀ, whose backward, (G + Gᵀ) X, is safe from autocast and reduced precision too."""

    @staticmethod
    def forward(ctx: Any, patterns: Tensor) -> Tensor:
        ctx.save_for_backward(patterns)
        with full_precision(patterns):
            return patterns @ patterns.T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (patterns,) = ctx.saved_tensors
        with full_precision(patterns):
            return torch.as_tensor((gradient + gradient.T) @ patterns)


class _Product(torch.autograd.Function):
    """patterns @ factor, whose backward is safe from autocast and reduced precision too; factor has no gradient."""

    @staticmethod
    def forward(ctx: Any, patterns: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        with full_precision(patterns):
            return patterns @ factor

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        with full_precision(gradient):
            return gradient @ factor.T, None
