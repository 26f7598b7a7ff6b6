"""Agreement of fixed networks' layers with the brain, per region and subject: rsatoolbox's inference, as tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brainrdl.analysis.comparison import MIN_PAIRS, check_comparison, check_whitening, has_shape
from brainrdl.analysis.inference import with_fdr
from brainrdl.data.folds import check_disjoint
from brainrdl.rdms.checks import check_finite
from brainrdl.rdms.selection import match_rdms, rdm_descriptor, stimulus_ids, subset_stimuli

if TYPE_CHECKING:
    from rsatoolbox.inference import Result
    from rsatoolbox.rdm import RDMs

# rsatoolbox's kinds of inference, by its names, and what each generalises to.
INFERENCE = {
    "fixed": "subjects",
    "bootstrap_rdm": "subjects",
    "bootstrap_pattern": "stimuli",
    "dual_bootstrap": "subjects and stimuli",
}

# A bootstrap sample may hold one subject alone, whose ceiling is then itself: of so few, too often.
_MIN_SUBJECTS_CEILING_BOOTSTRAP = 5


@dataclass(frozen=True)
class LayerAgreement:
    """How well each layer's RDM agrees with the RDMs of a region's subjects.

    scores: a row a network, layer, roi and subject: score.
    means: a row a network, layer and roi: n_subjects; n_pairs; score, the mean over subjects; low, high: its 95 %
    interval; ceiling_low, ceiling_high: the noise ceiling; p_zero: is the score above 0 (one-sided); p_ceiling: does it
    differ from the lower ceiling (two-sided); q_zero, q_ceiling: the same, adjusted for the false discovery rate.
    pairwise: a row a roi and two RDMs of networks: network_a, layer_a, network_b, layer_b; difference, a - b; p, of a
    two-sided test; q, adjusted. Adjusted is over all regions and RDMs, each kind of test by itself.
    comparison: rsatoolbox's. inference: a name of `INFERENCE`. n_stimuli: compared. notes: what was left out, and why.

    NaN: not defined, for want of a second subject.
    """

    scores: pd.DataFrame
    means: pd.DataFrame
    pairwise: pd.DataFrame
    comparison: str
    inference: str
    n_stimuli: int
    notes: tuple[str, ...]


def layer_agreement(
    model_rdms: RDMs,
    brain_rdms: RDMs,
    comparison: str = "rho-a",
    inference: str = "fixed",
    network: str | None = "network",
    layer: str = "layer",
    roi: str | None = "roi",
    subject: str = "subject",
    n_bootstrap: int = 1000,
    seed: int = 0,
    trained: Sequence[str] = (),
) -> LayerAgreement:
    """Score each RDM of fixed networks against each subject's RDM of each region, with rsatoolbox's inference.

    model_rdms: one RDM a network and layer; brain_rdms: one RDM a region and subject; of any origin, matched by the
    pattern descriptor `stimulus`. comparison: one of `brainrdl.analysis.comparison.COMPARISONS`.
    network, layer, roi, subject: what the rdm_descriptors are called; None: all RDMs are of one network, or region.
    inference: what statements generalise to.
      "fixed": other subjects, on these stimuli; t-tests over subjects (`eval_fixed`; the ceiling is taken as known).
      "bootstrap_rdm": the same, its variance from subjects drawn anew.
      "bootstrap_pattern": other stimuli, in these subjects; drawn anew.
      "dual_bootstrap": other subjects and stimuli (Schütt et al. 2023). Minutes a region.
    Stimuli can be drawn anew only for networks that were not trained on any of them: of networks trained on folds of
    these stimuli see `score_agreement`. The bootstraps give variances; scores and ceilings are those of all data.
    n_bootstrap, seed: samples, the same for every region. rsatoolbox shows how far it is.
    trained: ids of stimuli that any of the networks has learned from, with a brain or without; none may be compared.

    A pair that is NaN (not measured, not defined) in one subject of a region or in one network takes no part in that
    region. Raises ValueError for unknown names, descriptors that are not there, RDMs that cannot be told apart, hold
    infinite values, none at all or none that differ, fewer than 3 stimuli in common, stimuli that were trained on, or
    too few subjects for the inference.
    """
    check_comparison(comparison)
    if inference not in INFERENCE:
        raise ValueError(f"unknown inference '{inference}'; expected one of {', '.join(INFERENCE)}")
    if n_bootstrap < 2:
        raise ValueError(f"expected at least 2 bootstrap samples, got {n_bootstrap}; 1000 are usual")
    models = _table(model_rdms, {"network": network, "layer": layer}, "the RDMs of networks")
    subjects = _table(brain_rdms, {"roi": roi, "subject": subject}, "the RDMs of the brain")
    names = ("the RDMs of networks", "the RDMs of the brain")
    matched = match_rdms([model_rdms, brain_rdms], names)
    ids = stimulus_ids(matched.rdms)
    check_disjoint(trained, ids)
    of_models, of_brain = (_vectors(rdms, ids, what) for rdms, what in ((model_rdms, names[0]), (brain_rdms, names[1])))
    _check_measured(of_models, models)
    _check_measured(of_brain, subjects)
    parts: list[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]] = []
    notes = list(matched.notes)
    for region, group in subjects.groupby("roi", sort=False):
        here = of_brain[group.index]
        used = _common_pairs(of_models, here, group, notes)
        one, other = (np.where(used, vectors, np.nan) for vectors in (of_models, here))
        check_whitening(used, comparison)
        _check_defined(one, models, comparison)
        _check_defined(other, group, comparison)
        result = _evaluated(one, other, comparison, inference, n_bootstrap, seed, str(region), notes)
        n_subjects = len(group)
        if n_subjects == 1:
            notes.append(f"roi {region}: one subject, so no noise ceiling and no interval over subjects")
        parts.append(_tables(result, models, group, int(used.sum())))
    scores, means, pairwise = (pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))
    means["q_zero"], means["q_ceiling"] = with_fdr(means["p_zero"]), with_fdr(means["p_ceiling"])
    pairwise["q"] = with_fdr(pairwise["p"])
    return LayerAgreement(scores, means, pairwise, comparison, inference, len(ids), tuple(notes))


def _table(rdms: RDMs, names: dict[str, str | None], what: str) -> pd.DataFrame:
    """A row an RDM, with these two descriptors under our names; no two alike."""
    for ours, name in names.items():
        if name is not None and name not in rdms.rdm_descriptors:
            raise ValueError(
                f"{what} have no rdm_descriptor '{name}'; they have: {', '.join(rdms.rdm_descriptors)}; "
                f"say which one it is by {ours}="
            )
    columns = {ours: [""] * rdms.n_rdm if name is None else rdm_descriptor(rdms, name) for ours, name in names.items()}
    table = pd.DataFrame(columns)
    if table.duplicated().any():
        row = table[table.duplicated()].iloc[0]
        raise ValueError(
            f"several of {what} are of {_named(row)}; choose one of them (`select_rdms`), or average (`average_rdms`)"
        )
    return table


def _named(row: pd.Series[Any]) -> str:
    return ", ".join(f"{name} '{value}'" for name, value in row.items() if value != "")


def _vectors(rdms: RDMs, ids: Sequence[str], what: str) -> np.ndarray:
    vectors = np.asarray(subset_stimuli(rdms, ids).get_vectors(), dtype=float)
    check_finite(vectors, ids, what)
    return vectors


def _check_measured(vectors: np.ndarray, table: pd.DataFrame) -> None:
    for k in np.flatnonzero(np.isnan(vectors).all(1)):
        raise ValueError(
            f"the RDM of {_named(table.iloc[k])} is NaN throughout, on the stimuli that all RDMs have; leave it out"
        )


def _common_pairs(models: np.ndarray, brain: np.ndarray, group: pd.DataFrame, notes: list[str]) -> np.ndarray:
    """(n_pairs,) bool: those that every network and every subject of the region has; rsatoolbox compares no others."""
    lacking = np.isnan(brain).sum(1)
    used: np.ndarray = ~np.isnan(models).any(0) & ~np.isnan(brain).any(0)
    region = group["roi"].iloc[0]
    if not used.all():
        most = int(lacking.argmax())
        worst = f"; subject '{group['subject'].iloc[most]}' lacks most, {lacking[most]}" if lacking[most] else ""
        notes.append(
            f"roi {region}: {int((~used).sum())} of {len(used)} pairs are left out, which not all its subjects and "
            f"networks have{worst}"
        )
    if used.sum() < MIN_PAIRS:
        raise ValueError(
            f"roi '{region}': {int(used.sum())} pairs are measured in all its subjects and networks, expected at least "
            f"{MIN_PAIRS}; leave out who lacks most: {', '.join(_lacking(lacking, group))}"
        )
    return used


def _lacking(lacking: np.ndarray, group: pd.DataFrame) -> list[str]:
    return [f"subject '{group['subject'].iloc[k]}' ({lacking[k]} pairs)" for k in np.argsort(-lacking)[:3]]


def _check_defined(vectors: np.ndarray, table: pd.DataFrame, comparison: str) -> None:
    for k in np.flatnonzero(~has_shape(vectors, comparison)):
        raise ValueError(
            f"the RDM of {_named(table.iloc[k])} holds dissimilarities that do not vary, so '{comparison}' says "
            "nothing of it; leave it out"
        )


def _evaluated(
    models: np.ndarray,
    brain: np.ndarray,
    comparison: str,
    inference: str,
    n_bootstrap: int,
    seed: int,
    region: str,
    notes: list[str],
) -> Result:
    """rsatoolbox's result: scores and ceiling of all data, variances of the kind of inference asked for."""
    from rsatoolbox.inference import Result, eval_bootstrap_pattern, eval_bootstrap_rdm, eval_dual_bootstrap, eval_fixed
    from rsatoolbox.model import ModelFixed
    from rsatoolbox.rdm import RDMs

    over_subjects, over_stimuli = (word in INFERENCE[inference] for word in ("subjects", "stimuli"))
    if over_subjects and inference != "fixed" and len(brain) < 2:
        raise ValueError(
            f"inference '{inference}' needs at least 2 subjects, roi '{region}' has one; use 'bootstrap_pattern' "
            "(over stimuli), or 'fixed' for the scores alone"
        )
    if over_stimuli:
        _check_bootstrap(~np.isnan(models[0]), comparison)
    fixed_models = [ModelFixed(str(k), RDMs(vector[None])) for k, vector in enumerate(models)]
    data = RDMs(brain)
    with warnings.catch_warnings(), _numpy_seeded(seed):
        warnings.filterwarnings("ignore", message="Noise ceiling for tau based on averaged ranks")
        fixed = eval_fixed(fixed_models, data, method=comparison)
        if len(brain) == 1:
            fixed.noise_ceiling = np.full(2, np.nan)  # rsatoolbox has the subject's likeness to itself
        if inference == "fixed":
            return fixed
        evaluate: Any = {
            "bootstrap_rdm": eval_bootstrap_rdm,
            "bootstrap_pattern": eval_bootstrap_pattern,
            "dual_bootstrap": eval_dual_bootstrap,
        }[inference]
        drawn = evaluate(fixed_models, data, method=comparison, N=n_bootstrap)
    result = Result(
        fixed_models,
        fixed.evaluations,
        comparison,
        "fixed",
        fixed.noise_ceiling,
        variances=drawn.variances,
        dof=drawn.dof,
        n_rdm=len(brain) if over_subjects else None,
        n_pattern=data.n_cond if over_stimuli else None,
    )
    if inference == "dual_bootstrap" and len(brain) < _MIN_SUBJECTS_CEILING_BOOTSTRAP:
        result.noise_ceil_var = np.full((len(models), 2), np.nan)
        notes.append(
            f"roi {region}: {len(brain)} subjects, too few to draw their noise ceiling anew (expected at least "
            f"{_MIN_SUBJECTS_CEILING_BOOTSTRAP}), so scores are not tested against it"
        )
    return result


def _check_bootstrap(used: np.ndarray, comparison: str) -> None:
    try:
        check_whitening(np.append(False, used[1:]), comparison)
    except ValueError as error:
        raise ValueError(
            f"stimuli cannot be drawn anew, since one drawn twice is no pair with itself: {error}"
        ) from None


def _tables(
    result: Result, models: pd.DataFrame, group: pd.DataFrame, n_pairs: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The scores, their means and the tests between them, of one region."""
    region, n_subjects = group["roi"].iloc[0], len(group)
    scores = models.merge(group[["roi", "subject"]], how="cross").assign(score=result.evaluations[0].ravel())
    score = np.asarray(result.get_means())
    blank = np.full(len(models), np.nan)
    low, high, p_zero, p_ceiling, p = blank, blank, blank, blank, np.full((len(models),) * 2, np.nan)
    if result.variances is not None:
        low, high = result.get_ci(0.95)
        p, p_zero = result.test_pairwise(), result.test_zero()
        p_ceiling = result.test_noise() if n_subjects > 1 else blank
    means = models.assign(
        roi=region,
        n_subjects=n_subjects,
        n_pairs=n_pairs,
        score=score,
        low=low,
        high=high,
        ceiling_low=result.noise_ceiling[0],
        ceiling_high=result.noise_ceiling[1],
        p_zero=p_zero,
        p_ceiling=p_ceiling,
    )
    rows = [
        {
            "roi": region,
            **{f"{name}_a": value for name, value in models.iloc[i].items()},
            **{f"{name}_b": value for name, value in models.iloc[j].items()},
            "difference": score[i] - score[j],
            "p": p[i, j],
        }
        for i, j in combinations(range(len(models)), 2)
    ]
    columns = ["roi", "network_a", "layer_a", "network_b", "layer_b", "difference", "p"]
    return scores, means, pd.DataFrame(rows, columns=columns)


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global state, from which rsatoolbox draws; the caller's is back afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
