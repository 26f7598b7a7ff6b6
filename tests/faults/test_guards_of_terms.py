"""Terms and targets that cannot teach, half precision, and images and classes that are not what they are taken for."""

import numpy as np
import pytest
import torch
from planted import TRAIN, Net, assert_told, fit, measured, rdl, teacher, told_of
from torch import nn

from brainrdl import (
    DeepSupervision,
    Distillation,
    LinearCKA,
    MeasuredPatterns,
    PatternTable,
    RDLObjective,
    RelationalDistillation,
    SimilarityPreserving,
    Stage,
    linear_decay,
    pair_dissimilarities,
)
from brainrdl.analysis import network_rdms
from brainrdl.layers import record_layers
from brainrdl.models import Preprocessing
from brainrdl.objectives import sgd
from brainrdl.pairs import all_pairs

# -- 5: a term that cannot teach ---------------------------------------------------------------------------------------


class Blocked(Net):
    """No gradient reaches `pool`."""

    def forward(self, images):
        with torch.no_grad():
            maps = self.pool(self.conv(images))
        return self.readout(self.fc(maps))


def frozen_below():
    student = Net()
    student.conv.requires_grad_(False)
    return student


class Numbers(nn.Module):
    """An objective that makes its term of numbers."""

    layers, stream = ("fc",), "task"

    def prepare(self, patterns, stimuli):
        pass

    def forward(self, patterns, stimuli, draw=None):
        return {"numbers/fc": torch.tensor(float(patterns["fc"].square().mean()))}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_terms_without_gradient():
    message = "term 'rdl/pool' cannot change the student: no gradient goes through its layer 'pool', since nothing that"
    for student in (Blocked(), frozen_below()):
        with pytest.raises(ValueError, match=message):
            fit(student, Stage(rdl()))
    with pytest.raises(
        ValueError, match="term 'numbers/fc' has no gradient, so it cannot change the student: its obje"
    ):
        fit(Net(), Stage([rdl(), Numbers()]))
    # Later layers alone are pulled: as it should be.
    assert fit(frozen_below(), Stage(rdl(layers=["fc"])))[1] == []


def test_terms_that_train_nothing_but_their_own_parameters():
    probe = "term 'deep_supervision/pool' trains parameters of its own alone: no gradient goes through the student's la"
    assert_told(fit(frozen_below(), Stage(DeepSupervision(["pool"])))[1], probe)
    # Probes on a network that is not trained are meant.
    assert fit(Net().requires_grad_(False), Stage(DeepSupervision(["pool"]), task_weight=0))[1] == []


def test_alpha_of_0_throughout():
    _, told = fit(Net(), Stage([rdl(layers=["pool"]), rdl(layers=["fc"])], [0.0, 1.0], epochs=2))
    assert_told(
        told, "stage 'main': alpha of 'rdl/pool' is 0 in all 2 epochs, so its term is measured and changes noth"
    )


# -- 6: targets that do not vary ---------------------------------------------------------------------------------------


def dead(seed=1):
    net = Net(seed)
    with torch.no_grad():
        net.fc[1].weight.zero_()
        net.fc[1].bias.fill_(-1.0)
    return net


@pytest.mark.parametrize("dissimilarity", ["euclidean", "correlation"])
def test_a_teachers_layer_that_tells_nothing_apart(dissimilarity):
    source = teacher(dead(), dissimilarity=dissimilarity)
    _, told = fit(Net(), Stage(rdl(source, dissimilarity=dissimilarity)))
    assert_told(told, "the teacher's 'fc' finds all pairs of stimuli equally dissimilar, .* pulling layer 'fc' towards")


def test_measured_patterns_that_are_all_alike():
    table = PatternTable(np.ones((48, 5)), list(TRAIN.ids))
    source = MeasuredPatterns({"IT": table, "V1": table._replace(patterns=np.random.default_rng(0).random((48, 5)))})
    objective = RDLObjective(source, {"fc": {"IT": 1.0, "V1": 1.0}}, discrepancy="correlation")
    assert_told(fit(Net(), Stage(objective))[1], "the teacher's 'IT' finds all pairs of stimuli equally dissimilar")


def test_a_students_layer_that_tells_nothing_apart():
    _, told = fit(dead(0), Stage(rdl()))
    assert "the student's layer 'fc' gives one pattern for all 16 stimuli of the first batch" in told[0]
    same = told_of(lambda: network_rdms(dead(), ["pool", "fc"], TRAIN))
    assert_told(same, "network: layer 'fc' gives one pattern for all stimuli, so its RDM is 0 throughout: dead units")


# -- 7: a term that takes no part --------------------------------------------------------------------------------------


def test_alpha_so_small_that_its_term_takes_no_part():
    rows, told = fit(Net(), Stage(rdl(layers=["fc"]), linear_decay(1e-7), epochs=3))
    added, task = (f"{value:.2g}" for value in (1e-7 * rows[0]["rdl/fc"], rows[0]["task"]))
    message = (
        f"term 'rdl/fc' takes no part: with its weight it is {added} in epoch 0 .* while 'task' is {task}, .* raise"
    )
    assert_told(told, message)


def test_alpha_so_large_that_the_task_takes_no_part():
    stage = Stage(RDLObjective(teacher(), {"fc": "fc"}), 1e9, epochs=2, optimizer=sgd(1e-12))
    assert_told(fit(Net(), stage)[1], "term 'task' takes no part: .* while 'rdl/fc' is .*; lower alpha")


# -- 8: half precision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dissimilarity", ["euclidean", "sqeuclidean", "correlation", "cosine", "mahalanobis"])
@pytest.mark.parametrize("n_units", [20, 3000])
def test_distances_of_half_patterns_do_not_overflow(dtype, dissimilarity, n_units):
    # Squares of these do not fit into float16.
    n_stimuli = 12 if dissimilarity != "mahalanobis" or n_units < 100 else 6
    n_units = min(n_units, 300) if dissimilarity == "mahalanobis" else n_units
    patterns = torch.randn(n_stimuli, n_units, generator=torch.Generator().manual_seed(0)).mul(9e3).to(dtype)
    precision = torch.eye(n_units) if dissimilarity == "mahalanobis" else None
    pairs = all_pairs(n_stimuli)
    exact = pair_dissimilarities(patterns.double(), pairs, dissimilarity, precision)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pair_dissimilarities(patterns.requires_grad_(), pairs, dissimilarity, precision)
        (gradient,) = torch.autograd.grad((found / found.detach().max()).sum(), patterns)
    assert found.dtype == torch.float32 and torch.isfinite(gradient).all()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize(
    "objective",
    [
        lambda source: rdl(source),
        lambda source: rdl(source, discrepancy="corr_cov"),
        lambda source: RelationalDistillation(source, {"fc": "fc"}),
        lambda source: SimilarityPreserving(source, {"fc": "fc"}),
        lambda source: LinearCKA(source, {"fc": "fc"}),
        Distillation,
    ],
)
def test_terms_of_half_patterns_are_computed_in_single_precision(objective):
    made = objective(teacher())
    net = Net().eval()
    with record_layers(net, made.layers) as patterns, torch.no_grad():
        net(TRAIN.images)
    half = {layer: pattern.to(torch.bfloat16) for layer, pattern in patterns.items()}
    plain = made({layer: pattern.float() for layer, pattern in half.items()}, TRAIN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = made(half, TRAIN)
    for name, term in plain.items():
        assert under[name].dtype == torch.float32
        torch.testing.assert_close(under[name], term, rtol=1e-5, atol=1e-7)


class Loud(Net):
    def forward(self, images):
        return super().forward(images * 1e6)


def test_patterns_beyond_half_precision():
    with pytest.raises(
        ValueError, match="the teacher's layer 'fc' gives NaN or infinite values for stimulus 'image-1/"
    ):
        fit(Net(), Stage(rdl(teacher(Loud(1), ["fc"], dtype=torch.float16), ["fc"])))
    with pytest.raises(ValueError, match=r"float16 holds no number beyond 65504: run the teacher in torch.bfloat16 or"):
        teacher(Loud(1), dtype=torch.float16).check(TRAIN)
    with pytest.raises(ValueError, match="network: layer 'pool' gives NaN or infinite values for 48 of 48 stimuli"):
        network_rdms(Loud().half(), ["pool"], TRAIN)
    assert told_of(lambda: teacher(Net(1), dtype=torch.bfloat16).check(TRAIN)) == []


# -- 10: images, labels, classes, measures -----------------------------------------------------------------------------


def test_images_of_0_to_255():
    bytes_ = TRAIN._replace(images=(TRAIN.images * 255).round())
    message = r"values from \d+ to \d+, all of them whole: images of 0…255, expected 0…1; divide them by 255"
    _, told = fit(Net(), Stage(rdl(), 1e-3), bytes_)
    assert_told(told[:2], "^images: " + message, "^the teacher's images: " + message)
    assert_told(told_of(lambda: network_rdms(Net(), ["fc"], bytes_)), "^stimuli: " + message)


class Normalize(nn.Module):
    """As torchvision's."""

    def forward(self, images):
        return (images - 0.5) / 0.2


@pytest.mark.parametrize("preprocess", [Preprocessing(mean=[0.5], std=[0.2]), nn.Sequential(Normalize())])
def test_images_that_are_normalised_twice(preprocess):
    normalised = TRAIN._replace(images=(TRAIN.images - 0.5) / 0.2)
    message = r"values from -\S+ to \S+ are normalised by the preprocessing, which expects 0…1: normalised twice\?"
    _, told = fit(Net(), Stage(), normalised, preprocess=preprocess)
    assert_told(told, "^images: " + message)
    _, told = fit(Net(), Stage(rdl(teacher(preprocess=preprocess))), normalised)
    assert_told(told, "^the teacher's images: " + message)


class Softmax(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)


def test_probabilities_in_place_of_class_scores():
    assert_told(fit(Softmax(), Stage())[1], "the student's outputs are probabilities .* softmax once more; let it give")
    _, told = fit(Net(), Stage(Distillation(teacher(Softmax(1)))))
    assert_told(
        told, "distillation: the teacher's outputs are probabilities .* softmax is taken once more; let it give"
    )


def test_labels_counted_from_1():
    student = Net(n_classes=4)
    _, told = fit(student, Stage(), TRAIN._replace(labels=TRAIN.labels + 1))
    assert_told(told, "training images: labels are 1 to 3, and none is 0; classes are counted from 0: subtract 1")
    two_and_three = TRAIN._replace(labels=TRAIN.labels.clamp(min=1) + 1)
    assert fit(Net(n_classes=4), Stage(), two_and_three)[1] == []


def test_a_teacher_whose_classes_are_in_another_order():
    trained = Net(1)
    fit(trained, Stage(epochs=20, optimizer=sgd(0.1)))
    assert fit(Net(), Stage(Distillation(teacher(trained))))[1] == []
    with torch.no_grad():
        for values in (trained.readout.weight, trained.readout.bias):
            values[[0, 1]] = values[[1, 0]]
    _, told = fit(Net(), Stage(Distillation(teacher(trained))))
    assert_told(
        told, "distillation: the teacher gives images of 2 classes another class .* with label 0 class 1: its cl"
    )
    assert fit(Net(), Stage(Distillation(teacher(Net(3)))))[1] == []  # untrained, it is merely wrong


@pytest.mark.parametrize(
    ("measure", "low", "high", "between"),
    [
        ("correlation", -1.0, 1.0, "0 to 2"),
        ("cosine", 0.0, 60.0, "0 to 2"),
        ("euclidean", -1.0, 3.0, "0 or more"),
        ("mahalanobis", -1.0, 3.0, "0 or more"),
    ],
)
def test_values_that_a_measure_cannot_have(measure, low, high, between):
    told = told_of(lambda: measured(TRAIN.ids[:9], measure=measure, low=low, high=high))
    assert_told(
        told, rf"RDM 'IT': \d+ of 36 values are none of '{measure}' \({between}\), such as .*; similarities, st"
    )
    unit = 2.0 if measure in ("correlation", "cosine") else 90.0
    assert told_of(lambda: measured(TRAIN.ids[:9], measure=measure, low=0.0, high=unit)) == []
    assert told_of(lambda: measured(TRAIN.ids[:9], measure="crossnobis", low=-1.0, high=9.0)) == []
