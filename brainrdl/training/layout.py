"""How a training computes on a device: where numbers lie in memory, and how precisely matrices are multiplied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from brainrdl.precision import matmul_backends


@contextmanager
def channels_last(networks: Iterable[nn.Module], wanted: bool = True) -> Iterator[None]:
    """Inside, the networks' convolutions have their weights in `torch.channels_last`; afterwards as they were.

    Values and shapes stay, and so do weights that lie otherwise than row by row. wanted: False changes nothing.
    """
    tensors = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    moved = [tensor for tensor in dict.fromkeys(tensors) if wanted and tensor.ndim == 4 and tensor.is_contiguous()]
    try:
        for tensor in moved:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
        yield
    finally:
        for tensor in moved:
            tensor.data = tensor.data.to(memory_format=torch.contiguous_format)


@contextmanager
def tensor_float32(device: torch.device, wanted: bool = True) -> Iterator[None]:
    """Inside, CUDA multiplies float32 matrices in TensorFloat-32, as torch's convolutions do by default.

    RDMs are computed in full precision all the same (`brainrdl.dissimilarity`). wanted: False, or another kind of
    device, changes nothing.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    common = torch.get_float32_matmul_precision()
    # The common setting also sets those of the backends.
    before = [(backend, backend.fp32_precision) for backend in matmul_backends()]
    try:
        torch.set_float32_matmul_precision("high")
        yield
    finally:
        torch.set_float32_matmul_precision(common)
        for backend, precision in before:
            backend.fp32_precision = precision
