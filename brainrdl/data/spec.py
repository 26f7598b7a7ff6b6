"""What a file in data_specs/ says of a data set, and where the data lie."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from brainrdl.data.fetch import PublicFile
from brainrdl.data.inside import stays_inside
from brainrdl.settings import Side, read_yaml, validate


class Source(BaseModel):
    """Where a data set comes from: plain text for people.

    publisher: who made it. url: its page. licence: its terms. citation: what to cite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    publisher: str = ""
    url: str = ""
    licence: str = ""
    citation: str = ""


class DataSpec(BaseModel):
    """What a data spec (YAML) says.

    name: stands in every stimulus id. title: one line for people. format: which reader it takes. folder: where the data
    lie, relative to the data root; of an image folder in a file of one's own, relative to that file. size: (height,
    width) in pixels. channels: 1 grey, 3 colour. classes: their names in the labels' order; an image folder's are those
    of its subfolders. max_gib: up to this size an image folder is kept in memory. files: what `brainrdl fetch` brings,
    below folder; instructions: what it prints. source: where the data set comes from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    name: str = Field(pattern=r"^[\w.-]+$")
    title: str = ""
    format: Literal["digits", "mnist", "cifar10", "cifar100", "image_folder"]
    folder: str = "."
    size: tuple[Side, Side] | None = None
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
    if path.is_dir() and name not in spec_names():
        folder = path.resolve()
        return DataSpec(name=re.sub(r"[^\w.-]", "_", folder.name), format="image_folder", folder=str(folder))
    if name in spec_names("brain"):
        raise ValueError(f"'{name}' is a brain data spec; expected one of images: {', '.join(spec_names())}")
    file = read_spec(name_or_path, "images")
    if file.raw.get("kind") == "brain":
        raise ValueError(f"{path} is a brain data spec (kind: brain); expected a data spec of images")
    spec = validate(DataSpec, file.raw, file.what)
    return spec.model_copy(update={"folder": file.below(spec.folder)}) if spec.format == "image_folder" else spec


class SpecFile(NamedTuple):
    """raw: what a data spec's file says. what: its name for messages. folder: where a file of one's own lies."""

    raw: dict[str, Any]
    what: str
    folder: Path | None

    def below(self, folder: str) -> str:
        """A folder that the file names: of one's own file relative to that, of a built-in as it is."""
        return folder if self.folder is None else str(self.folder / Path(folder).expanduser())


def read_spec(name_or_path: str | Path, kind: Literal["images", "brain"]) -> SpecFile:
    """The file of a built-in data spec, or one of one's own. Raises ValueError, with the nearest name, for neither."""
    name, path, known = str(name_or_path), Path(name_or_path).expanduser(), spec_names(kind)
    called, places = ("brain data spec", "no file") if kind == "brain" else ("data spec", "no file, no folder")
    if name in known:
        with as_file(files("brainrdl.data_specs").joinpath(f"{name}.yaml")) as built_in:
            return SpecFile(read_yaml(built_in), f"{called} '{name}'", None)
    if not path.is_file():
        close = get_close_matches(name, known, n=1)
        nearest = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"{called} '{name}' is {places} and no built-in; {nearest}built in: {', '.join(known)}")
    return SpecFile(read_yaml(path), f"{called} '{path}'", path.resolve().parent)


def fetch_folder(name: str, spec_folder: str, into: Path | None) -> Path:
    """Where `fetch` brings the files of a data spec: below the data root, or below the folder of a file of one's own.

    name: a built-in's name, or a file. spec_folder: its `folder`, as `load_spec` gives it. into: in their place.
    Raises ValueError where the spec leads elsewhere and no `into` was given: what a file from elsewhere says must not
    decide where files are written.
    """
    own = Path(name).expanduser().resolve().parent
    folder = Path(os.path.normpath(Path(spec_folder).expanduser()))
    below = folder.relative_to(own) if folder.is_relative_to(own) else folder
    root = into or (own if folder.is_absolute() else data_root())
    if stays_inside(str(below)) or str(below) == ".":
        return root / below
    if into is None:
        raise ValueError(
            f"{name}: folder: expected one below {root}, got '{spec_folder}'; files are written there only, or where "
            "--into says"
        )
    return into


def source_lines(what: str, name: str, title: str, source: Source) -> dict[str, str]:
    """What a description of a data set begins with; "" where the spec does not say. what: the kind of data."""
    return {
        what: f"{name}: {title}" if title else name,
        "from": "; ".join(filter(None, (source.publisher, source.url))),
        "licence": source.licence,
        "cite": source.citation,
    }


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
