"""How long does an RDM figure of many stimuli take, from RDMs to a PNG of 300 dots an inch?

    python -m benchmarks.rdm_figure

Stimuli of 40 categories; with every pair measured, and with 30 % of the pairs missing (hatched); ranked and raw, one
column and two. Several rounds of all, medians. Markdown goes to stdout.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from rsatoolbox.rdm import RDMs

from benchmarks.pair_dissimilarities import machine
from brainrdl.analysis.figures import rdm
from brainrdl.analysis.figures.style import Width, figure_of, save_figure


def problem(n_stimuli: int, missing: float) -> RDMs:
    generator = np.random.default_rng(0)
    values = generator.random(n_stimuli * (n_stimuli - 1) // 2)
    values[generator.random(len(values)) < missing] = np.nan
    category = [f"category {k * 40 // n_stimuli}" for k in range(n_stimuli)]
    return RDMs(values[None], "correlation", pattern_descriptors={"category": category})


def seconds(rdms: RDMs, scale: str, width: Width, folder: Path) -> float:
    start = perf_counter()
    save_figure(figure_of(rdm.plot(rdms, scale=scale, width=width)), folder / "rdm", ["png"])
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stimuli", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cases = [
        (f"{share:.0%}", problem(arguments.stimuli, share), scale, width)
        for share in (0.0, 0.3)
        for scale in ("percentile", "raw")
        for width in ("single", "double")
    ]
    times: list[list[float]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for k, (_, rdms, scale, width) in enumerate(cases):
                times[k].append(seconds(rdms, scale, width, Path(folder)))
    print(f"One RDM of {arguments.stimuli:,} stimuli, {arguments.rounds} rounds, medians. {machine()}\n")
    print("| pairs missing | scale | width | seconds |")
    print("|---|---|---|---|")
    for (share, _, scale, width), measured in zip(cases, times, strict=True):
        print(f"| {share} | {scale} | {width} | {median(measured):.1f} |")


if __name__ == "__main__":
    main()
