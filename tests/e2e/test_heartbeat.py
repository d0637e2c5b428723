"""Comments on a stream while nothing comes: in line, before the first byte, and between two events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from puppet import several
from raw_client import END_CHUNK, JSON_TYPE, RawClient, chat, chat_body, request, wait_until

from running import Demo, Penstock, free_port

BEAT = "heartbeat_s = 0.1\n"
COMMENT = b": penstock\n\n"
STREAM = request("POST", "/v1/chat/completions", chat_body(stream=True), JSON_TYPE)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--rate", "0") as process:
        yield process


@pytest.fixture(scope="module")
def proxy(demo: Demo) -> Iterator[Penstock]:
    gone = free_port()
    text = several(
        {"demo": demo.port, "gone": gone},
        targets=["demo"],
        backend=BEAT + "discover = false",
        more='[models.lost]\ntargets = ["gone"]\n[retry]\nbackoff_ms = 2000\n'
        "[breaker]\nfailures = 1_000_000\nmin_requests = 1_000_000\n",
    )
    with Penstock(text) as process:
        yield process


def test_while_the_backend_is_silent_before_its_first_byte(proxy: Penstock) -> None:
    answer = chat(proxy.port, "X-Demo-First-Ms: 550", stream=True)
    assert answer.status == 200 and answer.clean
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    assert answer.header("x-request-id") and answer.header("content-length") is None
    beats = answer.body.count(COMMENT)
    assert 3 <= beats <= 6 and answer.body.startswith(COMMENT * beats + b"data: ")
    assert answer.data[-1] == "[DONE]"


def test_while_the_backend_is_silent_between_two_events(proxy: Penstock) -> None:
    answer = chat(proxy.port, "X-Demo-Rate: 4", "X-Demo-Tokens: 4", stream=True)
    assert answer.clean and answer.data[-1] == "[DONE]"
    events = answer.body.split(b"\n\n")
    assert b": penstock" in events[1:-2]
    assert all(event in (b"", b": penstock") or event.startswith(b"data: ") for event in events)
    calm = chat(proxy.port, "X-Demo-Tokens: 4", stream=True)
    assert COMMENT not in calm.body
    strip = [json.loads(line)["choices"] for line in answer.data[:-1]]
    assert strip == [json.loads(line)["choices"] for line in calm.data[:-1]]


def test_a_backend_that_is_not_silent_has_none(proxy: Penstock) -> None:
    answer = chat(proxy.port, stream=True)
    assert COMMENT not in answer.body and answer.header("x-penstock-queue") is None


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"])
def test_whole_answers_have_none(proxy: Penstock, path: str) -> None:
    body = json.dumps({"model": "demo", "prompt": "x", "input": "x", "messages": [{"role": "user", "content": "x"}]})
    with RawClient(proxy.port) as client:
        lines = (JSON_TYPE, "X-Demo-First-Ms: 300")
        answer = client.send(request("POST", path, body.encode(), *lines)).answer()
    assert (
        answer.status == 200 and answer.json() and (answer.header("content-type") or "").startswith("application/json")
    )


@pytest.mark.parametrize("fault", ["close", "reset"])
def test_an_error_after_a_comment_is_the_last_event(proxy: Penstock, fault: str) -> None:
    answer = chat(proxy.port, "X-Demo-First-Ms: 300", f"X-Demo-Fault: {fault}", stream=True)
    assert answer.status == 200 and answer.body.startswith(COMMENT)
    assert json.loads(answer.data[-1])["error"]["code"] == "backend_bad_answer"
    assert not answer.clean and not answer.wire.endswith(END_CHUNK)


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_request"), (500, "backend_status")])
def test_a_refusal_after_a_comment_is_the_last_event(proxy: Penstock, status: int, code: str) -> None:
    answer = chat(proxy.port, "X-Demo-First-Ms: 300", f"X-Demo-Fault: status={status}", stream=True)
    assert answer.status == 200 and not answer.clean
    error = json.loads(answer.data[-1])["error"]
    assert error["code"] == code and f"answered {status}: " in error["message"] and "demo fault" in error["message"]


def test_failover_goes_on_behind_the_comments(proxy: Penstock) -> None:
    """The backend cannot be reached, and is tried again after a pause: comments go out meanwhile."""
    answer = chat(proxy.port, model="lost", stream=True)
    if answer.status == 200:  # the pauses are random
        assert json.loads(answer.data[-1])["error"]["code"] == "backend_unreachable"
    else:
        assert answer.status == 502


def test_a_client_that_leaves_between_comments_frees_its_backend(proxy: Penstock, demo: Demo) -> None:
    with RawClient(proxy.port) as client:
        client.send(
            request("POST", "/v1/chat/completions", chat_body(stream=True), JSON_TYPE, "X-Demo-First-Ms: 60000")
        )
        client.until(COMMENT)
        client.until(COMMENT)
        assert demo.stats()["requests_active"] == 1
    wait_until(lambda: demo.stats()["requests_active"] == 0, 0.5)


def test_the_connection_is_good_for_another_request(proxy: Penstock) -> None:
    slow = request("POST", "/v1/chat/completions", chat_body(stream=True), JSON_TYPE, "X-Demo-First-Ms: 250")
    with RawClient(proxy.port) as client:
        for _ in range(3):
            answer = client.send(slow).answer()
            assert answer.clean and answer.body.startswith(COMMENT)
            time.sleep(0.15)
            assert client.send(request("GET", "/health/live")).answer().json() == {"status": "alive"}


@pytest.mark.parametrize("workers", [1, 2])
def test_in_line_the_comment_says_the_place(demo: Demo, workers: int) -> None:
    text = several({"demo": demo.port}, backend=BEAT + "max_in_flight = 1", workers=workers)
    with Penstock(text) as proxy, RawClient(proxy.port) as first, RawClient(proxy.port) as second:
        first.send(request("POST", "/v1/chat/completions", chat_body(), JSON_TYPE, "X-Demo-First-Ms: 600"))
        wait_until(lambda: demo.stats()["requests_active"] == 1)
        answer = second.send(STREAM).answer()
        assert answer.clean and answer.data[-1] == "[DONE]"
        assert answer.body.startswith(b": waiting place=1 estimate_s=1\n\n")
        assert first.answer().status == 200


def test_waiting_longest_after_a_comment_is_the_last_event(demo: Demo) -> None:
    text = several({"demo": demo.port}, backend=BEAT + "max_in_flight = 1", more="[queue]\nmax_wait_s = 0.3\n")
    with Penstock(text) as proxy, RawClient(proxy.port) as first:
        first.send(request("POST", "/v1/chat/completions", chat_body(), JSON_TYPE, "X-Demo-First-Ms: 60000"))
        wait_until(lambda: demo.stats()["requests_active"] == 1)
        answer = chat(proxy.port, stream=True)
        assert answer.status == 200 and not answer.clean
        assert json.loads(answer.data[-1])["error"]["code"] == "queue_full"
