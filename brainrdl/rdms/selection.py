"""RDMs chosen, averaged, joined and cut to stimuli: by descriptor and by id, never by position."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from brainrdl.stimuli import check_unique

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

Rescale = Literal["evidence", "setsize", "simple"]
_RESCALE = ("evidence", "setsize", "simple")
# What says how an RDM came about rather than what it is of: it does not keep RDMs apart.
_BOOKKEEPING = ("index", "n_averaged", "n_voxels", "n_folds", "dof", "notes")
# Of RDMs that were joined and are not all of one measure.
_MEASURE = "dissimilarity_measure"


def stimulus_ids(rdms: RDMs, descriptor: str = "stimulus") -> tuple[str, ...]:
    """The stimuli of the RDMs, in their order: a pattern descriptor as text.

    Raises ValueError where there is no such descriptor, or an id stands twice.
    """
    if descriptor not in rdms.pattern_descriptors:
        raise ValueError(
            f"RDMs need the pattern descriptor '{descriptor}'; these have {', '.join(rdms.pattern_descriptors)}"
        )
    ids = tuple(str(stimulus) for stimulus in rdms.pattern_descriptors[descriptor])
    check_unique(ids, f"pattern descriptor '{descriptor}'")
    return ids


def select_rdms(rdms: RDMs, **descriptors: object) -> RDMs:
    """The RDMs whose descriptors have these values, in their order: `select_rdms(rdms, roi="IT", subject=[...])`.

    A value is compared as text; of several values each must be there. RDMs of one measure out of several that were
    joined are of that measure again. Raises ValueError, naming what there is, for a descriptor or a value that no RDM
    has.
    """
    chosen = np.ones(rdms.n_rdm, dtype=bool)
    for name, wanted in descriptors.items():
        values = rdm_descriptor(rdms, name)
        known = set(values)
        if isinstance(wanted, str) or not isinstance(wanted, Iterable):
            wanted = [wanted]
        accepted = [str(value) for value in wanted]
        for value in accepted:
            if value not in known:
                raise ValueError(f"no RDM has {name} '{value}'; there are: {', '.join(dict.fromkeys(values))}")
        chosen &= [value in accepted for value in values]
    if not chosen.any():
        asked = ", ".join(f"{name}={wanted}" for name, wanted in descriptors.items())
        raise ValueError(f"no RDM has all of {asked}; each is there, but not together")
    return _take(rdms, np.flatnonzero(chosen))


def average_rdms(rdms: RDMs, over: str | Sequence[str] = "subject", rescale: Rescale | None = None) -> RDMs:
    """The mean over descriptors such as subject and session; RDMs that differ in any other descriptor stay apart.

    NaN (not measured) is left out of the mean; a pair that no RDM measured stays NaN. over: the descriptors to
    average over; they are gone afterwards, as is what is an RDM's own (n_voxels, dof, …), and `n_averaged` says how
    many RDMs went into each mean.
    rescale: bring the RDMs of each mean to one scale first, by `rsatoolbox.rdm.combine.rescale`, and weigh them as it
    says: for measures whose unit differs between subjects. The result has no unit (its root sum of squares is about 1)
    and its measure is called "rescaled ...".
    Raises ValueError for unknown descriptors or rescaling, and where other descriptors keep all RDMs apart.
    """
    from rsatoolbox.rdm import RDMs

    over = [over] if isinstance(over, str) else list(over)
    if not over:
        raise ValueError("average over at least one descriptor, such as 'subject'")
    if rescale is not None and rescale not in _RESCALE:
        raise ValueError(f"unknown rescaling '{rescale}'; expected one of {', '.join(_RESCALE)}")
    varying = {name for name in over if len(set(rdm_descriptor(rdms, name))) > 1}
    kept, groups = group_rdms(rdms, over)
    if varying and len(groups) == rdms.n_rdm:
        apart = [name for name in kept if len(set(rdm_descriptor(rdms, name))) > 1]
        raise ValueError(
            f"averaging over {', '.join(over)} leaves all {rdms.n_rdm} RDMs as they are: they differ in "
            f"{', '.join(apart)}, too; average over that as well, or take it away"
        )
    firsts = [rows[0] for rows in groups.values()]
    measure = rdms.dissimilarity_measure
    return RDMs(
        np.stack([_mean(rdms.dissimilarities[rows], rescale) for rows in groups.values()]),
        dissimilarity_measure=f"rescaled {measure}" if rescale and measure else measure,
        descriptors=dict(rdms.descriptors),
        rdm_descriptors={
            **{name: [rdms.rdm_descriptors[name][k] for k in firsts] for name in kept},
            "n_averaged": [len(rows) for rows in groups.values()],
        },
        pattern_descriptors=_without_index(rdms.pattern_descriptors),
    )


def group_rdms(rdms: RDMs, over: Sequence[str]) -> tuple[list[str], dict[tuple[str, ...], list[int]]]:
    """The descriptors besides `over` that tell RDMs apart, and the rows of RDMs for each combination of their values.

    How an RDM came about (n_voxels, dof, notes, …) does not tell it apart.
    """
    kept = [name for name in rdms.rdm_descriptors if name not in (*over, *_BOOKKEEPING)]
    groups: dict[tuple[str, ...], list[int]] = {}
    for k in range(rdms.n_rdm):
        groups.setdefault(tuple(str(rdms.rdm_descriptors[name][k]) for name in kept), []).append(k)
    return kept, groups


def subset_stimuli(rdms: RDMs, ids: Sequence[str], descriptor: str = "stimulus") -> RDMs:
    """The RDMs over these stimuli alone, in the order of `ids`.

    ids: values of the pattern descriptor, all different. Raises ValueError for one they do not have.
    """
    from rsatoolbox.rdm import RDMs

    known = stimulus_ids(rdms, descriptor)
    check_unique(ids, "stimuli to keep")
    row = {stimulus: k for k, stimulus in enumerate(known)}
    missing = [stimulus for stimulus in ids if stimulus not in row]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(ids)} stimuli are not in the RDMs, the first is '{missing[0]}'; "
            + (explain_missing(missing, known) or "ask for those that are")
        )
    rows = np.array([row[stimulus] for stimulus in ids], dtype=np.int64)
    i, j = np.triu_indices(len(rows), 1)
    low, high = np.minimum(rows[i], rows[j]), np.maximum(rows[i], rows[j])
    return RDMs(
        rdms.dissimilarities[:, pair_position(low, high, len(known))],
        dissimilarity_measure=rdms.dissimilarity_measure,
        descriptors=dict(rdms.descriptors),
        rdm_descriptors=_without_index(rdms.rdm_descriptors),
        pattern_descriptors={
            name: [values[k] for k in rows] for name, values in _without_index(rdms.pattern_descriptors).items()
        },
    )


def join_rdms(parts: Sequence[RDMs], union: bool = False) -> RDMs:
    """All RDMs of `parts` in one object, joined by the pattern descriptor `stimulus`, never by position.

    union: over the stimuli that any part has, sorted by id, NaN where a part lacks one; no descriptor of stimuli but
    their ids. Else the parts' stimuli must be the same, and stand in the order of the first. The measure is the common
    one, None where the parts' differ (pixels and labels); then the descriptor `dissimilarity_measure` says each RDM's,
    "" where it is not known. Descriptors of RDMs are those that every part has, of stimuli the first's. Raises
    ValueError where the parts' stimuli differ, and where there is no part.
    """
    from rsatoolbox.rdm import RDMs

    if not parts:
        raise ValueError("no RDMs to join; give at least one RDMs object")
    first = parts[0]
    order = stimulus_ids(first)
    patterns = {name: list(values) for name, values in first.pattern_descriptors.items()}
    if union:
        order = tuple(sorted({stimulus for part in parts for stimulus in stimulus_ids(part)}))
        patterns = {"stimulus": list(order)}
        parts = [_with_stimuli(part, order) for part in parts]
    vectors = []
    for part in parts:
        if differing := sorted(set(stimulus_ids(part)) ^ set(order)):
            raise ValueError(
                f"RDMs to be joined are not over the same stimuli: {len(differing)} differ, the first is "
                f"'{differing[0]}'; compute them for one set of stimuli"
            )
        vectors.append(subset_stimuli(part, order).dissimilarities)
    names = [name for name in first.rdm_descriptors if all(name in part.rdm_descriptors for part in parts)]
    descriptors = {
        name: [value for part in parts for value in part.rdm_descriptors[name]] for name in names if name != "index"
    }
    measures = [measure for part in parts for measure in _measures(part)]
    if len(set(measures)) > 1:
        descriptors[_MEASURE] = measures
    return RDMs(
        np.concatenate(vectors),
        dissimilarity_measure=(measures[0] or None) if len(set(measures)) == 1 else None,
        rdm_descriptors=descriptors,
        pattern_descriptors=patterns,
    )


class Matched(NamedTuple):
    """rdms: all of them over the stimuli that all have. notes: what was left out for that, a line for each part."""

    rdms: RDMs
    notes: tuple[str, ...]


def match_rdms(parts: Sequence[RDMs], names: Sequence[str]) -> Matched:
    """RDMs of any origin over the stimuli that all of them have, by id, in the order of the first part.

    names: what each part is called in messages (its file, say). Joined as by `join_rdms`.
    Raises ValueError where fewer than 3 stimuli are common to all, saying what ids would match if written alike, and
    where there is no part.
    """
    if not parts:
        raise ValueError("no RDMs to match; give at least one RDMs object")
    known = [stimulus_ids(part) for part in parts]
    shared = set(known[0]).intersection(*known[1:])
    common = [stimulus for stimulus in known[0] if stimulus in shared]
    if len(common) < 3:
        other = min(range(len(parts)), key=lambda k: len(set(known[0]) & set(known[k])))
        hint = explain_missing(known[0], known[other])
        raise ValueError(
            f"{', '.join(names)}: {len(common)} stimuli are common to all, expected at least 3; "
            f"'{names[0]}' has '{known[0][0]}', …, '{names[other]}' has '{known[other][0]}', …"
            + (f". {hint}" if hint else "; give RDMs over the same stimuli")
        )
    notes = []
    for name, ids in zip(names, known, strict=True):
        if len(ids) > len(common):
            dropped = next(stimulus for stimulus in ids if stimulus not in shared)
            notes.append(
                f"{name}: {len(ids) - len(common)} of {len(ids)} stimuli are left out, which not all RDMs have; the "
                f"first is '{dropped}'"
            )
    return Matched(join_rdms([subset_stimuli(part, common) for part in parts]), tuple(notes))


def pair_position(low: Any, high: Any, n_stimuli: int) -> Any:
    """Where the pair of the stimuli low < high stands in a condensed RDM; of numbers, arrays or tensors."""
    return low * (2 * n_stimuli - low - 1) // 2 + high - low - 1


def explain_missing(wanted: Iterable[str], known: Iterable[str]) -> str:
    """Which ids would match if they were written alike, in a sentence; "" where none would.

    wanted: ids that were looked for, known: those there are. For messages: nothing is ever matched so.
    """
    known = set(known)
    missing: list[Any] = [stimulus for stimulus in wanted if stimulus not in known]  # numbers, too, by mistake
    for change, written_alike in _SPELLINGS.items():
        alike = {written_alike(stimulus): stimulus for stimulus in known}
        matching = [(stimulus, alike[key]) for stimulus in missing if (key := written_alike(str(stimulus))) in alike]
        if matching:
            first, other = matching[0]
            return (
                f"{len(matching)} would match after {change}, the first is '{first}' for '{other}'; "
                "ids are not guessed: write them alike"
            )
    return ""


def rdm_descriptor(rdms: RDMs, name: str) -> list[str]:
    """A descriptor of the RDMs as text. Raises ValueError, naming those there are, where there is no such."""
    if name not in rdms.rdm_descriptors:
        raise ValueError(f"the RDMs have no descriptor '{name}'; they have: {', '.join(rdms.rdm_descriptors)}")
    return [str(value) for value in rdms.rdm_descriptors[name]]


def _with_stimuli(rdms: RDMs, ids: Sequence[str]) -> RDMs:
    """The RDMs over all of `ids`, in that order; NaN where they lack one."""
    from rsatoolbox.rdm import RDMs

    row = {stimulus: k for k, stimulus in enumerate(ids)}
    rows = [row[stimulus] for stimulus in stimulus_ids(rdms)]
    whole = np.full((rdms.n_rdm, len(ids), len(ids)), np.nan)
    whole[:, np.array(rows)[:, None], rows] = rdms.get_matrices()
    i, j = np.triu_indices(len(ids), 1)
    return RDMs(
        whole[:, i, j],
        dissimilarity_measure=rdms.dissimilarity_measure,
        rdm_descriptors=_without_index(rdms.rdm_descriptors),
        pattern_descriptors={"stimulus": list(ids)},
    )


def _take(rdms: RDMs, rows: np.ndarray) -> RDMs:
    """The RDMs at `rows`, in that order, counted anew."""
    from rsatoolbox.rdm import RDMs

    descriptors = {name: [values[k] for k in rows] for name, values in _without_index(rdms.rdm_descriptors).items()}
    measures = {_measures(rdms)[k] for k in rows}
    if len(measures) == 1:
        descriptors.pop(_MEASURE, None)
    return RDMs(
        rdms.dissimilarities[rows],
        dissimilarity_measure=(measures.pop() or None) if len(measures) == 1 else None,
        descriptors=dict(rdms.descriptors),
        rdm_descriptors=descriptors,
        pattern_descriptors=_without_index(rdms.pattern_descriptors),
    )


def _measures(rdms: RDMs) -> list[str]:
    """Of each RDM; "" where it is not known. Those that were joined say theirs, if it is not that of all."""
    if rdms.dissimilarity_measure is None and _MEASURE in rdms.rdm_descriptors:
        return rdm_descriptor(rdms, _MEASURE)
    return [str(rdms.dissimilarity_measure or "")] * rdms.n_rdm


def _mean(vectors: np.ndarray, rescale: Rescale | None) -> np.ndarray:
    """(n_pairs,): the mean over the rows of what was measured."""
    vectors = vectors.astype(np.float64)
    weights = np.ones_like(vectors)
    if rescale is not None and not np.isnan(vectors).all():
        from rsatoolbox.rdm import RDMs
        from rsatoolbox.rdm.combine import rescale as rescaled

        with np.errstate(invalid="ignore", divide="ignore"):  # pairs that none of them measured
            scaled = rescaled(RDMs(vectors), method=rescale)
        vectors, weights = scaled.dissimilarities, scaled.rdm_descriptors["rescalingWeights"]
    measured = ~np.isnan(vectors)
    total = np.where(measured, weights, 0).sum(0)
    weighted = np.where(measured, vectors * weights, 0).sum(0)
    mean: np.ndarray = np.divide(weighted, total, out=np.full_like(weighted, np.nan), where=total > 0)
    return mean


def _without_index(descriptors: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """A copy without rsatoolbox's count, which it makes anew."""
    return {name: list(values) for name, values in descriptors.items() if name != "index"}


def _without_suffix(stimulus: str) -> str:
    return stimulus.removesuffix(PurePath(stimulus.strip()).suffix)


_SPELLINGS: dict[str, Callable[[str], str]] = {
    "writing numbers as text": str,
    "trimming whitespace": str.strip,
    "changing case": str.casefold,
    "dropping a file suffix": _without_suffix,
    "dropping leading zeros": lambda stimulus: re.sub(r"(?<!\d)0+(?=\d)", "", stimulus),
    "trimming whitespace, changing case and dropping a file suffix": lambda stimulus: _without_suffix(
        stimulus.strip()
    ).casefold(),
}
