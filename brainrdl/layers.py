"""Record what layers of a network give, by module path, and put the network back as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn


class Patterns(dict[str, Tensor]):
    """What the recorded layers gave in the last forward; a layer that did not run is refused by name."""

    def __missing__(self, layer: str) -> Tensor:
        raise ValueError(
            f"layer '{layer}' was recorded but did not run in the last forward; "
            "record a layer that the network uses, or run the network first"
        )


def layer_names(network: nn.Module) -> tuple[str, ...]:
    """Every module path of the network; "" (its output) is left out."""
    return tuple(name for name, _ in network.named_modules() if name)


def check_layers(network: nn.Module, layers: Iterable[str], what: str = "network") -> None:
    """Raise ValueError naming the first of `layers` that is no module path of the network."""
    known = dict(network.named_modules())
    for layer in layers:
        if layer not in known:
            names = layer_names(network)
            close = get_close_matches(layer, names, n=1)
            nearest = f"did you mean '{close[0]}'? " if close else ""
            listed = ", ".join(names[:40]) + (f", … ({len(names)} in all)" if len(names) > 40 else "")
            raise ValueError(f"layer '{layer}' is not in the {what}; {nearest}it has: {listed}")


@contextmanager
def record_layers(network: nn.Module, layers: Iterable[str]) -> Iterator[Mapping[str, Tensor]]:
    """Inside the block, every forward of `network` fills the yielded mapping with what `layers` gave.

    layers: module paths; "" is the network's output. The tensors are as the layer gave them (usually
    (n_stimuli, ...)), with their gradient, and are safe against later in-place changes (`nn.ReLU(inplace=True)`).
    A new forward empties the mapping first. The hooks are removed whatever happens in the block.

    Raises ValueError, by name: a layer the network does not have; one that ran twice in one forward (a shared
    ReLU: which of the two is meant?); one that did not run, when it is read; one whose output is not a single
    tensor with a dimension for stimuli.
    """
    wanted = tuple(dict.fromkeys(layers))
    check_layers(network, wanted)
    patterns = Patterns()

    def empty(module: nn.Module, inputs: Any) -> None:
        patterns.clear()

    def keep(layer: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if layer in patterns:
                raise ValueError(
                    f"layer '{layer}' ran twice in one forward, so it is not clear which pattern is meant; "
                    "give each use a module of its own, or record its neighbours"
                )
            # The copy costs one pass over the pattern; a network can change its own tensor at any later point.
            patterns[layer] = _single_tensor(layer, output).clone()

        return hook

    modules = dict(network.named_modules())
    handles = [network.register_forward_pre_hook(empty)]
    try:
        handles += [modules[layer].register_forward_hook(keep(layer)) for layer in wanted]
        yield patterns
    finally:
        for handle in handles:
            handle.remove()


def _single_tensor(layer: str, output: Any) -> Tensor:
    name = f"layer '{layer}'" if layer else "the network"
    found = output
    if isinstance(found, Mapping):
        found = tuple(found.values())
    if isinstance(found, (tuple, list)) and len(found) == 1:
        found = found[0]
    if not isinstance(found, Tensor):
        parts = f"{len(found)} parts" if isinstance(found, (tuple, list)) else type(found).__name__
        raise ValueError(
            f"{name} gives {parts} ({type(output).__name__}), expected one tensor; "
            "record a layer inside it that gives one"
        )
    if found.ndim == 0 or not found.is_floating_point():
        raise ValueError(
            f"{name} gives {found.dtype} of shape {tuple(found.shape)}, "
            "expected floating-point patterns (n_stimuli, ...)"
        )
    return found


def as_patterns(layer: str, recorded: Tensor, n_stimuli: int) -> Tensor:
    """(n_stimuli, n_units) of a recorded tensor: feature maps and token sequences are laid out flat.

    Raises ValueError where the first dimension does not count the stimuli (a sequence-first recurrent layer).
    """
    if recorded.shape[0] != n_stimuli:
        raise ValueError(
            f"layer '{layer}' gives shape {tuple(recorded.shape)} for {n_stimuli} stimuli; its first dimension must "
            "count the stimuli (set batch_first=True, or record another layer)"
        )
    return recorded.flatten(1) if recorded.ndim > 1 else recorded[:, None]


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Eval mode for every module inside, no gradient; each module's own mode is back afterwards."""
    modes = {module: module.training for network in networks for module in network.modules()}
    try:
        for network in networks:
            network.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
