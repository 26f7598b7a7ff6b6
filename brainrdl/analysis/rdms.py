"""RDMs of networks, of patterns made elsewhere, of pixels and of categories, as rsatoolbox objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import comb
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from brainrdl.analysis.all_pairs import all_pair_dissimilarities
from brainrdl.analysis.pattern_store import PatternStore
from brainrdl.dissimilarity import check_dissimilarity
from brainrdl.layers import as_patterns, check_layers, evaluating, record_layers
from brainrdl.pairs import all_pairs
from brainrdl.rdms import join_rdms, load_features, load_rdms, save_rdms
from brainrdl.rdms.features import check_features
from brainrdl.rdms.selection import explain_missing
from brainrdl.sources.controls import differing_category
from brainrdl.stimuli import Stimuli, StoredStimuli, check_stimuli, check_unique, in_batches

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

SOFTMAX = "softmax"
_NAME = "network"
_BATCH = 500
_MEMORY = 2.0

Preprocess = Callable[[Tensor], Tensor]
_Given = TypeVar("_Given")


def network_rdms(
    network: nn.Module | Mapping[str, nn.Module],
    layers: Iterable[str] | Mapping[str, Iterable[str]],
    stimuli: Stimuli | StoredStimuli,
    dissimilarity: str = "euclidean",
    preprocess: Preprocess | Mapping[str, Preprocess | None] | None = None,
    name: str = _NAME,
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
    NaN or infinite values, and where the temporary folder has no room.
    """
    check_dissimilarity(dissimilarity)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    networks = _by_name(network, layers, preprocess, name)
    pattern_descriptors = _stimulus_descriptors(stimuli, class_names)
    n_stimuli = len(stimuli.ids)
    names = [(one.name, layer) for one in networks for layer in one.layers]
    vectors = np.empty((len(names), comb(n_stimuli, 2)))
    rows = iter(vectors)
    for one in networks:
        with PatternStore(n_stimuli, memory) as store:
            _record(one, stimuli, batch_size, store)
            for layer in one.layers:
                next(rows)[:] = all_pair_dissimilarities(store[layer], dissimilarity)
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
            for batch in _batches(stimuli, _BATCH):
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


# -- networks ----------------------------------------------------------------------------------------------------------


class _Network(NamedTuple):
    name: str
    module: nn.Module
    layers: tuple[str, ...]
    preprocess: Preprocess | None

    @property
    def what(self) -> str:
        """As messages call it."""
        return "network" if self.name == _NAME else f"network '{self.name}'"

    @property
    def recorded(self) -> dict[str, str]:
        """layer -> module path, and "" for the softmax of the output (unless a module has that name)."""
        known = dict(self.module.named_modules())
        return {layer: "" if layer == SOFTMAX and layer not in known else layer for layer in self.layers}


def _by_name(
    network: nn.Module | Mapping[str, nn.Module],
    layers: Iterable[str] | Mapping[str, Iterable[str]],
    preprocess: Preprocess | Mapping[str, Preprocess | None] | None,
    name: str,
) -> list[_Network]:
    """Each network with its own layers and preprocessing, checked."""
    if isinstance(network, nn.Module):
        networks: Mapping[str, nn.Module] = {name: network}
        layers = _layer_names(layers)  # the keys, should it be a mapping: student layer -> teacher's
    else:
        networks = network
        if not networks:
            raise ValueError("expected at least one network, got none")
        if name != _NAME:
            raise ValueError(f"several networks have their names as keys, but name '{name}' was given; leave it out")
        if not isinstance(layers, Mapping):
            layers = _layer_names(layers)
    layers_of = _one_each(layers, list(networks), "layers")
    preprocess_of = _one_each(preprocess, list(networks), "preprocess")
    found = [_Network(one, networks[one], _layer_names(layers_of[one]), preprocess_of[one]) for one in networks]
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


def _record(network: _Network, stimuli: Stimuli | StoredStimuli, batch_size: int, store: PatternStore) -> None:
    """Fill the store. Raises ValueError naming the layer and first stimulus whose pattern is not finite."""
    module, preprocess, recorded = network.module, network.preprocess, network.recorded
    weight = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), None)
    modules = [part for part in (module, preprocess) if isinstance(part, nn.Module)]
    unusable: dict[str, list[str]] = {}
    with evaluating(*modules), record_layers(module, recorded.values()) as given:
        for batch in _batches(stimuli, batch_size):
            images = batch.images if weight is None else batch.images.to(weight.device, weight.dtype)
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


def _batches(stimuli: Stimuli | StoredStimuli, batch_size: int) -> Iterator[Stimuli]:
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
