"""Files written whole or not at all, and what tells two runs apart."""

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys

import pytest

from brainrdl.runs import (
    checksum,
    damage,
    fingerprint,
    first_difference,
    read_json,
    read_marked,
    remove_drafts,
    write_atomically,
    write_bytes,
    write_json,
    write_marked,
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


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (lambda draft: OSError(28, "No space left on device"), "x.txt"),
        (lambda draft: OSError(28, "No space left on device", str(draft)), "x.txt"),
        (lambda draft: OSError(2, "No such file or directory", "another.txt"), "another.txt"),
        (lambda draft: OSError("a library's own words"), None),
    ],
)
def test_an_error_of_the_system_names_the_file_and_not_its_draft(tmp_path, error, named):
    def write(draft):
        raise error(draft)

    with pytest.raises(OSError) as told:
        write_atomically(tmp_path / "x.txt", write)
    assert (told.value.filename and os.path.basename(told.value.filename)) == named


def test_it_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("sync") or sync(file))
    monkeypatch.setattr(os, "replace", lambda *files: done.append("rename") or replace(*files))
    write_text(tmp_path / "x.txt", "text")
    assert done == ["sync", "rename", "sync"], "and its new name, too"


@pytest.mark.parametrize(("number", "raises"), [(errno.EINVAL, False), (errno.EACCES, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synced_is_no_error_but_a_broken_disk_is(tmp_path, monkeypatch, number, raises):
    sync = os.fsync

    def refuse(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(number, os.strerror(number))
        sync(file)

    monkeypatch.setattr(os, "fsync", refuse)
    if raises:
        with pytest.raises(OSError, match="Input/output error"):
            write_text(tmp_path / "x.txt", "text")
    else:
        write_text(tmp_path / "x.txt", "text")
    assert (tmp_path / "x.txt").read_text() == "text" and names(tmp_path) == ["x.txt"]


def test_a_full_disk_at_the_sync_keeps_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "x.txt", "old")

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "x.txt", "new")
    assert (tmp_path / "x.txt").read_text() == "old" and names(tmp_path) == ["x.txt"]


def test_drafts_of_processes_that_are_gone_are_removed_and_nothing_else(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    kept = [f".x.{os.getppid()}.draft.csv", "x.1.draft.csv", ".x.draft.csv", ".lock", "draft.csv", ".x.abc.draft.csv"]
    removed = [f".x.{gone.pid}.draft.csv", f".weights.{gone.pid}.draft", f".x.{os.getpid()}.draft.csv"]
    (tmp_path / "below").mkdir()
    for name in (*kept, *removed):
        (tmp_path / "below" / name).write_text("half")
    remove_drafts(tmp_path)
    assert names(tmp_path / "below") == sorted(kept)


def test_what_has_become_of_a_file(tmp_path):
    file = tmp_path / "x.bin"
    file.write_bytes(b"content")
    known = checksum(file)
    assert known == {"bytes": 7, "sha256": hashlib.sha256(b"content").hexdigest()} and damage(file, known) is None
    for content, found in [
        (b"", "has 0 bytes, not the 7 that were written"),
        (b"contents", "has 8 bytes, not the 7 that were written"),
        (b"cOntent", "has another content than was written"),
    ]:
        file.write_bytes(content)
        assert damage(file, known) == found
    file.unlink()
    assert damage(file, known) == "is missing"


def test_any_changed_bit_of_a_marked_file_is_told_or_means_nothing(tmp_path):
    file, value = tmp_path / "x.json", {"finished": True, "settings": {"a": [1.5, None], "10": 1, "9": "ü"}}
    write_marked(file, value)
    assert read_marked(file, ("finished",), "delete it") == value
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            file.write_bytes(changed)
            try:
                found = read_marked(file, ("finished", "settings"), "delete it")
            except ValueError as error:
                assert str(error).startswith(f"{file}: ") and str(error).endswith("; delete it")
            else:
                # A blank in place of another, or the name of the fingerprint itself.
                assert {key: found[key] for key in value} == value


def test_a_file_without_a_fingerprint_is_read_as_it_is(tmp_path):
    write_json(tmp_path / "x.json", {"finished": False})
    assert read_marked(tmp_path / "x.json", ("finished",), "delete it") == {"finished": False}
    with pytest.raises(ValueError, match=r"x\.json: expected the keys other; delete it"):
        read_marked(tmp_path / "x.json", ("other",), "delete it")


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
