"""Ways in which an image folder is not as it should be, for fuzz_images.py; each says whether it is still valid."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def _no_folder(images: Path, files: list[Path]) -> bool:
    images.rename(images.with_name("elsewhere"))
    return False


def _a_file(images: Path, files: list[Path]) -> bool:
    images.rename(images.with_name("elsewhere"))
    images.write_bytes(b"x")
    return False


def _one_class(images: Path, files: list[Path]) -> None:
    for file in files[4:]:
        file.unlink()
    (images / "dogs").rmdir()


def _no_class(images: Path, files: list[Path]) -> bool:
    for file in files:
        file.rename(images / f"{file.parent.name}{file.name}")
    for name in "cats", "dogs":
        (images / name).rmdir()
    return False


def _empty_class(images: Path, files: list[Path]) -> bool:
    (images / "birds").mkdir()
    return False


def _loop(images: Path, files: list[Path]) -> None:
    (images / "cats" / "loop").symlink_to(images, target_is_directory=True)


def _self_link(images: Path, files: list[Path]) -> None:
    (images / "cats" / "9.png").symlink_to("9.png")


def _dangling(images: Path, files: list[Path]) -> bool:
    (images / "cats" / "9.png").symlink_to("nothing.png")
    return False


def _folder_as_image(images: Path, files: list[Path]) -> None:
    (images / "cats" / "9.png").mkdir()


def _pipe(images: Path, files: list[Path]) -> None:
    os.mkfifo(images / "cats" / "9.png")


def _device(images: Path, files: list[Path]) -> None:
    (images / "cats" / "9.png").symlink_to("/dev/zero")


def _odd_names(images: Path, files: list[Path]) -> bool:
    for k, name in enumerate(("a b.png", "ü日本.png", "'quote\".png", "$(id).png")):
        files[k].rename(images / "cats" / name)
    return True


def _bytes_name(images: Path, files: list[Path]) -> None:
    os.rename(os.fsencode(files[0]), os.path.join(os.fsencode(images / "cats"), b"\xff\xfe.png"))


def _control_name(images: Path, files: list[Path]) -> None:
    files[0].rename(images / "cats" / "\x1b[31mred\n.png")


def _same_stem(images: Path, files: list[Path]) -> bool:
    (images / "cats" / "0.jpg").write_bytes(files[0].read_bytes())
    return True


def _other_case(images: Path, files: list[Path]) -> bool:
    files[0].rename(files[0].with_suffix(".PNG"))
    return True


def _splits(images: Path, files: list[Path]) -> bool:
    (images / "train").mkdir()
    (images / "cats").rename(images / "train" / "cats")
    (images / "dogs").rename(images / "test")
    return False


def _beside_splits(images: Path, files: list[Path]) -> bool:
    (images / "train").mkdir()
    (images / "test").mkdir()
    return False


def _others(images: Path, files: list[Path]) -> bool:
    (images / "cats" / "Thumbs.db").write_bytes(b"x")
    (images / "readme.txt").write_text("x")
    return True


def _hidden(images: Path, files: list[Path]) -> None:
    (images / ".cache").mkdir()
    (images / "cats" / "._0.png").write_bytes(b"\x00\x05\x16\x07")


def _deep(images: Path, files: list[Path]) -> bool:
    place = images / "cats"
    for _ in range(60):
        place = place / "deeper"
    place.mkdir(parents=True)
    files[0].rename(place / "0.png")
    return True


ODD_FOLDERS: dict[str, Callable[[Path, list[Path]], bool | None]] = {
    made.__name__: made
    for made in (
        *(
            _no_folder,
            _a_file,
            _one_class,
            _no_class,
            _empty_class,
            _loop,
            _self_link,
            _dangling,
            _folder_as_image,
            _pipe,
        ),
        *(_device, _odd_names, _bytes_name, _control_name, _same_stem, _other_case, _splits, _beside_splits, _others),
        *(_hidden, _deep),
    )
}
