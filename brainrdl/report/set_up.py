"""What a run was made of and with, for the page: settings, versions, and what to cite."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from brainrdl import __version__
from brainrdl.data.spec import read_spec, spec_names
from brainrdl.notes import run_notes
from brainrdl.report.blocks import NONE, Bullets, Paragraph, Table
from brainrdl.report.page import Section
from brainrdl.run_folder import ENVIRONMENT, check_noted
from brainrdl.runs import read_json

_ARTICLE = (
    "McClure, P. and Kriegeskorte, N. (2016). Representational Distance Learning for Deep Neural Networks. "
    "Frontiers in Computational Neuroscience 10:131. doi:10.3389/fncom.2016.00131"
)
# A path of the machine says nothing to a reader, and may say what it should not.
_PATH = re.compile(r"^(~|\.{0,2}/|[A-Za-z]:[\\/])")


def environment(folder: Path) -> Mapping[str, Any]:
    """What environment.json holds; nothing where there is none. Raises ValueError where it is damaged."""
    path = folder / ENVIRONMENT
    if path.is_file():
        check_noted(folder, ENVIRONMENT)
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict) or not isinstance(found.get("packages", {}), dict):
        raise ValueError(f"{path}: expected versions by name; delete it, or run the experiment again")
    return found


def environment_facts(folder: Path) -> dict[str, str]:
    """Device, version and day, for the head of the page."""
    known = environment(folder)
    facts = {"Device": known.get("device"), "brainrdl": known.get("brainrdl"), "Run on": str(known.get("written", ""))}
    return {name: str(value)[:10] if name == "Run on" else str(value) for name, value in facts.items() if value}


def environment_lines(folder: Path) -> list[str]:
    """Versions, machine and the command that makes the run again."""
    known = environment(folder)
    lines = [f"Versions and machine: not known; the run has no {ENVIRONMENT}."]
    if known:
        versions = [f"{name} {version}" for name, version in known.get("packages", {}).items()]
        commit = f", commit {str(known['git_commit'])[:10]}" if known.get("git_commit") else ""
        lines = [
            f"Versions: brainrdl {known.get('brainrdl', NONE)}{commit}, Python {known.get('python', NONE)}, "
            f"{', '.join(versions)}.",
            f"Machine: {known.get('device', NONE)}, {known.get('cores', NONE)} cores, {known.get('platform', NONE)}.",
        ]
    name = folder.resolve().name
    again = f"To run it again: `brainrdl run {name}/experiment.yaml --out NEW_FOLDER`; all settings stand in that file."
    return [*lines, again]


def settings_text(settings: Mapping[str, Any] | Any) -> str:
    """Settings in one line: what is not set is left out, and of a path only the name is shown."""
    if isinstance(settings, Mapping):
        parts = {key: settings_text(value) for key, value in settings.items() if value not in (None, {}, [], "")}
        return "; ".join(f"{key}: {f'({text})' if '; ' in text else text}" for key, text in parts.items() if text)
    if isinstance(settings, (list, tuple)):
        return ", ".join(settings_text(value) for value in settings)
    return without_path(str(settings))


def without_path(text: str) -> str:
    """The last part of a path, another text as it is."""
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if _PATH.match(text) else text


def settings_table(named: Mapping[str, Any], first: str) -> Table:
    """A row a thing that has settings."""
    return Table(
        pd.DataFrame({first: list(named), "settings": [settings_text(value) or NONE for value in named.values()]})
    )


def data_title(spec: str, kind: Literal["images", "brain"]) -> str:
    """What a data set is called: a built-in's title, else the spec's name."""
    title = str(read_spec(spec, kind).raw.get("title", "")) if spec in spec_names(kind) else ""
    return title or without_path(spec)


def citation(specs: Iterable[tuple[str, Literal["images", "brain"]]]) -> Section:
    """How to cite the method, the software and the data."""
    items = [f"The method: {_ARTICLE}", f"The software: brainrdl {__version__} (its CITATION.cff), with rsatoolbox."]
    for spec, kind in dict.fromkeys(specs):
        if spec in spec_names(kind):
            source = read_spec(spec, kind).raw.get("source", {})
            if source.get("citation"):
                items.append(f"The data ({spec}): {source['citation']}")
    return Section("How to cite", [Bullets(tuple(items))])


def to_be_known(folder: Path) -> list[Section]:
    """What the run noted of itself: its figures may not mean what they seem to."""
    told = tuple(run_notes(folder))
    return [Section("To be known", [Paragraph(NOTED), Bullets(told)])] if told else []


NOTED = "What the run noted of itself, and what may change the meaning of its figures:"


def left_out(notes: Iterable[str]) -> list[Section]:
    """What could not be shown."""
    told = tuple(notes)
    return (
        [Section("What is left out", [Paragraph("Not drawn or not complete, and why:"), Bullets(told)])] if told else []
    )
