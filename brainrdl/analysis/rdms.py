"""RDMs of networks, of pixels and of labels, as rsatoolbox objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from brainrdl.dissimilarity import check_dissimilarity, pair_dissimilarities
from brainrdl.layers import as_patterns, evaluating, record_layers
from brainrdl.pairs import all_pairs
from brainrdl.rdms import join_rdms, load_rdms, save_rdms
from brainrdl.stimuli import Stimuli, check_stimuli

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

__all__ = ["join_rdms", "label_rdm", "load_rdms", "network_rdms", "pixel_rdm", "save_rdms"]

SOFTMAX = "softmax"


def network_rdms(
    network: nn.Module,
    layers: Iterable[str],
    stimuli: Stimuli,
    dissimilarity: str = "euclidean",
    preprocess: Callable[[Tensor], Tensor] | None = None,
    name: str = "network",
    epoch: int | None = None,
    seed: int | None = None,
    batch_size: int = 500,
    class_names: Sequence[str] | None = None,
) -> RDMs:
    """One RDM a layer: `RDM_ij = d(f(x_i), f(x_j))` (Eq. 1, McClure & Kriegeskorte 2016), in eval mode.

    layers: module paths; "" is the network's output, "softmax" the softmax of it (unless a module has that name).
    stimuli: images 0…1; `preprocess` makes them what the network takes. Runs on the network's device,
    `batch_size` images at a time; dissimilarities are computed in float64.
    class_names: what label k is called; str(k) where not given.
    Returns RDMs with rdm_descriptors network (`name`), layer, seed, epoch (-1 where not given) and
    pattern_descriptors stimulus (id), label, category. NaN: the measure is not defined for that pair.
    Raises ValueError for unknown layers or measures, malformed stimuli, patterns with NaN or infinite values.
    """
    check_dissimilarity(dissimilarity)
    patterns = _patterns(network, tuple(dict.fromkeys(layers)), stimuli, preprocess, batch_size)
    return _as_rdms(patterns, stimuli, dissimilarity, name, seed, epoch, class_names)


def pixel_rdm(stimuli: Stimuli, dissimilarity: str = "euclidean", class_names: Sequence[str] | None = None) -> RDMs:
    """The RDM of the images themselves, every pixel a unit; network and layer are called "pixels"."""
    check_dissimilarity(dissimilarity)
    _check(stimuli)
    patterns = {"pixels": stimuli.images.detach().cpu().flatten(1)}
    return _as_rdms(patterns, stimuli, dissimilarity, "pixels", None, None, class_names)


def label_rdm(stimuli: Stimuli, class_names: Sequence[str] | None = None) -> RDMs:
    """The target's RDM: 0 within a class, 1 between classes; network and layer are called "labels".

    Its measure is "label". Raises ValueError where the stimuli have no labels.
    """
    _check(stimuli)
    if stimuli.labels is None:
        raise ValueError("the RDM of the labels needs stimuli with labels; these have none")
    i, j = all_pairs(len(stimuli.ids))
    labels = stimuli.labels.cpu()
    different = (labels[i] != labels[j]).double()
    return _rdms({"labels": different}, stimuli, "label", "labels", None, None, class_names)


def _check(stimuli: Stimuli) -> None:
    check_stimuli(stimuli, "stimuli")
    if len(stimuli.ids) < 2:
        raise ValueError(f"an RDM needs at least 2 stimuli, got {len(stimuli.ids)}")


def _patterns(
    network: nn.Module,
    layers: Sequence[str],
    stimuli: Stimuli,
    preprocess: Callable[[Tensor], Tensor] | None,
    batch_size: int,
) -> dict[str, Tensor]:
    """(n_stimuli, n_units) of each layer, on the CPU."""
    _check(stimuli)
    if not layers:
        raise ValueError("expected at least one layer, got none")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    with_softmax = SOFTMAX in layers and SOFTMAX not in dict(network.named_modules())
    recorded = ["" if layer == SOFTMAX and with_softmax else layer for layer in layers]
    parameter = next(network.parameters(), None)
    device = stimuli.images.device if parameter is None else parameter.device
    modules = [module for module in (network, preprocess) if isinstance(module, nn.Module)]
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with evaluating(*modules), record_layers(network, recorded) as patterns:
        for start in range(0, len(stimuli.images), batch_size):
            images = stimuli.images[start : start + batch_size].to(device)
            network(images if preprocess is None else preprocess(images))
            for layer, source in zip(layers, recorded, strict=True):
                pattern = patterns[source]
                if layer == SOFTMAX and with_softmax:
                    pattern = _softmax(pattern)
                parts[layer].append(as_patterns(layer, pattern, len(images)).cpu())
    whole = {layer: torch.cat(part) for layer, part in parts.items()}
    for layer, pattern in whole.items():
        bad = ~torch.isfinite(pattern).all(1)
        if bad.any():
            raise ValueError(
                f"layer '{layer}' gives NaN or infinite values for {int(bad.sum())} of {len(bad)} stimuli, "
                f"the first is '{stimuli.ids[int(bad.nonzero()[0])]}'; look at the network's weights and preprocessing"
            )
    return whole


def _softmax(output: Tensor) -> Tensor:
    if output.ndim != 2:
        raise ValueError(
            f"'{SOFTMAX}' needs a network that gives (n_stimuli, n_classes), this one gives {tuple(output.shape)}; "
            "leave 'softmax' out of the layers"
        )
    return output.double().softmax(1)


def _as_rdms(
    patterns: Mapping[str, Tensor],
    stimuli: Stimuli,
    dissimilarity: str,
    network: str,
    seed: int | None,
    epoch: int | None,
    class_names: Sequence[str] | None,
) -> RDMs:
    pairs = all_pairs(len(stimuli.ids))
    vectors = {layer: pair_dissimilarities(values.double(), pairs, dissimilarity) for layer, values in patterns.items()}
    return _rdms(vectors, stimuli, dissimilarity, network, seed, epoch, class_names)


def _rdms(
    vectors: Mapping[str, Tensor],
    stimuli: Stimuli,
    measure: str,
    network: str,
    seed: int | None,
    epoch: int | None,
    class_names: Sequence[str] | None,
) -> RDMs:
    from rsatoolbox.rdm import RDMs

    n_rdms = len(vectors)
    return RDMs(
        torch.stack(list(vectors.values())).numpy(),
        dissimilarity_measure=measure,
        rdm_descriptors={
            "network": [network] * n_rdms,
            "layer": list(vectors),
            "seed": [-1 if seed is None else seed] * n_rdms,
            "epoch": [-1 if epoch is None else epoch] * n_rdms,
        },
        pattern_descriptors=_stimulus_descriptors(stimuli, class_names),
    )


def _stimulus_descriptors(stimuli: Stimuli, class_names: Sequence[str] | None) -> dict[str, list[object]]:
    descriptors: dict[str, list[object]] = {"stimulus": list(stimuli.ids)}
    if stimuli.labels is not None:
        labels = stimuli.labels.tolist()
        if class_names is not None and max(labels) >= len(class_names):
            raise ValueError(
                f"a stimulus has label {max(labels)} but there are only {len(class_names)} class names; "
                "give each class a name"
            )
        descriptors["label"] = labels
        descriptors["category"] = [str(k) if class_names is None else class_names[k] for k in labels]
    return descriptors
