"""report.html: one file that holds all it shows."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from brainrdl import __version__
from brainrdl.report.blocks import Block, inline
from brainrdl.report.dots import DotPlot
from brainrdl.report.rdm_view import RDMView, fit_view, view_data
from brainrdl.runs import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

# Of the packed RDMs of all views together, so that a page with plotly's script and figures stays below 15 MB.
_MOST_BYTES = 6_500_000
# Rows; a longer table is folded.
_LONGEST_TABLE = 40


class Explorer(NamedTuple):
    """Where the RDMs of the page's views are looked into."""


class LiveCurves(NamedTuple):
    """Where the page's curves are drawn."""


class Section(NamedTuple):
    """A part of the page."""

    title: str
    blocks: Sequence[Block | DotPlot | Explorer | LiveCurves]


@dataclass(frozen=True)
class Page:
    """What report.html says.

    kind: of report, a few words above the title. question: what the run asks. status: what is not finished. facts: name
    -> value, for the head of the page. views: of RDMs, where a section has an `Explorer`. curves: of `LiveCurves`, as
    `brainrdl.report.live_curves` makes them.
    """

    kind: str
    title: str
    question: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    status: Sequence[str] = ()
    views: Sequence[RDMView] = ()
    curves: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def write_page(page: Page, path: Path) -> None:
    """Write the page, whole or not at all; it opens without any other file and makes no request."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML; names and ids are text in it, whatever they are made of."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("brainrdl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        kind=lambda block: type(block).__name__,
        inline=inline,
        base64=lambda content: base64.b64encode(content).decode(),
        number=lambda value: f"{value:g}".replace("-", "−"),
    )
    share = _MOST_BYTES // max(1, len(page.views))
    views = [view_data(fit_view(view, share)) for view in page.views]
    scripted = bool(views or page.curves)
    scripts = (get_plotlyjs(), _own_file("report.js")) if scripted else ()
    text: str = environment.get_template("report.html.jinja").render(
        page=page,
        version=__version__,
        data={"views": views, "curves": page.curves or None},
        longest_table=_LONGEST_TABLE,
        css=_trusted(_own_file("report.css")),
        scripts=[_trusted(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
    )
    return text


def _own_file(name: str) -> str:
    return files("brainrdl.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """By which the page's policy knows a script: a browser runs no other, whatever stood in a name."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _trusted(text: str) -> Markup:
    """A script or style sheet of ours or plotly's, as it stands."""
    from markupsafe import Markup

    return Markup(text)  # nosec B704 # files of the package and plotly's
