"""Patterns of a frozen network by stimulus id, in memory or memory-mapped on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from brainrdl.runs import write_json
from brainrdl.stimuli import Stimuli

_INDEX = "index.jsonl"


class PatternCache:
    """Remembers patterns, in float32, by stimulus id; each entry keeps a checksum of its image.

    folder: where to keep them (a sub-folder per fingerprint); None = in memory. One cache at a time may
    use a folder. A different image under a known id is an error: the data is augmented, or an id is reused.

    On disk, rows are written before the line of the index that names them, so that a killed process leaves
    rows nobody knows of and never a name without its row.

    read_only: for any number of processes at a time, of a folder that nobody writes to any more. What it does not hold
    is computed and not kept.
    """

    def __init__(self, folder: Path | None = None, fingerprint: str = "", read_only: bool = False) -> None:
        self._folder = None if folder is None else folder / fingerprint[:32]
        self._read_only = read_only
        self._rows: dict[str, tuple[int, int]] = {}  # id -> (row, checksum)
        self._arrays: dict[str, np.ndarray] = {}  # per layer: (capacity, ...)
        self._lock: FileLock | None = None
        if self._folder is not None:
            self._open(self._folder)

    def fetch(
        self,
        stimuli: Stimuli,
        compute: Callable[[Stimuli], Mapping[str, Tensor]],
        layers: Collection[str] | None = None,
    ) -> Mapping[str, Tensor]:
        """Per layer (n_stimuli, ...), computing what is not known yet. Raises ValueError for a changed image.

        layers: which of those that are kept; None = all.
        """
        checksums = image_checksums(stimuli.images)
        unknown: dict[str, int] = {}  # id -> its position in the batch
        for position, (stimulus, checksum) in enumerate(zip(stimuli.ids, checksums, strict=True)):
            if stimulus in self._rows:
                known = self._rows[stimulus][1]
            else:
                known = checksums[unknown.setdefault(stimulus, position)]
            if known != checksum:
                raise ValueError(
                    f"stimulus '{stimulus}' has another image than when its patterns were cached; augmentation changes "
                    "images from epoch to epoch: train without a cache, or without augmentation"
                )
        if self._read_only and (unknown or set(layers or ()) - set(self._arrays)):
            return compute(stimuli)
        if unknown:
            rows = torch.tensor(list(unknown.values()))
            computed = compute(stimuli.subset(rows))
            self._append(
                [(stimulus, checksums[position]) for stimulus, position in unknown.items()],
                {layer: patterns.float().cpu().numpy() for layer, patterns in computed.items()},
            )
        wanted = [self._rows[stimulus][0] for stimulus in stimuli.ids]
        device = stimuli.images.device
        return {
            layer: torch.from_numpy(array[wanted]).to(device)
            for layer, array in self._arrays.items()
            if layers is None or layer in layers
        }

    def close(self) -> None:
        """Let another cache use the folder."""
        if self._lock is not None:
            self._lock.release()

    def _append(self, entries: list[tuple[str, int]], patterns: dict[str, np.ndarray]) -> None:
        start = len(self._rows)
        for position, (layer, new) in enumerate(patterns.items()):
            array = self._room(position, layer, start + len(new), new.shape[1:])
            array[start : start + len(new)] = new
            if isinstance(array, np.memmap):
                array.flush()
        if self._folder is not None:
            with open(self._folder / _INDEX, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in entries)
        for offset, (stimulus, checksum) in enumerate(entries):
            self._rows[stimulus] = (start + offset, checksum)

    def _room(self, position: int, layer: str, n_rows: int, shape: tuple[int, ...]) -> np.ndarray:
        """The layer's array, grown so that it holds at least `n_rows`."""
        array = self._arrays.get(layer)
        if array is not None and len(array) >= n_rows:
            return array
        capacity = max(256, 1 << (n_rows - 1).bit_length())
        if self._folder is None:
            grown: np.ndarray = np.zeros((capacity, *shape), np.float32)
            if array is not None:
                grown[: len(array)] = array
        else:
            grown = _map(self._folder, position, layer, capacity, shape)
        self._arrays[layer] = grown
        return grown

    def _open(self, folder: Path) -> None:
        if not self._read_only:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / "lock")
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise ValueError(
                    f"the pattern cache {folder} is in use by another process or teacher; give each a folder of its own"
                ) from None
        index = folder / _INDEX
        if not index.exists():
            return
        # A line that was cut off by a crash has no end, and would run into the next one.
        complete = "".join(line for line in index.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n"))
        try:
            entries = [json.loads(line) for line in complete.splitlines()]
            self._rows = {stimulus: (row, checksum) for row, (stimulus, checksum) in enumerate(entries)}
            mode: Literal["r", "r+"] = "r" if self._read_only else "r+"
            self._arrays = dict(_mapped(file, len(entries), mode) for file in sorted(folder.glob("*.json")))
        except (OSError, ValueError, TypeError, KeyError):
            raise ValueError(f"the pattern cache {folder} is damaged; delete it") from None
        if not self._read_only:
            index.write_text(complete, encoding="utf-8")


def _map(folder: Path, position: int, layer: str, capacity: int, shape: tuple[int, ...]) -> np.ndarray:
    """A layer's file made as large as `capacity` rows; what it holds stays."""
    data = folder / f"{position}.f32"
    data.touch()
    with open(data, "r+b") as file:
        file.truncate(capacity * int(np.prod(shape)) * 4)
    write_json(folder / f"{position}.json", {"layer": layer, "shape": shape})
    return np.memmap(data, np.float32, "r+", shape=(capacity, *shape))


def _mapped(described: Path, n_rows: int, mode: Literal["r", "r+"]) -> tuple[str, np.ndarray]:
    """A layer and its file, which must hold at least `n_rows`."""
    info, data = json.loads(described.read_text("utf-8")), described.with_suffix(".f32")
    capacity = data.stat().st_size // (4 * int(np.prod(info["shape"])))
    if capacity < n_rows:
        raise ValueError(f"{data} is too short")
    return info["layer"], np.memmap(data, np.float32, mode, shape=(capacity, *info["shape"]))


def image_checksums(images: Tensor) -> list[int]:
    """One integer an image from its bits, the same on every device: Σ bits · (odd weights), modulo 2⁶⁴."""
    bits = images.float().flatten(1).contiguous().view(torch.int32).long()
    # Knuth's multiplicative constant spreads the positions; the last bit makes every weight odd.
    weights = torch.arange(1, bits.shape[1] + 1, device=bits.device) * 2654435761 | 1
    return [int(value) for value in (bits * weights).sum(1).tolist()]
