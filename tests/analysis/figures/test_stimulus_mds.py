"""Stimuli in a plane: where they stand, what is said of it, pictures that fit."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from rsatoolbox.rdm import RDMs
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist

from brainrdl.analysis.figures.stimulus_mds import plot
from brainrdl.analysis.figures.style import WIDTHS, looks, save_figure


def in_a_plane(n_stimuli=12, n_categories=0, flat=1.0):
    """Stimuli drawn in a plane, and the RDM of their distances."""
    points = np.random.default_rng(0).normal(size=(n_stimuli, 2)) * [1, flat]
    patterns = {"stimulus": [f"object {k}" for k in range(n_stimuli)]}
    if n_categories:
        patterns["category"] = [f"category {k % n_categories}" for k in range(n_stimuli)]
    return points, RDMs(pdist(points)[None], dissimilarity_measure="euclidean", pattern_descriptors=patterns)


def pictures(rdms, shape=(64, 64)):
    """Each of another grey."""
    return {
        name: np.full((*shape, 3), 2 * k % 256, np.uint8) for k, name in enumerate(rdms.pattern_descriptors["stimulus"])
    }


def boxes(ax):
    return [artist for artist in ax.artists if isinstance(artist, AnnotationBbox)]


def drawn_points(ax):
    return np.concatenate([np.stack(line.get_data(), axis=1) for line in ax.lines])


@pytest.mark.parametrize("metric", [True, False])
def test_points_in_a_plane_are_found_again(metric):
    points, rdms = in_a_plane(30)
    ax = plot(rdms, metric=metric)
    assert procrustes(points, drawn_points(ax))[2] < (1e-6 if metric else 1e-2)
    assert ax.get_aspect() == 1


def test_the_title_says_what_is_drawn_and_how_well():
    _, rdms = in_a_plane()
    assert plot(rdms).get_title(loc="left") == "MDS of 12 stimuli by dissimilarity (euclidean), stress 0.00"
    rdms.dissimilarities[:] = 1  # the corners of a simplex
    title = plot(rdms, metric=False).get_title(loc="left")
    assert title.startswith("Non-metric MDS of 12 stimuli")
    assert float(re.search(r"stress ([\d.]+)", plot(rdms).get_title(loc="left"))[1]) > 0.2


def test_colour_and_shape_are_the_category():
    points, rdms = in_a_plane(40, n_categories=10)
    ax = plot(rdms)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [f"category {k}" for k in range(10)]
    colours = [look.colour for look in looks(texts).values()]
    assert [line.get_color() for line in ax.lines] == colours
    assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == 10
    # Stimulus k is of category k % 10.
    expected = np.concatenate([points[k::10] for k in range(10)])
    assert procrustes(expected, drawn_points(ax))[2] < 1e-6
    assert not plot(rdms, colour_by=None).get_legend()


def test_too_many_categories_for_colours_are_said():
    _, rdms = in_a_plane(60, n_categories=30)
    ax = plot(rdms)
    assert "30 categories, too many for colours" in ax.get_title(loc="left")
    assert len(ax.lines) == 1 and not ax.get_legend()
    # Frames have no shapes.
    _, rdms = in_a_plane(24, n_categories=8)
    assert "8 categories, too many" in plot(rdms, pictures(rdms)).get_title(loc="left")
    assert "too many" not in plot(rdms).get_title(loc="left")


def test_a_few_points_are_named_and_many_are_not():
    _, rdms = in_a_plane(12)
    ax = plot(rdms)
    assert sorted(text.get_text() for text in ax.texts) == sorted(rdms.pattern_descriptors["stimulus"])
    named = {text.get_text(): text.xy for text in ax.texts}
    np.testing.assert_allclose([named[f"object {k}"] for k in range(12)], drawn_points(ax))
    assert not plot(in_a_plane(21)[1]).texts


def test_pictures_stand_at_their_stimuli_framed_in_the_categories_colours():
    points, rdms = in_a_plane(20, n_categories=3)
    ax = plot(rdms, pictures(rdms))
    assert procrustes(points, np.array([box.xy for box in boxes(ax)]))[2] < 1e-6
    colours = [look.colour for look in looks("abc").values()]
    for k, box in enumerate(boxes(ax)):
        pixels = np.asarray(box.offsetbox.get_data())[..., :3] / 255
        np.testing.assert_allclose(pixels[0, 0], to_rgb(colours[k % 3]), atol=0.01)
        np.testing.assert_allclose(pixels[len(pixels) // 2, len(pixels) // 2], 2 * k / 255, atol=0.01)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [f"category {k}" for k in range(3)]


@pytest.mark.parametrize(("n_stimuli", "shape"), [(12, (64, 32)), (92, (64, 64))])
def test_pictures_lie_inside_and_are_legible(n_stimuli, shape, assert_readable):
    _, rdms = in_a_plane(n_stimuli, n_categories=4)
    ax = plot(rdms, pictures(rdms, shape))
    assert_readable(ax.figure)
    ax.figure.draw_without_rendering()
    for box in boxes(ax):
        extent = box.get_window_extent()
        assert extent.x0 >= ax.bbox.x0 - 1 and extent.x1 <= ax.bbox.x1 + 1
        assert extent.y0 >= ax.bbox.y0 - 1 and extent.y1 <= ax.bbox.y1 + 1
        assert 25.4 * max(extent.width, extent.height) / ax.figure.dpi > 2.1


def test_pictures_that_do_not_fit_are_refused_and_as_many_as_are_said_to_fit_do():
    _, rdms = in_a_plane(500)
    with pytest.raises(ValueError, match=r"500 pictures .* in a plane 82 mm wide: \d+ do, .*points") as error:
        plot(rdms, pictures(rdms))
    plot(rdms, pictures(rdms), width="double")
    fitting = int(re.search(r": (\d+) do", str(error.value))[1])
    assert 200 < fitting < 500
    some = rdms.subset_pattern("index", np.arange(fitting - 10))
    plot(some, pictures(some))
    with pytest.raises(ValueError, match="2 of 12 stimuli have no picture, the first is 'object 0'"):
        plot(in_a_plane()[1], {f"object {k}": np.zeros((4, 4, 3), np.uint8) for k in range(1, 11)})


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize(
    ("n_stimuli", "n_categories", "flat"), [(12, 0, 1.0), (20, 6, 0.1), (92, 28, 1.0), (60, 40, 1.0), (12, 2, 0.0)]
)
def test_points_are_readable(n_stimuli, n_categories, flat, width, assert_readable):
    figure = plot(in_a_plane(n_stimuli, n_categories, flat)[1], width=width).figure
    assert figure.get_figwidth() == WIDTHS[width]
    assert_readable(figure)


def test_stimuli_that_do_not_differ_are_drawn_on_one_another():
    _, rdms = in_a_plane(4)
    rdms.dissimilarities[:] = 0
    assert (drawn_points(plot(rdms)) == 0).all()
    plot(rdms, pictures(rdms))


def test_negative_dissimilarities_have_an_order_and_no_distance():
    points, rdms = in_a_plane(30)
    rdms.dissimilarities -= 1
    lowest = rdms.dissimilarities.min()
    with pytest.raises(ValueError, match=f"of 435 dissimilarities are negative, down to {lowest:.3g}, .*metric=False"):
        plot(rdms)
    assert procrustes(points, drawn_points(plot(rdms, metric=False)))[2] < 1e-2
    rounding = in_a_plane()[1]
    rounding.dissimilarities[0, 0] = -1e-12
    plot(rounding)


def test_what_cannot_be_drawn_is_refused():
    _, rdms = in_a_plane()
    rdms.dissimilarities[0, :7] = np.nan
    with pytest.raises(ValueError, match=r"scaling needs all pairs of stimuli, but 7 of 66 are NaN .*subset_stimuli"):
        plot(rdms)
    with pytest.raises(ValueError, match="expected one RDM, got 2"):
        plot(RDMs(np.ones((2, 6))))
    with pytest.raises(ValueError, match="cannot be sorted by 'animacy': the RDMs' pattern_descriptors are: stimulus"):
        plot(in_a_plane()[1], colour_by="animacy")


def test_it_draws_into_given_axes():
    one, other = Figure().subplots(1, 2)
    assert plot(in_a_plane()[1], ax=one) is one
    assert one.lines and not other.lines


def test_the_same_figure_is_the_same_file_with_text_as_text(tmp_path):
    _, rdms = in_a_plane(12, n_categories=2)
    for name in ("one", "other"):
        save_figure(plot(rdms, pictures(rdms)).figure, tmp_path / name, ["png", "svg"])
    for suffix in ("png", "svg"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"other.{suffix}").read_bytes()
    assert ">category 0</text>" in (tmp_path / "one.svg").read_text()
