"""The page of a run of methods that learn a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from brainrdl.analysis.accuracy import mcnemar_cells
from brainrdl.analysis.figures.style import TEACHER_COLOUR, looks
from brainrdl.rdms import join_rdms, stimulus_ids, subset_stimuli
from brainrdl.report.blocks import Block, Bullets, Heading, Paragraph, Picture, Table
from brainrdl.report.dots import DotPlot, DotRow, known
from brainrdl.report.page import Explorer, LiveCurves, Page, Section
from brainrdl.report.rdm_view import RDMView, shown_stimuli
from brainrdl.report.run_files import read_thumbnails
from brainrdl.report.search import SEARCH_WORDS, read_search, readable_search, trial_counts
from brainrdl.report.set_up import (
    citation,
    data_title,
    environment_facts,
    environment_lines,
    left_out,
    settings_table,
    settings_text,
    to_be_known,
)
from brainrdl.report.task_run import BASELINE, TEACHER, TaskRun, logged_rdms
from brainrdl.report.task_tables import (
    MCNEMAR_WORDS,
    error_of,
    interval,
    missing_lines,
    percent,
    readable_errors,
    set_up_lines,
    table_notes,
)
from brainrdl.report.task_words import in_words

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


def task_page(
    run: TaskRun, errors: pd.DataFrame, tests: pd.DataFrame, pictures: Sequence[Picture], notes: Sequence[str]
) -> Page:
    """The run as a page: results first, then what can be looked into, then how it was made.

    errors: of `error_summary`, tests: of `mcnemar_table`, both empty where no network is finished.
    """
    view, curves = task_view(run), live_curves(run)
    sections = []
    if len(errors):
        words = in_words(run, errors, tests)
        sections.append(Section("Results", [*_answer(errors), *error_dots(run, errors), *_table(run, errors), *words]))
    sections += to_be_known(run.folder)
    if len(tests):
        table = mcnemar_cells(tests).rename_axis("").reset_index()
        sections.append(Section("McNemar's test", [*map(Paragraph, MCNEMAR_WORDS), Table(table)]))
    if view is not None:
        sections.append(Section("RDMs to look into", [Paragraph(_EXPLORER_WORDS), Explorer()]))
    if curves:
        sections.append(Section("Epoch by epoch", [LiveCurves()]))
    if pictures:
        sections.append(Section("Figures", pictures))
    sections += [_set_up(run), *left_out(notes), citation([(_spec(run), "images")])]
    return Page(
        kind="Methods that learn a task, compared",
        title=run.name,
        question=_question(run),
        facts=_facts(run),
        sections=sections,
        status=missing_lines(run),
        views=[] if view is None else [view],
        curves=curves,
    )


_EXPLORER_WORDS = (
    "A representational dissimilarity matrix (RDM) says how differently a layer responds to each pair of stimuli. "
    "Choose a network and a layer, or click a point of the map; the slider goes through the epochs that were logged."
)


def _spec(run: TaskRun) -> str:
    data = run.settings.get("data") or {}
    return str(data.get("spec", "")) if isinstance(data, Mapping) else ""


def _question(run: TaskRun) -> str:
    spec = _spec(run)
    student = run.settings.get("student") or {}
    network = f" a network (`{settings_text(student['network'])}`)" if student.get("network") else " a network"
    on = f" on “{data_title(spec, 'images')}”" if spec else ""
    others = [method for method in run.methods if method != BASELINE]
    against = f" against plain training ({BASELINE})" if BASELINE in run.methods and others else ""
    ways = f"{_number(len(run.methods))} way{'s' * (len(run.methods) != 1)}"
    compared = ", ".join(others if against else run.methods)
    return (
        f"{ways} of training{network}{on}: {compared}{against}. How many errors do the trained networks make on images "
        "they have not seen, and how do their representations differ?"
    )


def _number(n: int) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    return words[n] if n < len(words) else str(n)


def _facts(run: TaskRun) -> dict[str, str]:
    n_all = len(run.methods) * len(run.seeds)
    n_finished = sum(len(run.finished(method)) for method in run.methods)
    facts = {"Methods": str(len(run.methods)), "Seeds": str(len(run.seeds)), "Networks": f"{n_finished} of {n_all}"}
    if n_finished == n_all:
        facts["Networks"] = f"{n_all}, all finished"
    if run.any_finished:
        facts["Test images"] = f"{len(next(iter(run.predictions.values()))):,}"
    return {**facts, **environment_facts(run.folder)}


def _answer(errors: pd.DataFrame) -> Iterator[Block]:
    """The result in two sentences."""
    students = errors[errors["method"] != TEACHER]
    means = dict(zip(students["method"], students["mean"], strict=True))
    best = min(means, key=means.__getitem__)
    beside = f"; {BASELINE}: {percent(means[BASELINE])} %" if BASELINE in means and best != BASELINE else ""
    words = [f"Fewest errors on average: **{best}**, {percent(means[best])} %{beside}."]
    better = students[students["difference_high"] < 0]["method"]
    worse = students[students["difference_low"] > 0]["method"]
    if students["difference_low"].notna().any():
        words.append(
            f"Fewer errors than {BASELINE}, with the 95 % interval of the difference below 0: "
            f"{', '.join(better) or 'none'}. More, with the interval above 0: {', '.join(worse) or 'none'}. Intervals "
            "are uncorrected for the number of methods."
        )
    yield Paragraph(" ".join(words))


def error_dots(run: TaskRun, errors: pd.DataFrame) -> Iterator[DotPlot]:
    """Test errors, and differences to the baseline, each with its interval."""
    colours = {name: look.colour for name, look in looks(run.methods).items()}
    rows, differences = [], []
    for row in errors.to_dict("records"):
        method, mean = row["method"], 100 * row["mean"]
        colour = colours.get(method, TEACHER_COLOUR)
        seeds: list[int | None] = [None] if method == TEACHER else [*run.finished(method)]
        points = tuple(100 * error_of(run.predictions[method, seed]) for seed in seeds)
        low, high = known(100 * row["low"]), known(100 * row["high"])
        text = f"{percent(row['mean'])}" + ("" if low is None else f"  [{interval(row['low'], row['high'])}]")
        rows.append(DotRow(method, mean, low, high, points if len(points) > 1 else (), text, colour))
        if known(row["difference"]) is not None and method != BASELINE:
            low, high = known(100 * row["difference_low"]), known(100 * row["difference_high"])
            text = percent(row["difference"], "+")
            if low is not None:
                text += f"  [{interval(row['difference_low'], row['difference_high'], '+')}]"
            differences.append(DotRow(method, 100 * row["difference"], low, high, (), text, colour))
    yield DotPlot("Test error", "per cent of the test images; dot: mean, bar: its 95 % interval, rings: seeds", rows)
    if differences:
        unit = "percentage points, method minus baseline of the same seed; left of the line: fewer errors"
        yield DotPlot(f"Difference to {BASELINE}", unit, differences, reference=0.0)


def _table(run: TaskRun, errors: pd.DataFrame) -> list[Block]:
    return [Table(readable_errors(errors)), Paragraph(table_notes(run))]


def _set_up(run: TaskRun) -> Section:
    blocks: list[Block] = [Bullets(set_up_lines(run))]
    parts = ("data", "student", "teacher", "training", "analysis")
    named = {part: run.settings[part] for part in parts if run.settings.get(part)}
    if named:
        blocks += [Heading("Data and networks"), settings_table(named, "part")]
    blocks += [Heading("Methods"), settings_table(run.settings["methods"], "method")]
    if (search := read_search(run.folder)) is not None:
        blocks += [Heading("How the settings were chosen"), Paragraph(SEARCH_WORDS), Table(trial_counts(search))]
        blocks += [Table(readable_search(search))]
    blocks += [Heading("Made with"), Bullets(tuple(environment_lines(run.folder)))]
    return Section("Set-up", blocks)


def task_view(run: TaskRun) -> RDMView | None:
    """The RDMs of all seeds and logged epochs; None where there are none."""
    parts: list[RDMs] = []
    for seed in run.logged_seeds:
        rdms = logged_rdms(run, seed)
        rdms = subset_stimuli(rdms, shown_stimuli(rdms)) if parts else rdms
        # References and the teacher are the same for all seeds.
        methods = [k for k, network in enumerate(rdms.rdm_descriptors["network"]) if network in run.methods]
        parts.append(rdms[methods] if parts else rdms)
    if not parts:
        return None
    n_stimuli, ids = parts[0].n_cond, shown_stimuli(parts[0])
    told = () if len(ids) == n_stimuli else (f"Shown are {len(ids)} of {n_stimuli:,} stimuli, evenly out of classes.",)
    rdms = join_rdms([subset_stimuli(parts[0], ids), *parts[1:]])
    pictures = read_thumbnails(run.folder, stimulus_ids(rdms))
    measure = (run.settings.get("analysis") or {}).get("dissimilarity")
    return RDMView(run.name, rdms, run.methods, run.methods, pictures, told, measure)


_QUANTITIES = {
    "test_error": "test error (%)",
    "train_error": "train error (%)",
    "validation_error": "validation error (%)",
    "task": "task loss",
}
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}


def live_curves(run: TaskRun) -> list[dict[str, Any]]:
    """A curve a quantity and method: means over seeds by epoch, and from the lowest to the highest seed.

    Of finished networks, or of those in training where none is finished; where all seeds of a method have the epoch.
    """
    histories = run.finished_histories or run.histories
    look = looks(run.methods)
    columns = dict.fromkeys(str(column) for frame in histories.values() for column in frame)
    shown = [*_QUANTITIES, *(c for c in columns if c not in (*_QUANTITIES, "stage", "epoch", "learning_rate"))]
    curves = []
    for column in shown:
        lines = []
        for method in run.methods:
            frames = {s: h.set_index("epoch")[column] for (m, s), h in histories.items() if m == method and column in h}
            table = pd.DataFrame(frames).dropna() * (100 if column.endswith("_error") else 1)
            if table.empty:
                continue
            lines.append(
                {
                    "method": method,
                    "colour": look[method].colour,
                    "dash": _DASHES[look[method].dashes],
                    "epochs": [int(epoch) for epoch in table.index],
                    "mean": table.mean(axis=1).tolist(),
                    "low": table.min(axis=1).tolist() if table.shape[1] > 1 else None,
                    "high": table.max(axis=1).tolist() if table.shape[1] > 1 else None,
                }
            )
        if lines:
            curves.append({"name": _QUANTITIES.get(column, column), "lines": lines})
    return curves
