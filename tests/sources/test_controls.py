import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from brainrdl.pairs import all_pairs
from brainrdl.sources.controls import CONTROLS, CategoryTeacher, RenamedTeacher, ShuffledTeacher, make_control
from brainrdl.sources.network import NetworkTeacher
from brainrdl.sources.patterns import MeasuredPatterns, PatternTable
from brainrdl.stimuli import Stimuli

IDS = [f"s{k:02d}" for k in range(24)]
CATEGORIES = {stimulus: ["face", "house", "tool"][k % 3] for k, stimulus in enumerate(IDS)}


def measured(n_stimuli=20, measure="crossnobis", weights=None, seed=0):
    """IT knows the first `n_stimuli`, EVC all but the first six of these."""
    generator = np.random.default_rng(seed)
    tables = {}
    for name, ids in {"IT": IDS[:n_stimuli], "EVC": IDS[6:n_stimuli]}.items():
        rows = [(stimulus, fold) for stimulus in ids for fold in range(int(generator.integers(2, 5)))]
        patterns = generator.normal(size=(len(rows), 6)) + 0.5
        tables[name] = PatternTable(patterns, [s for s, _ in rows], [f for _, f in rows])
    return MeasuredPatterns(tables, measure, weights=weights)


def batch(ids):
    return Stimuli(torch.zeros(len(ids), 1, 1, 1), tuple(ids))


def targets(source, name="IT", ids=IDS):
    return source.targets(batch(ids), all_pairs(len(ids)))[name]


def by_pair(source, name="IT"):
    values = targets(source, name).values.tolist()
    return {frozenset((IDS[i], IDS[j])): v for i, j, v in zip(*all_pairs(len(IDS)), values, strict=True)}


@pytest.mark.parametrize("kind", CONTROLS)
def test_contract(kind, check_contract):
    source = measured(weights="repetitions")
    control = make_control(kind, source, IDS[:18], CATEGORIES)
    assert control.names == source.names
    check_contract(control, batch(IDS))


def test_names_without_weights_count_every_pair_alike_beside_those_that_have_some():
    class Mixed:
        """Of whose names only IT says how much a pair counts."""

        names, dissimilarity, unbiased = ("IT", "EVC"), "crossnobis", True
        source = measured(weights="repetitions")

        def targets(self, stimuli, pairs):
            found = self.source.targets(stimuli, pairs)
            return found | {"EVC": found["EVC"]._replace(weights=None)}

        def covers(self, ids):
            return self.source.covers(ids)

    control = make_control("random", Mixed(), IDS[6:18])
    weights = {name: targets(control, name, IDS[6:18]).weights for name in ("IT", "EVC")}
    torch.testing.assert_close(weights["EVC"], torch.ones_like(weights["EVC"]))
    torch.testing.assert_close(weights["IT"], targets(Mixed(), "IT", IDS[6:18]).weights)


def test_contract_of_renamed(check_contract):
    renamed = RenamedTeacher(measured(), {"IT": "EVC", "V1": "IT"})
    assert renamed.names == ("IT", "EVC", "V1")
    check_contract(renamed, batch(IDS))


@pytest.mark.parametrize("kind", ["shuffled", "shuffled_within", "random"])
@pytest.mark.parametrize("name", ["IT", "EVC"])
def test_values_and_coverage_have_the_same_distribution(kind, name):
    source = measured()
    control = make_control(kind, source, IDS, CATEGORIES)
    assert torch.equal(control.covers(IDS)[name], source.covers(IDS)[name])
    ours, theirs = (targets(s, name).values.numpy() for s in (control, source))
    assert not np.array_equal(ours, theirs, equal_nan=True)
    np.testing.assert_array_equal(np.sort(ours), np.sort(theirs))
    assert control.unbiased
    assert control.dissimilarity == "crossnobis"


@pytest.mark.parametrize("kind", ["shuffled", "shuffled_within"])
def test_every_stimulus_gets_the_dissimilarities_of_another(kind):
    source = measured()
    control = make_control(kind, source, IDS, CATEGORIES)
    assert isinstance(control, ShuffledTeacher)
    known = IDS[:20]
    assert set(control.identity) == set(known)
    assert all(other != stimulus for stimulus, other in control.identity.items())
    assert {other for stimulus, other in control.identity.items() if stimulus in IDS[:6]} == set(IDS[:6]), "as covered"
    for name in source.names:
        ours, theirs = by_pair(control, name), by_pair(source, name)
        for pair, value in ours.items():
            expected = theirs[frozenset(control.identity.get(stimulus, stimulus) for stimulus in pair)]
            assert value == pytest.approx(expected, nan_ok=True)


def test_shuffling_within_leaves_every_block_of_categories_as_it_is():
    source = measured()
    control = make_control("shuffled_within", source, IDS, CATEGORIES)

    def blocks(teacher):
        found = {}
        for pair, value in by_pair(teacher).items():
            if not np.isnan(value):
                found.setdefault(tuple(sorted(CATEGORIES[stimulus] for stimulus in pair)), []).append(value)
        return {block: sorted(values) for block, values in found.items()}

    assert blocks(control) == blocks(source)
    assert blocks(make_control("shuffled", source, IDS)) != blocks(source)


def test_stimuli_that_are_not_named_stay_as_they_are():
    source = measured()
    control = make_control("shuffled", source, IDS[:10])
    rest = IDS[10:]
    ours, theirs = (targets(s, "IT", rest).values for s in (control, source))
    assert torch.equal(ours.nan_to_num(-9), theirs.nan_to_num(-9))
    assert set(control.identity) == set(IDS[:10])


@pytest.mark.parametrize("kind", ["shuffled", "shuffled_within", "random"])
def test_the_draw_is_a_function_of_the_seed(kind):
    source = measured()
    found = {
        key: targets(make_control(kind, source, ids, CATEGORIES, seed)).values.nan_to_num(-9)
        for key, (ids, seed) in {"one": (IDS, 0), "same": (IDS[::-1] + IDS[:3], 0), "other": (IDS, 1)}.items()
    }
    assert torch.equal(found["one"], found["same"])
    assert not torch.equal(found["one"], found["other"])


def test_random_has_one_geometry_for_all_names_and_none_of_the_stimuli():
    source = measured(n_stimuli=24, measure="euclidean")
    control = make_control("random", source, IDS)
    it, evc = (targets(control, name).values.numpy() for name in source.names)
    both = ~np.isnan(evc)
    assert spearmanr(it[both], evc[both]).statistic == pytest.approx(1)
    correlations = [
        spearmanr(targets(make_control("random", source, IDS, seed=seed)).values, targets(source).values).statistic
        for seed in range(40)
    ]
    assert abs(np.mean(correlations)) < 4 * np.std(correlations, ddof=1) / np.sqrt(40)


def test_random_keeps_what_was_measured_and_weights():
    source = measured(weights="repetitions")
    control = make_control("random", source, IDS)
    for name in source.names:
        ours, theirs = targets(control, name), targets(source, name)
        assert torch.equal(ours.values.isnan(), theirs.values.isnan())
        torch.testing.assert_close(ours.weights, theirs.weights)
    assert targets(make_control("random", measured(), IDS)).weights is None


def test_category_is_zero_within_and_one_between():
    categories = {stimulus: CATEGORIES[stimulus] for stimulus in IDS[1:]}
    control = make_control("category", measured(), IDS, categories)
    for pair, value in by_pair(control, "EVC").items():
        if pair <= set(IDS[6:20]):
            assert value == len({CATEGORIES[stimulus] for stimulus in pair}) - 1
        else:
            assert np.isnan(value)
    assert control.covers(IDS)["IT"].tolist() == [False] + [True] * 19 + [False] * 4
    assert (control.dissimilarity, control.unbiased) == ("category", False)


def test_renamed_answers_with_another_region():
    source = measured()
    renamed = RenamedTeacher(source, {"IT": "EVC"})
    ours, theirs = by_pair(renamed, "IT"), by_pair(source, "EVC")
    assert ours == pytest.approx(theirs, nan_ok=True)
    assert by_pair(renamed, "EVC") == pytest.approx(theirs, nan_ok=True)
    assert renamed.unbiased
    assert renamed.dissimilarity == "crossnobis"
    with pytest.raises(ValueError, match="the source has no name 'V4'; it has: IT, EVC"):
        RenamedTeacher(source, {"IT": "V4"})


def test_what_cannot_be_a_control_is_refused():
    source = measured()
    with pytest.raises(ValueError, match="unknown control 'flipped'; expected one of shuffled, shuffled_within"):
        make_control("flipped", source, IDS)
    for kind in ("shuffled_within", "category"):
        with pytest.raises(ValueError, match=f"control '{kind}' needs categories"):
            make_control(kind, source, IDS)
    with pytest.raises(ValueError, match="stimulus 's19' has no category"):
        make_control("shuffled_within", source, IDS, dict.fromkeys(IDS[:19], "a"))
    with pytest.raises(ValueError, match="nothing to shuffle: of 1 stimuli no two are measured"):
        make_control("shuffled", source, IDS[:1])
    with pytest.raises(ValueError, match="no two are measured in one category"):
        make_control("shuffled_within", source, IDS, {stimulus: stimulus for stimulus in IDS})
    for few in (IDS[:1], [str(k) for k in range(5001)]):
        with pytest.raises(ValueError, match=f"needs all pairs of 2 to 5000 stimuli, got {len(few)}"):
            make_control("random", source, few)
    with pytest.raises(ValueError, match="a network answers by image and not by id"):
        make_control("shuffled", NetworkTeacher(nn.Flatten(), [""]), IDS)
    with pytest.raises(ValueError, match="expected each id once as key and once as value"):
        ShuffledTeacher(source, {"a": "b", "c": "b"})


def test_controls_of_one_source_do_not_change_it():
    source = measured()
    before = targets(source).values.clone()
    for kind in CONTROLS:
        targets(make_control(kind, source, IDS, CATEGORIES))
    assert torch.equal(targets(source).values.nan_to_num(-9), before.nan_to_num(-9))
    assert isinstance(make_control("category", source, IDS, CATEGORIES), CategoryTeacher)


def test_category_means_are_the_means_over_the_measured_pairs_of_the_same_two_categories():
    source = measured()
    before, after = by_pair(source), by_pair(make_control("category_means", source, IDS, CATEGORIES))
    blocks = {}
    for pair, value in before.items():
        blocks.setdefault(frozenset(CATEGORIES[stimulus] for stimulus in pair), []).append(value)
    for pair, value in after.items():
        own = [v for v in blocks[frozenset(CATEGORIES[stimulus] for stimulus in pair)] if not np.isnan(v)]
        if np.isnan(before[pair]):
            assert np.isnan(value)
        else:
            assert value == pytest.approx(np.mean(own), rel=1e-5)


def test_category_means_are_taken_over_the_given_stimuli_alone():
    ids = IDS[:12]
    control = targets(make_control("category_means", measured(), ids, CATEGORIES)).values
    source = targets(measured()).values
    pairs = all_pairs(len(IDS))
    inside = (pairs.j < 12) & ~source.isnan()
    assert control[~inside].isnan().all()
    same = torch.tensor([CATEGORIES[IDS[i]] == CATEGORIES[IDS[j]] == "face" for i, j in zip(*pairs, strict=True)])
    torch.testing.assert_close(control[inside & same], source[inside & same].mean().expand((inside & same).sum()))


def test_category_means_need_a_category_for_each():
    with pytest.raises(ValueError, match="stimulus 's01' has no category"):
        make_control("category_means", measured(), IDS, {"s00": "face"})
