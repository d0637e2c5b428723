"""Heartbeats of one request: when a comment may go out, and what becomes of an answer that is no stream."""

from __future__ import annotations

import asyncio

import pytest
from scripted import Client, Side, asks, backend, play, pool, starts, stop, target, until

from penstock.core.endpoint import match
from penstock.core.errors import BackendStatus, BadAnswer, InvalidRequest, PenstockError
from penstock.proxy.exchange import Exchange
from penstock.proxy.heartbeat import IDLE, Heartbeat, begin_heartbeat, told_as_error

STREAM = b'{"model":"m","stream":true}'


def idle(exchange: Exchange) -> bytes:
    return IDLE


def comments(client: Client) -> int:
    return sum(message.get("body") == IDLE for message in client.sent)


@pytest.mark.parametrize(
    ("parts", "between"),
    [
        ((b"data: x\n\n",), True),
        ((b"data: x\r\n\r\n",), True),
        ((b"data: x\r\r",), True),
        ((b"data: x\n", b"\n"), True),
        ((b"data: x\r\n", b"\r", b"\n"), True),
        ((b"data: x\n\n", b""), True),
        ((b"data: x\n",), False),
        ((b"data: x\r\n",), False),
        ((b"data: ",), False),
        ((b"data: x\n\ndata: y",), False),
        ((b"data: x\n\n", b"d"), False),
    ],
)
def test_a_comment_goes_out_between_two_events_only(parts: tuple[bytes, ...], between: bool) -> None:
    async def scene() -> None:
        client = Client()
        sent = asks(STREAM, client)
        beats = Heartbeat(sent, 0.005, idle, asyncio.get_running_loop())
        sent.status = 200
        for part in parts:
            beats.passed(part)
        await asyncio.sleep(0.03)
        assert bool(comments(client)) is between
        sent.close()

    play(scene())


def test_the_first_comment_takes_the_head_with_it() -> None:
    async def scene() -> None:
        client = Client()
        sent = asks(STREAM, client)
        beats = Heartbeat(sent, 0.005, idle, asyncio.get_running_loop())
        await until(lambda: comments(client) >= 2)
        start, *_ = client.sent
        assert start["type"] == "http.response.start" and start["status"] == 200
        assert dict(start["headers"])[b"content-type"].startswith(b"text/event-stream")
        assert [message["type"] for message in client.sent].count("http.response.start") == 1
        assert beats.begun and sent.first_byte == 0.0
        sent.close()
        before = len(client.sent)
        await asyncio.sleep(0.02)
        assert len(client.sent) == before

    play(scene())


@pytest.mark.parametrize(
    ("path", "body", "has"),
    [
        (b"/v1/chat/completions", STREAM, True),
        (b"/v1/responses", STREAM, True),
        (b"/v1/messages", STREAM, True),
        (b"/v1/chat/completions", b'{"model":"m","stream":false}', False),
        (b"/v1/chat/completions", b'{"model":"m"}', False),
        (b"/v1/rerank", STREAM, False),
        (b"/api/chat", STREAM, False),
        (b"/api/generate", STREAM, False),
    ],
)
def test_who_has_one(path: bytes, body: bytes, has: bool) -> None:
    async def scene() -> None:
        sent = asks(body)
        sent.endpoint = match("POST", path)
        begin_heartbeat(1.0, sent, idle, asyncio.get_running_loop())
        assert (sent.heartbeat is not None) is has
        sent.close()

    play(scene())


def test_the_backend_is_asked_for_a_stream_that_comments_fit_into() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            side = Side({"b": made}, heartbeat_s=9.0)
            sent = asks(STREAM)
            running = starts(side.attempts.run(side.plan((target(server.port),)), sent))
            peer = await server.accept()
            assert b"accept-encoding: identity" in (await peer.request()).lower()
            await stop(running)
            side.attempts.settle(sent)
            sent.close()

    play(scene())


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, b'{"error":{"message":"no such field"}}', InvalidRequest, "answered 400: no such field"),
        (404, b'{"error":"model not found"}', InvalidRequest, "answered 404: model not found"),
        (429, b'{"error":{"message":"slow down"}}', BackendStatus, "answered 429: slow down"),
        (500, b"<html>", BackendStatus, "answered 500"),
        (502, b"[]", BackendStatus, "answered 502"),
        (503, b"", BackendStatus, "answered 503"),
        (500, b'{"error":null}', BackendStatus, "answered 500"),
        (200, b'{"choices":[]}', BadAnswer, "no stream"),
    ],
)
def test_an_answer_that_is_no_stream(status: int, body: bytes, kind: type[PenstockError], words: str) -> None:
    error = told_as_error(status, body)
    assert type(error) is kind and words in error.message
