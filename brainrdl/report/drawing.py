"""A report's figures, one by one: what cannot be drawn becomes a line that says why, and the rest stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from brainrdl.analysis.second_order import rdm_name
from brainrdl.report.blocks import Picture, picture

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# Of many RDMs that are left out for the same reason the first ones are named.
_MOST_NAMED = 3


class ToDraw(NamedTuple):
    """A figure of a report: what its files are called, what it shows, and what makes the matplotlib figure."""

    name: str
    caption: str
    draw: Callable[[], Any]


class Figures(NamedTuple):
    """notes: what was not drawn, and why."""

    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


def draw_figures(wanted: Iterable[ToDraw], out: Path, formats: Sequence[str], notes: Iterable[str] = ()) -> Figures:
    """Write the figures; a ValueError of one of them becomes the note "NAME: why", after those that there are."""
    pictures, notes = [], list(notes)
    for name, caption, draw in wanted:
        try:
            figure = draw()
        except ValueError as error:
            notes.append(f"{name}: {error}")
        else:
            pictures.append(picture(figure, out, name, caption, formats))
    return Figures(tuple(pictures), tuple(notes))


def unmeasured_rdms(rdms: RDMs) -> dict[int, str]:
    """RDMs that cannot be drawn, by their position, and why: of a layer whose units are all dead, say."""
    return {k: "is NaN throughout" for k, vector in enumerate(rdms.get_vectors()) if np.isnan(vector).all()}


def undefined_lines(rdms: RDMs, undefined: Mapping[int, str]) -> list[str]:
    """What is said of RDMs that are left out. undefined: position -> why, as `undefined_rdms` gives it."""
    named = [f"{rdm_name(rdms, k)} {why}" for k, why in list(undefined.items())[:_MOST_NAMED]]
    more = len(undefined) - len(named)
    return [*named, f"and {more} more like these"] if more else named


def without_undefined(rdms: RDMs, undefined: Mapping[int, str], fewest: int) -> RDMs:
    """The RDMs that are not in `undefined`. Raises ValueError where there are fewer than `fewest`."""
    kept = [k for k in range(rdms.n_rdm) if k not in undefined]
    if len(kept) < fewest:
        raise ValueError(f"expected at least {fewest} RDM{'s' * (fewest > 1)} that can be shown, got {len(kept)}")
    return rdms[kept] if undefined else rdms
