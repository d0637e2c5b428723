"""What the chat and the text endpoint share: choices, their stream, and what they used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import msgspec

from penstock.proxy.demo.answer import Refused, Stream, openai_error, sse
from penstock.proxy.demo.options import MAX_TOKENS, Control

_MAX_CHOICES = 128


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Choice(msgspec.Struct):
    """One choice of an answer: text, or a call of a tool with its arguments."""

    tokens: list[str]
    finish: str | None
    call: dict[str, Any] | None = None


Part = Callable[[int, Choice, str | None, str | None], dict[str, Any]]
"""(index, choice, token, finish reason) → the choice of one chunk."""


def count(n: int | None, control: Control) -> int:
    number = max(1, n or 1)
    if number > _MAX_CHOICES or number * (control.tokens or 0) > MAX_TOKENS:
        raise Refused(400, f"'n' must be at most {_MAX_CHOICES}, and fewer for long answers", param="n")
    return number


def usage(prompt: int, completion: int) -> dict[str, object]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def stream(
    head: dict[str, Any],
    choices: list[Choice],
    part: Part,
    *,
    options: StreamOptions | None,
    figures: dict[str, object],
    opening: list[dict[str, Any]],
) -> Stream:
    """`opening` are the choices of the chunks before the first token."""
    with_usage = options is not None and bool(options.include_usage)
    tail = {"usage": None} if with_usage else {}

    def event(index: int, token: str | None, finish: str | None = None) -> bytes:
        return sse({**head, "choices": [part(index, choices[index], token, finish)], **tail})

    def tokens() -> Iterator[bytes]:
        for row in zip_longest(*(choice.tokens for choice in choices)):
            for index, token in enumerate(row):
                if token is not None:
                    yield event(index, token)

    closing = [event(index, None, choice.finish) for index, choice in enumerate(choices)]
    if with_usage:
        closing.append(sse({**head, "choices": [], "usage": figures}))
    return Stream(
        opening=[sse({**head, "choices": [choice], **tail}) for choice in opening],
        tokens=tokens(),
        closing=closing,
        end_mark=b"data: [DONE]\n\n",
        error=b"data: %b\n\n" % openai_error(500, "The demo backend failed as asked."),
    )
