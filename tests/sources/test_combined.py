import numpy as np
import pytest
import torch

from brainrdl.pairs import all_pairs
from brainrdl.sources.combined import CombinedTeacher
from brainrdl.sources.patterns import MeasuredPatterns, PatternTable
from brainrdl.stimuli import Stimuli, Targets

NAN = float("nan")


class Given:
    """A source that answers all pairs of "abc", in their order, with given values and weights."""

    def __init__(self, values, weights=None, name="IT", dissimilarity="euclidean", unbiased=False):
        self.names, self.dissimilarity, self.unbiased = (name,), dissimilarity, unbiased
        self.target = Targets(torch.tensor(values), None if weights is None else torch.tensor(weights))

    def covers(self, ids):
        return {self.names[0]: torch.ones(len(ids), dtype=torch.bool)}

    def targets(self, stimuli, pairs):
        return {self.names[0]: self.target}


def patterns(seed, ids, measure="euclidean", names=("IT", "EVC")):
    generator = np.random.default_rng(seed)
    tables = {name: PatternTable(generator.normal(size=(len(ids), 5)), list(ids)) for name in names}
    return MeasuredPatterns(tables, measure, weights="repetitions")


def batch(ids):
    return Stimuli(torch.zeros(len(ids), 1, 1, 1), tuple(ids))


def targets(source, name):
    return source.targets(batch("abc"), all_pairs(3))[name]


def test_contract(check_contract):
    sources = {"a": patterns(0, "abcdefg"), "b": patterns(1, "efghij")}
    source = CombinedTeacher(sources, {"IT": {"a/IT": 1.0, "b/IT": 2.0}, "EVC": {"b/EVC": 3.0}})
    assert source.names == ("a/IT", "a/EVC", "b/IT", "b/EVC", "IT", "EVC")
    check_contract(source, batch("abcdefghijkl"))


def test_names_of_a_sequence_stay():
    source = CombinedTeacher([patterns(0, "abc", names=["IT"]), patterns(1, "abc", names=["V1"])])
    assert source.names == ("IT", "V1")
    alone = targets(patterns(1, "abc", names=["V1"]), "V1")
    assert torch.equal(targets(source, "V1").values, alone.values)


def test_weighted_mean_over_what_was_measured():
    source = CombinedTeacher(
        {"a": Given([1.0, 2.0, NAN]), "b": Given([4.0, NAN, NAN])}, {"mean": {"a/IT": 1.0, "b/IT": 2.0}}
    )
    values, weights = targets(source, "mean")
    torch.testing.assert_close(values, torch.tensor([3.0, 2.0, NAN]), equal_nan=True)
    assert weights is None


def test_equal_weights_are_the_nan_aware_mean():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(4, 3)).astype(np.float32)
    values[0, 1] = values[2, 1] = np.nan
    sources = {str(k): Given(row.tolist()) for k, row in enumerate(values)}
    source = CombinedTeacher(sources, {"mean": {f"{k}/IT": 0.5 for k in range(4)}})
    np.testing.assert_allclose(targets(source, "mean").values, np.nanmean(values, 0), rtol=1e-6)


def test_precisions_of_members_give_the_inverse_variance_mean():
    sources = {"a": Given([1.0, 2.0, NAN], [3.0, 1.0, 0.0]), "b": Given([5.0, NAN, NAN], [1.0, 0.0, 0.0])}
    values, weights = targets(CombinedTeacher(sources, {"mean": {"a/IT": 1.0, "b/IT": 1.0}}), "mean")
    torch.testing.assert_close(values, torch.tensor([2.0, 2.0, NAN]), equal_nan=True)
    torch.testing.assert_close(weights, torch.tensor([4.0, 1.0, 0.0]))


def test_the_combined_weight_is_the_inverse_variance_of_the_mean():
    """Against simulated members whose variances are the inverse of their weights."""
    generator = np.random.default_rng(0)
    precision, weight = np.array([4.0, 1.0, 0.25]), np.array([1.0, 3.0, 2.0])
    drawn = generator.normal(size=(100_000, 3)) / np.sqrt(precision)
    mean = drawn @ (weight * precision) / (weight * precision).sum()
    sources = {str(k): Given([1.0, 1.0, 1.0], [float(precision[k])] * 3) for k in range(3)}
    combined = CombinedTeacher(sources, {"mean": {f"{k}/IT": float(weight[k]) for k in range(3)}})
    np.testing.assert_allclose(1 / targets(combined, "mean").weights, [mean.var()] * 3, rtol=0.02)


def test_a_pair_of_weight_zero_takes_no_part():
    sources = {"a": Given([1.0, 1.0, 1.0], [0.0, 1.0, 0.0]), "b": Given([5.0, 5.0, 5.0], [1.0, 1.0, 0.0])}
    values, weights = targets(CombinedTeacher(sources, {"mean": {"a/IT": 1.0, "b/IT": 1.0}}), "mean")
    torch.testing.assert_close(values, torch.tensor([5.0, 3.0, NAN]), equal_nan=True)
    torch.testing.assert_close(weights, torch.tensor([1.0, 2.0, 0.0]))


def test_scales_put_members_in_one_unit():
    sources = {"a": Given([1.0, 2.0, NAN]), "b": Given([100.0, 300.0, 500.0], dissimilarity="correlation")}
    source = CombinedTeacher(sources, {"mean": {"a/IT": 1.0, "b/IT": 1.0}}, scales={"b/IT": 100.0})
    torch.testing.assert_close(targets(source, "mean").values, torch.tensor([1.0, 2.5, 5.0]))
    torch.testing.assert_close(targets(source, "b/IT").values, torch.tensor([100.0, 300.0, 500.0]))
    assert source.dissimilarity == "rescaled"


def test_measure_and_unbiasedness_are_the_sources():
    one, other = (Given([1.0, 2.0, 3.0], dissimilarity="crossnobis", unbiased=unbiased) for unbiased in (True, False))
    assert CombinedTeacher({"a": one, "b": one}).unbiased
    assert not CombinedTeacher({"a": one, "b": other}).unbiased
    assert CombinedTeacher({"a": one, "b": other}).dissimilarity == "crossnobis"


@pytest.mark.parametrize(
    ("names", "scales", "message"),
    [
        ({"a/IT": {"a/IT": 1.0}}, None, "the name 'a/IT' occurs twice"),
        ({"IT": {}}, None, "combined name 'IT' has no members; it may have: a/IT, b/IT"),
        ({"IT": {"c/IT": 1.0}}, None, "combined name 'IT': no source has 'c/IT'; they have: a/IT, b/IT"),
        ({"IT": {"a/IT": 0.0}}, None, "combined name 'IT': expected a number above 0 for 'a/IT', got 0.0"),
        ({"IT": {"a/IT": NAN}}, None, "expected a number above 0 for 'a/IT', got nan"),
        (None, {"c/IT": 1.0}, "scales: no source has 'c/IT'"),
        (None, {"a/IT": -1.0}, "scales: expected a number above 0 for 'a/IT', got -1.0"),
    ],
)
def test_wrong_names_and_numbers_are_refused(names, scales, message):
    sources = {"a": Given([1.0, 2.0, 3.0]), "b": Given([1.0, 2.0, 3.0])}
    with pytest.raises(ValueError, match=message):
        CombinedTeacher(sources, names, scales=scales)


def test_sources_that_do_not_go_together_are_refused():
    one = Given([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="no sources to combine"):
        CombinedTeacher({})
    with pytest.raises(ValueError, match="the name 'IT' occurs twice; give the sources as a mapping"):
        CombinedTeacher([one, one])
    with pytest.raises(ValueError, match=r"in different measures: correlation, euclidean; .* or give scales"):
        CombinedTeacher({"a": one, "b": Given([1.0, 2.0, 3.0], dissimilarity="correlation")})
