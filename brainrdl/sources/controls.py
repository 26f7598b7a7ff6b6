"""Is it the brain or just any constraint? Sources like a measured one that know nothing, or less, of the stimuli."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from brainrdl.pairs import Pairs, all_pairs
from brainrdl.randomness import Draw
from brainrdl.sources.base import TeacherRDMSource
from brainrdl.sources.rdms import MeasuredRDMs
from brainrdl.stimuli import Stimuli, Targets, without_waiting

CONTROLS = ("shuffled", "shuffled_within", "random", "category", "category_means")

_MOST = 5000  # stimuli of the random control, which needs all pairs
_DIMENSIONS = 10  # of its patterns


def make_control(
    kind: str, source: TeacherRDMSource, ids: Iterable[str], categories: Mapping[str, str] | None = None, seed: int = 0
) -> TeacherRDMSource:
    """A control teacher with the names of a measured `source`.

    kind: "shuffled": every stimulus gets the dissimilarities of another one that the same names cover;
        "shuffled_within": of another one of its category, too, which leaves what categories explain (where there is no
        other it keeps its own); "random": `random_teacher`; "category": `CategoryTeacher`; "category_means":
        `category_means_teacher`. (Another region as control is `RenamedTeacher`.)
    ids: the stimuli that are shuffled, the others stay as they are; those of the random RDM and of the category means,
        in which others are NaN.
    categories: id -> category. seed: of the random draw, which is the same for every name.

    Raises ValueError for an unknown kind, missing categories, and where there is nothing to shuffle.
    """
    if kind not in CONTROLS:
        raise ValueError(f"unknown control '{kind}'; expected one of {', '.join(CONTROLS)}")
    if kind in ("shuffled_within", "category", "category_means") and categories is None:
        raise ValueError(f"control '{kind}' needs categories: which category each stimulus is of")
    if not hasattr(source, "unbiased"):
        raise ValueError("a control is made from measured dissimilarities; a network answers by image and not by id")
    unique = tuple(sorted(set(ids)))  # the draw may not depend on their order
    if kind == "random":
        return random_teacher(source, unique, seed)
    if kind == "category":
        return CategoryTeacher(source, categories or {})
    if kind == "category_means":
        return category_means_teacher(source, unique, categories or {})
    return ShuffledTeacher(source, _exchange(source, unique, categories if kind == "shuffled_within" else None, seed))


class ShuffledTeacher:
    """A source whose stimuli have exchanged their identities: `identity[id]` is whose dissimilarities it gets.

    identity: id -> id, one to one; stimuli that are not in it keep their own.
    Raises ValueError where two stimuli would get the same identity.
    """

    def __init__(self, source: TeacherRDMSource, identity: Mapping[str, str]) -> None:
        if set(identity) != set(identity.values()):
            raise ValueError("identities must be exchanged one to one: expected each id once as key and once as value")
        self.source, self.identity = source, dict(identity)
        self.names, self.dissimilarity = source.names, source.dissimilarity
        self.unbiased: bool = getattr(source, "unbiased", False)

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """What the source covers of those whose dissimilarities they get."""
        return self.source.covers([self.identity.get(stimulus, stimulus) for stimulus in ids])

    def targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """The source's for the exchanged identities."""
        exchanged = tuple(self.identity.get(stimulus, stimulus) for stimulus in stimuli.ids)
        return self.source.targets(stimuli._replace(ids=exchanged), pairs)


class RenamedTeacher:
    """A source that answers under other names: {"IT": "EVC"} gives EVC's dissimilarities where IT's are asked for.

    names: name -> the source's name that answers. The source's other names stay.
    Raises ValueError for a name the source does not have.
    """

    def __init__(self, source: TeacherRDMSource, names: Mapping[str, str]) -> None:
        for name in names.values():
            if name not in source.names:
                raise ValueError(f"the source has no name '{name}'; it has: {', '.join(source.names)}")
        self.source = source
        self._answers = {name: name for name in source.names} | dict(names)
        self.names, self.dissimilarity = tuple(self._answers), source.dissimilarity
        self.unbiased: bool = getattr(source, "unbiased", False)

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """What the answering name covers."""
        covered = self.source.covers(ids)
        return {name: covered[other] for name, other in self._answers.items()}

    def targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """The answering name's."""
        targets = self.source.targets(stimuli, pairs)
        return {name: targets[other] for name, other in self._answers.items()}


class CategoryTeacher:
    """0 within a category, 1 between: a category model under the names of a source.

    categories: id -> category. It covers what the source covers and has a category.
    """

    dissimilarity = "category"
    unbiased = False

    def __init__(self, source: TeacherRDMSource, categories: Mapping[str, str]) -> None:
        self.source, self.names = source, source.names
        numbers = {category: number for number, category in enumerate(sorted(set(categories.values())))}
        self._category = {stimulus: numbers[category] for stimulus, category in categories.items()}

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """What the source covers and has a category."""
        known = self._numbers(ids) >= 0
        return {name: covered & known for name, covered in self.source.covers(ids).items()}

    def targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """0 or 1, NaN where a stimulus is not covered; the source's weights."""
        device, (i, j) = stimuli.images.device, pairs.to("cpu")
        values = differing_category(self._numbers(stimuli.ids), Pairs(i, j))
        measured = self.source.targets(stimuli, pairs)
        answer = {}
        for name, covered in self.covers(stimuli.ids).items():
            known = values.masked_fill(~(covered[i] & covered[j]), torch.nan)
            answer[name] = Targets(without_waiting(known, device), measured[name].weights)
        return answer

    def _numbers(self, ids: Sequence[str]) -> Tensor:
        """(n_stimuli,) category numbers, -1 where there is none."""
        return torch.tensor([self._category.get(stimulus, -1) for stimulus in ids], dtype=torch.int64)


def differing_category(numbers: Tensor, pairs: Pairs) -> Tensor:
    """A category model: (n_pairs,) float, 0 within a category, 1 between.

    numbers: (n_stimuli,) which category each stimulus is of.
    """
    return (numbers[pairs.i] != numbers[pairs.j]).float()


def random_teacher(source: TeacherRDMSource, ids: Sequence[str], seed: int = 0) -> MeasuredRDMs:
    """The Euclidean RDM of random patterns (10 normal dimensions), its values replaced, by rank, with measured ones.

    So each name keeps the distribution of its values, which pairs were measured and their weights, in a geometry that
    has no relation to the stimuli. ids: at most 5,000, since all pairs are needed.
    """
    patterns = Draw(seed).generator("control").normal(size=(len(ids), _DIMENSIONS))
    squared = np.square(patterns).sum(1)
    random = squared[:, None] + squared - 2 * patterns @ patterns.T

    def by_rank(values: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        made = np.empty_like(values)
        made[np.argsort(random[i, j])] = np.sort(values)
        return made

    return _remade(source, ids, by_rank)


def category_means_teacher(source: TeacherRDMSource, ids: Sequence[str], categories: Mapping[str, str]) -> MeasuredRDMs:
    """Each pair's dissimilarity replaced by the mean over the pairs of the same two categories.

    All that categories and the dissimilarities between them tell, and nothing of single stimuli: the strongest model of
    categories there is. ids: over which the means are taken, those that are learned from; at most 5,000. categories: id
    -> category.
    """
    lacking = [stimulus for stimulus in ids if stimulus not in categories]
    if lacking:
        raise ValueError(f"stimulus '{lacking[0]}' has no category; give one to each measured stimulus")
    _, number = np.unique([categories[stimulus] for stimulus in ids], return_inverse=True)

    def means(values: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        low, high = np.minimum(number[i], number[j]), np.maximum(number[i], number[j])
        _, block = np.unique(low * len(ids) + high, return_inverse=True)
        averaged: np.ndarray = (np.bincount(block, values) / np.bincount(block))[block]
        return averaged

    return _remade(source, ids, means)


def _remade(
    source: TeacherRDMSource, ids: Sequence[str], remake: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> MeasuredRDMs:
    """RDMs over `ids` with the source's names and weights; remake: measured values and their rows i, j -> others."""
    from rsatoolbox.rdm import RDMs

    if not 2 <= len(ids) <= _MOST:
        raise ValueError(f"this control needs all pairs of 2 to {_MOST} stimuli, got {len(ids)}; give fewer")
    pairs = all_pairs(len(ids))
    i, j = pairs.i.numpy(), pairs.j.numpy()
    measured = source.targets(Stimuli(torch.zeros(len(ids), 1, 1, 1), tuple(ids)), pairs)
    values, weights = [], []
    for name in source.names:
        target = measured[name].values.numpy().astype(np.float64)
        here = ~np.isnan(target)
        target[here] = remake(target[here], i[here], j[here])
        values.append(target)
        given = measured[name].weights
        weights.append(np.ones(len(target)) if given is None else given.numpy())
    descriptors = {"rdm_descriptors": {"name": list(source.names)}, "pattern_descriptors": {"stimulus": list(ids)}}
    weighted = any(target.weights is not None for target in measured.values())
    return MeasuredRDMs(
        RDMs(np.stack(values), dissimilarity_measure=source.dissimilarity, **descriptors),
        name="name",
        weights=RDMs(np.stack(weights), dissimilarity_measure="weight", **descriptors) if weighted else None,
    )


def _exchange(
    source: TeacherRDMSource, ids: Sequence[str], categories: Mapping[str, str] | None, seed: int
) -> dict[str, str]:
    """Another stimulus for each, drawn among those that the same names cover (and of its category)."""
    covered = torch.stack(list(source.covers(ids).values())).T.tolist()
    groups: dict[tuple[object, ...], list[str]] = {}
    for stimulus, names in zip(ids, covered, strict=True):
        if any(names):
            if categories is not None and stimulus not in categories:
                raise ValueError(f"stimulus '{stimulus}' has no category; give one to each measured stimulus")
            groups.setdefault((None if categories is None else categories[stimulus], *names), []).append(stimulus)
    generator = Draw(seed).generator("control")
    identity: dict[str, str] = {}
    for group in groups.values():
        order = [group[k] for k in generator.permutation(len(group))]
        identity.update(zip(order, [*order[1:], order[0]], strict=True))  # one cycle: none gets its own
    if all(len(group) < 2 for group in groups.values()):
        raise ValueError(
            f"nothing to shuffle: of {len(ids)} stimuli no two are measured"
            + (" in one category" if categories else "")
        )
    return identity
