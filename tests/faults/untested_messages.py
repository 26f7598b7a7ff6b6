"""Which messages of brainrdl no test brings about.

    pytest --cov=brainrdl --cov-report=              (with pytest-cov; leaves .coverage)
    python tests/faults/untested_messages.py         lists each message that was not said; status 1 where there are some

A message is what a `raise` gives, or a call that tells or warns. Those of `assert` and a `raise` that only passes on
what it caught are none.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TELL = {"warn", "warn_result", "note", "tell", "say"}


class Message(NamedTuple):
    """Where a message is said (first and last line), and how its statement begins."""

    first: int
    last: int
    words: str


def messages(code: str) -> Iterator[Message]:
    """All messages of a module, in order."""
    for node in ast.walk(ast.parse(code)):
        says = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(says, ast.Call) and says.args and (isinstance(node, ast.Raise) or _name(says.func) in TELL):
            yield Message(node.lineno, node.end_lineno or node.lineno, " ".join(ast.unparse(says).split()))


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def main() -> int:
    """The command line."""
    from coverage import CoverageData

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=".coverage", help="what coverage wrote")
    data = CoverageData(parser.parse_args().data)
    data.read()
    n, unsaid = 0, 0
    for file in sorted(file for file in data.measured_files() if file.endswith(".py")):
        ran = set(data.lines(file) or ())
        for message in sorted(messages(Path(file).read_text(encoding="utf-8"))):
            n += 1
            if ran.isdisjoint(range(message.first, message.last + 1)):
                unsaid += 1
                print(f"{file}:{message.first}: {message.words[:200]}")
    print(f"{n} messages, of which {n - unsaid} are said in some test")
    return int(unsaid > 0)


if __name__ == "__main__":
    sys.exit(main())
