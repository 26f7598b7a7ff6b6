"""Settings chosen by inner folds of a network's own training stimuli, before it is scored on what is held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from torch import nn

from brainrdl.analysis.comparison import similarity
from brainrdl.analysis.rdms import network_rdms
from brainrdl.data.folds import Fold, check_disjoint, inner_folds
from brainrdl.experiment.brain_data import BrainFold, rows_of
from brainrdl.experiment.common import build_seeded
from brainrdl.experiment_file.brain import BrainMethod
from brainrdl.models import predict
from brainrdl.pairs import all_pairs
from brainrdl.run_folder import Part, write_table
from brainrdl.runs import read_marked, write_marked
from brainrdl.sources.base import TeacherRDMSource
from brainrdl.stimuli import Stimuli
from brainrdl.training.devices import check_alike

if TYPE_CHECKING:
    from brainrdl.experiment.brain import _BrainRun


_TRIES = "choosing.json"  # beside the checkpoint, while settings are chosen


class Tries:
    """The scores of settings that were tried already, for a run that is interrupted while it chooses.

    file: where they are kept. What cannot be read is tried again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._scores: dict[str, list[tuple[int, float]]] = {}
        if file.exists():
            with suppress(ValueError):
                stored = read_marked(file, ("scores",), "")["scores"]
                self._scores = {
                    name: [(int(epoch), float(score)) for epoch, score in of] for name, of in stored.items()
                }

    def __len__(self) -> int:
        return len(self._scores)

    def known(self, setting: int, inner_fold: int) -> list[tuple[int, float]] | None:
        """(epoch, score) of a setting in an inner fold; None where it was not tried."""
        return self._scores.get(f"{setting}/{inner_fold}")

    def keep(self, setting: int, inner_fold: int, scores: list[tuple[int, float]], writes: bool) -> None:
        """Remember scores, in the process that writes also on the disk."""
        self._scores[f"{setting}/{inner_fold}"] = scores
        if writes:
            write_marked(self.file, {"scores": self._scores})


class Chosen(NamedTuple):
    """settings: "key.path" -> value, in place of the method's. epoch: how many epochs to train; None = all."""

    settings: dict[str, Any]
    epoch: int | None

    def applied_to(self, method: BrainMethod) -> BrainMethod:
        """The method with the chosen settings."""
        changed = method.model_dump()
        for path, value in self.settings.items():
            key, _, rest = path.partition(".")
            changed[key] = {**changed[key], rest: value} if rest else value
        return BrainMethod.model_validate(changed)


def choose(run: _BrainRun, part: Part, student: str, fold: BrainFold) -> Chosen:
    """The settings and the epoch with the highest mean score over the inner folds; the table goes to choosing.csv.

    The score of a method with a teacher is the agreement of its pulled layers with that teacher's RDMs, on pairs of
    inner held-out stimuli; of one with the task alone, the share of inner held-out stimuli that it tells correctly.
    """
    settings = run.experiment.choose
    assert settings is not None
    method = run.experiment.methods[part.label]
    stratify = None if run.experiment.folds.stratify is None else run.data.column(run.experiment.folds.stratify)
    groups = None if run.experiment.folds.group is None else run.data.column(run.experiment.folds.group)
    inner = inner_folds(Fold(fold.trained, fold.held_out), settings.inner, part.seed, groups, stratify)
    _check_inner(inner, fold, part.name)
    grid = [Chosen(dict(zip(settings.grid, values, strict=True)), None) for values in product(*settings.grid.values())]
    tries = Tries(part.checkpoint.with_name(_TRIES))
    check_alike(run.fabric, len(tries), f"tried settings in {tries.file}")
    rows = []
    for k, tried in enumerate(grid):
        for number, one in enumerate(inner):
            scores = tries.known(k, number)
            if scores is None:
                scores = list(_scores(run, part, student, tried.applied_to(method), fold, one))
                tries.keep(k, number, scores, writes=run.writes)
            rows += [
                {"setting": k, **tried.settings, "inner_fold": number, "epoch": epoch, "score": score}
                for epoch, score in scores
            ]
    table = pd.DataFrame(rows)
    if run.writes:
        write_table(part.folder / "choosing.csv", table)
    if not settings.epoch:
        table = table[table["epoch"] == table.groupby("setting")["epoch"].transform("max")]
    means = table.groupby(["setting", "epoch"], as_index=False)["score"].mean()
    if means["score"].isna().all():
        raise ValueError(
            f"{part.name}: no inner fold gives a score to choose by; lower choose.inner, or leave 'choose' out"
        )
    best = means.loc[means["score"].idxmax()]
    return Chosen(grid[int(best["setting"])].settings, int(best["epoch"]) if settings.epoch else None)


def _check_inner(inner: Sequence[Fold], fold: BrainFold, name: str) -> None:
    """Raise ValueError where what is held out would be used to choose, or an inner fold scored on what it learned."""
    outside = set(fold.held_out)
    for one in inner:
        check_disjoint(one.trained, one.held_out)
        seen = outside & {*one.trained, *one.held_out}
        if seen:
            raise ValueError(
                f"{name}: {len(seen)} stimuli that the fold holds out would be used to choose its settings (such as "
                f"'{min(seen)}'); inner folds are made of the stimuli that it learns from alone"
            )


def _scores(
    run: _BrainRun, part: Part, name: str, method: BrainMethod, fold: BrainFold, inner: Fold
) -> Iterator[tuple[int, float]]:
    """After each epoch (a number of epochs), the score on what the inner fold holds out."""
    settings = run.experiment.student_of(part.label, name)
    network = build_seeded(settings, part.seed, run.options.allow_code)
    images = run.data.training_images(settings)
    held_out = images.subset(rows_of(images, inner.held_out))
    preprocess = run.data.preprocessing(settings)
    source = None if method.teacher is None else run.data.teacher(method, fold, part.seed)

    def score(student: nn.Module, epoch: int) -> dict[str, float]:
        if source is None:
            return {"inner": _accuracy(student, held_out, preprocess)}
        agreements = agreement_with(run, student, method, source, held_out._replace(labels=None), preprocess)
        return {"inner": float(np.mean(agreements))}

    for row, _ in run.training(network, part, name, method, inner.trained, fold, {"inner": score}):
        yield row["epoch"] + 1, row["inner"]


def agreement_with(
    run: _BrainRun,
    student: nn.Module,
    method: BrainMethod,
    source: TeacherRDMSource,
    stimuli: Stimuli,
    preprocess: nn.Module,
) -> list[float]:
    """Of each pulled layer and name, the comparison of the student's RDM with the teacher's; NaN: too few pairs.

    Within categories where that is asked for and the teacher differs there, else (a category model) over all pairs.
    """
    layers = list(method.layers)
    rdms = network_rdms(student, layers, stimuli, run.experiment.score.dissimilarity, preprocess=preprocess)
    pairs = all_pairs(len(stimuli.ids))
    targets = source.targets(stimuli, pairs)
    wanted = np.ones(len(pairs.i), dtype=bool)
    choose = run.experiment.choose
    if choose is not None and choose.by == "within":
        assert run.data.categories is not None
        category = np.array([run.data.categories[stimulus] for stimulus in stimuli.ids])
        wanted = category[pairs.i] == category[pairs.j]
    found = []
    for layer, names in method.layers.items():
        vector = rdms.dissimilarities[layers.index(layer)]
        for name in [names] if isinstance(names, str) else names:
            target = targets[name].values.double().cpu().numpy()
            measured = ~np.isnan(target) & ~np.isnan(vector)
            usable = measured & wanted
            if usable.any() and np.ptp(target[usable]) == 0:
                usable = measured
            both = [np.where(usable, values, np.nan)[None] for values in (vector, target)]
            found.append(float(similarity(both[0], both[1], run.experiment.score.comparison)[0, 0]))
    return [value for value in found if not isnan(value)] or [float("nan")]


def _accuracy(student: nn.Module, stimuli: Stimuli, preprocess: nn.Module) -> float:
    assert stimuli.labels is not None
    return float((predict(student, stimuli, preprocess) == stimuli.labels).double().mean())
