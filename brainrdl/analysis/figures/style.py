"""What all figures share: sizes for print, colours that colour-blind readers can tell apart, and saving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from brainrdl.runs import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MILLIMETRE = 1 / 25.4
Width = Literal["single", "double"]
# Inches: one column of a printed page, and two.
WIDTHS: dict[str, float] = {"single": 85 * MILLIMETRE, "double": 180 * MILLIMETRE}
WIDTH = WIDTHS["double"]
PAGE = 230 * MILLIMETRE  # the height that a figure may take

FORMATS = ("png", "pdf", "svg")

# Okabe & Ito's palette; in place of its yellow, illegible on white, Tol's indigo.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#332288")
_Dashes = Literal["-", "--", ":", "-."]
_DASHES: tuple[_Dashes, ...] = ("-", "--", ":", "-.")
TEACHER_COLOUR = "#000000"

_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same figure on every machine
    "font.size": 7.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # a name with two dollar signs is a name
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100.0,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "brainrdl",
}


class Look(NamedTuple):
    """How a method is drawn."""

    colour: str
    dashes: _Dashes


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look for each method by its place among them: colours first, then the same colours with other dashes."""
    names = list(dict.fromkeys(methods))
    n = len(_COLOURS)
    return {name: Look(_COLOURS[k % n], _DASHES[k // n % len(_DASHES)]) for k, name in enumerate(names)}


@contextmanager
def print_style() -> Iterator[None]:
    """matplotlib's settings for these figures, inside the block only."""
    import matplotlib

    settings: Any = _SETTINGS
    with matplotlib.rc_context():
        # What the user's own matplotlibrc says must not change a figure.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def check_width(width: str) -> float:
    """A column's width in inches. Raises ValueError for one that is neither "single" nor "double"."""
    if width not in WIDTHS:
        raise ValueError(f"unknown figure width '{width}'; expected single (85 mm, one column) or double (180 mm, two)")
    return WIDTHS[width]


def new_figure(height: float, width: float | Width = WIDTH, padding: float = 0.04) -> Figure:
    """An empty figure whose parts make room for each other; height, width (or a column's name), padding in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width = check_width(width) if isinstance(width, str) else width
    layout = ConstrainedLayoutEngine(w_pad=padding, h_pad=padding, wspace=0.0, hspace=0.0)
    return Figure(figsize=(width, height), layout=layout)


def figure_of(ax: Axes) -> Figure:
    """The figure that the axes stand in. Raises ValueError where they stand in none."""
    from matplotlib.figure import Figure

    figure = ax.get_figure(root=True)
    if not isinstance(figure, Figure):
        raise ValueError("these axes stand in no figure; make them with figure.subplots()")
    return figure


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return `formats`, or raise ValueError naming the first that cannot be written."""
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"unknown figure format '{name}'; expected one of {', '.join(FORMATS)}")
    if not formats:
        raise ValueError(f"expected at least one figure format out of {', '.join(FORMATS)}, got none")
    return tuple(dict.fromkeys(formats))


def save_figure(figure: Figure, path: str | Path, formats: Sequence[str] = ("png", "pdf")) -> tuple[Path, ...]:
    """Write `figure` to `path` plus each format's suffix; equal figures give equal bytes.

    PNG has 300 dots an inch; PDF and SVG hold text as text. Returns the files written.
    """
    # What a writer would stamp with the time, or with its version, is left out.
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
    }
    written = []
    layout = figure.get_layout_engine()
    with print_style():
        try:
            for name in check_formats(formats):
                target = Path(f"{path}.{name}")
                write_atomically(target, partial(figure.savefig, format=name, dpi=300, metadata=metadata[name]))
                written.append(target)
                figure.set_layout_engine("none")  # places are found once for all formats: it takes long
        finally:
            figure.set_layout_engine(layout)
    return tuple(written)
