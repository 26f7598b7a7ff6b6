"""Squared distances between rows at sampled pairs, whose hand-written backward needs no more than the rows themselves.

A row is first made `(x - first) / norm - mean`, which is what a dissimilarity's transform comes to; that happens a
block of columns at a time, in a buffer that stays in the processor's cache, in the forward and again in the backward.
So the rows are read once in each and the gradient is written once, which is the least there can be; nothing of their
size is kept in between, and no tensor of size pairs × columns is ever built.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brainrdl.pairs import Pairs
from brainrdl.precision import full_precision


class RowTransform(NamedTuple):
    """What is done to each row before rows are compared: (x - first) / norm - mean. Without gradient.

    first, norm, mean: (n_rows, 1).
    """

    first: Tensor
    norm: Tensor
    mean: Tensor


# What a pair costs where each is computed by itself, in entries of the matrix of all products: on the processor, as
# measured by benchmarks/pair_dissimilarities.py, and on other devices.
_PAIR_COST = 12.0
_PAIR_COST_ELSEWHERE = 60.0

# So many differences (half a MiB) are computed sooner on the processor than anything is prepared for them; with so few,
# autograd is as quick as a gradient of our own.
SMALL = 1 << 17
_TINY = 1 << 13

# So many bytes has a block of columns: on the processor they stay in its cache.
_BLOCK_BYTES = 4 << 20
_BLOCK_BYTES_ELSEWHERE = 64 << 20
_NARROWEST = 64

# The products of rows with so many numbers are computed for one triangle only, in so many strips.
_TRIANGLE_FROM, _N_STRIPS = 1 << 19, 4


def squared_distances(
    rows: Tensor,
    pairs: Pairs,
    scale: float = 1.0,
    transform: RowTransform | None = None,
    row_scale: Tensor | None = None,
) -> Tensor:
    """scale · ||t_i - t_j||² at the pairs, differentiable in the rows, t being the transformed rows.

    rows: (n_rows, n_columns) of any floating-point type, at least one column. transform: a function of the rows, norm
    their length ||x - first - mean·norm||, whose gradient is taken into account; None compares the rows as they are.
    row_scale: (n_rows,) by which the rows of the gradient are multiplied.
    Returns (n_pairs,) of float32, or float64 for such rows. Rounding below 0 is set to 0. Where the distances are
    made of products, as those of many are, rounding is in proportion to the rows' squared distances from their mean: a
    row far away from all others takes digits from the distances between those.
    """
    if transform is None and rows.is_cpu and len(pairs.i) * rows.shape[1] <= SMALL:
        rows = rows if rows.dtype == torch.float64 else rows.float()
        if row_scale is None and len(pairs.i) * rows.shape[1] <= _TINY:
            return _plainly(rows, pairs, scale)
        few: Tensor = _FewDistances.apply(rows, pairs.i, pairs.j, scale, row_scale)
        return few
    result: Tensor = _SquaredDistances.apply(rows, pairs.i, pairs.j, scale, transform, row_scale)
    return result


def _plainly(rows: Tensor, pairs: Pairs, scale: float) -> Tensor:
    """The formula as it is written."""
    squares = (rows.index_select(0, pairs.i) - rows.index_select(0, pairs.j)).square()
    if scale == 1 / rows.shape[1]:
        return squares.mean(1)
    return squares.sum(1) if scale == 1 else squares.sum(1) * scale


class _FewDistances(torch.autograd.Function):
    """The formula as it is written, and its gradient from the differences, which are kept."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, i: Tensor, j: Tensor, scale: float, row_scale: Tensor | None) -> Tensor:
        differences = rows.index_select(0, i).sub_(rows.index_select(0, j))
        ctx.save_for_backward(differences, i, j, row_scale)
        ctx.scale, ctx.n_rows = scale, len(rows)
        norms: Tensor = torch.linalg.vector_norm(differences, dim=1)
        return norms.square_().mul_(scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        differences, i, j, row_scale = ctx.saved_tensors
        parts = differences * (gradient * (2 * ctx.scale))[:, None]
        result = parts.new_zeros(ctx.n_rows, parts.shape[1]).index_add_(0, i, parts).index_add_(0, j, parts, alpha=-1)
        if row_scale is not None:
            result.mul_(row_scale[:, None])
        return result, None, None, None, None


class _SquaredDistances(torch.autograd.Function):
    """Σ g_ij ||t_i - t_j||² has the gradient 2 L t, L the Laplacian of the pairs weighted by the incoming gradients g.

    Where t has unit length, its component along t_i does not change t_i; it is Σ_j g_ij ||t_i - t_j||², since
    2 (t_i - t_j)·t_i = ||t_i - t_j||² then. So one matrix over the rows, with few entries where there are few pairs,
    makes the gradient in every case.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        i: Tensor,
        j: Tensor,
        scale: float,
        transform: RowTransform | None,
        row_scale: Tensor | None,
    ) -> Tensor:
        ctx.scale = scale
        ctx.way = way = choose_way(rows, len(i))
        with full_precision(rows):
            squared = way.squares(rows, i, j, transform).clamp_(min=0)
        kept = () if transform is None else transform
        ctx.save_for_backward(rows, i, j, None if transform is None else squared, row_scale, *kept)
        return squared if scale == 1 else squared * scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        rows, i, j, squared, row_scale, *kept = ctx.saved_tensors
        transform = RowTransform(*kept) if kept else None
        edges = gradient * (-2 * ctx.scale)
        along = factor = None
        if squared is not None:
            parts = gradient * squared if ctx.scale == 1 else gradient * squared * ctx.scale
            along = parts.new_zeros(len(rows)).index_add_(0, i, parts).index_add_(0, j, parts)
        if row_scale is not None:
            factor = row_scale.to(edges.dtype)
        if transform is not None:
            inverse = transform.norm[:, 0].reciprocal()
            factor = inverse if factor is None else factor * inverse
        with full_precision(rows):
            product = ctx.way.matrix(Edges(len(rows), i, j, edges), along, factor)
            along = along if along is None or factor is None else along * factor
            result = torch.empty_like(rows, memory_format=torch.contiguous_format)
            for columns, block, mean in _blocks(rows, transform):
                part: Tensor = product(block)
                if along is not None:
                    part.addr_(along, mean, alpha=-1)
                if part.shape == rows.shape and part.dtype == rows.dtype:
                    return part, None, None, None, None, None
                result[:, columns] = part
        return result, None, None, None, None, None


def _blocks(rows: Tensor, transform: RowTransform | None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of columns of the transformed rows, their mean over rows taken away; which columns, and that mean.

    A large common mean would eat the digits of the difference of two products. Each block overwrites the last one.
    """
    n_rows, n_columns = rows.shape
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    n_bytes = _BLOCK_BYTES if rows.is_cpu else _BLOCK_BYTES_ELSEWHERE
    width = max(_NARROWEST, n_bytes // (dtype.itemsize * max(1, n_rows)))
    buffer = torch.empty(n_rows * min(width, n_columns), dtype=dtype, device=rows.device)
    if transform is not None:
        inverse = transform.norm.reciprocal()
    for start in range(0, n_columns, width):
        columns = slice(start, min(start + width, n_columns))
        part = rows[:, columns]
        block = buffer[: part.numel()].view(part.shape)
        if transform is None:
            mean = part.mean(0, dtype=dtype)
            torch.sub(part, mean, out=block)
        else:
            torch.sub(part, transform.first, out=block)
            torch.addcmul(-transform.mean, block, inverse, out=block)
            mean = block.mean(0)
            block.sub_(mean)
        yield columns, block, mean


def _squares_of_all(rows: Tensor, i: Tensor, j: Tensor, transform: RowTransform | None) -> Tensor:
    """||t_i - t_j||² from the matrix of all products."""
    n_rows = len(rows)
    products: Tensor | None = None
    strips = [slice(0, n_rows)]
    if n_rows * rows.shape[1] >= _TRIANGLE_FROM:
        size = -(-n_rows // _N_STRIPS)
        strips = [slice(start, start + size) for start in range(0, n_rows, size)]
    for _, block, _ in _blocks(rows, transform):
        if len(strips) == 1:
            products = block @ block.T if products is None else products.addmm_(block, block.T)
            continue
        if products is None:
            products = block.new_zeros(n_rows, n_rows)
        for strip in strips:  # row a of a strip with the rows of this and later strips
            products[strip, strip.start :].addmm_(block[strip], block[strip.start :].T)
    assert products is not None  # rows have at least one column
    norms = products.diagonal()
    low, high = (i, j) if len(strips) == 1 else (torch.minimum(i, j), torch.maximum(i, j))
    return (norms[:, None] + norms).sub_(products, alpha=2).take(low * n_rows + high)


def _squares_of_pairs(rows: Tensor, i: Tensor, j: Tensor, transform: RowTransform | None) -> Tensor:
    """||t_i - t_j||² from the products of the pairs alone; on the processor."""
    _sparse_tensors_are_known()
    n_rows = len(rows)
    order = None
    if (i[1:] < i[:-1]).any():
        order = i.argsort()
        i, j = i[order], j[order]
    starts = torch.searchsorted(i, torch.arange(n_rows + 1))
    at_pairs: Tensor | None = None
    norms = torch.zeros(())
    for _, block, _ in _blocks(rows, transform):
        values = block.new_zeros(len(i)) if at_pairs is None else at_pairs
        pattern = torch.sparse_csr_tensor(starts, j, values, (n_rows, n_rows), check_invariants=False)
        at_pairs = torch.sparse.sampled_addmm(pattern, block, block.T).values()
        norms = norms + torch.linalg.vector_norm(block, dim=1).square_()
    assert at_pairs is not None  # rows have at least one column
    squared = (norms.index_select(0, i) + norms.index_select(0, j)).sub_(at_pairs, alpha=2)
    return squared if order is None else torch.empty_like(squared).index_copy_(0, order, squared)


@cache
def _sparse_tensors_are_known() -> None:
    """Let torch say, once in a process, that its sparse tensors may still change: nothing that users need to hear."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(
            [0, 0], torch.zeros(0, dtype=torch.int64), torch.zeros(0), (1, 1), check_invariants=False
        )


def _squares_of_differences(rows: Tensor, i: Tensor, j: Tensor, transform: RowTransform | None) -> Tensor:
    """||t_i - t_j||² from the differences of the pairs, as many at a time as there are rows."""
    squared = torch.zeros(())
    for _, block, _ in _blocks(rows, transform):
        norms = [
            torch.linalg.vector_norm(block.index_select(0, a).sub_(block.index_select(0, b)), dim=1).square_()
            for a, b in zip(i.split(len(rows)), j.split(len(rows)), strict=True)
        ]
        squared = squared.to(block) + torch.cat(norms)
    return squared


class Edges(NamedTuple):
    """The pairs as edges of a graph. n_rows: its nodes. i, j: (n_pairs,) each edge's ends. weights: (n_pairs,)."""

    n_rows: int
    i: Tensor
    j: Tensor
    weights: Tensor

    def both_ways(self) -> tuple[Tensor, Tensor, Tensor]:
        """(2 n_pairs,) each: from where, to where, with which weight."""
        return torch.cat([self.i, self.j]), torch.cat([self.j, self.i]), torch.cat([self.weights, self.weights])


# What multiplies a block of columns by factor · (W - diagonal(W 1) - diagonal(along)), W the edges' symmetric matrix.
_Matrix = Callable[[Tensor], Tensor]


def _dense(edges: Edges, along: Tensor | None, factor: Tensor | None) -> _Matrix:
    n, i, j, weights = edges
    matrix = weights.new_zeros(n * n).scatter_add_(0, i * n + j, weights).view(n, n)
    matrix += matrix.T.contiguous()  # which torch copies faster than it adds what lies the other way round
    diagonal = matrix.sum(1)
    matrix.diagonal().sub_(diagonal if along is None else diagonal + along)
    return (matrix if factor is None else matrix.mul_(factor[:, None])).matmul


def _sparse(edges: Edges, along: Tensor | None, factor: Tensor | None) -> _Matrix:
    """From the entries alone; on the processor."""
    ends, others, weights, diagonal = _entries(edges, along, factor)
    order = ends.argsort()
    starts = torch.searchsorted(ends[order], torch.arange(edges.n_rows))
    columns, values = others[order], weights[order]

    def multiply(block: Tensor) -> Tensor:
        product = torch.embedding_bag(block, columns, starts, per_sample_weights=values)[0]
        return product.addcmul_(block, diagonal[:, None])

    return multiply


def _by_pair(edges: Edges, along: Tensor | None, factor: Tensor | None) -> _Matrix:
    """From the entries alone, as many at a time as there are rows."""
    ends, others, weights, diagonal = _entries(edges, along, factor)
    parts = [part.split(edges.n_rows) for part in (ends, others, weights)]

    def multiply(block: Tensor) -> Tensor:
        product = block * diagonal[:, None]
        for to, at, weight in zip(*parts, strict=True):
            product.index_add_(0, to, block.index_select(0, at).mul_(weight[:, None]))
        return product

    return multiply


def _entries(edges: Edges, along: Tensor | None, factor: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row, column and value of the matrix's entries, and its diagonal."""
    ends, others, weights = edges.both_ways()
    diagonal = weights.new_zeros(edges.n_rows).index_add_(0, ends, weights, alpha=-1)
    diagonal = diagonal if along is None else diagonal - along
    if factor is not None:
        weights, diagonal = weights * factor.index_select(0, ends), diagonal * factor
    return ends, others, weights, diagonal


class Way(NamedTuple):
    """One of the ways to compute squared distances and their gradient.

    squares: (rows, i, j, transform) -> (n_pairs,) before what is below 0 is set to 0. matrix: (edges, along, factor) ->
    a function that multiplies blocks of columns.
    """

    squares: Callable[[Tensor, Tensor, Tensor, RowTransform | None], Tensor]
    matrix: Callable[[Edges, Tensor | None, Tensor | None], _Matrix]


ALL_PRODUCTS = Way(_squares_of_all, _dense)
PRODUCTS_OF_PAIRS = Way(_squares_of_pairs, _sparse)  # on the processor
DIFFERENCES = Way(_squares_of_differences, _by_pair)


def choose_way(rows: Tensor, n_pairs: int) -> Way:
    """The one that is likely to be the fastest."""
    cost = _PAIR_COST if rows.is_cpu else _PAIR_COST_ELSEWHERE
    if n_pairs * cost > len(rows) ** 2:
        return ALL_PRODUCTS
    return PRODUCTS_OF_PAIRS if rows.is_cpu else DIFFERENCES
