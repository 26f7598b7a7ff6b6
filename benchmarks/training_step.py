"""What does the representational term cost in a training, and does its teacher's size matter?

    python -m benchmarks.training_step [--network mnist nin measured] [--repeats 25] [--threads 1] [--device cpu]

Whole epochs of the trainer, in rounds of random order; every ratio is between two epochs of one round, and the table
gives the median and the quartiles of the rounds. Three layers are pulled, all by one teacher:

- *mnist*: the paper's MNIST network, batch 100, 500 pairs, pool1 (2,048 units), pool2 (256) and fc (200).
- *nin*: the paper's network in network (Table 4), 3 × 32 × 32, a tenth of the pairs (as many as 29 images have of 128,
  406), pool1 (24,576 units), pool2 (12,288) and mlpconv3_2 (6,400). A step of batch 128 takes seconds on a CPU.
- *measured*: the MNIST network on 1,000 images with three regions of 2,000 voxels as teacher, memory-mapped from one
  file a region, of 70,000 stimuli and of these 1,000 alone. The files take 1.7 GB of the temporary folder; the page
  cache is warm.

The teacher is a network of the student's architecture; "the teacher's forward alone" runs it on the same batches, in
eval mode and without gradient. What a live teacher costs beside its forward is (epoch - forward) / epoch without RDL.
On a machine that others use, `--threads 1 --processor-time` counts only the time that the process itself was running.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from math import comb
from pathlib import Path
from random import Random
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from rsatoolbox.rdm import RDMs
from torch import nn

from benchmarks.pair_dissimilarities import machine
from brainrdl import MeasuredPatterns, MeasuredRDMs, NetworkTeacher, PatternTable, RDLObjective, Stage, Stimuli, Trainer
from brainrdl.models import MnistCNN
from brainrdl.models.nin import NiN
from brainrdl.objectives import sgd

ALONE, FORWARD = "task alone", "the teacher's forward alone"
SHARES = (10, 25, 50, 100)  # per cent of a batch that a live teacher sees
N_LARGE, N_SMALL, N_VOXELS = 70_000, 1_000, 2_000

# Runs one epoch.
Epoch = Callable[[], object]


def draw_stimuli(n: int, shape: Sequence[int], n_classes: int) -> Stimuli:
    """Random images in memory."""
    ids = tuple(f"stimulus-{k:05d}" for k in range(n))
    return Stimuli(torch.rand(n, *shape), ids, torch.randint(n_classes, (n,)))


def trainings(
    make: Callable[[], nn.Module],
    objectives: dict[str, RDLObjective | None],
    stimuli: Stimuli,
    batch_size: int,
    device: str,
) -> dict[str, Epoch]:
    """An endless training of the network with each objective, all from the same weights."""

    def epochs(objective: RDLObjective | None) -> Epoch:
        torch.manual_seed(0)
        stage = Stage(objective, 0.1, epochs=10_000, optimizer=sgd(0.001))
        trainer = Trainer(make(), stage, batch_size=batch_size, accelerator=device)
        records = trainer.fit(stimuli)
        return lambda: next(records)

    return {name: epochs(objective) for name, objective in objectives.items()}


def rounds(epochs: dict[str, Epoch], repeats: int, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Seconds of every kind of epoch, (repeats,), after two rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    order, shuffle = list(epochs), Random(0).shuffle
    for _ in range(repeats + 2):
        shuffle(order)
        for name in order:
            begin = clock()
            epochs[name]()
            seconds[name].append(clock() - begin)
    return {name: np.array(times[2:]) for name, times in seconds.items()}


def forward_epoch(network: nn.Module, stimuli: Stimuli, batch_size: int, device: str) -> Epoch:
    """The teacher looks at every batch and nobody asks what it saw."""
    network = network.to(device).eval()
    images = stimuli.images.to(device)

    @torch.no_grad()
    def run() -> None:
        for rows in torch.randperm(len(images)).split(batch_size):
            network(images[rows.to(device)])
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def measured_rdms(stimuli: Stimuli, layers: Sequence[str]) -> MeasuredRDMs:
    """An RDM a layer of all stimuli."""
    n = len(stimuli.ids)
    values = np.random.default_rng(0).random((len(layers), comb(n, 2)))
    described: dict[str, Any] = {
        "rdm_descriptors": {"roi": list(layers)},
        "pattern_descriptors": {"stimulus": list(stimuli.ids)},
    }
    return MeasuredRDMs(RDMs(values, "correlation", **described))


def measured_patterns(stimuli: Stimuli, layers: Sequence[str]) -> MeasuredPatterns:
    """500 voxels a layer, in memory, each stimulus once."""
    generator = np.random.default_rng(0)
    shape = (len(stimuli.ids), 500)
    tables = {layer: PatternTable(generator.standard_normal(shape, np.float32), stimuli.ids) for layer in layers}
    return MeasuredPatterns(tables, "correlation")


def spread(ratios: np.ndarray) -> str:
    """Median (lower and upper quartile)."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


def steps_table(make: Callable[[], nn.Module], stimuli: Stimuli, layers: Sequence[str], options: Any) -> Iterator[str]:
    """RDL of each kind of teacher beside the same training without it."""
    batch, n_pairs, bound = options.batch, options.pairs, options.bound
    mapping = {layer: layer for layer in layers}

    def teacher(**settings: Any) -> NetworkTeacher:
        torch.manual_seed(1)
        return NetworkTeacher(make(), layers, **settings)

    kinds: dict[str, RDLObjective | None] = {
        ALONE: None,
        "measured RDMs": RDLObjective(measured_rdms(stimuli, layers), mapping, pairs=n_pairs),
        "measured patterns": RDLObjective(measured_patterns(stimuli, layers), mapping, pairs=n_pairs),
        "cached teacher": RDLObjective(teacher(cache="memory"), mapping, pairs=n_pairs),
        "live teacher": RDLObjective(teacher(), mapping, pairs=n_pairs),
    }
    shown = {share: max(2, round(batch * share / 100)) for share in SHARES}
    for share, n_images in shown.items():
        kinds[f"live teacher, {share} % of the images"] = RDLObjective(teacher(), mapping, images=n_images)
    epochs = trainings(make, kinds, stimuli, batch, options.device)
    epochs[FORWARD] = forward_epoch(make(), stimuli, batch, options.device)
    seconds = rounds(epochs, options.repeats, options.clock)
    alone, forward = seconds[ALONE], seconds[FORWARD]
    yield "| teacher | ms a step | time over that of the task alone | without the teacher's forward | at most |"
    yield "|---|---|---|---|---|"
    n_steps = len(stimuli.ids) // batch
    for name, times in seconds.items():
        cells = [f"{np.median(times) / n_steps * 1e3:.2f}", spread(times / alone)]
        if name in (ALONE, FORWARD):
            cells += ["", ""]
        elif name.startswith("live"):
            share = next((share for share in SHARES if f" {share} %" in name), 100)
            cells += [spread((times - forward * shown[share] / batch) / alone), f"{bound:.2f}"]
        else:
            cells += ["", f"{bound:.2f}"]
        yield f"| {name} | {' | '.join(cells)} |"


def measured_table(options: Any) -> Iterator[str]:
    """Measured patterns of many stimuli on disk beside few, and beside no patterns at all."""
    torch.manual_seed(0)
    layers = ["pool1", "pool2", "fc"]
    stimuli = draw_stimuli(N_SMALL, (1, 28, 28), 10)
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, RDLObjective | None] = {ALONE: None}
        for n_measured in (N_LARGE, N_SMALL):
            # The images of the training are spread over all that were measured.
            ids: list[str | None] = [f"other-{k:05d}" for k in range(n_measured)]
            for one, place in zip(stimuli.ids, np.linspace(0, n_measured - 1, N_SMALL).astype(int), strict=True):
                ids[place] = one
            tables = {layer: PatternTable(_on_disk(Path(folder), n_measured, layer), ids) for layer in layers}
            source = MeasuredPatterns(tables, "correlation")
            kinds[f"{n_measured} stimuli"] = RDLObjective(source, {layer: layer for layer in layers}, pairs=500)
        epochs = trainings(MnistCNN, kinds, stimuli, 100, options.device)
        seconds = rounds(epochs, options.repeats, options.clock)
    alone, few = seconds[ALONE], seconds[f"{N_SMALL} stimuli"]
    yield f"| patterns of 3 × {N_VOXELS} | ms a step | time over that of the task alone | over {N_SMALL} stimuli |"
    yield "|---|---|---|---|"
    for name, times in seconds.items():
        cells = [f"{np.median(times) / (N_SMALL // 100) * 1e3:.2f}", spread(times / alone)]
        yield f"| {name} | {' | '.join(cells)} | {'' if name == ALONE else spread(times / few)} |"


def _on_disk(folder: Path, n_stimuli: int, name: str) -> np.ndarray:
    """A memory map of random patterns."""
    patterns = np.lib.format.open_memmap(folder / f"{n_stimuli}-{name}.npy", "w+", np.float32, (n_stimuli, N_VOXELS))
    generator = np.random.default_rng(0)
    for start in range(0, n_stimuli, 5000):
        part = patterns[start : start + 5000]
        part[:] = generator.standard_normal(part.shape, np.float32)
    patterns.flush()
    return np.load(folder / f"{n_stimuli}-{name}.npy", mmap_mode="r")


def main() -> None:
    """Run the networks that were asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = ["mnist", "nin", "measured"]
    parser.add_argument("--network", nargs="+", choices=every, default=every)
    parser.add_argument("--repeats", type=int, help="rounds of epochs (default: 25 of mnist, measured; 7 of nin)")
    parser.add_argument("--steps", type=int, help="steps of an epoch (default: 20 of mnist, 3 of nin)")
    parser.add_argument("--batch", type=int, help="images a step (default: 100 of mnist, 32 of nin; the paper's: 128)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--processor-time", action="store_true", help="not the time on the clock; with --threads 1")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print(f"Machine: {machine()}, on {given.device}.")
    for network in given.network:
        options = argparse.Namespace(**vars(given))
        is_nin = network == "nin"
        options.repeats = given.repeats or (7 if is_nin else 25)
        options.steps = N_SMALL // 100 if network == "measured" else given.steps or (3 if is_nin else 20)
        options.batch = given.batch or (32 if is_nin else 100)
        options.clock = process_time if given.processor_time else perf_counter
        options.bound = 1.03 if is_nin else 1.05
        options.pairs = round(comb(options.batch, 2) * 406 / comb(128, 2)) if is_nin else 500
        print(f"\n{network}, {options.repeats} rounds of epochs of {options.steps} steps, batch {options.batch}\n")
        if network == "measured":
            lines = measured_table(options)
        else:
            torch.manual_seed(0)
            shape, n_classes = ((3, 32, 32), 100) if is_nin else ((1, 28, 28), 10)
            stimuli = draw_stimuli(options.steps * options.batch, shape, n_classes)
            layers = ["pool1", "pool2", "mlpconv3_2"] if is_nin else ["pool1", "pool2", "fc"]
            lines = steps_table(make_nin if is_nin else MnistCNN, stimuli, layers, options)
        for line in lines:
            print(line, flush=True)


def make_nin() -> NiN:
    """With a readout of 100 classes, as for RDL in the paper."""
    return NiN(n_classes=100)


if __name__ == "__main__":
    main()
