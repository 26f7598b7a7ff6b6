"""The trainer: stages of a loss over batches, on Lightning Fabric; it knows no method by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Dataset

from brainrdl.layers import evaluating
from brainrdl.models.inference import on_device, predict
from brainrdl.objectives.base import Stage
from brainrdl.randomness import Draw, seed_torch, torch_seeded
from brainrdl.runs import first_difference
from brainrdl.sources.network import NetworkTeacher, check_finite
from brainrdl.stimuli import Stimuli, StoredStimuli, check_stimuli
from brainrdl.training.checkpoint import load_checkpoint, save_checkpoint
from brainrdl.training.devices import agreed, check_alike, make_fabric, watch_others
from brainrdl.training.freed_memory import keep_freed_memory
from brainrdl.training.layout import channels_last as in_channels_last
from brainrdl.training.layout import tensor_float32
from brainrdl.training.parts import check_parts, split_batches
from brainrdl.training.recomputation import recomputed
from brainrdl.training.record import EpochRecord, Progress
from brainrdl.training.stage import (
    Batches,
    StageModule,
    alpha_names,
    check_classes,
    copy_weights,
    frozen,
    loss_of,
    prepare_objectives,
    shares_of,
    stage_module,
    trainable_parameters,
    unused_parameters,
)
from brainrdl.training.stimulus_stream import CoveredStimuli, coverage
from brainrdl.training.streams import Augment, Stream, make_stream, open_images
from brainrdl.training.sums import EpochSums

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Evaluation = Callable[[nn.Module, int], Mapping[str, float]]

# The loss terms stay on the device and are looked at this often: one synchronisation each time.
_LOOK_EVERY = 50


class Trainer:
    """Trains a student in stages.

    student: any `nn.Module`, (n_stimuli, channels, height, width) -> (n_stimuli, n_classes); it is trained in place.
    stages: see `Stage`. preprocess: raw images (0…1) to the student's input, on its device.
    batch_size: images a step, over all processes. seed: of every random draw of the training.
    stimulus_batch_size: stimuli with brain data a step, at least 3 a process and at most what a name covers; None =
        as batch_size.
    stimulus_norm: how normalisation layers that keep statistics see those stimuli. "eval": the statistics are used and
        left as they are; "train": as any batch. None = "eval" beside a task, which they belong to, else "train".
        Networks without such layers see task batch and stimuli in one forward.
    evaluations: (student, epoch) -> named numbers, called after each epoch, in eval mode and without gradient, and
        put into its record.
    augment: (images, generator) -> images, applied to each training batch.
    clip: largest norm of the gradient over all parameters; None = none.
    accumulate: in how many parts a batch is worked through, one after the other, for less memory; their gradients are
        added. To objectives (pairs) and batch normalisation each part is a batch of its own.
    checkpoint_activations: parts of the student (module paths) that are computed again in backward, for less memory and
        more time; results stay the same.
    keep: "last", or "best" for the weights with the lowest validation error in the last stage (never test).
    checkpoint: file to go on from; written after every epoch. compile: run the student's training steps under
        torch.compile.
    channels_last: student, teachers and images lie in memory as `torch.channels_last`, in which convolutions are often
        faster; the networks are put back afterwards. tf32: on CUDA, matrix products of training steps in
        TensorFloat-32, as torch's convolutions are by default; evaluations and RDMs are not changed. Both round
        differently.
    accelerator, devices, num_nodes, strategy: as in `lightning_fabric.Fabric`. precision: "32-true" (default),
        "16-mixed" or "bf16-mixed". Or give a `fabric`.
    progress: shows the training to a person.

    copied, not_copied: names of the student's weights that were and were not taken from `initial_weights`.

    With several devices each batch is shared out among them; batch normalisation is computed, and pairs are drawn
    unless the objective says `across_ranks`, within each device's share. Shares count by their sizes, so that the
    gradient is that of the whole batch. A training may go on with another number of devices. When one process fails,
    all end.
    """

    def __init__(
        self,
        student: nn.Module,
        stages: Sequence[Stage] | Stage,
        *,
        preprocess: nn.Module | None = None,
        batch_size: int = 100,
        stimulus_batch_size: int | None = None,
        stimulus_norm: str | None = None,
        seed: int = 0,
        evaluations: Mapping[str, Evaluation] | None = None,
        augment: Augment | None = None,
        clip: float | None = None,
        accumulate: int = 1,
        checkpoint_activations: Sequence[str] = (),
        keep: str = "last",
        checkpoint: Path | str | None = None,
        compile: bool = False,
        channels_last: bool = False,
        tf32: bool = False,
        fabric: Fabric | None = None,
        accelerator: str = "auto",
        devices: int = 1,
        num_nodes: int = 1,
        precision: str | None = None,
        strategy: str = "auto",
        progress: Progress | None = None,
    ) -> None:
        self.stages = [stages] if isinstance(stages, Stage) else list(stages)
        if not self.stages:
            raise ValueError("no stages: give the trainer at least one Stage")
        if keep not in ("last", "best"):
            raise ValueError(f"keep: expected 'last' or 'best', got '{keep}'")
        if keep == "best" and self.stages[-1].task_weight == 0:
            raise ValueError("keep='best' goes by validation error, and the last stage has no task; use keep='last'")
        if batch_size < 1 or (clip is not None and not clip > 0):
            raise ValueError(f"expected batch_size >= 1 and clip > 0, got batch_size={batch_size}, clip={clip}")
        if stimulus_norm not in (None, "eval", "train"):
            raise ValueError(f"stimulus_norm: expected 'eval' or 'train', got '{stimulus_norm}'")
        if isinstance(checkpoint_activations, str):
            raise ValueError(f"checkpoint_activations: expected a list, got '{checkpoint_activations}'; put it in []")
        self.student, self.preprocess = student, preprocess
        self.accumulate, self.checkpoint_activations = accumulate, tuple(checkpoint_activations)
        self.stimulus_batch_size, self.stimulus_norm = stimulus_batch_size, stimulus_norm
        self.batch_size, self.seed, self.augment, self.clip, self.keep = batch_size, seed, augment, clip, keep
        self.evaluations = dict(evaluations or {})
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.progress = progress
        self.fabric = fabric or make_fabric(accelerator, devices, num_nodes, precision, strategy)
        watch_others(self.fabric)
        self.compile, self.channels_last, self.tf32 = compile, channels_last, tf32
        check_parts(accumulate, batch_size, stimulus_batch_size, self.fabric.world_size)
        self.n_epochs = sum(stage.epochs for stage in self.stages)
        self.copied: list[str] = []
        self.not_copied: list[str] = []
        self._best: dict[str, Any] | None = None

    def fit(
        self,
        task: Stimuli | Dataset[Any] | None = None,
        stimuli: Stimuli | Dataset[Any] | None = None,
        validation: Stimuli | StoredStimuli | None = None,
        resume: bool = False,
    ) -> Iterator[EpochRecord]:
        """Train; a record after each epoch. To stop early, `break`: the student is then as of the last epoch
        (with keep="best", of the best).

        task: labelled images. stimuli: what objectives with stream="stimuli" read, in batches of a
        `CoveredStimuli`; their labels are not looked at. validation: labelled images for validation_error. resume: go
        on from the checkpoint where there is one; its epochs' records come first, with an empty timing.

        Raises ValueError for data, layers, weights and shapes that do not go together; FloatingPointError, naming term,
        layer, epoch and step, when a loss is no longer finite (the last checkpoint is kept).
        """
        if self.keep == "best" and validation is None:
            raise ValueError("keep='best' needs validation data; give some, or keep='last'")
        if task is None and stimuli is None:
            raise ValueError("nothing to train on; give fit task or stimuli")
        if validation is not None:
            _check_validation(validation)
        device = self.fabric.device
        if device.type == "cpu":
            keep_freed_memory()
        validation = None if validation is None else on_device(validation, device)
        self.student.to(device)
        if self.preprocess is not None:
            self.preprocess.to(device)
        streams = self._streams(task, stimuli)
        start = load_checkpoint(self.checkpoint) if resume and self.checkpoint and self.checkpoint.exists() else None
        check_alike(self.fabric, start["epoch"] if start is not None else 0, f"the checkpoint {self.checkpoint}")
        history: list[dict[str, Any]] = []
        self.copied, self.not_copied, self._best = [], [], None
        modes = {part: part.training for part in self.student.modules()}
        try:
            if start is not None:
                self._load(start)
                history = list(start["history"])
            for row in history:
                yield EpochRecord(row, {})
            first = 0
            for index, stage in enumerate(self.stages):
                if start is None or first + stage.epochs > start["epoch"]:
                    inside = start if start is not None and start["stage"] == index else None
                    yield from self._run_stage(index, first, *streams[index], validation, history, inside)
                    start = None
                first += stage.epochs
        finally:
            if self._best is not None:
                self.student.load_state_dict(self._best["student"])
            for part, mode in modes.items():
                part.training = mode

    def _streams(
        self, task: Stimuli | Dataset[Any] | None, stimuli: Stimuli | Dataset[Any] | None
    ) -> list[tuple[Stream | None, CoveredStimuli | None]]:
        """What each stage reads, checked against what its teachers cover."""
        device, rank, world_size = self.fabric.device, self.fabric.global_rank, self.fabric.world_size
        of_task = of_stimuli = None
        if task is not None:
            of_task = make_stream(task, self.batch_size, device, "training images", self.augment, rank, world_size)
        if stimuli is not None:
            of_stimuli = open_images(stimuli, "stimuli", device, self.augment, has_task=False)
        batch_size = self.batch_size if self.stimulus_batch_size is None else self.stimulus_batch_size
        streams: list[tuple[Stream | None, CoveredStimuli | None]] = []
        for stage in self.stages:
            reading = {stream: [o for o in stage.objectives if o.stream == stream] for stream in ("task", "stimuli")}
            if of_task is not None:
                coverage(reading["task"], of_task.images.ids, "training images", fewest=1)
            shown = None
            if of_stimuli is not None and reading["stimuli"]:
                shown = CoveredStimuli(of_stimuli, reading["stimuli"], batch_size, rank, world_size)
            streams.append((of_task if stage.task_weight != 0 or reading["task"] else None, shown))
        return streams

    def _load(self, state: dict[str, Any]) -> None:
        difference = first_difference(state["training"], self._training())
        if difference:
            raise ValueError(
                f"checkpoint {self.checkpoint} is of another training: {difference}; delete it or give another place"
            )
        try:
            self.student.load_state_dict(state["student"])
        except RuntimeError:
            raise ValueError(
                f"checkpoint {self.checkpoint} holds another network than this student; delete it or give another place"
            ) from None
        self.copied, self.not_copied, self._best = state["copied"], state["not_copied"], state["best"]

    def _training(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the training that goes on from it."""
        stages = [f"{stage.name}: {stage.epochs} epochs" for stage in self.stages]
        # Named where they are set, so that checkpoints from before there were such settings can be gone on from.
        others = {
            "stimulus_batch_size": self.stimulus_batch_size,
            "stimulus_norm": self.stimulus_norm,
            "channels_last": self.channels_last or None,
            "tf32": self.tf32 or None,
            "accumulate": self.accumulate if self.accumulate > 1 else None,
        }
        described = {"seed": self.seed, "batch_size": self.batch_size, "keep": self.keep, "stages": stages}
        return described | {name: value for name, value in others.items() if value is not None}

    def _run_stage(
        self,
        index: int,
        first: int,
        task: Stream | None,
        stimuli: CoveredStimuli | None,
        validation: Stimuli | StoredStimuli | None,
        history: list[dict[str, Any]],
        start: dict[str, Any] | None,
    ) -> Iterator[EpochRecord]:
        stage = self.stages[index]
        origin = Draw(self.seed, stage=len(self.stages) - 1 - index)
        if task is None and stage.task_weight != 0:
            raise ValueError(f"stage '{stage.name}' has a task; give fit task, or set task_weight=0")
        if start is None and stage.initial_weights is not None:
            self.copied, self.not_copied = copy_weights(self.student, stage.initial_weights)
        check_finite(self.student, "student")
        sources = [getattr(objective, "teacher", None) for objective in stage.objectives]
        networks = [self.student, *(source.network for source in sources if isinstance(source, NetworkTeacher))]
        with (
            stage_module(self.student, stage, self.preprocess, self.stimulus_norm) as module,
            in_channels_last(networks, self.channels_last),
            recomputed(self.student, self.checkpoint_activations),
        ):
            if self.channels_last:
                module.memory_format = torch.channels_last
            whole = [None if s is None else next(iter(s.batches(origin))) for s in (task, stimuli)]
            batches = split_batches(whole[0], whole[1], self.accumulate, origin)[0].batches
            with torch_seeded(origin.torch_seed("objectives")):
                prepare_objectives(module, batches[0], batches[1])
                unused = unused_parameters(module, batches[0], batches[1])
            with frozen(module, unused):
                optimizer = stage.optimizer(trainable_parameters(module, stage))
                rates = [group["lr"] for group in optimizer.param_groups]
                if self.compile:
                    torch.compiler.reset()  # what was compiled for an earlier stage knows only that stage's hooks
                    module.run = torch.compile(lambda images: self.student(images))
                wrapped, fabric_optimizer = self.fabric.setup(module, optimizer, _reapply_compile=False)
                n_done = 0
                if start is not None:
                    self._go_on(start, module, optimizer)
                    n_done = start["epoch"] - first
                for epoch in range(n_done, stage.epochs):
                    factor = stage.learning_rate(epoch, stage.epochs)
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * factor
                    now = origin._replace(epoch=epoch)
                    with tensor_float32(self.fabric.device, self.tf32):
                        record = self._run_epoch(stage, first, now, wrapped, module, fabric_optimizer, task, stimuli)
                    record.history["learning_rate"] = rates[0] * factor
                    self._evaluate(record, validation, index, first + epoch)
                    history.append(record.history)
                    self._save(index, first + epoch + 1, module, optimizer, history)
                    if self.progress is not None:
                        self.progress.epoch(record, self.n_epochs)
                    yield record

    def _go_on(self, start: dict[str, Any], module: StageModule, optimizer: torch.optim.Optimizer) -> None:
        try:
            module.objectives.load_state_dict(start["objectives"])
            if start["optimizer_kind"] != type(optimizer).__name__:
                raise ValueError
            optimizer.load_state_dict(start["optimizer"])
        except (RuntimeError, ValueError):
            raise ValueError(
                f"checkpoint {self.checkpoint} holds other objectives or another optimizer; delete it or give another "
                "place"
            ) from None
        self.fabric.strategy.precision.load_state_dict(start["precision"])

    def _run_epoch(
        self,
        stage: Stage,
        first: int,
        draw: Draw,
        wrapped: Any,
        module: StageModule,
        optimizer: Any,
        task: Stream | None,
        stimuli: CoveredStimuli | None,
    ) -> EpochRecord:
        alphas = [alpha(draw.epoch, stage.epochs) for alpha in stage.alphas]
        leading = task or stimuli
        assert leading is not None
        n_steps = leading.n_batches
        of_task = repeat(None) if task is None else task.batches(draw)
        of_stimuli = repeat(None) if stimuli is None else stimuli.batches(draw, n_steps)
        parameters = [p for p in module.parameters() if p.requires_grad]
        wrapped.train()
        sums = EpochSums(stage.name, first + draw.epoch)
        begin = time.perf_counter()
        with torch_seeded(0):
            for step, batches in enumerate(zip(of_task, of_stimuli, strict=False)):
                if task is not None and stage.task_weight != 0:
                    check_classes(task.images.largest_label, module.n_classes)
                now = draw._replace(step=step, rank=self.fabric.global_rank)
                optimizer.zero_grad()
                for part in split_batches(*batches, self.accumulate, now):
                    seed_torch(part.draw.torch_seed("network"))
                    with self.fabric.no_backward_sync(wrapped, enabled=not part.is_last):
                        terms = wrapped(Batches(*part.batches, part.draw))
                        shares = shares_of(*part.batches)
                        loss = loss_of(terms, module, stage.task_weight, alphas, shares, part.fractions)
                        self.fabric.backward(loss)
                    sums.add(terms, module.stream_of, part.sizes, step)
                if self.clip is not None:
                    self.fabric.clip_gradients(wrapped, optimizer, max_norm=self.clip, error_if_nonfinite=False)
                optimizer.step()
                if (step + 1) % _LOOK_EVERY == 0 or step + 1 == n_steps:
                    newest = agreed(self.fabric, sums.look)
                    if self.progress is not None:
                        self.progress.step(stage.name, first + draw.epoch, self.n_epochs, step + 1, n_steps, newest)
        agreed(self.fabric, lambda: sums.check_weights(parameters))
        if self.fabric.world_size > 1:
            # Running statistics are of each process's own share; the processes must not judge different students.
            for buffer in self.student.buffers():
                torch.distributed.broadcast(buffer, 0)
        seconds = time.perf_counter() - begin
        values, n_images = sums.means(self.fabric)
        row: dict[str, Any] = {"stage": stage.name, "epoch": first + draw.epoch, "learning_rate": math.nan, **values}
        for name, alpha in zip(alpha_names(module, len(alphas)), alphas, strict=True):
            row[name] = alpha
        return EpochRecord(row, {"seconds": seconds, "images_per_second": n_images / seconds})

    def _evaluate(
        self, record: EpochRecord, validation: Stimuli | StoredStimuli | None, index: int, epoch: int
    ) -> None:
        row = record.history
        if validation is not None and self.stages[index].task_weight != 0:
            assert validation.labels is not None  # `_check_validation` has looked
            predicted = predict(self.student, validation, self.preprocess)
            row["validation_error"] = float((predicted != validation.labels.cpu()).double().mean())
            last = index == len(self.stages) - 1
            if self.keep == "best" and last and (self._best is None or row["validation_error"] < self._best["error"]):
                state = {name: value.detach().cpu().clone() for name, value in self.student.state_dict().items()}
                self._best = {"error": row["validation_error"], "epoch": epoch, "student": state}
        with evaluating(self.student):
            for evaluation in self.evaluations.values():
                # Numbers of other libraries could not be read back from the checkpoint.
                row.update({name: float(value) for name, value in evaluation(self.student, epoch).items()})

    def _save(self, index: int, epoch: int, module: StageModule, optimizer: Any, history: list[dict[str, Any]]) -> None:
        if self.checkpoint is None or self.fabric.global_rank != 0:
            return
        state = {
            "training": self._training(),
            "copied": self.copied,
            "not_copied": self.not_copied,
            "stage": index,
            "epoch": epoch,
            "student": self.student.state_dict(),
            "objectives": module.objectives.state_dict(),
            "optimizer_kind": type(optimizer).__name__,
            "optimizer": optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "best": self._best,
            "history": history,
        }
        save_checkpoint(self.checkpoint, state)


def _check_validation(validation: Stimuli | StoredStimuli) -> None:
    if isinstance(validation, Stimuli):
        check_stimuli(validation, "validation images")
    if validation.labels is None or not len(validation.ids):
        raise ValueError("validation images: expected at least one, with labels; validation_error counts wrong classes")
