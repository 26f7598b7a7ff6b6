"""Reading what a brain data spec describes: responses by trial, or RDMs that were made already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brainrdl.data.stimulus_set import StimulusSet, read_stimulus_set, read_stimulus_table
from brainrdl.fmri.betas import read_betas
from brainrdl.fmri.bold import read_bold
from brainrdl.fmri.layouts import read_layout
from brainrdl.fmri.spec import BrainSpec, RdmFile, RdmFiles, load_brain_spec, spec_folder
from brainrdl.fmri.trials import Trials
from brainrdl.rdms import explain_missing, join_rdms, load_rdms, stimulus_ids, subset_stimuli
from brainrdl.rdms.formats import read_table

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


def read_stimuli(name: str, root: Path | None = None) -> StimulusSet:
    """The images of a brain data spec (a built-in's name or a YAML file) and their table; no image is read yet.

    root: the data root. Raises ValueError where the spec tells nothing of stimuli, and as `read_stimulus_set`.
    """
    spec = load_brain_spec(name)
    if spec.stimuli is None:
        raise ValueError(f"brain data spec '{name}': it tells nothing of stimuli; add stimuli (table and file)")
    return read_stimulus_set(spec.stimuli, spec_folder(spec, root), spec.name)


def read_trials(spec: BrainSpec, subject: str, roi: str, root: Path | None = None) -> Trials:
    """The responses of a subject in a region as they stand in the files, whatever the spec's format but "rdms".

    root: the data root. Raises ValueError: a subject or region the spec does not name, files missing, damaged or not
    fitting each other, trials of stimuli that the spec's table does not have.
    """
    if isinstance(spec.data, RdmFiles):
        raise ValueError(f"{spec.name}: there are RDMs only, no responses; read them with read_rdms")
    for what, name, known in (("subject", subject, spec.subjects), ("roi", roi, tuple(spec.rois))):
        if name not in known:
            raise ValueError(f"{spec.name}: no {what} '{name}'; the spec has: {', '.join(known)}")
    folder = spec_folder(spec, root)
    readers = {"bold": read_bold, "betas": read_betas}
    trials = readers.get(spec.data.format, read_layout)(spec, folder, subject, roi)
    if spec.stimuli is not None:
        ids = read_stimulus_table(spec.stimuli, folder, spec.name).index
        unknown = sorted(set(trials.table["stimulus"]) - set(ids))
        if unknown:
            first = trials.table[trials.table["stimulus"] == unknown[0]].iloc[0]
            where = "".join(f", {part} '{first[part]}'" for part in ("session", "run") if first[part])
            raise ValueError(
                f"{spec.name}: {len(unknown)} stimuli of subject '{subject}' are not in the stimulus table, the first "
                f"is '{unknown[0]}'{where}; {explain_missing(unknown, ids) or 'add them, or put them into ignore'}"
            )
    return trials


def read_rdms(spec: BrainSpec, root: Path | None = None) -> RDMs:
    """The published RDMs of a spec of format "rdms", in one object.

    Returns rdm_descriptors subject, roi and session (where there is one), and pattern_descriptors stimulus and the
    other columns of the spec's stimulus table, in its order. NaN = not measured. Raises ValueError as `load_rdms`, and
    for a file that tells no subject or roi, or whose stimuli are not the table's.
    """
    if not isinstance(spec.data, RdmFiles) or spec.stimuli is None:
        raise ValueError(f"{spec.name}: format '{spec.data.format}' has no RDMs yet; make them with `brainrdl rdms`")
    folder = spec_folder(spec, root)
    table = read_stimulus_table(spec.stimuli, folder, spec.name)
    rdms = join_rdms([_read_file(folder, file, list(table.index)) for file in spec.data.files])
    for name, values in table.items():
        rdms.pattern_descriptors[str(name)] = values.tolist()
    return rdms


def _read_file(folder: Path, file: RdmFile, ids: list[str]) -> RDMs:
    path = folder / file.file
    own_ids = _names_its_stimuli(path, file.key, len(ids))
    descriptors = {name: list(v) if isinstance(v, tuple) else v for name, v in file.descriptors.items()}
    rdms = load_rdms(path, None if own_ids else ids, file.key, file.measure, descriptors)
    if "stimulus" not in rdms.pattern_descriptors:
        raise ValueError(
            f"{path}: its RDMs have no pattern descriptor 'stimulus' but {', '.join(rdms.pattern_descriptors)}; give "
            "them one, the ids of the spec's table, and save them again"
        )
    own = stimulus_ids(rdms)
    lacking, beyond = sorted(set(ids) - set(own)), sorted(set(own) - set(ids))
    if lacking or beyond:
        told = [f"{len(lacking)} of the table's are not in it, the first is '{lacking[0]}'"] if lacking else []
        told += [f"{len(beyond)} of its own are not in the table, the first is '{beyond[0]}'"] if beyond else []
        remedy = explain_missing(own, ids) or "list in the table what the RDMs are of"
        raise ValueError(f"{path}: its stimuli are not those of the spec's table: {', '.join(told)}; {remedy}")
    for name in ("subject", "roi"):
        if name not in rdms.rdm_descriptors:
            raise ValueError(f"{path}: it does not say the {name} of its RDMs; give descriptors: {name} in the spec")
    # Others, such as a name an RDM, would keep RDMs apart that belong together.
    kept = {"subject", "roi", "session", *file.descriptors}
    rdms.rdm_descriptors = {name: values for name, values in rdms.rdm_descriptors.items() if name in kept}
    return subset_stimuli(rdms, ids)


def _names_its_stimuli(path: Path, key: str | None, n_stimuli: int) -> bool:
    """Whether a file of RDMs says what its rows are, so that they are matched by id and not by position."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        return key is None
    is_table = path.suffix.lower() in (".csv", ".tsv") and path.is_file()
    return is_table and read_table(path, key, n_stimuli).stimuli is not None
