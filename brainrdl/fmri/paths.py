"""Paths with {subject}, {session}, {run} and {hemi} in them, and the runs that are there."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from glob import escape
from itertools import product
from pathlib import Path
from typing import NamedTuple

from brainrdl.data.inside import filled, inside, placeholders


class Run(NamedTuple):
    """A session and a run as they stand in file names; "" where these have none."""

    session: str
    run: str


_ANY = Run("", "")


def fill(pattern: str, folder: Path, subject: str, run: Run = _ANY, hemispheres: Sequence[str] = ()) -> list[Path]:
    """The files of a pattern: one, or where it has {hemi} one a hemisphere.

    Raises ValueError where a name put into it would lead out of the folder.
    """
    values = {"subject": subject, "session": run.session, "run": run.run}
    hemis = hemispheres if "hemi" in placeholders(pattern) else [""]
    return [inside(folder, filled(pattern, {**values, "hemi": hemi}), f"'{pattern}'") for hemi in hemis]


def find_runs(
    pattern: str,
    folder: Path,
    subject: str,
    sessions: Sequence[str] | None = None,
    runs: Sequence[str] | None = None,
    hemispheres: Sequence[str] = (),
) -> list[Run]:
    """The sessions and runs of a subject, in their order; numbers in names count as numbers.

    sessions, runs: every combination of these; where one is left out, what is found on disk.
    Raises ValueError where there is no such file, or none of a given session or run.
    """
    asked = {"session": sessions, "run": runs}
    named = [name for name in asked if name in placeholders(pattern)]
    if all(asked[name] is not None for name in named):
        return [Run(*values) for values in product(*(asked[name] or [""] if name in named else [""] for name in asked))]
    first_hemi = hemispheres[0] if hemispheres else ""
    found = {
        Run(values.get("session", ""), values.get("run", ""))
        for values in _on_disk(pattern, folder, subject, first_hemi)
        if all(given is None or name not in named or values[name] in given for name, given in asked.items())
    }
    for name in named:
        lacking = set(asked[name] or ()) - {getattr(run, name) for run in found}
        if lacking:
            raise ValueError(f"{folder / pattern}: no file of subject '{subject}', {name} '{min(lacking)}'")
    if not found:
        raise ValueError(
            f"no file is named {folder / pattern} for subject '{subject}'; correct the pattern, or fetch them"
        )
    return sorted(found, key=lambda run: [_numbered(part) for part in run])


def _on_disk(pattern: str, folder: Path, subject: str, hemi: str) -> list[dict[str, str]]:
    glob, expression = "", ""
    for text, name, _, _ in string.Formatter().parse(pattern):
        glob += escape(text)
        expression += re.escape(text)
        if name in ("session", "run"):
            glob += "*"
            expression += f"(?P={name})" if f"<{name}>" in expression else f"(?P<{name}>[^/_]+)"
        elif name is not None:
            value = subject if name == "subject" else hemi
            glob += escape(value)
            expression += re.escape(value)
    inside(folder, glob, f"'{pattern}'")
    matches = [re.fullmatch(expression, path.relative_to(folder).as_posix()) for path in folder.glob(glob)]
    return [match.groupdict() for match in matches if match]


def _numbered(text: str) -> list[tuple[int, str]]:
    """A sort key by which run-2 stands before run-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text) if part]
