"""Images and masks that are whole files, but say of their sizes, types and places what is not so."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np

Random = np.random.Generator


def lie_in_header(g: Random, path: Path) -> None:
    """Change fields of a NIfTI header: dimensions, type, offset, scale, units, affine."""
    packed = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    for _ in range(int(g.integers(1, 4))):
        kind = g.integers(12)
        if kind == 0:
            sizes = [int(size) for size in g.choice([0, 1, 2, 3, 4, 5, 255, 32767, -1], 8)]
            struct.pack_into("<8h", content, 40, int(g.choice([3, 4, 4, 5, 7, 0, 8])), *sizes[1:])
        elif kind == 1:
            struct.pack_into("<h", content, 40 + 2 * int(g.integers(1, 5)), int(g.choice([0, 1, 32767, 2000, -3])))
        elif kind == 2:  # datatype and bits
            code = int(g.choice([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 511, 512, 768, 1024, 1536, 1792, 2048, 2304]))
            struct.pack_into("<2h", content, 70, code, int(g.choice([8, 16, 32, 64, 128])))
        elif kind == 3:
            offset = float(g.choice([0, 348, 351, 353, 1e6, 2e9, 1e30, -352, np.nan, np.inf]))
            struct.pack_into("<f", content, 108, offset)
        elif kind in (4, 5):
            slopes = g.choice([0, 1, np.nan, np.inf, -np.inf, 1e38, -1, 2.5, 1e-45], 2).tolist()
            struct.pack_into("<2f", content, 112, *slopes)
        elif kind == 6:  # the steps from voxel to voxel and scan to scan
            zoom = float(g.choice([0, np.nan, np.inf, -2, 1e-30, 1e30, 2000]))
            struct.pack_into("<f", content, 76 + 4 * int(g.integers(5)), zoom)
        elif kind == 7:  # the affine
            row = 280 + 16 * int(g.integers(3))
            struct.pack_into("<4f", content, row, *g.choice([0, np.nan, np.inf, 3, 500], 4).tolist())
        elif kind == 8:
            struct.pack_into("<2h", content, 252, *(int(code) for code in g.choice([0, 1, 2, 5, -1, 300], 2)))
        elif kind == 9:
            content[344:348] = [b"n+1\0", b"ni1\0", b"n+2\0", b"xxxx", bytes(4)][int(g.integers(5))]
        elif kind == 10:
            content[:4] = struct.pack(["<i", ">i"][int(g.integers(2))], int(g.choice([348, 540, 0, 1543569408])))
        else:
            content[123] = int(g.integers(256))  # units of place and time
    path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))


def lie_in_image(g: Random, path: Path) -> None:
    """Replace a volume by one that is no volume of the kind, or is far larger than its file."""
    image = nibabel.load(path, mmap=False)
    values, affine = np.asarray(image.dataobj), image.affine
    kind = g.integers(13)
    if kind == 0:
        values = values[..., None, :] if values.ndim == 4 else values[..., None]
    elif kind == 1:
        values = values.astype(np.complex64)
    elif kind == 2:
        values = np.zeros_like(values)
    elif kind == 3:
        values = np.where(g.random(values.shape) < 0.5, np.nan, values.astype(np.float32))
    elif kind == 4:
        values = values[:-1]
    elif kind == 5:
        affine = affine @ np.diag([2, 1, 1, 1])
    elif kind == 6:
        values = values.astype(np.float64) * 1e200
    elif kind == 7:
        values = values[..., :-3] if values.ndim == 4 else values[..., :1]
    elif kind == 8:
        values = np.full_like(values, 7)
    elif kind == 9:
        values = values.astype(">f4")
    elif kind == 10 and path.suffix == ".gz":
        _write_bomb(g, path)
        return
    elif kind == 11:
        values = -values.astype(np.float32)
    else:
        values = np.zeros(values.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def _write_bomb(g: Random, path: Path) -> None:
    """A header of large dimensions before packed zeros."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape([(1000, 1000, 1000), (2000, 2000, 100, 50), (4, 3, 2, 30_000)][int(g.integers(3))])
    header["magic"], header["vox_offset"] = b"n+1", 352
    with gzip.open(path, "wb", 9) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(int(g.integers(1, 100))):
            file.write(bytes(2**20))


def lie_in_gifti(g: Random, path: Path) -> None:
    """Attributes and contents of a GIFTI file's XML."""
    text = path.read_text(encoding="utf-8")
    secret = path.parent / "secret.bin"
    secret.write_bytes(np.arange(64.0).tobytes())
    bomb = base64.b64encode(zlib.compress(bytes(2**28))).decode()
    start, end = text.index("<Data>") + 6, text.index("</Data>")
    entities = "<!DOCTYPE GIFTI [" + "".join(
        f'<!ENTITY e{k} "{f"&e{k - 1};" * 10 if k else "0 " * 50}">' for k in range(9)
    )
    changed = [
        text.replace('ExternalFileName=""', 'ExternalFileName="secret.bin"'),
        text.replace('Encoding="GZipBase64Binary"', 'Encoding="ExternalFileBinary" ').replace(
            'ExternalFileName=""', f'ExternalFileName="{secret}"'
        ),
        text.replace('Dim0="', 'Dim0="9999999'),
        text.replace('Dim0="', 'Dim0="-'),
        text.replace('Dimensionality="1"', 'Dimensionality="7"'),
        text.replace("NIFTI_TYPE_FLOAT32", "NIFTI_TYPE_RGB24"),
        text.replace("NIFTI_TYPE_FLOAT32", "NIFTI_TYPE_COMPLEX64"),
        text.replace("LittleEndian", "BigEndian"),
        text[:start] + bomb + text[end:],
        text[:start] + "!!!" + text[start:],
        text[:start] + "&e8;" + text[end:],
        text.replace("<!DOCTYPE GIFTI", entities + "]><!--", 1).replace("dtd'>", "-->", 1).replace('dtd">', "-->", 1),
        text.replace("</GIFTI>", ""),
        text.replace("<DataArray", "<Other").replace("</DataArray", "</Other"),
    ]
    path.write_text(changed[int(g.integers(len(changed)))], encoding="utf-8")


def lie_in_annot(g: Random, path: Path) -> None:
    """The numbers of a FreeSurfer .annot that say how much follows."""
    content = bytearray(path.read_bytes())
    n_vertices = struct.unpack_from(">i", content)[0]
    places = [0, 4 + 8 * n_vertices, 8 + 8 * n_vertices, 12 + 8 * n_vertices, 16 + 8 * n_vertices]
    extreme = int(g.choice([0, 1, 2**31 - 1, -1, -2, 10**6, 2**28]))
    struct.pack_into(">i", content, int(g.choice(places)), extreme)
    path.write_bytes(bytes(content))


def lie_in_mgh(g: Random, path: Path) -> None:
    """Dimensions, type and number of maps of an .mgh."""
    content = bytearray(path.read_bytes())
    extreme = int(g.choice([0, 1, 2, 2**31 - 1, -1, 10**6, 2**28]))
    struct.pack_into(">i", content, 4 * int(g.integers(0, 7)), extreme)
    path.write_bytes(bytes(content))
