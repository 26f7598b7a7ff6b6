"""Stratified splits of labelled stimuli; folds of stimuli and of subjects, none both trained on and scored."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from brainrdl.randomness import Draw


def stratified_order(labels: Tensor, generator: np.random.Generator) -> Tensor:
    """A random order of which every stretch holds the classes in their proportions.

    Each class is shuffled and laid out evenly over the order, from a random beginning (systematic sampling).
    Stretches that do not overlap are therefore stratified splits of any sizes, and a shorter stretch from the
    same place is part of the longer one. (scikit-learn's stratified splitters have no such order, and refuse
    remainders of fewer images than classes.) Of a class with n_c of the n stimuli, a stretch of m holds m n_c / n to
    within 1 + n_classes n_c / n; classes of equal size differ by at most 1.

    labels: (n_stimuli,) int64. Returns (n_stimuli,) int64 rows.
    """
    classes = labels.cpu().numpy()
    place = np.empty(len(classes))
    for label in np.unique(classes):
        rows = generator.permutation(np.flatnonzero(classes == label))
        place[rows] = (np.arange(len(rows)) + generator.random()) / len(rows)
    return torch.from_numpy(np.argsort(place, kind="stable"))


class Fold(NamedTuple):
    """Which stimuli (or subjects) a network is trained on and which it is scored on; ids in sorted order."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


def stimulus_folds(
    ids: Sequence[str],
    n_folds: int,
    seed: int,
    groups: Mapping[str, object] | None = None,
    stratify: Mapping[str, object] | None = None,
) -> tuple[Fold, ...]:
    """Split stimuli into `n_folds` parts, each held out once; the same ids and seed give the same folds in any order.

    groups: id -> group (concept, near-duplicates); a group is never divided.
    stratify: id -> category, held out in proportion: without groups, each category's counts differ by at most 1 between
    folds, so that one with fewer stimuli than folds is missing from some; with groups, as far as they allow.
    Raises ValueError for repeated ids, ids without group or category, fewer stimuli or groups than folds, and where
    every category has fewer stimuli than folds.
    """
    return _folds(ids, n_folds, seed, "stimulus", groups, stratify)


def subject_folds(subjects: Sequence[str], n_folds: int, seed: int) -> tuple[Fold, ...]:
    """Split subjects into `n_folds` parts, each held out once: the others teach, it scores. As `stimulus_folds`."""
    return _folds(subjects, n_folds, seed, "subject")


def inner_folds(
    fold: Fold,
    n_folds: int,
    seed: int,
    groups: Mapping[str, object] | None = None,
    stratify: Mapping[str, object] | None = None,
) -> tuple[Fold, ...]:
    """Folds of what `fold` trains on, to choose settings by; none of them sees what `fold` holds out."""
    return stimulus_folds(fold.trained, n_folds, seed, groups, stratify)


def check_disjoint(trained: Iterable[str], scored: Iterable[str], what: str = "stimulus") -> None:
    """Raise ValueError, naming the first, where something to be scored was trained on."""
    known = {str(name) for name in trained}
    both = [name for name in map(str, scored) if name in known]
    if both:
        raise ValueError(
            f"{what} '{both[0]}' is both trained on and scored ({len(both)} such in all); "
            "score on what is held out: folds of brainrdl.data.folds overlap nowhere"
        )


def _folds(
    ids: Sequence[str],
    n_folds: int,
    seed: int,
    what: str,
    groups: Mapping[str, object] | None = None,
    stratify: Mapping[str, object] | None = None,
) -> tuple[Fold, ...]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    names = sorted(map(str, ids))
    repeated = next((a for a, b in pairwise(names) if a == b), None)
    if repeated is not None:
        raise ValueError(f"{what} '{repeated}' occurs twice; folds need each id once")
    if n_folds < 2:
        raise ValueError(f"expected at least 2 folds, got {n_folds}")
    # The splitters do not shuffle: a random order of the sorted names makes the folds the seed's, and nothing else's.
    names = [names[k] for k in Draw(seed).generator(f"{what} folds").permutation(len(names))]
    group = None if groups is None else _codes(names, groups, what, "group")
    category = np.zeros(len(names), int) if stratify is None else _codes(names, stratify, what, "category")
    n_parts, parts = (len(names), "ids") if group is None else (len(np.unique(group)), "groups")
    if n_parts < n_folds:
        raise ValueError(f"{n_folds} folds need at least {n_folds} {what} {parts}, got {n_parts}; ask for fewer folds")
    largest = np.bincount(category).max()
    if largest < n_folds:
        raise ValueError(
            f"every category has fewer than {n_folds} stimuli (the largest {largest}), so no fold can hold them in "
            "proportion; ask for fewer folds, coarser categories, or none"
        )
    splitter = StratifiedKFold(n_folds) if group is None else StratifiedGroupKFold(n_folds)
    with warnings.catch_warnings():
        # A category with fewer stimuli than folds is no mistake: the docstring says what becomes of it.
        warnings.filterwarnings("ignore", message="The least populated class")
        splits = list(splitter.split(category, category, group))
    return tuple(
        Fold(tuple(sorted(names[k] for k in trained)), tuple(sorted(names[k] for k in held_out)))
        for trained, held_out in splits
    )


def _codes(names: Sequence[str], values: Mapping[str, object], what: str, column: str) -> np.ndarray:
    """(n,) the value of each name as a number, counted in order of appearance."""
    lacking = [name for name in names if name not in values]
    if lacking:
        raise ValueError(f"{what} '{min(lacking)}' has no {column} ({len(lacking)} such in all); give each one")
    code: dict[object, int] = {}
    return np.array([code.setdefault(values[name], len(code)) for name in names])
