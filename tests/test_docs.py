"""What the documentation shows works as it stands there, and its reference leaves nothing out."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import docstrings
import fill_results
import make_pages
import pytest
import settings_tables
import torch
import yaml
from typer.main import get_command

from brainrdl.analysis import network_rdms
from brainrdl.cli import app
from brainrdl.data import DataSpec, load_spec
from brainrdl.dissimilarity import DISSIMILARITIES
from brainrdl.experiment_file import BrainExperiment, Experiment, load_experiment
from brainrdl.experiment_file.network import NetworkFile, load_network_file
from brainrdl.fmri.spec import BrainSpec, load_brain_spec
from brainrdl.objectives.methods import METHODS
from brainrdl.objectives.rdl import RDLSettings
from brainrdl.report.figure import KINDS

ROOT = Path(__file__).parents[1]

NOT_WRITTEN = ("made", "api", "_build", "report")  # reports are of the runs that are kept
WRITTEN = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name not in NOT_WRITTEN]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *WRITTEN]


class Block(NamedTuple):
    """A fenced block of a page. line: where its code begins."""

    page: Path
    language: str
    code: str
    line: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, flags=re.MULTILINE):
        yield Block(page, found[1], found[2], text[: found.start(2)].count("\n") + 1)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.fixture
def tables():
    """What examples add to tables is taken out again."""
    before = [(table, dict(table)) for table in (DISSIMILARITIES, METHODS)]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


# The README's is run by test_readme.py, which looks at what it prints as well.
@pytest.mark.parametrize("page", [page for page in WRITTEN if any(b.page == page for b in blocks("python"))], ids=str)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, tables):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "page"}
    own = [block for block in blocks("python") if block.page == page]
    for block in own:
        code = "\n" * (block.line - 1) + block.code  # a traceback then tells the page's own line
        exec(compile(code, str(page), "exec"), namespace)
    # What the examples make is there: none was passed over.
    statements = [statement for block in own for statement in ast.parse(block.code).body]
    targets = [target for s in statements if isinstance(s, ast.Assign) for target in s.targets]
    made = {target.id for target in targets if isinstance(target, ast.Name)}
    made |= {s.name for s in statements if isinstance(s, ast.FunctionDef | ast.ClassDef)}
    assert made and made <= set(namespace)


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.page == page for b in blocks("python"))], ids=str)
def test_what_a_page_imports_it_uses(page):
    trees = [ast.parse(block.code) for block in blocks("python") if block.page == page]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {name.asname or name.name for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imported - {node.id for node in nodes if isinstance(node, ast.Name)} == set()


def test_every_kind_of_figure_is_shown():
    text = (ROOT / "docs" / "uses" / "figures.md").read_text("utf-8")
    kinds = re.findall(r"^\| \[`([\w-]+)`\]", text, flags=re.MULTILINE)
    assert sorted(kinds) == sorted(KINDS)
    assert {words.split()[1] for words in re.findall(r"^brainrdl (figure [\w-]+)", text, re.MULTILINE)} == set(KINDS)
    pictures = re.findall(r"\{figure\} \.\./(figures/\w+\.png)", text)
    assert len(pictures) == len(KINDS)
    assert all((ROOT / "docs" / picture).stat().st_size < 150_000 for picture in pictures)


def test_every_table_of_results_is_what_the_kept_run_gives():
    assert list(fill_results.out_of_date()) == []  # else: python docs/fill_results.py
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "results").glob("*.md"))
    kept = {path.parent.name for path in (ROOT / "docs" / "results" / "runs").glob("*/experiment.yaml")}
    assert set(re.findall(r"<!-- table: [\w ]+ of runs/([\w-]+) -->", pages)) == kept


def test_what_is_kept_of_runs_is_small_and_holds_no_data():
    runs = ROOT / "docs" / "results" / "runs"
    for folder in runs.iterdir():
        files = [path for path in folder.rglob("*") if path.is_file() and "report" not in path.parts]
        assert sum(path.stat().st_size for path in files) < 5_000_000
        assert {path.suffix for path in files} <= {".yaml", ".json", ".csv", ".gz", ".h5"}
        assert not any(
            re.search(r"/(tmp|home|root|work|Users)/", path.read_text("utf-8"))
            for path in files
            if path.suffix in (".yaml", ".json")
        )


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_a_yaml_file_is_what_its_model_accepts(block, tmp_path):
    file = tmp_path / "shown.yaml"
    file.write_text(block.code, "utf-8")
    keys = yaml.safe_load(block.code)
    if "methods" in keys:
        assert load_experiment(file)
    elif keys.get("kind") == "brain":
        assert load_brain_spec(file)
    elif "network" in keys:
        assert load_network_file(file)
    else:
        assert load_spec(file)


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(part, comments=True) for line in lines for part in line.split("&&") if part.strip()]


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_a_shell_line_names_what_there_is(block):
    for words in filter(None, commands(block.code)):
        match words:
            case ["brainrdl", *arguments]:
                check_call(arguments)
            case ["pip", "install", "-e", what]:
                extras = re.fullmatch(r"\.(?:\[(.*)\])?", what)[1]
                assert set(extras.split(",") if extras else []) <= known_extras()
            case ["torchrun", *_]:
                module = words.index("-m") + 1
                assert words[module] == "brainrdl"
                check_call(words[module + 1 :])
            case ["bash", script]:
                assert (ROOT / script).is_file()
            case ["sphinx-build", *_, source, _]:
                assert (ROOT / source / "conf.py").is_file()
            case ["export", _] | ["pytest", *_]:
                paths = [word for word in words[1:] if "/" in word and "=" not in word]
                assert all((ROOT / path).exists() for path in paths)
            case _:
                raise AssertionError(f"not known to this test: {shlex.join(words)}")


def check_call(arguments: list[str]) -> None:
    """Parse a call of the command line, without running it; what cannot be parsed raises."""
    group = get_command(app)
    if arguments[0].startswith("-"):
        group.make_context("brainrdl", list(arguments))
        return
    assert arguments[0] in group.commands
    group.commands[arguments[0]].make_context(arguments[0], list(arguments[1:]))


def known_extras() -> set[str]:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return set(config["options.extras_require"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_in_the_text_exists_with_its_options(page):
    group = get_command(app)
    for call in re.findall(r"`brainrdl ([^`\n]+)`", page.read_text("utf-8")):
        words = call.split()
        command = group if words[0].startswith("-") else group.commands[words[0]]
        known = {"--help", *(option for parameter in command.params for option in parameter.opts)}
        assert {word for word in words if word.startswith("--")} <= known, call


def test_there_is_no_block_that_nothing_checks():
    languages = {block.language for block in BLOCKS if not block.language.startswith("{")}
    assert languages <= {"python", "yaml", "bash", "text"}
    assert {"python", "yaml", "bash"} <= languages


@pytest.mark.parametrize(
    "module", ["brainrdl", "brainrdl.analysis", "brainrdl.data", "brainrdl.models", "brainrdl.rdms"]
)
def test_every_public_name_is_in_the_reference(module):
    documented = {id(one) for page in make_pages.api_pages() for one in page.objects.values()}
    public = import_module(module)
    assert [name for name in public.__all__ if id(getattr(public, name)) not in documented] == []


def test_every_figure_is_in_the_reference():
    (page,) = [page for page in make_pages.api_pages() if page.file == "figures"]
    folder = ROOT / "brainrdl" / "analysis" / "figures"
    figures = [
        file.stem for file in folder.glob("*.py") if re.search(r"^def plot\(", file.read_text("utf-8"), re.MULTILINE)
    ]
    assert "second_order" in figures
    assert {f"brainrdl.analysis.figures.{name}.plot" for name in figures} < set(page.objects)
    assert "brainrdl.analysis.figures.style.save_figure" in page.objects


def test_nothing_is_twice_in_the_reference():
    objects = [id(one) for page in make_pages.api_pages() for one in page.objects.values()]
    assert len(objects) == len(set(objects))


MODELS = list(
    settings_tables.models_below(Experiment, BrainExperiment, *METHODS.values(), DataSpec, BrainSpec, NetworkFile)
)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_of_a_file_has_a_meaning(model):
    fields = settings_tables.fields_of(model)
    assert [field.name for field in fields] == list(model.model_fields)
    assert [field.name for field in fields if not field.meaning] == []
    assert [field.name for field in fields if "None" in str(field.meaning)] == []  # in a file it is null
    assert all(field.kind for field in fields)


def test_every_model_of_a_file_has_its_table():
    assert {"TrainingSettings", "BrainMethod", "RDLSettings", "PublicFile", "Roi"} <= {
        model.__name__ for model in MODELS
    }
    text = settings_tables.experiment_tables() + make_pages.data_spec_keys()
    anchors = re.findall(r"^\((settings-\w+)\)=$", text, flags=re.MULTILINE)
    assert len(anchors) == len(set(anchors))
    assert {settings_tables.anchor(model.__name__) for model in MODELS if model is not NetworkFile} == set(anchors)
    assert set(re.findall(r"\]\(#(settings-\w+)\)", text)) <= set(anchors)


def test_a_row_says_type_bounds_default_and_meaning():
    rows = {field.name: field for field in settings_tables.fields_of(RDLSettings)}
    assert rows["pairs"].kind == "whole number (≥ 1) or null"
    assert rows["pairs"].default == "`null`"
    assert rows["pairs"].meaning == "how many distinct pairs of a batch are drawn; null = all."
    assert rows["layers"].default is None
    assert rows["layers"].kind == "name → text or name → number (≥ 0) (at least 1)"
    assert rows["decay"].kind == "`linear` · `lee` · `constant`"
    assert rows["alpha"].meaning == "its weight at the start."  # of a class above


def test_a_meaning_of_ones_own_goes_before_that_of_a_class_above():
    class Own(RDLSettings):
        """A method. alpha: something else."""

    assert {field.name: field for field in settings_tables.fields_of(Own)}["alpha"].meaning == "something else."


def test_a_docstring_taken_apart():
    text = """One sentence about a: all.

    a, b: what both are; c: a third one. d (in mm), e (in s): of the
        voxel. f is no item: here. Returns a list. Raises ValueError for
    nothing.

    More prose.
    """
    assert docstrings.taken_apart(text, ["a", "b", "c", "d", "e", "f"]) == [
        ((), "One sentence about a: all."),
        (("a",), "what both are."),
        (("b",), "what both are."),
        (("c",), "a third one."),
        (("d",), "in mm: of the voxel. f is no item: here."),
        (("e",), "in s: of the voxel. f is no item: here."),
        (("Returns",), "a list."),
        (("Raises ValueError",), "for nothing."),
        ((), "More prose."),
    ]


def test_parameters_and_errors_are_fields():
    names = list(inspect.signature(network_rdms).parameters)
    lines = docstrings.as_field_list(network_rdms.__doc__, names, {})
    assert lines[0].startswith("One RDM a layer: ``RDM_ij = d(f(x_i), f(x_j))``")
    fields = [line.split(":")[1] for line in lines if line.startswith(":")]
    assert {"param layers", "param stimuli", "param class_names", "returns", "raises ValueError"} <= set(fields)
    assert ":param layers: module paths" in "\n".join(lines)
    first = next(k for k, line in enumerate(lines) if line.startswith(":"))
    assert all(line.startswith(":") for line in lines[first:-1])  # one list, after all prose


def test_code_that_is_known_is_a_link():
    assert docstrings.as_rst("See `Stage`s, `x`.", {"Stage": "brainrdl.Stage"}) == (
        r"See :py:obj:`~brainrdl.Stage`\ s, ``x``."
    )


@pytest.mark.parametrize("text", ["2|P| / (|X_P| |P_xi|)", "a_ b_, *c* **d** \\e", "`code`s and `x`/`y`", "a `b_`"])
def test_plain_text_stays_what_it_is(text):
    publish = pytest.importorskip("docutils.core").publish_doctree
    tree = publish(docstrings.as_rst(text), settings_overrides={"report_level": 1, "halt_level": 2})
    assert tree.astext() == text.replace("`", "")


def test_links_of_the_repositorys_files_go_from_the_docs():
    text = "# T\n\n[a](docs/performance.md) [b](CHANGELOG.md) [c](setup.cfg) [d](https://x.org) [e](tutorials/x.ipynb)"
    assert make_pages.linked(text).split() == [
        "[a](performance.md)",
        "[b](changelog.md)",
        "[c](../setup.cfg)",
        "[d](https://x.org)",
        "[e](tutorials/x.ipynb)",
    ]


def test_every_command_is_described_with_its_options():
    text = make_pages.commands()
    for name, command in get_command(app).commands.items():
        assert f"`brainrdl {name}`" in text
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        assert all(f"`{option}" in text for option in options)


def test_every_data_spec_is_listed():
    text = make_pages.spec_list()
    names = {file.stem for file in (ROOT / "data_specs").glob("*.yaml")}
    assert set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)) == names
