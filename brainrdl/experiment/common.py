"""What experiments of every kind share: how they are run, their networks, what they say."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from rich.console import Console
from torch import nn

from brainrdl.experiment.processes import in_processes
from brainrdl.experiment_file import BrainExperiment, Experiment, NetworkSettings, TrainingSettings
from brainrdl.layers import check_layers, evaluating, record_layers
from brainrdl.models import Preprocessing, build_network, predict
from brainrdl.notes import NOTES, keep_note, keeping_notes, read_notes
from brainrdl.objectives.method import MethodSettings
from brainrdl.randomness import Draw, torch_seeded
from brainrdl.run_folder import (
    ENVIRONMENT,
    WEIGHTS,
    Part,
    environment,
    file_checksum,
    looked_at,
    noted,
    noted_damage,
    write_table,
)
from brainrdl.runs import write_bytes, write_json
from brainrdl.stimuli import Stimuli, StoredStimuli
from brainrdl.training.devices import agreed, check_alike, make_fabric, torch_threads
from brainrdl.training.parts import check_parts, check_shared

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class RunOptions:
    """How, not what, is run: but for `search`, and several devices, nothing here changes a result.

    resume: go on with unfinished parts. checkpoint_steps, checkpoint_minutes: as in `Trainer`. jobs: parts run at the
    same time, each in a process of its own, with the result it has alone; None = one, or of a task on the CPU as many
    as there are cores for, at most 8.
    accelerator, devices, nodes: as in Lightning Fabric; where several share each batch, parts come one after the other.
    allow_code: networks may be "package.module:callable". search: the parts are trials, which must not see test images.
    """

    resume: bool = False
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = 10.0
    jobs: int | None = None
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    allow_code: bool = False
    search: bool = False


class PartRunner:
    """A run: what every kind of experiment shares. It can be made anew in another process from its three arguments."""

    def __init__(self, experiment: Experiment | BrainExperiment, out: Path, options: RunOptions) -> None:
        self.out, self.options = out, options
        self._arguments = (experiment, out, options)
        self._told: set[str] = set()
        self.n_processes = options.devices * options.nodes  # that share a batch
        if (options.jobs or 1) > 1 and self.n_processes > 1:
            raise ValueError(
                f"jobs: {options.jobs} parts at the same time cannot each have {self.n_processes} devices; give either "
                "jobs or devices"
            )

    @cached_property
    def fabric(self) -> Fabric:
        """One for the run: with several devices its launch starts the other processes."""
        settings, precision = self.options, self._arguments[0].training.precision
        return make_fabric(settings.accelerator, settings.devices, settings.nodes, precision)

    def meet(self) -> None:
        """Where torchrun or SLURM has started the processes, let them know each other: an error is then told once."""
        if self.n_processes > 1 and {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & set(os.environ):
            _ = self.fabric

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files."""
        return bool(self.fabric.is_global_zero)

    def run_method(self, part: Part, title: str, show: bool = True) -> str:
        """Run one part; what to say of it."""
        raise TypeError(f"{type(self).__name__} does not say how a part is run")

    def training_of(self, part: Part) -> TrainingSettings:
        """How a part is trained."""
        raise TypeError(f"{type(self).__name__} does not say how a part is trained")

    def looked_at(self, parts: Iterable[Part]) -> list[Part]:
        """The parts, finished ones marked, once all processes have looked into the folder and none has written yet.

        Raises ValueError as `brainrdl.run_folder.looked_at`, and where processes see different folders.
        """
        found = agreed(self.fabric, lambda: looked_at(parts, self.options.resume, verify=self.writes))
        check_alike(self.fabric, sum(part.finished for part in found), f"finished parts in {self.out}")
        return found

    def damaged(self, *names: str) -> set[str]:
        """Those of these files in the run's folder that are not what was written, which are made anew; it says so."""
        found = {name: noted_damage(self.out, name) for name in names}
        for name, words in found.items():
            if words:
                say(f"note: {self.out / name} {words}; it is made anew")
        return {name for name, words in found.items() if words}

    def write_environment(self) -> None:
        """Versions and machine, beside the experiment file."""
        threads = self._arguments[0].training.threads
        write_json(self.out / ENVIRONMENT, environment(self.fabric.device, self.fabric.world_size, threads))

    def todo(self, parts: list[Part]) -> list[Part]:
        """The parts that are still to be run, which wait for all processes; says how many are not."""
        todo = [part for part in parts if not part.finished]
        if len(parts) > len(todo) and self.writes:
            say(f"{len(parts) - len(todo)} of {len(parts)} parts are finished already")
        self.fabric.barrier()
        return todo

    def run_part(self, part: Part, title: str, show: bool = True) -> str:
        """As `run_method`, with the part's own number of threads."""
        with torch_threads(self.training_of(part).threads), keeping_notes(part.folder, self.writes):
            return self.run_method(part, title, show)

    def note(self, notes: Iterable[str]) -> None:
        """Keep and say what should be known of the run as a whole."""
        if self.writes:
            if self.damaged(NOTES):
                (self.out / NOTES).unlink(missing_ok=True)
            with noted(self.out, NOTES):
                for note in notes:
                    keep_note(self.out, note)
        self.tell_notes(self.out)

    def tell_notes(self, folder: Path) -> None:
        """Say the notes of a folder, those that were said already left out."""
        for note in read_notes(folder) if self.writes else ():
            if note not in self._told:
                self._told.add(note)
                say(f"note: {note}")

    def jobs(self, todo: list[Part]) -> int:
        """How many of the parts are run at the same time."""
        return self.options.jobs or 1

    def run_parts(self, todo: list[Part]) -> None:
        """Run the parts, one after the other or several at a time, and say what came of each."""
        jobs = self.jobs(todo)
        if jobs > 1 and len(todo) > 1:
            results: Generator[tuple[Part, str]] = in_processes(type(self), self._arguments, todo, jobs)
        else:
            results = (
                (part, self.run_part(part, f"[{position + 1}/{len(todo)}] {part.name}"))
                for position, part in enumerate(todo)
            )
        with closing(results):  # which ends other processes, and does so before anything else is done
            for position, (part, result) in enumerate(results):
                if self.writes:
                    say(f"[{position + 1}/{len(todo)}] {part.name}: {result}")
                self.tell_notes(part.folder)
        self.fabric.barrier()


def seeds_alike(parts: Iterable[Part]) -> list[str]:
    """A note for each method of which several seeds ended with the same weights: they are no repetitions."""
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for part in parts:
        weights = file_checksum(str(part.folder / WEIGHTS)) if (part.folder / WEIGHTS).is_file() else None
        if weights is not None:
            seeds.setdefault((part.label, part.detail, weights), []).append(part.seed)
    alike: dict[str, list[int]] = {}
    for (label, _, _), those in seeds.items():
        if len(those) > 1:
            alike.setdefault(label, those)
    return [
        f"{label}: seeds {', '.join(map(str, those))} ended with the same weights, so the seed changes nothing: they "
        "are one network and no repetitions, and intervals over them mean nothing"
        for label, those in alike.items()
    ]


def build_seeded(settings: NetworkSettings, seed: int, allow_code: bool) -> nn.Module:
    """A network with the initial weights of `seed`, or those of its file."""
    with torch_seeded(Draw(seed).torch_seed("initial weights")):
        return build_network(settings.network, settings.arguments, settings.weights, allow_code)


def make_preprocessing(settings: NetworkSettings) -> Preprocessing:
    """The preprocessing that these settings say."""
    return Preprocessing(**settings.preprocess.model_dump())


def save_weights(network: nn.Module, path: Path) -> None:
    """The network's state as safetensors, whole or not at all."""
    from safetensors.torch import save

    # Clones, since safetensors refuses tensors that share memory.
    state = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
    write_bytes(path, save(state))


def save_predictions(folder: Path, network: nn.Module, preprocess: nn.Module, test: Stimuli | StoredStimuli) -> None:
    """Write predictions.csv: stimulus, label and the class that the network tells."""
    assert test.labels is not None
    predicted = predict(network, test, preprocess)
    columns = {"stimulus": test.ids, "label": test.labels.tolist(), "predicted": predicted.tolist()}
    write_table(folder / "predictions.csv", pd.DataFrame(columns))


def try_network(network: nn.Module, settings: NetworkSettings, images: torch.Tensor, what: str) -> torch.Tensor:
    """The network's output for a few images. Raises ValueError where shapes cannot meet."""
    try:
        network.eval()
        with torch.no_grad():
            output = network(make_preprocessing(settings)(images))
    except Exception as error:  # whatever the network raises at a shape it cannot take
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ValueError(
            f"the {what} ({settings.network}) cannot take images of shape {tuple(images.shape[1:])} after its "
            f"preprocessing: {reason}; set its preprocess (size, channels) or arguments"
        ) from None
    return torch.as_tensor(output) if isinstance(output, torch.Tensor) else torch.empty(0)


def check_training(training: TrainingSettings, network: nn.Module, n_processes: int, what: str) -> None:
    """Raise ValueError where a batch has too few images for its parts, or the network no such parts."""
    check_layers(network, training.checkpoint_activations, f"network of {what} (training.checkpoint_activations)")
    try:
        check_shared(training.batch_size, n_processes)
        check_parts(training.accumulate, training.batch_size, None, n_processes)
    except ValueError as error:
        raise ValueError(f"{what}: training.{error}") from None


def try_reductions(
    network: nn.Module, settings: NetworkSettings, method: MethodSettings, images: torch.Tensor, what: str
) -> None:
    """Raise ValueError where the patterns of a layer cannot be made smaller as the method says."""
    reducers = method.reducers()
    if reducers:
        with evaluating(network), record_layers(network, [reducer.layer for reducer in reducers]) as patterns:
            network(make_preprocessing(settings)(images))
            try:
                for reducer in reducers:
                    reducer(patterns[reducer.layer])
            except ValueError as error:
                raise ValueError(f"{what}.reduce: {error}") from None


def check_batch(training: TrainingSettings, n_images: int, what: str) -> None:
    """Raise ValueError where there are fewer images than a batch has."""
    if n_images < training.batch_size:
        raise ValueError(
            f"{what}: {n_images} training images are fewer than a batch of {training.batch_size}; "
            "lower training.batch_size or take more images"
        )


def say(text: str) -> None:
    """Tell the user one line."""
    Console(file=sys.stdout, soft_wrap=True, highlight=False).print(text)


def n_cores() -> int:
    """How many of the processor's cores this process may use, which a cluster can limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
