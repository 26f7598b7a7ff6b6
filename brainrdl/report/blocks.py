"""What a report says, piece by piece: written once, as Markdown for results.md and as a page for report.html."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pandas as pd

from brainrdl.analysis.figures.style import save_figure

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

NONE = "—"  # not defined


class Heading(NamedTuple):
    """The title of a section."""

    text: str


class Paragraph(NamedTuple):
    """Sentences; here as in all texts `code` and **strong** are as in Markdown."""

    text: str


class Bullets(NamedTuple):
    """A list."""

    items: tuple[str, ...]


class Table(NamedTuple):
    """A frame of texts, as it is to be read."""

    frame: pd.DataFrame


class Picture(NamedTuple):
    """A figure: its name, what it shows, a PNG for the page, and the files that were written."""

    name: str
    caption: str
    png: bytes
    files: tuple[Path, ...]


Block: TypeAlias = Heading | Paragraph | Bullets | Table | Picture


def picture(figure: Figure, out: Path, name: str, caption: str, formats: Sequence[str]) -> Picture:
    """Write a figure to OUT/NAME in all formats; for the page it has 256 colours and a third of the size."""
    files = save_figure(figure, out / name, formats)
    png = next((path for path in files if path.suffix == ".png"), None)
    if png is not None:
        return Picture(name, caption, _in_256_colours(png), files)
    with TemporaryDirectory() as place:
        (shown,) = save_figure(figure, Path(place) / name, ("png",))
        return Picture(name, caption, _in_256_colours(shown), files)


def _in_256_colours(png: Path) -> bytes:
    from PIL.Image import Dither, Quantize
    from PIL.Image import open as open_image

    content = io.BytesIO()
    with open_image(png) as image:
        few = image.convert("RGB").quantize(256, method=Quantize.MEDIANCUT, dither=Dither.NONE)
        few.save(content, "PNG")
    return content.getvalue()


# What Markdown takes for HTML, for a link and for a link's address, and what is written in its place: an entity is
# never more than a letter. Links of a report's own are to files beside it: [x.md](x.md).
_MARKUP = (
    (re.compile(r"<(?=[A-Za-z/!?])"), "&lt;"),
    (re.compile(r"(?<=\])\((?![\w.-]+\))"), "&#40;"),
    (re.compile(r"^(\s*\[.*?\]):", re.MULTILINE), r"\1&#58;"),
)


def as_markdown(blocks: Iterable[Block]) -> str:
    """The blocks in Markdown; a picture that was not written as PNG is left out.

    What is HTML, or a link to elsewhere, in a name is text.
    """
    return "\n\n".join(text for text in map(_markdown, blocks) if text) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_text(text)}"
        case Paragraph(text):
            return _text(text)
        case Bullets(items):
            return "\n".join(f"- {_text(item)}" for item in items)
        case Table(frame):
            return markdown_table(frame)
        case Picture():
            path = next((path for path in block.files if path.suffix == ".png"), None)
            caption = _text(block.caption)
            return "" if path is None else f"![{caption}]({path.name})\n\n{caption}"


def _text(text: str) -> str:
    """Without HTML and links to elsewhere."""
    for markup, entity in _MARKUP:
        text = markup.sub(entity, text)
    return text


def markdown_table(table: pd.DataFrame) -> str:
    """The table in Markdown, its cells as they are, but without HTML and links to elsewhere."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(_text(str(cell)).replace("|", "\\|") for cell in row) + " |" for row in rows)


def inline(text: object) -> Markup:
    """A text of a block as HTML: `code` and **strong**, and nothing else; what is HTML in it is shown as it stands."""
    from markupsafe import Markup, escape

    escaped = str(escape(str(text)))
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    strong = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return Markup(strong)  # nosec B704 # escaped above
