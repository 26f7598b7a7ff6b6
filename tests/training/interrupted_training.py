"""Trainings that several processes are asked to end: `python interrupted_training.py FOLDER N_PROCESSES`.

Every process writes what its trainings came to, FOLDER/rank-RANK-of-N.pt. The tests go on from the checkpoints in one.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from brainrdl.interruption import Interrupted, ending_on_signals
from brainrdl.objectives import RDLObjective, Stage, sgd
from brainrdl.sources import NetworkTeacher
from brainrdl.training import Trainer
from brainrdl.training.devices import make_fabric

spec = importlib.util.spec_from_file_location("tools", Path(__file__).with_name("conftest.py"))
tools = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tools)

EPOCHS, BATCH = 2, 8
TRAIN = tools.draw_stimuli(44, seed=1)  # 6 steps, in the last of which processes have shares of 2


def net(seed, plain):
    torch.manual_seed(seed)
    return tools.Net(n_hidden=10, dropout=0, norm=nn.Identity) if plain else tools.Net(n_hidden=10)


class AskedAfterTheLastStep:
    """A training's progress: interrupts process 1 when all have agreed what is due after an epoch's last step."""

    def step(self, stage, epoch, n_epochs, step, n_steps, values):
        if step == n_steps and epoch == 0 and torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    def epoch(self, record, n_epochs):
        pass


def train(fabric, plain, checkpoint=None, steps=None, resume=False, asked_at=None, progress=None):
    """What the student came to and the history; interrupted in process 1 while it reads a batch, where that is said."""
    student = net(0, plain)
    n_read = 0

    def augment(images, generator):
        nonlocal n_read
        n_read += 1
        if n_read == asked_at and fabric.global_rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return images

    objective = RDLObjective(NetworkTeacher(net(1, plain), ["fc"]), {"fc": "fc"}, pairs=30, across_ranks=True)
    trainer = Trainer(
        student, Stage(objective, 2.0, epochs=EPOCHS, optimizer=sgd(0.1)), batch_size=BATCH, seed=3, fabric=fabric,
        augment=augment, checkpoint=checkpoint, checkpoint_steps=steps, accumulate=1 if plain else 2,
        progress=progress,
    )  # fmt: skip
    rows, ended = [], False
    try:
        with ending_on_signals():
            rows = [record.history for record in trainer.fit(TRAIN, resume=resume)]
    except Interrupted:
        ended = True
    return {"student": student.state_dict(), "history": rows, "ended": ended}


def main(here, n_processes):
    torch.set_num_threads(1)
    fabric = make_fabric("cpu", devices=n_processes)
    results = {}
    for plain in (True, False):
        results["whole", plain] = train(fabric, plain)
        place = here / f"{plain}.pt"
        # A first batch is read before the stage; then it is the third step of the second epoch.
        results["ended", plain] = train(fabric, plain, place, steps=1, asked_at=1 + 6 + 3)
        if fabric.global_rank == 0:
            (here / f"{plain}-for-one.pt").write_bytes(place.read_bytes())
        fabric.barrier()
        results["gone on", plain] = train(fabric, plain, place, resume=True)
    # Without agreed steps they see it at the end of the epoch.
    results["late"] = train(fabric, True, here / "late.pt", asked_at=1 + 2)
    results["between"] = train(fabric, True, here / "between.pt", progress=AskedAfterTheLastStep())
    torch.save(results, here / f"rank-{fabric.global_rank}-of-{n_processes}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
