"""Every kind of file of a run × every way in which a disk damages it.

    python tests/faults/storage_faults.py --out FILE.json [--kind K] [--share 0.1] [--flips 3] [--disk-full] [--mounts]

A small run of each kind (a task with a teacher, brains as teachers, a search) is made once, finished and interrupted.
For each fault its folder is copied, one file damaged, and one command called. What came of it:

- told: one message that names the file or its part, and no traceback; its remedy is then followed, after which
  `run --resume` must end with the very files of the run that was not damaged
- made anew: the command ends as without the fault, and the file is whole again (a note may say so)
- harmless: the command ends with the same results as without the fault, whatever the damaged bytes are now
- SILENT, TRACEBACK, REMEDY FAILED: failures

Results are compared to the bit: of `run --resume` histories, predictions, weights, RDMs, chosen settings; of `report`
its tables, results.md and report.html; of `figure` the picture's bytes. Not compared are times and versions
(timing.csv, environment.json), which differ between equal runs. `--disk-full` and `--mounts` try full disks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from click.testing import Result
from storage_disks import try_full, try_small_disk
from storage_runs import (
    COMMANDS,
    KINDS,
    REPEATED,
    STATES,
    Case,
    Runs,
    files_of,
    results_of,
    unfinished_part,
    without_report,
)

FAILURES = ("SILENT", "TRACEBACK", "REMEDY FAILED")


class Outcome(NamedTuple):
    """what: told, made anew, harmless, or a failure. words: the message, or how it was judged."""

    what: str
    words: str


def halve(path: Path, others: list[Path], random: Random) -> None:
    """Only its first half is there."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, others: list[Path], random: Random) -> None:
    """One bit is another."""
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def empty(path: Path, others: list[Path], random: Random) -> None:
    """Nothing of it is there."""
    os.truncate(path, 0)


def delete(path: Path, others: list[Path], random: Random) -> None:
    """It is not there."""
    path.unlink()


def replace(path: Path, others: list[Path], random: Random) -> None:
    """Another file of its kind is in its place."""
    shutil.copyfile(random.choice(others), path)


FAULTS: dict[str, Callable[[Path, list[Path], Random], None]] = {
    "halved": halve,
    "bit flipped": flip,
    "emptied": empty,
    "deleted": delete,
    "replaced": replace,
}


def cases(runs: Runs, kinds: Sequence[str] = KINDS) -> list[Case]:
    """All that there is to try: of an interrupted run only what finished parts do not have."""
    found = []
    for kind in kinds:
        commands = ("resume",) if kind == "search" else COMMANDS
        for state in STATES:
            out = runs.made(kind, state)
            part = "" if state == "finished" else unfinished_part(out).relative_to(out).as_posix()
            found += [
                Case(kind, state, file, fault, command)
                for file in files_of(out, part)
                if not REPEATED.search(file)
                for fault in FAULTS
                for command in commands
            ]
    return found


def try_case(runs: Runs, case: Case, random: Random) -> Outcome:
    """Damage a copy as the case says, call its command, and judge what came of it."""
    expected = runs.expected(case)
    out = runs.folder / "tried"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(runs.made(case.kind, case.state), out)
    (out.parent / "figure.png").unlink(missing_ok=True)
    path = out / case.file
    whole = path.read_bytes()
    others = [file for file in _alike(runs, case) if file.read_bytes() != whole]
    if case.fault == "replaced" and not others:
        return Outcome("harmless", "there is no other file of its kind")
    if case.fault == "bit flipped" and not whole:
        return Outcome("harmless", "it is empty anyway")
    FAULTS[case.fault](path, others, random)
    damaged = path.read_bytes() if path.exists() else None
    result = runs.command(case, out)
    return _judged(runs, case, out, result, expected, whole, damaged)


def _alike(runs: Runs, case: Case) -> list[Path]:
    """Other files of the same name or ending, of this run and of other ones."""
    name = Path(case.file).name
    own = [file for file in runs.made(case.kind, case.state).rglob(f"*{Path(name).suffix}") if file.is_file()]
    own = [file for file in own if "report" not in file.parts]
    return [file for file in own if file.name == name] or own


def _judged(
    runs: Runs, case: Case, out: Path, result: Result, expected: dict[str, bytes], whole: bytes, damaged: bytes | None
) -> Outcome:
    told = " ".join(result.output.split())
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return Outcome("TRACEBACK", repr(result.exception)[:300])
    if case.state == "interrupted" and case.file.endswith("notes.txt"):
        # Notes of a training that is not at its end are no result; what is warned of again is noted again.
        expected = {name: content for name, content in expected.items() if name != case.file}
        (out / case.file).unlink(missing_ok=True)
    same = results_of(out, case.command) | {"exit": str(result.exit_code).encode()} == expected
    if result.exit_code != 0 and not same:
        place = (out / case.file).parent
        named = case.file in told or str(place) in told
        if result.exit_code not in (1, 2) or not named or "Traceback" in told:
            return Outcome("TRACEBACK", f"exit {result.exit_code}, and the message does not name it: {told[-300:]}")
        return _after_remedy(runs, case, out, told)
    if not same:
        now = results_of(out, case.command)
        differ = [name for name in expected if now.get(name) != expected[name] and name != "exit"]
        is_unfinished = re.search(rb"ot finished|\d of \d networks are finished", now.get("results.md", b""))
        # Notes are words for readers, and noted again when the training goes on.
        if (damaged is None or case.file.endswith("notes.txt")) and (is_unfinished or "ot finished" in told):
            return Outcome("told", "what there is of a network that is called unfinished")
        page, page_before = (of.get("report.html", b"") for of in (now, expected))
        if Path(case.file).name.encode() in page and Path(case.file).name.encode() not in page_before:
            return Outcome("told", "the report says that it is not there")
        if any(word in told for word in ("note:", "warning:")) and Path(case.file).name in told:
            return Outcome("told", f"goes on with a note: {told[:300]}")
        return Outcome("SILENT", f"{', '.join(differ) or 'more files'} differ(s) without a word")
    content = (out / case.file).read_bytes() if (out / case.file).exists() else None
    if content != damaged:
        return Outcome("made anew", "with a note" if "note:" in told else "without a word")
    return Outcome("harmless", f"{', '.join(sorted(expected)[:4])}, … are the same to the bit")


def _after_remedy(runs: Runs, case: Case, out: Path, told: str) -> Outcome:
    """Do what the message says and resume: all results must be those of the undamaged run."""
    message = told[told.rfind("error:") :]
    folder = re.search(r"delete the folder (\S+)", message)
    if folder:
        shutil.rmtree(folder[1])
    elif "give another --out" in message:
        shutil.rmtree(out)
    elif "delete" in message:
        for name in re.findall(r"(/\S+?)(?:[:;,]|\s|$)", message):
            if Path(name).is_file() and out in Path(name).parents:
                Path(name).unlink()
    with without_report():
        again = runs.run(case.kind, out, "--resume")
    expected = runs.expected(case._replace(command="resume"))
    now = results_of(out, "resume") | {"exit": str(again.exit_code).encode()}
    if now != expected:
        differ = [name for name in {*now, *expected} if now.get(name) != expected.get(name)]
        why = f"{differ} after: {message[:300]} … {' '.join(again.output.split())[-200:]}"
        return Outcome("REMEDY FAILED", why)
    return Outcome("told", message[:300])


# -- the command -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Try everything, or a part of it, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a JSON file of all outcomes")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only runs of these kinds; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases, drawn")
    parser.add_argument("--flips", type=int, default=1, help="how many different bits are flipped, one at a time")
    parser.add_argument("--disk-full", action="store_true", help="also let every write of a run fail, one at a time")
    parser.add_argument("--mounts", action="store_true", help="also fill a small disk (needs root)")
    given = parser.parse_args()
    begin, kinds, tried = time.monotonic(), given.kind or KINDS, []
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        random = Random(given.seed)
        every = [case for case in cases(runs, kinds) for _ in range(given.flips if case.fault == "bit flipped" else 1)]
        chosen = every if given.share == 1 else random.sample(every, round(given.share * len(every)))
        for case in chosen:
            outcome = try_case(runs, case, random)
            tried.append((case, outcome))
            if outcome.what in FAILURES:
                print(f"{outcome.what}: {', '.join(case)}: {outcome.words}", flush=True)
        full = dict(_every_write(runs, kinds) if given.disk_full else ())
        if given.mounts:
            full |= {
                f"{kind}, {free} bytes free": try_small_disk(runs, kind, free)
                for kind in kinds
                for free in range(0, 400_000, 20_000)
            }
    counts = Counter(outcome.what for _, outcome in tried)
    table = [{**case._asdict(), **outcome._asdict()} for case, outcome in tried]
    problems = {what: why for what, why in full.items() if why not in (None, "enough")}
    content = {"seconds": round(time.monotonic() - begin), "counts": counts, "cases": table, "full": full}
    given.out.write_text(json.dumps(content, indent=1))
    print(f"{len(tried)} cases: {', '.join(f'{n} {what}' for what, n in counts.most_common())}")
    print(f"{len(full)} full disks: {len(problems)} problems")
    for what, why in problems.items():
        print(f"{what}: {why}")
    raise SystemExit(bool(problems) or any(counts[what] for what in FAILURES))


def _every_write(runs: Runs, kinds: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for kind in kinds:
        for write in range(10_000):
            try:
                yield f"{kind}, write {write}", try_full(runs, kind, write)
            except IndexError:
                break


if __name__ == "__main__":
    main()
