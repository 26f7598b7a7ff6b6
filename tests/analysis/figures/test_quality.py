"""The page on measured RDMs: what it shows, that it can be read."""

import numpy as np
import pandas as pd
import pytest
from rsatoolbox.rdm import RDMs

from brainrdl.analysis.figures.quality import n_shown, plot
from brainrdl.analysis.figures.style import PAGE


def made(rois=("V1", "IT"), n_subjects=3, n_stimuli=8, categories=None, measure="crossnobis", **columns):
    """RDMs and the table that belongs to them."""
    generator = np.random.default_rng(0)
    owners = [(f"sub-{k}", roi) for roi in rois for k in range(n_subjects)]
    patterns = {"stimulus": [f"object {k}" for k in range(n_stimuli)]}
    if categories:
        patterns["category"] = [categories[k % len(categories)] for k in range(n_stimuli)]
    rdms = RDMs(
        generator.random((len(owners), n_stimuli * (n_stimuli - 1) // 2)) + 0.1,
        dissimilarity_measure=measure,
        rdm_descriptors={"subject": [s for s, _ in owners], "roi": [r for _, r in owners]},
        pattern_descriptors=patterns,
    )
    table = pd.DataFrame(owners, columns=["subject", "roi"]).assign(
        ceiling_low=np.nan, ceiling_high=np.nan, n_stimuli=n_stimuli
    )
    return rdms, table.assign(**columns)


FULL = {
    "rdm_reliability": 0.5,
    "pattern_reliability": 0.3,
    "ceiling_within": 0.7,
    "ceiling_low": 0.4,
    "ceiling_high": 0.6,
    "n_voxels": 312,
}


@pytest.mark.parametrize(
    "given",
    [
        FULL,
        {**FULL, "rois": ("slice",), "n_subjects": 1},
        {**FULL, "rois": ("V1", "V2", "V3", "hV4", "ventral stream", "lateral stream", "FFA-1"), "n_stimuli": 30},
        {
            "n_stimuli": 92,
            "categories": ["human bodypart", "human face", "natural inanimate"],
            "measure": "correlation",
        },
        {"rois": ("IT",), "rdm_reliability": -0.2},
    ],
)
def test_every_page_can_be_read(given, assert_readable):
    assert_readable(plot(*made(**given), title="Some data set"))


def test_regions_show_the_mean_rdm_sorted_by_category():
    rdms, table = made(categories=["b", "a"], n_stimuli=6)
    figure = plot(rdms, table)
    shown = {ax.get_title(): ax for ax in figure.findobj(lambda a: hasattr(a, "images") and getattr(a, "images", []))}
    ax = shown["IT\n3 subjects"]
    order = [0, 2, 4, 1, 3, 5]
    expected = rdms.get_matrices()[3:].mean(0)[np.ix_(order, order)]
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "a"]


def test_colours_begin_at_zero_where_zero_counts():
    for measure, lowest in (("crossnobis", 0), ("correlation", None)):
        rdms, table = made(rois=("IT",), measure=measure)
        image = next(ax.images[0] for ax in plot(rdms, table).axes if ax.images)
        mean = rdms.dissimilarities.mean(0)
        assert image.get_clim() == pytest.approx((mean.min() if lowest is None else lowest, mean.max()))


def test_a_pair_nobody_measured_is_grey_and_one_measured_by_some_is_their_mean():
    rdms, table = made(rois=("IT",), n_subjects=2)
    rdms.dissimilarities[:, 0] = np.nan
    rdms.dissimilarities[0, 1] = np.nan
    image = next(ax.images[0] for ax in plot(rdms, table).axes if ax.images).get_array()
    values = np.ma.filled(image.astype(float), np.nan)
    assert np.isnan(values[0, 1]) and values[0, 2] == pytest.approx(rdms.dissimilarities[1, 1])
    assert np.isnan(values).sum() == 2


def test_what_is_not_known_is_said():
    texts = [text.get_text() for ax in plot(*made()).axes for text in ax.texts]
    assert any("no ceiling: one subject" in text for text in texts)
    assert any("no repeated" in text for text in texts)
    assert not [text for ax in plot(*made(**FULL)).axes for text in ax.texts]


def test_rows_and_rdms_must_match():
    rdms, table = made()
    with pytest.raises(ValueError, match="a row an RDM, got 5 rows for 6 RDMs"):
        plot(rdms, table[:5])


def test_of_more_regions_than_a_page_holds_the_first_are_shown_and_the_title_says_so(assert_readable):
    rois = tuple(f"region {k}" for k in range(n_shown(500) + 1))
    figure = plot(*made(rois=rois, n_stimuli=5, **FULL), title="Atlas")
    assert_readable(figure)
    assert figure.get_figheight() <= PAGE
    titles = [ax.get_title().partition("\n")[0] for ax in figure.axes]
    assert [name for name in titles if name.startswith("region")] == list(rois[:-1])
    assert figure.subfigs[0]._suptitle.get_text() == f"Atlas: the first {len(rois) - 1} of {len(rois)} regions"
    assert n_shown(len(rois) - 1) == len(rois) - 1 and n_shown(3) == 3
