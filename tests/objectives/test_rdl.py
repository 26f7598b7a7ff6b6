"""RDL as an objective: layers and weights, sampling, one's own loop, and that every discrepancy pulls."""

import pytest
import torch

from brainrdl.layers import record_layers
from brainrdl.objectives.rdl import RDLObjective
from brainrdl.pairs import all_pairs
from brainrdl.randomness import Draw
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Targets

MAPPING = {"low": "low", "high": "high"}


def test_a_term_a_layer_times_its_weight(student, teacher, stimuli, patterns_of):
    patterns = patterns_of(student, MAPPING, stimuli)
    plain = RDLObjective(teacher, MAPPING)(patterns, stimuli)
    weighted = RDLObjective(teacher, {"low": {"low": 3.0}, "high": {"high": 0.25}})(patterns, stimuli)
    assert set(plain) == {"rdl/low", "rdl/high"}
    assert all(term.ndim == 0 and term > 0 for term in plain.values())
    torch.testing.assert_close(weighted, {"rdl/low": 3 * plain["rdl/low"], "rdl/high": plain["rdl/high"] / 4})


def test_a_layer_pulled_towards_several(student, teacher, stimuli, patterns_of):
    patterns = patterns_of(student, ["high"], stimuli)
    both = RDLObjective(teacher, {"high": {"low": 1.0, "high": 2.0}})(patterns, stimuli)
    low = RDLObjective(teacher, {"high": "low"})(patterns, stimuli)["rdl/high"]
    high = RDLObjective(teacher, {"high": "high"})(patterns, stimuli)["rdl/high"]
    torch.testing.assert_close(both, {"rdl/high/low": low, "rdl/high/high": 2 * high})


def test_the_networks_output_is_a_layer(student, teacher, stimuli, patterns_of):
    terms = RDLObjective(teacher, {"": "high"})(patterns_of(student, [""], stimuli), stimuli)
    assert set(terms) == {"rdl/output"}


@pytest.mark.parametrize("mapped", ["low", "high"])
@pytest.mark.parametrize("discrepancy", ["mse", "correlation", "cosine", "corr_cov", "cosine_cov"])
def test_pulls_the_layer_and_those_before_it(student, teacher, stimuli, patterns_of, moved, mapped, discrepancy):
    objective = RDLObjective(teacher, {mapped: mapped}, pairs=60, discrepancy=discrepancy)
    (term,) = objective(patterns_of(student, [mapped], stimuli), stimuli, Draw(0)).values()
    assert moved(student, term) == ({"low"} if mapped == "low" else {"low", "high"})
    assert all(p.grad is None for p in teacher.network.parameters())


@pytest.mark.parametrize("discrepancy", ["mse", "correlation", "cosine", "corr_cov", "cosine_cov"])
def test_following_the_gradient_brings_the_rdms_together(student, teacher, stimuli, discrepancy):
    objective = RDLObjective(teacher, {"high": "high"}, pairs=100, discrepancy=discrepancy)
    whole = RDLObjective(teacher, {"high": "high"}, discrepancy=discrepancy)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    errors = []
    with record_layers(student, objective.layers) as patterns:
        for step in range(60):
            student(stimuli.images)
            if step in (0, 59):
                errors.append(sum(term.item() for term in whole(patterns, stimuli).values()))
            optimizer.zero_grad()
            sum(objective(patterns, stimuli, Draw(0, step=step)).values()).backward()
            optimizer.step()
    assert errors[1] < 0.5 * errors[0]


def test_targets_go_by_id(student, teacher, stimuli, patterns_of):
    objective = RDLObjective(teacher, MAPPING)
    rows = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    here = objective(patterns_of(student, MAPPING, stimuli), stimuli)
    there = objective(patterns_of(student, MAPPING, stimuli.subset(rows)), stimuli.subset(rows))
    torch.testing.assert_close(here, there)


def test_in_ones_own_loop_torchs_seed_governs_the_pairs(student, teacher, stimuli, patterns_of):
    objective = RDLObjective(teacher, {"high": "high"}, pairs=5)
    patterns = patterns_of(student, ["high"], stimuli)

    def term(seed):
        torch.manual_seed(seed)
        return objective(patterns, stimuli)["rdl/high"].item()

    assert term(1) == term(1)
    assert len({term(seed) for seed in range(5)}) == 5


# -- sampling ------------------------------------------------------------------------------------------------


def n_pairs(objective, n_stimuli):
    return len(objective.draw_pairs(n_stimuli, Draw(0)).i)


def test_a_smaller_batch_is_sampled_in_proportion(student, teacher, stimuli, patterns_of):
    objective = RDLObjective(teacher, {"high": "high"}, pairs=38)
    assert n_pairs(objective, 20) == 38
    assert n_pairs(objective, 10) == 38  # in one's own loop nobody has said what a full batch is
    objective.prepare(patterns_of(student, ["high"], stimuli), stimuli)
    # 38 of the 190 pairs of 20 stimuli are a fifth.
    assert [n_pairs(objective, n) for n in (20, 10, 6, 2, 40)] == [38, 9, 3, 1, 38]


def test_a_smaller_batch_of_images_too(student, teacher, stimuli, patterns_of):
    objective = RDLObjective(teacher, {"high": "high"}, images=8)
    objective.prepare(patterns_of(student, ["high"], stimuli), stimuli)
    assert [n_pairs(objective, n) for n in (20, 10, 5, 3)] == [28, 6, 1, 1]


def test_the_teacher_sees_the_sampled_images_only(student, teacher, stimuli, patterns_of):
    seen = []
    teacher.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    patterns = patterns_of(student, ["high"], stimuli)
    RDLObjective(teacher, {"high": "high"}, images=7)(patterns, stimuli, Draw(0))
    other = stimuli._replace(images=stimuli.images.clone())
    RDLObjective(teacher, {"high": "high"}, pairs=2)(patterns, other, Draw(0))
    assert seen[0] == 7
    assert seen[1] <= 4


@pytest.mark.parametrize("sampling", [{}, {"pairs": 5}, {"images": 4}])
@pytest.mark.parametrize("discrepancy", ["mse", "correlation", "cosine_cov"])
def test_a_batch_of_one_has_no_pair_and_pulls_nothing(student, teacher, stimuli, patterns_of, sampling, discrepancy):
    objective = RDLObjective(teacher, {"high": "high"}, discrepancy=discrepancy, **sampling)
    one = stimuli.subset(torch.tensor([3]))
    patterns = patterns_of(student, ["high"], one)
    (term,) = objective(patterns, one, Draw(0)).values()
    (gradient,) = torch.autograd.grad(term, patterns["high"], allow_unused=True)
    assert term.isfinite()
    assert gradient is None or not gradient.any()


def test_pairs_with_a_constant_pattern_take_no_part(student, teacher, stimuli, patterns_of):
    """A dead ReLU layer gives zero for a stimulus: no correlation, and no NaN in anyone's gradient."""
    source = NetworkTeacher(teacher.network, ["high"], "correlation")
    objective = RDLObjective(source, {"high": "high"}, dissimilarity="correlation", normalization="pair")
    high = patterns_of(student, ["high"], stimuli)["high"].detach()
    high[4] = 0
    high.requires_grad_()
    (term,) = objective({"high": high}, stimuli).values()
    (gradient,) = torch.autograd.grad(term, high)
    assert gradient.isfinite().all()
    assert not gradient[4].any()
    rest = torch.arange(20) != 4
    others = stimuli.subset(rest.nonzero()[:, 0])
    torch.testing.assert_close(term, objective({"high": high[rest]}, others)["rdl/high"])


def test_precision_of_the_student(teacher, student, stimuli, patterns_of):
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    precision = root @ root.T + torch.eye(6)
    patterns = patterns_of(student, ["high"], stimuli)
    settings = {"dissimilarity": "mahalanobis", "precision": {"high": precision}, "discrepancy": "correlation"}
    (term,) = RDLObjective(teacher, {"high": "high"}, **settings)(patterns, stimuli).values()
    i, j = all_pairs(20)
    difference = patterns["high"].detach()[i] - patterns["high"].detach()[j]
    mine = (difference @ precision * difference).sum(1)
    theirs = teacher.targets(stimuli, all_pairs(20))["high"].values
    assert term.item() == pytest.approx(1 - float(torch.corrcoef(torch.stack([mine, theirs]))[0, 1]), abs=1e-5)
    with pytest.raises(ValueError, match="no precision for student layer 'low'"):
        RDLObjective(teacher, MAPPING, **settings)


# -- messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        ({"high": "hi"}, {}, "layer 'high' is mapped to 'hi', which the teacher does not have; it has: low, high"),
        ({}, {}, "no layers: map at least one student layer to one of the teacher's names"),
        ({"high": {}}, {}, "student layer 'high' is mapped to nothing"),
        ({"high": {"high": -1}}, {}, "weight of layer 'high' for 'high': expected a number >= 0, got -1"),
        ({"high": {"high": float("nan")}}, {}, "expected a number >= 0, got nan"),
        (MAPPING, {"pairs": 0}, "expected pairs >= 1 or images >= 2, got pairs=0, images=None"),
        (MAPPING, {"images": 1}, "expected pairs >= 1 or images >= 2, got pairs=None, images=1"),
        (MAPPING, {"pairs": 5, "images": 5}, "give either pairs or images"),
        (MAPPING, {"dissimilarity": "l1"}, "unknown dissimilarity 'l1'; expected one of euclidean"),
        (MAPPING, {"discrepancy": "kl"}, "unknown discrepancy 'kl'; expected one of mse"),
        (MAPPING, {"normalization": "batch"}, "unknown normalization 'batch'; expected one of image, pair"),
        (MAPPING, {"discrepancy": "cosine", "normalization": "image"}, r"'image' \(Eq. 4\) is defined for 'mse' alone"),
        (MAPPING, {"stream": "both"}, "unknown stream 'both'; expected 'task' or 'stimuli'"),
        (
            MAPPING,
            {"dissimilarity": "sqeuclidean"},
            "compares units: the student's are 'sqeuclidean', the teacher's 'euclidean'; use the same, or",
        ),
    ],
)  # fmt: skip
def test_messages(teacher, layers, settings, message):
    with pytest.raises(ValueError, match=message):
        RDLObjective(teacher, layers, **settings)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        ({}, r"NoneType \[\]"),
        ({"high": torch.zeros(190)}, r"Tensor \[\(190,\)\]"),
        ({"high": Targets(torch.zeros(20, 20))}, r"Targets \[\(20, 20\)\]"),
        ({"high": Targets(torch.zeros(190), torch.ones(19))}, r"Targets \[\(190,\), \(19,\)\]"),
        ({"high": Targets([0.0] * 190)}, r"Targets \['list'\]"),
    ],
)
def test_an_answer_of_ones_own_teacher_in_another_form_is_told(student, stimuli, patterns_of, answer, got):
    class Own:
        names, dissimilarity = ("high",), "euclidean"

        def covers(self, ids):
            return {"high": torch.ones(len(ids), dtype=torch.bool)}

        def targets(self, stimuli, pairs):
            return answer

    told = rf"the teacher's targets for 'high': expected Targets\(values, weights\) of 190 numbers each, got {got}"
    with pytest.raises(ValueError, match=told):
        RDLObjective(Own(), {"high": "high"})(patterns_of(student, ["high"], stimuli), stimuli)


def test_a_layer_whose_first_dimension_is_not_the_stimuli(teacher, stimuli):
    objective = RDLObjective(teacher, {"high": "high"})
    with pytest.raises(ValueError, match=r"layer 'high' gives shape \(5, 20, 3\) for 20 stimuli"):
        objective.prepare({"high": torch.zeros(5, 20, 3)}, stimuli)
