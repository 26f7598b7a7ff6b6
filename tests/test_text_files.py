"""Text files are UTF-8 on every machine: wherever the package opens one, it says so."""

import ast
from pathlib import Path

import pytest

import brainrdl

MODULES = sorted(Path(brainrdl.__file__).parent.rglob("*.py"))


def without_encoding(source):
    """Line numbers of calls that open a text file in the encoding of whoever's machine it is."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        method = call.func.attr if isinstance(call.func, ast.Attribute) else None
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if "encoding" in given:
            continue
        if isinstance(call.func, ast.Name) and call.func.id == "open":
            mode = given.get("mode", call.args[1] if len(call.args) > 1 else None)
            modes = [] if mode is None else [part.value for part in ast.walk(mode) if isinstance(part, ast.Constant)]
            found += [] if modes and all("b" in mode for mode in modes) else [call.lineno]
        elif (method == "read_text" and not call.args) or (method == "write_text" and len(call.args) < 2):
            found.append(call.lineno)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(MODULES[0].parent)))
def test_the_encoding_is_given(path):
    assert without_encoding(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("path.read_text()", [1]),
        ("path.read_text('utf-8')\npath.read_text(encoding='utf-8-sig')", []),
        ("\npath.write_text(text)", [2]),
        ("path.write_text(text, 'utf-8')\nwrite_text(path, text)", []),
        ("open(path)\nopen(path, 'w')\nopen(path, mode='a')\nopen(path, how)", [1, 2, 3, 4]),
        ("open(path, 'ab' if resumed else 'w')", [1]),
        ("open(path, 'ab' if resumed else 'wb')\nopen(path, mode='r+b')", []),
        ("open(path, encoding='utf-8')\narchive.open(path)", []),
    ],
)
def test_what_counts_as_without(source, lines):
    assert without_encoding(source) == lines
