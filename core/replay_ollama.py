"""Ollama's /api/chat and /api/generate: a stream's lines as one whole answer, and a whole answer as lines.

As its server does it: a whole answer is the last line, with the texts, calls and logprobs of all lines joined.
"""

from collections.abc import Iterator

from penstock.core.replay_wire import Fields, NotConvertibleError, decode, groups, line, lines, pieces

_SAID = ("model", "remote_model", "remote_host", "created_at")
"""What every line says; the rest stands in the last."""


def whole_of_chat(body: bytes) -> bytes:
    """The answer a stream tells. Raises NotConvertibleError."""
    found = lines(body)
    last = found[-1]
    messages = [message for each in found if isinstance(message := each.get("message"), dict)]
    if not messages:
        raise NotConvertibleError("a stream without messages")
    joined = {**messages[-1], "content": _joined(messages, "content")}
    return _whole({**last, "message": _with_rest(joined, messages)}, found)


def whole_of_generate(body: bytes) -> bytes:
    """The answer a stream tells. Raises NotConvertibleError."""
    found = lines(body)
    if not any("response" in each for each in found):
        raise NotConvertibleError("a stream without responses")
    last = _with_rest({**found[-1], "response": _joined(found, "response")}, found)
    return _whole(last, found)


def stream_of_chat(body: bytes, include_usage: bool = False) -> list[bytes]:
    """The lines of a whole answer. Raises NotConvertibleError."""
    answer = decode(body)
    message = answer.get("message")
    if not isinstance(message, dict):
        raise NotConvertibleError("an answer without message")
    role = {"role": message.get("role", "assistant")}
    parts = [
        {"message": {**role, **part}, **told} for part, told in _parts(message, "content", answer.get("logprobs") or [])
    ]
    rest = {name: value for name, value in message.items() if name not in ("content", "thinking", "tool_calls")}
    return _stream(answer, parts, {"message": {**rest, "content": ""}})


def stream_of_generate(body: bytes, include_usage: bool = False) -> list[bytes]:
    """The lines of a whole answer. Raises NotConvertibleError."""
    answer = decode(body)
    if not isinstance(answer.get("response"), str):
        raise NotConvertibleError("an answer without response")
    parts = [{**part, **told} for part, told in _parts(answer, "response", answer.get("logprobs") or [])]
    for name in ("thinking", "tool_calls"):
        answer.pop(name, None)
    return _stream(answer, parts, {"response": ""})


# --- from lines


def _joined(found: list[Fields], name: str) -> str:
    return "".join(each.get(name) or "" for each in found)


def _with_rest(whole: Fields, found: list[Fields]) -> Fields:
    """Beside the text: thinking and calls, where there are any."""
    calls = [call for each in found for call in each.get("tool_calls") or []]
    thinking = _joined(found, "thinking")
    return {**whole, **({"thinking": thinking} if thinking else {}), **({"tool_calls": calls} if calls else {})}


def _whole(last: Fields, found: list[Fields]) -> bytes:
    logprobs = [told for each in found for told in each.get("logprobs") or []]
    return line({**last, "logprobs": logprobs} if logprobs else last).rstrip(b"\n")


# --- to lines


def _parts(said: Fields, name: str, logprobs: list[Fields]) -> Iterator[tuple[Fields, Fields]]:
    """The texts of each line with what it tells of their tokens: thinking, the answer, calls."""
    for piece in pieces(said.get("thinking") or ""):
        yield {name: "", "thinking": piece}, {}
    text = said.get(name) or ""
    if logprobs and "".join(token.get("token", "") for token in logprobs) == text:
        for group in groups(logprobs):
            yield {name: "".join(token["token"] for token in group)}, {"logprobs": group}
    elif logprobs:
        yield {name: text}, {"logprobs": logprobs}
    else:
        for piece in pieces(text):
            yield {name: piece}, {}
    if calls := said.get("tool_calls"):
        yield {name: "", "tool_calls": calls}, {}


def _stream(answer: Fields, parts: list[Fields], nothing: Fields) -> list[bytes]:
    if answer.get("done") is not True:
        raise NotConvertibleError("an answer that is not whole")
    head = {name: answer[name] for name in _SAID if name in answer}
    rest = {name: value for name, value in answer.items() if name != "logprobs"}
    return [*(line({**head, **part, "done": False}) for part in parts), line({**rest, **nothing})]
