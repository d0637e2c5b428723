"""The openai package from npm against penstock: one script runs in Node.js and prints facts, which are judged here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from raw_client import wait_until

from running import Demo, Penstock

SCRIPT = Path(__file__).parent / "js" / "client.mjs"
pytestmark = pytest.mark.needs("node")


@pytest.fixture(scope="module")
def facts(proxy: Penstock, hasty: Penstock) -> dict[str, Any]:
    argv = ["node", str(SCRIPT), f"{proxy.url}/v1", f"{hasty.url}/v1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_chat(facts: dict[str, Any]) -> None:
    assert facts["chat"]["finish"] == "stop" and facts["chat"]["tokens"] > 0
    assert "Paris" in facts["chat"]["text"] and facts["stream"] == facts["chat"]["text"]


def test_tools(facts: dict[str, Any]) -> None:
    assert facts["tool"] == {"name": "weather", "arguments": '{"city":"Paris"}'}
    assert facts["streamedTool"] == facts["tool"]["arguments"] and facts["toolResult"]


def test_embeddings(facts: dict[str, Any]) -> None:
    """The client asks for base64 unless told otherwise."""
    assert len(facts["embeddings"]["float"]) == 8
    assert facts["embeddings"]["usual"] == pytest.approx(facts["embeddings"]["float"])


def test_responses(facts: dict[str, Any]) -> None:
    assert facts["response"].startswith("Hello!")
    assert (facts["responseEvents"][0], facts["responseEvents"][-1]) == ("response.created", "response.completed")


def test_completions(facts: dict[str, Any]) -> None:
    assert facts["completion"].strip()


def test_models(facts: dict[str, Any]) -> None:
    assert {"demo", "demo-large", "renamed"} <= set(facts["models"]) and facts["model"] == "renamed"


def test_files(facts: dict[str, Any]) -> None:
    assert facts["file"] == {"bytes": 60_004, "same": True, "listed": True, "deleted": True}


def test_audio(facts: dict[str, Any]) -> None:
    assert facts["speech"] == 16_384 and "8 bytes" in facts["transcription"]


ERRORS = {
    "unknown": ("NotFoundError", 404, "model_not_found", "model"),
    "mistyped": ("BadRequestError", 400, "invalid_request", "model"),
    "unreachable": ("InternalServerError", 502, "backend_unreachable", None),
    "overloaded": ("InternalServerError", 503, None, None),
    "limited": ("RateLimitError", 429, None, None),
    "silent": ("InternalServerError", 504, "backend_timeout", None),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(facts: dict[str, Any], name: str) -> None:
    found = facts["errors"][name]
    assert tuple(found[key] for key in ("kind", "status", "code", "param")) == ERRORS[name]


def test_what_errors_say(facts: dict[str, Any]) -> None:
    assert "demo-large" in facts["errors"]["unknown"]["message"]
    assert facts["errors"]["limited"]["retryAfter"] == "17"


def test_a_stream_that_breaks_off_is_an_error(facts: dict[str, Any]) -> None:
    assert facts["errors"]["cut"]["kind"] == "APIError"
    assert facts["errors"]["cut"]["code"] == "backend_bad_answer"


def test_a_stream_left_early(facts: dict[str, Any], demo: Demo) -> None:
    assert facts["firstOfMany"] == "chat.completion.chunk"
    wait_until(lambda: demo.stats()["requests_active"] == 0)


def test_a_hundred_at_once(facts: dict[str, Any]) -> None:
    assert facts["hundred"] == {"whole": 100, "streamed": 100}
