"""Trials made ready: voxels dropped and chosen, z-scores, folds and halves."""

import re
from dataclasses import replace

import numpy as np
import pytest

from brainrdl.fmri.patterns import (
    drop_bad_voxels,
    fold_labels,
    half_labels,
    halves_share_folds,
    select_trials,
    select_voxels,
    split_halves,
    voxel_reliability,
    zscore,
)
from brainrdl.fmri.trials import Residuals


def test_bad_voxels_go_from_responses_and_residuals(make_trials):
    trials = make_trials()
    responses = trials.responses.copy()
    responses[:, 2] = 4
    responses[3, 5] = np.nan
    trials = replace(trials, responses=responses, residuals=Residuals(np.arange(60.0).reshape(3, 20), 2), notes=("a",))
    kept = np.setdiff1d(np.arange(20), [2, 5])
    dropped = drop_bad_voxels(trials)
    assert np.array_equal(dropped.responses, responses[:, kept])
    assert np.array_equal(dropped.residuals.values, trials.residuals.values[:, kept]) and dropped.residuals.dof == 2
    assert dropped.notes == ("a", "1 with NaN and 1 constant of 20 voxels dropped")
    assert drop_bad_voxels(make_trials()).notes == ()
    with pytest.raises(ValueError, match=r"subject 'sub-01', roi 'IT': 1 usable of 20 voxels"):
        drop_bad_voxels(replace(trials, responses=np.where(np.arange(20) == 1, responses, 0)))


def test_trials_that_were_not_measured_go_and_leave_the_voxels(make_trials):
    trials = make_trials()
    responses = trials.responses.copy()
    responses[[2, 9]] = np.nan
    dropped = drop_bad_voxels(replace(trials, responses=responses))
    kept = np.setdiff1d(np.arange(24), [2, 9])
    assert np.array_equal(dropped.responses, trials.responses[kept])
    assert dropped.table["stimulus"].tolist() == trials.table["stimulus"][kept].tolist()
    assert dropped.notes == ("2 of 24 trials dropped, which are NaN throughout",)
    with pytest.raises(ValueError, match=r"0 usable of 20 voxels \(20 with NaN\)"):
        drop_bad_voxels(replace(trials, responses=np.full((24, 20), np.nan)))


def test_trials_whose_parts_do_not_fit_are_refused(make_trials):
    trials = make_trials()
    for responses in (trials.responses[:-1], trials.responses[:, 0]):
        told = (
            rf"sub-01, IT: responses of shape {re.escape(str(responses.shape))} for 24 trials; expected \(n_trials, n_"
        )
        with pytest.raises(ValueError, match=told):
            replace(trials, responses=responses)
    for column in ("stimulus", "run", "session"):
        with pytest.raises(ValueError, match=f"sub-01, IT: the trial table lacks the column '{column}'"):
            replace(trials, table=trials.table.drop(columns=column))


@pytest.mark.parametrize("within", ["run", "session"])
def test_z_scores_have_mean_0_and_deviation_1_in_each_part(make_trials, within):
    trials = make_trials(sessions=2)
    scored = zscore(replace(trials, residuals=Residuals(np.ones((3, 20)), 2)), within)
    label = fold_labels(trials, within)
    for part in set(label):
        values = scored.responses[label == part]
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(values.std(0), 1)
    assert scored.residuals is None and scored.notes == (
        f"z-scored within {within}: distances are in units of a voxel's standard deviation there",
    )
    assert not np.allclose(scored.responses, trials.responses)


def test_a_voxel_constant_in_one_session_cannot_be_z_scored(make_trials):
    trials = make_trials(sessions=2)
    responses = trials.responses.copy()
    responses[(trials.table["session"] == "ses-1").to_numpy(), 4] = 1.5
    scored = zscore(replace(trials, responses=responses), "session")
    assert scored.responses.shape[1] == 19 and scored.notes[-1] == "1 constant of 20 voxels dropped (within a session)"
    single = select_trials(trials, np.r_[True, np.zeros(5, bool), np.ones(18, bool)])
    with pytest.raises(
        ValueError, match="run 'ses-1/0' has a single trial, which cannot be z-scored; set zscore: none"
    ):
        zscore(single, "run")


def test_runs_of_two_sessions_are_different_folds(make_trials):
    trials = make_trials(sessions=2)
    trials.table["run"] = "1"
    assert len(set(fold_labels(trials, "run"))) == 2 == len(set(fold_labels(trials, "session")))


def test_folds_within_a_run_are_refused(make_trials):
    trials = make_trials()
    trials.table["half"] = np.arange(len(trials.table)) % 2
    with pytest.raises(
        ValueError, match=r"the folds 'half' divide the trials of one run \(ses-1/0\), which share its noise"
    ):
        fold_labels(trials, "half")
    with pytest.raises(ValueError, match="no column 'block' to make folds of; expected 'run' or 'session'"):
        fold_labels(trials, "block")
    trials.table["block"] = trials.table["run"].map({"0": "x", "1": "x", "2": "y", "3": "y"})
    assert set(fold_labels(trials, "block")) == {"x", "y"}


def test_halves_are_the_odd_and_the_even_folds(make_trials):
    trials = make_trials(n_runs=12)  # run 10 and 11 come last, as they stand in the table
    assert np.array_equal(half_labels(trials, "run"), trials.table["run"].astype(int) % 2)
    halves = split_halves(trials, "run")
    responses = trials.responses.reshape(12, 6, 20)
    np.testing.assert_allclose(halves.first, responses[::2].mean(0))
    np.testing.assert_allclose(halves.second, responses[1::2].mean(0))
    assert halves.stimuli == [f"s{k}" for k in range(6)]


def test_each_stimulus_is_halved_by_its_own_folds(make_trials):
    trials = make_trials()
    shown = {"s0": "02", "s1": "123", "s2": "1"}
    rows = [row.run in shown.get(row.stimulus, "0123") for row in trials.table.itertuples()]
    trials = select_trials(trials, np.array(rows))
    half = dict(
        zip(zip(trials.table["stimulus"], trials.table["run"], strict=True), half_labels(trials, "run"), strict=True)
    )
    assert [half["s0", run] for run in "02"] == [0, 1] and [half["s1", run] for run in "123"] == [0, 1, 0]
    assert half["s2", "1"] == -1 and [half["s3", run] for run in "0123"] == [0, 1, 0, 1]
    assert split_halves(trials, "run").stimuli == ["s0", "s1", "s3", "s4", "s5"]


def only_in(trials, shown):
    """The trials of each stimulus in its own runs alone: stimulus -> runs, as one text."""
    rows = [row.run in shown[row.stimulus] for row in trials.table.itertuples()]
    return select_trials(trials, np.array(rows))


def test_a_fold_is_in_one_half_wherever_every_stimulus_has_both(make_trials):
    # In the table's order, which is that of s0; s1's own first run is in the second half.
    trials = only_in(make_trials(n_stimuli=3, n_runs=6), {"s0": "012345", "s1": "134", "s2": "25"})
    assert np.array_equal(half_labels(trials, "run"), trials.table["run"].astype(int) % 2)
    assert not halves_share_folds(trials, "run")
    # Two runs in each half are more than s1 has, and s2: theirs do not count.
    assert np.array_equal(half_labels(trials, "run", 2), half_labels(trials, "run"))
    odd = only_in(make_trials(n_stimuli=3, n_runs=6), {"s0": "012345", "s1": "135", "s2": "25"})
    assert halves_share_folds(odd, "run")
    few = only_in(make_trials(n_stimuli=3, n_runs=6), {"s0": "012345", "s1": "0135", "s2": "25"})
    assert not halves_share_folds(few, "run") and halves_share_folds(few, "run", 2)
    own = half_labels(few, "run", 2)[(few.table["stimulus"] == "s1").to_numpy()]
    assert own.tolist() == [0, 1, 0, 1]


def test_halves_of_means_or_of_one_fold_are_refused(make_trials):
    trials = make_trials()
    with pytest.raises(ValueError, match="the responses are means over repetitions, which cannot be split into halves"):
        half_labels(replace(trials, averaged=True), "run")
    with pytest.raises(ValueError, match="no stimulus was measured in two runs, so there are no halves to compare"):
        split_halves(select_trials(trials, np.arange(24) < 6), "run")


def test_reliable_voxels_are_those_whose_responses_repeat(make_trials):
    trials = make_trials(n_stimuli=30, n_runs=6, noise=0.5)
    responses = trials.responses.copy()
    responses[:, 10:] = np.random.default_rng(1).normal(size=(len(responses), 10))
    trials = replace(trials, responses=responses)
    names = [f"s{k}" for k in range(30)]
    reliability = voxel_reliability(trials, "run", names)
    halves = split_halves(trials, "run")
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(halves.first.T, halves.second.T, strict=True)]
    np.testing.assert_allclose(reliability, expected)
    assert reliability[:10].min() > 0.8 > 0.6 > np.abs(reliability[10:]).max()
    chosen = select_voxels(trials, 0.7, "run", names)
    assert np.array_equal(chosen.responses, responses[:, :10])
    assert chosen.notes == ("10 of 20 voxels chosen: split-half reliability at least 0.7 over 30 stimuli",)
    some = select_voxels(trials, 0.7, "run", [*names[:20], "never shown"])
    assert some.notes[0].endswith("over 20 stimuli (of the 21 listed)")


def test_voxels_are_chosen_on_the_given_stimuli_alone(make_trials):
    """What is measured of the other stimuli has no say, whatever it is."""
    trials = make_trials(n_stimuli=20, noise=2.0)
    training = [f"s{k}" for k in range(12)]
    others = ~trials.table["stimulus"].isin(training).to_numpy()
    changed = trials.responses.copy()
    changed[others] = np.random.default_rng(5).normal(size=changed[others].shape) ** 3
    for values in (changed, np.where(others[:, None], 1e6, trials.responses)):
        one, other = (
            select_voxels(replace(trials, responses=r), 0.3, "run", training) for r in (trials.responses, values)
        )
        assert one.responses.shape == other.responses.shape and 2 <= one.responses.shape[1] < 20
        assert np.array_equal(one.responses[~others], other.responses[~others])
    with_all = select_voxels(replace(trials, responses=changed), 0.3, "run", [f"s{k}" for k in range(20)])
    assert not np.array_equal(with_all.responses[0], select_voxels(trials, 0.3, "run", training).responses[0])


def test_selection_that_leaves_nothing_is_told(make_trials):
    trials = make_trials()
    names = [f"s{k}" for k in range(6)]
    with pytest.raises(ValueError, match=r"0 of 20 voxels reach a reliability of 1.0, the best has 0.\d\d; lower"):
        select_voxels(trials, 1.0, "run", names)
    with pytest.raises(
        ValueError, match="2 of the 3 stimuli for voxel selection were measured in two runs; expected at"
    ):
        voxel_reliability(trials, "run", ["s1", "s2", "other"])


def test_responses_whose_squares_are_infinite_are_refused(make_trials):
    trials = make_trials()
    assert drop_bad_voxels(replace(trials, responses=trials.responses * 1e90)).responses.shape == trials.responses.shape
    with pytest.raises(
        ValueError, match=r"subject 'sub-01', roi 'IT': responses of up to .*e\+200, whose squares are inf"
    ):
        drop_bad_voxels(replace(trials, responses=trials.responses * 1e200))
