"""A JSON object from the body of a call to us."""

from typing import Any

import msgspec

from penstock.core.errors import InvalidJson


def read_object(body: bytes) -> dict[str, Any]:
    """Raises InvalidJson."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidJson("the body is not valid JSON; a JSON object is needed") from None
    if not isinstance(raw, dict):
        raise InvalidJson("the body must be a JSON object")
    return raw
