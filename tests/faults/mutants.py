"""How many small faults in the mathematics, the teachers and the statistics the tests notice.

    python tests/faults/mutants.py --n 300 --seed 0 --out mutants.json

draws faults (`mutations.py`), plants one at a time in a copy of the repository and runs the tests there: first those
of the module at fault, then the nearest others that reach it. A fault is caught when a test fails, when they take more
than three times their usual processor time, or when the process dies. What is in the file already is kept, so that a
run that was broken off goes on; `--again` tries the survivors once more. `mutants_judged.json` says of survivors why no
test can notice them.

Faulty code may write or delete anything: run it where that does no harm.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from import_distance import distances
from mutations import Mutation, all_mutations, becomes, mutations

REPOSITORY = Path(__file__).resolve().parents[2]
COPIED = ("brainrdl", "tests", "data_specs", "docs", "pyproject.toml", "setup.cfg")
JUDGED = Path(__file__).with_name("mutants_judged.json")

# What is mutated: modules and folders below brainrdl/. How processes end (failures.py) is tried by killing some.
ROOMS = {
    "floor 0": (
        "pair_distances dissimilarity discrepancy precision reductions layers pairs randomness ranks schedule "
        "stimuli runs settings restricted_files rdms folder_lock notes interruption"
    ),
    "sources": "sources",
    "statistics": (
        "analysis/accuracy analysis/agreement analysis/all_pairs analysis/ceiling analysis/comparison "
        "analysis/fixed_networks analysis/inference analysis/logged_rdms analysis/pattern_store analysis/rdms "
        "analysis/scaling analysis/second_order fmri/dissimilarities fmri/glm fmri/reliability"
    ),
}

# Tests that a fault meets where they reach its module, and those that start processes, for what only matters there.
TESTS = [
    *("tests/test_discrepancy.py", "tests/test_dissimilarity.py", "tests/test_layers.py", "tests/test_pairs.py"),
    *("tests/test_randomness.py", "tests/test_reductions.py", "tests/test_restricted_files.py", "tests/test_runs.py"),
    *("tests/test_schedule.py", "tests/test_settings.py", "tests/test_stimuli.py", "tests/test_teacher_patterns.py"),
    *("tests/sources/test_*.py", "tests/rdms/test_*.py", "tests/analysis/test_*.py", "tests/fmri/test_*.py"),
    *("tests/objectives/test_*.py", "tests/data/test_spec.py", "tests/data/test_stimulus_set.py"),
    "tests/faults/test_guards_of_terms.py",
]
# Those that look at the text of every module.
OF_ALL = ["tests/test_results_are_frozen.py", "tests/test_text_files.py"]
MORE_TESTS = {
    "brainrdl/ranks.py": ["tests/training/test_shared_batches.py"],
    "brainrdl/folder_lock.py": ["tests/faults/test_storage.py"],
    "brainrdl/notes.py": ["tests/faults/test_guards_of_runs.py"],
    "brainrdl/interruption.py": ["tests/training/test_resume.py"],
}
# Of the tests that are not a module's own, as many as take so many seconds.
OTHERS_SECONDS = 20
# A fault's tests may take so many times their usual time, and so many seconds more: of the processor, and in all.
CPU_TIMES, CPU_MORE = 3, 20
WALL_TIMES, WALL_MORE = 8, 60
MEMORY = 8 << 30

# Imported once, before the processes that try a fault are forked. Nothing of brainrdl.
WARM = [
    *("torch", "torchvision", "rsatoolbox", "pandas", "scipy.stats", "scipy.optimize", "h5py", "pytest", "hypothesis"),
    *("sklearn.manifold", "statsmodels.api", "nibabel", "nilearn.glm.first_level", "pydantic"),
]


class Tried(NamedTuple):
    """A fault and what became of it.

    verdict: "caught" (a test failed), "crashed" (the process died), "timeout" or "survived". by: the test.
    seconds: of all its tests.
    """

    fault: Mutation
    verdict: str
    by: str
    seconds: float

    def record(self) -> dict[str, Any]:
        """What is kept in a file."""
        source = (REPOSITORY / self.fault.module).read_text("utf-8")
        told = {"verdict": self.verdict, "by": self.by, "seconds": self.seconds}
        return self.fault._asdict() | {"becomes": becomes(source, self.fault.applied(source))} | told


class Recorder:
    """Plugin of pytest: which test failed first, and how many seconds each file's tests took."""

    def __init__(self) -> None:
        self.failed = ""
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid.split("::")[0]] += report.duration
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed = self.failed or report.nodeid


class Run:
    """pytest in a forked process, on a copy of the repository with one fault or none.

    copy: the copy's folder, to which the fault is written until `end`. tests: files below it, in order.
    usual: seconds that the tests take without a fault. fault: None = none, and compiled files are kept for the next.
    """

    def __init__(self, copy: Path, tests: Sequence[str], usual: float, fault: Mutation | None = None) -> None:
        self.copy, self.fault = copy, fault
        self._result = copy.with_suffix(".json")
        self._result.unlink(missing_ok=True)
        if fault is not None:
            self._file = copy / fault.module
            self._times = self._file.stat().st_atime_ns, self._file.stat().st_mtime_ns
            self._source = self._file.read_text("utf-8")
            self._file.write_text(fault.applied(self._source), "utf-8")
        self._start, self._limit = time.monotonic(), WALL_TIMES * usual + WALL_MORE
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _become_tests(
                    copy, tests, self._result, round(CPU_TIMES * usual + CPU_MORE), keep_compiled=fault is None
                )
            finally:
                os._exit(99)

    def result(self) -> dict[str, Any] | None:
        """verdict ("survived", "caught", "crashed", "timeout"), by (the test), seconds, files; None = not ended yet.

        Once it has ended, the fault is taken out.
        """
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        seconds = time.monotonic() - self._start
        if pid == 0 and seconds < self._limit:
            return None
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)  # and what it started
        if pid == 0:
            os.waitpid(self._pid, 0)
        if self.fault is not None:
            self._file.write_text(self._source, "utf-8")
            os.utime(self._file, ns=self._times)  # as what was compiled of it expects
        if pid == 0:
            return {"verdict": "timeout", "by": "", "seconds": seconds, "files": {}}
        told = json.loads(self._result.read_text("utf-8")) if self._result.exists() else {"by": "", "files": {}}
        verdict = {0: "survived", 1: "caught", 2: "caught", -signal.SIGXCPU: "timeout", -signal.SIGKILL: "timeout"}.get(
            os.waitstatus_to_exitcode(status), "crashed"
        )
        return {"verdict": verdict, "seconds": seconds, **told}


def _become_tests(copy: Path, tests: Sequence[str], result: Path, cpu: int, keep_compiled: bool) -> None:
    os.setpgid(0, 0)
    os.chdir(copy)
    log = os.open(copy.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, at in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(stream, at)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    scratch = copy.with_suffix(".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = not keep_compiled
    os.environ |= {"PYTHONPATH": str(copy), "TMPDIR": str(scratch)}
    if not keep_compiled:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    tempfile.tempdir = None
    import pytest

    recorder = Recorder()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "--import-mode=importlib"]
    code = pytest.main([*options, "--tb=short", f"--basetemp={scratch / 'pytest'}", *tests], plugins=[recorder])
    result.write_text(json.dumps({"by": recorder.failed, "files": recorder.seconds}), "utf-8")
    sys.stdout.flush()
    os._exit(int(code))


def modules() -> dict[str, str]:
    """The files that are mutated, as paths below the repository, and the room each is in."""
    found = {}
    for room, places in ROOMS.items():
        for place in places.split():
            path = REPOSITORY / "brainrdl" / place
            files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
            found |= {str(f.relative_to(REPOSITORY)): room for f in files if f.name != "__init__.py"}
    return found


def drawn(n: int, seed: int) -> list[Mutation]:
    """The `n` faults that a seed draws of all that fit, in an order without meaning."""
    every = [fault for m in modules() for fault in mutations(m, (REPOSITORY / m).read_text("utf-8"), seed)]
    return sorted(every, key=lambda fault: fault.key)[:n]


def chosen(records: Sequence[Mapping[str, Any]], seed: int = 0) -> list[Mutation]:
    """The faults of which these are records: of the same module, operator, line (`was`) and what it `becomes`.

    Where a record has a `key` it tells apart faults of the same text; it is of this seed.
    Raises ValueError where one does not fit (any more).
    """
    return [_fitting(record, seed) for record in records]


def _fitting(record: Mapping[str, Any], seed: int) -> Mutation:
    source = (REPOSITORY / record["module"]).read_text("utf-8")
    for fault in all_mutations(record["module"], source, seed):
        same_place = (fault.operator, fault.was) == (record["operator"], record["was"])
        same_place = same_place and fault.key == record.get("key", fault.key)
        if same_place and becomes(source, fault.applied(source)) == record["becomes"]:
            return fault
    raise ValueError(f"{record['module']}: {record['operator']} makes no {record['becomes']!r} of {record['was']!r}")


def tests_of(module: str, seconds: Mapping[str, float]) -> list[list[str]]:
    """A module's own tests (of its name, or that import it), then others that reach it; the nearest and quickest first.

    seconds: per test file.
    """
    below = Path(module).relative_to("brainrdl")
    mirror = str("tests" / below.with_name(f"test_{below.name}"))
    extra = {test for tests in MORE_TESTS.values() for test in tests} - set(MORE_TESTS.get(module, []))
    far = {test: distances(REPOSITORY / test, REPOSITORY).get(module, 99) for test in seconds}
    far |= dict.fromkeys(OF_ALL, 1) | {mirror: 0}
    in_order = sorted(seconds, key=lambda test: (far[test], seconds[test]))
    reaching = [test for test in in_order if far[test] < 99 and test not in extra]
    own = [test for test in reaching if far[test] <= 1]
    others: list[str] = []
    for test in reaching[len(own) :]:
        if sum(seconds[chosen] for chosen in [*others, test]) <= OTHERS_SECONDS:
            others.append(test)
    return [tests for tests in (own, others) if tests]


def all_tests() -> list[str]:
    """Files of all tests that a fault may meet."""
    patterns = [*TESTS, *OF_ALL, *(test for tests in MORE_TESTS.values() for test in tests)]
    return [str(f.relative_to(REPOSITORY)) for pattern in patterns for f in sorted(REPOSITORY.glob(pattern))]


def copied(to: Path) -> Path:
    """A copy of what the tests need of the repository, without results and caches."""
    to.mkdir(parents=True)
    for name in COPIED:
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "results", "_build", ".*")
            shutil.copytree(REPOSITORY / name, to / name, ignore=ignored)
        elif (REPOSITORY / name).exists():
            shutil.copy2(REPOSITORY / name, to / name)
    return to


def usual_seconds(copy: Path, tests: Sequence[str]) -> dict[str, float]:
    """Seconds of each test file without a fault. Raises RuntimeError where one fails: then nothing could be told."""
    run = Run(copy, tests, usual=600)
    while (result := run.result()) is None:
        time.sleep(0.05)
    if result["verdict"] != "survived":
        log = copy.with_suffix(".log").read_text("utf-8", errors="replace")
        raise RuntimeError(f"without a fault, {result['by'] or 'the tests'} failed; mend that first\n{log[-3000:]}")
    return {test: result["files"].get(test, 0.0) for test in tests}


def tried(faults: Sequence[Mutation], folder: Path, tests: Sequence[str], jobs: int = 1) -> Iterator[Tried]:
    """Each fault and what became of it, in the order in which that is known.

    folder: for copies of the repository, one for each of `jobs` processes. tests: files below the repository, which
    first run without a fault; of a fault's own tests first, and only what they miss meets the others.
    """
    first = copied(folder / "copy-0")
    seconds = usual_seconds(first, tests)
    free = [first, *(shutil.copytree(first, folder / f"copy-{k}") for k in range(1, jobs))]
    waiting = deque((fault, tests_of(fault.module, seconds), 0.0) for fault in faults)
    running: list[tuple[Run, list[list[str]], float]] = []
    while waiting or running:
        while waiting and free:
            fault, (now, *later), spent = waiting.popleft()
            usual = sum(seconds[test] for test in now)
            running.append((Run(free.pop(), now, usual, fault), later, spent))
        time.sleep(0.02)
        for entry in list(running):
            run, later, spent = entry
            if (result := run.result()) is None:
                continue
            running.remove(entry)
            free.append(run.copy)
            spent += result["seconds"]
            assert run.fault is not None
            if result["verdict"] == "survived" and later:
                waiting.append((run.fault, later, spent))
            else:
                yield Tried(run.fault, result["verdict"], result["by"], round(spent, 1))


def judged() -> dict[tuple[str, str, str], str]:
    """Why no test can notice a fault: by module, the line without and the line with it."""
    entries = json.loads(JUDGED.read_text("utf-8"))
    return {(entry["module"], entry["was"], entry["becomes"]): entry["why"] for entry in entries}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Figures for each room and module, and the survivors with what is known of them."""
    room_of = modules()
    reasons = judged()
    lines = [f"{'':42}{'faults':>7}{'caught':>7}{'survived':>9}{'nothing can notice':>19}"]
    groups = {room: [r for r in records if room_of.get(r["module"]) == room] for room in ROOMS}
    for room, its in {**groups, "all": records}.items():
        names = sorted({r["module"] for r in its}) if room in ROOMS else []
        for name, rows in [(room, its), *((f"  {m}", [r for r in its if r["module"] == m]) for m in names)]:
            missed = [r for r in rows if r["verdict"] == "survived"]
            equal = [r for r in missed if (r["module"], r["was"], r["becomes"]) in reasons]
            lines.append(f"{name:42}{len(rows):7}{len(rows) - len(missed):7}{len(missed):9}{len(equal):19}")
    for r in (r for r in records if r["verdict"] == "survived"):
        why = reasons.get((r["module"], r["was"], r["becomes"]), "to be judged")
        lines += ["", f"{r['module']}:{r['line']} {r['operator']}", f"- {r['was']}", f"+ {r['becomes']}", f"  {why}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws, tries, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="how many faults (default 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="how many at once (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; what it has already is kept")
    parser.add_argument("--again", action="store_true", help="try those that survived once more")
    parser.add_argument(
        "--chosen", type=Path, help="a JSON list of faults (module, operator, was, becomes) to try instead"
    )
    parser.add_argument(
        "--tests", nargs="+", default=None, help="files of tests, instead of all that may notice a fault"
    )
    options = parser.parse_args(arguments)
    faults = drawn(options.n, options.seed)
    if options.chosen is not None:
        faults = chosen(json.loads(options.chosen.read_text("utf-8")), options.seed)
    before = json.loads(options.out.read_text("utf-8"))["faults"] if options.out.exists() else []
    kept = {(r["module"], r["key"]): r for r in before if not (options.again and r["verdict"] == "survived")}
    records = [kept[f.module, f.key] | {"line": f.line} for f in faults if (f.module, f.key) in kept]
    rest = [fault for fault in faults if (fault.module, fault.key) not in kept]
    if rest:
        for name in WARM:
            importlib.import_module(name)
        assert "brainrdl" not in sys.modules
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for one in tried(rest, Path(folder), options.tests or all_tests(), options.jobs) if rest else ():
            records.append(one.record())
            text = json.dumps({"seed": options.seed, "n": options.n, "faults": records}, indent=1)
            unfinished = options.out.with_suffix(".part")
            unfinished.write_text(text, "utf-8")
            unfinished.replace(options.out)
            print(
                len(records), one.verdict, f"{one.seconds:.0f} s", one.fault.module, one.fault.line, one.by, flush=True
            )
    print(table(records))


if __name__ == "__main__":
    main()
