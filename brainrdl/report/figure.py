"""One figure of a kind, from runs, RDMs, patterns or networks: what `brainrdl figure` draws."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from brainrdl.analysis.figures.style import FORMATS, Width, check_width, figure_of, save_figure
from brainrdl.analysis.second_order import rdm_name, second_order_mds, undefined_rdms
from brainrdl.rdms import average_rdms, load_rdms
from brainrdl.rdms.selection import group_rdms, rdm_descriptor
from brainrdl.report.brain import BrainRun, brain_tables
from brainrdl.report.brain_figures import layers_as_rows
from brainrdl.report.figure_inputs import InputOptions, is_of_rsatoolbox, of_network, read_inputs
from brainrdl.report.figure_runs import agreement_figure, has_brains, is_run, methods_of, run_curves, short_names
from brainrdl.report.task_run import TEACHER

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs


@dataclass(frozen=True)
class FigureOptions:
    """How a figure is drawn; each kind takes what `KINDS` says, and refuses the rest.

    inputs: how its inputs are read. width: "single" (85 mm) or "double" (180 mm). scale, shared: of RDMs, "percentile"
    or "raw", and whether all share one colour scale. comparison: of RDMs; None = the kind's own default. n_bootstrap,
    n_stimuli: samples of a second-order MDS, and stimuli in each. metric: MDS of the distances, not of their ranks.
    targets: networks that are what others move towards. brain: a file of RDMs with the descriptors roi and subject.
    rows, columns: rdm descriptors that make a grid; colour_by, shape_by: those that colour and shape of points stand
    for. inference: of agreement, a name in `brainrdl.analysis.fixed_networks.INFERENCE`. quantities: which curves.
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
    unknown kind, suffix or width and options of other kinds before anything is read, and where the inputs are not what
    the kind is drawn of; OSError, with the name `out`, where it cannot be written.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of figure '{kind}'; expected one of {', '.join(KINDS)}")
    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"--out {out}: expected a name that ends with {', '.join('.' + name for name in FORMATS)}")
    if out.is_dir():
        raise ValueError(f"--out {out}: is a folder; give the name of a file")
    check_width(options.width)
    _check_taken(kind, options)
    try:
        figure, notes = KINDS[kind].make(inputs, options)
    except ValueError as error:
        message = _in_options(str(error))
        if not any(str(name) in message for name in (*inputs, *(Path(name).name for name in inputs))):
            message = f"{inputs[0]}{f' and {len(inputs) - 1} more' if len(inputs) > 1 else ''}: {message}"
        raise ValueError(message) from error
    try:
        (written,) = save_figure(figure, out.with_suffix(""), [suffix])
    except OSError as error:  # of a draft beside it
        raise OSError(error.errno, error.strerror, str(out)) from error
    return Drawn(written, notes)


def _check_taken(kind: str, options: FigureOptions) -> None:
    """Raise ValueError for an option that the kind would pass over."""
    taken = KINDS[kind].options
    for given, default in ((options, FigureOptions()), (options.inputs, InputOptions())):
        for name in (entry.name for entry in fields(given)):
            changed = name not in ("inputs", "width") and getattr(given, name) != getattr(default, name)
            if changed and name not in taken:
                raise ValueError(
                    f"{_option(name)} does not go with '{kind}', which takes {', '.join(map(_option, taken))}; leave "
                    "it out"
                )


def _option(name: str) -> str:
    """A field of the options as it is called on the command line."""
    return "--" + _CALLED.get(name, name.replace("_", "-"))


def _in_options(message: str) -> str:
    """A message of functions, which speaks of their arguments, in the command's options."""
    for pattern, option in _ARGUMENTS.items():
        message = re.sub(pattern, option, message)
    return re.sub(r"brainrdl\.rdms\.select_rdms\(rdms, (.*?')\)", _selected, message)


def _selected(call: re.Match[str]) -> str:
    chosen = re.findall(r"(\w+)='(.*?)'(?:, |$)", call[1])
    return " ".join(f"--select {name}={value}" for name, value in chosen if value)


def _rdm(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import rdm, rdm_grid

    rdms, thumbnails, category, notes, _ = read_inputs(inputs, options.inputs)
    arguments: dict[str, Any] = {"scale": options.scale, "thumbnails": thumbnails, "width": options.width}
    # A category that is not there is the label.
    arguments["sort_by"] = category or "category"
    if len(inputs) == 1 and has_brains(inputs[0]) and not (options.rows or options.columns or options.inputs.select):
        rdms = layers_as_rows(rdms)
    if rdms.n_rdm == 1:
        return _Made(figure_of(rdm.plot(rdms, **arguments)), notes)
    return _Made(
        rdm_grid.plot(rdms, shared=options.shared, rows=options.rows, columns=options.columns, **arguments), notes
    )


def _mds(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import second_order

    rdms, _, _, notes, not_layers = read_inputs(inputs, options.inputs)
    comparison = options.comparison or "correlation"
    undefined = undefined_rdms(rdms, comparison)
    if undefined and rdms.n_rdm - len(undefined) > 1:
        notes = (*notes, *(f"left out: {rdm_name(rdms, k)} {reason}" for k, reason in undefined.items()))
        rdms = rdms[[k for k in range(rdms.n_rdm) if k not in undefined]]
    targets = options.targets or _brains(rdms, inputs)
    points = second_order_mds(rdms, comparison, options.n_bootstrap, options.n_stimuli, metric=options.metric)
    ax = second_order.plot(
        points,
        methods=methods_of(inputs),
        targets=tuple(dict.fromkeys((*targets, *not_layers))),  # which are not joined, as layers are
        colour_by=options.colour_by,
        shape_by=options.shape_by,
        width=options.width,
    )
    return _Made(figure_of(ax), notes)


def _brains(rdms: RDMs, inputs: Sequence[str]) -> tuple[str, ...]:
    """What the brains of runs with brains as teachers are called: of several runs with the run's name."""
    if not any(map(has_brains, inputs)):
        return ()
    return tuple(name for name in dict.fromkeys(rdms.rdm_descriptors["network"]) if name.split(": ")[-1] == "brain")


def _stimulus_mds(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import stimulus_mds

    rdms, thumbnails, category, notes, _ = read_inputs(inputs, options.inputs)
    colour_by = category or "category"
    ax = stimulus_mds.plot(rdms, thumbnails, metric=options.metric, colour_by=colour_by, width=options.width)
    return _Made(figure_of(ax), notes)


def _curves(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import curves

    for path in inputs:
        if not is_run(path):
            raise ValueError(f"'{path}' is no run (experiment.yaml); curves are drawn of the folders of runs")
    histories, agreements, notes = [], [], []
    for path, name in zip(inputs, short_names(inputs), strict=True):
        prefix = f"{name}: " if len(inputs) > 1 else ""
        of_run = run_curves(Path(path))
        notes += [f"{name}: {line}" for line in of_run.notes]
        histories.append(of_run.histories.assign(method=prefix + of_run.histories["method"]))
        if of_run.agreement is not None:
            agreements.append(of_run.agreement.assign(method=prefix + of_run.agreement["method"]))
    history = pd.concat(histories, ignore_index=True)
    errors = tuple(name for name in ("train_error", "test_error") if name in history and history[name].notna().any())
    figure = curves.plot(
        history,
        methods=methods_of(inputs),
        quantities=options.quantities or errors or None,
        agreement=pd.concat(agreements, ignore_index=True) if agreements else None,
        width=options.width,
    )
    return _Made(figure, tuple(notes))


def _agreement(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import layer_agreement as figures
    from brainrdl.analysis.fixed_networks import layer_agreement

    if options.brain is None:
        return _run_agreement(inputs, options)
    brain, averaged = _brain_rdms(options.brain)
    rdms, _, _, notes, _ = read_inputs(inputs, options.inputs)
    if len(inputs) == 1:
        rdms = of_network(rdms, *short_names(inputs))
    roi = "roi" if "roi" in brain.rdm_descriptors else None
    agreement = layer_agreement(rdms, brain, options.comparison or "rho-a", options.inference, roi=roi)
    return _Made(figures.plot(agreement, width=options.width), (*notes, *averaged, *agreement.notes))


def _run_agreement(inputs: Sequence[str], options: FigureOptions) -> _Made:
    """Of a run with brains as teachers, scored on its held-out stimuli."""
    if len(inputs) != 1 or not has_brains(inputs[0]):
        raise ValueError(
            "agreement: expected --brain FILE, RDMs of measured brains with the descriptors roi and subject, or one "
            "run with brains as teachers"
        )
    if options.comparison is not None or options.inference != FigureOptions.inference:
        raise ValueError(
            "agreement: --comparison and --inference go with --brain; a run with brains as teachers is scored as its "
            "experiment file says"
        )
    run = BrainRun(Path(inputs[0]))
    student = next(iter(options.inputs.select.get("student", run.settings["students"])))
    if student not in run.settings["students"]:
        raise ValueError(f"no student '{student}' is scored; there are: {', '.join(run.settings['students'])}")
    tables = brain_tables(run)
    return _Made(agreement_figure(run, tables.subjects, student, options.width), tables.notes)


def _brain_rdms(file: Path) -> tuple[RDMs, tuple[str, ...]]:
    """One RDM a region and subject, the mean over what else tells them apart (sessions, say), and a note of that."""
    if file.is_file() and not is_of_rsatoolbox(file):
        raise ValueError(
            f"--brain {file}: expected a file of RDMs with the descriptors subject and roi, as `brainrdl rdms` and "
            "rsatoolbox write it (HDF5); save it with brainrdl.rdms.save_rdms"
        )
    brain = load_rdms(file)
    if "subject" not in brain.rdm_descriptors:
        known = ", ".join(name for name in brain.rdm_descriptors if name != "index") or "none"
        raise ValueError(
            f"--brain {file}: its RDMs have no descriptor 'subject'; they have: {known}; say of whom each RDM is"
        )
    kept, _ = group_rdms(brain, ())
    over = [name for name in kept if name not in ("roi", "subject") and len(set(rdm_descriptor(brain, name))) > 1]
    if not over or len(group_rdms(brain, over)[1]) == brain.n_rdm:
        return brain, ()
    return average_rdms(brain, over), (f"{file}: mean over {', '.join(over)} of each subject and region",)


def _training(inputs: Sequence[str], options: FigureOptions) -> _Made:
    from brainrdl.analysis.figures import training

    if len(options.targets) > 1:
        raise ValueError(f"training: expected one --target, got {', '.join(options.targets)}")
    rdms, _, _, notes, _ = read_inputs(inputs, replace(options.inputs, logged=True))
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


class _Kind(NamedTuple):
    """options: fields of `FigureOptions` and `InputOptions` that are not passed over."""

    make: Callable[[Sequence[str], FigureOptions], _Made]
    options: tuple[str, ...]


_READING = ("select", "ids", "key", "patterns", "dissimilarity", "stimulus", "allow_code")
_STIMULI = ("images", "categories", "category")
_DISTANCES = ("comparison", "n_bootstrap", "n_stimuli", "metric", "targets")

KINDS: dict[str, _Kind] = {
    "rdm": _Kind(_rdm, (*_READING, *_STIMULI, "scale", "shared", "rows", "columns")),
    "mds": _Kind(_mds, (*_READING, *_DISTANCES, "colour_by", "shape_by")),
    "stimulus-mds": _Kind(_stimulus_mds, (*_READING, *_STIMULI, "metric")),
    "curves": _Kind(_curves, ("quantities",)),
    "agreement": _Kind(_agreement, (*_READING, "brain", "comparison", "inference")),
    "training": _Kind(_training, (*_READING, *_DISTANCES)),
}

# Fields whose options are called otherwise, and what messages call arguments.
_CALLED = {
    "metric": "non-metric",
    "n_bootstrap": "bootstrap",
    "n_stimuli": "sample",
    "targets": "target",
    "quantities": "quantity",
}
_ARGUMENTS = {
    "`stimuli`": "--ids",
    "`key`": "--key",
    "no key was given": "no --key was given",
    "n_bootstrap=0": "--bootstrap 0",
    r"width='double'": "--width double",
    r"\(colour_by, shape_by\)": "(--colour-by, --shape-by)",
    r"draw all with rdm_grid\.plot": "draw all with the kind rdm",
}
