"""Backends that break HTTP, dribble or flood: the right error in the right time, and a clean pool after it.

Every backend here may have one connection, so that a place which is not given back fails the next request. What the
demo backend can do wrong is in test_errors.py, connections that die while idle in test_stale.py, the framing of each
answer in tests/proxy/test_connection.py, TLS and names in test_bad_addresses.py.
"""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_backend import (
    BODY,
    EVENT,
    GOOD,
    JSON_HEAD,
    LAST_EVENTS,
    STREAM_HEAD,
    BadBackend,
    Peer,
    Scene,
    Stage,
    chunks,
    good,
    megabytes,
)
from raw_client import END_CHUNK, JSON_TYPE, Answer, ask, chat, chat_body, request, wait_until

from running import Penstock

BACKENDS = 100
PATIENT = 10
# Of each backend; a timeout is late by at most 0.1 s, and the machine may be busy.
LIMIT_S = 0.5
TOTAL_S = 2.0
SLACK_S = 1.5
CHAT = "/v1/chat/completions"
# What a socket's two buffers may hold, though the other side reads nothing more.
BUFFERS_BYTES = 16 << 20
HUGE_BYTES = 100 << 20
# 16 MiB are held, and once more as one piece, and once more on their way out.
GROWTH_BYTES = 72 << 20

SERVER = '[server]\nlisten = "127.0.0.1:0"\nworkers = 1\n[store]\nurl = "none"\n'
BACKEND = """
[backends.b{n}]
kind = "openai"
url = "http://127.0.0.1:{port}/v1"
pool = {{ max_connections = 1 }}
health = {{ interval_s = 0 }}
timeout = {{ connect_s = 0.5, send_s = 0.5, first_byte_s = 0.5, idle_s = 0.5, total_s = {total_s} }}
[models.m{n}]
targets = ["b{n}"]
"""


@dataclass
class Bad:
    """One backend with a model of its own, so that no test feels another's breaker."""

    backend: BadBackend
    penstock: Penstock
    model: str

    def play(self, scene: Scene) -> None:
        self.backend.scene = scene

    def ask(self, *lines: str, stream: bool = False) -> Answer:
        return chat(self.penstock.port, *lines, stream=stream, model=self.model)

    def drink(self, *, stream: bool = False) -> int:
        """Ask, and read the answer without keeping it: how many bytes came."""
        body = chat_body(stream=stream, model=self.model)
        size = 0
        with socket.create_connection(("127.0.0.1", self.penstock.port), timeout=10) as sock:
            sock.sendall(request("POST", CHAT, body, JSON_TYPE, "Connection: close"))
            while data := sock.recv(1 << 20):
                size += len(data)
        return size

    def is_clean(self) -> None:
        """What the bad scene held is free again, and the next requests are answered by themselves."""
        self.play(good)
        for _ in range(3):
            answer = self.ask()
            assert (answer.status, answer.body) == (200, BODY)
        wait_until(lambda: len(self.backend.open) <= 1)


@pytest.fixture(scope="module")
def fresh() -> Iterator[deque[Bad]]:
    """Backends that nobody has asked yet."""
    with Stage() as stage:
        backends = [stage.backend() for _ in range(BACKENDS)]
        sections = [
            BACKEND.format(n=n, port=each.port, total_s=TOTAL_S if n < BACKENDS - PATIENT else 60)
            for n, each in enumerate(backends)
        ]
        with Penstock(SERVER + "".join(sections)) as process:
            yield deque(Bad(each, process, f"m{n}") for n, each in enumerate(backends))


@pytest.fixture
def bad(fresh: deque[Bad]) -> Bad:
    return fresh.popleft()


@pytest.fixture
def patient(fresh: deque[Bad]) -> Bad:
    """One whose answers may take a minute in all."""
    return fresh.pop()


@pytest.fixture
def clock() -> Iterator[None]:
    yield None


def failed(answer: Answer, status: int, code: str) -> str:
    """Check that this is a backend's error in our envelope; its message."""
    assert answer.status == status, answer
    error = answer.json()["error"]
    assert answer.clean and (error["code"], answer.header("x-penstock-error")) == (code, "backend")
    return str(error["message"])


def cut(answer: Answer, code: str) -> list[str]:
    """Check that this is a stream with an error as its last event and no end of its framing; the events before."""
    assert answer.status == 200, answer
    *events, last = answer.data
    assert json.loads(last)["error"]["code"] == code
    assert not answer.clean and not answer.wire.endswith(END_CHUNK) and "[DONE]" not in answer.data
    return events


def after(reply: bytes, then: Scene) -> Scene:
    """A scene that takes the request, sends `reply` and goes on."""

    def scene(peer: Peer) -> None:
        peer.request()
        peer.send(reply)
        then(peer)

    return scene


def ends(peer: Peer) -> None:
    """The connection closes in good order."""


BAD_ANSWER = (502, "backend_bad_answer")
TIMEOUT = (504, "backend_timeout")

# --- heads -----------------------------------------------------------------------------------------------------

HALF_A_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Len"
MID_HEAD = {
    "closes": (ends, BAD_ANSWER),
    "resets": (Peer.reset, BAD_ANSWER),
    "falls silent": (Peer.wait, TIMEOUT),
}


@pytest.mark.parametrize("how", MID_HEAD)
def test_a_head_that_stops_half_way(bad: Bad, how: str) -> None:
    then, expected = MID_HEAD[how]
    bad.play(after(HALF_A_HEAD, then))
    began = time.monotonic()
    failed(bad.ask(), *expected)
    assert time.monotonic() - began < LIMIT_S + SLACK_S
    bad.is_clean()


def test_a_head_byte_by_byte_is_one_silence(bad: Bad) -> None:
    """The time to the first byte is that to a whole head: no dribble makes it longer."""
    bad.play(after(b"", lambda peer: peer.dribble(GOOD, 0.05)))
    began = time.monotonic()
    failed(bad.ask(), *TIMEOUT)
    assert LIMIT_S - 0.1 < time.monotonic() - began < LIMIT_S + SLACK_S
    bad.is_clean()


def test_a_head_byte_by_byte_in_time(bad: Bad) -> None:
    bad.play(after(b"", lambda peer: peer.dribble(GOOD, 0)))
    assert bad.ask().body == BODY
    bad.is_clean()


FLOODS = {
    "one line": b"x" * 1024,
    "lines": b"X-Padding: " + b"x" * 1000 + b"\r\n",
    "lines of one byte": b"a:\r\n",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_head_of_100_mb(bad: Bad, flood: str) -> None:
    def scene(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nX: ")
        for piece in megabytes(100, FLOODS[flood]):
            peer.send(piece)

    bad.play(scene)
    began = time.monotonic()
    failed(bad.ask(), *BAD_ANSWER)
    assert time.monotonic() - began < SLACK_S
    wait_until(lambda: not bad.backend.open)
    assert bad.backend.sent < bad.backend.connections * BUFFERS_BYTES
    bad.is_clean()


def test_interim_answers_without_end(bad: Bad) -> None:
    """Each is a good head, and none of them is the answer."""

    def scene(peer: Peer) -> None:
        peer.request()
        while True:
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100)
            peer.pause(0.02)

    bad.play(scene)
    began = time.monotonic()
    failed(bad.ask(), *TIMEOUT)
    assert LIMIT_S - 0.1 < time.monotonic() - began < LIMIT_S + SLACK_S
    bad.is_clean()


LENGTHS = {
    "negative": b"-5",
    "signed": b"+5",
    "hexadecimal": b"0x5",
    "words": b"many",
    "empty": b"",
    "beyond 64 bits": b"99999999999999999999999",
    "two in one": b"5, 6",
}


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_is_none(bad: Bad, length: str) -> None:
    bad.play(after(b"%bContent-Length: %b\r\n\r\n%b" % (JSON_HEAD, LENGTHS[length], BODY), Peer.wait))
    began = time.monotonic()
    failed(bad.ask(), *BAD_ANSWER)
    assert time.monotonic() - began < SLACK_S
    bad.is_clean()


# --- bodies of whole answers -----------------------------------------------------------------------------------


def test_more_declared_than_anybody_can_hold(bad: Bad) -> None:
    """It goes on as it comes, and ends where it broke off."""
    bad.play(after(b"%bContent-Length: 1000000000000000\r\n\r\n%b" % (JSON_HEAD, BODY), ends))
    answer = bad.ask()
    assert (answer.status, answer.body, answer.clean) == (200, BODY, False)
    bad.is_clean()


@pytest.mark.parametrize("how", ["closes", "resets", "falls silent"])
def test_a_body_that_stops_half_way(bad: Bad, how: str) -> None:
    then, expected = MID_HEAD[how]
    bad.play(after(GOOD[:-20], then))
    failed(bad.ask(), *expected)
    bad.is_clean()


def test_a_body_byte_by_byte(bad: Bad) -> None:
    bad.play(after(GOOD[: -len(BODY)], lambda peer: peer.dribble(BODY, 0)))
    assert bad.ask().body == BODY
    bad.is_clean()


def test_a_body_byte_by_byte_has_its_total(bad: Bad) -> None:
    """No silence is ever too long, but the whole of it is."""
    bad.play(after(GOOD[: -len(BODY)], lambda peer: peer.dribble(BODY, 0.1)))
    began = time.monotonic()
    failed(bad.ask(), *TIMEOUT)
    assert TOTAL_S - 0.1 < time.monotonic() - began < TOTAL_S + SLACK_S
    bad.is_clean()


CHUNKED = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = {
    "negative": b"-5\r\nhello\r\n",
    "prefixed": b"0x5\r\nhello\r\n",
    "not a number": b"zz\r\nhello\r\n",
    "no number": b"\r\nhello\r\n",
    "beyond 64 bits": b"fffffffffffffffff\r\nhello\r\n",
    "too small": b"3\r\nhello\r\n",
    "bare LF": b"5\nhello\n",
    "endless size": b"0" * 100_000,
    "endless extension": b"5;" + b"x" * 100_000,
    "endless trailers": b"0\r\n" + b"X: y\r\n" * 100_000,
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("chunk", BAD_CHUNKS)
def test_chunk_sizes_that_are_none(bad: Bad, chunk: str, stream: bool) -> None:
    """A stream's events that came before are told, and then the error."""
    began = time.monotonic()
    if stream:
        bad.play(after(STREAM_HEAD + chunks(EVENT), after_a_moment(BAD_CHUNKS[chunk])))
        assert len(cut(bad.ask(stream=True), "backend_bad_answer")) == 1
    else:
        bad.play(after(CHUNKED + chunks(BODY) + BAD_CHUNKS[chunk], Peer.wait))
        failed(bad.ask(), *BAD_ANSWER)
    assert time.monotonic() - began < SLACK_S
    bad.is_clean()


def after_a_moment(data: bytes) -> Scene:
    """What was sent before has reached the client by then."""

    def scene(peer: Peer) -> None:
        peer.pause(0.1)
        peer.send(data)
        peer.wait()

    return scene


NOT_JSON = {
    "rubbish": b"#" * len(BODY),
    "half of it": BODY[:-20],
    "a page": b"<html><h1>It works!</h1></html>",
    "nothing": b"",
    "two": BODY + BODY,
}


@pytest.mark.parametrize("body", NOT_JSON)
def test_a_whole_answer_that_is_no_json(bad: Bad, body: str) -> None:
    """Its framing is right and its type says JSON; there is no answer in it that a client could read."""
    text = NOT_JSON[body]
    bad.play(after(b"%bContent-Length: %d\r\n\r\n%b" % (JSON_HEAD, len(text), text), good))
    failed(bad.ask(), *BAD_ANSWER)
    bad.is_clean()


ODD_JSON = {
    "a list": b"[1, 2]",
    "NaN": b'{"choices": [{"logprob": -Infinity, "finish_reason": "stop"}]}',
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "space": b" \n" + BODY + b"\n",
    "a string": b'"done"',
}


@pytest.mark.parametrize("body", ODD_JSON)
def test_odd_json_passes(bad: Bad, body: str) -> None:
    text = ODD_JSON[body]
    bad.play(after(b"%bContent-Length: %d\r\n\r\n%b" % (JSON_HEAD, len(text), text), good))
    answer = bad.ask()
    assert (answer.status, answer.body) == (200, text)


@pytest.mark.parametrize("framing", ["length", "chunked", "connection"])
def test_a_whole_answer_of_100_mb_is_not_held(patient: Bad, framing: str) -> None:
    """The client may have it; the memory it takes here is bounded."""
    heads = {"length": b"%bContent-Length: %d\r\n\r\n" % (JSON_HEAD, HUGE_BYTES), "chunked": CHUNKED}

    def scene(peer: Peer) -> None:
        peer.request()
        peer.send(heads.get(framing, JSON_HEAD + b"\r\n"))
        for piece in megabytes(HUGE_BYTES >> 20, b"x" * 1024):
            peer.send(chunks(piece) if framing == "chunked" else piece)
        if framing == "chunked":
            peer.send(END_CHUNK)

    patient.play(scene)
    memory = Memory(patient.penstock)
    assert HUGE_BYTES < patient.drink() < HUGE_BYTES * 1.01
    assert memory.growth_bytes() < GROWTH_BYTES
    patient.is_clean()


class Memory:
    """How much more memory a worker has had at any time since now."""

    def __init__(self, process: Penstock) -> None:
        (worker,) = process.workers()
        self._proc = Path(f"/proc/{worker.pid}")
        (self._proc / "clear_refs").write_text("5")  # the peak is counted anew: proc(5)
        self._before = worker.memory_info().rss

    def growth_bytes(self) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024 - self._before


# --- two answers -----------------------------------------------------------------------------------------------

POISON = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"poison": 1}'


@pytest.mark.parametrize("late", [False, True], ids=["at once", "a moment later"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_second_answer_is_nobodys(bad: Bad, stream: bool, late: bool) -> None:
    """It would be the next client's: a mistake of the backend's, or somebody's try to put words into its mouth."""
    reply = STREAM_HEAD + chunks(EVENT, LAST_EVENTS) + END_CHUNK if stream else GOOD
    bad.play(after(reply, after_a_moment(POISON)) if late else after(reply + POISON, Peer.wait))
    answer = bad.ask(stream=stream)
    assert answer.status == 200 and answer.clean and b"poison" not in answer.wire
    wait_until(lambda: not bad.backend.open)
    bad.is_clean()


# --- streams ---------------------------------------------------------------------------------------------------


def test_a_stream_byte_by_byte(bad: Bad) -> None:
    data = STREAM_HEAD + chunks(EVENT, LAST_EVENTS) + END_CHUNK
    bad.play(after(b"", lambda peer: peer.dribble(data, 0)))
    answer = bad.ask(stream=True)
    assert answer.clean and answer.body == EVENT + LAST_EVENTS
    bad.is_clean()


def test_a_stream_without_end_has_its_total(bad: Bad) -> None:
    def scene(peer: Peer) -> None:
        peer.request()
        peer.send(STREAM_HEAD)
        while True:
            peer.send(chunks(EVENT))
            peer.pause(0.05)

    bad.play(scene)
    began = time.monotonic()
    assert len(cut(bad.ask(stream=True), "backend_timeout")) > 10
    assert TOTAL_S - 0.1 < time.monotonic() - began < TOTAL_S + SLACK_S
    bad.is_clean()


def test_a_stream_of_one_line_of_100_mb(patient: Bad) -> None:
    """It goes on as it comes; the scanner that looks for the end mark keeps none of it."""

    def scene(peer: Peer) -> None:
        peer.request()
        peer.send(STREAM_HEAD + chunks(b"data: "))
        for piece in megabytes(HUGE_BYTES >> 20, b"x" * 1024):
            peer.send(chunks(piece))
        peer.send(chunks(b"\n\n", LAST_EVENTS) + END_CHUNK)

    patient.play(scene)
    memory = Memory(patient.penstock)
    assert HUGE_BYTES < patient.drink(stream=True) < HUGE_BYTES * 1.01
    assert memory.growth_bytes() < GROWTH_BYTES
    patient.is_clean()


# --- redirects -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_passed_on(fresh: deque[Bad], status: int) -> None:
    """Following it would take the backend's credential to wherever it says."""
    bad, trap = fresh.popleft(), fresh.popleft()
    location = f"http://127.0.0.1:{trap.backend.port}/v1/elsewhere?a=b#c"
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\n"
    bad.play(after(head.encode() + b"there", good))
    answer = bad.ask()
    assert (answer.status, answer.header("location"), answer.body) == (status, location, b"there")
    assert len(bad.backend.requests) == 1
    bad.is_clean()
    assert trap.backend.connections == 0


# --- answers that come too early -------------------------------------------------------------------------------


def test_an_answer_before_the_request(bad: Bad) -> None:
    """Seen before the request is sent it is no answer; seen after, nobody can tell it from one."""

    def scene(peer: Peer) -> None:
        peer.send(GOOD)
        good(peer)

    bad.play(scene)
    began = time.monotonic()
    answer = bad.ask()
    if answer.status == 200:
        assert answer.body == BODY
    else:
        assert answer.status == 502 and answer.header("x-penstock-error") == "backend"
    assert time.monotonic() - began < SLACK_S
    # An answer too many closes the connection at the latest with the next request.
    wait_until(lambda: bad.ask().status == 200)
    bad.is_clean()


def test_an_answer_before_the_body_was_taken(bad: Bad) -> None:
    """9 MB that the backend does not want: the client gets its refusal, and the connection is not used again."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

    def scene(peer: Peer) -> None:
        peer.socket.recv(1024)
        peer.send(refusal)
        time.sleep(LIMIT_S)  # it is still there, and reads nothing

    bad.play(scene)
    began = time.monotonic()
    body = chat_body(model=bad.model, padding="x" * 9_000_000)
    answer = ask(bad.penstock.port, request("POST", CHAT, body, JSON_TYPE))
    assert (answer.status, answer.body) == (413, b"{}")
    assert time.monotonic() - began < SLACK_S
    wait_until(lambda: not bad.backend.open)
    bad.is_clean()


def test_a_request_that_is_never_taken(bad: Bad) -> None:
    def scene(peer: Peer) -> None:
        peer.socket.recv(1024)
        time.sleep(TOTAL_S)

    bad.play(scene)
    body = chat_body(model=bad.model, padding="x" * 9_000_000)
    began = time.monotonic()
    message = failed(ask(bad.penstock.port, request("POST", CHAT, body, JSON_TYPE)), *TIMEOUT)
    assert "take the request" in message
    assert LIMIT_S - 0.1 < time.monotonic() - began < LIMIT_S + SLACK_S
    bad.is_clean()
