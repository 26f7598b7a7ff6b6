"""Two processes on the CPU: every method moves the same weights in both, and a teacher stays as it was."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from brainrdl.objectives import Stage, sgd

UP_TO_POOL1 = {"conv1"}
UP_TO_POOL2 = {"conv1", "conv2"}
ALL = {"conv1", "conv2", "fc", "norm", "readout"}
REACHED = {
    "baseline": ALL,
    "finetuning": ALL,
    "rdl": UP_TO_POOL2,
    "deep supervision": UP_TO_POOL2,
    "hints": UP_TO_POOL1,
    "hints, then combined": ALL,
    "distillation": ALL,
    "best": ALL,
}

# Run by Fabric in two processes, as a user's own script is.
SCRIPT = """
import importlib.util, sys
from pathlib import Path

import torch
from torch import nn

from brainrdl.objectives import DeepSupervision, Distillation, Hints, RDLObjective, Stage, sgd
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Targets
from brainrdl.training import Trainer
from brainrdl.training.devices import make_fabric

here, tools = Path(sys.argv[1]), sys.argv[2]
spec = importlib.util.spec_from_file_location("tools", tools)
tools = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tools)
torch.set_num_threads(1)
train, validation = tools.draw_stimuli(50, seed=1), tools.draw_stimuli(30, seed=2)
fabric = make_fabric("cpu", devices=2)


def net(seed, **arguments):
    torch.manual_seed(seed)
    return tools.Net(**arguments)


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


METHODS = {
    "baseline": lambda t: Stage(epochs=2),
    "finetuning": lambda t: Stage(initial_weights=t.network.state_dict()),
    "rdl": lambda t: Stage(RDLObjective(t, {"pool2": "pool2"}, pairs=10), task_weight=0),
    "deep supervision": lambda t: Stage(DeepSupervision(["pool2"]), task_weight=0),
    "hints": lambda t: Stage(Hints(t, {"pool1": "pool1"}), task_weight=0),
    "hints, then combined": lambda t: [
        Stage(Hints(t, {"pool1": "pool1"}), task_weight=0, name="hints"),
        Stage([RDLObjective(t, {"fc": "fc"}, pairs=10), Distillation(t)], [1.0, 0.5]),
    ],
    "distillation": lambda t: Stage(Distillation(t), task_weight=0),
    "best": lambda t: Stage(epochs=6, optimizer=sgd(0.3)),
}
result = {}
for name, make in METHODS.items():
    teacher = NetworkTeacher(net(1, n_hidden=10), ["pool1", "pool2", "fc"])
    student = net(0)
    before, of_teacher = state(student), state(teacher.network)
    best = {"keep": "best"} if name == "best" else {}
    checkpoint = here / f"{name}.pt"
    trainer = Trainer(student, make(teacher), batch_size=16, fabric=fabric, checkpoint=checkpoint, **best)
    history = [record.history for record in trainer.fit(train, validation=validation)]
    result[name] = dict(
        before=before, after=state(student), history=history,
        teacher=[of_teacher, state(teacher.network)], checkpoint=checkpoint.exists(),
    )
plain = net(0, norm=nn.Identity, dropout=0)
trainer = Trainer(plain, Stage(epochs=2, optimizer=sgd(0.1)), batch_size=16, fabric=fabric)
list(trainer.fit(train.subset(torch.arange(48))))
result["plain"] = dict(after=state(plain))


class Brain:
    # A name for each of two subjects, who share 6 stimuli.
    names, dissimilarity, unbiased = ("sub-1", "sub-2"), "crossnobis", True
    rdm = torch.rand(30, 30, generator=torch.Generator().manual_seed(4)) - 0.2
    rows = {"sub-1": range(16), "sub-2": range(10, 26)}

    def covers(self, ids):
        return {n: torch.tensor([int(s.split("/")[1]) in rows for s in ids]) for n, rows in self.rows.items()}

    def targets(self, stimuli, pairs):
        rows = torch.tensor([int(s.split("/")[1]) for s in stimuli.ids])
        low, high = torch.minimum(rows[pairs.i], rows[pairs.j]), torch.maximum(rows[pairs.i], rows[pairs.j])
        return {
            n: Targets(self.rdm[low, high].where((low >= min(r)) & (high <= max(r)), torch.nan))
            for n, r in self.rows.items()
        }


for name, seed, norm in (("brain", 3, nn.BatchNorm2d), ("brain, one forward", 3, nn.Identity)):
    student = net(0, norm=norm)
    before = state(student)
    objective = RDLObjective(Brain(), {"fc": {"sub-1": 1.0, "sub-2": 1.0}}, stream="stimuli")
    trainer = Trainer(student, Stage(objective, epochs=2), batch_size=16, stimulus_batch_size=8, fabric=fabric)
    history = [record.history for record in trainer.fit(train, tools.draw_stimuli(30, seed=seed))]
    result[name] = dict(before=before, after=state(student), history=history)
objective = RDLObjective(NetworkTeacher(net(1), ["fc"]), {"fc": "fc"}, pairs=10)
whole, drawn = objective.draw_pairs, []
objective.draw_pairs = lambda n, draw: drawn.append((draw, whole(n, draw))) or drawn[-1][1]
list(Trainer(net(0), Stage(objective), batch_size=16, fabric=fabric).fit(train))
result["pairs"] = [torch.stack(pairs).tolist() for draw, pairs in drawn[1:]]
torch.save(result, here / f"rank-{fabric.global_rank}.pt")
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the two processes has come to."""
    here = tmp_path_factory.mktemp("ddp")
    script = here / "script.py"
    script.write_text(SCRIPT)
    tools = __file__.replace("test_ddp.py", "conftest.py")
    done = subprocess.run(
        [sys.executable, str(script), str(here), tools], capture_output=True, text=True, timeout=240, cwd=here
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(here / f"rank-{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("method", REACHED)
def test_every_method(ranks, moved_parts, assert_equal_states, method):
    first, second = (rank[method] for rank in ranks)
    assert moved_parts(first["before"], first["after"]) == REACHED[method]
    assert_equal_states(first["after"], second["after"])
    for rank in (first, second):
        assert_equal_states(*rank["teacher"])
    assert first["history"] == second["history"], "both tell what all images came to"
    assert first["checkpoint"]


@pytest.mark.parametrize("name", ["brain", "brain, one forward"])
def test_brain_data_beside_a_task(ranks, moved_parts, assert_equal_states, name):
    first, second = (rank[name] for rank in ranks)
    assert moved_parts(first["before"], first["after"]) >= ALL - {"norm"}
    assert_equal_states(first["after"], second["after"])
    assert first["history"] == second["history"]
    for row in first["history"]:
        # 8 stimuli a step, 4 and so 6 pairs in each process; each name has a turn.
        assert [row[f"n_pairs/rdl/fc/{subject}"] for subject in ("sub-1", "sub-2")] == [6, 6]


def test_every_image_counts_once(ranks):
    row = ranks[0]["baseline"]["history"][0]
    # 50 images in batches of 16, the last one of 2 left out: one image a process has no batch statistics.
    assert row["train_error"] * 48 == pytest.approx(round(row["train_error"] * 48))


def test_each_process_draws_its_own_pairs(ranks):
    first, second = (rank["pairs"] for rank in ranks)
    assert len(first) == len(second) == 3
    for one, other in zip(first, second, strict=True):
        assert len(one[0]) == len(other[0]) == 10
        assert one != other


def test_two_processes_are_one(ranks, make_net, train, fit, snapshot):
    """Where nothing is drawn and no batch statistics are taken, sharing a batch out changes nothing."""
    student = make_net(0, norm=nn.Identity, dropout=0)
    fit(student, Stage(epochs=2, optimizer=sgd(0.1)), train.subset(torch.arange(48)))
    for name, value in snapshot(student).items():
        torch.testing.assert_close(ranks[0]["plain"]["after"][name], value, rtol=1e-4, atol=1e-6)
