"""A client that leaves frees its backend within 100 ms, in every phase of a request; measured on one clock."""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from raw_client import JSON_TYPE, RawClient, chat_body, request, wait_until

from running import UNASKED, Demo, Penstock, config

LIMIT_MS = 100.0
MEDIAN_MS = 20.0
TIMES = 6
# Every third client leaves at once, before anybody has looked after its request; the rest a moment later.
YOUNG = 3
LASTING_S = 0.06

latencies: dict[str, list[float]] = {}


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo() as process:
        yield process


@pytest.fixture(scope="module")
def proxy(demo: Demo) -> Iterator[Penstock]:
    with Penstock(config(demo.port, backend="[backends.demo.timeout]\nsend_s = 60\n")) as process:
        yield process


def leave(client: RawClient) -> int:
    """Close the socket; the moment, in monotonic ns."""
    before = time.monotonic_ns()
    client.socket.close()
    return before


def aborted(demo: Demo, count: int) -> list[dict[str, Any]]:
    wait_until(lambda: len(demo.stats()["aborted"]) >= count)
    return list(demo.stats()["aborted"])


def measure(
    name: str,
    demo: Demo,
    port: int,
    begin: Callable[[RawClient], None],
    phases: set[str],
    leave: Callable[[RawClient], int] = leave,
) -> None:
    """Abort some requests one by one, each after `begin` has brought it where it should be."""
    for number in range(TIMES):
        young = number % YOUNG == 0
        known = len(demo.stats()["aborted"])
        with RawClient(port) as client:
            begin(client)
            if not young:
                time.sleep(LASTING_S)
            left = leave(client)
        event = aborted(demo, known + 1)[known]
        assert event["phase"] in phases
        latency = (event["monotonic_ns"] - left) / 1e6
        latencies.setdefault(f"{name}, {'young' if young else 'lasting'}", []).append(latency)
        assert latency < LIMIT_MS
    wait_until(lambda: demo.stats()["requests_active"] == 0)


def chat(*lines: str, stream: bool = False) -> bytes:
    return request("POST", "/v1/chat/completions", chat_body(stream=stream), JSON_TYPE, *lines)


def reached(demo: Demo) -> Callable[[], bool]:
    return lambda: demo.stats()["requests_active"] == 1


# --- the phases in which the backend works on it ------------------------------------------------------------


@pytest.mark.parametrize("line", ["X-Demo-Fault: never", "X-Demo-First-Ms: 60000"], ids=["never", "late"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_waiting_for_the_head(demo: Demo, proxy: Penstock, line: str, stream: bool) -> None:
    def begin(client: RawClient) -> None:
        client.send(chat(line, stream=stream))
        wait_until(reached(demo))

    measure("waiting for the head", demo, proxy.port, begin, {"waiting"})


def test_head_in_progress(demo: Demo, proxy: Penstock) -> None:
    def begin(client: RawClient) -> None:
        client.send(chat("X-Demo-Fault: slowhead=1000"))
        wait_until(reached(demo))

    measure("head in progress", demo, proxy.port, begin, {"head", "waiting"})


def test_whole_answer_in_progress(demo: Demo, proxy: Penstock) -> None:
    """Held by us until it is complete, so the client has nothing yet; the backend stalls in its middle."""

    def begin(client: RawClient) -> None:
        sent = demo.stats()["bytes_sent"]
        client.send(chat("X-Demo-Fault: stall"))
        wait_until(lambda: demo.stats()["bytes_sent"] > sent)

    measure("whole answer in progress", demo, proxy.port, begin, {"body"})


def test_binary_answer_in_progress(demo: Demo, proxy: Penstock) -> None:
    """A fast one: the server under us takes what is written for a client that has left, as fast as it comes."""

    def begin(client: RawClient) -> None:
        body = json.dumps({"model": "demo", "input": "x"}).encode()
        client.send(request("POST", "/v1/audio/speech", body, JSON_TYPE, "X-Demo-Bytes: 4000000000"))
        client.until(b"\r\n\r\n")

    measure("fast binary answer", demo, proxy.port, begin, {"body"})


def test_stream_in_progress(demo: Demo, proxy: Penstock) -> None:
    def begin(client: RawClient) -> None:
        client.send(chat("X-Demo-Tokens: 100000", "X-Demo-Rate: 200", stream=True))
        client.until(b"data: ")

    measure("stream in progress", demo, proxy.port, begin, {"streaming"})


def test_fast_stream_to_a_client_that_does_not_read(demo: Demo, proxy: Penstock) -> None:
    def begin(client: RawClient) -> None:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(chat("X-Demo-Tokens: 1000000", "X-Demo-Rate: 0", stream=True))
        client.until(b"data: ")
        sent = -1
        while sent != (sent := demo.stats()["bytes_sent"]):  # until every buffer on the way is full
            time.sleep(0.02)

    measure("stream to a client that does not read", demo, proxy.port, begin, {"streaming"})


def test_stalled_stream(demo: Demo, proxy: Penstock) -> None:
    def begin(client: RawClient) -> None:
        client.send(chat("X-Demo-Fault: stall", stream=True))
        client.until(b"data: ")

    measure("stalled stream", demo, proxy.port, begin, {"streaming"})


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_upload_in_progress(demo: Demo, proxy: Penstock, framing: str) -> None:
    def begin(client: RawClient) -> None:
        head = request("POST", "/v1/echo", b"", "Content-Type: application/octet-stream", framing, length=False)
        client.send(head + b"400\r\n" + b"x" * 100)
        wait_until(reached(demo))

    measure("upload in progress", demo, proxy.port, begin, {"receiving"})


def test_half_closed_client_has_left(demo: Demo, proxy: Penstock) -> None:
    """HTTP clients do not half-close; one that has shut its side down will not read an answer either."""

    def begin(client: RawClient) -> None:
        client.send(chat("X-Demo-Tokens: 100000", "X-Demo-Rate: 200", stream=True))
        client.until(b"data: ")

    def half_close(client: RawClient) -> int:
        before = time.monotonic_ns()
        client.socket.shutdown(socket.SHUT_WR)
        return before

    measure("half-closed", demo, proxy.port, begin, {"streaming"}, half_close)


def test_reset_by_the_client(demo: Demo, proxy: Penstock) -> None:
    def begin(client: RawClient) -> None:
        client.send(chat("X-Demo-Fault: stall", stream=True))
        client.until(b"data: ")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    measure("client resets", demo, proxy.port, begin, {"streaming"})


# --- the phases in which no backend knows of it yet -----------------------------------------------------------


def test_waiting_for_a_place(demo: Demo) -> None:
    """With the one connection taken, requests queue here; of those whose clients left none reaches the backend."""
    text = config(
        demo.port, backend="[backends.demo.pool]\nmax_connections = 1\n[backends.demo.timeout]\nconnect_s = 30\n"
    )
    with Penstock(text) as proxy, RawClient(proxy.port) as holder:
        holder.send(chat("X-Demo-Fault: stall", stream=True))
        holder.until(b"data: ")
        before = demo.stats()["requests_total"]
        waiting = [RawClient(proxy.port).send(chat("X-Demo-First-Ms: 60000")) for _ in range(TIMES)]
        time.sleep(LASTING_S)
        for client in waiting:
            leave(client)
        ended = access_lines(proxy, TIMES)
        # The longest any of them lived, the wait above and the log's own ticks left aside, is its time to abort.
        latencies["waiting for a place"] = [line["duration"] - LASTING_S * 1000 for line in ended]
        assert max(latencies["waiting for a place"]) < LIMIT_MS
        assert demo.stats()["requests_total"] == before
        leave(holder)
        aborted(demo, 1)
        with RawClient(proxy.port) as client:
            assert client.send(chat()).answer().status == 200


def access_lines(proxy: Penstock, count: int) -> list[dict[str, Any]]:
    """The access lines of so many requests whose clients have left."""
    found: list[dict[str, Any]] = []

    def here() -> bool:
        found[:] = [line for line in proxy.lines() if line.get("error") == "client_left"]
        return len(found) >= count

    wait_until(here)
    return found


def test_connecting() -> None:
    """A listener whose queue is full answers no connection; the attempt's socket goes when the client goes."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        text = config(port, backend=f"{UNASKED}[backends.demo.timeout]\nconnect_s = 60\n").replace(
            "discover = true", ""
        )
        with Penstock(text + "[models.demo]\ntargets = ['demo']\n") as proxy:
            worker = proxy.workers()[0]
            clients = [RawClient(proxy.port).send(chat()) for _ in range(TIMES)]
            wait_until(lambda: connecting(worker, port) == TIMES)
            before = time.monotonic_ns()
            for client in clients:
                leave(client)
            while connecting(worker, port):
                assert time.monotonic_ns() - before < 5e9
            latencies["connecting"] = [(time.monotonic_ns() - before) / 1e6]
            assert latencies["connecting"][0] < LIMIT_MS
            assert len(access_lines(proxy, TIMES)) == TIMES
        for filler in fillers:
            filler.close()


def connecting(worker: psutil.Process, port: int) -> int:
    """Connections under way to that port."""
    return sum(c.status == psutil.CONN_SYN_SENT and c.raddr.port == port for c in worker.net_connections("tcp4"))


# --- a backend that does not take the upload ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_upload_to_a_backend_that_takes_nothing(how: str) -> None:
    """Nobody reads the client's bytes then, and its leaving must be noticed all the same.

    What it has sent has arrived: a FIN behind bytes that found no room is still with the client, and nobody can see it.
    """
    with socket.socket() as stubborn:
        stubborn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stubborn.bind(("127.0.0.1", 0))
        stubborn.listen(8)
        port = stubborn.getsockname()[1]
        text = config(port, backend=f"{UNASKED}[backends.demo.timeout]\nsend_s = 60\n").replace("discover = true", "")
        with Penstock(text) as proxy, RawClient(proxy.port) as client:
            worker = proxy.workers()[0]
            head = request("POST", "/v1/echo", b"", "Content-Type: x/y", "Content-Length: 400000000", length=False)
            client.send(head)
            with stubborn.accept()[0]:
                fill(client, proxy.port)
                assert established(worker, port) == 1
                if how == "resets":
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                before = time.monotonic_ns()
                leave(client)
                while established(worker, port):
                    assert time.monotonic_ns() - before < 3e9, "the backend's connection stays"
                latency = (time.monotonic_ns() - before) / 1e6
        latencies.setdefault("upload, backend takes nothing", []).append(latency)
        assert latency < LIMIT_MS


def fill(client: RawClient, server_port: int) -> None:
    """Send until the server reads no more, and not a byte that it has no room for."""
    own_port = client.socket.getsockname()[1]
    full = 0
    while full < 3:
        client.socket.send(bytes(16_384))
        time.sleep(0.002)
        full = full + 1 if unread(server_port, own_port) else 0
    time.sleep(LASTING_S)
    assert unread(server_port, own_port)


def unread(server_port: int, client_port: int) -> int:
    """Bytes that have arrived on a connection and that the server has not read (proc(5), /proc/net/tcp)."""
    ends = f":{server_port:04X}", f":{client_port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (fields[1][-5:], fields[2][-5:]) == ends:
            return int(fields[4].partition(":")[2], 16)
    return 0


def established(worker: psutil.Process, port: int) -> int:
    return sum(
        c.status == psutil.CONN_ESTABLISHED and bool(c.raddr) and c.raddr.port == port
        for c in worker.net_connections("tcp4")
    )


# --- all of them ------------------------------------------------------------------------------------------------


def test_the_median_of_all_aborts() -> None:
    """Last in this file: what the tests above have measured, printed for the record."""
    every = [latency for each in latencies.values() for latency in each]
    if len(every) < 30:
        pytest.skip("the aborts were not measured in this run")
    for name, each in latencies.items():
        print(f"{name}: {len(each)} aborts, median {statistics.median(each):.1f} ms, max {max(each):.1f} ms")
    print(f"all: {len(every)} aborts, median {statistics.median(every):.1f} ms, max {max(every):.1f} ms")
    assert statistics.median(every) < MEDIAN_MS
