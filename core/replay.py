"""A kept answer in the other kind: what a client would have got that asked the same backend for a stream, or for none.

Bytes that were kept in the kind that is asked for go out as they are; only the other kind is made here. Each dialect
has its file beside this one (core/replay_*.py).
"""

import re
from collections.abc import Callable, Sequence

from penstock.core import (
    replay_chat,
    replay_completions,
    replay_messages,
    replay_ollama,
    replay_responses,
)
from penstock.core.endpoint import Endpoint, Shape
from penstock.core.replay_wire import NotConvertibleError as NotConvertibleError
from penstock.ext import DIALECT_CHAT, DIALECT_MESSAGES, DIALECT_OLLAMA, DIALECT_RESPONSES

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
OLLAMA_CHAT = "/api/chat"
OLLAMA_GENERATE = "/api/generate"

_Whole = Callable[[bytes], bytes]
_Stream = Callable[[bytes, bool], list[bytes]]
_KINDS: dict[tuple[int, str], tuple[_Whole, _Stream]] = {
    (DIALECT_CHAT, CHAT): (replay_chat.whole_of, replay_chat.stream_of),
    (DIALECT_CHAT, COMPLETIONS): (replay_completions.whole_of, replay_completions.stream_of),
    (DIALECT_RESPONSES, RESPONSES): (replay_responses.whole_of, replay_responses.stream_of),
    (DIALECT_MESSAGES, MESSAGES): (replay_messages.whole_of, replay_messages.stream_of),
    (DIALECT_OLLAMA, OLLAMA_CHAT): (replay_ollama.whole_of_chat, replay_ollama.stream_of_chat),
    (DIALECT_OLLAMA, OLLAMA_GENERATE): (replay_ollama.whole_of_generate, replay_ollama.stream_of_generate),
}
# In a text of the model's the quotes would be escaped.
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"([^"\\]+)"')
# What conversions of answers that are not what they should be end in.
_MISSHAPEN = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)


def is_streamed(endpoint: Endpoint, stream: bool | None) -> bool:
    """Whether a request is answered by a stream. stream: the field of that name; None = it says nothing."""
    if (endpoint.dialect, endpoint.route) not in _KINDS:
        return False
    # Ollama streams unless it is told not to.
    return stream is not False if endpoint.shape is Shape.OLLAMA else bool(stream)


def media_of(dialect: int, *, streamed: bool) -> bytes:
    """The Content-Type of an answer that was made here."""
    if dialect == DIALECT_OLLAMA:
        return b"application/x-ndjson" if streamed else b"application/json; charset=utf-8"
    return b"text/event-stream; charset=utf-8" if streamed else b"application/json"


def finishes(dialect: int, body: bytes, told: str | None) -> list[str]:
    """Why a complete answer's choices ended, whole or streamed. told: what the scanner says, which is the last's."""
    found = [reason.decode("utf-8", "replace") for reason in _FINISH.findall(body)] if dialect == DIALECT_CHAT else []
    return found or ([told] if told else [])


def whole_of(dialect: int, route: str, chunks: Sequence[bytes]) -> bytes:
    """The body of the whole answer that a complete stream tells. Raises NotConvertibleError."""
    make, _ = _kind(dialect, route)
    try:
        return make(b"".join(chunks))
    except _MISSHAPEN as error:
        raise _no(error) from None


def stream_of(dialect: int, route: str, body: bytes, include_usage: bool = False) -> list[bytes]:
    """The events (lines, of Ollama's) of a whole answer, end mark and all. Raises NotConvertibleError.

    include_usage: what the request says under stream_options; chats and completions of OpenAI's heed it.
    """
    _, make = _kind(dialect, route)
    try:
        return make(body, include_usage)
    except _MISSHAPEN as error:
        raise _no(error) from None


def _kind(dialect: int, route: str) -> tuple[_Whole, _Stream]:
    try:
        return _KINDS[dialect, route]
    except KeyError:
        raise NotConvertibleError(f"answers of {route} are of one kind only") from None


def _no(error: Exception) -> NotConvertibleError:
    return error if isinstance(error, NotConvertibleError) else NotConvertibleError("an answer of an unknown shape")
