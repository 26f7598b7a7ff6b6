"""Patterns of a frozen network by stimulus id, in memory or memory-mapped on disk."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from brainrdl.runs import naming_file, read_marked, write_marked
from brainrdl.stimuli import Stimuli, without_waiting

_INDEX = "index.jsonl"


class PatternCache:
    """Remembers patterns, in float32, by stimulus id; each entry keeps a checksum of its image.

    folder: where to keep them (a sub-folder per fingerprint); None = in memory. A different image under a known id is
    an error: the data is augmented, or an id is reused.

    Any number of processes may use a folder at a time. What one has computed the others find; what two compute at the
    same time is kept once. Only writing takes turns: rows are written before the line of the index that names them, so
    that a killed process leaves rows nobody knows of and never a name without its row.

    A line of the index is [id, checksum of the image, checksum of the row in each layer's file, CRC-32 of these as
    JSON]. A row is compared with its checksum when a process first reads it; rows of older folders have none.

    read_only: nothing is written. What the folder does not hold is computed and not kept.
    """

    def __init__(self, folder: Path | None = None, fingerprint: str = "", read_only: bool = False) -> None:
        self._folder = None if folder is None else folder / fingerprint[:32]
        self._read_only = read_only
        self._rows: dict[str, tuple[int, int]] = {}  # id -> (row, checksum)
        self._arrays: dict[str, np.ndarray] = {}  # per layer: (at least n_rows, ...)
        self._sums = np.zeros((0, 0), np.int64)  # (n_rows, n_layers), of the layers' files in their order
        self._unread: dict[str, np.ndarray] = {}  # per layer (n_rows,): to be compared with its checksum
        self._n_read = 0  # bytes of the index
        if self._folder is not None:
            if not read_only:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._read_index(self._folder)

    def fetch(
        self,
        stimuli: Stimuli,
        compute: Callable[[Stimuli], Mapping[str, Tensor]],
        layers: Collection[str] | None = None,
    ) -> Mapping[str, Tensor]:
        """Per layer (n_stimuli, ...), computing what is not known yet. Raises ValueError for a changed image.

        layers: which of those that are kept; None = all.
        """
        if self._folder is not None and not self._read_only and any(one not in self._rows for one in stimuli.ids):
            self._read_index(self._folder)  # another process may have come to know it
        checksums = image_checksums(stimuli.images)
        unknown: dict[str, int] = {}  # id -> its position in the batch
        for position, (stimulus, checksum) in enumerate(zip(stimuli.ids, checksums, strict=True)):
            if stimulus not in self._rows:
                _check_same(stimulus, checksums[unknown.setdefault(stimulus, position)], checksum)
            else:
                _check_same(stimulus, self._rows[stimulus][1], checksum)
        if self._read_only and (unknown or set(layers or ()) - set(self._arrays)):
            return compute(stimuli)
        if unknown:
            rows = torch.tensor(list(unknown.values()))
            computed = compute(stimuli.subset(rows))
            self._keep(
                [(stimulus, checksums[position]) for stimulus, position in unknown.items()],
                {layer: patterns.float().cpu().numpy() for layer, patterns in computed.items()},
            )
        wanted = np.array([self._rows[stimulus][0] for stimulus in stimuli.ids], np.intp)
        names = self._arrays if layers is None else [layer for layer in self._arrays if layer in layers]
        found = {layer: self._arrays[layer][wanted] for layer in names}
        for layer, unread in self._unread.items():
            if layer in found and unread[wanted].any():
                self._compare(layer, wanted, found[layer])
        return {layer: without_waiting(torch.from_numpy(rows), stimuli.images.device) for layer, rows in found.items()}

    def _compare(self, layer: str, rows: np.ndarray, found: np.ndarray) -> None:
        """Raise ValueError where what is found in a layer's rows is not what was written."""
        position = list(self._arrays).index(layer)
        new = self._unread[layer][rows]
        if image_checksums(torch.from_numpy(found[new])) != self._sums[rows[new], position].tolist():
            raise ValueError(f"the pattern cache {self._folder} is damaged (patterns of '{layer}'); delete it")
        self._unread[layer][rows] = False

    def _keep(self, entries: list[tuple[str, int]], patterns: dict[str, np.ndarray]) -> None:
        """Add rows: (id, checksum) and, per layer, the patterns."""
        if self._folder is None:
            start = len(self._rows)
            for layer, rows in patterns.items():
                self._arrays[layer] = _grown(self._arrays.get(layer), start, rows)
            self._rows |= {stimulus: (start + k, checksum) for k, (stimulus, checksum) in enumerate(entries)}
            return
        with FileLock(self._folder / "lock"):
            self._read_index(self._folder)
            new = [k for k, (stimulus, _) in enumerate(entries) if stimulus not in self._rows]
            for stimulus, checksum in entries:
                _check_same(stimulus, self._rows.get(stimulus, (0, checksum))[1], checksum)
            if new:
                for position, (layer, rows) in enumerate(patterns.items()):
                    _write_rows(self._folder, position, layer, len(self._rows), rows[new])
                sums = [image_checksums(torch.from_numpy(rows[new])) for rows in patterns.values()]
                lines = [
                    _line(*entries[k], list(of_row)) for k, of_row in zip(new, zip(*sums, strict=True), strict=True)
                ]
                with open(self._folder / _INDEX, "ab") as file:
                    file.truncate(self._n_read)  # a line that was cut off by a crash would run into the next one
                    file.write("".join(lines).encode())
            self._read_index(self._folder)

    def _read_index(self, folder: Path) -> None:
        """Learn what has come to the folder since it was last read."""
        if not (folder / _INDEX).exists():
            return
        with open(folder / _INDEX, "rb") as file:
            file.seek(self._n_read)
            added = file.read()
        added = added[: added.rfind(b"\n") + 1]
        if not added:
            return
        sums: list[list[int] | None] = []
        try:
            for line in added.splitlines():
                stimulus, checksum, of_row = _read_line(line)
                if stimulus in self._rows:
                    raise ValueError(f"'{stimulus}' stands twice")
                self._rows[stimulus] = (len(self._rows), checksum)
                sums.append(of_row)
            self._n_read += len(added)
            described = sorted(folder.glob("[0-9]*.json"), key=lambda file: int(file.stem))
            self._arrays = dict(_mapped(file, len(self._rows)) for file in described)
            self._add_sums(sums)
        except (OSError, ValueError, TypeError, KeyError):
            raise ValueError(f"the pattern cache {folder} is damaged; delete it") from None

    def _add_sums(self, sums: list[list[int] | None]) -> None:
        """Take the checksums of further rows; None for one that has none."""
        n_layers = len(self._arrays)
        if any(of_row is not None and len(of_row) != n_layers for of_row in sums):
            raise ValueError(f"a layer of {n_layers} is missing")
        new = np.array([[0] * n_layers if of_row is None else of_row for of_row in sums], np.int64)
        known = np.array([of_row is not None for of_row in sums])
        self._sums = np.concatenate([self._sums.reshape(-1, n_layers), new.reshape(-1, n_layers)])
        nothing = np.zeros(0, bool)
        self._unread = {layer: np.concatenate([self._unread.get(layer, nothing), known]) for layer in self._arrays}


def _line(stimulus: str, checksum: int, of_row: list[int]) -> str:
    """A line of the index."""
    told = [stimulus, checksum, of_row]
    return json.dumps([*told, zlib.crc32(json.dumps(told).encode())]) + "\n"


def _read_line(line: bytes) -> tuple[str, int, list[int] | None]:
    """What a line of the index says; older ones tell no checksums of rows. Raises ValueError for a damaged one."""
    told = json.loads(line)
    if len(told) == 2:
        return told[0], told[1], None
    *told, crc = told
    if zlib.crc32(json.dumps(told).encode()) != crc:
        raise ValueError("a line is not what was written")
    return told[0], told[1], told[2]


def _check_same(stimulus: str, known: int, checksum: int) -> None:
    if known != checksum:
        raise ValueError(
            f"stimulus '{stimulus}' has another image than when its patterns were cached; augmentation changes "
            "images from epoch to epoch: train without a cache, or without augmentation"
        )


def _grown(array: np.ndarray | None, start: int, new: np.ndarray) -> np.ndarray:
    """The array with the new rows from `start` on, moved to a larger place where it is full."""
    n_rows = start + len(new)
    if array is None or len(array) < n_rows:
        larger = np.zeros((max(256, 1 << (n_rows - 1).bit_length()), *new.shape[1:]), np.float32)
        if array is not None:
            larger[: len(array)] = array
        array = larger
    array[start:n_rows] = new
    return array


def _write_rows(folder: Path, position: int, layer: str, start: int, rows: np.ndarray) -> None:
    """Write rows of a layer's file, from row `start` on."""
    data, described = folder / f"{position}.f32", folder / f"{position}.json"
    data.touch()
    # Not through a map, which would write whole pages back: on a disk that machines share, other's rows with them.
    with naming_file(data), open(data, "r+b") as file:
        file.seek(start * 4 * prod(rows.shape[1:]))
        file.write(np.ascontiguousarray(rows).tobytes())
        file.flush()
        os.fsync(file.fileno())
    if not described.exists():
        write_marked(described, {"layer": layer, "shape": rows.shape[1:]})


def _mapped(described: Path, n_rows: int) -> tuple[str, np.ndarray]:
    """A layer and its file, which must hold at least `n_rows`."""
    info, data = read_marked(described, ("layer", "shape"), "delete it"), described.with_suffix(".f32")
    with open(data, "rb") as file:  # opening a file asks a network's disk anew how long it is, `stat` may not
        capacity = file.seek(0, os.SEEK_END) // (4 * prod(info["shape"]))
        if capacity < n_rows:
            raise ValueError(f"{data} is too short")
        return info["layer"], np.memmap(file, np.float32, "r", shape=(capacity, *info["shape"]))


def image_checksums(images: Tensor) -> list[int]:
    """One integer an image from its bits, the same on every device: Σ bits · (odd weights), modulo 2⁶⁴."""
    bits = images.float().flatten(1).contiguous().view(torch.int32)
    weights = _weights(bits.shape[1])
    if bits.is_cpu:  # numpy widens the bits as it goes, without a copy of all images
        sums = np.einsum("ij,j->i", bits.numpy(), weights.numpy(), dtype=np.int64, casting="safe")
        return [int(value) for value in sums.tolist()]
    return [int(value) for value in (bits.long() * weights.to(bits.device)).sum(1).tolist()]


@lru_cache(maxsize=4)
def _weights(n_pixels: int) -> Tensor:
    # Knuth's multiplicative constant spreads the positions; the last bit makes every weight odd.
    return torch.arange(1, n_pixels + 1) * 2654435761 | 1
