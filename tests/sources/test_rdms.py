"""Measured RDMs as teacher: looked up by id, as they stand."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from rsatoolbox.rdm import RDMs
from rsatoolbox.rdm.combine import rescale as rsatoolbox_rescale

from brainrdl.objectives import RDLObjective
from brainrdl.pairs import Pairs, all_pairs, sample_pairs
from brainrdl.rdms import average_rdms, save_rdms, select_rdms, subset_stimuli
from brainrdl.sources import MeasuredRDMs
from brainrdl.stimuli import Stimuli

IDS = [f"img{k}" for k in range(12)]


@pytest.fixture
def stimuli():
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return Stimuli(images, tuple(IDS))


def draw(n_rdms=2, n_stimuli=12, seed=0, missing=0.0, measure="correlation", **descriptors):
    generator = np.random.default_rng(seed)
    values = generator.normal(0.5, 0.5, size=(n_rdms, n_stimuli * (n_stimuli - 1) // 2))
    values[generator.random(values.shape) < missing] = np.nan
    return RDMs(values, measure, None, dict(descriptors), {"stimulus": [f"img{k}" for k in range(n_stimuli)]})


def shuffled(rdms, seed=1):
    ids = rdms.pattern_descriptors["stimulus"]
    return subset_stimuli(rdms, [ids[k] for k in np.random.default_rng(seed).permutation(len(ids))])


# contract


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_known", [5, 12, 20])
def test_the_contract(check_contract, stimuli, missing, weighted, n_known):
    rdms = draw(3, n_known, missing=missing, roi=["V1", "V4", "IT"])
    weights = None
    if weighted:
        weights = RDMs(np.abs(rdms.dissimilarities), None, None, {"roi": ["V1", "V4", "IT"]}, rdms.pattern_descriptors)
    check_contract(MeasuredRDMs(shuffled(rdms), weights=weights), stimuli)


def test_the_contract_where_little_is_known(check_contract, stimuli):
    rdms = draw(2, 12, roi=["V1", "IT"])
    rdms.dissimilarities[1, 3:] = np.nan
    source = MeasuredRDMs(rdms)
    check_contract(source, stimuli)
    assert source.covers(["img0", "img3", "img4", "new"])["IT"].tolist() == [True, True, False, False]
    nobody = stimuli._replace(ids=tuple(f"other{k}" for k in range(12)))
    check_contract(source, nobody)
    assert not source.covers(nobody.ids)["V1"].any()


# values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_values_are_those_of_the_file_at_the_pairs(stimuli, dtype):
    rdms = draw(2, missing=0.2, roi=["V1", "IT"])
    stimuli = stimuli._replace(images=stimuli.images.to(dtype))
    rows = torch.tensor([7, 0, 11, 3, 5])
    batch = stimuli.subset(rows)
    pairs = all_pairs(5)
    targets = MeasuredRDMs(shuffled(rdms)).targets(batch, pairs)
    matrices = rdms.get_matrices()
    for k, name in enumerate(["V1", "IT"]):
        expected = [matrices[k, rows[i], rows[j]] for i, j in zip(*pairs, strict=True)]
        expected = torch.tensor(expected, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(targets[name].values, expected, rtol=0, atol=0, equal_nan=True)
        assert targets[name].values.dtype == expected.dtype
        assert targets[name].weights is None
    assert (targets["IT"].values < 0).any(), "negative values pass"


def test_pairs_of_any_order_and_of_a_stimulus_with_itself(stimuli):
    rdms = draw(1, roi=["IT"])
    source = MeasuredRDMs(rdms)
    pairs = Pairs(torch.tensor([3, 1, 4, 4]), torch.tensor([1, 3, 4, 0]))
    values = source.targets(stimuli, pairs)["IT"].values
    assert values[0] == values[1] == torch.tensor(rdms.get_matrices()[0, 1, 3]).float()
    assert values[2].isnan(), "a stimulus with itself was not measured"
    assert values[3] == torch.tensor(rdms.get_matrices()[0, 0, 4]).float()
    twice = stimuli._replace(ids=(IDS[0], IDS[0], *IDS[2:]))
    values = source.targets(twice, Pairs(torch.tensor([0, 1]), torch.tensor([1, 2])))["IT"].values
    assert values.isnan().tolist() == [True, False]


def test_ids_that_the_rdms_lack_are_nan(stimuli):
    rdms = draw(1, 12, roi=["IT"])
    batch = stimuli._replace(ids=("img0", "new", "IMG1", "img1.png", *IDS[4:]))
    source = MeasuredRDMs(rdms)
    assert source.covers(batch.ids)["IT"].tolist() == [True, False, False, False] + [True] * 8
    pairs = all_pairs(12)
    values = source.targets(batch, pairs)["IT"].values
    lacking = (pairs.i < 4) & (pairs.i > 0) | (pairs.j < 4)
    assert values.isnan().equal(lacking)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_files_rows_changes_no_bit(seed, stimuli, tmp_path):
    rdms = draw(2, missing=0.2, seed=seed, roi=["V1", "IT"])
    save_rdms(rdms, tmp_path / "ordered.h5")
    save_rdms(shuffled(rdms, seed), tmp_path / "shuffled.h5")
    matrix = rdms.get_matrices()[1] * (1 + np.random.default_rng(seed).uniform(-1e-6, 1e-6, (12, 12)))
    order = np.random.default_rng(seed).permutation(12)
    np.save(tmp_path / "ordered.npy", matrix)
    np.save(tmp_path / "shuffled.npy", matrix[order][:, order])
    pairs = sample_pairs(12, 30, np.random.default_rng(seed))
    for suffix in ("h5", "npy"):
        told = {} if suffix == "h5" else {"stimuli": IDS}
        other = {} if suffix == "h5" else {"stimuli": [IDS[k] for k in order]}
        one = MeasuredRDMs.load(tmp_path / f"ordered.{suffix}", **told).targets(stimuli, pairs)
        two = MeasuredRDMs.load(tmp_path / f"shuffled.{suffix}", **other).targets(stimuli, pairs)
        assert one.keys() == two.keys()
        for name in one:
            assert one[name].values.numpy().tobytes() == two[name].values.numpy().tobytes()


def test_what_stands_at_a_pair_that_was_not_measured_is_not_used(stimuli):
    rdms = draw(1, missing=0.3, roi=["IT"])
    source = MeasuredRDMs(rdms)
    images = torch.rand(12, 1, 4, 4, requires_grad=True)
    objective = RDLObjective(source, {"": "IT"}, discrepancy="correlation", dissimilarity="correlation")
    loss = objective({"": images.flatten(1)}, stimuli)["rdl/output"]
    loss.backward()
    assert loss.isfinite()
    assert images.grad.isfinite().all()
    measured = ~np.isnan(rdms.dissimilarities[0])
    patterns = images.detach().flatten(1).numpy()
    predicted = (1 - np.corrcoef(patterns))[np.triu_indices(12, 1)][measured]
    expected = 1 - np.corrcoef(predicted, rdms.dissimilarities[0, measured])[0, 1]
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-4)


def test_the_source_is_not_changed_by_changing_the_rdms_or_the_answer(stimuli):
    rdms = draw(1, roi=["IT"])
    source = MeasuredRDMs(rdms)
    pairs = all_pairs(12)
    before = source.targets(stimuli, pairs)["IT"].values.clone()
    rdms.dissimilarities[:] = 0
    source.targets(stimuli, pairs)["IT"].values.zero_()
    assert source.targets(stimuli, pairs)["IT"].values.equal(before)


# names and measures


def test_names_come_from_descriptors():
    subjects, rois = ["sub-01", "sub-01", "sub-02", "sub-02"], ["V1", "IT", "V1", "IT"]
    rdms = draw(4, subject=subjects, roi=rois)
    assert MeasuredRDMs(rdms, name=["subject", "roi"]).names == ("sub-01/V1", "sub-01/IT", "sub-02/V1", "sub-02/IT")
    assert MeasuredRDMs(select_rdms(rdms, subject="sub-01")).names == ("V1", "IT")
    assert MeasuredRDMs(select_rdms(rdms, roi="IT"), name="subject").names == ("sub-01", "sub-02")
    assert MeasuredRDMs(draw(2, name=["a", "b"])).names == ("a", "b")
    assert MeasuredRDMs(draw(2)).names == ("rdm-0", "rdm-1")
    with pytest.raises(ValueError, match=r"2 RDMs are called 'V1': select one, average them, .* also: subject"):
        MeasuredRDMs(rdms)
    with pytest.raises(ValueError, match="the RDMs have no descriptor 'area'; they have: subject, roi, index"):
        MeasuredRDMs(rdms, name="area")


@pytest.mark.parametrize(
    ("measure", "called", "unbiased"),
    [
        ("squared euclidean", "euclidean", False),
        ("squared mahalanobis", "mahalanobis", False),
        ("correlation", "correlation", False),
        ("crossnobis", "crossnobis", True),
        (None, "unknown", False),
    ],
)
def test_measures_are_called_as_here(measure, called, unbiased):
    source = MeasuredRDMs(draw(measure=measure))
    assert source.dissimilarity == called
    assert source.unbiased is unbiased


def test_a_rescaled_measure_is_another_one():
    source = MeasuredRDMs(average_rdms(draw(measure="crossnobis", subject=["a", "b"]), rescale="simple"))
    assert source.dissimilarity == "rescaled crossnobis"
    assert not source.unbiased


def test_ids_may_stand_in_another_descriptor(stimuli):
    rdms = draw(1, roi=["IT"])
    rdms.pattern_descriptors = {"conds": IDS[::-1]}
    pairs = Pairs(torch.tensor([0]), torch.tensor([3]))
    value = MeasuredRDMs(rdms, stimulus="conds").targets(stimuli, pairs)["IT"].values
    assert value == torch.tensor(rdms.get_matrices()[0, 11, 8]).float()
    with pytest.raises(ValueError, match="need the pattern descriptor 'stimulus'; these have conds"):
        MeasuredRDMs(rdms)


def test_what_is_no_rdms_object_is_refused():
    for path in ("it.h5", Path("it.h5")):
        with pytest.raises(ValueError, match=r"expected RDMs, got the path 'it.h5'; use MeasuredRDMs.load\(path\)"):
            MeasuredRDMs(path)
    with pytest.raises(ValueError, match=r"expected RDMs, got ndarray; make RDMs of it first: rsatoolbox.rdm.RDMs"):
        MeasuredRDMs(np.zeros((3, 3)))


def test_rdms_that_teach_nothing_are_refused_by_name():
    rdms = draw(2, roi=["V1", "IT"])
    rdms.dissimilarities[1] = np.nan
    with pytest.raises(ValueError, match="RDM 'IT' has no measured pair, all are NaN; leave it out"):
        MeasuredRDMs(rdms)
    rdms.dissimilarities[1, 4:] = 0.25
    with pytest.raises(ValueError, match=r"RDM 'IT' is 0.25 for all 62 measured pairs, so there is nothing to learn"):
        MeasuredRDMs(rdms)
    rdms.dissimilarities[1, 0] = np.inf
    with pytest.raises(ValueError, match="RDM 'IT' holds 1 infinite values; put NaN: not measured"):
        MeasuredRDMs(rdms)
    rdms.pattern_descriptors["stimulus"][3] = "img0"
    with pytest.raises(ValueError, match="pattern descriptor 'stimulus': stimulus id 'img0' occurs 2 times"):
        MeasuredRDMs(rdms)


# weights


def test_weights_are_matched_by_name_and_id(stimuli):
    rdms = draw(2, missing=0.2, roi=["V1", "IT"])
    weights = draw(2, seed=1, roi=["V1", "IT"])
    weights.dissimilarities = np.abs(weights.dissimilarities)
    weights.dissimilarities[:, 7] = 0
    other = shuffled(weights)
    other.dissimilarities = other.dissimilarities[::-1]
    other.rdm_descriptors["roi"] = ["IT", "V1"]
    pairs = all_pairs(12)
    targets = MeasuredRDMs(rdms, weights=other).targets(stimuli, pairs)
    for k, name in enumerate(["V1", "IT"]):
        missing = np.isnan(rdms.dissimilarities[k])
        expected = torch.tensor(np.where(missing, 0, weights.dissimilarities[k])).float()
        assert targets[name].weights.equal(expected)
        assert targets[name].weights[7] == 0


def test_weights_that_do_not_fit_are_refused():
    rdms = draw(2, missing=0.2, roi=["V1", "IT"])
    good = draw(2, seed=1, roi=["V1", "IT"])
    good.dissimilarities = np.abs(good.dissimilarities)
    with pytest.raises(
        ValueError, match="weights: their stimuli are not those of the RDMs: 2 differ, the first is 'img1"
    ):
        MeasuredRDMs(rdms, weights=subset_stimuli(good, IDS[:10]))
    with pytest.raises(
        ValueError, match=r"weights: their names are not those .*: 1 differ, the first is 'IT'; make them"
    ):
        MeasuredRDMs(rdms, weights=select_rdms(good, roi="V1"))
    measured = np.flatnonzero(~np.isnan(rdms.dissimilarities[1]))[0]
    for wrong in (-1.0, np.nan, np.inf):
        bad = draw(2, seed=1, roi=["V1", "IT"])
        bad.dissimilarities = good.dissimilarities.copy()
        bad.dissimilarities[1, measured] = wrong
        told = rf"weights of 'IT': expected numbers >= 0 wherever a pair was measured, got {wrong:g} \(1 like that\)"
        with pytest.raises(ValueError, match=told):
            MeasuredRDMs(rdms, weights=bad)
    missing = np.flatnonzero(np.isnan(rdms.dissimilarities[1]))[0]
    good.dissimilarities[1, missing] = np.nan
    MeasuredRDMs(rdms, weights=good)


# files


def test_load_selects_and_averages(tmp_path, stimuli):
    of = [(s, r, k) for s in ("a", "b") for r in ("V1", "IT") for k in (1, 2)]
    rdms = draw(8, subject=[o[0] for o in of], roi=[o[1] for o in of], session=[o[2] for o in of])
    save_rdms(rdms, tmp_path / "a.h5")
    source = MeasuredRDMs.load(tmp_path / "a.h5", select={"roi": "IT"}, average="session", name=["subject", "roi"])
    assert source.names == ("a/IT", "b/IT")
    values = source.targets(stimuli, all_pairs(12))["b/IT"].values
    np.testing.assert_allclose(values, rdms.dissimilarities[[6, 7]].mean(0), rtol=1e-6)
    scaled = MeasuredRDMs.load(tmp_path / "a.h5", average=["subject", "session"], rescale="setsize")
    expected = rsatoolbox_rescale(select_rdms(rdms, roi="V1"), "setsize").mean(weights="rescalingWeights")
    np.testing.assert_allclose(
        scaled.targets(stimuli, all_pairs(12))["V1"].values, expected.dissimilarities[0], rtol=1e-6
    )
    np.save(tmp_path / "a.npy", rdms.dissimilarities[:2])
    told = {"stimuli": IDS, "dissimilarity": "crossnobis", "descriptors": {"roi": ["V1", "IT"]}}
    array = MeasuredRDMs.load(tmp_path / "a.npy", **told)
    assert array.names == ("V1", "IT")
    assert array.unbiased


def test_load_names_the_file(tmp_path):
    save_rdms(draw(2, roi=["IT", "IT"], subject=["a", "b"]), tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"a.h5: 2 RDMs are called 'IT': select one, average them"):
        MeasuredRDMs.load(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"a.h5: no RDM has roi 'V1'; there are: IT"):
        MeasuredRDMs.load(tmp_path / "a.h5", select={"roi": "V1"})
    with pytest.raises(ValueError, match=r"a.h5: rescale is a part of averaging; say by `average` over what"):
        MeasuredRDMs.load(tmp_path / "a.h5", rescale="simple")
    with pytest.raises(ValueError, match=r"a.h5: the RDMs have no descriptor 'run'"):
        MeasuredRDMs.load(tmp_path / "a.h5", average="run")


# real


def test_the_92_objects_teach(check_contract, real_data):
    folder = real_data("kriegeskorte2008") / "kriegeskorte2008"
    source = MeasuredRDMs.load(folder / "human_it_rdms.h5", average=["subject", "session"])
    told = {"stimuli": folder / "stimuli.tsv", "dissimilarity": "correlation", "average": "name"}
    struct = MeasuredRDMs.load(folder / "92_brainRDMs.mat", **told)
    assert source.names == ("hIT",)
    assert struct.names == ("rdm-0",)
    assert source.dissimilarity == struct.dissimilarity == "correlation"
    ids = [f"stim{k:02d}" for k in range(1, 93)]
    stimuli = Stimuli(torch.zeros(92, 1, 1, 1), tuple(ids))
    check_contract(source, stimuli)
    pairs = all_pairs(92)
    values = source.targets(stimuli, pairs)["hIT"].values
    assert values.equal(struct.targets(stimuli, pairs)["rdm-0"].values)
    assert source.covers(ids)["hIT"].all()
    subjects = MeasuredRDMs.load(folder / "human_it_rdms.h5", average="session", name=["subject", "roi"])
    assert subjects.names == tuple(f"sub-0{k}/hIT" for k in range(1, 5))
    answers = subjects.targets(stimuli, pairs)
    mean = torch.stack([answers[name].values for name in subjects.names]).mean(0)
    torch.testing.assert_close(mean, values)


@pytest.mark.parametrize(
    ("measure", "low", "high"),
    [
        ("correlation", 0, 2),
        ("cosine", 0, 2),
        *((measure, 0, 1e9) for measure in ("euclidean", "sqeuclidean", "mahalanobis")),
        ("crossnobis", -1e9, 1e9),
    ],
)
def test_values_that_are_none_of_their_measure_are_told(measure, low, high):
    def told(*values):
        rdms = RDMs(np.array([values]), measure, None, {"roi": ["IT"]}, {"stimulus": ["a", "b", "c"]})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            MeasuredRDMs(rdms)
        return [str(one.message) for one in caught]

    assert told(low, low + 1.5, high) == told(low - 1e-4, low, high + 1e-4) == []
    below, above = told(low - 0.01, low + 1, high), told(low, low + 1, high + 0.01)
    if measure == "crossnobis":
        assert below == above == []
        return
    between = f"0 to {high}" if high == 2 else "0 or more"
    assert len(below) == 1
    assert f"RDM 'IT': 1 of 3 values are none of '{measure}' ({between}), such as -0.01" in below[0]
    assert [f"({between}), such as 2.01" in one for one in above] == ([True] if high == 2 else [])
