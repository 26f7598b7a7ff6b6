"""Settings of the documentation's site: `sphinx-build -W --keep-going docs docs/_build`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import make_pages
from docstrings import as_field_list, names_of
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

import brainrdl

project = "brainrdl"
author = "brainrdl developers"
copyright = "brainrdl developers, BSD-3-Clause"
version = release = brainrdl.__version__
language = "en-GB"
smartquotes = False  # "--option" and "name" are meant as they stand

extensions = ["sphinx.ext.autodoc", "myst_nb"]
exclude_patterns = ["_build", "made", "results/runs"]
nitpicky = True
# The types in signatures are other projects', or names for types; all other references must be found.
nitpick_ignore_regex = [("py:class", ".*")]

# Notebooks are pages with the outputs that they were saved with; the tests run them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
python_display_short_literal_types = True

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "brainrdl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
}
html_sidebars = {"extending": []}  # a page without further ones beside it
html_context = {"default_mode": "light"}


def has_no_docstring(app: Sphinx, what: str, name: str, one: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a NamedTuple: the class says what they are."""
    return True if str(getattr(one, "__doc__", "")).startswith("Alias for field number") else None


def with_dashes(app: Sphinx, document: nodes.document) -> None:
    """What Sphinx sets between an argument and its meaning, which `smartquotes` would have made a dash."""
    for text in list(document.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> None:
    """Make the pages that are made; show our docstrings as field lists and equations as MathML."""
    make_pages.make_pages()
    links: dict[str, str] = {}
    for page in make_pages.api_pages():
        for name in page.objects:
            links.setdefault(name, name)
            links.setdefault(name.rsplit(".", 1)[1], name)

    def as_fields(app: Sphinx, what: str, name: str, one: Any, options: Any, lines: list[str]) -> None:
        known = {text: full for text, full in links.items() if full != name and text != "plot"}
        lines[:] = as_field_list("\n".join(lines), names_of(one), known)

    app.connect("autodoc-process-docstring", as_fields)
    app.connect("autodoc-skip-member", has_no_docstring)
    app.connect("doctree-read", with_dashes)
    app.add_html_math_renderer("mathml", (inline_equation, None), (equation, None))


def inline_equation(self: Any, node: nodes.math) -> None:
    """An equation within text: browsers show MathML by themselves, without scripts or a network."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def equation(self: Any, node: nodes.math_block) -> None:
    """An equation of its own, with its number where it has a label."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(tex2mathml(node.astext(), as_block=True))
    if node["number"]:
        self.body.append(f'<span class="eqno">({node["number"]})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode
