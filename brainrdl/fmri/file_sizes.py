"""What files of images say of their own sizes, looked at before a library takes memory for it."""

from __future__ import annotations

import base64
import math
import struct
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from brainrdl.restricted_files import check_claim, reading, unpack_checked

# An atlas is mostly 0 and packs well: so many bytes of a volume are believed of any file.
_FREE = 2**28
_NIFTI_1, _NIFTI_2 = 348, 540  # bytes of their headers, which begin with this number


def check_volume(image: Any, path: Path) -> None:
    """Raise ValueError where a nibabel image is no volume of real numbers in a space, or larger than its file can be.

    Its values are not read.
    """
    shape = tuple(int(size) for size in getattr(image, "shape", ()))
    if not hasattr(image, "affine") or len(shape) not in (3, 4) or min(shape) < 1:
        raise ValueError(f"{path}: expected a volume of 3 or 4 dimensions, got {shape or 'no volume'}")
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected real numbers, got values of type {dtype}; save them as numbers")
    affine = np.asarray(image.affine, dtype=float)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise ValueError(
            f"{path}: the affine of its header says no place in space (it is singular or not finite); write it with "
            "the affine of the image it was made of"
        )
    check_claim(math.prod(shape), dtype.itemsize, _on_disk(image, path), str(path), _FREE)


def check_offset(path: Path) -> None:
    """Raise ValueError where a NIfTI file says that its values begin far beyond what it can hold."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:
        header = file.read(_NIFTI_2)
    for order in "<>":
        for size, field, start in ((_NIFTI_1, "f", 108), (_NIFTI_2, "q", 168)):
            if len(header) >= size and struct.unpack_from(f"{order}i", header)[0] == size:
                offset = int(struct.unpack_from(f"{order}{field}", header, start)[0])
                check_claim(offset // 4, 4, path.stat().st_size, str(path))


def check_surface(image: Any, path: Path) -> None:
    """Raise ValueError where an .mgh image says that it is larger than its file can be."""
    check_claim(math.prod(map(int, image.shape)), 4, path.stat().st_size, str(path))


def check_gifti(path: Path) -> None:
    """Raise ValueError where a GIFTI file takes values from another file, or packs far more than it can hold.

    Raises expat's error where it is no XML.
    """
    size, unpacked = path.stat().st_size, 0
    encoding, text = "", [""]

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal encoding
        if name == "DataArray":
            encoding = attributes.get("Encoding", "")
            if attributes.get("ExternalFileName") or encoding.startswith("External"):
                raise ValueError(f"{path}: its values lie in another file; save it with the values in it")
        text.clear()

    def end(name: str) -> None:
        nonlocal unpacked
        if name == "Data" and encoding == "GZipBase64Binary":
            content = base64.b64decode("".join(text).encode("ascii"))
            unpacked += len(unpack_checked(content, size, str(path), unpacked))

    def entity(*_: object) -> None:
        raise ValueError(f"{path}: its XML declares entities, which are not read; save it again")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = text.append, entity
    with open(path, "rb") as file:
        parser.ParseFile(file)


def check_annot(path: Path) -> None:
    """Raise ValueError where a FreeSurfer .annot has more vertices or labels than bytes."""
    with open(path, "rb") as file:
        content = np.fromfile(file, ">i4")
    n_vertices = int(content[0])
    # Then a number and a label a vertex, whether there are names, how many (of a newer kind: -2), how many numbers.
    told = [n_vertices, *(int(number) for number in content[2 * n_vertices + 2 : 2 * n_vertices + 4] if number != -2)]
    if n_vertices < 0 or max(told) > 4 * len(content):
        raise ValueError(f"{max(told)} vertices or labels in {4 * len(content)} bytes")


def _on_disk(image: Any, path: Path) -> int:
    """Bytes of the file with the values, which of a pair (.hdr, .img) is the other one."""
    holder = getattr(image, "file_map", {}).get("image")
    name = getattr(holder, "filename", None)
    return (Path(name) if name and Path(name).is_file() else path).stat().st_size


def load_image(path: Path) -> Any:
    """A nibabel image whose values are not read yet. Raises ValueError naming the file, whatever is wrong with it."""
    import nibabel

    with reading(path, "cannot be read", "fetch it again"):
        if path.suffix == ".gii":
            check_gifti(path)
        check_offset(path)
        return nibabel.load(path)
