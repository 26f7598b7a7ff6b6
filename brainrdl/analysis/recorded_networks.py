"""Networks by name whose RDMs are asked for, and what their layers give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from brainrdl.analysis.comparison import MIN_PAIRS
from brainrdl.analysis.pattern_store import PatternStore
from brainrdl.layers import as_patterns, check_layers, evaluating, record_layers
from brainrdl.models.checks import check_range, check_repeatable
from brainrdl.notes import warn_result
from brainrdl.stimuli import Stimuli, StoredStimuli, check_stimuli, in_batches

SOFTMAX = "softmax"
NAME = "network"

Preprocess = Callable[[Tensor], Tensor]
_Given = TypeVar("_Given")


class NamedNetwork(NamedTuple):
    name: str
    module: nn.Module
    layers: tuple[str, ...]
    preprocess: Preprocess | None

    @property
    def what(self) -> str:
        """As messages call it."""
        return "network" if self.name == NAME else f"network '{self.name}'"

    @property
    def recorded(self) -> dict[str, str]:
        """layer -> module path, and "" for the softmax of the output (unless a module has that name)."""
        known = dict(self.module.named_modules())
        return {layer: "" if layer == SOFTMAX and layer not in known else layer for layer in self.layers}


def by_name(
    network: nn.Module | Mapping[str, nn.Module],
    layers: Iterable[str] | Mapping[str, Iterable[str]],
    preprocess: Preprocess | Mapping[str, Preprocess | None] | None,
    name: str,
) -> list[NamedNetwork]:
    """Each network with its own layers and preprocessing, checked."""
    if isinstance(network, nn.Module):
        networks: Mapping[str, nn.Module] = {name: network}
        layers = _layer_names(layers)  # the keys, should it be a mapping: student layer -> teacher's
    else:
        networks = network
        if not networks:
            raise ValueError("expected at least one network, got none")
        if name != NAME:
            raise ValueError(f"several networks have their names as keys, but name '{name}' was given; leave it out")
        if not isinstance(layers, Mapping):
            layers = _layer_names(layers)
    layers_of = _one_each(layers, list(networks), "layers")
    preprocess_of = _one_each(preprocess, list(networks), "preprocess")
    found = [NamedNetwork(one, networks[one], _layer_names(layers_of[one]), preprocess_of[one]) for one in networks]
    for each in found:
        check_layers(each.module, each.recorded.values(), each.what)
    return found


def _layer_names(layers: Iterable[str]) -> tuple[str, ...]:
    if isinstance(layers, str):
        raise ValueError(f"expected a list of layers, got the text '{layers}'; give ['{layers}']")
    names = tuple(dict.fromkeys(layers))
    if not names:
        raise ValueError("expected at least one layer, got none")
    return names


def _one_each(given: _Given | Mapping[str, _Given], networks: Sequence[str], what: str) -> Mapping[str, _Given]:
    """network -> what is given for it: its own, or the one for all."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(networks, given)
    if set(given) != set(networks):
        raise ValueError(
            f"`{what}` is given for {', '.join(given)}, but the networks are {', '.join(networks)}; give each its own, "
            "or one for all"
        )
    return given


def record(network: NamedNetwork, stimuli: Stimuli | StoredStimuli, batch_size: int, store: PatternStore) -> None:
    """Fill the store. Raises ValueError naming the layer and first stimulus whose pattern is not finite."""
    module, preprocess, recorded = network.module, network.preprocess, network.recorded
    weight = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), None)
    modules = [part for part in (module, preprocess) if isinstance(part, nn.Module)]
    unusable: dict[str, list[str]] = {}
    with evaluating(*modules), record_layers(module, recorded.values()) as given:

        def run(images: Tensor) -> dict[str, Tensor]:
            module(images if preprocess is None else preprocess(images))
            return {layer: given[source] for layer, source in recorded.items()}

        for number, batch in enumerate(checked_batches(stimuli, batch_size)):
            images = batch.images if weight is None else batch.images.to(weight.device, weight.dtype)
            if number == 0:
                check_range(images, preprocess, "stimuli")
                check_repeatable(run, images, network.what)
            module(images if preprocess is None else preprocess(images))
            patterns = {}
            for layer, source in recorded.items():
                pattern = given[source] if layer == source else _softmax(given[source])
                patterns[layer] = as_patterns(layer, pattern, len(images))
                rows = (~torch.isfinite(patterns[layer]).all(1)).nonzero()[:, 0].tolist()
                if rows:
                    unusable.setdefault(layer, []).extend(batch.ids[row] for row in rows)
            store.add(patterns)
    if unusable:
        layer, named = next(iter(unusable.items()))
        raise ValueError(
            f"{network.what}: layer '{layer}' gives NaN or infinite values for {len(named)} of {len(stimuli.ids)} "
            f"stimuli, the first is '{named[0]}'; look at the network's weights and preprocessing"
        )


def check_varies(vector: np.ndarray, what: str, layer: str) -> None:
    """Warn where a layer tells no two stimuli apart: NaN or 0 throughout."""
    if len(vector) >= MIN_PAIRS and (np.isnan(vector).all() or not vector.any()):
        warn_result(
            f"{what}: layer '{layer or 'output'}' gives one pattern for all stimuli, so its RDM is "
            f"{vector[0]:g} throughout: dead units, or the same image for every stimulus?",
            stacklevel=2,
        )


def checked_batches(stimuli: Stimuli | StoredStimuli, batch_size: int) -> Iterator[Stimuli]:
    """The stimuli, `batch_size` at a time, those that are read now checked as they come."""
    for batch in in_batches(stimuli, batch_size):
        # What is in memory was checked as a whole.
        yield batch if isinstance(stimuli, Stimuli) else check_stimuli(batch._replace(labels=None), "stimuli")


def _softmax(output: Tensor) -> Tensor:
    if output.ndim != 2:
        raise ValueError(
            f"'{SOFTMAX}' needs a network that gives (n_stimuli, n_classes), this one gives {tuple(output.shape)}; "
            "leave 'softmax' out of the layers"
        )
    return output.double().softmax(1)
