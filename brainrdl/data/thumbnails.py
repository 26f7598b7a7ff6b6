"""Small pictures of stimuli, for figures and reports: by id, in memory, in a file or from a folder of images."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainrdl.data.image_folder import open_image, unreadable
from brainrdl.restricted_files import load_npz
from brainrdl.runs import write_bytes
from brainrdl.stimuli import Stimuli

if TYPE_CHECKING:
    from PIL.Image import Image

# id -> (height, width, 3) uint8
Thumbnails = Mapping[str, np.ndarray]

SIZE = 64
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def make_thumbnails(stimuli: Stimuli, size: int = SIZE) -> dict[str, np.ndarray]:
    """The stimuli's images, made smaller where their longer side has more than `size` pixels; grey ones get three
    equal channels. stimuli: images 0…1 of 1 or 3 channels. Returns id -> (height, width, 3) uint8.
    """
    from PIL.Image import fromarray

    pictures = {}
    for stimulus, image in zip(stimuli.ids, stimuli.images.detach().cpu(), strict=True):
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        if pixels.shape[2] not in (1, 3):
            raise ValueError(f"stimulus '{stimulus}' has {pixels.shape[2]} channels; a picture has 1 (grey) or 3")
        pictures[stimulus] = _shrunk(fromarray(np.repeat(pixels, 3 // pixels.shape[2], 2)), size)
    return pictures


def save_thumbnails(thumbnails: Thumbnails, path: Path) -> None:
    """Write them as .npz of plain arrays, whole or not at all.

    `ids`: the ids as a JSON list, in UTF-8 bytes. `shapes`: (n, 2) height and width. `pixels`: all of them in a row.
    """
    content = io.BytesIO()
    pictures = list(thumbnails.values())
    np.savez_compressed(
        content,
        ids=np.frombuffer(json.dumps(list(thumbnails)).encode(), dtype=np.uint8),
        shapes=np.array([picture.shape[:2] for picture in pictures], dtype=np.int64).reshape(-1, 2),
        pixels=np.concatenate([picture.ravel() for picture in pictures] or [np.zeros(0, dtype=np.uint8)]),
    )
    write_bytes(path, content.getvalue())


def load_thumbnails(path: str | Path, ids: Iterable[str], size: int = SIZE) -> dict[str, np.ndarray]:
    """Pictures of the stimuli `ids`: from a file of `save_thumbnails`, or from a folder of images named by them.

    In a folder a stimulus is the file whose path below it is the id, with or without the image's suffix.
    Returns id -> (height, width, 3) uint8, in the order of `ids`; stimuli without a picture are not in it.
    Raises ValueError where there is no such file or folder, it is damaged, or it has none of the stimuli's pictures.
    """
    path, ids = Path(path), list(ids)
    if path.is_dir():
        found = _from_folder(path, ids, size)
    elif path.is_file():
        found = _from_file(path, ids)
    else:
        raise ValueError(f"pictures of stimuli: '{path}' is not there; give a folder of images named by stimulus id")
    if not found:
        raise ValueError(
            f"pictures of stimuli: {path} has none of the {len(ids)} stimuli, the first is '{ids[0]}'; "
            "name the images by stimulus id, such as ID.png"
        )
    return found


def _from_file(path: Path, ids: list[str]) -> dict[str, np.ndarray]:
    stored, shapes, pixels = (load_npz(path, key) for key in ("ids", "shapes", "pixels"))
    try:
        names = json.loads(stored.tobytes())
        sizes = 3 * shapes.prod(axis=1)
        if pixels.dtype != np.uint8 or len(names) != len(sizes) or pixels.shape != (sizes.sum(),):
            raise ValueError(f"{len(names)} ids, {len(sizes)} pictures and {pixels.size} pixels do not go together")
        parts = np.split(pixels, np.cumsum(sizes)[:-1])
        pictures = {name: p.reshape(*shape, 3) for name, p, shape in zip(names, parts, shapes, strict=True)}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: no file of pictures, or a damaged one ({error}); delete it, or give a folder"
        ) from None
    return {stimulus: pictures[stimulus] for stimulus in ids if stimulus in pictures}


def _from_folder(folder: Path, ids: list[str], size: int) -> dict[str, np.ndarray]:
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in _SUFFIXES and file.is_file():
            below = file.relative_to(folder)
            for name in (below.with_suffix("").as_posix(), below.as_posix()):
                files.setdefault(name, file)
    pictures = {}
    for stimulus in ids:
        if stimulus in files:
            with open_image(files[stimulus]) as image:
                try:
                    pictures[stimulus] = _shrunk(image.convert("RGB"), size)
                except Exception as error:  # whatever a damaged image leads Pillow to
                    raise unreadable(files[stimulus], error) from None
    return pictures


def _shrunk(image: Image, size: int) -> np.ndarray:
    image.thumbnail((size, size))
    return np.asarray(image, dtype=np.uint8)
