"""Brain data specs: the built-in ones, and what is refused."""

from pathlib import Path

import pytest
import yaml

from brainrdl.data import load_spec, spec_names
from brainrdl.fmri.spec import BrainSpec, brain_schema, brain_spec_names, load_brain_spec, spec_folder

BUILT_IN = ("cichy2014", "fmri", "haxby2001", "kriegeskorte2008")


def test_brain_specs_and_image_specs_are_told_apart():
    assert set(BUILT_IN) <= set(brain_spec_names())
    assert not set(brain_spec_names()) & set(spec_names())
    assert "digits" in spec_names()


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_spec_is_as_the_schema_says(name):
    jsonschema = pytest.importorskip("jsonschema")
    from importlib.resources import files

    values = yaml.safe_load(files("brainrdl.data_specs").joinpath(f"{name}.yaml").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(brain_schema())
    jsonschema.validate(values, brain_schema())
    spec = load_brain_spec(name)
    assert spec == BrainSpec.model_validate(values) and spec.name == {"fmri": "my_fmri"}.get(name, name)
    if name != "fmri":
        assert spec.source.licence and spec.source.citation and spec.tested == "on the whole data set"
        assert len({file.path for file in spec.files}) == len(spec.files) >= 2


BOLD = {"format": "bold", "images": "{subject}_{run}.nii.gz", "events": "{subject}_{run}.tsv"}
BETAS = {"format": "betas", "images": "{subject}.nii.gz", "trials": "{subject}.tsv"}
MINIMAL = {"kind": "brain", "name": "own", "subjects": ["1"], "rois": {"V1": {"mask": "v1.nii.gz"}}, "data": BOLD}
RDMS = {
    "kind": "brain",
    "name": "own",
    "stimuli": {"table": "s.tsv"},
    "data": {"format": "rdms", "files": [{"file": "a.npy"}]},
}


def write(folder, values):
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    return path


def test_ones_own_spec_lies_beside_its_data(tmp_path):
    spec = load_brain_spec(write(tmp_path, MINIMAL | {"folder": "data"}))
    assert Path(spec.folder) == tmp_path / "data"
    with pytest.raises(ValueError, match=r"own: no folder .*data; correct 'folder' in the spec"):
        spec_folder(spec)
    (tmp_path / "data").mkdir()
    assert spec_folder(spec, Path("/elsewhere")) == tmp_path / "data"
    assert load_brain_spec(write(tmp_path, RDMS)).measure == "crossnobis"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (MINIMAL | {"mesure": "euclidean"}, "mesure: unknown key; did you mean 'measure'"),
        (
            MINIMAL | {"data": BOLD | {"format": "nifti"}},
            "data: expected format: one of rdms, bold, .* and not 'nifti'",
        ),
        (MINIMAL | {"data": {"images": "{subject}.nii"}}, "data: expected format: one of rdms, bold, .* and not None"),
        (MINIMAL | {"subjects": ["1", "2", "1"]}, "subjects: '1' stands twice; name each once"),
        (MINIMAL | {"hemispheres": ["L", "L"]}, "hemispheres: 'L' stands twice"),
        (MINIMAL | {"hemispheres": []}, "hemispheres: tuple should have at least 1 item"),
        (MINIMAL | {"data": BOLD | {"runs": ["1", "1"]}}, "runs: '1' stands twice"),
        (MINIMAL | {"data": BOLD | {"images": "{subject}_{task}.nii"}}, r"data.images: \{task\} is none of"),
        (MINIMAL | {"data": BOLD | {"images": "{subject"}}, "data.images: expected a path with"),
        (MINIMAL | {"data": BOLD | {"events": "{subject}.tsv"}}, "need the same of"),
        (MINIMAL | {"data": BOLD | {"sessions": ["1"]}}, r"sessions are listed, but images .* has no \{session\}"),
        (MINIMAL | {"data": BETAS | {"trials": "trials.tsv"}}, "need the same of"),
        (MINIMAL | {"rois": {"V1": {}}}, "rois.V1: expected either a mask, or an atlas with labels"),
        (MINIMAL | {"rois": {"V1": {"atlas": "a.nii"}}}, "expected either a mask, or an atlas with labels"),
        (MINIMAL | {"rois": {"V1": {"mask": "a.nii", "labels": [1]}}}, "expected either a mask"),
        (
            {key: value for key, value in MINIMAL.items() if key != "rois"},
            "rois: missing; format 'bold' needs at least one",
        ),
        (
            MINIMAL | {"subjects": ["1", "2"], "data": BOLD | {"images": "{run}.nii", "events": "{run}.tsv"}},
            "2 subjects",
        ),
        (MINIMAL | {"data": BETAS, "noise": "residuals"}, "format 'betas' has no residuals; expected 'repetitions'"),
        (MINIMAL | {"data": BOLD | {"model": "lss"}, "noise": "residuals"}, "lss has a model a trial"),
        (MINIMAL | {"measure": "mahalanobis"}, "mahalanobis needs a noise precision"),
        (MINIMAL | {"measure": "correlation", "noise": "residuals"}, "correlation uses no noise precision"),
        (MINIMAL | {"zscore": "run", "noise": "residuals"}, "zscore: residuals are not z-scored"),
        (
            MINIMAL | {"voxels": {"min_reliability": 2, "stimuli": "all"}},
            "voxels.min_reliability: .* less than or equal to 1",
        ),
        (RDMS | {"noise": "none"}, "noise: RDMs that are made already have no such setting"),
        ({key: value for key, value in RDMS.items() if key != "stimuli"}, "stimuli: missing; RDMs need the list"),
        (
            MINIMAL | {"files": [{"url": "https://x.org/p", "path": "p", "sha256": "12"}]},
            "files.0.sha256: string should match",
        ),
        ({"name": "own"}, "expected a brain data spec with the line 'kind: brain', got kind: None"),
    ],
)
def test_mistakes_are_told_by_file_and_field(tmp_path, values, message):
    with pytest.raises(ValueError, match=message) as told:
        load_brain_spec(write(tmp_path, values))
    assert "own.yaml" in str(told.value)


def test_an_unknown_spec_is_told_with_the_nearest_one():
    with pytest.raises(ValueError, match="'haxby' is no file and no built-in; did you mean 'haxby2001'"):
        load_brain_spec("haxby")


def test_a_brain_spec_is_no_image_spec(tmp_path):
    with pytest.raises(ValueError, match="'haxby2001' is a brain data spec; expected one of images: "):
        load_spec("haxby2001")
    with pytest.raises(ValueError, match=r"own.yaml is a brain data spec \(kind: brain\)"):
        load_spec(write(tmp_path, MINIMAL))
