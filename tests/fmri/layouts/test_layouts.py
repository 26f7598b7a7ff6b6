"""The built-in specs of public data sets, and the table of readers."""

from typing import get_args

import pytest

from brainrdl.fmri.layouts import READERS, read_layout
from brainrdl.fmri.spec import LayoutSettings, load_brain_spec

NAMES = ("algonauts2023", "bold5000", "glmsingle", "nsd", "things_fmri")


def test_every_layout_has_a_reader_and_a_built_in_spec():
    assert set(get_args(LayoutSettings.model_fields["format"].annotation)) == set(READERS) == set(NAMES)
    assert [load_brain_spec(name).data.format for name in NAMES] == list(NAMES)


def test_a_spec_of_no_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="haxby2001: format 'bold' is no published layout"):
        read_layout(load_brain_spec("haxby2001"), tmp_path, "subj1", "vt")


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_says_what_it_was_tried_on_and_where_the_data_come_from(name):
    spec = load_brain_spec(name)
    assert "on small generated files of this layout only, not on the" in spec.tested
    assert spec.instructions and spec.source.url.startswith("https://") and spec.source.citation
    assert spec.files == ()  # terms have to be accepted, or nobody publishes a checksum


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"format": "bold5000", "space": "fsaverage"}, "space: format 'bold5000' has no such setting; leave it out"),
        ({"format": "algonauts2023", "sessions": ("1",)}, "sessions: format 'algonauts2023' has no such setting"),
        ({"format": "things_fmri", "betas": "b3"}, "betas: format 'things_fmri' has no such setting"),
        ({"format": "glmsingle", "outputs": "{subject}"}, "trials: missing; format 'glmsingle' needs it"),
        ({"format": "glmsingle", "trials": "{subject}.tsv"}, "outputs: missing; format 'glmsingle' needs it"),
        ({"format": "nsd", "min_repetitions": 0}, "greater than 0"),
    ],
)
def test_a_setting_of_another_layout_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        LayoutSettings.model_validate(data)


def test_an_unknown_region_gets_the_known_ones(spec, tmp_path):
    from brainrdl.fmri.layouts.selection import known_roi

    with pytest.raises(
        ValueError, match="algonauts2023: roi 'V9' is not in the spec; it has: V1, V2, V3, hV4, ventral"
    ):
        known_roi(spec("algonauts2023"), "V9")
