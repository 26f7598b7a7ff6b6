"""setup.cfg and the folders say the same."""

import ast
import re
import sys
from configparser import ConfigParser
from importlib.metadata import entry_points, packages_distributions, version
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

import brainrdl

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_every_package_is_listed(setup):
    folders = {path.parent for path in (ROOT / "brainrdl").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(setup["options"]["packages"].split()) == names | {"brainrdl.data_specs"}


def test_data_specs_are_read_as_a_resource():
    specs = files("brainrdl.data_specs")
    here = {path.name for path in (ROOT / "data_specs").iterdir() if path.is_file()}
    assert {item.name for item in specs.iterdir() if item.is_file()} == here


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="brainrdl")
    assert command.value == "brainrdl.cli:main"


def test_one_version_everywhere():
    assert version("brainrdl") == brainrdl.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == brainrdl.__version__


def test_lower_bounds_are_given_for_everything(setup):
    required = setup["options"]["install_requires"].split()
    for extra in setup["options.extras_require"].values():
        required += [line for line in extra.split() if not line.startswith("brainrdl[")]
    assert all(">=" in requirement for requirement in required)


def test_everything_that_is_imported_is_required(setup):
    required = {re.split("[<>=]", line)[0] for line in setup["options"]["install_requires"].split()}
    # What an extra brings may be imported inside functions, which say what to install where it is missing.
    extra = {re.split("[<>=]", line)[0] for line in setup["options.extras_require"]["pretrained"].split()}
    distributions = packages_distributions()
    missing = {}
    for path in (ROOT / "brainrdl").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            allowed = required if node in tree.body else required | extra
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in {name.split(".")[0] for name in modules} - {*sys.stdlib_module_names, "brainrdl"}:
                if not allowed & {name.lower() for name in distributions.get(module, [])}:
                    missing[module] = path.name
    assert not missing
