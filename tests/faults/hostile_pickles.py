"""Pickles that make a folder when they are read by Python's own reader, one for each way in which a pickle can."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

EXTENSION = 240  # of copyreg's registry, free for private use


class Reduced:
    """What any object can say of itself: call this function to make me."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


class ReducedDict(dict):
    """As `Reduced`, in what looks like a dict."""

    def __init__(self, folder: str) -> None:
        super().__init__(a=1)
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def _text(value: str) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


MKDIR = _global("os", "mkdir")
# bytes(map(os.mkdir, [folder])), out of NEWOBJ alone: no function is called by name.
_MAP, _BYTES = _global("builtins", "map"), _global("builtins", "bytes")


def _new(*arguments: bytes, cls: bytes, extended: bool) -> bytes:
    packed = b"(" + b"".join(arguments) + b"t"
    return cls + packed + (b"}\x92" if extended else b"\x81")


def _by_new(folder: str, extended: bool) -> bytes:
    listed = b"]" + _text(folder) + b"a"
    mapped = _new(MKDIR, listed, cls=_MAP, extended=extended)
    return b"\x80\x04" + _new(mapped, cls=_BYTES, extended=extended) + b"."


PAYLOADS: dict[str, Callable[[str], bytes]] = {
    **{f"reduce, protocol {k}": lambda folder, k=k: pickle.dumps(Reduced(folder), k) for k in (0, 1, 2, 4, 5)},
    "in a dict": lambda folder: pickle.dumps({"a": np.arange(3.0), "b": [Reduced(folder)]}),
    "in an array of objects": lambda folder: pickle.dumps({"a": np.array([[{"b": Reduced(folder)}]], dtype=object)}),
    "a dict of its own kind": lambda folder: pickle.dumps(ReducedDict(folder)),
    "global": lambda folder: MKDIR + b"(" + _text(folder) + b"tR.",
    "stack global": lambda folder: b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + _text(folder) + b"\x85R.",
    "inst": lambda folder: b"(" + _text(folder) + b"ios\nmkdir\n.",
    "obj": lambda folder: b"(" + MKDIR + _text(folder) + b"o.",
    "newobj": lambda folder: _by_new(folder, extended=False),
    "newobj_ex": lambda folder: _by_new(folder, extended=True),
    "build": lambda folder: (
        b"\x80\x02" + _global("argparse", "Namespace") + b")\x81}" + _text("__setstate__") + MKDIR + b"sb"
        + _text(folder) + b"b."
    ),
    "extension": lambda folder: b"\x80\x02\x82" + bytes([EXTENSION]) + _text(folder) + b"\x85R.",
    "from memory": lambda folder: MKDIR + b"p0\n0" + _text(folder) + b"p1\n0g0\n(g1\ntR.",
    "after a dict": lambda folder: b"}q\x00" + MKDIR + _text(folder) + b"\x85R0h\x00.",
    "before a dict": lambda folder: MKDIR + _text(folder) + b"\x85R0}.",
    "of an admitted module": lambda folder: _global("numpy", "load") + _text(folder) + b"\x85R0" + MKDIR
    + _text(folder) + b"\x85R.",
}  # fmt: skip
# These do nothing with Python's reader alone; they must be refused all the same.
STRANGE: dict[str, bytes] = {
    "persistent": b"Pelsewhere\n.",
    "binary persistent": _text("elsewhere") + b"Q.",
    "attribute of what is admitted": b"\x80\x04" + _text("numpy._core.multiarray") + _text("_reconstruct.__class__")
    + b"\x93.",
    "state of a stand-in": _global("numpy", "dtype") + b"}" + _text("__init__") + MKDIR + b"sb.",
    "setstate of a function": _global("numpy._core.multiarray", "_reconstruct") + b"}" + _text("__call__") + MKDIR
    + b"sb.",
}  # fmt: skip


@contextmanager
def extension_code():
    """While a number stands for os.mkdir, as a package may have arranged."""
    copyreg.add_extension("posix", "mkdir", EXTENSION)
    try:
        yield
    finally:
        copyreg.remove_extension("posix", "mkdir", EXTENSION)


def as_pickle(path: Path, payload: bytes) -> Path:
    """The payload as it is."""
    path.write_bytes(payload)
    return path


def as_npy(path: Path, payload: bytes) -> Path:
    """In an array of objects, as numpy.save writes one."""
    path.write_bytes(_npy(payload))
    return path


def as_npz(path: Path, payload: bytes) -> Path:
    """In an array of objects of an archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _npy(payload))
    return path


def _npy(payload: bytes) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return head.getvalue() + payload


def as_torch_zip(path: Path, payload: bytes) -> Path:
    """Where torch.save puts its pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


def as_torch_legacy(path: Path, payload: bytes) -> Path:
    """As torch.save did before its archives: pickles one after another, of which the payload is the fourth."""
    begin = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(begin) + payload)
    return path


def as_torch_tar(path: Path, payload: bytes) -> Path:
    """As torch.save did at the very first."""
    with tarfile.open(path, "w") as archive:
        for name, content in (("storages", pickle.dumps(0, 2)), ("tensors", pickle.dumps(0, 2)), ("pickle", payload)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
