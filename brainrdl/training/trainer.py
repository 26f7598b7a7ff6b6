"""The trainer: stages of a loss over batches, on Lightning Fabric; it knows no method by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Dataset

from brainrdl.interruption import heeded, postponed
from brainrdl.layers import evaluating
from brainrdl.models.inference import on_device
from brainrdl.objectives.base import Stage
from brainrdl.randomness import Draw, seed_torch, torch_seeded
from brainrdl.sources.network import NetworkTeacher, check_finite
from brainrdl.stimuli import Stimuli, StoredStimuli
from brainrdl.training.devices import agreed, make_fabric, watch_others
from brainrdl.training.freed_memory import keep_freed_memory
from brainrdl.training.guards import check_data, check_sizes, check_start
from brainrdl.training.layout import channels_last as in_channels_last
from brainrdl.training.layout import tensor_float32
from brainrdl.training.parts import check_parts, split_batches
from brainrdl.training.recomputation import recomputed
from brainrdl.training.record import EpochRecord, Progress
from brainrdl.training.saving import Saving
from brainrdl.training.stage import (
    Batches,
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
from brainrdl.training.stage_run import Epoch, StageRun, StageStreams, open_streams
from brainrdl.training.streams import Augment
from brainrdl.training.sums import EpochSums
from brainrdl.training.training_state import (
    describe_teachers,
    go_on,
    load_student,
    training_state,
)
from brainrdl.training.validation import check_validation, validation_error

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
    checkpoint: file to go on from, written after every epoch; the one before is kept beside it. checkpoint_of: what
        the training is called; a checkpoint of one that is called otherwise is refused.
    checkpoint_steps: within an epoch it is written every so many steps, too. checkpoint_minutes: and where the last one
        is older than that, as is seen every 50 steps. None = not within epochs.
    compile: run the student's training steps under torch.compile.
    channels_last: student, teachers and images lie in memory as `torch.channels_last`, in which convolutions are often
        faster; the networks are put back afterwards. tf32: on CUDA, matrix products of training steps in
        TensorFloat-32, as torch's convolutions are by default; evaluations and RDMs are not changed. Both round
        differently.
    accelerator, devices, num_nodes, strategy: as in `lightning_fabric.Fabric`. precision: "32-true" (default),
        "16-mixed" or "bf16-mixed". Or give a `fabric`.
    progress: shows the training to a person.

    copied, not_copied: names of the student's weights that were and were not taken from `initial_weights`.
    teachers: their fingerprints, which a checkpoint keeps; known while it trains with a checkpoint.

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
        checkpoint_of: str | None = None,
        checkpoint_steps: int | None = None,
        checkpoint_minutes: float | None = 10.0,
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
        self.checkpoint, self.checkpoint_of = None if checkpoint is None else Path(checkpoint), checkpoint_of
        self.progress = progress
        self.fabric = fabric or make_fabric(accelerator, devices, num_nodes, precision, strategy)
        watch_others(self.fabric)
        self.compile, self.channels_last, self.tf32 = compile, channels_last, tf32
        check_parts(accumulate, batch_size, stimulus_batch_size, self.fabric.world_size)
        self._saving = Saving(self.fabric, self.checkpoint, checkpoint_steps, checkpoint_minutes)
        self.n_epochs = sum(stage.epochs for stage in self.stages)
        self.copied: list[str] = []
        self.not_copied: list[str] = []
        self.teachers: dict[str, str] = {}
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
        on from the checkpoint where there is one, in the middle of an epoch where it is of there; its epochs' records
        come first, with an empty timing.

        Inside `brainrdl.interruption.ending_on_signals` a signal ends the training (KeyboardInterrupt) when its step is
        done and saved.

        Raises ValueError for data, layers, weights and shapes that do not go together; FloatingPointError, naming term,
        layer, epoch and step, when a loss is no longer finite (the last checkpoint is kept).
        """
        if self.keep == "best" and validation is None:
            raise ValueError("keep='best' needs validation data; give some, or keep='last'")
        if task is None and stimuli is None:
            raise ValueError("nothing to train on; give fit task or stimuli")
        if validation is not None:
            check_validation(validation)
        device = self.fabric.device
        if device.type == "cpu":
            keep_freed_memory()
        validation = None if validation is None else on_device(validation, device)
        self.student.to(device)
        if self.preprocess is not None:
            self.preprocess.to(device)
        streams = open_streams(
            self.stages,
            task,
            stimuli,
            self.batch_size,
            self.stimulus_batch_size or self.batch_size,
            self.augment,
            device,
            self.fabric.global_rank,
            self.fabric.world_size,
        )
        check_data(self.stages, task, stimuli, validation, self.keep)
        self.teachers = {} if self.checkpoint is None else describe_teachers(self.stages)
        start = self._saving.begin(resume)
        history: list[dict[str, Any]] = []
        self.copied, self.not_copied, self._best = [], [], None
        modes = {part: part.training for part in self.student.modules()}
        try:
            if start is not None:
                load_student(self, start)
                history = list(start["history"])
            for row in history:
                yield EpochRecord(row, {})
            first = 0
            for index, stage in enumerate(self.stages):
                if start is None or first + stage.epochs > start["epoch"]:
                    inside = start if start is not None and start["stage"] == index else None
                    yield from self._run_stage(index, first, streams[index], validation, history, inside)
                    start = None
                first += stage.epochs
        finally:
            if self._best is not None:
                self.student.load_state_dict(self._best["student"])
            for part, mode in modes.items():
                part.training = mode

    def _run_stage(
        self,
        index: int,
        first: int,
        streams: StageStreams,
        validation: Stimuli | StoredStimuli | None,
        history: list[dict[str, Any]],
        start: dict[str, Any] | None,
    ) -> Iterator[EpochRecord]:
        stage = self.stages[index]
        origin = Draw(self.seed, stage=len(self.stages) - 1 - index)
        if streams.task is None and stage.task_weight != 0:
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
            whole = [None if s is None else next(iter(s.batches(origin))) for s in streams]
            batches = split_batches(whole[0], whole[1], self.accumulate, origin)[0].batches
            with torch_seeded(origin.torch_seed("objectives")):
                prepare_objectives(module, batches[0], batches[1])
                unused = unused_parameters(module, batches[0], batches[1])
                check_start(module, stage, batches, origin, streams)
            with frozen(module, unused):
                optimizer = stage.optimizer(trainable_parameters(module, stage))
                rates = [group["lr"] for group in optimizer.param_groups]
                if self.compile:
                    torch.compiler.reset()  # what was compiled for an earlier stage knows only that stage's hooks
                    module.run = torch.compile(lambda images: self.student(images))
                wrapped, fabric_optimizer = self.fabric.setup(module, optimizer, _reapply_compile=False)
                run = StageRun(stage, index, first, module, wrapped, optimizer, fabric_optimizer, streams)
                begun = None if start is None else go_on(self, run, start)
                for epoch in range(0 if start is None else start["epoch"] - first, stage.epochs):
                    factor = stage.learning_rate(epoch, stage.epochs)
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * factor
                    now = origin._replace(epoch=epoch)
                    # What is done is saved before a signal ends it, by all processes together.
                    with postponed():
                        with tensor_float32(self.fabric.device, self.tf32):
                            done = self._run_epoch(run, now, begun, history)
                        begun = None
                        record = self._look_back(run, now, done, rates[0] * factor, validation, history)
                        history.append(record.history)
                        check_sizes(module, stage, epoch, history[first:], batches)
                        self._save(run, first + epoch + 1, history)
                        self._saving.end_if_asked()
                    if self.progress is not None:
                        self.progress.epoch(record, self.n_epochs)
                    yield record

    def _run_epoch(self, run: StageRun, draw: Draw, begun: Epoch | None, history: list[dict[str, Any]]) -> Epoch:
        """The steps of an epoch, or what is left of them."""
        stage, module, (task, stimuli) = run.stage, run.module, run.streams
        alphas = [alpha(draw.epoch, stage.epochs) for alpha in stage.alphas]
        sums, n_done, seconds = begun or Epoch(EpochSums(stage.name, run.first + draw.epoch), 0, 0.0)
        n_steps = run.streams.n_steps
        of_task = repeat(None) if task is None else task.batches(draw, n_done)
        of_stimuli = repeat(None) if stimuli is None else stimuli.batches(draw, n_steps, n_done)
        parameters = [p for p in module.parameters() if p.requires_grad]
        run.wrapped.train()
        begin = time.perf_counter() - seconds
        with torch_seeded(0), postponed():
            for step, batches in zip(range(n_done, n_steps), zip(of_task, of_stimuli, strict=False), strict=True):
                if task is not None and stage.task_weight != 0:
                    check_classes(task.images.largest_label, module.n_classes)
                now = draw._replace(step=step, rank=self.fabric.global_rank)
                run.fabric_optimizer.zero_grad()
                for part in split_batches(*batches, self.accumulate, now):
                    seed_torch(part.draw.torch_seed("network"))
                    with self.fabric.no_backward_sync(run.wrapped, enabled=not part.is_last):
                        terms = run.wrapped(Batches(*part.batches, part.draw))
                        shares = shares_of(*part.batches)
                        loss = loss_of(terms, module, stage.task_weight, alphas, shares, part.fractions)
                        self.fabric.backward(loss)
                    sums.add(terms, module.stream_of, part.sizes, step)
                if self.clip is not None:
                    self.fabric.clip_gradients(
                        run.wrapped, run.fabric_optimizer, max_norm=self.clip, error_if_nonfinite=False
                    )
                run.fabric_optimizer.step()
                looks = (step + 1) % _LOOK_EVERY == 0 or step + 1 == n_steps
                due = self._saving.after_step(step + 1, n_steps, looks)
                if looks or due.save:
                    newest = agreed(self.fabric, sums.look)
                    if self.progress is not None:
                        self.progress.step(stage.name, run.first + draw.epoch, self.n_epochs, step + 1, n_steps, newest)
                if due.save:
                    agreed(self.fabric, lambda: sums.check_weights(parameters))
                    done = Epoch(sums, step + 1, time.perf_counter() - begin)
                    self._save(run, run.first + draw.epoch, history, done)
                if due.end:
                    self._saving.end()
            agreed(self.fabric, lambda: sums.check_weights(parameters))
        return Epoch(sums, n_steps, time.perf_counter() - begin)

    def _look_back(
        self,
        run: StageRun,
        draw: Draw,
        done: Epoch,
        learning_rate: float,
        validation: Stimuli | StoredStimuli | None,
        history: list[dict[str, Any]],
    ) -> EpochRecord:
        """What an epoch came to."""
        stage, epoch = run.stage, run.first + draw.epoch
        try:
            # Of several processes none ends without the others.
            with heeded() if self.fabric.world_size == 1 else nullcontext():
                if self.fabric.world_size > 1:
                    # Running statistics are of each process's own share; all must judge the same student.
                    for buffer in self.student.buffers():
                        torch.distributed.broadcast(buffer, 0)
                values, n_images = done.sums.means(self.fabric)
                alphas = [alpha(draw.epoch, stage.epochs) for alpha in stage.alphas]
                named = zip(alpha_names(run.module, len(alphas)), alphas, strict=True)
                row = {"stage": stage.name, "epoch": epoch, "learning_rate": learning_rate, **values, **dict(named)}
                record = EpochRecord(row, {"seconds": done.seconds, "images_per_second": n_images / done.seconds})
                self._evaluate(record, validation, run.index, epoch)
        except KeyboardInterrupt:
            if self.fabric.world_size == 1:
                self._save(run, epoch, history, done)  # the steps, which can take hours, are done
            raise
        return record

    def _evaluate(
        self, record: EpochRecord, validation: Stimuli | StoredStimuli | None, index: int, epoch: int
    ) -> None:
        row = record.history
        if validation is not None and self.stages[index].task_weight != 0:
            row["validation_error"] = validation_error(self.student, validation, self.preprocess)
            last = index == len(self.stages) - 1
            if self.keep == "best" and last and (self._best is None or row["validation_error"] < self._best["error"]):
                state = {name: value.detach().cpu().clone() for name, value in self.student.state_dict().items()}
                self._best = {"error": row["validation_error"], "epoch": epoch, "student": state}
        with evaluating(self.student):
            for evaluation in self.evaluations.values():
                # Numbers of other libraries could not be read back from the checkpoint.
                row.update({name: float(value) for name, value in evaluation(self.student, epoch).items()})

    def _save(self, run: StageRun, epoch: int, history: list[dict[str, Any]], begun: Epoch | None = None) -> None:
        """Save the state after so many epochs, or within one of which some steps are done."""
        if self.checkpoint is None:
            return
        self._saving.save(training_state(self, run, epoch, history, begun))
