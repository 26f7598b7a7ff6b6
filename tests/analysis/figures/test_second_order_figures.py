from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from rsatoolbox.rdm import RDMs, compare

from brainrdl.analysis.figures import second_order, training
from brainrdl.analysis.figures.style import PAGE, WIDTHS, looks, save_figure
from brainrdl.analysis.second_order import SecondOrder, second_order_mds

METHODS = ("baseline", "finetuning", "deep_supervision", "hints", "distillation", "rdl", "baseline_deformed")
LAYERS = ("pool1", "pool2", "fc", "softmax")
BLACK = "#000000"


# second_order


def scaled(rows, columns, comparison="correlation", n_samples=20, metric=True, points=None):
    """RDMs at random places, each with samples about them."""
    random = np.random.default_rng(0)
    points = random.normal(size=(len(rows), 2)) if points is None else points
    samples = points + 0.1 * random.normal(size=(n_samples, len(rows), 2))
    frame = pd.DataFrame(rows, columns=columns)
    return SecondOrder(
        points, np.zeros((len(rows), len(rows))), 0.123, frame, comparison, samples, n_stimuli=92, metric=metric
    )


def scaled_points(networks=METHODS, teacher=True, layers=LAYERS, **settings):
    rows = [("pixels", "pixels"), ("labels", "labels")]
    rows += [(network, layer) for network in (*networks, *["teacher"] * teacher) for layer in layers]
    return scaled(rows, ["network", "layer"], **settings)


def title(ax):
    """Its words, whatever the lines."""
    return " ".join(ax.get_title(loc="left").split())


def named(ax):
    return [text.get_text() for text in ax.get_legend().get_texts() if text.get_text()]


def single_points(ax):
    return [line for line in ax.lines if len(line.get_xdata()) == 1]


def test_every_rdm_is_a_point_and_a_networks_layers_are_joined_in_order():
    data = scaled_points(["rdl"])
    ax = second_order.plot(data)
    joined = [line for line in ax.lines if len(line.get_xdata()) == len(LAYERS)]
    np.testing.assert_array_equal(np.stack(joined[0].get_data(), axis=1), data.coordinates[2:6])
    points = {tuple(np.ravel(line.get_data())) for line in single_points(ax)}
    assert points == {tuple(point) for point in data.coordinates}
    assert ax.get_aspect() == 1


def test_networks_of_several_seeds_are_joined_each_by_itself():
    rows = [("rdl", layer, seed) for seed in (0, 1) for layer in LAYERS]
    data = scaled(rows, ["network", "layer", "seed"])
    joined = [line for line in second_order.plot(data).lines if len(line.get_xdata()) > 1]
    found = [np.stack(line.get_data(), axis=1) for line in joined]
    np.testing.assert_array_equal(found, [data.coordinates[:4], data.coordinates[4:]])


def test_colour_is_the_network_shape_is_the_layer():
    points = single_points(second_order.plot(scaled_points(["baseline", "rdl"])))[: 3 * len(LAYERS)]
    colours = [point.get_color() for point in points]
    expected = [look.colour for look in looks(["baseline", "rdl"]).values()]
    assert [colours[k] for k in (0, 4, 8)] == [*expected, BLACK]
    assert colours == [colour for colour in colours[::4] for _ in LAYERS]
    markers = [point.get_marker() for point in points]
    assert markers == markers[:4] * 3
    assert len(set(markers)) == 4


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        ("correlation", "1 − Pearson's r of RDMs"),
        ("spearman", "1 − Spearman's ρ of RDMs"),
        ("normalized_euclidean", "Euclidean distance of RDMs of norm 1"),
        ("cosine_cov", "1 − whitened cosine of RDMs"),
    ],
)
def test_stress_comparison_samples_and_legend_are_named(comparison, words):
    ax = second_order.plot(scaled_points(comparison=comparison))
    assert title(ax) == (
        f"Distances between points: {words}, mean of 20 bootstrap samples of 92 stimuli. Stress 0.12. "
        "Ellipses: 1 s.d. over samples."
    )
    assert named(ax) == [*METHODS, "teacher", *LAYERS, "pixels", "labels"]
    assert ax.get_legend().get_title().get_text() == "Colour: network, shape: layer"


def test_non_metric_scaling_and_rdms_without_bootstrap_say_so():
    ax = second_order.plot(scaled_points(metric=False, n_samples=0))
    assert title(ax) == (
        "Order of distances between points (non-metric): 1 − Pearson's r of RDMs, all 92 stimuli. Stress 0.12."
    )


def test_ellipses_are_one_standard_deviation_of_the_samples():
    data = scaled_points(["rdl"])
    ax = second_order.plot(data)
    assert len(ax.patches) == len(data.coordinates)
    for k, patch in enumerate(ax.patches):
        assert isinstance(patch, Ellipse)
        np.testing.assert_allclose(patch.center, data.coordinates[k])
        angle = np.radians(patch.angle)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        halves = np.diag([patch.width / 2, patch.height / 2])
        np.testing.assert_allclose(rotation @ halves**2 @ rotation.T, np.cov(data.samples[:, k].T), atol=1e-12)
    expected = looks(["rdl"])["rdl"].colour
    assert [patch.get_facecolor()[:3] for patch in ax.patches[2:6]] == [to_rgb(expected)] * 4
    plain = second_order.plot(data, spread=False)
    assert not plain.patches and "Ellipses" not in title(plain)
    assert not second_order.plot(scaled_points(n_samples=2)).patches


def test_a_network_keeps_its_colour_when_others_are_missing():
    whole = second_order.plot(scaled_points()).get_legend().get_lines()[METHODS.index("rdl")]
    part = second_order.plot(scaled_points(["rdl"]), methods=METHODS).get_legend().get_lines()[0]
    assert part.get_color() == whole.get_color()


def test_of_networks_with_one_layer_the_shape_tells_them_apart():
    names = [f"method{k}" for k in range(9)]
    rows = [*((name, "fc") for name in names), ("brain", "IT"), ("brain", "EVC")]
    ax = second_order.plot(scaled(rows, ["network", "layer"]), teacher="brain")
    looks_of = {(line.get_color(), line.get_marker()) for line in single_points(ax) if line.get_color() != BLACK}
    assert len(looks_of) == 9
    assert ax.get_legend().get_title().get_text() == "Colour and shape: network"
    assert named(ax) == [*names, "brain", "IT", "EVC"]


def test_targets_are_stars_with_their_names_and_not_joined():
    rows = [("rdl", "fc"), ("rdl", "softmax"), ("brain", "IT"), ("brain", "EVC"), ("model", "V4")]
    data = scaled(rows, ["network", "layer"])
    ax = second_order.plot(data, targets=["brain", "model"])
    stars = [line for line in single_points(ax) if line.get_marker() == "*"]
    np.testing.assert_array_equal([np.ravel(star.get_data()) for star in stars], data.coordinates[2:])
    assert {star.get_color() for star in stars} == {BLACK}
    assert [len(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) > 1] == [2]
    assert {text.get_text(): text.xy for text in ax.texts} == {
        name: tuple(data.coordinates[k]) for k, name in [(2, "IT"), (3, "EVC"), (4, "model")]
    }
    assert named(ax) == ["rdl", "fc", "softmax", "brain (target)", "model (target)"]


def rois_and_subjects():
    return scaled([(roi, f"sub-{k:02d}", "s1") for roi in ("EVC", "IT") for k in range(15)], ["roi", "subject", "site"])


def test_without_network_and_layer_what_differs_tells_rdms_apart():
    ax = second_order.plot(rois_and_subjects())
    assert ax.get_legend().get_title().get_text() == "Colour: roi, shape: subject"
    shapes = {(line.get_color(), line.get_marker(), line.get_markerfacecolor() == "white") for line in ax.lines}
    assert len(ax.lines) == len(shapes) == 30  # nothing is joined
    asked = second_order.plot(rois_and_subjects(), colour_by="roi", shape_by="roi")
    assert asked.get_legend().get_title().get_text() == "Colour and shape: roi"
    assert len({(line.get_color(), line.get_marker()) for line in asked.lines}) == 2
    swapped = second_order.plot(rois_and_subjects(), colour_by="subject")
    assert swapped.get_legend().get_title().get_text() == "Colour: subject, shape: roi"


def test_descriptors_that_are_not_there_are_refused_and_those_there_named():
    with pytest.raises(ValueError, match="the RDMs have no descriptor 'session'; they have: roi, subject, site"):
        second_order.plot(rois_and_subjects(), colour_by="session")
    with pytest.raises(ValueError, match="no descriptor 'layer'; they have: roi, subject, site"):
        second_order.plot(rois_and_subjects(), shape_by="layer")
    with pytest.raises(ValueError, match="no descriptor tells the 2 RDMs apart; they have: roi; give them an rdm_desc"):
        second_order.plot(scaled([("IT",), ("IT",)], ["roi"]))
    with pytest.raises(ValueError, match="no descriptor tells the 2 RDMs apart; they have: none"):
        second_order.plot(scaled([(), ()], []))
    with pytest.raises(ValueError, match="unknown figure width 'wide'"):
        second_order.plot(rois_and_subjects(), width="wide")


def test_more_colours_and_shapes_than_can_be_told_apart_are_refused():
    layers = [f"conv{k}" for k in range(22)]
    points = single_points(second_order.plot(scaled_points(["rdl"], teacher=False, layers=layers)))
    shapes = {(p.get_marker(), p.get_markerfacecolor() == "white") for p in points if p.get_marker() != "*"}
    assert len(shapes) == 22
    with pytest.raises(
        ValueError, match="'layer' has 23 values, and no more than 22 shapes can be told apart; draw few"
    ):
        second_order.plot(scaled_points(["rdl"], teacher=False, layers=[*layers, "fc"]))
    with pytest.raises(ValueError, match="'network' has 29 values, and no more than 28 colours can be told apart"):
        second_order.plot(scaled_points([f"method{k}" for k in range(29)]))
    alone = [(f"method{k}", "fc") for k in range(78)]
    points = single_points(second_order.plot(scaled(alone[:77], ["network", "layer"])))
    assert len({(point.get_color(), point.get_marker()) for point in points}) == 77
    with pytest.raises(ValueError, match="'network' has 78 values, and no more than 77 colours"):
        second_order.plot(scaled(alone, ["network", "layer"]))


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (scaled_points(), {}),
        (scaled_points(comparison="bures_metric", metric=False), {"targets": ["hints", "rdl"]}),
        (rois_and_subjects(), {}),
        (scaled_points([f"method_{k}" for k in range(28)], layers=[f"layer{k}" for k in range(11)]), {}),
        (scaled_points(["rdl"], layers=[f"conv{k}" for k in range(22)]), {}),
        (scaled_points([f"method_{k}_with_a_$long$_name" for k in range(9)], layers=["features.11.conv.weight"]), {}),
        (scaled_points([f"method_{k}_with_a_$long$_name" for k in range(28)]), {}),
    ],
)
def test_the_second_order_figure_is_readable(data, settings, width, assert_readable):
    figure = second_order.plot(data, width=width, **settings).figure
    assert_readable(figure)
    assert figure.get_figwidth() == pytest.approx(WIDTHS[width])


def test_it_draws_into_given_axes():
    ax = Figure().subplots()
    assert second_order.plot(scaled_points(["rdl"], teacher=False), ax) is ax


def test_it_draws_rdms_that_come_from_rsatoolbox_alone():
    random = np.random.default_rng(0)
    rdms = RDMs(random.random((6, 45)), rdm_descriptors={"roi": ["V1", "V4", "IT"] * 2, "session": [1, 1, 1, 2, 2, 2]})
    data = second_order_mds(rdms, n_bootstrap=3)
    ax = second_order.plot(data)
    assert named(ax) == ["1", "2", "V1", "V4", "IT"]
    np.testing.assert_array_equal([np.ravel(line.get_data()) for line in ax.lines], data.coordinates)


# training

EPOCHS = (-1, 0, 1, 3, 7, 59)


def logged_rdms(methods=METHODS, layers=("fc", "softmax"), epochs=EPOCHS, seeds=(0,), of_target=None, target="teacher"):
    """RDMs that start alike and come near the target's, each method at its own pace and seed at its own place."""
    random = np.random.default_rng(0)
    of_target = layers if of_target is None else of_target
    own = {layer: random.random(45) for layer in layers}
    rows = [("pixels", "pixels", -1, -1, random.random(45)), ("labels", "labels", -1, -1, random.random(45))]
    for k, layer in enumerate(of_target):
        rows.append((target, layer, -1, 1000, own.get(layer, own[layers[min(k, len(layers) - 1)]])))
    for seed in seeds:
        for layer in layers:
            start = random.random(45)
            for k, method in enumerate(methods):
                for epoch in epochs:
                    pace = 1 - 1 / (1 + (epoch + 1) * (k + 1) / 20)
                    noise = 0.1 * random.random(45) * (epoch >= 0)
                    rows.append((method, layer, epoch, seed, start + pace * (own[layer] - start) + noise))
    *columns, values = zip(*rows, strict=True)
    names = ("network", "layer", "epoch", "seed")
    return RDMs(
        np.stack(values),
        rdm_descriptors={name: list(column) for name, column in zip(names, columns, strict=True)},
        pattern_descriptors={"stimulus": [f"s{k}" for k in range(10)]},
    )


def curves_of(ax):
    return {line.get_label(): line for line in ax.lines}


def paths_of(ax):
    return [np.stack(line.get_data(), axis=1) for line in ax.lines if len(line.get_xdata()) > 1]


def test_the_distance_to_the_target_is_rsatoolboxs():
    rdms = logged_rdms(["baseline", "rdl"])
    figure = training.plot(rdms, layers=["fc"], comparison="spearman", n_bootstrap=0)
    network, layer = (np.array(rdms.rdm_descriptors[name]) for name in ("network", "layer"))
    target = rdms.dissimilarities[(network == "teacher") & (layer == "fc")]
    for method in ("baseline", "rdl"):
        line = curves_of(figure.axes[1])[method]
        expected = 1 - compare(rdms.dissimilarities[(network == method) & (layer == "fc")], target, "spearman")
        np.testing.assert_array_equal(line.get_xdata(), np.array(EPOCHS) + 1)
        np.testing.assert_allclose(line.get_ydata(), expected.ravel())
    assert figure.axes[1].get_ylabel() == "Distance to teacher"


def test_a_path_a_method_in_time_is_their_second_order_mds_with_the_target():
    rdms = logged_rdms(["baseline", "rdl"], layers=("fc",))
    figure = training.plot(rdms, n_bootstrap=5)
    whole = rdms[[2, *range(3, 3 + 2 * len(EPOCHS))]]
    expected = second_order_mds(whole, n_bootstrap=5)
    ax = figure.axes[0]
    np.testing.assert_allclose(paths_of(ax), expected.coordinates[1:].reshape(2, len(EPOCHS), 2))
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose(np.ravel(star.get_data()), expected.coordinates[0])
    assert ax.get_title() == f"fc (stress {expected.stress:.2f})"
    sizes = [line.get_markersize() for line in ax.lines if line.get_marker() == "o"][: len(EPOCHS)]
    assert sizes == sorted(set(sizes))
    red = [line.get_markerfacecolor()[0] for line in ax.lines if line.get_marker() == "o"][: len(EPOCHS)]
    assert red == sorted(set(red), reverse=True)


def test_the_order_of_rdms_does_not_matter():
    rdms = logged_rdms(["baseline", "rdl"], layers=("fc",))
    turned = rdms[[0, 1, 2, *reversed(range(3, rdms.n_rdm))]]
    first, second = (curves_of(training.plot(logged, n_bootstrap=2).axes[1]) for logged in (rdms, turned))
    for method in ("baseline", "rdl"):
        np.testing.assert_allclose(np.array(second[method].get_data()), np.array(first[method].get_data()))


def test_several_seeds_are_a_mean_in_a_band_and_the_first_ones_path():
    rdms = logged_rdms(["rdl"], layers=("fc",), seeds=(3, 4))
    figure = training.plot(rdms, n_bootstrap=0)
    singles = [training.plot(logged, n_bootstrap=0) for logged in (rdms[[2, *range(3, 9)]], rdms[[2, *range(9, 15)]])]
    by_seed = np.array([curves_of(single.axes[1])["rdl"].get_ydata() for single in singles])
    np.testing.assert_allclose(curves_of(figure.axes[1])["rdl"].get_ydata(), by_seed.mean(0))
    band = figure.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((by_seed.min(), by_seed.max()))
    np.testing.assert_allclose(paths_of(figure.axes[0]), paths_of(singles[0].axes[0]))
    assert "Curves: mean and range over 2 seeds" in " ".join(figure.get_suptitle().split())
    assert "seed" not in singles[0].get_suptitle()


def test_both_ends_of_a_path_have_their_epochs_once_where_they_meet():
    ax = training.plot(logged_rdms(["baseline", "rdl"], layers=("fc",)), n_bootstrap=0).axes[0]
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("0") == 1  # both start at the same weights
    assert texts.count("60") in (1, 2)
    assert set(texts) == {"0", "60"}


def test_layers_are_mapped_to_the_targets():
    rdms = logged_rdms(["rdl"], layers=("conv", "fc"), of_target=("EVC", "IT"), target="brain")
    figure = training.plot(rdms, target="brain", layers={"fc": "IT"}, n_bootstrap=0)
    assert figure.axes[0].get_title().startswith("fc to IT (stress")
    target, path = rdms.dissimilarities[3], rdms.dissimilarities[10:16]
    expected = 1 - compare(path, target[None], "corr").ravel()
    np.testing.assert_allclose(curves_of(figure.axes[1])["rdl"].get_ydata(), expected)
    alone = logged_rdms(["rdl"], layers=("conv", "fc"), of_target=("IT",), target="brain")
    titles = [ax.get_title().split(" (")[0] for ax in training.plot(alone, target="brain").axes if ax.get_title()]
    assert titles == ["conv to IT", "fc to IT"]


def test_constant_rdms_are_left_out_and_told():
    rdms = logged_rdms(["baseline", "rdl"], layers=("fc",))
    before_training = [k for k in range(rdms.n_rdm) if rdms.rdm_descriptors["epoch"][k] == -1 and k > 2]
    rdms.dissimilarities[before_training] = 0
    figure = training.plot(rdms, n_bootstrap=0)
    np.testing.assert_array_equal(curves_of(figure.axes[1])["rdl"].get_xdata(), np.array(EPOCHS[1:]) + 1)
    assert [len(path) for path in paths_of(figure.axes[0])] == [len(EPOCHS) - 1] * 2
    title = " ".join(figure.get_suptitle().split())
    assert title.endswith("2 RDMs that are constant or NaN have no distance and are left out.")
    rdms.dissimilarities[2] = 0
    with pytest.raises(ValueError, match=r"RDM 0 \(network 'teacher', layer 'fc'\) is constant"):
        training.plot(rdms)


def test_pixels_and_labels_take_part_when_asked():
    rdms = logged_rdms(["rdl"], layers=("fc",))
    for references, names in ((False, []), (True, ["pixels", "labels"])):
        figure = training.plot(rdms, references=references, n_bootstrap=0)
        assert sum(line.get_marker() == "*" for line in figure.axes[0].lines) == 1 + len(names)
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert texts == ["rdl", "teacher (target)", *names]


def test_a_method_keeps_its_colour_in_the_training_figure():
    figure = training.plot(logged_rdms(["rdl"], layers=("fc",)), methods=METHODS, n_bootstrap=0)
    assert curves_of(figure.axes[1])["rdl"].get_color() == looks(METHODS)["rdl"].colour


@pytest.mark.parametrize(
    ("width", "n_layers"), [("single", 1), ("single", 3), ("double", 1), ("double", 2), ("double", 5)]
)
def test_the_training_figure_is_readable(width, n_layers, assert_readable):
    layers = [f"layer{k}" for k in range(n_layers)]
    rdms = logged_rdms(layers=layers, epochs=(-1, 0, 3, 99), seeds=(0, 1))
    figure = training.plot(rdms, n_bootstrap=0, width=width)
    assert_readable(figure)
    assert len(figure.axes) == 2 * n_layers
    assert figure.get_figwidth() == pytest.approx(WIDTHS[width])


@pytest.mark.parametrize("width", ["single", "double"])
def test_long_names_are_readable_in_the_training_figure(width, assert_readable):
    methods = [f"method_{k}_with_a_$long$_name" for k in range(16)]
    layers = [f"features.{k}.conv_{k}.weight" for k in range(4)]
    assert_readable(training.plot(logged_rdms(methods, layers, (-1, 0, 99)), n_bootstrap=0, width=width))


def test_more_layers_than_fit_on_a_page_are_refused():
    rdms = logged_rdms(["rdl"], layers=[f"layer{k}" for k in range(8)], epochs=(-1, 9))
    assert training.plot(rdms, n_bootstrap=0).get_figheight() <= PAGE
    with pytest.raises(ValueError, match=r"8 layers do not fit on a page 230 mm high: 6 do; choose .*width='double'"):
        training.plot(rdms, n_bootstrap=0, width="single")


def test_equal_training_figures_are_equal_files(tmp_path):
    first, again = (training.plot(logged_rdms(["baseline", "rdl"], layers=("fc",)), n_bootstrap=2) for _ in range(2))
    (one,) = save_figure(first, tmp_path / "one", formats=["svg"])
    (other,) = save_figure(again, tmp_path / "other", formats=["svg"])
    assert one.read_bytes() == other.read_bytes()


def test_the_training_figure_refuses_what_it_cannot_draw():
    rdms = logged_rdms(["rdl"])
    once = logged_rdms(["rdl"], epochs=(59,))
    message = r"no network has RDMs of layer 'fc' at two epochs, as .* logged: 60\); log more with `analysis.every`"
    with pytest.raises(ValueError, match=message):
        training.plot(once)
    once.dissimilarities[[k for k in range(once.n_rdm) if once.rdm_descriptors["network"][k] == "rdl"]] = np.nan
    with pytest.raises(ValueError, match=r"at two epochs, as a path needs \(epochs of training logged: none\)"):
        training.plot(once)
    with pytest.raises(
        ValueError, match="no RDM is of the target 'brain'; the networks are: pixels, labels, teacher, rdl"
    ):
        training.plot(rdms, target="brain")
    with pytest.raises(ValueError, match="no method has layer 'conv'; there are: fc, softmax"):
        training.plot(rdms, layers=["conv"])
    with pytest.raises(ValueError, match="target 'teacher' has no layer 'IT'; it has: fc, softmax"):
        training.plot(rdms, layers={"fc": "IT"})
    with pytest.raises(ValueError, match=r"name its target for each, as layers={'fc': 'V1'}; layers: fc, softmax; of"):
        training.plot(logged_rdms(["rdl"], of_target=("V1", "V4")))
    with pytest.raises(ValueError, match="no RDM besides those of teacher, pixels and labels"):
        training.plot(logged_rdms([]))
    with pytest.raises(ValueError, match="network 'rdl' has layer 'fc' twice at epoch -1, seed 0; choose one, or give"):
        training.plot(logged_rdms(["rdl", "rdl"]))
    with pytest.raises(ValueError, match=r"target 'teacher' has 2 RDMs of 'fc'; choose one, or average .*average_rdms"):
        training.plot(logged_rdms(["rdl"], of_target=("fc", "fc")))
    lacking = RDMs(rdms.dissimilarities, rdm_descriptors={"network": rdms.rdm_descriptors["network"]})
    with pytest.raises(ValueError, match="training figure needs the rdm_descriptor 'layer'; the RDMs have: network"):
        training.plot(lacking)
