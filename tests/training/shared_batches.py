"""Trainings whose batches any number of processes may share: `python shared_batches.py FOLDER N_PROCESSES [STOP]`.

Every process writes what its trainings came to, FOLDER/rank-RANK-of-N.pt. The tests run the same in one process.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from rsatoolbox.rdm import RDMs
from torch import nn

from brainrdl.layers import record_layers
from brainrdl.objectives import RDLObjective, Stage, sgd
from brainrdl.ranks import gather_rows
from brainrdl.sources import MeasuredRDMs, NetworkTeacher
from brainrdl.training import Trainer
from brainrdl.training.devices import agreed, check_alike, make_fabric

spec = importlib.util.spec_from_file_location("tools", Path(__file__).with_name("conftest.py"))
tools = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tools)

# 16, 16 and 15 images: shares of 8 and, last, of 8 and 7.
TRAIN, VALIDATION, SHOWN = (
    tools.draw_stimuli(47, seed=1),
    tools.draw_stimuli(30, seed=2),
    tools.draw_stimuli(25, seed=3),
)


def net(seed, **arguments):
    torch.manual_seed(seed)
    return tools.Net(dropout=0, norm=nn.Identity, **arguments)


def network_teacher():
    return NetworkTeacher(net(1, n_hidden=10), ["pool2", "fc"])


def measured_teacher(stimuli, names=("IT", "V4"), uncovered=()):
    """RDMs of the stimuli but for a last name without those `uncovered`, of which a tenth was not measured."""
    random = np.random.default_rng(0)
    n_stimuli = len(stimuli.ids)
    values = random.gamma(2.0, size=(len(names), n_stimuli * (n_stimuli - 1) // 2))
    values[random.random(values.shape) < 0.1] = np.nan
    i, j = np.triu_indices(n_stimuli, 1)
    values[-1, np.isin(i, uncovered) | np.isin(j, uncovered)] = np.nan
    descriptors = {"roi": list(names)}
    rdms = RDMs(values, "crossnobis", rdm_descriptors=descriptors, pattern_descriptors={"stimulus": list(stimuli.ids)})
    return MeasuredRDMs(rdms)


def rdl(teacher=None, layers=None, **settings):
    return RDLObjective(teacher or network_teacher(), layers or {"pool2": "pool2", "fc": "fc"}, **settings)


# name -> across_ranks -> objective
OBJECTIVES = {
    "mse, by image": lambda across: rdl(pairs=40, across_ranks=across),
    "mse, by pair": lambda across: rdl(pairs=40, normalization="pair", across_ranks=across),
    "a pair": lambda across: rdl(pairs=1, across_ranks=across),
    "few images": lambda across: rdl(images=5, across_ranks=across),
    "correlation": lambda across: rdl(discrepancy="correlation", dissimilarity="cosine", pairs=40, across_ranks=across),
    "measured": lambda across: rdl(
        measured_teacher(TRAIN), {"fc": {"IT": 1.0, "V4": 0.5}}, pairs=60, across_ranks=across
    ),
    "measured, stimuli": lambda across: rdl(
        measured_teacher(SHOWN, uncovered=range(8)), {"fc": {"IT": 1.0, "V4": 0.5}}, stream="stimuli",
        across_ranks=across,
    ),
    "none": lambda across: None,
}  # fmt: skip


def recorded(student, objective):
    return record_layers(student, () if objective is None else objective.layers)


def train(name, across, fabric, epochs=1, checkpoint=None, stop=None, resume=False, images=47, **settings):
    """What the student came to, the history, and the best weights so far."""
    student = net(0)
    stage = Stage(OBJECTIVES[name](across), 3.0, epochs=epochs, optimizer=sgd(0.1))
    trainer = Trainer(
        student, stage, batch_size=16, stimulus_batch_size=9 if "stimuli" in name else None, seed=4, clip=2.0,
        fabric=fabric, checkpoint=checkpoint, **settings,
    )  # fmt: skip
    rows = []
    task = TRAIN.subset(torch.arange(images))
    for record in trainer.fit(task, SHOWN if "stimuli" in name else None, VALIDATION, resume):
        rows.append(record.history)
        if len(rows) == stop:
            break
    best = None if trainer._best is None else {key: trainer._best[key] for key in ("error", "epoch", "student")}
    state = {key: value.clone() for key, value in student.state_dict().items()}
    return {"student": state, "history": rows, "best": best}


def gather(dtype):
    """Rows that take no regular turns, gathered, and the gradient of a loss of all of them in this process's."""
    rank = torch.distributed.get_rank()
    owners = torch.tensor([1, 0, 1, 1, 0, 1, 1])
    whole = torch.arange(21.0).reshape(7, 3).to(dtype)
    own = whole[owners == rank].clone().requires_grad_()
    gathered = gather_rows(own, owners)
    (gathered.float() * torch.arange(7.0)[:, None]).sum().backward()
    none = gather_rows(whole[: 0 if rank else 7], torch.zeros(7, dtype=torch.int64))
    return {"gathered": gathered.detach(), "gradient": own.grad, "of one": none}


def told(act):
    """What an error says."""
    try:
        act()
    except (ValueError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fails_in_1(fabric):
    if fabric.global_rank == 1:
        raise FloatingPointError("of process 1")
    return fabric.global_rank


def main(here, n_processes):
    torch.set_num_threads(1)
    fabric = make_fabric("cpu", devices=n_processes)
    results = {(name, across): train(name, across, fabric) for name in OBJECTIVES for across in (True, False)}
    results["parts"] = train("mse, by image", True, fabric, images=32, accumulate=2)
    results["gathered"] = {dtype: gather(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
    results["told"] = [
        told(lambda: agreed(fabric, lambda: fails_in_1(fabric))),
        told(lambda: check_alike(fabric, 3 * fabric.global_rank, "epochs in a file")),
        told(lambda: check_alike(fabric, 3, "epochs in a file")),
        told(lambda: gather_rows(torch.zeros(3, 2), torch.arange(4) % 2)),
    ]
    begun = {"epochs": 4, "keep": "best"}
    results["stopped"] = train("measured", True, fabric, checkpoint=here / "of-2.pt", stop=2, **begun)
    results["gone on"] = train("measured", True, fabric, checkpoint=here / "of-1.pt", resume=True, **begun)
    torch.save(results, here / f"rank-{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
