"""Copy of a finished run what its tables and figures are made of: `python docs/keep_results.py RUN DEST`.

Kept are settings, versions, histories, times and predictions of every network, and RDMs of the first seed before
training and at its end, to the seven digits that a network's numbers have. Weights, checkpoints and pictures of stimuli
are not. `brainrdl report DEST` then gives the same tables as `brainrdl report RUN`, without the data.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from brainrdl.rdms import load_rdms, save_rdms
from brainrdl.report.figure_runs import has_brains
from brainrdl.report.run_files import predictions_file
from brainrdl.report.set_up import without_path
from brainrdl.report.task_run import TEACHER, read_task_run
from brainrdl.run_folder import EXPERIMENT, SEARCH, read_marks
from brainrdl.runs import write_bytes, write_json, write_text
from brainrdl.settings import dump_yaml, read_yaml

_OF_RUN = ("environment.json", "references.h5", SEARCH)
_OF_PART = ("history.csv", "timing.csv", "copied.json")


def keep_results(run_dir: Path, dest: Path, search: Path | None = None) -> int:
    """Write DEST anew; the number of its bytes. search: the table of the search for settings, where it is elsewhere.

    Raises ValueError for a run with brains as teachers or with unfinished parts, and where DEST is no kept run.
    """
    if has_brains(run_dir):
        raise ValueError(f"'{run_dir}' is a run with brains as teachers; expected one of methods that learn a task")
    run = read_task_run(run_dir)
    if run.missing:
        method, seeds = next(iter(run.missing.items()))
        raise ValueError(f"'{run_dir}' is not finished: {method}, seed {seeds[0]} is missing; let `brainrdl run` end")
    if dest.exists():
        if (
            dest.resolve() == run_dir.resolve()
            or not (dest / EXPERIMENT).is_file()
            or list(dest.rglob("*.safetensors"))
        ):
            raise ValueError(f"'{dest}' is there and holds no kept run; give another folder")
        shutil.rmtree(dest)
    dest.mkdir(parents=True)
    write_text(dest / EXPERIMENT, dump_yaml(_without_paths(read_yaml(run_dir / EXPERIMENT))))
    for name in _OF_RUN:
        _copy(run_dir / name, dest / name)
    if search is not None:
        shutil.copyfile(search, dest / SEARCH)
    for part in (marker.parent for marker in sorted(run_dir.rglob("part.json"))):
        own = dest / part.relative_to(run_dir)
        own.mkdir(parents=True)
        # Without checksums: what is kept is packed, and not all of it.
        marks = read_marks(part) or {}
        write_json(own / "part.json", {key: marks[key] for key in ("finished", "settings")})
        for name in _OF_PART:
            _copy(part / name, own / name)
        if predictions := predictions_file(part):  # a teacher of other data has none
            text = predictions.read_bytes()
            packed = text if predictions.suffix == ".gz" else gzip.compress(text, mtime=0)  # no date: same in, same out
            write_bytes(own / "predictions.csv.gz", packed)
        if part.name in (TEACHER, f"seed-{run.logged_seeds[0] if run.logged_seeds else None}"):
            _keep_rdms(part / "rdms.h5", own / "rdms.h5")
    return sum(file.stat().st_size for file in dest.rglob("*") if file.is_file())


def _copy(source: Path, dest: Path) -> None:
    if source.is_file():
        shutil.copyfile(source, dest)


def _without_paths(settings: Any) -> Any:
    """Of a path the name alone: where something lay on this machine says nothing elsewhere."""
    if isinstance(settings, dict):
        return {key: _without_paths(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_paths(value) for value in settings]
    return without_path(settings) if isinstance(settings, str) else settings


def _keep_rdms(source: Path, dest: Path) -> None:
    """The first and the last epoch, packed."""
    if not source.is_file():
        return
    rdms = load_rdms(source)
    epochs = rdms.rdm_descriptors["epoch"]
    rdms = rdms.subset("epoch", sorted({min(epochs), max(epochs)}))
    rdms.dissimilarities = rdms.dissimilarities.astype(np.float32).astype(float)
    save_rdms(rdms, dest)
    draft = dest.with_suffix(".draft.h5")
    with h5py.File(dest) as plain, h5py.File(draft, "w") as packed:
        packed.attrs.update({name: value for name, value in plain.attrs.items() if name != "checksum"})
        for name, item in plain.items():
            if name == "dissimilarities":
                packed.create_dataset(name, data=item[:], compression="gzip", compression_opts=9, shuffle=True)
            else:
                plain.copy(name, packed)
    draft.replace(dest)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("dest", type=Path, help="such as docs/results/runs/mnist; an earlier copy is replaced")
    parser.add_argument("--search", type=Path, help="the table of the search for settings, search.csv")
    given = parser.parse_args()
    try:
        size = keep_results(given.run, given.dest, given.search)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{given.dest}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
