"""Files of RDMs."""

from __future__ import annotations

import hashlib
import io
import mmap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainrdl.rdms.checks import as_vectors, check_finite, n_of_pairs
from brainrdl.rdms.formats import READERS, read_cells
from brainrdl.rdms.hdf5 import rsatoolbox_contents
from brainrdl.rdms.selection import explain_missing, stimulus_ids
from brainrdl.restricted_files import reading
from brainrdl.runs import write_bytes
from brainrdl.stimuli import check_unique

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# Texts in an attribute of HDF5's older format, which holds 64 KiB, 16 bytes a text.
_LONG = 2000
# An attribute of the files that are written here: this, and the SHA-256 of the file with zeros in the digest's place.
_CHECKSUM, _MARK, _ZEROS = "checksum", b"brainrdl-sha256:", b"0" * 64
_RSATOOLBOXS_NAMES = {"squared euclidean": "euclidean", "squared mahalanobis": "mahalanobis"}


def load_rdms(
    path: str | Path,
    stimuli: Sequence[str] | str | Path | None = None,
    key: str | None = None,
    dissimilarity: str | None = None,
    descriptors: Mapping[str, object] | None = None,
) -> RDMs:
    """Read RDMs: rsatoolbox's HDF5, or arrays in .npy, .npz, .csv, .tsv, .mat and .h5.

    Arrays are (n, n) or (n_rdms, n, n), or condensed, (n_pairs,) or (n_rdms, n_pairs), NaN = not measured. A .mat file
    may hold the struct array of the MATLAB RSA toolbox: its names become the rdm_descriptor `name`.
    stimuli: ids in the order of the file's rows, or a file of them: .txt with an id a line, .csv or .tsv with a
        column `stimulus`. Needed where the file itself names none.
    key: which array of a .npz, .mat or .h5 file; None where there is one only, or for rsatoolbox's HDF5.
    dissimilarity: the measure, where the file does not say. rsatoolbox's "squared euclidean" and
        "squared mahalanobis" are called "euclidean" and "mahalanobis", as everywhere here: they are the same numbers.
    descriptors: rdm_descriptor -> a value an RDM, or one for all.
    Raises ValueError naming the file: missing, cut short, damaged (one that was written here carries a checksum), a
    pickle; RDMs that are not square, symmetric,
    zero on the diagonal, or of another size than their stimuli; infinite values; ids doubled or unknown.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"RDM file '{path}' is not there; correct its name, or make or fetch it")
    suffix = path.suffix.lower()
    ids = None if stimuli is None else given_ids(stimuli)
    if suffix not in READERS:
        what = "a pickle is code to be run" if suffix in (".pkl", ".pickle") else f"'{suffix}' is none of them"
        raise ValueError(
            f"{path}: RDMs are read from {', '.join(READERS)}; {what}: save them with rsatoolbox's "
            "RDMs.save(..., file_type='hdf5'), or as a plain array"
        )
    if suffix in (".h5", ".hdf5"):
        _check_checksum(path)
    of_rsatoolbox = suffix in (".h5", ".hdf5") and key is None
    rdms = _load_rsatoolboxs(path, ids) if of_rsatoolbox else _load_array(path, key, ids)
    own, given = measure_name(rdms.dissimilarity_measure), measure_name(dissimilarity)
    if own and given and own != given:
        raise ValueError(f"{path}: its dissimilarities are '{own}', but '{given}' was given; leave it out")
    rdms.dissimilarity_measure = own or given
    for name, value in (descriptors or {}).items():
        rdms.rdm_descriptors[name] = _an_rdm_each(value, rdms.n_rdm, f"{path}: descriptor '{name}'")
    return rdms


def save_rdms(rdms: RDMs, path: str | Path) -> None:
    """Write rsatoolbox's HDF5, which `rsatoolbox.rdm.load_rdm` reads; an existing file is replaced.

    Its attribute `checksum` lets `load_rdms` tell that nothing in it has changed.
    Raises ValueError for a path that does not end with .h5 or .hdf5: it could not be read again.
    """
    from rsatoolbox.rdm import RDMs

    path = Path(path)
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"{path}: RDMs are written as HDF5; expected a name that ends with .h5")
    descriptors = {
        kind: {name: _storable(values) for name, values in getattr(rdms, kind).items()}
        for kind in ("rdm_descriptors", "pattern_descriptors")
    }
    long = {
        (kind, name): values.pop(name)
        for kind, values in descriptors.items()
        for name in list(values)
        if isinstance(values[name], tuple) and len(values[name]) > _LONG
    }
    buffer = io.BytesIO()
    RDMs(rdms.dissimilarities, rdms.dissimilarity_measure, rdms.descriptors, **descriptors).save(buffer, "hdf5")
    if long:
        _add_long_text(buffer, long)
    _add_checksum(buffer)
    write_bytes(path, buffer.getvalue())


def measure_name(measure: str | None) -> str | None:
    """The measure as it is called here: rsatoolbox's "squared euclidean" is its own "euclidean"."""
    return None if measure is None else _RSATOOLBOXS_NAMES.get(str(measure), str(measure))


def _load_rsatoolboxs(path: Path, ids: tuple[str, ...] | None) -> RDMs:
    from rsatoolbox.rdm.rdms import rdms_from_dict

    problem = "is not an RDM file of rsatoolbox (HDF5)"
    remedy = "write it with rsatoolbox's RDMs.save(..., file_type='hdf5'), or say by `key` which array holds RDMs"
    contents = rsatoolbox_contents(path, problem, remedy)
    with reading(path, problem, remedy):
        rdms: RDMs = rdms_from_dict(contents)
    n_pairs = rdms.dissimilarities.shape[1]
    if n_of_pairs(n_pairs) is None:
        raise ValueError(f"{path}: its RDMs have {n_pairs} pairs, which no number of stimuli has; write it again")
    if "stimulus" in rdms.pattern_descriptors:
        try:
            own = stimulus_ids(rdms)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        _check_same(own, ids, path)
    elif ids is not None:
        if len(ids) != rdms.n_cond:
            raise ValueError(
                f"{path}: RDMs over {rdms.n_cond} stimuli, but {len(ids)} ids were given; give one a row of the RDM"
            )
        rdms.pattern_descriptors["stimulus"] = list(ids)
    check_finite(rdms.dissimilarities, rdms.pattern_descriptors.get("stimulus", range(rdms.n_cond)), str(path))
    return rdms


def _load_array(path: Path, key: str | None, ids: tuple[str, ...] | None) -> RDMs:
    from rsatoolbox.rdm import RDMs

    contents = READERS[path.suffix.lower()](path, key, None if ids is None else len(ids))
    if contents.stimuli is not None:
        _check_same(contents.stimuli, ids, path)
        ids = contents.stimuli
    if ids is None:
        raise ValueError(
            f"{path}: the file does not say which stimuli its rows are; give `stimuli`, their ids in the order of the "
            "rows, or a file of them"
        )
    vectors = as_vectors(contents.values, ids, str(path))
    return RDMs(
        vectors,
        rdm_descriptors={} if contents.names is None else {"name": contents.names},
        pattern_descriptors={"stimulus": list(ids)},
    )


def given_ids(stimuli: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Ids, all different, from a list or a file: .txt with an id a line, .csv or .tsv with a column `stimulus`.

    Raises ValueError where there is no such file, it is not of that kind, or an id stands twice.
    """
    if not isinstance(stimuli, str | Path):
        ids, what = tuple(str(stimulus) for stimulus in stimuli), "stimuli"
    else:
        path = Path(stimuli)
        what = str(path)
        if not path.is_file():
            raise ValueError(
                f"{path}: no such file of stimuli; give a list of ids, or a .txt, .tsv or .csv file of them"
            )
        if path.suffix.lower() in (".tsv", ".csv"):
            header, *rows = read_cells(path).tolist()
            if "stimulus" not in header:
                raise ValueError(f"{path}: the column 'stimulus' is missing; it has: {', '.join(header)}")
            ids = tuple(row[header.index("stimulus")] for row in rows)
        else:
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: expected text with an id a line, got something else ({error})") from None
            ids = tuple(line for line in lines if line.strip())
    check_unique(ids, what)
    return ids


def _check_same(own: Sequence[str], given: Sequence[str] | None, path: Path) -> None:
    """Raise ValueError where ids were given that are not the file's own, in its order."""
    if given is None or list(own) == list(given):
        return
    differing = next((k for k, (a, b) in enumerate(zip(own, given, strict=False)) if a != b), None)
    where = (
        f"it has {len(own)} stimuli and {len(given)} were given"
        if differing is None
        else f"row {differing} is '{own[differing]}', and '{given[differing]}' was given"
    )
    raise ValueError(
        f"{path}: the file names its own stimuli, and not those given: {where}; leave `stimuli` out"
        + (f". {hint}" if (hint := explain_missing(given, own)) else "")
    )


def _an_rdm_each(value: object, n_rdms: int, what: str) -> list[Any]:
    if not isinstance(value, list | tuple | np.ndarray):
        return [value] * n_rdms
    if len(value) != n_rdms:
        raise ValueError(f"{what}: {len(value)} values for {n_rdms} RDMs; give one an RDM, or one for all")
    return list(value)


def _add_long_text(buffer: io.BytesIO, texts: Mapping[tuple[str, str], Sequence[object]]) -> None:
    """Write (kind, name) -> values as attributes of groups in HDF5's newer format, which may be of any size.

    rsatoolbox makes groups in the older format; what is in them is moved.
    """
    import h5py

    with h5py.File(buffer, "r+", libver="latest") as file:
        for (kind, name), values in texts.items():
            group = file.create_group("replacement")
            for attribute, value in file[kind].attrs.items():
                group.attrs[attribute] = value
            for dataset in list(file[kind]):
                file.move(f"{kind}/{dataset}", f"replacement/{dataset}")
            group.attrs[name] = list(values)
            del file[kind]
            file.move("replacement", kind)


def _add_checksum(buffer: io.BytesIO) -> None:
    import h5py

    with h5py.File(buffer, "r+") as file:
        file.attrs[_CHECKSUM] = np.bytes_(_MARK + _ZEROS)
    view = buffer.getbuffer()
    start = bytes(view).index(_MARK + _ZEROS) + len(_MARK)
    view[start : start + len(_ZEROS)] = hashlib.sha256(view).hexdigest().encode()


def _check_checksum(path: Path) -> None:
    """Raise ValueError where the file carries a checksum and is not what was written; before anything parses it."""
    with open(path, "rb") as file:
        if not file.seek(0, io.SEEK_END):
            raise ValueError(f"{path}: is empty; write it again, or restore it")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            start = whole.find(_MARK) + len(_MARK)
            if start < len(_MARK):
                return
            digest = hashlib.sha256()
            with memoryview(whole) as view:
                for part in (view[:start], _ZEROS, view[start + len(_ZEROS) :]):
                    digest.update(part)
                    if isinstance(part, memoryview):
                        part.release()
            told = whole[start : start + len(_ZEROS)]
    if told != digest.hexdigest().encode():
        raise ValueError(
            f"{path}: was damaged or changed since it was written (its checksum is another); restore it, write it "
            f"again or, if you changed it on purpose, delete its attribute '{_CHECKSUM}'"
        )


def _storable(values: Iterable[object]) -> Sequence[object]:
    """rsatoolbox writes lists of text as ASCII; a tuple it writes as an attribute, which holds any character."""
    values = list(values)
    if any(isinstance(value, str) and not value.isascii() for value in values):
        return tuple(str(value) for value in values)
    return values
