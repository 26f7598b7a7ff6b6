"""A run with brains as teachers as tables and figures: agreement on what no network has learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from brainrdl.analysis.agreement import average_folds, average_seeds, score_agreement, teacher_score
from brainrdl.analysis.inference import category_only, over_subjects, paired_over_subjects, with_fdr
from brainrdl.rdms import average_rdms, join_rdms, load_rdms, select_rdms
from brainrdl.runs import read_json
from brainrdl.settings import read_yaml

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# How the teachers' own RDMs are called among the networks; the layer says which teacher's.
TEACHER = "teacher RDM"


class BrainTables(NamedTuple):
    """What a run comes to.

    scores: a row a network (method, student, seed, fold), layer, roi, subject, pairs and kind. subjects: averaged over
    folds, splits and seeds. agreement: means over subjects with their intervals. tests: every two methods of a student,
    paired over subjects. dissociations: whether two brain teachers raise their own regions more than each other's.
    category_only: whether a gain over the untrained network, or over a category model, is category structure only.
    shares: of the teacher RDM's own score, reached by the networks it taught. task: accuracies.
    notes: what could not be scored, and why.
    """

    scores: pd.DataFrame
    subjects: pd.DataFrame
    agreement: pd.DataFrame
    tests: pd.DataFrame
    dissociations: pd.DataFrame
    category_only: pd.DataFrame
    shares: pd.DataFrame
    task: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Network:
    """A finished part."""

    method: str
    student: str
    seed: int
    folder: Path
    fold: Mapping[str, Any]

    @property
    def shared(self) -> tuple[Any, ...]:
        """Networks that share this are scored together: the same pairs and subjects."""
        subjects = self.fold["scored_on"]
        return (self.fold["split"], self.fold["fold"], None if subjects is None else tuple(subjects))


class BrainRun:
    """The finished part of a run. Raises ValueError where nothing is finished yet, or a file is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = read_yaml(folder / "experiment.yaml")
        self.networks = list(self._networks())
        if not self.networks:
            raise ValueError(f"'{folder}' has no finished part yet; let `brainrdl run` finish at least one network")

    def _networks(self) -> Iterator[_Network]:
        for method in self.settings["methods"]:
            for student in self.settings["students"]:
                for seed in self.settings["seeds"]:
                    place = self.folder / method / student / f"seed-{seed}"
                    for marker in sorted(place.glob("*/part.json")):
                        if read_json(marker)["finished"]:
                            fold = read_json(marker.parent / "fold.json")
                            yield _Network(method, student, seed, marker.parent, fold)

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
        return load_rdms(self.folder / "brain.h5")

    @cached_property
    def pixels(self) -> RDMs:
        """The scored images' own RDM."""
        return load_rdms(self.folder / "pixels.h5")

    @cached_property
    def categories(self) -> dict[str, str] | None:
        """id -> category; None where the experiment names no column."""
        column = self.settings["stimuli"]["categories"]
        if column is None:
            return None
        table = pd.read_csv(self.folder / "stimuli.csv", dtype=str, keep_default_na=False)
        return dict(zip(table["stimulus"], table[column], strict=True))

    def rdms(self, network: _Network) -> RDMs:
        """A network's RDMs, told apart from others' by method, student and seed."""
        rdms = load_rdms(network.folder / "rdms.h5")
        for name, value in {
            "network": self.label(network.method, network.student),
            "method": network.method,
            "student": network.student,
        }.items():
            rdms.rdm_descriptors[name] = [value] * rdms.n_rdm
        return rdms

    def teachers(self) -> Iterator[tuple[str, int | None, RDMs]]:
        """The teachers of the finished networks: name, group of subjects left out, RDMs."""
        seen = {(self.settings["methods"][n.method]["teacher"], n.fold["group"]) for n in self.networks}
        for name, group in sorted(((n, g) for n, g in seen if n is not None), key=str):
            file = f"{name}.h5" if group is None else f"{name}_subjects-{group}.h5"
            yield name, group, load_rdms(self.folder / "teachers" / file)


def brain_tables(run: BrainRun) -> BrainTables:
    """Score every finished network on its held-out stimuli, subject by subject; nothing is trained again."""
    scores = pd.concat([*_network_scores(run), *_teacher_scores(run)], ignore_index=True)
    subjects = average_seeds(average_folds(scores))
    tests = _tests(run, subjects)
    return BrainTables(
        scores,
        subjects,
        over_subjects(subjects),
        tests,
        _dissociations(run, subjects),
        _category_only(run, subjects),
        _shares(run, subjects),
        _task(run),
        (*_unfinished(run), *_notes(scores)),
    )


def _options(run: BrainRun) -> dict[str, Any]:
    return {
        "comparison": run.settings["score"]["comparison"],
        "categories": run.categories,
        "controls": run.pixels,
    }


def _network_scores(run: BrainRun) -> Iterator[pd.DataFrame]:
    groups: dict[tuple[Any, ...], list[_Network]] = {}
    for network in run.networks:
        groups.setdefault(network.shared, []).append(network)
    for (split, fold, subjects), networks in groups.items():
        brain = run.brain if subjects is None else select_rdms(run.brain, subject=list(subjects))
        trained, held_out = _scored(run, networks[0])
        model = join_rdms([run.rdms(network) for network in networks])
        yield score_agreement(model, brain, held_out, trained, **_options(run)).assign(split=split, fold=fold)


def _scored(run: BrainRun, network: _Network) -> tuple[list[str], list[str]]:
    """The trained and the held-out stimuli of a network, as far as the brains were measured on them."""
    known = set(map(str, run.brain.pattern_descriptors["stimulus"]))
    return tuple([s for s in network.fold[key] if s in known] for key in ("trained", "held_out"))  # type: ignore[return-value]


def _teacher_scores(run: BrainRun) -> Iterator[pd.DataFrame]:
    """The teachers' RDMs on the held-out stimuli of every fold; a teacher has learned from no stimulus."""
    folds = {(n.fold["split"], n.fold["fold"], n.fold["group"]): n for n in run.networks}
    for name, group, rdms in run.teachers():
        for (split, fold, of_group), network in folds.items():
            if of_group != group:
                continue
            subjects = network.fold["scored_on"]
            brain = run.brain if subjects is None else select_rdms(run.brain, subject=list(subjects))
            _, held_out = _scored(run, network)
            known = set(map(str, rdms.pattern_descriptors["stimulus"]))
            held_out = [stimulus for stimulus in held_out if stimulus in known]
            table = teacher_score(rdms, brain, held_out, **_options(run))
            layers = [name if rdms.n_rdm == 1 else f"{name}/{layer}" for layer in table["layer"]]
            yield table.assign(
                network=TEACHER, method=TEACHER, student="", layer=layers, seed=-1, split=split, fold=fold
            )


def _of_student(run: BrainRun, student: str) -> list[str]:
    """The student's networks, methods in the experiment's order."""
    finished = {network.method for network in run.networks if network.student == student}
    return [run.label(method, student) for method in run.settings["methods"] if method in finished]


def _tests(run: BrainRun, subjects: pd.DataFrame) -> pd.DataFrame:
    """Every two methods of a student, and each with the teachers' own RDMs where their layers are called alike.

    q: p adjusted over layer × roi × two methods, for each kind and type of pairs.
    """
    parts = [
        paired_over_subjects(subjects, a, b)
        for student in run.settings["students"]
        for b, a in combinations(_of_student(run, student), 2)
    ]
    if not parts:
        return pd.DataFrame()
    tests = pd.concat(parts, ignore_index=True)
    tests["q"] = tests.groupby(["pairs", "kind"])["p"].transform(with_fdr)
    return tests


def _dissociations(run: BrainRun, subjects: pd.DataFrame) -> pd.DataFrame:
    """Of two uncontrolled brain teachers, each of one scored region: (A - B) in A's region minus (A - B) in B's.

    Paired over the subjects that have all four scores. Above 0: each raises its own region more.
    """
    methods = {
        label: next(iter(names))
        for label, method in run.settings["methods"].items()
        if method["teacher"] and not method["control"] and not method["task_weight"]
        for names in [{name for of_layer in method["layers"].values() for name in _names(of_layer)}]
        if len(names) == 1
    }
    rows = []
    for student in run.settings["students"]:
        there = _of_student(run, student)
        for (one, region), (other, its_region) in combinations(methods.items(), 2):
            a, b = run.label(one, student), run.label(other, student)
            regions = {name: _same_region(run, name) for name in (region, its_region)}
            if region == its_region or a not in there or b not in there or None in regions.values():
                continue
            table = subjects[subjects["network"].isin([a, b])].pivot_table(
                index=["layer", "pairs", "kind", "subject"], columns=["roi", "network"], values="score"
            )
            difference = {roi: table[roi][a] - table[roi][b] for roi in regions.values()}
            contrast = difference[regions[region]] - difference[regions[its_region]]
            # As scores of a made-up network against another that is always 0, for the same test.
            made = contrast.rename("score").reset_index().assign(network="contrast", roi="")
            paired = paired_over_subjects(pd.concat([made, made.assign(network="0", score=0.0)]), "contrast", "0")
            rows.append(paired.assign(a=a, b=b, roi=f"{regions[region]} − {regions[its_region]}"))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _names(of_layer: str | Mapping[str, float]) -> list[str]:
    return [of_layer] if isinstance(of_layer, str) else list(of_layer)


def _same_region(run: BrainRun, name: str) -> str | None:
    """The scored region that a teacher's RDM is of: the one of that name."""
    regions = set(map(str, run.brain.rdm_descriptors["roi"]))
    return name if name in regions else None


def _untrained(run: BrainRun) -> str | None:
    """The method without teacher and task."""
    methods = run.settings["methods"].items()
    return next((name for name, m in methods if m["teacher"] is None and not m["task_weight"]), None)


def _taught(run: BrainRun) -> list[str]:
    """The methods with a measured teacher and no control in its place."""
    return [label for label, m in run.settings["methods"].items() if m["teacher"] and not m["control"]]


def _category_only(run: BrainRun, subjects: pd.DataFrame) -> pd.DataFrame:
    """Whether gains are category structure only: of every method over the untrained network, and of those taught by
    a brain over the category models."""
    if run.categories is None:
        return pd.DataFrame()
    methods, untrained = run.settings["methods"], _untrained(run)
    models = [label for label, m in methods.items() if m["control"] in ("category", "category_means")]
    wanted = [(a, untrained) for a in methods if a != untrained] if untrained is not None else []
    wanted += [(a, b) for a in _taught(run) for b in models if methods[a]["teacher"] == methods[b]["teacher"]]
    parts = []
    for student in run.settings["students"]:
        there = _of_student(run, student)
        for a, b in ((run.label(one, student), run.label(other, student)) for one, other in wanted):
            if a in there and b in there:
                parts.append(category_only(subjects, a, b).assign(a=a, b=b))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _shares(run: BrainRun, subjects: pd.DataFrame) -> pd.DataFrame:
    """Of networks that a brain taught: their score in its region as a share of the teacher RDM's own, same pairs."""
    own = subjects[subjects["network"] == TEACHER]
    keys = ["layer", "layer_teacher", "roi", "pairs", "kind"]
    rows = []
    for label in _taught(run):
        settings = run.settings["methods"][label]
        regions = {name for of_layer in settings["layers"].values() for name in _names(of_layer)}
        of_teacher = own["layer"].str.split("/").str[0] == settings["teacher"]
        theirs = own[of_teacher & own["roi"].isin(regions)]
        for student in run.settings["students"]:
            network = run.label(label, student)
            both = subjects[subjects["network"] == network].merge(
                theirs, on=["roi", "subject", "pairs", "kind"], suffixes=("", "_teacher")
            )
            for place, part in both.dropna(subset=["score", "score_teacher"]).groupby(keys, sort=False):
                score, teacher = part["score"].mean(), part["score_teacher"].mean()
                share = score / teacher if teacher > 0 else float("nan")
                told = {"n_subjects": len(part), "score": score, "score_teacher": teacher, "share": share}
                rows.append({"network": network, **dict(zip(keys, place, strict=True)), **told})
    return pd.DataFrame(rows)


def _task(run: BrainRun) -> pd.DataFrame:
    """Share of the held-out stimuli (or test images) told correctly, averaged over folds, a row a network and seed.

    alpha: of the brain's term, 0 without a teacher.
    """
    rows = []
    for network in run.networks:
        file = network.folder / "predictions.csv"
        if file.is_file():
            table = pd.read_csv(file, dtype={"stimulus": str})
            method = run.settings["methods"][network.method]
            rows.append(
                {
                    "network": run.label(network.method, network.student),
                    "method": network.method,
                    "student": network.student,
                    "seed": network.seed,
                    "alpha": network.fold["chosen"].get("alpha", method["alpha"]) if method["teacher"] else 0.0,
                    "accuracy": float((table["label"] == table["predicted"]).mean()),
                }
            )
    if not rows:
        return pd.DataFrame()
    keys = ["network", "method", "student", "seed", "alpha"]
    return pd.DataFrame(rows).groupby(keys, sort=False)["accuracy"].mean().reset_index()


def tradeoff_table(tables: BrainTables) -> pd.DataFrame:
    """Accuracy of the task and agreement (held-out pairs, mean over subjects), a row a region, alpha and seed.

    Of the first student and scored layer, for methods without a control; empty where alpha does not vary.
    """
    if tables.task.empty or tables.task["alpha"].nunique() < 2:
        return pd.DataFrame()
    task: pd.DataFrame = tables.task[tables.task["student"] == tables.task["student"].iloc[0]]
    rows = average_folds(tables.scores)
    rows = rows[(rows["pairs"] == "held_out") & (rows["kind"] == "all")]
    rows = rows[rows["layer"] == rows["layer"].iloc[0]]
    scores = rows.groupby(["network", "roi", "seed"], sort=False, as_index=False)["score"].mean()
    both: pd.DataFrame = task.merge(scores, on=["network", "seed"])
    return both.drop_duplicates(["roi", "alpha", "seed"])


def _unfinished(run: BrainRun) -> Iterator[str]:
    """A line for every method, student and seed of which folds are missing: its means are over other pairs."""
    settings = run.settings
    for method, own in settings["methods"].items():
        groups = settings["teachers"][own["teacher"]]["subject_folds"] if own["teacher"] else None
        expected = settings["folds"]["n"] * settings["folds"]["splits"] * (groups or 1)
        for student in own["students"] or settings["students"]:
            for seed in settings["seeds"]:
                finished = sum((n.method, n.student, n.seed) == (method, student, seed) for n in run.networks)
                if finished < expected:
                    yield (
                        f"{run.label(method, student)}, seed {seed}: {finished} of {expected} networks are finished; "
                        "its means are over fewer folds than others', so compare them when all are"
                    )


def _notes(scores: pd.DataFrame) -> tuple[str, ...]:
    missing = scores[scores["note"] != ""]
    return tuple(
        f"{network}: {len(rows)} scores of kind '{kind}' are missing: {note}"
        for (network, kind, note), rows in missing.groupby(["network", "kind", "note"], sort=False)
    )


def mean_brain(run: BrainRun) -> RDMs:
    """The mean over subjects of each scored region."""
    return average_rdms(run.brain, over="subject")
