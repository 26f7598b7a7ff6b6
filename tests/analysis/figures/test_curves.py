"""Curves against epoch: what is drawn is what the histories say, on axes that can be read."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from brainrdl.analysis.figures import curves
from brainrdl.analysis.figures.style import WIDTHS, looks

METHODS = ("baseline", "finetuning", "deep_supervision", "hints", "distillation", "rdl", "baseline_deformed")


def histories(methods=METHODS, n_seeds=3, n_epochs=6):
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


def staged(n_seeds=2):
    """Two methods as runs log them: one has a stage without the task first, the other terms in two layers."""
    rows = []
    for seed in range(n_seeds):
        for epoch in range(8):
            row = {"method": "hints", "seed": seed, "epoch": epoch, "learning_rate": 0.1}
            first = {"stage": "hints", "hints/pool2": 0.7 / (epoch + 1), "alpha": 1.0}
            main = {"stage": "main", "task": 2.0**-epoch, "train_error": 0.9 - 0.1 * epoch, "validation_error": 0.5}
            rows.append(row | (first if epoch < 3 else main))
            terms = {"rdl/pool1": 0.02, "rdl/fc": 10.0**-epoch, "n_pairs/rdl/fc": 500.0, "alpha": 10.0 - epoch}
            rows.append(row | main | {"method": "rdl"} | terms)
    return pd.DataFrame(rows)


def agreement(epochs=(-1, 0, 3, 7), n_seeds=2, layers=("pool1", "fc")):
    random = np.random.default_rng(0)
    rows = [
        (method, seed, epoch, layer, "corr", random.random())
        for method in ("hints", "rdl")
        for seed in range(n_seeds)
        for epoch in epochs
        for layer in layers
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "epoch", "layer", "comparison", "agreement"])


def curve(ax, method):
    (line,) = [line for line in ax.lines if line.get_label() == method]
    return line


# what is drawn


@pytest.mark.parametrize("width", ["single", "double"])
def test_curves_show_the_mean_and_the_range_over_seeds_in_percent(width):
    frame = histories(METHODS[:2])
    figure = curves.plot(frame, width=width)
    assert figure.get_figwidth() == WIDTHS[width]
    assert [ax.get_title() for ax in figure.axes] == ["Train error (%)", "Test error (%)"]
    for ax, column in zip(figure.axes, ["train_error", "test_error"], strict=True):
        for band, method in zip(ax.collections, METHODS, strict=False):
            line = curve(ax, method)
            by_epoch = 100 * frame[frame["method"] == method].pivot(index="epoch", columns="seed", values=column)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 7))
            np.testing.assert_allclose(line.get_ydata(), by_epoch.mean(axis=1))
            y = band.get_paths()[0].vertices[:, 1]
            assert (y.min(), y.max()) == pytest.approx((by_epoch.min(axis=None), by_epoch.max(axis=None)))
            assert line.get_color() == looks(METHODS)[method].colour


def test_an_epoch_that_a_seed_lacks_is_not_drawn():
    frame = histories(["rdl"]).drop(index=17)  # the last seed's last epoch
    assert list(curve(curves.plot(frame).axes[0], "rdl").get_xdata()) == [1, 2, 3, 4, 5]


def test_a_seed_without_any_value_does_not_take_the_others_away():
    frame = histories(["rdl"])
    frame.loc[frame["seed"] == 2, "test_error"] = np.nan
    line = curve(curves.plot(frame).axes[1], "rdl")
    expected = frame[frame["seed"] < 2].groupby("epoch")["test_error"].mean()
    np.testing.assert_allclose(line.get_ydata(), 100 * expected)


def test_where_seeds_share_no_epoch_the_panel_says_so(assert_readable):
    frame = histories(["rdl"], n_seeds=2)
    frame.loc[frame["epoch"] % 2 == frame["seed"], "test_error"] = np.nan
    figure = curves.plot(frame)
    assert [text.get_text() for text in figure.axes[1].texts] == ["no epoch that\nall seeds have"]
    assert_readable(figure)


def test_folds_of_a_seed_are_trainings_of_their_own():
    frame = pd.concat([histories(["rdl"], n_seeds=1).assign(split=0, fold=fold) for fold in range(2)])
    frame.loc[frame["fold"] == 1, "train_error"] *= 3
    figure = curves.plot(frame)
    expected = 100 * frame.groupby("epoch")["train_error"].mean()
    np.testing.assert_allclose(curve(figure.axes[0], "rdl").get_ydata(), expected)
    assert "mean over seeds, splits, folds" in figure.legends[0].get_title().get_text()


def test_a_method_keeps_its_colour_when_others_are_missing():
    whole = curve(curves.plot(histories()).axes[0], "rdl")
    part = curve(curves.plot(histories(["rdl"]), METHODS).axes[0], "rdl")
    assert part.get_color() == whole.get_color()


# quantities


def test_available_quantities_are_those_with_values_errors_first():
    frame = staged().assign(test_error=np.nan)
    expected = ["train_error", "validation_error", "task", "hints/pool2", "rdl/pool1", "rdl/fc", "alpha"]
    assert curves.available(frame) == tuple(expected)
    assert curves.available(frame, agreement()) == (*expected, "agreement/pool1", "agreement/fc")


def test_every_quantity_has_its_panel(assert_readable):
    figure = curves.plot(staged(), quantities=None, agreement=agreement())
    titles = [
        *("Train error (%)", "Validation error (%)", "Loss: task", "Loss: hints/pool2", "Loss: rdl/pool1"),
        *("Loss: rdl/fc", "α", "RDM agreement: pool1", "RDM agreement: fc"),
    ]
    assert [ax.get_title() for ax in figure.axes] == titles
    assert_readable(figure)
    drawn = {
        ax.get_title(): [line.get_label() for line in ax.lines if line.get_label()[0] != "_"] for ax in figure.axes
    }
    assert drawn["Loss: rdl/fc"] == ["rdl"]
    assert drawn["α"] == ["hints", "rdl"]


def test_agreement_starts_before_training_and_its_measure_is_named():
    table = agreement()
    figure = curves.plot(staged(), quantities=["agreement/fc"], agreement=table)
    (ax,) = figure.axes
    line = curve(ax, "rdl")
    assert list(line.get_xdata()) == [0, 1, 4, 8]
    rows = table[(table["method"] == "rdl") & (table["layer"] == "fc")]
    np.testing.assert_allclose(line.get_ydata(), rows.groupby("epoch")["agreement"].mean())
    assert "RDM agreement: Pearson's r" in figure.legends[0].get_title().get_text()
    assert ax.get_yscale() == "linear"


def test_epochs_with_gaps_between_them_are_marked():
    frame = histories(["rdl"], n_epochs=6)
    frame.loc[frame["epoch"] % 2 == 0, "test_error"] = np.nan
    train, test = curves.plot(frame).axes
    assert (curve(train, "rdl").get_marker(), curve(test, "rdl").get_marker()) == ("None", "o")


def test_the_main_stage_is_marked_where_another_came_first():
    figure = curves.plot(staged(), quantities=["task"])
    (mark,) = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert list(mark.get_xdata()) == [3, 3]
    assert mark.get_color() == looks(["hints", "rdl"])["hints"].colour
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["hints", "rdl", "main stage begins"]
    only_main = staged()[lambda frame: frame["method"] == "rdl"]
    assert [text.get_text() for text in curves.plot(only_main, quantities=["task"]).legends[0].get_texts()] == ["rdl"]


def test_one_quantity_is_drawn_where_it_is_told():
    ax = Figure().subplots()
    assert curves.plot(staged(), quantities=["rdl/fc"], ax=ax) is ax.figure
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["rdl"]
    with pytest.raises(ValueError, match="expected one quantity to draw into `ax`, got 2: task, alpha"):
        curves.plot(staged(), quantities=["task", "alpha"], ax=ax)


# axes


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize(("n_epochs", "zero"), [(1, "nowhere"), (6, "nowhere"), (6, "everywhere"), (100, "at the end")])
def test_curves_are_readable_and_hold_every_value(n_epochs, zero, width, assert_readable):
    frame = histories(METHODS, n_epochs=n_epochs)
    if zero == "at the end":
        frame.loc[frame["epoch"] == n_epochs - 1, "train_error"] = 0.0
    if zero == "everywhere":
        frame["train_error"] = 0.0
    figure = curves.plot(frame, width=width)
    assert_readable(figure)
    for ax in figure.axes:
        low, high = ax.get_ylim()
        for line in ax.lines:
            assert low <= min(line.get_ydata()) and max(line.get_ydata()) <= high
    assert (figure.axes[0].get_ylim()[0] < 0) == (zero != "nowhere")


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize("n_methods", [7, 30])
def test_legends_of_long_names_are_readable(n_methods, width, assert_readable):
    methods = [f"method_{k}_with_a_$long$_name" for k in range(n_methods)]
    assert_readable(curves.plot(histories(methods, n_seeds=2), width=width))


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.9, 0.5, 0.091], "linear"),
        ([0.9, 0.5, 0.089], "log"),
        ([0.9, 0.5, 0.01, 0.0], "symlog"),
        ([0.9, 0.5, 0.0], "linear"),
        ([0.9, 0.01, -0.1], "linear"),
    ],
)
def test_an_axis_is_logarithmic_where_values_span_more_than_a_decade(values, scale):
    frame = pd.DataFrame({"method": "rdl", "seed": 0, "epoch": range(len(values)), "rdl/fc": values})
    assert curves.plot(frame, quantities=["rdl/fc"]).axes[0].get_yscale() == scale


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0051, 0.0051), (0.6, 0.9), (0.6, 0.61), (0.0001, 0.0013), (0.03, 0.9), (1e-7, 1.0), (3.0, 2e7), (1e-12, 1e3)],
)
def test_an_axis_has_3_to_10_ticks_that_can_be_told_apart(low, high, assert_readable):
    frame = pd.DataFrame({"method": "rdl", "seed": 0, "epoch": range(3), "task": [high, (low * high) ** 0.5, low]})
    figure = curves.plot(frame, quantities=["task"])
    assert_readable(figure)
    (ax,) = figure.axes
    bottom, top = ax.get_ylim()
    ticks = [
        label.get_text()
        for tick, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
        if bottom <= tick <= top
    ]
    assert 3 <= len(ticks) <= 10
    assert len(set(ticks)) == len(ticks)


def test_an_error_axis_ends_at_100_percent():
    frame = histories(["rdl"]).assign(train_error=1.0, test_error=np.linspace(0.01, 1, 18))
    assert [ax.get_ylim()[1] for ax in curves.plot(frame).axes] == [100, 100]


def test_long_names_are_broken_into_lines(assert_readable):
    frame = histories(["rdl"]).rename(columns={"test_error": "deep_supervision/features.stage3.conv2"})
    figure = curves.plot(frame, quantities=["train_error", "deep_supervision/features.stage3.conv2"], width="single")
    assert figure.axes[1].get_title() == "Loss: deep_supervision/\nfeatures.stage3.conv2"
    assert_readable(figure)


# wrong input


def test_what_cannot_be_drawn_is_refused():
    frame = histories(["rdl"])
    with pytest.raises(ValueError, match="histories: column 'epoch' is missing; expected method, seed, epoch"):
        curves.plot(frame.drop(columns="epoch"))
    with pytest.raises(ValueError, match="histories hold no epoch"):
        curves.plot(frame.iloc[:0])
    with pytest.raises(ValueError, match="histories: method rdl, seed 0, epoch 0 occurs twice; tell trainings apart"):
        curves.plot(pd.concat([frame, frame]))
    with pytest.raises(ValueError, match="unknown figure width 'wide'"):
        curves.plot(frame, width="wide")
    with pytest.raises(ValueError, match="agreement: column 'layer' is missing"):
        curves.plot(frame, agreement=agreement().drop(columns="layer"))


def test_quantities_that_are_not_there_are_refused_naming_those_that_are():
    frame = histories(["rdl"]).assign(validation_error=np.nan)
    with pytest.raises(ValueError, match="quantity 'loss' is not there; there are: train_error, test_error"):
        curves.plot(frame, quantities=["loss"])
    with pytest.raises(ValueError, match="'validation_error' has no value in any epoch; there are: train_error, test"):
        curves.plot(frame, quantities=["validation_error"])
    with pytest.raises(ValueError, match="quantity 'seed' is not there"):
        curves.plot(frame, quantities=["seed"])
    with pytest.raises(ValueError, match="at least one quantity out of train_error, test_error, got none"):
        curves.plot(frame, quantities=[])
