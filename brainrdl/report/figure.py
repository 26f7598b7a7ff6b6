"""One figure of a kind, from runs, RDMs, patterns or networks: what `brainrdl figure` draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from brainrdl.analysis.figures.style import FORMATS, Width, check_width, save_figure
from brainrdl.analysis.second_order import rdm_name, second_order_mds, undefined_rdms
from brainrdl.rdms import load_rdms
from brainrdl.report.brain import BrainRun, brain_tables
from brainrdl.report.brain_figures import layers_as_rows
from brainrdl.report.figure_inputs import InputOptions, read_inputs
from brainrdl.report.figure_runs import agreement_figure, has_brains, is_run, methods_of, run_curves, short_names
from brainrdl.report.task_run import TEACHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FigureOptions:
    """How a figure is drawn; each kind takes what it knows of.

    inputs: how its inputs are read. width: "single" (85 mm) or "double" (180 mm). scale, shared: of RDMs, "percentile"
    or "raw", and whether all share one colour scale. comparison: of RDMs; None = the kind's own default. n_bootstrap,
    n_stimuli: samples of a second-order MDS, and stimuli in each. metric: MDS of the distances, not of their ranks.
    targets: networks that are what others move towards. brain: a file of RDMs with the descriptors roi and subject.
    rows, columns: rdm descriptors that make a grid; colour_by, shape_by: those that colour and shape of points stand
    for. inference: of agreement, a name in `brainrdl.analysis.layer_agreement.INFERENCE`. quantities: which curves.
    """

    inputs: InputOptions = field(default_factory=InputOptions)
    width: Width = "double"
    scale: str = "percentile"
    shared: bool = False
    comparison: str | None = None
    n_bootstrap: int = 20
    n_stimuli: int | None = None
    metric: bool = True
    targets: tuple[str, ...] = ()
    brain: Path | None = None
    rows: str | None = None
    columns: str | None = None
    colour_by: str | None = None
    shape_by: str | None = None
    inference: str = "fixed"
    quantities: tuple[str, ...] = ()


class Drawn(NamedTuple):
    """file: what was written. notes: what was left out, and why."""

    file: Path
    notes: tuple[str, ...]


class _Made(NamedTuple):
    figure: Figure
    notes: tuple[str, ...] = ()


def draw_figure(kind: str, inputs: Sequence[str], out: Path, options: FigureOptions) -> Drawn:
    """Draw one figure and write it to `out`, whose suffix is its format (.png, .pdf or .svg).

    kind: a name in `KINDS`. inputs: as `read_inputs`; of "curves" folders of runs only. Raises ValueError for an
    unknown kind, suffix or width before anything is read, and where the inputs are not what the kind is drawn of.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of figure '{kind}'; expected one of {', '.join(KINDS)}")
    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"--out {out}: expected a name that ends with {', '.join('.' + name for name in FORMATS)}")
    check_width(options.width)
    figure, notes = KINDS[kind](inputs, options)
    (written,) = save_figure(figure, out.with_suffix(""), [suffix])
    return Drawn(written, notes)


def _rdm(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import rdm, rdm_grid

    rdms, thumbnails, category, notes = read_inputs(inputs, options.inputs)
    arguments: dict[str, Any] = {"scale": options.scale, "thumbnails": thumbnails, "width": options.width}
    # A category that is not there is the label.
    arguments["sort_by"] = category or "category"
    if len(inputs) == 1 and has_brains(inputs[0]) and not (options.rows or options.columns or options.inputs.select):
        rdms = layers_as_rows(rdms)
    if rdms.n_rdm == 1:
        return _Made(_figure_of(rdm.plot(rdms, **arguments)), notes)
    return _Made(
        rdm_grid.plot(rdms, shared=options.shared, rows=options.rows, columns=options.columns, **arguments), notes
    )


def _mds(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import second_order

    rdms, _, _, notes = read_inputs(inputs, options.inputs)
    comparison = options.comparison or "correlation"
    undefined = undefined_rdms(rdms, comparison)
    if undefined and rdms.n_rdm - len(undefined) > 1:
        notes = (*notes, *(f"left out: {rdm_name(rdms, k)} {reason}" for k, reason in undefined.items()))
        rdms = rdms[[k for k in range(rdms.n_rdm) if k not in undefined]]
    points = second_order_mds(rdms, comparison, options.n_bootstrap, options.n_stimuli, metric=options.metric)
    ax = second_order.plot(
        points,
        methods=methods_of(inputs),
        targets=options.targets or tuple({"brain"} & set(points.descriptors.get("network", ()))),
        colour_by=options.colour_by,
        shape_by=options.shape_by,
        width=options.width,
    )
    return _Made(_figure_of(ax), notes)


def _stimulus_mds(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import stimulus_mds

    rdms, thumbnails, category, notes = read_inputs(inputs, options.inputs)
    colour_by = category or "category"
    ax = stimulus_mds.plot(rdms, thumbnails, metric=options.metric, colour_by=colour_by, width=options.width)
    return _Made(_figure_of(ax), notes)


def _curves(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import curves

    for path in inputs:
        if not is_run(path):
            raise ValueError(f"'{path}' is no run (experiment.yaml); curves are drawn of the folders of runs")
    histories, agreements = [], []
    for path, name in zip(inputs, short_names(inputs), strict=True):
        prefix = f"{name}: " if len(inputs) > 1 else ""
        of_run = run_curves(Path(path))
        histories.append(of_run.histories.assign(method=prefix + of_run.histories["method"]))
        if of_run.agreement is not None:
            agreements.append(of_run.agreement.assign(method=prefix + of_run.agreement["method"]))
    figure = curves.plot(
        pd.concat(histories, ignore_index=True),
        methods=methods_of(inputs),
        quantities=options.quantities or ("train_error", "test_error"),
        agreement=pd.concat(agreements, ignore_index=True) if agreements else None,
        width=options.width,
    )
    return _Made(figure)


def _agreement(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import layer_agreement as figures
    from brainrdl.analysis.fixed_networks import layer_agreement

    if options.brain is None:
        if len(inputs) == 1 and has_brains(inputs[0]):
            run = BrainRun(Path(inputs[0]))
            student = next(iter(options.inputs.select.get("student", run.settings["students"])))
            tables = brain_tables(run)
            if student not in set(tables.subjects["student"]):
                raise ValueError(f"no student '{student}' is scored; there are: {', '.join(run.settings['students'])}")
            return _Made(agreement_figure(run, tables.subjects, student), tables.notes)
        raise ValueError(
            "agreement: expected --brain FILE, RDMs of measured brains with the descriptors roi and subject, or one "
            "run with brains as teachers"
        )
    rdms, _, _, notes = read_inputs(inputs, options.inputs)
    agreement = layer_agreement(rdms, load_rdms(options.brain), options.comparison or "rho-a", options.inference)
    return _Made(figures.plot(agreement, width=options.width), (*notes, *agreement.notes))


def _training(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import training

    rdms, _, _, notes = read_inputs(inputs, replace(options.inputs, logged=True))
    if len(options.targets) > 1:
        raise ValueError(f"training: expected one --target, got {', '.join(options.targets)}")
    figure = training.plot(
        rdms,
        methods=methods_of(inputs),
        target=options.targets[0] if options.targets else TEACHER,
        comparison=options.comparison or "correlation",
        n_bootstrap=options.n_bootstrap,
        n_stimuli=options.n_stimuli,
        metric=options.metric,
        width=options.width,
    )
    return _Made(figure, notes)


def _figure_of(ax: Axes) -> Figure:
    figure: Any = ax.get_figure(root=True)
    return figure  # type: ignore[no-any-return]


KINDS: dict[str, Callable[[Sequence[str], FigureOptions], _Made]] = {
    "rdm": _rdm,
    "mds": _mds,
    "stimulus-mds": _stimulus_mds,
    "curves": _curves,
    "agreement": _agreement,
    "training": _training,
}
