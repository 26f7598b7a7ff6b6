"""Files written whole or not at all, and what tells two runs apart."""

import json
import os

import pytest

from brainrdl.runs import (
    fingerprint,
    first_difference,
    read_json,
    write_atomically,
    write_bytes,
    write_json,
    write_text,
)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_written_into_new_folders(tmp_path):
    write_text(tmp_path / "a" / "b" / "x.txt", "día\n")
    assert (tmp_path / "a" / "b" / "x.txt").read_text("utf-8") == "día\n"
    assert names(tmp_path / "a" / "b") == ["x.txt"]


def test_json_and_back(tmp_path):
    value = {"β": [1, 2.5, None, True], "a": {"b": "c"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert list(read_json(tmp_path / "x.json")) == ["β", "a"]


def test_bytes(tmp_path):
    write_bytes(tmp_path / "x.bin", b"\x00\xff")
    assert (tmp_path / "x.bin").read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["x.bin"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    """While it is written the old one stands there, and the draft has the same ending."""
    place = tmp_path / "x.h5"
    place.write_text("old")
    seen = []

    def write(draft):
        seen.append((draft.parent, draft.suffix, draft != place))
        draft.write_text("ne")
        seen.append(place.read_text())
        draft.write_text("new")

    write_atomically(place, write)
    assert seen == [(tmp_path, ".h5", True), "old"]
    assert place.read_text() == "new"
    assert names(tmp_path) == ["x.h5"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    place = tmp_path / "x.txt"
    write_text(place, "old")

    def write(draft):
        draft.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(place, write)
    assert place.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_it_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("sync") or sync(file))
    monkeypatch.setattr(os, "replace", lambda *files: done.append("rename") or replace(*files))
    write_text(tmp_path / "x.txt", "text")
    assert done == ["sync", "rename"]


def test_damaged_json(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"x.json: cannot be read \(.*\); delete it to have it made anew"):
        read_json(tmp_path / "x.json")


def test_fingerprint():
    value = {"a": [1, 2.0, {"x": None}], "b": "ü"}
    same = {"b": "ü", "a": [1, 2.0, {"x": None}]}
    assert fingerprint(value) == fingerprint(same) == fingerprint(json.loads(json.dumps(value)))
    assert len(fingerprint(value)) == 64
    others = [{**value, "a": [2.0, 1, {"x": None}]}, {**value, "b": "u"}, {**value, "c": None}, {"a": value["a"]}]
    assert len({fingerprint(other) for other in [value, *others]}) == 5


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"b": {"c": [1, 2]}, "a": 1}, None),
        ({"training": {"epochs": 5, "x": 1}}, {"training": {"epochs": 6, "x": 2}}, "training.epochs: 5 before, 6 now"),
        ({"a": {"b": 1}}, {"a": {}}, "a.b: 1 before, absent now"),
        ({"a": {}}, {"a": {"b": None}}, "a.b: None now, absent before"),
        ({"a": {"b": 1}}, {"a": 3}, "a: {'b': 1} before, 3 now"),
        ({"seeds": [0, 1]}, {"seeds": [0]}, "seeds: [0, 1] before, [0] now"),
        ({"a": "x"}, {"a": "y"}, "a: 'x' before, 'y' now"),
        ({0: 1}, {0: 2}, "0: 1 before, 2 now"),
    ],
)
def test_first_difference(before, now, difference):
    assert first_difference(before, now) == difference
