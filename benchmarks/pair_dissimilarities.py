"""How long does the RDL term take, and how much memory, against plain autograd and `torch.cdist`?

    python -m benchmarks.pair_dissimilarities

The term is the mean squared error between predicted and target dissimilarities at sampled pairs, forward and
backward. All ways work on the same tensors in one process, in rounds of random order, so that what else the
machine does meets all of them; times are medians. Memory is the most that torch's CPU allocator held at once
during the term, beyond the patterns themselves (the gradient is in it), from torch.profiler. A last table says
what one pair costs by differences, in entries of the Gram matrix: where `_PAIR_COST` comes from. Markdown goes
to stdout; the profiler may write to stderr.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from brainrdl import dissimilarity
from brainrdl.dissimilarity import pair_dissimilarities
from brainrdl.pairs import Pairs, sample_pairs

Way = Callable[[Tensor, Pairs], Tensor]

# (n_stimuli, n_units, n_pairs): what it is
CASES = {
    (100, 2048, 500): "MNIST net, first pooling layer",
    (100, 256, 500): "MNIST net, second pooling layer",
    (100, 200, 500): "MNIST net, FC layer",
    (128, 24576, 406): "NiN, first pooling layer",
    (128, 6400, 406): "NiN, last mlpconv",
    (92, 50176, 4186): "92 objects, all pairs",
    (1024, 4096, 500): "large batch, few pairs",
    (1024, 4096, 20000): "large batch, many pairs",
}
OURS = ("euclidean", "sqeuclidean", "correlation", "cosine", "mahalanobis")
PEERS = ("gather", "cdist")

# (n_stimuli, n_units, n_pairs) at which the two ways of the kernel are compared.
CROSSOVER = [(100, 2048, 100), (300, 512, 1000), (300, 8192, 1000), (1000, 512, 5000), (1000, 4096, 5000)]


def gather(patterns: Tensor, pairs: Pairs) -> Tensor:
    """The plain way: a difference a pair, (n_pairs, n_units), and autograd."""
    return (patterns[pairs.i] - patterns[pairs.j]).square().mean(1)


def cdist(patterns: Tensor, pairs: Pairs) -> Tensor:
    """All distances at once, squared at the pairs, and autograd."""
    return torch.cdist(patterns, patterns)[pairs.i, pairs.j].square() / patterns.shape[1]


def ways(n_units: int) -> dict[str, Way]:
    """Every way that is feasible for so many units, ours first. A precision has n_units² values."""
    names = [name for name in OURS if name != "mahalanobis" or n_units <= 256]
    precision = {"precision": torch.eye(n_units)} if n_units <= 256 else {}
    ours = {
        name: partial(pair_dissimilarities, dissimilarity=name, **(precision if name == "mahalanobis" else {}))
        for name in names
    }
    return {**ours, "gather": gather, "cdist": cdist}


def term(way: Way, patterns: Tensor, pairs: Pairs, target: Tensor) -> None:
    patterns.grad = None
    (way(patterns, pairs) - target).square().mean().backward()


def peak_bytes(run: Callable[[], None]) -> int:
    """The most that was allocated at once beyond what was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(np.cumsum(sizes).max())


def problem(n_stimuli: int, n_units: int, n_pairs: int) -> tuple[Tensor, Pairs, Tensor]:
    torch.manual_seed(0)
    patterns = torch.randn(n_stimuli, n_units, requires_grad=True)
    pairs = sample_pairs(n_stimuli, n_pairs, np.random.default_rng(0))
    return patterns, pairs, torch.rand(len(pairs.i)) * 2


def median_seconds(runs: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Of every run: `seconds` of rounds in random order, at least 5 after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), Random(0).shuffle
    begin, rounds = perf_counter(), 0
    while perf_counter() - begin < seconds or rounds < 6:
        shuffle(order)
        for name in order:
            start = perf_counter()
            runs[name]()
            times[name].append(perf_counter() - start)
        rounds += 1
    return {name: median(found[1:]) for name, found in times.items()}


def measure(n_stimuli: int, n_units: int, n_pairs: int, seconds: float) -> dict[str, tuple[float, int]]:
    """Median seconds and peak bytes of every way."""
    patterns, pairs, target = problem(n_stimuli, n_units, n_pairs)
    runs = {name: partial(term, way, patterns, pairs, target) for name, way in ways(n_units).items()}
    memory = {}
    for name, run in runs.items():
        run()  # what is made once, at the first call, is not the term's
        patterns.grad = None
        memory[name] = peak_bytes(run)
    times = median_seconds(runs, seconds)
    return {name: (times[name], memory[name]) for name in runs}


def pair_cost(n_stimuli: int, n_units: int, n_pairs: int, seconds: float) -> float:
    """What a pair costs by differences, over what an entry of the Gram matrix costs."""
    patterns, pairs, target = problem(n_stimuli, n_units, n_pairs)
    usual = dissimilarity._PAIR_COST

    def run(cost: float) -> None:
        dissimilarity._PAIR_COST = cost
        term(pair_dissimilarities, patterns, pairs, target)

    try:
        times = median_seconds({"differences": partial(run, 0), "gram": partial(run, float("inf"))}, seconds)
    finally:
        dissimilarity._PAIR_COST = usual
    return (times["differences"] / n_pairs) / (times["gram"] / n_stimuli**2)


def machine() -> str:
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            processor = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return (
        f"{processor}, {torch.get_num_threads()} thread(s), {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, float32"
    )


def rounded(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def table(title: str, rows: dict[str, dict[str, float]], unit: str) -> str:
    """Every way's figure in `unit`, and how many times ours (euclidean) the others take."""
    ratios = [f"{peer} / euclidean" for peer in PEERS]
    lines = [f"| {title} | " + " | ".join([*OURS, *PEERS, *ratios]) + " |", "|---" * (1 + len(OURS) + 4) + "|"]
    for what, found in rows.items():
        cells = [f"{rounded(found[name])} {unit}" if name in found else "–" for name in [*OURS, *PEERS]]
        cells += [f"{found[peer] / found['euclidean']:.1f}" for peer in PEERS]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to repeat each case (default 5)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    times, memory = {}, {}
    for (n_stimuli, n_units, n_pairs), what in CASES.items():
        found = measure(n_stimuli, n_units, n_pairs, options.seconds)
        case = f"{n_stimuli} × {n_units}, {n_pairs} ({what})"
        times[case] = {name: seconds * 1e3 for name, (seconds, _) in found.items()}
        memory[case] = {name: n_bytes / 2**20 for name, (_, n_bytes) in found.items()}
    print(f"Machine: {machine()}.\n")
    print(table("stimuli × units, pairs: time", times, "ms") + "\n")
    print(table("stimuli × units, pairs: memory", memory, "MiB") + "\n")
    print(f"| stimuli × units | a pair costs as much as (`_PAIR_COST` = {dissimilarity._PAIR_COST}) |\n|---|---|")
    for case in CROSSOVER:
        print(f"| {case[0]} × {case[1]} | {pair_cost(*case, options.seconds):.0f} entries |", flush=True)


if __name__ == "__main__":
    main()
