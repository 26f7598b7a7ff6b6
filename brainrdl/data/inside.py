"""Paths that a spec, a table or an archive names: they stay below the data set's folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Annotated, Any

from pydantic import AfterValidator

# What may follow a name in braces: how many digits. Any width at all would let a short text fill the memory.
_FORMAT = re.compile(r"(0?[0-9]{1,2}d?)?")


def stays_inside(name: str) -> bool:
    """Whether a path stays below the folder it is relative to, on any system; links on disk are not followed."""
    name = name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and re.match("/|[A-Za-z]:", name) is None


def inside(folder: Path, name: str, what: str) -> Path:
    """The file `name` below a data set's folder. what: what names it, for the message.

    A link below the folder may lead anywhere: whoever keeps the data set made it. Raises ValueError where `name` is
    absolute or leads upwards.
    """
    if not stays_inside(name):
        raise ValueError(
            f"{what}: expected a path below the data set's folder {folder}, got '{name}'; put the file there, or a "
            "link to it, or set `folder` in the spec to a folder that holds both"
        )
    return folder / name


def placeholders(pattern: str) -> set[str]:
    """The names in braces. Raises ValueError for more than a name and a number of digits ("{number:02d}")."""
    names = set()
    for _, name, digits, conversion in Formatter().parse(pattern):
        if name is not None:
            if conversion or not _FORMAT.fullmatch(digits or ""):
                raise ValueError(f"'{name}' in braces: expected a name, or with its number of digits as {{{name}:02d}}")
            names.add(name)
    return names


def filled(pattern: str, values: Mapping[str, Any]) -> str:
    """The pattern with the values of its names in braces; nothing of a value is looked into.

    Raises KeyError for a name without a value, ValueError as `placeholders` and where digits are asked of a text.
    """
    placeholders(pattern)
    parts = []
    for text, name, digits, _ in Formatter().parse(pattern):
        parts += [text] if name is None else [text, format(values[name], digits or "")]
    return "".join(parts)


def _checked(name: str) -> str:
    if not stays_inside(name):
        raise ValueError(
            "expected a path below the data set's folder; put the file there, or a link to it, or set `folder` to a "
            "folder that holds both"
        )
    return name


def _checked_name(name: str) -> str:
    if name and not stays_inside(name):
        raise ValueError("expected a name as it stands in paths below the data set's folder")
    return name


InsidePath = Annotated[str, AfterValidator(_checked)]
"""A field of a spec: a path below the data set's folder."""
NameInPath = Annotated[str, AfterValidator(_checked_name)]
"""A field of a spec: what is put into a path."""
