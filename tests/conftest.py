"""Settings for every test process, made before torch and matplotlib are first imported."""

import os
import tracemalloc
from pathlib import Path

import pytest

# Tests run in several processes; each of them (and what it starts) takes one core, and draws to no screen.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["MPLBACKEND"] = "agg"

DATA = os.environ.get("BRAINRDL_DATA")


# Files that take longest begin first, so that no process has one of them left when the others are done.
LONGEST = [
    "test_tutorials", "test_experiment", "test_fuzz", "test_several_devices", "test_brain_experiment", "test_kill",
    "test_mutants", "test_failing_process", "test_big_networks", "test_figure_command", "test_known_truth",
    "test_rdm_figures", "test_brain_rdms", "test_kept_results", "test_shared_batches", "test_load", "test_storage",
]  # fmt: skip


def pytest_collection_modifyitems(items):
    rank = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def real_data():
    """`real_data(*folders)` is the data folder; where it holds not all of these, the test is skipped."""

    def root(*folders: str) -> Path:
        for folder in folders:
            if not DATA or not (Path(DATA) / folder).is_dir():
                pytest.skip(f"$BRAINRDL_DATA holds no {folder}")
        return Path(DATA)

    return root


@pytest.fixture
def little_memory():
    """The test may not make Python's own memory grow by 200 MiB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20


@pytest.fixture
def without_figures(monkeypatch):
    """No figure of a run's report is drawn, which takes most of its time; its tables and its page are made."""
    for kind in ("task_report", "brain_report"):
        monkeypatch.setattr(f"brainrdl.report.{kind}.draw", _no_figures)


def _no_figures(*_):
    from brainrdl.report.drawing import Figures

    return Figures()
