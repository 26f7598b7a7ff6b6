"""The figures of a run with brains as teachers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from brainrdl.analysis.second_order import second_order_mds, undefined_rdms
from brainrdl.rdms import average_rdms, join_rdms, stimulus_ids, subset_stimuli
from brainrdl.report.brain import BrainRun, BrainTables, tradeoff_table
from brainrdl.report.drawing import Figures, ToDraw, draw_figures, undefined_lines, unmeasured_rdms, without_undefined
from brainrdl.report.figure_runs import agreement_figure

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


# Bootstrap samples of fewer stimuli often hold one or two different ones, and then no RDM.
_FEWEST = 12
_FEWEST_COMPARED = 3


def draw(run: BrainRun, tables: BrainTables, out: Path, formats: Sequence[str]) -> Figures:
    """Write the figures, and say what could not be drawn."""
    rdms = example_rdms(run)
    held_out = [stimulus for stimulus in run.networks[0].fold["held_out"] if stimulus in stimulus_ids(rdms)]
    unseen = subset_stimuli(rdms, held_out)
    notes = [f"rdm_grid: {line}" for line in undefined_lines(rdms, unmeasured_rdms(rdms))]
    n_comparable = unseen.n_rdm - len(undefined_rdms(unseen))
    enough = len(held_out) >= _FEWEST and n_comparable >= _FEWEST_COMPARED
    if enough:
        notes += [f"second_order_mds: {line}" for line in undefined_lines(unseen, undefined_rdms(unseen))]
    else:
        notes.append(
            f"second_order_mds is not drawn: {n_comparable} RDMs of {len(held_out)} held-out stimuli, it needs "
            f"{_FEWEST_COMPARED} of {_FEWEST}"
        )
    return draw_figures(_wanted(run, tables, rdms, unseen if enough else None), out, formats, notes)


def _wanted(run: BrainRun, tables: BrainTables, rdms: RDMs, unseen: RDMs | None) -> Iterator[ToDraw]:
    """The figures that there is something for. unseen: `rdms` over the held-out stimuli, where they are enough."""
    from brainrdl.analysis.figures import rdm_grid, second_order, tradeoff

    students = [student for student in run.settings["students"] if student in set(tables.subjects["student"])]
    for student in students:
        only = "" if len(students) == 1 else f" of student {student}"
        caption = (
            f"Agreement of the networks{only} with each subject's RDM on held-out pairs; band: noise ceiling, lines: "
            "the teachers' own RDMs."
        )
        name = "agreement" if len(students) == 1 else f"agreement_{student}"
        yield ToDraw(name, caption, partial(agreement_figure, run, tables.subjects, student))
    of_alpha = tradeoff_table(run, tables)
    if len(of_alpha):
        caption = "Accuracy of the task against agreement with the brain, over alpha."
        yield ToDraw("tradeoff", caption, lambda: tradeoff.plot(of_alpha).figure)
    learned = set(run.networks[0].fold["trained"])
    n_learned = sum(stimulus in learned for stimulus in stimulus_ids(rdms))
    caption = (
        f"RDMs of the first fold's networks (student {run.networks[0].student}, first seed) and the brains' means, "
        f"over {rdms.n_cond} stimuli, {n_learned} of which the networks have learned from."
    )
    yield ToDraw(
        "rdm_grid",
        caption,
        lambda: rdm_grid.plot(layers_as_rows(without_undefined(rdms, unmeasured_rdms(rdms), fewest=1))),
    )
    if unseen is not None:
        caption = f"Distances between these RDMs on the {unseen.n_cond} stimuli that were held out, by MDS."

        def mds() -> object:
            comparable = without_undefined(unseen, undefined_rdms(unseen), _FEWEST_COMPARED)
            return second_order.plot(second_order_mds(comparable), targets=["brain"]).figure

        yield ToDraw("second_order_mds", caption, mds)


def example_rdms(run: BrainRun) -> RDMs:
    """RDMs of the first fold's networks (first student and seed), the mean brains and pixels, over common stimuli."""
    first = run.networks[0]
    alike = [n for n in run.networks if (n.student, n.seed) == (first.student, first.seed)]
    chosen = {n.method: n for n in reversed(alike) if n.shared == first.shared}
    parts = [run.rdms(chosen[method]) for method in run.settings["methods"] if method in chosen]
    for part, method in zip(parts, (m for m in run.settings["methods"] if m in chosen), strict=True):
        part.rdm_descriptors["network"] = [method] * part.n_rdm  # of one student: its name says nothing
    brain = average_rdms(run.brain, over="subject")
    brain.rdm_descriptors["network"] = ["brain"] * brain.n_rdm
    brain.rdm_descriptors["layer"] = list(brain.rdm_descriptors["roi"])
    everything = [run.pixels, *parts, brain]
    common = [s for s in stimulus_ids(run.pixels) if all(s in set(stimulus_ids(part)) for part in everything)]
    joined = join_rdms([subset_stimuli(part, common) for part in everything])
    categories = run.categories
    if categories is not None:
        names = sorted(set(categories.values()))
        own = [categories[stimulus] for stimulus in common]
        joined.pattern_descriptors["category"] = own
        joined.pattern_descriptors["label"] = [names.index(name) for name in own]
    return joined


# RDMs of methods side by side, so that their names do not run into each other.
_A_ROW = 4


def layers_as_rows(rdms: RDMs) -> RDMs:
    """With a column a method and a few of them a row, since there are many methods and few layers."""
    networks, layers = list(rdms.rdm_descriptors["network"]), list(rdms.rdm_descriptors["layer"])
    methods = [name for name in dict.fromkeys(networks) if name not in ("pixels", "brain")]
    places = []
    for network, layer in zip(networks, layers, strict=True):
        if network in methods:
            part = methods.index(network) // _A_ROW
            places.append((layer if part == 0 else f"{layer} ({part + 1})", network.replace("_", " ")))
        else:
            places.append((network, layer))
    # The grid takes rows in the order in which they come.
    order = sorted(range(len(places)), key=lambda k: (networks[k] == "brain", networks[k] in methods, places[k][0]))
    turned = rdms[order]
    turned.rdm_descriptors["network"], turned.rdm_descriptors["layer"] = map(
        list, zip(*(places[k] for k in order), strict=True)
    )
    return turned
