"""Signals that ask a program to end: a training first finishes its step and saves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C; what systems and schedulers send before they end a process; SLURM's choice of many.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal has asked this program to end."""


class _State:
    """Of this process. asked: by a signal. ends: and it does. postponed: how many blocks want to come to their end."""

    asked = ends = False
    postponed = 0


@contextmanager
def ending_on_signals(signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[None]:
    """Inside, each of these signals raises `Interrupted`, once; inside `postponed` it is remembered.

    A second Ctrl-C raises at once wherever it comes. A signal that is ignored stays so, as Ctrl-C is by what a script
    starts with &. What the signals did before is put back. Python takes signals in its main thread alone: in another
    thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _take) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that was not set from Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _State.asked = _State.ends = False


@contextmanager
def postponed() -> Iterator[None]:
    """A block that comes to its end before a signal ends the program; ask `is_asked` or `raise_if_asked` then."""
    _State.postponed += 1
    try:
        yield
    finally:
        _State.postponed -= 1


@contextmanager
def heeded() -> Iterator[None]:
    """A block, within one `postponed` block, that a signal may end. Raises Interrupted where one has come already."""
    try:
        _State.postponed -= 1  # from here on a signal may come
        raise_if_asked()
        yield
    finally:
        _State.postponed += 1


def is_asked() -> bool:
    """Whether a signal has asked this program to end."""
    return _State.asked


def raise_if_asked() -> None:
    """Raise Interrupted where a signal has asked this program to end."""
    if _State.asked:
        raise Interrupted


def let_end() -> None:
    """From now on further signals change nothing: this program is ending."""
    _State.ends = True


def _take(number: int, frame: FrameType | None) -> None:
    if hasattr(signal, "pthread_kill") and _is_in_callback(frame):
        main = threading.main_thread().ident
        later = threading.Timer(0.01, signal.pthread_kill, (main, number))
        later.daemon = True
        later.start()
        return
    again, _State.asked = _State.asked, True
    if _State.ends:
        return
    if (not again and not _State.postponed) or (again and number == signal.SIGINT):
        raise Interrupted


def _is_in_callback(frame: FrameType | None) -> bool:
    """Whether this is code of which Python only prints what it raises: where objects end, and locks of imports."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or (code.co_name == "cb" and "importlib" in code.co_filename):
            return True
        frame = frame.f_back
    return False
