"""Settings from YAML: the first mistake, told with file, field, what was expected and what came."""

from datetime import date
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from brainrdl.settings import dump_yaml, read_yaml, validate


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Optimizer(Strict):
    learning_rate: float = Field(0.1, gt=0)
    name: Literal["sgd", "adamw"] = "sgd"


class Layer(Strict):
    kernel_size: int


class Cosine(Strict):
    kind: Literal["cosine"]
    epochs: int = Field(1, ge=1)


class Steps(Strict):
    kind: Literal["steps"]
    at: tuple[int | str, ...]


class Training(Strict):
    epochs: int = Field(ge=1)
    optimizer: Optimizer = Optimizer()
    layers: list[Layer] = []
    by_name: dict[str, Layer] = {}
    other: Layer | None = None
    batch_size: int = 100
    names: tuple[str, ...] = ()
    schedule: Annotated[Cosine | Steps, Field(discriminator="kind")] | None = None

    @model_validator(mode="after")
    def _together(self):
        if self.batch_size == 7:
            raise ValueError("Batches of 7 are not lucky")
        return self


def told(raw, where=""):
    with pytest.raises(ValueError) as error:
        validate(Training, raw, "my.yaml", where)
    assert error.value.__suppress_context__, "one message, no traceback of pydantic's"
    return str(error.value)


def test_what_is_right(tmp_path):
    (tmp_path / "x.yaml").write_text("epochs: 3\noptimizer:\n  learning_rate: 1e-3\nlayers:\n- kernel_size: 5\n")
    settings = validate(Training, read_yaml(tmp_path / "x.yaml"), "x.yaml")
    assert settings.optimizer.learning_rate == 1e-3  # which YAML itself takes for a word
    assert settings.layers[0].kernel_size == 5


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "epochs: missing; add it"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, got 0"),
        ({"epochs": None}, "epochs: input should be a valid integer, got None"),
        ({"epochs": [1] * 60}, "epochs: input should be a valid integer, got [" + 18 * "1, " + "1,..."),
        ({"epochs": 1, "optimizer": {"name": "sdg"}}, "optimizer.name: input should be 'sgd' or 'adamw', got 'sdg'"),
        ({"epochs": 1, "layers": [{"kernel_size": 1}, {}]}, "layers.1.kernel_size: missing; add it"),
        ({"epochs": 1, "names": "one"}, "names: input should be a list such as [...], got 'one'"),
        ({"epochs": 1, "layers": "one"}, "layers: input should be a list such as [...], got 'one'"),
        ({"epochs": 1, "names": ["a", 1]}, "names.1: input should be a valid string, got 1; put it in quotes"),
        ({"epochs": 1, "names": [["a"]]}, "names.0: input should be a valid string, got ['a']"),
        (
            {"epochs": 1, "names": [date(2001, 2, 3)]},
            "names.0: input should be a valid string, got datetime.date(2001, 2, 3); put it in quotes",
        ),
        ({"epochs": 1, "by_name": "one"}, "by_name: input should be settings (key: value), got 'one'"),
        ({"epochs": 1, "by_name": {"a": 1}}, "by_name.a: input should be settings (key: value), got 1"),
        ({"epochs": 1, "names": {"a": 1}}, "names: input should be a list such as [...]"),
        ({"epochs": 1, "schedule": 3}, "schedule: input should be settings (key: value), got 3"),
        (
            {"epochs": 1, "schedule": {"kind": "cosine", "epochs": 0}},
            "schedule.epochs: input should be greater than or equal to 1, got 0",
        ),
        ({"epochs": 1, "schedule": {"kind": "steps"}}, "schedule.at: missing; add it"),
        (
            {"epochs": 1, "schedule": {"kind": "steps", "at": [None]}},
            "schedule.at.0: input should be a valid integer, got None",
        ),
    ],
)
def test_wrong_values(raw, message):
    assert told(raw) == f"my.yaml: {message}"


@pytest.mark.parametrize(
    ("raw", "key", "nearest"),
    [
        ({"epoch": 2}, "epoch", "did you mean 'epochs'?"),
        ({"zzz": 2}, "zzz", "known: batch_size, by_name, epochs, layers, names, optimizer, other, schedule"),
        ({"optimizer": {"lerning_rate": 2}}, "optimizer.lerning_rate", "did you mean 'learning_rate'?"),
        ({"optimizer": {"zzz": 2}}, "optimizer.zzz", "known: learning_rate, name"),
        ({"layers": [{"kernel_siz": 1}]}, "layers.0.kernel_siz", "did you mean 'kernel_size'?"),
        ({"by_name": {"conv": {"kernal_size": 1}}}, "by_name.conv.kernal_size", "did you mean 'kernel_size'?"),
        ({"schedule": {"kind": "steps", "att": 1}}, "schedule.att", "did you mean 'at'?"),
        ({"other": {"kernal_size": 1}}, "other.kernal_size", "did you mean 'kernel_size'?"),
    ],
)
def test_unknown_keys(raw, key, nearest):
    """Told before what they leave missing."""
    assert told({"epochs": 1, **raw}) == f"my.yaml: {key}: unknown key; {nearest}"


def test_a_mistake_of_several_settings_together():
    assert told({"epochs": 1, "batch_size": 7}) == "my.yaml: Batches of 7 are not lucky"


def test_where_the_settings_stand():
    assert told({"epochs": 0}, "methods.rdl") == (
        "my.yaml: methods.rdl.epochs: input should be greater than or equal to 1, got 0"
    )
    assert told({"epochs": 1, "batch_size": 7}, "methods.rdl") == "my.yaml: methods.rdl: batches of 7 are not lucky"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 'key: value' lines, got an empty file"),
        ("- a\n- b\n", "expected 'key: value' lines, got a list"),
        ("just words", "expected 'key: value' lines, got a str"),
        ("a: 1\n  b: 2\n", "not valid YAML in line 2: mapping values are not allowed here; check indentation"),
        ("a: 'open\n", "not valid YAML in line 2: found unexpected end of stream"),
        ("? [a, b]\n: 1\n", "not valid YAML in line 1: found unhashable key"),
        ("a: 1\nb: 2\na: 3\n", "not valid YAML in line 3: 'a' stands twice; check"),
        ("x:\n  a: {c: 1, c: 2}\n", "not valid YAML in line 2: 'c' stands twice; check"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path, text, message):
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"my.yaml: ") as error:
        read_yaml(file)
    assert message in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"none.yaml: cannot be read \(No such file or directory\)"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory\)"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("a: größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.yaml: expected a YAML text file in UTF-8"):
        read_yaml(tmp_path / "latin.yaml")


def test_merge_keys_and_code_in_yaml(tmp_path):
    (tmp_path / "x.yaml").write_text("base: &b {a: 1, c: 2}\nmine:\n  <<: *b\n  a: 5\n")
    assert read_yaml(tmp_path / "x.yaml")["mine"] == {"a": 5, "c": 2}
    (tmp_path / "y.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match=r"y.yaml: not valid YAML in line 1: could not determine a constructor"):
        read_yaml(tmp_path / "y.yaml")


def test_written_in_order_and_read_back(tmp_path):
    value = {"name": "größe", "b": {"z": 1, "a": [0.5, None]}, "a": True}
    (tmp_path / "x.yaml").write_text(dump_yaml(value), "utf-8")
    back = read_yaml(tmp_path / "x.yaml")
    assert back == value
    assert list(back) == list(value)
    assert "größe" in dump_yaml(value)
