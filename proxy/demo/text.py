"""The words of the demo backend: a deterministic answer to a message, in tokens, as long as asked for."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from penstock.proxy.demo.answer import Refused
from penstock.proxy.demo.options import MAX_TOKENS, Control

_TOKEN = re.compile(r"\s*\S+")
_GREETING = re.compile(r"\b(hello|hi|hey|help|penstock|demo)\b", re.IGNORECASE)
_QUOTED_WORDS = 40
_PIECE = 8

_ABOUT = (
    "This is penstock's built-in demo backend. No model is running: these words are put together on the "
    "spot and sent one token at a time, so that you can watch a stream arrive. Name a real backend in "
    "penstock's configuration, and the same request goes there instead."
)
_CLOSING = (
    "That is as clever as the demo backend gets: no model is running here. Name a real one in penstock's "
    "configuration, and the same request goes there instead."
)
_LONGER = (
    "\n\nAs the large one of the demo models I may add a second paragraph. It holds no more thought than "
    "the first, but it takes longer to arrive, which is handy when you want to see what happens to a "
    "stream that is still running."
)


class Text(NamedTuple):
    tokens: list[str]
    """Words, each with the space before it."""
    is_cut: bool
    """The caller's limit was shorter than the text."""

    @property
    def text(self) -> str:
        return "".join(self.tokens)


class Part(msgspec.Struct):
    """One piece of a message's content; those that are not text count as empty."""

    type: str = "text"
    text: str | None = None


Content = str | list[Part] | None


def plain(content: Content) -> str:
    if isinstance(content, list):
        return "\n".join(part.text for part in content if part.text)
    return content or ""


def count_words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def reply_to(message: str, model: str, control: Control, limit: int | None, variant: int = 0) -> Text:
    """The answer to a message; `variant` tells the choices of one request apart."""
    text = _compose(message.split(), message)
    if "large" in model:
        text += _LONGER
    if variant:
        text += f" (This is choice {variant + 1}.)"
    return cut(_stretch(_TOKEN.findall(text), control), limit)


def of_json(value: object, limit: int | None) -> Text:
    text = msgspec.json.format(msgspec.json.encode(value), indent=0).decode()
    return cut(_TOKEN.findall(text), limit)


def cut(tokens: list[str], limit: int | None) -> Text:
    if limit is None or limit < 0 or len(tokens) <= limit:
        return Text(tokens, False)
    return Text(tokens[:limit], True)


def pieces(text: str) -> list[str]:
    """A text without spaces, such as the arguments of a call, in pieces of a few characters."""
    return [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)]


def _compose(words: list[str], message: str) -> str:
    if not words or (len(words) <= 8 and _GREETING.search(message)):
        return f"Hello! {_ABOUT}"
    more = "…" if len(words) > _QUOTED_WORDS else ""
    return f"You said: “{' '.join(words[:_QUOTED_WORDS])}{more}” {_CLOSING}"


def _stretch(tokens: list[str], control: Control) -> list[str]:
    """As many tokens as asked for, or as many as make up the bytes asked for, by going round."""
    wanted = control.tokens
    if control.size_bytes is not None:
        wanted = control.size_bytes * len(tokens) // len("".join(tokens).encode())
    if wanted is None:
        return tokens
    if wanted > MAX_TOKENS:
        raise Refused(400, f"an answer has at most {MAX_TOKENS} tokens", param="x-demo-bytes")
    again = [f" {tokens[0]}", *tokens[1:]]
    return (tokens + again * (wanted // len(tokens)))[:wanted]
