"""When one of several processes fails all of them end, soon, and the user reads what happened where it did."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainrdl.failures import PARENT

SCRIPT = Path(__file__).with_name("failing_training.py")
WITHIN = 60  # seconds


def free_port():
    with socket.socket() as one:
        one.bind(("", 0))
        return str(one.getsockname()[1])


def slurm(rank, port):
    """The variables that srun sets, and the port of docs/slurm.sbatch."""
    return {
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_ID": "4242",
        "MASTER_PORT": port,
    }  # fmt: skip


def start(folder, *words, env=None):
    environment = {**os.environ, PARENT: str(os.getpid()), **(env or {})}  # as where this process has started others
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *words, str(folder)], text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def is_running(pid):
    """Whether there is such a process; what has ended and was not yet fetched by its parent has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_all_ended(folder):
    pids = [int((folder / f"pid-{rank}").read_text()) for rank in (0, 1)]
    give_up = time.monotonic() + 15
    while any(map(is_running, pids)) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert not any(map(is_running, pids))


def wait_for(file):
    give_up = time.monotonic() + WITHIN
    while not file.exists() and time.monotonic() < give_up:
        time.sleep(0.1)


def said(error):
    """What was written to stderr, without Fabric's and torch's notes, some of which go over several lines."""
    notes = ("Initializing distributed", "distributed_backend", "All distributed processes", "---", "[W", "[rank")
    of_torch = ("Exception raised from", "frame #", "<omitting python frames>")
    return "\n".join(line for line in error.splitlines() if line.strip() and not line.startswith(notes + of_torch))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
class TestStartedByFabric:
    @pytest.mark.parametrize("rank", [0, 1])
    def test_an_error(self, tmp_path, rank):
        process = start(tmp_path, str(rank), "raises")
        output, error = process.communicate(timeout=WITHIN)
        assert process.returncode == 1
        assert error.count("Traceback") == 1
        assert error.count("KeyError: 'no such image'") == 1 and error.rstrip().endswith("KeyError: 'no such image'")
        assert "epoch 0" in output and "epoch 1" not in output
        assert_all_ended(tmp_path)

    def test_a_process_that_is_killed(self, tmp_path):
        process = start(tmp_path, "1", "is killed")
        _, error = process.communicate(timeout=WITHIN)
        assert process.returncode == 1
        assert said(error).startswith("error: process 1 of 2 was ended by SIGKILL")
        assert "Traceback" not in error
        assert_all_ended(tmp_path)

    def test_the_first_process_is_killed(self, tmp_path):
        process = start(tmp_path, "0", "is killed")
        _, error = process.communicate(timeout=WITHIN)
        assert process.returncode == -9
        assert error.splitlines().count("error: process 0 of 2 is gone; all were stopped") == 1
        assert "Traceback" not in error
        assert_all_ended(tmp_path)

    def test_an_interrupt(self, tmp_path):
        process = start(tmp_path, "1", "sleeps", env={"PYTHONUNBUFFERED": "1"})
        wait_for(tmp_path / "sleeps")
        for rank in (1, 0):  # as a terminal sends it to all
            os.kill(int((tmp_path / f"pid-{rank}").read_text()), signal.SIGINT)
        _, error = process.communicate(timeout=WITHIN)
        assert process.returncode == 1
        assert error.count("KeyboardInterrupt") == 1
        assert_all_ended(tmp_path)

    def test_the_first_process_is_ended_while_another_is_busy(self, tmp_path):
        process = start(tmp_path, "1", "sleeps")
        wait_for(tmp_path / "sleeps")
        process.terminate()
        process.communicate(timeout=WITHIN)
        assert process.returncode == -15
        assert_all_ended(tmp_path)

    def test_a_loss_that_is_not_finite_in_one_process(self, tmp_path):
        process = start(tmp_path, "1", "diverges")
        _, error = process.communicate(timeout=WITHIN)
        assert process.returncode == 1
        # In the epoch's last step: the other process has not yet seen the weights that come of it.
        assert error.count("FloatingPointError: loss term task became nan in stage 'main', epoch 0, step 4") == 1
        assert_all_ended(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_that_slurm_has_started(tmp_path):
    port = free_port()
    processes = [start(tmp_path, "1", "raises", env=slurm(rank, port)) for rank in (0, 1)]
    errors = [process.communicate(timeout=WITHIN)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert said(errors[0]) == ""
    assert errors[1].count("Traceback") == 1 and errors[1].rstrip().endswith("KeyError: 'no such image'")
    assert_all_ended(tmp_path)
