"""Parts of a run at the same time, each in a process of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from brainrdl.failures import WorkerLostError
from brainrdl.interruption import SIGNALS, ending_on_signals, heeded, postponed, raise_if_asked
from brainrdl.run_folder import Part

_PATIENCE = 60.0  # seconds in which a process can finish its step and save
_EVERY = 0.5  # seconds between two looks at the process that started this one


class Runner(Protocol):
    """A run that can be made anew in another process."""

    def run_part(self, part: Part, title: str, show: bool = True) -> str:
        """Run one part; what to say of it."""
        ...


def in_processes(
    make: Callable[..., Runner], arguments: tuple[Any, ...], parts: list[Part], jobs: int
) -> Generator[tuple[Part, str]]:
    """Each part with what its run says, as they are done.

    make, arguments: how a process makes its run; once, so that data and teachers are loaded once for all its parts.

    When this ends early, by an error or a signal, the processes save what they are training and end; those that take
    longer than a minute, or a second Ctrl-C, are killed. When this process is killed, they save and end by themselves.
    Raises WorkerLostError where one of them was killed.
    """
    jobs = min(jobs, len(parts))
    others = set(active_children())  # of a program that calls this
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_process, (os.getpid(),)) as pool:
        try:
            with _ctrl_c_held():
                waiting = {pool.submit(_run_one, make, arguments, part): part for part in parts}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            _end_children([child for child in active_children() if child not in others])
            if isinstance(error, BrokenProcessPool):
                raise_if_asked()  # a signal to all of them has ended one that was not ready for it
                raise WorkerLostError(
                    "a process that trained was ended from outside (the system does so for want of memory); what is "
                    "finished is kept: go on with --resume, perhaps with fewer --jobs"
                ) from None
            raise


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """A block that starts processes: a terminal's Ctrl-C, which they get as well, must not meet them unprepared."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_children(children: list[BaseProcess]) -> None:
    """Let the processes save and end."""
    try:
        for child in children:
            child.terminate()
        give_up = time.monotonic() + _PATIENCE
        for child in children:
            child.join(max(0.0, give_up - time.monotonic()))
    finally:  # also by a second Ctrl-C
        for child in children:
            if child.is_alive():
                child.kill()
                child.join()


# Of a process that runs parts.
_RUNS: list[Runner] = []
_ALWAYS = ExitStack()
_BUSY = threading.Lock()  # held while a part is run


def _start_process(parent: int) -> None:
    torch.set_num_threads(1)  # each training says how many it has
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    # For as long as this process lives: between two parts there is nothing to end, the parent says so.
    _ALWAYS.enter_context(ending_on_signals(tuple(number for number in SIGNALS if number != signal.SIGINT)))
    _ALWAYS.enter_context(postponed())
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="brainrdl-parent").start()


def _watch(parent: int) -> None:
    """End this process when the one that started it is gone, which nobody else would tell."""
    while os.getppid() == parent:
        time.sleep(_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
    _BUSY.acquire(timeout=_PATIENCE)  # until the part is saved
    os._exit(1)


def _run_one(make: Callable[..., Runner], arguments: tuple[Any, ...], part: Part) -> str:
    with _BUSY, heeded():
        if not _RUNS:
            _RUNS.append(make(*arguments))
        return _RUNS[0].run_part(part, part.name, show=False)
