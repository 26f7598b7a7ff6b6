"""One process at a time writes into a folder; the system lets go of it when that process ends, however it ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from brainrdl.runs import remove_drafts, write_json

# After a dot and the part's name.
LOCK, OWNER = "lock", "in_use_by.json"

# Of file systems that know no locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_held: set[Path] = set()  # files of the locks that this process has


@contextmanager
def locked(
    folder: Path,
    part: str = "",
    wait: float = 0.0,
    n_processes: int = 1,
    remedy: str = "wait for it, or give another --out",
) -> Iterator[None]:
    """Inside, no other process that asks for the folder gets it; what killed ones left half-written in it is removed.

    The folder is made where it is not there, and removed again where nothing came into it. A process may ask again
    for what it has. part: a folder in it that has a lock of its own. wait: seconds for another process to leave it.
    n_processes: that share the folder; of several the first asks for all. Raises ValueError that names the process
    which has it, and the remedy, or where a file stands in the folder's place. Where the file system knows no locks,
    a line on stderr says so and the block runs all the same.
    """
    place = folder.resolve()
    lock_file, owner_file = (place / f".{part}{name}" for name in (LOCK, OWNER))
    if lock_file in _held or not _is_first_of(n_processes):
        yield
        return
    made = [parent for parent in (place, *place.parents) if not parent.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder}: expected a folder, or a place for one, got a file; give another folder") from None
    lock = FileLock(lock_file)
    _acquire(lock, folder / part, owner_file, wait, remedy)
    _held.add(lock_file)
    try:
        remove_drafts(place / part)
        yield
    finally:
        _held.remove(lock_file)
        owner_file.unlink(missing_ok=True)
        if made and {*place.iterdir()} <= {lock_file}:
            lock_file.unlink(missing_ok=True)
            with suppress(OSError):  # another process has put something beside it
                for parent in made:
                    parent.rmdir()
        lock.release()


def _is_first_of(n_processes: int) -> bool:
    """Whether this is the first of the processes that share a run, as whoever started them says."""
    numbers = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return n_processes == 1 or all(os.environ.get(name, "0") == "0" for name in numbers)


def _acquire(lock: FileLock, folder: Path, owner: Path, wait: float, remedy: str) -> None:
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise ValueError(f"{folder} is in use by {_owner(owner)}; {remedy}") from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        print(
            f"note: the file system of {folder} knows no locks: make sure that no other process writes into it",
            file=sys.stderr,
        )
        return
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    with suppress(OSError):  # a full disk: what is to be written next says so
        write_json(owner, {"process": os.getpid(), "machine": socket.gethostname(), "since": since})


def _owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['machine']} since {owner['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
