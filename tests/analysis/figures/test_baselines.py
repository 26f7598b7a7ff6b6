"""A picture of every kind of figure as it was last looked at; `BRAINRDL_BASELINES=write pytest -n 0` on this file makes
them anew, to be looked at again."""

import os
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images
from rsatoolbox.rdm import RDMs

from brainrdl.analysis import layer_agreement, second_order_mds
from brainrdl.analysis.figures import curves, rdm, rdm_grid, second_order, stimulus_mds, training
from brainrdl.analysis.figures import layer_agreement as agreement
from brainrdl.analysis.figures.style import print_style, save_figure

BASELINES = Path(__file__).parent / "baselines"
# Root mean square of the difference in grey levels (0 to 255); a figure of other data is above it (tested below).
TOLERANCE = 6.0
# Text has other widths before this matplotlib, and all that makes room for it lies some pixels elsewhere. With a newer
# one that differs, the pictures are to be looked at and made anew.
MADE_WITH = (3, 11)
N_STIMULI, N_UNITS = 24, 10
CATEGORIES = ("animals", "faces", "places", "tools")


def patterns(generator, share):
    """(N_STIMULI, N_UNITS) of which a share is its category's."""
    common = np.repeat(generator.normal(size=(4, N_UNITS)), N_STIMULI // 4, axis=0)
    return share * common + (1 - share) * generator.normal(size=(N_STIMULI, N_UNITS))


def rdms(rows, seed=0, **descriptors):
    """RDMs of the patterns `rows` (n_rdms, N_STIMULI, N_UNITS)."""
    i, j = np.triu_indices(N_STIMULI, 1)
    return RDMs(
        ((rows[:, i] - rows[:, j]) ** 2).mean(-1),
        "euclidean",
        rdm_descriptors=descriptors,
        pattern_descriptors={
            "stimulus": [f"s{k:02d}" for k in range(N_STIMULI)],
            "category": list(np.repeat(CATEGORIES, N_STIMULI // 4)),
        },
    )


def networks(seed=0, epochs=(9,)):
    """Three layers of a teacher and two students, which resemble it the more the later the epoch."""
    generator = np.random.default_rng(seed)
    teacher = [patterns(generator, share) for share in (0.2, 0.5, 0.8)]
    start = [patterns(generator, 0.1) for _ in teacher]
    rows, names = list(teacher), [("teacher", layer, -1) for layer in ("conv1", "conv2", "fc")]
    for name, strength in (("baseline", 0.4), ("rdl", 0.9)):
        for epoch in epochs:
            near = strength * (epoch + 1) / 10
            rows += [near * t + (1 - near) * s for t, s in zip(teacher, start, strict=True)]
            names += [(name, layer, epoch) for layer in ("conv1", "conv2", "fc")]
    columns = zip(*names, strict=True)
    return rdms(np.array(rows), **{key: list(c) for key, c in zip(("network", "layer", "epoch"), columns, strict=True)})


def one_rdm(seed=0):
    whole = networks(seed)[2]
    whole.dissimilarities[0, 40:90] = np.nan
    return whole


def histories(seed=0):
    generator = np.random.default_rng(seed)
    epochs = np.arange(12)
    frames = [
        pd.DataFrame({"method": name, "seed": k, "epoch": epochs, "train_error": error, "test_error": error + 0.02})
        for name, rate in (("baseline", 0.3), ("rdl", 0.5))
        for k in range(3)
        for error in [0.9 * np.exp(-rate * epochs) + 0.02 * generator.random(12)]
    ]
    return pd.concat(frames)


def brains(seed=0):
    generator = np.random.default_rng(seed)
    own = networks().dissimilarities
    vectors = [own[k] + 0.6 * generator.random(own.shape[1]) for k in (0, 2) for _ in range(6)]
    ids = networks().pattern_descriptors["stimulus"]
    return RDMs(
        np.array(vectors),
        rdm_descriptors={"roi": ["V1"] * 6 + ["IT"] * 6, "subject": [f"sub-{k}" for k in range(6)] * 2},
        pattern_descriptors={"stimulus": list(ids)},
    )


KINDS = {
    "rdm": lambda seed: rdm.plot(one_rdm(seed)).figure,
    "rdm_grid": lambda seed: rdm_grid.plot(networks(seed), scale="raw"),
    "mds": lambda seed: second_order.plot(second_order_mds(networks(seed), n_bootstrap=8)).figure,
    "stimulus-mds": lambda seed: stimulus_mds.plot(networks(seed)[2]).figure,
    "curves": lambda seed: curves.plot(histories(seed)),
    "agreement": lambda seed: agreement.plot(layer_agreement(networks()[[3, 4, 5, 6, 7, 8]], brains(seed), "corr")),
    "training": lambda seed: training.plot(networks(seed, epochs=(-1, 0, 2, 9)), layers=["conv2", "fc"], n_bootstrap=4),
}


def picture(kind, folder, seed=0):
    folder.mkdir(exist_ok=True)
    figure = KINDS[kind](seed)
    with print_style():
        figure.savefig(folder / f"{kind}.png", dpi=80, metadata={"Software": None})
    return folder / f"{kind}.png"


@pytest.mark.skipif(
    tuple(map(int, matplotlib.__version__.split(".")[:2])) < MADE_WITH,
    reason=f"matplotlib {matplotlib.__version__} sets text otherwise than that of the baselines",
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_looks_as_it_did(kind, tmp_path):
    if os.environ.get("BRAINRDL_BASELINES") == "write":
        picture(kind, BASELINES)
    drawn = picture(kind, tmp_path)
    assert compare_images(str(BASELINES / f"{kind}.png"), str(drawn), tol=TOLERANCE) is None


@pytest.mark.parametrize("kind", KINDS)
def test_other_data_look_different(kind, tmp_path):
    other = picture(kind, tmp_path, seed=1)
    same_size = matplotlib.image.imread(other).shape == matplotlib.image.imread(BASELINES / f"{kind}.png").shape
    assert not same_size or compare_images(str(BASELINES / f"{kind}.png"), str(other), tol=TOLERANCE) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_figure_twice_is_the_same_file(kind, tmp_path):
    one, other = (save_figure(KINDS[kind](0), tmp_path / name, ["png", "pdf", "svg"]) for name in ("one", "two"))
    for a, b in zip(one, other, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.suffix
