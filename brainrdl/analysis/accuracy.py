"""Errors over seeds and McNemar's test between networks on the same stimuli."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import isnan, nan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

# The level of the paper's arrows, and of the intervals: 1 - 0.05.
SIGNIFICANT = 0.05


def error_table(errors: pd.DataFrame, baseline: str = "baseline") -> pd.DataFrame:
    """Mean error of each method over seeds, and its difference to the baseline trained with the same seeds.

    errors: columns method, seed, error (a fraction). Returns a row a method, in the order they come:
    n_seeds; mean; std (n - 1); low, high: 95 % t-interval of the mean; n_paired: seeds shared with the baseline;
    difference: mean of method - baseline over those; difference_low, difference_high: its 95 % interval; p: of the
    paired t-test.
    NaN: not defined, for want of a second seed, of a baseline or (p) of any spread between the seeds' differences.
    Raises ValueError for missing columns, missing errors, or a seed that occurs twice.
    """
    _check_columns(errors, ("method", "seed", "error"), "errors")
    if errors["error"].isna().any():
        method, seed = errors.loc[errors["error"].isna(), ["method", "seed"]].iloc[0]
        raise ValueError(f"errors: method '{method}', seed {seed} has no error (NaN); leave it out")
    repeated = errors.duplicated(["method", "seed"])
    if repeated.any():
        method, seed = errors.loc[repeated, ["method", "seed"]].iloc[0]
        raise ValueError(f"errors: method '{method}', seed {seed} occurs twice; expected one error each")
    by_seed = errors.pivot(index="seed", columns="method", values="error")
    rows = []
    for method in errors["method"].unique():
        values = by_seed[method].dropna().to_numpy()
        low, high = _t_interval(values)
        row: dict[str, Any] = {
            "method": method,
            "n_seeds": len(values),
            "mean": values.mean(),
            "std": values.std(ddof=1) if len(values) > 1 else nan,
            "low": low,
            "high": high,
        }
        if baseline in by_seed and method != baseline:
            both = by_seed[[method, baseline]].dropna()
            row |= _paired((both[method] - both[baseline]).to_numpy())
        else:
            row |= {"n_paired": 0, "difference": nan, "difference_low": nan, "difference_high": nan, "p": nan}
        rows.append(row)
    return pd.DataFrame(rows)


class McNemar(NamedTuple):
    """McNemar's exact test between two networks a and b.

    p: two-sided. only_a, only_b: stimuli that only the one classified correctly.
    """

    p: float
    only_a: int
    only_b: int


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> McNemar:
    """Do two networks err equally often? The stimuli they disagree on fall to either side with probability 1/2 if so.

    correct_a, correct_b: (n_stimuli,) bool, the same stimuli in the same order. No disagreement gives p = 1.
    Source: Edwards (1948), as in McClure & Kriegeskorte (2016), Table 2.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two vectors over the same stimuli, got shapes {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n_different = only_a + only_b
    p = float(binomtest(only_a, n_different, 0.5).pvalue) if n_different else 1.0
    return McNemar(p, only_a, only_b)


_TABLE = ["method_a", "method_b", "seed", "n_stimuli", "only_a_correct", "only_b_correct", "p", "better"]


def mcnemar_table(predictions: Mapping[tuple[str, int | None], pd.DataFrame]) -> pd.DataFrame:
    """McNemar's exact test between every two methods, in each seed by itself: seeds are never pooled.

    predictions: (method, seed) -> frame with columns stimulus, label, predicted. Seed None: one network for
    all seeds (the teacher), compared with each seed's networks. Stimuli are joined by id, never by position.
    Returns a row a pair of methods and seed: method_a, method_b, seed, n_stimuli, only_a_correct, only_b_correct,
    p (uncorrected), better (the better method where p < 0.05, else "").
    Raises ValueError for missing columns, repeated ids, or networks that saw different stimuli or labels.
    """
    correct = _correct_by_stimulus(predictions)
    methods = list(dict.fromkeys(method for method, _ in predictions))
    rows = []
    for seed in sorted({seed for _, seed in predictions if seed is not None}):
        there = [(m, s) for m in methods for s in (seed, None) if (m, s) in correct]
        for a, b in combinations(there, 2):
            test = mcnemar(correct[a], correct[b])
            better = "" if test.p >= SIGNIFICANT else a[0] if test.only_a > test.only_b else b[0]
            rows.append((a[0], b[0], seed, len(correct[a]), test.only_a, test.only_b, test.p, better))
    return pd.DataFrame(rows, columns=_TABLE)


def mcnemar_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Over the seeds of each pair in `mcnemar_table`: n_seeds, median_p, share of seeds with p < 0.05, better.

    better: the method that was better wherever p < 0.05; "" where it never was; "mixed" where seeds contradict.
    """
    rows = []
    for (a, b), seeds in table.groupby(["method_a", "method_b"], sort=False):
        better = set(seeds["better"]) - {""}
        rows.append(
            {
                "method_a": a,
                "method_b": b,
                "n_seeds": len(seeds),
                "median_p": seeds["p"].median(),
                "share": (seeds["p"] < SIGNIFICANT).mean(),
                "better": "mixed" if len(better) > 1 else better.pop() if better else "",
            }
        )
    return pd.DataFrame(rows, columns=["method_a", "method_b", "n_seeds", "median_p", "share", "better"])


def mcnemar_cells(table: pd.DataFrame) -> pd.DataFrame:
    """`mcnemar_table` as the paper's Tables 2 and 5, as text: the median p, below 0.05 with an arrow to the better one.

    A row and a column a method, "—" on the diagonal. "←": the row's method is better, "↑": the column's, "↔": seeds
    contradict each other. With several seeds, in brackets how many of them have p < 0.05.
    """
    summary = mcnemar_summary(table)
    methods = list(dict.fromkeys([*summary["method_a"], *summary["method_b"]]))
    cells = pd.DataFrame("", index=methods, columns=methods)
    for method in methods:
        cells.loc[method, method] = "—"
    for pair in summary.to_dict("records"):
        for row, column in ((pair["method_a"], pair["method_b"]), (pair["method_b"], pair["method_a"])):
            arrow = {row: " ←", column: " ↑", "mixed": " ↔"}.get(pair["better"], "")
            if pair["median_p"] >= SIGNIFICANT:
                arrow = ""
            n_seeds = pair["n_seeds"]
            below = f" ({round(pair['share'] * n_seeds)}/{n_seeds})" if n_seeds > 1 else ""
            cells.loc[row, column] = format_p(pair["median_p"]) + arrow + below
    return cells


def mcnemar_markdown(table: pd.DataFrame) -> str:
    """`mcnemar_cells` as a table in Markdown."""
    cells = mcnemar_cells(table)
    lines = ["| | " + " | ".join(cells.columns) + " |", "|---" * (len(cells) + 1) + "|"]
    for method, row in zip(cells.index, cells.to_numpy().tolist(), strict=True):
        lines.append(f"| **{method}** | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def format_p(p: float) -> str:
    """A p-value to read: "—" for NaN, "<0.001", three digits below 0.1, else two."""
    if isnan(p):
        return "—"
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _t_interval(values: np.ndarray) -> tuple[float, float]:
    from scipy import stats

    if len(values) < 2:
        return nan, nan
    half = stats.t.ppf(1 - SIGNIFICANT / 2, len(values) - 1) * stats.sem(values)
    return values.mean() - half, values.mean() + half


def _paired(differences: np.ndarray) -> dict[str, Any]:
    from scipy import stats

    low, high = _t_interval(differences)
    # Errors are fractions of one test set: differences that agree to the last digit are rounding, not spread.
    spread = len(differences) > 1 and np.ptp(differences) > 1e-12
    return {
        "n_paired": len(differences),
        "difference": differences.mean() if len(differences) else nan,
        "difference_low": low,
        "difference_high": high,
        "p": float(stats.ttest_1samp(differences, 0.0).pvalue) if spread else nan,
    }


def _correct_by_stimulus(
    predictions: Mapping[tuple[str, int | None], pd.DataFrame],
) -> dict[tuple[str, int | None], np.ndarray]:
    """(n_stimuli,) bool of each network, all in one order of the stimuli."""
    correct = {}
    first: tuple[str, pd.Series[Any]] | None = None
    for key, frame in predictions.items():
        what = f"predictions of '{key[0]}'" + ("" if key[1] is None else f", seed {key[1]}")
        _check_columns(frame, ("stimulus", "label", "predicted"), what)
        if frame["stimulus"].duplicated().any():
            repeated = frame.loc[frame["stimulus"].duplicated(), "stimulus"].iloc[0]
            raise ValueError(f"{what}: stimulus '{repeated}' occurs twice; expected one prediction each")
        by_id = frame.set_index("stimulus")
        if first is None:
            first = what, by_id["label"]
        other, labels = first
        differing = by_id.index.symmetric_difference(labels.index)
        if len(differing):
            raise ValueError(
                f"{what} and {other} are not on the same stimuli: {len(differing)} differ, the first is "
                f"'{differing[0]}'; compare networks on one test set"
            )
        by_id = by_id.loc[labels.index]
        unlike = by_id.index[by_id["label"] != labels]
        if len(unlike):
            raise ValueError(
                f"{what} and {other} disagree on the label of stimulus '{unlike[0]}'; use one set of labels"
            )
        correct[key] = (by_id["label"] == by_id["predicted"]).to_numpy()
    return correct


def _check_columns(frame: pd.DataFrame, expected: tuple[str, ...], what: str) -> None:
    missing = [column for column in expected if column not in frame]
    if missing:
        raise ValueError(f"{what}: column '{missing[0]}' is missing; expected {', '.join(expected)}")
