"""Our docstrings taken apart: prose, and what they say of each argument or field ("name: what it is")."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import NamedTuple


class Item(NamedTuple):
    """A part of a docstring. names: what it is about; "Returns" or "Raises KIND"; none: prose, a paragraph."""

    names: tuple[str, ...]
    text: str


def taken_apart(docstring: str, names: Collection[str]) -> list[Item]:
    """The parts of a docstring in their order.

    names: the arguments or fields that it may speak of. Where a sentence begins with one of them and a colon ("name:
    …", "name, other: …", "name (1…5), other (6…9): …"), or with Returns or Raises, an item begins; it ends where the
    next one begins, or with its paragraph.
    """
    return [
        item
        for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring))
        for item in _items(" ".join(paragraph.split()), names)
    ]


def names_of(one: object) -> list[str]:
    """What the docstring of an object may speak of: a callable's arguments, and a class's annotated attributes."""
    names = list(getattr(one, "__annotations__", {})) if inspect.isclass(one) else []
    if callable(one):
        with suppress(TypeError, ValueError):  # a type alias, a class made in C
            names += inspect.signature(one).parameters
    return list(dict.fromkeys(names))


def meanings(docstring: str, names: Collection[str]) -> dict[str, str]:
    """What a docstring says of each of the names, as one text; names it does not speak of are left out."""
    found: dict[str, str] = {}
    for item in taken_apart(docstring, names):
        for name in item.names:
            if name in names:
                found.setdefault(name, item.text)
    return found


def as_field_list(docstring: str, names: Collection[str], links: Mapping[str, str]) -> list[str]:
    """The lines of a docstring as reStructuredText: its prose, then its items as one field list.

    links: what may stand in backticks -> the full name of the object that it is.
    """
    items = taken_apart(docstring, names)
    prose = [as_rst(item.text, links) for item in items if not item.names]
    fields = [f":{_field(name)}: {as_rst(item.text, links)}" for item in items for name in item.names]
    return [*(line for paragraph in prose for line in (paragraph, "")), *fields, ""]


def as_rst(text: str, links: Mapping[str, str] | None = None) -> str:
    """Plain text with `code` in backticks as reStructuredText; all else is meant as it stands."""
    known = links or {}

    def code(name: str) -> str:
        return f":py:obj:`~{known[name]}`" if name in known else f"``{name}``"

    return _marked(text, code, r"[\\*|`]|_(?!\w)", after=r"\ ")


def as_markdown(text: str) -> str:
    """The same as Markdown, for the cell of a table."""
    return _marked(text, lambda name: f"`{name}`".replace("|", r"\|"), r"[\\*|_<>\[\]{}$]", after="")


def _items(paragraph: str, names: Collection[str]) -> Iterator[Item]:
    """Those of one paragraph, which is one line of text."""
    begins = list(_beginning(names).finditer(paragraph))
    if prose := paragraph[: begins[0].start() if begins else None].strip():
        yield Item((), prose)
    for begin, following in zip_longest(begins, begins[1:]):
        text = paragraph[begin.end() : following.start() if following else None].strip()
        if begin["kind"]:
            yield Item((begin["kind"],), text)
            continue
        text = re.sub(r"[;,]$", ".", text)
        for name, more in re.findall(r"(\w+)(?: (\([^()]*\)))?", begin["names"]):
            if name in names:
                yield Item((name,), f"{more[1:-1]}: {text}" if more else text)


def _beginning(names: Collection[str]) -> re.Pattern[str]:
    name = f"(?:{'|'.join(map(re.escape, names))})" if names else "(?!)"
    one = rf"{name}(?: \([^()]*\))?"
    kind = r"Returns|Raises [A-Z]\w+"
    return re.compile(rf"(?:^|(?<=[.;…] ))(?:(?P<names>{one}(?:(?:,| and|, and) {one})*): |(?P<kind>{kind})\b,? )")


def _field(name: str) -> str:
    if name == "Returns":
        return "returns"
    if name.startswith("Raises "):
        return "raises " + name.removeprefix("Raises ").split()[0].rstrip(",")
    return f"param {name}"


def _marked(text: str, code: Callable[[str], str], special: str, after: str) -> str:
    """Text with its code marked by `code`, and with special characters of the rest made plain."""
    parts = re.split(r"`([^`]+)`", text)
    marked = [re.sub(rf"({special})", r"\\\1", part) if k % 2 == 0 else code(part) for k, part in enumerate(parts)]
    for k in range(1, len(marked), 2):  # a letter right before or after the mark would make it none
        if after and marked[k - 1] and (marked[k - 1][-1].isalnum() or marked[k - 1][-1] in "/"):
            marked[k] = after + marked[k]
        if after and marked[k + 1] and marked[k + 1][0].isalnum():
            marked[k + 1] = after + marked[k + 1]
    return "".join(marked)
