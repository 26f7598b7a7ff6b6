"""Faults are planted as told, and what the tests make of them is told truly."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time

import mutants
import pytest
from mutations import Mutation, all_mutations, becomes, mutations

SOURCE = textwrap.dedent(
    '''
    """A docstring of 2 words or more."""

    from typing import TYPE_CHECKING

    __all__ = ["f"] + ["g"]
    if TYPE_CHECKING:
        LIMIT = 3

    def f(values: list[int] | None, high: float = 1.5, *, axis: int = 0) -> int | None:
        """Not 0 but 1."""
        if len(values) < 2 and not axis:
            raise ValueError(f"expected {2 - 1} values")
        total = min(values, key=abs) - high
        for value, _ in zip(values, max(values, total), strict=True):
            total += value
        try:
            return call(total, values)
        except (io.Error, ValueError, TypeError):
            return _
        except io.Error:
            return value
    '''
)
CHANGES = {
    ("if len(values) < 2 and not axis:", "if len(values) <= 2 and not axis:"),
    ("if len(values) < 2 and not axis:", "if len(values) >= 2 and not axis:"),
    ("if len(values) < 2 and not axis:", "if len(values) < 3 and not axis:"),
    ("if len(values) < 2 and not axis:", "if len(values) < 1 and not axis:"),
    ("if len(values) < 2 and not axis:", "if len(values) < 2 or not axis:"),
    ("if len(values) < 2 and not axis:", "if len(values) < 2 and axis:"),
    ("if len(values) < 2 and not axis:", "if not len(values) < 2 and not axis:"),
    ('raise ValueError(f"expected {2 - 1} values")', "pass"),
    ("total = min(values, key=abs) - high", "total = min(values, key=abs) + high"),
    ("total = min(values, key=abs) - high", "total = max(values, key=abs) - high"),
    ("total = min(values, key=abs) - high", "total = min(values,) - high"),
    ("for value, _ in zip(values, max(values, total), strict=True):", "for value, _ in []:"),
    (
        "for value, _ in zip(values, max(values, total), strict=True):",
        "for value, _ in zip(values, min(values, total), strict=True):",
    ),
    (
        "for value, _ in zip(values, max(values, total), strict=True):",
        "for value, _ in zip( max(values, total),values, strict=True):",
    ),
    ("total += value", "pass"),
    ("return call(total, values)", "return call( values,total)"),
    *(
        ("except (io.Error, ValueError, TypeError):", f"except (io.Error, {names}):")
        for names in ("CosmicRayTestingException, TypeError", "ValueError, CosmicRayTestingException")
    ),
}
DEFAULTS = "def f(values: list[int] | None, high: float = 1.5, *, axis: int = 0) -> int | None:"


def changes(source):
    return {
        (fault.was, " ".join(becomes(source, fault.applied(source)).split()))
        for fault in all_mutations("m.py", source, seed=0)
    }


def test_every_fault_is_one_of_these():
    of_defaults = {(DEFAULTS, DEFAULTS.replace("= 1.5", f"= {n}")) for n in (2.5, 0.5)}
    of_defaults |= {(DEFAULTS, DEFAULTS.replace("int = 0", f"int = {n}")) for n in (1, -1)}
    assert changes(SOURCE) == CHANGES | of_defaults


def test_a_place_has_one_fault_of_a_kind_drawn_by_the_seed():
    draws = [frozenset(fault[:4] for fault in mutations("m.py", SOURCE, seed)) for seed in range(20)]
    assert draws[0] == frozenset(fault[:4] for fault in mutations("m.py", SOURCE, 0))
    assert len(set(draws)) > 1
    assert {len(draw) for draw in draws} == {len(CHANGES) - 2 + 2}  # the sign, and each of three numbers, once


def test_the_draw_stays_when_other_lines_change():
    before = {(fault.was, fault.key) for fault in mutations("m.py", SOURCE, 3)}
    after = {(fault.was, fault.key) for fault in mutations("m.py", "import numpy\n\n" + SOURCE, 3)}
    assert before == after


def test_what_is_drawn_is_of_all_rooms_and_can_be_read():
    faults = mutants.drawn(120, seed=1)
    rooms = mutants.modules()
    assert len({(f.module, f.key) for f in faults}) == 120
    assert {rooms[fault.module] for fault in faults} == set(mutants.ROOMS)
    for fault in faults[:20]:
        source = (mutants.REPOSITORY / fault.module).read_text("utf-8")
        compile(fault.applied(source), fault.module, "exec")


def test_what_is_mutated_and_run_exists():
    for module in mutants.modules():
        assert (mutants.REPOSITORY / module).is_file(), module
    assert all(list(mutants.modules().values()).count(room) >= 8 for room in mutants.ROOMS)
    assert set(mutants.MORE_TESTS) <= set(mutants.modules())
    for pattern in [*mutants.TESTS, *(test for tests in mutants.MORE_TESTS.values() for test in tests)]:
        assert list(mutants.REPOSITORY.glob(pattern)), pattern


def test_a_fault_that_does_not_fit_any_more_is_refused():
    record = {
        "module": "brainrdl/schedule.py",
        "operator": "NumberReplacer",
        "was": "value *= 3",
        "becomes": "value *= 4",
    }
    with pytest.raises(ValueError, match=r"schedule.py: NumberReplacer makes no 'value \*= 4' of 'value \*= 3'"):
        mutants.chosen([record])
    with pytest.raises(ValueError, match="NumberReplacer does not fit 100 times; list them anew"):
        Mutation("m.py", "NumberReplacer", 99, 1, 0, "", 0).applied("a = 1\n")


def test_every_judgement_is_of_a_fault_that_fits():
    records = json.loads(mutants.JUDGED.read_text("utf-8"))
    assert len(mutants.chosen(records)) == len(records) > 0
    assert all(len(record["why"]) > 20 for record in records)


def test_a_modules_own_tests_come_first_and_only_those_that_reach_it():
    files = mutants.all_tests()
    own, others = mutants.tests_of("brainrdl/analysis/ceiling.py", dict.fromkeys(files, 1.0))
    assert own[0] == "tests/analysis/test_ceiling.py"
    assert "tests/analysis/test_inference.py" in others  # by way of agreement.py
    assert not {test for test in own + others if test.startswith("tests/objectives/")}
    own, others = mutants.tests_of("brainrdl/sources/combined.py", dict.fromkeys(files, 1.0))
    assert own[0] == "tests/sources/test_combined.py"  # which has the name from the package
    assert set(mutants.OF_ALL) <= set(own)
    assert "tests/sources/test_weights.py" not in own
    few = mutants.tests_of("brainrdl/pairs.py", dict.fromkeys(files, mutants.OTHERS_SECONDS / 2.5))
    assert [len(tests) for tests in few][1:] == [2]
    own = mutants.tests_of("brainrdl/ranks.py", dict.fromkeys(files, 1.0))[0]
    assert set(own) == {"tests/training/test_shared_batches.py", *mutants.OF_ALL}


@pytest.fixture
def copy(tmp_path):
    """A repository of one module and one test."""
    if sys.platform != "linux":
        pytest.skip("memory is limited as Linux does")
    folder = tmp_path / "copy"
    (folder / "tests").mkdir(parents=True)
    (folder / "small.py").write_text(
        "STEP = 1\n\n\ndef run():\n    for k in range(0, 5, STEP):\n        pass\n    return k\n"
    )
    (folder / "tests" / "test_small.py").write_text("import small\n\n\ndef test_it():\n    assert small.run() == 4\n")
    return folder


def ended(run):
    while (result := run.result()) is None:
        time.sleep(0.01)
    return result


def planted(old, new):
    """A stand-in for a fault, which says itself what becomes of the text."""

    class Fault:
        module = "small.py"

        def applied(self, source):
            assert old in source
            return source.replace(old, new)

    return Fault()


@pytest.mark.parametrize(
    ("old", "new", "verdict", "by"),
    [
        ("range(0, 5, STEP)", "range(4, 5, STEP)", "survived", ""),
        ("return k", "return -k", "caught", "tests/test_small.py::test_it"),
        ("STEP = 1", "STEP = 1 / 0", "caught", "tests/test_small.py"),
        ("return k", "__import__('os').abort()", "crashed", ""),
        ("        pass", "        pass\n    while True:\n        pass", "timeout", ""),
        ("        pass", "        pass\n    __import__('time').sleep(60)", "timeout", ""),
    ],
)
def test_verdicts(copy, monkeypatch, old, new, verdict, by):
    monkeypatch.setattr(mutants, "CPU_MORE", 6)  # a process that has run many tests is slow to fork and to look through
    monkeypatch.setattr(mutants, "WALL_MORE", 10 if "sleep" in new else mutants.WALL_MORE)
    source = (copy / "small.py").read_text()
    result = ended(mutants.Run(copy, ["tests/test_small.py"], 0.0, planted(old, new)))
    assert (result["verdict"], result["by"]) == (verdict, by)
    assert (copy / "small.py").read_text() == source


def test_a_fault_is_gone_for_the_next(copy):
    first = ended(mutants.Run(copy, ["tests/test_small.py"], 1.0))
    assert first["verdict"] == "survived"
    assert list(first["files"]) == ["tests/test_small.py"]
    for new, verdict in [("STEP = 2", "survived"), ("STEP = 3", "caught"), ("STEP = 4", "survived")]:
        assert ended(mutants.Run(copy, ["tests/test_small.py"], 1.0, planted("STEP = 1", new)))["verdict"] == verdict


def test_tests_that_fail_without_a_fault_stop_it(copy):
    (copy / "tests" / "test_small.py").write_text("def test_it():\n    assert 1 == 2\n")
    with pytest.raises(RuntimeError, match=r"without a fault, tests/test_small.py::test_it failed; mend that first"):
        mutants.usual_seconds(copy, ["tests/test_small.py"])


FAULTS = [
    (
        "brainrdl/schedule.py",
        "ReplaceBinaryOperator_Sub_Add",
        "return lambda epoch, n_epochs: start * (1 - epoch / n_epochs)",
    ),
    ("brainrdl/sources/weights.py", "DropKeyword", "squares = np.nansum((values - mean) ** 2, axis=0)  # (n - 1) s²"),
    ("brainrdl/analysis/logged_rdms.py", "AddNot", "if len(set(names)) < len(names):"),
    # A keyword that says what its default is: nothing can notice that it is gone.
    (
        "brainrdl/sources/weights.py",
        "DropKeyword",
        "weights = np.nan_to_num(rdms.dissimilarities, nan=0.0, posinf=np.inf)",
    ),
]


def test_the_tests_here_catch_a_fault_of_every_room_and_no_more(tmp_path):
    tests = ["tests/test_schedule.py", "tests/sources/test_weights.py", "tests/analysis/test_logged_rdms.py"]
    records = []
    for module, operator, was in FAULTS:
        source = (mutants.REPOSITORY / module).read_text("utf-8")
        fault = next(f for f in all_mutations(module, source, 0) if (f.operator, f.was) == (operator, was))
        records.append(fault._asdict() | {"becomes": becomes(source, fault.applied(source))})
    (tmp_path / "chosen.json").write_text(json.dumps(records), "utf-8")
    command = [sys.executable, mutants.__file__, "--chosen", tmp_path / "chosen.json", "--out", tmp_path / "out.json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([*command, "--tests", *tests], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {
        r["was"]: (r["verdict"], r["by"].split("::")[0])
        for r in json.loads((tmp_path / "out.json").read_text())["faults"]
    }
    assert [found[r["was"]] for r in records] == [*(("caught", test) for test in tests), ("survived", "")]
    line = next(r["line"] for r in records if "nan_to_num" in r["was"])
    survivor = f"brainrdl/sources/weights.py:{line} DropKeyword\n- {records[-1]['was']}\n+ {records[-1]['becomes']}\n"
    assert survivor in done.stdout
    assert re.search(r"\nall +4 +3 +1 +[01]\n", done.stdout)
