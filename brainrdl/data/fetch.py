"""Public files brought here: resumed where they stopped, checked, unpacked."""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from brainrdl.data.inside import stays_inside
from brainrdl.runs import write_atomically

CHUNK = 1 << 16  # bytes; what a broken connection loses at most
TIMEOUT = 60  # seconds without an answer, or without a further byte
BLOCK = 1 << 12  # bytes; what a file of an archive takes at least, however small
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".gz")


class FetchError(Exception):
    """The network or a publisher's server did not give what was expected; no fault of the user's input."""


class PublicFile(BaseModel):
    """A file to bring here.

    url: from where. path: where to, relative to the data set's folder. sha256, md5: the file gets its name when it has
    these checksums; md5 alone only where the publisher tells no other (it tells damage, not malice), and then from
    https. size: bytes; more are not taken (left out: max_unpacked_gib). max_unpacked_gib: more than this is not
    unpacked. unpack: put what is in a .zip, .tar (.gz, .bz2, .xz) or .gz beside it; "matlab_stimuli": the images and
    their table out of a .mat file (`unpack_stimuli`).
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
        if self.sha256 is None and self.md5 is None:
            raise ValueError("expected a checksum, sha256 (or md5, where the publisher tells no other)")
        if self.sha256 is None and not self.url.startswith("https:"):
            raise ValueError("url: over http a file needs its sha256; md5 alone serves over https only")
        if not stays_inside(self.path):
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
    gets its name once its checksum is right. Nothing that is there is overwritten. Raises FetchError: no answer, a
    wrong checksum (what came is not kept), more bytes than were told, another file in the place of one, an archive that
    would write outside the folder or beyond its limit; OSError: the disk; ValueError: a .mat file without the stimuli
    that were to be unpacked.
    """
    with _progress(show_progress) as follow:
        return [_fetch(file, folder, follow(file.path, file.size)) for file in files]


def _fetch(file: PublicFile, folder: Path, tell: Tell) -> Fetched:
    target = folder / file.path
    if was_there := os.path.lexists(target):
        wrong = _wrong_checksum(file, target) if target.is_file() else "it is no file"
        if wrong:
            raise FetchError(
                f"{target}: is there, but {wrong}; nothing is overwritten: rename or delete it, then fetch again"
            )
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
            plain = [step.url for step in (*answer.history, answer) if not step.url.startswith("https:")]
            if file.url.startswith("https:") and plain:
                raise FetchError(
                    f"{file.url}: leads to an address without encryption, {plain[0]}; nothing was taken from there. "
                    "Ask its publisher for another address"
                )
            if not answer.ok:
                raise FetchError(
                    f"{file.url}: the server answered {answer.status_code} {answer.reason}; try again later, or ask "
                    "its publisher whether the address changed"
                )
            resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-") and done > 0
            done = done if resumed else 0
            length = answer.headers.get("Content-Length", "")
            # Of what is packed on the way, the length is not the file's.
            packed = answer.headers.get("Content-Encoding", "identity") != "identity"
            total = done + int(length) if length.isdecimal() and not packed else None
            limit = file.size or int(file.max_unpacked_gib * 2**30)
            _check_size(file, max(total or 0, done), limit, part)
            with open(part, "ab" if resumed else "wb") as out:
                for chunk in answer.iter_content(CHUNK):
                    done += len(chunk)
                    _check_size(file, done, limit, part)
                    out.write(chunk)
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


def _check_size(file: PublicFile, size: int, limit: int, part: Path) -> None:
    """Raise FetchError, and let nothing of the file lie, where it is larger than it may be."""
    if size > limit:
        part.unlink(missing_ok=True)
        told = (
            f"{limit} bytes, as its spec says" if file.size else f"{limit / 2**30:.3g} GiB, and its spec tells no size"
        )
        raise FetchError(f"{file.url}: the server sends more than {told}; it is not kept. Correct `size` in the spec")


def _wrong_checksum(file: PublicFile, path: Path) -> str:
    """What is wrong with the file's checksum, in words; "" where nothing is."""
    from pooch import file_hash

    for kind, expected in (("sha256", file.sha256), ("md5", file.md5)):
        if expected is not None and (got := file_hash(str(path), alg=kind)) != expected:
            return f"expected {kind} {expected}, got {got} ({path.stat().st_size} bytes)"
    return ""


class _Member(NamedTuple):
    name: str
    size: int | None  # bytes; None: not told
    open: Callable[[], Any]


def unpack(archive: Path, folder: Path, limit: int) -> None:
    """Put the files in an archive into a folder; those that are there with their content are left as they are.

    limit: bytes in all, and 4096 a file however small. Raises FetchError, before anything is written, where a name
    leads out of the folder, an entry is neither file nor folder (a link, a device), two names are one on some systems,
    another file is in the place of one, or the sizes exceed the limit; and where the archive is damaged.
    """
    try:
        with _members(archive, limit) as members:
            _check_names(archive, folder, [member.name for member in members])
            if sum(member.size or 0 for member in members) > limit or (len(members) - 1) * BLOCK > limit:
                raise _too_large(archive, limit)
            missing = [member for member in members if not _is_there(member, folder / member.name, archive)]
            for member in missing:
                _write_member(member, folder / member.name, archive, limit)
    except _DAMAGED as error:
        problem = str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__
        raise FetchError(f"{archive}: cannot be unpacked ({problem}); delete it and fetch it again") from None


# The last two: an archive with a password, or packed in a way that Python does not know.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@contextmanager
def _members(archive: Path, limit: int) -> Iterator[list[_Member]]:
    """The files in an archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            yield [_Member(entry.filename, entry.file_size, partial(packed.open, entry)) for entry in entries]
    elif archive.suffix == ".gz" and not archive.name.endswith(".tar.gz"):
        yield [_Member(archive.stem, None, partial(gzip.open, archive))]
    else:
        with tarfile.open(archive) as tar:
            files = []
            for number, entry in enumerate(tar):
                if number * BLOCK > limit:  # before the list of them fills the memory
                    raise _too_large(archive, limit)
                if not entry.isfile() and not entry.isdir():
                    raise FetchError(f"{archive}: '{entry.name}' is neither a file nor a folder; nothing was unpacked")
                files += [entry] if entry.isfile() else []
            yield [_Member(entry.name, entry.size, partial(tar.extractfile, entry)) for entry in files]


def _check_names(archive: Path, folder: Path, names: Sequence[str]) -> None:
    """Raise FetchError where a name leads out of the folder, or two of them are one file on some systems."""
    real = folder.resolve()
    seen: dict[str, str] = {}
    for name in names:
        if not stays_inside(name) or not (folder / name).resolve().is_relative_to(real):
            raise FetchError(f"{archive}: '{name}' leads out of {folder}; nothing was unpacked")
        path = PurePosixPath(unicodedata.normalize("NFC", name).casefold())
        if str(path) in seen:
            raise FetchError(
                f"{archive}: '{seen[str(path)]}' and '{name}' are one file where capitals do not count; nothing was "
                "unpacked. Unpack it by hand"
            )
        seen[str(path)] = name
    for name in names:
        for parent in PurePosixPath(unicodedata.normalize("NFC", name).casefold()).parents:
            if str(parent) in seen:
                raise FetchError(f"{archive}: '{seen[str(parent)]}' is a file and a folder; nothing was unpacked")


def _is_there(member: _Member, target: Path, archive: Path) -> bool:
    """Whether the file is there already. Raises FetchError where another one is."""
    if not os.path.lexists(target):
        return False
    if not target.is_file():
        same = False
    elif member.size is not None:
        same = target.stat().st_size == member.size
    else:
        with member.open() as source, open(target, "rb") as there:
            while (same := (chunk := source.read(CHUNK)) == there.read(CHUNK)) and chunk:
                pass
    if not same:
        raise FetchError(
            f"{target}: is there and differs from what is in {archive.name}; nothing is overwritten and nothing was "
            "unpacked: rename or delete it, then fetch again"
        )
    return True


def _write_member(member: _Member, target: Path, archive: Path, limit: int) -> None:
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
