from __future__ import annotations

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from brainrdl.analysis.figures import curves
from brainrdl.analysis.figures.style import WIDTH, looks, new_figure, print_style, save_figure

METHODS = ("baseline", "finetuning", "deep_supervision", "hints", "distillation", "rdl", "baseline_deformed")
LAYERS = ("pool1", "pool2", "fc", "softmax")


# style


def test_methods_look_different_up_to_28():
    assert len(set(looks(f"method{k}" for k in range(28)).values())) == 28
    assert list(looks(["b", "a", "b"])) == ["b", "a"]


def small_figure():
    with print_style():
        figure = new_figure(height=1.0)
        figure.subplots().set_title("a figure")
    return figure


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_equal_figures_give_equal_files(tmp_path, suffix):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (path,) = save_figure(small_figure(), tmp_path / folder / "curves", formats=[suffix])
        assert path == tmp_path / folder / f"curves.{suffix}"
    assert (tmp_path / "one" / path.name).read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert [p.name for p in (tmp_path / "one").iterdir()] == [path.name]


def test_a_png_has_300_dots_an_inch_and_a_pdf_holds_truetype_text_without_a_date(tmp_path):
    import matplotlib.image

    png, pdf = save_figure(small_figure(), tmp_path / "curves")
    assert matplotlib.image.imread(png).shape[1] == int(300 * WIDTH)
    content = pdf.read_bytes()
    assert b"/CIDFontType2" in content or b"/TrueType" in content
    assert b"/Type3" not in content
    assert b"Date" not in content


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown figure format 'gif'; expected one of png, pdf, svg"):
        save_figure(Figure(), tmp_path / "figure", formats=["png", "gif"])
    with pytest.raises(ValueError, match="at least one figure format out of png, pdf, svg, got none"):
        save_figure(Figure(), tmp_path / "figure", formats=[])
    assert list(tmp_path.iterdir()) == []


def test_the_users_settings_neither_change_figures_nor_are_changed(tmp_path):
    histories = pd.DataFrame({"method": "rdl", "seed": 0, "epoch": range(3), "train_error": 0.2, "test_error": 0.3})
    plain = save_figure(curves.plot(histories), tmp_path / "plain", formats=["png"])[0].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        before = dict(matplotlib.rcParams)
        styled = save_figure(curves.plot(histories), tmp_path / "styled", formats=["png"])[0].read_bytes()
        assert dict(matplotlib.rcParams) == before
    assert styled == plain
