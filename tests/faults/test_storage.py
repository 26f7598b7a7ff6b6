"""Damaged files, full and read-only disks, two processes in one folder: nothing is lost, and nothing goes unsaid."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pytest
import rsatoolbox
import storage_faults
import torch
from storage_disks import can_mount, full_at, read_only, try_full, try_small_disk
from storage_faults import FAILURES, FAULTS, try_case
from storage_runs import KINDS, Case, Runs, results_of, without_report
from tiny_experiments import call
from torch import nn

from brainrdl import folder_lock
from brainrdl.folder_lock import locked
from brainrdl.rdms import load_rdms, save_rdms
from brainrdl.run_folder import (
    _RESULTS,
    HistoryFiles,
    Part,
    check_noted,
    check_part,
    looked_at,
    noted,
    noted_damage,
    read_marks,
)
from brainrdl.runs import write_text
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Stimuli

LOCK, OWNER = ".lock", ".in_use_by.json"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copied(runs, tmp_path):
    """`copied(kind)`: a finished run to be damaged."""

    def copy(kind: str = "task") -> Path:
        shutil.copytree(runs.made(kind, "finished"), tmp_path / "run")
        return tmp_path / "run"

    return copy


# -- a seeded part of the table that storage_faults.py tries whole -------------------------------------------------


def drawn(command, n, seed):
    """Cases by fault, so that each fault is there."""
    return [(command, fault, seed + k) for k in range(n) for fault in FAULTS]


@pytest.mark.parametrize(("command", "fault", "seed"), [*drawn("resume", 3, 0), *drawn("figure", 1, 10)])
def test_a_damaged_file_is_told_or_made_anew_and_never_silent(runs, command, fault, seed):
    random = Random(seed)
    kind = ("task", "brain")[seed % 2]
    possible = [
        case
        for case in storage_faults.cases(runs, (kind,))
        if (case.command, case.fault) == (command, fault) and "timing" not in case.file
    ]
    case = random.choice(possible)
    outcome = try_case(runs, case, random)
    assert outcome.what not in FAILURES, (case, outcome)


@pytest.mark.parametrize("name", ["predictions.csv", "rdms.h5", "history.csv", "weights.safetensors"])
def test_what_is_said_of_a_damaged_part_and_that_its_remedy_works(runs, copied, name):
    run = copied()
    part = run / "rdl" / "seed-0"
    size = (part / name).stat().st_size
    os.truncate(part / name, size // 2)
    result = runs.run("task", run, "--resume")
    assert result.exit_code == 2
    told = f"has {size // 2} bytes, not the {size} that were written; delete the folder {part} and run the experiment"
    assert f"{part / name} {told}" in result.output.replace("\n", "")
    if name != "weights.safetensors":
        assert name in call("report", run).output, "a report reads it"
    shutil.rmtree(part)
    with without_report():
        assert runs.run("task", run, "--resume").exit_code == 0
    expected = runs.expected(Case("task", "finished", "", "", "resume"))
    assert results_of(run, "resume") | {"exit": b"0"} == expected


def test_students_are_not_given_damaged_weights_of_their_teacher(runs, copied):
    run = copied()
    weights = run / "teacher" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    from brainrdl.experiment import RunOptions
    from brainrdl.experiment.task import TaskRun
    from brainrdl.experiment_file import load_experiment

    task = TaskRun(load_experiment(str(runs.file("task"))), run, RunOptions(accelerator="cpu"))
    with pytest.raises(ValueError, match=r"teacher/weights\.safetensors has another content than was written; delete"):
        _ = task.teacher_network


def test_every_file_of_a_finished_part_has_its_checksum_and_extra_files_are_no_damage(runs, copied):
    """A new kind of file of a part is to be named among those that have one."""
    for kind in KINDS:
        for marker in runs.made(kind, "finished").rglob("part.json"):
            there = {file.name for file in marker.parent.iterdir() if file.is_file()} - {"part.json"}
            assert there == set(read_marks(marker.parent)["files"]) and there <= set(_RESULTS)
    run = copied()
    (run / "rdl" / "seed-0" / "thoughts.txt").write_text("mine")
    (run / "thoughts.txt").write_text("mine")
    with without_report():
        assert runs.run("task", run).exit_code == 0
    assert (run / "rdl" / "seed-0" / "thoughts.txt").read_text() == "mine"


def test_runs_without_checksums_are_read_as_they_are(runs, copied):
    run = copied()
    (run / "checksums.json").unlink()
    for marker in run.rglob("part.json"):
        marks = json.loads(marker.read_text())
        marker.write_text(json.dumps({"finished": marks["finished"], "settings": marks["settings"]}))
    with without_report():
        result = runs.run("task", run)
    assert result.exit_code == 0 and "4 of 4 parts are finished already" in result.output
    assert noted_damage(run, "references.h5") is None
    assert (run / "checksums.json").exists(), "and have some from then on"


def test_a_part_with_a_damaged_marker(tmp_path):
    part = Part("rdl", 0, tmp_path / "rdl" / "seed-0", {"a": 1})
    part.mark(finished=True)
    marker = part.folder / "part.json"
    whole = marker.read_text()
    for text, found in [
        ("", "cannot be read"),
        (whole[:30], "cannot be read"),
        ("[]", "expected the keys finished"),
        (whole.replace('"a": 1', '"a": 2'), "has another content than was written"),
        (whole.replace("finished", "finisched"), "expected the keys finished"),
    ]:
        marker.write_text(text)
        with pytest.raises(ValueError, match=rf"part\.json: {found}.*; delete the folder .*seed-0 and run .* --resume"):
            looked_at([part], resume=True)
    marker.write_text(whole)
    assert looked_at([part], resume=True)[0].finished


def test_a_diverged_trial_and_the_files_of_a_brain_part_are_watched(tmp_path):
    part = Part("rdl", 0, tmp_path / "seed-0", {})
    for name in ("diverged.txt", "fold.json", "choosing.csv", "copied.json", "notes.txt"):
        write_text(part.folder / name, "before\n")
    part.mark(finished=True)
    check_part(part.folder)
    for name in ("diverged.txt", "fold.json", "choosing.csv", "copied.json", "notes.txt"):
        write_text(part.folder / name, "behind\n")
        with pytest.raises(ValueError, match=rf"{name} has another content than was written"):
            check_part(part.folder)
        check_part(part.folder, ("history.csv",))
        write_text(part.folder / name, "before\n")
    (part.folder / "fold.json").unlink()
    with pytest.raises(ValueError, match=r"fold\.json is missing; delete the folder"):
        check_part(part.folder)


def test_files_of_the_run_itself(tmp_path):
    with noted(tmp_path, "search.csv", "x.h5"):
        write_text(tmp_path / "search.csv", "a")
    check_noted(tmp_path, "search.csv", "x.h5", "never written")
    with pytest.raises(RuntimeError), noted(tmp_path, "search.csv"):
        write_text(tmp_path / "search.csv", "b")
        raise RuntimeError("killed while it was written")
    check_noted(tmp_path, "search.csv")
    with noted(tmp_path, "search.csv"):
        pass
    write_text(tmp_path / "search.csv", "c")
    with pytest.raises(ValueError, match=r"search\.csv has another content than was written; restore it, or delete it"):
        check_noted(tmp_path, "search.csv")
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(ValueError, match=r"checksums\.json: cannot be read .*; delete it: the next run makes it anew"):
        check_noted(tmp_path, "search.csv")


def test_a_lost_experiment_file_is_made_anew_and_a_damaged_one_told(runs, copied):
    run = copied()
    os.truncate(run / "experiment.yaml", 100)
    for words in (("report", run), ("figure", "rdm", run, "--out", run.parent / "x.png")):
        told = call(*words)
        assert told.exit_code == 2 and "experiment.yaml has 100 bytes, not the" in told.output.replace("\n", "")
    (run / "experiment.yaml").unlink()
    with without_report():
        again = runs.run("task", run, "--resume")
    assert again.exit_code == 0 and "experiment.yaml is missing; it is made anew" in again.output.replace("\n", "")
    whole = runs.made("task", "finished") / "experiment.yaml"
    assert (run / "experiment.yaml").read_bytes() == whole.read_bytes()


def test_rdms_of_another_network_in_the_place_of_an_unfinished_one_are_told(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs.made("task", "interrupted"), run)
    shutil.copyfile(run / "baseline" / "seed-0" / "rdms.h5", run / "rdl" / "seed-0" / "rdms.h5")
    told = call("report", run, "--format", "png")
    assert told.exit_code == 2 and "holds RDMs of 'baseline', expected 'rdl'; delete" in told.output.replace("\n", "")
    again = runs.run("task", run, "--resume")
    assert again.exit_code == 2
    assert "its RDMs have network baseline, expected rdl; delete the folder" in again.output.replace("\n", "")


def test_a_changed_history_of_an_unfinished_training_is_told_and_made_anew(runs, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(runs.made("task", "interrupted"), out)
    history = out / "rdl" / "seed-0" / "history.csv"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:2]))
    told = call("report", out, "--format", "png")
    assert told.exit_code == 2 and f"{history} has " in told.output.replace("\n", " "), told.output
    assert "run the experiment again with --resume: it is made anew" in told.output.replace("\n", " ")
    with without_report():
        assert runs.run("task", out, "--resume").exit_code == 0
    assert results_of(out, "resume") == results_of(runs.made("task", "finished"), "resume")
    assert not (history.parent / "checksums.json").exists(), "a finished part has them in part.json"


def test_a_search_with_a_damaged_table(runs, copied):
    run = copied("search")
    os.truncate(run / "search.csv", 40)
    result = runs.run("search", run, "--resume")
    assert result.exit_code == 2
    assert "search.csv has 40 bytes, not the" in result.output and "search again with --resume" in result.output
    (run / "search.csv").unlink()
    again = runs.run("search", run, "--resume")
    assert again.exit_code == 0 and "search.csv is missing; it is made anew" in again.output.replace("\n", "")
    whole = runs.made("search", "finished") / "search.csv"
    assert (run / "search.csv").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("text", ["", "epoch,seconds\n0,\x00", "epoch\n1\n", "epoch,seconds\none,2\n"])
def test_damaged_times_of_an_unfinished_part(tmp_path, text):
    (tmp_path / "timing.csv").write_text(text)
    with pytest.raises(ValueError, match=r"timing\.csv: is damaged .*; delete it and go on with --resume: only times"):
        HistoryFiles(tmp_path)


def test_times_that_nobody_measured_are_no_damage(tmp_path):
    # The epochs' rows were in the checkpoint of a process that was killed before it wrote its times.
    for timing, text in (({}, "epoch\n"), ({}, "epoch\n"), ({"seconds": 2.0}, "epoch,seconds\n0,2.0\n")):
        files = HistoryFiles(tmp_path)
        with files.kept_up():
            files.add({"stage": "main", "epoch": 0, "task": 1.0}, timing)
        assert (tmp_path / "timing.csv").read_text() == text


# -- files of RDMs -------------------------------------------------------------------------------------------------


@pytest.fixture
def rdm_file(tmp_path):
    rdms = rsatoolbox.rdm.RDMs(
        np.random.default_rng(0).random((2, 10)),
        "correlation",
        rdm_descriptors={"roi": ["V1", "IT"]},
        pattern_descriptors={"stimulus": [f"s{k}" for k in range(5)]},
    )
    save_rdms(rdms, tmp_path / "x.h5")
    return tmp_path / "x.h5"


def test_a_file_of_rdms_with_a_checksum_is_read_by_everyone(rdm_file):
    values = load_rdms(rdm_file).dissimilarities
    np.testing.assert_array_equal(rsatoolbox.rdm.load_rdm(str(rdm_file)).dissimilarities, values)
    with h5py.File(rdm_file) as file:
        np.testing.assert_array_equal(file["dissimilarities"][:], values)
        assert file.attrs["checksum"].startswith(b"brainrdl-sha256:")
    for name in ("one.h5", "two.h5"):
        save_rdms(load_rdms(rdm_file), rdm_file.with_name(name))
    assert rdm_file.with_name("one.h5").read_bytes() == rdm_file.with_name("two.h5").read_bytes()


def test_any_changed_bit_of_a_file_of_rdms_is_told(rdm_file):
    whole, random = rdm_file.read_bytes(), Random(0)
    mark = whole.index(b"brainrdl-sha256:")
    for place in [*random.sample(range(len(whole)), 150), mark + 16, mark + 79]:
        if mark <= place < mark + 16:
            continue  # the word by which the checksum is found: the RDMs are what they were
        changed = bytearray(whole)
        changed[place] ^= 1 << random.randrange(8)
        rdm_file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"x\.h5: was damaged or changed since it was written"):
            load_rdms(rdm_file)
    for content, told in [(whole[: len(whole) // 2], "x.h5"), (b"", r"x\.h5: is empty"), (whole[:-1], "x.h5")]:
        rdm_file.write_bytes(content)
        with pytest.raises(ValueError, match=told):
            load_rdms(rdm_file)


def test_a_file_of_rdms_that_was_changed_on_purpose(rdm_file):
    with h5py.File(rdm_file, "r+") as file:
        file["dissimilarities"][0, 0] = 7.0
    with pytest.raises(ValueError, match="if you changed it on purpose, delete its attribute 'checksum'"):
        load_rdms(rdm_file)
    with h5py.File(rdm_file, "r+") as file:
        del file.attrs["checksum"]
    rdm_file.write_bytes(rdm_file.read_bytes().replace(b"brainrdl-sha256:", b"brainrdl-sha256;"))
    assert load_rdms(rdm_file).dissimilarities[0, 0] == 7.0


# -- full and read-only disks --------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_disk_that_is_full_at_any_write_loses_nothing(runs, tmp_path):
    with full_at(10**6) as seen, without_report():
        assert runs.run("task", tmp_path / "count").exit_code == 0
    assert len(seen) > 40
    for write in Random(0).sample(range(len(seen)), 3):
        assert try_full(runs, "task", write) is None


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_a_small_disk_and_one_that_cannot_be_written(runs, tmp_path):
    if not can_mount():
        pytest.skip("needs root, and leave to mount")
    assert try_small_disk(runs, "task", 60_000) is None
    run = tmp_path / "run"
    shutil.copytree(runs.made("task", "finished"), run)
    with read_only(run):
        for words in (("run", runs.file("task"), "--out", run, "--accelerator", "cpu"), ("report", run)):
            result = call(*words)
            assert result.exit_code == 1 and "Read-only file system" in result.output, result.output
            assert "choose a place that can be written, or copy the run to one" in result.output.replace("\n", " ")
    files = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != LOCK}
    whole = runs.made("task", "finished")
    assert all(content == (whole / file.relative_to(run)).read_bytes() for file, content in files.items())


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_data_on_a_read_only_disk_are_used_and_what_cannot_be_put_there_is_told(runs, tmp_path):
    if not can_mount():
        pytest.skip("needs root, and leave to mount")
    whole, data = runs.made("brain", "finished"), tmp_path / "data"
    data.mkdir()
    with read_only(runs.folder / "taught"), read_only(runs.folder / "scored"), read_only(data), without_report():
        assert runs.run("brain", tmp_path / "run").exit_code == 0
        for words in (("fetch", "mnist", "--into", data), ("figure", "rdm", whole, "--out", data / "x.png")):
            result = call(*words)
            told = result.output.replace("\n", " ")
            assert result.exit_code == 1 and f"error: {data}/" in told and "choose a place that can be wri" in told
        result = call("rdms", runs.folder / "taught.yaml", "--out", data / "x.h5")
        assert result.exit_code == 2 and f"{data} may not be written to; choose another --out" in result.output
    assert results_of(tmp_path / "run", "resume") == results_of(whole, "resume")


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_kept_patterns_on_a_read_only_disk_are_used_and_new_ones_are_told(tmp_path):
    if not can_mount():
        pytest.skip("needs root, and leave to mount")
    place, images = tmp_path / "cache", torch.rand(6, 1, 2, 2)
    known, new = Stimuli(images[:4], tuple("abcd")), Stimuli(images[4:], tuple("ef"))

    def teacher() -> NetworkTeacher:
        return NetworkTeacher(nn.Sequential(nn.Flatten()), ["0"], cache=place)

    kept = teacher().patterns(known)["0"]
    with read_only(place):
        assert torch.equal(teacher().patterns(known)["0"], kept)
        with pytest.raises(OSError, match="Read-only file system") as error:
            teacher().patterns(new)
        assert str(place) in str(error.value.filename)


# -- two processes, one folder -------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from brainrdl.folder_lock import locked
with locked(Path(sys.argv[1]), *sys.argv[2:]):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_process_is_refused_until_the_first_is_gone(runs, holder, tmp_path):
    run = tmp_path / "run"
    (run / ".x.99999999.draft.csv").write_text("half")
    result = runs.run("task", run)
    assert result.exit_code == 2
    told = result.output.replace("\n", " ")
    owner = rf"{re.escape(str(run))} is in use by process {holder.pid} on {os.uname().nodename} since "
    assert re.search(owner + r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", told), told
    assert "wait for it, or give another --out" in told
    assert runs.run("search", run).exit_code == 2
    assert {file.name for file in run.iterdir()} == {LOCK, OWNER, ".x.99999999.draft.csv"}, "nothing was changed in it"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    # What the killed one left (its lock, its name, its draft) is no content, and nothing that stops anyone.
    with without_report():
        assert runs.run("task", run).exit_code == 0
    assert not (run / OWNER).exists() and not list(run.rglob("*draft*"))


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_where_the_folder_should_be_is_told(tmp_path, below):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    told = r"notes.txt.*: expected a folder, or a place for one, got a file; give another folder"
    with pytest.raises(ValueError, match=told), locked(file / below):
        pass
    assert file.read_text() == "mine" and [*tmp_path.iterdir()] == [file]


def test_a_report_can_be_made_while_a_run_goes_on_and_two_reports_cannot(runs, copied, monkeypatch):
    from brainrdl import report

    made = []
    monkeypatch.setattr(report, "write_brain_report", lambda folder, formats: made.append(folder))
    run = copied("brain")
    with locked(run):
        assert call("report", run, "--format", "png").exit_code == 0
    assert made == [run]
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run), "report"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        result = call("report", run, "--format", "png")
        assert result.exit_code == 2 and "wait until its report is written" in result.output.replace("\n", " ")
    finally:
        process.kill()
        process.wait()


def test_a_folder_that_nothing_came_into_is_removed_again(tmp_path):
    with pytest.raises(ValueError, match="wrong"), locked(tmp_path / "a" / "b"):
        raise ValueError("wrong")
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "b"):
        write_text(tmp_path / "a" / "b" / "x.txt", "x")
        with locked(tmp_path / "a" / "b"):
            pass
        assert (tmp_path / "a" / "b" / OWNER).exists(), "a second `with` of the same process gives nothing back"
    assert sorted(file.name for file in (tmp_path / "a" / "b").iterdir()) == [LOCK, "x.txt"]


def test_of_several_processes_the_first_asks_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    with locked(tmp_path / "run", n_processes=2):
        assert not (tmp_path / "run").exists()
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists(), "a process that trains alone, whatever its number"
    monkeypatch.setenv("SLURM_PROCID", "0")
    with locked(tmp_path / "run", n_processes=2):
        assert (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, capsys, number):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "run"):
        write_text(tmp_path / "run" / "x.txt", "x")
    assert "knows no locks: make sure that no other process writes into it" in capsys.readouterr().err
    assert (tmp_path / "run" / "x.txt").exists()


def test_a_broken_disk_is_no_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "run"):
        pass


def test_a_lock_waits_as_long_as_it_is_told(holder, tmp_path):
    begin = time.monotonic()
    with pytest.raises(ValueError, match="in use by process"), locked(tmp_path / "run", wait=0.4):
        pass
    assert time.monotonic() - begin >= 0.4
    (tmp_path / "run" / OWNER).write_text("{")
    with pytest.raises(ValueError, match="in use by another process; wait"), locked(tmp_path / "run"):
        pass
    assert not folder_lock._held
