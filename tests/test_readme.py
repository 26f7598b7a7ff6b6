"""What the README shows works as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
from rsatoolbox.rdm import RDMs

from brainrdl.cli import app
from brainrdl.data import DataSettings, load_data
from brainrdl.rdms import save_rdms

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_examples_run(capsys, tmp_path, monkeypatch):
    write_brain(tmp_path / "it.h5")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert printed.count("student") == 5
    assert printed.count("taught") == 2 and "rdl/fc" in printed
    gradients = [parameter.grad for parameter in namespace["student"].parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def write_brain(path: Path) -> None:
    """RDMs of two subjects on 60 of the images that the README takes for stimuli."""
    ids = load_data(DataSettings(spec="digits", train=200, validation=300)).validation.ids[:60]
    n_pairs = len(ids) * (len(ids) - 1) // 2
    rdms = RDMs(
        np.random.default_rng(0).random((2, n_pairs)),
        dissimilarity_measure="correlation",
        rdm_descriptors={"subject": ["sub-01", "sub-02"], "roi": ["IT", "IT"]},
        pattern_descriptors={"stimulus": list(ids)},
    )
    save_rdms(rdms, path)


def test_the_first_example_has_at_most_fifteen_lines_of_code():
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 15


def test_every_command_it_names_exists_and_every_command_is_named():
    named = set(re.findall(r"^brainrdl (\w+)", "\n".join(blocks("text")), flags=re.MULTILINE))
    assert named == {command.name or command.callback.__name__ for command in app.registered_commands}
    assert "pip install -e . && brainrdl demo" in README
    assert 'pip install -e ".[test]" && pytest' in README


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_every_file_it_links_to_is_there(target):
    assert (ROOT / target).exists()
