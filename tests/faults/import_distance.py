"""How far a test is from each module of the package: by how many imports, inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def distances(test: Path, repository: Path) -> dict[str, int]:
    """Paths of the modules that a test file (or its folder's conftest.py) reaches, and over how many imports.

    A name that a package's `__init__.py` only passes on counts as imported from where it is defined.
    """
    found: dict[str, int] = {}
    seen = {test, test.with_name("conftest.py")}
    here, distance = sorted(path for path in seen if path.exists()), 0
    while here:
        distance += 1
        reached = {module for path in here for module in _imported(path, repository)} - seen
        found |= {str(module.relative_to(repository)): distance for module in reached}
        seen |= reached
        here = sorted(reached)
    return found


@cache
def _imported(path: Path, repository: Path) -> frozenset[Path]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {_file(alias.name, repository) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {file for alias in node.names for file in _defined_in(node.module, alias.name, repository)}
    return frozenset(file for file in found if file is not None)


def _defined_in(module: str, name: str, repository: Path) -> Iterator[Path | None]:
    """The files of `from module import name`: the module's own, or where its package has the name from."""
    file = _file(f"{module}.{name}", repository) or _file(module, repository)
    if file is None or file.name != "__init__.py":
        yield file
        return
    passed_on = [
        node.module
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module
        and name in {alias.asname or alias.name for alias in node.names}
    ]
    for origin in passed_on:
        yield from _defined_in(origin, name, repository)
    if not passed_on:
        yield file


def _file(module: str, repository: Path) -> Path | None:
    path = repository.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if module.startswith("brainrdl") and file.exists()), None)
