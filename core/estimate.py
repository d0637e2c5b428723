"""Tokens from bytes: a bound that is never too low before a request, an estimate after it where nobody counted.

The bound rests on one fact: a token stands for at least one byte of what was sent. What a server adds itself (template,
roles, a system prompt of its own) is allowed for by kind, inline images by their number, for they are counted by size
and not by bytes; what it fetches itself (images by address, stored files, earlier responses) has no bound but the
model's context.
"""

from typing import Any, Literal

import msgspec

from penstock.ext import DIALECT_OLLAMA

MARGIN_TOKENS = 64
"""Marks of roles and turns that are longer than the JSON that says them."""
REMOTE_INPUT_TOKENS = 1_048_576
"""For input that is not in the request, where the model's context is not known."""
INLINE_IMAGE_TOKENS = 5_000
"""More than the usual models count for their largest image."""
_BYTES_PER_TOKEN = 4
"""English text, by and large; for estimates only."""

Kind = Literal["openai", "ollama", "anthropic", "demo"]
_OWN_PROMPT_TOKENS: dict[Kind, int] = {
    # Model files bring templates and system prompts that no client sees.
    "ollama": 2048,
    # Tool use adds a system prompt of some 500 tokens (Anthropic's documentation of tool use).
    "anthropic": 1024,
}


def input_bound(
    body_bytes: int,
    kind: Kind,
    *,
    inline_images: int = 0,
    remote: bool = False,
    context_tokens: int | None = None,
    batch: bool = False,
) -> int:
    """Tokens a request can have as its input at most.

    kind: the backend's. remote: input is named, not sent (ext.remote_input). context_tokens: the model's, None = not
    known. batch: one request may hold many prompts (embeddings, completions), so the context bounds each and not all.
    """
    bound = body_bytes + MARGIN_TOKENS + _OWN_PROMPT_TOKENS.get(kind, 0) + inline_images * INLINE_IMAGE_TOKENS
    if remote:
        bound = max(bound, context_tokens or REMOTE_INPUT_TOKENS)
    return bound if context_tokens is None or batch else min(bound, context_tokens)


def inline_images(body: bytes) -> int:
    """How many images a body brings along as data: URLs. Ollama's bear no such mark."""
    return body.count(b"data:image")


def prompt_count(body: bytes) -> int:
    """How many prompts a request to /v1/completions brings, as text or token ids: each gets its own answers."""
    try:
        prompt = msgspec.json.decode(body, type=_Completion).prompt
    except msgspec.MsgspecError:
        return 1
    if not isinstance(prompt, list) or all(isinstance(each, int) for each in prompt):
        return 1
    return max(1, len(prompt))


class _Completion(msgspec.Struct):
    prompt: Any = None


def prompt_estimate(body_bytes: int) -> int:
    """Tokens of a prompt whose backend did not count them."""
    return -(-body_bytes // _BYTES_PER_TOKEN)


def completion_estimate(lines: int, dialect: int | None) -> int:
    """Tokens of a stream whose backend did not count them, by ReplyScanner.lines: servers send about a token an event.

    A line of Ollama's is an event; in the other dialects an event is its data line and an empty one.
    """
    return lines if dialect == DIALECT_OLLAMA else -(-lines // 2)


def answer_estimate(body_bytes: int) -> int:
    """Tokens of a whole answer whose backend did not count them."""
    return -(-body_bytes // _BYTES_PER_TOKEN)
