"""How wide text is in print, and what is done where it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

SMALLEST = 5.0  # points: what is legible in print
_LONGEST_NAME = 20  # letters
# Inches: an entry's sign in a legend, and the space around it; a line of entries.
_SIGN, ENTRY = 0.5, 0.15
# Lines of a legend, above which names are shortened so that more of them stand side by side.
_MOST_LINES = 12

# Points: titles; names of categories and ranges.
TITLE, SMALL = 8.0, 5.5
# Inches: a line of small text.
LINE = 0.115


def fitted(text: str, room: float, fontsize: float) -> tuple[str, float]:
    """The text and the size (points) in which its lines fit into `room` inches, shortened where none is legible."""
    if not text:
        return text, fontsize
    longest = max(text_width(line, fontsize) for line in text.splitlines())
    size = max(min(fontsize, fontsize * room / longest), SMALLEST)
    return "\n".join(clipped(line, room * 1.01, size) for line in text.splitlines()), size


def clipped(text: str, room: float, fontsize: float) -> str:
    """The text, shortened to as many letters as fit into `room` inches, no fewer than 3."""
    letters = len(text)
    while letters > 3 and text_width(shortened(text, letters), fontsize) > room:
        letters -= 1
    return shortened(text, letters)


def shortened(name: str, letters: int = _LONGEST_NAME) -> str:
    """At most so many letters, the beginning and the end of the name."""
    if len(name) <= letters:
        return name
    end = (letters - 1) * 2 // 5
    return f"{name[: letters - 1 - end].rstrip()}…{name[len(name) - end :].lstrip()}"


@lru_cache(maxsize=4096)
def text_width(text: str, fontsize: float) -> float:
    """Printed width in inches, in the figures' font."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family="DejaVu Sans", size=fontsize * 10)
    return float(_renderer().get_text_width_height_descent(text, font, ismath=False)[0]) / 720


@cache
def _renderer() -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, 72)  # type: ignore[no-untyped-call]


def in_a_row(names: Sequence[str], room: float) -> int:
    """How many names with a sign before them stand side by side in a key `room` inches wide, in even rows."""
    longest = max((text_width(name, 7) for name in names), default=0)
    fitting = max(int(room / (longest + 0.4)), 1)
    return -(-len(names) // -(-len(names) // fitting)) if names else 1


def legend_columns(handles: Sequence[Any], room: float, most: int, fontsize: float = 7) -> int:
    """In how many columns, `most` at most, a legend's entries fit into `room` inches; longer ones are shortened.

    handles: what the legend is made of; their labels are changed. Two columns may be of shortened names where there
    are many.
    """
    names = [str(handle.get_label()) for handle in handles]
    longest = max((text_width(name, fontsize) for name in names), default=0) + _SIGN
    columns = min(max(int(room / longest), 2 if len(handles) > _MOST_LINES else 1), most)
    for handle, name in zip(handles, names, strict=True):
        handle.set_label(clipped(name, room / columns - _SIGN, fontsize))
    return columns
