"""Agreement with a target, epoch by epoch: rsatoolbox's numbers, the right layer, matched by id."""

import numpy as np
import pytest
from rsatoolbox.rdm import RDMs, compare

from brainrdl.analysis.logged_rdms import agreement_history
from brainrdl.rdms import subset_stimuli

IDS = [f"s{k}" for k in range(8)]
N_PAIRS = 28


def training(layers=("pool1", "fc"), epochs=(-1, 0, 4), seeds=(0, 1)):
    rows = [("rdl", seed, epoch, layer) for seed in seeds for epoch in epochs for layer in layers]
    names = ("network", "seed", "epoch", "layer")
    return RDMs(
        np.random.default_rng(0).random((len(rows), N_PAIRS)),
        rdm_descriptors={name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)},
        pattern_descriptors={"stimulus": IDS},
    )


def teacher(layers=("fc", "pool1"), ids=IDS, seed=1):
    values = np.random.default_rng(seed).random((len(layers), len(ids) * (len(ids) - 1) // 2))
    return RDMs(values, rdm_descriptors={"layer": list(layers)}, pattern_descriptors={"stimulus": list(ids)})


@pytest.mark.parametrize("comparison", ["corr", "rho-a", "cosine_cov"])
def test_it_is_rsatoolboxs_compare_with_the_layer_of_the_same_name(comparison):
    rdms, target = training(), teacher()
    table = agreement_history(rdms, target, comparison)
    assert list(table.columns) == ["method", "seed", "epoch", "layer", "comparison", "agreement", "n_pairs"]
    values = compare(rdms, target, method=comparison)
    expected = [values[k, 0 if layer == "fc" else 1] for k, layer in enumerate(rdms.rdm_descriptors["layer"])]
    np.testing.assert_allclose(table["agreement"], expected, rtol=1e-12)
    assert list(table["epoch"][:4]) == [-1, -1, 0, 0]
    assert set(table["comparison"]) == {comparison}


def test_one_target_serves_every_layer():
    target = RDMs(teacher().get_vectors()[:1], pattern_descriptors={"stimulus": IDS})
    table = agreement_history(training(), target)
    np.testing.assert_allclose(table["agreement"], compare(training(), target, method="corr")[:, 0])


def test_layers_of_other_names_are_compared_as_told_and_others_left_out():
    target = teacher(("blocks.1", "blocks.2"))
    table = agreement_history(training(), target, layers={"fc": "blocks.2"})
    assert set(table["layer"]) == {"fc"}
    fc = [k for k, layer in enumerate(training().rdm_descriptors["layer"]) if layer == "fc"]
    np.testing.assert_allclose(table["agreement"], compare(training(), target, method="corr")[fc, 1])


def test_stimuli_are_matched_by_id():
    target = teacher()
    shuffled = subset_stimuli(target, [*IDS[::-1]])
    there = agreement_history(training(), target)
    np.testing.assert_allclose(agreement_history(training(), shuffled)["agreement"], there["agreement"])
    fewer = agreement_history(training(), subset_stimuli(target, IDS[:5]))
    expected = compare(subset_stimuli(training(), IDS[:5]), subset_stimuli(target, IDS[:5]), method="corr")
    assert fewer["agreement"][1] == pytest.approx(expected[1, 0])
    assert set(fewer["n_pairs"]) == {10}


def test_a_missing_pair_takes_no_part_where_it_is_missing_and_a_flat_rdm_has_no_agreement():
    rdms, target = training(), teacher()
    rdms.dissimilarities[0, :2] = np.nan
    rdms.dissimilarities[1] = 0.5
    target.dissimilarities[1, -1] = np.nan  # of pool1
    table = agreement_history(rdms, target)
    expected = np.corrcoef(rdms.dissimilarities[0, 2:-1], target.dissimilarities[1, 2:-1])[0, 1]
    assert table["agreement"][0] == pytest.approx(expected)
    assert list(table["n_pairs"][:3]) == [25, 28, 27]
    assert np.isnan(table["agreement"][1])
    assert table["agreement"][2:].notna().all()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="RDMs of a training need the rdm_descriptor 'network'; these have: layer"):
        agreement_history(teacher(), teacher())
    with pytest.raises(ValueError, match="several RDMs are of method rdl, seed 0, epoch 0, layer fc; choose one"):
        agreement_history(training(seeds=(0, 0), epochs=(0,), layers=("fc",)), teacher())
    with pytest.raises(
        ValueError, match=r"the target has several RDMs of one layer \(fc, fc\); give one RDM, or one a"
    ):
        agreement_history(training(), teacher(("fc", "fc")))
    with pytest.raises(
        ValueError, match="layer 'pool1' has no target: the target has no layer 'pool1', it has: fc, x;"
    ):
        agreement_history(training(), teacher(("fc", "x")))
    with pytest.raises(ValueError, match="the networks' RDMs have no layer 'conv9'; they have: pool1, fc"):
        agreement_history(training(), teacher(), layers={"conv9": "fc"})
    with pytest.raises(ValueError, match="0 stimuli are common to all"):
        agreement_history(training(), teacher(ids=[f"x{k}" for k in range(8)]))
    with pytest.raises(ValueError, match="unknown comparison 'pearson'"):
        agreement_history(training(), teacher(), "pearson")
