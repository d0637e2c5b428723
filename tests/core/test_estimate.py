"""The bound of a request's input is never below what tokenizers count."""

import json

import pytest

from penstock.core.estimate import answer_estimate, completion_estimate, input_bound, prompt_estimate
from penstock.ext import DIALECT_CHAT, DIALECT_OLLAMA


def body(*texts: str) -> bytes:
    messages = [{"role": "user", "content": text} for text in texts]
    return json.dumps({"model": "m", "messages": messages}, ensure_ascii=False, separators=(",", ":")).encode()


# The most a byte-level tokenizer can make of a text is a token for each byte; add some 8 per message for its template.
WORST_TEXTS = {
    "nothing": [""],
    "english": ["The quick brown fox jumps over the lazy dog. " * 20],
    "many empty messages": [""] * 500,
    "rare script": ["ꙮ𒐫🜁" * 200],
    "emoji": ["👩🏽‍🚀" * 100],
    "digits and signs": ["~`|^{}<>9876543210" * 50],
}


@pytest.mark.parametrize("texts", WORST_TEXTS.values(), ids=WORST_TEXTS)
def test_never_below_a_token_for_each_byte_and_the_template(texts: list[str]) -> None:
    most = sum(len(text.encode()) + 8 for text in texts) + 8
    assert input_bound(len(body(*texts)), "openai") >= most


# Counted with OpenAI's o200k_base, roles and turns of the chat format included.
COUNTED = [("Hello!", 9), ("How many r's are in strawberry?", 15), ("日本語のトークン数を数えてください。", 20)]


@pytest.mark.parametrize(("text", "tokens"), COUNTED)
def test_never_below_what_was_counted(text: str, tokens: int) -> None:
    assert input_bound(len(body(text)), "openai") >= tokens


def test_what_servers_add_themselves() -> None:
    assert [input_bound(100, kind) for kind in ("openai", "demo", "anthropic", "ollama")] == [164, 164, 1188, 2212]


def test_the_context_bounds_one_prompt_but_not_a_batch() -> None:
    assert input_bound(10_000, "openai", context_tokens=8192) == 8192
    assert input_bound(10_000, "openai", context_tokens=8192, batch=True) == 10_064
    assert input_bound(10, "openai", context_tokens=8192) == 74


def test_what_is_named_and_not_sent_may_fill_the_context() -> None:
    assert input_bound(10, "openai", remote=True, context_tokens=8192) == 8192
    assert input_bound(10, "openai", remote=True) == 1_048_576
    assert input_bound(2_000_000, "openai", remote=True) == 2_000_064


def test_estimates() -> None:
    assert (prompt_estimate(0), prompt_estimate(9), answer_estimate(8)) == (0, 3, 2)
    assert (completion_estimate(21, DIALECT_CHAT), completion_estimate(21, DIALECT_OLLAMA)) == (11, 21)
