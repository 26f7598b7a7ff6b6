"""Patterns that other programs wrote: an array of features and the stimuli its rows are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from brainrdl.rdms.files import given_ids
from brainrdl.rdms.formats import no_key
from brainrdl.rdms.hdf5 import hdf5_array
from brainrdl.rdms.matlab import mat_variables, real_array
from brainrdl.restricted_files import load_array, load_npz, only_key, reading
from brainrdl.stimuli import check_unique

_NAMES = "file_names.txt"
_BLOCK = 2**24  # values looked at at a time


class Features(NamedTuple):
    """values: (n_stimuli, n_units), of a .npy file memory-mapped and not to be written to. ids: of the rows."""

    values: np.ndarray
    ids: tuple[str, ...]


def load_features(
    path: str | Path, stimuli: Sequence[str] | str | Path | None = None, key: str | None = None
) -> Features:
    """Read patterns that were made elsewhere: an array (n_stimuli, ...), as thingsvision writes them, say.

    path: .npy, .npz, .pt (a tensor), .h5, .hdf5, .mat (an array, or an array a stimulus under its name), .txt or
        .csv (numbers alone). Everything after the first dimension is laid out flat.
    stimuli: the ids in the order of the rows, or a file of them: .txt with an id a line, .csv or .tsv with a column
        `stimulus`. None: the file_names.txt beside the array, or in the folder above; its lines are the ids as they
        stand there.
    key: which array of a .npz, .h5 or .mat file that holds several.
    Raises ValueError naming the file: missing, damaged, a pickle with more than numbers; another number of rows than
    of ids; ids that stand twice; rows with NaN or infinite values; no ids.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file of features; correct its name, or make it")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise ValueError(
            f"{path}: features are read from {', '.join(_READERS)}, and '{suffix}' is none of them; save them with "
            "numpy.save"
        )
    ids = _ids(path, stimuli)
    values = _READERS[suffix](path, key)
    if isinstance(values, Mapping):
        ids = tuple(values) if ids is None else ids
        values = _rows_by_name(values, ids, path)
    if ids is None:
        raise ValueError(
            f"{path}: which stimuli are its rows? There is no {_NAMES} beside it; give `stimuli`, their ids in the "
            "order of the rows, or a file of them"
        )
    return Features(check_features(values, ids, str(path)), ids)


def check_features(values: np.ndarray, ids: Sequence[str], what: str) -> np.ndarray:
    """(n_stimuli, n_units) of features (n_stimuli, ...), a view where that can be; integers stay integers.

    what: what messages begin with (the file). Raises ValueError where they are no real numbers, have another number
    of rows than there are ids or no units, an id is no text or stands twice, and, by the first stimulus, where rows
    hold NaN or infinite values.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{what}: expected real numbers, got values of type {values.dtype}; save them as numbers")
    if values.ndim < 2 or 0 in values.shape[1:]:
        raise ValueError(
            f"{what}: expected (n_stimuli, n_units), got shape {values.shape}; give each stimulus a row of its units"
        )
    if len(values) != len(ids):
        raise ValueError(
            f"{what}: {len(values)} rows, but {len(ids)} stimulus ids; give one id a row, in the order of the rows "
            "(features written in parts must be put together first)"
        )
    for stimulus in ids:
        if not isinstance(stimulus, str):
            raise ValueError(f"{what}: expected stimulus ids as text, got {stimulus!r}; use str(...)")
    check_unique(ids, what)
    if not len(values):
        raise ValueError(f"{what}: there is no stimulus in it; give each stimulus a row of its units")
    flat = values.reshape(len(values), -1)
    unusable = _not_finite(flat)
    if len(unusable):
        raise ValueError(
            f"{what}: {len(unusable)} of {len(ids)} rows hold NaN or infinite values, the first is that of stimulus "
            f"'{ids[unusable[0]]}'; repair or leave out these stimuli"
        )
    return flat


def _not_finite(values: np.ndarray) -> np.ndarray:
    """Rows that hold NaN or infinite values; a block of a file at a time."""
    if values.dtype.kind != "f":
        return np.zeros(0, dtype=np.int64)
    size = max(1, _BLOCK // values.shape[1])
    finite = [np.isfinite(values[start : start + size]).all(1) for start in range(0, len(values), size)]
    return np.flatnonzero(~np.concatenate(finite))


def _ids(path: Path, stimuli: Sequence[str] | str | Path | None) -> tuple[str, ...] | None:
    if stimuli is not None:
        return given_ids(stimuli)
    for folder in (path.absolute().parent, path.absolute().parent.parent):
        if (folder / _NAMES).is_file():
            return given_ids(folder / _NAMES)
    return None


def _rows_by_name(variables: Mapping[str, Any], ids: Sequence[str], path: Path) -> np.ndarray:
    """The variables called by the ids, or by the ids without a file suffix, flat and one a row."""
    rows = []
    for stimulus in ids:
        name = next(
            (name for name in (stimulus, stimulus.removesuffix(PurePath(stimulus).suffix)) if name in variables), None
        )
        if name is None:
            raise ValueError(
                f"{path}: no variable is called '{stimulus}', with or without its suffix; it has {len(variables)}, "
                f"'{next(iter(variables))}' first. Names that begin with an underscore do not get into a .mat file: "
                "save the features as .npy"
            )
        rows.append(np.ravel(real_array(variables[name], path, name)))
    if len({len(row) for row in rows}) > 1:
        raise ValueError(
            f"{path}: its variables differ in size, so they are not one pattern a stimulus; give `key`, which of them "
            f"holds the features: {', '.join(variables)}"
        )
    return np.stack(rows)


def _read_npy(path: Path, key: str | None) -> np.ndarray:
    no_key(path, key)
    return load_array(path, mmap=True)


def _read_hdf5(path: Path, key: str | None) -> np.ndarray:
    return hdf5_array(path, key)


def _read_mat(path: Path, key: str | None) -> np.ndarray | Mapping[str, Any]:
    import h5py

    if h5py.is_hdf5(path):
        return hdf5_array(path, key).T  # MATLAB's dimensions come the other way round
    variables = mat_variables(path)
    if key is None and len(variables) > 1:
        return variables
    key = only_key(list(variables), key, str(path))
    return real_array(variables[key], path, key)


def _read_text(path: Path, key: str | None) -> np.ndarray:
    no_key(path, key)
    with (
        reading(path, "expected rows of numbers alone", "save them with numpy.save"),
        warnings.catch_warnings(),
        open(path, encoding="utf-8-sig") as file,  # by its name numpy would unpack it
    ):
        warnings.simplefilter("error", UserWarning)  # an empty file
        return np.loadtxt(file, delimiter="," if path.suffix.lower() == ".csv" else None, ndmin=2)


def _read_pt(path: Path, key: str | None) -> np.ndarray:
    import torch

    no_key(path, key)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or forbidden pickle fails in many ways
        told = str(error).strip().splitlines()
        raise ValueError(
            f"{path}: no file of a tensor, or one cut short ({told[0] if told else type(error).__name__}); save the "
            "features with numpy.save"
        ) from None
    if not isinstance(values, torch.Tensor):
        raise ValueError(f"{path}: expected a tensor, got a {type(values).__name__}; save the features alone")
    with reading(path, "expected a plain tensor of numbers", "save the features with numpy.save"):
        values = values.detach()
        if values.numel() * values.element_size() > values.untyped_storage().nbytes():
            raise ValueError(f"{path}: its rows share their numbers (an expanded tensor); save a clone of it")
        array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


_READERS: Mapping[str, Callable[[Path, str | None], np.ndarray | Mapping[str, Any]]] = {
    ".npy": _read_npy,
    ".npz": load_npz,
    ".pt": _read_pt,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".mat": _read_mat,
    ".txt": _read_text,
    ".csv": _read_text,
}
