"""Folders of images, IDX files and CIFAR's pickles, drawn and damaged, for fuzz.py."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz import Case, Generator
from fuzz_folders import ODD_FOLDERS
from fuzz_mutations import pick
from PIL import Image

_SUFFIXES = (".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm")


def _image(generator: np.random.Generator, side: int = 7) -> Image.Image:
    return Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))


def _bytes(image: Image.Image, suffix: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, Image.registered_extensions()[suffix], **options)
    return content.getvalue()


def write_classes(folder: Path, suffix: str = ".png") -> list[Path]:
    """images/CLASS/IMAGE of two classes; the files."""
    generator = np.random.default_rng(0)
    files = []
    for name in "cats", "dogs":
        (folder / "images" / name).mkdir(parents=True)
        for k in range(4):
            files.append(folder / "images" / name / f"{k}{suffix}")
            files[-1].write_bytes(_bytes(_image(generator), suffix))
    return files


def _png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose heading says what it is told to say."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    heading = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", heading) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def _odd_images(generator: np.random.Generator) -> dict[str, Callable[[], bytes]]:
    """What may lie under an image's name. Those in _GOOD can be read."""
    image = _image(generator)
    whole = _bytes(image, pick(generator, _SUFFIXES))

    def flipped() -> bytes:
        content = bytearray(whole)
        for _ in range(int(generator.integers(1, 9))):
            content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        return bytes(content)

    def frames(suffix: str) -> bytes:
        return _bytes(image, suffix, save_all=True, append_images=[_image(generator) for _ in range(3)])

    def tiff_of_odd_tags() -> bytes:
        content = bytearray(_bytes(image, ".tif"))
        (first,) = struct.unpack_from("<I", content, 4)
        (n_tags,) = struct.unpack_from("<H", content, first)
        place = first + 2 + 12 * int(generator.integers(n_tags)) + pick(generator, [2, 4, 8])  # type, count or value
        struct.pack_into("<I", content, place, pick(generator, [0, 1, 3, 65535, 10**6, 2**31, 2**32 - 1]))
        return bytes(content)

    return {
        "cut": lambda: whole[: int(generator.integers(len(whole)))],
        "flipped": flipped,
        "empty": lambda: b"",
        "noise": lambda: generator.bytes(200),
        "text": lambda: b"<html><body>404 Not Found</body></html>",
        "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "huge png": lambda: _png(50000, 50000, bytes(100)),
        "large png": lambda: _png(12000, 12000, bytes(100)),
        "largest png": lambda: _png(2**31 - 1, 2**31 - 1, bytes(10)),
        "no pixels": lambda: _png(0, 7, b""),
        "bomb": lambda: _png(13000, 13000, bytes(13001 * 50), depth=1, colour=0),
        "bad bmp": lambda: _bmp(pick(generator, [0, -5, 30000, 2**31 - 1]), pick(generator, [0, -5, 30000, 2**31 - 1])),
        "huge gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + bytes(9) + b";",
        "huge ppm": lambda: b"P6 100000 100000 255\n" + bytes(50),
        "odd ppm": lambda: pick(generator, [b"P6 7 7 0\n", b"P6 a b c\n", b"P6 -7 7 255\n", b"P3 7 7 99999\n1 2 3"]),
        "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(owned) (w) file\n%%EOF",
        "odd tiff": tiff_of_odd_tags,
        "16 bit": lambda: _bytes(Image.fromarray(generator.integers(0, 65535, (7, 7), dtype=np.uint16)), ".png"),
        "float tiff": lambda: _bytes(Image.fromarray(generator.random((7, 7), dtype=np.float32)), ".tif"),
        "palette": lambda: _bytes(image.convert("P"), pick(generator, [".png", ".gif", ".bmp"])),
        "transparent": lambda: _bytes(image.convert("RGBA"), ".png"),
        "one bit": lambda: _bytes(image.convert("1"), pick(generator, [".png", ".bmp", ".tif"])),
        "grey": lambda: _bytes(image.convert("L"), pick(generator, [".png", ".jpg"])),
        "grey and alpha": lambda: _bytes(image.convert("LA"), ".png"),
        "cmyk": lambda: _bytes(image.convert("CMYK"), ".jpg"),
        "lab": lambda: _bytes(image.convert("LAB") if False else image.convert("YCbCr"), ".jpg"),
        "animated gif": lambda: frames(".gif"),
        "animated webp": lambda: frames(".webp"),
        "animated png": lambda: frames(".png"),
        "other suffix": lambda: _bytes(image, pick(generator, _SUFFIXES)),
        "turned": lambda: _bytes(image, ".jpg", exif=_turned()),
        "long text": lambda: _bytes(image, ".png", pnginfo=_much_text()),
        "other size": lambda: _bytes(_image(generator, int(generator.integers(1, 40))), ".png"),
        "one pixel": lambda: _bytes(_image(generator, 1), ".png"),
        "a line": lambda: _bytes(Image.new("RGB", (2000, 1)), ".png"),
    }


_GOOD = ("palette", "transparent", "one bit", "grey", "grey and alpha", "cmyk", "animated gif", "animated webp")
_GOOD += ("animated png", "other suffix", "turned", "other size", "one pixel", "lab", "a line")


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def _much_text() -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("a", "x" * 100, zip=True)
    info.add_text("b", "y" * 3_000_000, zip=True)
    return info


def _spec(folder: Path, size: bool = True) -> None:
    settings = {"name": "mine", "format": "image_folder", "folder": "images", **({"size": [7, 7]} if size else {})}
    (folder / "case.yaml").write_text(yaml.safe_dump(settings))


def _one_odd_image(generator: np.random.Generator, folder: Path) -> Case:
    """A folder with one image that is not like the others."""
    suffix = pick(generator, [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"])
    files = write_classes(folder, suffix)
    odd = _odd_images(generator)
    name = pick(generator, list(odd))
    files[3].write_bytes(odd[name]())
    sized = bool(generator.random() < 0.7)
    _spec(folder, sized)
    if name in _GOOD and sized:
        return Case("image", ["check", "case.yaml"], (files[3].name,), valid=True)
    valid = None if name in (*_GOOD, "flipped", "cut", "odd tiff", "long text", "odd ppm") else False
    return Case("image", ["check", "case.yaml"], (files[3].name, "mine"), valid=valid)


def _image_run(generator: np.random.Generator, folder: Path) -> Case:
    """An experiment on a folder of images, one of which is not like the others."""
    case = _one_odd_image(generator, folder)
    arguments = {"image_size": 7, "in_channels": 3, "n_classes": 2, "kernel_size": 3, "padding": 1, "pools": [2, 2]}
    settings = {
        "name": "tiny",
        "data": {"spec": "case.yaml", "train": 4, "validation": 0, "test": 4},
        "student": {"network": "mnist_cnn", "arguments": {**arguments, "features": [2, 2], "n_hidden": 4}},
        "training": {"epochs": 1, "batch_size": 4},
        "methods": {"baseline": {}},
        "analysis": {"layers": ["fc"], "n_per_class": 2},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    if generator.random() < 0.3:  # images are then read when they are needed
        spec = yaml.safe_load((folder / "case.yaml").read_text())
        (folder / "case.yaml").write_text(yaml.safe_dump({**spec, "max_gib": 0}))
    return case._replace(kind="image run", arguments=["run", "run.yaml", "--out", "out", "--jobs", "1"])


def _odd_folder(generator: np.random.Generator, folder: Path) -> Case:
    """A folder that is not as an image folder should be."""
    files = write_classes(folder)
    images = folder / "images"
    _spec(folder)
    how = pick(generator, sorted(ODD_FOLDERS))
    valid = ODD_FOLDERS[how](images, files)
    direct = generator.random() < 0.3
    named = ("images", "mine", "case.yaml")
    return Case("image folder", ["check", "images" if direct else "case.yaml"], named, valid=None if direct else valid)


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def _mnist(generator: np.random.Generator, folder: Path) -> Case:
    """Four IDX files, one of which may be damaged."""
    place = folder / "MNIST" / "raw"
    place.mkdir(parents=True)
    names = []
    for part, n in ("train", 20), ("t10k", 10):
        pixels = generator.integers(0, 256, (n, 28, 28))
        names += [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
        (place / names[-2]).write_bytes(_idx(pixels))
        (place / names[-1]).write_bytes(_idx(np.arange(n) % 10))
    how = pick(
        generator,
        ["whole", "cut", "flipped", "empty", "noise", "heading", "gone", "other", "labels", "zipped", "folder"],
    )
    file = place / pick(generator, names)
    content = bytearray(file.read_bytes())
    if how == "cut":
        file.write_bytes(content[: int(generator.integers(len(content)))])
    elif how == "flipped":
        content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        file.write_bytes(content)
    elif how in ("empty", "noise"):
        file.write_bytes(b"" if how == "empty" else generator.bytes(2000))
    elif how == "heading":
        at = int(generator.integers(4, 4 + 4 * content[3]))
        content[at] = pick(generator, [0, 1, 127, 255])
        file.write_bytes(content)
    elif how in ("gone", "zipped", "folder"):
        file.unlink()
        if how == "zipped":
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(bytes(content)))
        elif how == "folder":
            file.mkdir()
    elif how == "other":
        file.write_bytes((place / pick(generator, names)).read_bytes())
    elif how == "labels":
        (place / "train-labels-idx1-ubyte").write_bytes(_idx(generator.integers(0, 256, 20)))
    spec = {"name": "mine", "format": "mnist", "size": [28, 28], "channels": 1, "classes": [str(k) for k in range(10)]}
    (folder / "case.yaml").write_text(yaml.safe_dump(spec))
    valid = {"whole": True, "cut": False, "empty": False, "gone": False, "noise": False, "folder": False}.get(how)
    return Case("mnist", ["check", "case.yaml"], ("mine", "case.yaml", "MNIST"), valid=valid)


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


def _cifar(generator: np.random.Generator, folder: Path) -> Case:
    """CIFAR-10's files, one of which may be damaged, or harmful."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]

    def batch() -> dict[str, Any]:
        return {"data": generator.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))}

    for name in names:
        (place / name).write_bytes(pickle.dumps(batch(), protocol=2))
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(k) for k in range(10)]}, protocol=2))
    odd: dict[str, Callable[[], bytes]] = {
        "whole": lambda: pickle.dumps(batch(), protocol=pick(generator, [2, 4, 5])),
        "harmful": lambda: pickle.dumps({**batch(), "x": _Harmful()}),
        "cut": lambda: pickle.dumps(batch(), protocol=2)[: int(generator.integers(30000))],
        "empty": lambda: b"",
        "noise": lambda: generator.bytes(300),
        "no data": lambda: pickle.dumps({"labels": list(range(10))}),
        "no labels": lambda: pickle.dumps({"data": batch()["data"]}),
        "short": lambda: pickle.dumps({**batch(), "data": batch()["data"][:, :100]}),
        "fewer": lambda: pickle.dumps({**batch(), "labels": [1, 2]}),
        "text": lambda: pickle.dumps({**batch(), "labels": ["a"] * 10}),
        "list": lambda: pickle.dumps([1, 2, 3]),
        "objects": lambda: pickle.dumps({**batch(), "data": np.array([None] * 10)}),
        "labels too large": lambda: pickle.dumps({**batch(), "labels": [99] * 10}),
        "labels below 0": lambda: pickle.dumps({**batch(), "labels": [-1] * 10}),
        "float": lambda: pickle.dumps({**batch(), "data": np.full((10, 3072), np.nan)}),
        "bomb": lambda: b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00e" * 50 + b".",
        "long": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x",
    }
    how = pick(generator, list(odd))
    (place / pick(generator, names)).write_bytes(odd[how]())
    size = {"size": [32, 32], "channels": 3, "classes": [str(k) for k in range(10)]}
    (folder / "case.yaml").write_text(yaml.safe_dump({"name": "mine", "format": "cifar10", **size}))
    # All are refused: the published files' checksums are known, and these are others.
    return Case("cifar", ["check", "case.yaml"], ("mine", "case.yaml", "cifar"), valid=False)


def _pictures(generator: np.random.Generator, folder: Path) -> Case:
    """Pictures of stimuli for a figure of RDMs, one of which is not like the others."""
    values = generator.random((8, 20))
    np.save(folder / "patterns.npy", values)
    (folder / "ids.txt").write_text("\n".join(f"{name}/{k}" for name in ("cats", "dogs") for k in range(4)))
    files = write_classes(folder, pick(generator, _SUFFIXES[:5]))
    odd = _odd_images(generator)
    name = pick(generator, list(odd))
    files[3].write_bytes(odd[name]())
    arguments = [
        "figure",
        "rdm",
        "patterns.npy",
        "--patterns",
        "--ids",
        "ids.txt",
        "--images",
        "images",
        "--out",
        "f.png",
    ]
    return Case("pictures", arguments, (files[3].name,), valid=True if name in _GOOD else None)


GENERATORS: dict[str, Generator] = {
    "image": _one_odd_image,
    "image run": _image_run,
    "image folder": _odd_folder,
    "mnist": _mnist,
    "cifar": _cifar,
    "pictures": _pictures,
}
SHARES = {"image run": 0.2, "pictures": 0.2, "cifar": 0.2}
