"""How long does a second-order MDS take, and what of it are rsatoolbox's comparisons?

    python -m benchmarks.second_order

60 RDMs of 100 stimuli, 20 bootstrap samples: all of `second_order_mds`, metric and non-metric, and rsatoolbox's
`compare` alone on the same samples, in one process. RDMs are of networks' kind: one structure in all, noise in each.
Markdown goes to stdout.
"""

from __future__ import annotations

import argparse
from functools import partial
from time import perf_counter

import numpy as np
from rsatoolbox.rdm import RDMs, compare

from benchmarks.pair_dissimilarities import machine
from brainrdl.analysis.second_order import second_order_mds

COMPARISONS = ("correlation", "spearman", "rho-a")


def problem(n_rdms: int, n_stimuli: int) -> RDMs:
    generator = np.random.default_rng(0)
    common = generator.normal(size=(n_stimuli, 20))
    i, j = np.triu_indices(n_stimuli, 1)
    vectors = []
    for _ in range(n_rdms):
        patterns = common + generator.uniform(0.2, 2) * generator.normal(size=common.shape)
        vectors.append(((patterns[i] - patterns[j]) ** 2).sum(1))
    return RDMs(np.stack(vectors))


def compare_alone(rdms: RDMs, comparison: str, n_bootstrap: int) -> None:
    """rsatoolbox's part: its samples and its comparisons."""
    generator = np.random.default_rng(0)
    for _ in range(n_bootstrap):
        sample = rdms.subsample_pattern("index", generator.integers(rdms.n_cond, size=rdms.n_cond))
        compare(sample, sample, method="corr" if comparison == "correlation" else comparison)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rdms", type=int, default=60)
    parser.add_argument("--stimuli", type=int, default=100)
    parser.add_argument("--samples", type=int, default=20)
    arguments = parser.parse_args()
    rdms = problem(arguments.rdms, arguments.stimuli)
    print(f"{arguments.rdms} RDMs of {arguments.stimuli} stimuli, {arguments.samples} samples. {machine()}\n")
    print("| comparison | metric (s) | non-metric (s) | rsatoolbox's samples and comparisons alone (s) |")
    print("|---|---|---|---|")
    compare_alone(rdms, "correlation", 1)  # imports
    for comparison in COMPARISONS:
        runs = [
            partial(second_order_mds, rdms, comparison, n_bootstrap=arguments.samples),
            partial(second_order_mds, rdms, comparison, n_bootstrap=arguments.samples, metric=False),
            partial(compare_alone, rdms, comparison, arguments.samples),
        ]
        times = []
        for run in runs:
            start = perf_counter()
            run()
            times.append(perf_counter() - start)
        print(f"| {comparison} | " + " | ".join(f"{seconds:.1f}" for seconds in times) + " |")


if __name__ == "__main__":
    main()
