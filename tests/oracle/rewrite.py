"""The obvious rewrite: the body as a JSON parser built it, with the changes applied to what it built."""

from typing import Any

from oracle.peek import Number, Object


def rewritten(body: Object, model: str | None, ask_usage: bool, cap_name: str, cap: int) -> Object:
    members = [(key, model if key == "model" and model is not None else value) for key, value in body.members]
    changed = Object(members)
    if ask_usage:
        set_nested(changed, "stream_options", "include_usage", True)
    if cap_name == "options.num_predict":
        set_nested(changed, "options", "num_predict", Number(str(cap)))
    elif cap_name:
        set_member(changed, cap_name, Number(str(cap)))
    return changed


def set_member(container: Object, name: str, value: Any) -> None:
    """The last member of that name, or a new one at the end."""
    places = [place for place, (key, _) in enumerate(container.members) if key == name]
    if places:
        container.members[places[-1]] = (name, value)
    else:
        container.members.append((name, value))


def set_nested(container: Object, outer: str, inner: str, value: Any) -> None:
    found = container.last(outer)
    changed = Object(list(found.members)) if isinstance(found, Object) else Object([])
    set_member(changed, inner, value)
    set_member(container, outer, changed)
