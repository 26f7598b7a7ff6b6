"""Brain data sets for `fuzz.py`: their specs, time series and responses by trial, events, masks, RDMs, surfaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import yaml
from damaged_files import VALID, damage_file, damage_text
from fuzz import Case, Generator
from lying_files import lie_in_array
from lying_images import lie_in_annot, lie_in_gifti, lie_in_header, lie_in_image, lie_in_mgh
from rdm_files import draw_ids, draw_vectors, squares, write_rsatoolboxs, write_table

SHAPE, AFFINE = (4, 3, 2), np.diag([3.0, 3.0, 3.0, 1.0])
N_SCANS, T_R = 40, 2.0

Random = np.random.Generator


def write_volume(path: Path, values: np.ndarray) -> None:
    """A NIfTI file, a scan every 2 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, AFFINE)
    if values.ndim == 4:
        image.header.set_zooms((3.0, 3.0, 3.0, T_R))
    nibabel.save(image, path)


def write_spec(folder: Path, data: Mapping[str, Any], **settings: Any) -> str:
    """brain.yaml; returns its name."""
    spec = {"kind": "brain", "name": "drawn", "folder": ".", "data": dict(data), **settings}
    (folder / "brain.yaml").write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return "brain.yaml"


def arguments(g: Random, often: float = 0.85) -> list[str]:
    """Of the command that reads the responses, or of the one that looks for the files only."""
    return ["rdms", "brain.yaml", "--out", "made.h5"] if g.random() < often else ["check", "brain.yaml"]


def names_in(folder: Path) -> tuple[str, ...]:
    """What a message may name: a file of the set, or the data set itself."""
    return (*sorted(path.name for path in folder.rglob("*") if not path.is_dir()), "drawn", "brain.yaml")


def assert_finite(allowed_nan: bool = False) -> None:
    """What was made is there, and finite (or NaN where that may be)."""
    from brainrdl.rdms import load_rdms

    if not Path("made.h5").exists():
        return  # `check` makes nothing
    values = load_rdms("made.h5").dissimilarities
    assert values.size and not np.isinf(values).any(), "infinite dissimilarities were made"
    assert allowed_nan or np.isfinite(values).all(), "NaN was made of whole data"


def assert_euclidean(responses: np.ndarray, stimuli: Sequence[str]) -> None:
    """Squared distances of the stimuli's mean patterns, per voxel. responses: (n_trials, n_voxels)."""
    from scipy.spatial.distance import pdist

    from brainrdl.rdms import load_rdms, subset_stimuli

    if not Path("made.h5").exists():
        return
    means = pd.DataFrame(responses).groupby(np.array(stimuli)).mean()
    read = subset_stimuli(load_rdms("made.h5"), list(means.index)).dissimilarities[0]
    assert np.allclose(read, pdist(means.to_numpy(), "sqeuclidean") / responses.shape[1], rtol=1e-4), "other distances"


def bold_set(g: Random, folder: Path) -> Case:
    """Time series, events, confounds and a mask."""
    names, n_runs, ending = list("abcd"), int(g.integers(1, 4)), str(g.choice([".nii", ".nii.gz"]))
    confounds = g.random() < 0.4
    tables: list[Path] = []
    for run in range(1, n_runs + 1):
        series = 1000 + 20 * g.normal(size=(*SHAPE, N_SCANS))
        write_volume(folder / f"run-{run}_bold{ending}", series.astype(str(g.choice(["<f4", "<i2", ">f4"]))))
        order = g.permutation(names * 2)
        events = pd.DataFrame({"onset": np.arange(8) * 8.0 + 2, "duration": 4.0, "trial_type": order})
        tables.append(folder / f"run-{run}_events.tsv")
        events.to_csv(tables[-1], sep="\t", index=False)
        if confounds:
            table = pd.DataFrame(g.normal(size=(N_SCANS, 2)), columns=["a", "b"])
            table.iloc[0, 0] = np.nan
            tables.append(folder / f"run-{run}_confounds.tsv")
            table.to_csv(tables[-1], sep="\t", index=False, na_rep="n/a")
    mask = (g.random(SHAPE) < 0.8).astype(np.uint8)
    mask[0, 0] = 1
    write_volume(folder / f"mask{ending}", mask)
    several = n_runs > 1
    noise = str(g.choice(["none", "residuals"]))
    measure = str(g.choice(["crossnobis", "mahalanobis"] if several and noise != "none" else ["correlation"]))
    noise = "none" if measure == "correlation" else noise
    data = {
        "format": "bold",
        "images": f"run-{{run}}_bold{ending}",
        "events": "run-{run}_events.tsv",
        "model": str(g.choice(["condition", "lsa"])),
        "noise_model": "ols",
    }
    if confounds:
        data["confounds"] = "run-{run}_confounds.tsv"
    whole = g.random() < VALID
    if not whole:
        images = sorted(folder.glob(f"*{ending}"))
        how = g.random()
        if how < 0.3:
            lie_in_header(g, images[int(g.integers(len(images)))])
        elif how < 0.45:
            lie_in_image(g, images[int(g.integers(len(images)))])
        elif how < 0.55:
            damage_file(g, images[int(g.integers(len(images)))])
        elif how < 0.8:
            _spoil_events(g, tables[int(g.integers(len(tables)))])
        elif how < 0.9:
            damage_text(g, tables[int(g.integers(len(tables)))])
        else:
            key, value = _strange_settings(g)
            data[key] = value
    roi: dict[str, Any] = {"mask": f"mask{ending}"}
    if g.random() < 0.1:
        roi["resample"] = "nearest"
    write_spec(folder, data, subjects=["01"], rois={"V1": roi}, measure=measure, noise=noise)
    sound = (lambda: assert_finite()) if whole else (lambda: assert_finite(True))
    return Case("BOLD", arguments(g), names_in(folder), valid=True if whole else None, sound=sound)


def _strange_settings(g: Random) -> tuple[str, Any]:
    """A setting of data that cannot be, or is extreme."""
    settings: list[tuple[str, Any]] = [
        ("t_r", 1e-9), ("t_r", 2000), ("t_r", float("inf")), ("t_r", 1e9), ("t_r", "2"), ("high_pass", float("inf")),
        ("high_pass", 1e9), ("high_pass", 1e-12), ("runs", ["9"]), ("runs", []), ("ignore", ["a", "b", "c", "d"]),
        ("condition", "onset"), ("condition", "missing"), ("confounds_columns", ["zz"]), ("file_ids", True),
        ("hrf", "none"), ("images", "{run}"), ("images", "run-{run}_bold"), ("events", "{nothing}.tsv"),
        ("model", "lss"), ("scale", "none"), ("drift", "polynomial"), ("sessions", ["1"]), ("images", "{run"),
    ]  # fmt: skip
    return settings[int(g.integers(len(settings)))]


def _spoil_events(g: Random, path: Path) -> None:
    """Onsets, durations and names of a table of BIDS."""
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    row, column = int(g.integers(len(table))), str(g.choice(np.array(table.columns, dtype=object)))
    values = ["n/a", "-1", "-30", "1e9", "nan", "inf", "", "0", "abc", "1,5", "1e-300", " 4 ", "0x10", "1_0", "-0"]
    kind = g.integers(8)
    if kind <= 3:
        table.loc[row, column] = str(g.choice(values))
    elif kind == 4:
        table[column] = str(g.choice(values))
    elif kind == 5:
        table = table.drop(columns=column)
    elif kind == 6:
        table = table.sample(frac=1.0, random_state=int(g.integers(1000)))
    else:
        table = pd.concat([table, table.iloc[[row]]])
    table.to_csv(path, sep="\t", index=False)


def betas_set(g: Random, folder: Path) -> Case:
    """Responses by trial in volumes, with tables and an atlas."""
    n_runs, stimuli, ending = 2, draw_ids(g, 4), str(g.choice([".nii", ".nii.gz"]))
    mask = (g.random(SHAPE) < 0.7).astype(np.int16)
    mask[0, 0] = 1
    responses: list[np.ndarray] = []
    shown: list[str] = []
    for run in range(1, n_runs + 1):
        order = [stimuli[k] for k in g.permutation(len(stimuli) * 2) % len(stimuli)]
        values = g.normal(size=(*SHAPE, len(order))).astype(str(g.choice(["<f4", ">f4", "<f8"])))
        write_volume(folder / f"run-{run}_betas{ending}", values)
        pd.DataFrame({"stimulus": order, "rt": 1.5}).to_csv(folder / f"run-{run}_trials.tsv", sep="\t", index=False)
        responses.append(values[mask == 1].T)
        shown += order
    write_volume(folder / f"atlas{ending}", mask)
    data: dict[str, Any] = {
        "format": "betas",
        "images": f"run-{{run}}_betas{ending}",
        "trials": "run-{run}_trials.tsv",
    }
    whole = g.random() < VALID
    measure, noise = "euclidean", "none"
    if not whole:
        images, tables = sorted(folder.glob(f"*{ending}")), sorted(folder.glob("*.tsv"))
        lies: list[Callable[[], None]] = [
            lambda: lie_in_header(g, images[int(g.integers(len(images)))]),
            lambda: lie_in_image(g, images[int(g.integers(len(images)))]),
            lambda: damage_file(g, images[int(g.integers(len(images)))]),
            lambda: damage_text(g, tables[int(g.integers(len(tables)))]),
        ]
        lies[int(g.integers(len(lies)))]()
        measure = str(g.choice(["euclidean", "correlation", "crossnobis"]))
        noise = str(g.choice(["none", "repetitions"])) if measure == "crossnobis" else "none"
    label: int | str = 1 if g.random() < 0.9 else str(g.choice(["V1", "1"]))
    rois = {"V1": {"atlas": f"atlas{ending}", "labels": [label]}}
    settings: dict[str, Any] = {"zscore": "run"} if not whole and g.random() < 0.2 else {}
    if not whole and g.random() < 0.2:
        settings["voxels"] = {"min_reliability": 0.0, "stimuli": str(g.choice(["all", "ids.txt"]))}
        (folder / "ids.txt").write_bytes(g.choice(np.array([b"", "\n".join(stimuli).encode(), b"\xff\xfe"], object)))
    write_spec(folder, data, subjects=["01"], rois=rois, measure=measure, noise=noise, **settings)

    def sound() -> None:
        assert_euclidean(np.concatenate(responses), shown) if whole else assert_finite(True)

    valid = True if whole and isinstance(label, int) else None
    return Case("betas", arguments(g), names_in(folder), valid=valid, sound=sound)


def surface_set(g: Random, folder: Path) -> Case:
    """Responses by trial of vertices: GIFTI, .mgh and .npy, with masks and atlases."""
    n_vertices, stimuli = {"L": 7, "R": 5}, list("abcd")
    ending, of_mask = str(g.choice([".gii", ".mgh", ".npy"])), str(g.choice([".gii", ".mgh", ".npy", ".annot"]))
    order = [stimuli[k % 4] for k in range(8)]
    parts = []
    for hemi, n in n_vertices.items():
        values = g.normal(size=(8, n)).astype(np.float32)
        _write_vertices(folder / f"{hemi}.betas{ending}", values)
        inside = (np.arange(n) < 4).astype(np.int32)
        _write_vertices(folder / f"{hemi}.mask{of_mask}", inside[None].astype(np.float32))
        parts.append(values[:, inside > 0])
    pd.DataFrame({"stimulus": order}).to_csv(folder / "trials.tsv", sep="\t", index=False)
    whole = g.random() < VALID
    if not whole:
        files = sorted(path for path in folder.iterdir())
        path = files[int(g.integers(len(files)))]
        lies = {".gii": lie_in_gifti, ".mgh": lie_in_mgh, ".annot": lie_in_annot}
        if path.suffix == ".tsv":
            damage_text(g, path)
        elif path.suffix == ".npy" and g.random() < 0.7:
            lie_in_array(g, path, stimuli)
        elif path.suffix in lies and g.random() < 0.7:
            lies[path.suffix](g, path)
        else:
            damage_file(g, path)
    roi = (
        {"atlas": f"{{hemi}}.mask{of_mask}", "labels": [1]}
        if of_mask == ".annot"
        else {"mask": f"{{hemi}}.mask{of_mask}"}
    )
    data = {"format": "betas", "images": f"{{hemi}}.betas{ending}", "trials": "trials.tsv"}
    write_spec(folder, data, subjects=["01"], rois={"V1": roi}, measure="euclidean")

    def sound() -> None:
        assert_euclidean(np.concatenate(parts, axis=1), order) if whole else assert_finite(True)

    return Case("surfaces", arguments(g), names_in(folder), valid=True if whole else None, sound=sound)


def _write_vertices(path: Path, values: np.ndarray) -> None:
    """values: (n_maps, n_vertices), of an .annot the labels 0 and 1."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".mgh":
        stacked = values.T[:, None, None, :] if len(values) > 1 else values.T[:, None]
        nibabel.save(nibabel.MGHImage(stacked.copy(), np.eye(4)), path)
    elif path.suffix == ".annot":
        colours = np.array([[10, 20, 30, 0], [40, 50, 60, 0]])
        nibabel.freesurfer.write_annot(path, values[0].astype(int), colours, ["out", "in"], fill_ctab=True)
    else:
        arrays = [nibabel.gifti.GiftiDataArray(row, datatype="NIFTI_TYPE_FLOAT32") for row in values]
        nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)


def rdm_set(g: Random, folder: Path) -> Case:
    """RDMs that were made already, and the table of their stimuli."""
    n, n_subjects, suffix = int(g.integers(4, 8)), int(g.integers(1, 4)), str(g.choice([".h5", ".npy", ".csv", ".mat"]))
    ids, vectors, path = draw_ids(g, n), draw_vectors(g, n, n_subjects), folder / f"IT{suffix}"
    file: dict[str, Any] = {"file": path.name, "measure": "correlation"}
    file["descriptors"] = {"roi": "IT", "subject": [f"sub-{k}" for k in range(n_subjects)]}
    if suffix == ".h5":
        write_rsatoolboxs(path, vectors, ids, g)
        del file["measure"]
    elif suffix == ".npy":
        np.save(path, squares(vectors))
    elif suffix == ".csv":
        vectors = vectors[:1]
        file["descriptors"]["subject"] = "sub-0"
        write_table(path, squares(vectors)[0], ids, ",", named=True)
    else:
        from scipy.io import savemat

        savemat(path, {"rdm": np.moveaxis(squares(vectors), 0, -1)})
    order = g.permutation(n) if suffix in (".h5", ".csv") else np.arange(n)  # matched by id, or by position
    listed = [ids[k] for k in order]
    pd.DataFrame({"stimulus": listed, "category": "x"}).to_csv(folder / "stimuli.csv", index=False)
    whole = g.random() < VALID
    if not whole:
        how = g.random()
        if how < 0.4:
            lie_in_array(g, path, ids)
        elif how < 0.65:
            damage_file(g, path)
        elif how < 0.85:
            damage_text(g, folder / "stimuli.csv")
        else:
            key = str(g.choice(["subject", "roi", "session"]))
            told: list[Any] = [["a"], ["a", "b", "c", "d", "e", "f", "g"], "", "x\ny", "../..", "<b>"]
            file["descriptors"][key] = told[int(g.integers(len(told)))]
    write_spec(folder, {"format": "rdms", "files": [file]}, stimuli={"table": "stimuli.csv"})

    def sound() -> None:
        from brainrdl.rdms import load_rdms, subset_stimuli

        if whole and Path("made.h5").exists():
            read = subset_stimuli(load_rdms("made.h5"), ids).dissimilarities
            assert np.allclose(read, vectors, equal_nan=True), "other numbers, or of other stimuli"

    return Case("RDM data set", arguments(g, 0.5), names_in(folder), valid=True if whole else None, sound=sound)


def brain_experiment(g: Random, folder: Path) -> Case:
    """An experiment whose teacher and score are a file of RDMs."""
    from PIL import Image

    n = 12
    ids = [f"stim{k:02d}" for k in range(n)]
    (folder / "images").mkdir()
    for one in ids:
        Image.fromarray(g.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / "images" / f"{one}.png")
    table = pd.DataFrame({"stimulus": ids, "category": ["x", "y"] * (n // 2)})
    table.to_csv(folder / "stimuli.csv", index=False)
    vectors = draw_vectors(g, n, 4)
    _write_measured(folder / "it.h5", vectors, ids)
    stimuli = {"table": "stimuli.csv", "file": "images/{stimulus}.png", "size": [8, 8], "channels": 1}
    files = [{"file": "it.h5", "descriptors": {}}]
    write_spec(folder, {"format": "rdms", "files": files}, stimuli=stimuli)
    whole = g.random() < VALID
    if not whole:
        how = g.random()
        if how < 0.4:
            lie_in_array(g, folder / "it.h5", ids)
        elif how < 0.7:
            damage_file(g, folder / "it.h5")
        elif how < 0.8:
            damage_text(g, folder / "stimuli.csv")
        else:
            few = ids[: int(g.choice([0, 2, 3, 12]))]
            constant = np.ones((4, len(few) * (len(few) - 1) // 2))
            _write_measured(folder / "it.h5", constant, few)
    by_file = {"file": "it.h5"} if g.random() < 0.5 else {"spec": "brain.yaml"}
    network = {
        "network": "mnist_cnn",
        "arguments": {
            "image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [2, 2], "n_hidden": 6,
            "n_classes": 2,
        },
    }  # fmt: skip
    experiment = {
        "name": "tiny",
        "stimuli": {"spec": "brain.yaml", "categories": "category"},
        "students": {"cnn": network},
        "teachers": {"it": {**by_file, "select": {"roi": "IT"}, "subject_folds": 2}},
        "training": {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.01, "schedule": "constant"},
        "folds": {"n": 2},
        "methods": {
            "untrained": {},
            "it": {"teacher": "it", "layers": {"fc": "IT"}, "alpha": 1.0, "decay": "constant"},
        },
        "score": {**by_file, "images": "training", "layers": ["fc"]},
        "seeds": [0],
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    run = ["run", "tiny.yaml", "--out", "run", "--accelerator", "cpu", "--jobs", "1"]
    words = run if g.random() < 0.6 else ["check", "tiny.yaml"]
    return Case("brain experiment", words, (*names_in(folder), "teachers.it", "score"), valid=True if whole else None)


def _write_measured(path: Path, vectors: np.ndarray, ids: Sequence[str]) -> None:
    from rsatoolbox.rdm import RDMs

    from brainrdl.rdms import save_rdms

    descriptors = {"roi": ["IT"] * len(vectors), "subject": [f"sub-{k}" for k in range(len(vectors))]}
    save_rdms(RDMs(vectors, "correlation", None, descriptors, {"stimulus": list(ids)}), path)


GENERATORS: dict[str, Generator] = {
    "BOLD": bold_set,
    "betas": betas_set,
    "surfaces": surface_set,
    "RDM data set": rdm_set,
    "brain experiment": brain_experiment,
}
SHARES: dict[str, float] = {"brain experiment": 0.2, "BOLD": 0.5, "betas": 0.3, "surfaces": 0.4, "RDM data set": 0.4}
