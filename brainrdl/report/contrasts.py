"""What the scores of a run with brains as teachers say: methods compared, over subjects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import pandas as pd

from brainrdl.analysis.inference import category_only, paired_over_subjects, with_fdr
from brainrdl.report.brain import TEACHER, BrainRun


def of_student(run: BrainRun, student: str) -> list[str]:
    """The student's networks of which all folds are finished, methods in the experiment's order."""
    finished = {network.method for network in run.networks if network.student == student}
    labels = [run.label(method, student) for method in run.settings["methods"] if method in finished]
    return [label for label in labels if run.complete(label)]


def method_tests(run: BrainRun, subjects: pd.DataFrame) -> pd.DataFrame:
    """Of every student: each network that a brain taught against all others, and each against the untrained one.

    q: p adjusted over layer × roi × these contrasts, one family for each student, kind and type of pairs.
    """
    untrained, taught = untrained_method(run), _taught(run)
    parts = []
    for student in run.settings["students"]:
        there = of_student(run, student)
        brains = [label for label in (run.label(method, student) for method in taught) if label in there]
        pairs = [(a, b) for a in brains for b in there if b not in brains[: brains.index(a) + 1]]
        if untrained is not None and run.label(untrained, student) in there:
            reference = run.label(untrained, student)
            pairs += [(a, reference) for a in there if a not in (*brains, reference)]
        parts += [paired_over_subjects(subjects, a, b).assign(student=student) for a, b in pairs]
    if not parts:
        return pd.DataFrame()
    tests = pd.concat(parts, ignore_index=True)
    tests["q"] = tests.groupby(["student", "pairs", "kind"])["p"].transform(with_fdr)
    return tests


def dissociations(run: BrainRun, subjects: pd.DataFrame) -> pd.DataFrame:
    """Two brain teachers A and B, each of one scored region: does each raise its own region more than the other's?

    Paired over the subjects that have all scores; a row a contrast: "A over B" in A's region, "B over A" in B's, and
    their sum, the interaction; and, where there is an untrained network U, how much more A raises its own region than
    the other's, (A - U) in A's region minus the same in B's, and so for B.
    """
    methods = {}
    for label in _taught(run):
        method = run.settings["methods"][label]
        names = {name for of_layer in method["layers"].values() for name in _names(of_layer)}
        if len(names) == 1 and not method["task_weight"]:
            methods[label] = next(iter(names))
    regions, untrained = set(map(str, run.brain.rdm_descriptors["roi"])), untrained_method(run)
    rows = []
    for student in run.settings["students"]:
        there = of_student(run, student)
        for (one, of_a), (other, of_b) in combinations(methods.items(), 2):
            a, b = run.label(one, student), run.label(other, student)
            if of_a == of_b or not {of_a, of_b} <= regions or not {a, b} <= set(there):
                continue
            reference = None if untrained is None else run.label(untrained, student)
            for name, contrast in _contrasts(subjects, a, b, of_a, of_b, reference if reference in there else None):
                # As scores of a made-up network against another that is always 0, for the same test.
                made = contrast.rename("score").reset_index().assign(network="contrast", roi="")
                paired = paired_over_subjects(pd.concat([made, made.assign(network="0", score=0.0)]), "contrast", "0")
                rows.append(paired.assign(a=a, b=b, roi=f"{of_a}, {of_b}", contrast=name))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _contrasts(
    subjects: pd.DataFrame, a: str, b: str, of_a: str, of_b: str, untrained: str | None
) -> Iterator[tuple[str, pd.Series[float]]]:
    """Each contrast of `dissociations`, by layer, pairs, kind and subject."""
    table = subjects[subjects["network"].isin([a, b, untrained])].pivot_table(
        index=["layer", "pairs", "kind", "subject"], columns=["roi", "network"], values="score"
    )
    a_over_b, b_over_a = table[of_a][a] - table[of_a][b], table[of_b][b] - table[of_b][a]
    yield f"{a} over {b} in {of_a}", a_over_b
    yield f"{b} over {a} in {of_b}", b_over_a
    yield "interaction (the sum of both)", a_over_b + b_over_a
    if untrained is not None:
        for network, own, others in ((a, of_a, of_b), (b, of_b, of_a)):
            raised = {roi: table[roi][network] - table[roi][untrained] for roi in (own, others)}
            yield f"{network} raises {own} more than {others}", raised[own] - raised[others]


def _names(of_layer: str | Mapping[str, float]) -> list[str]:
    return [of_layer] if isinstance(of_layer, str) else list(of_layer)


def untrained_method(run: BrainRun) -> str | None:
    """The method without teacher and task."""
    methods = run.settings["methods"].items()
    return next((name for name, m in methods if m["teacher"] is None and not m["task_weight"]), None)


def _taught(run: BrainRun) -> list[str]:
    """The methods with a measured teacher and no control in its place."""
    return [label for label, m in run.settings["methods"].items() if m["teacher"] and not m["control"]]


def gains(run: BrainRun, subjects: pd.DataFrame) -> pd.DataFrame:
    """Whether gains are category structure only (`category_only`).

    Of every method over the untrained network, and of those taught by a brain over the category models.
    """
    if run.categories is None:
        return pd.DataFrame()
    methods, untrained = run.settings["methods"], untrained_method(run)
    models = [label for label, m in methods.items() if m["control"] in ("category", "category_means")]
    wanted = [(a, untrained) for a in methods if a != untrained] if untrained is not None else []
    wanted += [(a, b) for a in _taught(run) for b in models if methods[a]["teacher"] == methods[b]["teacher"]]
    parts = []
    for student in run.settings["students"]:
        there = of_student(run, student)
        for a, b in ((run.label(one, student), run.label(other, student)) for one, other in wanted):
            if a in there and b in there:
                parts.append(category_only(subjects, a, b).assign(a=a, b=b))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def teacher_shares(run: BrainRun, subjects: pd.DataFrame) -> pd.DataFrame:
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
