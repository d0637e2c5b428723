"""The text of a configuration file becomes a Config, or every problem in it with line and column.

The file is walked along the types of config.py and each value is converted on its own, so that one mistake
does not hide the next. Rules across fields come last (config_check.py) and leave out what failed here.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.core.config import Config
from penstock.core.config_check import check
from penstock.core.config_places import Path, Places, Reading, label
from penstock.core.config_problem import ConfigError, Problem
from penstock.core.config_types import (
    constraints,
    expected,
    is_section,
    item_type,
    parser_of,
    plain,
    shown,
    word_for,
)
from penstock.core.nearest import suggestion

_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE = re.compile(r"Cannot (?:declare|overwrite|mutate).*")


class Document(msgspec.Struct, frozen=True):
    """A configuration without problems, and where each key of it stands in the file."""

    file: str
    config: Config
    places: Places

    def error(self, wrong: Mapping[Path, str]) -> ConfigError:
        """Problems that only the world can show, each at its value."""
        return ConfigError(self.file, (self.places.at_value(path, message) for path, message in wrong.items()))


def read_config(text: str, file: str) -> Document:
    """Read and check a configuration; messages call it `file`. Raises ConfigError with all problems."""
    raw = _parse(text, file)
    reader = _Reader(raw, _places(text, file))
    config = reader.section((), raw, Config)
    reading = Reading(config=config, places=reader.places, failed=frozenset(reader.failed))
    problems = [*reader.problems, *check(reading)]
    if problems:
        raise ConfigError(file, problems)
    return Document(file=file, config=config, places=reader.places)


def _parse(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(file, [_syntax_problem(str(error), text)]) from None
    except RecursionError:
        raise ConfigError(file, [Problem(1, 1, "tables or arrays are nested too deeply")]) from None


def _places(text: str, file: str) -> Places:
    """A second parser finds the places; what only it refuses must not pass for read."""
    try:
        return Places.of(text)
    except ValueError as error:
        words = str(error).strip().rpartition("\n")[2]
        raise ConfigError(file, [Problem(1, 1, f"not valid TOML: {words}")]) from None


def _syntax_problem(message: str, text: str) -> Problem:
    """tomllib names the place in its message's last words."""
    lines = text.split("\n")
    place = _TOML_PLACE.search(message)
    if place is None:
        return Problem(1, 1, f"not valid TOML: {message}")
    words = message[: place.start()]
    line, column = (int(place[1]), int(place[2])) if place[1] else (len(lines), len(lines[-1]) + 1)
    if _TWICE.fullmatch(words):
        written = lines[line - 1]
        return Problem(line, len(written) - len(written.lstrip()) + 1, "this key or table is written twice")
    return Problem(line, column, f"not valid TOML: {words}")


class _Reader:
    """One walk over one file; gathers problems on its way. What could not be read is UNSET."""

    def __init__(self, raw: Mapping[str, Any], places: Places) -> None:
        self.raw = raw
        self.places = places
        self.problems: list[Problem] = []
        self.failed: set[Path] = set()

    def value(self, path: Path, raw: Any, kind: Any) -> Any:
        """Convert `raw` to the type `kind`."""
        kind = plain(kind)
        if is_section(kind):
            return self.section(path, raw, kind)
        if (item := item_type(kind)) is not None:
            return self.items(path, raw, kind, item)
        if (parse := parser_of(kind)) is not None:
            return self.text(path, raw, parse)
        return self.leaf(path, raw, kind)

    def section(self, path: Path, raw: Any, kind: type[Any]) -> Any:
        if isinstance(raw, str) and kind.shorthand:
            raw = {kind.shorthand: raw}
        if not isinstance(raw, dict):
            either = "a string or " if kind.shorthand else ""
            return self.fail(path, f"must be {either}a table, not {word_for(raw)}")
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for key in raw.keys() - fields.keys():
            self.unknown(path, key, fields)
        values = {key: self.value((*path, key), raw[key], field.type) for key, field in fields.items() if key in raw}
        good = {key: value for key, value in values.items() if value is not msgspec.UNSET}
        needed = [key for key, field in fields.items() if field.required]
        for key in needed:
            if key not in raw:
                self.missing(path, key)
        return kind(**good) if all(key in good for key in needed) else msgspec.UNSET

    def items(self, path: Path, raw: Any, kind: Any, item: Any) -> Any:
        """An array, or a table of named things."""
        holder = dict if expected(kind) == "a table" else list
        if not isinstance(raw, holder):
            return self.fail(path, f"must be {expected(kind)}, not {word_for(raw)}")
        if not raw and (constraints(kind).min_length or 0) > 0:
            return self.fail(path, "must not be empty")
        if isinstance(raw, dict):
            named = {key: self.value((*path, key), value, item) for key, value in raw.items() if self.name(path, key)}
            return {key: value for key, value in named.items() if value is not msgspec.UNSET}
        values = [self.value((*path, index), value, item) for index, value in enumerate(raw)]
        return msgspec.UNSET if msgspec.UNSET in values else tuple(values)

    def text(self, path: Path, raw: Any, parse: Any) -> Any:
        """A string with a form of its own, such as an address."""
        if not isinstance(raw, str):
            return self.fail(path, f"must be a string, not {word_for(raw)}")
        try:
            return parse(raw)
        except ValueError as error:
            return self.fail(path, str(error), joint=": ")

    def leaf(self, path: Path, raw: Any, kind: Any) -> Any:
        try:
            value = msgspec.convert(raw, kind)
        except msgspec.ValidationError:
            return self.fail(path, f"must be {expected(kind, raw)}")
        group = (constraints(kind).extra or {}).get("refers_to")
        if group and value:
            self.refers(path, group, value)
        return value

    def refers(self, path: Path, group: str, name: str) -> None:
        known = self.raw.get(group, {})
        if isinstance(known, dict) and name not in known:
            self.fail(path, f"names {shown(name)}, but there is no {label((group, name))}{suggestion(name, known)}")

    def name(self, path: Path, name: str) -> bool:
        if name and name.isprintable() and name == name.strip():
            return True
        words = "must not be empty" if not name else "must not have outer spaces or control characters"
        self.problems.append(self.places.at_key((*path, name), f"a name in {label(path)} {words}"))
        return False

    def unknown(self, path: Path, key: str, fields: Mapping[str, Any]) -> None:
        where = f"in {label(path)}" if path else "at the top level"
        known = suggestion(key, fields) or f"; there are {', '.join(fields)}"
        self.problems.append(self.places.at_key((*path, key), f"unknown key {shown(key)} {where}{known}"))

    def missing(self, path: Path, key: str) -> None:
        self.failed.add((*path, key))
        self.problems.append(self.places.at_key(path, f'{label(path)} needs "{key}"'))

    def fail(self, path: Path, words: str, joint: str = " ") -> Any:
        self.failed.add(path)
        self.problems.append(self.places.at_value(path, f"{_subject(path)}{joint}{words}"))
        return msgspec.UNSET


def _subject(path: Path) -> str:
    """How a message calls a value: its key, or its key and place in the array."""
    *_, last = path
    return last if isinstance(last, str) else f"{_subject(path[:-1])}[{last}]"
