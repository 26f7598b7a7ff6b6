"""Public files brought here: resumed where they stopped, checked, unpacked."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from brainrdl.runs import write_atomically

CHUNK = 1 << 16  # bytes; what a broken connection loses at most
TIMEOUT = 60  # seconds without an answer, or without a further byte
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".gz")


class FetchError(Exception):
    """The network or a publisher's server did not give what was expected; no fault of the user's input."""


class PublicFile(BaseModel):
    """A file to bring here.

    url: from where. path: where to, relative to the data set's folder. sha256, md5: the file gets its name when it has
    this checksum; md5 only where the publisher tells no other (it tells damage, not malice). size: bytes, for the
    progress. max_unpacked_gib: more than this is not unpacked. unpack: put what is in a .zip, .tar (.gz, .bz2, .xz) or
    .gz beside it; "matlab_stimuli": the images and their table out of a .mat file (`unpack_stimuli`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    md5: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    path: str
    size: PositiveInt | None = None
    unpack: bool | Literal["matlab_stimuli"] = False
    max_unpacked_gib: PositiveFloat = 10

    @model_validator(mode="after")
    def _is_whole(self) -> PublicFile:
        if (self.sha256 is None) == (self.md5 is None):
            raise ValueError("expected one checksum, sha256 or md5")
        if not _stays_inside(self.path):
            raise ValueError(f"path: expected a path below the data set's folder, got '{self.path}'")
        endings = (".mat",) if self.unpack == "matlab_stimuli" else _ARCHIVES
        if self.unpack and not self.path.endswith(endings):
            raise ValueError(f"unpack: expected a path that ends with one of {', '.join(endings)}, got '{self.path}'")
        return self


class Fetched(NamedTuple):
    """path: where the file lies. was_there: it was here already, and whole."""

    path: Path
    was_there: bool


Tell = Callable[[int, int | None], None]


def fetch_files(files: Sequence[PublicFile], folder: Path, show_progress: bool = False) -> list[Fetched]:
    """Bring files into a data set's folder; those that are there and whole are not brought again.

    What an interrupted call left (NAME.part) is continued where the server can send the rest, else begun anew. A file
    gets its name once its checksum is right. Raises FetchError: no answer, a wrong checksum (the file is not kept), an
    archive that would write outside the folder or beyond its limit; OSError: the disk; ValueError: a .mat file without
    the stimuli that were to be unpacked.
    """
    with _progress(show_progress) as follow:
        return [_fetch(file, folder, follow(file.path, file.size)) for file in files]


def _fetch(file: PublicFile, folder: Path, tell: Tell) -> Fetched:
    target = folder / file.path
    was_there = target.is_file() and not _wrong_checksum(file, target)
    if was_there:
        tell(target.stat().st_size, target.stat().st_size)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        resumed = _download(file, part, tell)
        wrong = _wrong_checksum(file, part)
        if wrong and resumed:  # the beginning may be of another version of the file
            part.unlink()
            _download(file, part, tell)
            wrong = _wrong_checksum(file, part)
        if wrong:
            part.unlink()
            raise FetchError(f"{file.url}: {wrong}; it is not kept. Try again, or ask its publisher whether it changed")
        os.replace(part, target)
    if file.unpack == "matlab_stimuli":
        from brainrdl.data.matlab_stimuli import unpack_stimuli

        unpack_stimuli(target, target.parent)
    elif file.unpack:
        unpack(target, target.parent, int(file.max_unpacked_gib * 2**30))
    return Fetched(target, was_there)


def _download(file: PublicFile, part: Path, tell: Tell) -> bool:
    """Bring the rest of a file to `part`; whether it was begun before."""
    import requests

    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        with requests.get(file.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if done and answer.status_code == requests.codes.requested_range_not_satisfiable:
                return True  # nothing is left to send
            if not answer.ok:
                raise FetchError(
                    f"{file.url}: the server answered {answer.status_code} {answer.reason}; try again later, or ask "
                    "its publisher whether the address changed"
                )
            resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-") and done > 0
            done = done if resumed else 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length else None
            with open(part, "ab" if resumed else "wb") as out:
                for chunk in answer.iter_content(CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    tell(done, total or file.size)
                out.flush()
                os.fsync(out.fileno())
    except requests.RequestException as error:
        raise FetchError(
            f"{file.url}: no connection, or it broke off ({type(error).__name__}); what came is kept, the same command "
            "goes on from there"
        ) from None
    if total is not None and done < total:
        raise FetchError(f"{file.url}: ended after {done} of {total} bytes; the same command goes on from there")
    return resumed


def _wrong_checksum(file: PublicFile, path: Path) -> str:
    """What is wrong with the file's checksum, in words; "" where nothing is."""
    from pooch import file_hash

    kind, expected = ("sha256", file.sha256) if file.sha256 else ("md5", file.md5)
    got = file_hash(str(path), alg=kind)
    return "" if got == expected else f"expected {kind} {expected}, got {got} ({path.stat().st_size} bytes)"


class _Member(NamedTuple):
    name: str
    size: int | None  # bytes; None: not told
    open: Callable[[], Any]


def unpack(archive: Path, folder: Path, limit: int) -> None:
    """Put the files in an archive into a folder; those that are there with their size are left as they are.

    limit: bytes in all. Raises FetchError, before anything is written, where a name leads out of the folder, an entry
    is neither file nor folder (a link, a device), or the sizes exceed the limit; and where the archive is damaged.
    """
    try:
        with _members(archive) as members:
            for member in members:
                target = (folder / member.name).resolve()
                if not _stays_inside(member.name) or not target.is_relative_to(folder.resolve()):
                    raise FetchError(f"{archive}: '{member.name}' leads out of {folder}; nothing was unpacked")
            if sum(member.size or 0 for member in members) > limit:
                raise _too_large(archive, limit)
            for member in members:
                _write_member(member, folder / member.name, archive, limit)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        problem = str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__
        raise FetchError(f"{archive}: cannot be unpacked ({problem}); delete it and fetch it again") from None


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """The files in an archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            yield [_Member(entry.filename, entry.file_size, partial(packed.open, entry)) for entry in entries]
    elif archive.suffix == ".gz" and not archive.name.endswith(".tar.gz"):
        yield [_Member(archive.stem, None, partial(gzip.open, archive))]
    else:
        with tarfile.open(archive) as tar:
            files = [entry for entry in tar.getmembers() if not entry.isdir()]
            for entry in files:
                if not entry.isfile():
                    raise FetchError(f"{archive}: '{entry.name}' is neither a file nor a folder; nothing was unpacked")
            yield [_Member(entry.name, entry.size, partial(tar.extractfile, entry)) for entry in files]


def _write_member(member: _Member, target: Path, archive: Path, limit: int) -> None:
    if target.is_file() and target.stat().st_size == member.size:
        return

    def write(draft: Path) -> None:
        left = limit if member.size is None else member.size
        with member.open() as source, open(draft, "wb") as out:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise _too_large(archive, limit)
                out.write(chunk)

    write_atomically(target, write)


def _too_large(archive: Path, limit: int) -> FetchError:
    return FetchError(f"{archive}: more than {limit / 2**30:.3g} GiB unpacked; raise max_unpacked_gib in the spec")


def _stays_inside(name: str) -> bool:
    """Whether a path of a spec or an archive stays below the folder it is relative to, on any system."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and ":" not in parts[0]


@contextmanager
def _progress(show: bool) -> Iterator[Callable[[str, int | None], Tell]]:
    """A function that takes a file's name and size and gives what moves the line of progress, one for all files."""
    if not show:
        yield lambda name, size: lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    words, left = TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(words, BarColumn(), DownloadColumn(), TransferSpeedColumn(), left) as progress:
        task = progress.add_task("")

        def follow(name: str, size: int | None) -> Tell:
            progress.reset(task, description=name, total=size)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield follow
