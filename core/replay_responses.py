"""/v1/responses: a stream's events as one whole response, and a whole response as the sequence of typed events."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from penstock.core.replay_responses_items import Numbered, item_events
from penstock.core.replay_wire import Fields, NotConvertibleError, chunks, decode, encode

_ENDS = ("response.completed", "response.incomplete", "response.failed")


def whole_of(body: bytes) -> bytes:
    """The response a stream ends with. Raises NotConvertibleError."""
    items: dict[int, Any] = {}
    for each in chunks(body):
        kind = each.get("type")
        if kind == "response.output_item.done":
            items[each.get("output_index", len(items))] = each.get("item")
        if kind in _ENDS and isinstance(response := each.get("response"), dict):
            # Some servers end with a response whose output only the events before have told.
            output = response.get("output") or [items[index] for index in sorted(items)]
            return encode({**response, "output": output})
    raise NotConvertibleError("a stream that is not whole")


def stream_of(body: bytes, include_usage: bool = False) -> list[bytes]:
    """The events of a whole response. Raises NotConvertibleError."""
    response = decode(body)
    output = response.get("output")
    status = response.get("status")
    if response.get("object") != "response" or not isinstance(output, list) or f"response.{status}" not in _ENDS:
        raise NotConvertibleError("not a whole response")
    return list(_events(response, output, f"response.{status}"))


def _events(response: Fields, output: list[Fields], end: str) -> Iterator[bytes]:
    numbered = Numbered(count())
    began = _begun(response)
    yield numbered("response.created", response=began)
    yield numbered("response.in_progress", response=began)
    for index, item in enumerate(output):
        yield from item_events(numbered, index, item)
    yield numbered(end, response=response)


def _begun(response: Fields) -> Fields:
    """As it was while nothing had been said."""
    begun: Fields = {"status": "in_progress", "output": [], "output_text": ""}
    begun |= dict.fromkeys(("usage", "error", "incomplete_details", "completed_at"))
    return {**response, **{name: value for name, value in begun.items() if name in response}}
