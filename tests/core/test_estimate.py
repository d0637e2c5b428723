"""The bound of a request's input is never below what tokenizers count."""

import json

import pytest

from penstock.core.estimate import answer_estimate, completion_estimate, inline_images, input_bound, prompt_estimate
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


# Bodies and the prompt tokens Ollama 0.33 counted for them (templates of its test models included).
RECORDED = [
    (b'{"model":"embed","input":"hello"}', 9),
    (b'{"model":"embed","input":["hello","world"]}', 18),
    (b'{"model":"tiny","input":"hello","max_output_tokens":4,"temperature":0}', 27),
    (b'{"model":"tiny-think","prompt":"x","think":true,"options":{"num_predict":6,"seed":1,"temperature":0}}', 30),
]


@pytest.mark.parametrize(("sent", "tokens"), RECORDED)
def test_never_below_what_was_counted(sent: bytes, tokens: int) -> None:
    assert input_bound(len(sent), "openai") >= tokens


def test_an_inline_image_is_more_than_its_bytes() -> None:
    """A picture of one colour has 100 bytes at any size, and providers count its size."""
    sent = body("x").replace(b'"x"', b'[{"type":"image_url","image_url":{"url":"data:image/webp;base64,UklGRg=="}}]')
    assert inline_images(sent) == 1
    assert input_bound(len(sent), "openai", inline_images=1) == len(sent) + 64 + 5_000


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
