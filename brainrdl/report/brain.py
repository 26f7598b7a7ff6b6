"""A run with brains as teachers as tables and figures: agreement on what no network has learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from brainrdl.analysis.agreement import as_model, average_folds, average_seeds, score_agreement
from brainrdl.analysis.inference import over_subjects
from brainrdl.rdms import join_rdms, load_rdms
from brainrdl.report.run_files import predictions_file, read_experiment, read_predictions, read_run_rdms
from brainrdl.run_folder import (
    BRAIN,
    PIXELS,
    REPORTED,
    STIMULI,
    TEACHERS,
    check_noted,
    check_part,
    read_marks,
    read_table,
    remedy_of,
    teacher_file,
)
from brainrdl.runs import read_marked

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# How the teachers' own RDMs are called among the networks; the layer says which teacher's.
TEACHER = "teacher RDM"
_KEYS = ("name", "stimuli", "students", "teachers", "folds", "choose", "score")
_FOLD_KEYS = ("split", "fold", "group", "scored_on", "chosen", "epoch", "trained", "held_out")


class BrainTables(NamedTuple):
    """What a run comes to.

    scores: a row a network (method, student, seed, fold), layer, roi, subject, pairs and kind. subjects: averaged over
    folds, splits and seeds. agreement: means over subjects with their intervals; spread: standard deviation over
    splits and seeds of the mean over subjects. task: accuracy, a row a network and fold. notes: what could not be
    scored or is not finished, and why.
    """

    scores: pd.DataFrame
    subjects: pd.DataFrame
    agreement: pd.DataFrame
    task: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Network:
    """A finished part. label: what it is called in tables and figures."""

    label: str
    method: str
    student: str
    seed: int
    folder: Path
    fold: Mapping[str, Any]

    @property
    def shared(self) -> tuple[int, int]:
        """Networks of one fold of stimuli are scored together, on the same pairs."""
        return self.fold["split"], self.fold["fold"]


class BrainRun:
    """The finished part of a run. Raises ValueError where nothing is finished yet, or a file is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = read_experiment(folder, *_KEYS)
        self.networks = list(self._networks())
        if not self.networks:
            raise ValueError(f"'{folder}' has no finished part yet; let `brainrdl run` finish at least one network")

    def _networks(self) -> Iterator[_Network]:
        for method in self.settings["methods"]:
            for student in self.settings["students"]:
                for seed in self.settings["seeds"]:
                    place = self.folder / method / student / f"seed-{seed}"
                    for marker in sorted(place.glob("*/part.json")):
                        part = marker.parent
                        if (read_marks(part) or {})["finished"]:
                            check_part(part, REPORTED)
                            fold = read_marked(part / "fold.json", _FOLD_KEYS, remedy_of(part))
                            yield _Network(self.label(method, student), method, student, seed, part, fold)

    @property
    def name(self) -> str:
        """The experiment's."""
        return str(self.settings["name"])

    def label(self, method: str, student: str) -> str:
        """What a network is called in tables and figures."""
        return method if len(self.settings["students"]) == 1 else f"{student}: {method}"

    @cached_property
    def brain(self) -> RDMs:
        """The scored brains."""
        return read_run_rdms(self.folder, BRAIN)

    @cached_property
    def pixels(self) -> RDMs:
        """The scored images' own RDM."""
        return read_run_rdms(self.folder, PIXELS)

    @cached_property
    def n_stimuli(self) -> int:
        """Of the experiment: those that folds are made of."""
        return len(self._stimuli("stimulus"))

    @cached_property
    def categories(self) -> dict[str, str] | None:
        """id -> category; None where the experiment names no column."""
        column = self.settings["stimuli"]["categories"]
        return None if column is None else self.column(column)

    def column(self, name: str) -> dict[str, str]:
        """id -> what stands in a column of the stimulus table."""
        table = self._stimuli("stimulus", name)
        return dict(zip(table["stimulus"], table[name], strict=True))

    def _stimuli(self, *columns: str) -> pd.DataFrame:
        check_noted(self.folder, STIMULI)
        return read_table(self.folder / STIMULI, columns, as_text=True)

    def rdms(self, network: _Network) -> RDMs:
        """A network's RDMs, told apart from others' by method, student and seed."""
        rdms = load_rdms(network.folder / "rdms.h5")
        for name, value in {
            "network": network.label,
            "method": network.method,
            "student": network.student,
            "group": str(network.fold["group"]),
        }.items():
            rdms.rdm_descriptors[name] = [value] * rdms.n_rdm
        return rdms

    def teacher(self, name: str, group: int | None) -> RDMs:
        """The RDMs of a teacher; group: of subjects, those that it leaves out."""
        return read_run_rdms(self.folder, f"{TEACHERS}/{teacher_file(name, group)}")

    def complete(self, network: str) -> bool:
        """Whether all folds of it are finished: only then are its means over the same pairs as others'."""
        return network not in {self.label(method, student) for method, student, *_ in self.missing}

    @cached_property
    def missing(self) -> list[tuple[str, str, int, int, int]]:
        """method, student, seed, number of finished networks and of all, where some are not finished."""
        found = []
        folds = self.settings["folds"]
        for method, own in self.settings["methods"].items():
            groups = self.settings["teachers"][own["teacher"]]["subject_folds"] if own["teacher"] else None
            expected = folds["n"] * folds["splits"] * (groups or 1)
            for student in own["students"] or self.settings["students"]:
                for seed in self.settings["seeds"]:
                    finished = sum((n.method, n.student, n.seed) == (method, student, seed) for n in self.networks)
                    if finished < expected:
                        found.append((method, student, seed, finished, expected))
        return found

    def missing_lines(self) -> tuple[str, ...]:
        """What is missing, a line for each method, student and seed."""
        return tuple(
            f"Not finished: {self.label(method, student)}, seed {seed}: {finished} of {expected} networks."
            for method, student, seed, finished, expected in self.missing
        )


def brain_tables(run: BrainRun) -> BrainTables:
    """Score every finished network on its held-out stimuli, subject by subject; nothing is trained again."""
    scores = pd.concat([*_network_scores(run), *_teacher_scores(run)], ignore_index=True)
    subjects = average_seeds(average_folds(scores))
    return BrainTables(
        scores,
        subjects,
        _with_spread(over_subjects(subjects), scores),
        _task(run),
        (*_unfinished(run), *_notes(scores)),
    )


def _with_spread(agreement: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """With how far splits and seeds lie apart; NaN where there is one of them."""
    place = ["network", "layer", "roi", "pairs", "kind"]
    of_fold = scores.groupby([*place, "seed", "split", "fold"], sort=False)["score"].mean().reset_index()
    of_split = of_fold.groupby([*place, "seed", "split"], sort=False)["score"].mean()
    spread = of_split.groupby(place, sort=False).std(ddof=1).rename("spread").reset_index()
    table: pd.DataFrame = agreement.merge(spread, on=place, how="left")
    return table


def _kinds(run: BrainRun) -> Iterator[dict[str, Any]]:
    """What `score_agreement` is asked for, and what its kind is called where it is within another column."""
    settings = run.settings["stimuli"]
    comparison = run.settings["score"]["comparison"]
    yield {"comparison": comparison, "categories": run.categories, "controls": run.pixels}
    for column in settings["also_within"]:
        yield {"comparison": comparison, "categories": run.column(column), "kinds": ["within"], "called": column}


def _score(run: BrainRun, model: RDMs, held_out: Sequence[str], trained: Sequence[str], fold: _Network) -> pd.DataFrame:
    tables = []
    for options in _kinds(run):
        column = options.pop("called", None)
        table = score_agreement(model, run.brain, held_out, trained, **options)
        tables.append(table if column is None else table.assign(kind=f"within {column}"))
    split, number = fold.shared
    return pd.concat(tables, ignore_index=True).assign(split=split, fold=number)


def _network_scores(run: BrainRun) -> Iterator[pd.DataFrame]:
    """Every network on all subjects, for ceilings that are the same for all; those who taught it are left out after."""
    groups: dict[tuple[int, int], list[_Network]] = {}
    for network in run.networks:
        groups.setdefault(network.shared, []).append(network)
    for networks in groups.values():
        trained, held_out = _scored(run, networks[0])
        table = _score(run, join_rdms([run.rdms(network) for network in networks]), held_out, trained, networks[0])
        yield _left_out(table, {(n.label, n.seed, str(n.fold["group"])): n.fold["scored_on"] for n in networks})


def _left_out(table: pd.DataFrame, scored_on: Mapping[tuple[Any, ...], Sequence[str] | None]) -> pd.DataFrame:
    """Without the rows of subjects that taught the network."""

    def allowed(network: str, seed: int, group: str, subject: str) -> bool:
        subjects = scored_on[network, seed, group]
        return subjects is None or subject in subjects

    columns = (table[name] for name in ("network", "seed", "group", "subject"))
    return table[[allowed(*row) for row in zip(*columns, strict=True)]].drop(columns="group")


def _scored(run: BrainRun, network: _Network) -> tuple[list[str], list[str]]:
    """The trained and the held-out stimuli of a network, as far as the brains were measured on them."""
    known = set(map(str, run.brain.pattern_descriptors["stimulus"]))
    trained, held_out = ([s for s in network.fold[key] if s in known] for key in ("trained", "held_out"))
    return trained, held_out


def _teacher_scores(run: BrainRun) -> Iterator[pd.DataFrame]:
    """The teachers' RDMs on the held-out stimuli of every fold and on the subjects that they were not made of."""
    folds: dict[tuple[Any, ...], _Network] = {}
    for network in run.networks:
        teacher = run.settings["methods"][network.method]["teacher"]
        if teacher is not None:
            folds[(teacher, network.fold["group"], *network.shared)] = network
    for (teacher, group, *_), network in folds.items():
        of_teacher = run.teacher(teacher, group)
        rdms, n_rdms = as_model(of_teacher, TEACHER), of_teacher.n_rdm
        told = [of_teacher.rdm_descriptors[name] for name in run.settings["teachers"][teacher]["name"]]
        names = ["/".join([teacher, *map(str, values)]) for values in zip(*told, strict=True)]
        rdms.rdm_descriptors["layer"] = [teacher] if n_rdms == 1 else names
        for name, value in {"method": TEACHER, "student": "", "seed": -1, "group": str(group)}.items():
            rdms.rdm_descriptors[name] = [value] * n_rdms
        known = set(map(str, rdms.pattern_descriptors["stimulus"]))
        held_out = [stimulus for stimulus in _scored(run, network)[1] if stimulus in known]
        table = _score(run, rdms, held_out, (), network)
        yield _left_out(table, {(TEACHER, -1, str(group)): network.fold["scored_on"]})


def _task(run: BrainRun) -> pd.DataFrame:
    """Share of the held-out stimuli (or test images) told correctly, a row a network.

    alpha: of the brain's term, 0 without a teacher.
    """
    rows = []
    for network in run.networks:
        if file := predictions_file(network.folder):
            table = read_predictions(file)
            method = run.settings["methods"][network.method]
            rows.append(
                {
                    "network": network.label,
                    "method": network.method,
                    "student": network.student,
                    "seed": network.seed,
                    "split": network.fold["split"],
                    "fold": network.fold["fold"],
                    "alpha": network.fold["chosen"].get("alpha", method["alpha"]) if method["teacher"] else 0.0,
                    "accuracy": float((table["label"] == table["predicted"]).mean()),
                }
            )
    return pd.DataFrame(rows)


def tradeoff_table(run: BrainRun, tables: BrainTables) -> pd.DataFrame:
    """Accuracy of the task and agreement (held-out pairs, mean over subjects), a row a region, alpha and seed.

    Both are averaged over the same folds. Of the first student and scored layer, for methods with the task and no
    control; empty where alpha does not vary.
    """
    if tables.task.empty:
        return pd.DataFrame()
    controlled = [label for label, m in run.settings["methods"].items() if m["control"]]
    task = tables.task[~tables.task["method"].isin(controlled)]
    task = task[task["student"] == task["student"].iloc[0]]
    if task["alpha"].nunique() < 2:
        return pd.DataFrame()
    place = ["network", "seed", "split", "fold"]
    rows = tables.scores[(tables.scores["pairs"] == "held_out") & (tables.scores["kind"] == "all")]
    rows = rows[rows["layer"] == run.settings["score"]["layers"][0]]
    scores = rows.groupby([*place, "roi"], sort=False)["score"].mean().reset_index()
    both = task.merge(scores, on=place)
    means: pd.DataFrame = both.groupby(["roi", "alpha", "seed"])[["accuracy", "score"]].mean().reset_index()
    return means


def _unfinished(run: BrainRun) -> Iterator[str]:
    """A line for every method, student and seed of which networks are missing."""
    for method, student, seed, finished, expected in run.missing:
        yield (
            f"{run.label(method, student)}, seed {seed}: {finished} of {expected} networks are finished; what there is "
            "is over fewer folds than others', so it takes no part in gains and tests"
        )


def _notes(scores: pd.DataFrame) -> tuple[str, ...]:
    missing = scores[scores["note"] != ""]
    return tuple(
        f"{network}: {len(rows)} scores of kind '{kind}' are missing: {note}"
        for (network, kind, note), rows in missing.groupby(["network", "kind", "note"], sort=False)
    )
