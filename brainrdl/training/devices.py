"""The devices a training runs on, as Lightning Fabric drives them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from brainrdl.failures import PARENT, watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_T = TypeVar("_T")

# So long a process waits for the others: longer than what one does alone, such as looking at all images or the report.
_TIMEOUT = timedelta(hours=1)
# So long a question takes at most when whom it is asked of is gone.
_STORE_TIMEOUT = timedelta(seconds=10)


def make_fabric(
    accelerator: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str | None = None,
    strategy: str = "auto",
) -> Fabric:
    """A launched `Fabric`. Raises ValueError for a device or precision that is not there.

    With several devices this starts the other processes of the machine, but where torchrun or SLURM has started all of
    them. Where one fails, all end (`brainrdl.failures`); one that waits for another gives up after an hour.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    if precision not in (None, "32-true", "16-mixed", "bf16-mixed"):
        raise ValueError(
            f"precision: expected 32-true, 16-mixed or bf16-mixed (the weights stay in float32), got '{precision}'"
        )
    _check_torchrun(devices, num_nodes)
    in_a_session = hasattr(sys, "ps1")  # there, Fabric forks
    several = isinstance(devices, int) and devices * num_nodes > 1 and not in_a_session
    if several and "LOCAL_RANK" not in os.environ:
        os.environ[PARENT] = str(os.getpid())  # for those that this process starts
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            precision=precision,  # type: ignore[arg-type]
            strategy=DDPStrategy(timeout=_TIMEOUT) if several and strategy in ("auto", "ddp") else strategy,
        )
        started_here = getattr(fabric.strategy, "cluster_environment", None)
        if num_nodes > 1 and isinstance(started_here, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
            raise ValueError("processes on other machines are not started from here; start by torchrun or srun on each")
        fabric.launch()
    except Exception as error:  # Fabric raises its own and RuntimeError, ValueError, TypeError
        reason = " ".join(str(error).split())
        of_nodes = f" × {num_nodes} nodes" if num_nodes != 1 else ""
        raise ValueError(
            f"cannot train on accelerator '{accelerator}' × {devices}{of_nodes}, precision {precision}: {reason}"
        ) from None
    watch_others(fabric)
    return fabric


def _check_torchrun(devices: int, num_nodes: int) -> None:
    """Raise ValueError where torchrun has started other processes than these, which would wait or train alone."""
    n_all = int(os.environ.get("WORLD_SIZE", "1"))
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", n_all))
    if "TORCHELASTIC_RUN_ID" not in os.environ or (devices, devices * num_nodes) == (n_here, n_all):
        return
    if devices == num_nodes == 1:
        raise ValueError(
            f"torchrun has started {n_all} processes, each of which would train alone; say how many share a batch: "
            f"devices {n_here} (of a machine) and nodes {n_all // n_here}"
        )
    raise ValueError(
        f"torchrun has started {n_all} processes, {n_here} on this machine: expected devices {n_here} and nodes "
        f"{n_all // n_here}, got devices {devices} and nodes {num_nodes}"
    )


def watch_others(fabric: Fabric) -> None:
    """From now on end with the other processes of a launched Fabric where one of them fails; alone, nothing."""
    if fabric.world_size == 1 or not torch.distributed.is_initialized():
        return
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if address is None or port is None:
        return  # they met in another way, and have nothing to tell each other by
    distributed: Any = torch.distributed
    store = distributed.TCPStore(address, int(port), is_master=False, timeout=_STORE_TIMEOUT, wait_for_workers=False)
    processes = getattr(fabric.strategy.launcher, "procs", [])
    started = list(processes)
    processes.clear()  # Fabric's own watch kills without a word
    watch(store, fabric.global_rank, fabric.world_size, started)


def agreed(fabric: Fabric, look: Callable[[], _T]) -> _T:
    """What `look` gives; the processes go on together or not at all.

    Where it raises ValueError or FloatingPointError in some process, every process raises the first such one's error.
    """
    if fabric.world_size == 1:
        return look()
    error: ValueError | FloatingPointError | None = None
    try:
        result = look()
    except (ValueError, FloatingPointError) as raised:
        error = raised
    first = torch.tensor(fabric.world_size if error is None else fabric.global_rank, device=fabric.device)
    torch.distributed.all_reduce(first, torch.distributed.ReduceOp.MIN)
    rank = int(first)
    if rank == fabric.world_size:
        return result
    kind, message = fabric.broadcast((type(error).__name__, str(error)), src=rank)
    raise (FloatingPointError if kind == "FloatingPointError" else ValueError)(message)


def check_alike(fabric: Fabric, found: int, what: str) -> None:
    """Raise ValueError where a process has found another number than process 0: of epochs in a file, say."""
    of_first = fabric.broadcast(found)

    def compare() -> None:
        if found != of_first:
            raise ValueError(
                f"{what}: process 0 finds {of_first} there, process {fabric.global_rank} {found}; it must lie where "
                "all machines see the same files"
            )

    agreed(fabric, compare)


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Inside, torch computes with `n` threads of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
