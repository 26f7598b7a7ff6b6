"""What a network says to stimuli, without training it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from brainrdl.layers import evaluating
from brainrdl.stimuli import Stimuli, StoredStimuli, in_batches


def on_device(stimuli: Stimuli | StoredStimuli, device: torch.device) -> Stimuli | StoredStimuli:
    """The stimuli on the device where they are in memory and take at most half of what is free on it, else as they are.

    Images that are looked at again and again are then copied once.
    """
    if not isinstance(stimuli, Stimuli) or device.type not in ("cuda", "mps"):
        return stimuli
    if device.type == "cuda" and stimuli.images.nbytes * 2 >= torch.cuda.mem_get_info(device)[0]:
        return stimuli
    return stimuli.to(device)


def network_outputs(
    network: nn.Module,
    stimuli: Stimuli | StoredStimuli,
    preprocess: nn.Module | None = None,
    batch_size: int = 500,
    device: torch.device | str | None = None,
) -> Tensor:
    """The network's outputs, in eval mode and without gradient; mode and device are put back.

    preprocess: from images of 0…1 to the network's input; None takes them as they are.
    device: where to compute; None is where the network is.
    Returns (n_stimuli, n_outputs) on the CPU. Raises ValueError where the network gives something else.
    """
    parts = []
    with _on_device(network, device) as place, evaluating(network):
        for batch in in_batches(stimuli, batch_size):
            images = batch.images.to(place)
            outputs = network(images if preprocess is None else preprocess(images))
            if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images):
                got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
                raise ValueError(f"the network gives {got} for {len(images)} stimuli, expected (n_stimuli, n_outputs)")
            parts.append(outputs.cpu())
    return torch.cat(parts)


def predict(
    network: nn.Module,
    stimuli: Stimuli | StoredStimuli,
    preprocess: nn.Module | None = None,
    batch_size: int = 500,
    device: torch.device | str | None = None,
) -> Tensor:
    """The class of the largest output, (n_stimuli,) int64 on the CPU; arguments as `network_outputs`."""
    return network_outputs(network, stimuli, preprocess, batch_size, device).argmax(1)


@contextmanager
def _on_device(network: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The network on `device` inside, and where it was afterwards; yields the device."""
    first = next(network.parameters(), None)
    home = torch.device("cpu") if first is None else first.device
    place = home if device is None else torch.device(device)
    try:
        network.to(place)
        yield place
    finally:
        network.to(home)
