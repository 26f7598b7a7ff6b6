"""What experiments of every kind share: how they are run, their networks, what they say."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from brainrdl.experiment_file import NetworkSettings, TrainingSettings
from brainrdl.models import Preprocessing, build_network
from brainrdl.randomness import Draw, torch_seeded
from brainrdl.runs import write_bytes


@dataclass(frozen=True)
class RunOptions:
    """How, not what, is run: nothing here changes a result.

    resume: go on with unfinished parts. jobs: parts run at the same time, each in a process of its own.
    accelerator, devices, nodes: as in Lightning Fabric. allow_code: networks may be "package.module:callable".
    """

    resume: bool = False
    jobs: int = 1
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    allow_code: bool = False


def build_seeded(settings: NetworkSettings, seed: int, allow_code: bool) -> nn.Module:
    """A network with the initial weights of `seed`, or those of its file."""
    with torch_seeded(Draw(seed).torch_seed("initial weights")):
        return build_network(settings.network, settings.arguments, settings.weights, allow_code)


def make_preprocessing(settings: NetworkSettings) -> Preprocessing:
    """The preprocessing that these settings say."""
    return Preprocessing(**settings.preprocess.model_dump())


def save_weights(network: nn.Module, path: Path) -> None:
    """The network's state as safetensors, whole or not at all."""
    from safetensors.torch import save

    # Clones, since safetensors refuses tensors that share memory.
    state = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
    write_bytes(path, save(state))


def try_network(network: nn.Module, settings: NetworkSettings, images: torch.Tensor, what: str) -> torch.Tensor:
    """The network's output for a few images. Raises ValueError where shapes cannot meet."""
    try:
        network.eval()
        with torch.no_grad():
            output = network(make_preprocessing(settings)(images))
    except Exception as error:  # whatever the network raises at a shape it cannot take
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ValueError(
            f"the {what} ({settings.network}) cannot take images of shape {tuple(images.shape[1:])} after its "
            f"preprocessing: {reason}; set its preprocess (size, channels) or arguments"
        ) from None
    return torch.as_tensor(output) if isinstance(output, torch.Tensor) else torch.empty(0)


def check_batch(training: TrainingSettings, n_images: int, what: str) -> None:
    if n_images < training.batch_size:
        raise ValueError(
            f"{what}: {n_images} training images are fewer than a batch of {training.batch_size}; "
            "lower training.batch_size or take more images"
        )


def say(text: str) -> None:
    """Tell the user one line."""
    Console(file=sys.stdout, soft_wrap=True, highlight=False).print(text)
