"""The pages and parts of pages that are made of the code, the notebooks and the files of the repository's root."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import settings_tables
from docstrings import as_markdown, as_rst, names_of, taken_apart

import brainrdl
from brainrdl.data.spec import DataSpec, load_spec, spec_names
from brainrdl.experiment_file.network import NetworkFile
from brainrdl.fmri.spec import BrainSpec, load_brain_spec

DOCS = Path(__file__).parent
ROOT = DOCS.parent


class ApiPage(NamedTuple):
    """A page of the reference. objects: full name, as people import it -> the object."""

    file: str
    title: str
    text: str
    objects: dict[str, Any]


def make_pages() -> None:
    """Write everything that is made: docs/made (parts of pages), docs/api and docs/tutorials."""
    parts = {
        "experiments": settings_tables.experiment_tables(),
        "network_file": "\n".join(settings_tables.table(NetworkFile)),
        "data_specs": spec_list(),
        "data_spec_keys": data_spec_keys(),
        "commands": commands(),
        "changelog": linked((ROOT / "CHANGELOG.md").read_text("utf-8")),
        "contributing": linked((ROOT / "CONTRIBUTING.md").read_text("utf-8")),
        "security": linked((ROOT / "SECURITY.md").read_text("utf-8")),
    }
    for name, text in parts.items():
        _write(DOCS / "made" / f"{name}.md", text)
    pages = api_pages()
    for page in pages:
        _write(DOCS / "api" / f"{page.file}.rst", api_text(page))
    _write(DOCS / "api" / "index.md", api_index(pages))
    for notebook in sorted((ROOT / "tutorials").glob("*.ipynb")):
        _write(DOCS / "tutorials" / notebook.name, notebook.read_text("utf-8").replace("](../", "](../../"))


# The rooms of the names in `brainrdl` -> file and title of their page; other rooms are the last one's.
_ROOMS = {
    "sources": ("teachers", "Teachers"),
    "objectives": ("objectives", "Objectives"),
    "training": ("training", "Training"),
    "notes": ("training", "Training"),
}
_OTHER_ROOMS = ("parts", "Stimuli, pairs, dissimilarities, schedules")

# Modules whose `__all__` is public, and the titles of their pages.
_MODULES = {
    "brainrdl.analysis": "RDMs of networks, second-order MDS, inference",
    "brainrdl.rdms": "RDMs: files and selection",
    "brainrdl.data": "Data sets",
    "brainrdl.models": "Networks",
    "brainrdl.experiment_file": "Experiment files",
    "brainrdl.experiment": "Running an experiment",
    "brainrdl.report": "Reporting a run",
}


def api_pages() -> list[ApiPage]:
    """The reference: every public name, once, where people would import it from first."""
    pages: dict[str, ApiPage] = {}
    for name in brainrdl.__all__:
        room = brainrdl._MODULES[name].split(".")[1]
        file, title = _ROOMS.get(room, _OTHER_ROOMS)
        page = pages.setdefault(file, ApiPage(file, title, "", {}))
        page.objects[f"brainrdl.{name}"] = getattr(brainrdl, name)
    for module_name, title in _MODULES.items():
        module = import_module(module_name)
        objects = {f"{module_name}.{name}": getattr(module, name) for name in module.__all__}
        pages[module_name] = ApiPage(module_name.rsplit(".", 1)[1], title, module.__doc__ or "", objects)
    figures = import_module("brainrdl.analysis.figures")
    drawn = {name: one for module in _modules_in(figures) for name, one in _shown(module).items()}
    pages["figures"] = ApiPage("figures", "Figures", figures.__doc__ or "", drawn)
    seen: set[int] = set()
    order = ["teachers", "objectives", "training", "parts", "brainrdl.analysis", "figures"]
    return [_without(pages[key], seen) for key in [*order, *(key for key in pages if key not in order)]]


def _without(page: ApiPage, seen: set[int]) -> ApiPage:
    """The page without what stands on an earlier one."""
    new = {name: one for name, one in page.objects.items() if id(one) not in seen}
    seen.update(map(id, new.values()))
    return page._replace(objects=new)


def _modules_in(package: Any) -> list[Any]:
    return [import_module(f"{package.__name__}.{module.name}") for module in pkgutil.iter_modules(package.__path__)]


def _shown(module: Any) -> dict[str, Any]:
    """Of a figure's module what draws it; of `style` what figures share."""
    is_style = module.__name__.endswith(".style")
    return {
        f"{module.__name__}.{name}": one
        for name, one in vars(module).items()
        if name == "plot" or (is_style and not name.startswith("_") and _is_defined_in(one, module))
    }


def _is_defined_in(one: object, module: Any) -> bool:
    return (inspect.isfunction(one) or inspect.isclass(one)) and one.__module__ == module.__name__


def api_text(page: ApiPage) -> str:
    """A page of the reference as reStructuredText, for autodoc."""
    lines = [page.title, "=" * len(page.title), "", *_paragraphs(page.text)]
    for module, names in _by_module(page.objects).items():
        lines += [f".. currentmodule:: {module}", ""]
        if len(_by_module(page.objects)) > 1:
            title = module.rsplit(".", 1)[1]
            lines += [title, "-" * len(title), "", *_paragraphs(import_module(module).__doc__ or "")]
        for name in names:
            lines += [*_directive(name, page.objects[f"{module}.{name}"]), ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> list[str]:
    return [as_rst(inspect.cleandoc(text)), ""] if text else []


def _by_module(objects: dict[str, Any]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in objects:
        module, last = name.rsplit(".", 1)
        modules.setdefault(module, []).append(last)
    return modules


def _directive(name: str, one: object) -> Iterator[str]:
    if inspect.isclass(one):
        yield from (f".. autoclass:: {name}", "   :members:")
    elif callable(one):
        yield f".. autofunction:: {name}"
    else:
        yield f".. autodata:: {name}"


def api_index(pages: list[ApiPage]) -> str:
    """The reference's first page: where what is, in a sentence each."""
    toctree = ["```{toctree}", ":hidden:", "", *(page.file for page in pages), "```"]
    lines = ["# API reference", "", "Every public name, by what it is for.", ""]
    for page in pages:
        lines += [f"## [{page.title}]({page.file}.rst)", "", "| name | what it is |", "|---|---|"]
        for name, one in page.objects.items():
            first = taken_apart(one.__doc__ or "", names_of(one))[0].text
            short = (
                name.removeprefix("brainrdl.analysis.figures.") if page.file == "figures" else name.rsplit(".", 1)[1]
            )
            sentence = re.split(r"(?<=\.)\s(?=[A-Z])", first, maxsplit=1)[0]
            lines.append(f"| [`{short}`](#{name}) | {as_markdown(sentence)} |")
        lines.append("")
    return "\n".join([*lines, *toctree])


def spec_list() -> str:
    """The data specs that come with the package, and where their data are from."""
    lines = ["| data spec | what it is | from | licence |", "|---|---|---|---|"]
    kinds: list[tuple[tuple[str, ...], Callable[[str], DataSpec | BrainSpec]]] = [
        (spec_names(), load_spec),
        (spec_names("brain"), load_brain_spec),
    ]
    for names, load in kinds:
        for name in names:
            spec = load(name)
            source = spec.source
            publisher = as_markdown(source.publisher or source.url or "–")
            origin = f"[{publisher}]({source.url})" if source.url.startswith("http") else publisher
            lines.append(f"| `{name}` | {as_markdown(spec.title)} | {origin} | {as_markdown(source.licence or '–')} |")
    return "\n".join([*lines, ""])


def data_spec_keys() -> str:
    """Everything that a data spec may say, of both kinds."""
    images = settings_tables.sections(DataSpec)
    brain = settings_tables.sections(BrainSpec, without=settings_tables.models_below(DataSpec))
    return "\n".join(["## Of images", images, "## Of brain data", brain])


def commands() -> str:
    """Every command with its arguments and options, from the command line's own help."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from brainrdl.cli import app

    group = get_command(app)
    context = typer.Context(group, info_name="brainrdl")
    texts = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        text = get_docs_for_click(
            obj=command,
            ctx=typer.Context(command, parent=context, info_name=name),
            indent=1,
            name=name,
            call_prefix="brainrdl",
        )
        texts.append(text.replace("```console\n$ ", "```text\n"))
    return "\n".join(texts)


def linked(text: str) -> str:
    """A file of the repository's root as a part of a page: without its title, its links from docs/ on."""

    def moved(link: re.Match[str]) -> str:
        target = link[1]
        if target.startswith(("http", "tutorials/")):
            return link[0]
        if target in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
            return f"]({target.lower()})"
        return f"]({target.removeprefix('docs/') if target.startswith('docs/') else f'../{target}'})"

    without_title = re.sub(r"\A# .*\n", "", text)
    return re.sub(r"\]\(([^)]+)\)", moved, without_title)


def _write(path: Path, text: str) -> None:
    """Write a file, unless it says the same already: Sphinx then reads it again."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")
