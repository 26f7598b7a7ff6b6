"""Tests over subjects are scipy's and statsmodels' on the differences; the verdict follows from the intervals."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from brainrdl.analysis import category_only, over_subjects, paired_over_subjects, with_fdr


def subject_level(gains=(0.1, 0.1), n_subjects=12, seed=0, noise=0.02):
    """Scores of the networks "it" and "untrained"; gains: of "it", over all pairs and within category."""
    generator = np.random.default_rng(seed)
    rows = []
    for kind, gain in zip(("all", "within"), gains, strict=True):
        for roi in ("EVC", "IT"):
            base = 0.2 + 0.1 * generator.random(n_subjects)
            for network, by in (("untrained", 0.0), ("it", gain)):
                values = base + by + noise * generator.normal(size=n_subjects)
                rows += [
                    {
                        "network": network,
                        "layer": "fc",
                        "roi": roi,
                        "subject": f"sub-{k:02d}",
                        "pairs": "held_out",
                        "kind": kind,
                        "score": value,
                        "n_pairs": 100 + k,
                        "ceiling_low": base[k] + 0.1,
                        "ceiling_high": base[k] + 0.2,
                    }
                    for k, value in enumerate(values)
                ]
    return pd.DataFrame(rows).sample(frac=1, random_state=seed).reset_index(drop=True)


def differences(table, roi="IT", kind="all"):
    rows = table[(table["roi"] == roi) & (table["kind"] == kind)]
    scores = rows.pivot(index="subject", columns="network", values="score")
    return (scores["it"] - scores["untrained"]).to_numpy()


@pytest.mark.parametrize("seed", range(3))
def test_paired_differences_are_scipys_and_statsmodels(seed):
    table = subject_level(gains=(0.01, 0.0), seed=seed)
    paired = paired_over_subjects(table, "it", "untrained")
    assert len(paired) == 4
    for row in paired.to_dict("records"):
        expected = differences(table, row["roi"], row["kind"])
        low, high = DescrStatsW(expected).tconfint_mean(0.05)
        assert row["n_subjects"] == 12
        assert row["difference"] == pytest.approx(expected.mean(), abs=1e-12)
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-12)
        assert row["p"] == pytest.approx(DescrStatsW(expected).ttest_mean(0)[1], abs=1e-12)
        assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(expected).pvalue, abs=1e-12)
        assert row["dz"] == pytest.approx(row["difference"] / expected.std(ddof=1), abs=1e-12)
        # t = dz √n
        assert stats.ttest_1samp(expected, 0).statistic == pytest.approx(row["dz"] * np.sqrt(12), abs=1e-9)


def test_the_other_way_round_the_sign_changes_and_p_does_not():
    table = subject_level()
    one, other = (
        paired_over_subjects(table, *pair).sort_values(["roi", "kind"])
        for pair in (("it", "untrained"), ("untrained", "it"))
    )
    np.testing.assert_allclose(one[["difference", "low", "high", "dz"]], -other[["difference", "high", "low", "dz"]])
    np.testing.assert_allclose(one[["p", "p_wilcoxon"]], other[["p", "p_wilcoxon"]])


def test_pairing_takes_out_what_subjects_differ_in():
    table = subject_level()
    paired = paired_over_subjects(table, "it", "untrained")
    offset = table["subject"].map({name: 10 * k for k, name in enumerate(table["subject"].unique())})
    shifted = paired_over_subjects(table.assign(score=table["score"] + offset), "it", "untrained")
    np.testing.assert_allclose(shifted[["low", "high", "p"]], paired[["low", "high", "p"]], rtol=1e-6)


def test_only_subjects_that_have_both_scores_count():
    table = subject_level()
    lacking = (table["subject"] == "sub-00") & (table["network"] == "it")
    missing = paired_over_subjects(table[~lacking], "it", "untrained")
    assert (missing["n_subjects"] == 11).all()
    undefined = paired_over_subjects(table.assign(score=table["score"].mask(lacking)), "it", "untrained")
    pd.testing.assert_frame_equal(
        undefined.sort_values(["roi", "kind"], ignore_index=True),
        missing.sort_values(["roi", "kind"], ignore_index=True),
    )


def test_one_subject_or_no_spread_gives_a_difference_without_a_test():
    table = subject_level(n_subjects=1)
    row = paired_over_subjects(table, "it", "untrained").iloc[0]
    assert np.isfinite(row["difference"])
    assert np.isnan([row[name] for name in ("low", "high", "p", "p_wilcoxon", "dz")]).all()
    table = subject_level(noise=0.0)
    row = paired_over_subjects(table, "it", "untrained").iloc[0]
    assert row["difference"] == pytest.approx(0.1)
    assert np.isnan([row[name] for name in ("low", "high", "p", "p_wilcoxon", "dz")]).all()


def test_intervals_of_mere_noise_hold_zero_in_95_of_100_cases():
    held = [
        row["low"] <= 0 <= row["high"]
        for seed in range(50)
        for row in paired_over_subjects(subject_level((0.0, 0.0), 6, seed), "it", "untrained").to_dict("records")
    ]
    assert abs(np.mean(held) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(held))


def test_means_over_subjects_with_intervals_and_ceilings():
    table = subject_level()
    means = over_subjects(table)
    assert len(means) == 8
    for row in means.to_dict("records"):
        here = (table[["network", "roi", "kind"]] == [row["network"], row["roi"], row["kind"]]).all(axis=1)
        values = DescrStatsW(table.loc[here, "score"])
        assert (row["low"], row["high"]) == pytest.approx(values.tconfint_mean(0.05), abs=1e-12)
        assert row["ceiling_low"] == pytest.approx(table.loc[here, "ceiling_low"].mean())
        assert (row["n_subjects"], row["n_pairs"]) == (12, 105.5)
        assert row["above_ceiling"] == (row["score"] > row["ceiling_high"])
    assert not means["above_ceiling"].any()
    assert over_subjects(table.assign(score=2.0))["above_ceiling"].all()


def test_means_and_ceilings_are_over_the_same_subjects():
    table = subject_level(n_subjects=3)
    table.loc[table["subject"] == "sub-00", "score"] = np.nan
    means = over_subjects(table)
    others = table[table["subject"] != "sub-00"]
    assert (means["n_subjects"] == 2).all()
    expected = others.groupby(["network", "roi", "kind"])["ceiling_high"].mean()
    for row in means.to_dict("records"):
        assert row["ceiling_high"] == pytest.approx(expected[row["network"], row["roi"], row["kind"]])
    table.loc[table["subject"] == "sub-01", "ceiling_high"] = np.nan
    means = over_subjects(table)
    assert means["ceiling_high"].isna().all()
    assert not means["above_ceiling"].any()


def test_fdr_is_that_of_statsmodels_and_leaves_out_what_was_not_tested():
    p = np.random.default_rng(0).random(40) ** 3
    np.testing.assert_allclose(with_fdr(p), multipletests(p, method="fdr_bh")[1], rtol=0, atol=1e-12)
    holes = p.copy()
    holes[::7] = np.nan
    adjusted = with_fdr(holes)
    assert (np.isnan(adjusted) == np.isnan(holes)).all()
    there = ~np.isnan(holes)
    np.testing.assert_allclose(adjusted[there], multipletests(holes[there], method="fdr_bh")[1], rtol=0, atol=1e-12)
    assert np.isnan(with_fdr([np.nan])).all()
    assert with_fdr([]).shape == (0,)
    assert with_fdr(pd.Series([0.01, 0.04])).tolist() == pytest.approx([0.02, 0.04])


@pytest.mark.parametrize(
    ("gains", "verdict"), [((0.1, 0.1), False), ((0.1, 0.0), True), ((0.0, 0.0), False), ((0.1, -0.1), True)]
)
def test_a_gain_over_all_pairs_that_is_not_there_within_categories_is_category_structure_only(gains, verdict):
    table = category_only(subject_level(gains), "it", "untrained")
    assert table["roi"].tolist() == ["EVC", "IT"] or table["roi"].tolist() == ["IT", "EVC"]
    assert (table["category_only"] == verdict).all()
    paired = paired_over_subjects(subject_level(gains), "it", "untrained").set_index(["roi", "kind"])
    for row in table.to_dict("records"):
        assert row["gain_low"] == paired.loc[(row["roi"], "all"), "low"]
        assert row["within_high"] == paired.loc[(row["roi"], "within"), "high"]


def test_tables_that_cannot_be_tested_are_refused():
    table = subject_level()
    with pytest.raises(ValueError, match=r"no score has network 'evc'; there are: .*untrained"):
        paired_over_subjects(table, "it", "evc")
    with pytest.raises(ValueError, match="'it' and 'untrained' have no layer, roi, pairs, kind and subject in common"):
        paired_over_subjects(table.assign(layer=table["network"]), "it", "untrained")
    with pytest.raises(ValueError, match="table of scores: column 'score' is missing"):
        paired_over_subjects(table.drop(columns="score"), "it", "untrained")
    with pytest.raises(ValueError, match=r"subject sub-\d+ occurs twice; average over what these rows differ in first"):
        paired_over_subjects(pd.concat([table, table]), "it", "untrained")
    with pytest.raises(ValueError, match=r"subject sub-\d+ occurs twice"):
        over_subjects(pd.concat([table, table]))
    with pytest.raises(ValueError, match="'it' and 'untrained' have no scores of kind 'within' in common"):
        category_only(table[table["kind"] == "all"], "it", "untrained")


def test_no_verdict_on_category_structure_where_an_interval_is_not_defined():
    table = subject_level((0.1, 0.1))
    table.loc[table["kind"] == "within", "score"] = np.nan
    assert category_only(table, "it", "untrained")["category_only"].isna().all()


@pytest.mark.parametrize("seed", range(3))
def test_rows_stand_in_the_order_of_the_table(seed):
    table = subject_level(seed=seed)
    order = table.loc[table["network"] == "it", ["layer", "roi", "pairs", "kind"]].drop_duplicates().to_numpy().tolist()
    assert order != sorted(order)
    assert (
        paired_over_subjects(table, "it", "untrained")[["layer", "roi", "pairs", "kind"]].to_numpy().tolist() == order
    )
    means = over_subjects(table)
    assert means[["network", "roi", "kind"]].to_numpy().tolist() == (
        table[["network", "roi", "kind"]].drop_duplicates().to_numpy().tolist()
    )
