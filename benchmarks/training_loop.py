"""What does the trainer cost over a bare hand-written loop for the same step?

    python -m benchmarks.training_loop [--repeats 15] [--steps 20 60] [--threads 1] [--device cpu]

The paper's MNIST network at batch 100, SGD with momentum, random images in memory (on a GPU, on the card). Each round
runs one epoch of every loop in random order; ratios are taken within the round, and the table gives the median and the
quartiles of the rounds. Epochs of few steps show what an epoch costs beside its steps. The loops are in one process, so
that all profit alike from memory that is kept (`brainrdl.training.freed_memory`), but for the second table: a bare loop
in processes of its own, without it and with it. `--threads 1 --processor-time`: on a machine that others use. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage
from time import perf_counter, process_time

import numpy as np
import torch
from torch import nn

from benchmarks.pair_dissimilarities import machine
from benchmarks.training_step import draw_stimuli, rounds, spread, trainings
from brainrdl import NetworkTeacher, RDLObjective, Stimuli
from brainrdl.models import MnistCNN
from brainrdl.training.freed_memory import keep_freed_memory

BARE, TRAINER, RDL = "bare loop", "Trainer, task alone", "Trainer, RDL at three layers, live teacher"
BATCH = 100


def bare_loop(stimuli: Stimuli, device: str) -> Callable[[], None]:
    """An epoch as one would write it by hand."""
    assert stimuli.labels is not None
    images, labels = stimuli.images.to(device), stimuli.labels.to(device)
    student = MnistCNN().to(device)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.001, momentum=0.9)

    def run() -> None:
        student.train()
        for rows in torch.randperm(len(images), device=device).split(BATCH):
            loss = nn.functional.cross_entropy(student(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def compare(steps: int, repeats: int, device: str, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Seconds of every loop's epochs of so many steps."""
    torch.manual_seed(0)
    stimuli = draw_stimuli(steps * BATCH, (1, 28, 28), 10)
    teacher = NetworkTeacher(MnistCNN(), ["pool1", "pool2", "fc"])
    rdl = RDLObjective(teacher, {layer: layer for layer in teacher.names}, pairs=500)
    epochs = {BARE: bare_loop(stimuli, device)}
    epochs |= trainings(MnistCNN, {TRAINER: None, RDL: rdl}, stimuli, BATCH, device)
    return rounds(epochs, repeats, clock)


def run_alone(steps: int, keep: bool, threads: int) -> None:
    """Milliseconds and pages of a step of the bare loop, when nothing else has been done in the process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if keep:
        keep_freed_memory()
    run = bare_loop(draw_stimuli(steps * BATCH, (1, 28, 28), 10), "cpu")
    found = []
    for _ in range(6):
        pages, begin = getrusage(RUSAGE_SELF).ru_minflt, perf_counter()
        run()
        found.append(((perf_counter() - begin) / steps * 1e3, (getrusage(RUSAGE_SELF).ru_minflt - pages) / steps))
    milliseconds, n_pages = np.median(found[1:], axis=0)
    print(f"{milliseconds:.1f} | {n_pages:.0f}")


def main() -> None:
    """Time the loops and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--processor-time", action="store_true", help="not the time on the clock; with --threads 1")
    parser.add_argument("--alone", choices=["kept", "given back"], help=argparse.SUPPRESS)  # in its own process
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.alone:
        run_alone(options.steps[0], options.alone == "kept", torch.get_num_threads())
        return
    clock = process_time if options.processor_time else perf_counter
    found = {steps: compare(steps, options.repeats, options.device, clock) for steps in options.steps}
    print(f"Machine: {machine()}, on {options.device}. {options.repeats} rounds.\n")
    print("| loop | steps | images per second | time over the bare loop's | at most |")
    print("|---|---|---|---|---|")
    bounds = {TRAINER: "1.05" if options.device == "cpu" else "1.11"}
    for steps, seconds in found.items():
        for name, times in seconds.items():
            cells = [f"{steps * BATCH / np.median(times):.0f}", spread(times / seconds[BARE]), bounds.get(name, "")]
            print(f"| {name} | {steps} | {' | '.join(cells)} |")
    if options.device == "cpu":
        print("\n| bare loop, freed memory | steps | ms a step | pages a step |\n|---|---|---|---|")
        for steps in options.steps:
            for kept in ("given back", "kept"):
                command = [sys.executable, "-m", "benchmarks.training_loop", "--steps", str(steps), "--alone", kept]
                command += ["--threads", str(torch.get_num_threads())]
                answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
                print(f"| {kept} | {steps} | {answer} |", flush=True)


if __name__ == "__main__":
    main()
