"""What a file in data_specs/ says of a data set, and where the data lie."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

Model = TypeVar("Model", bound=BaseModel)


class Source(BaseModel):
    """Where a data set comes from: plain text for people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    publisher: str = ""
    url: str = ""
    licence: str = ""
    citation: str = ""


class DataSpec(BaseModel):
    """What a data spec (YAML) says.

    name: stands in every stimulus id. format: which reader it takes. folder: where the data lie, relative to
    the data root; of an image folder in a file of one's own, relative to that file. size: (height, width) in
    pixels. channels: 1 grey, 3 colour. classes: their names in the labels' order; an image folder's are those
    of its subfolders. max_gib: up to this size an image folder is kept in memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w.-]+$")
    title: str = ""
    format: Literal["digits", "mnist", "cifar10", "cifar100", "image_folder"]
    folder: str = "."
    size: tuple[PositiveInt, PositiveInt] | None = None
    channels: Literal[1, 3] = 3
    classes: tuple[str, ...] | None = None
    max_gib: float = Field(default=4, ge=0)
    source: Source = Source()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.format == "image_folder":
            if self.classes is not None:
                raise ValueError("an image_folder's classes are the names of its subfolders; leave out 'classes'")
            if "folder" not in self.model_fields_set:
                raise ValueError("an image_folder needs 'folder'")
        elif self.size is None or not self.classes:
            raise ValueError(f"format '{self.format}' needs 'size' and 'classes'")
        return self


def load_spec(name_or_path: str | Path) -> DataSpec:
    """The data spec of a built-in's name, of a YAML file, or of a folder of images as it is.

    Raises ValueError, naming file and field, where it is not there or not as `DataSpec` says.
    """
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name in spec_names():
        return _parse(files("brainrdl.data_specs").joinpath(f"{name}.yaml").read_text("utf-8"), f"data spec '{name}'")
    if path.is_dir():
        folder = path.resolve()
        return DataSpec(name=re.sub(r"[^\w.-]", "_", folder.name), format="image_folder", folder=str(folder))
    if not path.is_file():
        close = get_close_matches(name, spec_names(), n=1)
        nearest = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(
            f"data spec '{name}' is no file, no folder and no built-in; {nearest}built in: {', '.join(spec_names())}"
        )
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data spec '{path}' cannot be read as text: {error}") from error
    spec = _parse(text, f"data spec '{path}'")
    if spec.format == "image_folder":
        return spec.model_copy(update={"folder": str(path.resolve().parent / Path(spec.folder).expanduser())})
    return spec


def spec_names() -> tuple[str, ...]:
    """The built-in data specs."""
    entries = files("brainrdl.data_specs").iterdir()
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml")))


def data_root() -> Path:
    """Where data sets are looked for: $BRAINRDL_DATA, else a folder in the user's cache."""
    if given := os.environ.get("BRAINRDL_DATA"):
        return Path(given).expanduser()
    from pooch import os_cache

    return Path(os_cache("brainrdl"))


def schema() -> dict[str, Any]:
    """The JSON schema of a data spec."""
    return DataSpec.model_json_schema()


def validated(model: type[Model], values: object, what: str) -> Model:
    """`values`, read from a file, as a pydantic model; otherwise ValueError with one short message.

    what: names the file. The message names the field, and for an unknown one the nearest that is known.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{what}: expected 'key: value' lines, got {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as failed:
        errors = failed.errors()
        # A misspelled key is also missing under its right name: the misspelling is what helps.
        error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
        field = ".".join(str(step) for step in error["loc"])
        if error["type"] == "extra_forbidden":
            known = _keys_beside(model, error["loc"])
            close = get_close_matches(str(error["loc"][-1]), known, n=1)
            told = f"'{field}' is no key; {f'did you mean {close[0]!r}? ' if close else ''}known: {', '.join(known)}"
        elif error["type"] == "missing":
            told = f"'{field}' is missing"
        elif error["type"] == "value_error":
            told = f"{f'{field!r}: ' if field else ''}{error['ctx']['error']}"
        else:
            told = f"'{field}': {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"
        raise ValueError(f"{what}: {told}") from None


def _keys_beside(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where the last step of `path` stands."""
    found: Any = model
    for step in path[:-1]:
        if _is_model(found):
            found = found.model_fields[str(step)].annotation
        else:  # an index into a list or a key of a mapping
            found = [part for part in get_args(found) if part is not Ellipsis][-1]
        found = next((part for part in get_args(found) if _is_model(part)), found) if _is_union(found) else found
    return list(found.model_fields) if _is_model(found) else []


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _parse(text: str, what: str) -> DataSpec:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{what} is no YAML: {' '.join(str(error).split())}") from error
    return validated(DataSpec, values, what)
