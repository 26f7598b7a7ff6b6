"""Reduced patterns: what they are, how far distances are off, and that nothing large is kept for them."""

from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional

from brainrdl.dissimilarity import pair_dissimilarities
from brainrdl.layers import record_layers
from brainrdl.objectives import RDLObjective
from brainrdl.objectives.rdl import RDLSettings
from brainrdl.pairs import all_pairs
from brainrdl.reductions import Reducer, Reduction, check_reductions
from brainrdl.settings import validate
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Stimuli

WAYS = [Reduction(pool=2), Reduction(pool=3), Reduction(project=40), Reduction(units=40)]


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reduced(patterns, dissimilarity="euclidean", layer="conv", **way):
    return Reducer(layer, Reduction(**way), dissimilarity)(patterns)


# Pooling


@pytest.mark.parametrize(
    ("shape", "size"), [((3, 2, 8, 8), 2), ((3, 2, 7, 9), 3), ((3, 2, 7, 2), 4), ((3, 2, 5, 5), 1)]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_are_averaged_as_torch_does(shape, size, memory_format):
    maps = draw(*shape).to(memory_format=memory_format).requires_grad_()
    expected = functional.adaptive_avg_pool2d(maps, (min(size, shape[2]), min(size, shape[3])))
    pooled = reduced(maps, pool=size)
    torch.testing.assert_close(pooled, expected)
    weights = draw(*pooled.shape, seed=1)
    gradients = [torch.autograd.grad((weights * values).sum(), maps)[0] for values in (pooled, expected)]
    torch.testing.assert_close(*gradients)


def test_maps_that_are_small_already_stay_themselves():
    maps = draw(3, 2, 4, 4)
    assert reduced(maps, pool=4) is maps


def test_tokens_become_their_mean():
    tokens = draw(3, 5, 4)
    torch.testing.assert_close(reduced(tokens, pool=1), sum(tokens.unbind(1)) / 5)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((3, 5, 4), 2, r"layer 'conv' gives \(n_stimuli, tokens, width\) \(3, 5, 4\): tokens have no rows and columns"),
        ((3, 5), 2, r"layer 'conv' gives shape \(3, 5\): expected feature maps"),
        ((3, 5, 2, 2, 2), 1, r"layer 'conv' gives shape \(3, 5, 2, 2, 2\): expected feature maps"),
    ],
)
def test_what_cannot_be_pooled_is_refused(shape, size, message):
    with pytest.raises(ValueError, match=message):
        reduced(draw(*shape), pool=size)


# Projection


def dissimilarities(patterns, dissimilarity):
    """Between the first pattern and the others, in float64."""
    return pair_dissimilarities(patterns.double(), all_pairs(len(patterns)), dissimilarity)[: len(patterns) - 1]


def projected_dissimilarities(patterns, dissimilarity, size, n_draws):
    """(n_draws, n_stimuli - 1), one row a seed."""
    rows = []
    for seed in range(n_draws):
        reducer = Reducer("conv", Reduction(project=size, seed=seed), dissimilarity)
        rows.append(dissimilarities(reducer(patterns), reducer.measure))
    return torch.stack(rows)


# Patterns with a large mean, and others of which few units carry nearly all.
DRAWN = {
    "dense": 5 + 3 * draw(6, 700),
    "sparse": draw(6, 700, seed=1) * (draw(700, seed=2).abs() ** 6 + 0.01),
    "few units": functional.pad(draw(6, 3, seed=3), (0, 697)),
}


@pytest.mark.parametrize(
    ("dissimilarity", "kind"),
    [
        *((name, kind) for name in ("euclidean", "sqeuclidean") for kind in DRAWN),
        # Of angles the error is stated to first order, which that of three units is not.
        *((name, kind) for name in ("cosine", "correlation") for kind in ("dense", "sparse")),
    ],
)
def test_projected_distances_are_right_but_for_the_stated_error(dissimilarity, kind):
    patterns, size, n_draws = DRAWN[kind], 50, 400
    exact = dissimilarities(patterns, dissimilarity)
    found = projected_dissimilarities(patterns, dissimilarity, size, n_draws)
    if dissimilarity in ("euclidean", "sqeuclidean"):
        stated = sqrt(2 / size) * exact
        bias = 0.0
    else:
        stated = exact * (2 - exact) / sqrt(size)
        bias = stated / sqrt(size)  # a ratio of two numbers that are off
    # The mean of so many draws is off by 1/20 of one's error; the spread by 1/28 of it (and more with heavy tails).
    assert ((found.mean(0) - exact).abs() <= 4 * stated / sqrt(n_draws) + bias).all()
    assert (found.std(0) <= 1.2 * stated).all()
    if kind == "dense":
        assert (found.std(0) >= 0.8 * stated).all()


def test_with_as_many_directions_as_units_nothing_is_lost():
    patterns = draw(6, 40)
    for dissimilarity in ("euclidean", "sqeuclidean", "cosine", "correlation"):
        reducer = Reducer("conv", Reduction(project=40), dissimilarity)
        found = dissimilarities(reducer(patterns), reducer.measure)
        torch.testing.assert_close(found, dissimilarities(patterns, dissimilarity), rtol=1e-5, atol=1e-6)


def test_a_projection_is_a_matrix_of_signs():
    """One sign a unit, one direction a unit; the same whatever it is applied to."""
    matrix = reduced(torch.eye(90), "sqeuclidean", project=20)
    assert torch.equal(matrix.abs().sum(1), torch.ones(90))
    assert torch.equal((matrix != 0).sum(1), torch.ones(90, dtype=torch.int64))
    assert (matrix != 0).sum(0).max() == 5  # 90 / 20, rounded up: units are spread evenly
    patterns = draw(7, 90)
    torch.testing.assert_close(reduced(patterns, "sqeuclidean", project=20), patterns @ matrix)
    torch.testing.assert_close(reduced(patterns, "euclidean", project=20), patterns @ matrix * sqrt(20 / 90))
    centred = patterns - patterns.mean(1, keepdim=True)
    torch.testing.assert_close(reduced(patterns, "correlation", project=20), centred @ matrix, rtol=1e-4, atol=1e-5)


def test_blocks_of_stimuli_make_no_difference(monkeypatch):
    patterns = draw(7, 90)
    whole = reduced(patterns, project=20)
    monkeypatch.setattr("brainrdl.reductions._BLOCK", 200)
    assert torch.equal(reduced(patterns, project=20), whole)


@pytest.mark.parametrize("dissimilarity", ["euclidean", "correlation", "cosine"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_gradients(way, dissimilarity):
    reducer = Reducer("conv", way, dissimilarity)
    maps = draw(3, 4, 4, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(reducer, maps)


def test_a_constant_pattern_stays_without_a_correlation():
    patterns = draw(3, 300)
    patterns[1] = 0.1
    reducer = Reducer("conv", Reduction(project=20), "correlation")
    assert torch.equal(reducer(patterns)[1], torch.zeros(20))
    assert pair_dissimilarities(reducer(patterns), all_pairs(3), reducer.measure).isnan().tolist() == [
        True,
        False,
        True,
    ]


# Units


def test_units_are_drawn_once_without_replacement():
    numbers = torch.arange(300.0).expand(2, 300)
    chosen = reduced(numbers, units=50)
    assert chosen.shape == (2, 50)
    assert len(set(chosen[0].tolist())) == 50
    assert torch.equal(reduced(numbers, units=50), chosen)
    assert torch.equal(reduced(numbers, units=400), numbers)


@pytest.mark.parametrize("n_units", [100, 150])
def test_drawn_units_stand_for_all(n_units):
    patterns = 5 + 3 * draw(4, 400)
    for dissimilarity in ("euclidean", "sqeuclidean", "cosine", "correlation"):
        exact = dissimilarities(patterns, dissimilarity)
        found = [
            dissimilarities(reduced(patterns, dissimilarity, units=n_units, seed=seed), dissimilarity)
            for seed in range(300)
        ]
        torch.testing.assert_close(torch.stack(found).mean(0), exact, rtol=0.03, atol=0)


# What is drawn depends on the layer, the seed and the number of units, and on nothing else.


@pytest.mark.parametrize("way", [{"project": 20}, {"units": 20}], ids=str)
def test_what_a_draw_depends_on(way):
    patterns = draw(2, 300)
    first = reduced(patterns, **way)
    torch.manual_seed(3)
    assert torch.equal(reduced(patterns, **way), first)
    assert not torch.equal(reduced(patterns, layer="other", **way), first)
    assert not torch.equal(reduced(patterns, seed=1, **way), first)
    maps = patterns.view(2, 3, 10, 10)
    assert torch.equal(reduced(maps, **way), first)
    assert torch.equal(reduced(maps.to(memory_format=torch.channels_last), **way), first)


def test_draws_of_a_seed_stay_what_they_are():
    numbers = torch.arange(10.0)[None]
    assert reduced(numbers, units=4).tolist() == [[2.0, 3.0, 7.0, 8.0]]
    assert reduced(numbers, "sqeuclidean", project=3).tolist() == [[-3.0, 7.0, 7.0]]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_half_precision_becomes_float32(way):
    maps = draw(3, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Reducer("conv", way, "euclidean")(maps.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, Reducer("conv", way, "euclidean")(maps.bfloat16().float()), rtol=1e-5, atol=1e-6)


# Memory


def kept_bytes(run):
    """Of the distinct storages that autograd keeps for what `run` gives."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return sum(kept.values()), result


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_nothing_large_is_kept(way):
    maps = draw(50, 4, 8, 8).requires_grad_()
    reducer = Reducer("conv", way, "euclidean")
    reducer(maps)
    size, result = kept_bytes(lambda: reducer(maps))
    assert result.requires_grad
    assert size < 0.02 * maps.numel() * 4


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_network_may_change_what_was_reduced(way):
    """In place, before the backward: the reduction needs it no more."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 2))
    images, gradients = draw(5, 1, 8, 8), []
    for inplace in (True, False):
        network[1].inplace = inplace
        with record_layers(network, ["0"], {"0": Reducer("0", way, "euclidean")}) as patterns:
            for _ in range(2):
                output = network(images)
        expected = Reducer("0", way, "euclidean")(network[0](images))
        torch.testing.assert_close(patterns["0"], expected)
        network.zero_grad()
        (patterns["0"].square().sum() + output.sum()).backward()
        gradients.append(network[0].weight.grad)
    torch.testing.assert_close(*gradients)


# The objective


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.readout = nn.Conv2d(1, 6, 3), nn.Linear(6 * 36, 8), nn.Linear(8, 3)

    def forward(self, images):
        return self.readout(self.fc(self.conv(images).relu().flatten(1)).relu())


@pytest.fixture
def student():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def teacher():
    torch.manual_seed(1)
    return NetworkTeacher(Net(), ["conv", "fc"])


@pytest.fixture
def stimuli():
    return Stimuli(draw(12, 1, 8, 8).sigmoid(), tuple(str(k) for k in range(12)), torch.arange(12) % 3)


@pytest.mark.parametrize("dissimilarity", ["euclidean", "correlation"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_in_ones_own_loop(student, teacher, stimuli, way, dissimilarity):
    objective = RDLObjective(
        teacher,
        {"conv": "conv", "fc": "fc"},
        dissimilarity=dissimilarity,
        discrepancy="correlation",
        reductions={"conv": way},
    )
    with record_layers(student, objective.layers, objective.reductions) as patterns:
        student(stimuli.images)
        terms = objective(patterns, stimuli)
    with torch.no_grad():
        maps = student.conv(stimuli.images)
    reducer = Reducer("conv", way, dissimilarity)
    ours = pair_dissimilarities(reducer(maps), all_pairs(12), reducer.measure)
    theirs = teacher.targets(stimuli, all_pairs(12))["conv"].values
    by_hand = 1 - torch.corrcoef(torch.stack([ours, theirs]))[0, 1]
    torch.testing.assert_close(terms["rdl/conv"], by_hand, rtol=1e-4, atol=1e-5)
    sum(terms.values()).backward()
    assert student.conv.weight.grad.any()


@pytest.mark.parametrize(
    ("way", "told"), zip(WAYS, ["pool=2", "pool=3", "project=40", "units=40"], strict=True), ids=str
)
def test_patterns_that_were_recorded_whole_are_refused(student, teacher, stimuli, way, told):
    objective = RDLObjective(teacher, {"conv": "conv"}, reductions={"conv": way}, discrepancy="correlation")
    with record_layers(student, objective.layers) as patterns:
        student(stimuli.images)
        message = rf"layer 'conv' is to be reduced \({told}\) but .* shape \(12, 6, 6, 6\); record it by"
        with pytest.raises(ValueError, match=message):
            objective(patterns, stimuli)
        with pytest.raises(ValueError, match="record it by record_layers"):
            objective.prepare(patterns, stimuli)


def test_maps_that_are_small_on_one_side_alone_are_not_pooled_yet():
    reducer = Reducer("conv", Reduction(pool=3), "euclidean")
    reducer.check(torch.zeros(4, 2, 3, 3))
    for shape in ((4, 2, 9, 3), (4, 2, 3, 9)):
        with pytest.raises(ValueError, match="is to be reduced"):
            reducer.check(torch.zeros(shape))


def test_a_precision_is_of_the_reduced_units(student, teacher, stimuli):
    settings = {
        "dissimilarity": "mahalanobis",
        "discrepancy": "correlation",
        "reductions": {"conv": Reduction(units=9)},
    }
    objective = RDLObjective(teacher, {"conv": "conv"}, precision={"conv": torch.eye(9)}, **settings)
    whole = RDLObjective(teacher, {"conv": "conv"}, precision={"conv": torch.eye(216)}, **settings)
    with record_layers(student, objective.layers, objective.reductions) as patterns:
        student(stimuli.images)
    assert objective(patterns, stimuli)["rdl/conv"].isfinite()
    with pytest.raises(ValueError, match=r"precision has shape \(216, 216\); patterns of 9 units need \(9, 9\)"):
        whole(patterns, stimuli)


def test_a_layer_that_is_not_mapped_is_refused(teacher):
    with pytest.raises(ValueError, match="layer 'fc' is to be reduced but not mapped; mapped are: conv"):
        RDLObjective(teacher, {"conv": "conv"}, reductions={"fc": Reduction(units=3)})
    with pytest.raises(ValueError, match="layer 'fc' is to be reduced but not mapped"):
        check_reductions({"fc": Reduction(units=3)}, ["conv"])


# In a file


def test_a_files_reductions(teacher):
    raw = {
        "method": "rdl",
        "layers": {"conv": "conv", "fc": "fc"},
        "reduce": {"conv": {"pool": 2}},
        "discrepancy": "correlation",
    }
    settings = validate(RDLSettings, raw, "file.yaml")
    objective = settings.objective(teacher)
    assert objective.reductions["conv"].reduction == Reduction(pool=2)
    assert "fc" not in objective.reductions
    assert settings.model_dump()["reduce"]["conv"]["pool"] == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"conv": {}}, r"reduce.conv: a layer is reduced in one way: expected one of pool, project, units, got none"),
        ({"conv": {"pool": 2, "units": 3}}, r"expected one of pool, project, units, got \['pool', 'units'\]"),
        ({"conv": {"pool": 0}}, r"reduce.conv.pool: input should be greater than or equal to 1"),
        ({"conv": {"project": 0}}, r"reduce.conv.project: input should be greater than or equal to 1"),
        ({"conv": {"units": 0}}, r"reduce.conv.units: input should be greater than or equal to 1"),
        ({"conv": {"pool": 1, "seed": -1}}, r"reduce.conv.seed: input should be greater than or equal to 0"),
        ({"conv": {"pol": 2}}, r"reduce.conv.pol: unknown key; did you mean 'pool'\?"),
        ({"pool1": {"pool": 2}}, r"layer 'pool1' is to be reduced but not mapped; mapped are: conv"),
        ({"conv": {"pool": 2}}, r"file.yaml: discrepancy 'mse' compares units, and those of pooled .*layer 'conv'"),
    ],
)
def test_mistakes_in_a_file(given, message):
    with pytest.raises(ValueError, match=message):
        validate(RDLSettings, {"method": "rdl", "layers": {"conv": "conv"}, "reduce": given}, "file.yaml")


def test_pooled_patterns_are_not_compared_by_units(teacher):
    with pytest.raises(
        ValueError, match=r"'mse' compares units, and those of pooled patterns .* such as 'correlation'"
    ):
        RDLObjective(teacher, {"conv": "conv"}, reductions={"conv": Reduction(pool=2)})
    kept = {"conv": Reduction(project=8), "fc": Reduction(units=4)}
    assert RDLObjective(teacher, {"conv": "conv", "fc": "fc"}, reductions=kept).discrepancy == "mse"


@pytest.mark.parametrize("given", [{"conv": 4}, {"conv": {"pool": 2}}, [Reduction(pool=2)]], ids=str)
def test_what_is_no_reduction(teacher, given):
    with pytest.raises(ValueError, match=r"reductions: expected student layer -> Reduction, such as .*pool=4.*, got"):
        RDLObjective(teacher, {"conv": "conv"}, reductions=given)


def test_more_directions_than_units():
    with pytest.raises(ValueError, match="layer 'conv' has 300 units: expected project of at most so many, got 301"):
        reduced(draw(2, 300), project=301)
    assert reduced(draw(2, 300), project=300).shape == reduced(draw(2, 300), units=301).shape == (2, 300)


@pytest.mark.parametrize("given", [{}, {"pool": 1, "project": 2}])
def test_a_reduction_is_of_one_way(given):
    with pytest.raises(ValueError, match="expected one of pool, project, units"):
        Reduction(**given)
