"""Specs of the published layouts, changed as a test needs."""

import pytest

from brainrdl.fmri.spec import BrainSpec, load_brain_spec


@pytest.fixture
def spec():
    """A function: the built-in spec of a name, with other `data` and `rois`."""

    def changed(name, rois=None, **data):
        raw = load_brain_spec(name).model_dump(exclude_unset=True)
        raw["data"] = {**raw["data"], **data}
        if rois is not None:
            raw["rois"] = rois
        return BrainSpec.model_validate(raw)

    return changed
