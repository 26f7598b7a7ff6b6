"""Checkpoints: everything needed to go on where a training stopped, written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from brainrdl.runs import write_bytes

_FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts). The old file is kept until this one is whole."""
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **state}, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, on the CPU, running no code from it. Raises ValueError naming a damaged or foreign file."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling meets
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read ({reason}); delete it to start this part again") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{path} is no checkpoint of this version; delete it to start this part again")
    return state
