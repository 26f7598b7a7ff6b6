"""The files in which others keep RDMs, and one reader for each: numbers as they stand there."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainrdl.rdms.hdf5 import hdf5_array
from brainrdl.rdms.matlab import mat_variables, real_array
from brainrdl.restricted_files import load_array, load_npz, only_key, reading
from brainrdl.stimuli import check_unique

# Beside NaN: an empty cell, and what R writes.
_NOT_MEASURED = ("", "NA")


class Contents(NamedTuple):
    """values: as in the file, in one of the shapes of `as_vectors`. stimuli: in the order of the rows; None where the
    file does not say. names: one an RDM; None where they have none."""

    values: np.ndarray
    stimuli: tuple[str, ...] | None = None
    names: list[str] | None = None


def read_npy(path: Path, key: str | None, n_stimuli: int | None) -> Contents:
    """One array of numbers. Raises ValueError as `load_array`, and for a key, as there is only one."""
    no_key(path, key)
    return Contents(load_array(path))


def read_npz(path: Path, key: str | None, n_stimuli: int | None) -> Contents:
    """An array of numbers by its name; left out: the only one. Raises ValueError as `load_npz`."""
    return Contents(load_npz(path, key))


def read_table(path: Path, key: str | None, n_stimuli: int | None) -> Contents:
    """A square with a header row and a first column of ids, or numbers alone."""
    no_key(path, key)
    cells = read_cells(path)
    if not _has_ids(cells, n_stimuli):
        return Contents(_numbers(path, cells))
    if cells.shape[1] == 1:
        separator = "tabs" if path.suffix.lower() == ".tsv" else "commas"
        raise ValueError(
            f"{path}: expected {separator} between the columns, got one column that holds no numbers, "
            f"'{cells[0, 0][:20]}…'; save it again"
        )
    rows, columns = cells[1:, 0].tolist(), cells[0, 1:].tolist()
    check_unique(rows, f"{path}, first column")
    if sorted(rows) != sorted(columns):
        differing = sorted(set(rows) ^ set(columns)) or columns
        raise ValueError(
            f"{path}: not square: {len(rows)} rows and {len(columns)} columns whose ids differ, the first is "
            f"'{differing[0]}'; header row and first column must name the same stimuli"
        )
    column = {stimulus: k for k, stimulus in enumerate(columns)}
    return Contents(_numbers(path, cells[1:, 1:])[:, [column[stimulus] for stimulus in rows]], tuple(rows))


def read_hdf5(path: Path, key: str | None, n_stimuli: int | None) -> Contents:
    """A plain array in an HDF5 file, by its path inside (MATLAB's v7.3 files are such)."""
    values = hdf5_array(path, key)
    if values.ndim == 3 and values.shape[0] == values.shape[1] != values.shape[2]:
        values = np.moveaxis(values, -1, 0)  # MATLAB's dimensions come the other way round
    return Contents(values)


def read_mat(path: Path, key: str | None, n_stimuli: int | None) -> Contents:
    """A MATLAB file: a struct array with the fields RDM and name (the RSA toolbox's), or an array of numbers.

    RDMs of a struct array come with its last index running fastest.
    """
    import h5py

    if h5py.is_hdf5(path):
        return Contents(_stacked_first(hdf5_array(path, key).T))  # MATLAB's dimensions come the other way round
    variables = mat_variables(path)
    key = only_key(list(variables), key, str(path))
    value = variables[key]
    if isinstance(value, np.ndarray) and value.dtype.names and "RDM" in value.dtype.names:
        return _struct_array(path, key, value)
    return Contents(_stacked_first(real_array(value, path, key, "neither numbers nor structs with a field RDM")))


def _stacked_first(values: np.ndarray) -> np.ndarray:
    """MATLAB stacks squares along the last dimension."""
    return np.moveaxis(values, -1, 0) if values.ndim == 3 and values.shape[0] == values.shape[1] else values


READERS: Mapping[str, Callable[[Path, str | None, int | None], Contents]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_table,
    ".tsv": read_table,
    ".mat": read_mat,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}


def read_cells(path: Path) -> np.ndarray:
    """(n_rows, n_columns) text of a .csv or .tsv. Raises ValueError naming it where it is no table."""
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    with (
        reading(path, "expected a table, got something else", "save it again"),
        open(path, encoding="utf-8-sig", newline="") as file,
    ):
        rows = [row for row in csv.reader(file, delimiter=separator) if row]
    if not rows:
        raise ValueError(f"{path}: expected a table, got an empty file; save it again")
    for k, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}: row {k + 1} has {len(row)} columns, the first {len(rows[0])}: cut short, or separated by "
                f"other than {'commas' if separator == ',' else 'tabs'}; save it again"
            )
    return np.array(rows, dtype=object)  # as text each would take the room of the longest


def _has_ids(cells: np.ndarray, n_stimuli: int | None) -> bool:
    """Whether the first row names stimuli: text, or whole numbers after an empty corner.

    An empty corner may also be a diagonal that was not measured: then the table is a square over `n_stimuli`.
    """
    first = cells[0].tolist()
    if any(_number(cell) is None for cell in first):
        return True
    whole = first[0].strip() == "" and all(cell.strip().isdigit() for cell in first[1:])
    return whole and cells.shape[0] == cells.shape[1] != n_stimuli


def _numbers(path: Path, cells: np.ndarray) -> np.ndarray:
    """The cells as numbers, NaN where they are empty or say so."""
    values = np.empty(cells.shape)
    for row, column in np.ndindex(cells.shape):
        number = _number(str(cells[row, column]))
        if number is None:
            raise ValueError(
                f"{path}: expected numbers, got '{cells[row, column][:40]}' in row {row + 1}, column {column + 1} of "
                "the values; a table of RDMs has a header row and a first column with the ids, or numbers alone"
            )
        values[row, column] = number
    return values


def _number(cell: str) -> float | None:
    """NaN where it was not measured; None where it is no number (Python's own 1_000 is none)."""
    try:
        return math.nan if cell.strip() in _NOT_MEASURED else float(cell.replace("_", "?"))
    except ValueError:
        return None


def _struct_array(path: Path, key: str, structs: np.ndarray) -> Contents:
    entries = structs.ravel()
    matrices = [np.squeeze(np.asarray(entry["RDM"])) for entry in entries]
    shapes = [matrix.shape for matrix in matrices]
    if len(set(shapes)) != 1 or any(matrix.dtype.kind not in "biuf" for matrix in matrices):
        raise ValueError(
            f"{path}: expected RDMs of one size in '{key}', got {len(entries)} of the shapes "
            f"{', '.join(str(shape) for shape in dict.fromkeys(shapes))}; save them as numbers over the same stimuli"
        )
    names = None
    if "name" in (structs.dtype.names or ()):
        names = ["".join(np.ravel(entry["name"]).astype(str)) for entry in entries]
    return Contents(np.stack(matrices), names=names)


def no_key(path: Path, key: str | None) -> None:
    """Raise ValueError where a key was given for a file that has none."""
    if key is not None:
        raise ValueError(f"{path}: holds one array, so there is no key '{key}'; leave the key out")
