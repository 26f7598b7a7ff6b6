"""What does a training step's target look-up cost where there are many measured stimuli?

    python -m benchmarks.measured_patterns [--seconds 5] [--threads 1] [--folder DIR]

Random patterns in memory-mapped files, float32, the page cache warm: 70,000 stimuli × 2,000 voxels measured once, and
70,000 stimuli × 3 sessions × 200 voxels for crossnobis, each beside 1,000 stimuli of the same kind. A step
asks for 500 pairs, or all, of a batch of 100 stimuli drawn from all; steps of the two sizes take turns in random
order, and times are medians. Prints Markdown: the times, their ratio, what making the source takes, and by how
much the process's anonymous memory (RssAnon, Linux) has grown since before the source was made. The files take 730 MB.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from benchmarks.pair_dissimilarities import machine, median_seconds, rounded
from brainrdl.pairs import Pairs, all_pairs, sample_pairs
from brainrdl.sources.patterns import MeasuredPatterns, PatternTable
from brainrdl.stimuli import Stimuli

MANY, FEW, BATCH = 70_000, 1_000, 100

# measure -> (repetitions, voxels)
CASES = {"euclidean": (1, 2000), "correlation": (1, 2000), "crossnobis": (3, 200)}


def write(file: Path, n_rows: int, n_voxels: int) -> None:
    """Random patterns, a part at a time."""
    generator = np.random.default_rng(0)
    patterns = np.lib.format.open_memmap(file, "w+", np.float32, (n_rows, n_voxels))
    for start in range(0, n_rows, 1000):
        part = patterns[start : start + 1000]
        part[:] = generator.standard_normal(part.shape, np.float32)


def source(file: Path, n_stimuli: int, measure: str) -> MeasuredPatterns:
    """A source on the file, each stimulus's repetitions in different ones of 40 sessions."""
    n_repetitions, _ = CASES[measure]
    patterns = np.load(file, mmap_mode="r")
    rows = np.random.default_rng(1).permutation(len(patterns))
    stimulus = [f"stimulus-{row // n_repetitions:05d}" for row in rows]
    fold = [int(row // n_repetitions + row % n_repetitions) % 40 for row in rows]
    return MeasuredPatterns({"IT": PatternTable(patterns, stimulus, fold)}, measure)


def steps(teacher: MeasuredPatterns, n_stimuli: int, n_pairs: int | None) -> Callable[[], object]:
    """A step: the next batch's targets."""
    generator = np.random.default_rng(2)
    images = torch.zeros(BATCH, 1, 1, 1)
    drawn: list[tuple[Stimuli, Pairs]] = []
    for _ in range(200):
        ids = tuple(f"stimulus-{k:05d}" for k in generator.choice(n_stimuli, BATCH, replace=False))
        pairs = all_pairs(BATCH) if n_pairs is None else sample_pairs(BATCH, n_pairs, generator)
        drawn.append((Stimuli(images, ids), pairs))
    batches: Iterator[tuple[Stimuli, Pairs]] = cycle(drawn)
    return lambda: teacher.targets(*next(batches))


def anonymous_mib() -> float:
    """What the process holds in memory that is no file's."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def main() -> None:
    """Write the files, time the steps and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to repeat each case (default 5)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--folder", help="where to put the temporary files (default: the system's place)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"Machine: {machine()}.\n")
    print(f"| measure, pairs | {MANY} stimuli | {FEW} stimuli | ratio |\n|---|---|---|---|")
    made = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for measure, (n_repetitions, n_voxels) in CASES.items():
            teachers = {}
            for n_stimuli in (FEW, MANY):
                file = Path(folder) / f"{n_stimuli}-{n_repetitions}-{n_voxels}.npy"
                if not file.exists():
                    write(file, n_stimuli * n_repetitions, n_voxels)
                before, start = anonymous_mib(), perf_counter()
                teachers[n_stimuli] = source(file, n_stimuli, measure)
                seconds = perf_counter() - start
            for n_pairs in (500, None):
                runs = {str(n): steps(teacher, n, n_pairs) for n, teacher in teachers.items()}
                found = median_seconds(runs, options.seconds)
                many, few = found[str(MANY)], found[str(FEW)]
                case = f"{measure}, {n_pairs or 'all'} of {n_repetitions} × {n_voxels}"
                cells = f"{rounded(many * 1e3)} ms | {rounded(few * 1e3)} ms | {many / few:.2f}"
                print(f"| {case} | {cells} |", flush=True)
            made.append(f"| {measure} | {rounded(seconds)} s | {rounded(anonymous_mib() - before)} MiB |")
            del teachers, runs
    print(f"\n| {MANY} stimuli | making the source | anonymous memory |\n|---|---|---|")
    print("\n".join(made))


if __name__ == "__main__":
    main()
