"""Patterns of a frozen network by stimulus id, in memory or memory-mapped on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from brainrdl.stimuli import Stimuli

_INDEX = "index.jsonl"


class PatternCache:
    """Remembers patterns by stimulus id; each entry keeps a checksum of its image.

    folder: where to keep them (a sub-folder per fingerprint); None = in memory. One process at a time may
    use a folder. A different image under a known id is an error: the data is augmented, or an id is reused.

    On disk, rows are written before the line of the index that names them, so that a killed process leaves
    rows nobody knows of and never a name without its row.
    """

    def __init__(self, folder: Path | None = None, fingerprint: str = "") -> None:
        self._folder = None if folder is None else folder / fingerprint[:32]
        self._rows: dict[str, tuple[int, int]] = {}  # id -> (row, checksum)
        self._arrays: dict[str, np.ndarray] = {}  # per layer: (capacity, ...)
        if self._folder is not None:
            self._open(self._folder)

    def fetch(self, stimuli: Stimuli, compute: Callable[[Stimuli], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Per layer (n_stimuli, ...), computing what is not known yet. Raises ValueError for a changed image."""
        checksums = image_checksums(stimuli.images)
        unknown = []
        for position, (stimulus, checksum) in enumerate(zip(stimuli.ids, checksums, strict=True)):
            entry = self._rows.get(stimulus)
            if entry is None:
                unknown.append(position)
            elif entry[1] != checksum:
                raise ValueError(
                    f"stimulus '{stimulus}' has another image than when its patterns were cached; augmentation changes "
                    "images from epoch to epoch: train without a cache, or without augmentation"
                )
        if unknown:
            rows = torch.tensor(unknown)
            computed = compute(stimuli.subset(rows))
            self._append(
                [(stimuli.ids[k], checksums[k]) for k in unknown],
                {layer: patterns.float().cpu().numpy() for layer, patterns in computed.items()},
            )
        wanted = [self._rows[stimulus][0] for stimulus in stimuli.ids]
        device = stimuli.images.device
        return {layer: torch.from_numpy(array[wanted]).to(device) for layer, array in self._arrays.items()}

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
            grown = self._map(position, layer, capacity, shape)
        self._arrays[layer] = grown
        return grown

    def _map(self, position: int, layer: str, capacity: int, shape: tuple[int, ...]) -> np.ndarray:
        assert self._folder is not None
        data = self._folder / f"{position}.f32"
        data.touch()
        (self._folder / f"{position}.json").write_text(json.dumps({"layer": layer, "shape": shape}))
        with open(data, "r+b") as file:
            file.truncate(capacity * int(np.prod(shape)) * 4)
        return np.memmap(data, np.float32, "r+", shape=(capacity, *shape))

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"the pattern cache {folder} is in use by another process; give each process a cache folder of its own"
            ) from None
        if not (folder / _INDEX).exists():
            return
        complete = (folder / _INDEX).read_text(encoding="utf-8").rpartition("\n")[0]
        entries = [json.loads(line) for line in complete.splitlines()]
        for described in folder.glob("*.json"):
            info = json.loads(described.read_text())
            size = described.with_suffix(".f32").stat().st_size
            capacity = size // (4 * int(np.prod(info["shape"])))
            if capacity < len(entries):
                raise ValueError(
                    f"the pattern cache {folder} is damaged ({described.stem}.f32 is too short); delete it"
                )
            self._arrays[info["layer"]] = np.memmap(
                described.with_suffix(".f32"), np.float32, "r+", shape=(capacity, *info["shape"])
            )
        self._rows = {stimulus: (row, checksum) for row, (stimulus, checksum) in enumerate(entries)}
        # A line that was cut off by a crash would run into the next one.
        (folder / _INDEX).write_text(complete + "\n" if complete else "", encoding="utf-8")


def image_checksums(images: Tensor) -> list[int]:
    """One integer an image from its bits, the same on every device: Σ bits · (odd weights), modulo 2⁶⁴."""
    bits = images.float().flatten(1).contiguous().view(torch.int32).long()
    # Knuth's multiplicative constant spreads the positions; the last bit makes every weight odd.
    weights = torch.arange(1, bits.shape[1] + 1, device=bits.device) * 2654435761 | 1
    return [int(value) for value in (bits * weights).sum(1).tolist()]
