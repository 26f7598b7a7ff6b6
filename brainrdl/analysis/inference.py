"""What the scores say about subjects: means, paired differences, correction for many tests.

Every statement is conditional on these stimuli: networks are trained on folds of them, so that they cannot be drawn
anew as a bootstrap over stimuli would have it. Subjects are the sample; seeds and splits were averaged before.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from brainrdl.analysis.agreement import check_scores

_PLACE = ("layer", "roi", "pairs", "kind")


def over_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """Means over subjects, a row a network, layer, roi, pairs and kind.

    table: the subject-level table (`average_seeds`). Returns n_subjects with a score; score: their mean; low, high: its
    95 % t-interval; n_pairs, ceiling_low, ceiling_high: means over the same subjects, NaN where one has no ceiling;
    above_ceiling: score > ceiling_high. NaN: not defined, for want of a (second) subject.
    Raises ValueError for missing columns and where a subject occurs twice.
    """
    keys = ["network", *_PLACE]
    check_scores(table, [*keys, "subject", "score", "n_pairs", "ceiling_low", "ceiling_high"], [*keys, "subject"])
    rows = []
    for values, group in table.groupby(keys, sort=False, dropna=False):
        scored = group.dropna(subset=["score"])
        low, high, _ = _t_test(scored["score"].to_numpy())
        ceilings = {name: scored[name].mean(skipna=False) for name in ("ceiling_low", "ceiling_high")}
        mean = scored["score"].mean()
        rows.append(
            dict(zip(keys, values, strict=True))
            | {"n_subjects": len(scored), "score": mean, "low": low, "high": high, "n_pairs": scored["n_pairs"].mean()}
            | ceilings
            | {"above_ceiling": bool(mean > ceilings["ceiling_high"])}
        )
    return pd.DataFrame(rows)


def paired_over_subjects(table: pd.DataFrame, a: str, b: str, column: str = "network") -> pd.DataFrame:
    """Difference of two conditions' scores, a - b, paired over the subjects that have both; given these stimuli.

    table: the subject-level table (`average_seeds`). a, b: values of `column`.
    Returns a row a layer, roi, pairs and kind that both have: a, b, n_subjects; difference: the mean; low, high: its
    95 % t-interval; p: paired t-test; p_wilcoxon: signed-rank test, both two-sided and uncorrected (`with_fdr`);
    dz: mean / standard deviation of the differences. NaN: not defined, for want of a second subject or of any spread.
    Raises ValueError for missing columns, a subject that occurs twice, unknown conditions, or nothing in common.
    """
    check_scores(table, [column, *_PLACE, "subject", "score"], [column, *_PLACE, "subject"])
    for name in (a, b):
        if not (table[column] == name).any():
            known = ", ".join(dict.fromkeys(map(str, table[column])))
            raise ValueError(f"no score has {column} '{name}'; there are: {known}")
    keys = [*_PLACE, "subject"]
    one, other = (table.loc[table[column] == name, [*keys, "score"]] for name in (a, b))
    both = one.merge(other, on=keys, suffixes=("_a", "_b"))
    if both.empty:
        raise ValueError(
            f"'{a}' and '{b}' have no layer, roi, pairs, kind and subject in common; name their layers alike to compare"
        )
    rows = []
    for values, group in both.groupby(list(_PLACE), sort=False):
        differences = (group["score_a"] - group["score_b"]).dropna().to_numpy()
        rows.append(dict(zip(_PLACE, values, strict=True)) | {"a": a, "b": b} | _paired(differences))
    return pd.DataFrame(rows)


def with_fdr(p: Sequence[float] | np.ndarray | pd.Series[float]) -> np.ndarray:
    """p-values adjusted for the false discovery rate over all of them (Benjamini & Hochberg 1995).

    p: (n_tests,) of all layers × regions × conditions that are looked at; NaN = no test, stays NaN and is not counted.
    """
    from scipy.stats import false_discovery_control

    adjusted = np.array(p, dtype=float)
    tested = ~np.isnan(adjusted)
    if tested.any():
        adjusted[tested] = false_discovery_control(adjusted[tested])
    return adjusted


def category_only(table: pd.DataFrame, a: str, b: str, column: str = "network") -> pd.DataFrame:
    """Is the gain of `a` over `b` category structure only? True where it is shown overall and not within categories.

    A gain is there where the 95 % interval of the paired difference (`paired_over_subjects`) lies above 0.
    table: the subject-level table with the kinds "all" and "within". Returns a row a layer, roi and pairs: gain,
    gain_low, gain_high; within, within_low, within_high; category_only.
    Raises ValueError as `paired_over_subjects`, and where there are no scores within categories.
    """
    paired = paired_over_subjects(table, a, b, column)
    keys = ["layer", "roi", "pairs"]
    parts = []
    for kind, name in (("all", "gain"), ("within", "within")):
        part = paired.loc[paired["kind"] == kind, [*keys, "difference", "low", "high"]]
        if part.empty:
            raise ValueError(f"'{a}' and '{b}' have no scores of kind '{kind}' in common; score with `categories`")
        parts.append(part.rename(columns={"difference": name, "low": f"{name}_low", "high": f"{name}_high"}))
    verdict = parts[0].merge(parts[1], on=keys)
    only = ((verdict["gain_low"] > 0) & ~(verdict["within_low"] > 0)).astype("boolean")
    verdict["category_only"] = only.mask(verdict[["gain_low", "within_low"]].isna().any(axis=1))
    return verdict


def _paired(differences: np.ndarray) -> dict[str, Any]:
    from scipy.stats import wilcoxon

    low, high, p = _t_test(differences)
    spread = not np.isnan(p)
    return {
        "n_subjects": len(differences),
        "difference": differences.mean() if len(differences) else nan,
        "low": low,
        "high": high,
        "p": p,
        "p_wilcoxon": float(wilcoxon(differences).pvalue) if spread else nan,
        "dz": differences.mean() / differences.std(ddof=1) if spread else nan,
    }


def _t_test(values: np.ndarray) -> tuple[float, float, float]:
    """Ends of the mean's 95 % interval, and p against 0."""
    from scipy.stats import ttest_1samp

    # Values that agree to the last digit are rounding, not spread.
    if len(values) < 2 or np.ptp(values) <= 1e-12:
        return nan, nan, nan
    test = ttest_1samp(values, 0.0)
    interval = test.confidence_interval(0.95)
    return float(interval.low), float(interval.high), float(test.pvalue)
