"""How long does the RDL term take, and how much memory, beside other people's ways, and how near is the memory's limit?

    python -m benchmarks.pair_dissimilarities [--grid small] [--threads 2] [--repdistiller DIR] [--orbit-transfer DIR]
        [--metric-learning DIR]

The term is the mean squared error between predicted and target dissimilarities at sampled pairs, forward and backward.
Its peers are gather-and-subtract and `torch.cdist`, by autograd, rsatoolbox's `calc_rdm` (all pairs in float64, no
gradient) and, from checkouts, RepDistiller's RKD distance and SP losses, orbit_transfer's RDL and
pytorch-metric-learning's distances. RKD, SP and orbit_transfer compute the teacher's relations in each call, as they
do in training; "ours, teacher too" does the same. All work on the same tensors in one process, in rounds of random
order, so that what else the machine does meets all of them; times are medians. Memory is the most that was allocated at
once beyond the patterns (the gradient is in it): on the CPU from torch.profiler. The memory's limit is the time to read
the patterns twice and to write as much once. What would take more than some seconds a run is left out.

A last table says what one pair costs where its product alone is computed, in entries of the matrix of all products:
where `_PAIR_COST` comes from. Markdown goes to stdout; the profiler may write to stderr.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from math import comb
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import peers
from benchmarks.peers import Peer, Problem
from brainrdl import pair_distances
from brainrdl.dissimilarity import DISSIMILARITIES, dissimilarities, transform_patterns
from brainrdl.pairs import sample_pairs
from brainrdl.training.freed_memory import keep_freed_memory

OURS, WITH_TEACHER, LIMIT = "ours", "ours, teacher too", "limit"

# What it is, of which the documentation tells: (n_stimuli, n_units, n_pairs).
CASES = {
    "MNIST net, first pooling layer": (100, 2048, 500),
    "MNIST net, second pooling layer": (100, 256, 500),
    "MNIST net, FC layer": (100, 200, 500),
    "NiN, first pooling layer": (128, 24576, 406),
    "NiN, last mlpconv": (128, 6400, 406),
    "92 objects, all pairs": (92, 50176, 4186),
    "large batch, few pairs": (1024, 4096, 500),
    "large batch, many pairs": (1024, 4096, 20000),
}
N_STIMULI, N_UNITS = (32, 128, 512, 1024, 4096), (64, 1024, 4096, 24576, 200_000)

# What is tried takes at most so many bytes of patterns, bytes a tensor of pairs × units, and multiplications.
LARGEST_PATTERNS, LARGEST_GATHERED, MOST_PRODUCTS = 420 << 20, 1 << 30, 8e10

# (n_stimuli, n_units, n_pairs) at which the two ways of the kernel are compared.
CROSSOVER = [(100, 2048, 500), (128, 24576, 500), (512, 1024, 5000), (1024, 4096, 20000)]


def grid(size: str) -> Iterator[tuple[int, int, int]]:
    """(n_stimuli, n_units, n_pairs); 50 pairs, four a stimulus, all."""
    if size == "cases":
        yield from CASES.values()
        return
    for n_stimuli, n_units in product(N_STIMULI, N_UNITS):
        if n_stimuli * n_units * 4 > LARGEST_PATTERNS or (size == "small" and n_stimuli in (512, 4096)):
            continue
        for n_pairs in (50, 4 * n_stimuli, comb(n_stimuli, 2)):
            if n_pairs < 8 * n_stimuli or n_stimuli**2 * n_units <= MOST_PRODUCTS:
                yield n_stimuli, n_units, n_pairs


def ways(problem: Problem, name: str, options: argparse.Namespace) -> dict[str, Peer]:
    """Ours, then every other that is feasible for the problem."""
    n_units = problem.n_units
    root = torch.linalg.cholesky(torch.eye(n_units, device=options.device)) if name == "mahalanobis" else None

    def ours(problem: Problem) -> None:
        problem.learn(dissimilarities(transform_patterns(problem.patterns, name, root), problem.pairs))

    def with_teacher(problem: Problem) -> None:
        target = dissimilarities(transform_patterns(problem.teacher, name, root), problem.pairs)
        values = dissimilarities(transform_patterns(problem.patterns, name, root), problem.pairs)
        problem.descend((values - target).square().mean())

    others = peers.by_hand(name, root)
    if name in ("euclidean", "correlation", "mahalanobis") and options.device == "cpu":
        others.update(peers.rsatoolbox(name))
    if options.repdistiller and name == "euclidean":
        others.update(peers.repdistiller(options.repdistiller))
    if options.orbit_transfer and name in ("euclidean", "correlation"):
        others.update(peers.orbit_transfer(options.orbit_transfer, name))
    if options.metric_learning and name in ("euclidean", "cosine"):
        others.update(peers.metric_learning(options.metric_learning, name))
    feasible = {
        peer: way
        for peer, way in others.items()
        if (
            problem.n_pairs * n_units * 4 <= LARGEST_GATHERED
            if way.of_pairs
            else problem.n_stimuli**2 * n_units <= MOST_PRODUCTS
        )
    }
    return {OURS: Peer(ours), WITH_TEACHER: Peer(with_teacher), **feasible}


def at_the_limit(problem: Problem, room: torch.Tensor) -> None:
    """Read the patterns twice, write as much once."""
    patterns = problem.patterns.detach()
    patterns.sum()
    patterns.sum()
    room.zero_()


def peak_bytes(run: Callable[[], None], device: str) -> int:
    """The most that was allocated at once beyond what was before."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(np.cumsum(sizes).max())


def median_seconds(
    runs: dict[str, Callable[[], None]], seconds: float, device: str = "cpu", at_least: int = 3
) -> dict[str, float]:
    """Of every run: `seconds` of rounds in random order, some at least after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), Random(0).shuffle
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    begin, rounds = perf_counter(), 0
    while perf_counter() - begin < seconds or rounds < at_least + 1:
        shuffle(order)
        for name in order:
            wait()
            start = perf_counter()
            runs[name]()
            wait()
            times[name].append(perf_counter() - start)
        rounds += 1
    return {name: median(found[1:]) for name, found in times.items()}


def measure(
    case: tuple[int, int, int], name: str, options: argparse.Namespace
) -> tuple[dict[str, float], dict[str, int]]:
    """Median seconds, of the memory's limit too, and peak bytes of every way."""
    n_stimuli, n_units, n_pairs = case
    problem = Problem(n_stimuli, n_units, sample_pairs(n_stimuli, n_pairs, np.random.default_rng(0)), options.device)
    runs: dict[str, Callable[[], None]] = {
        way: partial(peer.run, problem) for way, peer in ways(problem, name, options).items()
    }
    memory = {}
    for way in (OURS, "gather"):
        if way in runs:
            runs[way]()  # what is made once, at the first call, is not the term's
            problem.patterns.grad = None
            memory[way] = peak_bytes(runs[way], options.device)
    room = torch.empty_like(problem.patterns)
    runs[LIMIT] = partial(at_the_limit, problem, room)
    return median_seconds(runs, options.seconds, options.device), memory


def pair_cost(case: tuple[int, int, int], options: argparse.Namespace) -> float:
    """What a pair costs by itself, over what an entry of the matrix of all products costs."""
    n_stimuli, n_units, n_pairs = case
    problem = Problem(n_stimuli, n_units, sample_pairs(n_stimuli, n_pairs, np.random.default_rng(0)), options.device)
    choose = pair_distances.choose_way
    by_itself = pair_distances.PRODUCTS_OF_PAIRS if options.device == "cpu" else pair_distances.DIFFERENCES

    def run(way: pair_distances.Way) -> None:
        pair_distances.choose_way = lambda rows, n_pairs: way
        problem.learn(dissimilarities(transform_patterns(problem.patterns, "euclidean"), problem.pairs))

    runs = {"pairs": partial(run, by_itself), "all": partial(run, pair_distances.ALL_PRODUCTS)}
    try:
        times = median_seconds(runs, options.seconds, options.device, at_least=9)
    finally:
        pair_distances.choose_way = choose
    return (times["pairs"] / n_pairs) / (times["all"] / n_stimuli**2)


def machine(device: str = "cpu") -> str:
    """The processor, its threads and the versions."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            processor = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    card = "" if device == "cpu" else f"{torch.cuda.get_device_name()}, "
    return (
        f"{card}{processor}, {torch.get_num_threads()} thread(s), {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, float32"
    )


def rounded(number: float) -> str:
    """Three digits."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", choices=("cases", "small", "full"), default="cases")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to repeat each case (default 1)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dissimilarities", nargs="+", default=list(DISSIMILARITIES), choices=list(DISSIMILARITIES))
    parser.add_argument("--repdistiller", type=Path, help="checkout of HobbitLong/RepDistiller")
    parser.add_argument("--orbit-transfer", type=Path, help="checkout of sinzlab/orbit_transfer")
    parser.add_argument("--metric-learning", type=Path, help="folder that holds pytorch_metric_learning")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cpu":
        keep_freed_memory()  # as the trainer does
    print(f"Machine: {machine(options.device)}.\n", flush=True)
    what = {case: name for name, case in CASES.items()}
    ratios: dict[tuple[str, str], list[float]] = {}
    for name in options.dissimilarities:
        names: list[str] = []
        lines = []
        for case in grid(options.grid):
            if name == "mahalanobis" and case[1] > 1024:
                continue
            times, memory = measure(case, name, options)
            names += [way for way in times if way not in (*names, OURS, LIMIT)]
            for way, seconds in times.items():
                if way not in (OURS, LIMIT):
                    ratios.setdefault((name, way), []).append(seconds / times[OURS])
            label = f"{case[0]} × {case[1]}, {case[2]}" + (f" ({what[case]})" if case in what else "")
            beyond = memory[OURS] / (case[0] * case[1] * 4)
            row = [label, f"{rounded(times[OURS] * 1e3)} ms", f"{times[LIMIT] / times[OURS]:.1%}", f"{beyond:.2f}"]
            lines.append((row, {way: seconds / times[OURS] for way, seconds in times.items()}))
        heads = ["stimuli × units, pairs", OURS, "of the memory's limit", "memory / patterns", *names]
        print(f"### {name}: times ours\n\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
        for row, found in lines:
            print("| " + " | ".join([*row, *(rounded(found[way]) if way in found else "–" for way in names)]) + " |")
        print(flush=True)
    print(
        "| dissimilarity | beside | cases | median ratio | smallest | cases below 1 / 1.05 |\n|---|---|---|---|---|---|"
    )
    for (name, way), found in ratios.items():
        slower = sum(ratio < 1 / 1.05 for ratio in found)
        print(f"| {name} | {way} | {len(found)} | {median(found):.1f} | {min(found):.2f} | {slower} |")
    print(f"\n| stimuli × units, pairs | a pair costs as much as (`_PAIR_COST` = {pair_distances._PAIR_COST:g}) |")
    print("|---|---|")
    for case in CROSSOVER:
        print(f"| {case[0]} × {case[1]}, {case[2]} | {pair_cost(case, options):.1f} entries |", flush=True)


if __name__ == "__main__":
    main()
