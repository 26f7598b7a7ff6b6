"""The scores of a run with brains as teachers as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isnan
from typing import Any, NamedTuple

import pandas as pd

from brainrdl.analysis.accuracy import format_p
from brainrdl.analysis.comparison import POOLING
from brainrdl.report.blocks import NONE, Block, Bullets, Heading, Paragraph, Table
from brainrdl.report.brain import TEACHER, BrainRun, BrainTables
from brainrdl.report.contrasts import dissociations, gains, method_tests, teacher_shares


class Contrasts(NamedTuple):
    """What `brainrdl.report.contrasts` makes of the scores."""

    tests: pd.DataFrame
    dissociations: pd.DataFrame
    gains: pd.DataFrame
    shares: pd.DataFrame


def contrasts_of(run: BrainRun, subjects: pd.DataFrame) -> Contrasts:
    """All of them. subjects: a table of `brain_tables`."""
    return Contrasts(
        method_tests(run, subjects), dissociations(run, subjects), gains(run, subjects), teacher_shares(run, subjects)
    )


def results_rows(run: BrainRun, agreement: pd.DataFrame, layer: str) -> pd.DataFrame:
    """A row a network, then one a teacher's own RDM: per region the means over subjects of all pairs and of some."""
    held_out = agreement[agreement["pairs"] == "held_out"]
    own = held_out[(held_out["layer"] == layer) & (held_out["network"] != TEACHER)]
    groups = [(str(name), own[own["network"] == name]) for name in dict.fromkeys(own["network"])]
    teachers = held_out[held_out["network"] == TEACHER]
    groups += [(f"{TEACHER}: {name}", teachers[teachers["layer"] == name]) for name in dict.fromkeys(teachers["layer"])]
    rows = []
    for name, part in groups:
        row = {"network": name}
        for roi in dict.fromkeys(held_out["roi"]):
            for kind, words in shown_kinds(run).items():
                of_kind = held_out[(held_out["roi"] == roi) & (held_out["kind"] == kind)]
                scored = _score(part[(part["roi"] == roi) & (part["kind"] == kind)])
                row[f"{roi}, {words} ({_n_pairs(of_kind)})"] = scored
        rows.append(row)
    table = pd.DataFrame(rows)
    return table[[name for name in table if (table[name] != NONE).any()]]


def shown_kinds(run: BrainRun) -> dict[str, str]:
    """The kinds of pairs of the first table, in words that name the column."""
    settings = run.settings["stimuli"]
    within = {f"within {column}": f"within {column}" for column in settings["also_within"]}
    return {"all": "all pairs", "within": f"within {settings['categories']}", **within}


def _all_kinds(run: BrainRun) -> dict[str, str]:
    column = run.settings["stimuli"]["categories"]
    known = "pixels" if column is None else f"{column}, pixels"
    return {**shown_kinds(run), "across": f"across {column}", "partial": f"partial, given {known}"}


def _n_pairs(rows: pd.DataFrame) -> str:
    """How many pairs a score is over, all folds of a split together; a range where networks differ."""
    counts = sorted(set(rows.loc[rows["score"].notna(), "n_pairs"].round().astype(int)))
    return f"{counts[0]:,} pairs" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} pairs" if counts else NONE


def _score(row: pd.DataFrame) -> str:
    if row.empty or isnan(row["score"].iloc[0]):
        return NONE
    one = row.iloc[0]
    interval = "" if isnan(one["low"]) else f" [{one['low']:.3f}, {one['high']:.3f}]"
    spread = "" if isnan(one["spread"]) else f" ± {one['spread']:.3f}"
    return f"{one['score']:.3f}{spread}{interval}" + (" ↑" if one["above_ceiling"] else "")


def results_blocks(run: BrainRun, tables: BrainTables, contrasts: Contrasts) -> list[Block]:
    """The scores and their ceilings, then what they are compared with, then what else was scored."""
    score = run.settings["score"]
    blocks: list[Block] = []
    for layer in score["layers"]:
        if len(score["layers"]) > 1:
            blocks.append(Heading(f"Layer `{layer}`"))
        blocks.append(Table(results_rows(run, tables.agreement, layer)))
    blocks.append(Bullets(tuple(_ceiling_lines(run, tables, score["comparison"]))))
    if shares := _share_lines(contrasts.shares):
        blocks.append(Bullets(tuple(shares)))
    if len(contrasts.gains):
        blocks += [Heading("Gains"), Paragraph(_gain_words(run)), Table(_gain_rows(contrasts.gains))]
    if len(contrasts.dissociations):
        rows = contrasts.dissociations
        rows = rows[(rows["pairs"] == "held_out") & (rows["kind"] == "all")]
        blocks += [Heading("Two teachers, two regions"), Paragraph(_DISSOCIATION_WORDS), *_dissociations(rows)]
    words = "In brackets after each score the number of pairs (all folds of a split)."
    blocks += [Heading("Other pairs"), Paragraph(words), Table(_other_rows(run, tables))]
    if len(contrasts.tests):
        rows = _test_rows(run, tables, contrasts.tests)
        blocks += [Heading("Methods paired over subjects"), Paragraph(_TEST_WORDS), Table(rows)]
    if len(tables.task):
        blocks += [Heading("The task"), Table(_task_rows(tables.task))]
    return [*blocks, Heading("How long they learned"), Table(_epoch_rows(run))]


def set_up_lines(run: BrainRun) -> list[str]:
    score, folds, brain = run.settings["score"], run.settings["folds"], run.brain.rdm_descriptors
    return [
        f"Scored: RDMs of {', '.join(score['layers'])} ({score['dissimilarity']}) against "
        f"{len(set(map(str, brain['subject'])))} subjects × {', '.join(sorted(set(map(str, brain['roi']))))}, by "
        f"{score['comparison']} (rsatoolbox), subject by subject, then averaged; never a subject who taught the "
        "network.",
        f"Held out: {folds['n']} folds × {folds['splits']} splits of {run.n_stimuli} stimuli; pairs of which both are "
        "held out, scored within the fold, then averaged; networks of different folds are never pooled.",
        f"Seeds: {', '.join(map(str, run.settings['seeds']))}.",
        f"Chosen: {_chosen(run)}",
        "In brackets: 95 % t-intervals of the mean over subjects, given these stimuli and these networks. ±: "
        "standard deviation over splits and seeds. ↑: above the upper noise ceiling.",
    ]


def _chosen(run: BrainRun) -> str:
    choose = run.settings["choose"]
    if choose is None:
        return "nothing; the settings are those of the experiment file."
    what = [*choose["grid"], *(["the epoch to stop at"] if choose["epoch"] else [])]
    return (
        f"{', '.join(what)}, for each network by {choose['inner']} inner folds of its own training stimuli and its own "
        "teacher (fold.json, choosing.csv), before it was scored. All other settings are the experiment file's."
    )


def _ceiling_lines(run: BrainRun, tables: BrainTables, comparison: str) -> list[str]:
    """The ceilings of each region; those of networks that were scored on other pairs or subjects are told apart."""
    rows = tables.agreement[(tables.agreement["pairs"] == "held_out") & tables.agreement["score"].notna()]
    lines = []
    for roi in dict.fromkeys(rows["roi"]):
        for kind, words in shown_kinds(run).items():
            part = rows[(rows["roi"] == roi) & (rows["kind"] == kind)].round({"ceiling_low": 3, "ceiling_high": 3})
            told = []
            for _, same in part.groupby(["ceiling_low", "ceiling_high"], sort=False, dropna=False):
                names = list(dict.fromkeys(same["network"]))
                whose = "" if len(names) == part["network"].nunique() else f" ({', '.join(map(str, names))})"
                low, high = same["ceiling_low"].iloc[0], same["ceiling_high"].iloc[0]
                told.append(f"no ceiling{whose}" if isnan(low) else f"{low:.3f} to {high:.3f}{whose}")
            if told:
                lines.append(f"{roi}, {words}: noise ceiling between subjects {'; '.join(told)}.")
    lines.append(
        "Ceilings are of the same pairs, subjects and comparison as the scores, fold by fold: each subject against "
        f"the others' pooled RDM (lower) and against all subjects' (upper); pooled by {POOLING[comparison]}."
    )
    return lines


def _share_lines(shares: pd.DataFrame) -> list[str]:
    """How much of its teacher RDM's own score a network reaches."""
    if shares.empty:
        return []
    rows = shares[(shares["pairs"] == "held_out") & (shares["kind"] == "all") & (shares["score_teacher"] > 0)]
    return [
        f"{row['network']}, {row['layer']}, {row['roi']}: {100 * row['share']:.0f} % of its teacher RDM's own score "
        f"({row['score']:.3f} of {row['score_teacher']:.3f})."
        for row in rows.to_dict("records")
    ]


def _gain_words(run: BrainRun) -> str:
    column = run.settings["stimuli"]["categories"]
    return (
        "Over the untrained network and, for those that a brain taught, over the category models: mean differences, "
        "their 95 % intervals uncorrected. A gain is shown where the interval lies above 0. It is called category "
        f"structure only where it is shown for all pairs and not within `{column}`."
    )


def _gain_rows(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[table["pairs"] == "held_out"]
    return pd.DataFrame(
        [
            {
                "network": row["a"],
                "over": row["b"],
                "layer": row["layer"],
                "region": row["roi"],
                "gain": _difference(row, "gain"),
                "within": _difference(row, "within"),
                "": _verdict(row),
            }
            for row in rows.to_dict("records")
        ]
    )


def _verdict(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["category_only"]):
        return NONE
    if not row["gain_low"] > 0:
        return "no gain shown"
    return "**category structure only**" if row["category_only"] else "also within categories"


_DISSOCIATION_WORDS = (
    "A double dissociation is shown where each teacher's network is above the other's in its own region: both of the "
    "first two contrasts above 0. Mean over subjects, 95 % interval, uncorrected."
)


def _dissociations(rows: pd.DataFrame) -> Iterator[Block]:
    for (a, b, layer), part in rows.groupby(["a", "b", "layer"], sort=False):
        shown = bool((part["low"].iloc[:2] > 0).all())
        yield Paragraph(f"{a} and {b}, {layer}: {'**shown**' if shown else 'not shown'}.")
        yield Bullets(
            tuple(
                f"{row['contrast']}: {_difference(row, 'difference')}, p {format_p(row['p'])} "
                f"({row['n_subjects']} subjects)."
                for row in part.to_dict("records")
            )
        )


def _difference(row: Mapping[Any, Any], name: str) -> str:
    value = row[name]
    low, high = (row["low"], row["high"]) if name == "difference" else (row[f"{name}_low"], row[f"{name}_high"])
    return NONE if isnan(value) else f"{value:+.3f}" + ("" if isnan(low) else f" [{low:+.3f}, {high:+.3f}]")


_PAIRS = {"held_out": "", "train_held_out": "trained × held-out, ", "trained": "trained, "}


def _other_rows(run: BrainRun, tables: BrainTables) -> pd.DataFrame:
    """A row a network, layer and region: the means of the pairs and kinds that the first table leaves out."""
    rows, words = tables.agreement, _all_kinds(run)
    other_pairs = (rows["pairs"] != "held_out") & (rows["kind"] == "all")
    rows = rows[other_pairs | ((rows["pairs"] == "held_out") & rows["kind"].isin(["across", "partial"]))]
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for k, row in enumerate(rows.to_dict("records")):
        place = str(row["network"]), str(row["layer"]), str(row["roi"])
        n_pairs = "" if isnan(row["n_pairs"]) or isnan(row["score"]) else f" ({row['n_pairs']:.0f})"
        cells.setdefault(place, {})[_PAIRS[row["pairs"]] + words[row["kind"]]] = _score(rows.iloc[[k]]) + n_pairs
    table = pd.DataFrame(
        [
            {"network": network, "layer": layer, "region": roi, **scores}
            for (network, layer, roi), scores in cells.items()
        ]
    )
    return table.fillna(NONE)


_TEST_WORDS = (
    "Every network that a brain taught against all others, and all against the untrained one, on held-out pairs; the "
    "first minus the second, 95 % t-interval, paired t-test. q: adjusted for the false discovery rate over layer × "
    "region × these contrasts, one family for each student and kind of pairs."
)


def _test_rows(run: BrainRun, tables: BrainTables, tests: pd.DataFrame) -> pd.DataFrame:
    words = shown_kinds(run)
    rows = tests[(tests["pairs"] == "held_out") & tests["kind"].isin(words)]
    counts = tables.agreement.set_index(["network", "layer", "roi", "pairs", "kind"])["n_pairs"]
    return pd.DataFrame(
        [
            {
                "methods": f"{row['a']} − {row['b']}",
                "layer": row["layer"],
                "region": row["roi"],
                "pairs": f"{words[row['kind']]} "
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
    """Accuracy averaged over folds, with its standard deviation over seeds."""
    seeds = task.groupby(["network", "seed"], sort=False)["accuracy"].mean()
    means = seeds.groupby("network", sort=False).agg(["mean", "std", "count"]).reset_index()
    alphas = task.groupby("network")["alpha"].unique()
    return pd.DataFrame(
        {
            "network": means["network"],
            "alpha": [", ".join(f"{alpha:g}" for alpha in sorted(alphas[network])) for network in means["network"]],
            "accuracy on what was held out (%)": [
                f"{100 * mean:.1f}" + ("" if isnan(std) else f" ± {100 * std:.1f}")
                for mean, std in zip(means["mean"], means["std"], strict=True)
            ],
            "seeds": means["count"],
        }
    )


def _epoch_rows(run: BrainRun) -> pd.DataFrame:
    """Chosen epochs and settings, a row a network."""
    rows = []
    for label in dict.fromkeys(network.label for network in run.networks):
        folds = [network.fold for network in run.networks if network.label == label]
        epochs = pd.Series([fold["epoch"] for fold in folds], dtype=float).dropna()
        chosen: dict[str, dict[str, int]] = {}
        for fold in folds:
            for key, value in fold["chosen"].items():
                counts = chosen.setdefault(key, {})
                counts[str(value)] = counts.get(str(value), 0) + 1
        told = "; ".join(
            f"{key}: {', '.join(f'{v} ({n}×)' for v, n in counts.items())}" for key, counts in chosen.items()
        )
        rows.append(
            {
                "network": label,
                "networks": len(folds),
                "epochs chosen, median (range)": NONE
                if epochs.empty
                else f"{epochs.median():g} ({epochs.min():g} to {epochs.max():g})",
                "settings chosen": told or NONE,
            }
        )
    return pd.DataFrame(rows)
