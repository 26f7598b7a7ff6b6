"""Layers against regions: what is drawn is what the tables say, and it can be read at either width."""

import numpy as np
import pytest
from rsatoolbox.rdm import RDMs

from brainrdl.analysis.figures import layer_agreement as figures
from brainrdl.analysis.figures.agreement import CEILING_COLOUR
from brainrdl.analysis.figures.style import PAGE, WIDTHS, looks, save_figure
from brainrdl.analysis.fixed_networks import layer_agreement


def agreement(networks, rois=("V1", "V2", "V4", "IT"), n_subjects=8, **options):
    """networks: name -> layers. Layers along depth are like regions along the stream."""
    generator = np.random.default_rng(0)
    ids = [f"s{k}" for k in range(16)]
    truth = generator.random((len(rois), 120))
    brain = RDMs(
        np.concatenate([row + 0.8 * generator.random((n_subjects, 120)) for row in truth]),
        rdm_descriptors={
            "roi": [roi for roi in rois for _ in range(n_subjects)],
            "subject": [f"sub-{k}" for _ in rois for k in range(n_subjects)],
        },
        pattern_descriptors={"stimulus": ids},
    )
    rows = [
        (network, layer, k / max(len(layers) - 1, 1))
        for network, layers in networks.items()
        for k, layer in enumerate(layers)
    ]
    weights = [np.exp(-8 * (np.linspace(0, 1, len(rois)) - depth) ** 2) for _, _, depth in rows]
    models = RDMs(
        np.stack([w @ truth for w in weights]) + 0.5 * generator.random((len(rows), 120)),
        rdm_descriptors={"network": [row[0] for row in rows], "layer": [row[1] for row in rows]},
        pattern_descriptors={"stimulus": ids},
    )
    return layer_agreement(models, brain, "corr", **options)


CASES = {
    "12 layers x 4 regions": ({"net": [f"layer{k}.conv" for k in range(12)]}, {}),
    "3 layers": ({"net": ["conv1", "conv2", "fc"]}, {}),
    "two subjects": ({"net": [f"blocks.{k}" for k in range(7)]}, {"n_subjects": 2, "rois": ["EVC", "IT"]}),
    "one subject": ({"net": [f"blocks.{k}" for k in range(7)]}, {"n_subjects": 1, "rois": ["EVC", "IT"]}),
    "same layers": ({name: ["conv1", "conv2", "fc"] for name in ("EfficientNet-Lite0", "untrained", "rdl")}, {}),
    "other layers": ({"a": ["a1", "a2", "a3"], "b": ["b1", "b2"], "c": ["c1"]}, {"rois": ["EVC", "IT"]}),
    "a layer each": ({"baseline": ["fc"], "hints": ["fc"], "rdl": ["readout"]}, {"rois": ["IT"]}),
    "many regions": ({"net": [f"layer{k}" for k in range(12)]}, {"rois": [f"ROI_{k}" for k in range(6)]}),
    "long names": ({f"method_{k}_with_a_$long$_name": ["fc"] for k in range(12)}, {"rois": ["EVC", "IT"]}),
    "one subject, 3 regions": ({"net": ["conv1", "fc"]}, {"n_subjects": 1, "rois": ["V1", "V4", "IT"]}),
    "one RDM": ({"net": ["fc"]}, {"rois": ["IT"]}),
}


def case(name):
    networks, options = CASES[name]
    return agreement(networks, **options)


def signs(ax):
    """(x, y) -> marker."""
    return {tuple(np.ravel(line.get_data())): line.get_marker() for line in ax.lines}


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize("name", CASES)
def test_the_figure_is_readable(name, width, assert_readable):
    figure = figures.plot(case(name), width=width)
    assert_readable(figure)
    assert figure.get_figwidth() == WIDTHS[width]
    assert figure.get_figheight() <= PAGE + 0.01


def test_a_panel_shows_subjects_means_intervals_and_the_ceiling():
    data = case("3 layers")
    figure = figures.plot(data)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [f"{roi}\nn = 8" for roi in ("V1", "V2", "V4", "IT")]
    means = data.means[data.means["roi"] == "V4"]
    ax = figure.axes[2]
    (band,) = [patch for patch in ax.patches if patch.get_facecolor()[0] == float(CEILING_COLOUR)]
    ceiling = means.iloc[0]
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx(
        (ceiling["ceiling_low"], ceiling["ceiling_high"])
    )
    (line,) = [line for line in ax.lines if len(line.get_xdata()) == 3 and line.get_linestyle() == "-"]
    np.testing.assert_array_equal(line.get_ydata(), means["score"])
    intervals = [tuple(line.get_ydata()) for line in ax.lines if line.get_linewidth() == 1.3]
    assert intervals == list(zip(means["low"], means["high"], strict=True))
    subjects = np.concatenate([line.get_ydata() for line in ax.lines if line.get_markersize() == 1.8])
    np.testing.assert_array_equal(subjects, data.scores.loc[data.scores["roi"] == "V4", "score"])
    assert figure.axes[0].get_ylabel() == "Pearson's r"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["conv1", "conv2", "fc"]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1


def test_means_are_open_where_not_above_0_and_diamonds_where_not_below_the_ceiling():
    data = case("3 layers")
    means = data.means.assign(q_zero=0.01, q_ceiling=0.01)
    means.loc[0, "q_zero"], means.loc[1, "q_ceiling"] = 0.2, 0.2
    means.loc[2, "score"] = means.loc[2, "ceiling_low"] + 0.1  # differs from the ceiling, but is above it
    figure = figures.plot(data.__class__(**{**data.__dict__, "means": means}))
    points = [line for line in figure.axes[0].lines if line.get_markersize() == 4.2]
    assert [point.get_marker() for point in points] == ["o", "D", "D"]
    assert [point.get_color() == "white" for point in points] == [True, False, False]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"not shown above 0", "not shown below ceiling"} <= set(texts)


def test_few_rdms_have_brackets_where_two_differ():
    data = case("3 layers")
    figure = figures.plot(data)
    for ax, roi in zip(figure.axes, ("V1", "V2", "V4", "IT"), strict=True):
        tests = data.pairwise[(data.pairwise["roi"] == roi) & (data.pairwise["q"] < 0.05)]
        expected = ["***" if q < 0.001 else "**" if q < 0.01 else "*" for q in tests["q"]]
        assert sorted(text.get_text() for text in ax.texts) == sorted(expected)
    assert any(ax.texts for ax in figure.axes)


def test_more_rdms_have_a_triangle_of_signs():
    data = case("12 layers x 4 regions")
    axes = figures.plot(data).axes
    assert len(axes) == 8
    drawn = signs(axes[5])  # the second region's
    tests = data.pairwise[data.pairwise["roi"] == "V2"]
    assert len(drawn) == len(tests) == 66
    for row in tests.to_dict("records"):
        x, y = (int(row[name].removeprefix("layer").removesuffix(".conv")) for name in ("layer_a", "layer_b"))
        # The row's layer is the later one, b; a - b < 0 means that it agrees better.
        expected = "o" if row["q"] >= 0.05 else "^" if row["difference"] < 0 else "v"
        assert drawn[x, y - 1] == expected
    assert len(set(drawn.values())) == 3
    assert [label.get_text() for label in axes[4].get_yticklabels()] == [f"layer{k}.conv" for k in range(1, 12)]


def test_networks_of_the_same_layers_are_compared_layer_by_layer():
    data = case("same layers")
    figure = figures.plot(data)
    tests = data.pairwise[(data.pairwise["roi"] == "V1") & (data.pairwise["layer_a"] == data.pairwise["layer_b"])]
    drawn = signs(figure.axes[4])
    assert len(drawn) == len(tests) == 9
    assert "tests between layers: see the table" in figure.legends[0].get_title().get_text().replace("\n", " ")
    names = [label.get_text().replace("\n", " ") for label in figure.axes[4].get_yticklabels()]
    for row in tests.to_dict("records"):
        y = names.index(f"{row['network_b']} − {row['network_a']}")
        expected = "o" if row["q"] >= 0.05 else "^" if row["difference"] < 0 else "v"
        assert drawn[("conv1", "conv2", "fc").index(row["layer_a"]), y] == expected


def test_what_does_not_fit_on_a_page_is_left_to_the_table():
    figure = figures.plot(case("12 layers x 4 regions"), width="single")
    assert len(figure.axes) == 4
    assert "pairwise tests: see the table" in figure.legends[0].get_title().get_text().replace("\n", " ")


def test_tests_and_their_correction_are_named():
    for options, words in (
        ({}, "intervals and t-tests over subjects, on these stimuli"),
        ({"inference": "bootstrap_pattern", "n_bootstrap": 10}, "by bootstrap over stimuli, in these subjects"),
    ):
        note = figures.plot(agreement(CASES["3 layers"][0], ["IT"], **options)).legends[0].get_title().get_text()
        assert note.startswith("16 stimuli; ")
        assert words in note.replace("\n", " ")
        assert "p adjusted for the false discovery rate" in note.replace("\n", " ")


def test_one_subject_has_no_ceiling_and_the_figure_says_so():
    figure = figures.plot(case("one subject"))
    assert [ax.get_title() for ax in figure.axes] == [f"{roi}\none subject: no ceiling" for roi in ("EVC", "IT")]
    assert not any(ax.patches for ax in figure.axes)
    assert "one subject: no interval, no tests" in figure.legends[0].get_title().get_text()


def test_pairs_that_took_no_part_are_counted():
    data = case("one RDM")
    figure = figures.plot(data.__class__(**{**data.__dict__, "means": data.means.assign(n_pairs=100)}))
    assert figure.axes[0].get_title() == "IT\nn = 8, 100 of 120 pairs"


def test_a_network_has_its_colour_whichever_others_are_there():
    figure = figures.plot(case("a layer each"), networks=["teacher", "baseline", "hints", "rdl"])
    expected = looks(["teacher", "baseline", "hints", "rdl"])
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["baseline", "hints", "rdl"]
    assert [label.get_color() for label in labels] == [expected[label.get_text()].colour for label in labels]


def test_the_same_figure_twice_is_the_same_file(tmp_path):
    (one,), (other,) = (save_figure(figures.plot(case("3 layers")), tmp_path / name, ["pdf"]) for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()


def test_another_width_is_refused():
    with pytest.raises(ValueError, match="unknown figure width 'wide'; expected single"):
        figures.plot(case("one RDM"), width="wide")


def test_more_regions_than_fit_on_a_page_are_refused():
    many = agreement({"net": [f"layer{k}" for k in range(16)]}, [f"ROI_{k}" for k in range(9)], n_subjects=2)
    with pytest.raises(ValueError, match=r"9 regions, 1 side by side, do not fit on a page 230 mm high; choose"):
        figures.plot(many, width="single")
