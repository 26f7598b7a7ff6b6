"""Files of measured data for `fuzz.py`: RDMs, patterns, images of brains and their masks, events, confounds, tables.

Each generator writes a small sound data set, and in about two of three cases damages one of its files, or writes it in
a way that lies. Of sound ones `sound` compares what was read, or came out, with what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from brain_files import GENERATORS as BRAINS
from brain_files import SHARES as BRAIN_SHARES
from damaged_files import VALID, damage_file, damage_text
from fuzz import Case, Generator
from layout_files import GENERATORS as LAYOUTS
from layout_files import SHARES as LAYOUT_SHARES
from lying_files import lie_in_array
from rdm_files import draw_ids, draw_vectors, write_array, write_rsatoolboxs

Random = np.random.Generator


def _assert_read_as_written(
    name: str, options: Sequence[str], vectors: np.ndarray, ids: Sequence[str], precision: float
) -> None:
    """`load_rdms` gives back the pairs that were written, by id."""
    from brainrdl.rdms import load_rdms, subset_stimuli

    given = dict(zip(options[::2], options[1::2], strict=True))
    rdms = load_rdms(name, given.get("--ids"), given.get("--key"))
    assert set(rdms.pattern_descriptors["stimulus"]) == set(ids), "other stimuli were read"
    read = subset_stimuli(rdms, ids).dissimilarities
    written = vectors[: len(read)]
    close = np.allclose(read, written, rtol=precision, atol=precision * np.nanmax(np.abs(written)), equal_nan=True)
    assert read.shape == written.shape and close, "other numbers were read"


def rdm_files(g: Random, folder: Path) -> Case:
    """RDMs in one of all formats, drawn by `brainrdl figure`."""
    suffix = str(g.choice([".h5", ".h5", ".h5", ".npy", ".npz", ".mat", ".csv", ".tsv"]))
    path = folder / f"brain{suffix}"
    of_rsatoolbox = suffix == ".h5" and g.random() < 0.7
    kind = str(g.choice(["rdm", "rdm", "stimulus-mds", "mds" if of_rsatoolbox else "rdm"]))
    n = int(g.integers(4, 9))
    n_rdms = {"stimulus-mds": 1, "mds": 3}.get(kind, int(g.integers(1, 4)))
    vectors, ids = draw_vectors(g, n, n_rdms, estimates=kind == "rdm"), draw_ids(g, n)
    options: list[str] = []
    if of_rsatoolbox:
        write_rsatoolboxs(path, vectors, ids, g)
    else:
        options = write_array(path, vectors, ids, g)
    whole = g.random() < VALID
    if not whole:
        how = g.random()
        if how < 0.45:
            lie_in_array(g, path, ids)
        elif how < 0.7 and suffix in (".csv", ".tsv"):
            damage_text(g, path)
        elif how < 0.95 or "--ids" not in options:
            damage_file(g, path)
        else:
            damage_text(g, folder / "ids.txt")
    arguments = ["figure", kind, path.name, *options, "--out", f"figure.{g.choice(['png', 'svg'])}"]
    if kind == "mds":
        arguments += ["--bootstrap", "0"]
    kept = vectors if suffix not in (".csv", ".tsv") else vectors[:1]
    sound = None
    if whole:
        sound = partial(_assert_read_as_written, path.name, options, kept, ids, 2e-3)
    return Case("RDM file", arguments, (path.name, "ids.txt"), valid=True if whole else None, sound=sound)


def pattern_files(g: Random, folder: Path) -> Case:
    """Patterns of stimuli, of which `brainrdl figure --patterns` makes RDMs."""
    import h5py
    from scipy.io import savemat

    suffix = str(g.choice([".npy", ".npz", ".h5", ".mat", ".csv", ".txt", ".pt"]))
    path, n = folder / f"patterns{suffix}", int(g.integers(4, 9))
    ids, values = draw_ids(g, n), g.normal(size=(n, int(g.integers(2, 12))))
    (folder / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".npz":
        np.savez_compressed(path, a=values)
    elif suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["a"] = values
    elif suffix == ".mat":
        savemat(path, {"a": values})
    elif suffix == ".pt":
        _write_tensor(g, path, values)
    else:
        np.savetxt(path, values, delimiter="," if suffix == ".csv" else " ", fmt="%.17g")
    whole = g.random() < VALID
    if not whole:
        how = g.random()
        if suffix == ".pt" and how < 0.5:
            _lie_in_tensor(g, path, values)
        elif suffix in (".csv", ".txt") and how < 0.6:
            damage_text(g, path)
        elif suffix not in (".csv", ".txt", ".pt") and how < 0.6:
            lie_in_array(g, path, ids)
        elif how < 0.9:
            damage_file(g, path)
        else:
            damage_text(g, folder / "ids.txt")
    kind = str(g.choice(["rdm", "stimulus-mds"]))
    arguments = ["figure", kind, path.name, "--patterns", "--ids", "ids.txt", "--out", "figure.png"]

    def sound() -> None:
        if whole:
            from brainrdl.rdms import load_features

            read = load_features(path.name, "ids.txt")
            assert read.ids == tuple(ids) and np.allclose(read.values, values), "other patterns were read"

    files = (path.name, "ids.txt")
    return Case("patterns", arguments, files, valid=True if whole else None, sound=sound)


def _write_tensor(g: Random, path: Path, values: np.ndarray) -> None:
    import torch

    tensor = torch.from_numpy(values)
    torch.save(tensor.requires_grad_() if g.random() < 0.3 else tensor, path)


def _lie_in_tensor(g: Random, path: Path, values: np.ndarray) -> None:
    """What is no plain tensor."""
    import torch

    tensor = torch.from_numpy(values)
    told = [
        tensor.to_sparse(),
        tensor[:1, :1].expand(100_000, 1_000_000),
        {"a": tensor},
        tensor.to(torch.complex64),
        torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        tensor.to("meta"),
        [1, 2, 3],
        tensor[:0],
        tensor.to(torch.float8_e4m3fn),
        tensor.conj().to(torch.complex64).conj(),
    ]
    torch.save(told[int(g.integers(len(told)))], path, _use_new_zipfile_serialization=bool(g.random() < 0.7))


GENERATORS: dict[str, Generator] = {"RDM file": rdm_files, "patterns": pattern_files, **BRAINS, **LAYOUTS}
SHARES: dict[str, float] = {"RDM file": 2.0, **BRAIN_SHARES, **LAYOUT_SHARES}
