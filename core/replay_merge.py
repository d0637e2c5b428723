"""Growing one answer out of the chunks of a stream: what is joined, what is replaced, what is counted by index."""

from typing import Any

from penstock.core.replay_wire import Fields

# What a stream says once, or again and again: never in pieces.
_NAMES = frozenset({"id", "type", "role", "name", "object", "format", "call_id"})


def grow(held: Fields, news: Fields, *, join: bool = True) -> None:
    """Take the fields of one more chunk. join: its texts are pieces; else the later one stands for the earlier."""
    for key, value in news.items():
        before = held.get(key)
        if before is None:
            held[key] = _fresh(value)
        elif value is not None:
            held[key] = _grown(key, before, value, join)


def _fresh(value: Any) -> Any:
    """What is grown later must be no part of the chunk it came with."""
    if isinstance(value, dict):
        made: Fields = {}
        grow(made, value)
        return made
    if not isinstance(value, list):
        return value
    return _by_index([], value) if _has_indexes(value) else list(value)


def _grown(key: str, before: Any, value: Any, join: bool) -> Any:
    match before, value:
        case str(), str() if join and key not in _NAMES:
            return before + value
        case str(), str() if key in _NAMES:
            return before or value
        case dict(), dict():
            grow(before, value, join=join)
            return before
        case list(), list() if _has_indexes(value):
            return _by_index(before, value)
        case list(), list():
            return before + value
    # An empty value says nothing new.
    return value if value not in ("", {}, []) else before


def _has_indexes(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(each, dict) and isinstance(each.get("index"), int) for each in values)


def _by_index(held: list[Any], news: list[Any]) -> list[Any]:
    """Members that say which they are, in their order."""
    places = {each["index"]: each for each in held if isinstance(each, dict) and isinstance(each.get("index"), int)}
    for each in news:
        grow(places.setdefault(each["index"], {}), each)
    return [places[index] for index in sorted(places)]
