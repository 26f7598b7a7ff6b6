"""A training in which a process fails in the middle of an epoch: `python failing_training.py WHO HOW [FOLDER]`."""

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import torch

from brainrdl.objectives import Stage
from brainrdl.training import Trainer
from brainrdl.training.devices import make_fabric

spec = importlib.util.spec_from_file_location("tools", Path(__file__).with_name("conftest.py"))
tools = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tools)


def main(who, how, here):
    torch.set_num_threads(1)
    fabric = make_fabric("cpu", devices=2)
    (here / f"pid-{fabric.global_rank}").write_text(str(os.getpid()))
    n_read = 0

    def augment(images, generator):
        nonlocal n_read
        n_read += 1
        if n_read == 7 and fabric.global_rank == who:
            if how == "raises":
                raise KeyError("no such image")
            if how == "is wrong":
                raise ValueError("a wrong image")
            if how == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "sleeps":
                (here / "sleeps").touch()
                time.sleep(600)
        return images * float("nan") if how == "diverges" and fabric.global_rank == who and n_read == 6 else images

    trainer = Trainer(tools.Net(), Stage(epochs=3), batch_size=8, fabric=fabric, augment=augment)
    for record in trainer.fit(tools.draw_stimuli(40, seed=1)):
        print(f"process {fabric.global_rank}, epoch {record.history['epoch']}", flush=True)
    print(f"process {fabric.global_rank} is done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
