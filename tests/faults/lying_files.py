"""Files of arrays that are whole, but hold what is no RDM, claim what they do not hold, or lead elsewhere."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rdm_files import draw_vectors, squares, write_table

Random = np.random.Generator


def lie_in_array(g: Random, path: Path, ids: Sequence[str]) -> None:
    """A whole file that holds what no RDM is, or claims what it does not hold."""
    n = len(ids)
    square = squares(draw_vectors(g, n, 1))[0]
    lies: list[np.ndarray] = [
        square + np.triu(np.ones((n, n)), 1),  # not symmetric
        1 - square / np.nanmax(square),  # similarities
        np.where(np.arange(n * n).reshape(n, n) == 1, np.nan, square),
        np.where(np.eye(n) > 0, 0, np.inf),
        square / np.nanmax(square) * 1e307,
        square.astype(complex) + 1j,
        square[:, :-1],
        square[None, None],
        np.zeros((0, n, n)),
        np.zeros((n, n)),
        np.array(3.0),
        np.full((n, n), np.nan),
        square.astype("U8"),
        np.array([[{"a": 1}] * n] * n, dtype=object),
        np.zeros(n, dtype=[("a", "f4"), ("b", "i4")]),
        np.array(["2020-01-01"] * n, dtype="datetime64[D]"),
        square[:, ::-1],
        -square,
        squares(draw_vectors(g, n + 1, 1))[0],
    ]
    values = lies[int(g.integers(len(lies)))]
    if path.suffix == ".npy":
        _lying_npy(g, path, values)
    elif path.suffix == ".npz":
        _lying_npz(g, path, values)
    elif path.suffix == ".mat":
        _lying_mat(g, path, values)
    elif path.suffix in (".h5", ".hdf5"):
        _lying_hdf5(g, path, values)
    else:
        if values.ndim == 2 and values.dtype.kind == "f":
            write_table(path, values, [str(one) for one in range(len(values))], ",", named=False)
        else:
            path.write_text(str(g.choice(np.array(["", "\n\n", ",", "a,b\n1", "1;2\n3;4\n", "\ufeff", "1," * 50_000]))))


def _npy_bytes(header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H", len(text)) if version[0] == 1 else struct.pack("<I", len(text))
    return b"\x93NUMPY" + version + length + text + content


def _lying_npy(g: Random, path: Path, values: np.ndarray) -> None:
    headers = [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, -3)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3, 3)}",
        "{'descr': '<f8', 'fortran_order': 3, 'shape': 5}",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<U400000000', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1, " * 3000 + ")}",
        "(" * 4000,
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        "__import__('os').system('touch code_was_run')",
    ]
    if g.random() < 0.5:
        np.save(path, values, allow_pickle=True)
        return
    version = b"\x01\x00" if g.random() < 0.6 else bytes([int(g.integers(1, 5)), 0])
    path.write_bytes(_npy_bytes(str(g.choice(np.array(headers))), g.bytes(int(g.integers(0, 200))), version))


def _lying_npz(g: Random, path: Path, values: np.ndarray) -> None:
    kind = g.integers(6)
    if kind <= 1:
        np.savez_compressed(path, rdm=values)
        return
    with zipfile.ZipFile(path, "w", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA][kind % 3]) as archive:
        if kind == 2:  # a bomb
            n = int(g.integers(2000, 20_000))
            head = _npy_bytes(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({n}, {n})}}")
            with archive.open("rdm.npy", "w", force_zip64=True) as member:
                member.write(head)
                for _ in range(min(n * n // 2**17 + 1, 100)):
                    member.write(bytes(2**20))
        elif kind == 3:
            content = io.BytesIO()
            np.save(content, values, allow_pickle=True)
            archive.writestr("rdm.npy", content.getvalue())
            archive.writestr("rdm.npy", content.getvalue()[:-7])
        elif kind == 4:
            archive.writestr("readme.txt", "no arrays")
        else:
            archive.writestr("../rdm.npy", _npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 3)}"))


def _mat_element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _mat_matrix(kind: int, shape: Sequence[int], name: bytes, content: bytes) -> bytes:
    head = _mat_element(6, struct.pack("<II", kind, 0)) + _mat_element(5, struct.pack(f"<{len(shape)}i", *shape))
    return _mat_element(14, head + _mat_element(1, name) + content)


def _lying_mat(g: Random, path: Path, values: np.ndarray) -> None:
    """Sizes that are not there, cells in cells, packed zeros, what is no array."""
    import scipy.sparse
    from scipy.io import savemat

    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    kind = g.integers(9)
    if kind == 0 and values.dtype.kind in "fiuOUc":
        savemat(path, {"rdm": values})
    elif kind == 1:
        savemat(path, {"rdm": scipy.sparse.csc_matrix(np.eye(5))})
    elif kind == 2:
        savemat(path, {"rdms": np.array([(np.eye(3), 1.0), (np.eye(2), "x")], dtype=[("RDM", "O"), ("name", "O")])})
    elif kind == 3:
        shape = [int(size) for size in g.choice([0, 1, 3, 20_000, 2**31 - 1, -1], size=int(g.integers(1, 4)))]
        of = int(g.choice([1, 2, 4, 5, 6, 9, 16, 17]))
        path.write_bytes(header + _mat_matrix(of, shape, b"rdm", _mat_element(9, g.bytes(int(g.choice([0, 8, 72]))))))
    elif kind == 4:
        inner, parts = _mat_matrix(6, (1, 1), b"", _mat_element(9, bytes(8))), []
        head = (
            _mat_element(6, struct.pack("<II", 1, 0)) + _mat_element(5, struct.pack("<2i", 1, 1)) + _mat_element(1, b"")
        )
        length = len(inner)
        for _ in range(int(g.choice([3, 100, 20_000]))):
            parts.append(struct.pack("<II", 14, len(head) + length) + head)
            length += len(parts[-1])
        path.write_bytes(header + b"".join(reversed(parts)) + inner)
    elif kind == 5:
        packed = zlib.compress(bytes(int(g.choice([2**16, 2**28]))))
        path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    elif kind == 6:
        path.write_bytes(struct.pack("<5i", int(g.choice([0, 1000, 50, 5])), 2**30, 2**20, 0, 4) + b"rdm\0" + bytes(80))
    elif kind == 7:
        savemat(path, {"a": np.eye(3), "b": "text", "c": {"d": 1}})
    else:
        path.write_bytes(header + g.bytes(int(g.integers(0, 400))))


def _lying_hdf5(g: Random, path: Path, values: np.ndarray) -> None:
    """Links, other files' numbers, sizes without storage, other types, other layouts."""
    import h5py

    secret = path.parent / "secret.bin"
    secret.write_bytes(np.arange(64.0).tobytes())
    kind = g.integers(15)
    with h5py.File(path, "w") as file:
        for name in "descriptors", "rdm_descriptors", "pattern_descriptors":
            if kind != 12:
                file.create_group(name)
        file.attrs["dissimilarity_measure"] = "correlation"
        if kind == 0 and values.dtype.kind not in "UOM":
            file["dissimilarities"] = values
        elif kind == 1:
            with h5py.File(path.parent / "other.h5", "w") as other:
                other["x"] = np.zeros((1, 6))
            file["dissimilarities"] = h5py.ExternalLink("other.h5", "/x")
        elif kind == 2:
            file["dissimilarities"] = h5py.SoftLink("/dissimilarities")
        elif kind == 3:
            file.create_dataset("dissimilarities", (1, 6), "f8", external=[(str(secret), 0, 48)])
        elif kind == 4:
            layout = h5py.VirtualLayout((1, 6), "f8")
            layout[0] = h5py.VirtualSource("secret.h5", "x", (6,))
            file.create_virtual_dataset("dissimilarities", layout)
        elif kind == 5:
            n = int(g.choice([20_000, 3_000_000, 2**40]))
            file.create_dataset(
                "dissimilarities", (1, n * 9), "f8", chunks=(1, 1024), compression="gzip", fillvalue=1.0
            )
        elif kind == 6:
            file["dissimilarities"] = np.zeros((1, 6))
            file["rdm_descriptors/loop"] = file["rdm_descriptors"]
        elif kind == 7:
            file["dissimilarities"] = np.ones((2, 6))
            file["pattern_descriptors/stimulus"] = ["a", "b", "c", "c"]
        elif kind == 8:
            file["dissimilarities"] = np.ones((2, 6))
            file["pattern_descriptors/stimulus"] = ["a", "b", "c", "d", "e"][: int(g.choice([3, 5]))]
        elif kind == 9:
            file.create_dataset("dissimilarities", (1, 6), h5py.ref_dtype)
        elif kind == 10:
            file["dissimilarities"] = np.ones((1, 6))
            file["pattern_descriptors"].create_dataset("stimulus", (4,), h5py.vlen_dtype(np.int32))
        elif kind == 11:
            file["dissimilarities"] = h5py.Empty("f8")
        elif kind == 12:
            file["dissimilarities"] = np.ones((1, 6))
        elif kind == 13:
            file.create_group("dissimilarities")
        else:
            file["dissimilarities"] = np.ones((1, 6))
            file["pattern_descriptors/stimulus"] = np.array([b"a\xff", b"b", b"c\n\x1b[31m", b"d"])
