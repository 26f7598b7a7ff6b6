"""Small data sets in the layouts of five publishers for `fuzz.py`, one file of each damaged or untrue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas as pd
from brain_files import arguments, assert_euclidean, assert_finite, names_in, write_spec
from damaged_files import VALID, damage_file, damage_text
from fuzz import Case, Generator
from lying_files import lie_in_array
from lying_images import lie_in_header, lie_in_image

SHAPE = (3, 4, 2)

Random = np.random.Generator


def _spoil(g: Random, folder: Path) -> None:
    """One of the data set's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = files[int(g.integers(len(files)))]
    if path.suffix in (".tsv", ".csv", ".txt"):
        damage_text(g, path)
    elif path.name.endswith((".nii", ".nii.gz")) and g.random() < 0.7:
        (lie_in_header if g.random() < 0.6 else lie_in_image)(g, path)
    elif path.suffix in (".npy", ".mat") and g.random() < 0.5:
        lie_in_array(g, path, list("abcd"))
    elif path.suffix in (".h5", ".hdf5") and g.random() < 0.6:
        _lie_in_hdf5(g, path)
    else:
        damage_file(g, path)


def _lie_in_hdf5(g: Random, path: Path) -> None:
    """The responses: of another type or shape, in another file, claimed and not there, or a group."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and item.shape else None
        )
        name = max(names, key=lambda one: file[one].size)
        shape, dtype = file[name].shape, file[name].dtype
        values = file[name][()]
        del file[name]
        secret = path.parent / "secret.bin"
        kind = g.integers(9)
        if kind == 0:
            file[name] = values.astype(np.complex64)
        elif kind == 1:
            file[name] = values[:-1]
        elif kind == 2:
            file[name] = h5py.ExternalLink("other.h5", "/x")
        elif kind == 3:
            secret.write_bytes(values.tobytes())
            file.create_dataset(name, shape, dtype, external=[(str(secret), 0, values.nbytes)])
        elif kind == 4:
            file.create_dataset(name, (*shape[:-1], 2**40), dtype, chunks=(*shape[:-1], 1024))
        elif kind == 5:
            file.create_group(name)
        elif kind == 6:
            file[name] = h5py.Empty("f4")
        elif kind == 7:
            file[name] = np.full(shape, np.nan, np.float32)
        else:
            file[name] = np.array([b"text"] * 3)


def _case(
    g: Random, folder: Path, kind: str, data: dict[str, Any], subject: str, roi: dict[str, Any], responses: np.ndarray,
    stimuli: Sequence[str],
) -> Case:  # fmt: skip
    whole = g.random() < VALID
    measure = "euclidean"
    if not whole:
        _spoil(g, folder)
        measure = str(g.choice(["euclidean", "correlation", "crossnobis"]))
    write_spec(folder, data, subjects=[subject], rois={"V1": roi}, hemispheres=["lh", "rh"], measure=measure)

    def sound() -> None:
        assert_euclidean(responses, stimuli) if whole else assert_finite(True)

    return Case(kind, arguments(g, 0.95), names_in(folder), valid=True if whole else None, sound=sound)


def nsd(g: Random, folder: Path) -> Case:
    """750 trials of 30 images in a volume or HDF5."""
    subject, where = "subj03", folder / "nsddata_betas/ppdata/subj03/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    where.mkdir(parents=True)
    raw = g.integers(-3000, 3000, (*SHAPE, 750), dtype=np.int16)
    labels = g.choice(np.array([-1, 0, 1, 2], np.int16), SHAPE)
    labels[0, :2, 0] = 1, 2
    atlas = "nsddata/ppdata/{subject}/func1pt8mm/roi/V.nii.gz"
    path = folder / atlas.format(subject=subject)
    path.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([1.8, 1.8, 1.8, 1])), path)
    if g.random() < 0.5:
        with h5py.File(where / "betas_session01.hdf5", "w") as file:
            file.create_dataset("betas", data=raw.transpose(), chunks=(750, 1, 1, 1))
    else:
        nibabel.save(nibabel.Nifti1Image(raw, np.diag([1.8, 1.8, 1.8, 1])), where / "betas_session01.nii.gz")
    numbers = np.tile(g.permutation(30), 25) + 1
    images = g.permutation(73_000)[:10_000] + 1
    if g.random() < 0.5:
        runs = [run for run in range(1, 13) for _ in range(63 if run % 2 else 62)]
        table = pd.DataFrame({"SESSION": 1, "RUN": runs, "73KID": images[numbers - 1], "10KID": numbers})
        table_file = folder / f"nsddata/ppdata/{subject}/behav/responses.tsv"
        table_file.parent.mkdir(parents=True)
        table.to_csv(table_file, sep="\t", index=False)
    else:
        from scipy.io import savemat

        design = folder / "nsddata/experiments/nsd/nsd_expdesign.mat"
        design.parent.mkdir(parents=True)
        order = np.concatenate([numbers, np.ones(30_000 - 750, int)])
        savemat(design, {"masterordering": order[None], "subjectim": np.tile(images, (8, 1))})
    roi = {"atlas": atlas, "labels": [1, 2]}
    responses = raw[np.isin(labels, (1, 2))].T / np.float32(300)
    stimuli = [f"nsd-{images[number - 1] - 1:05d}" for number in numbers]
    return _case(g, folder, "NSD", {"format": "nsd"}, subject, roi, responses, stimuli)


def things(g: Random, folder: Path) -> Case:
    """Voxels × trials as pandas keeps a frame in HDF5, with tables of both."""
    base = folder / "betas_csv"
    base.mkdir()
    shown = [(s, r, f"dog_{k}s.jpg") for s in (1, 2) for r in (1, 2) for k in g.permutation(4)]
    table = pd.DataFrame(shown, columns=["session", "run", "stimulus"])
    table = table.assign(trial_type="test", trial_id=range(len(table)))
    table.to_csv(base / "sub-01_StimulusMetadata.csv", index=False)
    voxels = pd.DataFrame({"voxel_id": np.arange(9), "V1": [0, 1, 1, 0, 0, 0, 1, 0, 0]})
    voxels.to_csv(base / "sub-01_VoxelMetadata.csv", index=False)
    values = g.normal(size=(9, len(table)))
    with h5py.File(base / "sub-01_ResponseData.h5", "w") as file:
        group = file.create_group("ResponseData")
        group["block0_values"] = values
        group["block1_values"] = voxels[["voxel_id"]].to_numpy()
    roi = {"atlas": "betas_csv/sub-{subject}_VoxelMetadata.csv", "labels": ["V1"]}
    responses = values[[1, 2, 6]].T
    return _case(g, folder, "THINGS", {"format": "things_fmri"}, "01", roi, responses, table["stimulus"].tolist())


def bold5000(g: Random, folder: Path) -> Case:
    """Two sessions of one run of 37 trials."""
    values = {k: g.normal(size=(*SHAPE, 37)).astype(np.float32) for k in (1, 2)}
    for k, responses in values.items():
        image = nibabel.Nifti1Image(responses, np.diag([2, 2, 2, 1]))
        nibabel.save(image, folder / f"CSI4_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-{k:02d}.nii.gz")
    names = [f"n{k:08d}_{k}.JPEG" for k in range(37)] * 9
    (folder / "CSI4_imgnames.txt").write_text("\n".join(names) + "\n")
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, :, 1] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([2, 2, 2, 1])), folder / "mask.nii.gz")
    responses = np.concatenate([values[k][mask > 0].T for k in (1, 2)])
    roi = {"mask": "mask.nii.gz"}
    return _case(g, folder, "BOLD5000", {"format": "bold5000"}, "CSI4", roi, responses, names[:74])


def algonauts(g: Random, folder: Path) -> Case:
    """Responses of vertices in .npy, labels and their names, pictures that tell the order."""
    base = folder / "subj02"
    for name in "training_split/training_fmri", "training_split/training_images", "roi_masks":
        (base / name).mkdir(parents=True)
    values = {hemi: g.normal(size=(6, n)).astype(np.float32) for hemi, n in (("lh", 5), ("rh", 4))}
    labels = {"lh": np.array([1, 0, 2, 1, 0]), "rh": np.array([0, 0, 1, 2])}
    for hemi, responses in values.items():
        np.save(base / f"training_split/training_fmri/{hemi}_training_fmri.npy", responses)
        np.save(base / f"roi_masks/{hemi}.V_challenge_space.npy", labels[hemi])
    np.save(base / "roi_masks/mapping_V.npy", {0: "Unknown", 1: "V1v", 2: "V1d"})
    stimuli = [f"nsd-{number:05d}" for number in (13, 9, 72_999, 0, 4, 21)]
    for k, stimulus in enumerate(stimuli, start=1):
        (base / f"training_split/training_images/train-{k:04d}_{stimulus}.png").touch()
    roi = {"atlas": "{subject}/roi_masks/{hemi}.V_challenge_space.npy", "labels": ["V1v"]}
    responses = np.concatenate([values[hemi][:, labels[hemi] == 1] for hemi in ("lh", "rh")], axis=1)
    return _case(g, folder, "Algonauts", {"format": "algonauts2023"}, "subj02", roi, responses, stimuli)


def glmsingle(g: Random, folder: Path) -> Case:
    """8 trials of 4 stimuli in a pickled dict or HDF5."""
    outputs, name = folder / "glmsingle", "TYPED_FITHRF_GLMDENOISE_RR"
    outputs.mkdir()
    betas = g.normal(size=(*SHAPE, 8)).astype(np.float32)
    if g.random() < 0.5:
        np.save(outputs / f"{name}.npy", {"pcnum": np.int64(3), "betasmd": betas, "xvaltrend": None})
    else:
        with h5py.File(outputs / f"{name}.hdf5", "w") as file:
            file["betasmd"] = betas
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 1:3, 1] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / "IT.nii.gz")
    stimuli = list("badcbadd")
    pd.DataFrame({"stimulus": stimuli, "run": list("11112222")}).to_csv(folder / "trials.tsv", sep="\t", index=False)
    data = {"format": "glmsingle", "outputs": "glmsingle", "trials": "trials.tsv"}
    return _case(g, folder, "GLMsingle", data, "01", {"mask": "IT.nii.gz"}, betas[mask > 0].T, stimuli)


_LAYOUTS: tuple[Callable[[Random, Path], Case], ...] = (nsd, things, bold5000, algonauts, glmsingle)

GENERATORS: dict[str, Generator] = {f"layout {layout.__name__}": layout for layout in _LAYOUTS}
SHARES = dict.fromkeys(("layout nsd", "layout things", "layout bold5000", "layout algonauts", "layout glmsingle"), 0.25)
