"""Networks: the two of McClure & Kriegeskorte (2016), any of torchvision and timm, one's own; and their input."""

from brainrdl.models.inference import network_outputs, predict
from brainrdl.models.lookup import build_network, load_weights
from brainrdl.models.mnist_cnn import MnistCNN
from brainrdl.models.nin import NiN
from brainrdl.models.preprocessing import Preprocessing

__all__ = ["MnistCNN", "NiN", "Preprocessing", "build_network", "load_weights", "network_outputs", "predict"]
