"""Events in BIDS form: what is read, what is refused."""

import pytest

from brainrdl.fmri.events import read_events

HEAD = "onset\tduration\ttrial_type\tstim_file\n"


def write(folder, text):
    path = folder / "events.tsv"
    path.write_text(text, "utf-8")
    return path


def test_events_come_in_order_of_onset_without_what_is_ignored(tmp_path):
    path = write(
        tmp_path,
        HEAD + "20\t2\tcat\timages/cat 1.png\n4.5\t0\trest\tn/a\n0\t2\t007\timages/7.v2.png\n-2\t1\tcat\tb/c.jpg\n",
    )
    events = read_events(path, 30, ignore=["rest"])
    assert events["onset"].tolist() == [-2, 0, 20] and events["duration"].tolist() == [1, 2, 2]
    assert events["stimulus"].tolist() == ["cat", "007", "cat"]
    by_file = read_events(path, 30, "stim_file", ignore=["n/a"], file_ids=True)
    assert by_file["stimulus"].tolist() == ["c", "7.v2", "cat 1"]


def test_an_event_may_end_after_the_run_but_not_start_there(tmp_path):
    path = write(tmp_path, HEAD + "0\t2\ta\tx\n29.5\t2\tb\tx\n")
    assert len(read_events(path, 30)) == 2
    with pytest.raises(ValueError, match=r"events.tsv: onset 29.5 s in line 3 lies past the end of the run \(29.5 s\)"):
        read_events(path, 29.5)
    with pytest.raises(ValueError, match=r"onset 4500 s in line 2 .* onsets are in seconds from the first scan"):
        read_events(write(tmp_path, HEAD + "4500\t2\ta\tx\n"), 300)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "events.tsv: expected a table with tabs between its columns"),
        ("onset\ttrial_type\n0\ta\n", "the column 'duration' is missing; it has: onset, trial_type"),
        (HEAD + "0\tn/a\ta\tx\n", "duration in line 2 is 'n/a'; expected a number of seconds"),
        (HEAD + "0\t1\ta\tx\nsoon\t1\ta\tx\n", "onset in line 3 is 'soon'"),
        (HEAD + "0\t1\trest\tx\n1\t1\tn/a\tx\n", r"the event in line 3 has no trial_type \(n/a\); name it, or add n/a"),
        (HEAD + "0\t1\trest\tx\n", "no event is left; the spec ignores: rest"),
        (HEAD, "no event is left"),
        (HEAD + "0\t1\ta\tx\n2\t-1\ta\tx\n", "duration in line 3 is -1 s; expected 0 or more"),
        (HEAD + "-25\t1\ta\tx\n", "onset -25 s in line 2 lies more than 24 s before the first scan"),
        (HEAD + "0\t1\ta\tx\t\n", "events.tsv: its rows have more columns than its heading; take tabs too many away"),
        (HEAD + "0\t1\ta\tx\n2\t1\ta\tx\ty\n", r"expected a table with tabs .* Expected 4 fields in line 3, saw 5"),
        ("onset,duration,trial_type\n0,1,a\n", "expected a table with tabs between its columns, got commas"),
    ],
)
def test_wrong_events_are_told_by_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_events(write(tmp_path, text), 300, ignore=["rest"])


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"no events file .*gone.tsv; correct its name in the spec"):
        read_events(tmp_path / "gone.tsv", 300)
