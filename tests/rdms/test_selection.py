"""RDMs chosen, averaged, joined and cut: by descriptor and id, whatever their order."""

import warnings

import numpy as np
import pytest
from rsatoolbox.rdm import RDMs
from rsatoolbox.rdm.combine import rescale as rsatoolbox_rescale

from brainrdl.rdms import (
    average_rdms,
    explain_missing,
    join_rdms,
    load_rdms,
    match_rdms,
    save_rdms,
    select_rdms,
    stimulus_ids,
    subset_stimuli,
)

IDS = [f"stim{k}" for k in range(7)]


def draw(n_subjects=3, rois=("V1", "IT"), n_sessions=2, seed=0, missing=0.0):
    """RDMs of every subject, ROI and session, in a drawn order."""
    generator = np.random.default_rng(seed)
    of = [
        (f"sub-{s}", roi, k) for s in range(n_subjects) for roi in rois for k in range(n_sessions)
    ]  # session as a number
    of = [of[k] for k in generator.permutation(len(of))]
    values = generator.normal(1, 0.3, size=(len(of), 21))
    values[generator.random(values.shape) < missing] = np.nan
    return RDMs(
        values,
        "correlation",
        {"source": "drawn"},
        {name: [one[k] for one in of] for k, name in enumerate(("subject", "roi", "session"))},
        {"stimulus": list(IDS), "category": list("aabbccc")},
    )


def one(rdms, **descriptors):
    """The vector of the only RDM that has these descriptors."""
    (row,) = [
        k
        for k in range(rdms.n_rdm)
        if all(rdms.rdm_descriptors[name][k] == value for name, value in descriptors.items())
    ]
    return rdms.dissimilarities[row]


# ids


def test_ids_are_text_and_must_differ():
    assert stimulus_ids(draw()) == tuple(IDS)
    numbered = RDMs(np.ones(3), pattern_descriptors={"image": np.arange(3)})
    assert stimulus_ids(numbered, "image") == ("0", "1", "2")
    with pytest.raises(ValueError, match="need the pattern descriptor 'stimulus'; these have image, index"):
        stimulus_ids(numbered)
    with pytest.raises(ValueError, match="pattern descriptor 'category': stimulus id 'c' occurs 3 times"):
        stimulus_ids(draw(), "category")


@pytest.mark.parametrize(
    ("wanted", "known", "told"),
    [
        (["a.png", "b.png", "c"], ["a", "b", "c"], "2 would match after dropping a file suffix, .* 'a.png' for 'a'"),
        (["a"], ["a.png"], "1 would match after dropping a file suffix, the first is 'a' for 'a.png'"),
        (["a "], ["a"], "1 would match after trimming whitespace, the first is 'a ' for 'a'"),
        (["A", "B"], ["a", "b"], "2 would match after changing case, the first is 'A' for 'a'; ids are not guessed"),
        ([" A.PNG"], ["a"], "1 would match after trimming whitespace, changing case and dropping a file suffix"),
        (["7", "10"], ["007", "010"], "2 would match after dropping leading zeros, the first is '7' for '007'"),
        (["stim1"], ["stim01"], "1 would match after dropping leading zeros"),
        (["7.0"], ["7"], "1 would match after dropping a file suffix"),  # what became of whole numbers beside gaps
        ([7, 8], ["7", "9"], "1 would match after writing numbers as text, the first is '7' for '7'"),
    ],
)
def test_ids_that_are_almost_there_are_told(wanted, known, told):
    import re

    assert re.search(told, explain_missing(wanted, known))


def test_ids_that_are_there_or_nowhere_need_no_explanation():
    assert explain_missing(["a", "b"], ["a", "b"]) == explain_missing(["x"], ["a"]) == explain_missing([], []) == ""
    assert explain_missing(["10", "a100"], ["1", "a1", "a10"]) == ""


# select


def test_selecting_keeps_what_has_the_values_in_its_order():
    rdms = draw()
    chosen = select_rdms(rdms, roi="IT", subject=["sub-2", "sub-0"])
    of = [(s, r, k) for s, r, k in zip(*(rdms.rdm_descriptors[n] for n in ("subject", "roi", "session")), strict=True)]
    kept = [k for k, (subject, roi, _) in enumerate(of) if roi == "IT" and subject != "sub-1"]
    assert len(kept) == 4
    np.testing.assert_array_equal(chosen.dissimilarities, rdms.dissimilarities[kept])
    assert [of[k] for k in kept] == list(
        zip(*(chosen.rdm_descriptors[n] for n in ("subject", "roi", "session")), strict=True)
    )
    assert chosen.dissimilarity_measure == "correlation"
    assert chosen.descriptors == {"source": "drawn"}
    assert chosen.pattern_descriptors["category"] == list("aabbccc")
    assert chosen.rdm_descriptors["index"] == [0, 1, 2, 3]


def test_values_are_compared_as_text():
    rdms = draw()
    np.testing.assert_array_equal(
        select_rdms(rdms, session=1).dissimilarities, select_rdms(rdms, session="1").dissimilarities
    )
    assert select_rdms(rdms).n_rdm == rdms.n_rdm


def test_selecting_what_is_not_there_names_what_is():
    rdms = draw()
    with pytest.raises(ValueError, match="the RDMs have no descriptor 'area'; they have: subject, roi, session, index"):
        select_rdms(rdms, area="IT")
    with pytest.raises(ValueError, match=r"no RDM has roi 'FFA'; there are: (IT, V1|V1, IT)"):
        select_rdms(rdms, roi=["IT", "FFA"])
    some = select_rdms(rdms, subject="sub-0", roi="IT")
    both = join_rdms([some, select_rdms(rdms, subject="sub-1", roi="V1")])
    with pytest.raises(ValueError, match="no RDM has all of subject=sub-0, roi=V1; each is there, but not together"):
        select_rdms(both, subject="sub-0", roi="V1")


# average


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_mean_is_numpys_over_what_was_measured(missing):
    rdms = draw(missing=missing)
    means = average_rdms(rdms, over="subject")
    assert means.n_rdm == 4
    assert means.rdm_descriptors["n_averaged"] == [3] * 4
    assert "subject" not in means.rdm_descriptors
    assert means.dissimilarity_measure == "correlation"
    assert means.pattern_descriptors["stimulus"] == IDS
    for roi in ("V1", "IT"):
        for session in (0, 1):
            group = [one(rdms, subject=f"sub-{k}", roi=roi, session=session) for k in range(3)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                expected = np.nanmean(group, axis=0)
            np.testing.assert_allclose(one(means, roi=roi, session=session), expected, rtol=1e-12)


def test_averaging_over_several_descriptors_is_one_mean_over_all():
    rdms = draw()
    means = average_rdms(rdms, over=["session", "subject"])
    for roi in ("V1", "IT"):
        expected = select_rdms(rdms, roi=roi).mean().dissimilarities[0]  # rsatoolbox's
        np.testing.assert_allclose(one(means, roi=roi), expected, rtol=1e-12)
    assert means.rdm_descriptors["n_averaged"] == [6, 6]
    in_steps = average_rdms(average_rdms(rdms, over="session"), over="subject")
    assert in_steps.rdm_descriptors["n_averaged"] == [3, 3]
    np.testing.assert_allclose(one(in_steps, roi="IT"), one(means, roi="IT"), rtol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rescale", [None, "evidence", "setsize", "simple"])
def test_a_pair_that_none_measured_stays_nan_without_a_warning(rescale):
    rdms = draw(missing=0.2)
    rdms.dissimilarities[:, 4] = np.nan
    rdms.dissimilarities[np.array(rdms.rdm_descriptors["roi"]) == "V1"] = np.nan
    means = average_rdms(rdms, over=["subject", "session"], rescale=rescale)
    assert np.isnan(one(means, roi="V1")).all()
    assert np.flatnonzero(np.isnan(one(means, roi="IT"))).tolist() == [4]


@pytest.mark.parametrize("method", ["evidence", "setsize", "simple"])
def test_rescaling_is_rsatoolboxs_within_each_mean(method):
    rdms = draw(missing=0.2, seed=1)
    rdms.dissimilarities *= np.random.default_rng(2).uniform(0.5, 20, size=(rdms.n_rdm, 1))
    means = average_rdms(rdms, over=["subject", "session"], rescale=method)
    for roi in ("V1", "IT"):
        scaled = rsatoolbox_rescale(select_rdms(rdms, roi=roi), method=method)
        expected = scaled.mean(weights="rescalingWeights").dissimilarities[0]
        np.testing.assert_allclose(one(means, roi=roi), expected, rtol=1e-12)
    assert means.dissimilarity_measure == "rescaled correlation"
    assert "rescalingWeights" not in means.rdm_descriptors


def test_rescaling_undoes_units():
    rdms = select_rdms(draw(n_sessions=1), roi="IT")
    truth = np.random.default_rng(0).uniform(0.5, 1, 21)
    rdms.dissimilarities = truth * np.array([[1.0], [30.0], [0.01]])
    mean = average_rdms(rdms, rescale="simple").dissimilarities[0]
    np.testing.assert_allclose(mean / np.linalg.norm(mean), truth / np.linalg.norm(truth), rtol=1e-9)
    plain = average_rdms(rdms).dissimilarities[0]
    np.testing.assert_allclose(plain, truth * 31.01 / 3, rtol=1e-12)


def test_a_mean_is_taken_in_double_precision():
    rdms = select_rdms(draw(n_sessions=1), roi="IT")
    rdms.dissimilarities = np.array([[1e8], [1.0], [-1e8]], np.float32) * np.ones((1, 21), np.float32)
    np.testing.assert_allclose(average_rdms(rdms).dissimilarities[0], 1 / 3, rtol=1e-12)


def test_order_of_rdms_does_not_move_a_mean():
    rdms = draw(missing=0.2)
    rows = np.random.default_rng(3).permutation(rdms.n_rdm)
    other = RDMs(
        rdms.dissimilarities[rows],
        rdm_descriptors={k: [v[r] for r in rows] for k, v in rdms.rdm_descriptors.items()},
        pattern_descriptors=dict(rdms.pattern_descriptors),
    )
    a, b = average_rdms(rdms), average_rdms(other)
    for roi in ("V1", "IT"):
        for session in (0, 1):
            np.testing.assert_allclose(one(a, roi=roi, session=session), one(b, roi=roi, session=session), rtol=1e-12)


def test_averaging_what_cannot_be_averaged_is_refused():
    rdms = draw()
    with pytest.raises(ValueError, match="the RDMs have no descriptor 'run'; they have: subject, roi, session, index"):
        average_rdms(rdms, over="run")
    with pytest.raises(ValueError, match="unknown rescaling 'zscore'; expected one of evidence, setsize, simple"):
        average_rdms(rdms, rescale="zscore")
    with pytest.raises(ValueError, match="average over at least one descriptor"):
        average_rdms(rdms, over=[])
    rdms.rdm_descriptors["name"] = [f"rdm {k}" for k in range(rdms.n_rdm)]
    with pytest.raises(
        ValueError, match="over session leaves all 12 RDMs as they are: they differ in subject, roi, name, too"
    ):
        average_rdms(rdms, over="session")


def test_one_rdm_is_its_own_mean():
    rdms = select_rdms(draw(n_sessions=1), subject="sub-1", roi="IT")
    mean = average_rdms(rdms)
    np.testing.assert_array_equal(mean.dissimilarities, rdms.dissimilarities)
    assert mean.rdm_descriptors["n_averaged"] == [1]


# subset


def test_a_subset_goes_by_id_in_the_order_asked_for():
    rdms = draw(missing=0.2)
    chosen = ["stim5", "stim0", "stim3", "stim6"]
    subset = subset_stimuli(rdms, chosen)
    rows = [IDS.index(stimulus) for stimulus in chosen]
    matrices = np.full((rdms.n_rdm, 7, 7), 0.0)
    i, j = np.triu_indices(7, 1)
    matrices[:, i, j] = matrices[:, j, i] = rdms.dissimilarities
    np.testing.assert_array_equal(subset.get_matrices(), matrices[:, rows][:, :, rows])
    assert stimulus_ids(subset) == tuple(chosen)
    assert subset.pattern_descriptors["category"] == [list("aabbccc")[row] for row in rows]
    assert subset.pattern_descriptors["index"] == [0, 1, 2, 3]
    assert subset.rdm_descriptors == rdms.rdm_descriptors
    assert subset.dissimilarity_measure == "correlation"
    ordered = subset_stimuli(rdms, sorted(chosen)).dissimilarities
    np.testing.assert_array_equal(ordered, rdms.subset_pattern("stimulus", sorted(chosen)).dissimilarities)
    np.testing.assert_array_equal(subset_stimuli(rdms, IDS).dissimilarities, rdms.dissimilarities)


def test_a_subset_may_go_by_another_descriptor():
    rdms = draw()
    rdms.pattern_descriptors["image"] = IDS[::-1]
    subset = subset_stimuli(rdms, ["stim0", "stim6"], "image")
    np.testing.assert_array_equal(subset.dissimilarities, subset_stimuli(rdms, ["stim6", "stim0"]).dissimilarities)


def test_a_subset_of_unknown_or_doubled_ids_is_refused():
    with pytest.raises(ValueError, match="2 of 3 stimuli are not in the RDMs, the first is 'stim9'; ask for those"):
        subset_stimuli(draw(), ["stim1", "stim9", "stim8"])
    with pytest.raises(ValueError, match=r"the first is 'stim1.png'; 1 would match after dropping a file suffix"):
        subset_stimuli(draw(), ["stim1.png"])
    with pytest.raises(ValueError, match="stimuli to keep: stimulus id 'stim1' occurs 2 times"):
        subset_stimuli(draw(), ["stim1", "stim1"])


# join


def test_rdms_are_joined_by_stimulus_id():
    rdms = draw(missing=0.2)
    order = [IDS[k] for k in np.random.default_rng(0).permutation(7)]
    joined = join_rdms([rdms, subset_stimuli(rdms, order)])
    np.testing.assert_array_equal(joined.dissimilarities, np.concatenate([rdms.dissimilarities] * 2))
    assert joined.rdm_descriptors["roi"] == rdms.rdm_descriptors["roi"] * 2
    assert joined.rdm_descriptors["index"] == list(range(24))
    assert stimulus_ids(joined) == tuple(IDS)
    assert joined.dissimilarity_measure == "correlation"


def test_joining_keeps_the_descriptors_that_all_have_and_one_measure():
    rdms, other = draw(), average_rdms(draw(), over="session")
    other.dissimilarity_measure = "euclidean"
    joined = join_rdms([rdms, other])
    assert set(joined.rdm_descriptors) == {"subject", "roi", "dissimilarity_measure", "index"}
    assert joined.dissimilarity_measure is None
    other.dissimilarity_measure = rdms.dissimilarity_measure
    joined = join_rdms([rdms, other])
    assert set(joined.rdm_descriptors) == {"subject", "roi", "index"}
    assert joined.dissimilarity_measure == "correlation"


def test_rdms_of_several_measures_say_theirs_and_are_of_it_again_when_selected(tmp_path):
    parts = [draw(n_subjects=1) for _ in range(3)]
    for part, name, measure in zip(parts, "abc", ("correlation", "euclidean", None), strict=True):
        part.rdm_descriptors["network"], part.dissimilarity_measure = [name] * part.n_rdm, measure
    joined = join_rdms([join_rdms(parts[:2]), parts[2]])
    save_rdms(joined, tmp_path / "rdms.h5")
    for rdms in (joined, load_rdms(tmp_path / "rdms.h5")):
        assert list(dict.fromkeys(rdms.rdm_descriptors["dissimilarity_measure"])) == ["correlation", "euclidean", ""]
        for name, measure in zip("abc", ("correlation", "euclidean", None), strict=True):
            selected = select_rdms(rdms, network=name)
            assert selected.dissimilarity_measure == measure
            assert "dissimilarity_measure" not in selected.rdm_descriptors
        two = select_rdms(rdms, network=["b", "c"])
        assert two.dissimilarity_measure is None
        assert set(two.rdm_descriptors["dissimilarity_measure"]) == {"euclidean", ""}


def test_a_union_has_all_stimuli_and_nan_where_a_part_lacks_one():
    parts = [subset_stimuli(draw(n_subjects=1), IDS[1:]), subset_stimuli(draw(seed=1), [IDS[5], IDS[0], IDS[3]])]
    joined = join_rdms(parts, union=True)
    assert stimulus_ids(joined) == tuple(IDS) and joined.n_rdm == sum(part.n_rdm for part in parts)
    start = 0
    for part in parts:
        own = select_rows(joined, start, part.n_rdm)
        np.testing.assert_array_equal(subset_stimuli(own, stimulus_ids(part)).dissimilarities, part.dissimilarities)
        n_measured = len(stimulus_ids(part)) * (len(stimulus_ids(part)) - 1) // 2
        assert ((~np.isnan(own.dissimilarities)).sum(1) == n_measured).all()
        assert own.rdm_descriptors["roi"] == part.rdm_descriptors["roi"]
        start += part.n_rdm


def select_rows(rdms, start, n):
    return rdms.subset("index", list(range(start, start + n)))


def test_joining_nothing_is_refused():
    with pytest.raises(ValueError, match="no RDMs to join; give at least one RDMs object"):
        join_rdms([])


def test_joining_different_stimuli_is_refused():
    with pytest.raises(ValueError, match="not over the same stimuli: 2 differ, the first is 'stim5'"):
        join_rdms([draw(), subset_stimuli(draw(), IDS[:5])])
    with pytest.raises(ValueError, match="need the pattern descriptor 'stimulus'; these have index"):
        join_rdms([RDMs(np.ones(3))])


# real


@pytest.fixture(scope="module")
def sessions(real_data):
    return load_rdms(real_data("kriegeskorte2008") / "kriegeskorte2008" / "human_it_rdms.h5")


def test_the_means_of_the_92_objects_are_rsatoolboxs(sessions):
    whole = average_rdms(sessions, over=["subject", "session"])
    np.testing.assert_allclose(whole.dissimilarities, sessions.mean().dissimilarities, rtol=1e-12)
    assert whole.rdm_descriptors["n_averaged"] == [8]
    assert whole.rdm_descriptors["roi"] == ["hIT"]
    subjects = average_rdms(sessions, over="session")
    assert subjects.rdm_descriptors["subject"] == [f"sub-0{k}" for k in range(1, 5)]
    assert subjects.rdm_descriptors["n_averaged"] == [2] * 4
    for k in range(1, 5):
        expected = sessions.subset("subject", f"sub-0{k}").mean().dissimilarities[0]
        np.testing.assert_allclose(one(subjects, subject=f"sub-0{k}"), expected, rtol=1e-12)


def test_what_is_an_rdms_own_does_not_keep_it_apart_from_others():
    rdms = RDMs(
        np.arange(12.0).reshape(4, 3) ** 2,
        rdm_descriptors={
            "subject": ["a", "b", "a", "b"],
            "roi": ["IT", "IT", "EVC", "EVC"],
            "n_voxels": [100, 90, 50, 50],
            "dof": [10, 10, 12, 12],
            "notes": ["", "one voxel dropped", "", ""],
        },
        pattern_descriptors={"stimulus": ["x", "y", "z"]},
    )
    mean = average_rdms(rdms, over="subject")
    assert list(mean.rdm_descriptors["roi"]) == ["IT", "EVC"]
    np.testing.assert_array_equal(mean.dissimilarities, rdms.dissimilarities.reshape(2, 2, 3).mean(1))
    assert not {"n_voxels", "dof", "notes"} & set(mean.rdm_descriptors)


# RDMs of different origin


def over(ids, seed=0):
    n_pairs = len(ids) * (len(ids) - 1) // 2
    values = np.random.default_rng(seed).random((1, n_pairs))
    return RDMs(values, rdm_descriptors={"network": [f"net{seed}"]}, pattern_descriptors={"stimulus": list(ids)})


def test_rdms_are_matched_over_common_stimuli_by_id_and_what_is_left_out_is_told():
    one, other = over("abcde", 0), over("xedcb", 1)
    matched = match_rdms([one, other], ["one.h5", "other.h5"])
    assert list(matched.rdms.pattern_descriptors["stimulus"]) == list("bcde")
    assert list(matched.rdms.rdm_descriptors["network"]) == ["net0", "net1"]
    both = matched.rdms.get_matrices()
    np.testing.assert_array_equal(both[0], one.get_matrices()[0][1:, 1:])
    np.testing.assert_array_equal(both[1], other.get_matrices()[0][:0:-1, :0:-1])
    assert matched.notes == (
        "one.h5: 1 of 5 stimuli are left out, which not all RDMs have; the first is 'a'",
        "other.h5: 1 of 5 stimuli are left out, which not all RDMs have; the first is 'x'",
    )
    assert match_rdms([one, over("edcba", 1)], ["one", "other"]).notes == ()


def test_what_any_part_lacks_is_left_out_and_the_firsts_order_stays():
    parts = [over("exdcba", 0), over("xda", 1), over("abcdx", 2)]
    matched = match_rdms(parts, ["one", "two", "three"])
    assert list(matched.rdms.pattern_descriptors["stimulus"]) == list("xda")
    rows = ["exdcba".index(stimulus) for stimulus in "xda"]
    np.testing.assert_array_equal(matched.rdms.get_matrices()[0], parts[0].get_matrices()[0][np.ix_(rows, rows)])
    left_out = [note.split(" stimuli")[0] for note in matched.notes]
    assert left_out == ["one: 3 of 6", "three: 2 of 5"]


def test_rdms_that_share_too_few_stimuli_are_refused_with_what_would_match():
    with pytest.raises(ValueError, match=r"one\.h5, other\.h5: 2 stimuli are common to all, expected at least 3"):
        match_rdms([over("abcd"), over("abxy")], ["one.h5", "other.h5"])
    with pytest.raises(ValueError, match=r"5 would match after changing case, the first is 'a' for 'A'"):
        match_rdms([over("abcde"), over("ABCDE")], ["one.h5", "other.h5"])
    with pytest.raises(ValueError, match="no RDMs to match; give at least one RDMs object"):
        match_rdms([], [])
