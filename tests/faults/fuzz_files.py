"""Experiment files, data specs, network files and changes on the command line, drawn and damaged, for fuzz.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import fuzz_images
import numpy as np
import yaml
from fuzz import Case, Generator
from fuzz_mutations import LONG, TEXT_WORDS, Mutated, damage_text, dump, misspelt, mutate, pick
from fuzz_settings import (
    brain_experiment,
    brain_spec,
    image_spec,
    network_file,
    search_block,
    task_experiment,
    write_brain_set,
)


def _changed(generator: np.random.Generator, settings: dict[str, Any], times: float = 0.2) -> Mutated:
    """The settings changed in one place, or now and then in several."""
    changed = mutate(generator, settings)
    while generator.random() < times:
        again = mutate(generator, changed.value) if changed.value else changed
        changed = Mutated(again.value, (*changed.words, *again.words))
    return changed


def _written(path: Path, settings: dict[str, Any]) -> None:
    path.write_bytes(dump(settings).encode("utf-8", "surrogatepass"))


Draw = Callable[[np.random.Generator], dict[str, Any]]


def _drawn(kind: str, draw: Draw, arguments: list[str], prepare: Callable[[Path], None] | None = None) -> Generator:
    """Valid settings."""

    def make(generator: np.random.Generator, folder: Path) -> Case:
        if prepare is not None:
            prepare(folder)
        settings = draw(generator)
        _written(folder / "case.yaml", settings)
        # Whether an inner fold gives a score depends on which stimuli fall into it.
        valid = None if "choose" in settings and "run" in arguments else True
        return Case(kind, arguments, ("case.yaml",), valid=valid)

    return make


def _mutated(kind: str, draw: Draw, arguments: list[str], prepare: Callable[[Path], None] | None = None) -> Generator:
    """Valid settings, changed in one place or several."""

    def make(generator: np.random.Generator, folder: Path) -> Case:
        if prepare is not None:
            prepare(folder)
        changed = _changed(generator, draw(generator))
        _written(folder / "case.yaml", changed.value)
        return Case(kind, arguments, ("case.yaml",), changed.words)

    return make


def _damaged(kind: str, draw: Draw, arguments: list[str], prepare: Callable[[Path], None] | None = None) -> Generator:
    """Valid settings as text that is damaged."""

    def make(generator: np.random.Generator, folder: Path) -> Case:
        if prepare is not None:
            prepare(folder)
        (folder / "case.yaml").write_bytes(damage_text(generator, draw(generator)))
        return Case(kind, arguments, ("case.yaml",), TEXT_WORDS)

    return make


def _built_in(folder: str, only: tuple[str, ...] = ()) -> Draw:
    """One of the package's own files."""
    package = resources.files("brainrdl.data_specs" if folder == "data_specs" else "brainrdl.experiments")

    def draw(generator: np.random.Generator) -> dict[str, Any]:
        names = only or sorted(file.name for file in package.iterdir() if file.name.endswith(".yaml"))
        return yaml.safe_load((package / pick(generator, names)).read_text(encoding="utf-8"))

    return draw


def _a_path(generator: np.random.Generator, folder: Path) -> Case:
    """A name in place of a file: of nothing, of a folder, of a link, of what cannot be read."""
    (folder / "folder.yaml").mkdir()
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "dangling.yaml").symlink_to("nothing.yaml")
    (folder / "empty.yaml").touch()
    (folder / "ünïcode 日本.yaml").write_text("name: [")
    (folder / "data.bin").write_bytes(generator.bytes(100))
    names = ["folder.yaml", "loop.yaml", "dangling.yaml", "empty.yaml", "ünïcode 日本.yaml", "data.bin", "nothing.yaml"]
    names += [
        "nothing",
        "digit",
        "mnst",
        "../case.yaml",
        "",
        " ",
        ".",
        "/dev/null",
        "/dev/zero.yaml",
        "a" * 300,
        "a\nb.yaml",
    ]
    names += [
        "\x1b[31m.yaml",
        "no/such/folder/x.yaml",
        "folder.yaml/x.yaml",
        "data.bin/x.yaml",
        misspelt(generator, "digits"),
    ]
    name = pick(generator, [name for name in names if name != "digits"])  # which would run in full
    command = pick(
        generator, [["check"], ["run", "--out", "out", "--jobs", "1"], ["rdms", "--out", "out.h5"], ["fetch"]]
    )
    named = name.strip()[:20] if name.isprintable() and name.strip(" .") else "a"
    return Case("path", [command[0], name, *command[1:]], (named, "experiment", "spec"))


_KEYS = (
    *("training.epochs", "training.learning_rate", "training.batch_size", "data.train", "data.spec", "student.network"),
    *(
        "student.arguments.features",
        "analysis.layers",
        "methods.rdl.pairs",
        "methods.rdl.layers",
        "methods.baseline",
        "name",
    ),
    *(
        "seeds",
        "teacher",
        "teacher.training.epochs",
        "teacher.deformed.train",
        "search.trials",
        "new",
        "training.new",
        "a.b.c.d",
    ),
    *(
        "training",
        "data",
        "methods",
        "",
        ".",
        "a..b",
        "training.",
        ".training",
        "training.epochs.x",
        "name.x",
        "seeds.0",
        LONG,
    ),
)
_VALUES = (
    *(
        "1",
        "0",
        "-1",
        "x",
        "null",
        "",
        "[",
        "{",
        "[1",
        "&a [*a]",
        "*a",
        "!!python/name:os.system",
        "!!int x",
        "2026-13-45",
    ),
    *(
        "9" * 5000,
        "[" * 2000,
        "{a: 1}",
        "[1, 2]",
        "1e400",
        ".nan",
        "yes",
        "'",
        '"',
        "\t",
        "a: b: c",
        "@",
        "[fc]",
        "{pool1: pool1}",
    ),
    *(
        "\x1b[31m",
        "\x00",
        "日本",
        "- a",
        "? a",
        "<<: 1",
        "!!timestamp x",
        "&a [&b [&c [*a, *b, *c]]]",
        "!!binary '*'",
        "=",
        "#",
        "|",
    ),
)


def _change(generator: np.random.Generator, folder: Path) -> Case:
    """Changes on the command line: --set, --methods, --seeds."""
    _written(folder / "case.yaml", {**task_experiment(generator), "name": "tiny"})
    arguments = ["run", "case.yaml", "--out", "out", "--jobs", "1"]
    words = ["--set", "--methods", "--seeds", "case.yaml"]
    for _ in range(int(generator.integers(1, 3))):
        key, value = pick(generator, _KEYS), pick(generator, _VALUES)
        change = pick(generator, [f"{key}={value}"] * 8 + [key, f"={value}", "=", ""])
        arguments += ["--set", change]
        words.append(key.split(".")[0] or "--set")
    if generator.random() < 0.2:
        arguments += ["--seeds", pick(generator, ["0", "1,1", "-1", "x", "", ",", "99999999999", "0,1", "1.5", "0x1"])]
    if generator.random() < 0.2:
        arguments += ["--methods", pick(generator, ["rdl", "nothing", "", ",", "baseline,baseline", "a" * 999])]
    return Case("change", arguments, ("case.yaml", "--set", "--seeds", "--methods"), tuple(words))


def _weights(generator: np.random.Generator, folder: Path) -> Case:
    """A network file with weights from a file that is none, or not of this network."""
    settings = network_file(generator)
    name = pick(generator, ["w.safetensors", "w.pt", "w.pth", "w", "nothing.pt", "pretrained", "."])
    content = [
        b"",
        b"\x00" * 8,
        b"\xff" * 100,
        (2**40).to_bytes(8, "little") + b"{}",
        (20).to_bytes(8, "little") + b'{"a": {"dtype": "F3"',
        b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
        b"PK\x03\x04" + generator.bytes(50),
        generator.bytes(300),
        (2).to_bytes(8, "little") + b"{}",
    ]
    if name.startswith("w"):
        (folder / name).write_bytes(pick(generator, content))
    _written(folder / "case.yaml", {**settings, "weights": name})
    figure = ["figure", "rdm", "case.yaml", "--out", "figure.png"]
    return Case("weights", figure, ("case.yaml", name), ("weights",), valid=False)


def _rare(make: Generator, valid: bool | None) -> Generator:
    """The same with the report of the run made, too."""

    def made(generator: np.random.Generator, folder: Path) -> Case:
        return make(generator, folder)._replace(report=True, valid=valid)

    return made


_CHECK = ["check", "case.yaml"]
_RUN = ["run", "case.yaml", "--out", "out", "--jobs", "1"]
_FIGURE = ["figure", "rdm", "case.yaml", "--out", "figure.png"]


GENERATORS: dict[str, Generator] = {
    "experiment, drawn": _drawn("experiment, drawn", task_experiment, _CHECK),
    "experiment, changed": _mutated("experiment, changed", task_experiment, _CHECK),
    "experiment, damaged": _damaged("experiment, damaged", task_experiment, _CHECK),
    "experiment, built in": _mutated("experiment, built in", _built_in("experiments", ("digits.yaml",)), _CHECK),
    "experiment run, drawn": _drawn("experiment run, drawn", task_experiment, _RUN),
    "experiment run, changed": _mutated("experiment run, changed", task_experiment, _RUN),
    "search, drawn": _drawn(
        "search, drawn",
        lambda generator: {**task_experiment(generator), "search": search_block(generator)},
        [*_RUN, "--search"],
    ),
    "search, changed": _mutated(
        "search, changed",
        lambda generator: {**task_experiment(generator), "search": search_block(generator)},
        [*_RUN, "--search"],
    ),
    "change": _change,
    "path": _a_path,
    "brain experiment, drawn": _drawn("brain experiment, drawn", brain_experiment, _CHECK, write_brain_set),
    "brain experiment, changed": _mutated("brain experiment, changed", brain_experiment, _CHECK, write_brain_set),
    "brain experiment, damaged": _damaged("brain experiment, damaged", brain_experiment, _CHECK, write_brain_set),
    "brain run, drawn": _drawn("brain run, drawn", brain_experiment, _RUN, write_brain_set),
    "brain run, changed": _mutated("brain run, changed", brain_experiment, _RUN, write_brain_set),
    "data spec, drawn": _drawn("data spec, drawn", image_spec, _CHECK, fuzz_images.write_classes),
    "data spec, changed": _mutated("data spec, changed", image_spec, _CHECK, fuzz_images.write_classes),
    "data spec, damaged": _damaged("data spec, damaged", image_spec, _CHECK, fuzz_images.write_classes),
    "data spec, built in": _mutated("data spec, built in", _built_in("data_specs"), _CHECK),
    "brain spec, changed": _mutated("brain spec, changed", lambda generator: brain_spec(), _CHECK, write_brain_set),
    "brain spec, damaged": _damaged("brain spec, damaged", lambda generator: brain_spec(), _CHECK, write_brain_set),
    "network file, drawn": _drawn("network file, drawn", network_file, _FIGURE),
    "network file, changed": _mutated("network file, changed", network_file, _FIGURE),
    "network file, damaged": _damaged("network file, damaged", network_file, _FIGURE),
    "weights": _weights,
    "report, drawn": _rare(_drawn("report, drawn", task_experiment, _RUN), True),
    **fuzz_images.GENERATORS,
}

SHARES = {
    **dict.fromkeys(("experiment run, drawn", "experiment run, changed", "search, drawn", "search, changed"), 0.15),
    **dict.fromkeys(("brain run, drawn", "brain run, changed"), 0.15),
    **dict.fromkeys(("network file, drawn", "network file, changed", "change"), 0.4),
    "report, drawn": 0.02,
    **fuzz_images.SHARES,
}
