"""Do the RDMs of 10,000 stimuli and large layers fit in 8 GiB, and how long do all pairs take beside rsatoolbox?

    python -m benchmarks.network_rdms [--seconds 60] [--threads 1]

The network is a random projection of small images, so that time and memory are those of keeping patterns and comparing
them. Each case runs in a process of its own, whose peak is VmHWM (Linux: all pages in memory, those of mapped files
among them), from the start of Python on; "in a file" is what did not fit into `memory`, 2 GiB. The RDMs themselves, in
float64, are in the peak. Then `all_pair_dissimilarities` and rsatoolbox's `calc_rdm` work on the same patterns of 2,000
stimuli × 4,096 units in one process, in rounds of random order; times are medians. The temporary files take 6 GB.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from time import perf_counter

import numpy as np
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm
from torch import Tensor, nn

from benchmarks.pair_dissimilarities import machine, median_seconds, rounded
from brainrdl.analysis import network_rdms
from brainrdl.analysis.all_pairs import all_pair_dissimilarities
from brainrdl.stimuli import Stimuli

STIMULI = 10_000
MEMORY = 2.0  # GiB

# units of each layer
CASES = {
    "25,088 (VGG-16's last pooling layer)": [25_088],
    "50,000 and 50,000": [50_000, 50_000],
    "25,088 and 100,000": [25_088, 100_000],
}


class Projections(nn.Module):
    """Layers that are random projections of 8 × 8 images."""

    def __init__(self, units: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, n) for n in units)

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            layer(images.flatten(1))
        return images.mean((1, 2, 3))


def peak_gib() -> float:
    """The most this process has held in memory at once."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20


def run_case(units: list[int], threads: int | None) -> None:
    """Make the RDMs and print what it took, as JSON."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = Projections(units)
    stimuli = Stimuli(torch.rand(STIMULI, 1, 8, 8), tuple(f"stimulus-{k:05d}" for k in range(STIMULI)))
    before, start = peak_gib(), perf_counter()
    rdms = network_rdms(network, [f"layers.{k}" for k in range(len(units))], stimuli, "correlation", memory=MEMORY)
    seconds = perf_counter() - start
    print(json.dumps({"before": before, "peak": peak_gib(), "seconds": seconds, "rdms": rdms.dissimilarities.nbytes}))


def in_file(units: list[int]) -> float:
    """GiB of the layers that do not fit into memory."""
    left, spilled = MEMORY, 0.0
    for size in (4 * STIMULI * n / 2**30 for n in units):
        if size <= left:
            left -= size
        else:
            spilled += size
    return spilled


def compare(measure: str, seconds: float) -> str:
    """A row of the table: both ways on the same patterns, and by how much they differ."""
    patterns = torch.randn(2000, 4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dataset = Dataset(patterns.numpy())
    found = median_seconds(
        {
            "ours": lambda: all_pair_dissimilarities(patterns, measure),
            "rsatoolbox": lambda: calc_rdm(dataset, method=measure),
        },
        seconds,
    )
    theirs = calc_rdm(dataset, method=measure).dissimilarities[0]
    difference = np.abs(all_pair_dissimilarities(patterns, measure) - theirs).max()
    ours, other = found["ours"], found["rsatoolbox"]
    return f"| {measure} | {rounded(ours)} s | {rounded(other)} s | {other / ours:.1f} | {difference:.1g} |"


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to repeat each comparison (default 60)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--units", type=json.loads, help=argparse.SUPPRESS)  # of one case, in its own process
    options = parser.parse_args()
    if options.units:
        run_case(options.units, options.threads)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"Machine: {machine()}.\n")
    print(f"| {STIMULI} stimuli × units | patterns | in a file | RDMs | peak memory | seconds |")
    print("|---|---|---|---|---|---|")
    for case, units in CASES.items():
        command = [sys.executable, "-m", "benchmarks.network_rdms", "--units", json.dumps(units)]
        command += ["--threads", str(options.threads)] if options.threads else []
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        cells = [4 * STIMULI * sum(units) / 2**30, in_file(units), found["rdms"] / 2**30, found["peak"]]
        print(f"| {case} | {' | '.join(f'{gib:.2f} GiB' for gib in cells)} | {found['seconds']:.0f} |", flush=True)
    print("\n| 2000 × 4096 | ours | rsatoolbox | rsatoolbox / ours | largest difference |\n|---|---|---|---|---|")
    for measure in ("correlation", "euclidean"):
        print(compare(measure, options.seconds), flush=True)


if __name__ == "__main__":
    main()
