"""Tries brainrdl's commands on many drawn and damaged files: each is a valid run, or is refused in one short message.

python tests/faults/fuzz.py --n 10000 --seed 0 --out fuzz.json    all kinds of files
python tests/faults/fuzz.py --case "KIND:SEED" --keep FOLDER      one case again, its files kept in FOLDER

A case must end in one of two ways. Valid: exit status 0. Refused: exit status 2 and one message of one or two lines,
without control characters and without a traceback, that names the file and (where the case says so) the field. In
both, within 10 s of processor time and 2 GiB of memory beyond what the imports take, and with nothing written, renamed
or removed outside the folder or file that follows --out (for `run` without one, runs/).
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import importlib
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fuzz_report import counts, summary, tell, with_dear

SECONDS = 10  # of processor time; a case that only waits is ended after WALL_SECONDS
SECONDS_OF_REPORT = 60
WALL_SECONDS = 90
GIB = 2**30
MEMORY = 2 * GIB  # beyond what the imports take
LONGEST = 1500  # characters of a message

_ROOMS = ("brainrdl.brain_rdms", "brainrdl.cli", "brainrdl.experiment", "brainrdl.fmri.describe", "brainrdl.report")
_ROOMS += ("brainrdl.report.figure", "brainrdl.report.figure_inputs")
_IMPORTS = (
    *("h5py", "matplotlib.pyplot", "nibabel", "nilearn.image", "nilearn.glm.first_level", "pandas", "PIL.Image"),
    *("pooch", "rsatoolbox", "scipy.io", "scipy.stats", "sklearn.datasets", "sklearn.manifold", "torchvision.datasets"),
    *("sklearn.model_selection", "statsmodels.stats.contingency_tables", "timm", "torch.utils.tensorboard"),
    *("torchvision.models", "safetensors.torch", "lightning_fabric"),
)


class Case(NamedTuple):
    """One call of the command, whose files lie in the current folder (also $BRAINRDL_DATA).

    kind: of the files, such as "experiment file". arguments: of `brainrdl`; paths relative to the case's folder.
    files: names of which a message must mention at least one. field: whether a message must name a field (": key: "),
    or words of which it must mention one. valid: True where it must not be refused, False where it must; None: either.
    sound: called after a valid run, in the case's folder; raises AssertionError where what came out is wrong.
    report: whether a run's report is made, too, which takes longer than other cases may.
    """

    kind: str
    arguments: list[str]
    files: tuple[str, ...]
    field: bool | tuple[str, ...] = False
    valid: bool | None = None
    sound: Callable[[], None] | None = None
    report: bool = False


Generator = Callable[[np.random.Generator, Path], Case]  # writes its files into the folder


class Result(NamedTuple):
    """outcome: "valid", "refused" or "FAILED"; problem: why it failed. memory: bytes beyond the imports'."""

    kind: str
    seed: int
    outcome: str
    problem: str
    message: str
    seconds: float
    memory: int


class _Ended(NamedTuple):
    status: int  # as of os.waitpid
    seconds: float
    memory: int
    stdout: str
    stderr: str
    report: str  # what the child wrote that it must not write, and what was not sound; a line each


def _tables(name: str) -> dict[str, Any]:
    """What the modules of generators say under this name."""
    modules = [importlib.import_module(module) for module in ("fuzz_files", "fuzz_measured")]
    return {kind: value for module in modules for kind, value in getattr(module, name).items()}


def generators() -> dict[str, Generator]:
    """Every kind of file, and what makes one."""
    return _tables("GENERATORS")


def shares() -> dict[str, float]:
    """Kind -> how many of its cases come on one of a kind that is not named; the dear ones are tried less often."""
    return _tables("SHARES")


def case_seed(seed: int, kind: str, number: int) -> int:
    """The seed of one case: a function of these three."""
    return int(np.random.SeedSequence((seed, zlib.crc32(kind.encode()), number)).generate_state(1, np.uint64)[0])


def warm_up() -> None:
    """Import what the commands import, once for all cases."""
    for name in _ROOMS:
        importlib.import_module(name)
    for name in _IMPORTS:
        with contextlib.suppress(ImportError):  # an extra that is not installed is not tried either
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each child's collections look at all that is imported, and copy its pages


def try_case(kind: str, seed: int, make: Generator, keep: Path | None = None) -> Result:
    """Make the files of one case, run its command in a child, and judge how that ended."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        top = Path(temporary).resolve() if keep is None else keep.resolve()
        folder = top / "case"
        for inside in "case", "home", "tmp":
            (top / inside).mkdir(parents=True, exist_ok=True)
        case = make(np.random.default_rng(seed), folder)
        if keep is not None:
            print(f"in {folder}: brainrdl {' '.join(map(repr, case.arguments))}")
        allowed = _outputs(case.arguments, folder)
        before = _snapshot(folder)
        ended = _run(case, top, allowed)
        changed = [name for name in _changes(before, _snapshot(folder)) if not _is_allowed(folder / name, allowed)]
        outcome, problem, message = _judge(case, ended, changed)
        if keep is not None:
            print(ended.stdout + ended.stderr)
        else:
            _make_removable(folder)
        return Result(kind, seed, outcome, problem, message, ended.seconds, ended.memory)


def _outputs(arguments: list[str], folder: Path) -> list[Path]:
    """Where the command may write."""
    given = [folder / after for word, after in pairwise(arguments) if word == "--out"]
    return [Path(os.path.abspath(path)) for path in given] or ([folder / "runs"] if arguments[0] == "run" else [])


def _is_allowed(path: Path, allowed: list[Path]) -> bool:
    """Whether it is an output, lies below one, or is a file beside it of the same name (FILE.csv, .FILE.1.draft.h5)."""
    return any(
        path == output or output in path.parents or (path.parent == output.parent and output.stem in path.name)
        for output in allowed
    )


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Path below the folder -> size and time of change."""
    found = {}
    for below, folders, files in os.walk(os.fsencode(folder)):
        for name in files + folders:
            path = os.path.join(below, name)
            told = os.lstat(path)
            size, changed = (0, 0) if name in folders else (told.st_size, told.st_mtime_ns)
            found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = (size, changed)
    return found


def _changes(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _make_removable(folder: Path) -> None:
    for below, folders, _ in os.walk(folder):
        for name in folders:
            with contextlib.suppress(OSError):
                os.chmod(os.path.join(below, name), 0o700)


def _run(case: Case, top: Path, allowed: list[Path]) -> _Ended:
    """Run the command in a forked child and wait for it."""
    reading, writing = os.pipe()
    stdout, stderr = top / "stdout", top / "stderr"
    started = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(case, top, allowed, writing)
    os.close(writing)
    status, usage = _wait(child, started + WALL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it has started and left behind
    with open(reading, "rb") as pipe:
        report = pipe.read().decode(errors="replace")
    base, _, report = report.partition("\n")  # what the child took before the command began
    memory = (usage.ru_maxrss - int(base)) * 1024 if base.isdigit() else 0
    told = (path.read_text(encoding="utf-8", errors="backslashreplace") for path in (stdout, stderr))
    return _Ended(status, usage.ru_utime + usage.ru_stime, memory, *told, report)


def _seconds(case: Case) -> int:
    return SECONDS_OF_REPORT if case.report else SECONDS


def _wait(child: int, until: float) -> tuple[int, resource.struct_rusage]:
    pause = 0.002
    while time.monotonic() < until:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return status, usage
        time.sleep(pause)
        pause = min(0.05, pause * 1.2)
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage


def _child(case: Case, top: Path, allowed: list[Path], report: int) -> None:
    """Everything that happens in the child, which ends in here."""
    status = 70
    try:
        os.setpgid(0, 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(top / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.chdir(top / "case")
        os.environ.update(BRAINRDL_DATA=str(top / "case"), HOME=str(top / "home"), TMPDIR=str(top / "tmp"))
        tempfile.tempdir = None
        seconds = _seconds(case)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (virtual + 4 * GIB, virtual + 4 * GIB))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.disable()
        sys.argv = ["brainrdl", *case.arguments]
        sys.addaudithook(_watcher(top, allowed, report))
        os.write(report, f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n".encode())
        status = _command(case.arguments, case.report)
        if status == 0 and case.sound is not None:
            case.sound()
    except BaseException as error:
        what = "not sound: " if isinstance(error, AssertionError) else ""
        os.write(report, f"{what}{type(error).__name__}: {error}\n"[:2000].encode(errors="replace"))
        traceback.print_exc()
        status = 70
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _command(arguments: list[str], with_report: bool) -> int:
    import brainrdl.report
    from brainrdl.cli import app

    if arguments[0] == "run" and not with_report:
        brainrdl.report.write_report = lambda folder: None
    try:
        app(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event of Python's audit -> which of its arguments are paths that it changes.
_CHANGES = {
    **dict.fromkeys(("os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.chmod", "os.chown", "os.utime"), (0,)),
    **dict.fromkeys(("os.rename", "os.link"), (0, 1)),
    "os.symlink": (1,),
}


def _folder_of(event: str, arguments: tuple[Any, ...]) -> str:
    """What a relative path is relative to: the current folder, or one that is open."""
    at = {"os.mkdir": 2, "os.rmdir": 1, "os.remove": 1, "os.chmod": 2, "os.rename": 2, "os.link": 2}.get(event)
    number = arguments[at] if at is not None and len(arguments) > at else -1
    return os.readlink(f"/proc/self/fd/{number}") if isinstance(number, int) and number >= 0 else ""


def _watcher(top: Path, allowed: list[Path], report: int) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that reports what is written, made, renamed or removed where it must not be."""
    within = [*allowed, top / "tmp", Path("/dev")]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in (mode or "") for letter in "wax+") or (mode is None and flags & _WRITES)
            paths = [path] if writes else []
        else:
            paths = [arguments[k] for k in _CHANGES.get(event, ())]
        folder = _folder_of(event, arguments)
        for path in paths:
            if isinstance(path, int):
                continue
            parent, name = os.path.split(os.path.join(folder, os.fsdecode(path)))
            # What is removed, renamed or made is a link itself, not what it leads to.
            where = Path(os.path.realpath(parent), name) if event != "open" else Path(os.path.realpath(path))
            # A folder above an output may be made for it.
            above = event == "os.mkdir" and any(where in output.parents for output in allowed)
            if not above and not _is_allowed(where, within):
                os.write(report, f"outside --out: {event} {where}\n"[:500].encode(errors="replace"))

    return watch


def _judge(case: Case, ended: _Ended, changed: list[str]) -> tuple[str, str, str]:
    """Outcome, problem and message."""
    message = "error: " + ended.stderr.partition("error: ")[2].strip() if "error: " in ended.stderr else ""
    problem = _problem(case, ended, changed, message)
    if problem:
        return "FAILED", problem, message or (ended.stdout + ended.stderr)[-2000:]
    return ("valid", "", "") if ended.status == 0 else ("refused", "", message)


def _problem(case: Case, ended: _Ended, changed: list[str], message: str) -> str:
    if os.WIFSIGNALED(ended.status):
        number = os.WTERMSIG(ended.status)
        if number in (signal.SIGXCPU, signal.SIGKILL):
            return f"takes more than {_seconds(case)} s of processor time, or more than {WALL_SECONDS} s"
        return f"ended by {signal.Signals(number).name}"
    if ended.seconds > _seconds(case):
        return f"took {ended.seconds:.1f} s"
    if ended.memory > MEMORY:
        return f"took {ended.memory / GIB:.1f} GiB beyond the imports"
    if ended.report:
        return ended.report.splitlines()[0]
    if changed:
        return f"changed outside --out: {', '.join(changed[:5])}"
    status = os.waitstatus_to_exitcode(ended.status)
    if "Traceback (most recent call last)" in ended.stderr or status not in (0, 2):
        return f"exit status {status}"
    if status == 0:
        return "valid, but it must be refused" if case.valid is False else ""
    return "refused, but it is valid" if case.valid else _problem_of_message(case, ended, message)


def _problem_of_message(case: Case, ended: _Ended, message: str) -> str:
    """What is wrong with how a case was refused; "" where nothing is."""
    if not message:  # `brainrdl check` describes a data set and then says why it cannot be used
        lines = [line for line in ended.stdout.splitlines() if line.startswith("usable") and " no. " in line]
        if len(lines) != 1 or ended.stderr:
            return "refused without a message"
        message, case = f"{case.arguments[1]}: {lines[0]}", case._replace(field=False)  # the spec itself was accepted
    elif len(re.findall("^error: ", ended.stderr, re.MULTILINE)) != 1:
        return "more than one message"
    if len(message.splitlines()) > 2:
        return f"a message of {len(message.splitlines())} lines"
    if len(message) > LONGEST:
        return f"a message of {len(message)} characters"
    if any(not (letter.isprintable() or letter == "\n") for letter in message):
        return "a message with control characters"
    if not any(name in message for name in case.files):
        return f"the message names none of {', '.join(case.files)}"
    words = () if isinstance(case.field, bool) else case.field
    named = re.search(r": [^\s:]+: |: .+: unknown key", message) or any(word in message for word in words)
    if case.field and not named:
        return "the message names no field"
    return ""


def main() -> int:
    """The command line; exit status 1 where a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500, help="cases in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only these kinds; repeatable")
    parser.add_argument("--dear", type=float, default=1.0, help="how often kinds come that take long, times usual")
    parser.add_argument("--out", type=Path, help="a JSON file of what was found")
    parser.add_argument("--case", help="KIND:SEED of one case, to try it again")
    parser.add_argument("--keep", type=Path, help="with --case: an empty folder for its files")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MPLBACKEND="agg")
    sys.dont_write_bytecode = True
    known = generators()
    kinds = given.kind or list(known)
    if given.case:
        kind, _, seed = given.case.rpartition(":")
        warm_up()
        keep = given.keep or Path(tempfile.mkdtemp(prefix="fuzz-case-"))
        result = try_case(kind, int(seed), known[kind], keep)
        print(f"{result.outcome} {result.problem} ({result.seconds:.2f} s, {result.memory >> 20} MiB)")
        return int(result.outcome == "FAILED")
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        parser.error(f"no kind '{unknown[0]}'; there are: {', '.join(known)}")
    warm_up()
    started, results = time.monotonic(), []
    for kind, n in counts(given.n, kinds, with_dear(kinds, shares(), given.dear)).items():
        for number in range(n):
            result = try_case(kind, case_seed(given.seed, kind, number), known[kind])
            results.append(result)
            if result.outcome == "FAILED":
                print(f"FAILED --case '{kind}:{result.seed}': {result.problem}: {result.message[:300]!r}", flush=True)
    told = summary(results, time.monotonic() - started)
    tell(told)
    if given.out:
        given.out.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(told["FAILED"] > 0)


if __name__ == "__main__":
    sys.exit(main())
