"""Images that were shown while a brain was measured, with what is known of each."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from brainrdl.data.image_folder import ImageFiles
from brainrdl.data.inside import InsidePath, filled, inside
from brainrdl.settings import Side, plain
from brainrdl.stimuli import check_unique


class StimulusFiles(BaseModel):
    """What a brain data spec says of its stimuli.

    table: a .tsv or .csv with a row a stimulus: `stimulus` (its id) and whatever is known of it (category, …), relative
    to the data set's folder. ids, n: for stimuli that have no table in their order: a pattern such as
    "stim{number:02d}" for number 1…n; a table, where given, then only adds what is known of each id.
    file: each image's path, relative to the same folder, with {column} for what stands in that column of the table
    ("stimuli/{stimulus}.png"), or {number:02d}; left out: the stimuli have no images here.
    size: (height, width) in pixels to which every image is brought. channels: 1 grey, 3 colour.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: InsidePath | None = None
    ids: str | None = None
    n: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    file: InsidePath | None = None
    size: tuple[Side, Side] = (224, 224)
    channels: Literal[1, 3] = 3

    @model_validator(mode="after")
    def _listed(self) -> StimulusFiles:
        if (self.ids is None) != (self.n is None) or (self.table is None and self.ids is None):
            raise ValueError("expected a table of the stimuli, or both ids and n")
        return self


class StimulusSet(NamedTuple):
    """images: read when needed, their labels all -1 (no task). table: a row a stimulus, the index its id (text)."""

    images: ImageFiles
    table: pd.DataFrame


def read_stimulus_table(settings: StimulusFiles, folder: Path, what: str) -> pd.DataFrame:
    """The table of the stimuli, its index the ids. Raises ValueError naming file and column."""
    if settings.ids is None:
        return _read_table(str(settings.table), folder, what)
    numbers = range(1, (settings.n or 0) + 1)
    try:
        ids = [filled(settings.ids, {"number": number}) for number in numbers]
    except (KeyError, IndexError, ValueError):
        raise ValueError(
            f"{what}: stimuli.ids '{settings.ids}' is no pattern of a number, such as stim{{number:02d}}"
        ) from None
    check_unique(ids, f"{what}: stimuli.ids")
    table = pd.DataFrame({"stimulus": ids, "number": numbers}, index=pd.Index(ids, name="stimulus"))
    if settings.table is None:
        return table
    known = _read_table(settings.table, folder, what)
    missing = table.index.difference(known.index)
    if len(missing):
        raise ValueError(
            f"{folder / settings.table}: {len(missing)} of {len(ids)} ids are missing, first '{missing[0]}'"
        )
    return table.join(known.drop(columns=["stimulus", "number"], errors="ignore"))


def _read_table(name: str, folder: Path, what: str) -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise ValueError(
            f"{what}: no stimulus table {path.resolve()}; fetch its data set, or correct stimuli.table in the spec"
        )
    return stimulus_table(path)


def stimulus_table(path: Path) -> pd.DataFrame:
    """A .tsv or .csv with a row a stimulus, all as text; the index is the column `stimulus`, its ids.

    Raises ValueError naming the file where it is no such table, or an id is missing or stands twice.
    """
    table = read_text_table(path)
    if "stimulus" not in table:
        raise ValueError(f"{path}: the column 'stimulus' is missing; it has: {', '.join(map(str, table))}")
    if table.empty:
        raise ValueError(f"{path}: it lists no stimulus; expected a row a stimulus")
    nameless = table["stimulus"].isin(["", "n/a"])
    if nameless.any():
        raise ValueError(f"{path}: line {int(nameless.to_numpy().argmax()) + 2} has no stimulus; give it an id")
    check_unique(table["stimulus"].tolist(), str(path))
    return table.set_index("stimulus", drop=False)


def read_text_table(path: Path) -> pd.DataFrame:
    """A .csv, or a table with tabs between its columns, as text: no cell is taken for a number or as missing.

    Raises ValueError naming the file where it cannot be opened, is no table, or has rows longer than its heading.
    """
    separator, other = (",", "\t") if path.suffix == ".csv" else ("\t", ",")
    words = {",": "commas", "\t": "tabs"}
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                if b"\0" in block:  # pandas would end the cell there
                    raise ValueError(f"{path}: expected a table of text in UTF-8, got a byte 0; write it again as text")
        with warnings.catch_warnings():
            # Rows longer than the heading: pandas would take their first cell for the row's name, or lose the last.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, index_col=False)
            heading = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, header=None, nrows=1).iloc[0]
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened ({error.strerror or error})") from None
    except pd.errors.ParserWarning:
        raise ValueError(
            f"{path}: its rows have more columns than its heading; take {words[separator]} too many away, or name the "
            "columns"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OverflowError) as error:
        told = plain(str(error).strip(), 200)
        raise ValueError(f"{path}: expected a table with {words[separator]} between its columns ({told})") from None
    twice = heading[heading.duplicated() & (heading != "")]
    if len(twice):  # pandas would give the second another name
        raise ValueError(f"{path}: the column '{plain(twice.iloc[0], 60)}' stands twice; name or leave out the second")
    if table.shape[1] == 1 and other in str(table.columns[0]):
        raise ValueError(f"{path}: expected a table with {words[separator]} between its columns, got {words[other]}")
    return table


def read_stimulus_set(settings: StimulusFiles, folder: Path, what: str) -> StimulusSet:
    """The images and their table; no image is read yet.

    Raises ValueError: no table, a column that `file` names is missing, stimuli without an image file (the first is
    named).
    """
    table = read_stimulus_table(settings, folder, what)
    if settings.file is None:
        raise ValueError(f"{what}: the spec names no image files; set stimuli.file")
    try:
        rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
        names = [filled(settings.file, row) for row in rows]
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{what}: stimuli.file '{settings.file}' names what is no column of the stimuli's table ({error}); "
            f"it has: {', '.join(map(str, table))}"
        ) from None
    files = [
        inside(folder, name, f"{what}: stimulus '{row['stimulus']}'") for name, row in zip(names, rows, strict=True)
    ]
    missing = [k for k, file in enumerate(files) if not file.is_file()]
    if missing:
        raise ValueError(
            f"{what}: {len(missing)} of {len(files)} stimuli have no image file, the first is "
            f"'{table.index[missing[0]]}' ({files[missing[0]]}); add the files, or correct stimuli.file"
        )
    labels = torch.full((len(files),), -1)
    return StimulusSet(ImageFiles(files, table.index.tolist(), labels, settings.size, settings.channels), table)
