"""What a function returns is not changed afterwards: every dataclass of the package is frozen."""

import ast
from pathlib import Path

import pytest

import brainrdl

MODULES = sorted(Path(brainrdl.__file__).parent.rglob("*.py"))


def not_frozen(source):
    """Names of the dataclasses whose fields can be set again."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [
        one.name
        for one in classes
        for decorator in one.decorator_list
        if "dataclass" in ast.unparse(decorator) and "frozen=True" not in ast.unparse(decorator)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(MODULES[0].parent)))
def test_every_dataclass_is_frozen(path):
    assert not_frozen(path.read_text("utf-8")) == []


def test_what_counts_as_frozen():
    source = "@{}\nclass A:\n    a: int\n"
    assert not_frozen(source.format("dataclass(frozen=True)")) == []
    for decorator in ("dataclass", "dataclasses.dataclass(frozen=False)", "dataclass(order=True)"):
        assert not_frozen(source.format(decorator)) == ["A"]
