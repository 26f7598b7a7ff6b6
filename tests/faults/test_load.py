"""Long runs, long queues and large teachers in small; and the tools that look at them find what is planted."""

import gc
import json
import logging
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from itertools import count as counted_on
from types import SimpleNamespace

import load
import load_resources
import load_runs
import load_sources
import load_steps
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from load_resources import COUNTS, Resources, count, failures, growth, own_temporary_folder, repeated, wait_for_no_child
from load_sources import Cost, exponents
from torch import nn

from brainrdl.objectives.methods import METHODS
from brainrdl.run_folder import HistoryFiles
from brainrdl.sources import CombinedTeacher, MeasuredPatterns, PatternTable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

NOTHING = Resources(**dict.fromkeys(Resources.__dataclass_fields__, 0))


@pytest.fixture
def counting_files(tmp_path):
    """Temporary files of the test alone are counted."""
    with own_temporary_folder(tmp_path / "temporary"):
        yield tmp_path / "temporary"


@pytest.fixture(autouse=True)
def without_others_children(monkeypatch):
    """Processes that other tests of this process have left do not count."""
    monkeypatch.setattr(load_resources, "PASSED_OVER", load_resources.children())


def assert_nothing_more(grown):
    assert {name: grown.gained[name] for name in (*COUNTS, "tensors")} == dict.fromkeys((*COUNTS, "tensors"), 0)


# -- the tools ---------------------------------------------------------------------------------------------------------


def test_growth_is_the_line_through_the_counts():
    counts = [replace(NOTHING, rss=10 + 3 * k + (k % 2), files=k // 3) for k in range(4)]
    grown = growth([100 * k for k in range(4)], counts)
    assert grown.slope["rss"] == pytest.approx(32.0)  # least squares of 10, 14, 16, 20 at 0, 100, 200, 300
    assert grown.error["rss"] == pytest.approx(1000 * (0.8 / 2 / 50_000) ** 0.5)  # √(residuals' squares / dof / Sxx)
    assert grown.slope["tensors"] == grown.error["tensors"] == 0
    assert failures(grown, rss=27, objects=0) == ["files +1"]
    assert failures(grown, rss=20, objects=0) == ["files +1", "rss +32.0 ± 2.8 a thousand, allowed 20"]


def test_two_counts_have_no_standard_error():
    with pytest.raises(ValueError, match="expected at least 3 counts, one a place, got 2 at 2"):
        growth([0, 1], [NOTHING, NOTHING])


def test_every_kind_of_leak_is_found(counting_files):
    network, kept = nn.Linear(2, 2), []
    end = threading.Event()

    def leak(k):
        kept.append([torch.zeros(5), *({"name": object()} for _ in range(50))])
        kept.append(open(counting_files / "one", "a"))  # noqa: SIM115
        network.register_forward_hook(lambda *inputs: None)
        threading.Thread(target=end.wait, daemon=True).start()
        kept.append(subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE))
        tempfile.mkstemp()
        logging.getLogger("leaking").addHandler(logging.NullHandler())
        plt.figure()

    try:
        grown = repeated(leak, 3, [network])
        found = failures(grown, rss=1e9, objects=1000)
    finally:
        end.set()
        plt.close("all")
        logging.getLogger("leaking").handlers.clear()
        for one in kept:
            if isinstance(one, subprocess.Popen):
                one.communicate()
            elif not isinstance(one, list):
                one.close()
    for name in ("hooks", "threads", "children", "handlers", "figures"):
        assert f"{name} +2" in found
    assert grown.gained["files"] >= 2 and grown.gained["temporary"] == 2
    assert [line.split()[0] for line in found[-2:]] == ["objects", "tensors"]
    assert wait_for_no_child() == 0


def test_an_objective_that_keeps_its_patterns_is_found_within_a_training(tmp_path, counting_files):
    kept = []

    class Leak(nn.Module):
        layers, stream = ("fc",), "task"

        def prepare(self, patterns, stimuli):
            pass

        def forward(self, patterns, stimuli, draw=None):
            kept.append(patterns["fc"].detach())
            return {"leak/fc": patterns["fc"].square().mean()}

    grown = load_steps.all_at_once(30, 15, tmp_path, a_epoch=15, leak=Leak())
    assert grown.slope["tensors"] == pytest.approx(1000) and len(kept) > 45
    assert any(line.startswith("tensors +1000.0") for line in failures(grown, **load.A_STEP))


def test_quadratic_work_is_told_from_work_in_proportion():
    costs = [Cost(n, {"line": n / 1000, "square": (n / 1000) ** 2, "little": 0.1}, 0.0) for n in (4000, 1000, 2000)]
    assert exponents(costs) == {"line": pytest.approx(1), "square": pytest.approx(2)}


def test_a_run_that_differs_from_another_is_named(tmp_path):
    for place, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / place / "rdl").mkdir(parents=True)
        (tmp_path / place / "rdl" / "history.csv").write_bytes(content)
        (tmp_path / place / "predictions.csv").write_bytes(b"alike")
    assert load_runs.differing(tmp_path / "a", tmp_path / "b") == ["rdl/history.csv"]
    (tmp_path / "b" / "predictions.csv").unlink()
    assert "predictions.csv" in load_runs.differing(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match="holds nothing to compare"):
        load_runs.differing(tmp_path / "b" / "none", tmp_path / "a")


@pytest.mark.parametrize(("files", "status", "told"), [(0, 0, "nothing grew"), (1, 1, "the work: files +2")])
def test_the_command_says_what_grew_by_its_status_and_in_its_file(tmp_path, monkeypatch, capsys, files, status, told):
    grown = growth(range(3), [replace(NOTHING, files=files * k) for k in range(3)])
    monkeypatch.setitem(load.COMMANDS, "steps", lambda report, *_: report.add("the work", grown, load.A_STEP))
    assert load.main(["steps", "--out", str(tmp_path / "found.json")]) == status
    assert told in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["failed"] == ([told] if status else [])


# -- what they look at -------------------------------------------------------------------------------------------------


def test_every_method_of_the_table_takes_part():
    assert {*load_steps.SETTINGS, "combined"} == set(METHODS)


def test_a_training_with_every_method_needs_no_more_with_time(tmp_path, counting_files):
    grown = load_steps.all_at_once(120, 80, tmp_path, a_epoch=40)
    assert_nothing_more(grown)
    assert grown.n == 5
    assert grown.gained["tensor_kib"] == 0
    assert grown.gained["objects"] < 200  # a tensor a step would be as many more


def test_a_training_leaves_nothing_behind(tmp_path, counting_files):
    assert set(load_steps.left_behind(5, tmp_path).values()) == {0}


def test_methods_in_turn_leave_nothing_behind(counting_files):
    grown = load_steps.in_turn(3, 2, ("computed again",), warm_up=1)
    assert_nothing_more(grown)
    assert grown.gained["objects"] < 300  # of 27 trainings: less than their networks' parts


def test_experiments_in_one_process_leave_nothing_behind(tmp_path, counting_files):
    grown = load_runs.queue(3, 0, tmp_path, warm_up=2)
    assert_nothing_more(grown)
    assert sorted(path.name for path in tmp_path.glob("run-*")) == [f"run-{k}" for k in range(5)]
    assert (tmp_path / "run-4" / "run" / "brain.h5").exists()


def test_what_is_kept_after_each_epoch_is_let_go_of(tmp_path, counting_files):
    grown = load_runs.epochs(4, tmp_path, warm_up=2)
    assert_nothing_more(grown)
    assert grown.n == 4


def test_many_regions_of_many_subjects_are_taught_and_analysed_at_once(tmp_path):
    cost = load_sources.cost(n_rois=3, n_subjects=8, n_steps=3, folder=tmp_path)
    assert cost.n_names == 24
    assert {what.partition(":")[0] for what in cost.seconds} >= {"RDMs", "patterns", "combined", "layer_agreement"}


def test_a_term_that_was_not_measured_is_found():
    with pytest.raises(ValueError, match="1 of 2 terms were measured in the stream 'task'"):
        load_sources.check_trained({"rdl/fc/a": 1.0, "rdl/fc/b": float("nan")}, ("a", "b"), "task")


def test_patterns_of_the_same_stimuli_share_one_index():
    ids = {"a": "xyz", "b": "yxz", "c": "xyz", "d": "xyy"}
    rows = {
        name: PatternTable(np.random.default_rng(0).random((3, 4)), list(of_table)) for name, of_table in ids.items()
    }
    source = MeasuredPatterns(rows, "euclidean")
    index = {name: source._responses[name].index for name in rows}
    assert index["a"] is index["c"] and index["a"] is not index["b"]
    assert index["d"] == {"x": 0, "y": 1}


def test_a_name_that_two_of_many_sources_have_is_refused():
    ids = ("x", "y", "z")
    sources = [
        MeasuredPatterns({name: PatternTable(np.random.default_rng(0).random((3, 4)), ids)}, "euclidean")
        for name in "aba"
    ]
    with pytest.raises(ValueError, match="the name 'a' occurs twice"):
        CombinedTeacher(sources)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, FloatingPointError, ValueError])
def test_tensorboards_writer_is_closed_however_a_training_ends(tmp_path, monkeypatch, error):
    numbers, open_now, scalars = counted_on(), set(), []

    class Writer:
        def __init__(self, folder, purge_step):
            self.number = next(numbers)
            open_now.add(self.number)

        def add_scalar(self, name, value, epoch):
            scalars.append((name, value, epoch))

        def flush(self):
            pass

        def close(self):
            open_now.remove(self.number)

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    files = HistoryFiles(tmp_path)
    try:
        with files.kept_up():
            for epoch in range(3):
                files.add({"stage": "main", "epoch": epoch, "task": 0.5}, {"seconds": 1.0})
            assert open_now == {0}
            if error is not None:
                raise error
    except (KeyboardInterrupt, FloatingPointError, ValueError) as raised:
        assert type(raised) is error
    assert open_now == set()
    assert scalars == [("task", 0.5, epoch) for epoch in range(3)]


def test_counts_are_of_the_whole_process(counting_files):
    gc.collect()
    before = count()
    kept = torch.zeros(256)
    after = count()
    assert (after.tensors - before.tensors, after.tensor_kib - before.tensor_kib) == (1, kept.nbytes / 1024)
