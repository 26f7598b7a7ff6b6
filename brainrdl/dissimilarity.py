"""Differentiable dissimilarities at sampled pairs: a transform of the patterns, then one squared distance.

Every dissimilarity is `scale * ||t(x_i) - t(x_j)||²` with its own transform t, so one kernel with one
hand-written backward serves all. Names and units are rsatoolbox's where it has them (`euclidean`,
`correlation`, `mahalanobis`); `cosine` is scipy's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brainrdl.pairs import Pairs


class Transformed(NamedTuple):
    """Patterns made ready for the squared distance.

    patterns: (n_stimuli, n_dimensions). scale: what the squared distance is multiplied by.
    undefined: (n_stimuli,) bool, patterns that have no such dissimilarity; None where all have one.
    """

    patterns: Tensor
    scale: float
    undefined: Tensor | None = None


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
    unit, norm = _UnitLength.apply(patterns)
    return Transformed(unit, 0.5, norm[:, 0] == 0)


def correlation(patterns: Tensor) -> Transformed:
    """1 - r (Pearson over units), as rsatoolbox's "correlation". A constant pattern has none: undefined.

    Subtracting the first unit before the mean makes a constant pattern exactly zero, whatever its size.
    """
    shifted = patterns - patterns[:, :1].detach()  # what is the same for all units cancels, and so does its gradient
    return cosine(shifted - shifted.mean(1, keepdim=True))


def mahalanobis(patterns: Tensor, factor: Tensor) -> Transformed:
    """(x_i - x_j)ᵀ P (x_i - x_j) / n_units with P = factor factorᵀ, as rsatoolbox's "mahalanobis".

    factor: (n_units, n_units), of the noise precision P; `precision_factor` makes it.
    """
    n_units = patterns.shape[1]
    if factor.shape != (n_units, n_units):
        raise ValueError(
            f"precision has shape {tuple(factor.shape)}; patterns of {n_units} units need ({n_units}, {n_units})"
        )
    # The common mean cancels in every difference; subtracting it keeps the digits.
    whitened: Tensor = _Product.apply(patterns - patterns.detach().mean(0), factor.to(patterns))
    return Transformed(whitened, 1.0 / n_units)


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
    transformed = transform_patterns(patterns, dissimilarity, factor)
    values = squared_distances(transformed, pairs)
    undefined = undefined_pairs(transformed, pairs)
    return values if undefined is None else values.masked_fill(undefined, torch.nan)


def transform_patterns(patterns: Tensor, dissimilarity: str, factor: Tensor | None = None) -> Transformed:
    """The patterns under which the dissimilarity is a squared distance, in float32 or float64.

    patterns: (n_stimuli, ...). factor: of the precision, for `mahalanobis`.
    """
    flat = patterns.flatten(1) if patterns.ndim > 1 else patterns[:, None]
    if not flat.is_floating_point():
        raise ValueError(f"expected patterns of a floating-point type, got {flat.dtype}")
    flat = flat if flat.dtype == torch.float64 else flat.float()
    return DISSIMILARITIES[dissimilarity](flat, *(() if factor is None else (factor,)))


def squared_distances(transformed: Transformed, pairs: Pairs) -> Tensor:
    """(n_pairs,) scaled squared distances; what they are for undefined patterns means nothing."""
    squared: Tensor = _SquaredDistances.apply(transformed.patterns, pairs.i, pairs.j)
    return squared * transformed.scale


def undefined_pairs(transformed: Transformed, pairs: Pairs) -> Tensor | None:
    """(n_pairs,) bool: a pattern of the pair has no such dissimilarity; None where all have one."""
    undefined = transformed.undefined
    return None if undefined is None else undefined[pairs.i] | undefined[pairs.j]


def inner_products(patterns: Tensor) -> Tensor:
    """X Xᵀ, (n_stimuli, n_stimuli), of patterns (n_stimuli, n_units); in their precision, also under autocast."""
    return torch.as_tensor(_InnerProducts.apply(patterns))


class _InnerProducts(torch.autograd.Function):
    """X Xᵀ, whose backward, (G + Gᵀ) X, is safe from autocast and reduced precision too."""

    @staticmethod
    def forward(ctx: Any, patterns: Tensor) -> Tensor:
        ctx.save_for_backward(patterns)
        with _full_precision(patterns):
            return patterns @ patterns.T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (patterns,) = ctx.saved_tensors
        with _full_precision(patterns):
            return torch.as_tensor((gradient + gradient.T) @ patterns)


class _SquaredDistances(torch.autograd.Function):
    """||x_i - x_j||² at pairs, from the Gram matrix or by differences, whichever is cheaper.

    d/dx_i = 2 Σ_j g_ij (x_i - x_j): with the symmetric matrix G of the incoming gradients, its row sums D
    and the Laplacian L = D - G this is 2 L x. Neither way builds a tensor of size pairs × units.
    """

    @staticmethod
    def forward(ctx: Any, patterns: Tensor, i: Tensor, j: Tensor) -> Tensor:
        ctx.by_gram = _gram_is_cheaper(patterns.shape[0], len(i))
        with _full_precision(patterns):
            if ctx.by_gram:
                centred = patterns - patterns.mean(0)  # a large common mean would eat the digits of the difference
                gram = centred @ centred.T  # (n_stimuli, n_stimuli)
                norm, product = gram.diagonal(), gram.take(i * patterns.shape[0] + j)
                squared = (norm.index_select(0, i) + norm.index_select(0, j)).sub_(product, alpha=2).clamp_(min=0)
                ctx.save_for_backward(centred, i, j)
            else:
                norms = [torch.linalg.vector_norm(d, dim=1) for _, d in _differences(patterns, i, j)]
                squared = torch.cat(norms).square_()
                ctx.save_for_backward(patterns, i, j)
        return squared

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        patterns, i, j = ctx.saved_tensors
        n_stimuli = patterns.shape[0]
        with _full_precision(patterns):
            if ctx.by_gram:
                laplacian = patterns.new_zeros(n_stimuli * n_stimuli)
                laplacian.index_add_(0, i * n_stimuli + j, gradient, alpha=-2)
                laplacian = laplacian.view(n_stimuli, n_stimuli)
                laplacian = laplacian + laplacian.T
                laplacian.diagonal().sub_(laplacian.sum(1))
                return laplacian @ patterns, None, None
            result = torch.zeros_like(patterns)
            for part, difference in _differences(patterns, i, j):
                difference.mul_(2 * gradient[part, None])
                result.index_add_(0, i[part], difference)
                result.index_add_(0, j[part], difference, alpha=-1)
            return result, None, None


def _differences(patterns: Tensor, i: Tensor, j: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """x_i - x_j for some pairs at a time: half of what the patterns hold, or 1 MiB where that is more."""
    n_values = max(1 << 18, patterns.numel() // 2)
    size = max(1, n_values // max(1, patterns.shape[1]))
    for start in range(0, max(1, len(i)), size):
        part = slice(start, start + size)
        yield part, patterns.index_select(0, i[part]).sub_(patterns.index_select(0, j[part]))


# What a pair costs by differences, in entries of the Gram matrix: measured by benchmarks/pair_dissimilarities.py.
_PAIR_COST: float = 60


def _gram_is_cheaper(n_stimuli: int, n_pairs: int) -> bool:
    return n_pairs * _PAIR_COST > n_stimuli * n_stimuli


class _UnitLength(torch.autograd.Function):
    """x / |x| and |x|, (n_stimuli, 1) without gradient; a zero pattern stays zero.

    With u = x / |x|, d/dx = (g - (g · u) u) / |x|: from the result alone, where autograd would keep more.
    """

    @staticmethod
    def forward(ctx: Any, patterns: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(patterns, dim=1, keepdim=True)
        unit = patterns / norm.masked_fill(norm == 0, 1)
        ctx.save_for_backward(unit, norm)
        ctx.mark_non_differentiable(norm)
        return unit, norm

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Tensor:
        unit, norm = ctx.saved_tensors
        along = (gradient * unit).sum(1, keepdim=True)
        return torch.addcmul(gradient, along, unit, value=-1).div_(norm.masked_fill(norm == 0, 1))


class _Product(torch.autograd.Function):
    """patterns @ factor, whose backward is safe from autocast and reduced precision too; factor has no gradient."""

    @staticmethod
    def forward(ctx: Any, patterns: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        with _full_precision(patterns):
            return patterns @ factor

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        with _full_precision(gradient):
            return gradient @ factor.T, None


@contextmanager
def _full_precision(patterns: Tensor) -> Iterator[None]:
    """Neither autocast nor reduced-precision matrix products (TF32, bfloat16) inside."""
    with torch.autocast(patterns.device.type, enabled=False), _no_reduced_products():
        yield


@contextmanager
def _no_reduced_products() -> Iterator[None]:
    # torch 2.9 gave each backend a setting of its own; once one is set, the old common setting may not be read.
    backends = matmul_backends()
    reduced = [(b, b.fp32_precision) for b in backends if b.fp32_precision not in ("none", "ieee")]
    common = None if backends else torch.get_float32_matmul_precision()
    try:
        for backend, _ in reduced:
            backend.fp32_precision = "ieee"
        if common:
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        for backend, value in reduced:
            backend.fp32_precision = "none"  # inherits; so a value that came from above still does
            if backend.fp32_precision != value:
                backend.fp32_precision = value
        if common:
            torch.set_float32_matmul_precision(common)


def matmul_backends() -> list[Any]:
    """What of torch has a precision of its own for products of float32 matrices: since 2.9, each backend."""
    candidates = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return [backend for backend in candidates if hasattr(backend, "fp32_precision")]
