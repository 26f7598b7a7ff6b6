"""Patterns in memory and in files: the same, and nothing is left behind."""

import errno
import shutil
import tempfile
import weakref
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from brainrdl.analysis import pattern_store
from brainrdl.analysis.pattern_store import PatternStore

KIB = 2**-20  # in GiB


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def opened(monkeypatch, folder):
    """The temporary files that were opened."""
    files = []
    original = pattern_store._temporary_file
    monkeypatch.setattr(pattern_store, "_temporary_file", lambda: files.append(original()) or files[-1])
    return files


def batches(dtype=torch.float32, n_stimuli=10, size=3):
    generator = torch.Generator().manual_seed(0)
    whole = {
        layer: torch.randn(n_stimuli, n_units, generator=generator).to(dtype)
        for layer, n_units in (("a", 100), ("b", 7), ("c", 40))
    }
    return whole, [{k: v[start : start + size] for k, v in whole.items()} for start in range(0, n_stimuli, size)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory", [1.0, 0.0])
def test_what_was_added_is_read_again(opened, memory, dtype):
    whole, parts = batches(dtype)
    with PatternStore(10, memory) as store:
        for part in parts:
            store.add(part)
        assert len(opened) == (0 if memory else 3)
        for layer, patterns in whole.items():
            kept = patterns if dtype == torch.float64 else patterns.float()
            assert tuple(store[layer].shape) == patterns.shape
            for rows in (slice(0, 10), slice(2, 5), slice(8, 99), slice(0, 1)):
                assert store[layer][rows].dtype == kept.dtype
                assert torch.equal(store[layer][rows], kept[rows])


def test_layers_that_do_not_fit_go_to_a_file(opened):
    _, parts = batches()
    with PatternStore(10, 2 * KIB) as store:  # of 4000, 280 and 1600 bytes
        store.add(parts[0])
        assert len(opened) == 1
        assert not isinstance(store["a"], torch.Tensor)
        assert isinstance(store["b"], torch.Tensor)
        assert isinstance(store["c"], torch.Tensor)


@pytest.mark.parametrize(("n_bytes", "in_file"), [(1880, ["a"]), (1879, ["a", "c"]), (4280, ["c"])])
def test_layers_share_the_memory(opened, n_bytes, in_file):
    _, parts = batches()
    with PatternStore(10, n_bytes / 2**30) as store:  # of 4000, 280 and 1600 bytes
        store.add(parts[0])
        assert [layer for layer in "abc" if not isinstance(store[layer], torch.Tensor)] == in_file


def test_memory_is_free_afterwards():
    # The next network's store is made while this one is still called by its name.
    with PatternStore(10, 1) as store:
        store.add(batches()[1][0])
        kept = weakref.ref(store["a"])
    assert kept() is None


@pytest.mark.parametrize("fails", [False, True])
def test_files_are_gone_afterwards(opened, folder, fails):
    _, parts = batches()
    with suppress(RuntimeError), PatternStore(10, 0) as store:
        store.add(parts[0])
        if fails:
            raise RuntimeError
    assert len(opened) == 3
    assert all(file.closed for file in opened)
    assert list(folder.iterdir()) == []


def test_tensors_that_are_changed_afterwards_are_safe():
    _, parts = batches()
    before = parts[0]["a"].clone()
    with PatternStore(3, 1) as store:
        store.add(parts[0])
        parts[0]["a"].zero_()
        assert torch.equal(store["a"][0:3], before)


def test_a_disk_without_room_is_told_before_anything_is_written(folder, opened, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4200))
    _, parts = batches()
    expected = r"layer 'b': no room for 0.0 GiB of patterns in the temporary folder .* \(0.0 GiB are free\); set TMPDIR"
    with pytest.raises(ValueError, match=expected), PatternStore(10, 0) as store:
        store.add(parts[0])
    assert all(file.closed for file in opened)


def test_a_disk_that_fills_up_is_told_in_one_message(monkeypatch):
    class Full:
        closed = False

        def write(self, content):
            if len(content) > 100:
                return 100  # as a disk that is nearly full does
            raise OSError(errno.ENOSPC, "No space left on device")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.closed = True

    full = Full()
    monkeypatch.setattr(pattern_store, "_temporary_file", lambda: full)
    _, parts = batches()
    with (
        pytest.raises(ValueError, match=r"layer 'a': no room .*\(No space left on device\); .* give more `memory`"),
        PatternStore(10, 0) as store,
    ):
        store.add(parts[0])
    assert full.closed


def test_a_file_that_was_not_filled_is_told():
    _, parts = batches()
    with PatternStore(10, 0) as store:
        store.add(parts[0])
        with pytest.raises(ValueError, match="layer 'a': its temporary file ends before row 10; run it again"):
            store["a"][0:10]


def test_a_layer_of_changing_size_is_refused():
    _, parts = batches()
    parts[1]["b"] = torch.ones(3, 8)
    with (
        pytest.raises(ValueError, match="layer 'b' gives 7 units for the first stimuli and 8 for later ones; bring"),
        PatternStore(10, 1) as store,
    ):
        for part in parts:
            store.add(part)


@pytest.mark.parametrize("memory", [-1, float("nan")])
def test_memory_below_zero_is_refused(memory):
    with pytest.raises(ValueError, match="memory must be at least 0 GiB, got"):
        PatternStore(10, memory)
