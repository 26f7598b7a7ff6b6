"""A step finds the memory that the last one has freed."""

import platform
import subprocess
import sys

import pytest

from brainrdl.training import trainer

# Eight blocks of 7 MiB that are filled and freed, and how many pages the system has to give each time.
STEPS = """
import ctypes, resource
from brainrdl.training.freed_memory import keep_freed_memory
{keep}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(7 << 20) for _ in range(8)]
    for block in blocks:
        ctypes.memset(block, 1, 7 << 20)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(*(step() for _ in range(6)))
"""


def pages(keep):
    code = STEPS.format(keep=keep)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return [int(number) for number in found.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_no_page_is_asked_for_again(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    assert min(pages("")) > 1000
    first, *others = pages("keep_freed_memory()")
    assert first > 1000
    assert max(others) < 10


def test_a_training_on_the_processor_asks_for_it(monkeypatch, student, train, fit):
    called = []
    monkeypatch.setattr(trainer, "keep_freed_memory", lambda: called.append(True))
    fit(student, trainer.Stage(epochs=2), train)
    assert called == [True]
