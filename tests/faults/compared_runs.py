"""Whether two folders of a run hold the same results, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from brainrdl.rdms import load_rdms
from brainrdl.training.checkpoint import load_checkpoint

# Times and machines are in them, or they are made of what is compared.
_NOT_COMPARED = {"timing.csv", "environment.json", ".lock", "events"}
_FOLDERS = {"tensorboard"}
_TIMES = ("seconds", "images_per_second", "timing.csv", "environment.json", "fingerprint", "written")


def differences(run: Path, reference: Path) -> list[str]:
    """The files of two finished runs that are not the same, in words; also what a killed process left behind.

    Of RDMs the values and descriptors count, of the report the tables, of JSON files all but times.
    """
    names, expected = _names(run), _names(reference)
    # Where a training diverges in its first epoch, only one that was interrupted has a checkpoint.
    for only in names ^ expected:
        if Path(only).parent.name == "checkpoint" and ".draft" not in only:
            names, expected = names - {only}, expected - {only}
    found = [f"{name} is missing" for name in sorted(expected - names)]
    found += [f"{name} should not be there" for name in sorted(names - expected)]
    for name in sorted(names & expected):
        first, second = run / name, reference / name
        if first.read_bytes() != second.read_bytes() and not _same(first, second):
            found.append(f"{name} differs")
    return found


def not_byte_for_byte(run: Path, reference: Path) -> list[str]:
    """Files whose content is the same, and whose bytes are not."""
    names = _names(run) & _names(reference)
    return [name for name in sorted(names) if (run / name).read_bytes() != (reference / name).read_bytes()]


def _names(run: Path) -> set[str]:
    files = (file for file in run.rglob("*") if file.is_file())
    return {
        str(file.relative_to(run))
        for file in files
        if file.name not in _NOT_COMPARED and not _FOLDERS & set(file.relative_to(run).parts)
    }


def _same(first: Path, second: Path) -> bool:
    if first.name.endswith(".previous.pt"):
        return True  # of the last epoch or within it
    match first.suffix:
        case ".json":
            return _without_times(json.loads(first.read_text())) == _without_times(json.loads(second.read_text()))
        case ".h5":
            return _same_rdms(first, second)
        case ".pt":
            return _same_states(load_checkpoint(first), load_checkpoint(second))
        case ".csv" if first.parent.name == "report":
            a, b = (pd.read_csv(file) for file in (first, second))
            columns = [column for column in a if not any(time in column for time in _TIMES)]
            return list(a) == list(b) and a[columns].equals(b[columns])
        case ".html" | ".md" | ".png" | ".pdf":
            return first.parent.name == "report"  # drawn from the tables, with times
    return False


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(one) for key, one in value.items() if key not in _TIMES}
    return value


def _same_rdms(first: Path, second: Path) -> bool:
    a, b = load_rdms(first), load_rdms(second)
    described = [
        {
            kind: {k: list(map(str, v)) for k, v in getattr(rdms, f"{kind}_descriptors").items()}
            for kind in ("rdm", "pattern")
        }
        for rdms in (a, b)
    ]
    return described[0] == described[1] and np.array_equal(a.dissimilarities, b.dissimilarities, equal_nan=True)


def _same_states(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same_states(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same_states, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return a == b or (a != a and b != b)
