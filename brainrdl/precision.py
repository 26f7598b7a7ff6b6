"""Matrix products in the full precision of their numbers, whatever the user has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def full_precision(tensor: Tensor) -> Iterator[None]:
    """Neither autocast nor reduced-precision matrix products (TF32, bfloat16) inside."""
    device = tensor.device.type
    with torch.autocast(device, enabled=False), _no_reduced_products():
        yield


@contextmanager
def _no_reduced_products() -> Iterator[None]:
    # torch 2.9 gave each backend a setting of its own; once one is set, the old common setting may not be read.
    backends = matmul_backends()
    reduced = [(b, b.fp32_precision) for b in backends if b.fp32_precision not in ("none", "ieee")]
    common = None if backends else torch.get_float32_matmul_precision()
    try:
        for backend, _ in reduced:
            backend.fp32_precision = "ieee"
        if common:
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        for backend, value in reduced:
            backend.fp32_precision = "none"  # inherits; so a value that came from above still does
            if backend.fp32_precision != value:
                backend.fp32_precision = value
        if common:
            torch.set_float32_matmul_precision(common)


def matmul_backends() -> list[Any]:
    """What of torch has a precision of its own for products of float32 matrices: since 2.9, each backend."""
    candidates = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return [backend for backend in candidates if hasattr(backend, "fp32_precision")]
