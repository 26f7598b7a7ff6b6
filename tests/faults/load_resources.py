"""What a process holds, counted, and how it grows from one count to the next."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from scipy.stats import linregress
from torch import nn

# Where a module keeps its hooks, of every kind that torch knows.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
_HOOKS += ("_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


@dataclass(frozen=True)
class Resources:
    """rss: KiB. objects: that the garbage collector follows. tensors, tensor_kib: all that are alive. files: open.

    hooks: on the networks asked about, and those that torch keeps for all modules. threads: of the system, not of
    Python alone. children: processes. temporary: files in the temporary folder. handlers: of all loggers. figures: that
    pyplot keeps. shared: pieces of shared memory that are mapped (semaphores of multiprocessing among them).
    """

    rss: float
    objects: int
    tensors: int
    tensor_kib: float
    files: int
    hooks: int
    threads: int
    children: int
    temporary: int
    handlers: int
    figures: int
    shared: int


# What is a number of things: of these not one may be more after the work than before it.
COUNTS = ("files", "hooks", "threads", "children", "temporary", "handlers", "figures", "shared")


def count(networks: Iterable[nn.Module] = ()) -> Resources:
    """What this process holds now, after a garbage collection."""
    gc.collect()
    alive = [one for one in gc.get_objects() if type(one) is not Resources]
    tensors = [one for one in alive if issubclass(type(one), torch.Tensor)]
    # A sparse one has no storage of its own, nor has one of another class, which compiling leaves.
    dense = [one for one in tensors if type(one) in (torch.Tensor, nn.Parameter) and one.layout == torch.strided]
    stores = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in dense}
    counted = Resources(
        rss=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024,
        objects=len(alive),
        tensors=len(tensors),
        tensor_kib=sum(stores.values()) / 1024,
        files=len(os.listdir("/proc/self/fd")),
        hooks=sum(map(n_hooks, networks)) + n_hooks(None),
        threads=len(os.listdir("/proc/self/task")),
        children=n_children(),
        temporary=sum(len(files) for _, _, files in os.walk(tempfile.gettempdir())),
        handlers=_n_handlers(),
        figures=_n_figures(),
        shared=_read(Path("/proc/self/maps")).count("/dev/shm/"),
    )
    del alive, tensors
    return counted


def n_hooks(network: nn.Module | None) -> int:
    """Hooks on all parts of a network; None: those that torch keeps for every module."""
    if network is None:
        known = vars(torch.nn.modules.module)
        return sum(len(known[f"_global{name}"]) for name in _HOOKS if f"_global{name}" in known)
    return sum(len(getattr(part, name, ())) for part in network.modules() for name in _HOOKS)


PASSED_OVER: set[int] = set()  # children that are not counted: of other work in this process


def children() -> set[int]:
    """Processes that this one has started and that are not gone, zombies among them; without multiprocessing's own."""
    threads = Path("/proc/self/task").glob("*/children")
    found = {int(child) for of_thread in threads for child in _read(of_thread).split()}
    # Python starts one process that looks after what its processes share, and keeps it to its own end.
    return {one for one in found if "multiprocessing.resource_tracker" not in _read(Path(f"/proc/{one}/cmdline"))}


def n_children() -> int:
    """How many there are, but for those that are passed over."""
    return len(children() - PASSED_OVER)


def wait_for_no_child(seconds: float = 20.0) -> int:
    """How many children are left, once they had this long to end."""
    end = time.monotonic() + seconds
    while n_children() and time.monotonic() < end:
        time.sleep(0.05)
    return n_children()


@contextmanager
def own_temporary_folder(folder: Path):
    """Inside, temporary files of this process and its children go to `folder`, where they can be counted."""
    folder.mkdir(parents=True, exist_ok=True)
    before, named = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR")
        if named is not None:
            os.environ["TMPDIR"] = named


@dataclass(frozen=True)
class Growth:
    """Of each resource, by name: slope a thousand units of work, its standard error, and last count less first."""

    slope: dict[str, float]
    error: dict[str, float]
    gained: dict[str, float]
    n: int

    def told(self) -> dict[str, Any]:
        return asdict(self)


def growth(done: Sequence[float], counted: Sequence[Resources]) -> Growth:
    """The least-squares line of each resource over the work `done`. Counts that are not from the same run do not fit.

    Raises ValueError for fewer than 3 counts, which have no standard error.
    """
    if len(counted) < 3 or len(done) != len(counted):
        raise ValueError(f"growth: expected at least 3 counts, one a place, got {len(counted)} at {len(done)}")
    slope, error, gained = {}, {}, {}
    for name in (field.name for field in fields(Resources)):
        values = [float(getattr(one, name)) for one in counted]
        line = linregress(done, values)
        slope[name] = 1000 * float(line.slope)
        error[name] = 1000 * float(line.stderr) if any(values) and values != values[:1] * len(values) else 0.0
        gained[name] = values[-1] - values[0]
    return Growth(slope, error, gained, len(counted))


def failures(grown: Growth, rss: float, objects: float, tensors: float = 0.0) -> list[str]:
    """What grew. rss: the KiB, objects, tensors: the number a thousand units of work that are allowed.

    A slope counts where it is larger than that by more than twice its standard error; counts of things must not grow.
    """
    found = [f"{name} +{grown.gained[name]:g}" for name in COUNTS if grown.gained[name] > 0]
    for name, allowed in (("rss", rss), ("objects", objects), ("tensors", tensors)):
        if grown.slope[name] - 2 * grown.error[name] > allowed:
            found.append(f"{name} {grown.slope[name]:+.1f} ± {grown.error[name]:.1f} a thousand, allowed {allowed:g}")
    return found


def repeated(work: Callable[[int], Any], n: int, networks: Iterable[nn.Module] = (), warm_up: int = 1) -> Growth:
    """The growth over n calls of `work`, after `warm_up` more."""
    networks = list(networks)
    counted = []
    for k in range(warm_up + n):
        work(k)
        if k >= warm_up:
            counted.append(count(networks))
    return growth(range(n), counted)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the thread is gone
        return ""


def _n_handlers() -> int:
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    return sum(len(logger.handlers) for logger in loggers)


def _n_figures() -> int:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return 0 if pyplot is None else len(pyplot.get_fignums())
