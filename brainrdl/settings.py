"""Settings read from YAML files, their mistakes told in one short message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

Model = TypeVar("Model", bound=BaseModel)

# Pixels along one side to which images are brought: a mistyped number must not fill the memory with one image.
Side = Annotated[int, Field(gt=0, le=4096)]

MAX_BYTES = 1 << 20  # of a file
MAX_NODES = 100_000  # keys and values, every alias written out
MAX_DEPTH = 50
_MAX_BITS = 4096  # of a whole number; Python refuses to print those of 4300 digits and more
# Half characters, which have no place in UTF-8, and control characters other than tab and line ends.
_NO_TEXT = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# What pydantic calls by Python's names, by its types of mistake.
_KINDS = {
    "tuple_type": "a list such as [...]",
    "list_type": "a list such as [...]",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "settings (key: value)"),
}


class _Loader(yaml.SafeLoader):
    """Refuses what reads as something else than it says, or as much more than the file holds.

    A key that stands twice, of which the first would be lost silently; an alias inside what it stands for; settings
    that are nested too deeply or, every alias written out, too many; numbers of thousands of digits; text with
    characters that no file or message can hold. And whatever else Python cannot make of a value is a mistake of YAML,
    with its line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        # By node: how many it is with all that stands in it, and how deep.
        self._extents: dict[yaml.Node, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        parser: Any = self  # not all of it has types
        mark = parser.peek_event().start_mark
        self._level += 1
        if self._level > MAX_DEPTH or len(self._extents) > MAX_NODES:
            raise _too_large(mark)
        is_alias = self.check_event(yaml.AliasEvent)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._level -= 1
        if node is not None and node not in self._extents:
            if is_alias:
                raise _problem("an alias stands inside what it stands for", mark)
            self._extents[node] = self._extent(node)
        return node

    def _extent(self, node: yaml.Node) -> tuple[int, int]:
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inside = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inside = node.value
        n = 1 + sum(self._extents[part][0] for part in inside)
        depth = 1 + max((self._extents[part][1] for part in inside), default=0)
        if n > MAX_NODES or depth > MAX_DEPTH:
            raise _too_large(node.start_mark)
        return n, depth

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put in what "<<" merges: own keys win over merged ones, and of a list the first mapping over the others.

        As YAML says. PyYAML 6.0.4 lets the last of a list win, and loses own keys of one letter where a mapping that
        merges is itself merged.
        """
        own, merged = [], []
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                own.append((key, value))
                continue
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(part, yaml.MappingNode):
                    raise _problem("'<<' merges settings (key: value), or a list of them", part.start_mark)
                self.flatten_mapping(part)
                merged += part.value
        taken = {_told(key) for key, _ in own}
        inherited = []
        for key, value in merged:
            if _told(key) not in taken:
                taken.add(_told(key))
                inherited.append((key, value))
        node.value = inherited + own

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # dates that are none, "!!int x": Python's own, of many kinds
            raise _problem(
                f"{_short(node.value)} is no {node.tag.rpartition(':')[2]} ({error})", node.start_mark
            ) from None
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise _problem("a number of thousands of digits", node.start_mark)
        if isinstance(value, str) and (odd := _NO_TEXT.search(value)):
            raise _problem(f"text with the character {odd.group()!a}", node.start_mark)
        return value


def _told(key: yaml.Node) -> tuple[str, str]:
    return key.tag, str(key.value)


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if _told(key) in seen:
            raise _problem(f"'{plain(str(key.value), 60)}' stands twice", key.start_mark)
        seen.add(_told(key))


def _problem(text: str, mark: yaml.Mark) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, mark)


def _too_large(mark: yaml.Mark) -> yaml.constructor.ConstructorError:
    return _problem(f"nested more than {MAX_DEPTH} deep, or more than {MAX_NODES:,} values (aliases written out)", mark)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises ValueError naming the file, and the line where it is no YAML."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path}: expected a YAML file, got a device or a pipe")
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path}: expected a file of settings, got more than {MAX_BYTES >> 20} MiB; name another file")
    try:
        value = read_value(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a YAML text file in UTF-8, got bytes that are not") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid YAML{error}; check indentation, colons and quotes") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected 'key: value' lines, got {_kind(value)}")
    return value


def read_value(text: str) -> Any:
    """What a YAML text says. Raises ValueError: " in line 3: what is wrong"."""
    try:
        return yaml.load(text, _Loader)  # nosec B506 # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
        raise ValueError(f"{line}: {plain(problem, 200)}") from None


def dump_yaml(value: Mapping[str, Any]) -> str:
    """The mapping as YAML, its keys in their order."""
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)


def validate(model: type[Model], raw: Mapping[str, Any], file: str, where: str = "") -> Model:
    """The settings in `raw`, checked. Raises ValueError for the first mistake: file, field, expected, received.

    An unknown key is refused with the nearest known one, and yes or no where a number belongs, which Python would count
    as 1 or 0. where: the field that `raw` stands under.
    """
    try:
        settings = model.model_validate(dict(raw))
        counted = _yes_or_no_as_number(raw, settings)
        if counted is not None:
            field = ".".join([*([where] if where else []), *counted])
            raise ValueError(f"{file}: {field}: expected a number, got yes or no (true or false); write the number")
        return settings
    except ValidationError as error:
        # A misspelt key is told before the key that it leaves missing.
        first = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")[0]
        if first["type"] == "invalid_key":  # by pydantic as Python prints it
            location = [*_without_tags(model, raw, first["loc"][:-1]), str(first["input"])]
        else:
            location = _without_tags(model, raw, first["loc"])
        field = ".".join([*([where] if where else []), *(plain(part, 60) for part in location)])
        if first["type"] == "extra_forbidden":
            known = _fields_at(model, location[:-1])
            close = get_close_matches(location[-1], known, n=1)
            nearest = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            message = f"{field}: unknown key; {nearest}"
        elif first["type"] == "invalid_key":
            message = f"{field}: a key is text; put it in quotes"
        elif first["type"] == "missing":
            message = f"{field}: missing; add it"
        else:
            told = first["msg"].removeprefix("Value error, ")
            if first["type"] in _KINDS:
                told = f"Input should be {_KINDS[first['type']]}"
            given = first.get("input")
            # Of settings as a whole the mistake alone is told.
            got = f", got {_short(given)}" if location and not isinstance(given, Mapping) else ""
            if first["type"] == "string_type" and isinstance(given, bool | int | float | date):
                got += "; put it in quotes"
            message = f"{field}: {told[0].lower() + told[1:]}{got}" if field else told
        raise ValueError(f"{file}: {message}") from None


def _yes_or_no_as_number(raw: Any, settings: Any) -> list[str] | None:
    """Where, in settings as they were given, a truth value stands of which a number was made; None: nowhere."""
    if isinstance(raw, bool):
        return [] if isinstance(settings, int | float) and not isinstance(settings, bool) else None
    inside: list[tuple[str, Any, Any]] = []
    if isinstance(raw, Mapping):
        known = settings if isinstance(settings, Mapping) else vars(settings) if hasattr(settings, "__dict__") else {}
        inside = [(str(key), value, known.get(key)) for key, value in raw.items()]
    elif isinstance(raw, list | tuple) and isinstance(settings, list | tuple):
        inside = [(str(k), *pair) for k, pair in enumerate(zip(raw, settings, strict=False))]
    for key, value, made in inside:
        found = _yes_or_no_as_number(value, made)
        if found is not None:
            return [key, *found]
    return None


def _without_tags(model: type[BaseModel], raw: Mapping[str, Any], location: Sequence[str | int]) -> list[str]:
    """The location as it stands in the file: pydantic also names which kind of several was tried ("data.bold.t_r")."""
    kept: list[str] = []
    value: Any = raw
    for k, part in enumerate(location):
        there = part in value if isinstance(value, Mapping) else isinstance(part, int)
        missing = k == len(location) - 1 and isinstance(value, Mapping) and str(part) in _fields_at(model, kept)
        if there or missing or k == 0:
            kept.append(str(part))
        if there:
            is_beyond = (
                isinstance(value, Sequence) and isinstance(part, int) and part >= len(value)
            )  # one that is missing
            value = None if is_beyond else value[part]
    return kept


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """The known keys of the settings at a location, as far as the models tell."""
    models = [model]
    for part in location:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        # A part of the location that is no field is the key of a dict, or the position in a list.
        models = [inner for field in fields for inner in _models_in(field.annotation)] or models
    return sorted({name for m in models for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for part in get_args(annotation) for inner in _models_in(part)]


def _kind(value: Any) -> str:
    return "an empty file" if value is None else f"a {type(value).__name__}"


def _short(value: Any) -> str:
    return plain(repr(value), 60)


def naming(message: str, file: str, *others: str) -> str:
    """The message of a mistake with the file's name before it, unless that stands in it already.

    others: what else may be wrong, such as the folder that is written to: a message that begins with one stays as it
    is, and so does one of an option.
    """
    known = not file or file in message or message.startswith(("--", *filter(None, others)))
    return message if known else f"{plain(file, 100)}: {message}"


def plain(text: str, longest: int) -> str:
    """A text for one line of a message: line ends and other characters that are not shown as in Python, not too long.

    longest: characters; of a longer text the beginning is kept.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: longest + 1])
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."
