"""Several runs side by side: one page and one table; nothing is pooled over runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from brainrdl.rdms import match_rdms
from brainrdl.report.blocks import NONE, Block, Bullets, Heading, Paragraph, Table
from brainrdl.report.brain_figures import example_rdms
from brainrdl.report.brain_page import score_dots
from brainrdl.report.brain_report import BrainReport
from brainrdl.report.brain_tables import results_rows
from brainrdl.report.dots import DotPlot
from brainrdl.report.page import Explorer, Page, Section, write_page
from brainrdl.report.rdm_view import RDMView
from brainrdl.report.set_up import left_out
from brainrdl.report.task_page import error_dots
from brainrdl.report.task_report import TaskReport
from brainrdl.report.task_run import final_rdms
from brainrdl.report.task_tables import readable_errors
from brainrdl.run_folder import EXPERIMENT
from brainrdl.runs import write_text

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

Report = TaskReport | BrainReport


class JointFiles(NamedTuple):
    """results_csv: the runs' tables below each other, told apart by `run`. notes: what could not be joined."""

    results_csv: Path
    page: Path
    notes: tuple[str, ...]


def run_names(folders: Sequence[Path]) -> list[str]:
    """A name for each run, its folder's; with the folder above where two are called alike.

    Raises ValueError where a run is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"run '{path.name}' is given twice; give each run once")
    names = [path.name for path in paths]
    above = [f"{path.parent.name}/{path.name}" for path in paths]
    names = [name if names.count(name) == 1 else longer for name, longer in zip(names, above, strict=True)]
    return [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names, start=1)]


def check_out(out: Path) -> None:
    """Raise ValueError where the folder of a joint report is a run's own."""
    if (out / EXPERIMENT).exists():
        raise ValueError(f"--out {out} is a run; give a folder of its own for the report of several runs")


def write_joint_report(reports: Sequence[Report], names: Sequence[str], out: Path) -> JointFiles:
    """Write OUT/report.html and OUT/results.csv from the reports of the runs, which are called `names`."""
    check_out(out)
    joined, notes = _joint_view(reports, names)
    views = [
        replace(view, name=name) for report, name in zip(reports, names, strict=True) for view in report.page.views
    ]
    sections = [*_results(reports, names)]
    if views:
        words = "Each run's RDMs can be chosen by its name." + (
            f" “{joined.name}” holds the final RDMs of all runs over their common stimuli." if joined else ""
        )
        sections.append(Section("RDMs to look into", [Paragraph(words), Explorer()]))
    sections += [*_of_each_run(reports, names), *left_out(notes)]
    cite = {item: None for report in reports for item in _citation(report)}
    sections.append(Section("How to cite", [Bullets(tuple(cite))]))
    page = Page(
        kind="Several runs, side by side",
        title=" · ".join(names),
        question="What do these runs come to, beside each other? Methods that several runs have stand next to each "
        "other; nothing is pooled over runs, and every comparison that is tested was made within one run.",
        facts={"Runs": str(len(reports))},
        sections=sections,
        status=[f"{name}: {line}" for report, name in zip(reports, names, strict=True) for line in report.page.status],
        views=[joined, *views] if joined else views,
    )
    files = JointFiles(out / "results.csv", out / "report.html", tuple(notes))
    write_text(files.results_csv, _csv(reports, names).to_csv(index=False))
    write_page(page, files.page)
    return files


def _csv(reports: Sequence[Report], names: Sequence[str]) -> pd.DataFrame:
    tables = []
    for report, name in zip(reports, names, strict=True):
        table = report.errors if isinstance(report, TaskReport) else report.tables.agreement
        kind = "test error" if isinstance(report, TaskReport) else "agreement with the brain"
        tables.append(table.assign(run=name, kind_of_result=kind))
    joined = pd.concat(tables, ignore_index=True)
    return joined[["run", "kind_of_result", *(c for c in joined if c not in ("run", "kind_of_result"))]]


def _results(reports: Sequence[Report], names: Sequence[str]) -> Iterator[Section]:
    tasks = [(r, name) for r, name in zip(reports, names, strict=True) if isinstance(r, TaskReport) and len(r.errors)]
    brains = [(r, name) for r, name in zip(reports, names, strict=True) if isinstance(r, BrainReport)]
    if tasks:
        errors = [(name, next(iter(error_dots(report.run, report.errors)))) for report, name in tasks]
        same, words = _test_sets([report for report, _ in tasks])
        plots = [_beside(errors)] if same else [replace(dots, title=f"{name}: test error") for name, dots in errors]
        table = _adjacent([readable_errors(report.errors).assign(run=name) for report, name in tasks], "method")
        yield Section("Test errors", [Paragraph(words), *plots, Table(table), Paragraph(_ERROR_WORDS)])
    if brains:
        shown: list[Block | DotPlot] = []
        tables: list[pd.DataFrame] = []
        for scored, name in brains:
            for dots in score_dots(scored.run, scored.tables):
                shown.append(DotPlot(f"{name}: {dots.title}", dots.unit, dots.rows, dots.reference, dots.band))
            layer = str(scored.run.settings["score"]["layers"][0])
            tables.append(results_rows(scored.run, scored.tables.agreement, layer).assign(run=name))
        words = "Mean over subjects on held-out pairs ± standard deviation over splits and seeds [95 % interval]."
        yield Section("Agreement with the brain", [*shown, Table(_adjacent(tables, "network")), Paragraph(words)])


_ERROR_WORDS = (
    "± and intervals are over the seeds of one run; differences are to the baseline of the same run and seed."
)


def _beside(plots: Sequence[tuple[str, DotPlot]]) -> DotPlot:
    """The runs' errors on one scale, a method's of all runs next to each other."""
    rows = [(row.name, row._replace(name=f"{row.name}, {run}")) for run, dots in plots for row in dots.rows]
    methods = list(dict.fromkeys(method for method, _ in rows))
    ordered = [row for method in methods for name, row in rows if name == method]
    return replace(plots[0][1], rows=ordered)


def _test_sets(reports: Sequence[TaskReport]) -> tuple[bool, str]:
    """Whether errors of different runs are of the same images, and the same in words."""
    sets = []
    for report in reports:
        first = next(iter(report.run.predictions.values()))
        sets.append(set(zip(first["stimulus"], first["label"].astype(str), strict=True)))
    if len(reports) == 1:
        return True, "One run with a task has finished networks."
    if all(other == sets[0] for other in sets):
        return True, f"All runs are tested on the same {len(sets[0]):,} images."
    sizes = ", ".join(f"{len(images):,}" for images in sets)
    words = f"The runs are tested on different images ({sizes} of them): errors of different runs are not comparable."
    return False, words


def _adjacent(tables: Iterable[pd.DataFrame], what: str) -> pd.DataFrame:
    """Tables of runs as one, the rows of what is called alike next to each other."""
    table = pd.concat(list(tables), ignore_index=True).fillna(NONE)
    order = list(dict.fromkeys(table[what]))
    table = table.iloc[sorted(range(len(table)), key=lambda k: order.index(table[what].iloc[k]))]
    return table[[what, "run", *(name for name in table if name not in (what, "run"))]]


def _of_each_run(reports: Sequence[Report], names: Sequence[str]) -> Iterator[Section]:
    for report, name in zip(reports, names, strict=True):
        facts = tuple(f"{fact}: {value}" for fact, value in report.page.facts.items())
        (set_up,) = (section for section in report.page.sections if section.title == "Set-up")
        own = f"Its figures and all its tables: `{report.run.folder.resolve().name}/report/report.html`."
        yield Section(
            name, [Paragraph(report.page.question), Bullets((*facts, own)), Heading("Set-up"), *set_up.blocks]
        )


def _citation(report: Report) -> Iterator[str]:
    for section in report.page.sections:
        if section.title == "How to cite":
            for block in section.blocks:
                if isinstance(block, Bullets):
                    yield from block.items


def _joint_view(reports: Sequence[Report], names: Sequence[str]) -> tuple[RDMView | None, list[str]]:
    """The final RDMs of all runs over their common stimuli, and what is left out of them."""
    parts: list[RDMs] = []
    called: list[str] = []
    methods: list[str] = []
    notes: list[str] = []
    pictures: dict[str, np.ndarray] = {}
    for report, name in zip(reports, names, strict=True):
        if isinstance(report, TaskReport):
            rdms, lacking = final_rdms(report.run)
            notes += [f"{name}: {what}" for what in lacking]
        else:
            rdms = example_rdms(report.run)
        if rdms is None:
            continue
        own = list(map(str, rdms.rdm_descriptors["network"]))
        rdms.rdm_descriptors["network"] = [f"{name}: {network}" for network in own]
        methods += [f"{name}: {network}" for network in dict.fromkeys(own) if network in report.run.settings["methods"]]
        parts.append(rdms)
        called.append(name)
        for view in report.page.views:
            pictures.update(view.thumbnails)
    if len(parts) < 2:
        return None, notes
    try:
        matched = match_rdms(parts, called)
    except ValueError as error:
        return None, [*notes, f"no common map of the runs: {error}"]
    title = f"all runs, {matched.rdms.n_cond} common stimuli"
    rdms = _without_repeated(matched.rdms, methods)
    return RDMView(title, rdms, tuple(methods), (), pictures, matched.notes), [*notes, *matched.notes]


def _without_repeated(rdms: RDMs, methods: Sequence[str]) -> RDMs:
    """References that are the same in several runs (pixels, labels, a teacher) once, without a run's name."""
    networks, layers = map(list, (rdms.rdm_descriptors["network"], rdms.rdm_descriptors["layer"]))
    first: dict[tuple[str, str, bytes], int] = {}
    same: dict[int, list[int]] = {}
    for k, vector in enumerate(rdms.get_vectors()):
        if networks[k] not in methods:
            key = networks[k].rpartition(": ")[2], layers[k], vector.tobytes()
            same.setdefault(first.setdefault(key, k), []).append(k)
    for k, repeated in same.items():
        if len(repeated) > 1:
            networks[k] = networks[k].rpartition(": ")[2]
    dropped = {k for repeated in same.values() for k in repeated[1:]}
    rdms.rdm_descriptors["network"] = networks
    return rdms[[k for k in range(rdms.n_rdm) if k not in dropped]]
