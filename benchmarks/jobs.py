"""How many trainings an hour: one after the other, and several at a time.

python -m benchmarks.jobs [--jobs 2] [--seeds 4] [--epochs 20] [--repeats 3]

A small experiment on scikit-learn's digits, or, with --mnist, one epoch on MNIST's 50,000 digits ($BRAINRDL_DATA).
Both ways alternate within one run; the teacher is trained beforehand and not counted, what starts a process is.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from brainrdl.experiment import RunOptions, run_experiment
from brainrdl.experiment_file import load_experiment


def main() -> None:
    """Print seconds, trainings an hour and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mnist", action="store_true")
    given = parser.parse_args()
    changes = [f"training.epochs={given.epochs}", "analysis.test_every=1000", "analysis.every=0"]
    name = "mnist" if given.mnist else "digits"
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher"
        small = ["teacher.training.epochs=1", "teacher.deformed.train=1000"]
        first = load_experiment(name, [*changes, *small, "training.epochs=1"], ["baseline"], [0])
        run_experiment(first, teacher, RunOptions(jobs=1, accelerator="cpu"))
        weights = [f"teacher.weights={teacher / 'teacher' / 'weights.safetensors'}", "teacher.training=null"]
        for repeat in range(given.repeats):
            for label, jobs, threads in (
                ("one at a time, 1 thread", 1, 1),
                (f"one at a time, {given.jobs} threads", 1, given.jobs),
                (f"{given.jobs} at a time, 1 thread each", given.jobs, 1),
            ):
                timed = load_experiment(
                    name,
                    [*changes, *weights, "teacher.deformed=null", f"training.threads={threads}"],
                    ["baseline", "rdl"],
                    list(range(given.seeds)),
                )
                start = time.perf_counter()
                run_experiment(timed, Path(folder) / f"{repeat}-{jobs}-{threads}", RunOptions(jobs=jobs))
                seconds.setdefault(label, []).append(time.perf_counter() - start)
    n_trainings = 2 * given.seeds
    medians = {label: statistics.median(times) for label, times in seconds.items()}
    slowest = next(iter(medians.values()))
    print(f"{name}: {n_trainings} trainings (baseline and RDL), {given.epochs} epochs each, {given.repeats} repeats")
    for label, median in medians.items():
        print(
            f"{label:<28}{median:8.1f} s  {3600 * n_trainings / median:8.0f} trainings an hour  "
            f"{slowest / median:5.2f} times the first"
        )


if __name__ == "__main__":
    main()
