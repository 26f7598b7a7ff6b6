"""MATLAB files older than v7.3: their variables, once what the file says of their sizes was looked at."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainrdl.restricted_files import reading, unpack_checked

_PROBLEM, _REMEDY = "no MATLAB file, or one cut short or damaged", "in MATLAB, save(..., '-v7')"
# Of the file format's documentation (MAT-File Format, MathWorks): types of elements, classes of arrays.
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _SPARSE, _OPAQUE = 1, 2, 5, 17
_HEADER = 128
_DEEPEST = 20  # cells in cells, which scipy reads by calling itself


def mat_variables(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """name -> value of a MATLAB file older than v7.3. names: only these, as far as they are there; None: all.

    Raises ValueError naming the file where it is none, and where it says it holds more than it can.
    """
    from scipy.io import loadmat

    with reading(path, _PROBLEM, _REMEDY):
        _check_sizes(path)
        read = loadmat(path, appendmat=False, variable_names=names)
    return {name: value for name, value in read.items() if not name.startswith("__")}


def real_array(value: Any, path: Path, key: str, wanted: str = "no real numbers") -> np.ndarray:
    """The variable as an array of real numbers. Raises ValueError where it is another kind of value."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{path}: '{key}' is a {type(value).__name__}; in MATLAB, save full({key})")
    if value.dtype.kind not in "biuf":
        what = f"structs with {', '.join(value.dtype.names)}" if value.dtype.names else value.dtype
        raise ValueError(f"{path}: '{key}' holds {wanted}, but {what}; give another key")
    return value


class _Element(NamedTuple):
    kind: int
    start: int
    length: int
    end: int  # where the next begins


def _check_sizes(path: Path) -> None:
    """Raise ValueError where arrays are larger than their bytes, or lie in one another too deeply for scipy.

    Of version 4, whose arrays have their bytes beside their sizes, nothing is looked at.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(_HEADER)[126:])
        if order is None:
            return
        unpacked = 0
        while len(tag := file.read(8)) == 8:
            kind, length = struct.unpack(f"{order}II", tag)
            if file.tell() + length > size:
                raise ValueError(f"{length} bytes are said to follow, {size - file.tell()} do")
            content = file.read(length)
            if kind == _COMPRESSED:
                content = unpack_checked(content, size, str(path), unpacked)
            unpacked += len(content)
            if kind == _COMPRESSED:
                _check_matrices(content, order)
            else:
                _check_matrices(tag + content, order)


def _check_matrices(content: bytes, order: str) -> None:
    """The arrays in the bytes of a variable, whatever lies in them."""
    waiting = [(0, len(content), 0)]
    while waiting:
        start, end, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError(f"cells or structs in one another, more than {_DEEPEST}")
        for element in _elements(content, start, end, order):
            if element.kind == _MATRIX and element.length:
                inner = element.start + element.length
                _check_matrix(content, element.start, inner, order)
                waiting.append((element.start, inner, depth + 1))


def _check_matrix(content: bytes, start: int, end: int, order: str) -> None:
    """What is said of one array: flags, then its dimensions, then what is in it."""
    elements = _elements(content, start, end, order)
    flags, dimensions = next(elements, None), next(elements, None)
    if flags is None or dimensions is None or flags.length < 4:
        raise ValueError("an array without its size")
    kind = struct.unpack_from(f"{order}I", content, flags.start)[0] & 0xFF
    if kind == _OPAQUE:  # an object of MATLAB's own, which tells no size
        return
    number = dimensions.length // 4
    sizes = struct.unpack_from(f"{order}{number}i", content, dimensions.start)
    least = 8 if kind in (_CELL, _STRUCT) else 1  # bytes of one of its values
    if min(sizes, default=0) < 0 or (kind != _SPARSE and math.prod(sizes) * least > end - start):
        raise ValueError(f"an array of size {sizes} in {end - start} bytes")


def _elements(content: bytes, start: int, end: int, order: str) -> Iterator[_Element]:
    while start + 8 <= end:
        kind, length = struct.unpack_from(f"{order}II", content, start)
        if kind >> 16:  # a small one: its length beside its type, its bytes in place of the length
            yield _Element(kind & 0xFFFF, start + 4, min(kind >> 16, 4), start + 8)
            start += 8
            continue
        following = start + 8 + length
        if following > end:
            raise ValueError(f"{length} bytes are said to follow, {end - start - 8} do")
        following += -following % 8 if kind != _COMPRESSED else 0
        yield _Element(kind, start + 8, length, following)
        start = following
