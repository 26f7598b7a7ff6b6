"""What several machines send each other in a training step, from the networks' own sizes: no measurement."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from brainrdl.layers import record_layers
from brainrdl.models import build_network

GPUS, MACHINES = 8, 16
NVLINK, RAILS, ETHERNET = 450e9, 8 * 50e9, 12.5e9  # bytes a second, one way: a GPU's; a machine's; a machine's
WORLD = GPUS * MACHINES


def width(network: nn.Module, layers: list[str], shape: tuple[int, int, int]) -> int:
    """Units of these layers together."""
    with torch.no_grad(), record_layers(network.eval(), layers) as patterns:
        network(torch.zeros(2, *shape))
        return sum(patterns[layer][0].numel() for layer in layers)


def size(n_bytes: float) -> str:
    """In MB or GB."""
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"


def duration(milliseconds: float) -> str:
    """In ms or s."""
    if milliseconds >= 1e3:
        return f"{milliseconds / 1e3:.2g} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def times(n_bytes: float) -> str:
    """Over the border of a machine, by rails and by Ethernet; within it NVLink is no slower than the rails."""
    return " / ".join(duration(1e3 * n_bytes / rate) for rate in (RAILS, ETHERNET))


def main() -> None:
    """Print the table."""
    nin = {"n_features": 100, "n_classes": 100}
    resnet = torchvision.models.resnet50()
    blocks = [f"layer{k}" for k in range(1, 5)]
    cases = [
        ("MNIST net, 3 layers", build_network("mnist_cnn", {}), ["pool1", "pool2", "fc"], (1, 28, 28), 100, 500, None),
        ("NiN, 3 layers", build_network("nin", nin), ["pool1", "pool2", "mlpconv3_2"], (3, 32, 32), 128, 406, None),
        ("ResNet-50, 4 layers", resnet, blocks, (3, 224, 224), 32, 500, None),
        ("ResNet-50, projected to 4 × 1,024", resnet, blocks, (3, 224, 224), 32, 500, 4096),
    ]
    columns = ["network", "images a GPU", "weights", "units", "gradients", "time"]
    columns += ["patterns of all images", "time", "of those in the pairs", "time"]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for name, network, layers, shape, n_own, n_pairs, projected in cases:
        weights = sum(parameter.numel() for parameter in network.parameters())
        units = projected or width(network, layers, shape)
        gradients = 2 * (WORLD - 1) / WORLD * 4 * weights
        n_stimuli = n_own * WORLD
        share = 1 - (1 - 2 / n_stimuli) ** n_pairs  # of the stimuli, how many occur in the pairs
        of_all = (WORLD - 1) * n_own * 4 * units
        of_pairs = of_all * share
        print(
            f"| {name} | {n_own} | {weights:,} | {units:,} | {size(gradients)} | {times(gradients)} | {size(of_all)} "
            f"| {times(of_all)} | {size(of_pairs)} ({share:.0%}) | {times(of_pairs)} |"
        )


if __name__ == "__main__":
    main()
