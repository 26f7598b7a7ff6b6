"""From a spec to RDMs on disk: what is written, the ceilings, the command."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from rsatoolbox.inference import boot_noise_ceiling
from rsatoolbox.rdm import load_rdm
from typer.testing import CliRunner

from brainrdl import brain_rdms
from brainrdl.brain_rdms import MadeRDMs, make_rdms, measured_patterns, measured_region, measured_trials, summary
from brainrdl.cli import app
from brainrdl.fmri.dissimilarities import crossfitted_rdm, measured_rdm, noise_precision
from brainrdl.fmri.patterns import select_trials, select_voxels
from brainrdl.fmri.spec import BrainSpec
from brainrdl.fmri.trials import Residuals, Trials
from brainrdl.pairs import all_pairs
from brainrdl.rdms import stimulus_ids
from brainrdl.stimuli import Stimuli

SUBJECTS = ("1", "2", "3")


def trials_of(subject, roi, n_stimuli=8, n_runs=4, n_voxels=30):
    """All subjects share the patterns' distances; the noise is each one's own."""
    patterns = np.random.default_rng(0).normal(size=(n_stimuli, 5))
    generator = np.random.default_rng([int(subject), len(roi)])
    true = patterns @ generator.normal(size=(5, n_voxels))
    table = [{"stimulus": f"s{k}", "run": str(r), "session": ""} for r in range(n_runs) for k in range(n_stimuli)]
    responses = np.tile(true, (n_runs, 1)) + 2 * generator.normal(size=(len(table), n_voxels))
    return Trials(responses, pd.DataFrame(table), subject, roi)


@pytest.fixture
def spec(monkeypatch, tmp_path):
    """A spec of three subjects and two regions whose trials are made in memory; a function to change it and them."""

    def make(change=lambda trials: trials, **given):
        monkeypatch.setattr(brain_rdms, "read_trials", lambda spec, subject, roi, root: change(trials_of(subject, roi)))
        raw = {
            "kind": "brain",
            "name": "made",
            "folder": str(tmp_path),
            "data": {"format": "betas", "images": "{subject}.nii", "trials": "{subject}.tsv"},
            "subjects": list(SUBJECTS),
            "rois": {"V1": {"mask": "a.nii"}, "hIT": {"mask": "b.nii"}},
            "noise": "repetitions",
        }
        return BrainSpec.model_validate(raw | given)

    return make


def test_every_subject_and_region_has_an_rdm_a_row_and_a_figure(spec, tmp_path):
    made = make_rdms(spec(), tmp_path / "out" / "made.h5")
    assert [file.name for file in made.files] == ["made.h5", "made.csv", "made.png", "made.pdf"]
    assert all(file.stat().st_size > 1000 for file in made.files[2:])
    stored = load_rdm(str(made.files[0]))
    assert stored.n_rdm == 6 and stored.dissimilarity_measure == "crossnobis"
    np.testing.assert_array_equal(stored.dissimilarities, made.rdms.dissimilarities)
    owners = list(zip(stored.rdm_descriptors["roi"], stored.rdm_descriptors["subject"], strict=True))
    assert owners == [(roi, subject) for roi in ("V1", "hIT") for subject in SUBJECTS]
    for k, (roi, subject) in enumerate(owners):
        expected = crossfitted_rdm(trials_of(subject, roi), "run")
        np.testing.assert_allclose(stored.dissimilarities[k], expected.dissimilarities[0])
    table = pd.read_csv(made.files[1], dtype={"subject": str})
    pd.testing.assert_frame_equal(table.drop(columns="notes"), made.table.drop(columns="notes"), check_dtype=False)
    assert table["n_voxels"].tolist() == [30] * 6 and table["dof"].tolist() == [12] * 6
    assert table["rdm_reliability"].between(0, 1).all() and (table["ceiling_within"] > table["rdm_reliability"]).all()


def test_mahalanobis_takes_one_precision_of_the_repetitions(spec):
    region = measured_region(spec(measure="mahalanobis"), "1", "V1")
    trials = trials_of("1", "V1")
    expected = measured_rdm(trials, "mahalanobis", "run", noise_precision(trials, "repetitions"))
    np.testing.assert_allclose(region.rdms.dissimilarities, expected.dissimilarities)
    halves = [select_trials(trials, trials.table["run"].isin(runs).to_numpy()) for runs in (["0", "2"], ["1", "3"])]
    rdms = [measured_rdm(half, "mahalanobis", "run", noise_precision(half, "repetitions")) for half in halves]
    assert region.quality["rdm_halves"] == pytest.approx(np.corrcoef(*(rdm.dissimilarities[0] for rdm in rdms))[0, 1])


def test_ceilings_between_subjects_are_rsatoolboxs(spec, tmp_path):
    made = make_rdms(spec(), tmp_path / "made.h5", rois=["hIT"])
    low, high = boot_noise_ceiling(made.rdms, method="corr", rdm_descriptor="subject")
    assert made.table["ceiling_low"].mean() == pytest.approx(low)
    assert made.table["ceiling_high"].mean() == pytest.approx(high)
    assert made.table["ceiling_pairs"].tolist() == [28] * 3 and set(made.table["ceiling_comparison"]) == {"corr"}


def test_one_subject_has_no_ceiling_between_subjects(spec, tmp_path):
    made = make_rdms(spec(), tmp_path / "made.h5", subjects=["2"], rois=["V1"])
    assert made.table["ceiling_low"].isna().all() and made.table["ceiling_within"].notna().all()
    assert "no ceiling between subjects: that needs two subjects with the same stimuli" in summary(made)


@pytest.mark.parametrize(("n_rois", "told"), [(12, False), (13, True)])
def test_the_summary_says_that_not_every_region_is_in_the_figure(n_rois, told):
    columns = {"subject": "1", "ceiling_low": 0.5, "notes": ""}
    table = pd.DataFrame({"roi": [f"roi {k}" for k in range(n_rois)]}).assign(**columns)
    line = "the figure shows the first 12 of 13 regions, the table all of them"
    assert (line in summary(MadeRDMs(None, table, ())).splitlines()) == told


def test_stimuli_a_subject_was_not_shown_are_nan(spec, tmp_path):
    def change(trials):
        return select_trials(trials, trials.table["stimulus"].to_numpy() != f"s{trials.subject}")

    made = make_rdms(spec(change), tmp_path / "made.h5", rois=["V1"])
    assert list(made.rdms.pattern_descriptors["stimulus"]) == [f"s{k}" for k in range(8)]
    for k, subject in enumerate(SUBJECTS):
        matrix = made.rdms.get_matrices()[k]
        missing = np.isnan(matrix).sum(0)
        assert missing[int(subject)] == 7 and np.delete(missing, int(subject)).tolist() == [1] * 7
    assert made.table["ceiling_pairs"].tolist() == [10] * 3  # five stimuli were shown to all
    assert made.table["n_stimuli"].tolist() == [7] * 3


def test_means_over_repetitions_have_no_reliability_and_it_is_said(spec, tmp_path):
    made = make_rdms(
        spec(
            lambda t: replace(select_trials(t, np.arange(32) < 8), averaged=True), measure="correlation", noise="none"
        ),
        tmp_path / "made.h5",
    )
    assert "rdm_reliability" not in made.table and made.table["ceiling_low"].notna().all()
    assert all("no reliability, no ceiling within the subject" in note for note in made.table["notes"])
    assert "note: no stimulus was measured in two folds" in summary(made)


def test_few_folds_leave_no_reliability_of_a_crossnobis_rdm(spec):
    quality = measured_region(spec(lambda t: select_trials(t, np.arange(32) < 24)), "1", "V1").quality
    assert np.isnan(quality["rdm_reliability"]) and quality["pattern_reliability"] > 0
    assert "too few folds for the RDMs of two halves, which need at least 4 stimuli, each in 4 runs" in quality["notes"]


REPEATED = frozenset(["s0", "s2", "s3", "s5", "s7"])


def shown_once(trials):
    """The other stimuli stand in one run alone."""
    rows = trials.table["stimulus"].isin(REPEATED) | (trials.table["run"] == "0")
    return replace(select_trials(trials, rows.to_numpy()), repeated_only=REPEATED)


def test_ceilings_and_reliability_are_of_the_repeated_stimuli_alone(spec, tmp_path):
    def alone(trials):
        return select_trials(trials, trials.table["stimulus"].isin(REPEATED).to_numpy())

    settings = {"measure": "correlation", "noise": "none"}
    made = make_rdms(spec(shown_once, **settings), tmp_path / "made.h5", rois=["V1"])
    expected = make_rdms(spec(alone, **settings), tmp_path / "alone.h5", rois=["V1"])
    assert made.rdms.n_cond == 8 and not np.isnan(made.rdms.dissimilarities).any()
    judged = ["pattern_reliability", "rdm_halves", "rdm_reliability", "ceiling_within", "ceiling_low", "ceiling_high"]
    np.testing.assert_allclose(made.table[judged], expected.table[judged])
    assert made.table["ceiling_pairs"].tolist() == [10] * 3 and made.table["n_stimuli"].tolist() == [8] * 3
    assert "note: reliability and ceilings are of 5 of the 8 stimuli, those meant to be repeated" in summary(made)
    # Measured twice or not, the others are not to be judged.
    region = measured_region(spec(lambda t: replace(t, repeated_only=REPEATED), **settings), "1", "V1")
    assert [region.quality[name] for name in judged[:4]] == pytest.approx(expected.table[judged[:4]].iloc[0].tolist())


def test_where_none_was_repeated_there_is_no_ceiling(spec, tmp_path):
    made = make_rdms(
        spec(lambda t: replace(t, repeated_only=frozenset()), measure="correlation", noise="none"), tmp_path / "made.h5"
    )
    assert made.table["ceiling_low"].isna().all() and "rdm_reliability" not in made.table
    assert "no stimulus was measured in two folds" in made.table["notes"][0]


def test_halves_that_disagree_or_share_folds_are_told(spec):
    def noise(trials):
        return replace(trials, responses=np.random.default_rng(3).normal(size=trials.responses.shape))

    region = measured_region(spec(noise), "1", "V1")
    assert region.quality["rdm_halves"] < 0 and np.isnan(region.quality["rdm_reliability"])
    assert "those of two halves disagree (r = -0." in region.quality["notes"]
    assert "are lower estimates: crossnobis gains more" in measured_region(spec(), "1", "V1").quality["notes"]

    def different_runs(trials):
        own = np.where(trials.table["stimulus"] == "s1", trials.table["run"].isin(["0", "2"]), True)
        return select_trials(trials, own)

    told = "stimuli have different runs, so the halves share some: what is common to a run makes their RDMs alike; set"
    plain = {"measure": "euclidean", "noise": "none"}
    assert told in measured_region(spec(different_runs, **plain), "1", "V1").quality["notes"]
    for change, settings in (
        (lambda trials: trials, plain),
        (different_runs, plain | {"zscore": "run"}),
        (different_runs, {"measure": "crossnobis", "noise": "none"}),
    ):
        assert "the halves share" not in measured_region(spec(change, **settings), "1", "V1").quality["notes"]


def with_residuals(trials):
    values = np.random.default_rng(4).normal(size=(200, 30)) @ np.diag(np.linspace(1, 3, 30))
    return replace(trials, residuals=Residuals(values, 190))


def different_runs(trials):
    runs = np.where(trials.table["stimulus"].isin(["s1", "s4"]), trials.table["run"].isin(["0", "3"]), True)
    return select_trials(trials, runs & ~((trials.table["stimulus"] == "s6") & (trials.table["run"] != "1")))


BOLD = {"format": "bold", "images": "{subject}.nii", "events": "{subject}.tsv"}


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (with_residuals, {"measure": "crossnobis", "noise": "residuals", "data": BOLD}),
        (lambda t: with_residuals(different_runs(t)), {"measure": "crossnobis", "noise": "residuals", "data": BOLD}),
        (lambda t: t, {"measure": "crossnobis", "noise": "none", "zscore": "run"}),
        (lambda t: t, {"measure": "correlation", "noise": "none"}),
        (lambda t: t, {"measure": "mahalanobis", "noise": "repetitions"}),
    ],
)
def test_measured_patterns_give_the_rdms_values(change, settings, spec):
    made = spec(change, **settings)
    teacher = measured_patterns(made)
    assert teacher.names == tuple(f"{subject}/{roi}" for roi in ("V1", "hIT") for subject in SUBJECTS)
    assert teacher.unbiased == (settings["measure"] == "crossnobis")
    for name in ("1/V1", "3/hIT"):
        rdms = measured_region(made, *name.split("/")).rdms
        ids = stimulus_ids(rdms)
        stimuli = Stimuli(torch.zeros(len(ids), 1, 1, 1, dtype=torch.float64), ids)
        values = teacher.targets(stimuli, all_pairs(len(ids)))[name].values
        np.testing.assert_allclose(values, rdms.dissimilarities[0], rtol=0, atol=1e-6)
    assert measured_patterns(made, ["2"], ["hIT"]).names == ("2/hIT",)


def test_patterns_that_are_no_teacher_are_refused(spec, tmp_path):
    with pytest.raises(
        ValueError, match=r"made: crossnobis of patterns whitened by their own repetitions is biased; se"
    ):
        measured_patterns(spec())
    with pytest.raises(ValueError, match=r"own: its RDMs are made already, there are no patterns; use MeasuredRDMs"):
        measured_patterns(published(tmp_path))
    with pytest.raises(ValueError, match=r"crossnobis is asked for 3 stimuli that were shown once, the first is 's1'"):
        measured_patterns(spec(shown_once, noise="none"))
    with pytest.raises(ValueError, match="made: no subject '9'; the spec has: 1, 2, 3"):
        measured_patterns(spec(noise="none"), subjects=["9"])


def test_notes_are_told_once_and_of_whom_they_are(spec, tmp_path):
    def change(trials):
        responses = trials.responses.copy()
        responses[:, 0] = responses[:, 0] if trials.subject == "1" else 1
        return replace(trials, responses=responses)

    told = summary(make_rdms(spec(change), tmp_path / "made.h5", rois=["V1"])).splitlines()
    assert "note: noise normalised by the repetitions of other stimuli than those compared" in told
    assert "note: 1 constant of 30 voxels dropped (2 V1, 3 V1)" in told


def test_trials_are_made_ready_as_the_spec_says(spec, tmp_path):
    def change(trials):
        responses = trials.responses.copy()
        responses[:, 0] = 1
        return replace(trials, responses=responses)

    trials = measured_trials(spec(change, zscore="run"), "1", "V1")
    assert trials.responses.shape == (32, 29) and trials.notes[0] == "1 constant of 30 voxels dropped"
    assert trials.responses[:8].mean(0) == pytest.approx(np.zeros(29), abs=1e-12)

    training = [f"s{k}" for k in range(6)]
    (tmp_path / "training.txt").write_text("\n".join(training) + "\n\n")
    listed = spec(voxels={"min_reliability": 0.6, "stimuli": "training.txt"})
    expected = select_voxels(trials_of("1", "V1"), 0.6, "run", training)
    assert np.array_equal(measured_trials(listed, "1", "V1").responses, expected.responses)
    everything = spec(voxels={"min_reliability": 0.6, "stimuli": "all"})
    assert np.array_equal(
        measured_trials(everything, "1", "V1", training_stimuli=training).responses, expected.responses
    )
    assert "over 8 stimuli, all there are" in measured_trials(everything, "1", "V1").notes[-1]
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bytes.txt: expected text in UTF-8 with a stimulus id a line"):
        measured_trials(spec(voxels={"min_reliability": 0.6, "stimuli": "bytes.txt"}), "1", "V1")
    with pytest.raises(
        ValueError, match=r"made: no list of stimuli .*gone.txt; correct voxels.stimuli, or set it to all"
    ):
        measured_trials(spec(voxels={"min_reliability": 0.6, "stimuli": "gone.txt"}), "1", "V1")


def test_what_is_known_of_stimuli_goes_with_the_rdms(spec, tmp_path):
    rows = "".join(f"s{k}\t{'face' if k % 2 else 'house'}\n" for k in reversed(range(9)))
    (tmp_path / "stimuli.tsv").write_text("stimulus\tcategory\n" + rows)
    made = make_rdms(spec(stimuli={"table": "stimuli.tsv"}), tmp_path / "made.h5")
    assert list(made.rdms.pattern_descriptors["category"]) == ["house", "face"] * 4


def test_wrong_requests_are_told(spec, tmp_path):
    with pytest.raises(ValueError, match=r"RDMs are written to HDF5; expected FILE.h5, got '.*made.npy'"):
        make_rdms(spec(), tmp_path / "made.npy")
    with pytest.raises(ValueError, match="made: no roi 'V2'; the spec has: V1, hIT"):
        make_rdms(spec(), tmp_path / "made.h5", rois=["V2"])
    with pytest.raises(ValueError, match="made: no subject '9'; the spec has: 1, 2, 3"):
        make_rdms(spec(), tmp_path / "made.h5", subjects=["1", "9"])
    for what in ("rois", "subjects"):
        with pytest.raises(ValueError, match=f"{what}: none is named; name at least one, or leave {what} out for all"):
            make_rdms(spec(), tmp_path / "made.h5", **{what: []})
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_nothing_is_computed(spec, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("computed")

    made = spec(never)
    (tmp_path / "made.csv").mkdir()
    with pytest.raises(ValueError, match=r"made.csv is a folder; give the name of a file by --out"):
        make_rdms(made, tmp_path / "made.h5")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/made.h5 cannot be written: .*file is no folder; choose another --out"):
        make_rdms(made, tmp_path / "file" / "made.h5")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(ValueError, match=r"other.h5 cannot be written: .* may not be written to; choose another --out"):
        make_rdms(made, tmp_path / "new" / "other.h5")


def published(tmp_path):
    (tmp_path / "stimuli.tsv").write_text("stimulus\na\nb\nc\nd\n")
    matrix = np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0.0]])
    np.save(tmp_path / "it.npy", np.pad(matrix, (0, 1), constant_values=np.nan))
    file = {"file": "it.npy", "descriptors": {"roi": "IT", "subject": "1"}}
    raw = {"kind": "brain", "name": "own", "folder": str(tmp_path), "stimuli": {"table": "stimuli.tsv"}}
    return BrainSpec.model_validate(raw | {"data": {"format": "rdms", "files": [file]}})


def test_published_rdms_count_the_stimuli_they_measured(tmp_path):
    assert make_rdms(published(tmp_path), tmp_path / "out.h5").table["n_stimuli"].tolist() == [3]


def test_published_rdms_are_judged(tmp_path, real_data):
    root = real_data("cichy2014", "kriegeskorte2008")
    made = make_rdms("cichy2014", tmp_path / "cichy.h5", root=root)
    means = made.table.groupby("roi")[["ceiling_low", "ceiling_high"]].mean()
    for roi in ("IT", "EVC"):
        of_roi = made.rdms.subset("roi", roi)
        assert means.loc[roi].tolist() == pytest.approx(list(boot_noise_ceiling(of_roi, "corr", "subject")), abs=1e-9)
    assert means.loc["IT"].round(4).tolist() == [0.4593, 0.5492] and means.loc["EVC"].round(4).tolist() == [
        0.2488,
        0.3998,
    ]
    assert made.table["rdm_reliability"].isna().all()

    sessions = make_rdms("kriegeskorte2008", tmp_path / "2008.h5", subjects=["sub-01", "sub-03"], root=root)
    assert sessions.table["subject"].tolist() == ["sub-01", "sub-01", "sub-03", "sub-03"]
    for k in (0, 2):
        r = np.corrcoef(sessions.rdms.dissimilarities[[k, k + 1]])[0, 1]
        assert sessions.table["rdm_halves"][k] == pytest.approx(r)
        assert sessions.table["rdm_reliability"][k] == pytest.approx(2 * r / (1 + r))


def test_the_command_writes_and_tells(tmp_path, monkeypatch, real_data):
    monkeypatch.setenv("BRAINRDL_DATA", str(real_data("cichy2014", "kriegeskorte2008")))
    out = tmp_path / "it.h5"
    done = CliRunner().invoke(
        app, ["rdms", "cichy2014", "--out", str(out), "--subjects", "sub-01,sub-02", "--rois", "IT"]
    )
    assert done.exit_code == 0 and "sub-02  IT correlation" in done.output and f"written: {out}" in done.output
    assert load_rdm(str(out)).n_rdm == 2
    wrong = CliRunner().invoke(app, ["rdms", "cichy2014", "--out", str(out), "--rois", "V1"])
    assert wrong.exit_code == 2 and "no RDM has roi 'V1'; there are: IT, EVC" in wrong.output
    unknown = CliRunner().invoke(app, ["rdms", "cichi2014", "--out", str(out)])
    assert unknown.exit_code == 2 and "did you mean 'cichy2014'" in unknown.output
