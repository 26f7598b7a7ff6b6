"""Figures of a report: one that cannot be drawn is told of, and the rest stands."""

from __future__ import annotations

import numpy as np
import pytest
from rsatoolbox.rdm import RDMs, load_rdm

from brainrdl.analysis import save_rdms
from brainrdl.report import write_report
from brainrdl.report.brain_figures import layers_as_rows
from brainrdl.report.drawing import ToDraw, draw_figures, undefined_lines, unmeasured_rdms, without_undefined


def of_layers(n_rdms=6):
    names = [f"layer{k}" for k in range(n_rdms)]
    vectors = np.random.default_rng(0).random((n_rdms, 10))
    return RDMs(vectors, rdm_descriptors={"network": ["n"] * n_rdms, "layer": names})


def test_a_figure_that_cannot_be_drawn_is_a_note(tmp_path, without_saving):
    def refused():
        raise ValueError("nothing to draw")

    wanted = [ToDraw("one", "first", refused), ToDraw("two", "second", object)]
    drawn = draw_figures(wanted, tmp_path, ("png",), ["known before"])
    assert [picture.name for picture in drawn.pictures] == ["two"]
    assert drawn.notes == ("known before", "one: nothing to draw")


def test_rdms_without_a_value_are_named_the_first_three_of_them():
    rdms = of_layers()
    assert unmeasured_rdms(rdms) == {}
    rdms.dissimilarities[1, 0] = np.nan  # a pair alone
    rdms.dissimilarities[2:] = np.nan
    undefined = unmeasured_rdms(rdms)
    assert list(undefined) == [2, 3, 4, 5]
    assert undefined_lines(rdms, undefined) == [
        "RDM 2 (network 'n', layer 'layer2') is NaN throughout",
        "RDM 3 (network 'n', layer 'layer3') is NaN throughout",
        "RDM 4 (network 'n', layer 'layer4') is NaN throughout",
        "and 1 more like these",
    ]
    assert list(without_undefined(rdms, undefined, 2).rdm_descriptors["layer"]) == ["layer0", "layer1"]
    with pytest.raises(ValueError, match="expected at least 3 RDMs that can be shown, got 2"):
        without_undefined(rdms, undefined, 3)


def test_rows_of_methods_are_right_where_rdms_were_left_out():
    rdms = of_layers(4)
    rdms.rdm_descriptors |= {"network": ["pixels", "a", "b", "brain"], "layer": ["pixels", "fc", "fc", "IT"]}
    turned = layers_as_rows(rdms[[0, 2, 3]])
    assert list(zip(turned.rdm_descriptors["network"], turned.rdm_descriptors["layer"], strict=True)) == [
        ("pixels", "pixels"),
        ("fc", "b"),
        ("brain", "IT"),
    ]
    np.testing.assert_array_equal(turned.dissimilarities, rdms.dissimilarities[[0, 2, 3]])


def spoil(path, value, rows=slice(None)):
    rdms = load_rdm(str(path))
    rdms.dissimilarities[rows] = value
    save_rdms(rdms, path)


def test_a_dead_layer_does_not_stop_the_report(tmp_path, synthetic_run, without_saving):
    methods = {"baseline": (0.1, 0.0), "rdl": (0.06, 0.6)}
    run = synthetic_run(tmp_path / "run", methods, (0,), n_test=40, n_classes=2, n_figure=12, n_epochs=2)
    spoil(run / "rdl" / "seed-0" / "rdms.h5", np.nan, -2)
    files = write_report(run, ("png",))
    what = "RDM 8 (network 'rdl', layer 'fc') is NaN throughout"
    assert files.notes == (f"rdm_grid: {what}", f"second_order_mds: {what}")
    text = files.page.read_text(encoding="utf-8")
    for name in ("errors_vs_epoch", "curves", "rdm_grid", "second_order_mds", "training"):
        assert f"{name}: expected" not in text
    assert len(files.figures) == text.count('<figure class="picture">') == 5


def test_a_dead_network_does_not_stop_a_brain_runs_report(tmp_path, brain_run, without_saving):
    run = brain_run(tmp_path / "run")
    spoil(run / "it" / "cnn" / "seed-0" / "split-0_fold-0" / "rdms.h5", np.nan)
    write_report(run)
    text = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "rdm_grid: RDM 2 (network &#39;it&#39;, layer &#39;fc&#39;) is NaN throughout" in text
    assert text.count('<figure class="picture">') == 3
    for part in run.glob("*/cnn/seed-0/*/rdms.h5"):
        spoil(part, np.nan)
    write_report(run)
    text = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "agreement: every score is NaN; nothing to draw" in text
    assert "second_order_mds is not drawn: 2 RDMs of 12 held-out stimuli, it needs 3 of 12" in text
