"""RDMs of networks, of pixels and of labels, as rsatoolbox objects, and their files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from brainrdl.dissimilarity import check_dissimilarity, pair_dissimilarities
from brainrdl.layers import as_patterns, evaluating, record_layers
from brainrdl.pairs import all_pairs
from brainrdl.runs import write_bytes
from brainrdl.stimuli import Stimuli, check_stimuli

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

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


def join_rdms(parts: Sequence[RDMs]) -> RDMs:
    """All RDMs of `parts` in one object, joined by the pattern descriptor `stimulus`, never by position.

    The measure is the common one, None where the parts' differ (pixels and labels). Descriptors of RDMs
    and stimuli are those that every part has. Raises ValueError where the parts' stimuli differ.
    """
    from rsatoolbox.rdm import RDMs

    first = parts[0]
    order = [str(stimulus) for stimulus in _stimulus_ids(first)]
    vectors = []
    for part in parts:
        row = {str(stimulus): k for k, stimulus in enumerate(_stimulus_ids(part))}
        if row.keys() != set(order):
            differing = sorted(row.keys() ^ set(order))
            raise ValueError(
                f"RDMs to be joined are not over the same stimuli: {len(differing)} differ, the first is "
                f"'{differing[0]}'; compute them for one set of stimuli"
            )
        rows = np.array([row[stimulus] for stimulus in order])
        i, j = np.triu_indices(len(rows), 1)
        vectors.append(part.get_matrices()[:, rows[i], rows[j]])
    names = [name for name in first.rdm_descriptors if all(name in part.rdm_descriptors for part in parts)]
    measures = {part.dissimilarity_measure for part in parts}
    return RDMs(
        np.concatenate(vectors),
        dissimilarity_measure=measures.pop() if len(measures) == 1 else None,
        rdm_descriptors={
            name: [value for part in parts for value in part.rdm_descriptors[name]] for name in names if name != "index"
        },
        pattern_descriptors={name: list(values) for name, values in first.pattern_descriptors.items()},
    )


def save_rdms(rdms: RDMs, path: str | Path) -> None:
    """Write rsatoolbox's HDF5, which `rsatoolbox.rdm.load_rdm` reads; an existing file is replaced."""
    from rsatoolbox.rdm import RDMs

    storable = RDMs(
        rdms.dissimilarities,
        rdms.dissimilarity_measure,
        rdms.descriptors,
        {name: _storable(values) for name, values in rdms.rdm_descriptors.items()},
        {name: _storable(values) for name, values in rdms.pattern_descriptors.items()},
    )
    buffer = io.BytesIO()
    storable.save(buffer, file_type="hdf5")
    write_bytes(Path(path), buffer.getvalue())


def load_rdms(path: str | Path) -> RDMs:
    """Read RDMs from rsatoolbox's HDF5; ValueError where the file is missing or is something else."""
    from rsatoolbox.rdm import load_rdm

    if not Path(path).is_file():
        raise ValueError(f"RDM file '{path}' is not there")
    try:
        return load_rdm(str(path), file_type="hdf5")
    except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f"'{path}' is not an RDM file of rsatoolbox (HDF5): {str(error).splitlines()[0]}; "
            "write it with rsatoolbox's RDMs.save(..., file_type='hdf5')"
        ) from error


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


def _stimulus_ids(rdms: RDMs) -> Sequence[object]:
    if "stimulus" not in rdms.pattern_descriptors:
        raise ValueError(
            "RDMs to be joined need the pattern descriptor 'stimulus'; these have "
            + ", ".join(rdms.pattern_descriptors)
        )
    ids: Sequence[object] = rdms.pattern_descriptors["stimulus"]
    return ids


def _storable(values: Iterable[object]) -> Sequence[object]:
    """rsatoolbox writes lists of text as ASCII; a tuple it writes as an attribute, which holds any character."""
    values = list(values)
    if any(isinstance(value, str) and not value.isascii() for value in values):
        return tuple(str(value) for value in values)
    return values
