"""A backend that fails, in every way the demo can: before its answer an error, after it a cut that cannot be missed."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from raw_client import (
    END_CHUNK,
    JSON_TYPE,
    Answer,
    RawClient,
    ask,
    chat,
    chat_body,
    chunked,
    request,
    sse_data,
    wait_until,
)

from running import Demo, Penstock, config

CHAT = "/v1/chat/completions"


def faulty(process: Penstock, fault: str, *, stream: bool = False, **fields: Any) -> Answer:
    return chat(process.port, f"X-Demo-Fault: {fault}", stream=stream, **fields)


def failed(answer: Answer, status: int, code: str, fault: str = "backend") -> str:
    """Check that this is an error of a backend's, told by us in OpenAI's envelope; its message."""
    assert answer.status == status, answer
    assert answer.clean
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, code)
    assert answer.header("x-penstock-error") == fault
    assert answer.header("x-content-type-options") == "nosniff" and answer.header("x-request-id")
    assert "Traceback" not in error["message"]
    return str(error["message"])


# --- before the answer ------------------------------------------------------------------------------------

BEFORE = {
    "reset": (502, "backend_bad_answer"),
    "close": (502, "backend_bad_answer"),
    "never": (504, "backend_timeout"),
    "hugehead=70000": (502, "backend_bad_answer"),
    "hugehead=1000000": (502, "backend_bad_answer"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", BEFORE)
def test_failures_before_the_answer(hasty: Penstock, fault: str, stream: bool) -> None:
    began = time.monotonic()
    failed(faulty(hasty, fault, stream=stream), *BEFORE[fault])
    assert time.monotonic() - began < 1.5


def test_a_late_answer_is_a_timeout(hasty: Penstock) -> None:
    answer = chat(hasty.port, "X-Demo-First-Ms: 5000")
    assert "begin its answer" in failed(answer, 504, "backend_timeout")


def test_a_backend_that_timed_out_stops_working(hasty: Penstock, demo: Demo) -> None:
    faulty(hasty, "never")
    wait_until(lambda: demo.stats()["requests_active"] == 0, 1)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_failures_on_other_paths(hasty: Penstock, method: str) -> None:
    answer = ask(hasty.port, request(method, "/v1/files/x", b"", "X-Demo-Fault: reset"))
    failed(answer, 502, "backend_bad_answer")


def test_failures_of_uploads(hasty: Penstock) -> None:
    body = b"x" * 300_000
    answer = ask(hasty.port, request("POST", "/v1/echo", body, "Content-Type: text/plain", "X-Demo-Fault: reset"))
    failed(answer, 502, "backend_bad_answer")


def test_an_unreachable_backend(proxy: Penstock) -> None:
    message = failed(chat(proxy.port, model="lost"), 502, "backend_unreachable")
    assert "'gone'" in message and "refused" in message


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_second_target_answers_when_the_first_refuses_connections(proxy: Penstock, stream: bool) -> None:
    answer = chat(proxy.port, model="rescued", stream=stream)
    assert answer.status == 200 and b'"model":"rescued"' in answer.body


def test_an_upload_goes_to_the_second_target_too(proxy: Penstock) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nrescued\r\n--b--\r\n'
    answer = ask(proxy.port, request("POST", "/v1/echo", body, "Content-Type: multipart/form-data; boundary=b"))
    assert answer.json()["body"].encode() == body


# --- within a whole answer --------------------------------------------------------------------------------

WHOLE = {
    "cut": (502, "backend_bad_answer"),
    "cut;after=0": (502, "backend_bad_answer"),
    "rst": (502, "backend_bad_answer"),
    "shortlength": (502, "backend_bad_answer"),
    "badchunk": (502, "backend_bad_answer"),
    "nofinish": (502, "backend_incomplete_reply"),
    "stall": (504, "backend_timeout"),
}


@pytest.mark.parametrize("fault", WHOLE)
def test_a_whole_answer_that_breaks_off(hasty: Penstock, fault: str) -> None:
    failed(faulty(hasty, fault), *WHOLE[fault])


@pytest.mark.parametrize("fault", ["longlength", "twoheads"])
def test_bytes_behind_a_whole_answer_are_dropped(hasty: Penstock, fault: str) -> None:
    """And so is the connection they came on: the next request has another."""
    for _ in range(3):
        answer = faulty(hasty, fault)
        assert answer.status == 200 and answer.clean and answer.json()["choices"][0]["finish_reason"] == "stop"
        assert chat(hasty.port).status == 200


def test_a_binary_answer_that_breaks_off(hasty: Penstock) -> None:
    """It has begun when it breaks, so its framing must show it."""
    body = b'{"model":"demo","input":"x"}'
    lines = (JSON_TYPE, "X-Demo-Bytes: 500000", "X-Demo-Fault: cut;after=300000")
    answer = ask(hasty.port, request("POST", "/v1/audio/speech", body, *lines))
    assert answer.status == 200 and not answer.clean
    assert len(answer.body) == 300_000 and not answer.wire.endswith(END_CHUNK)


# --- within a stream ----------------------------------------------------------------------------------------

CUT = {
    "cut;after=5": "backend_bad_answer",
    "rst;after=5": "backend_bad_answer",
    "badchunk;after=5": "backend_bad_answer",
    "noend;after=5": "backend_incomplete_reply",
    "stall;after=5": "backend_timeout",
}


def cut_stream(answer: Answer, code: str) -> list[Any]:
    """Check that a stream ends in our error event and without the end of its framing; the events before."""
    assert answer.status == 200 and answer.header(
        "content-type",
    ).startswith("text/event-stream")
    *events, last = answer.data
    assert json.loads(last)["error"]["code"] == code
    assert set(json.loads(last)["error"]) == {"message", "type", "param", "code"}
    assert "[DONE]" not in answer.data
    assert not answer.clean and not answer.wire.endswith(END_CHUNK)
    assert answer.body.endswith(b"\n\n")
    return [json.loads(event) for event in events]


@pytest.mark.parametrize("fault", CUT)
def test_a_stream_that_breaks_off(hasty: Penstock, demo: Demo, fault: str) -> None:
    answer = chat(hasty.port, f"X-Demo-Fault: {fault}", "X-Demo-Rate: 200", stream=True)
    events = cut_stream(answer, CUT[fault])
    text = [event["choices"][0]["delta"].get("content", "") for event in events]
    assert len(text) == 6 and "".join(text).startswith("Hello!")
    wait_until(lambda: demo.stats()["requests_active"] == 0)


@pytest.mark.parametrize("fault", CUT)
def test_a_stream_that_breaks_off_within_one_read(hasty: Penstock, fault: str) -> None:
    """Its events and its failure come together; while nothing has gone to the client, an error status may."""
    answer = faulty(hasty, fault, stream=True)
    if answer.status == 200:
        cut_stream(answer, CUT[fault])
    else:
        failed(answer, 502, CUT[fault])


def test_events_that_come_with_a_broken_chunk_are_not_lost() -> None:
    """What was right goes on, whichever bytes it shared a read with."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    first, second = event % b"first", event % b"second"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        text = config(listener.getsockname()[1], more='[models.demo]\ntargets = ["demo"]\n')
        with Penstock(text.replace("discover = true", "")) as process, RawClient(process.port) as client:
            client.send(request("POST", CHAT, chat_body(stream=True), JSON_TYPE))
            backend = listener.accept()[0]
            with backend:
                backend.recv(65_536)
                backend.sendall(head + chunked(first).removesuffix(END_CHUNK))
                began = client.until(b"first")
                backend.sendall(chunked(second).removesuffix(END_CHUNK) + b"ZZ\r\nnot a chunk\r\n")
                rest = client.rest()
    assert b"200 OK" in began and b"second" in rest
    assert b"backend_bad_answer" in rest and not rest.endswith(END_CHUNK)


def test_a_stream_cut_before_its_first_token(hasty: Penstock) -> None:
    assert len(cut_stream(faulty(hasty, "cut;after=0", stream=True), "backend_bad_answer")) == 1


def test_a_stream_shorter_than_declared(hasty: Penstock) -> None:
    """The end mark came, so the reply is whole; but the declared length did not, and the client must not wait."""
    answer = faulty(hasty, "shortlength", stream=True)
    assert answer.data[-1] == "[DONE]"
    assert "error" not in answer.data[-2]


def test_a_stream_longer_than_declared(hasty: Penstock) -> None:
    answer = faulty(hasty, "longlength", stream=True)
    assert answer.clean and answer.data[-1] == "[DONE]" and b"ten bytes" not in answer.wire
    assert chat(hasty.port).status == 200


@pytest.mark.parametrize("fault", ["nodone"])
def test_a_stream_without_its_end_mark(hasty: Penstock, fault: str) -> None:
    events = cut_stream(faulty(hasty, fault, stream=True), "backend_incomplete_reply")
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_error_that_the_backend_tells_is_not_told_twice(hasty: Penstock) -> None:
    answer = faulty(hasty, "inband", stream=True)
    errors = [event for event in answer.data if "error" in json.loads(event)]
    assert len(errors) == 1 and "demo backend failed" in errors[0]
    assert not answer.clean and not answer.wire.endswith(END_CHUNK)


def test_an_error_told_in_a_whole_answer_passes(hasty: Penstock) -> None:
    answer = faulty(hasty, "inband")
    assert answer.clean and "failed as asked" in answer.json()["error"]["message"]


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "completions": ("/v1/completions", {"prompt": "Hello"}),
    "responses": ("/v1/responses", {"input": "Hello"}),
    "messages": ("/v1/messages", {"max_tokens": 99}),
}


@pytest.mark.parametrize("fault", ["cut", "noend"])
@pytest.mark.parametrize(("path", "fields"), SHAPES.values(), ids=SHAPES)
def test_other_streams_that_break_off(hasty: Penstock, path: str, fields: dict[str, Any], fault: str) -> None:
    body = chat_body(stream=True, **fields)
    answer = ask(hasty.port, request("POST", path, body, JSON_TYPE, f"X-Demo-Fault: {fault}"))
    assert answer.data and "error" in json.loads(answer.data[-1])
    assert not answer.clean and not answer.wire.endswith(END_CHUNK)


@pytest.mark.parametrize(("path", "fields"), SHAPES.values(), ids=SHAPES)
def test_other_whole_answers_that_break_off(hasty: Penstock, path: str, fields: dict[str, Any]) -> None:
    answer = ask(hasty.port, request("POST", path, chat_body(**fields), JSON_TYPE, "X-Demo-Fault: cut"))
    failed(answer, 502, "backend_bad_answer")


def test_an_http_1_0_client_sees_the_cut_too(hasty: Penstock) -> None:
    data = request("POST", CHAT, chat_body(stream=True), JSON_TYPE, "X-Demo-Fault: cut").replace(
        b"HTTP/1.1", b"HTTP/1.0"
    )
    with RawClient(hasty.port) as client:
        answer = client.send(data).rest()
    assert "error" in json.loads(sse_data(answer.partition(b"\r\n\r\n")[2])[-1])


def test_a_cut_costs_only_its_own_stream(hasty: Penstock) -> None:
    """Its connection is shut down by address, so a wrong one would be another client's."""
    with RawClient(hasty.port) as other:
        other.send(request("GET", "/health/live"))
        assert other.answer().status == 200
        for _ in range(5):
            faulty(hasty, "cut", stream=True)
        assert other.send(request("GET", "/health/live")).answer().status == 200


# --- afterwards -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["idleclose", "close", "reset", "cut", "rst"])
def test_requests_after_a_failure_work(proxy: Penstock, fault: str) -> None:
    for _ in range(5):
        faulty(proxy, fault)
        assert chat(proxy.port).status == 200


def test_a_backend_that_closes_idle_connections_is_nobodys_error(proxy: Penstock) -> None:
    """The next request is sent on a connection that is dying; it must not be felt."""
    with RawClient(proxy.port) as client:
        for _ in range(50):
            client.send(request("POST", CHAT, chat_body(), JSON_TYPE, "X-Demo-Fault: idleclose"))
            assert client.answer().status == 200


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_backends_own_errors_pass(proxy: Penstock, status: int) -> None:
    """The last one, when nothing else can be tried."""
    answer = faulty(proxy, f"status={status};retry-after=30", stream=True)
    assert (answer.status, answer.header("retry-after")) == (status, "30")
    assert "as asked for by a demo fault" in answer.json()["error"]["message"]


def test_faults_in_the_log(hasty: Penstock) -> None:
    faulty(hasty, "cut", stream=True)
    wait_until(lambda: any(line.get("error") == "backend_bad_answer" for line in hasty.lines()))
    line = next(line for line in hasty.lines() if line.get("error") == "backend_bad_answer")
    assert (line["fault"], line["level"], line["backend"]) == ("backend", "warning", "demo")
    assert not [line for line in hasty.lines() if line["message"] == "a defect"]
