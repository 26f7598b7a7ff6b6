"""numpy's files without running what is in them: a pickle is code, and code in a data file is refused.

And what all readers of others' files share: one message for a damaged file, and no memory for what a file only claims.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from brainrdl.settings import plain

_NPY = b"\x93NUMPY"
_REMEDY = "save it as HDF5, or each array as a plain one (numpy.save of a numeric array)"
_NUMERIC = re.compile(r"b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)")
_PLAIN = (str, bool, int, float, complex, np.number, np.bool_, type(None))
_AGAIN = "copy or write it again"
_DAMAGED = "cut short or damaged"
# Bytes that any file may say it holds, and how many beyond that one of its bytes may stand for.
_FREE, _PACKED = 2**26, 20
_AT_ONCE = 2**20


@contextmanager
def reading(path: str | Path, problem: str, remedy: str = _AGAIN) -> Iterator[None]:
    """Whatever a reader raises for what stands in a file becomes one ValueError: file, problem, its words, remedy.

    A ValueError that begins with the file's name has said so already, and passes.
    """
    try:
        yield
    except Exception as error:  # what damaged bytes lead to, no reader's documentation says
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        told = "there is not enough memory" if isinstance(error, MemoryError) else str(error).strip()
        told = plain((told or type(error).__name__).splitlines()[0], 200)
        raise ValueError(f"{path}: {problem} ({told}); {remedy}") from None


def check_claim(n_values: int, itemsize: int, stored: int, what: str, free: int = _FREE) -> None:
    """Raise ValueError where a file says that it holds far more numbers than its bytes can: nothing is made of them.

    n_values, itemsize: as the file says; a number counts for at least 4 bytes, as it is made floating point.
    stored: bytes of the file, or of its part. free: bytes that are believed of any file.
    """
    claimed = n_values * max(itemsize, 4)
    if claimed > max(free, _PACKED * stored):
        raise ValueError(
            f"{what}: says that it holds {n_values} numbers, and is {stored} bytes long: damaged, or packed more than "
            f"{_PACKED} to 1; if they are really so many, save them without compression"
        )


def unpack_checked(content: bytes, stored: int, what: str, before: int = 0) -> bytes:
    """What zlib packed. stored: bytes of the file. before: bytes that were unpacked of it before.

    Raises ValueError as `check_claim`, before the memory is taken, and zlib.error.
    """
    unpacker, parts, total = zlib.decompressobj(), [], before
    while content and not unpacker.eof:
        parts.append(unpacker.decompress(content, _AT_ONCE))
        content = unpacker.unconsumed_tail
        total += len(parts[-1])
        check_claim(total // 4, 4, stored, what)
        if not parts[-1]:
            break
    return b"".join(parts)


def load_array(path: str | Path, mmap: bool = False) -> np.ndarray:
    """The array in a .npy file. mmap: leave it on disk and read, without changing it, what is asked for.

    Raises ValueError naming the file where it is missing, cut short, no .npy file, or holds objects: reading
    those runs code.
    """
    path = Path(path)
    with _open(path) as file:
        if not mmap:
            return _read_plain(file, str(path), os.fstat(file.fileno()).st_size)
        _check_plain(file, str(path), os.fstat(file.fileno()).st_size)
    with reading(path, _DAMAGED):
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def load_npz(path: str | Path, key: str | None = None) -> np.ndarray:
    """One array of a .npz file. key: its name; None: the only one.

    Raises ValueError as `load_array`, and where there is no such key or none was given and there are several.
    """
    path = Path(path)
    with _open(path) as file, reading(path, f"no .npz file, or one {_DAMAGED}"), zipfile.ZipFile(file) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        key = only_key(keys, key, str(path))
        entry, what = archive.getinfo(f"{key}.npy"), f"{path}, key '{key}'"
        check_claim(entry.file_size // 4, 4, entry.compress_size, what)
        with archive.open(entry) as member:
            return _read_plain(member, what, entry.file_size, entry.compress_size)


def load_dict(path: str | Path) -> dict[Any, Any]:
    """The dict in a pickle (.pkl), or in a .npy file as `numpy.save(path, {...})` writes it (GLMsingle does).

    Its values are dicts, lists, tuples, text, numbers, booleans, None and numeric arrays, at any depth. Anything else
    is refused: numpy's own classes are stood in for, so that nothing of the pickle is ever called, and their
    bytes become an array only where type, shape and length agree. Raises ValueError naming the file, what it asked
    for, and what to do.
    """
    path = Path(path)
    with _open(path) as file:
        is_npy = file.read(len(_NPY)) == _NPY
        file.seek(0)
        if is_npy and not _npy_header(file, str(path)).dtype.hasobject:
            raise ValueError(f"{path}: expected a dict, got an array of numbers; read it with load_array")
        try:
            value = _RestrictedUnpickler(_scanned(file), encoding="latin1").load()
            if isinstance(value, _Array) and value.is_object and value.shape == ():
                value = value.items[0]
            value = _Plain()(value)
        except _RefusedError as refused:
            raise ValueError(
                f"{path}: holds {refused}; read are only dict, list, tuple, text, numbers and numeric arrays, because "
                f"a pickle with more can run any code; {_REMEDY}"
            ) from None
        except Exception as error:  # a damaged pickle fails in any way: what its bytes say is done, one after another
            raise ValueError(
                f"{path}: no pickle, or one cut short or damaged ({str(error) or type(error).__name__}); "
                "copy or write it again"
            ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a dict, got {_kind(value)}; {_REMEDY}")
    return value


def only_key(keys: list[str], key: str | None, what: str) -> str:
    """`key` if it is one of `keys`; the only one where it is None. Raises ValueError that lists them."""
    if key is None and len(keys) == 1:
        return keys[0]
    if not keys:
        raise ValueError(f"{what}: there is no array in it; write it again")
    if key not in keys:
        wanted = "several arrays and no key was given" if key is None else f"no key '{key}'"
        raise ValueError(f"{what}: {wanted}; give one of: {', '.join(keys)}")
    return key


def _open(path: Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened ({error.strerror}); correct the path") from None


def _read_plain(file: IO[bytes], what: str, n_bytes: int, stored: int | None = None) -> np.ndarray:
    """n_bytes: of `file`. stored: those of them that lie on disk, where they are packed."""
    _check_plain(file, what, n_bytes, stored)
    file.seek(0)
    with reading(what, _DAMAGED):
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_plain(file: IO[bytes], what: str, n_bytes: int, stored: int | None = None) -> None:
    header = _npy_header(file, what)
    if header.dtype.hasobject:
        raise ValueError(
            f"{what}: expected an array of numbers, got Python objects, and reading those runs code; {_REMEDY}"
        )
    expected = math.prod(header.shape) * header.dtype.itemsize
    if min(header.shape, default=0) < 0 or file.tell() + expected > n_bytes:
        raise ValueError(
            f"{what}: {_DAMAGED} (an array of {header.dtype} and shape {header.shape} in {n_bytes} bytes); {_AGAIN}"
        )
    if stored is not None:
        check_claim(math.prod(header.shape), header.dtype.itemsize, stored, what)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _npy_header(file: IO[bytes], what: str) -> _Header:
    """What the header says that `file` starts with; the header is read."""
    if (start := file.read(len(_NPY) + 2))[: len(_NPY)] != _NPY:
        kind = "a pickle, and reading that runs code" if start[:1] == b"\x80" else "something else"
        kind = kind if start else "an empty file"
        raise ValueError(f"{what}: expected a .npy file, got {kind}; {_REMEDY}")
    read = np.lib.format.read_array_header_1_0 if start[-2:-1] == b"\1" else np.lib.format.read_array_header_2_0
    with reading(what, _DAMAGED):  # a damaged header is no Python, and fails in any way
        shape, _, dtype = read(file)
    return _Header(shape, dtype)


def _scanned(file: IO[bytes]) -> IO[bytes]:
    """The pickle in the rest of `file`, as far as it is one, to be read once its lengths were looked at.

    Raises ValueError where it gives its memo a place beyond its own end: memory is made up to there.
    """
    start = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(start)
    try:
        for operation, argument, _ in pickletools.genops(file):
            if "PUT" in operation.name and isinstance(argument, int) and argument > size:
                raise _RefusedError(f"place {argument} of its memo in {size} bytes")
    except _RefusedError:
        raise
    except Exception:  # the reader says what is wrong, or what it refuses before it comes there
        end = file.tell()
        file.seek(start)
        return io.BytesIO(file.read(end - start))
    file.seek(start)
    return file


class _RefusedError(pickle.UnpicklingError):
    """What the pickle holds that is not read, in words."""


class _Dtype:
    """Stands in for numpy.dtype: numbers and, for the 0-dimensional array around a dict, objects."""

    __slots__ = ("dtype",)

    def __init__(self, name: object, align: object = False, copy: object = True) -> None:
        if not isinstance(name, str) or not (_NUMERIC.fullmatch(name) or name == "O8"):
            raise _RefusedError(f"an array of type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        _, order, *fields = state
        if order not in ("<", ">", "=", "|") or any(field is not None for field in fields[:3]):
            raise _RefusedError(f"an array of type {state!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands in for numpy.ndarray: an array once its type, shape and bytes are known to agree.

    numpy itself believes what a pickle says of an array's type, and would take bytes for addresses of objects.
    """

    __slots__ = ("array", "is_object", "items", "shape")
    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, in_columns, content = state
        self.shape, self.is_object = shape, dtype.dtype.hasobject
        if not self.is_object:
            content = content.encode("latin1") if isinstance(content, str) else content
            _check_size(content, dtype.dtype, shape)
            self.array = np.empty(0)
            state = 1, shape, dtype.dtype, bool(in_columns), content  # which takes the bytes without a copy
            self.array.__setstate__(state)
        elif shape == () and isinstance(content, list) and len(content) == 1:
            self.items = content
        else:
            raise _RefusedError("an array of Python objects")


def _check_size(content: object, dtype: np.dtype[Any], shape: object) -> None:
    if dtype.hasobject:
        raise _RefusedError("an array of Python objects")
    if not isinstance(content, bytes | bytearray) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("an array without its bytes")
    if any(type(size) is not int or size < 0 for size in shape):
        raise pickle.UnpicklingError(f"an array of shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise pickle.UnpicklingError(f"{len(content)} bytes for an array of {dtype} and shape {shape}")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    if kind is not _Array:
        raise _RefusedError("an array of another class")
    return _Array()


def _frombuffer(
    content: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any, axes: tuple[int, ...] | None = None
) -> _Array:
    _check_size(content, dtype.dtype, shape)
    flat = np.frombuffer(content, dtype.dtype)
    made = _Array()
    made.shape, made.is_object = shape, False
    made.array = flat.reshape(shape, order=order) if axes is None else flat.reshape(shape).transpose(axes)
    return made


def _scalar(dtype: _Dtype, content: Any) -> Any:
    _check_size(content, dtype.dtype, ())
    return np.frombuffer(content, dtype.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _RefusedError(f"text in {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


class _Call:
    """Makes a function that a pickle may call, but whose attributes it cannot set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _RefusedError("a change of a function")


# What numpy's own pickles ask for, and Python's for bytes and complex numbers, in the spellings of their versions.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Call(_encode),
}
for _module in ("builtins", "__builtin__"):
    _ADMITTED[_module, "complex"] = _Call(complex)
    _ADMITTED[_module, "bytes"] = _Call(_no_bytes)
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Call(_reconstruct)
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _Call(_scalar)
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _Call(_frombuffer)


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise _RefusedError(f"a pickle that asks for '{module}.{name}'")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise _RefusedError("a pickle that refers to another file")


class _Plain:
    """Copies containers with arrays in place of their stand-ins; what stands in several places is copied once."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, _PLAIN):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = self._copy(value)
        return self._done[id(value)]

    def _copy(self, value: Any) -> Any:
        if type(value) is dict:
            entries: dict[Any, Any] = {}
            self._done[id(value)] = entries  # before its items: it may hold itself
            entries.update((self(key), self(item)) for key, item in value.items())
            return entries
        if type(value) is list:
            items: list[Any] = []
            self._done[id(value)] = items
            items.extend(self(item) for item in value)
            return items
        if type(value) is tuple:
            return tuple(self(item) for item in value)
        if isinstance(value, _Array) and not value.is_object:
            return value.array
        raise _RefusedError("an array of Python objects" if isinstance(value, _Array) else _kind(value))


def _kind(value: object) -> str:
    name = type(value).__name__.strip("_").lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
