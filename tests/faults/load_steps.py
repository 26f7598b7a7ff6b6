"""Trainings with every method, and what they leave behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from load_resources import Growth, Resources, count, growth, repeated
from rsatoolbox.rdm import RDMs
from torch import nn

from brainrdl.models import MnistCNN
from brainrdl.objectives import RDLObjective, Stage, sgd
from brainrdl.objectives.base import Objective
from brainrdl.objectives.method import MethodContext
from brainrdl.objectives.methods import METHODS
from brainrdl.randomness import torch_seeded
from brainrdl.schedule import constant
from brainrdl.sources import MeasuredPatterns, MeasuredRDMs, NetworkTeacher, PatternTable
from brainrdl.stimuli import Stimuli
from brainrdl.training import Trainer

SHAPE = {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [2, 4], "n_hidden": 8}
N_CLASSES, BATCH, N_SHOWN = 3, 8, 24

# Every method of the table, with settings that touch several layers of the network.
SETTINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "finetuning": {},
    "deep_supervision": {"layers": ["pool1"], "alpha": 0.1},
    "hints": {"layers": {"pool1": "pool1"}, "hint_epochs": 1},
    "distillation": {"alpha": 0.1},
    "rkd": {"layers": {"fc": "fc"}, "alpha": 0.1},
    "similarity_preserving": {"layers": {"pool2": "pool2"}, "alpha": 0.1},
    "cka": {"layers": {"pool1": "pool1", "fc": "fc"}, "alpha": 0.1},
    "rdl": {"layers": {"pool1": "pool1", "pool2": "pool2"}, "pairs": 20, "alpha": 1e4},
}


def images(n: int, seed: int) -> Stimuli:
    """Noise with labels."""
    drawn = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Stimuli(drawn, tuple(f"{seed}/{k}" for k in range(n)), torch.arange(n) % N_CLASSES)


def network(seed: int) -> nn.Module:
    """A tiny network with the initial weights of a seed."""
    with torch_seeded(seed):
        return MnistCNN(**SHAPE, n_classes=N_CLASSES)


def measured_rdms(ids: tuple[str, ...], names: list[str], seed: int) -> MeasuredRDMs:
    """RDMs of which a tenth was not measured; the last name lacks a third of the stimuli."""
    random = np.random.default_rng(seed)
    n = len(ids)
    values = random.uniform(0.0, 2.0, size=(len(names), n * (n - 1) // 2))
    values[random.random(values.shape) < 0.1] = np.nan
    i, j = np.triu_indices(n, 1)
    values[-1, (i < n // 3) | (j < n // 3)] = np.nan
    told = {"roi": names}
    return MeasuredRDMs(RDMs(values, "correlation", rdm_descriptors=told, pattern_descriptors={"stimulus": list(ids)}))


def measured_patterns(ids: tuple[str, ...], names: list[str], seed: int) -> MeasuredPatterns:
    """Crossnobis of four folds."""
    random = np.random.default_rng(seed)
    stimulus, fold = [one for one in ids for _ in range(4)], list(range(4)) * len(ids)
    tables = {name: PatternTable(random.normal(size=(len(fold), 12)), stimulus, fold) for name in names}
    return MeasuredPatterns(tables, weights="repetitions")


class Everything(NamedTuple):
    """student; teacher: the network; stages: of all methods at once. task, shown, validation: what they read."""

    student: nn.Module
    teacher: nn.Module
    stages: list[Stage]
    task: Stimuli
    shown: Stimuli
    validation: Stimuli


def everything(n_steps: int, epochs: int, folder: Path | None) -> Everything:
    """All methods in one training: each of the table, and RDL with every kind of teacher.

    n_steps: of an epoch. folder: for patterns that are kept on disk; None: no patterns are kept, in memory neither.
    """
    student, teacher = network(0), network(1)
    shown = images(N_SHOWN, 3)
    layers = ["conv1", "pool1", "conv2", "pool2", "fc"]
    context = MethodContext(
        epochs, sgd(0.01), constant(1.0), lambda measure: NetworkTeacher(teacher, layers, measure), lambda: teacher
    )
    parts = [{"method": method, **settings} for method, settings in SETTINGS.items()]
    *first, main = METHODS["combined"].model_validate({"method": "combined", "parts": parts}).stages(context)
    rdms = measured_rdms(shown.ids, ["IT", "V4"], 5)
    in_memory, on_disk = (None, None) if folder is None else ("memory", folder / "patterns")
    others: list[Objective] = [
        _rdl(NetworkTeacher(teacher, layers, "cosine", cache=in_memory), {"conv1": "conv1"}, dissimilarity="cosine"),
        _rdl(NetworkTeacher(teacher, layers, cache=on_disk), {"conv2": "conv2"}),
        _rdl(rdms, {"fc": {"IT": 1.0, "V4": 0.5}}, stream="stimuli", pairs=None),
        _rdl(measured_patterns(shown.ids, ["V1", "V2"], 6), {"conv2.0": {"V1": 1.0, "V2": 2.0}}, stream="stimuli"),
    ]
    objectives = [*main.objectives, *others]
    alphas = [*main.alphas, constant(0.1), constant(1e4), constant(0.1), constant(0.1)]
    stages = [*first, replace(main, objective=objectives, alpha=alphas)]
    return Everything(student, teacher, stages, images(n_steps * BATCH, 2), shown, images(30, 4))


def _rdl(teacher: Any, layers: Mapping[str, Any], **settings: Any) -> RDLObjective:
    return RDLObjective(teacher, layers, **{"pairs": 20, **settings})


def all_at_once(n_steps: int, warm_up: int, folder: Path, a_epoch: int = 100, leak: Objective | None = None) -> Growth:
    """The growth over one training of `n_steps` steps with everything, counted after each epoch of `a_epoch` steps.

    warm_up: steps that come first. leak: an objective that takes part, too: what is planted must be found.
    """
    made = everything(a_epoch, (warm_up + n_steps) // a_epoch + 1, folder)
    *first, main = made.stages
    if leak is not None:
        main = replace(main, objective=[*main.objectives, leak], alpha=[*main.alphas, constant(0.0)])
    networks = [made.student, made.teacher]
    counted: list[Resources] = []
    for record in _trainer(made.student, [*first, main]).fit(made.task, made.shown, made.validation):
        done = a_epoch * (record.history["epoch"] + 1 - len(first))
        if done >= warm_up and record.history["stage"] == "main":
            counted.append(count(networks))
    return growth([a_epoch * k for k in range(len(counted))], counted)


def left_behind(n_steps: int, folder: Path) -> dict[str, float]:
    """What is there after a training with everything that was not there before it, once it and its parts are gone.

    A first training is not counted: libraries load what they need.
    """
    differences = {}
    for k in range(2):
        before = count()
        _whole_training(n_steps, folder / str(k))
        after = count()
        differences = {name: getattr(after, name) - getattr(before, name) for name in ("tensors", *_LEFT)}
    return differences


_LEFT = ("files", "hooks", "threads", "children", "temporary", "handlers")


def _whole_training(n_steps: int, folder: Path) -> None:
    made = everything(n_steps, 1, folder)
    for _ in _trainer(made.student, made.stages).fit(made.task, made.shown, made.validation):
        pass


# How trainings differ that come in turn; what a method cannot do stands apart.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "in parts": {"accumulate": 2, "clip": 1.0},
    "computed again": {"checkpoint_activations": ["conv1"], "keep": "best"},
    "channels last": {"channels_last": True, "augment": lambda images, random: images.flip(-1)},
}


def in_turn(rounds: int, n_steps: int, variants: Iterable[str] = tuple(VARIANTS), warm_up: int = 2) -> Growth:
    """The growth over rounds in which every method is trained by itself, in these variants, with one teacher."""
    teacher = network(1)
    task, validation = images(n_steps * BATCH, 2), images(30, 4)
    layers = ["pool1", "pool2", "fc"]
    context = MethodContext(
        1, sgd(0.01), constant(1.0), lambda measure: NetworkTeacher(teacher, layers, measure), lambda: teacher
    )

    def train_all(_: int) -> None:
        for method, settings in SETTINGS.items():
            for variant in map(VARIANTS.__getitem__, variants):
                stages = METHODS[method].model_validate({"method": method, **settings}).stages(context)
                for _ in _trainer(network(0), stages, **variant).fit(task, None, validation):
                    pass

    return repeated(train_all, rounds, [teacher], warm_up)


def one_epoch(n_steps: int) -> Growth:
    """What an epoch remembers of its steps until it ends; nothing of it is left then (`all_at_once`)."""
    made = everything(n_steps, 1, None)
    counted: list[Resources] = []
    done: list[float] = []

    class Watch:
        def step(self, stage: str, epoch: int, n_epochs: int, step: int, n_steps: int, values: Any) -> None:
            if stage == "main" and step >= n_steps // 5:
                done.append(step)
                counted.append(count([made.student, made.teacher]))

        def epoch(self, record: Any, n_epochs: int) -> None:
            pass

    main = made.stages[-1]
    for _ in _trainer(made.student, main, progress=Watch()).fit(made.task, made.shown):
        pass
    return growth(done, counted)


def _trainer(student: nn.Module, stages: list[Stage] | Stage, **settings: Any) -> Trainer:
    return Trainer(student, stages, batch_size=BATCH, stimulus_batch_size=8, accelerator="cpu", **settings)
