"""Scores are rsatoolbox's on the pairs they name, beside the ceiling of these pairs; folds are averaged, not pooled."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from rsatoolbox.inference import boot_noise_ceiling
from rsatoolbox.rdm import RDMs, compare
from scipy import stats

from brainrdl.analysis import as_model, average_folds, average_seeds, noise_ceiling, score_agreement, teacher_score
from brainrdl.analysis.comparison import COMPARISONS
from brainrdl.data.folds import stimulus_folds
from brainrdl.rdms.selection import select_rdms, subset_stimuli

pytestmark = pytest.mark.filterwarnings("ignore:Noise ceiling for tau")


@pytest.fixture
def problem(drawn):
    """(model of two layers, brain of two regions, ids)."""
    brain, truth, ids = drawn(n_subjects=4, n_stimuli=14, rois=("EVC", "IT"))
    generator = np.random.default_rng(9)
    vectors = truth.get_vectors() + np.array([[0.3], [1.0]]) * generator.random((2, 91))
    model = RDMs(
        vectors,
        rdm_descriptors={"network": ["net"] * 2, "layer": ["conv", "fc"], "seed": [3, 3]},
        pattern_descriptors={"stimulus": ids},
    )
    return model, brain, ids


def one_row(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_held_out_pairs_are_scored_as_rsatoolbox_scores_the_rdm_of_the_held_out_stimuli(problem, comparison):
    model, brain, ids = problem
    held_out, trained = ids[:6], ids[6:]
    table = score_agreement(model, brain, held_out, trained, comparison, pairs=["held_out"])
    assert len(table) == 2 * 2 * 4
    assert (table["n_pairs"] == 15).all()
    assert list(table.columns[:7]) == ["network", "layer", "seed", "roi", "subject", "pairs", "kind"]
    for roi in ("EVC", "IT"):
        of_roi = subset_stimuli(select_rdms(brain, roi=roi), held_out)
        expected = compare(subset_stimuli(model, held_out), of_roi, method=comparison)
        for k, layer in enumerate(("conv", "fc")):
            rows = table[(table["roi"] == roi) & (table["layer"] == layer)]
            assert rows["subject"].tolist() == [f"sub-{s}" for s in range(4)]
            np.testing.assert_allclose(rows["score"], expected[k], rtol=0, atol=1e-12)
            low, high = boot_noise_ceiling(of_roi, comparison)
            assert abs(rows["ceiling_low"].mean() - low) < 1e-12
            assert abs(rows["ceiling_high"].mean() - high) < 1e-12
            assert (rows["above_ceiling"] == (rows["score"] > rows["ceiling_high"])).all()


def test_the_kinds_of_pairs_divide_all_pairs_and_are_the_ones_they_say(problem):
    model, brain, ids = problem
    held_out, trained = ids[:6], ids[6:]
    categories = {name: "xyz"[k % 3] for k, name in enumerate(ids)}
    table = score_agreement(
        model, brain, held_out, trained, "corr", ["held_out", "train_held_out", "trained"], categories=categories
    )
    matrix, other = model.get_matrices()[0], select_rdms(brain, roi="IT", subject="sub-2").get_matrices()[0]
    for kind, wanted in (
        ("all", lambda a, b: True),
        ("within", lambda a, b: categories[a] == categories[b]),
        ("across", lambda a, b: categories[a] != categories[b]),
    ):
        for pairs, sides in (
            ("held_out", (held_out, held_out)),
            ("train_held_out", (held_out, trained)),
            ("trained", (trained, trained)),
        ):
            cells = [
                (ids.index(a), ids.index(b))
                for a in sides[0]
                for b in sides[1]
                if a != b and (sides[0] is not sides[1] or a < b) and wanted(a, b)
            ]
            expected = stats.pearsonr([matrix[c] for c in cells], [other[c] for c in cells]).statistic
            row = one_row(table, layer="conv", roi="IT", subject="sub-2", pairs=pairs, kind=kind)
            assert row["n_pairs"] == len(cells)
            assert abs(row["score"] - expected) < 1e-12
    n_pairs = table[table["layer"] == "fc"].groupby(["pairs", "kind"])["n_pairs"].first().unstack()
    assert (n_pairs["within"] + n_pairs["across"] == n_pairs["all"]).all()
    assert n_pairs["all"].to_dict() == {"held_out": 15, "train_held_out": 48, "trained": 28}


@pytest.mark.parametrize("comparison", ["spearman", "rho-a", "corr"])
def test_partial_scores_are_correlations_of_statsmodels_residuals_and_so_is_their_ceiling(problem, comparison):
    model, brain, ids = problem
    held_out = ids[:9]
    categories = {name: "xyz"[k % 3] for k, name in enumerate(ids)}
    pixels = RDMs(np.random.default_rng(3).random((1, 91)), pattern_descriptors={"stimulus": ids})
    table = score_agreement(
        model, brain, held_out, comparison=comparison, kinds=["partial"], categories=categories, controls=pixels
    )
    different = [categories[a] != categories[b] for i, a in enumerate(held_out) for b in held_out[i + 1 :]]
    known = np.stack([np.array(different, float), subset_stimuli(pixels, held_out).get_vectors()[0]])

    def left(rows):
        ranked = (lambda x: x) if comparison == "corr" else (lambda x: stats.rankdata(x, axis=1))
        return np.stack([sm.OLS(row, sm.add_constant(ranked(known).T)).fit().resid for row in ranked(rows)])

    one = left(subset_stimuli(model, held_out).get_vectors())
    other = left(subset_stimuli(select_rdms(brain, roi="IT"), held_out).get_vectors())
    scaled = stats.zscore(other, axis=1)
    for k in range(4):
        row = one_row(table, layer="fc", roi="IT", subject=f"sub-{k}")
        assert row["n_pairs"] == 36
        low, high = (stats.pearsonr(scaled[k], rest.mean(0)).statistic for rest in (np.delete(scaled, k, 0), scaled))
        expected = [stats.pearsonr(one[1], other[k]).statistic, low, high]
        np.testing.assert_allclose(row[["score", "ceiling_low", "ceiling_high"]].tolist(), expected, atol=1e-9)


def test_controls_alone_are_enough_for_a_partial_score_and_pairs_they_lack_take_no_part(problem):
    model, brain, ids = problem
    pixels = RDMs(np.random.default_rng(3).random((1, 91)), pattern_descriptors={"stimulus": ids})
    pixels.dissimilarities[0, 0] = np.nan
    table = score_agreement(model, brain, ids[:6], controls=pixels)
    assert list(table["kind"].unique()) == ["all", "partial"]
    assert table.groupby("kind")["n_pairs"].unique().map(list).to_dict() == {"all": [15], "partial": [14]}


def test_stimuli_are_joined_by_id_in_whatever_order(problem):
    model, brain, ids = problem
    order = np.random.default_rng(0).permutation(ids).tolist()
    categories = {name: "xy"[k % 2] for k, name in enumerate(ids)}
    expected = score_agreement(model, brain, ids[:6], ids[6:], categories=categories)
    shuffled = score_agreement(subset_stimuli(model, order), brain, ids[5::-1], ids[6:], categories=categories)
    pd.testing.assert_frame_equal(shuffled, expected, rtol=1e-12)
    expected = score_agreement(model, brain, ids[:6], ids[6:])
    pd.testing.assert_frame_equal(
        score_agreement(model, subset_stimuli(brain, order), ids[:6], ids[:5:-1]), expected, rtol=1e-12
    )


def test_several_networks_in_one_call_have_the_scores_they_have_alone(problem):
    model, brain, ids = problem
    together = score_agreement(model, brain, ids[:7])
    for k in range(2):
        alone = score_agreement(model[k], brain, ids[:7])
        rows = together[together["layer"] == alone["layer"][0]].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone, rtol=1e-12)


def test_rows_are_numbered_through(problem):
    model, brain, ids = problem
    table = score_agreement(model, brain, ids[:6], ids[6:], pairs=("held_out", "trained"))
    assert set(table["pairs"]) == {"held_out", "trained"}
    assert table.index.tolist() == list(range(len(table)))


def test_a_subjects_missing_pairs_are_left_out_for_that_subject_only(problem):
    model, brain, ids = problem
    expected = score_agreement(model, brain, ids[:6])
    lacking = (brain.rdm_descriptors["roi"].index("IT"), 2)  # subject 0 in IT: no pair of s00 and s03
    brain.dissimilarities[lacking] = np.nan
    table = score_agreement(model, brain, ids[:6])
    changed = (table["roi"] == "IT") & (table["subject"] == "sub-0")
    assert (table.loc[changed, "n_pairs"] == 14).all()
    assert (table.loc[~changed, "n_pairs"] == 15).all()
    pd.testing.assert_series_equal(table.loc[~changed, "score"], expected.loc[~changed, "score"], rtol=1e-12)
    vectors = [np.delete(subset_stimuli(rdms, ids[:6]).get_vectors(), 2, 1) for rdms in (model, brain)]
    expected_score = stats.spearmanr(vectors[0][0], vectors[1][4]).statistic
    assert abs(one_row(table[changed], layer="conv")["score"] - expected_score) < 1e-12
    pairs = np.arange(15) != 2
    ceiling = noise_ceiling(subset_stimuli(select_rdms(brain, roi="IT"), ids[:6]), "rho-a", pairs=pairs).per_subject
    np.testing.assert_allclose(table.loc[changed, "ceiling_low"], ceiling["low"][0], rtol=0, atol=1e-12)


def test_pairs_a_layer_does_not_define_are_left_out_for_that_layer_and_its_ceiling(problem):
    model, brain, ids = problem
    expected = score_agreement(model, brain, ids[:6])
    model.dissimilarities[1, 0] = np.nan
    table = score_agreement(model, brain, ids[:6])
    conv, fc = (table["layer"] == layer for layer in ("conv", "fc"))
    assert (table.loc[conv, "n_pairs"] == 15).all()
    assert (table.loc[fc, "n_pairs"] == 14).all()
    pd.testing.assert_frame_equal(table[conv], expected[conv], rtol=1e-12)
    pairs = np.arange(15) != 0
    ceiling = noise_ceiling(subset_stimuli(select_rdms(brain, roi="EVC"), ids[:6]), "rho-a", pairs=pairs)
    assert abs(table.loc[fc & (table["roi"] == "EVC"), "ceiling_high"].mean() - ceiling.high) < 1e-12


def test_too_few_pairs_and_models_that_do_not_vary_have_no_score_and_say_why(problem):
    model, brain, ids = problem
    categories = {name: str(min(k, 2)) for k, name in enumerate(ids)}  # s02, s03, … share one
    table = score_agreement(model, brain, ids[:4], comparison="spearman", categories=categories)
    within = table[table["kind"] == "within"]
    assert (within["n_pairs"] == 1).all()
    assert within[["score", "ceiling_low", "ceiling_high"]].isna().all(axis=None)
    assert (within["note"] == "too few pairs").all()
    assert not within["above_ceiling"].any()
    assert (table.loc[table["kind"] == "all", "note"] == "").all()
    model.dissimilarities[0] = 0.5
    table = score_agreement(model, brain, ids[:6], comparison="spearman")
    assert table.loc[table["layer"] == "conv", "score"].isna().all()
    assert (table.loc[table["layer"] == "conv", "note"] == "dissimilarities that do not vary").all()
    assert table.loc[table["layer"] == "fc", "score"].notna().all()


def test_one_subject_has_scores_and_no_ceiling(problem):
    model, brain, ids = problem
    table = score_agreement(model, select_rdms(brain, subject="sub-1"), ids[:6])
    assert table["score"].notna().all()
    assert table[["ceiling_low", "ceiling_high"]].isna().all(axis=None)
    assert not table["above_ceiling"].any()


def test_a_score_above_the_ceiling_is_flagged(problem):
    _, brain, ids = problem
    model = as_model(select_rdms(brain, roi="IT", subject="sub-0"), "cheat")
    table = score_agreement(model, select_rdms(brain, roi="IT"), ids)
    row = one_row(table, subject="sub-0")
    assert row["score"] == pytest.approx(1)
    assert row["above_ceiling"]


def test_a_network_is_never_scored_on_what_it_was_trained_on(problem):
    model, brain, ids = problem
    with pytest.raises(ValueError, match=r"stimulus 's05' is both trained on and scored \(1 such in all\)"):
        score_agreement(model, brain, ids[:6], ids[5:])
    with pytest.raises(ValueError, match=r"stimulus 's06' is both trained on and scored \(2 such in all\)"):
        score_agreement(model, brain, ids[6::-1], ids[5:])  # the first of those to be scored


def test_what_cannot_be_scored_is_refused(problem):
    model, brain, ids = problem

    def refused(message, **changed):
        given = {"model": model, "brain": brain, "held_out": ids[:6]} | changed
        with pytest.raises(ValueError, match=message):
            score_agreement(**given)

    refused("unknown comparison 'pearson'", comparison="pearson")
    refused("expected at least 3 held-out stimuli, got 2; make fewer, larger folds", held_out=ids[:2])
    refused("unknown pairs 'test'; expected some of held_out, train_held_out, trained", pairs=["test"])
    refused("pairs 'train_held_out' need the ids that were trained on; give `trained`", pairs=["train_held_out"])
    refused("unknown kind 'between' of score; expected some of all, within", kinds=["between"])
    refused(r"scores of kind 'within' need `categories` \(id -> category\); give them", kinds=["within"])
    refused("scores of kind 'partial' need `categories` .* or `controls`", kinds=["partial"])
    refused(
        "there is no partial correlation for comparison 'tau-a'; leave out the kind 'partial', or use one of spearman",
        kinds=["partial"],
        comparison="tau-a",
        controls=model[0],
    )
    refused(r"stimulus 's01' has no category \(5 such in all\)", categories={"s00": "x"})
    refused("the model cannot be scored on these stimuli: .*'s99'", held_out=[*ids[:5], "s99"])
    refused("the brain cannot be scored on these stimuli: .*'s03'", brain=subset_stimuli(brain, ids[:3]))
    refused("the control cannot be scored on these stimuli: .*'s03'", controls=subset_stimuli(model, ids[:3]))
    refused("the model needs the rdm_descriptors network and layer, it has: .*roi, subject", model=brain)
    refused("the brain needs the rdm_descriptors roi and subject, it has: .*network", brain=model)
    doubled = RDMs(
        model.dissimilarities[[0, 0]],
        rdm_descriptors={"network": ["a", "a"], "layer": ["b", "b"]},
        pattern_descriptors={"stimulus": ids},
    )
    refused("the model has several RDMs of network 'a', layer 'b'; average them", model=doubled)
    brain.rdm_descriptors["subject"] = ["sub-0"] * 8
    refused("the brain has several RDMs of roi 'EVC', subject 'sub-0'; average them")


# the teacher's own score


def test_the_teachers_score_is_that_of_its_rdm_as_a_model(problem):
    _, brain, ids = problem
    teacher = select_rdms(brain, subject="sub-3")
    others = select_rdms(brain, subject=["sub-0", "sub-1", "sub-2"])
    table = teacher_score(teacher, others, ids[:6], trained=ids[6:], comparison="corr")
    assert set(table["network"]) == {"teacher"}
    assert set(table["layer"]) == {"EVC", "IT"}
    assert set(table["pairs"]) == {"held_out", "train_held_out"}
    row = one_row(table, layer="IT", roi="EVC", subject="sub-1", pairs="held_out")
    one, other = (subset_stimuli(rdms, ids[:6]) for rdms in (teacher[1], others[1]))
    assert row["score"] == pytest.approx(compare(one, other, "corr").item(), abs=1e-12)
    assert list(as_model(teacher, "it", layer="x").rdm_descriptors["layer"]) == ["x", "x"]


def test_the_teachers_score_on_the_real_objects(objects92):
    brain, teacher, animacy = objects92
    table = pd.concat(
        teacher_score(
            teacher, select_rdms(brain, roi="IT"), fold.held_out, comparison="spearman", categories=animacy
        ).assign(fold=k, split=split)
        for split in range(2)
        for k, fold in enumerate(stimulus_folds(list(animacy), 5, split, stratify=animacy))
    )
    means = average_folds(table).groupby("kind")[["score", "ceiling_low", "ceiling_high", "n_pairs"]].mean()
    # Measured once over 4 other splits: 0.302, and a ceiling of 0.446 / 0.536; splits differ by about 0.01.
    np.testing.assert_allclose(means.loc["all"].tolist()[:3], [0.302, 0.446, 0.536], atol=0.03)
    assert means.loc["all", "n_pairs"] == means.loc["within", "n_pairs"] + means.loc["across", "n_pairs"]
    assert 2 * 18 * 17 / 2 + 3 * 18 * 17 / 2 <= means.loc["all", "n_pairs"] <= 5 * 19 * 18 / 2
    assert means.loc["within", "score"] < means.loc["all", "score"]


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.filterwarnings("ignore:Noise ceiling for tau")
def test_complete_real_rdms_have_the_known_ceiling_beside_every_score(objects92, comparison):
    brain, teacher, _ = objects92
    ids = list(teacher.pattern_descriptors["stimulus"])
    if comparison == "tau-a":  # slow: fewer stimuli
        ids = ids[::3]
        brain, teacher = subset_stimuli(brain, ids), subset_stimuli(teacher, ids)
    table = teacher_score(teacher, brain, ids, comparison=comparison)
    means = table.groupby("roi")[["ceiling_low", "ceiling_high"]].mean()
    expected = [boot_noise_ceiling(select_rdms(brain, roi=roi), comparison) for roi in ("EVC", "IT")]
    np.testing.assert_allclose(means.loc[["EVC", "IT"]], expected, rtol=0, atol=1e-6)
    scores = compare(teacher, select_rdms(brain, roi="IT"), comparison)[0]
    np.testing.assert_allclose(table.loc[table["roi"] == "IT", "score"], scores, rtol=0, atol=1e-6)


# averages


def scores(n_folds=3, n_splits=2, n_seeds=2):
    generator = np.random.default_rng(0)
    rows = [
        {
            "network": network,
            "layer": "fc",
            "seed": seed,
            "roi": "IT",
            "subject": subject,
            "pairs": "held_out",
            "kind": "all",
            "comparison": "rho-a",
            "score": generator.random(),
            "ceiling_low": 0.5 + generator.random(),
            "ceiling_high": 2.0,
            "n_pairs": 10 + fold,
            "epoch": fold,
            "above_ceiling": False,
            "note": "",
            "fold": fold,
            "split": split,
        }
        for network in ("a", "b")
        for seed in range(n_seeds)
        for subject in ("sub-1", "sub-2")
        for split in range(n_splits)
        for fold in range(n_folds)
    ]
    return pd.DataFrame(rows)


def test_scores_are_averaged_within_networks_seeds_and_subjects():
    table = scores()
    means = average_folds(table)
    assert len(means) == 2 * 2 * 2
    row = one_row(means, network="b", seed=1, subject="sub-1")
    here = (table["network"] == "b") & (table["seed"] == 1) & (table["subject"] == "sub-1")
    assert row["score"] == pytest.approx(table.loc[here, "score"].mean())
    assert row["ceiling_low"] == pytest.approx(table.loc[here, "ceiling_low"].mean())
    assert (row["n_pairs"], row["n_folds"]) == (33, 6)
    assert not {"fold", "split", "epoch", "note"} & set(means)
    subjects = average_seeds(means)
    row = one_row(subjects, network="b", subject="sub-1")
    here = (table["network"] == "b") & (table["subject"] == "sub-1")
    assert row["score"] == pytest.approx(table.loc[here, "score"].mean())
    assert (row["n_pairs"], row["n_folds"], row["n_seeds"]) == (33, 12, 2)


def test_averages_stand_in_the_order_of_the_table_and_are_numbered():
    table = scores()[::-1]
    keys = ["network", "seed", "subject"]
    means = average_folds(table)
    assert means[keys].to_numpy().tolist() == table[keys].drop_duplicates().to_numpy().tolist()
    assert average_seeds(means)["network"].tolist() == ["b", "b", "a", "a"]


def test_a_mean_of_folds_is_no_score_over_their_pooled_pairs(problem):
    """Two folds whose networks have their own scale: pooled, the scales would be what is scored."""
    model, brain, ids = problem
    halves = ids[:7], ids[7:]
    parts = []
    for k, half in enumerate(halves):
        network = RDMs(
            model.dissimilarities[:1] + 100 * k,
            rdm_descriptors={"network": ["net"], "layer": ["fc"]},
            pattern_descriptors={"stimulus": ids},
        )
        parts.append(score_agreement(network, brain, half, comparison="corr").assign(fold=k))
    means = average_folds(pd.concat(parts))
    expected = np.mean([part["score"].to_numpy() for part in parts], axis=0)
    np.testing.assert_allclose(means["score"], expected, atol=1e-15)
    assert (means["n_pairs"] == 42).all()


def test_a_fold_without_a_score_takes_no_part_with_its_ceiling_and_pairs():
    table = scores(n_splits=1, n_seeds=1)
    table.loc[0, "score"] = np.nan
    means = average_folds(table)
    row = one_row(means, network="a", subject="sub-1")
    assert (row["n_folds"], row["n_pairs"]) == (2, 11 + 12)
    assert row["ceiling_low"] == pytest.approx(table.loc[1:2, "ceiling_low"].mean())
    table.loc[0:2, "score"] = np.nan
    row = one_row(average_folds(table), network="a", subject="sub-1")
    assert row["n_folds"] == 0
    assert np.isnan([row["score"], row["ceiling_low"], row["n_pairs"]]).all()


def test_a_ceiling_that_some_folds_lack_is_none():
    table = scores(n_splits=2, n_seeds=1)
    table.loc[0, ["ceiling_low", "ceiling_high"]] = np.nan
    means = average_folds(table)
    assert np.isnan(one_row(means, network="a", subject="sub-1")["ceiling_high"])
    assert means["ceiling_high"].notna().sum() == 3


def test_above_the_ceiling_is_said_of_the_average():
    table = scores(n_splits=1, n_seeds=1)
    table["ceiling_high"] = 0.6
    table.loc[0:2, "score"] = 0.5, 0.5, 1.0
    assert one_row(average_folds(table), network="a", subject="sub-1")["above_ceiling"]
    table.loc[2, "score"] = 0.7
    assert not one_row(average_folds(table), network="a", subject="sub-1")["above_ceiling"]


def test_splits_of_few_folds_weigh_as_much_as_those_of_many():
    table = scores(n_folds=2, n_seeds=1)
    table = table.drop(index=[3])
    row = one_row(average_folds(table), network="a", subject="sub-1")
    assert row["score"] == pytest.approx((table.loc[0:1, "score"].mean() + table.loc[2, "score"]) / 2)


def test_rows_that_cannot_be_told_apart_are_refused():
    table = scores()
    with pytest.raises(ValueError, match=r"table of scores: network a, layer fc, .*, fold 0 occurs twice"):
        average_folds(table.drop(columns="split"))
    with pytest.raises(ValueError, match="table of scores: column 'fold' is missing"):
        average_folds(table.drop(columns="fold"))
    with pytest.raises(ValueError, match="table of scores: column 'seed' is missing"):
        average_seeds(average_folds(table.drop(columns="seed").iloc[:6]))
    with pytest.raises(ValueError, match="occurs twice; average over what these rows differ in first"):
        average_seeds(pd.concat([average_folds(table)] * 2))
