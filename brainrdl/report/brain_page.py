"""The report of a run with brains as teachers: its tables as CSV, a page of results, and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from brainrdl.analysis.accuracy import format_p
from brainrdl.analysis.comparison import POOLING
from brainrdl.analysis.figures.style import check_formats, save_figure
from brainrdl.rdms import join_rdms
from brainrdl.report.brain import TEACHER, BrainRun, BrainTables, brain_tables, mean_brain, tradeoff_table
from brainrdl.report.tables import NONE, markdown_table
from brainrdl.runs import write_text

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

_KINDS = {
    "all": "all pairs",
    "within": "within category",
    "across": "across categories",
    "partial": "partial (category, pixels)",
}


def write_brain_report(run_dir: Path, formats: Sequence[str] = ("png", "pdf")) -> BrainTables:
    """Write RUN_DIR/report: scores, means, tests and accuracies as CSV, results.md, and the figures.

    A partly finished run is reported as far as it is. Raises ValueError for a run in which nothing is finished.
    """
    formats = check_formats(formats)
    run = BrainRun(run_dir)
    tables = brain_tables(run)
    out = run_dir / "report"
    files = {
        "scores": tables.scores,
        "subjects": tables.subjects,
        "agreement": tables.agreement,
        "tests": tables.tests,
        "dissociations": tables.dissociations,
        "category_only": tables.category_only,
        "shares": tables.shares,
        "task": tables.task,
    }
    for name, table in files.items():
        if len(table):
            write_text(out / f"{name}.csv", table.to_csv(index=False))
    figures = _draw(run, tables, out, formats)
    write_text(out / "results.md", _page(run, tables, figures))
    return tables


def brain_results_table(run_dir: Path) -> pd.DataFrame:
    """The scores on held-out pairs as text to print: a row a network, the teachers' own RDMs last."""
    run = BrainRun(run_dir)
    path = run_dir / "report" / "agreement.csv"
    agreement = pd.read_csv(path) if path.is_file() else brain_tables(run).agreement
    return results_rows(run, agreement, str(run.settings["score"]["layers"][0]))


def results_rows(run: BrainRun, agreement: pd.DataFrame, layer: str) -> pd.DataFrame:
    """A row a network, then one a teacher's own RDM: per region the mean over subjects, also within categories."""
    held_out = agreement[agreement["pairs"] == "held_out"]
    rois = list(dict.fromkeys(held_out["roi"]))
    own = held_out[(held_out["layer"] == layer) & (held_out["network"] != TEACHER)]
    groups = [(str(name), own[own["network"] == name]) for name in dict.fromkeys(own["network"])]
    teachers = held_out[held_out["network"] == TEACHER]
    groups += [(f"{TEACHER}: {name}", teachers[teachers["layer"] == name]) for name in dict.fromkeys(teachers["layer"])]
    rows = []
    for name, part in groups:
        row = {"network": name}
        for roi in rois:
            for kind, words in (("all", roi), ("within", f"{roi}, within category")):
                of_kind = held_out[(held_out["roi"] == roi) & (held_out["kind"] == kind)]
                scored = _score(part[(part["roi"] == roi) & (part["kind"] == kind)])
                row[f"{words} ({_n_pairs(of_kind)})"] = scored
        rows.append(row)
    table = pd.DataFrame(rows)
    return table[[name for name in table if (table[name] != NONE).any()]]


def _n_pairs(rows: pd.DataFrame) -> str:
    """How many pairs a score is over, all folds of a split together; a range where networks differ."""
    counts = sorted(set(rows.loc[rows["score"].notna(), "n_pairs"].round().astype(int)))
    return f"{counts[0]:,} pairs" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} pairs" if counts else NONE


def _score(row: pd.DataFrame) -> str:
    if row.empty or isnan(row["score"].iloc[0]):
        return NONE
    one = row.iloc[0]
    interval = "" if isnan(one["low"]) else f" [{one['low']:.3f}, {one['high']:.3f}]"
    return f"{one['score']:.3f}{interval}" + (" ↑" if one["above_ceiling"] else "")


def _page(run: BrainRun, tables: BrainTables, figures: Sequence[tuple[Path, str]]) -> str:
    settings, score = run.settings, run.settings["score"]
    brain = run.brain.rdm_descriptors
    folds = settings["folds"]
    n_stimuli = len(pd.read_csv(run.folder / "stimuli.csv"))
    lines = [f"# {run.name}: agreement with the brain on what was not learned", ""]
    lines += [
        f"- Scored: RDMs of {', '.join(score['layers'])} ({score['dissimilarity']}) against "
        f"{len(set(map(str, brain['subject'])))} subjects × {', '.join(sorted(set(map(str, brain['roi']))))}, by "
        f"{score['comparison']} (rsatoolbox), subject by subject, then averaged.",
        f"- Held out: {folds['n']} folds × {folds['splits']} splits of {n_stimuli} stimuli; pairs of which both are "
        "held out, scored within the fold, then averaged; networks of different folds are never pooled.",
        f"- Seeds: {', '.join(map(str, settings['seeds']))}.",
        "- Chosen: " + _chosen_line(run),
        "- Intervals and tests: 95 % t-intervals of the mean over subjects, paired t-tests over subjects, given these "
        "stimuli; seeds and splits are averaged before. ↑: above the upper noise ceiling.",
        "",
    ]
    for layer in score["layers"]:
        if len(score["layers"]) > 1:
            lines += [f"## Layer `{layer}`", ""]
        lines += [markdown_table(results_rows(run, tables.agreement, layer)), ""]
    lines += ["", *_ceiling_lines(tables, score["comparison"]), "", *_verdicts(tables)]
    if len(tables.category_only):
        lines += ["", "## Gains", "", _GAIN_WORDS, "", markdown_table(_gain_rows(tables))]
    lines += ["", "## Other pairs", "", "In brackets after each score the number of pairs (all folds of a split).", ""]
    lines += [markdown_table(_other_rows(tables)), ""]
    if len(tables.tests):
        lines += ["## Methods paired over subjects", "", _TEST_WORDS, "", markdown_table(_test_rows(tables)), ""]
    if len(tables.task):
        lines += ["## The task", "", markdown_table(_task_rows(tables.task)), ""]
    for path, caption in figures:
        lines += [f"![{caption}]({path.name})", "", caption, ""]
    if tables.notes:
        lines += ["Left out:", "", *(f"- {note}" for note in tables.notes), ""]
    lines += ["Numbers: scores.csv (every network, subject and fold), subjects.csv, agreement.csv, tests.csv."]
    return "\n".join(lines) + "\n"


_GAIN_WORDS = (
    "Over the untrained network and, for those that a brain taught, over the category models; mean difference with its "
    "95 % interval. A gain is there where the interval lies above 0; it is category structure only where that is so "
    "for all pairs and not within categories."
)

_TEST_WORDS = (
    "Difference of the means, the first minus the second, on held-out pairs; q: adjusted for the false discovery rate "
    "over layer × region × two methods."
)


def _chosen_line(run: BrainRun) -> str:
    choose = run.settings["choose"]
    if choose is None:
        return "nothing; the settings are those of the experiment file."
    what = [*choose["grid"], *(["the epoch to stop at"] if choose["epoch"] else [])]
    return (
        f"{', '.join(what)}, for each network by {choose['inner']} inner folds of its own training stimuli and its own "
        "teacher (fold.json, choosing.csv), before it was scored."
    )


def _ceiling_lines(tables: BrainTables, comparison: str) -> list[str]:
    """The ceilings of each region; networks that were scored on other pairs or subjects have their own."""
    rows = tables.agreement[(tables.agreement["pairs"] == "held_out") & tables.agreement["score"].notna()]
    lines = []
    for roi, kind in rows.loc[rows["kind"].isin(["all", "within"]), ["roi", "kind"]].drop_duplicates().to_numpy():
        part = rows[(rows["roi"] == roi) & (rows["kind"] == kind)].round({"ceiling_low": 3, "ceiling_high": 3})
        told = []
        for _, same in part.groupby(["ceiling_low", "ceiling_high"], sort=False, dropna=False):
            names = list(dict.fromkeys(same["network"]))
            whose = "" if len(names) == part["network"].nunique() else f" ({', '.join(map(str, names))})"
            one = same.iloc[0]
            told.append(
                f"no ceiling{whose}"
                if isnan(one["ceiling_low"])
                else f"{one['ceiling_low']:.3f} to {one['ceiling_high']:.3f}{whose}"
            )
        lines.append(f"- {roi}, {_KINDS[kind]}: noise ceiling between subjects {'; '.join(told)}.")
    lines.append(
        "- Ceilings are of the same pairs, subjects and comparison as the scores, fold by fold: each subject against "
        f"the others' pooled RDM (lower) and against all subjects' (upper); pooled by {POOLING[comparison]}."
    )
    return lines


def _gain_rows(tables: BrainTables) -> pd.DataFrame:
    """What each network gains, and whether that is more than category structure."""
    rows = tables.category_only[tables.category_only["pairs"] == "held_out"]
    verdicts = {True: "**category structure only**", False: "more than categories"}
    return pd.DataFrame(
        [
            {
                "network": row["a"],
                "over": row["b"],
                "layer": row["layer"],
                "region": row["roi"],
                "gain": _difference(row, "gain"),
                "within category": _difference(row, "within"),
                "": verdicts[bool(row["category_only"])] if row["gain_low"] > 0 else "no gain",
            }
            for row in rows.to_dict("records")
        ]
    )


def _verdicts(tables: BrainTables) -> list[str]:
    """In words: how much of its teacher RDM's score a network reaches, and whether two teachers' regions dissociate."""
    lines = []
    if len(tables.shares):
        rows = tables.shares[(tables.shares["pairs"] == "held_out") & (tables.shares["kind"] == "all")]
        for row in rows[rows["score_teacher"] > 0].to_dict("records"):
            lines.append(
                f"- {row['network']}, {row['layer']}, {row['roi']}: {100 * row['share']:.0f} % of its teacher RDM's "
                f"own score ({row['score']:.3f} of {row['score_teacher']:.3f})."
            )
    if len(tables.dissociations):
        rows = tables.dissociations
        for row in rows[(rows["pairs"] == "held_out") & (rows["kind"] == "all")].to_dict("records"):
            first, second = row["roi"].split(" − ")
            lines.append(
                f"- Double dissociation, {row['layer']}: ({row['a']} − {row['b']}) in {first} minus the same in "
                f"{second} is {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], p {format_p(row['p'])}, over "
                f"{row['n_subjects']} subjects; above 0, each teacher raises its own region more."
            )
    return lines


def _difference(row: Mapping[Any, Any], name: str) -> str:
    value = row[name]
    if isnan(value):
        return NONE
    interval = "" if isnan(row[f"{name}_low"]) else f" [{row[f'{name}_low']:+.3f}, {row[f'{name}_high']:+.3f}]"
    return f"{value:+.3f}{interval}"


_PAIRS = {"held_out": "", "train_held_out": "trained × held-out, ", "trained": "trained, "}


def _other_rows(tables: BrainTables) -> pd.DataFrame:
    """A row a network, layer and region: the means of the pairs and kinds that the first table leaves out."""
    rows = tables.agreement
    rows = rows[((rows["pairs"] != "held_out") & (rows["kind"] == "all")) | rows["kind"].isin(["across", "partial"])]
    rows = rows[(rows["pairs"] == "held_out") | (rows["kind"] == "all")]
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for k, row in enumerate(rows.to_dict("records")):
        place = str(row["network"]), str(row["layer"]), str(row["roi"])
        what = _PAIRS[row["pairs"]] + _KINDS[row["kind"]]
        n_pairs = "" if isnan(row["n_pairs"]) or isnan(row["score"]) else f" ({row['n_pairs']:.0f})"
        cells.setdefault(place, {})[what] = _score(rows.iloc[[k]]) + n_pairs
    table = pd.DataFrame(
        [
            {"network": network, "layer": layer, "region": roi, **scores}
            for (network, layer, roi), scores in cells.items()
        ]
    )
    return table.fillna(NONE)


def _test_rows(tables: BrainTables) -> pd.DataFrame:
    tests = tables.tests
    rows = tests[(tests["pairs"] == "held_out") & tests["kind"].isin(["all", "within"])]
    place = ["network", "layer", "roi", "pairs", "kind"]
    counts = tables.agreement.set_index(place)["n_pairs"]
    return pd.DataFrame(
        [
            {
                "methods": f"{row['a']} − {row['b']}",
                "layer": row["layer"],
                "region": row["roi"],
                "pairs": f"{_KINDS[row['kind']]} "
                f"({counts[(row['a'], row['layer'], row['roi'], row['pairs'], row['kind'])]:.0f})",
                "difference": f"{row['difference']:+.3f}",
                "95 % interval": NONE if isnan(row["low"]) else f"{row['low']:+.3f} … {row['high']:+.3f}",
                "p": format_p(row["p"]),
                "q": format_p(row["q"]),
                "subjects": row["n_subjects"],
            }
            for row in rows.to_dict("records")
        ]
    )


def _task_rows(task: pd.DataFrame) -> pd.DataFrame:
    means = task.groupby(["network", "alpha"], sort=False)["accuracy"].agg(["mean", "std", "count"]).reset_index()
    return pd.DataFrame(
        {
            "network": means["network"],
            "alpha": [f"{alpha:g}" for alpha in means["alpha"]],
            "accuracy on what was held out (%)": [
                f"{100 * mean:.1f}" + ("" if isnan(std) else f" ± {100 * std:.1f}")
                for mean, std in zip(means["mean"], means["std"], strict=True)
            ],
            "seeds": means["count"],
        }
    )


def _draw(run: BrainRun, tables: BrainTables, out: Path, formats: Sequence[str]) -> list[tuple[Path, str]]:
    """The figures' PNGs with their captions."""
    from brainrdl.analysis.figures import agreement, rdm_grid, second_order, tradeoff
    from brainrdl.analysis.second_order import second_order_mds, undefined_rdms

    drawn: list[tuple[Any, str, str]] = []
    kinds = [kind for kind in ("all", "within") if (tables.subjects["kind"] == kind).any()]
    caption = "Agreement with each subject's RDM on held-out pairs; band: noise ceiling, lines: the teachers' own RDMs."
    drawn.append((agreement.plot(tables.subjects, kinds=kinds, teacher=TEACHER), "agreement", caption))
    of_alpha = tradeoff_table(tables)
    if len(of_alpha):
        caption = "Accuracy of the task against agreement with the brain, over alpha."
        drawn.append((tradeoff.plot(of_alpha).figure, "tradeoff", caption))
    rdms = _example_rdms(run)
    caption = "RDMs of the first fold's networks (first seed) over all stimuli, and the brains' means."
    drawn.append((rdm_grid.plot(_layers_as_rows(rdms)), "rdm_grid", caption))
    comparable = [k for k in range(rdms.n_rdm) if k not in undefined_rdms(rdms)]
    if len(comparable) >= 3:
        ax = second_order.plot(second_order_mds(rdms[comparable]), teacher="brain")
        drawn.append((ax.figure, "second_order_mds", "Distances between these RDMs, by MDS."))
    files = []
    for figure, name, caption in drawn:
        written = save_figure(figure, out / name, formats)
        files += [(path, caption) for path in written if path.suffix == ".png"]
    return files


def _example_rdms(run: BrainRun) -> RDMs:
    """RDMs of the first fold's networks (first student and seed), the mean brains and pixels, over all stimuli."""
    first = run.networks[0]
    alike = [n for n in run.networks if (n.student, n.seed) == (first.student, first.seed)]
    chosen = {n.method: n for n in reversed(alike)}
    parts = [run.rdms(chosen[method]) for method in run.settings["methods"] if method in chosen]
    brain = mean_brain(run)
    brain.rdm_descriptors["network"] = ["brain"] * brain.n_rdm
    brain.rdm_descriptors["layer"] = list(brain.rdm_descriptors["roi"])
    joined = join_rdms([run.pixels, *parts, brain])
    categories = run.categories
    if categories is not None:
        names = sorted(set(categories.values()))
        own = [categories[str(stimulus)] for stimulus in joined.pattern_descriptors["stimulus"]]
        joined.pattern_descriptors["category"] = own
        joined.pattern_descriptors["label"] = [names.index(name) for name in own]
    return joined


def _layers_as_rows(rdms: RDMs) -> RDMs:
    """With the networks' RDMs in a row a layer and a column a method: there are many methods and few layers."""
    networks, layers = list(rdms.rdm_descriptors["network"]), list(rdms.rdm_descriptors["layer"])
    swapped = [(b, a) if a not in ("pixels", "brain") else (a, b) for a, b in zip(networks, layers, strict=True)]
    turned = join_rdms([rdms])
    turned.rdm_descriptors["network"], turned.rdm_descriptors["layer"] = map(list, zip(*swapped, strict=True))
    return turned
