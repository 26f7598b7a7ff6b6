"""HDF5 files that others wrote: nothing but what stands in the file itself, and no more of it than it really holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainrdl.restricted_files import check_claim, only_key, reading

if TYPE_CHECKING:
    import h5py

_PROBLEM = "no HDF5 file, or one cut short or damaged"
_DEEPEST = 3  # groups in groups of rsatoolbox's layout
_AT_ONCE = 64  # texts of any length


@contextmanager
def open_hdf5(path: Path, problem: str = _PROBLEM, remedy: str = "write it again") -> Iterator[h5py.File]:
    """The file, open for reading.

    Raises ValueError naming it where it cannot be opened or a part of it lies in another file, and in place of
    whatever is raised for it in the block.
    """
    import h5py

    with reading(path, problem, remedy), h5py.File(path, "r") as file:
        elsewhere = file.id.links.visit(_leads_out, info=True)
        if elsewhere is not None:
            raise ValueError(
                f"{path}: '{_text(elsewhere)}' is a link into another file, which is not followed; copy what it stands "
                "for into this one"
            )
        yield file


def check_stored(dataset: h5py.Dataset, path: Path) -> None:
    """Raise ValueError where the numbers lie in another file, or are far more than the file can hold."""
    name = str(dataset.name).strip("/")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{path}: the numbers of '{name}' lie in another file; copy them into this one")
    check_claim(int(dataset.size or 0), dataset.dtype.itemsize, path.stat().st_size, f"{path}, '{name}'")


def hdf5_array(path: Path, key: str | None) -> np.ndarray:
    """The array as it stands in the file. key: its path inside; None: the only one.

    Raises ValueError naming the file where it is none, and the keys there are where none was given and there are
    several.
    """
    keys: list[str] = []
    with open_hdf5(path) as file:
        file.visititems(lambda name, item: keys.append(name) if _holds_numbers(name, item) else None)
        if path.suffix.lower() == ".mat" and not keys:
            raise ValueError(
                f"{path}: a MATLAB v7.3 file without a plain array of numbers; struct arrays are read from older "
                "formats only: in MATLAB, save(..., '-v7')"
            )
        dataset = file[only_key(keys, key, str(path))]
        check_stored(dataset, path)
        values: np.ndarray = dataset[()]
    return values


def rsatoolbox_contents(path: Path, problem: str, remedy: str) -> dict[str, Any]:
    """What `rsatoolbox.rdm.rdms.rdms_from_dict` makes RDMs of; text as text, however it was written.

    Raises ValueError naming the file: no such layout, dissimilarities that are no real numbers (n_rdms, n_pairs),
    and as `open_hdf5`.
    """
    import h5py

    with open_hdf5(path, problem, remedy) as file:
        if not isinstance(file.get("dissimilarities"), h5py.Dataset):
            raise ValueError(f"{path}: {problem} (it has no 'dissimilarities'); {remedy}")
        contents = _contents(file, path, 1)
        values = contents["dissimilarities"]
        if getattr(values, "ndim", 0) != 2 or values.dtype.kind not in "biuf":
            got = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else "nothing"
            raise ValueError(f"{path}: {problem} (expected real numbers, (n_rdms, n_pairs), got {got}); {remedy}")
    return contents


def _contents(group: h5py.Group, path: Path, depth: int) -> dict[str, Any]:
    """name -> array, text, None or dict of these, of data sets, groups and attributes."""
    import h5py

    found: dict[str, Any] = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path}: '{name}' is a link; put what it stands for in its place")
        item = group[name]
        if isinstance(item, h5py.Group):
            if depth == _DEEPEST:
                raise ValueError(f"{path}: '{name}' is a group within {depth} others; expected RDMs of rsatoolbox")
            found[name] = _contents(item, path, depth + 1)
        else:
            found[name] = _values(item, path)
    return found | {name: _decoded(value) for name, value in group.attrs.items()}


def _values(dataset: h5py.Dataset, path: Path) -> Any:
    import h5py

    if dataset.shape is None:
        return None
    check_stored(dataset, path)
    if dataset.dtype.kind == "O":
        if h5py.check_string_dtype(dataset.dtype) is None or dataset.ndim > 1:
            raise ValueError(f"{path}: '{dataset.name}' holds neither numbers nor text; leave it out")
        if dataset.ndim == 0:
            return _decoded(dataset[()])
        longest, texts = 100 * path.stat().st_size, []
        for start in range(0, len(dataset), _AT_ONCE):  # many may stand for the same long one
            texts += [_decoded(text) for text in dataset[start : start + _AT_ONCE]]
            longest -= sum(map(len, texts[-_AT_ONCE:]))
            if longest < 0:
                raise ValueError(f"{path}: '{dataset.name}' has longer texts than the file; write it again")
        return np.array(texts, dtype=object)
    return _decoded(np.array(dataset[()]))


def _decoded(value: Any) -> Any:
    """Bytes as text, of arrays each element; UTF-8, as HDF5's text is."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        return np.char.decode(value, "utf-8")
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return np.array([_decoded(one) for one in value.ravel()], dtype=object).reshape(value.shape)
    return value


def _holds_numbers(name: str, item: Any) -> bool:
    dtype = getattr(item, "dtype", None)
    return dtype is not None and dtype.kind in "biuf" and not name.startswith("#refs#") and bool(item.shape)


def _leads_out(name: bytes, link: Any) -> bytes | None:
    from h5py.h5l import TYPE_EXTERNAL

    return name if link.type == TYPE_EXTERNAL else None


def _text(name: bytes | str) -> str:
    return name if isinstance(name, str) else name.decode(errors="replace")
