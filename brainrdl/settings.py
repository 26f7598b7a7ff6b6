"""Settings read from YAML files, their mistakes told in one short message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

# What pydantic calls by Python's names, by its types of mistake.
_KINDS = {
    "tuple_type": "a list such as [...]",
    "list_type": "a list such as [...]",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "settings (key: value)"),
}


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which the first would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            told = (key.tag, str(key.value))
            if told in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
            seen.add(told)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises ValueError naming the file, and the line where it is no YAML."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a YAML text file in UTF-8, got bytes that are not") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise ValueError(f"{path}: not valid YAML{line}: {problem}; check indentation, colons and quotes") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected 'key: value' lines, got {_kind(value)}")
    return value


def dump_yaml(value: Mapping[str, Any]) -> str:
    """The mapping as YAML, its keys in their order."""
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)


def validate(model: type[Model], raw: Mapping[str, Any], file: str, where: str = "") -> Model:
    """The settings in `raw`, checked. Raises ValueError for the first mistake: file, field, expected, received.

    An unknown key is refused with the nearest known one. where: the field that `raw` stands under.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        # A misspelt key is told before the key that it leaves missing.
        first = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")[0]
        location = _without_tags(model, raw, first["loc"])
        field = ".".join([*([where] if where else []), *location])
        if first["type"] == "extra_forbidden":
            known = _fields_at(model, location[:-1])
            close = get_close_matches(location[-1], known, n=1)
            nearest = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            message = f"{field}: unknown key; {nearest}"
        elif first["type"] == "missing":
            message = f"{field}: missing; add it"
        else:
            told = first["msg"].removeprefix("Value error, ")
            if first["type"] in _KINDS:
                told = f"Input should be {_KINDS[first['type']]}"
            given = first.get("input")
            # Of settings as a whole the mistake alone is told.
            got = f", got {_short(given)}" if location and not isinstance(given, Mapping) else ""
            if first["type"] == "string_type" and isinstance(given, bool | int | float | date):
                got += "; put it in quotes"
            message = f"{field}: {told[0].lower() + told[1:]}{got}" if field else told
        raise ValueError(f"{file}: {message}") from None


def _without_tags(model: type[BaseModel], raw: Mapping[str, Any], location: Sequence[str | int]) -> list[str]:
    """The location as it stands in the file: pydantic also names which kind of several was tried ("data.bold.t_r")."""
    kept: list[str] = []
    value: Any = raw
    for k, part in enumerate(location):
        there = part in value if isinstance(value, Mapping) else isinstance(part, int)
        missing = k == len(location) - 1 and isinstance(value, Mapping) and str(part) in _fields_at(model, kept)
        if there or missing or k == 0:
            kept.append(str(part))
        if there:
            value = value[part]
    return kept


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """The known keys of the settings at a location, as far as the models tell."""
    models = [model]
    for part in location:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        # A part of the location that is no field is the key of a dict, or the position in a list.
        models = [inner for field in fields for inner in _models_in(field.annotation)] or models
    return sorted({name for m in models for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for part in get_args(annotation) for inner in _models_in(part)]


def _kind(value: Any) -> str:
    return "an empty file" if value is None else f"a {type(value).__name__}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
