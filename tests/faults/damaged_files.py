"""Damage that files come to, and tables that other programs wrote."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np

Random = np.random.Generator
VALID = 0.3  # of the cases are whole


def _damage(g: Random, path: Path) -> None:
    """Cut short, bits turned, bytes put in or taken out, emptied, another file's bytes."""
    content = bytearray(path.read_bytes())
    kind = g.integers(8)
    if kind == 0:
        content = content[: int(g.integers(0, max(1, len(content))))]
    elif kind == 1:
        for _ in range(int(g.integers(1, 20))):
            place = int(g.integers(len(content)))
            content[place] ^= 1 << int(g.integers(8))
    elif kind == 2:  # in the beginning, where sizes stand
        for _ in range(int(g.integers(1, 8))):
            content[int(g.integers(min(len(content), 600)))] = int(g.integers(256))
    elif kind == 3:
        place, length = int(g.integers(len(content))), int(g.integers(1, 200))
        content[place : place + length] = g.bytes(length)
    elif kind == 4:
        place = int(g.integers(len(content)))
        del content[place : place + int(g.integers(1, 100))]
    elif kind == 5:
        content = bytearray()
    elif kind == 6:
        content = bytearray(g.bytes(int(g.integers(1, 3000))))
    else:  # a number that is 32 bits wide becomes an extreme one
        place = int(g.integers(max(1, len(content) - 4)))
        extreme = struct.pack(
            ">I" if g.random() < 0.5 else "<I", int(g.choice([0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
        )
        content[place : place + 4] = extreme
    path.write_bytes(bytes(content))


def _replace(g: Random, path: Path) -> None:
    """Something else under the file's name."""
    path.unlink()
    kind = g.integers(5)
    if kind == 0:
        return
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.write_bytes(pickle.dumps({"a": [1, 2, 3]}))
    else:
        path.write_text("<html><body>404: not found</body></html>\n")


def damage_file(g: Random, path: Path) -> None:
    (_damage if g.random() < 0.9 else _replace)(g, path)


def damage_text(g: Random, path: Path) -> None:
    """What happens to tables: other encodings and separators, quotes, rows that are longer, cells that are formulas."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    separator = "\t" if path.suffix == ".tsv" else ","
    row = int(g.integers(len(lines)))
    cells = lines[row].split(separator)
    cell = int(g.integers(len(cells)))
    strange = [
        "", "n/a", "NaN", "inf", "-inf", "1e400", "-1", "0", "1_000", "0x10", "=1+1", "=cmd|' /C calc'!A0", "0,5", '"',
        "'", "a\tb", "\x00", "\x1b[31m", "１２", "1e-320", "True", "12:30", "2024-01-01", "x" * 200_000, " 1 ", "1.5",
        "99999999999999999999", "../../etc/passwd", "ß" * 50, "\u202e",
    ]  # fmt: skip
    kind = g.integers(12)
    if kind <= 3:
        cells[cell] = str(g.choice(np.array(strange, dtype=object)))
        lines[row] = separator.join(cells)
    elif kind == 4:
        lines[row] += separator + "extra"
    elif kind == 5:
        lines[row] = separator.join(cells[:-1])
    elif kind == 6:
        lines = [line.replace(separator, str(g.choice([";", " ", "|", "\t", ","]))) for line in lines]
    elif kind == 7:
        lines = lines[:1] if g.random() < 0.5 else lines[1:]
    elif kind == 8:
        lines.insert(row, lines[row])
    elif kind == 9:
        lines = [line.replace(".", ",") for line in lines]
    elif kind == 10:
        names = lines[0].split(separator)
        names[int(g.integers(len(names)))] = str(g.choice(["", names[0], " stimulus", "Onset"]))
        lines[0] = separator.join(names)
    else:
        lines = [line + "\x00" if k == row else line for k, line in enumerate(lines)]
    encoding = str(g.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"]))
    ending = str(g.choice(["\n", "\n", "\r\n", "\r"]))
    path.write_bytes((ending.join(lines) + ending).encode(encoding, errors="replace"))
