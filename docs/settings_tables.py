"""Tables of what may stand in experiment files and data specs, from the models that check them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from docstrings import as_markdown, meanings, taken_apart
from pydantic import BaseModel

from brainrdl.experiment_file import BrainExperiment, Experiment
from brainrdl.objectives.methods import METHODS
from brainrdl.settings import _models_in

Model = type[BaseModel]


class Field(NamedTuple):
    """A key of a file: what it is called, takes, is where left out, and means. default: None where it is required."""

    name: str
    kind: str
    default: str | None
    meaning: str | None


def fields_of(model: Model) -> list[Field]:
    """The keys that the settings of a model may have. meaning: None where no docstring tells it."""
    told: dict[str, str] = {}
    for kind in model.__mro__:
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            told = {**meanings(kind.__doc__ or "", model.model_fields), **told}
    properties = model.model_json_schema()["properties"]
    return [
        Field(name, kind_of(properties[name]), _default(field), told.get(name))
        for name, field in model.model_fields.items()
    ]


def models_below(*models: Model) -> dict[Model, list[str]]:
    """The models, and those of their fields, each with where it stands in a file ("data", "methods.LABEL")."""
    places: dict[Model, list[str]] = {}

    def walk(model: Model, place: str) -> None:
        known = model in places
        places.setdefault(model, []).append(place)
        if known:
            return
        for name, field in model.model_fields.items():
            of_many = "additionalProperties" in json.dumps(model.model_json_schema()["properties"][name])
            for inner in _models_in(field.annotation):
                walk(inner, f"{place}.{name}".lstrip(".") + (".NAME" if of_many else ""))

    for model in models:
        walk(model, "")
    return places


def kind_of(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words, as Markdown; other models are links to their tables."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{heading(name)}](#{anchor(name)})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " · ".join(f"`{value}`" for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(map(kind_of, schema[several])))
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])}: {kind_of(schema['prefixItems'][0])} each"
        case "array":
            return f"list of {_several(kind_of(schema['items']))}" + _bounds(schema)
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"name → {kind_of(schema['additionalProperties'])}" + _bounds(schema)
        case "object":
            return "settings"
        case None:
            return "any value"
        case kind:
            return _WORDS[kind] + _bounds(schema)


_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _several(kind: str) -> str:
    return re.sub(r"^(whole number|number|text)\b", r"\1s", kind)


def _bounds(schema: Mapping[str, Any]) -> str:
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _SIGNS.items() if key in schema]
    bounds += [f"at least {schema[key]}" for key in ("minItems", "minProperties") if key in schema]
    bounds += [f"as `{schema['pattern']}`"] if "pattern" in schema else []
    return f" ({', '.join(bounds)})" if bounds else ""


def _default(field: Any) -> str | None:
    """As it would be written in YAML; None where there is none."""
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"


def anchor(name: str) -> str:
    """What a link to a model's table goes to."""
    return f"settings-{name.lower()}"


def heading(name: str) -> str:
    """A model's name in words: "BrainTeacherSettings" -> "brain teacher"."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", name.removesuffix("Settings"))
    return " ".join(word if word.isupper() else word.lower() for word in words)


def table(model: Model) -> Iterator[str]:
    """The lines of a model's table, in Markdown."""
    yield "| key | takes | left out | meaning |"
    yield "|---|---|---|---|"
    for name, kind, default, meaning in fields_of(model):
        yield f"| `{name}` | {kind} | {default or '**required**'} | {as_markdown(meaning or '')} |"


def section(model: Model, places: list[str]) -> Iterator[str]:
    """A model with its heading, what its docstring says of the whole, and its table."""
    title = heading(model.__name__)
    yield from (f"({anchor(model.__name__)})=", "", f"### {title[0].upper()}{title[1:]}", "")
    stands = [f"`{place}`" for place in dict.fromkeys(places) if place]
    if stands:
        yield from (f"Stands under {', '.join(stands)}.", "")
    for item in taken_apart(model.__doc__ or "", model.model_fields):
        if not item.names:
            yield from (as_markdown(item.text), "")
    yield from (*table(model), "")


def sections(*models: Model, without: Mapping[Model, Any] | None = None) -> str:
    """The tables of models and of those of their fields."""
    places = models_below(*models)
    return "\n".join(
        line for model, where in places.items() if model not in (without or {}) for line in section(model, where)
    )


def experiment_tables() -> str:
    """Everything that an experiment file may say, of both kinds."""
    methods = "\n".join(
        line for name, model in METHODS.items() for line in section(model, [f"methods.LABEL` with `method: {name}"])
    )
    return "\n".join(
        [
            "## With a task, and a network as teacher",
            sections(Experiment),
            "## Methods of these",
            methods,
            "## With measured brains as teachers",
            sections(BrainExperiment, without=models_below(Experiment)),
        ]
    )
