"""One teacher is told from another, and is the same one when it is made again."""

import numpy as np
import pytest
import torch
from rsatoolbox.rdm import RDMs
from torch import nn

from brainrdl.sources import MeasuredPatterns, MeasuredRDMs, NetworkTeacher, PatternTable
from brainrdl.sources.combined import CombinedTeacher
from brainrdl.sources.controls import CategoryTeacher, RenamedTeacher, ShuffledTeacher
from brainrdl.sources.fingerprints import content_fingerprint, teacher_fingerprint
from brainrdl.stimuli import Stimuli

IDS = ["a", "b", "c", "d"]


def rdms(change=0.0, ids=IDS, measure="correlation", roi="IT"):
    values = np.array([[0.1, 0.2, np.nan, 0.4, 0.5, 0.6 + change]])
    return RDMs(values, measure, rdm_descriptors={"roi": [roi]}, pattern_descriptors={"stimulus": ids})


def measured(*, weight=None, **changes):
    weights = None if weight is None else RDMs(np.full((1, 6), weight), "w", rdm_descriptors={"roi": ["IT"]},
                                               pattern_descriptors={"stimulus": IDS})  # fmt: skip
    return MeasuredRDMs(rdms(**changes), weights=weights)


def patterns(change=0.0, stimulus=(*IDS, *IDS), fold=(0,) * 4 + (1,) * 4, scale=1.0, kind="crossnobis"):
    responses = np.random.default_rng(0).normal(size=(8, 5))
    responses[3, 2] += change
    return MeasuredPatterns({"IT": PatternTable(responses, list(stimulus), list(fold), scale=scale)}, kind)


def network(seed=0, layers=("0",), kind="euclidean"):
    torch.manual_seed(seed)
    return NetworkTeacher(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), ["1" if one == "0" else "" for one in layers], kind
    )


SAME = {
    "network": network,
    "rdms": measured,
    "weighted": lambda: measured(weight=2.0),
    "patterns": patterns,
    "combined": lambda: CombinedTeacher({"x": measured()}, {"mean": {"x/IT": 1.0}}),
    "shuffled": lambda: ShuffledTeacher(measured(), {"a": "b", "b": "a"}),
    "renamed": lambda: RenamedTeacher(measured(), {"V1": "IT"}),
    "category": lambda: CategoryTeacher(measured(), dict(zip(IDS, "xxyy", strict=True))),
}
OTHER = {
    "network": [lambda: network(1), lambda: network(layers=("",)), lambda: network(kind="correlation")],
    "rdms": [
        lambda: measured(change=1e-15),
        lambda: measured(ids=["a", "b", "d", "c"]),
        lambda: measured(measure="euclidean"),
        lambda: measured(roi="V4"),
        lambda: measured(weight=1.0),
    ],
    "weighted": [lambda: measured(weight=3.0)],
    "patterns": [
        lambda: patterns(1e-15),
        lambda: patterns(stimulus=(*IDS, "b", "a", "c", "d")),
        lambda: patterns(fold=(0, 1) * 4, stimulus=("a", "a", "b", "b", "c", "c", "d", "d")),
        lambda: patterns(scale=2.0),
        lambda: patterns(kind="euclidean"),
    ],
    "combined": [
        lambda: CombinedTeacher({"x": measured(change=0.1)}, {"mean": {"x/IT": 1.0}}),
        lambda: CombinedTeacher({"x": measured()}, {"mean": {"x/IT": 2.0}}),
        lambda: CombinedTeacher({"y": measured()}, {"mean": {"y/IT": 1.0}}),
    ],
    "shuffled": [
        lambda: ShuffledTeacher(measured(), {"a": "c", "c": "a"}),
        lambda: ShuffledTeacher(measured(change=0.1), {"a": "b", "b": "a"}),
    ],
    "renamed": [lambda: RenamedTeacher(measured(), {"V2": "IT"}), measured],
    "category": [lambda: CategoryTeacher(measured(), dict(zip(IDS, "xyxy", strict=True)))],
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_and_others(kind):
    first = teacher_fingerprint(SAME[kind]())
    assert first == teacher_fingerprint(SAME[kind]()) and len(first) == 64
    others = [teacher_fingerprint(make()) for make in OTHER[kind]]
    assert first not in others and len(set(others)) == len(others)


def test_what_is_asked_changes_nothing():
    teacher, asked = network(), network()
    asked.patterns(Stimuli(torch.arange(12.0).view(3, 1, 2, 2), ("a", "b", "c")))
    assert teacher_fingerprint(asked) == teacher_fingerprint(teacher)


def test_of_a_memory_map_rows_of_all_of_it_are_read(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32))

    def teacher():
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        return MeasuredPatterns({"IT": PatternTable(mapped, [str(k) for k in range(1000)])})

    first = teacher_fingerprint(teacher())
    assert first == teacher_fingerprint(teacher())
    changed = np.load(tmp_path / "x.npy")
    changed[-1] += 1
    np.save(tmp_path / "x.npy", changed)
    assert teacher_fingerprint(teacher()) != first


def test_teachers_of_ones_own():
    class Own:
        names, dissimilarity = ("IT",), "euclidean"

    class Told(Own):
        def fingerprint(self):
            return "v1"

    assert teacher_fingerprint(Own()) is None
    assert teacher_fingerprint(ShuffledTeacher(Own(), {})) is None
    assert len(teacher_fingerprint(Told())) == 64 and teacher_fingerprint(Told()) == teacher_fingerprint(Told())


def test_weights():
    one = {"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}
    assert content_fingerprint(one) == content_fingerprint(dict(one))
    assert content_fingerprint(one) != content_fingerprint({"a": torch.tensor([2.0]), "b": torch.tensor([1.0])})
    assert content_fingerprint(one) != content_fingerprint({**one, "b": torch.tensor([2.0000002])})
