"""From a brain data spec to RDMs with their reliability and noise ceilings, on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from brainrdl.analysis.ceiling import noise_ceiling, within_subject_ceiling
from brainrdl.data.stimulus_set import read_stimulus_table
from brainrdl.fmri.dissimilarities import check_measure, crossfitted_rdm, measured_rdm, noise_precision, whitened
from brainrdl.fmri.patterns import (
    drop_bad_voxels,
    fold_labels,
    half_labels,
    halves_share_folds,
    select_trials,
    select_voxels,
    zscore,
)
from brainrdl.fmri.read import read_rdms, read_trials
from brainrdl.fmri.reliability import pattern_reliability, rdm_reliability
from brainrdl.fmri.spec import BrainSpec, RdmFiles, load_brain_spec, spec_folder
from brainrdl.fmri.trials import Trials
from brainrdl.rdms import average_rdms, join_rdms, save_rdms, select_rdms, stimulus_ids
from brainrdl.runs import write_text
from brainrdl.sources.patterns import MeasuredPatterns, PatternTable

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# Ceilings and reliabilities are Pearson correlations of dissimilarities: Spearman-Brown is derived for those.
COMPARISON = "corr"


class MeasuredRegion(NamedTuple):
    """rdms: one RDM. quality: what is known of it, a row of the table of `make_rdms`.

    repeated: the stimuli that ceilings may be estimated on; None: all.
    """

    rdms: RDMs
    quality: dict[str, object]
    repeated: frozenset[str] | None = None


class MadeRDMs(NamedTuple):
    """rdms: all subjects and regions. table: a row an RDM. files: what was written."""

    rdms: RDMs
    table: pd.DataFrame
    files: tuple[Path, ...]


def make_rdms(
    spec: str | Path | BrainSpec,
    out: str | Path,
    subjects: Sequence[str] | None = None,
    rois: Sequence[str] | None = None,
    root: Path | None = None,
) -> MadeRDMs:
    """Make the RDM of every subject and region a spec names, and write what is known of their quality.

    spec: a built-in's name, a YAML file, or a BrainSpec. out: FILE.h5 (rsatoolbox's HDF5); beside it are written
    FILE.csv (a row an RDM: voxels, folds, reliability, ceilings, notes) and a page of figures, FILE.png and FILE.pdf.
    subjects, rois: only these. root: the data root. Of a spec with RDMs that were made already, these are read and
    judged. Stimuli that a subject was not shown are NaN. Reliability and ceilings are of all stimuli, or of those alone
    that were meant to be repeated (`Trials.repeated_only`), as the notes then say. Raises ValueError as `read_trials`,
    `measured_rdm` and `read_rdms`, and before anything is computed where `out` cannot be written or nothing is asked
    for.
    """
    from brainrdl.analysis.figures.quality import plot
    from brainrdl.analysis.figures.style import save_figure

    out = Path(out)
    if out.suffix not in (".h5", ".hdf5"):
        raise ValueError(f"RDMs are written to HDF5; expected FILE.h5, got '{out}'")
    _check_writable([out, *(out.with_suffix(ending) for ending in (".csv", ".png", ".pdf"))])
    for what, asked in (("subjects", subjects), ("rois", rois)):
        if asked is not None and not len(asked):
            raise ValueError(f"{what}: none is named; name at least one, or leave {what} out for all")
    if not isinstance(spec, BrainSpec):
        spec = load_brain_spec(spec)
    repeated = None
    if isinstance(spec.data, RdmFiles):
        rdms = _chosen(read_rdms(spec, root), subjects, rois)
        table = _published_quality(rdms)
    else:
        regions = [
            measured_region(spec, subject, roi, root)
            for roi in _known(rois, tuple(spec.rois), "roi", spec)
            for subject in _known(subjects, spec.subjects, "subject", spec)
        ]
        rdms = join_rdms([region.rdms for region in regions], union=True)
        if spec.stimuli is not None:
            rdms = _with_stimulus_columns(rdms, read_stimulus_table(spec.stimuli, spec_folder(spec, root), spec.name))
        table = pd.DataFrame([region.quality for region in regions])
        of_regions = [region.repeated for region in regions if region.repeated is not None]
        repeated = frozenset.intersection(*of_regions) if of_regions else None
    table = _with_between_subject_ceilings(table, rdms, repeated)
    page = plot(rdms, table, spec.title or spec.name)
    save_rdms(rdms, out)
    write_text(out.with_suffix(".csv"), table.to_csv(index=False))
    figures = save_figure(page, out.with_suffix(""))
    return MadeRDMs(rdms, table, (out, out.with_suffix(".csv"), *figures))


def summary(made: MadeRDMs) -> str:
    """What came out, in a few lines: the table's main columns, the regions' ceilings, the notes, the files."""
    from brainrdl.analysis.figures.quality import n_shown

    columns = ["subject", "roi", "session", "measure", "n_stimuli", "n_voxels", "n_folds"]
    columns += ["rdm_reliability", "ceiling_within", "ceiling_low", "ceiling_high"]
    table = made.table[[name for name in columns if name in made.table]].dropna(axis=1, how="all")
    lines = [table.round(3).to_string(index=False)]
    if made.table["ceiling_low"].isna().all():
        lines.append("no ceiling between subjects: that needs two subjects with the same stimuli")
    n_rois = made.table["roi"].nunique()
    if n_shown(n_rois) < n_rois:
        lines.append(f"the figure shows the first {n_shown(n_rois)} of {n_rois} regions, the table all of them")
    lines += _told_notes(made.table)
    return "\n".join([*lines, f"written: {', '.join(str(file) for file in made.files)}"])


def _told_notes(table: pd.DataFrame) -> list[str]:
    """A line a note; of which subjects and regions it is, where not of all."""
    owners: dict[str, list[str]] = {}
    for _, row in table.iterrows():
        for note in str(row["notes"]).split("; "):
            owners.setdefault(note, []).append(f"{row['subject']} {row['roi']}")
    told = {note: names for note, names in owners.items() if note}
    return [
        f"note: {note}" + ("" if len(names) == len(table) else f" ({', '.join(names[:4])}{', …' * (len(names) > 4)})")
        for note, names in told.items()
    ]


def measured_trials(
    spec: BrainSpec,
    subject: str,
    roi: str,
    root: Path | None = None,
    training_stimuli: Collection[str] | None = None,
) -> Trials:
    """A subject's responses in a region, as the spec wants them: bad voxels out, z-scored, reliable voxels chosen.

    training_stimuli: voxels are chosen on these alone; left out: on those the spec names, which may be all of them, as
    the notes then say.
    Raises ValueError as `read_trials`, `zscore` and `select_voxels`.
    """
    trials = drop_bad_voxels(read_trials(spec, subject, roi, root))
    if spec.zscore != "none":
        trials = zscore(trials, spec.zscore)
    if spec.voxels is None:
        return trials
    all_stimuli = training_stimuli is None and spec.voxels.stimuli == "all"
    if training_stimuli is None:
        training_stimuli = _selection_stimuli(spec, trials, root)
    trials = select_voxels(trials, spec.voxels.min_reliability, spec.folds, training_stimuli)
    if not all_stimuli:
        return trials
    told = f"{trials.notes[-1]}, all there are: scores on them are too good"
    return replace(trials, notes=(*trials.notes[:-1], told))


def measured_patterns(
    spec: str | Path | BrainSpec,
    subjects: Sequence[str] | None = None,
    rois: Sequence[str] | None = None,
    root: Path | None = None,
) -> MeasuredPatterns:
    """The responses that `make_rdms` makes RDMs of, as a teacher: dissimilarities at the pairs that are asked for.

    Named "subject/roi"; at a pair of stimuli its target is the RDM's value. Patterns are whitened by the noise
    precision of residuals (mahalanobis also of repetitions), so the tables hold none, and mahalanobis is the euclidean
    dissimilarity of these patterns, under that name. spec, subjects, rois, root: as in `make_rdms`.
    Raises ValueError as `measured_trials` and `measured_rdm`; for a spec with RDMs that were made already; and for
    crossnobis with noise from repetitions, which has several precisions (`crossfitted_rdm`): with one it is biased.
    """
    if not isinstance(spec, BrainSpec):
        spec = load_brain_spec(spec)
    if isinstance(spec.data, RdmFiles):
        raise ValueError(f"{spec.name}: its RDMs are made already, there are no patterns; use MeasuredRDMs")
    if spec.measure == "crossnobis" and spec.noise == "repetitions":
        raise ValueError(
            f"{spec.name}: crossnobis of patterns whitened by their own repetitions is biased; set noise: residuals or "
            "none, or use the RDMs of make_rdms"
        )
    tables = {}
    for roi in _known(rois, tuple(spec.rois), "roi", spec):
        for subject in _known(subjects, spec.subjects, "subject", spec):
            trials = measured_trials(spec, subject, roi, root)
            noise = noise_precision(trials, spec.noise, spec.shrinkage)
            check_measure(trials, spec.measure, noise)
            fold = fold_labels(trials, spec.folds).tolist()
            patterns = whitened(trials, noise).responses
            tables[f"{subject}/{roi}"] = PatternTable(patterns, trials.table["stimulus"].astype(str).tolist(), fold)
    return MeasuredPatterns(tables, "euclidean" if spec.measure == "mahalanobis" else spec.measure)


def measured_region(spec: BrainSpec, subject: str, roi: str, root: Path | None = None) -> MeasuredRegion:
    """The RDM of a subject's region, as the spec wants it, and its reliability.

    Where only some stimuli may be judged (`Trials.repeated_only`), reliability is of those.
    Raises ValueError as `measured_trials`, `noise_precision` and `measured_rdm`.
    """
    trials = measured_trials(spec, subject, roi, root)
    make = _rdm_maker(spec, trials)
    rdms = make(trials)
    told = {name: values[0] for name, values in rdms.rdm_descriptors.items() if name not in ("index", "notes")}
    quality: dict[str, object] = {**told, "n_stimuli": rdms.n_cond}
    notes = [str(rdms.rdm_descriptors["notes"][0])]
    repeated = trials.repeated_only
    if repeated is not None and not repeated.issuperset(stimulus_ids(rdms)):
        trials = select_trials(trials, trials.table["stimulus"].isin(repeated).to_numpy())
        n_repeated = trials.table["stimulus"].nunique()
        notes.append(
            f"reliability and ceilings are of {n_repeated} of the {rdms.n_cond} stimuli, those meant to be repeated"
        )
    if _is_repeated(trials, spec.folds):
        columns, on_them = _reliability(spec, trials, make)
        quality |= columns
        notes += on_them
    else:
        notes.append("no stimulus was measured in two folds: no reliability, no ceiling within the subject")
    return MeasuredRegion(rdms, {**quality, "notes": "; ".join(note for note in notes if note)}, repeated)


def _reliability(
    spec: BrainSpec, trials: Trials, make: Callable[[Trials], RDMs]
) -> tuple[dict[str, object], list[str]]:
    """The columns of reliability, and notes on them."""
    notes = []
    patterns = pattern_reliability(trials, spec.folds)
    # Within a half, too, crossnobis and noise from repetitions need what was measured twice.
    folds_a_half = 2 if spec.measure == "crossnobis" or spec.noise == "repetitions" else 1
    whole = rdm_reliability(trials, spec.folds, make, folds_a_half)
    if np.isnan(whole.halves):
        needed = f"at least 4 stimuli, each in {2 * folds_a_half} {spec.folds}s"
        notes.append(f"no reliability of the RDM: too few folds for the RDMs of two halves, which need {needed}")
    elif np.isnan(whole.whole):
        notes.append(f"no reliability of the RDM: those of two halves disagree (r = {whole.halves:.2f})")
    elif spec.measure == "crossnobis":
        notes.append("rdm_reliability and ceiling_within are lower estimates: crossnobis gains more by more folds")
    if spec.measure != "crossnobis" and spec.zscore == "none" and halves_share_folds(trials, spec.folds, folds_a_half):
        notes.append(
            f"stimuli have different {spec.folds}s, so the halves share some: what is common to a {spec.folds} makes "
            f"their RDMs alike; set zscore: {spec.folds}"
        )
    columns: dict[str, object] = {"pattern_halves": patterns.halves, "pattern_reliability": patterns.whole}
    columns |= {"rdm_halves": whole.halves, "rdm_reliability": whole.whole, "ceiling_within": whole.ceiling}
    return columns, notes


def _rdm_maker(spec: BrainSpec, trials: Trials) -> Callable[[Trials], RDMs]:
    """What makes the RDM of these trials, and of halves of them."""
    if spec.noise == "repetitions" and spec.measure == "crossnobis":
        return lambda chosen: crossfitted_rdm(chosen, spec.folds, spec.shrinkage)
    if spec.noise == "repetitions":
        return lambda chosen: measured_rdm(
            chosen, spec.measure, spec.folds, noise_precision(chosen, spec.noise, spec.shrinkage)
        )
    noise = noise_precision(trials, spec.noise, spec.shrinkage)
    return lambda chosen: measured_rdm(chosen, spec.measure, spec.folds, noise)


def _is_repeated(trials: Trials, folds: str) -> bool:
    return not trials.averaged and bool((half_labels(trials, folds) >= 0).any())


def _selection_stimuli(spec: BrainSpec, trials: Trials, root: Path | None) -> Collection[str]:
    assert spec.voxels is not None
    if spec.voxels.stimuli == "all":
        return sorted(set(trials.table["stimulus"]))
    path = spec_folder(spec, root) / spec.voxels.stimuli
    if not path.is_file():
        raise ValueError(f"{spec.name}: no list of stimuli {path}; correct voxels.stimuli, or set it to all")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected text in UTF-8 with a stimulus id a line ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def _check_writable(files: Sequence[Path]) -> None:
    """Raise ValueError where these files could not be written, so that nobody computes for hours to learn it."""
    for file in files:
        folder = next(parent for parent in file.absolute().parents if parent.exists())
        if file.is_dir():
            raise ValueError(f"{file} is a folder; give the name of a file by --out")
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            why = "may not be written to" if folder.is_dir() else "is no folder"
            raise ValueError(f"{file} cannot be written: {folder} {why}; choose another --out")


def _known(asked: Sequence[str] | None, known: tuple[str, ...], what: str, spec: BrainSpec) -> tuple[str, ...]:
    for name in asked or ():
        if name not in known:
            raise ValueError(f"{spec.name}: no {what} '{name}'; the spec has: {', '.join(known)}")
    return known if asked is None else tuple(dict.fromkeys(asked))


def _chosen(rdms: RDMs, subjects: Sequence[str] | None, rois: Sequence[str] | None) -> RDMs:
    asked = {"subject": subjects, "roi": rois}
    return select_rdms(rdms, **{name: list(values) for name, values in asked.items() if values is not None})


def _with_stimulus_columns(rdms: RDMs, table: pd.DataFrame) -> RDMs:
    known = table.loc[list(stimulus_ids(rdms))]
    for name, values in known.items():
        rdms.pattern_descriptors[str(name)] = values.tolist()
    return rdms


def _published_quality(rdms: RDMs) -> pd.DataFrame:
    names = [name for name in ("subject", "roi", "session") if name in rdms.rdm_descriptors]
    table = pd.DataFrame({name: [str(value) for value in rdms.rdm_descriptors[name]] for name in names})
    table["measure"] = rdms.dissimilarity_measure
    # Beside the diagonal, which is 0.
    table["n_stimuli"] = [int(((~np.isnan(matrix)).sum(0) > 1).sum()) for matrix in rdms.get_matrices()]
    columns = {"split_half": "rdm_halves", "reliability": "rdm_reliability", "ceiling": "ceiling_within"}
    table[list(columns.values())] = np.nan
    for roi in table["roi"].unique():
        within = None
        if "session" in names:
            within = within_subject_ceiling(select_rdms(rdms, roi=roi), by="session", method=COMPARISON)
        for _, row in (pd.DataFrame() if within is None else within).iterrows():
            own = (table["roi"] == roi) & (table["subject"] == row["subject"])
            table.loc[own, list(columns.values())] = row[list(columns)].to_numpy(dtype=float)
    return table


def _with_between_subject_ceilings(table: pd.DataFrame, rdms: RDMs, repeated: Collection[str] | None) -> pd.DataFrame:
    """Columns ceiling_low, ceiling_high (of each subject) and ceiling_pairs; NaN where a region has one subject.

    On the pairs that were measured in all subjects of the region, of the stimuli `repeated` (None: all); sessions are
    averaged first.
    """
    judged = np.array([repeated is None or stimulus in repeated for stimulus in stimulus_ids(rdms)])
    i, j = np.triu_indices(len(judged), 1)
    table = table.assign(ceiling_low=np.nan, ceiling_high=np.nan, ceiling_pairs=0, ceiling_comparison=COMPARISON)
    for roi in table["roi"].unique():
        of_roi = select_rdms(rdms, roi=roi)
        kept = {
            name: of_roi.rdm_descriptors[name]
            for name in ("subject", "roi", "session")
            if name in of_roi.rdm_descriptors
        }
        of_roi.rdm_descriptors = kept
        if "session" in kept:
            of_roi = average_rdms(of_roi, over="session")
        everywhere = ~np.isnan(of_roi.get_vectors()).any(0) & judged[i] & judged[j]
        ceiling = noise_ceiling(of_roi, COMPARISON, by="subject", pairs=everywhere)
        for _, row in (pd.DataFrame() if ceiling is None else ceiling.per_subject).iterrows():
            own = (table["roi"] == roi) & (table["subject"] == row["subject"])
            table.loc[own, ["ceiling_low", "ceiling_high"]] = row[["low", "high"]].to_numpy(dtype=float)
            table.loc[own, "ceiling_pairs"] = int(row["n_pairs"])
    notes = table.pop("notes") if "notes" in table else ""
    return table.assign(notes=notes)
