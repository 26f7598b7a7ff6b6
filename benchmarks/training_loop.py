"""What does the trainer cost over a bare hand-written loop for the same step?

    python -m benchmarks.training_loop [--repeats 7] [--steps 60]

The paper's MNIST network at batch 100, SGD with momentum, random images in memory. Each repeat times one epoch
of every loop, in turn; the ratio is taken within the repeat. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import platform
import time
from statistics import median

import torch
from torch import nn

from brainrdl import NetworkTeacher, RDLObjective, Stage, Stimuli, Trainer
from brainrdl.models import MnistCNN
from brainrdl.objectives import sgd


def bare_epoch(student: nn.Module, optimizer: torch.optim.Optimizer, stimuli: Stimuli, batch_size: int) -> float:
    """Seconds of an epoch as one would write it by hand."""
    assert stimuli.labels is not None
    student.train()
    begin = time.perf_counter()
    for rows in torch.randperm(len(stimuli.ids)).split(batch_size):
        loss = nn.functional.cross_entropy(student(stimuli.images[rows]), stimuli.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def main() -> None:
    """Time the loops and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.manual_seed(0)
    n = options.steps * 100
    stimuli = Stimuli(torch.rand(n, 1, 28, 28), tuple(map(str, range(n))), torch.randint(10, (n,)))

    bare = MnistCNN()
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.01, momentum=0.9)
    teacher = NetworkTeacher(MnistCNN(), ["pool1", "pool2", "fc"])
    rdl = RDLObjective(teacher, {layer: layer for layer in teacher.names}, pairs=500)
    epochs = options.repeats + 1
    trained = {
        "Trainer, task alone": Stage(epochs=epochs, optimizer=sgd(0.01)),
        "Trainer, RDL at three layers, live teacher": Stage(rdl, 0.1, epochs=epochs, optimizer=sgd(0.01)),
    }
    running = {name: Trainer(MnistCNN(), stage, accelerator="cpu").fit(stimuli) for name, stage in trained.items()}
    seconds: dict[str, list[float]] = {"bare loop": [], **{name: [] for name in trained}}
    for _ in range(epochs):
        seconds["bare loop"].append(bare_epoch(bare, optimizer, stimuli, 100))
        for name, records in running.items():
            seconds[name].append(next(records).timing["seconds"])
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
    )
    print(f"{options.repeats} interleaved repeats of {options.steps} steps, medians\n")
    print("| loop | images per second | time over the bare loop's |\n|---|---|---|")
    for name, times in seconds.items():
        ratios = [time / reference for time, reference in zip(times[1:], seconds["bare loop"][1:], strict=True)]
        print(f"| {name} | {n / median(times[1:]):.0f} | {median(ratios):.3f} |")


if __name__ == "__main__":
    main()
