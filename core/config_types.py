"""The types of config.py seen from the file: what a value may be, said in words."""

import json
import math
import types
from collections.abc import Callable, Mapping
from datetime import date, time
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from penstock.core.config_section import Section
from penstock.core.nearest import suggestion

_WORDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a string"),
    (dict, "a table"),
    (list, "an array"),
    ((date, time), "a date or time"),
)
_LONGEST_SHOWN = 40


def plain(kind: Any) -> Any:
    """The type without None: absence is never written in TOML."""
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        return next(choice for choice in get_args(kind) if choice is not types.NoneType)
    return kind


def base(kind: Any) -> Any:
    """The type without its constraints."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def constraints(kind: Any) -> msgspec.Meta:
    return next((note for note in get_args(kind)[1:] if isinstance(note, msgspec.Meta)), msgspec.Meta())


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def item_type(kind: Any) -> Any:
    """The type of the values in an array or a table of named things, None for any other type."""
    match get_origin(base(kind)), get_args(base(kind)):
        case origin, (item, *_) if origin is tuple:
            return item
        case origin, (_, item) if origin is Mapping:
            return item
    return None


def parser_of(kind: Any) -> Callable[[str], Any] | None:
    """For types that are written as strings with a form of their own: what reads them."""
    return getattr(kind, "parse", None)


def word_for(raw: Any) -> str:
    """What a value is, without showing it: it might be a secret in the wrong place."""
    return next((word for kind, word in _WORDS if isinstance(raw, kind)), "something else")


def expected(kind: Any, raw: Any = None) -> str:
    """What a value must be, and with `raw` also what it is instead: `an integer, not a string`."""
    meta, kind = constraints(kind), base(kind)
    if get_origin(kind) is Literal:
        return _one_of(get_args(kind), raw) + _hint(meta)
    if get_origin(kind) in (tuple, Mapping):
        return "an array" if get_origin(kind) is tuple else "a table"
    if meta.description:
        return meta.description
    if not _fits(kind, raw):
        return f"{dict(_WORDS)[kind]}, not {word_for(raw)}"
    if meta.min_length and not raw:
        return "a string that is not empty"
    if meta.max_length is not None:
        return f"a string of at most {meta.max_length} characters"
    return f"{_range(meta)}, not {shown(raw)}"


def _fits(kind: Any, raw: Any) -> bool:
    kinds = (int, float) if kind is float else (kind,)
    return isinstance(raw, kinds) and (kind is bool or not isinstance(raw, bool))


def _one_of(choices: tuple[str, ...], raw: Any) -> str:
    words = ", ".join(f'"{choice}"' for choice in choices)
    must = words if len(choices) == 1 else f"one of {words}"
    if not isinstance(raw, str):
        return f"{must}, not {word_for(raw)}"
    return f"{must}, not {shown(raw)}{suggestion(raw, choices)}"


def _range(meta: msgspec.Meta) -> str:
    if meta.le is None:
        return f"at least {meta.ge:g}"
    return f"from {meta.ge} to {meta.le}"


def _hint(meta: msgspec.Meta) -> str:
    hint = (meta.extra or {}).get("hint")
    return f"; {hint}" if hint else ""


def shown(raw: Any) -> str:
    """A value on one line, cut if it is long."""
    if isinstance(raw, float) and not math.isfinite(raw):
        return str(raw)
    text = json.dumps(raw, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
