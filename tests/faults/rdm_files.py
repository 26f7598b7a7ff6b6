"""Sound files of RDMs, in all formats that are read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Random = np.random.Generator


def draw_ids(g: Random, n: int) -> list[str]:
    """Different ids of a kind that people use."""
    kind = g.integers(6)
    if kind == 0:
        return [f"stim{k:03d}" for k in range(n)]
    if kind == 1:
        return [f"n{k:08d}_{k}.JPEG" for k in range(n)]
    if kind == 2:
        return [f"{k + 1:02d} größe é {k}" for k in range(n)]
    if kind == 3:
        return [f"001/{k}" for k in range(n)]
    if kind == 4:
        return [f"dog {k}, brown" for k in range(n)]
    return [f"$x_{k}^2$ <b>{k}</b>" for k in range(n)]


def draw_vectors(g: Random, n: int, n_rdms: int, estimates: bool = True) -> np.ndarray:
    """(n_rdms, n_pairs): squared distances of points; estimates: some not measured, or negative as of crossnobis."""
    from scipy.spatial.distance import pdist

    vectors = np.stack([pdist(g.normal(size=(n, 5))) ** 2 * g.choice([1e-3, 1.0, 50.0]) for _ in range(n_rdms)])
    if estimates and g.random() < 0.2 and n > 4:
        vectors[g.random(vectors.shape) < 0.1] = np.nan
    if estimates and g.random() < 0.2:
        vectors -= 0.1 * np.nanmax(vectors)
    return vectors


def squares(vectors: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import squareform

    return np.stack([squareform(vector, checks=False) for vector in vectors])


def write_rsatoolboxs(path: Path, vectors: np.ndarray, ids: Sequence[str], g: Random) -> None:
    """As rsatoolbox writes it, as we do, or with h5py's own text."""
    import h5py
    from rsatoolbox.rdm import RDMs

    from brainrdl.rdms import save_rdms

    rdms = RDMs(
        vectors.copy(),
        dissimilarity_measure=str(g.choice(["correlation", "squared euclidean", "crossnobis"])),
        rdm_descriptors={"roi": [f"roi{k}" for k in range(len(vectors))], "subject": ["sub-01"] * len(vectors)},
        pattern_descriptors={"stimulus": list(ids)},
    )
    if g.random() < 0.3 and all(one.isascii() for one in ids):
        rdms.save(str(path), "hdf5", overwrite=True)
    elif g.random() < 0.6:
        save_rdms(rdms, path)
    else:
        with h5py.File(path, "w") as file:
            file["dissimilarities"] = vectors
            file["dissimilarity_measure"] = "euclidean"
            file.create_group("descriptors")
            file.create_group("rdm_descriptors")["roi"] = [f"ROI {k}" for k in range(len(vectors))]
            file.create_group("pattern_descriptors")["stimulus"] = list(ids)


def write_array(path: Path, vectors: np.ndarray, ids: Sequence[str], g: Random) -> list[str]:
    """Any other format; returns the options that reading it takes."""
    import h5py
    from scipy.io import savemat

    stacked = squares(vectors) if g.random() < 0.6 else vectors
    values = stacked[0] if len(stacked) == 1 and g.random() < 0.7 else stacked
    kinds = ["<f8", ">f8", "<f4", "f2"] if np.nanmax(np.abs(values)) < 6e4 else ["<f8", ">f8"]
    values = values.astype(str(g.choice(kinds)))
    with_ids = ["--ids", "ids.txt"]
    (path.parent / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    if path.suffix == ".npy":
        np.save(path, np.asfortranarray(values) if g.random() < 0.3 else values)
    elif path.suffix == ".npz":
        several = g.random() < 0.5
        save = np.savez_compressed if g.random() < 0.5 else np.savez
        save(path, **({"rdm": values, "other": np.arange(3)} if several else {"rdm": values}))
        return [*with_ids, *(["--key", "rdm"] if several else [])]
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["brain/rdm"] = values
            file["n"] = 3
        return [*with_ids, "--key", "brain/rdm"]
    elif path.suffix == ".mat" and g.random() < 0.3:
        with h5py.File(path, "w", userblock_size=512) as file:  # as MATLAB's v7.3
            file["rdm"] = values.T
    elif path.suffix == ".mat":
        form = g.integers(4)
        matlab = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
        if form == 0 and values.ndim == 3:
            entries = np.array([(m, f"RDM {k}") for k, m in enumerate(values)], dtype=[("RDM", "O"), ("name", "O")])
            savemat(path, {"rdms": entries})
        else:
            savemat(path, {"rdm": matlab.astype(float)}, format="4" if form == 1 and matlab.ndim == 2 else "5")
        if g.random() < 0.5 and form:
            savemat(path, {"rdm": matlab.astype(float)}, do_compression=True)
    else:
        separator = "," if path.suffix == ".csv" else "\t"
        square = squares(vectors)[0]
        write_table(path, square, ids, separator, named=bool(g.random() < 0.6))
        return [] if _first_cell(path, separator) == "" and len(ids) > 1 else with_ids
    return with_ids


def _first_cell(path: Path, separator: str) -> str:
    return path.read_text(encoding="utf-8").split(separator)[0]


def write_table(path: Path, square: np.ndarray, ids: Sequence[str], separator: str, named: bool) -> None:
    rows = [["" if np.isnan(value) else repr(float(value)) for value in row] for row in square]
    if named:
        rows = [["", *ids], *([one, *row] for one, row in zip(ids, rows, strict=True))]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
