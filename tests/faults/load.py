"""Does a long run, a long queue or a very large teacher need ever more? `python load.py steps|queue|sources [--out F]`.

steps: one training of 10,000 steps with every method at once, every method in turn, one long epoch, 200 epochs with
evaluations, RDMs and checkpoints. queue: 64 different experiments in one process, 8 more with two processes each, and
whether results are those of a fresh process. sources: 500 regions of 8 subjects as one teacher. Each prints a table,
writes all numbers with --out, and ends with status 1 where something grew; each takes some minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import load_runs
import load_sources
import load_steps
from load_resources import COUNTS, Growth, count, failures, own_temporary_folder, wait_for_no_child

# KiB, and objects, that a thousand steps may add: a leak of one small tensor a step would add 500 KiB and more.
A_STEP = {"rss": 64.0, "objects": 10.0}
# What an epoch remembers of a step until it ends: a row of numbers.
IN_EPOCH = {"rss": 1000.0, "objects": 100.0, "tensors": 21.0}
# A round is 36 trainings, an epoch has its row in the tables, an experiment has its libraries' caches; all a thousand.
A_ROUND = {"rss": 64_000.0, "objects": 5_000.0}
AN_EPOCH = {"rss": 32_000.0, "objects": 5_000.0}
AN_EXPERIMENT = {"rss": 100_000.0, "objects": 20_000.0}
# Seconds as n_names to this power: 2 is quadratic.
EXPONENT = 1.5


class Report:
    """What was found, line by line as it comes, and in the end as JSON."""

    def __init__(self) -> None:
        self.numbers: dict[str, Any] = {}
        self.failed: list[str] = []

    def add(self, name: str, grown: Growth, allowed: dict[str, float]) -> None:
        """Print a line of the table."""
        found = failures(grown, **allowed)
        of = "  ".join(f"{what} {grown.slope[what]:+.1f} ± {grown.error[what]:.1f}" for what in ("rss", "objects"))
        things = sum(max(0.0, grown.gained[what]) for what in (*COUNTS, "tensors"))
        print(f"{name:34} a thousand: {of}; things more: {things:g}  {'GREW' if found else 'ok'}", flush=True)
        self.say(name, grown.told(), found)

    def say(self, name: str, value: Any, found: list[str]) -> None:
        """Keep a value, and what is wrong with it."""
        self.numbers[name] = value
        self.failed += [f"{name}: {what}" for what in found]

    def write(self, out: Path | None) -> None:
        """All numbers to a file."""
        if out is not None:
            out.write_text(json.dumps({**self.numbers, "failed": self.failed}, indent=1) + "\n", encoding="utf-8")


def steps(report: Report, folder: Path, small: bool) -> None:
    """Trainings."""
    n, warm_up = (300, 200) if small else (10_000, 500)
    left = load_steps.left_behind(20 if small else 100, folder / "left")
    more = [f"{name} +{value:g}" for name, value in left.items() if value > 0]
    print(f"{'after a training':34} things more: {sum(max(0, value) for value in left.values()):g}", flush=True)
    report.say("after a training", left, more)
    report.add(f"{n} steps, all methods at once", load_steps.all_at_once(n, warm_up, folder), A_STEP)
    report.add("every method in turn, rounds", load_steps.in_turn(3 if small else 12, 4 if small else 10), A_ROUND)
    report.add("within one epoch", load_steps.one_epoch(500 if small else 3000), IN_EPOCH)
    report.add("epochs with all that is kept", load_runs.epochs(5 if small else 200, folder), AN_EPOCH)


def queue(report: Report, folder: Path, small: bool) -> None:
    """Experiments."""
    n, n_reports, n_processes, n_fresh = (4, 2, 2, 1) if small else (64, 16, 8, 4)
    report.add(f"{n} experiments in one process", load_runs.queue(n, n_reports, folder / "queue"), AN_EXPERIMENT)
    grown = load_runs.queue_with_processes(n_processes + 1, folder / "jobs")
    report.add("the same, two processes each", grown, AN_EXPERIMENT)
    done = sorted(folder.glob("queue/run-*"), key=lambda path: int(path.name.partition("-")[2]))[-n_fresh:]
    done += sorted(folder.glob("jobs/jobs-*"))[-1:]
    differing = {run.name: load_runs.as_fresh(run / "run", folder / "fresh" / run.name) for run in done}
    n_alike = sum(not names for names in differing.values())
    print(f"{'as in a fresh process':34} {n_alike} of {len(done)}, bit for bit", flush=True)
    report.say(
        "as in a fresh process", differing, [f"{run} differs: {names}" for run, names in differing.items() if names]
    )


def sources(report: Report, folder: Path, small: bool) -> None:
    """Teachers with very many names."""
    load_sources.one_thread()
    sizes, n_steps = ((2, 4, 8), 4) if small else ((125, 250, 500), 50)
    costs = [load_sources.cost(n, 8, n_steps, folder) for n in sizes]
    for what in costs[-1].seconds:
        row = "  ".join(f"{cost.seconds[what]:8.2f}" for cost in costs)
        print(f"{what:34} s of {', '.join(str(cost.n_names) for cost in costs)} names: {row}", flush=True)
    print(f"{'largest memory':34} MiB: {'  '.join(f'{cost.largest_mib:8.0f}' for cost in costs)}")
    powers = load_sources.exponents(costs)
    steep = [f"{what}: seconds as n^{power:.2f}" for what, power in powers.items() if power > EXPONENT]
    report.say("sources", {"costs": [cost._asdict() for cost in costs], "exponents": powers}, steep)


COMMANDS: dict[str, Callable[[Report, Path, bool], None]] = {"steps": steps, "queue": queue, "sources": sources}


def main(words: list[str]) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--out", type=Path, help="a JSON file of all numbers")
    parser.add_argument("--small", action="store_true", help="in seconds, to try it")
    given = parser.parse_args(words)
    report, begin = Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as place, own_temporary_folder(Path(place) / "tmp"):
        before = count()
        COMMANDS[given.what](report, Path(place), given.small)
        left = wait_for_no_child()
        after = count()
    orphans = [f"{left} child processes are left"] if left else []
    report.say("threads", {"before": before.threads, "after": after.threads, "children": left}, orphans)
    report.write(given.out)
    print(f"{time.monotonic() - begin:.0f} s; " + ("; ".join(report.failed) or "nothing grew"))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
