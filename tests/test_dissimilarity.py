"""Dissimilarities: against rsatoolbox and scipy, their laws, gradients, precision and memory."""

import numpy as np
import pytest
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm
from scipy.spatial.distance import pdist
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from brainrdl import dissimilarity, pair_distances
from brainrdl.dissimilarity import (
    DISSIMILARITIES,
    PrecisionFactors,
    defined_dissimilarities,
    inner_products,
    pair_dissimilarities,
    precision_factor,
    transform_patterns,
)
from brainrdl.pair_distances import choose_way
from brainrdl.pairs import Pairs, all_pairs, sample_pairs

NAMES = tuple(DISSIMILARITIES)
# (n_stimuli, n_pairs) for every way that a dissimilarity can be computed in.
PROBLEMS = {
    "as written": (12, None),
    "differences kept": (12, None),
    "all products": (12, None),
    "all products in strips": (13, 70),
    "products of pairs": (40, 60),
    "differences": (40, 60),
    "few of many": (200, 7),
}
WAYS = {
    "all products": pair_distances.ALL_PRODUCTS,
    "all products in strips": pair_distances.ALL_PRODUCTS,
    "products of pairs": pair_distances.PRODUCTS_OF_PAIRS,
    "differences": pair_distances.DIFFERENCES,
}


@pytest.fixture
def take(monkeypatch):
    """`take(problem)`: dissimilarities are computed in the way of the problem from here on, a few columns at a time."""

    def set_way(problem):
        if problem == "differences kept":
            monkeypatch.setattr(pair_distances, "_TINY", -1)
        if problem not in WAYS:
            return
        for module in (dissimilarity, pair_distances):
            monkeypatch.setattr(module, "SMALL", -1)
        monkeypatch.setattr(pair_distances, "choose_way", lambda rows, n_pairs: WAYS[problem])
        monkeypatch.setattr(pair_distances, "_BLOCK_BYTES", 0)
        monkeypatch.setattr(pair_distances, "_NARROWEST", 2)
        monkeypatch.setattr(dissimilarity, "_ROWS_BYTES", 200)
        if problem == "all products in strips":
            monkeypatch.setattr(pair_distances, "_TRIANGLE_FROM", 2)

    return set_way


@pytest.fixture(autouse=True)
def in_the_way_of_the_problem(request, take):
    """Tests over `problem` are run in its way."""
    take(getattr(request.node, "callspec", None) and request.node.callspec.params.get("problem"))


def draw_patterns(n_stimuli, n_units, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(n_units, n_units, generator=generator, dtype=torch.float64)
    patterns = torch.randn(n_stimuli, n_units, generator=generator, dtype=torch.float64) @ mixing + 0.3
    return patterns.to(dtype)


def draw_precision(name, n_units, seed=1):
    if name != "mahalanobis":
        return None
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n_units, n_units + 3, generator=generator, dtype=torch.float64)
    return root @ root.T / n_units + 0.1 * torch.eye(n_units, dtype=torch.float64)


def draw_pairs(problem, seed=0):
    n_stimuli, n_pairs = PROBLEMS[problem]
    return n_stimuli, sample_pairs(n_stimuli, n_pairs, np.random.default_rng(seed))


def reference(name, patterns, precision=None):
    """All pairs, condensed, by software nobody here wrote."""
    measurements = patterns.numpy()
    if name == "cosine":
        return torch.from_numpy(pdist(measurements, "cosine"))
    if name == "sqeuclidean":
        return torch.from_numpy(pdist(measurements, "sqeuclidean"))
    noise = None if precision is None else precision.numpy()
    rdms = calc_rdm(Dataset(measurements), method=name, noise=noise)
    return torch.from_numpy(rdms.dissimilarities[0])


def condensed(pairs, n_stimuli):
    """Where each pair stands in a condensed vector."""
    position = torch.full((n_stimuli, n_stimuli), -1)
    position[np.triu_indices(n_stimuli, 1)] = torch.arange(n_stimuli * (n_stimuli - 1) // 2)
    return position[pairs.i, pairs.j]


class Sizes(TorchDispatchMode):
    """Notes every operation and how many values its results hold."""

    def __init__(self):
        super().__init__()
        self.largest, self.operations = 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        self.operations.append(str(operation))
        return result


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_equal_to_rsatoolbox_and_scipy(name, problem):
    n_stimuli, pairs = draw_pairs(problem)
    patterns, precision = draw_patterns(n_stimuli, 9), draw_precision(name, 9)
    expected = reference(name, patterns, precision)[condensed(pairs, n_stimuli)]
    values = pair_dissimilarities(patterns, pairs, name, precision)
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=0)


def test_all_pairs_come_in_rsatoolbox_order():
    patterns = draw_patterns(8, 5)
    values = pair_dissimilarities(patterns, all_pairs(8))
    torch.testing.assert_close(values, reference("euclidean", patterns), rtol=1e-6, atol=0)


def test_closed_forms():
    patterns = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    pairs = Pairs(torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3]))
    expected = {"sqeuclidean": [5, 4, 4], "euclidean": [5 / 3, 4 / 3, 4 / 3], "cosine": [1, 0, 2]}
    expected["correlation"] = [1.5, 0, 2]  # centred, patterns 0 and 1 meet at 120 degrees
    for name, values in expected.items():
        torch.testing.assert_close(pair_dissimilarities(patterns, pairs, name), torch.tensor(values).float())


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_symmetric_and_zero_between_equal_patterns(name, problem):
    n_stimuli, pairs = draw_pairs(problem)
    patterns, precision = draw_patterns(n_stimuli, 6), draw_precision(name, 6)
    patterns[pairs.j[0]] = patterns[pairs.i[0]]
    values = pair_dissimilarities(patterns, pairs, name, precision)
    swapped = pair_dissimilarities(patterns, Pairs(pairs.j, pairs.i), name, precision)
    torch.testing.assert_close(values, swapped)
    assert abs(values[0]) < 1e-12 * values.max()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("euclidean", lambda x, q: x + 7),
        ("euclidean", lambda x, q: x @ q),
        ("sqeuclidean", lambda x, q: (x - 2) @ q),
        ("correlation", lambda x, q: x * torch.arange(1.0, len(x) + 1)[:, None] - torch.arange(len(x))[:, None]),
        ("correlation", lambda x, q: x[:, torch.randperm(x.shape[1], generator=torch.manual_seed(0))]),
        ("cosine", lambda x, q: x * torch.arange(1.0, len(x) + 1)[:, None]),
        ("cosine", lambda x, q: x @ q),
    ],
)
def test_invariances(name, change, problem):
    n_stimuli, pairs = draw_pairs(problem)
    patterns = draw_patterns(n_stimuli, 6)
    rotation = torch.linalg.qr(draw_patterns(6, 6, seed=3)).Q
    values = pair_dissimilarities(patterns, pairs, name)
    changed = pair_dissimilarities(change(patterns, rotation), pairs, name)
    torch.testing.assert_close(changed, values, rtol=1e-8, atol=1e-12)


def test_mahalanobis_with_identity_is_euclidean_and_whitening_undoes_mixing():
    pairs = all_pairs(10)
    patterns, mixing = draw_patterns(10, 5), draw_patterns(5, 5, seed=4)
    euclidean = pair_dissimilarities(patterns, pairs)
    torch.testing.assert_close(pair_dissimilarities(patterns, pairs, "mahalanobis", torch.eye(5)), euclidean)
    precision = torch.linalg.inv(mixing.T @ mixing)
    precision = (precision + precision.T) / 2
    torch.testing.assert_close(pair_dissimilarities(patterns @ mixing, pairs, "mahalanobis", precision), euclidean)


def test_precision_factor_gives_the_precision_back():
    precision = draw_precision("mahalanobis", 6)
    factor = precision_factor(precision.float())
    assert factor.dtype == torch.float64
    torch.testing.assert_close(factor @ factor.T, precision, rtol=1e-5, atol=1e-6)
    assert (factor.triu(1) == 0).all()


@pytest.mark.parametrize("shape", [(12, 3, 2, 2), (12, 4, 3), (12, 12)])
def test_everything_after_the_first_dimension_counts_as_units(shape):
    patterns = draw_patterns(12, 12)
    values = pair_dissimilarities(patterns.reshape(shape), all_pairs(12), "correlation")
    torch.testing.assert_close(values, reference("correlation", patterns))


def test_one_unit_may_come_without_its_dimension():
    patterns = torch.tensor([1.0, 3.0, 7.0])
    torch.testing.assert_close(pair_dissimilarities(patterns, all_pairs(3)), torch.tensor([4.0, 36.0, 16.0]))


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name, problem):
    n_stimuli = 30 if problem == "few of many" else 6
    pairs = sample_pairs(n_stimuli, 2 if problem == "few of many" else 13, np.random.default_rng(1))
    patterns, precision = draw_patterns(n_stimuli, 4).requires_grad_(), draw_precision(name, 4)
    assert torch.autograd.gradcheck(lambda x: pair_dissimilarities(x, pairs, name, precision), patterns)


def written_out(name, patterns, pairs, precision=None):
    """The formula of each, as one would write it, and autograd."""
    if name == "mahalanobis":
        difference = patterns[pairs.i] - patterns[pairs.j]
        return ((difference @ precision.to(patterns)) * difference).mean(1)
    if name in ("euclidean", "sqeuclidean"):
        squares = (patterns[pairs.i] - patterns[pairs.j]).square()
        return squares.mean(1) if name == "euclidean" else squares.sum(1)
    centred = patterns - patterns.mean(1, keepdim=True) if name == "correlation" else patterns
    unit = centred / centred.norm(dim=1, keepdim=True)
    return 1 - (unit[pairs.i] * unit[pairs.j]).sum(1)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("order", ["sorted", "shuffled and repeated"])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_every_way_gives_the_values_and_gradients_of_the_formula(name, problem, order, scaled):
    n_stimuli, pairs = draw_pairs(problem)
    if order != "sorted":
        shuffled = torch.randperm(len(pairs.i), generator=torch.manual_seed(0))[: -(-len(pairs.i) // 2)]
        pairs = Pairs(
            torch.cat([pairs.i[shuffled], pairs.j[shuffled]]), torch.cat([pairs.j[shuffled], pairs.i[shuffled]])
        )
    precision = draw_precision(name, 11)
    ours, plain = draw_patterns(n_stimuli, 11).requires_grad_(), draw_patterns(n_stimuli, 11).requires_grad_()
    row_scale = torch.linspace(0, 3, n_stimuli, dtype=torch.float64) if scaled else None
    factor = torch.linspace(-1, 2, len(pairs.i), dtype=torch.float64)
    root = None if precision is None else precision_factor(precision)
    transformed = transform_patterns(ours, name, root)
    values = defined_dissimilarities(transformed, pairs, row_scale)
    expected = written_out(name, plain, pairs, precision)
    torch.testing.assert_close(values, expected)
    (values * factor).sum().backward()
    (expected * factor).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad if row_scale is None else plain.grad * row_scale[:, None])


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_gradient_between_equal_patterns_is_finite(name, problem):
    n_stimuli, pairs = draw_pairs(problem)
    patterns = draw_patterns(n_stimuli, 6)
    patterns[:] = patterns[0]
    patterns.requires_grad_()
    pair_dissimilarities(patterns, pairs, name, draw_precision(name, 6)).sum().backward()
    assert patterns.grad.abs().max() < 1e-6


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_large_mean_and_small_spread_in_float32(name, problem):
    n_stimuli, pairs = draw_pairs(problem)
    generator = torch.Generator().manual_seed(0)
    patterns = 1e3 + 1e-3 * torch.randn(n_stimuli, 300, generator=generator)
    precision = torch.eye(300, dtype=torch.float64) * 4 if name == "mahalanobis" else None
    values = pair_dissimilarities(patterns, pairs, name, precision)
    assert values.dtype == torch.float32
    assert (values >= 0).all()
    exact = pair_dissimilarities(patterns.double(), pairs, name, precision)
    # 1 - cos is about 1e-12 here, and float32 unit vectors are rounded at 6e-8.
    tolerance = {"atol": 1e-13, "rtol": 0.05} if name == "cosine" else {"atol": 0, "rtol": 1e-4}
    torch.testing.assert_close(values.double(), exact, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_patterns_give_float32(name, problem, dtype):
    n_stimuli, pairs = draw_pairs(problem)
    patterns, precision = draw_patterns(n_stimuli, 6, dtype), draw_precision(name, 6)
    patterns.requires_grad_()
    values = pair_dissimilarities(patterns, pairs, name, precision)
    assert values.dtype == torch.float32
    assert torch.equal(values, pair_dissimilarities(patterns.float(), pairs, name, precision))
    values.mean().backward()
    assert patterns.grad.dtype == dtype
    assert patterns.grad.isfinite().all()
    assert patterns.grad.abs().max() > 0


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name, problem):
    n_stimuli, pairs = draw_pairs(problem)
    precision = draw_precision(name, 6)
    outside = draw_patterns(n_stimuli, 6, torch.float32).requires_grad_()
    inside = outside.detach().clone().requires_grad_()
    expected = pair_dissimilarities(outside, pairs, name, precision)
    expected.sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = pair_dissimilarities(inside, pairs, name, precision)
        values.sum().backward()
    assert values.dtype == torch.float32
    assert torch.equal(values, expected)
    assert torch.equal(inside.grad, outside.grad)


def test_inner_products():
    exact = draw_patterns(7, 5, torch.float64).requires_grad_()
    assert torch.equal(inner_products(exact), exact @ exact.T)
    assert torch.autograd.gradcheck(inner_products, exact)
    patterns = exact.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        products = inner_products(patterns)
        products.square().sum().backward()
    assert products.dtype == torch.float32
    assert torch.equal(products, patterns @ patterns.T)
    torch.testing.assert_close(patterns.grad, 4 * products.detach() @ patterns.detach())


def matmul_settings():
    """What float32 matrix products may be computed in, as this version of torch says it."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
    return (torch.get_float32_matmul_precision(),)


def set_medium():
    torch.set_float32_matmul_precision("medium")


def set_one_backend():
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


def set_all_backends():
    torch.backends.fp32_precision = "tf32"


def reset_precision():
    torch.set_float32_matmul_precision("highest")
    if hasattr(torch.backends, "fp32_precision"):
        torch.backends.fp32_precision = "none"
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.parametrize("reduce", [set_medium, set_one_backend, set_all_backends])
@pytest.mark.parametrize("name", ["euclidean", "mahalanobis"])
def test_reduced_precision_products_are_not_used(name, reduce, take):
    take("all products")
    if reduce is not set_medium and not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this version of torch has one setting for all backends")
    # One block of columns.
    patterns, pairs, precision = draw_patterns(40, 1, torch.float32), all_pairs(40), draw_precision(name, 1)
    exact, patterns = patterns.clone().requires_grad_(), patterns.requires_grad_()
    expected = pair_dissimilarities(exact, pairs, name, precision)
    expected.sum().backward()

    class Products(TorchDispatchMode):
        settings = ()

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if "mm" in str(operation):
                self.settings += (matmul_settings(),)
            return operation(*args, **(kwargs or {}))

    try:
        reduce()
        outside = matmul_settings()
        with Products() as products:
            values = pair_dissimilarities(patterns, pairs, name, precision)
            values.sum().backward()
        assert matmul_settings() == outside
    finally:
        reset_precision()
    # Gram matrix and its backward; the whitening and its backward.
    assert len(products.settings) == (4 if name == "mahalanobis" else 2)
    assert {setting for settings in products.settings for setting in settings} <= {"ieee", "none", "highest"}
    assert torch.equal(values, expected)
    assert torch.equal(patterns.grad, exact.grad)


def test_an_inherited_matmul_setting_stays_inherited():
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this version of torch has one setting for all backends")
    try:
        set_all_backends()
        pair_dissimilarities(draw_patterns(12, 6, torch.float32), all_pairs(12))
        torch.backends.fp32_precision = "ieee"
        assert matmul_settings() == ("ieee", "ieee")
    finally:
        reset_precision()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(("name", "value"), [("correlation", 0.1), ("correlation", 0.0), ("cosine", 0.0)])
def test_pattern_without_a_dissimilarity_is_nan_and_has_no_gradient(name, value, problem):
    n_stimuli, pairs = draw_pairs(problem)
    patterns = draw_patterns(n_stimuli, 33, torch.float32)
    row = int(pairs.i[2])
    patterns[row] = value
    touched = (pairs.i == row) | (pairs.j == row)
    patterns.requires_grad_()
    values = pair_dissimilarities(patterns, pairs, name)
    assert torch.equal(values.isnan(), touched)
    values[~touched].sum().backward()
    assert (patterns.grad[row] == 0).all()
    without = patterns.detach().clone().requires_grad_()
    others = Pairs(pairs.i[~touched], pairs.j[~touched])
    pair_dissimilarities(without, others, name).sum().backward()
    torch.testing.assert_close(patterns.grad, without.grad)
    assert patterns.grad.abs().max() > 0


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e25])
@pytest.mark.parametrize("name", NAMES)
def test_a_pattern_that_is_not_finite_or_whose_length_is_not_shows(name, value, problem):
    n_stimuli, pairs = draw_pairs(problem)
    patterns = draw_patterns(n_stimuli, 33, torch.float32)
    patterns[pairs.i[2], 4] = value
    assert not pair_dissimilarities(patterns, pairs, name, draw_precision(name, 33))[2].isfinite()


def test_constant_pattern_is_nan_in_rsatoolbox_too():
    patterns = draw_patterns(5, 6)
    patterns[1] = 2.0
    values = pair_dissimilarities(patterns, all_pairs(5), "correlation")
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = reference("correlation", patterns)
    torch.testing.assert_close(values, expected, equal_nan=True)


@pytest.mark.parametrize(("n_stimuli", "n_units", "n_pairs"), [(64, 1024, 2016), (512, 1024, 1000), (4, 200_000, 6)])
@pytest.mark.parametrize("name", NAMES[:4])
def test_no_tensor_of_pairs_times_units_is_built(name, n_stimuli, n_units, n_pairs):
    pairs = sample_pairs(n_stimuli, n_pairs, np.random.default_rng(0))
    patterns = torch.randn(n_stimuli, n_units, generator=torch.manual_seed(0)).requires_grad_()
    with Sizes() as seen:
        pair_dissimilarities(patterns, pairs, name).sum().backward()
    assert len(seen.operations) > 5
    assert seen.largest <= n_stimuli * n_units < n_pairs * n_units


def peak_bytes(run):
    """The most that torch's allocator held at once beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_pairs", [200, 2016])
@pytest.mark.parametrize("name", NAMES[:4])
def test_memory_is_that_of_the_gradient_and_a_block(name, n_pairs, dtype):
    n_stimuli, n_units = 64, 200_000
    pairs = sample_pairs(n_stimuli, n_pairs, np.random.default_rng(0))
    patterns = torch.randn(n_stimuli, n_units, generator=torch.manual_seed(0)).to(dtype).requires_grad_()
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    def run():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            pair_dissimilarities(patterns, pairs, name).sum().backward()

    run()  # what is made once, at the first call, is not the term's
    patterns.grad = None
    kept.clear()
    peak = peak_bytes(run)
    # The gradient, and three blocks of 4 MiB: of the patterns, and of the gradient the last and the next.
    assert patterns.nbytes < peak <= patterns.nbytes + (13 << 20)
    # Between forward and backward nothing is kept but the patterns that there are.
    others = [tensor for tensor in kept if tensor.data_ptr() != patterns.data_ptr()]
    assert len(others) < len(kept)
    assert sum(tensor.nbytes for tensor in others) < 1 << 18


def test_few_pairs_of_many_stimuli_need_no_gram_matrix():
    pairs = sample_pairs(1000, 20, np.random.default_rng(0))
    patterns = torch.randn(1000, 8, generator=torch.manual_seed(0)).requires_grad_()
    with Sizes() as seen:
        pair_dissimilarities(patterns, pairs).sum().backward()
    assert seen.largest <= 1000 * 8


@pytest.mark.parametrize("name", NAMES)
def test_no_pairs(name):
    patterns = draw_patterns(5, 4).requires_grad_()
    none = torch.zeros(0, dtype=torch.int64)
    values = pair_dissimilarities(patterns, Pairs(none, none), name, draw_precision(name, 4))
    assert values.shape == (0,)
    values.sum().backward()
    assert (patterns.grad == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dissimilarity": "manhattan"}, "unknown dissimilarity 'manhattan'; expected one of euclidean, sqeuclidean"),
        ({"dissimilarity": "mahalanobis"}, "'mahalanobis' needs a precision matrix"),
        ({"precision": torch.eye(3)}, "a precision matrix goes with 'mahalanobis', not with 'euclidean'"),
        ({"dissimilarity": "mahalanobis", "precision": torch.eye(4)}, r"shape \(4, 4\); patterns of 3 units need"),
        (
            {"dissimilarity": "mahalanobis", "precision": torch.ones(3, 4)},
            r"square precision matrix, got shape \(3, 4\)",
        ),
        (
            {"dissimilarity": "mahalanobis", "precision": torch.eye(3) + torch.ones(3, 3).triu(1)},
            "precision is not symmetric; give the inverse of a covariance matrix",
        ),
        (
            {"dissimilarity": "mahalanobis", "precision": torch.diag(torch.tensor([1.0, -1.0, 1.0]))},
            "precision is not positive definite; regularise the covariance",
        ),
        (
            {"dissimilarity": "mahalanobis", "precision": torch.full((3, 3), torch.nan)},
            "precision holds NaN or infinite values",
        ),
        (
            {"patterns": torch.ones(5, 3, dtype=torch.int64)},
            "expected patterns of a floating-point type, got torch.int64",
        ),
        ({"patterns": torch.ones(5, 3, 0)}, r"expected patterns of at least one unit, got shape \(5, 3, 0\)"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    arguments = {"patterns": torch.ones(5, 3), "pairs": all_pairs(5), **arguments}
    with pytest.raises(ValueError, match=message):
        pair_dissimilarities(**arguments)


def test_precision_factors_are_made_once_for_each_type():
    precision = draw_precision("mahalanobis", 6)
    factors = PrecisionFactors({"fc": precision})
    single = factors.get("fc", torch.zeros(2, 6, dtype=torch.bfloat16))
    assert single.dtype == torch.float32
    assert factors.get("fc", torch.zeros(3, 6)) is single
    assert torch.equal(factors.get("fc", torch.zeros(3, 6, dtype=torch.float64)), precision_factor(precision))
    assert factors.get("pool1", torch.zeros(3, 6)) is None


@pytest.mark.parametrize(
    ("n_stimuli", "n_pairs", "way"),
    [(100, 4950, "ALL_PRODUCTS"), (128, 406, "PRODUCTS_OF_PAIRS"), (4096, 50, "PRODUCTS_OF_PAIRS")],
)
def test_the_way_follows_from_the_share_of_pairs(n_stimuli, n_pairs, way):
    assert choose_way(torch.zeros(n_stimuli, 1), n_pairs) is getattr(pair_distances, way)
