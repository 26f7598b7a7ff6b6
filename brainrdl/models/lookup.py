"""Networks by name, and their weights from a file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from brainrdl.models.mnist_cnn import MnistCNN
from brainrdl.models.nin import NiN
from brainrdl.models.pretrained import efficientnet_lite0, efficientnet_lite0_weights
from brainrdl.models.small_cnn import SmallCNN
from brainrdl.models.trunk import LinearHead

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mnist_cnn": MnistCNN,
    "nin": NiN,
    "small_cnn": SmallCNN,
    "efficientnet_lite0": efficientnet_lite0,
    "linear_head": LinearHead,
}

# Networks whose trained weights are in an installed package: `weights: pretrained`.
PRETRAINED: dict[str, Callable[[], dict[str, Tensor]]] = {"efficientnet_lite0": efficientnet_lite0_weights}

# What torchvision and timm call the weights that they would download or read themselves.
_WEIGHT_ARGUMENTS = ("weights", "pretrained", "checkpoint_path", "pretrained_cfg")


def build_network(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    allow_code: bool = False,
) -> nn.Module:
    """A network by name, on the CPU; nothing is ever downloaded.

    name: one of `NETWORKS`, "torchvision:NAME" (a classification network), "timm:NAME", or
    "package.module:callable", which runs that code and is refused without `allow_code`.
    arguments: of the network's callable. weights: a .safetensors file or a state dict saved by `torch.save`;
    "pretrained" are those of an installed package, for the networks of `PRETRAINED`; None keeps initial weights,
    which are torch's to draw: seed it before.
    Raises ValueError for an unknown name, arguments that do not fit, weights that do not fit or are not finite.
    """
    arguments = dict(arguments or {})
    make = _callable(name, allow_code)
    _check_arguments(name, make, arguments)
    try:
        network = make(**arguments)
    except Exception as error:
        told = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
        raise ValueError(f"network '{name}' cannot be made with {told}: {error or type(error).__name__}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"network '{name}' gives a {type(network).__name__}, expected a torch.nn.Module")
    if weights == "pretrained":
        network.load_state_dict(_pretrained(name))
    elif weights is not None:
        load_weights(network, weights)
    return network


def load_weights(network: nn.Module, file: str | Path) -> None:
    """Put the weights of a file into the network, all of them and no others.

    file: .safetensors, or a state dict (read with `weights_only=True`: no code runs), also under the key
    "state_dict" or with the "module." that DataParallel puts before every name.
    Raises ValueError, by the tensors' names, where they do not fit or hold NaN or infinite values.
    """
    state = _read_state(Path(file))
    own = network.state_dict()
    misfits = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    told = [f"{len(names)} {what} ({_few(names)})" for what, names in misfits.items() if names]
    if told:
        raise ValueError(
            f"weights '{file}' do not fit the network: {'; '.join(told)}; "
            "they must come from the same network made with the same arguments"
        )
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"weights '{file}': tensor '{name}' holds NaN or infinite values; give other weights")
    network.load_state_dict(state)


def _callable(name: str, allow_code: bool) -> Callable[..., Any]:
    if name in NETWORKS:
        return NETWORKS[name]
    library, _, rest = name.partition(":")
    if library == "torchvision" and rest in _torchvision_names():
        from torchvision.models import get_model_builder

        builder: Callable[..., Any] = get_model_builder(rest)
        return builder
    if library == "timm" and _timm().is_model(rest):
        return partial(_timm().create_model, rest, pretrained=False)
    if rest and library not in ("torchvision", "timm"):
        return _own_code(library, rest, allow_code)
    known = (*NETWORKS, *(f"timm:{other}" for other in _timm().list_models())) if library == "timm" else _offered()
    # Many names differ in a digit only, and a bare name may be one of torchvision's.
    close = get_close_matches(name, known, n=1) or get_close_matches(f"torchvision:{name}", known, n=1, cutoff=0.85)
    nearest = f"did you mean '{close[0]}'? " if close else ""
    raise ValueError(
        f"unknown network '{name}'; {nearest}expected {', '.join(NETWORKS)}, torchvision:NAME, timm:NAME or "
        "package.module:callable"
    )


def _pretrained(name: str) -> dict[str, Tensor]:
    if name not in PRETRAINED:
        raise ValueError(
            f"network '{name}' has no pretrained weights here, only {', '.join(PRETRAINED)} has; nothing is "
            "downloaded: give a file of weights"
        )
    return PRETRAINED[name]()


def _torchvision_names() -> list[str]:
    import torchvision

    # The classification networks: others would fetch the weights of their backbone.
    return list(torchvision.models.list_models(module=torchvision.models))


def _offered() -> list[str]:
    return [*NETWORKS, *(f"torchvision:{name}" for name in _torchvision_names())]


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ValueError("timm's networks need the package timm: pip install timm") from error


def _own_code(module: str, attribute: str, allow_code: bool) -> Callable[..., Any]:
    name = f"{module}:{attribute}"
    if not allow_code:
        raise ValueError(f"network '{name}' runs code of that module; allow it with --allow-code, if you trust it")
    try:
        make: object = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:
        raise ValueError(
            f"network '{name}': the module cannot be imported ({error or type(error).__name__}); install it, or put "
            "its folder into PYTHONPATH"
        ) from error
    if not callable(make):
        raise ValueError(f"network '{name}': module '{module}' has no callable '{attribute}'")
    return make


def _check_arguments(name: str, make: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> None:
    for key in _WEIGHT_ARGUMENTS:
        if key in arguments and name.startswith(("torchvision:", "timm:")):
            raise ValueError(f"network '{name}': nothing is downloaded, so '{key}' is refused; give a file of weights")
    parameters = signature(make).parameters
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in arguments:
        if key not in parameters:
            close = get_close_matches(key, parameters, n=1)
            nearest = f"did you mean '{close[0]}'? " if close else ""
            raise ValueError(f"network '{name}' has no argument '{key}'; {nearest}it takes: {', '.join(parameters)}")


def _read_state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError(f"weights '{file}': no such file")
    state: Any
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights '{file}' cannot be read as a .safetensors file or a state dict ({type(error).__name__}); "
            "save it with torch.save(network.state_dict(), FILE)"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(map(_is_plain, state.values())):
        raise ValueError(
            f"weights '{file}' hold something else than a state dict, which maps names to tensors; "
            "save it with torch.save(network.state_dict(), FILE)"
        )
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def _is_plain(value: Any) -> bool:
    """A tensor whose numbers lie there one by one: the places that a sparse one tells of are not to be trusted."""
    return isinstance(value, Tensor) and value.layout == torch.strided


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
