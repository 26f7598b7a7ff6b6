"""Many RDMs: networks by layers between the pixels' and the labels' (Fig. 3, McClure & Kriegeskorte 2016), or any."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from brainrdl.analysis.figures.rdm import check_drawable, draw_rdm, titles
from brainrdl.analysis.figures.rdm_colours import Shades, add_bar, bar_height, range_height, shade
from brainrdl.analysis.figures.rdm_sides import STRIP, STRIP_GAP, Sides, add_key, arrange, draw_sides, key_height
from brainrdl.analysis.figures.style import MILLIMETRE, PAGE, WIDTHS, Width, check_width, new_figure, print_style
from brainrdl.analysis.figures.text import LINE, SMALL, TITLE, fitted, text_width
from brainrdl.analysis.figures.thumbnails import side_within
from brainrdl.rdms.selection import group_rdms, rdm_descriptor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs

    from brainrdl.data.thumbnails import Thumbnails

# Inches: the largest RDM; between RDMs; a title.
_LARGEST = 60 * MILLIMETRE
_GAP = 0.06
_TITLE = 0.17
# Of a page's width a figure takes all where it takes so much.
_NEARLY = 0.75
# An RDM that is smaller shows nothing.
_SMALLEST_SIDE = 4 * MILLIMETRE
_TITLE_LINE = 0.1
# Points: names of rows, and what they shrink to; inches of a line for each point.
_ROW_NAME = 7.5
_SMALLER_NAMES = (6.5, 5.5)
_LINE_HEIGHT = 1.3 / 72
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

    NaN (not measured) is hatched.

    rdms: any RDMs over the same stimuli. rows, columns: rdm_descriptors, such as subject and roi, of which each
    combination stands once at most; one of them: a column or a row. None: network and layer where the RDMs have both:
    then "pixels" stand on the left, "labels" on the right, layers in the first network's order, and a network with
    other layer names has its own above its RDMs. Otherwise RDMs stand in their order under what tells them apart.
    scale: "percentile" (ranks) or "raw" (dissimilarities without the diagonal's zeros). shared: ranks or limits over
    all RDMs together; else each RDM's own, and with "raw" its range stands below it.
    sort_by, thumbnails: as in `rdm.plot`, at the outer sides. width: "single" (85 mm) or "double" (180 mm).
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
        grid = figure.add_gridspec(layout.n_rows, layout.n_columns)
        axes: list[Axes] = []
        for cell in layout.cells:
            # What stands at a side belongs to all rows.
            place = grid[:, cell.column] if cell.row is None else grid[cell.row, cell.column]
            ax = figure.add_subplot(place)
            draw_rdm(ax, shades, cell.k, sides, size.side, size.titles[cell.title], size.fontsize)
            below = cell.row is None or cell.row == layout.n_rows - 1
            draw_sides(ax, sides, size.side, left=cell.column == 0, below=below, lower=range_height(shades, size.side))
            if cell.row is not None and layout.first_in_row(cell):
                pictures = sides.reach(size.side) if cell.column == 0 else 0
                _name_row(ax, cell.row, size.names, pictures)
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


class _Names(NamedTuple):
    """Rows' names as written: in lines, of `fontsize`, beside their RDMs upright or across; room: inches, of width."""

    texts: list[str]
    fontsize: float
    upright: bool
    room: float


class _Size(NamedTuple):
    """Of the figure and an RDM's side, in inches; the rows' names and the titles as they fit then."""

    width: float
    height: float
    side: float
    names: _Names
    titles: dict[str, str]
    fontsize: float


def _measured(layout: _Layout, sides: Sides, shades: Shades, width: float) -> _Size:
    """The largest RDMs that fit, with what stands around them. Raises ValueError where they would be too small."""
    named = {cell.row for cell in layout.cells if cell.title and cell.row is not None}
    beside = sides.longest() + STRIP + STRIP_GAP
    around = STRIP + bar_height(shades, width) + key_height(sides, width) + 0.04
    titles_height = _TITLE

    def side_with(names: float) -> float:
        room = (width - beside - names) / layout.n_columns - _GAP
        room = min(side_within(len(sides.pictures), room, layout.n_columns), _LARGEST)
        below = around + max(sides.longest(), LINE * bool(sides.longest()))
        high = (PAGE - below - titles_height * len(named)) / layout.n_rows - _GAP
        return min(room, high - range_height(shades, min(room, high)))

    side = side_with(0)
    if side >= _SMALLEST_SIDE:
        texts, fontsize, n_lines = _fitted_titles({cell.title for cell in layout.cells}, side_with(0.25))
        titles_height += (n_lines - 1) * _TITLE_LINE
        names = _fitted_names(layout.names, width, side_with)
        side = side_with(names.room)
    if side < _SMALLEST_SIDE:
        raise ValueError(_too_many(layout, width))
    texts, fontsize, _ = _fitted_titles({cell.title for cell in layout.cells}, side, n_lines)
    of_one = side + sides.overhang(side) + _GAP
    total = layout.n_columns * of_one + beside + names.room + sides.reach(side)
    height = layout.n_rows * (of_one + range_height(shades, side)) + titles_height * len(named)
    height += around + sides.below(side) + sides.reach(side)
    # As wide as one column of print or two, or clearly narrower than two.
    total = width if total > _NEARLY * width else max(total, WIDTHS["single"])
    return _Size(total, height, side, names, texts, fontsize)


def _too_many(layout: _Layout, width: float) -> str:
    wider = ", or one of two columns of print (width='double')" if width < WIDTHS["double"] else ""
    return (
        f"{layout.n_rows} rows and {layout.n_columns} columns of RDMs do not fit on a page, {width / MILLIMETRE:.0f} "
        f"by {PAGE / MILLIMETRE:.0f} mm: each would be smaller than {_SMALLEST_SIDE / MILLIMETRE:.0f} mm; draw fewer "
        f"(brainrdl.rdms.select_rdms), several figures{wider}"
    )


def _fitted_titles(titles: Collection[str], side: float, n_lines: int = 2) -> tuple[dict[str, str], float, int]:
    """Titles as written, their size (points) and lines: one where that is legible, else two, shortened at last."""
    longest = max((text_width(title, SMALL) for title in titles), default=0)
    if longest <= side or n_lines == 1:
        lines = {title: title for title in titles}
    else:
        lines = {title: "\n".join(_lines(title, side, SMALL, 2)) for title in titles}
    fontsize = min((fitted(text, side, TITLE)[1] for text in lines.values()), default=TITLE)
    return lines, fontsize, 1 + max((text.count("\n") for text in lines.values()), default=0)


def _fitted_names(names: Sequence[str], width: float, side_with: Callable[[float], float]) -> _Names:
    """Upright, in the largest letters that fit along an RDM; else across, in few lines, shortened at last."""
    if not any(names):
        return _Names(list(names), _ROW_NAME, True, 0)
    for fontsize in (_ROW_NAME, *_SMALLER_NAMES):
        room = 0.0
        for _ in range(2):  # more lines make the RDMs smaller, which may take one more
            lines = [_lines(name, side_with(room), fontsize) for name in names]
            room = _LINE_HEIGHT * fontsize * max(map(len, lines)) + 0.06
        side = side_with(room)
        if all(text_width(line, fontsize) <= side for of_name in lines for line in of_name):
            return _Names(["\n".join(of_name) for of_name in lines], fontsize, True, room)
    fontsize = _SMALLER_NAMES[0]
    most = width / 5
    words = max(text_width(word, fontsize) for name in names for word in name.split())
    for room in (min(words, most), most):
        n_lines = max(int(side_with(room + 0.08) / (_LINE_HEIGHT * fontsize)), 1)
        if all(len(_lines(name, room, fontsize)) <= n_lines for name in names):
            break
    texts = ["\n".join(_lines(name, room, fontsize, n_lines)) for name in names]
    texts = [fitted(text, room, fontsize)[0] if text else "" for text in texts]
    sizes = [fitted(text, room, fontsize)[1] for text in texts]
    longest = max(text_width(line, min(sizes)) for text in texts for line in text.splitlines())
    return _Names(texts, min(sizes), False, longest + 0.08)


def _name_row(ax: Axes, row: int, names: _Names, pictures: float) -> None:
    """pictures: inches that they take up on the left."""
    across: dict[str, Any] = {} if names.upright else {"rotation": 0, "ha": "right", "va": "center"}
    ax.set_ylabel(names.texts[row], fontsize=names.fontsize, labelpad=3 + 72 * pictures, linespacing=1.1, **across)


def _lines(name: str, room: float, fontsize: float, most: int | None = None) -> list[str]:
    """A name in lines that fit into `room` inches, broken between its parts; the last of `most` lines is longer."""
    lines = [""]
    for piece in re.split(r"(?<=[ ./_,-])", name):
        full = most is not None and len(lines) == most
        if lines[-1] and not full and text_width((lines[-1] + piece).rstrip(), fontsize) > room:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _spaced(name: str) -> str:
    return name.replace("_", " ")
