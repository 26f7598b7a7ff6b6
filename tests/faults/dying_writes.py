"""A process that is killed inside a write: before, in the middle of or after a drawn call that changes the disk."""

from __future__ import annotations

import builtins
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_DRAFT = re.compile(r"^\.(?P<stem>.+)\.\d+\.draft(?P<suffix>\..*)?$")


class Event(NamedTuple):
    """file: what kind of file it is of, as in a run's folder. phase: how far the write is."""

    file: str
    phase: str


class Death(NamedTuple):
    """event: at which the process kills itself. number: at its how many-eth time. share: of a half-written file."""

    event: Event
    number: int = 1
    share: float = 0.5


class DyingWrites:
    """Watches what this process writes below a folder, and kills it where `death` says.

    Phases: "torn", only a part of the file has come to the disk; "unsynced", all of it was written and not yet synced;
    "synced"; "named", it has its final name; "linked"; "removed"; "made" of a folder.
    """

    def __init__(self, folder: Path, death: Death | None = None, record: Path | None = None) -> None:
        self.folder, self.death, self.record = os.path.realpath(folder), death, record
        self.seen: Counter[Event] = Counter()

    def watch(self) -> None:
        """From now on, in this process for good."""
        os.fsync = self._around(os.fsync, self._of_descriptor, ("torn", "unsynced"), ("synced",))
        os.replace = self._around(os.replace, lambda source, target, **_: target, (), ("named",))
        os.link = self._around(os.link, lambda source, target, **_: target, (), ("linked",))
        os.unlink = os.remove = self._around(os.unlink, lambda path, **_: path, (), ("removed",))
        os.mkdir = self._around(os.mkdir, lambda path, *_, **__: path, (), ("made",))
        opened = builtins.open

        def open_torn(file: Any, mode: str = "r", *rest: Any, **others: Any) -> Any:
            stream = opened(file, mode, *rest, **others)
            return _Torn(stream, self, str(file)) if mode == "ab" and self._name(file) else stream

        builtins.open = open_torn

    def meets(self, event: Event) -> bool:
        """Count an event; whether the process is to die at it."""
        self.seen[event] += 1
        if self.record is not None:
            return False
        return self.death is not None and event == self.death.event and self.seen[event] == self.death.number

    def write_record(self) -> None:
        """What was seen, for others to draw from."""
        assert self.record is not None
        self.record.write_text(json.dumps([[*event, n] for event, n in sorted(self.seen.items())]))

    def _around(
        self, call: Callable[..., Any], path_of: Callable[..., Any], before: tuple[str, ...], after: tuple[str, ...]
    ) -> Callable[..., Any]:
        def watched(*arguments: Any, **others: Any) -> Any:
            path = path_of(*arguments, **others)
            name = self._name(path)
            if name is None:
                return call(*arguments, **others)
            for phase in before:
                if phase == "torn" and os.path.isdir(path):
                    continue
                if self.meets(Event(name, phase)):
                    if phase == "torn":
                        os.truncate(path, int(os.path.getsize(path) * self.death.share))
                    die()
            result = call(*arguments, **others)
            for phase in after:
                if self.meets(Event(name, phase)):
                    die()
            return result

        return watched

    def _of_descriptor(self, descriptor: Any) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor if isinstance(descriptor, int) else descriptor.fileno()}")

    def _name(self, path: Any) -> str | None:
        """The kind of a file below the folder, whoever wrote it; None for others."""
        if not isinstance(path, (str, os.PathLike)):
            return None
        full = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
        if not full.startswith(self.folder):
            return None
        if os.path.isdir(full):
            return "folder"
        name = os.path.basename(full)
        draft = _DRAFT.match(name)
        if draft:
            name = draft["stem"] + (draft["suffix"] or "")
        if f"{os.sep}report{os.sep}" in full:
            return f"report/*{os.path.splitext(name)[1]}"
        return re.sub(r"events\.out.*", "events", name)


class _Torn:
    """A file to which lines are added: of the drawn one only a part is."""

    def __init__(self, stream: Any, writes: DyingWrites, path: str) -> None:
        self.stream, self.writes, self.name = stream, writes, writes._name(path)

    def write(self, content: bytes) -> int:
        if self.writes.meets(Event(self.name, "torn")):
            self.stream.write(content[: int(len(content) * self.writes.death.share)])
            self.stream.flush()
            die()
        written = self.stream.write(content)
        if self.writes.meets(Event(self.name, "unsynced")):
            self.stream.flush()
            die()
        return written

    def __enter__(self) -> _Torn:
        self.stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def die() -> None:
    """End this process as the system or a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)
