"""Agreement with its ceiling, and accuracy against agreement: what is drawn is what the table says, and can be read."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from brainrdl.analysis.figures import agreement, tradeoff
from brainrdl.analysis.figures.style import TEACHER_COLOUR, WIDTH, WIDTHS, looks
from brainrdl.analysis.inference import over_subjects

CONDITIONS = ("untrained", "task only", "IT", "IT, shuffled within category", "animacy model", "random RDM", "EVC")


def subject_level(networks=CONDITIONS, layers=("conv2", "blocks.3.2"), rois=("V1", "V2", "V4", "IT"), kinds=("all",)):
    generator = np.random.default_rng(0)
    rows = [
        {
            "network": network,
            "layer": layer,
            "roi": roi,
            "subject": f"sub-{k:02d}",
            "pairs": "held_out",
            "kind": kind,
            "comparison": "spearman",
            "score": 0.1 + 0.06 * n + 0.05 * generator.normal(),
            "n_pairs": 800 - 10 * (k == 2),
            "ceiling_low": 0.35 + 0.01 * k,
            "ceiling_high": 0.45 + 0.01 * k,
        }
        for n, network in enumerate(networks)
        for layer in layers
        for roi in rois
        for kind in kinds
        for k in range(8)
    ]
    return pd.DataFrame(rows)


def teachers(layers=("IT", "EVC"), rois=("V1", "V2", "V4", "IT"), kinds=("all",)):
    table = subject_level(("teacher",), layers, rois, kinds)
    return table.assign(score=table["score"] + table["layer"].map({"IT": 0.2, "EVC": 0.0}))


def panel(figure, row, column, n_columns):
    return figure.axes[row * n_columns + column]


@pytest.mark.parametrize(
    ("table", "height"),
    [
        (pd.concat([subject_level(kinds=("all", "within")), teachers(kinds=("all", "within"))]), 9.0),
        (subject_level(CONDITIONS[:2], ["fc"], ["IT"]), 1.8),
        (pd.concat([subject_level(CONDITIONS, ["fc"], ["EVC", "IT"], agreement.KINDS), teachers()]), 8.5),
    ],
)
def test_agreement_is_readable_on_a_page(table, height, assert_readable):
    figure = agreement.plot(table)
    assert_readable(figure)
    width, tall = figure.get_size_inches()
    assert width == WIDTH
    assert tall <= height


def test_agreement_with_two_regions_is_readable_in_one_column(assert_readable):
    rois = ["EVC", "IT"]
    figure = agreement.plot(pd.concat([subject_level(layers=["fc"], rois=rois), teachers(rois=rois)]), width="single")
    assert_readable(figure)
    assert figure.get_figwidth() == WIDTHS["single"]
    with pytest.raises(ValueError, match="unknown figure width 'wide'"):
        agreement.plot(subject_level(), width="wide")


def test_a_panel_shows_subjects_means_intervals_ceiling_and_teacher():
    table = pd.concat([subject_level(CONDITIONS[:3], ["fc"], ["EVC", "IT"]), teachers(["IT"], ["EVC", "IT"])])
    figure = agreement.plot(table)
    ax = panel(figure, 0, 1, 2)
    means = over_subjects(table[(table["roi"] == "IT") & (table["network"] != "teacher")]).set_index("network")
    names = panel(figure, 0, 0, 2).get_yticklabels()  # shared
    assert [label.get_text() for label in names] == list(CONDITIONS[:3])
    assert ax.get_title() == "IT\nn = 8, 790–800 pairs"
    assert ax.get_xlabel() == "Spearman's ρ"
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.385, 0.485))
    colours = looks(CONDITIONS[:3])
    for name, mean in means.iterrows():
        mine = [line for line in ax.lines if line.get_color() == colours[name].colour]
        subjects = np.concatenate([line.get_xdata() for line in mine if line.get_markersize() < 3])
        expected = table[(table["roi"] == "IT") & (table["network"] == name)]["score"]
        assert sorted(subjects) == sorted(expected)
        (large,) = [line.get_xdata() for line in mine if line.get_markersize() == 5]
        assert float(np.squeeze(large)) == mean["score"]
        (interval,) = [line.get_xdata() for line in mine if line.get_linestyle() == "-"]
        assert list(interval) == [mean["low"], mean["high"]]
    (line,) = [line for line in ax.lines if line.get_color() == TEACHER_COLOUR]
    own = table[(table["roi"] == "IT") & (table["network"] == "teacher")]["score"].mean()
    assert line.get_xdata()[0] == own


def test_scores_above_the_ceiling_are_triangles():
    table = subject_level(CONDITIONS[:2], ["fc"], ["IT"])
    table.loc[table["network"] == "task only", "score"] += 1
    table.loc[0, "score"] = 0.9  # one subject of the other network
    ax = agreement.plot(table).axes[0]
    colours = looks(CONDITIONS[:2])

    def above(network, large):
        lines = [line for line in ax.lines if line.get_color() == colours[network].colour and line.get_marker() == "^"]
        return sum(len(np.atleast_1d(line.get_xdata())) for line in lines if (line.get_markersize() == 5) == large)

    assert (above("task only", True), above("task only", False)) == (1, 8)
    assert (above("untrained", True), above("untrained", False)) == (0, 1)


def test_without_a_ceiling_or_scores_the_rest_is_drawn(assert_readable):
    table = subject_level(CONDITIONS[:2], ["fc"], ["EVC", "IT"])
    table.loc[table["roi"] == "EVC", ["ceiling_low", "ceiling_high"]] = np.nan
    table.loc[(table["roi"] == "IT") & (table["network"] == "untrained"), "score"] = np.nan
    figure = agreement.plot(table)
    assert_readable(figure)
    assert len(panel(figure, 0, 0, 2).patches) == 0
    assert len(panel(figure, 0, 1, 2).patches) == 1


def test_a_kind_without_any_score_has_no_row():
    table = subject_level(CONDITIONS[:2], ["fc"], ["IT"], kinds=("all", "partial"))
    table.loc[table["kind"] == "partial", "score"] = np.nan
    assert len(agreement.plot(table).axes) == 1
    assert len(agreement.plot(table.fillna({"score": 0.1})).axes) == 2
    assert len(agreement.plot(table.fillna({"score": 0.1}), kinds=["all"]).axes) == 1


def test_a_network_has_its_colour_and_place_whichever_others_are_there():
    table = subject_level(CONDITIONS[2:4], ["fc"], ["IT"])
    ax = agreement.plot(table, networks=CONDITIONS).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CONDITIONS[2:4])
    drawn = {line.get_color() for line in ax.lines}
    assert {looks(CONDITIONS)[name].colour for name in CONDITIONS[2:4]} <= drawn


def test_tables_without_agreement_are_refused():
    table = subject_level(CONDITIONS[:2], ["fc"], ["IT"])
    with pytest.raises(ValueError, match="column 'ceiling_low' is missing"):
        agreement.plot(table.drop(columns="ceiling_low"))
    with pytest.raises(ValueError, match="occurs twice"):
        agreement.plot(pd.concat([table, table]))
    with pytest.raises(ValueError, match="no scores of pairs 'trained' and kinds all but the teacher's"):
        agreement.plot(table, pairs="trained")
    with pytest.raises(ValueError, match="every score is NaN; nothing to draw"):
        agreement.plot(table.assign(score=np.nan))


# accuracy against agreement


def tradeoffs(rois=("IT", "EVC"), n_seeds=4):
    generator = np.random.default_rng(0)
    rows = [
        {
            "roi": roi,
            "alpha": alpha,
            "seed": seed,
            "accuracy": 0.92 - 0.01 * np.log1p(alpha) ** 2 + 0.004 * generator.normal(),
            "score": 0.06 + {"IT": 0.31, "EVC": 0.12}[roi] * alpha / (alpha + 0.6) + 0.006 * generator.normal(),
        }
        for roi in rois
        for alpha in (0, 0.03, 0.1, 0.3, 1, 3, 10, 30)
        for seed in range(n_seeds)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("table", [tradeoffs(), tradeoffs(["IT"], n_seeds=1)])
def test_tradeoff_is_readable(table, assert_readable):
    assert_readable(tradeoff.plot(table).figure)


def test_means_are_joined_in_the_order_of_alpha_and_labelled_with_it_and_seeds_are_faint():
    table = tradeoffs()
    ax = tradeoff.plot(table.sample(frac=1, random_state=0))
    assert ax.figure.get_size_inches()[0] == WIDTH
    means = table[table["roi"] == "EVC"].groupby("alpha")[["score", "accuracy"]].mean()
    lines = [line for line in ax.lines if line.get_linestyle() == "-"]
    drawn = next(line for line in lines if np.allclose(line.get_xdata(), means["score"]))
    np.testing.assert_allclose(drawn.get_ydata(), 100 * means["accuracy"])
    faint = [line for line in ax.lines if line.get_alpha() == 0.35]
    assert sum(len(line.get_xdata()) for line in faint) == len(table)
    labels = {(text.get_text(), tuple(np.round(text.xy, 9))) for text in ax.texts}
    expected = table.groupby(["roi", "alpha"])[["score", "accuracy"]].mean()
    assert labels == {
        (f"{alpha:g}", (round(row["score"], 9), round(100 * row["accuracy"], 9)))
        for (_, alpha), row in expected.iterrows()
    }
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"IT", "EVC"}


def test_tradeoff_draws_where_it_is_told_and_leaves_out_nan():
    ax = Figure().subplots()
    table = tradeoffs(["IT"])
    table.loc[table["alpha"] == 30, "accuracy"] = np.nan
    assert tradeoff.plot(table, ax) is ax
    assert "30" not in {text.get_text() for text in ax.texts}
    assert ax.get_xlabel() == "Agreement with IT, mean over subjects"
    assert ax.get_legend() is None


def test_tables_without_a_tradeoff_are_refused():
    table = tradeoffs()
    with pytest.raises(ValueError, match="column 'alpha' is missing; expected roi, alpha, seed, accuracy, score"):
        tradeoff.plot(table.drop(columns="alpha"))
    with pytest.raises(
        ValueError, match=r"roi IT, alpha 0\.0, seed 0 occurs twice; average layers, folds and subjects"
    ):
        tradeoff.plot(pd.concat([table, table]))
    with pytest.raises(ValueError, match="no row has both; nothing to draw"):
        tradeoff.plot(table.assign(score=np.nan))
