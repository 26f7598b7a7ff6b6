"""How long until the command line answers, and until the demo takes its first training step?

    python -m benchmarks.start_up [--repeats 5]

Each is a process of its own, from its start on, the interpreter's own start included; medians. The first step is when
an optimizer has first taken one, the demo's own files in a temporary folder. What else takes the time of an import:
`python -X importtime -c "import brainrdl"`. Prints Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from statistics import median
from time import perf_counter

from benchmarks.pair_dissimilarities import machine

# Ends the process at the first step of any optimizer.
FIRST_STEP = """
import os, sys
from brainrdl.cli import app
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(0))
app(["demo", "--out", sys.argv[1]], standalone_mode=False)
sys.exit("the demo took no step")
"""

# what: the arguments of Python, and the bound in seconds
CASES = {
    "python -c pass": (["-c", "pass"], None),
    "import brainrdl": (["-c", "import brainrdl"], 0.3),
    "brainrdl --help": (["-m", "brainrdl", "--help"], 0.3),
    "brainrdl --version": (["-m", "brainrdl", "--version"], 0.3),
    "brainrdl demo, first training step": (["-c", FIRST_STEP], 10.0),
}


def seconds(arguments: list[str]) -> float:
    """Of one process, which must end well."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *arguments]
        command += [f"{folder}/run"] if FIRST_STEP in arguments else []
        begin = perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return perf_counter() - begin


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"Machine: {machine()}.\n")
    print("| process | seconds | slowest | at most |")
    print("|---|---|---|---|")
    for case, (arguments, bound) in CASES.items():
        times = [seconds(arguments) for _ in range(options.repeats + 1)][1:]  # the first one reads from the disk
        print(f"| {case} | {median(times):.2f} | {max(times):.2f} | {bound or ''} |", flush=True)


if __name__ == "__main__":
    main()
