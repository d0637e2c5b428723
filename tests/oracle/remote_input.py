"""The obvious search for references to input elsewhere: a walk over all that a JSON parser built."""

from typing import Any

from oracle.peek import Object, parse


def remote_input(body: bytes) -> bool:
    found = parse(body)
    return found is None or is_remote_body(found) or any(is_remote(*member) for member in members(found))


def is_remote_body(body: Object) -> bool:
    for key, value in body.members:
        if key in ("previous_response_id", "conversation") and is_reference(value):
            return True
        if key == "prompt" and has_id(value):
            return True
        if key == "input" and any(is_untyped_item(item) for item in inside(value)):
            return True
    return False


def is_remote(key: str, value: Any) -> bool:
    if key.endswith("url"):
        return any(isinstance(item, str) and not item.startswith("data:") for item in inside(value))
    if key == "file_id":
        return is_reference(value)
    if key == "audio":
        return has_id(value)
    return key in ("type", "role") and "item_reference" in inside(value)


def is_reference(value: Any) -> bool:
    return has_id(value) or any(isinstance(item, str) for item in inside(value))


def has_id(value: Any) -> bool:
    return any(
        isinstance(item, Object) and any(key == "id" and is_text(inner) for key, inner in item.members)
        for item in inside(value)
    )


def is_text(value: Any) -> bool:
    return any(isinstance(item, str) for item in inside(value))


def is_untyped_item(item: Any) -> bool:
    if not isinstance(item, Object):
        return False
    kinds = [value for key, value in item.members if key in ("type", "role")]
    return any(key == "id" for key, _ in item.members) and not any(isinstance(kind, str) for kind in kinds)


def inside(value: Any) -> list[Any]:
    """The value, or all that is in it if it is an array of arrays."""
    return [found for item in value for found in inside(item)] if isinstance(value, list) else [value]


def members(value: Any) -> list[tuple[str, Any]]:
    """Those of all objects inside."""
    if isinstance(value, list):
        return [member for item in value for member in members(item)]
    if isinstance(value, Object):
        return value.members + [member for _, item in value.members for member in members(item)]
    return []
