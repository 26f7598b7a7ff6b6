"""Results of a run with a task in plain sentences: against the baseline, and against what was published."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from itertools import combinations
from math import isnan
from typing import Any

import pandas as pd

from brainrdl.analysis.accuracy import SIGNIFICANT, format_p
from brainrdl.report.blocks import Block, Bullets, Heading, Paragraph
from brainrdl.report.task_run import BASELINE, TEACHER, TaskRun
from brainrdl.report.task_tables import interval, percent, published_results


def in_words(run: TaskRun, errors: pd.DataFrame, tests: pd.DataFrame) -> list[Block]:
    """What the tables say: first beside the published results, if any are known, then against
    the baseline, then every method against every other.

    errors: of `error_summary`, tests: of `mcnemar_table`.
    """
    blocks: list[Block] = []
    if "published" in errors and errors["published"].notna().any():
        blocks += [Heading("Beside the published results"), *against_published(run, errors)]
    if errors["difference"].notna().any():
        blocks += [Heading("Against the baseline"), *against_baseline(errors, tests)]
    if len(tests):
        blocks += [Heading("Who differs from whom"), *who_differs(tests)]
    return blocks


def against_published(run: TaskRun, errors: pd.DataFrame) -> Iterator[Block]:
    """Whether our intervals contain the published numbers, and whether the methods come in the same order."""
    told = published_results(run)
    assert told is not None
    known = errors[errors["published"].notna()]
    tested = known[known["low"].notna()]
    within = pd.Series([_side(row) == 0 for row in tested.to_dict("records")], index=tested.index, dtype=bool)
    words = [f"Published: {told.source}."]
    if len(tested):
        inside = ", ".join(tested["method"][within]) or "none"
        words.append(
            f"Our 95 % interval contains the published number for {within.sum()} of {len(tested)} methods ({inside})."
        )
    words += _order(known[known["method"] != TEACHER])
    words.append(
        "A published number is that of one network; our interval is of the mean over seeds, and wide where there are "
        "few of them."
    )
    yield Paragraph(" ".join(words))
    yield Bullets(tuple(_beside(row) for row in known.to_dict("records")))
    absent = [method for method in told.test_error_percent if method not in set(errors["method"])]
    if absent:
        numbers = ", ".join(f"{method} {told.test_error_percent[method]:.2f} %" for method in absent)
        yield Paragraph(f"Published, and with no finished network here: {numbers}.")


def _order(known: pd.DataFrame) -> Iterator[str]:
    """How the methods come one after the other, here and there."""
    if len(known) < 2:
        return
    orders = [", ".join(known.sort_values(column, kind="stable")["method"]) for column in ("published", "mean")]
    pairs = [
        (a["published"] - b["published"]) * (a["mean"] - b["mean"])
        for a, b in combinations(known.to_dict("records"), 2)
        if a["published"] != b["published"]
    ]
    if not pairs:
        return
    alike = sum(product > 0 for product in pairs)
    yield f"From fewest errors to most, published: {orders[0]}; here: {orders[1]}."
    yield f"Of {len(pairs)} pairs of methods {alike} come in the published order."


def _side(row: Mapping[Hashable, Any]) -> int:
    """Where the published number lies: 0 within our interval, 1 above, -1 below it; all as they are printed."""
    low, number, high = (round(100 * row[column], 2) for column in ("low", "published", "high"))
    return int(number > high) - int(number < low)


def _beside(row: Mapping[Hashable, Any]) -> str:
    start = f"**{row['method']}**: published {percent(row['published'])} %, here {percent(row['mean'])} %"
    if isnan(row["low"]):
        return f"{start}, of one network, so there is no interval."
    side = _side(row)
    verdict = "does not contain" if side else "contains"
    where = ", which is " + ("higher" if side > 0 else "lower") if side else ""
    return f"{start} [{interval(row['low'], row['high'])}]: our interval {verdict} the published number{where}."


def against_baseline(errors: pd.DataFrame, tests: pd.DataFrame) -> Iterator[Block]:
    """Every method's difference to the baseline over seeds, and McNemar's tests seed by seed."""
    compared = errors[errors["difference"].notna()]
    n_tested = int(compared["p"].notna().sum())
    words = ["Test error of a method minus that of the baseline with the same seed, mean over seeds"]
    if compared["difference_low"].notna().any():
        words = [
            f"{words[0]} [95 % interval], in percentage points; p of the paired t-test, and after Holm's correction "
            f"for {n_tested} method{'s' * (n_tested != 1)}."
        ]
    else:
        words = [f"{words[0]}, in percentage points; one seed has no interval."]
    if len(tests):
        words.append("McNemar's test compares two networks of one seed on the test images; seeds are not pooled.")
    yield Paragraph(" ".join(words))
    yield Bullets(tuple(_difference(row, tests) for row in compared.to_dict("records")))


def _difference(row: Mapping[Hashable, Any], tests: pd.DataFrame) -> str:
    text = f"**{row['method']}**: {percent(row['difference'], '+')}"
    if not isnan(row["difference_low"]):
        text += f" [{interval(row['difference_low'], row['difference_high'], '+')}]"
        if not isnan(row["p"]):
            text += f", p {_p(row['p'])} (Holm: {format_p(row['p_holm'])})"
        shown = row["difference_high"] < 0 or row["difference_low"] > 0
        if shown:
            text += f": {'fewer' if row['difference'] < 0 else 'more'} errors"
            text += ", but not after Holm's correction" if row["p_holm"] >= SIGNIFICANT else ""
        else:
            text += f": no difference that {row['n_paired']} seeds can show"
    return text + "." + _mcnemar_words(row["method"], tests)


def _p(p: float) -> str:
    text = format_p(p)
    return text.replace("<", "< ") if "<" in text else f"= {text}"


def _mcnemar_words(method: str, tests: pd.DataFrame) -> str:
    """In how many seeds the one or the other is better. tests: empty where only one network is finished."""
    pairs = tests[["method_a", "method_b"]].isin([method, BASELINE]).all(axis=1)
    own = tests[pairs & (tests["p"] < SIGNIFICANT)]
    better, worse = ((own["better"] == name).sum() for name in (method, BASELINE))
    n_seeds = int(pairs.sum())
    if not n_seeds:
        return ""
    return f" McNemar's test: better in {better} of {n_seeds} seed{'s' * (n_seeds != 1)}, worse in {worse}."


def who_differs(tests: pd.DataFrame) -> Iterator[Block]:
    """The pairs of methods that McNemar's test tells apart, and in how many seeds. tests: of `mcnemar_table`."""
    n_seeds = tests.groupby(["method_a", "method_b"], sort=False).size()
    told: dict[str, list[str]] = {}
    for (a, b), seeds in tests.groupby(["method_a", "method_b"], sort=False):
        for better, other in ((a, b), (b, a)):
            n_better = int((seeds["better"] == better).sum())
            if n_better:
                told.setdefault(str(better), []).append(f"{other} ({n_better}/{len(seeds)})")
    telling = tests[tests["better"] != ""].drop_duplicates(["method_a", "method_b"])
    yield Paragraph(
        f"McNemar's test, p < {SIGNIFICANT:g} uncorrected: of {len(n_seeds)} pairs of methods {len(telling)} differ in "
        "at least one seed. Better than which others, and in how many of the seeds:"
        if told
        else f"McNemar's test, uncorrected: no pair of methods differs at p < {SIGNIFICANT:g} in any seed."
    )
    if told:
        methods = dict.fromkeys(map(str, [*tests["method_a"], *tests["method_b"]]))
        yield Bullets(tuple(f"**{method}**: {', '.join(told[method])}" for method in methods if method in told))
