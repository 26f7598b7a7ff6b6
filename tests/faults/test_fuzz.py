"""What fuzz.py finds, and that it finds what is planted; laws of experiment files, drawn by its generators."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import fuzz
import fuzz_files
import numpy as np
import pytest
from fuzz_mutations import ODD, dump, misspelt, places
from fuzz_report import DEAR

from brainrdl.experiment_file import load_experiment
from brainrdl.settings import dump_yaml

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

DRAWN = {"task": fuzz_files.task_experiment, "brain": fuzz_files.brain_experiment}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """500 cases of all kinds, in a process of their own, which forks."""
    out = tmp_path_factory.mktemp("fuzz") / "fuzz.json"
    command = [sys.executable, str(Path(fuzz.__file__)), "--n", "500", "--seed", "7", "--dear", "0.25"]
    ended = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=1800)
    assert out.is_file(), ended.stdout + ended.stderr
    return json.loads(out.read_text())


def test_every_file_is_a_valid_run_or_is_refused_in_one_message(found):
    told = [f"{failure['kind']}:{failure['seed']}: {failure['problem']}" for failure in found["failures"]]
    assert not told, "\n".join(told)
    assert found["cases"] == 500


def test_both_ends_are_met_often_and_every_kind_was_tried(found):
    assert set(found["kinds"]) == set(fuzz.generators())
    assert found["valid"] >= 100
    assert found["refused"] >= 200
    assert found["different_messages"] >= 100


def _make(script: str, **what):
    """A generator of cases that run `script` in place of the command."""

    def make(generator, folder):
        (folder / "input.txt").write_text("x")
        (folder / "script.py").write_text(script)
        return fuzz.Case("planted", ["check", "input.txt", "--out", "out"], ("input.txt",), **what)

    return make


@pytest.mark.parametrize(
    ("script", "what", "problem"),
    [
        ("", {}, ""),
        ("import os; os.mkdir('out'); open('out/a', 'w').close()", {}, ""),
        ("import sys; sys.exit('error: input.txt: key: wrong')", {"status": 2, "field": True}, ""),
        ("open('elsewhere', 'w').close()", {}, "outside --out: open"),
        ("import os; os.remove('input.txt')", {}, "outside --out: os.remove"),
        ("import os; os.rename('input.txt', 'out')", {}, "outside --out: os.rename"),
        ("import os; os.symlink('/', 'link')", {}, "outside --out: os.symlink"),
        ("import os; os.system('echo y > input.txt')", {}, "changed outside --out: input.txt"),
        ("while True: pass", {}, "takes more than"),
        ("x = b'x' * (5 << 26)", {}, "GiB beyond the imports"),
        ("x = bytearray(9 << 30)", {}, "MemoryError"),
        ("1 / 0", {}, "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 11)", {}, "ended by SIGSEGV"),
        ("", {"valid": False}, "valid, but it must be refused"),
        ("import sys; sys.exit('error: input.txt: x')", {"status": 2, "valid": True}, "refused, but it is valid"),
        ("import sys; sys.exit('error: input.txt: x')", {"status": 1}, "exit status 1"),
        ("import sys; sys.exit('error: wrong')", {"status": 2}, "names none of input.txt"),
        ("import sys; sys.exit('error: input.txt is wrong')", {"status": 2, "field": True}, "names no field"),
        ("import sys; sys.exit('error: input.txt\\n2\\n3')", {"status": 2}, "a message of 3 lines"),
        ("import sys; sys.exit('error: input.txt\\x1b[1m')", {"status": 2}, "control characters"),
        ("import sys; sys.exit('error: input.txt' + 'x' * 2000)", {"status": 2}, "a message of 2016 characters"),
        ("import sys; sys.exit('error: input.txt\\nerror: input.txt')", {"status": 2}, "more than one message"),
        ("import sys; sys.exit('')", {"status": 2}, "refused without a message"),
    ],
)
def test_planted_faults_are_found(monkeypatch, script, what, problem):
    status = what.pop("status", 0)

    def command(arguments, with_report):
        try:
            exec(compile(Path("script.py").read_text(), "script.py", "exec"), {})
        except SystemExit as end:
            os.write(2, f"{end.code}\n".encode())  # pytest has put something else for sys.stderr
            return status
        return 0

    monkeypatch.setattr(fuzz, "_command", command)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    monkeypatch.setattr(fuzz, "MEMORY", fuzz.GIB // 4)
    result = fuzz.try_case("planted", 0, _make(script, **what))
    assert problem in result.problem
    assert (result.outcome == "FAILED") == bool(problem), result


def test_what_came_out_is_looked_at(monkeypatch):
    def sound():
        assert Path("input.txt").read_text() == "y", "other text"

    monkeypatch.setattr(fuzz, "_command", lambda arguments, with_report: 0)
    result = fuzz.try_case("planted", 0, _make("", sound=sound))
    assert result.problem.startswith("not sound: AssertionError: other text")


def test_a_case_is_the_same_again():
    seed = fuzz.case_seed(0, "image", 3)
    assert seed == fuzz.case_seed(0, "image", 3)
    assert len({seed, fuzz.case_seed(1, "image", 3), fuzz.case_seed(0, "mnist", 3), fuzz.case_seed(0, "image", 4)}) == 4


def test_shares_are_kept_and_every_kind_is_tried():
    counts = fuzz.counts(1000, list(fuzz.generators()), fuzz.shares())
    assert sum(counts.values()) == 1000
    assert min(counts.values()) >= 1
    assert counts["experiment, changed"] > 3 * counts["experiment run, changed"]


def test_dear_kinds_come_less_often_where_that_is_asked_for():
    assert fuzz.generators().keys() >= DEAR
    kinds = list(fuzz.generators())
    counts, usual = (fuzz.counts(1000, kinds, fuzz.with_dear(kinds, fuzz.shares(), dear)) for dear in (0.25, 1.0))
    assert usual == fuzz.counts(1000, kinds, fuzz.shares())
    assert sum(counts.values()) == 1000 and min(counts.values()) >= 1
    assert sum(counts[kind] for kind in DEAR) < 0.4 * sum(usual[kind] for kind in DEAR)


@pytest.mark.parametrize("kind", DRAWN)
def test_a_resolved_experiment_reads_back_equal(kind, tmp_path):
    for seed in range(25):
        (tmp_path / "drawn.yaml").write_text(dump(DRAWN[kind](np.random.default_rng(seed))))
        read = load_experiment(tmp_path / "drawn.yaml")
        (tmp_path / "resolved.yaml").write_text(dump_yaml(read.model_dump(mode="json")))
        assert load_experiment(tmp_path / "resolved.yaml") == read


# What stands under these is the user's own: names of layers, labels, arguments of a network.
_FREE = {"layers", "methods", "arguments", "students", "teachers", "select", "test_error_percent", "every", "grid"}


@pytest.mark.parametrize("kind", DRAWN)
def test_an_unknown_key_is_always_refused_with_the_nearest(kind, tmp_path):
    tried = 0
    for seed in range(12):
        generator = np.random.default_rng(seed)
        settings = DRAWN[kind](generator)
        for path in places(settings):
            if not isinstance(path[-1], str) or (len(path) > 1 and path[-2] in _FREE):
                continue
            changed = copy.deepcopy(settings)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            word = misspelt(generator, path[-1])
            if word == path[-1] or word in parent:
                continue
            parent[word] = parent[path[-1]]  # beside the right one, so that nothing is missing
            (tmp_path / "drawn.yaml").write_text(dump(changed))
            with pytest.raises(
                ValueError, match=r"drawn.yaml: .*unknown key; (did you mean '\w+'\?|known: \w+)"
            ) as error:
                load_experiment(tmp_path / "drawn.yaml")
            assert word in str(error.value), path
            tried += 1
    assert tried > 100


def test_odd_values_of_any_setting_are_read_or_told_with_the_file(tmp_path):
    generator = np.random.default_rng(0)
    for kind, draw in DRAWN.items():
        settings = draw(generator)
        told = 0
        for path in places(settings):
            for value in generator.choice(len(ODD), 3, replace=False):
                changed = copy.deepcopy(settings)
                parent = changed
                for key in path[:-1]:
                    parent = parent[key]
                parent[path[-1]] = ODD[value]
                (tmp_path / "drawn.yaml").write_text(dump(changed), "utf-8")
                try:
                    load_experiment(tmp_path / "drawn.yaml")
                except ValueError as error:
                    assert str(error).startswith(f"{tmp_path / 'drawn.yaml'}: "), (kind, path)
                    told += 1
        assert told > 50
