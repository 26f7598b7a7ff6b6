"""Settings from YAML: the first mistake, told with file, field, what was expected and what came."""

import os
from datetime import date
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from brainrdl.settings import MAX_DEPTH, dump_yaml, naming, plain, read_value, read_yaml, validate


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
    size: tuple[int, int] = (1, 1)
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
    read = validate(Training, read_yaml(tmp_path / "x.yaml"), "x.yaml")
    assert read.optimizer.learning_rate == 1e-3  # which YAML itself takes for a word
    assert read.layers[0].kernel_size == 5


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
        ({"epochs": 1, "size": [8]}, "size.1: missing; add it"),
        ({"epochs": 1, 1.5: 2}, "1.5: a key is text; put it in quotes"),
        ({"epochs": 1, "optimizer": {date(2001, 2, 3): 2}}, "optimizer.2001-02-03: a key is text; put it in quotes"),
        ({"epochs": 1, "size": []}, "size.0: missing; add it"),
        (
            {"epochs": 1, "x" * 999: 2},
            f"{'x' * 57}...: unknown key; known: batch_size, by_name, epochs, layers, names, optimizer, other, "
            "schedule, size",
        ),
        (
            {"epochs": 1, "a\x1b\nb": 2},
            "a\\x1b\\nb: unknown key; known: batch_size, by_name, epochs, layers, names, optimizer, other, schedule, "
            "size",
        ),
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
        ({"zzz": 2}, "zzz", "known: batch_size, by_name, epochs, layers, names, optimizer, other, schedule, size"),
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
        ("a: 1\n<<: 5\n", "not valid YAML in line 2: '<<' merges settings (key: value), or a list of them"),
        ("a: 1\n<<: [{b: 1}, 5]\n", "not valid YAML in line 2: '<<' merges settings (key: value), or a list of them"),
        ("a: 1\nb: 2026-13-45\n", "not valid YAML in line 2: '2026-13-45' is no timestamp (month must be in 1..12)"),
        ("a: !!int many\n", "not valid YAML in line 1: 'many' is no int ("),
        ("a: !!bool perhaps\n", "not valid YAML in line 1: 'perhaps' is no bool ("),
        (f"a: {'9' * 5000}\n", "not valid YAML in line 1: '9999999999"),
        (f"a: 0x{'f' * 5000}\n", "not valid YAML in line 1: a number of thousands of digits"),
        ('a: 1\nb: "x\\0y"\n', "not valid YAML in line 2: text with the character '\\x00'"),
        ('a: "\\x1b[31m"\n', "not valid YAML in line 1: text with the character '\\x1b'"),
        ('a: "\\ud800"\n', "not valid YAML in line 1: text with the character '\\ud800'"),
        ("a: \x07\n", "not valid YAML: special characters are not allowed"),
        ("a: &a\n- 1\n- *a\n", "not valid YAML in line 3: an alias stands inside what it stands for"),
        ("a: &a {b: *a}\n", "not valid YAML in line 1: an alias stands inside what it stands for"),
        ("a: " + "[" * 3000, "not valid YAML in line 1: nested more than 50 deep, or more than 100,000 values"),
        ("a: [" + "1, " * 100_001 + "]", "nested more than 50 deep, or more than 100,000 values"),
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
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ValueError, match=r"pipe.yaml: expected a YAML file, got a device or a pipe"):
        read_yaml(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("# much\n" * 200_000)
    with pytest.raises(ValueError, match=r"large.yaml: expected a file of settings, got more than 1 MiB; name another"):
        read_yaml(tmp_path / "large.yaml")
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


def test_aliases_are_counted_as_often_as_they_stand_somewhere():
    """A "billion laughs": eleven lines that stand for 8^11 values."""
    lists = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
        f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 8)}]\n" for k in range(1, 12)
    )
    merged = "m0: &m0 {x: 1}\n" + "".join(
        f"m{k}: &m{k}\n  <<: [{', '.join([f'*m{k - 1}'] * 8)}]\n" for k in range(1, 12)
    )
    for text in lists, merged:
        with pytest.raises(ValueError, match=r"in line \d+: nested more than 50 deep, or more than 100,000 values"):
            read_value(text)
    assert read_value("a: &a [1, 2]\nb: [*a, *a]\n") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_depth_counts_through_aliases():
    """Each line is shallow, but stands for one level more than the line before."""
    lines = ["a0: &a0 [1]", *(f"a{k}: &a{k} [*a{k - 1}]" for k in range(1, 200))]
    assert len(read_value("\n".join(lines[: MAX_DEPTH - 5]))) == MAX_DEPTH - 5
    with pytest.raises(ValueError, match=f"nested more than {MAX_DEPTH} deep"):
        read_value("\n".join(lines))


@pytest.mark.parametrize("key", ["x", "learning_rate"])  # Python keeps one object for all texts of one letter
def test_own_keys_go_before_merged_ones_and_the_first_of_a_list_before_the_others(key):
    """Also where what was merged into is merged elsewhere before it is read."""
    text = f"base: &a {{{key}: 1}}\ndeep: {{er: &b {{<<: *a, {key}: 2}}}}\nlast: {{<<: *b, y: 3}}\n"
    assert read_value(text) == {"base": {key: 1}, "deep": {"er": {key: 2}}, "last": {key: 2, "y": 3}}
    lists = f"a: &a {{{key}: 1}}\nb: &b {{{key}: 2, y: 2}}\nc: {{<<: [*a, *b], z: 3}}\nd: {{z: 3, <<: [*b, *a]}}\n"
    assert read_value(lists)["c"] == {key: 1, "y": 2, "z": 3}
    assert read_value(lists)["d"] == {key: 2, "y": 2, "z": 3}


def test_a_mark_of_byte_order_is_no_key(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfname: a\n")
    assert read_yaml(tmp_path / "x.yaml") == {"name": "a"}


def test_what_stands_in_messages_is_short_and_of_one_line():
    assert plain("a\nb\x1b[31m\u202eü", 100) == "a\\nb\\x1b[31m\\u202eü"
    assert plain("x" * 100, 10) == "xxxxxxx..."
    assert plain("x" * 10, 10) == "x" * 10


def test_messages_name_the_file():
    assert naming("epochs: wrong", "my.yaml") == "my.yaml: epochs: wrong"
    assert naming("my.yaml: epochs: wrong", "my.yaml") == "my.yaml: epochs: wrong"
    assert naming("--set x: wrong", "my.yaml") == "--set x: wrong"
    assert naming("runs/a is in use", "my.yaml", "runs/a") == "runs/a is in use"
    assert naming("held out: few", "my.yaml", "out", "") == "my.yaml: held out: few"
    assert naming("wrong", "") == "wrong"


# YAML's own line ends and what no YAML file may hold are left out.
_words = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], max_codepoint=0xD7FF), max_size=12)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | _words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(_words, _values, max_size=5))
def test_settings_are_read_as_they_were_written(value):
    assert read_value(dump_yaml(value)) == value


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=60) | st.text("[]{}:,-&*!|>'\"%@`?# \n\tab01<=~.", max_size=60))
def test_any_text_is_a_value_or_refused_in_words_of_one_line(text):
    try:
        read_value(text)
    except ValueError as error:
        assert ": " in str(error)
        assert plain(str(error), 500) == str(error)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"epochs": True}, "epochs"),
        ({"epochs": 1, "optimizer": {"learning_rate": True}}, "optimizer.learning_rate"),
        ({"epochs": 1, "by_name": {"a": {"kernel_size": False}}}, "by_name.a.kernel_size"),
        ({"epochs": 2, "size": [3, True]}, "size.1"),
    ],
)
def test_yes_and_no_are_no_numbers(raw, field):
    with pytest.raises(ValueError, match=rf"my.yaml: {field}: expected a number, got yes or no .*; write the number"):
        validate(Training, raw, "my.yaml")


def test_yes_and_no_stay_where_they_belong():
    class Switch(Strict):
        on: bool
        either: int | bool = 0
        anything: dict[str, object] = {}

    raw = {"on": True, "either": False, "anything": {"a": [True, {"b": False}]}}
    assert validate(Switch, raw, "my.yaml").model_dump() == raw
