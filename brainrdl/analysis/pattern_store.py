"""Patterns of many stimuli, batch by batch: in memory as long as they fit, else in a temporary file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from io import RawIOBase
from types import TracebackType

import torch
from torch import Tensor

from brainrdl.analysis.all_pairs import Rows

_GIB = 2**30


class PatternStore:
    """What layers give for `n_stimuli` stimuli, to be filled batch by batch within `with`.

    memory: GiB of patterns held in memory. Layers are taken in their order; one that does not fit into what is left
    goes to a temporary file (in $TMPDIR, else the system's place), which is gone when the block is left, whatever
    happens in it. Patterns are kept in float32, float64 where the layer gives that.
    Raises ValueError for negative memory.
    """

    def __init__(self, n_stimuli: int, memory: float) -> None:
        if not memory >= 0:
            raise ValueError(f"memory must be at least 0 GiB, got {memory}")
        self.n_stimuli = n_stimuli
        self._memory = memory * _GIB
        self._n_filled = 0
        self._layers: dict[str, Tensor | _InFile] = {}
        self._files = ExitStack()

    def __enter__(self) -> PatternStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._layers.clear()
        self._files.close()

    def add(self, batch: Mapping[str, Tensor]) -> None:
        """Keep the next stimuli's patterns: layer -> (n_stimuli of the batch, n_units), the same layers every time.

        Raises ValueError naming the layer whose number of units changed, or for which the disk has no room.
        """
        batch = {layer: patterns.detach().cpu() for layer, patterns in batch.items()}
        if not self._layers:
            self._lay_out(batch)
        for layer, patterns in batch.items():
            kept = self._layers[layer]
            if patterns.shape[1] != kept.shape[1]:
                raise ValueError(
                    f"layer '{layer}' gives {kept.shape[1]} units for the first stimuli and {patterns.shape[1]} for "
                    "later ones; bring all images to one size"
                )
            if isinstance(kept, Tensor):
                kept[self._n_filled : self._n_filled + len(patterns)] = patterns
            else:
                kept.append(patterns)
        self._n_filled += len(next(iter(batch.values())))

    def __getitem__(self, layer: str) -> Rows:
        """(n_stimuli, n_units), all of them once every batch was added."""
        return self._layers[layer]

    def _lay_out(self, batch: Mapping[str, Tensor]) -> None:
        """Say where each layer goes, and make sure of the disk before anything long is computed."""
        left, on_disk = self._memory, 0
        for layer, patterns in batch.items():
            dtype = torch.float64 if patterns.dtype == torch.float64 else torch.float32
            shape = self.n_stimuli, patterns.shape[1]
            size = shape[0] * shape[1] * dtype.itemsize
            if size <= left:
                left -= size
                self._layers[layer] = torch.empty(shape, dtype=dtype)
                continue
            on_disk += size
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if on_disk > free:
                raise _no_room(layer, on_disk, f"{free / _GIB:.1f} GiB are free")
            self._layers[layer] = _InFile(layer, shape, dtype, self._files.enter_context(_temporary_file()))


class _InFile:
    """A layer's patterns in a file, row after row: appended first, read afterwards."""

    def __init__(self, layer: str, shape: tuple[int, int], dtype: torch.dtype, file: RawIOBase) -> None:
        self.layer, self.shape, self.dtype, self._file = layer, shape, dtype, file
        self._row_bytes = shape[1] * dtype.itemsize

    def append(self, patterns: Tensor) -> None:
        # Written and not mapped: a full disk is an error here, where a mapped page would end the process.
        rest = _bytes(patterns.to(self.dtype).contiguous())
        try:
            while len(rest):
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            raise _no_room(self.layer, self.shape[0] * self._row_bytes, error.strerror or str(error)) from None

    def __getitem__(self, rows: slice, /) -> Tensor:
        start, stop, _ = rows.indices(self.shape[0])
        block = torch.empty((stop - start, self.shape[1]), dtype=self.dtype)
        rest = _bytes(block)
        self._file.seek(start * self._row_bytes)
        while len(rest):
            n_read = self._file.readinto(rest)
            if not n_read:
                raise ValueError(f"layer '{self.layer}': its temporary file ends before row {stop}; run it again")
            rest = rest[n_read:]
        return block


def _temporary_file() -> RawIOBase:
    """Without a buffer, which would be written, and fail once more, when the file is closed."""
    return tempfile.TemporaryFile(buffering=0)


def _bytes(values: Tensor) -> memoryview:
    return values.view(torch.uint8).flatten().numpy().data


def _no_room(layer: str, n_bytes: int, found: str) -> ValueError:
    return ValueError(
        f"layer '{layer}': no room for {n_bytes / _GIB:.1f} GiB of patterns in the temporary folder "
        f"{tempfile.gettempdir()} ({found}); set TMPDIR to a folder with more room, give more `memory`, or take fewer "
        "layers or stimuli"
    )
