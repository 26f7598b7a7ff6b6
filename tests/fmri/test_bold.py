"""From BOLD files and events to trials."""

import numpy as np
import pandas as pd
import pytest

from brainrdl.fmri.read import read_trials
from brainrdl.fmri.spec import BrainSpec


def test_every_condition_has_a_row_a_run(bold_set):
    spec, _ = bold_set()
    trials = read_trials(spec, "sub-01", "all")
    assert trials.responses.shape == (12, 24) and trials.notes == () and not trials.averaged
    assert trials.table["run"].tolist() == ["1"] * 4 + ["2"] * 4 + ["3"] * 4 and set(trials.table["session"]) == {""}
    assert sorted(trials.table["stimulus"][:4]) == list("abcd")
    assert trials.residuals.values.shape == (240, 24) and trials.residuals.dof == 3 * (80 - 8)


def test_single_trials_have_a_row_each(bold_set):
    spec, _ = bold_set(model="lsa")
    trials = read_trials(spec, "sub-01", "all")
    assert len(trials.table) == 24 and trials.table["stimulus"].value_counts().tolist() == [6] * 4
    assert trials.residuals.dof == 3 * (80 - 12)
    spec, _ = bold_set(model="lss")
    assert read_trials(spec, "sub-01", "all").residuals is None


def test_voxels_constant_or_nan_in_one_run_are_dropped_in_all_and_counted(bold_set):
    def change(series, run):
        series[0, 0, 0] = 0  # outside of the head
        if run == 2:
            series[1, 0, 0, 5] = np.nan
        if run == 3:
            series[2, 0, 0] = 7

    spec, _ = bold_set(change=change)
    trials = read_trials(spec, "sub-01", "all")
    assert trials.notes == ("1 with NaN and 2 constant of 24 voxels dropped",)
    assert trials.responses.shape == (12, 21) and np.isfinite(trials.responses).all()
    assert trials.residuals.values.shape == (240, 21)


def test_too_few_usable_voxels_are_told(bold_set):
    def change(series, run):
        series[1:] = 0
        series[0, 1:] = 0
        series[0, 0, 1] = np.nan

    spec, _ = bold_set(change=change)
    with pytest.raises(
        ValueError, match=r"run-1_bold.nii.gz, roi 'all': 1 usable of 24 voxels \(1 with NaN and 22 constant\)"
    ):
        read_trials(spec, "sub-01", "all")


def test_voxels_that_no_run_has_in_common_are_told(bold_set):
    def change(series, run):
        series.reshape(24, -1)[8 * (run - 1) : 8 * run] = 0

    spec, _ = bold_set(change=change)
    with pytest.raises(ValueError, match=r"subject 'sub-01', roi 'all': 0 usable of 24 voxels \(24 constant\)"):
        read_trials(spec, "sub-01", "all")


def test_the_run_that_has_nothing_is_named(bold_set, save_volume):
    def change(series, run):
        series[...] = np.nan if run == 2 else series

    spec, folder = bold_set(change=change)
    with pytest.raises(ValueError, match=r"run-2_bold.nii.gz, roi 'all': 0 usable of 24 voxels \(24 with NaN\)"):
        read_trials(spec, "sub-01", "all")
    save_volume(folder / "run-1_bold.nii.gz", np.ones((4, 3, 2), np.float32))
    with pytest.raises(ValueError, match=r"run-1_bold.nii.gz: expected a time series, got 1 volume; set format: betas"):
        read_trials(spec, "sub-01", "all")


def test_a_scan_interval_that_is_not_the_images_own_is_told(bold_set):
    spec, _ = bold_set(t_r=1.9)
    assert read_trials(spec, "sub-01", "all").notes == (
        "t_r is 1.9 s by the spec, 2 s by the images' header: the spec's is taken",
    )
    spec, _ = bold_set(t_r=2.0)
    assert read_trials(spec, "sub-01", "all").notes == ()


def write_confounds(folder, n_rows=80, **columns):
    generator = np.random.default_rng(1)
    table = pd.DataFrame({"x": generator.normal(size=n_rows), "y": generator.normal(size=n_rows)}).astype(object)
    for name, values in columns.items():
        table[name] = values
    for run in (1, 2, 3):
        table.to_csv(folder / f"run-{run}_confounds.tsv", sep="\t", index=False)


def test_confounds_are_read_and_missing_values_said(bold_set):
    spec, folder = bold_set(confounds="run-{run}_confounds.tsv", confounds_columns=["x", "y"])
    write_confounds(folder, other=["text"] * 80)
    trials = read_trials(spec, "sub-01", "all")
    assert trials.residuals.dof == 3 * (80 - 10) and trials.notes == ()
    write_confounds(folder, x=["n/a", *range(79)])
    assert read_trials(spec, "sub-01", "all").notes == ("n/a in confounds replaced by the column's mean",)


def test_confounds_that_do_not_fit_are_told(bold_set):
    spec, folder = bold_set(confounds="run-{run}_confounds.tsv")
    for columns, message in (
        ({"n_rows": 79}, "run-1_confounds.tsv: 79 rows for 80 scans; expected a row a scan"),
        (
            {"z": ["text"] * 80},
            r"z in line 2 is .text.; expected a number or n/a; choose columns with confounds_columns",
        ),
        ({"z": ["n/a"] * 80}, "the column 'z' has no number in it"),
        ({"z": ["inf"] * 80}, "run-1_confounds.tsv: the column 'z' has infinite values; write n/a"),
    ):
        write_confounds(folder, **columns)
        with pytest.raises(ValueError, match=message):
            read_trials(spec, "sub-01", "all")
    spec, folder = bold_set(confounds="run-{run}_confounds.tsv", confounds_columns=["x", "w"])
    write_confounds(folder)
    with pytest.raises(ValueError, match="the column 'w' is missing; it has: x, y"):
        read_trials(spec, "sub-01", "all")


def test_events_past_the_end_of_the_run_are_told(bold_set):
    spec, folder = bold_set(n_scans=80)
    events = pd.read_csv(folder / "run-2_events.tsv", sep="\t")
    events.loc[3, "onset"] = 160
    events.to_csv(folder / "run-2_events.tsv", sep="\t", index=False)
    with pytest.raises(
        ValueError, match=r"run-2_events.tsv: onset 160 s in line 5 lies past the end of the run \(160 s\)"
    ):
        read_trials(spec, "sub-01", "all")


def test_files_that_are_missing_or_do_not_fit_are_told(bold_set, save_volume):
    spec, folder = bold_set(runs=["1", "2", "4"])
    with pytest.raises(ValueError, match=r"no image file .*run-4_bold.nii.gz"):
        read_trials(spec, "sub-01", "all")
    spec, folder = bold_set()
    (folder / "run-3_events.tsv").unlink()
    with pytest.raises(ValueError, match=r"no events file .*run-3_events.tsv"):
        read_trials(spec, "sub-01", "all")
    spec, folder = bold_set()
    save_volume(folder / "run-2_bold.nii.gz", np.ones((4, 4, 2, 80), np.float32))
    with pytest.raises(ValueError, match=r"run-2_bold.nii.gz lies in another space than roi 'all'"):
        read_trials(spec, "sub-01", "all")
    spec, folder = bold_set(images="sub_{subject}_{run}.nii", events="sub_{subject}_{run}.tsv")
    with pytest.raises(ValueError, match=r"no file is named .* for subject 'sub-01'"):
        read_trials(spec, "sub-01", "all")


def test_surfaces_need_to_be_told_the_scan_interval(bold_set):
    spec, folder = bold_set(images="{hemi}_run-{run}.npy")
    generator = np.random.default_rng(0)
    for hemi in "LR":
        np.save(folder / f"{hemi}.npy", np.ones(6))
        for run in (1, 2, 3):
            np.save(folder / f"{hemi}_run-{run}.npy", 100 + generator.normal(size=(80, 6)))
    rois = {"all": {"mask": "{hemi}.npy"}}
    raw = spec.model_dump(exclude_unset=True)
    surface = type(spec).model_validate({**raw, "rois": rois})
    with pytest.raises(ValueError, match=r"L_run-1.npy does not tell the seconds from scan to scan; set data.t_r"):
        read_trials(surface, "sub-01", "all")
    surface = type(spec).model_validate({**raw, "rois": rois, "data": {**raw["data"], "t_r": 2.0}})
    assert read_trials(surface, "sub-01", "all").responses.shape == (12, 12)


def test_unknown_subjects_regions_and_stimuli_are_told(bold_set):
    spec, folder = bold_set()
    with pytest.raises(ValueError, match="small: no subject '2'; the spec has: sub-01"):
        read_trials(spec, "2", "all")
    with pytest.raises(ValueError, match="small: no roi 'V1'; the spec has: all"):
        read_trials(spec, "sub-01", "V1")
    (folder / "stimuli.tsv").write_text("stimulus\na\nb\nC\n")
    listed = type(spec).model_validate({**spec.model_dump(exclude_unset=True), "stimuli": {"table": "stimuli.tsv"}})
    with pytest.raises(
        ValueError,
        match=r"2 stimuli of subject 'sub-01' are not in the stimulus table, the first is 'c', run '1'; .*'C'",
    ):
        read_trials(listed, "sub-01", "all")


def test_seconds_from_scan_to_scan_are_seconds(bold_set, save_volume):
    spec, folder = bold_set(t_r=2000)
    with pytest.raises(
        ValueError, match=r"small: data.t_r is 2000 s; expected 0.01 to 100 s .not milliseconds.: correct"
    ):
        read_trials(spec, "sub-01", "all")
    spec, folder = bold_set(n_runs=1)
    series = np.random.default_rng(0).normal(1000, 20, (4, 3, 2, 80)).astype(np.float32)
    save_volume(folder / "run-1_bold.nii.gz", series, t_r=1e-6)
    with pytest.raises(ValueError, match=r"run-1_bold.nii.gz: the time from scan to scan is 1e-06 s; expected 0.01 to"):
        read_trials(spec, "sub-01", "all")
    raw = spec.model_dump(exclude_unset=True)
    for key in ("t_r", "high_pass"):
        with pytest.raises(ValueError, match=f"{key}"):
            BrainSpec.model_validate({**raw, "data": {**raw["data"], key: float("inf")}})


@pytest.mark.parametrize("cell", ["1_000", "0x10", "1,5", "True"])
def test_a_confound_is_a_number_as_others_write_it(cell, bold_set):
    spec, folder = bold_set(n_runs=1, confounds="run-{run}_confounds.tsv")
    values = ["0.5", "n/a", cell, *map(str, range(77))]
    (folder / "run-1_confounds.tsv").write_text("\n".join(["x", *values]) + "\n")
    with pytest.raises(ValueError, match=f"run-1_confounds.tsv: x in line 4 is '{cell}'; expected a number or n/a"):
        read_trials(spec, "sub-01", "all")
