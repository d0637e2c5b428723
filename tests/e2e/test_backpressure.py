"""A slow side is felt by the other side, and never by our memory."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
from raw_client import JSON_TYPE, RawClient, ask, chat, chat_body, request, wait_until

from running import Demo, Penstock, config

SIZE = 100_000_000
GROWTH = 8 * 1024 * 1024
READ_S = 3.0


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--rate", "0") as process:
        yield process


@pytest.fixture(scope="module")
def proxy(demo: Demo) -> Iterator[Penstock]:
    with Penstock(config(demo.port)) as process:
        for _ in range(20):  # memory is compared with that of a worker that has worked
            chat(process.port)
            chat(process.port, stream=True)
        yield process


def rss(proxy: Penstock) -> int:
    return int(proxy.workers()[0].memory_info().rss)


def settled(demo: Demo) -> int:
    """Bytes the backend has sent, once every buffer on the way is full."""
    sent = -1
    while sent != (sent := demo.stats()["bytes_sent"]):
        time.sleep(0.1)
    return sent


SPEECH = json.dumps({"model": "demo", "input": "x"}).encode()
KINDS = {
    "binary": ("/v1/audio/speech", SPEECH, f"X-Demo-Bytes: {SIZE}", READ_S),
    "stream": ("/v1/chat/completions", chat_body(stream=True), f"X-Demo-Tokens: {SIZE // 200}", 1.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_slow_client(demo: Demo, proxy: Penstock, kind: str) -> None:
    path, body, line, read_s = KINDS[kind]
    sent, before, left = demo.stats()["bytes_sent"], rss(proxy), len(demo.stats()["aborted"])
    with RawClient(proxy.port) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.send(request("POST", path, body, JSON_TYPE, line))
        client.until(b"\r\n\r\n")
        most = before
        until = time.monotonic() + read_s
        while time.monotonic() < until:
            assert client.socket.recv(1024 // 8)
            time.sleep(1 / 8)  # 1 KB/s
            most = max(most, rss(proxy))
        passed = settled(demo) - sent
        print(f"{kind}: memory grew by {(most - before) / 1024:.0f} KB, the backend sent {passed / 1e6:.1f} MB")
        assert most - before < GROWTH
        assert passed < SIZE / 2
    wait_until(lambda: len(demo.stats()["aborted"]) > left)
    wait_until(lambda: demo.stats()["requests_active"] == 0)


def test_many_slow_clients(demo: Demo, proxy: Penstock) -> None:
    """32 at once: each holds what buffers on one connection's way may, whatever the size of its answer."""
    before = rss(proxy)
    clients = [RawClient(proxy.port) for _ in range(32)]
    for client in clients:
        client.send(request("POST", "/v1/audio/speech", SPEECH, JSON_TYPE, f"X-Demo-Bytes: {SIZE}"))
        client.until(b"\r\n\r\n")
    settled(demo)
    grown = rss(proxy) - before
    print(f"32 slow clients: memory grew by {grown / 1e6:.1f} MB")
    assert grown < 32 * GROWTH / 2
    for client in clients:
        client.socket.close()
    wait_until(lambda: demo.stats()["requests_active"] == 0)


def test_a_client_that_reads_again_gets_the_rest(demo: Demo, proxy: Penstock) -> None:
    data = request("POST", "/v1/audio/speech", SPEECH, JSON_TYPE, f"X-Demo-Bytes: {SIZE // 4}")
    with RawClient(proxy.port) as client:
        client.send(data)
        settled(demo)
        answer = client.answer()
    assert (answer.status, len(answer.body), answer.clean) == (200, SIZE // 4, True)
    assert ask(demo.port, data).body == answer.body


def test_upload_to_a_slow_backend() -> None:
    """A backend that reads little by little: the client waits, memory stays flat, and what is read arrived whole."""
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        slow.bind(("127.0.0.1", 0))
        slow.listen(8)
        text = config(slow.getsockname()[1]).replace("discover = true", "")
        with Penstock(text) as proxy, RawClient(proxy.port) as client:
            wait_until(lambda: ask(proxy.port, request("GET", "/health/live")).status == 200)
            before = most = rss(proxy)
            lines = ("Content-Type: application/octet-stream", f"Content-Length: {SIZE}")
            client.send(request("POST", "/v1/echo", b"", *lines, length=False))
            client.socket.setblocking(False)
            backend, _ = slow.accept()
            with backend:
                sent = read = 0
                until = time.monotonic() + READ_S
                while time.monotonic() < until:
                    sent += push(client)
                    read += len(backend.recv(16_384))
                    most = max(most, rss(proxy))
                    time.sleep(0.01)
                print(f"memory grew by {(most - before) / 1024:.0f} KB; client sent {sent}, backend read {read}")
                assert most - before < GROWTH
                assert sent < SIZE / 4  # what fits into the sockets on the way


def push(client: RawClient) -> int:
    """Send what the socket takes now."""
    sent = 0
    try:
        while True:
            sent += client.socket.send(bytes(65_536))
    except BlockingIOError:
        return sent
