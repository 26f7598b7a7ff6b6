"""By what one teacher is told from another: a training that goes on must not go on from another one's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from brainrdl.sources.combined import CombinedTeacher
from brainrdl.sources.controls import CategoryTeacher, RenamedTeacher, ShuffledTeacher
from brainrdl.sources.network import NetworkTeacher
from brainrdl.sources.patterns import MeasuredPatterns
from brainrdl.sources.rdms import MeasuredRDMs

_MOST_ROWS = 256  # of a memory map, spread over all of it


def teacher_fingerprint(teacher: object) -> str | None:
    """SHA-256 of what determines a teacher's answers; None where that cannot be known.

    teacher: a source of this package, or any with a method `fingerprint`. Of responses in a memory map 256 rows are
    read, of everything else all. Noise precisions are not looked at: what is made of them differs between machines.
    """
    digest = hashlib.sha256()
    for part in _parts(teacher):
        if part is None:
            return None
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def content_fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of named tensors, wherever they are."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(name.encode() + _bytes(value))
    return digest.hexdigest()


def _parts(teacher: object) -> Iterator[bytes | None]:
    """What there is to tell of a teacher, in order; None for what cannot be told."""
    yield type(teacher).__name__.encode()
    match teacher:
        case NetworkTeacher():
            yield _text([teacher.fingerprint(), teacher.dissimilarity])
        case MeasuredRDMs():
            yield _text([teacher.names, teacher.dissimilarity, teacher.ids])
            yield _bytes(teacher._values._numbers)
            yield b"" if teacher._weights is None else _bytes(teacher._weights._numbers)
        case MeasuredPatterns():
            yield _text([teacher.names, teacher.dissimilarity, teacher.weights, teacher.ids])
            for responses in teacher._responses.values():
                patterns = responses.patterns
                n_rows = min(len(patterns), _MOST_ROWS) if isinstance(patterns, np.memmap) else len(patterns)
                rows = np.linspace(0, len(patterns) - 1, n_rows).astype(int)
                yield _text([patterns.shape, patterns.dtype.str, responses.scale, list(responses.index.items())])
                yield np.ascontiguousarray(patterns[rows]).tobytes()
                yield _bytes(responses.rows) + _bytes(responses.counts) + _bytes(responses.fold)
        case CombinedTeacher():
            yield _text([teacher._combined, teacher._scales])
            for prefix, source in teacher._sources:
                yield prefix.encode()
                yield from _parts(source)
        case ShuffledTeacher():
            yield _text(teacher.identity)
            yield from _parts(teacher.source)
        case RenamedTeacher():
            yield _text(teacher._answers)
            yield from _parts(teacher.source)
        case CategoryTeacher():
            yield _text(teacher._category)
            yield from _parts(teacher.source)
        case _:
            own = getattr(teacher, "fingerprint", None)
            yield str(own()).encode() if callable(own) else None


def _text(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
