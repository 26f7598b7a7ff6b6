from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rsatoolbox.rdm import RDMs

from brainrdl.analysis.figures import curves, rdm_grid, second_order
from brainrdl.analysis.figures.style import WIDTH, looks, new_figure, print_style, save_figure
from brainrdl.analysis.second_order import SecondOrder

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
    plain = save_figure(curves.plot(histories(METHODS[:2])), tmp_path / "plain", formats=["png"])[0].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        before = dict(matplotlib.rcParams)
        styled = save_figure(curves.plot(histories(METHODS[:2])), tmp_path / "styled", formats=["png"])[0].read_bytes()
        assert dict(matplotlib.rcParams) == before
    assert styled == plain


# curves


def histories(methods, n_seeds=3, n_epochs=6):
    random = np.random.default_rng(0)
    rows = [
        (
            method,
            seed,
            epoch,
            0.5 * 2.0 ** -min(epoch, 13) * random.uniform(0.9, 1.1),
            0.02 + 0.6 * 2.0**-epoch * random.random(),
        )
        for method in methods
        for seed in range(n_seeds)
        for epoch in range(n_epochs)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "epoch", "train_error", "test_error"])


def test_curves_show_the_mean_and_the_range_over_seeds_in_percent():
    frame = histories(METHODS[:2])
    figure = curves.plot(frame)
    for ax, column in zip(figure.axes, ["train_error", "test_error"], strict=True):
        for line, band, method in zip(ax.lines, ax.collections, METHODS, strict=False):
            by_epoch = 100 * frame[frame["method"] == method].pivot(index="epoch", columns="seed", values=column)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 7))
            np.testing.assert_allclose(line.get_ydata(), by_epoch.mean(axis=1))
            y = band.get_paths()[0].vertices[:, 1]
            assert (y.min(), y.max()) == pytest.approx((by_epoch.min(axis=None), by_epoch.max(axis=None)))
            assert line.get_label() == method


def test_an_epoch_that_a_seed_lacks_is_not_drawn():
    frame = histories(["rdl"]).drop(index=17)  # the last seed's last epoch
    assert list(curves.plot(frame).axes[0].lines[0].get_xdata()) == [1, 2, 3, 4, 5]


def test_a_method_keeps_its_colour_when_others_are_missing():
    whole = curves.plot(histories(METHODS)).axes[0].lines
    part = curves.plot(histories(["rdl"]), METHODS).axes[0].lines
    assert [line.get_color() for line in part] == [line.get_color() for line in whole if line.get_label() == "rdl"]


@pytest.mark.parametrize(("n_epochs", "zero"), [(1, "nowhere"), (6, "nowhere"), (6, "everywhere"), (100, "at the end")])
def test_curves_are_readable_and_hold_every_value(n_epochs, zero, assert_readable):
    frame = histories(METHODS, n_epochs=n_epochs)
    if zero == "at the end":
        frame.loc[frame["epoch"] == n_epochs - 1, "train_error"] = 0.0
    if zero == "everywhere":
        frame["train_error"] = 0.0
    figure = curves.plot(frame)
    assert_readable(figure)
    for ax in figure.axes:
        low, high = ax.get_ylim()
        for line in ax.lines:
            assert low <= min(line.get_ydata()) and max(line.get_ydata()) <= high
    assert (figure.axes[0].get_ylim()[0] < 0) == (zero != "nowhere")


@pytest.mark.parametrize("error", [0.0051, 1.0])
def test_flat_curves_have_at_least_two_ticks(error, assert_readable):
    figure = curves.plot(histories(["rdl"], n_epochs=3).assign(test_error=error))
    ax = figure.axes[1]
    assert sum(ax.get_ylim()[0] <= tick <= ax.get_ylim()[1] for tick in ax.get_yticks()) >= 2
    assert_readable(figure)


def test_curves_need_their_columns():
    frame = histories(["rdl"])
    with pytest.raises(ValueError, match="histories: column 'test_error' is missing"):
        curves.plot(frame.drop(columns="test_error"))
    with pytest.raises(ValueError, match="histories hold no epoch"):
        curves.plot(frame.iloc[:0])


# rdm_grid


def grid_rdms(networks=METHODS, n_classes=4, names=None, layers=None, references=True):
    """Random RDMs over 3 stimuli a class, in no order; the label RDM is 0 within a class, 1 between."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(n_classes), 3))
    i, j = np.triu_indices(len(labels), 1)
    rows = [(network, layer) for network in networks for layer in (layers or {}).get(network, LAYERS)]
    if references:
        rows = [("pixels", "pixels"), ("labels", "labels"), *rows]
    values = random.random((len(rows), len(i))) + 1
    if references:
        values[1] = labels[i] != labels[j]
    names = names or [f"class {k}" for k in range(n_classes)]
    return RDMs(
        values,
        rdm_descriptors={"network": [network for network, _ in rows], "layer": [layer for _, layer in rows]},
        pattern_descriptors={"label": labels.tolist(), "category": [names[k] for k in labels]},
    )


def images(figure):
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def test_the_grid_has_a_row_a_network_and_a_column_a_layer():
    figure = rdm_grid.plot(grid_rdms())
    assert len(images(figure)) == 2 + len(METHODS) * len(LAYERS)
    titles = [ax.get_title() for ax in figure.axes]
    assert [title for title in titles if title] == ["pixels", *LAYERS, "labels"]
    rows = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert rows == ["baseline", "finetuning", "deep supervision", "hints", "distillation", "rdl", "baseline\ndeformed"]


def test_stimuli_are_sorted_by_class():
    labels = images(rdm_grid.plot(grid_rdms(["rdl"], n_classes=4), scale="raw"))[-1]
    same = np.kron(np.eye(4), np.ones((3, 3)))
    np.testing.assert_array_equal(labels, 1 - same)


def test_percentiles_run_from_0_to_100_and_raw_values_to_1():
    rdms = grid_rdms(["rdl"])
    order = np.argsort(rdms.pattern_descriptors["label"], kind="stable")
    for k, image in zip([0, 2, 3, 4, 5, 1], images(rdm_grid.plot(rdms, scale="percentile")), strict=True):
        off_diagonal = image[~np.eye(12, dtype=bool)]
        assert (off_diagonal.min(), off_diagonal.max()) == (0, 100)
        original = rdms.get_matrices()[k][order][:, order][~np.eye(12, dtype=bool)]
        np.testing.assert_array_equal(np.argsort(off_diagonal, kind="stable"), np.argsort(original, kind="stable"))
    raw = images(rdm_grid.plot(rdms, scale="raw"))[1]
    np.testing.assert_allclose(raw, rdms.get_matrices()[2][order][:, order] / rdms.dissimilarities[2].max())


def test_the_bar_says_what_the_colours_mean():
    for scale, words in (("percentile", "ranked within each RDM"), ("raw", "share of each RDM's largest")):
        figure = rdm_grid.plot(grid_rdms(["rdl"]), scale=scale)
        assert words in figure.axes[-1].get_xlabel()
        assert figure.axes[0].images[0].get_clim() == (0, 100 if scale == "percentile" else 1)


def test_a_network_with_other_layers_has_its_own_names(assert_readable):
    rdms = grid_rdms(["rdl", "teacher"], layers={"teacher": ("stage1", "stage2")})
    figure = rdm_grid.plot(rdms)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["pixels", *LAYERS, "stage1", "stage2", "labels"]
    assert_readable(figure)


def test_a_layer_that_a_network_lacks_leaves_its_place_empty():
    figure = rdm_grid.plot(grid_rdms(["rdl", "teacher"], layers={"teacher": ("fc",)}))
    columns = {ax.get_title(): ax.get_position().x0 for ax in figure.axes if ax.get_title()}
    (teacher,) = [ax for ax in figure.axes if ax.images and ax.get_subplotspec().rowspan.start == 1]
    assert teacher.get_subplotspec().colspan.start == 1 + LAYERS.index("fc")
    assert list(columns) == ["pixels", *LAYERS, "labels"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", ["percentile", "raw"])
def test_missing_pairs_are_grey_and_flat_rdms_can_be_drawn(scale):
    rdms = grid_rdms(["rdl"])
    rdms.dissimilarities[2, 5] = np.nan
    rdms.dissimilarities[3] = 0
    rdms.dissimilarities[4] = np.nan
    shown = images(rdm_grid.plot(rdms, scale=scale))
    assert np.isnan(shown[1]).sum() == 2
    assert (shown[2] == 0).all()
    assert np.isnan(shown[3]).sum() == 12 * 11


@pytest.mark.parametrize(
    ("networks", "n_classes", "name"),
    [
        ((*METHODS, "teacher"), 10, "automobile {}"),
        (("baseline", "rdl"), 10, "{}"),
        (("rdl",), 60, "a class with a long name, number {}"),
        (("rdl",), 2, "cat {}"),
    ],
)
def test_the_grid_is_readable(networks, n_classes, name, assert_readable):
    rdms = grid_rdms(networks, n_classes, [name.format(k) for k in range(n_classes)])
    figure = rdm_grid.plot(rdms)
    assert_readable(figure)
    assert figure.get_figwidth() <= WIDTH + 1e-9


def test_the_grid_works_without_references_and_without_labels(assert_readable):
    rdms = grid_rdms(["baseline", "rdl"], references=False)
    assert_readable(rdm_grid.plot(rdms))
    plain = RDMs(rdms.dissimilarities, rdm_descriptors=rdms.rdm_descriptors)
    shown = images(rdm_grid.plot(plain, scale="raw"))
    np.testing.assert_allclose(shown[0], rdms.get_matrices()[0] / rdms.dissimilarities[0].max())


def test_the_grid_refuses_what_it_cannot_draw():
    rdms = grid_rdms(["rdl"])
    with pytest.raises(ValueError, match="unknown scale 'log' of the RDM grid; expected one of percentile, raw"):
        rdm_grid.plot(rdms, scale="log")
    with pytest.raises(ValueError, match="network 'rdl' has layer 'pool1' twice; choose one epoch and seed"):
        rdm_grid.plot(grid_rdms(["rdl", "rdl"]))
    with pytest.raises(ValueError, match="at least one network besides pixels and labels"):
        rdm_grid.plot(grid_rdms([]))
    with pytest.raises(ValueError, match="the RDM grid needs the rdm_descriptor 'network'"):
        rdm_grid.plot(RDMs(np.ones((1, 3))))


# second_order


def scaled_points(networks=METHODS, teacher=True, comparison="correlation"):
    rows = [("pixels", "pixels"), ("labels", "labels")]
    rows += [(network, layer) for network in (*networks, *["teacher"] * teacher) for layer in LAYERS]
    points = np.random.default_rng(0).normal(size=(len(rows), 2))
    frame = pd.DataFrame(rows, columns=["network", "layer"])
    return SecondOrder(points, np.zeros((len(rows), len(rows))), 0.123, frame, comparison)


def test_every_rdm_is_a_point_and_a_networks_layers_are_joined_in_order():
    data = scaled_points(["rdl"])
    ax = second_order.plot(data)
    joined = [line for line in ax.lines if len(line.get_xdata()) == len(LAYERS)]
    np.testing.assert_array_equal(np.stack(joined[0].get_data(), axis=1), data.coordinates[2:6])
    points = {tuple(np.ravel(line.get_data())) for line in ax.lines if len(line.get_xdata()) == 1}
    assert points == {tuple(point) for point in data.coordinates}
    assert ax.get_aspect() == 1


def test_colour_is_the_network_shape_is_the_layer():
    ax = second_order.plot(scaled_points(["baseline", "rdl"]))
    points = [line for line in ax.lines if len(line.get_xdata()) == 1][: 3 * len(LAYERS)]
    colours = [point.get_color() for point in points]
    expected = [look.colour for look in looks(["baseline", "rdl"]).values()]
    assert [colours[k] for k in (0, 4, 8)] == [*expected, "#000000"]
    assert colours == [colour for colour in colours[::4] for _ in LAYERS]
    markers = [point.get_marker() for point in points]
    assert markers == markers[:4] * 3
    assert len(set(markers)) == 4


def test_stress_comparison_references_and_legend_are_named():
    ax = second_order.plot(scaled_points(comparison="spearman"))
    assert "(stress 0.12)" in ax.get_title(loc="left")
    assert "1 − spearman similarity of RDMs" in ax.get_title(loc="left")
    named = [text.get_text() for text in ax.get_legend().get_texts() if text.get_text()]
    assert named == [*METHODS, "teacher", *LAYERS, "pixels", "labels"]


def test_a_network_keeps_its_colour_when_others_are_missing():
    whole = second_order.plot(scaled_points()).get_legend().get_lines()[METHODS.index("rdl")]
    part = second_order.plot(scaled_points(["rdl"]), methods=METHODS).get_legend().get_lines()[0]
    assert part.get_color() == whole.get_color()


def test_of_networks_with_one_layer_the_shape_tells_them_apart():
    names = [f"method{k}" for k in range(9)]
    descriptors = pd.DataFrame({"network": [*names, "brain", "brain"], "layer": ["fc"] * 9 + ["IT", "EVC"]})
    distances = np.abs(np.subtract.outer(np.arange(11.0), np.arange(11.0)))
    coordinates = np.stack([np.arange(11.0), np.zeros(11)], axis=1)
    ax = second_order.plot(SecondOrder(coordinates, distances, 0.0, descriptors, "correlation"), teacher="brain")
    points = [line for line in ax.get_lines() if line.get_marker() not in ("None", None, "")]
    looks_of = {(line.get_color(), line.get_marker()) for line in points if line.get_color() != "#000000"}
    assert len(looks_of) == 9
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert ax.get_legend().get_title().get_text() == "Colour and shape: network"
    assert "fc" not in texts and {"IT", "EVC", "brain", *names} <= set(texts)


def test_the_second_order_figure_is_readable(assert_readable):
    assert_readable(second_order.plot(scaled_points()).figure)


def test_it_draws_into_given_axes():
    ax = Figure().subplots()
    assert second_order.plot(scaled_points(["rdl"], teacher=False), ax) is ax


def test_it_needs_network_and_layer():
    data = scaled_points(["rdl"])
    lacking = SecondOrder(data.coordinates, data.distances, 0.1, data.descriptors[["network"]], "correlation")
    with pytest.raises(ValueError, match="the second-order figure needs the rdm_descriptor 'layer'"):
        second_order.plot(lacking)
