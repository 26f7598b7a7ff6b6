"""Means and their intervals as dots on one scale, drawn by the page itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import NamedTuple


class DotRow(NamedTuple):
    """A mean with its interval (None: there is none) and what it is the mean of. text: the same to read."""

    name: str
    value: float
    low: float | None
    high: float | None
    points: tuple[float, ...]
    text: str
    colour: str


@dataclass(frozen=True)
class DotPlot:
    """Rows on one scale. reference: where a line stands. band: a grey range, such as the noise ceiling's."""

    title: str
    unit: str
    rows: Sequence[DotRow]
    reference: float | None = None
    band: tuple[float, float] | None = None

    @cached_property
    def ticks(self) -> list[float]:
        """Round numbers that hold everything between the first and the last."""
        from matplotlib.ticker import MaxNLocator

        values = [value for row in self.rows for value in (row.value, row.low, row.high, *row.points)]
        known = [value for value in (*values, self.reference, *(self.band or ())) if value is not None]
        low, high = min(known), max(known)
        room = 0.02 * (high - low) or 0.1
        ticks = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low - room, high + room)
        return [round(float(tick), 10) for tick in ticks]

    def place(self, value: float) -> float:
        """Where a value stands, in per cent of the scale's length."""
        return round(100 * (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0]), 3)


def known(value: float) -> float | None:
    """None for NaN: an interval of one seed."""
    return None if isnan(value) else float(value)
