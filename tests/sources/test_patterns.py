import numpy as np
import pytest
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm, calc_rdm_unbalanced

from brainrdl.dissimilarity import precision_factor
from brainrdl.pairs import Pairs, all_pairs
from brainrdl.sources.patterns import MeasuredPatterns, PatternTable
from brainrdl.stimuli import Stimuli

N_VOXELS = 9
MEASURES = ["euclidean", "correlation", "mahalanobis", "crossnobis"]


def batch(ids, dtype=torch.float32):
    return Stimuli(torch.zeros(len(ids), 1, 1, 1, dtype=dtype), tuple(ids))


def draw_precision(seed=0):
    noise = np.random.default_rng(seed).normal(size=(40, N_VOXELS))
    return np.linalg.inv(noise.T @ noise / 40)


def draw_table(n_stimuli=6, n_folds=4, per_fold=1, keep=1.0, seed=0, **fields):
    """Rows in random order; `keep` of them at random, none = every stimulus in every fold."""
    generator = np.random.default_rng(seed)
    cells = [(s, f) for s in range(n_stimuli) for f in range(n_folds) for _ in range(per_fold)]
    cells = [cells[k] for k in generator.permutation(len(cells))[: round(keep * len(cells))]]
    means = generator.normal(size=(n_stimuli, N_VOXELS))
    patterns = np.stack([means[s] for s, _ in cells]) + generator.normal(size=(len(cells), N_VOXELS))
    stimulus, fold = [f"s{s}" for s, _ in cells], [f"run-{f}" for _, f in cells]
    return PatternTable(patterns, stimulus, fold, **fields)


def with_precision(table, measure):
    return table._replace(precision=draw_precision() if measure in ("mahalanobis", "crossnobis") else None)


def values(source, ids, name="IT"):
    return source.targets(batch(ids), all_pairs(len(ids)))[name].values.numpy()


def dataset(table):
    return Dataset(
        np.asarray(table.patterns, float) / table.scale, obs_descriptors={"s": table.stimulus, "f": table.fold}
    )


def by_loop(table, a, b):
    """crossnobis from its definition, a row pair at a time."""
    whitened = table.patterns if table.precision is None else table.patterns @ np.linalg.cholesky(table.precision)

    def similarity(one, other):
        rows = range(len(whitened))
        found = [
            whitened[p] @ whitened[q]
            for p in rows
            for q in rows
            if table.stimulus[p] == one and table.stimulus[q] == other and table.fold[p] != table.fold[q]
        ]
        return np.mean(found) if found else np.nan

    return (similarity(a, a) + similarity(b, b) - 2 * similarity(a, b)) / N_VOXELS


@pytest.mark.parametrize("measure", MEASURES)
def test_contract(measure, check_contract):
    tables = {
        "a/IT": with_precision(draw_table(9, seed=1, per_fold=2, keep=0.6), measure),
        "b/IT": with_precision(draw_table(7, seed=2), measure),
    }
    check_contract(MeasuredPatterns(tables, measure, weights="repetitions"), batch([f"s{k}" for k in range(11)]))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("per_fold", [1, 3])
def test_as_rsatoolbox_on_balanced_data(measure, per_fold):
    table = with_precision(draw_table(per_fold=per_fold), measure)
    expected = calc_rdm(dataset(table), measure, "s", table.precision, "f")
    ours = values(MeasuredPatterns({"IT": table}, measure), expected.pattern_descriptors["s"])
    np.testing.assert_allclose(ours, expected.dissimilarities[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("precision", [None, draw_precision()])
@pytest.mark.parametrize("seed", range(5))
def test_crossnobis_of_unequal_repetitions_as_rsatoolbox(precision, seed):
    table = draw_table(n_stimuli=7, per_fold=2, keep=0.6, seed=seed, precision=precision)
    expected = calc_rdm_unbalanced(dataset(table), "crossnobis", "s", precision, "f")
    ours = values(MeasuredPatterns({"IT": table}, "crossnobis"), expected.pattern_descriptors["s"])
    np.testing.assert_allclose(ours, expected.dissimilarities[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("measure", ["euclidean", "correlation", "mahalanobis"])
def test_means_of_unequal_repetitions_as_rsatoolbox(measure):
    table = with_precision(draw_table(per_fold=2, keep=0.5), measure)
    expected = calc_rdm(dataset(table), measure, "s", table.precision)
    ours = values(MeasuredPatterns({"IT": table}, measure), expected.pattern_descriptors["s"])
    np.testing.assert_allclose(ours, expected.dissimilarities[0], rtol=1e-6, atol=1e-6)


def test_crossnobis_equals_its_definition():
    table = draw_table(n_stimuli=5, per_fold=2, keep=0.5, seed=3, precision=draw_precision())
    ids = [f"s{k}" for k in range(5)]
    ours = values(MeasuredPatterns({"IT": table}, "crossnobis"), ids)
    expected = [by_loop(table, ids[i], ids[j]) for i, j in zip(*all_pairs(5), strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_balanced_crossnobis_ignores_what_is_common_to_a_fold():
    table = draw_table()
    ids = sorted(set(table.stimulus))
    offset = {f"run-{k}": 1e4 * (k + 1) for k in range(4)}
    moved = table._replace(patterns=table.patterns + np.array([[offset[fold]] for fold in table.fold]))
    ours, expected = (values(MeasuredPatterns({"IT": t}, "crossnobis"), ids) for t in (moved, table))
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_crossnobis_without_noise_is_the_euclidean_distance():
    table = draw_table(n_stimuli=4, n_folds=3)
    means = dict(zip(table.stimulus, table.patterns, strict=True))
    exact = table._replace(patterns=np.stack([means[stimulus] for stimulus in table.stimulus]))
    ids = sorted(means)
    ours, expected = (values(MeasuredPatterns({"IT": exact}, m), ids) for m in ("crossnobis", "euclidean"))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("true", [0.0, 1.5])
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_crossnobis_is_unbiased_unless_folds_share_noise(true, shared):
    """1,000 simulations: pairs of a stimulus at 0 and one at distance `true`, no stimulus in two of them."""
    generator, n, n_folds = np.random.default_rng(0), 1000, 3
    precision = draw_precision()
    noise = np.linalg.cholesky(np.linalg.inv(precision))
    direction = noise @ np.ones(N_VOXELS)  # whitened: a squared distance of 1 a voxel
    means = np.where(np.arange(2 * n)[:, None] % 2, np.sqrt(true) * direction, 0)
    means = means + shared * generator.normal(size=means.shape) @ noise.T  # noise that is the same in all folds
    patterns = means[:, None] + generator.normal(size=(2 * n, n_folds, N_VOXELS)) @ noise.T
    ids = [str(k) for k in range(2 * n)]
    source = MeasuredPatterns(
        {"IT": PatternTable.from_repetitions(patterns, ids, range(n_folds), precision)}, "crossnobis"
    )
    disjoint = Pairs(torch.arange(0, 2 * n, 2), torch.arange(1, 2 * n, 2))
    found = source.targets(batch(ids), disjoint)["IT"].values.numpy()
    error = (found.mean() - true) / (found.std(ddof=1) / np.sqrt(n))
    assert (abs(error) < 4) == (shared == 0)
    assert (found < 0).any() or true or shared, "negative values pass"


def test_whitened_patterns_need_no_precision():
    table = draw_table(precision=draw_precision())
    factor = precision_factor(torch.from_numpy(table.precision)).numpy()
    whitened = table._replace(patterns=table.patterns @ factor, precision=None)
    ids = sorted(set(table.stimulus))
    ours, expected = (values(MeasuredPatterns({"IT": t}, "crossnobis"), ids) for t in (whitened, table))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_a_stimulus_in_one_fold_has_no_crossnobis():
    table = PatternTable(np.random.default_rng(0).normal(size=(6, 3)), list("aabbcc"), [1, 2, 1, 2, 1, 1])
    source = MeasuredPatterns({"IT": table}, "crossnobis")
    assert source.covers("abcd")["IT"].tolist() == [True, True, False, False]
    assert np.isnan(values(source, "abc")).tolist() == [False, True, True]
    assert MeasuredPatterns({"IT": table}).covers("abcd")["IT"].tolist() == [True, True, True, False]


def test_values_are_as_precise_as_the_images():
    source, pairs = MeasuredPatterns({"IT": draw_table()}, "crossnobis", weights="repetitions"), all_pairs(6)
    ids = [f"s{k}" for k in range(6)]
    double, single = (source.targets(batch(ids, dtype), pairs)["IT"] for dtype in (torch.float64, torch.float32))
    assert [part.dtype for part in (*double, *single)] == [torch.float64] * 2 + [torch.float32] * 2
    assert torch.equal(double.values.float(), single.values)


def test_only_crossnobis_is_unbiased():
    assert [MeasuredPatterns({"IT": with_precision(draw_table(), m)}, m).unbiased for m in MEASURES] == [
        False,
        False,
        False,
        True,
    ]


def test_a_constant_pattern_has_no_correlation():
    table = PatternTable(np.array([[3.0, 3.0, 3.0], [1.0, 2.0, 4.0], [2.0, 1.0, 0.0]]), ["a", "b", "c"])
    assert np.isnan(values(MeasuredPatterns({"IT": table}, "correlation"), "abc")).tolist() == [True, True, False]


def test_a_stimulus_drawn_twice_has_no_distance_to_itself():
    source = MeasuredPatterns({"IT": draw_table()})
    assert np.isnan(values(source, ["s0", "s1", "s0"])).tolist() == [False, True, False]


@pytest.mark.parametrize("measure", MEASURES)
def test_row_order_changes_nothing(measure):
    table = with_precision(draw_table(per_fold=2, keep=0.7), measure)
    order = np.random.default_rng(5).permutation(len(table.patterns))
    table = table._replace(patterns=table.patterns.astype(np.float32))
    shuffled = table._replace(
        patterns=table.patterns[order],
        stimulus=[table.stimulus[k] for k in order],
        fold=[table.fold[k] for k in order],
    )
    ids = [f"s{k}" for k in range(6)]
    ours, expected = (values(MeasuredPatterns({"IT": t}, measure), ids) for t in (shuffled, table))
    assert np.array_equal(ours, expected, equal_nan=True)


@pytest.mark.parametrize("measure", MEASURES)
def test_what_stands_in_unused_rows_does_not_matter(measure):
    table = with_precision(draw_table(), measure)
    stimulus = [None if k % 5 == 0 else s for k, s in enumerate(table.stimulus)]
    found = []
    for value in (0.0, 1e6, np.nan):
        patterns = table.patterns.copy()
        patterns[::5] = value
        source = MeasuredPatterns({"IT": table._replace(patterns=patterns, stimulus=stimulus)}, measure)
        found.append(values(source, [f"s{k}" for k in range(6)]))
    assert np.array_equal(found[0], found[1], equal_nan=True)
    assert np.array_equal(found[0], found[2], equal_nan=True)


@pytest.mark.parametrize("measure", ["euclidean", "crossnobis"])
def test_memory_mapped_integers(measure, tmp_path):
    table = draw_table(per_fold=2)
    stored = np.round(table.patterns * 300).astype(np.int16)
    np.save(tmp_path / "betas.npy", stored)
    mapped = table._replace(patterns=np.load(tmp_path / "betas.npy", mmap_mode="r"), scale=300)
    expected = table._replace(patterns=stored / 300)
    ids = [f"s{k}" for k in range(6)]
    ours, expected = (values(MeasuredPatterns({"IT": t}, measure), ids) for t in (mapped, expected))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


class Recorded(np.ndarray):
    """An array that remembers which rows were read."""

    def __getitem__(self, rows):
        if isinstance(rows, np.ndarray):
            READ.append(rows.tolist())
        return np.asarray(super().__getitem__(rows))


READ: list[list[int]] = []


def test_only_rows_of_asked_pairs_are_read_once_and_in_order():
    table = draw_table(n_stimuli=20, per_fold=2)
    source = MeasuredPatterns({"IT": table._replace(patterns=table.patterns.view(Recorded))})
    READ.clear()
    source.targets(batch(["s9", "s5", "s3", "x"]), Pairs(torch.tensor([0, 0, 1]), torch.tensor([1, 3, 3])))
    rows = [k for k, stimulus in enumerate(table.stimulus) if stimulus in ("s9", "s5")]
    assert [rows] == READ


@pytest.mark.parametrize("measure", ["euclidean", "correlation"])
def test_one_row_a_stimulus_and_tables_of_the_same_stimuli(measure):
    """The short ways: each as a table of its own with every stimulus twice, in another order."""
    generator = np.random.default_rng(0)
    ids = [f"s{k}" for k in (4, 1, 3, 0, 2)]
    patterns = {name: generator.normal(size=(5, 7)) for name in ("V1", "IT", "PPA")}
    tables = {name: PatternTable(values, ids) for name, values in patterns.items()}
    tables["PPA"] = tables["PPA"]._replace(stimulus=["x", *ids[1:]])
    together = MeasuredPatterns(tables, measure)
    asked = batch(["s0", "unknown", "s3", "s4", "s2", "s0"])
    found = together.targets(asked, all_pairs(6))
    for name, table in tables.items():
        twice = np.concatenate([table.patterns, table.patterns[::-1]])
        alone = PatternTable(twice, [*table.stimulus, *reversed(table.stimulus)])
        expected = MeasuredPatterns({name: alone}, measure).targets(asked, all_pairs(6))
        torch.testing.assert_close(found[name].values, expected[name].values, equal_nan=True)
    assert found["V1"].values.isfinite().sum() == 4 * 3 / 2 + 3  # s0 twice, and never with itself
    assert found["PPA"].values.isfinite().sum() == 3 * 2 / 2 + 2


def test_repetition_weights_are_harmonic_with_mean_one():
    table = PatternTable(np.random.default_rng(0).normal(size=(10, 4)), list("aaabbbbccd"))
    n = {"a": 3, "b": 4, "c": 2, "d": 1}
    target = MeasuredPatterns({"IT": table}, weights="repetitions").targets(batch("abcde"), all_pairs(5))["IT"]
    harmonic = np.array(
        [0 if "e" in (a, b) else n[a] * n[b] / (n[a] + n[b]) for k, a in enumerate("abcde") for b in "abcde"[k + 1 :]]
    )
    np.testing.assert_allclose(target.weights, harmonic / harmonic[harmonic > 0].mean(), rtol=1e-6)
    assert torch.equal(target.weights == 0, target.values.isnan())
    assert MeasuredPatterns({"IT": table}).targets(batch("ab"), all_pairs(2))["IT"].weights is None


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("fold", [["r1", "r2", "r3"], None])
def test_table_of_repetitions(fold, mapped, tmp_path):
    responses = np.random.default_rng(0).normal(size=(4, 3, 5))
    responses[0, 2] = responses[3, 0] = np.nan
    if mapped:
        np.save(tmp_path / "responses.npy", responses)
        responses = np.load(tmp_path / "responses.npy", mmap_mode="r")
    table = PatternTable.from_repetitions(responses, list("abcd"), fold)
    assert isinstance(table.patterns, np.memmap) == mapped
    assert table.stimulus == ["a", "a", None, "b", "b", "b", "c", "c", "c", None, "d", "d"]
    assert table.fold == (None if fold is None else fold * 4)
    means = np.nanmean(responses, axis=1)
    i, j = all_pairs(4)
    expected = np.square(means[i] - means[j]).mean(1)
    np.testing.assert_allclose(values(MeasuredPatterns({"IT": table}), "abcd"), expected, rtol=1e-6)


def test_table_of_repetitions_with_a_fold_for_each():
    fold = np.array([["r1", "r2"], ["r3", "r1"]])
    table = PatternTable.from_repetitions(np.ones((2, 2, 3)), ["a", "b"], fold)
    assert table.fold == ["r1", "r2", "r3", "r1"]


def test_malformed_repetitions_are_refused():
    with pytest.raises(ValueError, match=r"n_stimuli, n_repetitions, n_voxels\) for 3 stimuli, got \(2, 2, 3\)"):
        PatternTable.from_repetitions(np.ones((2, 2, 3)), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"expected folds of shape \(2, 2\) or \(2,\), got \(3,\)"):
        PatternTable.from_repetitions(np.ones((2, 2, 3)), ["a", "b"], ["r1", "r2", "r3"])


@pytest.mark.parametrize(
    ("changes", "measure", "message"),
    [
        ({"patterns": np.ones(24)}, "euclidean", r"IT: expected patterns of real numbers.*shape \(24,\)"),
        ({"patterns": np.ones((24, 0))}, "euclidean", "IT: expected patterns of real numbers"),
        ({"patterns": np.ones((24, N_VOXELS), complex)}, "euclidean", "real numbers.*got complex128"),
        ({"stimulus": ["a"]}, "euclidean", "IT: expected one stimulus a row, got 1 for 24 rows"),
        ({"fold": ["a"]}, "euclidean", "IT: expected one fold a row, got 1 for 24 rows"),
        ({"scale": 0}, "euclidean", "IT: expected a scale .* got 0"),
        ({"stimulus": [None] * 24}, "euclidean", "IT: no row has a stimulus"),
        ({"stimulus": list(range(24))}, "euclidean", "IT: expected stimulus ids as text, got 0"),
        ({}, "mahalanobis", "IT: dissimilarity 'mahalanobis' needs the table's precision"),
        ({"precision": np.eye(N_VOXELS)}, "correlation", "goes with 'mahalanobis' and 'crossnobis', not 'correlation'"),
        ({"precision": np.eye(3)}, "crossnobis", r"IT: precision has shape \(3, 3\), expected \(9, 9\)"),
        ({"precision": -np.eye(N_VOXELS)}, "crossnobis", "IT: precision is not positive definite"),
        ({"fold": None}, "crossnobis", "IT: crossnobis needs the fold of each row"),
        ({"fold": ["run-1"] * 24}, "crossnobis", "IT: crossnobis needs at least 2 folds, got only 'run-1'"),
        ({"fold": [None, *range(23)]}, "crossnobis", "IT: 1 rows have no fold"),
        ({"stimulus": [f"s{k}" for k in range(24)]}, "crossnobis", "IT: no stimulus was measured in two folds"),
        ({}, "chebyshev", "unknown dissimilarity 'chebyshev'; expected one of .*crossnobis"),
    ],
)
def test_malformed_tables_are_refused(changes, measure, message):
    with pytest.raises(ValueError, match=message):
        MeasuredPatterns({"IT": draw_table()._replace(**changes)}, measure)


def test_nothing_and_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="no patterns: give at least one name"):
        MeasuredPatterns({})
    with pytest.raises(ValueError, match="unknown weights 'voxels'; expected 'repetitions' or None"):
        MeasuredPatterns({"IT": draw_table()}, weights="voxels")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_without_value_are_refused(value, tmp_path):
    table = draw_table()
    table.patterns[3, 4] = table.patterns[7, 6] = value
    message = "IT: 2 of 9 voxels hold NaN or infinite values, the first is voxel 4; drop these voxels"
    with pytest.raises(ValueError, match=message):
        MeasuredPatterns({"IT": table})
    np.save(tmp_path / "betas.npy", table.patterns)
    mapped = table._replace(patterns=np.load(tmp_path / "betas.npy", mmap_mode="r"))
    source = MeasuredPatterns({"IT": mapped})  # a large file is not read to open it
    with pytest.raises(ValueError, match=message):
        values(source, [f"s{k}" for k in range(6)])
