from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from brainrdl.analysis.accuracy import (
    error_table,
    format_p,
    mcnemar,
    mcnemar_markdown,
    mcnemar_summary,
    mcnemar_table,
)


def errors_of(**values):
    """method -> its errors in seeds 0, 1, …; None where a seed is missing."""
    rows = [(m, s, e) for m, errors in values.items() for s, e in enumerate(errors) if e is not None]
    return pd.DataFrame(rows, columns=["method", "seed", "error"])


def predictions_of(correct, order=None):
    """A frame of predictions over stimuli s0, s1, … that are right where `correct` says so."""
    n = len(correct)
    labels = np.arange(n) % 3
    predicted = np.where(correct, labels, labels + 1)
    frame = pd.DataFrame({"stimulus": [f"s{k}" for k in range(n)], "label": labels, "predicted": predicted})
    return frame if order is None else frame.iloc[order]


# error_table


def test_mean_spread_and_interval_are_scipys():
    random = np.random.default_rng(0)
    errors = errors_of(baseline=random.random(5), rdl=random.random(5), hints=random.random(5))
    table = error_table(errors).set_index("method")
    for method, group in errors.groupby("method"):
        expected = stats.ttest_1samp(group["error"], 0.0).confidence_interval(0.95)
        row = table.loc[method]
        assert row["n_seeds"] == 5
        assert row["mean"] == pytest.approx(group["error"].mean())
        assert row["std"] == pytest.approx(np.std(group["error"], ddof=1))
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected))


def test_difference_to_the_baseline_is_scipys_paired_t_test():
    random = np.random.default_rng(1)
    baseline, rdl = random.random(6), random.random(6)
    row = error_table(errors_of(baseline=baseline, rdl=rdl)).set_index("method").loc["rdl"]
    expected = stats.ttest_rel(rdl, baseline)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert row["difference"] == pytest.approx((rdl - baseline).mean())
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_difference_pairs_seeds_by_number_whatever_the_order_of_rows():
    errors = errors_of(baseline=[0.1, 0.3, 0.2, None], rdl=[0.05, None, 0.12, 0.5])
    shuffled = errors.sample(frac=1, random_state=0)
    for frame in (errors, shuffled):
        row = error_table(frame).set_index("method").loc["rdl"]
        assert row["n_seeds"] == 3
        assert row["n_paired"] == 2
        assert row["difference"] == pytest.approx(((0.05 - 0.1) + (0.12 - 0.2)) / 2)


def test_methods_stay_in_their_order():
    table = error_table(errors_of(rdl=[0.1], baseline=[0.2], hints=[0.3]))
    assert list(table["method"]) == ["rdl", "baseline", "hints"]


def test_one_seed_has_a_difference_but_neither_spread_nor_interval():
    table = error_table(errors_of(baseline=[0.2], rdl=[0.1])).set_index("method")
    assert table.loc["rdl", "difference"] == pytest.approx(-0.1)
    assert table.loc["rdl", ["std", "low", "high", "difference_low", "difference_high", "p"]].isna().all()


def test_without_a_baseline_there_is_no_difference():
    table = error_table(errors_of(rdl=[0.1, 0.2], hints=[0.3, 0.2]))
    assert table[["difference", "difference_low", "difference_high", "p"]].isna().all(axis=None)
    assert table["low"].notna().all()


def test_no_shared_seed_gives_no_difference():
    row = error_table(errors_of(baseline=[0.1, 0.2, None], rdl=[None, None, 0.1])).set_index("method").loc["rdl"]
    assert row["n_paired"] == 0
    assert np.isnan(row["difference"])


@pytest.mark.filterwarnings("error")
def test_equal_differences_have_no_t_test():
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the last digit: a test of that "spread" would give p ~ 1e-16.
    row = error_table(errors_of(baseline=[0.3, 0.2], rdl=[0.2, 0.1])).set_index("method").loc["rdl"]
    assert row["difference"] == pytest.approx(-0.1)
    assert np.isnan(row["p"])


def test_errors_are_checked():
    errors = errors_of(baseline=[0.1, 0.2])
    with pytest.raises(ValueError, match="errors: column 'seed' is missing; expected method, seed, error"):
        error_table(errors.drop(columns="seed"))
    with pytest.raises(ValueError, match="method 'baseline', seed 0 occurs twice"):
        error_table(pd.concat([errors, errors]))
    with pytest.raises(ValueError, match=r"method 'baseline', seed 1 has no error \(NaN\)"):
        error_table(errors.assign(error=[0.1, np.nan]))


# mcnemar


@pytest.mark.parametrize("seed", range(8))
def test_mcnemar_is_statsmodels_exact_test(seed):
    random = np.random.default_rng(seed)
    a, b = random.random((2, 300)) > random.uniform(0.02, 0.3, (2, 1))
    counts = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    result = mcnemar(a, b)
    assert result.p == pytest.approx(statsmodels_mcnemar(counts, exact=True).pvalue, rel=1e-12)
    assert (result.only_a, result.only_b) == (counts[0][1], counts[1][0])


def test_mcnemar_is_symmetric_and_one_for_equal_networks():
    random = np.random.default_rng(0)
    a, b = random.random((2, 100)) > 0.2
    assert mcnemar(a, b).p == mcnemar(b, a).p
    assert mcnemar(a, a) == (1.0, 0, 0)
    assert mcnemar(np.array([], bool), np.array([], bool)).p == 1.0


def test_mcnemar_by_hand():
    # 5 disagreements, all to one side: 2 / 2^5.
    assert mcnemar(np.ones(9, bool), np.arange(9) >= 5).p == pytest.approx(2 / 32)


def test_mcnemar_needs_vectors_of_one_length():
    with pytest.raises(ValueError, match=r"expected two vectors over the same stimuli, got shapes \(3,\) and \(4,\)"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


# mcnemar_table


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    rates = {"baseline": 0.3, "rdl": 0.1, "hints": 0.28}
    frames = {
        (method, seed): predictions_of(random.random(200) > rate, random.permutation(200))
        for method, rate in rates.items()
        for seed in (0, 1, 2)
    }
    frames["teacher", None] = predictions_of(random.random(200) > 0.05)
    return frames


def correct(frame):
    frame = frame.sort_values("stimulus")
    return (frame["label"] == frame["predicted"]).to_numpy()


def test_every_two_methods_are_compared_within_each_seed(predictions):
    table = mcnemar_table(predictions)
    pairs = list(combinations(["baseline", "rdl", "hints", "teacher"], 2))
    assert len(table) == 3 * len(pairs)
    for (seed, a, b), row in table.set_index(["seed", "method_a", "method_b"]).iterrows():
        first, second = (predictions[m, None if m == "teacher" else seed] for m in (a, b))
        test = mcnemar(correct(first), correct(second))
        assert (row["p"], row["only_a_correct"], row["only_b_correct"]) == test
        assert row["n_stimuli"] == 200


def test_better_is_named_where_p_is_below_5_percent(predictions):
    table = mcnemar_table(predictions)
    significant = table[table["p"] < 0.05]
    a_better = significant["only_a_correct"] > significant["only_b_correct"]
    assert list(significant["better"]) == list(significant["method_a"].where(a_better, significant["method_b"]))
    assert (table.loc[table["p"] >= 0.05, "better"] == "").all()
    assert 0 < len(significant) < len(table)


def test_stimuli_are_joined_by_id_not_by_position(predictions):
    random = np.random.default_rng(5)
    shuffled = {key: frame.iloc[random.permutation(len(frame))] for key, frame in predictions.items()}
    pd.testing.assert_frame_equal(mcnemar_table(predictions), mcnemar_table(shuffled))


def test_a_seed_compares_the_methods_it_has(predictions):
    del predictions["rdl", 1], predictions["hints", 1]
    table = mcnemar_table(predictions)
    assert list(table.loc[table["seed"] == 1, ["method_a", "method_b"]].itertuples(index=False, name=None)) == [
        ("baseline", "teacher")
    ]


def test_one_network_alone_gives_an_empty_table():
    table = mcnemar_table({("baseline", 0): predictions_of([True, False])})
    assert table.empty
    assert "p" in table


def test_different_stimuli_are_refused(predictions):
    predictions["rdl", 2] = predictions["rdl", 2].replace({"stimulus": {"s7": "other"}})
    message = (
        "predictions of 'rdl', seed 2 and predictions of 'baseline', seed 0 are not on the same stimuli: "
        "2 differ, the first is 'other'; compare networks on one test set"
    )
    with pytest.raises(ValueError, match=message):
        mcnemar_table(predictions)


def test_predictions_are_checked(predictions):
    frame = predictions["hints", 0]
    predictions["hints", 0] = frame.assign(label=frame["label"].where(frame["stimulus"] != "s3", 9))
    with pytest.raises(ValueError, match="disagree on the label of stimulus 's3'; use one set of labels"):
        mcnemar_table(predictions)
    for repeated in ([0], [4, 1]):
        predictions["hints", 0] = pd.concat([frame, frame.iloc[repeated]])
        first = frame["stimulus"].iloc[repeated[0]]
        with pytest.raises(ValueError, match=f"predictions of 'hints', seed 0: stimulus '{first}' occurs twice"):
            mcnemar_table(predictions)
    predictions["hints", 0] = frame.drop(columns="predicted")
    with pytest.raises(ValueError, match="predictions of 'hints', seed 0: column 'predicted' is missing"):
        mcnemar_table(predictions)


# summary and page


def table_of(*rows):
    columns = ["method_a", "method_b", "seed", "p", "better"]
    return pd.DataFrame(rows, columns=columns)


def test_summary_gives_the_median_the_share_and_the_direction():
    table = table_of(
        ("baseline", "rdl", 0, 0.01, "rdl"),
        ("baseline", "rdl", 1, 0.03, "rdl"),
        ("baseline", "rdl", 2, 0.60, ""),
        ("baseline", "hints", 0, 0.01, "hints"),
        ("baseline", "hints", 1, 0.02, "baseline"),
        ("baseline", "hints", 2, 0.03, "hints"),
        ("rdl", "hints", 0, 0.50, ""),
    )
    summary = mcnemar_summary(table).set_index(["method_a", "method_b"])
    assert tuple(summary.loc[("baseline", "rdl")]) == (3, 0.03, pytest.approx(2 / 3), "rdl")
    assert tuple(summary.loc[("baseline", "hints")]) == (3, 0.02, 1.0, "mixed")
    assert tuple(summary.loc[("rdl", "hints")]) == (1, 0.50, 0.0, "")


def test_arrows_point_to_the_better_method_as_in_the_papers_table_2():
    # One seed, the paper's p-values: finetuning better than the baseline, RDL not different from finetuning.
    table = table_of(
        ("baseline", "finetuning", 0, 0.0004, "finetuning"),
        ("baseline", "rdl", 0, 0.01, "rdl"),
        ("finetuning", "rdl", 0, 0.63, ""),
    )
    assert mcnemar_markdown(table).splitlines() == [
        "| | baseline | finetuning | rdl |",
        "|---|---|---|---|",
        "| **baseline** | — | <0.001 ↑ | 0.010 ↑ |",
        "| **finetuning** | <0.001 ← | — | 0.63 |",
        "| **rdl** | 0.010 ← | 0.63 | — |",
    ]


def test_with_several_seeds_the_cell_says_in_how_many_p_is_below_5_percent():
    table = table_of(
        ("a", "b", 0, 0.01, "a"), ("a", "b", 1, 0.04, "b"), ("a", "c", 0, 0.30, ""), ("a", "c", 1, 0.04, "c")
    )
    page = mcnemar_markdown(table)
    assert "| **a** | — | 0.025 ↔ (2/2) | 0.17 (1/2) |" in page
    assert "| **b** | 0.025 ↔ (2/2) | — |  |" in page


@pytest.mark.parametrize(
    ("p", "text"),
    [(1.0, "1.00"), (0.634, "0.63"), (0.0999, "0.100"), (0.0123, "0.012"), (0.00099, "<0.001"), (np.nan, "—")],
)
def test_p_values_are_written_to_be_read(p, text):
    assert format_p(p) == text
