"""What holds for every objective that compares a student layer with a teacher layer of any width."""

import pytest
import torch

from brainrdl.objectives import LinearCKA, RelationalDistillation, SimilarityPreserving
from brainrdl.objectives.cka import linear_cka
from brainrdl.objectives.mapped import MappedObjective, centred
from brainrdl.objectives.rkd import angle_loss, distance_loss
from brainrdl.objectives.similarity_preserving import similarity_loss

MAPPING = {"low": "low", "high": "high"}
OBJECTIVES = {
    "rkd": (RelationalDistillation, ("/distance", "/angle")),
    "similarity_preserving": (SimilarityPreserving, ("",)),
    "cka": (LinearCKA, ("",)),
    "unbiased cka": (lambda teacher, layers: LinearCKA(teacher, layers, unbiased=True), ("",)),
}
LOSSES = {
    "distance": distance_loss,
    "angle": angle_loss,
    "similarity": similarity_loss,
    "cka": lambda student, teacher: 1 - linear_cka(student, teacher),
    "unbiased cka": lambda student, teacher: 1 - linear_cka(student, teacher, unbiased=True),
}


@pytest.fixture(params=OBJECTIVES)
def kind(request):
    return request.param


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient_of(loss, student, teacher):
    student = student.clone().requires_grad_()
    value = loss(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


# -- the objectives --------------------------------------------------------------------------------------------


def test_terms_are_named_and_finite(kind, student, teacher, stimuli, patterns_of):
    make, parts = OBJECTIVES[kind]
    objective = make(teacher, MAPPING)
    patterns = patterns_of(student, objective.layers, stimuli)
    objective.prepare(patterns, stimuli)
    terms = objective(patterns, stimuli)
    assert set(terms) == {f"{objective.name}/{layer}{part}" for layer in MAPPING for part in parts}
    assert all(term.shape == () and 0 < term < 3 for term in terms.values())
    assert not list(objective.parameters())


def test_a_term_moves_the_student_up_to_its_layer_and_not_the_teacher(
    kind, student, teacher, stimuli, patterns_of, moved
):
    make, parts = OBJECTIVES[kind]
    objective = make(teacher, MAPPING)
    for layer, reached in (("low", {"low"}), ("high", {"low", "high"})):
        for part in parts:
            terms = objective(patterns_of(student, objective.layers, stimuli), stimuli)
            assert moved(student, terms[f"{objective.name}/{layer}{part}"]) == reached
    assert all(p.grad is None for p in teacher.network.parameters())


def test_the_output_can_be_a_layer(kind, student, teacher, stimuli, patterns_of):
    make, parts = OBJECTIVES[kind]
    objective = make(teacher, {"": "high"})
    terms = objective(patterns_of(student, [""], stimuli), stimuli)
    assert set(terms) == {f"{objective.name}/output{part}" for part in parts}


def test_maps_count_as_flat_patterns(kind, student, teacher, stimuli, patterns_of):
    objective = OBJECTIVES[kind][0](teacher, {"low": "low"})
    maps = patterns_of(student, ["low"], stimuli)
    assert maps["low"].ndim == 4
    flat = {"low": maps["low"].flatten(1)}
    assert objective(maps, stimuli) == objective(flat, stimuli)


def test_half_precision_patterns_are_compared_in_float32_also_under_autocast(kind, teacher, stimuli):
    objective = OBJECTIVES[kind][0](teacher, {"high": "high"})
    half = draw(20, 6, dtype=torch.float32).add(3).bfloat16()
    expected = gradient_of(lambda p, _: torch.stack([*objective({"high": p}, stimuli).values()]).sum(), half.float(), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = gradient_of(
            lambda p, _: torch.stack([*objective({"high": p}, stimuli).values()]).sum(), half.float(), 0
        )
    assert value.dtype == torch.float32
    assert value == expected[0] and torch.equal(gradient, expected[1])
    terms = objective({"high": half}, stimuli)
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert sum(terms.values()) == expected[0]


def test_messages(kind, student, teacher, stimuli, patterns_of):
    make, _ = OBJECTIVES[kind]
    name = make(teacher, MAPPING).name
    with pytest.raises(ValueError, match=f"{name}: map at least one student layer to a teacher layer"):
        make(teacher, {})
    with pytest.raises(ValueError, match="student layer 'low' is mapped to 'mid', which the teacher does not record"):
        make(teacher, {"low": "mid"})
    one = stimuli.subset(torch.arange(1))
    with pytest.raises(ValueError, match=rf"{name} needs batches of at least [234] stimuli, got 1; raise the batch"):
        make(teacher, MAPPING).prepare(patterns_of(student, MAPPING, one), one)
    with pytest.raises(ValueError, match=r"layer 'low' gives shape .* for 20 stimuli; its first dimension must"):
        make(teacher, MAPPING)({"low": torch.rand(7, 3), "high": torch.rand(20, 3)}, stimuli)


def test_a_kind_must_say_how_it_compares(teacher, stimuli, student, patterns_of):
    class Nothing(MappedObjective):
        name = "nothing"

    with pytest.raises(TypeError, match="Nothing does not say how patterns are compared"):
        Nothing(teacher, {"low": "low"})(patterns_of(student, ["low"], stimuli), stimuli)


# -- the losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_units", "of_teacher"), [(3, 5), (9, 4)])
def test_gradcheck(loss, n_units, of_teacher):
    teacher = draw(6, of_teacher, seed=1)
    assert torch.autograd.gradcheck(lambda p: loss(p, teacher), draw(6, n_units).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_patterns_have_no_loss_and_no_gradient(loss, dtype):
    patterns = draw(9, 7, dtype=dtype)
    value, gradient = gradient_of(loss, patterns, patterns)
    tiny = 20 * torch.finfo(dtype).eps
    assert abs(value) < tiny
    assert gradient.abs().max() < tiny


def test_a_rotation_has_no_loss_and_other_patterns_have_one(loss):
    patterns = draw(9, 7)
    rotation = torch.linalg.qr(draw(7, 7, seed=3)).Q
    assert abs(loss(patterns @ rotation, patterns)) < 1e-14
    assert abs(loss(3.5 * patterns @ rotation, patterns)) < 1e-14, "nor has one scale for all units"
    assert loss(draw(9, 7, seed=4), patterns) > 0.01


def test_only_similarities_know_the_origin():
    patterns, other, shift = draw(9, 7), draw(9, 5, seed=1), 2 * draw(1, 7, seed=2)
    for name, loss in LOSSES.items():
        same = abs(loss(patterns + shift, other) - loss(patterns, other)) < 1e-13
        assert same == (name != "similarity"), name


def test_the_order_of_the_stimuli_does_not_matter(loss):
    patterns, teacher = draw(9, 7), draw(9, 5, seed=1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(loss(patterns[order], teacher[order]), loss(patterns, teacher))
    assert abs(loss(patterns[order], teacher) - loss(patterns, teacher)) > 1e-3


def test_gradient_descent_finds_the_teachers_geometry(loss):
    teacher, patterns = draw(8, 5, seed=1), draw(8, 5).requires_grad_()
    optimizer = torch.optim.Adam([patterns], lr=0.05)
    before = loss(patterns, teacher).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss(patterns, teacher).backward()
        optimizer.step()
    assert loss(patterns, teacher) < 0.02 * before


DEGENERATE = {
    "all zero": torch.zeros(8, 4),
    "all equal": torch.full((8, 4), 1e4 / 3),
    "a zero pattern": draw(8, 4, dtype=torch.float32).index_fill(0, torch.tensor([2]), 0),
    "two equal": draw(8, 4, dtype=torch.float32)[[0, 1, 2, 3, 3, 4, 5, 6]],
    "nearly equal": torch.full((8, 4), 1e3) + 1e-4 * draw(8, 4, dtype=torch.float32),
    "one stimulus apart": torch.zeros(8, 4).index_fill(0, torch.tensor([5]), 1),
    "one unit": draw(8, 1, dtype=torch.float32),
    "equidistant": torch.eye(8),
    "large": 1e5 * draw(8, 4, dtype=torch.float32),
    "small": 1e-6 * draw(8, 4, dtype=torch.float32),
}


@pytest.mark.parametrize("of_teacher", DEGENERATE)
@pytest.mark.parametrize("of_student", DEGENERATE)
def test_nothing_degenerate_gives_nan(loss, of_student, of_teacher):
    student, teacher = DEGENERATE[of_student], DEGENERATE[of_teacher]
    value, gradient = gradient_of(loss, student, teacher)
    assert value.isfinite() and gradient.isfinite().all()
    # A loss that knows no scale has a gradient of about its own size over that of the patterns.
    spread = centred(student).norm(dim=1).max()
    assert gradient.abs().max() <= 100 / (spread if spread > 0 else 1)


@pytest.mark.parametrize("n_stimuli", [1, 2, 3])
def test_very_small_batches(loss, n_stimuli):
    value, gradient = gradient_of(loss, draw(n_stimuli, 4), draw(n_stimuli, 3, seed=1))
    assert value.isfinite() and gradient.isfinite().all()


def test_a_large_mean_does_not_eat_the_digits():
    patterns, teacher = draw(9, 7, dtype=torch.float32), draw(9, 5, seed=1, dtype=torch.float32)
    for name in ("distance", "angle", "cka", "unbiased cka"):
        shifted = LOSSES[name](torch.round(1024 * patterns) / 1024 + 1000, teacher)
        exact = LOSSES[name]((torch.round(1024 * patterns) / 1024).double(), teacher.double())
        assert shifted.item() == pytest.approx(exact.item(), rel=1e-3), name


def test_centring_equal_patterns_leaves_nothing():
    equal = torch.full((7, 3), 0.1)
    assert not centred(equal).any()
    patterns = draw(7, 3)
    torch.testing.assert_close(centred(patterns), patterns - patterns.mean(0))
    assert torch.autograd.gradcheck(centred, patterns.requires_grad_())
