"""Data specs: what a file may say, and where data are looked for."""

from pathlib import Path

import pytest
import yaml

from brainrdl.data import DataSpec, data_root, load_spec, schema, spec_names

BUILT_IN = ("cifar10", "cifar100", "digits", "image_folder", "mnist")


def test_the_built_in_specs_are_listed():
    assert set(BUILT_IN) <= set(spec_names())


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_spec_is_as_the_schema_says(name):
    jsonschema = pytest.importorskip("jsonschema")
    from importlib.resources import files

    values = yaml.safe_load(files("brainrdl.data_specs").joinpath(f"{name}.yaml").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(values, schema())
    assert load_spec(name) == DataSpec.model_validate(values)


@pytest.mark.parametrize(
    ("name", "size", "channels", "n_classes"),
    [
        ("digits", (8, 8), 1, 10),
        ("mnist", (28, 28), 1, 10),
        ("cifar10", (32, 32), 3, 10),
        ("cifar100", (32, 32), 3, 100),
    ],
)
def test_the_built_in_specs_say_what_the_data_sets_are(name, size, channels, n_classes):
    spec = load_spec(name)
    assert (spec.name, spec.format, spec.size, spec.channels) == (name, name, size, channels)
    assert len(set(spec.classes)) == n_classes
    assert spec.source.publisher and spec.source.url.startswith("http") and spec.source.licence and spec.source.citation


def test_the_schema_tells_every_key_and_allows_no_other():
    told = schema()
    assert set(told["properties"]) == set(DataSpec.model_fields)
    assert told["additionalProperties"] is False
    assert set(told["required"]) == {"name", "format"}


FOLDER = {"name": "pets", "format": "image_folder", "folder": "pictures"}


def spec_file(folder, values):
    file = folder / "pets.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values), "utf-8")
    return file


def test_an_image_folder_lies_relative_to_its_own_spec(tmp_path, monkeypatch):
    file = spec_file(tmp_path, FOLDER)
    assert Path(load_spec(file).folder) == tmp_path.resolve() / "pictures"
    monkeypatch.chdir(tmp_path)
    assert load_spec("pets.yaml") == load_spec(file)
    elsewhere = tmp_path / "elsewhere"
    assert load_spec(spec_file(tmp_path, FOLDER | {"folder": str(elsewhere)})).folder == str(elsewhere)


def test_a_folder_of_images_is_a_spec_too(tmp_path):
    (tmp_path / "my pets").mkdir()
    spec = load_spec(tmp_path / "my pets")
    assert (spec.name, spec.format, spec.size) == ("my_pets", "image_folder", None)
    assert Path(spec.folder) == (tmp_path / "my pets").resolve()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (FOLDER | {"chanels": 1}, "chanels: unknown key; did you mean 'channels'"),
        (FOLDER | {"zzz": 1}, "zzz: unknown key; known: channels, classes, files, folder"),
        (FOLDER | {"source": {"license": "MIT"}}, "source.license: unknown key; did you mean 'licence'"),
        ({"format": "image_folder", "folder": "x"}, "name: missing"),
        (FOLDER | {"format": "tiff"}, "format: input should be 'digits', 'mnist'.*, got 'tiff'"),
        (FOLDER | {"size": [0, 8]}, "size.0: input should be greater than 0, got 0"),
        (FOLDER | {"size": [8, 4097]}, "size.1: input should be less than or equal to 4096, got 4097"),
        (FOLDER | {"size": [8]}, "size.1: missing; add it"),
        (FOLDER | {"size": 8}, "size: .* got 8"),
        (FOLDER | {"channels": 4}, "channels: input should be 1 or 3, got 4"),
        (FOLDER | {"name": "a/b"}, "name: string should match pattern .* got 'a/b'"),
        (
            FOLDER | {"classes": ["cat"]},
            "classes: an image_folder's classes are the names of its subfolders; leave it out",
        ),
        ({"name": "d", "format": "digits", "classes": ["a"]}, "size: format 'digits' needs it"),
        ({"name": "d", "format": "mnist", "size": [28, 28]}, "classes: format 'mnist' needs it"),
        (
            "name: d\nformat: mnist\nsize: [28, 28]\nclasses: [yes]",
            "classes.0: input should be a valid string, got True",
        ),
        ("- a\n- b", "expected 'key: value' lines, got a list"),
        ("", "expected 'key: value' lines, got an empty file"),
        ("name: [a", "not valid YAML in line"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML in line 1: could not determine a constructor"),
    ],
)
def test_a_wrong_spec_is_refused_by_file_and_field(values, message, tmp_path):
    with pytest.raises(ValueError, match=f"pets.yaml.*{message}") as raised:
        load_spec(spec_file(tmp_path, values))
    assert "\n" not in str(raised.value)


def test_a_name_that_is_nothing_gets_the_nearest_and_all(tmp_path):
    with pytest.raises(
        ValueError, match=r"'mnits' is no file, no folder and no built-in; did you mean 'mnist'. built in:"
    ):
        load_spec("mnits")
    with pytest.raises(
        ValueError, match=r"is no file, no folder and no built-in; built in: cifar10, cifar100, digits,"
    ):
        load_spec(tmp_path / "nothing.yaml")


def test_data_are_looked_for_where_the_environment_says_else_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINRDL_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("BRAINRDL_DATA", "~/data")
    assert data_root() == Path.home() / "data"
    monkeypatch.delenv("BRAINRDL_DATA")
    assert "brainrdl" in str(data_root()) and data_root().is_absolute()
