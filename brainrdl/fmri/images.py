"""Voxels and vertices of a region, out of NIfTI volumes and surface files (GIFTI, .mgh, .npy)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainrdl.fmri.file_sizes import check_annot, check_surface, check_volume, load_image
from brainrdl.fmri.paths import fill
from brainrdl.fmri.spec import Roi
from brainrdl.restricted_files import load_array, reading


class Region(NamedTuple):
    """Where a region lies.

    mask: bool; the volume's (x, y, z), or (n_vertices,) of all hemispheres, joined. image: the mask as an image in the
    space of the data, None for surfaces. notes: what was resampled, and which labels a volume has not, in words.
    """

    mask: np.ndarray
    image: Any
    notes: tuple[str, ...] = ()


def is_surface(path: Path) -> bool:
    """By its ending: GIFTI, FreeSurfer's .mgh, .mgz and .annot, and .npy hold vertices, everything else a volume."""
    return path.suffix in (".gii", ".mgh", ".mgz", ".annot", ".npy")


def read_region(
    roi: Roi, folder: Path, subject: str, like: Sequence[Path], hemispheres: Sequence[str] = (), name: str = "roi"
) -> Region:
    """The voxels or vertices of a region, in the space of the images `like` (one file a hemisphere, or one volume).

    Raises ValueError where a file is missing or damaged, the mask lies in another space and may not be resampled,
    or is empty.
    """
    files = fill(roi.mask or roi.atlas or "", folder, subject, hemispheres=hemispheres)
    if is_surface(files[0]) != is_surface(like[0]):
        raise ValueError(f"roi '{name}': {files[0]} and {like[0]} are not both volumes or both surfaces")
    if is_surface(files[0]):
        mask = np.concatenate([_vertex_mask(file, roi) for file in files])
        n_vertices = [read_vertices(file).shape[1] for file in like]
        if len(mask) != sum(n_vertices):
            raise ValueError(
                f"roi '{name}': {files[0]} and its like have {len(mask)} vertices, {like[0]} and its like have "
                f"{sum(n_vertices)}; use the mask of the same surface"
            )
        region = Region(mask, None)
    else:
        region = _volume_region(roi, files[0], load_volume(like[0]), like[0], name)
    if not region.mask.any():
        resampled = " after resampling" if any("resampled" in note for note in region.notes) else ""
        raise ValueError(f"roi '{name}': {files[0]} has no voxel in it{resampled}; correct the mask or its labels")
    return region


def read_voxels(files: Sequence[Path], region: Region, name: str = "roi") -> np.ndarray:
    """(n_volumes, n_voxels) float64; NaN stays NaN.

    Raises ValueError where a file is missing, damaged, or lies in another space than the region.
    """
    if region.image is None:
        parts = [read_vertices(file) for file in files]
        if len({len(part) for part in parts}) > 1 or sum(part.shape[1] for part in parts) != len(region.mask):
            raise ValueError(
                f"{files[0]} and its like have shapes {', '.join(str(part.shape) for part in parts)} (volumes, "
                f"vertices); roi '{name}' has {len(region.mask)} vertices in all"
            )
        return np.concatenate(parts, axis=1)[:, region.mask].astype(np.float64)
    from nilearn.image import new_img_like
    from nilearn.masking import apply_mask

    image = load_volume(files[0])
    if not _same_space(image, region.image):
        raise ValueError(f"{files[0]} lies in another space than roi '{name}': {_space(image)}, {_space(region.image)}")
    # Affines that differ in their last digits only are the same space, which nilearn would refuse.
    mask = new_img_like(image, region.mask.astype(np.int8), affine=image.affine)
    with reading(files[0], *_DAMAGED):
        values = apply_mask(image, mask, dtype=np.float64, ensure_finite=False)
    return np.asarray(np.atleast_2d(values))


def load_volume(path: Path) -> Any:
    """A nibabel image of 3 or 4 dimensions, its data not read yet.

    Raises ValueError naming the file where it is missing, damaged, no volume of real numbers, without a place in space,
    or says that it holds far more than it can.
    """
    if not path.is_file():
        raise ValueError(f"no image file {path}; correct its name in the spec, or fetch the data set")
    image = load_image(path)
    with reading(path, *_DAMAGED):
        check_volume(image, path)
    return image


def scan_interval(path: Path) -> float | None:
    """Seconds from scan to scan as a volume's header says; None where it does not."""
    if is_surface(path):
        return None
    header = load_volume(path).header
    zooms = header.get_zooms()
    if len(zooms) < 4 or not 0 < zooms[3] < np.inf:
        return None
    try:
        unit = header.get_xyzt_units()[1]
    except (AttributeError, KeyError):  # a format without units, or none that NIfTI knows
        unit = "sec"
    return float(zooms[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)


def read_vertices(path: Path) -> np.ndarray:
    """(n_maps, n_vertices) of a GIFTI, .mgh or .npy file (there (n_maps, n_vertices) or (n_vertices,)).

    Raises ValueError where there is no such file, it cannot be read, or does not hold real numbers in such a shape.
    """
    if not path.is_file():
        raise ValueError(f"no surface file {path}; correct its name in the spec, or fetch the data set")
    if path.suffix == ".npy":
        values = np.atleast_2d(load_array(path, mmap=True))
    elif path.suffix == ".gii":
        maps = [array.data for array in _load_surface(path).darrays]
        if len({values.shape for values in maps}) != 1:
            raise ValueError(f"{path}: expected maps of one value a vertex, got {[values.shape for values in maps]}")
        values = np.stack(maps)
    else:
        image = _load_surface(path)
        if tuple(image.shape[1:3]) != (1, 1):
            raise ValueError(f"{path}: expected values of vertices, (n, 1, 1), got {tuple(map(int, image.shape))}")
        with reading(path, *_DAMAGED):
            check_surface(image, path)
            values = np.asarray(image.dataobj).reshape(image.shape[0], -1).T
    if values.ndim != 2:
        raise ValueError(f"{path}: expected (n_maps, n_vertices), got {values.shape}")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected real numbers, got values of type {values.dtype}; save them as numbers")
    return values


class Usable(NamedTuple):
    """keep: (n_voxels,) bool. note: how many are not, and why, in words; "" where all are."""

    keep: np.ndarray
    note: str


def usable_voxels(parts: Sequence[np.ndarray], where: str) -> Usable:
    """Voxels that are finite and not constant in every part (a run). parts: (n_volumes, n_voxels) each.

    where: whose voxels these are. Raises ValueError where fewer than 2 are left: a pattern needs more than one.
    """
    missing = np.logical_or.reduce([~np.isfinite(part).all(0) for part in parts])
    constant = ~missing & np.logical_or.reduce([np.asarray(part == part[:1]).all(0) for part in parts])
    keep = ~missing & ~constant
    n_voxels = len(keep)
    counts = {"with NaN": int(missing.sum()), "constant": int(constant.sum())}
    dropped = " and ".join(f"{count} {what}" for what, count in counts.items() if count)
    if keep.sum() < 2:
        raise ValueError(
            f"{where}: {int(keep.sum())} usable of {n_voxels} voxels ({dropped or 'none dropped'}); a pattern needs at "
            "least 2"
        )
    return Usable(keep, f"{dropped} of {n_voxels} voxels dropped" if dropped else "")


_DAMAGED = ("cannot be read", "fetch it again")


def _load_surface(path: Path) -> Any:
    image = load_image(path)
    wanted = "darrays" if path.suffix == ".gii" else "dataobj"
    if not hasattr(image, wanted):
        raise ValueError(f"{path}: holds no values of vertices; fetch it again, or correct its name in the spec")
    return image


def _volume_region(roi: Roi, file: Path, like: Any, like_file: Path, name: str) -> Region:
    from nibabel import Nifti1Image
    from nilearn.image import get_data, index_img, new_img_like, resample_to_img

    mask = load_volume(file)
    if len(mask.shape) == 4 and mask.shape[3] == 1:
        with reading(file, *_DAMAGED):
            mask = index_img(mask, 0)
    if len(mask.shape) != 3:
        raise ValueError(f"roi '{name}': {file} has shape {mask.shape}; expected one volume")
    reference = Nifti1Image(np.zeros(like.shape[:3], np.int8), like.affine)  # type: ignore[no-untyped-call]
    notes: tuple[str, ...] = ()
    elsewhere = not _same_space(mask, reference)
    if elsewhere and roi.resample is None:
        raise ValueError(
            f"roi '{name}': {file} lies in another space than {like_file}: {_space(mask)}, {_space(reference)}; "
            "bring it there, or set resample: nearest in the spec"
        )
    with reading(file, *_DAMAGED):
        if elsewhere:
            notes = (f"roi '{name}' resampled ({roi.resample}) from {_space(mask)} to {_space(reference)}",)
            mask = resample_to_img(mask, reference, interpolation="nearest", force_resample=True, copy_header=True)
        values = get_data(mask)
    inside = _inside(values, roi, file, {})
    absent = [str(label) for label in roi.labels if not (values == label).any()]
    if absent:
        notes = (*notes, f"roi '{name}': no voxel of {file.name} has the label {', '.join(absent)}")
    return Region(inside, new_img_like(reference, inside.astype(np.int8), affine=reference.affine), notes)


def _vertex_mask(file: Path, roi: Roi) -> np.ndarray:
    from nibabel.freesurfer.io import read_annot

    names: dict[str, int] = {}
    if file.suffix == ".annot":
        if not file.is_file():
            raise ValueError(f"no surface file {file}; correct its name in the spec, or fetch the data set")
        with reading(file, *_DAMAGED):
            check_annot(file)
            values, _, told = read_annot(file)  # type: ignore[no-untyped-call]
            names = {text.decode(): k for k, text in enumerate(told)}
    else:
        maps = read_vertices(file)
        if len(maps) != 1:
            raise ValueError(f"{file}: expected one value a vertex, got {len(maps)} maps")
        values = maps[0]
        if file.suffix == ".gii":
            names = {text: key for key, text in _load_surface(file).labeltable.get_labels_as_dict().items()}
    return _inside(values, roi, file, names)


def _inside(values: np.ndarray, roi: Roi, file: Path, names: dict[str, int]) -> np.ndarray:
    if roi.mask is not None:
        return np.asarray(np.nan_to_num(values) != 0)
    numbers = []
    for label in roi.labels:
        if isinstance(label, str) and label not in names:
            told = f"it has: {', '.join(names)}" if names else "it names none; give their numbers"
            raise ValueError(f"{file} has no label '{label}'; {told}")
        numbers.append(names[label] if isinstance(label, str) else label)
    return np.isin(values, numbers)


def _same_space(a: Any, b: Any) -> bool:
    return bool(a.shape[:3] == b.shape[:3] and np.allclose(a.affine, b.affine, rtol=0, atol=1e-3))


def _space(image: Any) -> str:
    rows = np.array2string(np.round(image.affine[:3], 3), separator=" ", suppress_small=True).replace("\n", "")
    return f"shape {tuple(image.shape[:3])} affine {rows}"
