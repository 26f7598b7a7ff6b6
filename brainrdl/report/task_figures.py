"""The figures of a run of methods that learn a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from brainrdl.analysis.second_order import second_order_mds, undefined_rdms
from brainrdl.report.drawing import Figures, ToDraw, draw_figures, undefined_lines, unmeasured_rdms, without_undefined
from brainrdl.report.figure_runs import all_logged_rdms, teacher_agreement
from brainrdl.report.task_run import TEACHER, TaskRun, final_rdms

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


def draw(run: TaskRun, out: Path, formats: Sequence[str]) -> Figures:
    """The figures, and a line for whatever could not be drawn."""
    rdms, lacking = final_rdms(run)
    notes = [f"rdm_grid, second_order_mds: {what}" for what in lacking]
    if not run.finished_histories:
        notes.insert(0, "errors_vs_epoch, curves: no finished part has a history.csv")
    if rdms is not None:
        unlogged = [seed for seed in run.seeds if seed not in run.logged_seeds]
        if any(seed in unlogged for _, seed in run.predictions):
            logged, others = (", ".join(map(str, seeds)) for seeds in (run.logged_seeds, unlogged))
            notes.append(f"curves, training: RDMs are of seed {logged} alone; there are none of seed {others}")
        notes += [f"rdm_grid: {line}" for line in undefined_lines(rdms, unmeasured_rdms(rdms))]
        notes += [f"second_order_mds: {line}" for line in undefined_lines(rdms, undefined_rdms(rdms))]
    return draw_figures(_wanted(run, rdms), out, formats, notes)


def _wanted(run: TaskRun, rdms: RDMs | None) -> Iterator[ToDraw]:
    """The figures that there is something for. rdms: of `final_rdms`."""
    from brainrdl.analysis.figures import curves, rdm_grid, second_order, training

    if run.finished_histories:
        histories = pd.concat(
            [frame.assign(method=method, seed=seed) for (method, seed), frame in run.finished_histories.items()]
        )
        caption = "Train and test error against epoch."
        yield ToDraw("errors_vs_epoch", caption, lambda: curves.plot(histories, run.methods))
        caption = "All that was measured against epoch; agreement: of the RDMs with the teacher's of the same layer."
        yield ToDraw(
            "curves",
            caption,
            lambda: curves.plot(histories, run.methods, quantities=None, agreement=teacher_agreement(run)),
        )
    if rdms is not None:
        caption = "RDMs of the first seed's final networks, test stimuli sorted by class."
        yield ToDraw(
            "rdm_grid", caption, lambda: rdm_grid.plot(without_undefined(rdms, unmeasured_rdms(rdms), fewest=1))
        )
        caption = "Distances between the RDMs of methods and layers (first seed, final networks), by MDS."

        def mds() -> object:
            comparable = without_undefined(rdms, undefined_rdms(rdms), fewest=3)
            return second_order.plot(second_order_mds(comparable), methods=run.methods).figure

        yield ToDraw("second_order_mds", caption, mds)
    if run.logged_seeds:
        caption = "How the RDMs move towards the teacher's over the logged epochs, layer by layer."
        yield ToDraw("training", caption, lambda: training.plot(all_logged_rdms(run), TEACHER, methods=run.methods))
