"""Some kills of real runs; `python tests/faults/kill_run.py` tries as many as one likes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from compared_runs import differences
from dying_writes import Death, DyingWrites, Event
from kill_run import session
from killed_experiments import write_experiments

from brainrdl.rdms import save_rdms
from brainrdl.runs import write_text
from brainrdl.training.checkpoint import load_checkpoint

TOOL = Path(__file__).with_name("kill_run.py")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def tried(*words):
    """What the tool says; in a process of its own, from which runs are forked."""
    done = subprocess.run(
        [sys.executable, str(TOOL), *words], capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, done.stdout


def test_kills_lose_nothing():
    status, told = tried("--kills", "6", "--seed", "1", "--only", "search", "brain")
    assert status == 0 and '"losses": 0' in told, told


def test_signals_lose_nothing_and_leave_nobody():
    status, told = tried("--kills", "2", "--signal", "INT", "TERM", "--jobs", "2", "--only", "search")
    assert status == 0 and '"losses": 0' in told, told


def test_processes_whose_parent_is_killed_save_and_end(tmp_path):
    file = write_experiments(tmp_path)["search"].file
    words = [sys.executable, "-m", "brainrdl", "run", str(file), "--search", "--out", str(tmp_path / "run")]
    words += ["--accelerator", "cpu", "--set", "training.epochs=4000", "--set", "search.every={}"]
    words += ["--set", "search.methods={baseline: {training.learning_rate: [0.05, 0.06]}}", "--jobs", "2"]
    parent = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    give_up = time.monotonic() + 200
    while len(list(tmp_path.rglob("*.trial-*/**/last.pt"))) < 2 and time.monotonic() < give_up:
        assert parent.poll() is None, parent.stderr.read()
        time.sleep(0.05)
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    begin = time.monotonic()
    while session(parent.pid) and time.monotonic() < begin + 60:
        time.sleep(0.05)
    assert session(parent.pid) == []
    steps = [load_checkpoint(place).get("step", 0) for place in tmp_path.rglob("*.trial-*/**/last.pt")]
    assert len(steps) == 2 and all(0 <= step <= 5 for step in steps)
    assert not list(tmp_path.rglob("*.draft*"))


# -- the tool itself: what it plants is there, and what differs is found ---------------------------------------------


PHASES = {
    "torn": (b"old", 1, 0.5),
    "unsynced": (b"old", 1, 0.5),
    "synced": (b"old", 1, 0.5),
    "named": (b"new, of eight words and a few more", 0, 0.5),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_death_inside_a_write(tmp_path, phase):
    before, n_drafts, share = PHASES[phase]
    file = tmp_path / "table.csv"
    file.write_bytes(b"old")
    child = os.fork()
    if not child:
        DyingWrites(tmp_path, Death(Event("table.csv", phase), 1, share)).watch()
        write_text(file, "new, of eight words and a few more")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert file.read_bytes() == before
    drafts = [len(draft.read_bytes()) for draft in tmp_path.glob(".*draft*")]
    assert len(drafts) == n_drafts and all(size == (17 if phase == "torn" else 34) for size in drafts)


def test_a_difference_is_found(tmp_path):
    for name in ("a", "b"):
        part = tmp_path / name / "rdl" / "seed-0"
        part.mkdir(parents=True)
        (part / "history.csv").write_text("epoch,task\n0,1.0\n")
        (part / "timing.csv").write_text(name)
        (part / "part.json").write_text(f'{{"finished": true, "files": {{"timing.csv": "{name}"}}}}')
    rdms = load_rdms_of([0.1, 0.2, 0.3])
    save_rdms(rdms, tmp_path / "a" / "rdl" / "seed-0" / "rdms.h5")
    save_rdms(rdms, tmp_path / "b" / "rdl" / "seed-0" / "rdms.h5")
    assert differences(tmp_path / "a", tmp_path / "b") == []
    part = tmp_path / "b" / "rdl" / "seed-0"
    (part / "history.csv").write_text("epoch,task\n0,1.0000000000000002\n")
    (part / "part.json").write_text('{"finished": false, "files": {}}')
    save_rdms(load_rdms_of([0.1, 0.2, np.nextafter(0.3, 1)]), part / "rdms.h5")
    (part / ".history.77.draft.csv").write_text("")
    names = ["history.csv differs", "part.json differs", "rdms.h5 differs", ".history.77.draft.csv is missing"]
    assert sorted(differences(tmp_path / "a", tmp_path / "b")) == sorted(f"rdl/seed-0/{name}" for name in names)


def load_rdms_of(values):
    from rsatoolbox.rdm import RDMs

    return RDMs(np.array([values]), "euclidean", pattern_descriptors={"stimulus": ["a", "b", "c"]})


def test_states_that_differ_in_a_bit(tmp_path):
    from compared_runs import _same_states

    one = {"a": [torch.tensor([1.0, 2.0])], "b": float("nan"), "c": "x"}
    other = {"a": [torch.tensor([1.0, 2.0000002])], "b": float("nan"), "c": "x"}
    assert _same_states(one, {**one, "a": [torch.tensor([1.0, 2.0])]}) and not _same_states(one, other)


def test_who_is_left_in_a_session():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    assert session(child.pid) == [child.pid]
    child.kill()
    child.wait()
    assert session(child.pid) == []
