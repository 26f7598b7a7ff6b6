"""Imports run downwards only: what a change can reach stays known."""

import ast
from pathlib import Path

import pytest

import brainrdl

PACKAGE = Path(brainrdl.__file__).parent

# A room is a module or a package right under brainrdl. It may import from lower floors and from itself;
# the ground floor's modules may import each other.
FLOORS = [
    {
        "stimuli",
        "pairs",
        "randomness",
        "layers",
        "reductions",
        "precision",
        "pair_distances",
        "dissimilarity",
        "discrepancy",
        "schedule",
        "runs",
        "folder_lock",
        "settings",
        "rdms",
        "restricted_files",
        "ranks",
        "failures",
        "interruption",
        "notes",
    },
    {"models", "data"},
    {"sources", "fmri"},
    {"objectives"},
    {"training", "analysis", "experiment_file", "run_folder"},
    {"experiment", "report", "brain_rdms"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(tree):
    """Full names of what is imported anywhere in a module, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward_imports(room, names):
    """Those of `names` that a module of `room` may not import."""
    allowed = {room, *(r for r, floor in FLOOR_OF.items() if floor < FLOOR_OF[room])}
    if FLOOR_OF[room] == 0:
        allowed |= FLOORS[0]
    inside = [name for name in names if name.split(".")[0] == "brainrdl" and name != "brainrdl.__version__"]
    return [name for name in inside if name.split(".")[1] not in allowed]


def room_of(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_imports_from_lower_floors_only(path):
    assert room_of(path) in FLOOR_OF, f"say in {Path(__file__).name} on which floor {room_of(path)} is"
    assert upward_imports(room_of(path), imported(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("training", "from brainrdl.analysis import rdms", ["brainrdl.analysis.rdms"]),
        ("analysis", "def f():\n    import brainrdl.training.trainer", ["brainrdl.training.trainer"]),
        ("sources", "from brainrdl import training", ["brainrdl.training"]),
        ("sources", "from brainrdl.fmri import patterns", ["brainrdl.fmri.patterns"]),
        ("pairs", "from brainrdl import Stimuli", ["brainrdl.Stimuli"]),
        ("models", "from brainrdl.layers import record_layers\nimport torch", []),
        ("training", "from brainrdl.training.stage import Stage\nfrom brainrdl import __version__", []),
    ],
)
def test_what_counts_as_upward(room, source, found):
    assert upward_imports(room, imported(ast.parse(source))) == found


def test_the_package_itself_imports_nothing_at_once():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    at_once = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert {getattr(node, "module", None) for node in at_once} == {"__future__", "importlib", "typing"}
