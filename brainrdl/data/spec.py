"""What a file in data_specs/ says of a data set, and where the data lie."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationInfo, field_validator

from brainrdl.data.fetch import PublicFile
from brainrdl.settings import read_yaml, validate


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
    of its subfolders. max_gib: up to this size an image folder is kept in memory. files: what `brainrdl fetch` brings,
    below folder; instructions: what it prints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    name: str = Field(pattern=r"^[\w.-]+$")
    title: str = ""
    format: Literal["digits", "mnist", "cifar10", "cifar100", "image_folder"]
    folder: str = "."
    size: tuple[PositiveInt, PositiveInt] | None = None
    channels: Literal[1, 3] = 3
    classes: tuple[str, ...] | None = None
    max_gib: float = Field(default=4, ge=0)
    files: tuple[PublicFile, ...] = ()
    instructions: str = ""
    source: Source = Source()

    @field_validator("size", "classes")
    @classmethod
    def _fits_the_format(cls, value: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        kind = info.data.get("format")  # None where the format itself is wrong
        if kind == "image_folder" and info.field_name == "classes" and value is not None:
            raise ValueError("an image_folder's classes are the names of its subfolders; leave it out")
        if kind not in (None, "image_folder") and not value:
            raise ValueError(f"format '{kind}' needs it")
        return value


def load_spec(name_or_path: str | Path) -> DataSpec:
    """The data spec of a built-in's name, of a YAML file, or of a folder of images as it is.

    Raises ValueError, naming file and field, where it is not there or not as `DataSpec` says.
    """
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name in spec_names():
        with as_file(files("brainrdl.data_specs").joinpath(f"{name}.yaml")) as built_in:
            return validate(DataSpec, read_yaml(built_in), f"data spec '{name}'")
    if path.is_dir():
        folder = path.resolve()
        return DataSpec(name=re.sub(r"[^\w.-]", "_", folder.name), format="image_folder", folder=str(folder))
    if name in spec_names("brain"):
        raise ValueError(f"'{name}' is a brain data spec; expected one of images: {', '.join(spec_names())}")
    if not path.is_file():
        close = get_close_matches(name, spec_names(), n=1)
        nearest = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(
            f"data spec '{name}' is no file, no folder and no built-in; {nearest}built in: {', '.join(spec_names())}"
        )
    raw = read_yaml(path)
    if raw.get("kind") == "brain":
        raise ValueError(f"{path} is a brain data spec (kind: brain); expected a data spec of images")
    spec = validate(DataSpec, raw, f"data spec '{path}'")
    if spec.format == "image_folder":
        return spec.model_copy(update={"folder": str(path.resolve().parent / Path(spec.folder).expanduser())})
    return spec


def spec_names(kind: Literal["images", "brain"] = "images") -> tuple[str, ...]:
    """The built-in data specs: of images, or those with the line `kind: brain`."""
    entries = [entry for entry in files("brainrdl.data_specs").iterdir() if entry.name.endswith(".yaml")]
    brain = {entry.name for entry in entries if re.search(r"^kind: *brain\b", entry.read_text("utf-8"), re.MULTILINE)}
    chosen = [entry.name for entry in entries if (entry.name in brain) == (kind == "brain")]
    return tuple(sorted(name.removesuffix(".yaml") for name in chosen))


def data_root() -> Path:
    """Where data sets are looked for: $BRAINRDL_DATA, else a folder in the user's cache."""
    if given := os.environ.get("BRAINRDL_DATA"):
        return Path(given).expanduser()
    from pooch import os_cache

    return Path(os_cache("brainrdl"))


def schema() -> dict[str, Any]:
    """The JSON schema of a data spec."""
    return DataSpec.model_json_schema()
