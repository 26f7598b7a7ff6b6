"""`brainrdl run` in two processes, however they were started: one run folder, as of one process, and told once."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from brainrdl.models import build_network
from brainrdl.run_folder import EXPERIMENT
from brainrdl.runs import read_json
from brainrdl.training.checkpoint import load_checkpoint

BATCH_SCRIPT = Path(__file__).parents[1] / "docs" / "slurm.sbatch"
NETWORK = {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2]}
EXPERIMENT_FILE = """
name: shared
data: {{spec: digits, train: 47, validation: 30}}
student: {{network: mnist_cnn, arguments: {network}}}
teacher: {{network: "watched:make", weights: {weights}}}
training: {{epochs: 3, batch_size: 16}}
methods:
  baseline: {{}}
  rdl: {{layers: {{pool1: pool1, fc: fc}}, pairs: 60, across_ranks: true}}
  broken: {{method: baseline, student: {{network: "watched:make", arguments: {{fails_in: 1}}}}}}
seeds: [0]
analysis: {{layers: [pool1, fc]}}
"""
# A teacher that writes down how many images it looks at, and a student that fails in one process. Of the report no
# figure is drawn.
WATCHED = """
import os
from brainrdl.models import build_network
from brainrdl.report import drawing, task_report

task_report.draw = lambda *_: drawing.Figures()

def make(fails_in=None):
    network = build_network("mnist_cnn", {network})
    rank = os.environ.get("LOCAL_RANK", "0")

    def look(module, inputs):
        if fails_in is not None and module.training and rank == str(fails_in):
            raise ValueError("an image that cannot be")
        with open(os.environ["WATCHED"], "a") as file:
            file.write(rank + " " + str(len(inputs[0])) + chr(10))

    network.register_forward_pre_hook(look)
    return network
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    torch.manual_seed(0)
    torch.save(build_network("mnist_cnn", NETWORK).state_dict(), folder / "teacher.pt")
    (folder / "shared.yaml").write_text(EXPERIMENT_FILE.format(network=NETWORK, weights=folder / "teacher.pt"))
    (folder / "watched.py").write_text(WATCHED.format(network=NETWORK))
    return folder


def start(here, out, *words, **variables):
    environment = {**os.environ, "PYTHONPATH": str(here), "WATCHED": str(here / f"{out}.txt"), **variables}
    command = [sys.executable, "-m", "brainrdl", "run", "shared.yaml", "--out", out, "--accelerator", "cpu"]
    return subprocess.Popen(
        [*command, "--allow-code", *words], cwd=here, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def lines(text):
    """What is told, without Fabric's notes of how processes met, and without what is left of a training."""
    notes = ("Initializing distributed", "distributed_backend", "All distributed processes", "---")
    return [re.sub(r", \d.* left$", "", line) for line in text.splitlines() if line and not line.startswith(notes)]


@pytest.fixture(scope="module")
def of_two(here):
    """The folder of a run with `--devices 2`, and what was told."""
    process = start(here, "two", "--methods", "baseline,rdl", "--devices", "2")
    output, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    return here / "two", output, error


def test_nothing_is_told_twice(of_two):
    _, output, error = of_two
    assert len(lines(output)) == len(set(lines(output)))
    assert [sum(line.startswith(f"[{k}/2] ") and "test error" in line for line in lines(output)) for k in (1, 2)] == [
        1,
        1,
    ]
    assert lines(error) == []


def test_nothing_is_written_twice(of_two):
    folder, _, _ = of_two
    assert read_json(folder / "environment.json")["processes"] == 2
    for method in ("baseline", "rdl"):
        part = folder / method / "seed-0"
        assert list(pd.read_csv(part / "history.csv")["epoch"]) == [0, 1, 2]
        assert list(pd.read_csv(part / "timing.csv")["epoch"]) == [0, 1, 2]
        predictions = pd.read_csv(part / "predictions.csv")
        assert len(predictions) == predictions["stimulus"].nunique() == 1797 - 77
        assert read_json(part / "part.json")["finished"]
        assert len(list((part / "tensorboard").glob("*"))) <= 1
    assert list(pd.read_csv(folder / "report" / "results.csv")["n_seeds"]) == [1, 1, 1]
    assert (folder / EXPERIMENT).is_file() and (folder / "report" / "report.html").is_file()
    assert not (folder / "teacher" / "patterns").exists()


def test_one_process_looks_at_the_images_for_all(of_two):
    folder, _, _ = of_two
    looks = pd.read_csv(folder.with_suffix(".txt"), sep=" ", names=["rank", "images"])
    # Each process tries the teacher with a few images, before the run and before the training, and measures its test
    # error; one writes its patterns down.
    few = 4 + (8 + 8 + 4) + 1797 - 77
    seen = looks.groupby("rank")["images"].sum()
    assert seen[1] <= few
    assert seen[0] >= few + 47


def test_an_error_in_one_process(here):
    process = start(here, "broken", "--methods", "broken", "--devices", "2")
    output, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert lines(error) == ["error: shared.yaml: an image that cannot be"]
    assert "test error" not in "".join(line for line in lines(output) if line.startswith("[1/1]"))


def free_port():
    with socket.socket() as one:
        one.bind(("", 0))
        return str(one.getsockname()[1])


def torchrun(rank, port):
    """The variables that torchrun sets."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "a-run",
    }  # fmt: skip


# What srun does for two tasks of one machine: it passes signals on, and ends with the highest status of them.
SRUN = """#!/bin/bash
test "$1" = --kill-on-bad-exit=1 && shift
for rank in 0 1; do
    SLURM_NTASKS=2 SLURM_NODEID=0 SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" &
done
trap 'kill -USR1 $(jobs -p)' USR1
echo $$ > srun.pid
status=0
for task in $(jobs -p); do
    while kill -0 $task 2>/dev/null; do
        wait $task
        ended=$?
    done
    ((ended > status)) && status=$ended
done
exit $status
"""
SCONTROL = """#!/bin/bash
echo "$@" >> scontrol.txt
"""


@pytest.fixture
def batch_job(here):
    """`batch_job(out, ...)`: the batch script for SLURM, started, with stand-ins for SLURM's programs."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    programs = here / "programs"
    programs.mkdir(exist_ok=True)
    command = f'#!/bin/bash\nexec "{sys.executable}" -m brainrdl "$@"\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("brainrdl", command)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("srun.pid", "scontrol.txt"):
        (here / name).unlink(missing_ok=True)

    def begin(out, *words):
        environment = {
            **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(here),
            "WATCHED": str(here / "slurm.txt"), "MASTER_PORT": free_port(), "SLURM_JOB_ID": "4242",
            "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "127.0.0.1",
        }  # fmt: skip
        command = ["bash", str(BATCH_SCRIPT), "shared.yaml", out, "--accelerator", "cpu", "--allow-code", *words]
        return subprocess.Popen(
            command, cwd=here, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return begin


def test_the_batch_script_for_slurm(here, of_two, batch_job):
    process = batch_job("slurm", "--methods", "rdl")
    output, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert len(lines(output)) == len(set(lines(output))) and lines(error) == []
    found, expected = (pd.read_csv(folder / "rdl" / "seed-0" / "history.csv") for folder in (here / "slurm", of_two[0]))
    pd.testing.assert_frame_equal(found, expected)
    assert not (here / "scontrol.txt").exists()


def test_before_its_time_is_over_a_job_of_slurm_saves_and_is_queued_again(here, batch_job):
    changes = ("training.epochs=60", "analysis.every=0", "data.test=100", "analysis.n_per_class=2")
    epochs = ("--methods", "rdl", *(word for change in changes for word in ("--set", change)))
    whole = start(here, "whole", *epochs, "--devices", "2")
    assert whole.wait(240) == 0, whole.communicate()
    process = batch_job("requeued", *epochs, "--checkpoint-steps", "1")
    checkpoint = here / "requeued" / "rdl" / "seed-0" / "checkpoint" / "last.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.05)
    os.kill(int((here / "srun.pid").read_text()), signal.SIGUSR1)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert [line.split(";")[0] for line in lines(error)] == ["interrupted"], error
    assert (here / "scontrol.txt").read_text() == "requeue 4242\n"
    assert load_checkpoint(checkpoint)["epoch"] < 60
    again = batch_job("requeued", *epochs)
    assert again.wait(240) == 0, again.communicate()
    assert (here / "scontrol.txt").read_text() == "requeue 4242\n", "not queued again when it is done"
    found, expected = ((here / run / "rdl" / "seed-0" / "history.csv").read_bytes() for run in ("requeued", "whole"))
    assert found == expected


def test_what_is_wrong_is_told_once_by_processes_that_torchrun_has_started(here):
    port = free_port()
    words = ("--methods", "rdl", "--devices", "2", "--set", "analysis.layers=[pool9]")
    processes = [start(here, "wrong", *words, **torchrun(rank, port)) for rank in (0, 1)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    told = lines("\n".join(errors))
    assert len(told) == 1 and "layer 'pool9' is not in the student" in told[0]


def test_torchrun_without_devices(here):
    process = start(here, "alone", "--methods", "rdl", **torchrun(0, "1"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "torchrun has started 2 processes, each of which would train alone; say how many share a batch" in error


def test_jobs_and_devices(here):
    process = start(here, "both", "--devices", "2", "--jobs", "2")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "2 parts at the same time cannot each have 2 devices; give either jobs or devices" in error
