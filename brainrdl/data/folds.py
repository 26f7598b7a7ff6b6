"""Stratified splits of labelled stimuli."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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
