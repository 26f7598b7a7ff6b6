"""The built-in CIFAR-100 experiment: Table 4's network for every method, on the real images."""

import pytest
import torch

from brainrdl.experiment import describe_experiment
from brainrdl.experiment_file import load_experiment
from brainrdl.layers import check_layers
from brainrdl.models import build_network


@pytest.fixture(scope="module")
def experiment():
    return load_experiment("cifar100")


@pytest.mark.parametrize(
    ("label", "n_features", "n_weights"),
    [
        ("baseline", 100, 1_577_196),
        ("deep_supervision", 100, 1_577_196),
        ("hints", 100, 1_577_196),
        ("baseline_readout", 100, 1_577_196 + 10_100),
        ("rdl", 100, 1_577_196 + 10_100),
        ("finetuning", 10, 1_559_646 + 1_100),
        ("baseline_conv3_3x3", 100, 1_577_196 - 16 * 192 * 192),
    ],
)
def test_the_student_of_a_method(experiment, label, n_features, n_weights):
    settings, method = experiment.student_of(label), experiment.methods[label]
    student = build_network(settings.network, settings.arguments).eval()
    assert settings.preprocess.global_contrast
    assert sum(parameter.numel() for parameter in student.parameters()) == n_weights
    assert student.mlpconv3_2[0].out_channels == n_features
    assert student(torch.rand(2, 3, 32, 32)).shape == (2, 100)
    check_layers(student, [*method.student_layers(), *experiment.analysis.layers])
    teacher = build_network(experiment.teacher.network, experiment.teacher.arguments)
    check_layers(teacher, method.teacher_layers())


def test_the_weights_that_finetuning_starts_from(experiment):
    """All of the teacher's fit; the readout alone is new."""
    settings = experiment.student_of("finetuning")
    student = build_network(settings.network, settings.arguments).state_dict()
    teacher = build_network(experiment.teacher.network, experiment.teacher.arguments).state_dict()
    assert {name for name in student if name not in teacher} == {"readout.weight", "readout.bias"}
    assert all(student[name].shape == value.shape for name, value in teacher.items())


def test_the_protocol(experiment):
    assert experiment.data.spec == "cifar100" and experiment.teacher.data.spec == "cifar10"
    assert experiment.data.flips and experiment.teacher.data.flips
    for training in (experiment.training, experiment.teacher.training):
        assert (training.batch_size, training.momentum) == (128, 0.9)
        assert (training.schedule, training.halve_every) == ("halving", 25)
    assert experiment.methods["rdl"].pairs == 406
    assert list(experiment.methods["rdl"].layers) == ["pool1", "pool2", "mlpconv3_2"]
    assert experiment.methods["deep_supervision"].layers == ["pool1", "pool2"]
    assert len(experiment.seeds) >= 3
    assert experiment.published.test_error_percent["rdl"] == 28.77


def test_it_fits_the_real_images(real_data, monkeypatch):
    monkeypatch.setenv("BRAINRDL_DATA", str(real_data("cifar-100-python", "cifar-10-batches-py")))
    text = describe_experiment(load_experiment("cifar100"))
    assert "cifar100: 50000 training, 0 validation, 10000 test images of shape (3, 32, 32), 100 classes" in text
