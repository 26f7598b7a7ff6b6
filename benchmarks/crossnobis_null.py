"""What comes out of Haxby's slice where there is nothing to find, and how much reliability hangs on the halves?

    python -m benchmarks.crossnobis_null [--shuffles 200] [--crossfitted 40] [--halvings 100] [--seed 0]

Categories are shuffled within each run, so that crossnobis should be 0 and the RDMs of two halves of the runs should
not correlate: with the noise precision of the first-level models' residuals; with one of all trials' own repetitions;
and with those of other stimuli than are compared (`crossfitted_rdm`). Halvings are of the runs of the true RDM, drawn.
Needs $BRAINRDL_DATA with haxby2001. Prints Markdown, crossnobis distances × 1000; ± is a standard error over shuffles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from rsatoolbox.rdm import RDMs

from brainrdl.brain_rdms import measured_trials
from brainrdl.fmri.dissimilarities import crossfitted_rdm, measured_rdm, noise_precision
from brainrdl.fmri.patterns import select_trials
from brainrdl.fmri.reliability import rdm_reliability, spearman_brown
from brainrdl.fmri.spec import load_brain_spec
from brainrdl.fmri.trials import Trials

Maker = Callable[[Trials], RDMs]


def shuffled(trials: Trials, generator: np.random.Generator) -> Trials:
    """The same responses, their categories in random order within each run."""
    stimulus = trials.table.groupby("run")["stimulus"].transform(generator.permutation)
    return replace(trials, table=trials.table.assign(stimulus=stimulus))


def under_the_null(
    trials: Trials, maker: Callable[[Trials], Maker], n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of n shuffles: the RDM's mean × 1000, and the correlation of two halves' RDMs.

    maker: gives what makes an RDM of these trials, and of halves of them.
    """
    generator = np.random.default_rng(seed)
    means, halves = np.empty(n), np.empty(n)
    for k in range(n):
        drawn = shuffled(trials, generator)
        make = maker(drawn)
        means[k] = 1000 * make(drawn).dissimilarities.mean()
        halves[k] = rdm_reliability(drawn, "run", make, folds_a_half=2).halves
    return means, halves


def of_halvings(trials: Trials, make: Maker, n: int, seed: int) -> np.ndarray:
    """(n,) correlations of the RDMs of the runs' two halves, drawn at random."""
    generator = np.random.default_rng(seed)
    runs = trials.table["run"].to_numpy()
    found = np.empty(n)
    for k in range(n):
        first = np.isin(runs, generator.permutation(np.unique(runs))[: len(np.unique(runs)) // 2])
        a, b = (make(select_trials(trials, rows)).dissimilarities[0] for rows in (first, ~first))
        found[k] = np.corrcoef(a, b)[0, 1]
    return found


def told(values: np.ndarray, digits: int) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=200)
    parser.add_argument(
        "--crossfitted", type=int, default=40, help="shuffles for noise from repetitions, which is slow"
    )
    parser.add_argument("--halvings", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    spec = load_brain_spec("haxby2001")
    trials = measured_trials(spec, spec.subjects[0], next(iter(spec.rois)))
    residuals = noise_precision(trials, "residuals", spec.shrinkage)

    def of_residuals(drawn: Trials) -> RDMs:
        return measured_rdm(drawn, "crossnobis", "run", residuals)

    def of_own_repetitions(drawn: Trials) -> Maker:
        noise = noise_precision(drawn, "repetitions", spec.shrinkage)
        return lambda chosen: measured_rdm(chosen, "crossnobis", "run", noise)

    def of_others_repetitions(drawn: Trials) -> Maker:
        return lambda chosen: crossfitted_rdm(chosen, "run", spec.shrinkage)

    print("| noise precision from | shuffles | mean crossnobis × 1000 | range of the means | r of the halves' RDMs |")
    print("| --- | --- | --- | --- | --- |")
    for name, maker, n in (
        ("residuals", lambda drawn: of_residuals, asked.shuffles),
        ("repetitions of the same trials", of_own_repetitions, asked.crossfitted),
        ("repetitions of other stimuli", of_others_repetitions, asked.crossfitted),
    ):
        means, halves = under_the_null(trials, maker, n, asked.seed)
        reach = f"{means.min():.1f} … {means.max():.1f}"
        print(f"| {name} | {n} | {told(means, 2)} | {reach} | {told(halves, 2)} |", flush=True)
    r = of_halvings(trials, of_residuals, asked.halvings, asked.seed)
    low, high = np.quantile(r, [0.05, 0.95])
    print(
        f"\n{asked.halvings} halvings of the runs, categories as they are: r {r.mean():.2f} on average, {low:.2f} to "
        f"{high:.2f} for nine in ten; stepped up {spearman_brown(float(r.mean())).whole:.2f}"
    )


if __name__ == "__main__":
    main()
