"""The files in which others keep RDMs, and one reader for each: numbers as they stand there."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainrdl.restricted_files import load_array, load_npz, only_key
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


def hdf5_array(path: Path, key: str | None) -> np.ndarray:
    """The array as it stands in the file. key: its path inside; None: the only one.

    Raises ValueError naming the file where it is none, and the keys there are where none was given and there are
    several.
    """
    import h5py

    keys: list[str] = []
    try:
        with h5py.File(path, "r") as file:
            file.visititems(lambda name, item: keys.append(name) if _holds_numbers(name, item) else None)
            if path.suffix == ".mat" and not keys:
                raise ValueError(
                    f"{path}: a MATLAB v7.3 file without a plain array of numbers; struct arrays are read from older "
                    "formats only: in MATLAB, save(..., '-v7')"
                )
            key = only_key(keys, key, str(path))
            values: np.ndarray = file[key][()]
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: no HDF5 file, or one cut short or damaged ({error}); write it again") from None
    return values


def read_mat(path: Path, key: str | None, n_stimuli: int | None) -> Contents:
    """A MATLAB file: a struct array with the fields RDM and name (the RSA toolbox's), or an array of numbers.

    RDMs of a struct array come with its last index running fastest.
    """
    import h5py

    if h5py.is_hdf5(path):
        return read_hdf5(path, key, n_stimuli)
    variables = mat_variables(path)
    key = only_key(list(variables), key, str(path))
    value = variables[key]
    if value.dtype.names and "RDM" in value.dtype.names:
        return _struct_array(path, key, value)
    if value.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: '{key}' holds neither numbers nor structs with a field RDM, but "
            f"{'structs with ' + ', '.join(value.dtype.names) if value.dtype.names else value.dtype}; give another key"
        )
    if value.ndim == 3 and value.shape[0] == value.shape[1]:
        value = np.moveaxis(value, -1, 0)  # MATLAB stacks along the last dimension
    return Contents(value)


def mat_variables(path: Path) -> dict[str, Any]:
    """name -> value of a MATLAB file older than v7.3. Raises ValueError naming the file where it is none."""
    from scipy.io import loadmat

    try:
        return {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    except Exception as error:  # what damaged bytes lead to is not documented
        raise ValueError(
            f"{path}: no MATLAB file, or one cut short or damaged ({error}); in MATLAB, save(..., '-v7')"
        ) from None


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
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter=separator) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a table, got something else ({error}); save it again") from None
    if not rows:
        raise ValueError(f"{path}: expected a table, got an empty file; save it again")
    for k, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}: row {k + 1} has {len(row)} columns, the first {len(rows[0])}: cut short, or separated by "
                f"other than {'commas' if separator == ',' else 'tabs'}; save it again"
            )
    return np.array(rows, dtype=str)


def _has_ids(cells: np.ndarray, n_stimuli: int | None) -> bool:
    """Whether the first row names stimuli: text, or whole numbers after an empty corner.

    An empty corner may also be a diagonal that was not measured: then the table is a square over `n_stimuli`.
    """
    first = cells[0].tolist()
    if any(not _is_number(cell) for cell in first):
        return True
    whole = first[0].strip() == "" and all(cell.strip().isdigit() for cell in first[1:])
    return whole and cells.shape[0] == cells.shape[1] != n_stimuli


def _numbers(path: Path, cells: np.ndarray) -> np.ndarray:
    """The cells as numbers, NaN where they are empty or say so."""
    for row, column in np.ndindex(cells.shape):
        if not _is_number(cells[row, column].item()):
            raise ValueError(
                f"{path}: expected numbers, got '{cells[row, column]}' in row {row + 1}, column {column + 1} of the "
                "values; a table of RDMs has a header row and a first column with the ids, or numbers alone"
            )
    return np.where(np.isin(np.char.strip(cells), _NOT_MEASURED), "nan", cells).astype(np.float64)


def _is_number(cell: str) -> bool:
    try:
        float("nan" if cell.strip() in _NOT_MEASURED else cell)
    except ValueError:
        return False
    return True


def _holds_numbers(name: str, item: Any) -> bool:
    dtype = getattr(item, "dtype", None)
    return dtype is not None and dtype.kind in "biuf" and not name.startswith("#refs#") and item.ndim > 0


def _struct_array(path: Path, key: str, structs: np.ndarray) -> Contents:
    entries = structs.ravel()
    matrices = [np.squeeze(entry["RDM"]) for entry in entries]
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
