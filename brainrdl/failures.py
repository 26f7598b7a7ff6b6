"""Several processes of one run: where one fails all of them end, and the user reads why once."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NoReturn, Protocol

PARENT = "BRAINRDL_PARENT"  # process id of who starts the others of a machine, for them to read
_FAILED = "brainrdl/failed"
_EVERY = 0.5  # seconds between two looks at the others
_PATIENCE = 4.0  # seconds in which the process that failed first can say so
_GRACE = 30.0  # seconds that others may still run when the process that started them has ended


class WorkerLostError(RuntimeError):
    """A process that ran a part of the work was ended from outside."""


class Store(Protocol):
    """What the processes share: of `torch.distributed.TCPStore`."""

    def add(self, key: str, amount: int, /) -> int: ...
    def set(self, key: str, value: str, /) -> None: ...
    def get(self, key: str, /) -> bytes: ...
    def check(self, keys: list[str], /) -> bool: ...


class _Watch(threading.Thread):
    """Looks at the others now and then, whatever the program is doing: it may wait for one that is gone."""

    def __init__(self, store: Store, rank: int, world_size: int, started: Sequence[subprocess.Popen[Any]]) -> None:
        super().__init__(daemon=True, name="brainrdl-failures")
        self.store, self.rank, self.world_size, self.started = store, rank, world_size, started
        self.parent = os.getppid() if os.environ.get(PARENT) == str(os.getppid()) else None
        self.failing = threading.Event()
        self.store_is_there = True  # until whoever holds it has ended
        self.is_first = False

    def run(self) -> None:
        """Until this process fails or ends."""
        if self.parent is not None:
            # A thread of its own: a question to the store can take minutes to fail when its holder is gone.
            threading.Thread(target=self.watch_parent, daemon=True, name="brainrdl-parent").start()
        while not self.failing.wait(_EVERY):
            self.look()

    def watch_parent(self) -> None:
        """Look at the process that started this one, until this process fails or ends."""
        while not self.failing.wait(_EVERY):
            self.look_at_parent()

    def look(self) -> None:
        """End this process where another has failed."""
        status = self.told()
        if status is None:
            self.look_at_started()
        elif not self.failing.is_set():
            self.end(status)

    def look_at_parent(self) -> None:
        """End this process where the one that started it is gone: it waits for those it has started."""
        if self.parent is not None and os.getppid() != self.parent:
            if os.environ.get("LOCAL_RANK") == "1":  # one of all
                print(f"error: process {self.rank - 1} of {self.world_size} is gone; all were stopped", file=sys.stderr)
            _flush()
            os._exit(1)

    def look_at_started(self) -> None:
        """End this process where one that it has started is gone, and may have been too quick to say why."""
        for rank, process in enumerate(self.started, start=self.rank + 1):
            status = process.poll()
            if status:
                if self.first(max(status, 1)):
                    how = f"was ended by {_signal(-status)}" if status < 0 else f"ended with status {status}"
                    print(f"error: process {rank} of {self.world_size} {how}; all were stopped", file=sys.stderr)
                self.end(self.told() or 1)

    def told(self) -> int | None:
        """With which status a process ends that has failed; None where none has said so."""
        try:
            if self.store_is_there and self.store.check([_FAILED]):
                return int(self.store.get(_FAILED))
        except RuntimeError:
            self.store_is_there = False
        return None

    def first(self, status: int) -> bool:
        """Tell the others that this process ends; whether none has done so before."""
        try:
            self.is_first = not self.store_is_there or self.store.add(f"{_FAILED}/number", 1) == 1
            if self.is_first and self.store_is_there:
                self.store.set(_FAILED, str(status))
        except RuntimeError:
            self.store_is_there, self.is_first = False, True
        return self.is_first

    def end(self, status: int) -> NoReturn:
        """End this process and those it has started, which first may say what they have to say."""
        give_up = time.monotonic() + _PATIENCE
        while time.monotonic() < give_up and all(process.poll() is None for process in self.started) and self.started:
            time.sleep(_EVERY / 5)
        _terminate(self.started)
        _flush()
        os._exit(status)

    def leave(self) -> None:
        """At this process's own end: let those it has started come to theirs, and look no more."""
        if self.started:
            self.wait()
        self.failing.set()
        self.join()  # else Python ends it within a call of torch, and the process with it

    def wait(self) -> None:
        """Let those that this process has started come to their end."""
        give_up = time.monotonic() + _GRACE
        while time.monotonic() < give_up and any(process.poll() is None for process in self.started):
            time.sleep(_EVERY / 10)
        late = [k for k, process in enumerate(self.started, start=self.rank + 1) if process.poll() is None]
        if late:
            print(
                f"error: process {late[0]} of {self.world_size} still ran {_GRACE:.0f} s after process {self.rank} had "
                "ended, and was stopped",
                file=sys.stderr,
            )
            self.end(1)
        self.look_at_started()


_watches: list[_Watch] = []  # none, or that of this process


def watch(store: Store, rank: int, world_size: int, started: Sequence[subprocess.Popen[Any]] = ()) -> None:
    """Look from now on whether another process of the run has failed, and end with it; once is enough.

    started: the processes that this one has started. An error that nobody catches is told by the first process that
    meets one; in the others it is mostly that the first has gone.
    """
    if _watches:
        return
    _watches.append(_Watch(store, rank, world_size, started))
    _watches[0].start()
    atexit.register(_watches[0].leave)
    before = sys.excepthook

    def told_once(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if tells(error, 1):
            before(kind, error, trace)
        stop(1)

    sys.excepthook = told_once


def tells(error: BaseException, status: int) -> bool:
    """Whether this process is to tell the user of the error that it ends with: the first of a run is, and one alone.

    Where it may well follow from another process's end, that one is given some seconds to say so.
    """
    if not _watches:
        return True
    _watches[0].failing.set()
    if isinstance(error, RuntimeError):  # as torch raises where a connection is lost
        give_up = time.monotonic() + _PATIENCE
        while time.monotonic() < give_up:
            time.sleep(_EVERY / 5)
            _watches[0].look_at_parent()
            _watches[0].look_at_started()
            if _watches[0].told() is not None:
                return False
    return _watches[0].first(status)


def stop(status: int) -> None:
    """End this process, after what it had to say, and all others of the run; nothing where there are no others.

    status: of the run, where this process was the first to fail.
    """
    if not _watches:
        return
    if not _watches[0].is_first:
        _watches[0].end(_watches[0].told() or status)
    _flush()
    if not _watches[0].started:
        time.sleep(2 * _EVERY)  # who holds the store must hold it until the others have looked
    _terminate(_watches[0].started)
    os._exit(status)


def _terminate(started: Sequence[subprocess.Popen[Any]]) -> None:
    # Nobody waits for the others any more, so they could not finish their step; only the first process writes files.
    for process in started:
        process.kill()
    for process in started:
        process.wait()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _signal(number: int) -> str:
    names = {one.value: one.name for one in signal.Signals}
    why = " (the system does so for want of memory)" if number == signal.SIGKILL else ""
    return names.get(number, f"signal {number}") + why
