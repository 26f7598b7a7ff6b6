"""Layer x region agreement: scores and ceilings of all data, rsatoolbox's inference, honest about what is missing."""

import numpy as np
import pytest
from rsatoolbox.inference import boot_noise_ceiling, eval_bootstrap_pattern, eval_bootstrap_rdm, eval_dual_bootstrap
from rsatoolbox.model import ModelFixed
from rsatoolbox.rdm import RDMs, compare
from scipy.stats import false_discovery_control, spearmanr, ttest_1samp, ttest_rel

from brainrdl.analysis import noise_ceiling
from brainrdl.analysis.comparison import COMPARISONS
from brainrdl.analysis.fixed_networks import layer_agreement
from brainrdl.rdms import select_rdms, subset_stimuli


@pytest.fixture
def problem(drawn):
    """(networks, brain): 3 layers of a network that are more and less like the truth behind 6 subjects' 2 regions."""

    def make(n_subjects=6, n_stimuli=12, n_layers=3, rois=("EVC", "IT")):
        brain, truth, ids = drawn(n_subjects, n_stimuli, rois=rois, noise=0.8)
        generator = np.random.default_rng(1)
        noise = generator.random((n_layers, truth.get_vectors().shape[1])) * np.arange(1, n_layers + 1)[:, None]
        networks = RDMs(
            truth.get_vectors() + noise,
            rdm_descriptors={"network": ["net"] * n_layers, "layer": [f"conv{k}" for k in range(n_layers)]},
            pattern_descriptors={"stimulus": ids},
        )
        return networks, brain

    return make


def of_roi(brain, roi):
    return select_rdms(brain, roi=roi)


def plain(rdms):
    return [ModelFixed(str(k), RDMs(vector[None])) for k, vector in enumerate(rdms.get_vectors())]


# scores and ceilings


@pytest.mark.parametrize("comparison", ["spearman", "rho-a", "corr", "cosine", "corr_cov"])
def test_scores_are_rsatoolboxs_compare_and_ceilings_its_and_ours(problem, comparison):
    networks, brain = problem()
    found = layer_agreement(networks, brain, comparison)
    for roi in ("EVC", "IT"):
        subjects = of_roi(brain, roi)
        by_hand = compare(networks, subjects, method=comparison)
        scores = found.scores[found.scores["roi"] == roi].pivot(index="layer", columns="subject", values="score")
        np.testing.assert_allclose(scores, by_hand, rtol=1e-12)
        means = found.means[found.means["roi"] == roi]
        np.testing.assert_allclose(means["score"], by_hand.mean(1), rtol=1e-12)
        low, high = boot_noise_ceiling(subjects, method=comparison)
        np.testing.assert_allclose(means["ceiling_low"], low)
        np.testing.assert_allclose(means["ceiling_high"], high)
        ours = noise_ceiling(subjects, comparison)
        assert (ours.low, ours.high) == pytest.approx((low, high))


@pytest.mark.filterwarnings("error:Noise ceiling for tau")
def test_the_ceiling_for_tau_is_rsatoolboxs_without_its_warning(problem):
    networks, brain = problem(rois=("IT",))
    means = layer_agreement(networks, brain, "tau-a").means
    with pytest.warns(UserWarning, match="Noise ceiling for tau"):
        low, high = boot_noise_ceiling(brain, method="tau-a")
    np.testing.assert_allclose(means[["ceiling_low", "ceiling_high"]], [[low, high]] * 3)


def test_stimuli_are_matched_by_id_and_what_is_left_out_is_told(problem):
    networks, brain = problem()
    ids = [f"s{k:02d}" for k in range(12)]
    here = layer_agreement(networks, brain)
    shuffled = layer_agreement(subset_stimuli(networks, ids[::-1]), brain)
    np.testing.assert_allclose(shuffled.means["score"], here.means["score"])
    fewer = layer_agreement(subset_stimuli(networks, ids[:9]), brain)
    assert (fewer.n_stimuli, fewer.means["n_pairs"][0]) == (9, 36)
    assert fewer.notes[0].startswith("the RDMs of the brain: 3 of 12 stimuli are left out")


def test_descriptors_may_have_other_names(problem):
    networks, brain = problem(rois=("IT",))
    foreign = RDMs(
        networks.get_vectors(),
        rdm_descriptors={"name": ["conv0", "conv1", "conv2"]},
        pattern_descriptors=networks.pattern_descriptors,
    )
    people = RDMs(
        brain.get_vectors(),
        rdm_descriptors={"participant": list(range(6))},
        pattern_descriptors=brain.pattern_descriptors,
    )
    found = layer_agreement(foreign, people, network=None, layer="name", roi=None, subject="participant")
    expected = layer_agreement(networks, brain)
    np.testing.assert_array_equal(found.means["score"], expected.means["score"])
    assert set(found.means["network"]) == set(found.means["roi"]) == {""}


def test_pairs_that_are_missing_anywhere_take_no_part_in_that_region(problem):
    networks, brain = problem()
    whole = layer_agreement(networks, brain).means
    brain.dissimilarities[1, :5] = np.nan
    brain.dissimilarities[2, 3:6] = np.nan
    found = layer_agreement(networks, brain)
    expected = spearmanr(networks.get_vectors()[0, 6:], brain.get_vectors()[0, 6:]).statistic  # no ties
    assert found.scores["score"][0] == pytest.approx(expected)
    assert list(found.means["n_pairs"]) == [60] * 3 + [66] * 3
    np.testing.assert_array_equal(found.means["score"][3:], whole["score"][3:])
    (note,) = found.notes
    assert note.startswith("roi EVC: 6 of 66 pairs are left out, which not all its subjects and networks have")
    assert note.endswith("subject 'sub-1' lacks most, 5")


def test_a_pair_that_one_network_lacks_takes_no_part_for_any(problem):
    networks, brain = problem(rois=("IT",))
    networks.dissimilarities[1, 4] = np.nan
    found = layer_agreement(networks, brain, "corr")
    used = np.arange(66) != 4
    expected = np.corrcoef(networks.dissimilarities[:, used], brain.dissimilarities[:, used])[:3, 3:]
    np.testing.assert_allclose(found.scores["score"], expected.ravel())
    assert set(found.means["n_pairs"]) == {65}
    assert found.notes == ("roi IT: 1 of 66 pairs are left out, which not all its subjects and networks have",)


# inference


def test_fixed_inference_is_the_t_tests_of_the_field(problem):
    networks, brain = problem()
    found = layer_agreement(networks, brain, "corr")
    scores = {roi: compare(networks, of_roi(brain, roi), method="corr") for roi in ("EVC", "IT")}
    for row in found.means.to_dict("records"):
        own = scores[row["roi"]][int(row["layer"][-1])]
        interval = ttest_1samp(own, 0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx(tuple(interval))
        assert row["p_zero"] == pytest.approx(ttest_1samp(own, 0, alternative="greater").pvalue, abs=1e-14)
        assert row["p_ceiling"] == pytest.approx(ttest_1samp(own, row["ceiling_low"]).pvalue, abs=1e-14)
    assert len(found.pairwise) == 2 * 3
    for row in found.pairwise.to_dict("records"):
        a, b = (scores[row["roi"]][int(row[name][-1])] for name in ("layer_a", "layer_b"))
        assert row["difference"] == pytest.approx(np.mean(a - b))
        assert row["p"] == pytest.approx(ttest_rel(a, b).pvalue, abs=1e-14)
    np.testing.assert_allclose(found.pairwise["q"], false_discovery_control(found.pairwise["p"]))
    np.testing.assert_allclose(found.means["q_zero"], false_discovery_control(found.means["p_zero"]))
    np.testing.assert_allclose(found.means["q_ceiling"], false_discovery_control(found.means["p_ceiling"]))


@pytest.mark.parametrize(
    ("inference", "evaluate"),
    [
        ("bootstrap_rdm", eval_bootstrap_rdm),
        ("bootstrap_pattern", eval_bootstrap_pattern),
        ("dual_bootstrap", eval_dual_bootstrap),
    ],
)
def test_a_bootstrap_gives_rsatoolboxs_variance_around_the_scores_of_all_data(problem, inference, evaluate):
    networks, brain = problem(rois=("IT",))
    found = layer_agreement(networks, brain, "corr", inference, n_bootstrap=30, seed=3)
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    result = evaluate(plain(networks), RDMs(brain.get_vectors()), method="corr", N=30)
    np.random.set_state(state)  # noqa: NPY002
    low, high = result.get_ci(0.95)
    np.testing.assert_allclose(found.means["high"] - found.means["low"], high - low)
    np.testing.assert_allclose((found.means["high"] + found.means["low"]) / 2, found.means["score"])
    np.testing.assert_allclose(found.means["score"], compare(networks, brain, method="corr").mean(1))
    assert found.means[["p_zero", "p_ceiling"]].notna().all(axis=None)


def test_a_seed_gives_the_same_again_and_leaves_the_callers_draws_alone(problem):
    networks, brain = problem(rois=("IT",))
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    one, other = (layer_agreement(networks, brain, "corr", "bootstrap_rdm", n_bootstrap=10) for _ in range(2))
    assert np.random.random() == expected  # noqa: NPY002
    assert one.means.equals(other.means)
    another = layer_agreement(networks, brain, "corr", "bootstrap_rdm", n_bootstrap=10, seed=1)
    assert not np.allclose(another.means["low"], one.means["low"])


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_one_subject_has_scores_and_nothing_else(problem):
    networks, brain = problem(n_subjects=1, rois=("IT",))
    found = layer_agreement(networks, brain)
    assert found.means["score"].notna().all()
    missing = ["low", "high", "ceiling_low", "ceiling_high", "p_zero", "q_zero", "p_ceiling", "q_ceiling"]
    assert found.means[missing].isna().all(axis=None)
    assert found.pairwise[["p", "q"]].isna().all(axis=None)
    assert found.notes == ("roi IT: one subject, so no noise ceiling and no interval over subjects",)
    over_stimuli = layer_agreement(networks, brain, "corr", "bootstrap_pattern", n_bootstrap=20).means
    assert over_stimuli[["low", "high", "p_zero"]].notna().all(axis=None)
    assert over_stimuli[["ceiling_low", "p_ceiling", "q_ceiling"]].isna().all(axis=None)


def test_of_few_subjects_no_ceiling_is_drawn_anew(problem):
    found = layer_agreement(*problem(n_subjects=2, rois=("IT",)), "corr", "dual_bootstrap", n_bootstrap=10)
    assert found.means["p_ceiling"].isna().all()
    assert found.means[["p_zero", "ceiling_low"]].notna().all(axis=None)
    assert "roi IT: 2 subjects, too few to draw their noise ceiling anew" in found.notes[0]
    enough = layer_agreement(*problem(n_subjects=5, rois=("IT",)), "corr", "dual_bootstrap", n_bootstrap=10)
    assert enough.means["p_ceiling"].notna().all()
    assert enough.notes == ()


def test_a_single_rdm_of_a_network_is_scored_without_pairwise_tests(problem):
    networks, brain = problem(n_layers=1)
    found = layer_agreement(networks, brain)
    assert len(found.pairwise) == 0
    assert list(found.pairwise.columns)[-2:] == ["p", "q"]
    assert found.means["p_zero"].notna().all()


def test_subjects_may_differ_between_regions(problem):
    networks, brain = problem()
    fewer = brain.subset("index", list(range(8)))  # all of EVC, 2 of IT
    assert list(layer_agreement(networks, fewer).means.groupby("roi")["n_subjects"].first()) == [6, 2]


# wrong input


def test_descriptors_that_are_not_there_are_refused_naming_those_that_are(problem):
    networks, brain = problem()
    with pytest.raises(
        ValueError, match=r"brain have no rdm_descriptor 'area'; they have: .*roi.*; say which .* by roi="
    ):
        layer_agreement(networks, brain, roi="area")
    with pytest.raises(ValueError, match=r"the RDMs of networks have no rdm_descriptor 'module'; they have: .*layer"):
        layer_agreement(networks, brain, layer="module")


def test_rdms_that_cannot_be_told_apart_are_refused(problem):
    networks, brain = problem()
    with pytest.raises(
        ValueError, match="several of the RDMs of the brain are of roi 'IT', subject 'sub-0'; choose one of them"
    ):
        layer_agreement(
            networks,
            RDMs(
                brain.get_vectors(),
                rdm_descriptors={"roi": ["IT"] * 12, "subject": brain.rdm_descriptors["subject"]},
                pattern_descriptors=brain.pattern_descriptors,
            ),
        )
    with pytest.raises(
        ValueError, match="several of the RDMs of networks are of network 'net', layer 'net'; choose one"
    ):
        layer_agreement(networks, brain, layer="network")


def test_rdms_without_values_are_refused(problem):
    networks, brain = problem()
    networks.dissimilarities[1] = np.nan
    with pytest.raises(ValueError, match="the RDM of network 'net', layer 'conv1' is NaN throughout"):
        layer_agreement(networks, brain)
    networks.dissimilarities[1] = 0.5
    networks.dissimilarities[1, 11] = np.inf
    with pytest.raises(
        ValueError, match="the RDMs of networks, RDM 1 of 3: 1 infinite values, the first between 's01' and 's02'"
    ):
        layer_agreement(networks, brain)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_rdms_without_differences_are_refused(problem, comparison):
    # rho-a and tau-a would be 0, which in a subject is no score; an angle is defined unless all are 0.
    value = 0.0 if comparison.startswith("cosine") else 0.5
    networks, brain = problem()
    networks.dissimilarities[1] = value
    with pytest.raises(
        ValueError,
        match=f"network 'net', layer 'conv1' holds dissimilarities that do not vary, so '{comparison}' says",
    ):
        layer_agreement(networks, brain, comparison)
    networks, brain = problem()
    brain.dissimilarities[7] = value
    with pytest.raises(ValueError, match="the RDM of roi 'IT', subject 'sub-1' holds dissimilarities that do not vary"):
        layer_agreement(networks, brain, comparison)


def test_incomplete_rdms_that_cannot_be_whitened_are_refused(problem):
    networks, brain = problem(n_stimuli=100, rois=("IT",))
    brain.dissimilarities[0, 0] = np.nan
    with pytest.raises(ValueError, match="'corr_cov' needs every pair of 100 stimuli, and 1 are left out"):
        layer_agreement(networks, brain, "corr_cov")


def test_too_few_common_pairs_are_refused_naming_who_lacks_most(problem):
    networks, brain = problem()
    brain.dissimilarities[6, :40] = np.nan
    brain.dissimilarities[7, 39:] = np.nan
    with pytest.raises(
        ValueError, match=r"roi 'IT': 0 pairs are .* subject 'sub-0' \(40 pairs\), subject 'sub-1' \(27"
    ):
        layer_agreement(networks, brain)


def test_two_bootstrap_samples_are_enough(problem):
    means = layer_agreement(*problem(rois=("IT",)), inference="bootstrap_rdm", n_bootstrap=2).means
    assert (means["high"] > means["low"]).all()


def test_inference_that_cannot_be_made_is_refused(problem, drawn):
    networks, brain = problem(n_subjects=1, rois=("IT",))
    with pytest.raises(ValueError, match="unknown inference 'subjects'; expected one of fixed, bootstrap_rdm"):
        layer_agreement(networks, brain, inference="subjects")
    with pytest.raises(
        ValueError, match="'dual_bootstrap' needs at least 2 subjects, roi 'IT' has one; use 'bootstrap_p"
    ):
        layer_agreement(networks, brain, inference="dual_bootstrap")
    with pytest.raises(ValueError, match="expected at least 2 bootstrap samples, got 1"):
        layer_agreement(networks, brain, inference="bootstrap_rdm", n_bootstrap=1)
    with pytest.raises(ValueError, match="unknown comparison 'pearson'"):
        layer_agreement(networks, brain, "pearson")
    networks, brain = problem(n_stimuli=100, rois=("IT",))
    with pytest.raises(ValueError, match="drawn twice is no pair with itself: comparison 'corr_cov' needs every pair"):
        layer_agreement(networks, brain, "corr_cov", "bootstrap_pattern")


# real data


def test_the_92_objects_have_the_ceiling_known_for_them(objects92):
    """The mean IT RDM of four other people, scored on Cichy 2014's 15: between chance and the ceiling."""
    brain, teacher, _ = objects92
    model = RDMs(
        teacher.get_vectors(),
        rdm_descriptors={"network": ["human"], "layer": ["IT 2008"]},
        pattern_descriptors=teacher.pattern_descriptors,
    )
    means = layer_agreement(model, brain, "spearman").means.set_index("roi")
    ours = noise_ceiling(select_rdms(brain, roi="IT"), "spearman")
    assert tuple(means.loc["IT", ["ceiling_low", "ceiling_high"]]) == pytest.approx((ours.low, ours.high))
    assert means.loc["IT", "q_zero"] < 0.001 and means.loc["IT", "q_ceiling"] < 0.01
    assert means.loc["IT", "score"] > means.loc["EVC", "score"]
