"""Agreement of networks' RDMs with the brain's: per layer, region and subject, on pairs that were not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brainrdl.analysis.ceiling import subject_ceiling
from brainrdl.analysis.comparison import MIN_PAIRS, PARTIAL, check_comparison, residuals, similarity
from brainrdl.data.folds import check_disjoint
from brainrdl.rdms.selection import subset_stimuli

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

PAIRS = ("held_out", "train_held_out", "trained")
KINDS = ("all", "within", "across", "partial")

_SCORES = ("score", "ceiling_low", "ceiling_high")


def score_agreement(
    model: RDMs,
    brain: RDMs,
    held_out: Sequence[str],
    trained: Sequence[str] = (),
    comparison: str = "rho-a",
    pairs: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    categories: Mapping[str, str] | None = None,
    controls: RDMs | None = None,
) -> pd.DataFrame:
    """Similarity of each RDM of `model` with each subject's RDM, beside the noise ceiling on the same pairs.

    model: RDMs of networks that share the fold, e.g. those of all layers, methods and seeds (joined: the ceilings are
    computed once). brain: one RDM a subject and roi (rdm_descriptors). Both, and `controls`, are joined by the pattern
    descriptor `stimulus`.
    held_out, trained: stimulus ids. comparison: one of `brainrdl.analysis.comparison.COMPARISONS`; "rho-a" is Spearman
    where there are no ties, and fair to models that have them.
    pairs: "held_out" (both stimuli are), "train_held_out" (one of each), "trained" (both); None: the first, and the
    second where `trained` is given.
    kinds: "all"; "within", "across": both stimuli in one category, or not; "partial": partial correlation given the
    category RDM (0 within, 1 across) and the `controls`, of ranks for "spearman" and "rho-a", of values for "corr".
    None: all that `categories` (id -> category), `controls` and the comparison allow.

    Returns a row an RDM of the model, roi, subject, pairs and kind: the model's descriptors (network, layer, …), roi,
    subject, pairs, kind, comparison; score; n_pairs, those measured in that subject and defined in the model;
    ceiling_low, ceiling_high: the subject's own (`noise_ceiling`); above_ceiling: score > ceiling_high; note: why
    there is no score. NaN: no score (fewer than 3 pairs, nothing that varies), or no ceiling.
    Raises ValueError where a stimulus is both trained and held out, or in one of the RDMs missing; for RDMs that
    cannot be told apart; for fewer than 3 held-out stimuli, unknown names, and kinds for which categories or controls
    are missing.
    """
    check_comparison(comparison)
    check_disjoint(trained, held_out)
    if len(held_out) < 3:
        raise ValueError(f"expected at least 3 held-out stimuli, got {len(held_out)}; make fewer, larger folds")
    pairs = _pair_types(pairs, trained)
    kinds = _kinds(kinds, comparison, categories, controls)
    others = [name for name in model.rdm_descriptors if name not in ("network", "layer", "index", "roi", "subject")]
    models = _distinct(model, "the model", ["network", "layer", *others])
    subjects = _distinct(brain, "the brain", ["roi", "subject"])
    tables = []
    for pair_type in pairs:
        ids = [*(held_out if pair_type != "trained" else ()), *(trained if pair_type != "held_out" else ())]
        one, other = _vectors(model, ids, "the model"), _vectors(brain, ids, "the brain")
        of_type = _of_type(pair_type, len(ids), len(held_out))
        same = None if categories is None else _same_category(ids, categories)
        for kind in kinds:
            chosen, known = of_type, None
            if kind == "partial":
                known = _known(ids, same, controls)
                chosen = of_type & ~np.isnan(known).any(0)
            elif same is not None and kind != "all":
                chosen = of_type & (same if kind == "within" else ~same)
            labels = {"pairs": pair_type, "kind": kind, "comparison": comparison}
            for _, of_roi in subjects.groupby("roi", sort=False):
                scores = _score(one, other[of_roi.index], chosen, comparison, known)
                tables.append(_as_table(scores, models, of_roi.assign(**labels)))
    return pd.concat(tables, ignore_index=True)


def as_model(rdms: RDMs, network: str = "teacher", layer: str | None = None) -> RDMs:
    """RDMs of any origin with the descriptors of a network's, so that they can be scored like one.

    layer: None takes their roi, or `network` where they have none. Other rdm_descriptors are left out.
    """
    from rsatoolbox.rdm import RDMs

    rois = rdms.rdm_descriptors.get("roi", [network] * rdms.n_rdm)
    return RDMs(
        rdms.get_vectors(),
        dissimilarity_measure=rdms.dissimilarity_measure,
        rdm_descriptors={
            "network": [network] * rdms.n_rdm,
            "layer": [str(roi) for roi in rois] if layer is None else [layer] * rdms.n_rdm,
        },
        pattern_descriptors={name: list(values) for name, values in rdms.pattern_descriptors.items()},
    )


def teacher_score(teacher: RDMs, brain: RDMs, held_out: Sequence[str], **options: Any) -> pd.DataFrame:
    """The teacher RDM's own score, on the same pairs and subjects: what a perfect pupil would reach.

    teacher: one RDM a roi (average subjects first). options: those of `score_agreement`, as for the networks.
    Whether the teacher's subjects are among the scored ones is for the caller to check (`check_disjoint`).
    """
    return score_agreement(as_model(teacher), brain, held_out, **options)


def average_folds(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of `score_agreement` averaged over folds, then over splits; networks, seeds and subjects stay apart.

    table: with the column fold and, where stimuli were split several times, split. Pairs of different folds' networks
    are never pooled: each fold's score is over its own pairs. Rows without a score take no part, nor do their ceilings.
    Returns a row a network, layer, roi, subject, pairs, kind (and whatever else the table has, but for epoch and note):
    n_pairs, of all folds of a split together, averaged over splits; n_folds, those with a score, over all splits;
    ceilings, NaN where a fold with a score has none; above_ceiling, of the averages.
    Raises ValueError for missing columns and for a fold that occurs twice.
    """
    table = table if "split" in table else table.assign(split=0)
    keys = _keys(table, ("fold", "split"))
    check_scores(table, ("fold", *_SCORES, "n_pairs"), [*keys, "split", "fold"])
    table = table.assign(n_folds=table["score"].notna().astype(int))
    splits = _averaged(table, [*keys, "split"], {"n_pairs": "sum", "n_folds": "sum"})
    return _averaged(splits, keys, {"n_pairs": "mean", "n_folds": "sum"})


def average_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The subject-level table: `average_folds`'s, averaged over seeds, with n_seeds, those with a score.

    Subjects are the sample of the tests that follow; seeds are further variance within a subject. n_folds: of all
    seeds. Raises ValueError for missing columns and for a seed that occurs twice.
    """
    keys = _keys(table, ("seed",))
    check_scores(table, ("seed", *_SCORES, "n_pairs"), [*keys, "seed"])
    counts = {"n_pairs": "mean", "n_seeds": "sum"} | ({"n_folds": "sum"} if "n_folds" in table else {})
    return _averaged(table.assign(n_seeds=table["score"].notna().astype(int)), keys, counts)


def check_scores(table: pd.DataFrame, columns: Sequence[str], once: Sequence[str]) -> None:
    """Raise ValueError where a table of scores lacks one of `columns`, or has two rows alike in all of `once`."""
    for name in columns:
        if name not in table:
            raise ValueError(f"table of scores: column '{name}' is missing; expected {', '.join(columns)}")
    repeated = table.duplicated(list(once))
    if repeated.any():
        row = table[repeated].iloc[0]
        raise ValueError(
            f"table of scores: {', '.join(f'{name} {row[name]}' for name in once)} occurs twice; average over what "
            "these rows differ in first (`average_folds`, `average_seeds`), or tell them apart by a column"
        )


def _pair_types(pairs: Sequence[str] | None, trained: Sequence[str]) -> tuple[str, ...]:
    if pairs is None:
        return ("held_out", "train_held_out") if len(trained) else ("held_out",)
    for name in pairs:
        if name not in PAIRS:
            raise ValueError(f"unknown pairs '{name}'; expected some of {', '.join(PAIRS)}")
        if name != "held_out" and not len(trained):
            raise ValueError(f"pairs '{name}' need the ids that were trained on; give `trained`")
    return tuple(pairs)


def _kinds(
    kinds: Sequence[str] | None, comparison: str, categories: Mapping[str, str] | None, controls: RDMs | None
) -> tuple[str, ...]:
    divided = categories is not None
    possible = {"all": True, "within": divided, "across": divided, "partial": divided or controls is not None}
    if kinds is None:
        return tuple(kind for kind in KINDS if possible[kind] and (kind != "partial" or comparison in PARTIAL))
    for kind in kinds:
        if kind not in possible:
            raise ValueError(f"unknown kind '{kind}' of score; expected some of {', '.join(KINDS)}")
        if not possible[kind]:
            needed = "`categories` (id -> category)" + (" or `controls`" if kind == "partial" else "")
            raise ValueError(f"scores of kind '{kind}' need {needed}; give them, or leave out the kind")
        if kind == "partial" and comparison not in PARTIAL:
            raise ValueError(
                f"there is no partial correlation for comparison '{comparison}'; leave out the kind 'partial', or use "
                f"one of {', '.join(PARTIAL)}"
            )
    return tuple(kinds)


def _distinct(rdms: RDMs, what: str, names: Sequence[str]) -> pd.DataFrame:
    """A row an RDM, with those descriptors; no two alike."""
    for name in names:
        if name not in rdms.rdm_descriptors:
            known = ", ".join(rdms.rdm_descriptors)
            raise ValueError(f"{what} needs the rdm_descriptors {' and '.join(names[:2])}, it has: {known}")
    frame = pd.DataFrame({name: list(rdms.rdm_descriptors[name]) for name in names})
    if frame.duplicated().any():
        row = ", ".join(f"{name} '{value}'" for name, value in frame[frame.duplicated()].iloc[0].items())
        raise ValueError(f"{what} has several RDMs of {row}; average them, or give them descriptors that differ")
    return frame


def _vectors(rdms: RDMs, ids: Sequence[str], what: str) -> np.ndarray:
    """(n_rdms, n_pairs) over the stimuli `ids`, in that order."""
    try:
        subset = subset_stimuli(rdms, ids)
    except ValueError as error:
        raise ValueError(f"{what} cannot be scored on these stimuli: {error}") from None
    return np.asarray(subset.get_vectors(), dtype=float)


def _of_type(pair_type: str, n_stimuli: int, n_held_out: int) -> np.ndarray:
    """(n_pairs,) bool; the held-out stimuli come first."""
    i, j = np.triu_indices(n_stimuli, 1)
    if pair_type == "train_held_out":
        return np.asarray((i < n_held_out) & (j >= n_held_out))
    return np.ones(len(i), dtype=bool)


def _same_category(ids: Sequence[str], categories: Mapping[str, str]) -> np.ndarray:
    """(n_pairs,) bool."""
    lacking = [name for name in ids if name not in categories]
    if lacking:
        raise ValueError(f"stimulus '{lacking[0]}' has no category ({len(lacking)} such in all); give each one")
    _, code = np.unique([str(categories[name]) for name in ids], return_inverse=True)
    i, j = np.triu_indices(len(ids), 1)
    return np.asarray(code[i] == code[j])


def _known(ids: Sequence[str], same: np.ndarray | None, controls: RDMs | None) -> np.ndarray:
    """(n_controls, n_pairs) the dissimilarities that a partial correlation takes out."""
    known = [] if same is None else [(~same).astype(float)[None]]
    if controls is not None:
        known.append(_vectors(controls, ids, "the control"))
    return np.concatenate(known)


def _score(
    model: np.ndarray, brain: np.ndarray, chosen: np.ndarray, comparison: str, known: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Columns of the table for one region, each (n_models, n_subjects).

    model, brain: (n_rdms, n_pairs). chosen: (n_pairs,) bool. known: (n_controls, n_pairs), to be taken out.
    """
    shape = len(model), len(brain)
    columns: dict[str, np.ndarray] = {name: np.full(shape, np.nan) for name in _SCORES}
    columns["n_pairs"] = np.zeros(shape, dtype=int)
    enough, method = (MIN_PAIRS, comparison) if known is None else (MIN_PAIRS + len(known), "corr")
    for models, defined in _alike(~np.isnan(model) & chosen):
        for subjects, measured in _alike(~np.isnan(brain) & chosen):
            used, block = defined & measured, np.ix_(models, subjects)
            columns["n_pairs"][block] = used.sum()
            if used.sum() < enough:
                continue
            one, other = (_prepared(vectors, used, comparison, known) for vectors in (model[models], brain))
            columns["score"][block] = similarity(one, other[subjects], method)
            for k in subjects:
                low, high, _ = subject_ceiling(other, np.arange(len(brain)) == k, used, method)
                columns["ceiling_low"][models, k], columns["ceiling_high"][models, k] = low, high
    why = np.where(columns["n_pairs"] < enough, "too few pairs", "dissimilarities that do not vary")
    columns["note"] = np.where(np.isnan(columns["score"]), why, "")
    return columns


def _alike(there: np.ndarray) -> Iterator[tuple[list[int], np.ndarray]]:
    """Rows of `there` (n_rdms, n_pairs) that are equal, with what they are: nearly always all rows at once."""
    groups: dict[bytes, list[int]] = {}
    for k, row in enumerate(there):
        groups.setdefault(np.packbits(row).tobytes(), []).append(k)
    for rows in groups.values():
        yield rows, there[rows[0]]


def _prepared(vectors: np.ndarray, used: np.ndarray, comparison: str, known: np.ndarray | None) -> np.ndarray:
    """RDMs with NaN at pairs not used; the controls taken out of those that are complete at the pairs used."""
    masked = np.where(used, vectors, np.nan)
    if known is not None:
        complete = ~np.isnan(vectors[:, used]).any(1)
        masked[complete] = residuals(masked[complete], known, comparison)
    return masked


def _as_table(scores: Mapping[str, np.ndarray], models: pd.DataFrame, subjects: pd.DataFrame) -> pd.DataFrame:
    table = models.merge(subjects, how="cross")
    for name, values in scores.items():
        table[name] = values.ravel()
    return _flagged(table)


def _flagged(table: pd.DataFrame) -> pd.DataFrame:
    # A comparison with NaN is False: without a ceiling nothing is above it.
    return table.assign(above_ceiling=table["score"] > table["ceiling_high"])


def _keys(table: pd.DataFrame, over: Sequence[str]) -> list[str]:
    averaged = (*over, *_SCORES, "n_pairs", "n_folds", "n_seeds", "above_ceiling", "note", "epoch")
    return [str(name) for name in table if name not in averaged]


def _averaged(table: pd.DataFrame, keys: list[str], counts: dict[str, str]) -> pd.DataFrame:
    """Means of scores and ceilings over the rows of each group that have a score, and its counts."""
    unscored = table["score"].isna()
    table = table.copy()
    for name in ("ceiling_low", "ceiling_high", "n_pairs"):
        table[name] = table[name].mask(unscored)
    groups = table.groupby(keys, sort=False, dropna=False)
    means = groups.agg({**dict.fromkeys(_SCORES, "mean"), **counts})
    # A mean over fewer pairs than the score's would not be its ceiling.
    for name in ("ceiling_low", "ceiling_high"):
        means[name] = means[name].mask(groups[name].count() < groups["score"].count())
    return _flagged(means.reset_index())
