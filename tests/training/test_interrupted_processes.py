"""Several processes that one signal ends: after the same step, saved once, and to be gone on from by any number."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainrdl.training.checkpoint import load_checkpoint
from brainrdl.training.devices import make_fabric

SCRIPT = Path(__file__).with_name("interrupted_training.py")
spec = importlib.util.spec_from_file_location("interrupted_training", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("interrupted")
    done = subprocess.run([sys.executable, str(SCRIPT), str(here), "2"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return here


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"rank-{rank}-of-2.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("plain", [True, False])
def test_two_processes_go_on_bit_by_bit(ranks, folder, assert_equal_states, plain):
    state = load_checkpoint(folder / f"{plain}-for-one.pt")
    assert (state["epoch"], state["step"]) == (1, 3)
    # Each part of a batch is a row of each process.
    assert [len(rows) for rows in state["sums"]["rows"]] == [3 * (1 if plain else 2)] * 2
    for rank in ranks:
        assert rank["ended", plain]["ended"] and not rank["whole", plain]["ended"]
        assert rank["gone on", plain]["history"] == rank["whole", plain]["history"]
        assert_equal_states(rank["gone on", plain]["student"], rank["whole", plain]["student"])


def test_one_process_goes_on_from_two(ranks, folder):
    fabric = make_fabric("cpu")
    alone = script.train(fabric, True, folder / "True-for-one.pt", resume=True)
    for found, expected in zip(alone["history"], ranks[0]["whole", True]["history"], strict=True):
        assert found.pop("stage") == expected["stage"] == "main"
        assert found == pytest.approx({name: n for name, n in expected.items() if name != "stage"}, rel=1e-4)
    for name, value in ranks[0]["whole", True]["student"].items():
        torch.testing.assert_close(alone["student"][name], value, rtol=1e-4, atol=1e-6)


def test_all_see_the_signal_at_the_end_of_a_short_epoch(ranks, folder):
    state = load_checkpoint(folder / "late.pt")
    assert (state["epoch"], state["step"]) == (0, 6)
    assert all(rank["late"]["ended"] for rank in ranks)


def test_a_signal_after_the_last_step_ends_all_once_the_epoch_is_saved(ranks, folder):
    state = load_checkpoint(folder / "between.pt")
    assert (state["epoch"], state.get("step"), len(state["history"])) == (1, None, 1)
    assert all(rank["between"]["ended"] for rank in ranks)
