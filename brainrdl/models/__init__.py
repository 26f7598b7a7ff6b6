"""Networks: those of the experiments, any of torchvision and timm, one's own; frozen trunks; and their input."""

from brainrdl.models.inference import network_outputs, predict
from brainrdl.models.lookup import build_network, load_weights
from brainrdl.models.mnist_cnn import MnistCNN
from brainrdl.models.nin import NiN
from brainrdl.models.preprocessing import Preprocessing
from brainrdl.models.small_cnn import SmallCNN
from brainrdl.models.trunk import LinearHead, Trunk, cached

__all__ = [
    "LinearHead",
    "MnistCNN",
    "NiN",
    "Preprocessing",
    "SmallCNN",
    "Trunk",
    "build_network",
    "cached",
    "load_weights",
    "network_outputs",
    "predict",
]
