"""What whole and streamed answers of /v1/chat/completions and /v1/completions share: head, choices, usage, end mark."""

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any

from penstock.core.replay_merge import grow
from penstock.core.replay_wire import DONE, Fields, NotConvertibleError, chunks, encode, event

# The head of each chunk; what else stands there is the backend's own.
_HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
# Padding of OpenAI's streams, against guessing words by the lengths of chunks.
_PADDING = "obfuscation"

Parts = Callable[[int, Fields], Iterator[Fields]]
"""(index, choice of a whole answer) -> the choices of its chunks, in order."""


def gather(stream: bytes) -> tuple[Fields, list[Fields]]:
    """The head with usage and all else that chunks say beside choices, and the chunks' choices in their order.

    Raises NotConvertibleError.
    """
    head: Fields = {}
    found: list[Fields] = []
    before: Fields = {}
    for chunk in chunks(stream):
        choices = chunk.pop("choices", None) or []
        chunk.pop(_PADDING, None)
        usage = chunk.pop("usage", None)
        # Nearly all chunks of a stream have the same head.
        if chunk != before:
            _take_head(head, chunk)
            before = chunk
        if usage is not None:
            head["usage"] = usage
        found.extend(choices)
    if not found or not all(isinstance(choice, dict) for choice in found):
        raise NotConvertibleError("a stream without choices")
    return head, found


def _take_head(head: Fields, chunk: Fields) -> None:
    # Azure's first chunk has a head of "" and 0.
    for name in _HEAD:
        if name in chunk and not head.get(name):
            head[name] = chunk[name]
    grow(head, {name: value for name, value in chunk.items() if name not in _HEAD}, join=False)


def by_index(found: Iterable[Fields], said: str) -> dict[int, list[Fields]]:
    """The chunks' choices of each choice, in the order of the choices. said: the field for what each says.

    Raises NotConvertibleError.
    """
    gathered: dict[int, list[Fields]] = {}
    for choice in found:
        gathered.setdefault(choice.get("index") or 0, []).append(choice)
    if not all(any(said in choice for choice in parts) for parts in gathered.values()):
        raise NotConvertibleError("a choice that says nothing")
    return dict(sorted(gathered.items()))


def whole(head: Fields, kind: str, choices: list[Fields]) -> bytes:
    """An answer as a backend writes it whole. Raises NotConvertibleError where a choice has no end."""
    _check_ends(choices)
    usage = {"usage": head.pop("usage")} if "usage" in head else {}
    known = {name: head.pop(name) for name in _HEAD[:4] if name in head}
    return encode({**known, "object": kind, "choices": choices, **usage, **head})


def _check_ends(choices: list[Fields]) -> None:
    if not all(choice.get("finish_reason") for choice in choices):
        raise NotConvertibleError("a choice without finish_reason")


def stream(answer: Fields, kind: str, said: str, parts: Parts, include_usage: bool) -> list[bytes]:
    """The events of a whole answer. said: what a choice says, by the name of its field. Raises NotConvertibleError.

    With include_usage every chunk has the field, null but in the last, as OpenAI's have.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not all(said in choice for choice in choices):
        raise NotConvertibleError("an answer without choices")
    _check_ends(choices)
    usage = answer.get("usage")
    rest = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
    # One word is said in every chunk (a provider's name), what is more than that in the last one.
    last = {name: rest.pop(name) for name, value in list(rest.items()) if isinstance(value, dict | list)}
    head = {**rest, "object": kind}
    tail = {"usage": None} if include_usage else {}
    *most, end = _side_by_side([list(parts(choice.get("index", at), choice)) for at, choice in enumerate(choices)])
    framed = _frame(head, tail)
    sent = [framed(part) for part in most]
    sent.append(event({**head, "choices": [end], **last, **tail}))
    if include_usage and usage is not None:
        sent.append(event({**head, "choices": [], "usage": usage}))
    return [*sent, DONE]


def _side_by_side(choices: list[list[Fields]]) -> Iterator[Fields]:
    """The parts of all choices as a backend sends them that makes them at one time, and their ends after all else."""
    for row in zip_longest(*(parts[:-1] for parts in choices)):
        yield from (part for part in row if part is not None)
    yield from (parts[-1] for parts in choices)


def _frame(head: Fields, tail: Fields) -> Callable[[Fields], bytes]:
    """What makes a chunk's event; the head, alike in all, is written once."""
    before = b'data: %b,"choices":[' % encode(head)[:-1]
    after = b'],"usage":null}\n\n' if tail else b"]}\n\n"
    return lambda part: before + encode(part) + after


def without(fields: Fields, *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
