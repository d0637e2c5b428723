"""When the demo backend's bytes come, how it waits for slow clients, and that it sees clients leave."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from demo_wire import Raw, events, running, split, unchunk

from penstock.proxy.demo import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def stats(server: Server, path: str = "/demo/stats", method: str = "GET") -> Any:
    with Raw(server) as raw:
        return json.loads(split(raw.send(method, path, Connection="close").all())[1])


def eventually(question: Callable[[], object]) -> None:
    until = time.monotonic() + 2
    while not question():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_paced_stream_has_one_write_a_token_at_its_rate(server: Server) -> None:
    with Raw(server) as raw:
        before = time.monotonic()
        raw.chat(stream=True, X_Demo_Rate="200", X_Demo_Tokens="11")
        writes = [raw.some()]
        while b"[DONE]" not in writes[-1]:
            writes.append(raw.some())
        assert 0.045 < time.monotonic() - before < 0.5
    assert 10 <= len(writes) <= 13, "head, 11 tokens, end; two may meet on the way"
    assert len(events(unchunk(split(b"".join(writes))[1])[0])) == 1 + 11 + 2


def test_first_runs_see_about_30_tokens_a_second() -> None:
    with running(rate=30.0) as server, Raw(server) as raw:
        raw.chat(stream=True, message="Hello!")
        raw.until(b"Hello!")
        before = time.monotonic()
        raw.until(b"This")
        assert 0.02 < time.monotonic() - before < 0.3


def test_without_a_rate_a_stream_comes_in_few_writes(server: Server) -> None:
    with Raw(server) as raw:
        raw.chat(stream=True)
        assert len(raw.some()) > 4000, "all of it at once"


def test_first_ms_delays_the_head(server: Server) -> None:
    with Raw(server) as raw:
        before = time.monotonic()
        raw.chat(X_Demo_First_Ms="20").some()
        assert 0.018 < time.monotonic() - before < 0.5


@pytest.mark.parametrize("header", ["X_Demo_Rate", "X_Demo_Tokens", "X_Demo_Bytes", "X_Demo_First_Ms"])
@pytest.mark.parametrize("value", ["-1", "x", "nan", ""])
def test_control_headers_that_make_no_sense_are_refused(server: Server, header: str, value: str) -> None:
    with Raw(server) as raw:
        assert raw.chat(**{header: value}).all().startswith(b"HTTP/1.1 400 ")


def test_a_large_body_waits_for_the_client(server: Server) -> None:
    size = 30_000_000
    with Raw(server) as raw:
        raw.send("POST", "/v1/audio/speech", b'{"input":"x"}', X_Demo_Bytes=str(size))
        raw.socket.recv(1000)
        time.sleep(0.03)
        assert server.stats.bytes_sent < size / 2 and server.stats.requests_active == 1
        assert len(raw.until(b"\r\n0\r\n\r\n")) > size


@pytest.mark.parametrize("size", [1000, 100_000])
@pytest.mark.parametrize("stream", [False, True])
def test_bytes_pad_the_text(server: Server, size: int, stream: bool) -> None:
    with Raw(server) as raw:
        _, body = split(raw.chat(stream=stream, X_Demo_Bytes=str(size)).all(idle_s=0.05))
    if stream:
        deltas = [e["choices"][0]["delta"] for e in events(unchunk(body)[0])[:-1]]
        text = "".join(delta.get("content", "") for delta in deltas)
    else:
        text = json.loads(body)["choices"][0]["message"]["content"]
    assert abs(len(text.encode()) - size) < 0.05 * size + 50


PHASES = {
    "receiving": lambda raw: raw.send("POST", "/v1/chat/completions", Content_Length="9"),
    "waiting": lambda raw: raw.chat("never"),
    "head": lambda raw: raw.chat("slowhead").some(),
    "streaming": lambda raw: raw.chat("stall;after=1", stream=True).some(),
    "body": lambda raw: raw.chat("stall;after=1").some(),
}


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_leaves_is_seen_at_once(server: Server, phase: str, leave: str) -> None:
    with Raw(server) as raw:
        PHASES[phase](raw)
        eventually(lambda: server.stats.requests_active)
        if leave == "reset":
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left_ns = time.monotonic_ns()
    eventually(lambda: server.stats.aborted)
    seen = stats(server)
    (aborted,) = seen["aborted"]
    assert (aborted["path"], aborted["phase"]) == ("/v1/chat/completions", phase)
    assert 0 <= aborted["monotonic_ns"] - left_ns < 100_000_000
    assert (seen["requests_active"], seen["connections_open"]) == (0, 0)


def test_a_client_that_leaves_a_paced_stream_or_a_full_socket(server: Server) -> None:
    with Raw(server) as raw:
        raw.chat(stream=True, X_Demo_Rate="5").until(b"You")
    with Raw(server) as raw:
        raw.send("POST", "/v1/audio/speech", b'{"input":"x"}', X_Demo_Bytes="30000000").some()
    eventually(lambda: len(server.stats.aborted) == 2)
    assert [a.phase for a in server.stats.aborted] == ["streaming", "body"]


def test_leaving_between_requests_is_no_abort(server: Server) -> None:
    with Raw(server) as raw:
        raw.chat().all()
    eventually(lambda: server.stats.connections_open == 0)
    assert not server.stats.aborted


def test_stats_count_all_but_their_own_requests(server: Server) -> None:
    with Raw(server) as raw:
        sent = len(raw.chat().all()) + len(raw.chat(stream=True).all())
        seen = stats(server)
        assert (seen["connections_open"], seen["connections_total"]) == (1, 1)
        assert (seen["requests_total"], seen["requests_active"], seen["bytes_sent"]) == (2, 0, sent)
        stats(server, "/demo/reset", "POST")
        seen = stats(server)
        assert (seen["connections_total"], seen["requests_total"], seen["bytes_sent"]) == (1, 0, 0)


def test_closing_the_server_ends_its_connections() -> None:
    with running() as server:
        raw = Raw(server)
        raw.chat("never")
        eventually(lambda: server.stats.requests_active)
    assert raw.all() == b"" and raw.ended in ("closed", "reset")
    raw.socket.close()
