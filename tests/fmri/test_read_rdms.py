"""RDMs that others made, as specs describe them; the two real sets of 92 objects."""

import numpy as np
import pandas as pd
import pytest
from rsatoolbox.rdm import load_rdm

from brainrdl.fmri.read import read_rdms, read_trials
from brainrdl.fmri.spec import BrainSpec, load_brain_spec


def test_the_2008_rdms_are_those_of_the_prepared_file(real_data):
    root = real_data("kriegeskorte2008")
    rdms = read_rdms(load_brain_spec("kriegeskorte2008"), root)
    expected = load_rdm(str(root / "kriegeskorte2008" / "human_it_rdms.h5"))
    np.testing.assert_allclose(rdms.dissimilarities, expected.dissimilarities, rtol=0, atol=1e-7)
    for name in ("subject", "session"):
        assert list(rdms.rdm_descriptors[name]) == list(expected.rdm_descriptors[name])
    for name in ("stimulus", "category"):
        assert list(rdms.pattern_descriptors[name]) == list(expected.pattern_descriptors[name])
    assert set(rdms.rdm_descriptors["roi"]) == {"IT"} and rdms.dissimilarity_measure == "correlation"


def test_the_2014_rdms_stand_in_their_order_with_the_ids_of_2008(real_data):
    root = real_data("cichy2014", "kriegeskorte2008")
    rdms = read_rdms(load_brain_spec("cichy2014"), root)
    assert rdms.n_rdm == 30 and rdms.n_cond == 92
    for k, (roi, subject) in enumerate(zip(rdms.rdm_descriptors["roi"], rdms.rdm_descriptors["subject"], strict=True)):
        with np.load(root / "cichy2014" / f"fmri_{roi}_RDMs.npz") as file:
            published = file["Net_RDM"][int(subject.removeprefix("sub-")) - 1]
        np.testing.assert_allclose(rdms.get_matrices()[k], published, rtol=0, atol=1e-12)
    other = read_rdms(load_brain_spec("kriegeskorte2008"), root)
    for name in ("stimulus", "category", "animal"):
        assert list(rdms.pattern_descriptors[name]) == list(other.pattern_descriptors[name])


@pytest.fixture
def own(tmp_path):
    """A function: the spec of two RDMs of three stimuli in own.npy, with changes to its file's entry."""
    (tmp_path / "stimuli.tsv").write_text("stimulus\tcategory\nc\t1\na\t2\nb\t1\n")
    np.save(tmp_path / "own.npy", np.array([[1.0, 2, 3], [4, np.nan, 6]]))

    def make(**entry):
        file = {"file": "own.npy", "measure": "euclidean", "descriptors": {"roi": "V1", "subject": ["x", "y"]}, **entry}
        raw = {"kind": "brain", "name": "own", "folder": str(tmp_path), "stimuli": {"table": "stimuli.tsv"}}
        return BrainSpec.model_validate(raw | {"data": {"format": "rdms", "files": [file]}})

    return make


def test_rows_are_the_stimuli_of_the_table(own):
    rdms = read_rdms(own())
    assert list(rdms.pattern_descriptors["stimulus"]) == ["c", "a", "b"]
    assert list(rdms.pattern_descriptors["category"]) == ["1", "2", "1"]
    np.testing.assert_array_equal(rdms.dissimilarities, [[1, 2, 3], [4, np.nan, 6]])
    assert list(rdms.rdm_descriptors["subject"]) == ["x", "y"] and rdms.dissimilarity_measure == "euclidean"


def test_a_file_with_ids_of_its_own_goes_by_them(own, tmp_path):
    rdms = read_rdms(own())
    rdms.sort_by(stimulus="alpha")
    rdms.save(str(tmp_path / "own.h5"), file_type="hdf5", overwrite=True)
    again = read_rdms(own(file="own.h5", measure=None, descriptors={}))
    assert list(again.pattern_descriptors["stimulus"]) == ["c", "a", "b"]
    np.testing.assert_array_equal(again.dissimilarities, [[1, 2, 3], [4, np.nan, 6]])
    assert list(again.rdm_descriptors["roi"]) == ["V1", "V1"]
    (tmp_path / "stimuli.tsv").write_text("stimulus\nC\nA\nB\n")
    for listed, message in (
        (
            "C\nA\nB",
            "3 of the table's are not in it, the first is 'A', 3 of its own .* 'a'; 3 would match after changing",
        ),
        ("c\na\nb\nd", "1 of the table's are not in it, the first is 'd'; list in the table what the RDMs are of"),
        ("c\na", "1 of its own are not in the table, the first is 'b'; list in the table"),
    ):
        (tmp_path / "stimuli.tsv").write_text(f"stimulus\n{listed}\n")
        with pytest.raises(ValueError, match=rf"own.h5: its stimuli are not those of the spec's table: {message}"):
            read_rdms(own(file="own.h5", measure=None, descriptors={}))
    rdms.pattern_descriptors["conds"] = rdms.pattern_descriptors.pop("stimulus")
    rdms.save(str(tmp_path / "own.h5"), file_type="hdf5", overwrite=True)
    with pytest.raises(ValueError, match=r"own.h5: its RDMs have no pattern descriptor 'stimulus' but .*conds.*; give"):
        read_rdms(own(file="own.h5", measure=None, descriptors={}))


def test_a_table_with_ids_goes_by_them_whatever_their_order(own, tmp_path):
    matrix = pd.DataFrame([[0, 1, 2], [1, 0, 3], [2, 3, 0]], list("abc"), list("abc"))
    matrix.to_csv(tmp_path / "own.csv")
    rdms = read_rdms(own(file="own.csv", descriptors={"roi": "V1", "subject": "x"}))
    assert list(rdms.pattern_descriptors["stimulus"]) == ["c", "a", "b"]
    np.testing.assert_array_equal(rdms.dissimilarities, [[2, 3, 1]])
    matrix.to_csv(tmp_path / "own.csv", header=False, index=False)  # numbers alone: in the order of the table
    rdms = read_rdms(own(file="own.csv", descriptors={"roi": "V1", "subject": "x"}))
    np.testing.assert_array_equal(rdms.dissimilarities, [[1, 2, 3]])


def test_wrong_rdm_files_are_told(own, tmp_path):
    with pytest.raises(
        ValueError, match=r"own.npy: it does not say the subject of its RDMs; give descriptors: subject"
    ):
        read_rdms(own(descriptors={"roi": "V1"}))
    with pytest.raises(ValueError, match=r"own.npy: descriptor 'subject': 3 values for 2 RDMs"):
        read_rdms(own(descriptors={"roi": "V1", "subject": ["x", "y", "z"]}))
    with pytest.raises(ValueError, match=r"RDM file '.*gone.npy' is not there"):
        read_rdms(own(file="gone.npy"))
    (tmp_path / "stimuli.tsv").write_text("stimulus\nc\na\n")
    with pytest.raises(ValueError, match=r"own.npy: 3 pairs, which 3 stimuli have, expected .* for 2 stimuli"):
        read_rdms(own())


def test_rdms_and_responses_are_not_mixed_up(own):
    with pytest.raises(ValueError, match="own: there are RDMs only, no responses; read them with read_rdms"):
        read_trials(own(), "x", "V1")
    with pytest.raises(ValueError, match="haxby2001: format 'bold' has no RDMs yet; make them with `brainrdl rdms`"):
        read_rdms(load_brain_spec("haxby2001"))
