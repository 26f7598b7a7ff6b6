"""RDMs of networks, of patterns made elsewhere, of pixels and of categories, as rsatoolbox objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from brainrdl.analysis.all_pairs import all_pair_dissimilarities
from brainrdl.analysis.pattern_store import PatternStore
from brainrdl.analysis.recorded_networks import NAME, Preprocess, by_name, check_varies, checked_batches, record
from brainrdl.dissimilarity import check_dissimilarity
from brainrdl.pairs import all_pairs
from brainrdl.rdms import join_rdms, load_features, load_rdms, save_rdms
from brainrdl.rdms.features import check_features
from brainrdl.rdms.selection import explain_missing
from brainrdl.sources.controls import differing_category
from brainrdl.stimuli import Stimuli, StoredStimuli, check_stimuli, check_unique

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

__all__ = [
    "category_rdm",
    "join_rdms",
    "label_rdm",
    "load_features",
    "load_rdms",
    "network_rdms",
    "pattern_rdms",
    "pixel_rdm",
    "save_rdms",
]

_BATCH = 500
_MEMORY = 2.0


def network_rdms(
    network: nn.Module | Mapping[str, nn.Module],
    layers: Iterable[str] | Mapping[str, Iterable[str]],
    stimuli: Stimuli | StoredStimuli,
    dissimilarity: str = "euclidean",
    preprocess: Preprocess | Mapping[str, Preprocess | None] | None = None,
    name: str = NAME,
    epoch: int | None = None,
    seed: int | None = None,
    batch_size: int = _BATCH,
    class_names: Sequence[str] | None = None,
    memory: float = _MEMORY,
) -> RDMs:
    """One RDM a layer: `RDM_ij = d(f(x_i), f(x_j))` (Eq. 1, McClure & Kriegeskorte 2016), in eval mode.

    network: one, called `name`, or several by name, which run one after the other.
    layers: module paths; "" is the network's output, "softmax" the softmax of it (unless a module has that name). With
        several networks one list for all, or name -> list.
    stimuli: images 0…1, in memory or read `batch_size` at a time; `preprocess` (one for all, or name -> its own) makes
        them what the network takes. Runs on the network's device and in its precision.
    dissimilarity: between patterns, as in `pair_dissimilarities`; not "mahalanobis".
    epoch, seed: what the descriptors say; None: -1. batch_size: images at a time.
    memory: GiB of patterns held in memory; layers that do not fit go to a temporary file (in $TMPDIR, else the
        system's place). Patterns are kept in float32 (float64 of a network in float64), dissimilarities are
        computed in float64, in blocks of stimuli, which takes 1 GiB more and the RDMs themselves.
    class_names: what label k is called; str(k) where not given.
    Returns RDMs with rdm_descriptors network, layer, seed, epoch (-1 where not given) and pattern_descriptors stimulus
    (id), label, category (where the stimuli have labels). NaN: the measure is not defined for that pair.
    Raises ValueError for unknown layers or measures, names that do not go together, malformed stimuli, patterns with
    NaN or infinite values, and where the temporary folder has no room. Warns (`ResultWarning`) of patterns that differ
    each time, go by which stimuli are beside them in a batch, or are the same for all, and of images of 0…255 or
    normalised twice.
    """
    check_dissimilarity(dissimilarity)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    networks = by_name(network, layers, preprocess, name)
    pattern_descriptors = _stimulus_descriptors(stimuli, class_names)
    n_stimuli = len(stimuli.ids)
    names = [(one.name, layer) for one in networks for layer in one.layers]
    vectors = np.empty((len(names), comb(n_stimuli, 2)))
    rows = iter(vectors)
    for one in networks:
        with PatternStore(n_stimuli, memory) as store:
            record(one, stimuli, batch_size, store)
            for layer in one.layers:
                row = next(rows)
                row[:] = all_pair_dissimilarities(store[layer], dissimilarity)
                check_varies(row, one.what, layer)
    return _rdms(vectors, dissimilarity, names, pattern_descriptors, seed, epoch)


def pattern_rdms(
    patterns: np.ndarray | Tensor,
    ids: Sequence[str],
    dissimilarity: str = "euclidean",
    network: str = "features",
    layer: str = "features",
    epoch: int | None = None,
    seed: int | None = None,
    categories: Mapping[str, object] | Sequence[object] | None = None,
) -> RDMs:
    """One RDM of patterns that were made elsewhere (`brainrdl.rdms.load_features` reads them).

    patterns: (n_stimuli, ...) numbers, everything after the first dimension counts as units; may be memory-mapped, as
    blocks of rows are read. ids: the stimulus of each row. dissimilarity: as in `pair_dissimilarities`; not
    "mahalanobis". network, layer, epoch, seed: what the descriptors say.
    categories: id -> category, or one a stimulus in their order.
    Returns RDMs with the descriptors of `network_rdms`; labels count the categories, sorted.
    NaN: the measure is not defined for that pair. Raises ValueError for an unknown measure, another number of rows than
    of ids, ids that are not text or stand twice, rows with NaN or infinite values, a stimulus without category.
    """
    check_dissimilarity(dissimilarity)
    values = _as_array(patterns)
    descriptors = _category_descriptors(categories, ids)
    flat = check_features(values, ids, "patterns")
    vector = all_pair_dissimilarities(_ArrayRows(flat), dissimilarity)
    return _rdms(vector[None], dissimilarity, [(network, layer)], descriptors, seed, epoch)


def pixel_rdm(
    stimuli: Stimuli | StoredStimuli,
    dissimilarity: str = "euclidean",
    class_names: Sequence[str] | None = None,
    memory: float = _MEMORY,
) -> RDMs:
    """The RDM of the images themselves, every pixel a unit; network and layer are called "pixels".

    stimuli, dissimilarity, class_names: as for `network_rdms`. memory: the same, of images that are not in memory yet.
    """
    check_dissimilarity(dissimilarity)
    descriptors = _stimulus_descriptors(stimuli, class_names)
    if isinstance(stimuli, Stimuli):
        vector = all_pair_dissimilarities(stimuli.images.detach().cpu().flatten(1), dissimilarity)
    else:
        with PatternStore(len(stimuli.ids), memory) as store:
            for batch in checked_batches(stimuli, _BATCH):
                store.add({"pixels": batch.images.flatten(1)})
            vector = all_pair_dissimilarities(store["pixels"], dissimilarity)
    return _rdms(vector[None], dissimilarity, [("pixels", "pixels")], descriptors)


def label_rdm(stimuli: Stimuli | StoredStimuli, class_names: Sequence[str] | None = None) -> RDMs:
    """The target's RDM: 0 within a class, 1 between classes; network and layer are called "labels".

    Its measure is "label". Raises ValueError where the stimuli have no labels.
    """
    descriptors = _stimulus_descriptors(stimuli, class_names)
    if "label" not in descriptors:
        raise ValueError("the RDM of the labels needs stimuli with labels; these have none")
    return _category_model(descriptors, "label", "labels", "labels")


def category_rdm(
    categories: Mapping[str, object] | Sequence[object], ids: Sequence[str], name: str = "category"
) -> RDMs:
    """A category model: 0 within a category, 1 between, as `brainrdl.sources.controls.CategoryTeacher` says.

    categories: id -> category (others than `ids` may be in it), or one a stimulus in their order. ids: the stimuli.
    name: which division this is, such as "animacy"; it is the RDM's layer, its network is called "category model".
    Its measure is "category". Raises ValueError where a stimulus has no category, and for ids that stand twice.
    """
    _check_ids(ids)
    descriptors = _category_descriptors(categories, ids)
    return _category_model(descriptors, "category", "category model", name)


# -- patterns and categories -------------------------------------------------------------------------------------------


class _ArrayRows:
    """Rows of an array as a tensor, of which those that are asked for are read."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape = values, values.shape

    def __getitem__(self, rows: slice, /) -> Tensor:
        return torch.from_numpy(np.array(self._values[rows], dtype=np.float64))


def _as_array(patterns: np.ndarray | Tensor) -> np.ndarray:
    if not isinstance(patterns, Tensor):
        return np.asarray(patterns)
    patterns = patterns.detach().cpu()
    return (patterns.float() if patterns.dtype == torch.bfloat16 else patterns).numpy()


def _category_model(descriptors: Mapping[str, list[object]], measure: str, network: str, layer: str) -> RDMs:
    numbers = torch.tensor(descriptors["label"])
    vector = differing_category(numbers, all_pairs(len(numbers))).double().numpy()
    return _rdms(vector[None], measure, [(network, layer)], descriptors)


# -- descriptors -------------------------------------------------------------------------------------------------------


def _rdms(
    vectors: np.ndarray,
    measure: str,
    names: Sequence[tuple[str, str]],
    pattern_descriptors: Mapping[str, list[object]],
    seed: int | None = None,
    epoch: int | None = None,
) -> RDMs:
    """names: network and layer of each RDM."""
    from rsatoolbox.rdm import RDMs

    return RDMs(
        vectors,
        dissimilarity_measure=measure,
        rdm_descriptors={
            "network": [network for network, _ in names],
            "layer": [layer for _, layer in names],
            "seed": [-1 if seed is None else seed] * len(names),
            "epoch": [-1 if epoch is None else epoch] * len(names),
        },
        pattern_descriptors=dict(pattern_descriptors),
    )


def _stimulus_descriptors(
    stimuli: Stimuli | StoredStimuli, class_names: Sequence[str] | None
) -> dict[str, list[object]]:
    """Of stimuli, checked but for images that are not in memory."""
    if isinstance(stimuli, Stimuli):
        check_stimuli(stimuli, "stimuli")
    _check_ids(stimuli.ids)
    descriptors: dict[str, list[object]] = {"stimulus": list(stimuli.ids)}
    labels = None if stimuli.labels is None else stimuli.labels.tolist()
    if labels is None or set(labels) == {-1}:  # stored stimuli have -1 where they have no task
        return descriptors
    if min(labels) < 0:
        raise ValueError(f"stimuli: a label is negative ({min(labels)}); classes are counted from 0")
    if class_names is not None and max(labels) >= len(class_names):
        raise ValueError(
            f"a stimulus has label {max(labels)} but there are only {len(class_names)} class names; "
            "give each class a name"
        )
    descriptors["label"] = labels
    descriptors["category"] = [str(k) if class_names is None else class_names[k] for k in labels]
    return descriptors


def _category_descriptors(
    categories: Mapping[str, object] | Sequence[object] | None, ids: Sequence[str]
) -> dict[str, list[object]]:
    """Of stimuli that have categories by name, or none."""
    descriptors: dict[str, list[object]] = {"stimulus": list(ids)}
    if categories is None:
        return descriptors
    if isinstance(categories, Mapping):
        missing = [stimulus for stimulus in ids if stimulus not in categories]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(ids)} stimuli have no category, the first is '{missing[0]}'; give each one. "
                + explain_missing(missing, categories)
            )
        categories = [categories[stimulus] for stimulus in ids]
    if len(categories) != len(ids):
        raise ValueError(f"{len(categories)} categories for {len(ids)} stimuli; give each stimulus one")
    # As pandas reads an empty cell; as text, all of them would be one category.
    empty = pd.Series(list(categories), dtype=object).isna()
    if empty.any():
        k = int(empty.argmax())
        raise ValueError(
            f"{int(empty.sum())} of {len(ids)} stimuli have no category ({categories[k]}), the first is '{ids[k]}'; "
            "give each one, or leave them out"
        )
    names = [str(category) for category in categories]
    number = {name: k for k, name in enumerate(sorted(set(names)))}
    descriptors["label"] = [number[name] for name in names]
    descriptors["category"] = list(names)
    return descriptors


def _check_ids(ids: Sequence[str]) -> None:
    check_unique(ids, "stimuli")
    if len(ids) < 2:
        raise ValueError(f"an RDM needs at least 2 stimuli, got {len(ids)}")
