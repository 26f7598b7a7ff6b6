"""What a person sees of a training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from brainrdl.training.record import EpochRecord, Progress

# A line at most this often where there is no terminal, in seconds.
_LINE_EVERY = 10.0


@contextmanager
def show_progress(label: str, console: Console | None = None) -> Iterator[Progress]:
    """A `Progress` for one training: loss terms, alpha, error and time left."""
    console = console or Console(file=sys.stdout)
    if not console.is_terminal:
        yield _Lines(label, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}", style="dim"),
    )
    with RichProgress(*columns, console=console, transient=True) as bar:
        yield _Bar(label, bar)


class _Bar:
    def __init__(self, label: str, bar: RichProgress) -> None:
        self.bar = bar
        self.task = bar.add_task(label, total=None, values="")
        self.text = ""

    def step(self, stage: str, epoch: int, n_epochs: int, step: int, n_steps: int, values: Mapping[str, float]) -> None:
        losses = _text({name: value for name, value in values.items() if name != "n_wrong"})
        done = epoch + step / n_steps
        self.bar.update(self.task, total=n_epochs, completed=round(done, 2), values=f"{losses} {self.text}")

    def epoch(self, record: EpochRecord, n_epochs: int) -> None:
        self.text = _text({k: v for k, v in record.history.items() if "alpha" in k or "error" in k})
        self.bar.update(self.task, total=n_epochs, completed=record.history["epoch"] + 1)


class _Lines:
    def __init__(self, label: str, console: Console) -> None:
        self.label, self.console = label, console
        self.begin = self.last = time.monotonic()
        self.first: int | None = None  # epoch of this sitting

    def step(self, stage: str, epoch: int, n_epochs: int, step: int, n_steps: int, values: Mapping[str, float]) -> None:
        """Nothing within an epoch."""

    def epoch(self, record: EpochRecord, n_epochs: int) -> None:
        now, done = time.monotonic(), record.history["epoch"] + 1
        self.first = done - 1 if self.first is None else self.first
        if now - self.last < _LINE_EVERY and done < n_epochs:
            return
        self.last = now
        left = (now - self.begin) / (done - self.first) * (n_epochs - done)
        values = {k: v for k, v in record.history.items() if k not in ("stage", "epoch")}
        self.console.print(
            f"{self.label}: epoch {done}/{n_epochs}, {_text(values)}, {left:.0f} s left",
            soft_wrap=True,
            highlight=False,
        )


def _text(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
