"""The obvious reader of a reply: the whole body at once, every event parsed by a real JSON parser."""

import math
import re
from dataclasses import dataclass
from typing import Any

from oracle.peek import Number, Object, count, parse, text

CHAT, RESPONSES, MESSAGES, OLLAMA = range(4)
COMPLETE, ERROR = 1, 2
LINE_LIMIT = 4 << 20
COUNT_LIMIT = 2**64 - 1

Counts = tuple[int, int, int, int, float]
"""Prompt, completion, cached, reasoning tokens, seconds."""


@dataclass
class Facts:
    flags: int = 0
    usage: Counts | None = None
    finish_reason: str | None = None


def seconds(value: Any) -> float | None:
    told = float(value.text) if isinstance(value, Number) else math.nan
    return told if 0 <= told < math.inf else None


def get(value: Any, key: str) -> Any:
    return value.last(key) if isinstance(value, Object) else None


def openai_usage(usage: Any, prompt: str, completion: str, heard: float | None = None) -> Counts | None:
    sides = count(get(usage, f"{prompt}_tokens")), count(get(usage, f"{completion}_tokens"))
    if sides == (None, None) and heard is None:
        return None
    cached = count(get(get(usage, f"{prompt}_tokens_details"), "cached_tokens"))
    reasoning = count(get(get(usage, f"{completion}_tokens_details"), "reasoning_tokens"))
    return (sides[0] or 0, sides[1] or 0, cached or 0, reasoning or 0, heard or 0.0)


def chat_usage(answer: Object, duration: Any = None) -> Counts | None:
    usage = answer.last("usage")
    told = seconds(get(usage, "seconds"))
    return openai_usage(usage, "prompt", "completion", seconds(duration) if told is None else told)


ANTHROPIC = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def anthropic_known(usage: Any) -> dict[str, int]:
    counts = {key: count(get(usage, key)) for key in ANTHROPIC}
    return {key: value for key, value in counts.items() if value is not None}


def anthropic_usage(known: dict[str, int]) -> Counts | None:
    if "input_tokens" not in known and "output_tokens" not in known:
        return None
    fresh, output, read, written = (known.get(key, 0) for key in ANTHROPIC)
    return (min(fresh + min(read + written, COUNT_LIMIT), COUNT_LIMIT), output, read, 0, 0.0)


def ollama_usage(line: Object) -> Counts | None:
    sides = count(line.last("prompt_eval_count")), count(line.last("eval_count"))
    return None if sides == (None, None) else (sides[0] or 0, sides[1] or 0, 0, 0, 0.0)


def finish_reasons(answer: Object) -> list[str | None]:
    choices = answer.last("choices")
    return [text(get(choice, "finish_reason")) for choice in choices] if isinstance(choices, list) else []


def events(body: bytes) -> list[tuple[bytes, bytes | None]]:
    """Name and data of every event; None for data with too long a line, which only a whole event may have."""
    found: list[tuple[bytes, bytes | None]] = []
    name, data, spoiled = b"", None, False
    lines = re.split(b"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf"))
    for place, line in enumerate([*lines, b""]):
        if len(line) > LINE_LIMIT:
            spoiled = True
        elif not line:
            cut = spoiled and place >= len(lines) - 1 and name != b"error"
            if (data is not None or name or spoiled) and not cut:
                found.append((name, None if spoiled else data or b""))
            name, data, spoiled = b"", None, False
        else:
            key, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if key == b"data":
                data = value if data is None else data + b"\n" + value
                spoiled = spoiled or len(data) > LINE_LIMIT
            elif key == b"event":
                name = value
    return found


def scan_stream(body: bytes, dialect: int) -> Facts:
    facts = Facts()
    if dialect == OLLAMA:
        for line in body.split(b"\n"):
            if len(line) <= LINE_LIMIT:
                take_ollama(facts, parse(line))
            if facts.flags & COMPLETE:
                break
        return facts
    known: dict[str, int] = {}
    for name, data in events(body):
        if name == b"error":
            facts.flags |= ERROR
        if dialect == CHAT:
            take_chat(facts, data or b"")
        else:
            found = Object([]) if data is None else parse(data)
            names = {name, (text(get(found, "type")) or "").encode()}
            if found is not None and dialect == RESPONSES:
                take_response(facts, names, found)
            elif found is not None:
                take_message(facts, names, found, known)
        if facts.flags & COMPLETE:
            break
    return facts


def take_chat(facts: Facts, data: bytes) -> None:
    if data == b"[DONE]":
        facts.flags |= COMPLETE
    found = parse(data)
    if found is None:
        return
    if found.last("error") is not None:
        facts.flags |= ERROR
    facts.usage = chat_usage(found) or facts.usage
    for reason in finish_reasons(found):
        facts.finish_reason = facts.finish_reason if reason is None else reason


def take_response(facts: Facts, names: set[bytes], found: Object) -> None:
    if names & {b"error", b"response.failed"}:
        facts.flags |= ERROR
    if names & {b"response.completed", b"response.failed", b"response.incomplete"}:
        facts.flags |= COMPLETE
        facts.usage = openai_usage(get(found.last("response"), "usage"), "input", "output")
        facts.finish_reason = text(get(found.last("response"), "status"))


def take_message(facts: Facts, names: set[bytes], found: Object, known: dict[str, int]) -> None:
    if b"error" in names:
        facts.flags |= ERROR
    if b"message_start" in names:
        known |= anthropic_known(get(found.last("message"), "usage"))
    if b"message_delta" in names:
        known |= anthropic_known(found.last("usage"))
        reason = text(get(found.last("delta"), "stop_reason"))
        facts.finish_reason = facts.finish_reason if reason is None else reason
    if b"message_stop" in names:
        facts.flags |= COMPLETE
    facts.usage = anthropic_usage(known)


def take_ollama(facts: Facts, found: Object | None) -> None:
    if found is None:
        return
    if found.last("error") is not None:
        facts.flags |= ERROR
    if found.last("done") is True:
        facts.flags |= COMPLETE
        facts.usage = ollama_usage(found)
        facts.finish_reason = text(found.last("done_reason"))


def scan_answer(body: bytes, dialect: int) -> tuple[bool, Counts | None, str | None] | None:
    """(complete, usage, finish reason)."""
    found = parse(body)
    if found is None:
        return None
    if dialect == CHAT:
        reasons = finish_reasons(found)
        told = [reason for reason in reasons if reason is not None]
        is_completion = any(key == "choices" for key, _ in found.members)
        usage = chat_usage(found, None if is_completion else found.last("duration"))
        return (None not in reasons, usage, told[-1] if told else None)
    if dialect == RESPONSES:
        status = text(found.last("status"))
        usage = openai_usage(found.last("usage"), "input", "output")
        return (status in (None, "completed", "failed", "incomplete"), usage, status)
    if dialect == MESSAGES:
        reason = text(found.last("stop_reason"))
        return (reason is not None, anthropic_usage(anthropic_known(found.last("usage"))), reason)
    return (found.last("done") is not False, ollama_usage(found), text(found.last("done_reason")))


def whole_events(body: bytes) -> tuple[list[bytes], bytes]:
    """The events with their empty lines, and what stands behind the last of these."""
    found, event = [], b""
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", body):
        event += line
        if not line.strip(b"\r\n"):
            found.append(event)
            event = b""
    return found, event


def is_usage_chunk(event: bytes) -> bool:
    lines = [line.partition(b":") for line in re.split(b"\r\n|\r|\n", event)]
    found = parse(b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data"))
    return found is not None and found.last("choices") == [] and isinstance(found.last("usage"), Object)


def without_usage(body: bytes) -> bytes:
    """A chat stream without the chunk that include_usage adds."""
    found, rest = whole_events(body)
    return b"".join(event for event in found if not is_usage_chunk(event)) + rest
