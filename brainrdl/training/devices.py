"""The devices a training runs on, as Lightning Fabric drives them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def make_fabric(
    accelerator: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str | None = None,
    strategy: str = "auto",
) -> Fabric:
    """A launched `Fabric`. Raises ValueError for a device or precision that is not there."""
    from lightning_fabric import Fabric

    if precision not in (None, "32-true", "16-mixed", "bf16-mixed"):
        raise ValueError(
            f"precision: expected 32-true, 16-mixed or bf16-mixed (the weights stay in float32), got '{precision}'"
        )
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            precision=precision,  # type: ignore[arg-type]
            strategy=strategy,
        )
    except Exception as error:  # Fabric raises its own and RuntimeError, ValueError, TypeError
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot train on accelerator '{accelerator}' × {devices}, precision {precision}: {reason}"
        ) from None
    fabric.launch()
    return fabric


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Inside, torch computes with `n` threads of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
