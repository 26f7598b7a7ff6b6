"""From a generated brain whose truth is known: what is recovered of it, and what a student learns from it."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_rel
from torch import nn

from brainrdl.analysis.rdms import network_rdms
from brainrdl.brain_rdms import measured_region
from brainrdl.data import DataSettings, load_data
from brainrdl.data.generated_brain import generate_brain, write_bold
from brainrdl.fmri.dissimilarities import NoisePrecision, measured_rdm, noise_precision
from brainrdl.fmri.spec import load_brain_spec
from brainrdl.fmri.trials import Trials
from brainrdl.layers import record_layers
from brainrdl.objectives.base import Stage, sgd
from brainrdl.objectives.rdl import RDLObjective
from brainrdl.pairs import all_pairs
from brainrdl.rdms import average_rdms, join_rdms
from brainrdl.sources.controls import make_control
from brainrdl.sources.patterns import MeasuredPatterns, PatternTable
from brainrdl.sources.rdms import MeasuredRDMs
from brainrdl.stimuli import Stimuli
from brainrdl.training import Trainer

# The truth is a layer of a network that has learnt to read digits; its brain saw 100 of them.

TRUE_LAYER = "top"


class Reader(nn.Module):
    """Layers in order: hidden, top, readout."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.readout = nn.Linear(32, 10)

    def forward(self, images):
        return self.readout(self.top(self.hidden(images)))


def reader(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Reader()


class Digits(NamedTuple):
    """Images that no two share: the reference's own, the task's, those with brain data, and those held out."""

    reference: Stimuli
    task: Stimuli
    brain: Stimuli
    held_out: Stimuli


@pytest.fixture(scope="module")
def digits():
    images = load_data(DataSettings(spec="digits", train=900, validation=0)).train
    parts = [torch.arange(start, stop) for start, stop in [(0, 500), (500, 700), (700, 800), (800, 900)]]
    return Digits(*(images.subset(rows) for rows in parts))


@pytest.fixture(scope="module")
def reference(digits):
    network = reader(1000)
    train(network, Stage(epochs=30), digits.reference)
    return network


def train(network, stage, task=None, stimuli=None, seed=0):
    for _ in Trainer(network, stage, seed=seed, accelerator="cpu").fit(task, stimuli):
        pass


def layer_patterns(network, stimuli):
    with record_layers(network, [TRUE_LAYER]) as recorded, torch.no_grad():
        network(stimuli.images)
        return recorded[TRUE_LAYER].numpy()


def layer_rdm(network, stimuli):
    return network_rdms(network, [TRUE_LAYER], stimuli).dissimilarities[0]


# Recovery


def crossnobis(brain, precision=None):
    """(n_subjects, n_pairs) our estimates, over runs; in the order of the brain's ids."""
    stimulus, run = brain.table["stimulus"].tolist(), brain.table["run"].tolist()
    tables = {
        subject: PatternTable(responses, stimulus, run, precision)
        for subject, responses in zip(brain.subjects, brain.responses, strict=True)
    }
    asked = Stimuli(torch.zeros(len(brain.ids), 1, 1, 1), brain.ids)
    targets = MeasuredPatterns(tables, "crossnobis").targets(asked, all_pairs(len(brain.ids)))
    return np.stack([targets[subject].values.numpy() for subject in brain.subjects])


@pytest.fixture(scope="module")
def two_of_a_kind():
    """Six patterns, the last two the same: their distance is zero."""
    patterns = np.random.default_rng(0).standard_normal((6, 10))
    patterns[5] = patterns[4]
    return patterns


def simulated(patterns, **settings):
    """A thousand subjects, each a simulation."""
    ids = [f"s{k}" for k in range(len(patterns))]
    return generate_brain(patterns, ids, n_subjects=1000, n_runs=3, n_voxels=8, noise=2.0, **settings)


def standard_errors_off(estimates, true):
    """(n_pairs,) how far the mean over simulations is from the truth."""
    error = estimates - true
    return np.abs(error.mean(0)) / (error.std(0, ddof=1) / np.sqrt(len(error)))


@pytest.mark.parametrize("whitened", [False, True])
def test_crossnobis_is_unbiased_over_1000_simulations(two_of_a_kind, whitened):
    brain = simulated(two_of_a_kind)
    measure, precision = "euclidean", None
    if whitened:
        measure, precision = "mahalanobis", np.linalg.inv(brain.noise_covariance)
    estimates = crossnobis(brain, precision)
    each, expected = brain.true_rdms(measure).dissimilarities, brain.expected_rdm(measure).dissimilarities
    assert (standard_errors_off(estimates, each) <= 4).all()
    assert (standard_errors_off(estimates, expected) <= 4).all()
    assert expected[0, -1] == 0 and (expected[0, :-1] > 0).all()  # zero and non-zero distances were among them
    assert 0.3 < (estimates[:, -1] < 0).mean() < 0.7  # negative values are kept


def test_noise_that_runs_share_fails_that_very_test(two_of_a_kind):
    brain = simulated(two_of_a_kind, shared_noise=0.2)
    estimates, each = crossnobis(brain), brain.true_rdms().dissimilarities
    assert (standard_errors_off(estimates, each) > 4).all()
    bias = 2 * 0.2 * brain.noise_sd**2
    assert (standard_errors_off(estimates, each + bias) <= 4).all()  # and by as much as theory says


def test_distances_that_are_not_cross_validated_fail_it_too(two_of_a_kind):
    brain = simulated(two_of_a_kind)
    rows = [np.flatnonzero(brain.table["stimulus"] == stimulus) for stimulus in brain.ids]
    means = np.stack([brain.responses[:, of_stimulus].mean(1) for of_stimulus in rows], axis=1)
    i, j = np.triu_indices(len(rows), 1)
    estimates = ((means[:, i] - means[:, j]) ** 2).mean(2)
    assert (standard_errors_off(estimates, brain.true_rdms().dissimilarities) > 4).all()


def test_the_recovered_rdm_approaches_the_true_one_as_noise_falls(reference, digits):
    patterns, ids = layer_patterns(reference, digits.brain)[:12], digits.brain.ids[:12]
    agreement, error = [], []
    for noise in (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.0):
        brain = generate_brain(patterns, ids, n_subjects=20, n_runs=4, noise=noise)
        estimates, true = crossnobis(brain), brain.true_rdms().dissimilarities
        agreement.append(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(estimates, true, strict=True)]))
        error.append(np.sqrt(((estimates - true) ** 2).mean()) / true.mean())
    assert (np.diff(agreement) > 0).all() and (np.diff(error) < 0).all()
    assert agreement[0] < 0.3 and agreement[-2] > 0.98
    assert agreement[-1] == pytest.approx(1, abs=1e-6) and error[-1] < 1e-6  # computed by two ways, given in float32


def test_rdms_from_trials_are_the_same_estimates(two_of_a_kind):
    """So the simulations above speak for `brainrdl rdms`, too."""
    brain = simulated(two_of_a_kind)
    precision = np.linalg.inv(brain.noise_covariance)
    estimates = crossnobis(brain, precision)
    for k in range(20):
        trials = Trials(brain.responses[k], brain.table, brain.subjects[k], brain.roi)
        rdms = measured_rdm(trials, "crossnobis", "run", NoisePrecision(precision, "repetitions", "", 1))
        assert tuple(rdms.pattern_descriptors["stimulus"]) == brain.ids
        np.testing.assert_allclose(rdms.dissimilarities[0], estimates[k], rtol=1e-5, atol=1e-6)  # float32


def test_the_rdm_from_scanner_files_approaches_the_true_one_as_noise_falls(tmp_path):
    ids = [f"s{k:02d}" for k in range(12)]
    patterns = np.random.default_rng(1).standard_normal((12, 20))
    brain = generate_brain(patterns, ids, n_subjects=2, n_runs=3, n_voxels=40, noise=0.2)
    true = brain.true_rdms("mahalanobis").dissimilarities
    images = Stimuli(torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)), brain.ids)
    agreement = []
    for scan_noise in (4.0, 1.0, 0.2):
        spec = load_brain_spec(write_bold([brain], images, tmp_path / str(scan_noise), scan_noise))
        found = [measured_region(spec, subject, "IT").rdms for subject in brain.subjects]
        assert all(tuple(rdms.pattern_descriptors["stimulus"]) == brain.ids for rdms in found)
        pairs = zip(found, true, strict=True)
        agreement.append(np.mean([np.corrcoef(rdms.dissimilarities[0], one)[0, 1] for rdms, one in pairs]))
    assert agreement[0] < agreement[1] < agreement[2]
    assert agreement[0] < 0.7 and agreement[2] > 0.97


# Students. Per seed, the brain's noise, the student's initial weights, every order and every shuffle are drawn anew.

SEEDS = range(8)


def recovered_rdms(patterns, stimuli, seed):
    """The subjects' mean crossnobis RDM of a brain with these patterns, as from any measured data."""
    brain = generate_brain(patterns, stimuli.ids, n_subjects=4, n_runs=4, noise=1.0, seed=seed)
    rdms = []
    for subject, responses in zip(brain.subjects, brain.responses, strict=True):
        trials = Trials(responses, brain.table, subject, brain.roi)
        rdms.append(measured_rdm(trials, "crossnobis", "run", noise_precision(trials, "repetitions")))
    return average_rdms(join_rdms(rdms), over="subject")


def students(reference, digits, seed):
    """Every student of a seed: by name, a function that trains it in place."""
    source = MeasuredRDMs(recovered_rdms(layer_patterns(reference, digits.brain), digits.brain, seed))
    category = {name: str(label) for name, label in zip(digits.brain.ids, digits.brain.labels.tolist(), strict=True)}
    teachers = {
        "taught": source,
        **{
            kind: make_control(kind, source, digits.brain.ids, category, seed)
            for kind in ("shuffled_within", "category", "shuffled", "random")
        },
        "noise": MeasuredRDMs(
            recovered_rdms(np.random.default_rng(seed).standard_normal((100, 32)), digits.brain, seed)
        ),
    }
    rdl = {name: RDLObjective(teacher, {TRUE_LAYER: "IT"}, stream="stimuli") for name, teacher in teachers.items()}

    def alone(name):
        return lambda network: train(
            network, Stage(rdl[name], epochs=20, task_weight=0, optimizer=sgd(0.2)), None, digits.brain, seed
        )

    def with_task(name):
        return lambda network: train(network, Stage(rdl[name], alpha=3.0, epochs=20), digits.task, digits.brain, seed)

    return {
        "untrained": lambda network: None,
        "task": lambda network: train(network, Stage(epochs=20), digits.task, None, seed),
        **{name: alone(name) for name in ("taught", "shuffled_within", "category", "shuffled", "random", "noise")},
        **{f"{name} + task": with_task(name) for name in ("taught", "shuffled_within", "category")},
    }


@pytest.fixture(scope="module")
def agreement(reference, digits):
    """Pearson correlation of every student's RDM with the true layer's on held-out stimuli; a row a seed.

    Columns: (pairs, student), pairs "all" or "within" a category.
    """
    true, labels = layer_rdm(reference, digits.held_out), digits.held_out.labels.numpy()
    i, j = np.triu_indices(len(labels), 1)
    chosen = {"all": np.ones(len(i), bool), "within": labels[i] == labels[j]}
    rows = []
    for seed in SEEDS:
        row = {}
        for name, teach in students(reference, digits, seed).items():
            network = reader(seed)
            teach(network)
            rdm = layer_rdm(network, digits.held_out)
            row |= {(pairs, name): np.corrcoef(rdm[used], true[used])[0, 1] for pairs, used in chosen.items()}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.set_axis(pd.MultiIndex.from_tuples(table.columns), axis=1)


@pytest.mark.parametrize("pairs", ["all", "within"])
@pytest.mark.parametrize(
    ("taught", "other"),
    [
        ("taught", "untrained"),
        ("taught", "task"),
        ("taught", "shuffled_within"),
        ("taught", "category"),
        ("taught + task", "task"),
        ("taught + task", "shuffled_within + task"),
        ("taught + task", "category + task"),
    ],
)
def test_a_student_of_the_brain_comes_closer_to_the_true_layer(agreement, taught, other, pairs):
    assert ttest_rel(agreement[pairs, taught], agreement[pairs, other], alternative="greater").pvalue < 0.01


@pytest.mark.parametrize("null", ["noise", "shuffled", "random"])
def test_a_null_teacher_gives_no_gain_over_untrained(agreement, null):
    """No gain: the 99 % interval of the gain over seeds reaches down to 0, and ends below a quarter of a true gain."""
    scores = agreement["all"]
    interval = ttest_rel(scores[null], scores["untrained"]).confidence_interval(0.99)
    assert interval.low <= 0
    assert interval.high < (scores["taught"] - scores["untrained"]).mean() / 4
