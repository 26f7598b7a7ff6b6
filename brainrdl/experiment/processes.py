"""Parts of a run at the same time, each in a process of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from typing import Any, Protocol

import torch

from brainrdl.run_folder import Part


class Runner(Protocol):
    """A run that can be made anew in another process."""

    def run_part(self, part: Part, title: str, show: bool = True) -> str:
        """Run one part; what to say of it."""
        ...


def in_processes(
    make: Callable[..., Runner], arguments: tuple[Any, ...], parts: list[Part], jobs: int
) -> Iterator[tuple[Part, str]]:
    """Each part with what its run says, as they are done.

    make, arguments: how a process makes its run; once, so that data and teachers are loaded once for all its parts.
    """
    jobs = min(jobs, len(parts))
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_process) as pool:
        waiting = {pool.submit(_run_one, make, arguments, part): part for part in parts}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in active_children():
                child.terminate()
            raise


def _start_process() -> None:
    torch.set_num_threads(1)  # each training says how many it has
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


_RUNS: list[Runner] = []


def _run_one(make: Callable[..., Runner], arguments: tuple[Any, ...], part: Part) -> str:
    if not _RUNS:
        _RUNS.append(make(*arguments))
    return _RUNS[0].run_part(part, part.name, show=False)
