"""Figures of RDMs, one and many: what is drawn, what the bar says of it, what stands along the sides."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from rsatoolbox.rdm import RDMs, rank_transform

from brainrdl.analysis.figures import rdm, rdm_grid
from brainrdl.analysis.figures.style import MILLIMETRE, PAGE, WIDTH, WIDTHS, save_figure

METHODS = ("baseline", "deep_supervision", "baseline_deformed", "rdl", "hints")
LAYERS = ("pool1", "pool2", "fc", "softmax")


def made(n_rdms=1, n_stimuli=12, measure="correlation", categories=None, stimuli=True, **descriptors):
    """Random RDMs between 0.5 and 1.5; category k % n of stimulus k."""
    random = np.random.default_rng(0)
    patterns = {"stimulus": [f"object {k}" for k in range(n_stimuli)]} if stimuli else {}
    if categories:
        patterns["category"] = [categories[k % len(categories)] for k in range(n_stimuli)]
    return RDMs(
        random.random((n_rdms, n_stimuli * (n_stimuli - 1) // 2)) + 0.5,
        dissimilarity_measure=measure,
        rdm_descriptors=descriptors,
        pattern_descriptors=patterns,
    )


def pictures(rdms, shape=(6, 8)):
    """Each of another grey."""
    return {name: np.full((*shape, 3), k, np.uint8) for k, name in enumerate(rdms.pattern_descriptors["stimulus"])}


def drawn(figure):
    return [np.ma.filled(ax.images[0].get_array().astype(float), np.nan) for ax in figure.axes if ax.images]


def bar_of(figure):
    return figure.axes[-1]


def hatched(ax):
    return [patch for patch in ax.patches if patch.get_hatch()]


def plot(rdms, **options):
    """In axes of its own: without the time that a figure's layout takes."""
    return rdm.plot(rdms, Figure().subplots(), **options)


# one RDM


def test_raw_values_are_the_dissimilarities_and_their_limits_leave_out_the_diagonal():
    rdms = made()
    ax = plot(rdms, scale="raw")
    np.testing.assert_array_equal(drawn(ax.figure)[0], rdms.get_matrices()[0])
    assert ax.images[0].get_clim() == (rdms.dissimilarities.min(), rdms.dissimilarities.max())
    assert bar_of(ax.figure).get_xlabel() == "Dissimilarity (correlation)"


def test_percentiles_are_rsatoolboxs_ranks_from_0_to_100():
    rdms = made()
    ranks = rank_transform(rdms).get_matrices()[0]
    off_diagonal = ~np.eye(12, dtype=bool)
    image = drawn(plot(rdms).figure)[0]
    np.testing.assert_allclose(image[off_diagonal], 100 * (ranks[off_diagonal] - 1) / (ranks.max() - 1))
    assert (image.diagonal() == 0).all()


def test_equal_dissimilarities_have_equal_percentiles():
    rdms = RDMs(np.array([[1.0, 1.0, 2.0, 2.0, 2.0, 3.0]]))
    image = drawn(plot(rdms).figure)[0]
    assert image[0, 1] == image[0, 2] == 0 and image[0, 3] == image[1, 2] and image[2, 3] == 100


def test_negative_dissimilarities_have_a_colour_of_their_own_on_the_other_side_of_zero():
    rdms = made(measure="crossnobis")
    rdms.dissimilarities -= 0.7
    ax = plot(rdms, scale="raw")
    largest = np.abs(rdms.dissimilarities).max()
    assert ax.images[0].get_clim() == (-largest, largest)
    assert ax.images[0].get_cmap().name == "RdBu_r"
    assert bar_of(ax.figure).get_xlabel() == "Dissimilarity (crossnobis)\n(white = 0, blue = below it)"
    white = ax.images[0].to_rgba(np.zeros((1, 1)))[0, 0]
    assert white[:3].min() > 0.95


def test_rounding_below_zero_is_no_negative_dissimilarity():
    rdms = made()
    rdms.dissimilarities[0, 0] = -1e-12
    assert plot(rdms, scale="raw").images[0].get_cmap().name == "viridis"


def test_zero_belongs_to_the_colours_of_crossnobis():
    assert plot(made(measure="crossnobis"), scale="raw").images[0].get_clim()[0] == 0


def test_the_measure_is_called_as_everywhere_here_or_not_at_all():
    named = plot(made(measure="squared euclidean"), scale="raw")
    assert bar_of(named.figure).get_xlabel() == "Dissimilarity (euclidean)"
    assert bar_of(plot(made(measure=None), scale="raw").figure).get_xlabel() == "Dissimilarity"


@pytest.mark.parametrize("scale", ["percentile", "raw"])
def test_missing_pairs_are_hatched_and_the_bar_says_so(scale):
    rdms = made()
    assert not hatched(plot(rdms, scale=scale).axes)
    rdms.dissimilarities[0, [3, 7]] = np.nan
    ax = plot(rdms, scale=scale)
    image = drawn(ax.figure)[0]
    np.testing.assert_array_equal(np.isnan(image), np.isnan(rdms.get_matrices()[0]))
    (hatching,) = hatched(ax)
    # One piece below the image, which is transparent where nothing was measured.
    assert hatching.get_zorder() < ax.images[0].get_zorder()
    assert ax.images[0].to_rgba(image)[np.isnan(image)][:, 3].max() == 0
    assert [text.get_text() for text in bar_of(ax.figure).get_legend().get_texts()] == ["not measured"]


def test_categories_sort_the_stimuli_and_are_named_in_the_order_they_first_come():
    rdms = made(categories=["face", "body", "house"])
    ax = plot(rdms, scale="raw")
    order = [*range(0, 12, 3), *range(1, 12, 3), *range(2, 12, 3)]
    np.testing.assert_array_equal(drawn(ax.figure)[0], rdms.get_matrices()[0][order][:, order])
    for axis in (ax.xaxis, ax.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == ["face", "body", "house"]
        np.testing.assert_array_equal(axis.get_ticklocs(), [1.5, 5.5, 9.5])


def test_strips_lie_beside_their_categories_rows_in_colours_that_differ():
    ax = plot(made(categories=["face", "body", "house"]))
    left, below = [c for c in ax.collections if isinstance(c, PolyCollection)]
    extents = [(box.vertices[:, 1].min(), box.vertices[:, 1].max()) for box in left.get_paths()]
    assert extents == [(-0.5, 3.5), (3.5, 7.5), (7.5, 11.5)]
    assert len(np.unique(left.get_facecolors(), axis=0)) == 3
    np.testing.assert_array_equal(left.get_facecolors(), below.get_facecolors())


def test_more_categories_than_colours_are_alternating_greys():
    ax = plot(made(n_stimuli=20, categories=[f"c{k}" for k in range(10)]))
    strip = next(c for c in ax.collections if isinstance(c, PolyCollection))
    assert [tuple(c) for c in strip.get_facecolors()] == [to_rgba("0.35"), to_rgba("0.75")] * 5


def test_labels_are_sorted_by_number_and_order_the_categories():
    rdms = made(stimuli=False)
    rdms.pattern_descriptors["label"] = [10, 9, 2] * 4
    assert [t.get_text() for t in plot(rdms).get_yticklabels()] == ["2", "9", "10"]
    rdms.pattern_descriptors["category"] = ["zebra", "ape", "yak"] * 4
    assert [t.get_text() for t in plot(rdms).get_yticklabels()] == ["yak", "ape", "zebra"]
    # A category of several labels stands where its first label does.
    rdms.pattern_descriptors["category"] = ["zebra", "ape", "zebra"] * 4
    assert [t.get_text() for t in plot(rdms).get_yticklabels()] == ["zebra", "ape"]


def test_any_descriptor_can_sort_and_none_leaves_the_order():
    rdms = made(categories=["b", "a"])
    rdms.pattern_descriptors["animate"] = ["no"] * 6 + ["yes"] * 6
    assert [t.get_text() for t in plot(rdms, sort_by="animate").get_yticklabels()] == ["no", "yes"]
    ax = plot(rdms, scale="raw", sort_by=None)
    np.testing.assert_array_equal(drawn(ax.figure)[0], rdms.get_matrices()[0])
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"object {k}" for k in range(12)]
    assert not ax.collections


def test_stimuli_are_named_all_or_none():
    assert len(plot(made(n_stimuli=8)).get_yticklabels()) == 8
    assert len(plot(made(n_stimuli=200)).get_yticklabels()) == 0


def test_pictures_stand_beside_their_stimuli_as_high_as_wide_as_they_are():
    rdms = made(categories=["b", "a"])
    ax = rdm.plot(rdms, thumbnails=pictures(rdms))
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    left, below = ax.child_axes
    for strip, axis in ((left, 1), (below, 0)):
        assert [image.get_array()[0, 0, 0] for image in strip.images] == order
        for k, image in enumerate(strip.images):
            x0, x1, y0, y1 = image.get_extent()
            assert np.mean([(x0, x1), (y0, y1)], axis=1)[axis] == pytest.approx(k)
            assert (x1 - x0) / (y0 - y1) == pytest.approx(8 / 6)
    assert not ax.get_yticklabels() and not ax.collections


@pytest.mark.parametrize(("n_stimuli", "rows"), [(12, 1), (40, 2)])
def test_pictures_never_overlap_and_are_square_on_paper(n_stimuli, rows):
    rdms = made(n_stimuli=n_stimuli)
    ax = rdm.plot(rdms, thumbnails=pictures(rdms, (8, 8)))
    ax.figure.draw_without_rendering()
    for strip in ax.child_axes:
        boxes = [image.get_window_extent() for image in strip.images]
        for box in boxes:
            assert box.width == pytest.approx(box.height, rel=0.02)
            assert box.width / ax.figure.dpi > 2 * MILLIMETRE
        for k, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[:k])
        along = "x0" if strip is ax.child_axes[0] else "y0"
        assert len({round(getattr(box, along)) for box in boxes}) == rows
        assert len(strip.lines) == (n_stimuli // 2 if rows == 2 else 0)


def test_pictures_that_do_not_fit_are_refused_and_as_many_as_are_said_to_fit_do():
    rdms = made(n_stimuli=92)
    with pytest.raises(ValueError, match=r"92 pictures of stimuli do not fit along an RDM of \d+ mm: \d+ do") as error:
        rdm.plot(rdms, thumbnails=pictures(rdms))
    assert "subset_stimuli" in str(error.value) and "width='double'" in str(error.value)
    rdm.plot(rdms, thumbnails=pictures(rdms), width="double")
    fitting = int(re.search(r": (\d+) do", str(error.value))[1])
    assert fitting > 60
    few, more = made(n_stimuli=fitting), made(n_stimuli=fitting + 1)
    rdm.plot(few, thumbnails=pictures(few))
    with pytest.raises(ValueError, match="do not fit"):
        rdm.plot(more, thumbnails=pictures(more))
    ax = Figure(figsize=(2, 2)).add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"92 pictures of stimuli do not fit along an RDM of 51 mm: 46 do, 2.2 mm"):
        rdm.plot(rdms, thumbnails=pictures(rdms), ax=ax)


def test_stimuli_without_picture_are_named():
    rdms = made()
    some = pictures(rdms)
    del some["object 3"], some["object 8"]
    with pytest.raises(ValueError, match="2 of 12 stimuli have no picture, the first is 'object 3'"):
        plot(rdms, thumbnails=some)
    with pytest.raises(ValueError, match="RDMs need the pattern descriptor 'stimulus'"):
        plot(made(stimuli=False), thumbnails=some)


@pytest.mark.parametrize(
    ("width", "n_stimuli", "categories", "missing"),
    [
        ("double", 8, None, False),
        ("single", 92, ["human bodypart", "human face", "nonhuman bodypart", "natural thing of long name"], True),
        ("double", 92, ["human bodypart", "human face", "nonhuman bodypart", "natural thing of long name"], True),
        ("single", 300, [f"category number {k}" for k in range(100)], False),
        ("double", 92, ["one"] + ["many"] * 30, False),
    ],
)
def test_one_rdm_is_readable(width, n_stimuli, categories, missing, assert_readable):
    rdms = made(n_stimuli=n_stimuli, categories=categories)
    if missing:
        rdms.dissimilarities[0, ::3] = np.nan
    figure = rdm.plot(rdms, scale="raw", width=width).figure
    assert figure.get_figwidth() == WIDTHS[width]
    assert_readable(figure)


def test_of_names_that_would_touch_those_of_the_larger_categories_stand():
    rdms = made(n_stimuli=214)
    rdms.pattern_descriptors["category"] = ["A"] * 100 + [f"b{k // 2}" for k in range(14)] + ["C"] * 100
    names = [t.get_text() for t in plot(rdms).get_yticklabels()]
    assert names[0] == "A" and names[-1] == "C"
    assert 2 < len(names) < 9 and names == sorted(names, key=str.lower)


def test_it_draws_into_given_axes():
    figure = Figure()
    one, other = figure.subplots(1, 2)
    assert rdm.plot(made(), one) is one
    assert one.images and not other.images
    assert bar_of(figure).get_xlabel().startswith("Dissimilarity (correlation)")


def test_one_rdm_it_must_be():
    rdms = made(4, subject=["sub-1", "sub-1", "sub-2", "sub-2"], roi=["V1", "IT"] * 2, session=["a"] * 4)
    with pytest.raises(ValueError, match=r"expected one RDM, got 4; choose one, e.g. brainrdl.rdms.select_rdms") as e:
        rdm.plot(rdms)
    assert "subject='sub-1', roi='V1')" in str(e.value) and "rdm_grid.plot" in str(e.value)
    with pytest.raises(ValueError, match=r"got 2; choose one, e.g. rdms\[0\]"):
        rdm.plot(made(2))


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="unknown scale 'log' of RDMs; expected one of percentile, raw"):
        plot(made(), scale="log")
    with pytest.raises(ValueError, match=r"cannot be sorted by 'size': the RDMs' pattern_descriptors are: stimulus$"):
        plot(made(), sort_by="size")
    with pytest.raises(ValueError, match="unknown figure width 'wide'"):
        plot(made(), width="wide")
    infinite = made()
    infinite.dissimilarities[0, 1] = np.inf
    with pytest.raises(ValueError, match="RDMs to draw: 1 infinite values"):
        plot(infinite)
    undefined = made()
    undefined.dissimilarities[:] = np.nan
    with pytest.raises(ValueError, match="RDM 0 cannot be drawn: it is NaN"):
        plot(undefined)


def test_text_stays_text_and_the_same_figure_is_the_same_file(tmp_path):
    rdms = made(categories=["face", "house"])
    rdms.dissimilarities[0, 0] = np.nan
    one, other = (save_figure(rdm.plot(rdms).figure, tmp_path / name, ["png", "svg"]) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    svg = one[1].read_text()
    assert all(f">{text}</text>" in svg for text in ("face", "house", "not measured"))


def test_two_thousand_stimuli_are_drawn(tmp_path):
    rdms = made(n_stimuli=2000, categories=[f"category {k}" for k in range(100)], stimuli=False)
    rdms.dissimilarities[0, ::5] = np.nan
    (file,) = save_figure(rdm.plot(rdms).figure, tmp_path / "rdm", ["png"])
    assert file.stat().st_size > 10_000


def test_rows_smaller_than_the_printers_dots_are_averaged_not_left_out():
    assert rdm.plot(made(n_stimuli=1000, stimuli=False)).images[0].get_interpolation() == "antialiased"
    assert rdm.plot(made(n_stimuli=100, stimuli=False)).images[0].get_interpolation() == "nearest"


# networks by layers


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


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def row_names(figure):
    return [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]


def test_the_grid_has_a_row_a_network_and_a_column_a_layer():
    networks = METHODS[:3]
    figure = rdm_grid.plot(grid_rdms(networks))
    assert len(drawn(figure)) == 2 + len(networks) * len(LAYERS)
    assert titles(figure) == ["pixels", *LAYERS, "labels"]
    assert [name.replace("\n", " ") for name in row_names(figure)] == [name.replace("_", " ") for name in networks]


def test_stimuli_are_sorted_by_class():
    labels = drawn(rdm_grid.plot(grid_rdms(["rdl"], n_classes=4), scale="raw"))[-1]
    same = np.kron(np.eye(4), np.ones((3, 3)))
    np.testing.assert_array_equal(labels, 1 - same)


def test_each_rdm_is_ranked_by_itself_or_all_together():
    rdms = made(2, name=["low", "high"])
    rdms.dissimilarities[1] += 5
    own = drawn(rdm_grid.plot(rdms))
    shared = drawn(rdm_grid.plot(rdms, shared=True))
    off_diagonal = ~np.eye(12, dtype=bool)
    for image in own:
        assert (image[off_diagonal].min(), image[off_diagonal].max()) == (0, 100)
    assert shared[0][off_diagonal].max() < 50 < shared[1][off_diagonal].min()
    assert (shared[0][off_diagonal].min(), shared[1].max()) == (0, 100)


@pytest.mark.parametrize(
    ("scale", "shared", "words"),
    [
        ("percentile", False, "Dissimilarity (correlation), ranked within each RDM\n(0 = its smallest"),
        ("percentile", True, "Dissimilarity (correlation), ranked over all RDMs together\n(0 = smallest of all"),
        ("raw", False, "Dissimilarity (correlation), each RDM on the scale given below it"),
        ("raw", True, "Dissimilarity (correlation), all RDMs on one scale"),
    ],
)
def test_the_bar_says_what_the_colours_mean(scale, shared, words):
    figure = rdm_grid.plot(made(3, roi=["V1", "V4", "IT"]), scale=scale, shared=shared)
    assert bar_of(figure).get_xlabel().startswith(words)


def test_own_scales_are_from_each_rdms_smallest_to_its_largest_and_said_below_it():
    rdms = made(2, name=["small", "large"])
    rdms.dissimilarities[1] *= 100
    figure = rdm_grid.plot(rdms, scale="raw")
    for k, ax in enumerate(figure.axes[:2]):
        low, high = rdms.dissimilarities[k].min(), rdms.dissimilarities[k].max()
        assert ax.images[0].get_clim() == (low, high)
        assert [text.get_text() for text in ax.texts] == [[f"{low:.2f} … {high:.2f}", f"{low:.0f} … {high:.0f}"][k]]
    assert [t.get_text() for t in bar_of(figure).get_xticklabels()] == ["its smallest", "its largest"]
    one = rdm_grid.plot(rdms, scale="raw", shared=True)
    assert {ax.images[0].get_clim() for ax in one.axes[:2]} == {
        (rdms.dissimilarities.min(), rdms.dissimilarities.max())
    }
    assert not [text for ax in one.axes for text in ax.texts]


def test_all_rdms_have_the_colours_around_zero_where_one_has_negative_dissimilarities():
    rdms = made(2, measure="crossnobis", name=["a", "b"])
    rdms.dissimilarities[1] -= 1
    figure = rdm_grid.plot(rdms, scale="raw")
    assert {ax.images[0].get_cmap().name for ax in figure.axes[:2]} == {"RdBu_r"}
    assert all(ax.images[0].get_clim()[0] == -ax.images[0].get_clim()[1] for ax in figure.axes[:2])
    assert [t.get_text() for t in bar_of(figure).get_xticklabels()] == ["−its largest", "0", "its largest"]
    assert "−" in figure.axes[1].texts[0].get_text() and "−" not in figure.axes[0].texts[0].get_text()


def test_a_network_with_other_layers_has_its_own_names(assert_readable):
    rdms = grid_rdms(["rdl", "teacher"], layers={"teacher": ("stage1", "stage2")})
    figure = rdm_grid.plot(rdms)
    assert titles(figure) == ["pixels", *LAYERS, "stage1", "stage2", "labels"]
    assert_readable(figure)


def test_a_layer_that_a_network_lacks_leaves_its_place_empty():
    figure = rdm_grid.plot(grid_rdms(["rdl", "teacher"], layers={"teacher": ("fc",)}))
    (teacher,) = [ax for ax in figure.axes if ax.images and ax.get_subplotspec().rowspan.start == 1]
    assert teacher.get_subplotspec().colspan.start == 1 + LAYERS.index("fc")
    assert titles(figure) == ["pixels", *LAYERS, "labels"]
    assert row_names(figure) == ["rdl", "teacher"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", ["percentile", "raw"])
@pytest.mark.parametrize("shared", [False, True])
def test_missing_pairs_are_hatched_where_they_are_and_flat_rdms_can_be_drawn(scale, shared):
    rdms = grid_rdms(["rdl"])
    rdms.dissimilarities[2, 5] = np.nan
    rdms.dissimilarities[3] = 0
    figure = rdm_grid.plot(rdms, scale=scale, shared=shared)
    figure.draw_without_rendering()
    shown = drawn(figure)
    assert np.isnan(shown[1]).sum() == 2
    assert (shown[2][~np.eye(12, dtype=bool)] == shown[2][0, 1]).all()
    assert [len(hatched(ax)) for ax in figure.axes if ax.images] == [0, 1, 0, 0, 0, 0]
    assert bar_of(figure).get_legend()


@pytest.mark.parametrize(
    ("width", "networks", "n_classes", "name", "scale"),
    [
        ("double", ("deep_supervision", "baseline_deformed"), 10, "automobile {}", "percentile"),
        ("single", ("deep_supervision", "baseline_deformed"), 10, "{}", "raw"),
        ("double", ("rdl",), 60, "a class with a long name, number {}", "percentile"),
        ("single", ("rdl",), 60, "a class with a long name, number {}", "raw"),
        ("single", ("distillation", "rdl"), 6, "natural {}", "raw"),
    ],
)
def test_the_grid_is_readable(width, networks, n_classes, name, scale, assert_readable):
    rdms = grid_rdms(networks, n_classes, [name.format(k) for k in range(n_classes)])
    rdms.dissimilarities[3, 3] = np.nan
    figure = rdm_grid.plot(rdms, scale=scale, width=width)
    assert_readable(figure)
    assert figure.get_figwidth() <= WIDTHS[width] + 1e-9


def test_rdms_are_as_large_as_was_planned():
    figure = rdm_grid.plot(grid_rdms(METHODS[:5]))
    figure.draw_without_rendering()
    sides = [ax.get_window_extent().width / figure.dpi for ax in figure.axes if ax.images]
    assert np.ptp(sides) < 0.02
    # With their gaps they take up the width of a page.
    assert 6 * min(sides) / figure.get_figwidth() > 0.85


def test_the_grid_works_without_references_and_without_labels(assert_readable):
    rdms = grid_rdms(["baseline", "rdl"], references=False)
    assert_readable(rdm_grid.plot(rdms))
    plain = RDMs(rdms.dissimilarities, rdm_descriptors=rdms.rdm_descriptors)
    np.testing.assert_allclose(drawn(rdm_grid.plot(plain, scale="raw"))[0], rdms.get_matrices()[0])


def test_the_networks_output_has_a_name():
    assert titles(
        rdm_grid.plot(grid_rdms(["a", "b"], layers={"a": ("fc", ""), "b": ("fc", "")}, references=False))
    ) == [
        "fc",
        "output",
    ]


# any RDMs


def subjects(n_subjects=3, rois=("EVC", "IT"), **more):
    owners = [(f"sub-{k}", roi) for roi in rois for k in range(n_subjects)]
    return made(len(owners), subject=[s for s, _ in owners], roi=[r for _, r in owners], **more)


def places(figure):
    spec = [ax.get_subplotspec() for ax in figure.axes if ax.images]
    return [(s.rowspan.start, s.colspan.start) for s in spec]


def test_two_descriptors_make_rows_and_columns():
    rdms = subjects()
    figure = rdm_grid.plot(rdms, rows="roi", columns="subject", scale="raw", shared=True, sort_by=None)
    assert places(figure) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert (titles(figure), row_names(figure)) == (["sub-0", "sub-1", "sub-2"], ["EVC", "IT"])
    np.testing.assert_array_equal(drawn(figure), rdms.get_matrices())


def test_a_column_is_named_where_it_first_stands():
    rdms = made(3, subject=["a", "a", "b"], roi=["V1", "V4", "IT"])
    figure = rdm_grid.plot(rdms, rows="subject", columns="roi")
    assert places(figure) == [(0, 0), (0, 1), (1, 2)]
    assert titles(figure) == ["V1", "V4", "IT"]
    assert row_names(figure) == ["a", "b"]


def test_one_descriptor_makes_a_row_or_a_column():
    rdms = made(3, roi=["V1", "V4", "IT"])
    assert places(rdm_grid.plot(rdms, columns="roi")) == [(0, 0), (0, 1), (0, 2)]
    column = rdm_grid.plot(rdms, rows="roi")
    assert places(column) == [(0, 0), (1, 0), (2, 0)]
    assert (titles(column), row_names(column)) == ([], ["V1", "V4", "IT"])


def test_rdms_of_others_stand_side_by_side_under_what_tells_them_apart():
    figure = rdm_grid.plot(made(2, dataset=["MNIST", "CIFAR-10"], model=["net", "net"]))
    assert places(figure) == [(0, 0), (0, 1)]
    assert titles(figure) == ["MNIST", "CIFAR-10"]
    assert titles(rdm_grid.plot(subjects(2)))[0] == "sub-0, EVC"
    assert titles(rdm_grid.plot(made(2))) == ["RDM 0", "RDM 1"]
    assert titles(rdm_grid.plot(made(1))) == []


def test_many_rdms_of_others_fill_a_page(assert_readable):
    figure = rdm_grid.plot(subjects(6, n_stimuli=30, categories=["face", "house"]))
    n_rows, n_columns = np.max(places(figure), axis=0) + 1
    assert (n_rows, n_columns) == (3, 4)
    assert figure.get_figheight() <= PAGE + 1e-9
    assert_readable(figure)


def test_categories_whose_names_do_not_fit_have_a_key(assert_readable):
    names = ["human bodypart", "human face", "nonhuman bodypart", "nonhuman face", "natural", "artificial"]
    figure = rdm_grid.plot(subjects(14, ("IT",), n_stimuli=30, categories=names), rows="roi", columns="subject")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    colours = [handle.get_facecolor() for handle in figure.legends[0].legend_handles]
    strip = next(c for c in figure.axes[0].collections if isinstance(c, PolyCollection))
    np.testing.assert_array_equal(colours, strip.get_facecolors())
    assert_readable(figure)
    assert not rdm_grid.plot(subjects(2, n_stimuli=30, categories=names)).legends


@pytest.mark.parametrize(("width", "n_subjects"), [("single", 6), ("double", 14)])
def test_strips_are_not_cut_off_where_no_names_stand_beside_them(width, n_subjects):
    names = [f"a long category {k}" for k in range(7)]
    figure = rdm_grid.plot(
        subjects(n_subjects, ("IT",), n_stimuli=30, categories=names), columns="subject", width=width
    )
    assert figure.legends  # so that no names make room for them
    figure.draw_without_rendering()
    strips = [strip for ax in figure.axes for strip in ax.collections if isinstance(strip, PolyCollection)]
    corners = np.concatenate(
        [strip.get_transform().transform(p.vertices) for strip in strips for p in strip.get_paths()]
    )
    assert (corners >= 0).all()
    assert (corners <= figure.bbox.size).all()


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize(
    ("n_rows", "n_columns", "scale"),
    [(1, 1, "raw"), (8, 1, "percentile"), (1, 8, "raw"), (8, 4, "raw"), (12, 5, "percentile")],
)
def test_grids_of_any_shape_are_readable_and_as_wide_as_a_column(n_rows, n_columns, scale, width, assert_readable):
    networks = [f"method {k} with a $long$ name" if k % 3 == 0 else f"m{k}" for k in range(n_rows)]
    layers = {name: [f"features.{k}.conv_{k}" for k in range(n_columns)] for name in networks}
    figure = rdm_grid.plot(grid_rdms(networks, 6, layers=layers, references=False), scale=scale, width=width)
    assert_readable(figure)
    # One column of print, two, or clearly less than two.
    inches = figure.get_figwidth()
    assert inches == pytest.approx(WIDTHS["single"]) or width == "double"
    assert inches == pytest.approx(WIDTH) or WIDTHS["single"] - 1e-9 <= inches <= 0.75 * WIDTH
    assert figure.get_figheight() <= PAGE + 1e-9


def test_in_one_column_of_print_names_leave_the_rdms_most_of_the_width():
    figure = rdm_grid.plot(grid_rdms(METHODS), width="single")
    figure.draw_without_rendering()
    sides = [ax.get_window_extent().width / figure.dpi for ax in figure.axes if ax.images]
    assert 6 * min(sides) / figure.get_figwidth() > 0.6
    assert "baseline\ndeformed" in row_names(figure)


def test_more_rdms_than_fit_on_a_page_are_refused():
    layers = {"net": [f"layer{k}" for k in range(20)]}
    many = grid_rdms(["net"], layers=layers, references=False)
    assert rdm_grid.plot(many).get_figwidth() == WIDTH
    with pytest.raises(ValueError, match=r"1 rows and 20 columns of RDMs do not fit on a page, 85 by 230 mm: .* 4 mm"):
        rdm_grid.plot(many, width="single")


def test_pictures_stand_at_the_outer_sides_of_a_grid(assert_readable):
    rdms = subjects(2)
    figure = rdm_grid.plot(rdms, rows="roi", columns="subject", thumbnails=pictures(rdms), scale="raw")
    assert [len(ax.child_axes) for ax in figure.axes if ax.images] == [1, 0, 2, 1]
    assert_readable(figure)
    figure.draw_without_rendering()
    renderer = matplotlib.backends.backend_agg.RendererAgg(700, 700, figure.dpi)
    for ax in (figure.axes[0], figure.axes[2]):
        name = ax.yaxis.label.get_window_extent(renderer)
        beside = ax.child_axes[0].get_window_extent()
        assert name.x1 < beside.x0


def test_the_grid_refuses_what_it_cannot_draw():
    rdms = grid_rdms(["rdl"])
    with pytest.raises(ValueError, match="unknown scale 'log' of RDMs; expected one of percentile, raw"):
        rdm_grid.plot(rdms, scale="log")
    with pytest.raises(ValueError, match="at least one network besides pixels and labels"):
        rdm_grid.plot(grid_rdms([]))
    with pytest.raises(ValueError, match="the RDMs have no descriptor 'area'; they have: subject, roi"):
        rdm_grid.plot(subjects(), rows="area")
    rdms = subjects()
    rdms.dissimilarities[4] = np.nan
    with pytest.raises(ValueError, match=r"RDM 4 \(sub-1, IT\) cannot be drawn: it is NaN \(not measured\) throughout"):
        rdm_grid.plot(rdms)
    crowded = made(8, n_stimuli=60, name=list("abcdefgh"))
    with pytest.raises(ValueError, match=r"60 pictures of stimuli do not fit along an RDM of .* fewer stimuli"):
        rdm_grid.plot(crowded, thumbnails=pictures(crowded), width="single")


def test_rdms_for_one_place_are_refused_with_what_tells_them_apart():
    twice = grid_rdms(["rdl", "rdl"], references=False)
    with pytest.raises(
        ValueError, match="RDMs 0 and 4 have the same place, network 'rdl' and layer 'pool1': leave one"
    ):
        rdm_grid.plot(twice)
    twice.rdm_descriptors["epoch"] = [0] * 4 + [9] * 4
    with pytest.raises(ValueError, match=r"they differ in epoch; choose one, .*select_rdms\(rdms, epoch='9'\)"):
        rdm_grid.plot(twice)
    with pytest.raises(ValueError, match="RDMs 0 and 1 have the same place, roi 'EVC': they differ in subject"):
        rdm_grid.plot(subjects(), rows="roi")


def test_the_grid_fills_two_columns_of_a_page():
    assert rdm_grid.plot(subjects(4, categories=["a", "b"]), rows="roi", columns="subject").get_figwidth() == WIDTH
