"""The best score that noise leaves possible: between subjects, and within a subject from repeated measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from brainrdl.analysis.comparison import MIN_PAIRS, POOLING, check_comparison, pooled, similarity
from brainrdl.randomness import Draw
from brainrdl.rdms.selection import rdm_descriptor

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


@dataclass(frozen=True)
class Ceiling:
    """Bounds on how well any RDM could agree with these subjects on average.

    low: each subject against the other subjects, averaged; high: against all, the subject itself included.
    per_subject: a row a subject: its name, low, high; n_pairs compared; n_pooled, how many RDMs of others it rests on.
    n_subjects: with a ceiling. method: rsatoolbox's comparison. pooling: how subjects were averaged.
    """

    low: float
    high: float
    per_subject: pd.DataFrame
    n_subjects: int
    method: str
    pooling: str


def noise_ceiling(
    rdms: RDMs, method: str = "spearman", by: str = "subject", pairs: np.ndarray | None = None
) -> Ceiling | None:
    """Noise ceiling between subjects, on chosen pairs: where all are measured, rsatoolbox's `boot_noise_ceiling`.

    rdms: of one region; several RDMs of a subject are compared singly and averaged, as rsatoolbox does.
    by: the rdm_descriptor that says whose an RDM is. pairs: (n_pairs,) bool in the RDMs' order; None: all.
    A subject's ceiling is over the pairs measured in it, from those others in whom all of these are measured.
    Returns None, no ceiling, with fewer than 2 subjects or where no subject has such others. NaN in a row: no others.
    Raises ValueError for an unknown method or descriptor, pairs of another length, or RDMs of several regions.
    """
    check_comparison(method)
    owners = np.array(rdm_descriptor(rdms, by))
    vectors = _chosen(rdms, pairs)
    rows = []
    for subject in dict.fromkeys(owners):
        own = owners == subject
        used = ~np.isnan(vectors[own]).any(0)
        low, high, n_pooled = subject_ceiling(vectors, own, used, method)
        rows.append({by: subject, "low": low, "high": high, "n_pairs": int(used.sum()), "n_pooled": n_pooled})
    per_subject = pd.DataFrame(rows)
    there = per_subject.dropna(subset=["low", "high"])
    if there.empty:
        return None
    return Ceiling(
        float(there["low"].mean()), float(there["high"].mean()), per_subject, len(there), method, POOLING[method]
    )


def subject_ceiling(vectors: np.ndarray, own: np.ndarray, used: np.ndarray, method: str) -> tuple[float, float, int]:
    """One subject's lower and upper bound over the pairs `used`, and the number of other subjects' RDMs they rest on.

    vectors: (n_rdms, n_pairs). own: (n_rdms,) bool, the subject's RDMs, measured at all pairs used. used: (n_pairs,)
    bool. Others count where they are measured at all of them, so that scores and bounds belong to the same pairs.
    NaN, NaN, 0 where there are none, or fewer than 3 pairs.
    """
    others = ~own & ~np.isnan(vectors[:, used]).any(1)
    if not others.any() or used.sum() < MIN_PAIRS:
        return np.nan, np.nan, 0
    masked = np.where(used, vectors, np.nan)
    low, high = (
        float(similarity(pooled(masked[rows], method), masked[own], method).mean()) for rows in (others, others | own)
    )
    return low, high, int(others.sum())


def within_subject_ceiling(
    rdms: RDMs,
    by: str = "session",
    method: str = "spearman",
    pairs: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame | None:
    """How far a subject's RDM reproduces itself: split-half correlation, stepped up to the whole measurement.

    `reliability = 2 r / (1 + r)` (Spearman 1910, Brown 1910) with r the similarity between RDMs pooled over either half
    of the sessions, averaged over the ways to halve them (of more than 10 sessions: over 100 drawn ones); an odd number
    gives halves that differ by one. `ceiling = √reliability`: the correlation of a noise-free RDM with the subject's
    pooled one. It leaves differences between subjects aside, so it is no bound of `noise_ceiling`'s kind.
    by: the rdm_descriptor of sessions, runs or repetitions. pairs: (n_pairs,) bool; None: all.
    Returns a row a subject with 2 or more: subject, n_sessions, n_splits, n_pairs (measured in all of them),
    split_half, reliability, ceiling; NaN where not defined (r below 0: halves that do not agree). None: none has 2.
    Raises ValueError as `noise_ceiling`, and for a session that occurs twice in a subject.
    """
    check_comparison(method)
    owners = np.array(rdm_descriptor(rdms, "subject"))
    sessions = np.array(rdm_descriptor(rdms, by))
    vectors = _chosen(rdms, pairs)
    rows = []
    for subject in dict.fromkeys(owners):
        own = owners == subject
        n_sessions = int(own.sum())
        if len(set(sessions[own])) < n_sessions:
            raise ValueError(f"subject '{subject}' has several RDMs of one {by}; give one RDM for each {by}")
        if n_sessions < 2:
            continue
        masked = np.where(np.isnan(vectors[own]).any(0), np.nan, vectors[own])
        halves = _halves(n_sessions, seed)
        r = float(np.mean([_between_halves(masked, list(half), method) for half in halves]))
        reliability = 2 * r / (1 + r) if r >= 0 else np.nan
        rows.append(
            {
                "subject": subject,
                "n_sessions": n_sessions,
                "n_splits": len(halves),
                "n_pairs": int((~np.isnan(masked[0])).sum()),
                "split_half": r,
                "reliability": reliability,
                "ceiling": np.sqrt(reliability),
            }
        )
    return pd.DataFrame(rows) if rows else None


def _between_halves(vectors: np.ndarray, half: Sequence[int], method: str) -> float:
    if np.isnan(vectors).all():
        return np.nan
    other = np.setdiff1d(np.arange(len(vectors)), half)
    return float(similarity(pooled(vectors[list(half)], method), pooled(vectors[other], method), method).item())


def _halves(n: int, seed: int) -> list[tuple[int, ...]]:
    """One half of each way to halve n sessions; of many ways, drawn ones."""
    size = n // 2
    if n <= 10:
        halves = list(combinations(range(n), size))
        # Of an even number, each half is also some other's rest.
        return halves[: len(halves) // 2] if n == 2 * size else halves
    generator = Draw(seed).generator("split halves")
    return [tuple(generator.permutation(n)[:size].tolist()) for _ in range(100)]


def _chosen(rdms: RDMs, pairs: np.ndarray | None) -> np.ndarray:
    """(n_rdms, n_pairs) with NaN at pairs that are not chosen."""
    regions = sorted(set(rdm_descriptor(rdms, "roi"))) if "roi" in rdms.rdm_descriptors else []
    if len(regions) > 1:
        raise ValueError(f"a ceiling is of one region, these RDMs are of {', '.join(regions)}; select one")
    vectors = np.asarray(rdms.get_vectors(), dtype=float)
    if pairs is None:
        return vectors
    pairs = np.asarray(pairs)
    if pairs.dtype != bool or pairs.shape != vectors.shape[1:]:
        raise ValueError(
            f"pairs must be {vectors.shape[1]} bools, one for each pair of the RDMs' {rdms.n_cond} stimuli, got "
            f"{pairs.dtype} of shape {pairs.shape}"
        )
    return np.where(pairs, vectors, np.nan)
