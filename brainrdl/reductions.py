"""Smaller patterns of a layer, made when it is recorded: feature maps pooled, units projected or drawn.

Only what is small is kept until the loss is computed. Each reduction is linear, and its backward needs nothing of
the layer's tensor, which the network is free to change or to forget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from brainrdl.randomness import Draw

_BLOCK = 1 << 22  # values of a layer that are in work at a time


class Reduction(BaseModel):
    """How the patterns of a student layer are made smaller: one of pool, project and units.

    pool: averages feature maps (n_stimuli, channels, height, width) to at most so many rows and columns; of token
    sequences (n_stimuli, tokens, width) 1 takes the mean over all tokens. project: onto so many random directions,
    which keeps distances: their squares are right in the mean over draws, with a standard deviation of at most
    √(2/project) of them. units: draws so many of the units, or all. seed: of what is drawn, once for a whole
    training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: int | None = Field(None, ge=1)
    project: int | None = Field(None, ge=1)
    units: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one(self) -> Reduction:
        given = {"pool": self.pool, "project": self.project, "units": self.units}
        chosen = [name for name, value in given.items() if value is not None]
        if len(chosen) != 1:
            raise ValueError(
                f"a layer is reduced in one way: expected one of {', '.join(given)}, got {chosen or 'none'}"
            )
        return self


def check_reductions(reductions: Mapping[str, Reduction], layers: Iterable[str]) -> Mapping[str, Reduction]:
    """Return the reductions, or raise ValueError where they are none, or of a layer that is not among `layers`."""
    known = tuple(layers)
    if not isinstance(reductions, Mapping) or not all(isinstance(one, Reduction) for one in reductions.values()):
        raise ValueError(
            f"reductions: expected student layer -> Reduction, such as Reduction(pool=4), got {reductions}"
        )
    for layer in reductions:
        if layer not in known:
            raise ValueError(f"layer '{layer}' is to be reduced but not mapped; mapped are: {', '.join(known)}")
    return reductions


class Reducer:
    """A layer's tensor -> its reduced patterns, in float32 or better, for one dissimilarity.

    layer: its name, on which what is drawn depends, with the seed and the number of units. `measure` is the
    dissimilarity that the reduced patterns are compared by.

    Projected, a pattern x becomes S x. Each unit has a random sign and goes to one of the k directions, as many units
    to each; so E|S x|² = |x|² and, whatever x is, Var|S x|² ≤ 2/k |x|⁴: a squared distance is off by at most √(2/k) of
    it (standard deviation), a cosine or correlation distance D, to first order, by D (2 - D) / √k. Scaled so that
    "euclidean" is still per unit of the layer. For "correlation" it is the patterns without their mean over the layer's
    units that are projected, and then compared by "cosine". The gradient is that of the distances between projected
    patterns.
    Of drawn units the mean over them stands for that over all ("sqeuclidean": their sum is scaled up).
    Pooled maps are patterns of their own: distances between them say nothing of what was averaged.
    """

    def __init__(self, layer: str, reduction: Reduction, dissimilarity: str) -> None:
        self.layer, self.reduction, self.dissimilarity = layer, reduction, dissimilarity
        centred = reduction.project is not None and dissimilarity == "correlation"
        self.measure = "cosine" if centred else dissimilarity
        self._drawn: dict[tuple[int, torch.device], _Projection | tuple[Tensor, float]] = {}

    def __call__(self, recorded: Tensor) -> Tensor:
        """(n_stimuli, ...) reduced; the tensor itself where there is nothing to reduce.

        Raises ValueError where pooling is not defined, and for more directions than units.
        """
        if self.reduction.pool is not None:
            return _pooled(self.layer, recorded, self.reduction.pool)
        flat = recorded.flatten(1) if recorded.ndim > 1 else recorded[:, None]
        n_units = flat.shape[1]
        drawn = self._drawn.get((n_units, flat.device))
        if drawn is None:
            drawn = _draw(self.layer, self.reduction, self.dissimilarity, n_units, flat.device)
            self._drawn[n_units, flat.device] = drawn
        if isinstance(drawn, _Projection):
            return torch.as_tensor(_Projected.apply(flat, drawn))
        units, scale = drawn
        chosen = _at_least_float32(flat.index_select(1, units))
        return chosen if scale == 1 else chosen * scale

    def check(self, recorded: Tensor) -> None:
        """Raise ValueError where the patterns of the layer are not reduced."""
        pool, project, units = self.reduction.pool, self.reduction.project, self.reduction.units
        if pool is not None:
            reduced = recorded.ndim == 2 or (recorded.ndim == 4 and max(recorded.shape[2:]) <= pool)
        else:
            reduced = recorded.ndim == 2 and (project is None or recorded.shape[1] == project)
            reduced = reduced and (units is None or recorded.shape[1] <= units)
        if not reduced:
            told = ", ".join(f"{name}={value}" for name, value in self.reduction if name != "seed" and value)
            raise ValueError(
                f"layer '{self.layer}' is to be reduced ({told}) but was recorded with shape {tuple(recorded.shape)}; "
                "record it by record_layers(student, objective.layers, objective.reductions)"
            )


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


class _Projection:
    """Which units go to which direction, and with which sign.

    units, signs: (n_directions * n_each,), those of the first direction first; where there are not enough units, a
    sign of 0 with any unit. of_unit, sign_of_unit: (n_units,), the direction and sign of each. centre: (n_directions,),
    what a pattern of ones becomes, where patterns are projected without their mean; else None.
    """

    def __init__(
        self, n_units: int, n_directions: int, dissimilarity: str, generator: np.random.Generator, device: torch.device
    ) -> None:
        n_each = -(-n_units // n_directions)
        self.n_directions, self.n_each = n_directions, n_each
        # "euclidean" divides by the number of dimensions, which are now the directions.
        per_dimension = dissimilarity in ("euclidean", "mahalanobis")
        scale = math.sqrt(n_directions / n_units) if per_dimension else 1.0
        order = generator.permutation(n_directions * n_each)  # the units, and what is wanting to as many for each
        is_unit = order < n_units
        signs = np.where(is_unit, scale * generator.choice((-1.0, 1.0), len(order)), 0.0)
        of_unit = np.empty(len(order), dtype=np.int32)
        of_unit[order] = np.arange(len(order), dtype=np.int32) // n_each
        sign_of_unit = np.empty(len(order), dtype=np.float32)
        sign_of_unit[order] = signs
        self.units = torch.from_numpy(np.where(is_unit, order, 0).astype(np.int32)).to(device)
        self.signs = torch.from_numpy(signs.astype(np.float32)).to(device)
        self.of_unit = torch.from_numpy(of_unit[:n_units].copy()).to(device)
        self.sign_of_unit = torch.from_numpy(sign_of_unit[:n_units].copy()).to(device)
        self.centre = None
        if dissimilarity == "correlation":
            self.centre = self.signs.view(n_directions, n_each).sum(1)

    def forward(self, patterns: Tensor) -> Tensor:
        """(n_stimuli, n_directions) of patterns (n_stimuli, n_units)."""
        chosen = patterns.index_select(1, self.units)
        if self.centre is None:
            return (chosen * self.signs).view(len(patterns), self.n_directions, self.n_each).sum(2)
        # Less the first unit, a constant pattern is exactly zero and stays so.
        first = _at_least_float32(patterns[:, :1])
        summed = ((chosen - first) * self.signs).view(len(patterns), self.n_directions, self.n_each).sum(2)
        return torch.addcmul(summed, (patterns - first).mean(1, keepdim=True), self.centre, value=-1)

    def backward(self, gradient: Tensor) -> Tensor:
        """(n_stimuli, n_units) of the gradient for the projected patterns."""
        back = gradient.index_select(1, self.of_unit).mul_(self.sign_of_unit)
        return back if self.centre is None else back.sub_((gradient * self.centre).sum(1, keepdim=True) / back.shape[1])


def _drawn(
    layer: str, reduction: Reduction, dissimilarity: str, n_units: int, device: torch.device
) -> _Projection | tuple[Tensor, float]:
    generator = Draw(reduction.seed).generator(f"reduce {layer} {n_units}")
    if reduction.project is not None:
        if reduction.project > n_units:
            raise ValueError(
                f"layer '{layer}' has {n_units} units: expected project of at most so many, got {reduction.project}; "
                "lower it, or leave the layer whole"
            )
        return _Projection(n_units, reduction.project, dissimilarity, generator, device)
    assert reduction.units is not None
    n_chosen = min(reduction.units, n_units)
    units = np.sort(generator.choice(n_units, n_chosen, replace=False))
    scale = math.sqrt(n_units / n_chosen) if dissimilarity == "sqeuclidean" else 1.0
    return torch.from_numpy(units).to(device), scale


_draw = cast(Callable[..., "_Projection | tuple[Tensor, float]"], torch.compiler.disable(_drawn))


class _Projected(torch.autograd.Function):
    """Patterns projected, a block of stimuli at a time; nothing of them is kept."""

    @staticmethod
    def forward(ctx: Any, patterns: Tensor, projection: _Projection) -> Tensor:
        ctx.projection, ctx.shape, ctx.dtype = projection, patterns.shape, patterns.dtype
        with torch.autocast(patterns.device.type, enabled=False):
            return torch.cat([projection.forward(block) for block in patterns.split(_n_rows(patterns.shape))])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        result = torch.empty(ctx.shape, dtype=ctx.dtype, device=gradient.device)
        n_rows = _n_rows(ctx.shape)
        with torch.autocast(gradient.device.type, enabled=False):
            for back, block in zip(result.split(n_rows), gradient.split(n_rows), strict=True):
                back.copy_(ctx.projection.backward(block))
        return result, None


def _n_rows(shape: torch.Size) -> int:
    return max(1, _BLOCK // max(1, shape[1]))


def _pooled(layer: str, recorded: Tensor, size: int) -> Tensor:
    if recorded.ndim == 3:
        if size > 1:
            raise ValueError(
                f"layer '{layer}' gives (n_stimuli, tokens, width) {tuple(recorded.shape)}: tokens have no rows and "
                "columns to pool; expected pool 1 (the mean over tokens), or use project or units"
            )
        return recorded.mean(1, dtype=_dtype(recorded))
    if recorded.ndim != 4:
        raise ValueError(
            f"layer '{layer}' gives shape {tuple(recorded.shape)}: expected feature maps (n_stimuli, channels, height, "
            "width) or tokens (n_stimuli, tokens, width) to pool; use project or units"
        )
    height, width = recorded.shape[2:]
    rows, columns = min(size, height), min(size, width)
    if (rows, columns) == (height, width):
        return recorded
    if height % rows == 0 and width % columns == 0:
        windows: Tensor = recorded.unflatten(3, (columns, width // columns)).unflatten(2, (rows, height // rows))
        return windows.mean((3, 5), dtype=_dtype(recorded))
    with torch.autocast(recorded.device.type, enabled=False):
        maps = _at_least_float32(recorded)
        # A matrix from the right alone is not repeated for every map.
        across = maps @ _windows(width, columns, maps).T
        return (across.transpose(2, 3) @ _windows(height, rows, maps).T).transpose(2, 3)


def _windows(n: int, n_windows: int, like: Tensor) -> Tensor:
    """(n_windows, n) weights of the means over windows of nearly equal size, as adaptive average pooling has them."""
    k = torch.arange(n_windows)[:, None]
    first, last = k * n // n_windows, -(-(k + 1) * n // n_windows)
    inside = (torch.arange(n) >= first) & (torch.arange(n) < last)
    return torch.as_tensor((inside / (last - first)).to(like))


def _dtype(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32
