"""Ways to damage settings and YAML text, for the generators of fuzz_files.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import yaml

LONG = "x" * 5000
# Values that somebody's file may hold where another is expected. Nothing that is right only in a giant's machine.
ODD: tuple[Any, ...] = (
    *(None, True, False, "", " ", "none", "null", "yes", "~", "0", "1", "1.0", "nan", "-1", "1e400"),
    *(0, 1, -1, 2, -(2**31), 2**31, 2**63, 2**64, -(2**70), 10**30, 10**400),
    *(0.0, -0.5, 0.3, 1e-300, 5e-324, 1e300, float("nan"), float("inf"), float("-inf")),
    *([], {}, [[]], [None], [1, 2, 3], {"a": 1}, {"a": {"b": {"c": 1}}}, [1, "two", None], [0, 0], [-1, -1], [1e9]),
    *("../..", "/", "/etc/passwd", ".", "..", "~", "~root", "a/b", "C:\\data", "file:///etc/passwd", "-", "--help"),
    *(
        "nein",
        "Grüße",
        "日本",
        "\u202eabc",
        "a\nb",
        "a\tb",
        "\x1b[31mred",
        "\x00",
        "\ud7ff",
        "{number}",
        "{0}",
        "{x!r:9999}",
    ),
    *("os:system", "os.path:join", "builtins:eval", "torchvision:", "timm:", "torchvision:nothing", "timm:nothing"),
    *("%s%s%n", "<script>alert(1)</script>", "$(id)", "'; --", "[bold]", "[/]", LONG),
)


class Mutated(NamedTuple):
    """value: the settings, changed. words: keys near the change, of which a message must name one."""

    value: Any
    words: tuple[str, ...]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in nested settings but the whole."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in inside for place in ((*path, key), *places(inner, (*path, key)))]


def pick(generator: np.random.Generator, values: Any) -> Any:
    """One of the values."""
    return values[int(generator.integers(len(values)))]


def misspelt(generator: np.random.Generator, word: str) -> str:
    """The word with a letter taken away, doubled, changed or put elsewhere."""
    at = int(generator.integers(len(word))) if word else 0
    before, letter, after = word[:at], word[at : at + 1], word[at + 1 :]
    return pick(
        generator,
        [
            before + after,
            before + letter * 2 + after,
            before + "q" + after,
            after + before + letter,
            word.upper(),
            word + " ",
        ],
    )


def mutate(generator: np.random.Generator, settings: dict[str, Any]) -> Mutated:
    """The settings with one thing in them changed, at any depth."""
    changed = copy.deepcopy(settings)
    path = pick(generator, places(changed))
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    words = [str(one) for one in path if isinstance(one, str)][-2:]
    how = pick(generator, ["value"] * 5 + ["misspelt", "unknown", "gone", "nested", "swapped", "listed", "odd key"])
    if how == "value":
        parent[key] = copy.deepcopy(pick(generator, ODD))
    elif how == "nested":
        inner: Any = 1
        for _ in range(int(generator.integers(1, 120))):
            inner = {"a": inner} if generator.random() < 0.5 else [inner]
        parent[key] = inner
    elif how == "listed":
        parent[key] = [parent[key]] * int(generator.integers(1, 4))
    elif how == "swapped":
        other = pick(generator, places(settings))
        value: Any = settings
        for one in other:
            value = value[one]
        parent[key] = copy.deepcopy(value)
    elif isinstance(parent, list) or how == "gone":
        del parent[key]
    elif how == "unknown":
        new = pick(
            generator, ["colour", "x", "epoch", "Epochs", "", " ", "name.x", "self", "__class__", "model_config"]
        )
        parent[new] = copy.deepcopy(pick(generator, ODD))
        words.append(new)
    elif how == "odd key":
        new = pick(generator, [1, 0.5, None, True, -(2**70), float("nan"), "é" * 40, "a: b", "\x1b[1m", LONG])
        parent[new] = parent.pop(key)
        words.append(str(new)[:50])
    else:
        new = misspelt(generator, str(key))
        parent[new] = parent.pop(key)
        words.append(new)
    return Mutated(changed, tuple(word for word in words if word.strip()) or ("key", "name"))


_LAUGHS = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 8)}]\n" for k in range(1, 12)
)
_LAUGHING_MAPS = "m0: &m0 {x: 1}\n" + "".join(
    f"m{k}: &m{k} {{{', '.join(f'k{j}: *m{k - 1}' for j in range(8))}}}\n" for k in range(1, 12)
)
# Lines that do not belong into settings, and what YAML makes of some.
_LINES = (
    *(
        "training: &t {epochs: *t}",
        "x: &x [*x]",
        "name: *nothing",
        "<<: 5",
        "<<: [1, 2]",
        "<<: {name: other}",
        "? [a, b]\n: 1",
    ),
    *("? {a: b}\n: c", "{}: 1", "[]: 1", "~: 1", "1: 2", "1.5: 2", "true: 1", "2026-01-01: 1", "=: 1", "!!null '': 1"),
    *("x: 2026-13-45", "x: 2026-02-30 25:61:61", "x: 1:30:61", "x: 0o17", "x: 017", "x: 0x1F", "x: 1_000", "x: .inf"),
    *("x: !!python/object/apply:os.system ['touch owned']", "x: !!python/name:os.system", "x: !!python/module:os"),
    *(
        "x: !!python/object/new:os.system ['touch owned']",
        "!!python/object:os.x {a: 1}: 1",
        "x: !nothing 5",
        "x: !!int abc",
    ),
    *("x: !!float abc", "x: !!bool maybe", "x: !!timestamp abc", "x: !!binary '*'", "x: !!set {a, b}", "x: !!omap [1]"),
    *(
        "x: !!pairs [a: 1]",
        "x: !!map [1]",
        "x: !!seq {a: 1}",
        "x: !!str {a: 1}",
        "!!binary aGk=: 1",
        "x: !!binary aGk=",
    ),
    *(f"x: {'9' * 5000}", f"x: 0x{'f' * 6000}", f"x: -{'1_' * 3000}1", f"x: {'1:' * 400}1", f"x: 0b{'1' * 20000}"),
    *("x: " + "[" * 1000 + "]" * 1000, "x: " + "[" * 3000, "x: " + "{a: " * 500 + "1" + "}" * 500, "- " * 400 + "x"),
    *(
        "\tx: 1",
        "  x: 1",
        "x:\t1",
        "x: 'a",
        'x: "\\x"',
        'x: "\\ud800"',
        "x: @a",
        "x: `a`",
        "x: %a",
        "x: |\n a\n  b\n c",
        "x: >-9",
    ),
    *("---\nname: second", "...\nname: third", "%YAML 1.1", "%YAML 9.9\n---", "%TAG ! tag:x:", "# only a comment", "x"),
    *(
        _LAUGHS,
        _LAUGHING_MAPS,
        "x: \x00",
        "x: \x07",
        "x: \x85y",
        "\ufeffx: 1",
        "x: \U0001f600",
        f"{LONG}: 1",
        f"x: {LONG * 20}",
    ),
    *(
        "? " + "a" * 2000,
        "x: &a&b 1",
        "x: & 1",
        "x: *",
        "x: !<tag:yaml.org,2002:python/none> 1",
        "x: !! 1",
        "x: {a, b, a}",
    ),
)


def damage_text(generator: np.random.Generator, settings: dict[str, Any]) -> bytes:
    """A file of the settings that is no longer good text, or no longer good YAML."""
    text = dump(settings)
    lines = text.splitlines()
    at = int(generator.integers(len(lines)))
    return pick(generator, _DAMAGES)(generator, text, lines, at)


def dump(settings: Any) -> str:
    """Settings as YAML, in the words of somebody who writes no aliases."""
    return yaml.dump(settings, Dumper=_Plain, sort_keys=False, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _put_line(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    return _encoded("\n".join([*lines[:at], pick(generator, _LINES), *lines[at:]]))


def _end_line(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    return _encoded(text + pick(generator, _LINES) + "\n")


def _first_line(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    return _encoded(pick(generator, _LINES) + "\n" + text)


def _line_alone(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    return _encoded(pick(generator, (*_LINES, "", " ", "\n", "null", "5", "[]", "- a", "a", "'", "{}", "~", "---")))


def _twice(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    return _encoded("\n".join([*lines[: at + 1], *lines[at:]]))


def _indented(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    lines[at] = pick(generator, ["\t", " ", "   "]) + lines[at]
    return _encoded("\n".join(lines))


def _bytes_changed(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    content = bytearray(_encoded(text))
    for _ in range(int(generator.integers(1, 5))):
        content[int(generator.integers(len(content)))] = int(generator.integers(256))
    return bytes(content)


def _letters_changed(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    letters = list(text)
    for _ in range(int(generator.integers(1, 4))):
        letters[int(generator.integers(len(letters)))] = pick(generator, ":{}[]#&*!|>'\"%@`,-?\t\n 0a")
    return _encoded("".join(letters))


def _cut(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    content = _encoded(text)
    return content[: int(generator.integers(len(content)))]


def _other_encoding(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    name = pick(generator, ["utf-16", "utf-32", "utf-16-le", "latin-1", "utf-8-sig", "cp037", "utf-7"])
    return (text + "# Grüße\n").encode(name, "replace")


def _noise(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    return generator.bytes(int(generator.integers(1, 4000)))


def _line_ends(generator: np.random.Generator, text: str, lines: list[str], at: int) -> bytes:
    return _encoded(text.replace("\n", pick(generator, ["\r\n", "\r", "\u2028", "\x85", "\n\n"])))


_Damage = Callable[[np.random.Generator, str, list[str], int], bytes]
_DAMAGES: tuple[_Damage, ...] = (
    *(_put_line, _put_line, _end_line, _end_line, _end_line, _first_line, _line_alone, _twice, _indented),
    *(_bytes_changed, _letters_changed, _letters_changed, _cut, _other_encoding, _noise, _line_ends),
)
TEXT_WORDS = ("line", "UTF-8", "YAML", "key: value", "empty", "too ")
