"""What a checkpoint holds, and what the training that goes on from it must have in common with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainrdl.objectives.base import Stage
from brainrdl.runs import first_difference
from brainrdl.sources.fingerprints import content_fingerprint, teacher_fingerprint
from brainrdl.training.stage_run import Epoch, StageRun
from brainrdl.training.sums import EpochSums

if TYPE_CHECKING:
    from brainrdl.training.trainer import Trainer


def training_state(
    trainer: Trainer, run: StageRun, epoch: int, history: list[dict[str, Any]], begun: Epoch | None = None
) -> dict[str, Any]:
    """The state of a training after `epoch` epochs, and the steps of `begun`; every process asks for it."""
    state = {
        "training": describe_training(trainer),
        "teachers": trainer.teachers,
        "copied": trainer.copied,
        "not_copied": trainer.not_copied,
        "stage": run.index,
        "epoch": epoch,
        "student": trainer.student.state_dict(),
        "objectives": run.module.objectives.state_dict(),
        "optimizer_kind": type(run.optimizer).__name__,
        "optimizer": run.optimizer.state_dict(),
        "precision": trainer.fabric.strategy.precision.state_dict(),
        "best": trainer._best,
        "history": history,
    }
    if begun is not None:
        state |= {"step": begun.n_done, "seconds": begun.seconds, "sums": begun.sums.state(trainer.fabric)}
    return state


def describe_training(trainer: Trainer) -> dict[str, Any]:
    """The trainer's settings that a result depends on, as far as they can be written down."""
    stages = [f"{stage.name}: {stage.epochs} epochs" for stage in trainer.stages]
    # Named where they are set, so that checkpoints from before there were such settings can be gone on from.
    others = {
        "stimulus_batch_size": trainer.stimulus_batch_size,
        "stimulus_norm": trainer.stimulus_norm,
        "channels_last": trainer.channels_last or None,
        "tf32": trainer.tf32 or None,
        "accumulate": trainer.accumulate if trainer.accumulate > 1 else None,
        "checkpoint_of": trainer.checkpoint_of,
    }
    described = {"seed": trainer.seed, "batch_size": trainer.batch_size, "keep": trainer.keep, "stages": stages}
    return described | {name: value for name, value in others.items() if value is not None}


def describe_teachers(stages: Sequence[Stage]) -> dict[str, str]:
    """Whose it is -> the fingerprint of each teacher, and of weights that a stage begins with."""
    known: dict[int, str | None] = {}
    found: dict[str, str] = {}
    for stage in stages:
        for number, objective in enumerate(stage.objectives):
            teacher = getattr(objective, "teacher", None)
            if teacher is None:
                continue
            if id(teacher) not in known:
                known[id(teacher)] = teacher_fingerprint(teacher)
            fingerprint = known[id(teacher)]
            if fingerprint is not None:
                which = f", objective {number}" if len(stage.objectives) > 1 else ""
                found[f"the teacher of {type(objective).__name__} in stage '{stage.name}'{which}"] = fingerprint
        if stage.initial_weights is not None:
            name = f"the weights that stage '{stage.name}' begins with"
            found[name] = content_fingerprint(dict(stage.initial_weights))
    return found


def check_same_training(
    checkpoint: Path | None, state: dict[str, Any], training: dict[str, Any], teachers: dict[str, str]
) -> None:
    """Raise ValueError, naming what differs, where a checkpoint is of another training or of another teacher."""
    known = state["training"]
    if "checkpoint_of" not in known:  # from before it was called anything
        training = {name: value for name, value in training.items() if name != "checkpoint_of"}
    difference = first_difference(known, training)
    if difference:
        raise ValueError(
            f"checkpoint {checkpoint} is of another training: {difference}; delete it or give another place"
        )
    for name, before in state.get("teachers", {}).items():
        now = teachers.get(name)
        if now is not None and now != before:
            raise ValueError(
                f"checkpoint {checkpoint} was made with another teacher: {name} has fingerprint {now[:12]}, it had "
                f"{before[:12]}; give that teacher, or delete the checkpoint to start again"
            )


def load_student(trainer: Trainer, state: dict[str, Any]) -> None:
    """Bring a trainer and its student to where a checkpoint is. Raises ValueError where that is of another training."""
    check_same_training(trainer.checkpoint, state, describe_training(trainer), trainer.teachers)
    try:
        trainer.student.load_state_dict(state["student"])
    except RuntimeError:
        raise ValueError(
            f"checkpoint {trainer.checkpoint} holds another network than this student; delete it or give another place"
        ) from None
    trainer.copied, trainer.not_copied, trainer._best = state["copied"], state["not_copied"], state["best"]


def go_on(trainer: Trainer, run: StageRun, state: dict[str, Any]) -> Epoch | None:
    """Bring objectives and optimizer to where a checkpoint is; what is done of its epoch, None where it is at its end.

    Raises ValueError where they are others.
    """
    try:
        run.module.objectives.load_state_dict(state["objectives"])
        if state["optimizer_kind"] != type(run.optimizer).__name__:
            raise ValueError
        run.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError):
        raise ValueError(
            f"checkpoint {trainer.checkpoint} holds other objectives or another optimizer; delete it or give another "
            "place"
        ) from None
    fabric = trainer.fabric
    fabric.strategy.precision.load_state_dict(state["precision"])
    if not state.get("step"):
        return None
    sums = EpochSums(run.stage.name, state["epoch"])
    sums.restore(state["sums"], fabric.global_rank, fabric.world_size)
    return Epoch(sums, state["step"], state["seconds"])
