"""A finished run, or the finished part of one, as tables and figures; nothing is trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from brainrdl.analysis.accuracy import (
    error_table,
    format_p,
    mcnemar_markdown,
    mcnemar_table,
)
from brainrdl.analysis.figures.style import check_formats, save_figure
from brainrdl.analysis.rdms import join_rdms, load_rdms
from brainrdl.analysis.second_order import rdm_name, second_order_mds, undefined_rdms
from brainrdl.report.tables import NONE, markdown_table
from brainrdl.runs import write_text
from brainrdl.settings import read_yaml

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

TEACHER = "teacher"
BASELINE = "baseline"


class ReportFiles(NamedTuple):
    """What `write_report` wrote, and what it had to leave out."""

    results_csv: Path
    results_md: Path
    mcnemar_csv: Path
    mcnemar_md: Path
    figures: tuple[Path, ...]
    notes: tuple[str, ...]


def write_task_report(run_dir: str | Path, formats: Sequence[str] = ("png", "pdf")) -> ReportFiles:
    """Write RUN_DIR/report: results and McNemar's tests as CSV and Markdown, and three figures.

    Errors are those of the final networks on the test set. The figures of RDMs show the first seed, last epoch.
    A partly finished run is reported as far as it is; what is missing stands in results.md and in `notes`.
    Raises ValueError for a folder that is no run or has no finished part, unreadable files, or networks tested on
    different stimuli.
    """
    formats = check_formats(formats)
    run = _read_run(Path(run_dir))
    tests = mcnemar_table(run.predictions)
    out = run.folder / "report"
    figures, notes = _draw(run, out, formats)
    files = ReportFiles(
        out / "results.csv", out / "results.md", out / "mcnemar.csv", out / "mcnemar.md", figures, notes
    )
    write_text(files.results_csv, _errors(run).to_csv(index=False))
    write_text(files.mcnemar_csv, tests.to_csv(index=False))
    write_text(files.mcnemar_md, _mcnemar_page(run, tests))
    write_text(files.results_md, _results_page(run, files))
    return files


def task_results_table(run_dir: str | Path) -> pd.DataFrame:
    """The table of test errors as text to print: a row a method in the experiment's order, the teacher last.

    "—" stands where something is not defined, e.g. an interval over one seed. Raises ValueError as `write_report`.
    """
    return _readable(_errors(_read_run(Path(run_dir))))


@dataclass(frozen=True)
class _Run:
    folder: Path
    name: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    # Keyed (method, seed); the teacher, one network for all seeds, has seed None.
    predictions: dict[tuple[str, int | None], pd.DataFrame] = field(default_factory=dict)
    histories: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)

    def part(self, method: str, seed: int | None) -> Path:
        return self.folder / TEACHER if seed is None else self.folder / method / f"seed-{seed}"

    def finished(self, method: str) -> list[int]:
        return [seed for seed in self.seeds if (method, seed) in self.predictions]

    @property
    def missing(self) -> dict[str, list[int]]:
        """Seeds of each method that are not finished; methods without such seeds are left out."""
        seeds = {method: [s for s in self.seeds if s not in self.finished(method)] for method in self.methods}
        return {method: lacking for method, lacking in seeds.items() if lacking}


def _read_run(folder: Path) -> _Run:
    path = folder / "experiment.yaml"
    if not path.is_file():
        raise ValueError(f"'{folder}' is no run: it has no experiment.yaml; give the folder that `brainrdl run` wrote")
    experiment = read_yaml(path)
    try:
        methods, seeds = tuple(experiment["methods"]), tuple(int(seed) for seed in experiment["seeds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the keys methods (label: settings) and seeds (whole numbers); restore the file, "
            "or run the experiment again"
        ) from error
    run = _Run(folder, str(experiment.get("name", folder.name)), methods, seeds)
    for method, seed in [(method, seed) for method in methods for seed in seeds]:
        part = run.part(method, seed)
        # A part's predictions are written when its training is over.
        if not (part / "predictions.csv").is_file():
            continue
        run.predictions[method, seed] = _read_csv(part / "predictions.csv", ("stimulus", "label", "predicted"))
        if (part / "history.csv").is_file():
            run.histories[method, seed] = _read_csv(part / "history.csv", ("epoch", "train_error", "test_error"))
    if not run.predictions:
        raise ValueError(f"'{folder}' has no finished part yet; let `brainrdl run` finish at least one method and seed")
    teacher = run.part(TEACHER, None) / "predictions.csv"
    if teacher.is_file():
        run.predictions[TEACHER, None] = _read_csv(teacher, ("stimulus", "label", "predicted"))
    return run


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        # An id such as "NA" or "007" is text.
        frame = pd.read_csv(path, dtype={"stimulus": str}, keep_default_na="stimulus" not in columns)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is not a table: {error}; run that part again") from error
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        what = f"column '{missing[0]}' is missing" if missing else "it has no rows"
        raise ValueError(f"'{path}': {what}; expected {', '.join(columns)}; run that part again")
    return frame


def _errors(run: _Run) -> pd.DataFrame:
    """`error_table` of the run, the teacher last, with the seeds that are missing."""
    errors = pd.DataFrame(
        [
            (method, -1 if seed is None else seed, (frame["label"] != frame["predicted"]).mean())
            for (method, seed), frame in run.predictions.items()
        ],
        columns=["method", "seed", "error"],
    )
    is_teacher = errors["seed"] == -1
    table = error_table(errors[~is_teacher], BASELINE)
    if is_teacher.any():
        teacher = error_table(errors[is_teacher], BASELINE)
        # An all-empty column would lose its type in the concatenation.
        table = pd.DataFrame(table.to_dict("records") + teacher.to_dict("records"))
    missing = run.missing
    table["missing_seeds"] = [" ".join(map(str, missing.get(method, []))) for method in table["method"]]
    return table


def _readable(errors: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in errors.to_dict("records"):
        rows.append(
            {
                "method": row["method"],
                "seeds": str(row["n_seeds"]) if row["method"] != TEACHER else "one network",
                "test error (%)": _percent(row["mean"]) + ("" if isnan(row["std"]) else f" ± {_percent(row['std'])}"),
                "95 % interval": _interval(row["low"], row["high"]),
                "difference to baseline": _percent(row["difference"], "+"),
                "its 95 % interval": _interval(row["difference_low"], row["difference_high"], "+"),
                "p": format_p(row["p"]),
            }
        )
    return pd.DataFrame(rows)


def _percent(fraction: float, sign: str = "") -> str:
    return NONE if isnan(fraction) else f"{100 * fraction:{sign}.2f}".replace("-", "−")


def _interval(low: float, high: float, sign: str = "") -> str:
    return NONE if isnan(low) else f"{_percent(low, sign)} … {_percent(high, sign)}"


def _results_page(run: _Run, files: ReportFiles) -> str:
    errors = _errors(run)
    n_test = len(next(iter(run.predictions.values())))
    finished = [method for method in run.methods if run.finished(method)]
    seeds = ", ".join(str(seed) for seed in run.seeds)
    lines = [f"# {run.name}: test error of {len(finished)} training methods", ""]
    lines += [
        f"- Compared: {', '.join(finished)}; one network a method and seed.",
        f"- Seeds: {seeds}. Methods are compared within a seed.",
        f"- Test set: {n_test:,} images, the same for every network; errors are those of the final networks.",
        f"- Teacher: {_teacher_line(run)}",
    ]
    for method, lacking in run.missing.items():
        lines.append(f"- Not finished: {method}, seed{'s' * (len(lacking) > 1)} {', '.join(map(str, lacking))}.")
    lines += ["", markdown_table(_readable(errors)), "", *_table_notes(run)]
    lines += [
        "",
        "McNemar's test between every two methods: [mcnemar.md](mcnemar.md). Numbers: results.csv, mcnemar.csv.",
    ]
    for path in files.figures:
        if path.suffix == ".png":
            lines += ["", f"![{_CAPTIONS[path.stem]}]({path.name})", "", _CAPTIONS[path.stem]]
    if files.notes:
        lines += ["", "Left out:", "", *(f"- {note}" for note in files.notes)]
    return "\n".join(lines) + "\n"


def _teacher_line(run: _Run) -> str:
    if (TEACHER, None) not in run.predictions:
        return "its predictions on these test images are not part of this run."
    frame = run.predictions[TEACHER, None]
    error = (frame["label"] != frame["predicted"]).mean()
    return f"one network for all seeds, wrong on {_percent(error)} % of the test images."


def _table_notes(run: _Run) -> list[str]:
    notes = ["± is the standard deviation over seeds; intervals are 95 % t-intervals of the mean over seeds."]
    if len(run.seeds) == 1:
        notes = [f"One seed: no spread and no interval ({NONE})."]
    if not run.finished(BASELINE):
        notes.append(f"There is no finished method '{BASELINE}', so there are no differences to it.")
    else:
        notes.append(
            "Differences are in percentage points, method minus baseline of the same seed (below zero: fewer errors); "
            "p: paired t-test over seeds, uncorrected."
        )
    notes.append("One teacher serves all seeds, so the variance between teachers is not in the intervals.")
    notes.append("McNemar's test is made within each seed, is uncorrected, and is never pooled over seeds.")
    return [" ".join(notes)]


def _mcnemar_page(run: _Run, tests: pd.DataFrame) -> str:
    lines = [f"# {run.name}: McNemar's exact test between every two methods", ""]
    if tests.empty:
        return "\n".join([*lines, "Only one network is finished: nothing to compare.", ""])
    lines += [
        "Do two networks err equally often on the same test images? Each cell: the median over seeds of the two-sided "
        "p-value, uncorrected; where it is below 0.05 an arrow to the better method (← the row's, ↑ the column's, "
        "↔ seeds contradict each other); in brackets, in how many seeds p < 0.05.",
        "",
        "The test is made within each seed and never pooled: the seeds share their test images. It says whether two "
        "trained networks differ on images like these, not whether their methods would with other seeds. One teacher "
        "is compared with the networks of every seed.",
        "",
        mcnemar_markdown(tests),
    ]
    return "\n".join(lines)


_CAPTIONS = {
    "errors_vs_epoch": "Train and test error against epoch.",
    "rdm_grid": "RDMs of the first seed's final networks, test stimuli sorted by class.",
    "second_order_mds": "Distances between the RDMs of methods and layers (first seed, final networks), by MDS.",
}


def _draw(run: _Run, out: Path, formats: Sequence[str]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The figures' files, and a line for whatever could not be drawn."""
    from brainrdl.analysis.figures import curves, rdm_grid, second_order

    files: list[Path] = []
    notes: list[str] = []
    if run.histories:
        histories = pd.concat(
            [frame.assign(method=method, seed=seed) for (method, seed), frame in run.histories.items()]
        )
        files += save_figure(curves.plot(histories, run.methods), out / "errors_vs_epoch", formats)
    else:
        notes.append("errors_vs_epoch: no finished part has a history.csv")
    rdms, lacking = _final_rdms(run)
    notes += lacking
    if rdms is not None:
        files += save_figure(rdm_grid.plot(rdms), out / "rdm_grid", formats)
        undefined = undefined_rdms(rdms)
        notes += [f"second_order_mds: {rdm_name(rdms, k)} {reason}" for k, reason in undefined.items()]
        comparable = [k for k in range(rdms.n_rdm) if k not in undefined]
        try:
            if len(comparable) < 3:
                raise ValueError(f"expected at least 3 RDMs to compare, got {len(comparable)}")
            ax = second_order.plot(second_order_mds(rdms[comparable]), methods=run.methods)
        except ValueError as error:  # the rest of the report stands
            notes.append(f"second_order_mds: {error}")
        else:
            files += save_figure(ax.figure, out / "second_order_mds", formats)  # type: ignore[arg-type]
    return tuple(files), tuple(notes)


def _final_rdms(run: _Run) -> tuple[RDMs | None, list[str]]:
    """RDMs of the first seed that has any, last epoch: pixels, labels, the methods in their order, the teacher."""
    files = {(method, seed): run.part(method, seed) / "rdms.h5" for method, seed in run.predictions}
    seeds = [seed for seed in run.seeds if any(files[m, s].is_file() for m, s in files if s == seed)]
    if not seeds:
        return None, ["rdm_grid, second_order_mds: no finished part has an rdms.h5"]
    paths: Mapping[str, Path] = {
        "pixels and labels": run.folder / "references.h5",
        **{method: path for (method, seed), path in files.items() if seed == seeds[0]},
        TEACHER: run.part(TEACHER, None) / "rdms.h5",
    }
    unfinished = [method for method in run.methods if method not in paths]
    lacking = [f"{method} (seed {seeds[0]} is not finished)" for method in unfinished]
    parts = []
    for what, path in paths.items():
        if path.is_file():
            parts.append(_last_epoch(load_rdms(path), path))
        else:
            lacking.append(f"{what} ({path.relative_to(run.folder).as_posix()} is missing)")
    return join_rdms(parts), [f"rdm_grid, second_order_mds: {what}" for what in lacking]


def _last_epoch(rdms: RDMs, path: Path) -> RDMs:
    for name in ("network", "layer", "epoch"):
        if name not in rdms.rdm_descriptors:
            raise ValueError(f"'{path}': the rdm_descriptor '{name}' is missing; run that part again")
    epochs: list[Any] = list(rdms.rdm_descriptors["epoch"])
    return rdms.subset("epoch", max(epochs))
