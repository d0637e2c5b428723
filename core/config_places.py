"""Where each key and value of a configuration file stands, how messages name a table, and what was read of it."""

import json
import re
from collections.abc import Mapping
from typing import Self

import msgspec

from penstock.core.config import Config
from penstock.core.config_problem import Problem
from penstock.ext import toml_spans

Path = tuple[str | int, ...]
"""The keys from the top of the file down; an index for an element of an array."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Place(msgspec.Struct, frozen=True):
    """Lines and columns, from 1."""

    key_line: int
    key_column: int
    value_line: int
    value_column: int


_START = Place(1, 1, 1, 1)


class Places(msgspec.Struct, frozen=True):
    """The place of every key. What is not written itself has its nearest written parent's place."""

    by_path: Mapping[Path, Place]

    @classmethod
    def of(cls, text: str) -> Self:
        """The places in a valid TOML text."""
        return cls({tuple(path): Place(*place) for path, *place in toml_spans(text)})

    def is_written(self, path: Path) -> bool:
        return path in self.by_path

    def at_key(self, path: Path, message: str) -> Problem:
        place = self._place(path)
        return Problem(place.key_line, place.key_column, message)

    def at_value(self, path: Path, message: str) -> Problem:
        place = self._place(path)
        return Problem(place.value_line, place.value_column, message)

    def _place(self, path: Path) -> Place:
        while path and path not in self.by_path:
            path = path[:-1]
        return self.by_path.get(path, _START)


class Reading(msgspec.Struct, frozen=True):
    """What could be read of a file. Values that could not are in `failed` and have their default here."""

    config: Config
    places: Places
    failed: frozenset[Path]


def label(path: Path) -> str:
    """A table as a header line would name it: [backends.cloud], [models."llama3:8b"]."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            quoted = part if _BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            name += f".{quoted}" if name else quoted
    return f"[{name}]" if name else "the file"
