from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist

from brainrdl.analysis.figures import curves
from brainrdl.analysis.figures.style import (
    TEACHER_COLOUR,
    WIDTH,
    figure_of,
    looks,
    new_figure,
    print_style,
    save_figure,
)

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


# Of linear RGB, what is left to eyes without one kind of cones (Machado, Oliveira & Fernandes 2009, severity 1).
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


@pytest.mark.parametrize("eyes", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all cones", "no green", "no red"])
def test_colours_differ_for_colour_blind_readers_and_from_the_teachers(eyes):
    colours = [look.colour for look in looks(map(str, range(7))).values()] + [TEACHER_COLOUR]
    srgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    white = XYZ.sum(1)
    xyz = np.clip(linear @ np.array(eyes).T, 0, 1) @ XYZ.T / white
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    # A difference of 2 can just be seen side by side.
    assert pdist(lab).min() > 15


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


def test_the_figure_of_axes_is_the_whole_one_and_axes_without_one_are_told():
    figure = Figure()
    part = figure.subfigures(1, 2)[1]
    ax = part.subplots()
    assert figure_of(ax) is figure
    ax.remove()
    with pytest.raises(ValueError, match="these axes stand in no figure"):
        figure_of(ax)
