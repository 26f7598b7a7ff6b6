"""Many RDMs: networks by layers between the pixels' and the labels' (Fig. 3, McClure & Kriegeskorte 2016), or any."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from brainrdl.analysis.figures.rdm import (
    STRIP,
    STRIP_GAP,
    TITLE,
    Shades,
    Sides,
    add_bar,
    add_key,
    arrange,
    bar_height,
    check_drawable,
    draw_rdm,
    draw_sides,
    fitted,
    key_height,
    range_height,
    shade,
    text_width,
    titles,
)
from brainrdl.analysis.figures.style import MILLIMETRE, Width, check_width, new_figure, print_style
from brainrdl.analysis.figures.thumbnails import side_within
from brainrdl.rdms.selection import group_rdms, rdm_descriptor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs

    from brainrdl.data.thumbnails import Thumbnails

# Inches: what a printed page has room for; the largest RDM; between RDMs; a title.
_MOST_HEIGHT = 230 * MILLIMETRE
_LARGEST = 60 * MILLIMETRE
_GAP = 0.06
_TITLE = 0.17
_ROW_NAME = 7.5  # points
# RDMs without rows and columns of their own stand in one row, as long as they are so few.
_ONE_ROW = {"single": 2, "double": 4}
# Of networks: what stands at the sides.
_LEFT, _RIGHT = "pixels", "labels"


def plot(
    rdms: RDMs,
    scale: str = "percentile",
    shared: bool = False,
    rows: str | None = None,
    columns: str | None = None,
    sort_by: str | None = "category",
    thumbnails: Thumbnails | None = None,
    width: Width = "double",
) -> Figure:
    """RDMs in rows and columns by two descriptors, or one after the other; their colours' meaning is on the bar.

    rdms: any RDMs over the same stimuli. rows, columns: rdm_descriptors, such as subject and roi, of which each
    combination stands once at most; one of them: a column or a row. None: network and layer where the RDMs have both:
    then "pixels" stand on the left, "labels" on the right, layers in the first network's order, and a network with
    other layer names has its own above its RDMs. Otherwise RDMs stand in their order under what tells them apart.
    scale: "percentile" (ranks) or "raw" (dissimilarities without the diagonal's zeros). shared: ranks or limits over
    all RDMs together; else each RDM's own, and with "raw" its range stands below it.
    sort_by, thumbnails: as in `rdm.plot`, at the outer sides. NaN (not measured) is hatched.
    Raises ValueError for an RDM that is undefined or stands twice (epochs, seeds), and as `rdm.plot`.
    """
    inches = check_width(width)
    check_drawable(rdms)
    layout = _laid_out(rdms, rows, columns, _ONE_ROW[width])
    shades = shade(rdms, scale, shared)
    sides = arrange(rdms, sort_by, thumbnails)
    with print_style():
        sides = sides.for_side(_measured(layout, sides, shades, inches).side)
        size = _measured(layout, sides, shades, inches)
        figure = new_figure(size.height, size.width, padding=_GAP / 2)
        fontsize = min(fitted(cell.title, size.side, TITLE)[1] for cell in layout.cells)
        grid = figure.add_gridspec(layout.n_rows, layout.n_columns)
        axes: list[Axes] = []
        for cell in layout.cells:
            # What stands at a side belongs to all rows.
            place = grid[:, cell.column] if cell.row is None else grid[cell.row, cell.column]
            ax = figure.add_subplot(place)
            draw_rdm(ax, shades, cell.k, sides, size.side, cell.title, fontsize)
            below = cell.row is None or cell.row == layout.n_rows - 1
            draw_sides(ax, sides, size.side, left=cell.column == 0, below=below, lower=range_height(shades, size.side))
            if cell.row is not None and layout.first_in_row(cell):
                pictures = sides.reach(size.side) if cell.column == 0 else 0
                _name_row(ax, layout.names[cell.row], size, pictures)
            axes.append(ax)
        add_bar(figure, axes, shades)
        add_key(figure, sides)
    return figure


class _Cell(NamedTuple):
    """RDM k in its row and column; row None: over the height of all rows."""

    k: int
    row: int | None
    column: int
    title: str


class _Layout(NamedTuple):
    cells: list[_Cell]
    names: list[str]  # of the rows; "" where they have none
    n_rows: int
    n_columns: int

    def first_in_row(self, cell: _Cell) -> bool:
        return cell.row is not None and cell.column == min(c.column for c in self.cells if c.row == cell.row)


def _laid_out(rdms: RDMs, rows: str | None, columns: str | None, one_row: int) -> _Layout:
    if (rows, columns) == (None, None):
        if "network" not in rdms.rdm_descriptors or "layer" not in rdms.rdm_descriptors:
            return _one_after_the_other(rdms, one_row)
        rows, columns = "network", "layer"
    if (rows, columns) == ("network", "layer"):
        return _networks(rdms)
    by_row = _by_descriptors(rdms, rows, columns)
    places = {column: n for n, column in enumerate(dict.fromkeys(column for row in by_row.values() for column in row))}
    cells: list[_Cell] = []
    for row, of_row in enumerate(by_row.values()):
        named = {cell.column for cell in cells}
        cells += [_Cell(k, row, places[name], "" if places[name] in named else name) for name, k in of_row.items()]
    return _Layout(cells, list(by_row), len(by_row), len(places))


def _one_after_the_other(rdms: RDMs, one_row: int) -> _Layout:
    """In one row, else in a page's proportions."""
    n_columns = rdms.n_rdm if rdms.n_rdm <= one_row else max(one_row, round((rdms.n_rdm * one_row / 5) ** 0.5))
    cells = [_Cell(k, k // n_columns, k % n_columns, title) for k, title in enumerate(titles(rdms))]
    n_rows = -(-rdms.n_rdm // n_columns)
    return _Layout(cells, [""] * n_rows, n_rows, n_columns)


def _networks(rdms: RDMs) -> _Layout:
    cells = _by_descriptors(rdms, "network", "layer")
    sides = {name: cells.pop(name) for name in (_LEFT, _RIGHT) if name in cells}
    if not cells:
        raise ValueError(f"the RDM grid needs the RDMs of at least one network besides {_LEFT} and {_RIGHT}")
    layers = list(next(iter(cells.values())))
    left = int(_LEFT in sides)
    n_columns = max(len(of_network) for of_network in cells.values())
    placed = [_Cell(k, None, 0, _LEFT) for k in sides.get(_LEFT, {}).values()]
    for row, of_network in enumerate(cells.values()):
        has_own = not set(of_network) <= set(layers)
        of_row = list(of_network) if has_own else layers
        for layer, k in of_network.items():
            title = (_spaced(layer) or "output") if row == 0 or has_own else ""
            placed.append(_Cell(k, row, left + of_row.index(layer), title))
    n_columns += left
    placed += [_Cell(k, None, n_columns, _RIGHT) for k in sides.get(_RIGHT, {}).values()]
    return _Layout(placed, [_spaced(name) for name in cells], len(cells), n_columns + int(_RIGHT in sides))


def _by_descriptors(rdms: RDMs, rows: str | None, columns: str | None) -> dict[str, dict[str, int]]:
    """row -> column -> which RDM."""
    cells: dict[str, dict[str, int]] = {}
    row_of, column_of = (rdm_descriptor(rdms, name) if name else [""] * rdms.n_rdm for name in (rows, columns))
    for k, (row, column) in enumerate(zip(row_of, column_of, strict=True)):
        of_row = cells.setdefault(row, {})
        if column in of_row:
            raise ValueError(_twice(rdms, {rows: row, columns: column}, [of_row[column], k]))
        of_row[column] = k
    return cells


def _twice(rdms: RDMs, place: dict[str | None, str], both: Sequence[int]) -> str:
    where = " and ".join(f"{name} '{value}'" for name, value in place.items() if name)
    kept, _ = group_rdms(rdms, [name for name in place if name])
    differ = [name for name in kept if len({str(rdms.rdm_descriptors[name][k]) for k in both}) > 1]
    remedy = "leave one out"
    if differ:
        how = ", ".join(f"{name}='{rdms.rdm_descriptors[name][both[1]]}'" for name in differ)
        remedy = f"they differ in {', '.join(differ)}; choose one, e.g. brainrdl.rdms.select_rdms(rdms, {how})"
    return f"RDMs {both[0]} and {both[1]} have the same place, {where}: {remedy}"


class _Size(NamedTuple):
    """Inches. upright: whether the rows' names are written upright, beside the row, or across."""

    width: float
    height: float
    side: float
    upright: bool


def _measured(layout: _Layout, sides: Sides, shades: Shades, width: float) -> _Size:
    """The largest RDMs that fit, with what stands around them."""
    words = [word for name in layout.names for word in name.split()]
    longest = max((text_width(word, _ROW_NAME) for word in words), default=0)
    across = max((text_width(name, _ROW_NAME) for name in layout.names), default=0) + 0.08 if longest else 0
    named = {cell.row for cell in layout.cells if cell.title and cell.row is not None}
    beside = sides.longest() + STRIP + STRIP_GAP
    below = sides.longest() + STRIP + bar_height(shades, width) + key_height(sides, width) + 0.04
    most = _MOST_HEIGHT - below

    def side_with(names: float) -> float:
        room = (width - beside - names) / layout.n_columns - _GAP
        room = min(side_within(len(sides.pictures), room, layout.n_columns), _LARGEST)
        high = (most - _TITLE * len(named)) / layout.n_rows - _GAP
        return min(room, high - range_height(shades, min(room, high)))

    lines = max(len(_lines(name, side_with(0.3))) for name in layout.names)
    side = side_with(0.14 * lines + 0.06 if longest else 0)
    upright = longest <= side
    if not upright:
        side = side_with(across)
    around = sides.reach(side)
    below += sides.below(side) - sides.longest()
    names = (0.14 * lines + 0.06 if upright else across) if longest else 0
    total = layout.n_columns * (side + sides.overhang(side) + _GAP) + beside + names + around
    of_row = side + sides.overhang(side) + _GAP + range_height(shades, side)
    height = layout.n_rows * of_row + _TITLE * len(named) + below + around
    return _Size(min(max(total, width / 2), width), height, side, upright)


def _name_row(ax: Axes, name: str, size: _Size, pictures: float) -> None:
    """pictures: inches that they take up on the left."""
    across: dict[str, Any] = {} if size.upright else {"rotation": 0, "ha": "right", "va": "center"}
    text = "\n".join(_lines(name, size.side)) if size.upright else name
    ax.set_ylabel(text, fontsize=_ROW_NAME, labelpad=3 + 72 * pictures, **across)


def _lines(name: str, room: float) -> list[str]:
    """A name in lines that fit into `room` inches."""
    letters = max(int(room / text_width("n", _ROW_NAME)), 1)
    return fill(name, letters, break_long_words=False).splitlines() or [""]


def _spaced(name: str) -> str:
    return name.replace("_", " ")
