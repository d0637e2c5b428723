"""POST /v1/completions: the older text endpoint, whole and streamed."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.proxy.demo import choices, text
from penstock.proxy.demo.answer import Answer, Refused, json_answer
from penstock.proxy.demo.choices import Choice, StreamOptions
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo

_MAX_PROMPTS = 2048


class CompletionRequest(msgspec.Struct):
    prompt: str | list[str | int | list[int]]
    """One text, or several; a text may also be a list of token ids."""
    model: str = "demo"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None


def answer(request: Request, demo: Demo) -> Answer:
    wanted = request.decode(CompletionRequest)
    prompts = _prompts(wanted.prompt)
    count = choices.count(wanted.n, request.control)
    if len(prompts) * count > _MAX_PROMPTS:
        raise Refused(400, f"at most {_MAX_PROMPTS} choices in one request", param="prompt")
    made = [_choice(wanted, request, prompt, i) for prompt in prompts for i in range(count)]
    figures = choices.usage(text.count_words(*prompts), sum(len(choice.tokens) for choice in made))
    head = {
        "id": demo.next_id("cmpl-"),
        "object": "text_completion",
        "created": demo.now_s(),
        "model": wanted.model,
        "system_fingerprint": "fp_demo",
    }
    if wanted.stream:
        return choices.stream(head, made, _chunk, options=wanted.stream_options, figures=figures, opening=[])
    whole = [_chunk(i, choice, "".join(choice.tokens), choice.finish) for i, choice in enumerate(made)]
    return json_answer({**head, "choices": whole, "usage": figures})


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    if prompt and all(isinstance(item, int) for item in prompt):
        return [_ids(prompt)]
    return [item if isinstance(item, str) else _ids(item if isinstance(item, list) else [item]) for item in prompt]


def _ids(tokens: list[Any]) -> str:
    return " ".join(map(str, tokens))


def _choice(wanted: CompletionRequest, request: Request, prompt: str, index: int) -> Choice:
    found = text.reply_to(prompt, wanted.model, request.control, wanted.max_tokens, index)
    return Choice(found.tokens, request.finish("length" if found.is_cut else "stop"))


def _chunk(index: int, choice: Choice, token: str | None, finish: str | None) -> dict[str, Any]:
    return {"text": token or "", "index": index, "logprobs": None, "finish_reason": finish}
