"""What does `channels_last` gain on this machine?

    python -m benchmarks.memory_layout [--repeats 5] [--device cpu]

Whole epochs of the trainer with and without, in turn in one process, on random images in memory: the networks of both
experiments of the paper, task alone. The ratio is taken within the repeat. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import nn

from brainrdl import Stage, Stimuli, Trainer
from brainrdl.models import MnistCNN, NiN
from brainrdl.objectives import sgd


class Case(NamedTuple):
    """A network with its images. steps: of an epoch."""

    name: str
    network: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    batch_size: int
    steps: int


CASES = (
    Case("MNIST network, batch 100", MnistCNN, (1, 28, 28), 100, 30),
    Case("NiN, batch 16", NiN, (3, 32, 32), 16, 2),
)


def measure(case: Case, repeats: int, device: str) -> dict[bool, list[float]]:
    """Seconds of every epoch without and with it; the first of each is left out."""
    n = case.batch_size * case.steps
    stimuli = Stimuli(torch.rand(n, *case.shape), tuple(map(str, range(n))), torch.randint(10, (n,)))
    stage = Stage(epochs=repeats + 1, optimizer=sgd(0.01))
    running = {
        wanted: Trainer(
            case.network(), stage, batch_size=case.batch_size, accelerator=device, channels_last=wanted
        ).fit(stimuli)
        for wanted in (False, True)
    }
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats + 1):
        for wanted, records in running.items():
            seconds[wanted].append(next(records).timing["seconds"])
    return {wanted: times[1:] for wanted, times in seconds.items()}


def main() -> None:
    """Time both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {options.device}, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    print(f"{options.repeats} interleaved repeats, medians\n")
    print("| network | step as usual | step in channels_last | ratio |\n|---|---|---|---|")
    for case in CASES:
        times = measure(case, options.repeats, options.device)
        ratio = median(usual / other for usual, other in zip(times[False], times[True], strict=True))
        usual, other = (1000 * median(times[wanted]) / case.steps for wanted in (False, True))
        print(f"| {case.name} | {usual:.0f} ms | {other:.0f} ms | {ratio:.2f} |")


if __name__ == "__main__":
    main()
