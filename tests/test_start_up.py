"""The package answers at once, and every public name is there when it is used."""

import subprocess
import sys

import pytest

import brainrdl

HEAVY = ("torch", "torchvision", "numpy", "pandas", "matplotlib", "rsatoolbox", "sklearn", "lightning", "pydantic")


def loaded_after(statement):
    code = f"{statement}; import sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return result.stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import brainrdl; dir(brainrdl); brainrdl.__version__")
    assert "brainrdl" in loaded
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("name", brainrdl.__all__)
def test_every_public_name_is_there(name):
    value = getattr(brainrdl, name)
    assert value.__name__ == name
    assert value.__module__.startswith(brainrdl._MODULES[name])
    assert name in dir(brainrdl)


def test_the_table_of_names_is_complete():
    assert sorted(brainrdl._MODULES) == sorted(brainrdl.__all__)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'brainrdl' has no attribute 'RDL'; it has: CombinedTeacher, Deep"):
        brainrdl.RDL  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Teacher'"):
        exec("from brainrdl import Teacher")
