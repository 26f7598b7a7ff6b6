"""Outputs and predictions of a network that is left as it was."""

import pytest
import torch
from torch import nn

from brainrdl.models import MnistCNN, Preprocessing, network_outputs, predict
from brainrdl.models.inference import on_device
from brainrdl.stimuli import Stimuli


@pytest.fixture
def stimuli():
    images = torch.rand(23, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return Stimuli(images, tuple(f"s{k}" for k in range(23)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MnistCNN()


def test_outputs_are_those_of_the_network_in_eval_mode(network, stimuli):
    outputs = network_outputs(network.train(), stimuli, batch_size=7)
    assert network.training and not outputs.requires_grad and outputs.device.type == "cpu"
    with torch.no_grad():
        torch.testing.assert_close(outputs, network.eval()(stimuli.images))


def test_images_pass_through_the_preprocessing(network, stimuli):
    preprocess = Preprocessing(mean=[0.5], std=[0.2])
    with torch.no_grad():
        expected = network.eval()((stimuli.images - 0.5) / 0.2)
    torch.testing.assert_close(network_outputs(network, stimuli, preprocess, device="cpu"), expected)


def test_the_prediction_is_the_largest_output(network, stimuli):
    predicted = predict(network, stimuli)
    assert predicted.dtype == torch.int64
    assert torch.equal(predicted, network_outputs(network, stimuli).argmax(1))


def test_a_network_without_parameters_is_asked_too(stimuli):
    torch.testing.assert_close(network_outputs(nn.Flatten(), stimuli), stimuli.images.flatten(1))


@pytest.mark.parametrize(
    ("network", "got"),
    [(nn.Identity(), r"shape \(10, 1, 28, 28\)"), (nn.Flatten(0), r"shape \(7840,\)"), (nn.LSTM(28, 4), "tuple")],
)
def test_outputs_that_are_no_table_are_refused_and_the_mode_is_put_back(network, got, stimuli):
    preprocess = nn.Flatten(1, 2) if isinstance(network, nn.LSTM) else None
    with pytest.raises(ValueError, match=f"the network gives {got} for 10 stimuli, expected .n_stimuli, n_outputs."):
        network_outputs(network.train(), stimuli, preprocess, batch_size=10)
    assert network.training


@pytest.mark.parametrize(("free", "moved"), [(3.0, True), (1.5, False)])
def test_images_are_copied_to_cuda_where_they_take_less_than_half_of_what_is_free(monkeypatch, stimuli, free, moved):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * stimuli.images.nbytes), 0))
    monkeypatch.setattr(Stimuli, "to", lambda self, device: self._replace(ids=(f"on {device}",)))
    there = on_device(stimuli, torch.device("cuda"))
    assert there.ids == (("on cuda",) if moved else stimuli.ids)


def test_images_that_are_read_as_needed_and_those_for_the_cpu_stay(stimuli):
    stored = FewStimuli(stimuli)
    assert on_device(stored, torch.device("cuda")) is stored
    assert on_device(stimuli, torch.device("cpu")) is stimuli


class FewStimuli:
    """Stimuli that are read when they are needed."""

    def __init__(self, stimuli):
        self.ids, self.labels, self.stimuli = stimuli.ids, stimuli.labels, stimuli

    def subset(self, rows):
        return FewStimuli(self.stimuli.subset(rows))

    def read(self):
        return self.stimuli
