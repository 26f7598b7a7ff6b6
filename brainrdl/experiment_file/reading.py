"""Experiment files as they are read, before they are checked."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from brainrdl.settings import plain, read_value, read_yaml


class RawExperiment(NamedTuple):
    """What a file says, not checked yet. file: what messages call it."""

    settings: dict[str, Any]
    file: str


def read_experiment(
    source: str | Path, changes: Iterable[str] = (), methods: Iterable[str] = (), seeds: Iterable[int] = ()
) -> RawExperiment:
    """Read a file or a built-in by name, with `changes` ("key.path=value") and only the chosen methods and seeds.

    Raises ValueError where there is no such file, change or method.
    """
    raw, file = _read(source)
    raw = _each_its_own(raw)
    for change in changes:
        _change(raw, change, file)
    labels = list(methods)
    of_file = raw.get("methods")
    if not isinstance(of_file, dict) or not of_file:
        raise ValueError(f"{file}: methods: expected at least one 'label: settings', got {of_file!r}")
    for label in labels:
        if label not in of_file:
            raise ValueError(f"{file}: no method '{label}'; it has: {', '.join(map(str, of_file))}")
    raw["methods"] = {str(label): of_file[label] for label in labels or of_file}
    if labels and isinstance(search := raw.get("search"), dict) and isinstance(spaces := search.get("methods"), dict):
        search["methods"] = {label: space for label, space in spaces.items() if label in labels or label not in of_file}
    if given := list(seeds):
        raw["seeds"] = given
    return RawExperiment(raw, file)


def built_in_experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    folder = resources.files("brainrdl") / "experiments"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _read(source: str | Path) -> tuple[dict[str, Any], str]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return read_yaml(path), str(path)
    if str(source) not in built_in_experiments():
        raise ValueError(
            f"no experiment '{source}': expected a YAML file or one of {', '.join(built_in_experiments())}"
        )
    with resources.as_file(resources.files("brainrdl") / "experiments" / f"{source}.yaml") as file:
        return read_yaml(file), f"{source}.yaml"


def _each_its_own(settings: Any) -> Any:
    """Settings in which nothing is shared: what an alias of YAML stands for is one object in several places."""
    if isinstance(settings, dict):
        return {key: _each_its_own(value) for key, value in settings.items()}
    return [_each_its_own(value) for value in settings] if isinstance(settings, list) else settings


def _change(raw: dict[str, Any], change: str, file: str) -> None:
    path, equals, value = change.partition("=")
    keys, told = path.strip().split("."), f"--set {plain(change, 100)}"
    if not equals or not all(keys):
        raise ValueError(f"{told}: expected key.path=value, such as training.epochs=5")
    place = raw
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise ValueError(f"{told}: '{key}' in {file} holds a value, no settings")
    try:
        place[keys[-1]] = read_value(value)
    except ValueError as error:
        raise ValueError(
            f"{told}: '{plain(value, 60)}' is no YAML value ({str(error).partition(': ')[2]}); quote it"
        ) from None
