"""Requests that are wrong, broken off, too large or too slow: each is refused in words and harms nobody else."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from raw_client import END_CHUNK, JSON_TYPE, Answer, RawClient, ask, chat, chat_body, chunked, request, wait_until

from running import Demo, Penstock, config

CHAT = "/v1/chat/completions"
LIMIT = 10_485_760
SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-xss-protection": "1; mode=block",
    "referrer-policy": "strict-origin-when-cross-origin",
}


@pytest.fixture(scope="module", autouse=True)
def nothing_leaks(strict: Penstock, proxy: Penstock, demo: Demo) -> Iterator[None]:
    """After everything in this file the workers hold what they held before it."""
    for process in (strict, proxy):
        warm_up(process)
    before = {process: figures(process, demo) for process in (strict, proxy)}
    yield
    for process, old in before.items():
        settles(process, demo, old)


def settles(process: Penstock, demo: Demo, old: dict[str, int]) -> None:
    """Connections close and memory is given back within a moment; what stays is a leak, and it is named."""
    until = time.monotonic() + 5
    while more := grown(old, figures(process, demo)):
        assert time.monotonic() < until, f"{process.url} holds more than before: {more}"
        time.sleep(0.05)


def warm_up(process: Penstock) -> None:
    """What is made once is made: threads, the largest body's memory, a pooled connection."""
    for _ in range(3):
        ask(process.port, request("POST", CHAT, b"[" * LIMIT, JSON_TYPE))
    chat(process.port)


def figures(process: Penstock, demo: Demo) -> dict[str, int]:
    (worker,) = process.workers()
    stats = demo.stats()
    return {
        "fds": worker.num_fds(),
        "threads": worker.num_threads(),
        "requests active": stats["requests_active"],
        "connections open": stats["connections_open"],
        "MB": worker.memory_info().rss >> 20,
    }


# Pooled connections are kept, and allocators keep what they freed: a leak is more than this over some 150 requests.
ALLOWED = {"fds": 4, "threads": 1, "requests active": 0, "connections open": 4, "MB": 8}


def grown(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    return {name: new[name] - old[name] for name in old if new[name] - old[name] > ALLOWED[name]}


@pytest.fixture(autouse=True)
def next_one_works(strict: Penstock) -> Iterator[None]:
    """After each bad request, a good one."""
    yield
    assert chat(strict.port).status == 200


def refused(answer: Answer, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """Check that this is a refusal of ours, in OpenAI's envelope; its error object."""
    assert answer.status == status, answer
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert "Traceback" not in error["message"] and error["message"]
    assert answer.header("x-penstock-error") in ("caller", "policy")
    assert answer.header("content-type") == "application/json" and answer.header("x-request-id")
    assert {name: answer.header(name) for name in SECURITY} == SECURITY
    return dict(error)


def post(process: Penstock, body: bytes, *lines: str, path: str = CHAT, **options: Any) -> Answer:
    return ask(process.port, request("POST", path, body, *(lines or (JSON_TYPE,)), **options))


# --- bodies ---------------------------------------------------------------------------------------------------

BROKEN = {
    "empty": b"",
    "blank": b"  \n",
    "cut": b'{"model":"demo","messages":[',
    "cut in a string": b'{"model":"de',
    "trailing comma": b'{"model":"demo",}',
    "no quotes": b"{model:1}",
    "single quotes": b"{'model':'demo'}",
    "two objects": b'{"model":"demo"}{"model":"demo"}',
    "text behind": b'{"model":"demo"} x',
    "comment": b'{"model":"demo"/**/}',
    "NaN": b'{"model":"demo","t":NaN}',
    "leading zero": b'{"model":"demo","t":01}',
    "plus": b'{"model":"demo","t":+1}',
    "bare point": b'{"model":"demo","t":1.}',
    "bad escape": b'{"model":"demo","t":"\\x"}',
    "short \\u": b'{"model":"demo","t":"\\u12"}',
    "raw line break": b'{"model":"demo","t":"a\nb"}',
    "raw NUL": b'{"model":"demo","t":"a\x00b"}',
    "NUL behind": b'{"model":"demo"}\x00',
    "BOM": b'\xef\xbb\xbf{"model":"demo"}',
    "invalid UTF-8": b'{"model":"demo","t":"\xff"}',
    "overlong UTF-8": b'{"model":"demo","t":"\xc0\xaf"}',
    "UTF-8 surrogate": b'{"model":"demo","t":"\xed\xa0\x80"}',
    "cut UTF-8": b'{"model":"demo","t":"\xe2\x82"}',
    "UTF-16": '{"model":"demo"}'.encode("utf-16"),
    "array": b'[{"model":"demo"}]',
    "string": b'"demo"',
    "number": b"1",
    "null": b"null",
    "form": b"model=demo&a=1",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_broken_json(strict: Penstock, body: bytes) -> None:
    error = refused(post(strict, body), 400, "invalid_json")
    assert "JSON" in error["message"]


def test_the_place_is_told(strict: Penstock) -> None:
    assert "line 2" in refused(post(strict, b'{"model":\n tru}'), 400, "invalid_json")["message"]


@pytest.mark.parametrize("value", ["null", "1", "true", '["demo"]', '{"name":"demo"}'])
def test_a_model_that_is_no_string(proxy: Penstock, strict: Penstock, value: str) -> None:
    for process in (proxy, strict):
        refused(post(process, b'{"model":%b}' % value.encode()), 400, "invalid_request", "model")


def test_no_model_and_no_default_backend(strict: Penstock) -> None:
    error = refused(post(strict, b'{"messages":[]}'), 400, "missing_required_parameter", "model")
    assert "model" in error["message"]


def test_no_model_goes_to_the_default_backend(proxy: Penstock) -> None:
    answer = post(proxy, b'{"messages":[{"role":"user","content":"Hello"}]}')
    assert answer.status == 200 and answer.json()["model"] == "demo"


@pytest.mark.parametrize("model", ["dem", "", "demo\\u0000", "x" * 5000], ids=["near", "empty", "NUL", "long"])
def test_a_model_nobody_knows(strict: Penstock, model: str) -> None:
    error = refused(post(strict, b'{"model":"%b"}' % model.encode()), 404, "model_not_found", "model")
    assert len(error["message"]) < 1000


def test_a_model_of_half_a_character(strict: Penstock) -> None:
    """A lone surrogate has no UTF-8, so nothing may try to write it out."""
    answer = post(strict, b'{"model":"demo\\ud800"}')
    refused(answer, 400, "invalid_request", "model")


def test_of_two_models_the_last_counts(strict: Penstock) -> None:
    def body(first: str, second: str) -> bytes:
        return f'{{"model":"{first}","messages":[{{"role":"user","content":"Hi"}}],"model":"{second}"}}'.encode()

    assert post(strict, body("none", "demo")).status == 200
    refused(post(strict, body("demo", "none")), 404, "model_not_found", "model")


def nested(depth: int) -> bytes:
    return b'{"model":"demo","messages":[{"role":"user","content":"Hi"}],"x":%b1%b}' % (b"[" * depth, b"]" * depth)


PASSING = {
    "200 deep": nested(200),
    "lone surrogate": b'{"model":"demo","x":"\\ud800 \\udc00","messages":[{"role":"user","content":"Hi"}]}',
    "escaped NUL": b'{"model":"demo","messages":[{"role":"user","content":"a\\u0000b"}]}',
    "huge number": b'{"model":"demo","x":1e999,"messages":[{"role":"user","content":"Hi"}]}',
    "long key": b'{"model":"demo","%b":1,"messages":[{"role":"user","content":"Hi"}]}' % (b"k" * 100_000),
}


@pytest.mark.parametrize("body", PASSING.values(), ids=PASSING)
def test_odd_but_right(strict: Penstock, body: bytes) -> None:
    """Echoed, because a backend may be less liberal than we are."""
    answer = post(strict, body, path="/v1/echo")
    assert answer.status == 200 and answer.json()["body_sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("depth", [5_000, 1_000_000])
def test_too_deep(strict: Penstock, depth: int) -> None:
    refused(post(strict, nested(depth)), 400, "invalid_json")


# --- size -----------------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    start = b'{"model":"demo","messages":[{"role":"user","content":"Hi"}],"x":"'
    return start + b"x" * (size - len(start) - 2) + b'"}'


def test_the_largest_body_passes(strict: Penstock) -> None:
    assert post(strict, padded(LIMIT)).status == 200


def test_one_byte_too_many(strict: Penstock) -> None:
    """The client sends all of it before it reads."""
    error = refused(post(strict, padded(LIMIT + 1)), 413, "body_too_large")
    assert str(LIMIT) in error["message"]


@pytest.mark.parametrize("size", [LIMIT + 1, LIMIT + 3_000_000], ids=["a byte", "3 MB"])
def test_too_large_in_chunks(strict: Penstock, size: int) -> None:
    body = padded(size)
    parts = chunked(*(body[at : at + 65_536] for at in range(0, size, 65_536)))
    head = request("POST", CHAT, b"", JSON_TYPE, "Transfer-Encoding: chunked", length=False)
    refused(ask(strict.port, head + parts), 413, "body_too_large")


@pytest.mark.parametrize("body", [b"[" * LIMIT, padded(LIMIT)[:-1], padded(LIMIT)], ids=["no object", "cut", "right"])
def test_bodies_are_not_kept_after_their_requests(strict: Penstock, body: bytes) -> None:
    """A body that only the garbage collector frees stays until thousands of requests later."""
    (worker,) = strict.workers()
    data = request("POST", CHAT, body, JSON_TYPE)
    for _ in range(2):
        ask(strict.port, data)
    before = worker.memory_info().rss
    for _ in range(8):
        ask(strict.port, data)
    assert worker.memory_info().rss - before < 2.5 * LIMIT


@pytest.fixture(scope="module")
def small_uploads(demo: Demo) -> Iterator[Penstock]:
    with Penstock(config(demo.port, server="max_upload_bytes = 100_000")) as process:
        yield process


BINARY = "Content-Type: application/octet-stream"


def test_the_largest_upload_passes(small_uploads: Penstock) -> None:
    assert post(small_uploads, b"x" * 100_000, BINARY, path="/v1/echo").status == 200


def test_too_large_an_upload(small_uploads: Penstock) -> None:
    refused(post(small_uploads, b"x" * 100_001, BINARY, path="/v1/echo"), 413, "body_too_large")


def test_too_large_an_upload_in_chunks(small_uploads: Penstock, demo: Demo) -> None:
    head = request("POST", "/v1/echo", b"", BINARY, "Transfer-Encoding: chunked", length=False)
    refused(ask(small_uploads.port, head + chunked(b"x" * 60_000, b"x" * 60_000)), 413, "body_too_large")
    wait_until(lambda: demo.stats()["requests_active"] == 0)


# --- the head ---------------------------------------------------------------------------------------------------

TYPES = ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data; boundary=x", ""]


@pytest.mark.parametrize("kind", TYPES)
def test_wrong_content_type(strict: Penstock, kind: str) -> None:
    refused(post(strict, chat_body(), f"Content-Type: {kind}"), 415, "unsupported_media_type", "Content-Type")


def test_no_content_type(strict: Penstock) -> None:
    refused(post(strict, chat_body(), "X-Other: 1"), 415, "unsupported_media_type", "Content-Type")


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/", "/v2/chat", "/admin", "//v1/models", "/V1/models"])
def test_unknown_path(strict: Penstock, path: str) -> None:
    refused(ask(strict.port, request("GET", path)), 404, "not_found")


METHODS = [("GET", CHAT, "POST"), ("DELETE", "/v1/models", "GET, HEAD"), ("POST", "/health", "GET, HEAD")]


@pytest.mark.parametrize(("method", "path", "allowed"), METHODS, ids=lambda value: value)
def test_wrong_method(strict: Penstock, method: str, path: str, allowed: str) -> None:
    answer = ask(strict.port, request(method, path))
    refused(answer, 405, "method_not_allowed")
    assert answer.header("allow") == allowed


@pytest.mark.parametrize("path", ["/api/chat", "/api/nothing"])
def test_native_paths_have_ollamas_envelope(strict: Penstock, path: str) -> None:
    answer = ask(strict.port, request("PUT", path, b"{}"))
    assert answer.status in (404, 405) and set(answer.json()) == {"error"}
    assert isinstance(answer.json()["error"], str) and answer.header("x-penstock-error") == "caller"


def test_a_native_path_takes_no_offence_at_the_content_type(strict: Penstock) -> None:
    answer = post(strict, b'{"model":"none"}', "Content-Type: text/plain", path="/api/chat")
    assert answer.status == 404 and "none" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8", "a.localhost."])
def test_loopback_names_pass(strict: Penstock, host: str) -> None:
    assert ask(strict.port, request("GET", "/health/live", host=host)).status == 200


FOREIGN = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "[::2]", "notlocalhost"]


@pytest.mark.parametrize("path", ["/health/live", "/v1/models"])
@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_hosts(strict: Penstock, host: str, path: str) -> None:
    refused(ask(strict.port, request("GET", path, host=host)), 400, "invalid_request", "Host")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://"])
def test_foreign_origins(strict: Penstock, origin: str) -> None:
    answer = post(strict, chat_body(), JSON_TYPE, f"Origin: {origin}")
    refused(answer, 403, "origin_not_allowed", "Origin")
    assert answer.header("x-penstock-error") == "policy"
    assert answer.header("access-control-allow-origin") is None


def test_our_own_origin_passes(strict: Penstock) -> None:
    own = f"localhost:{strict.port}"
    data = request("POST", CHAT, chat_body(), JSON_TYPE, f"Origin: http://{own}", host=own)
    assert ask(strict.port, data).status == 200


BODY = chat_body()
SPLIT = len(BODY)
# The server under us may refuse these first: then a bare status or a closed connection is all there is.
HEADS: dict[str, bytes] = {
    "no Host": request("POST", CHAT, BODY, JSON_TYPE, host=None),
    "two Hosts": request("POST", CHAT, BODY, JSON_TYPE, "Host: localhost"),
    "two different Hosts": request("POST", CHAT, BODY, JSON_TYPE, "Host: evil.example"),
    "empty Host": request("POST", CHAT, BODY, JSON_TYPE, host=""),
    "Host with a path": request("POST", CHAT, BODY, JSON_TYPE, host="localhost/x"),
    "Host with a user": request("POST", CHAT, BODY, JSON_TYPE, host="a@localhost"),
    "Host with a bad port": request("POST", CHAT, BODY, JSON_TYPE, host="localhost:x"),
    "both framings": request("POST", CHAT, chunked(BODY), JSON_TYPE, "Transfer-Encoding: chunked"),
    "both framings, length first": request(
        "POST", CHAT, chunked(BODY), JSON_TYPE, "Content-Length: 5", "Transfer-Encoding: chunked", length=False
    ),
    "two lengths": request("POST", CHAT, BODY, JSON_TYPE, f"Content-Length: {SPLIT}"),
    "two different lengths": request("POST", CHAT, BODY, JSON_TYPE, "Content-Length: 5"),
    "a list of lengths": request("POST", CHAT, BODY, JSON_TYPE, f"Content-Length: {SPLIT}, {SPLIT}", length=False),
    "negative length": request("POST", CHAT, BODY, JSON_TYPE, "Content-Length: -1", length=False),
    "signed length": request("POST", CHAT, BODY, JSON_TYPE, f"Content-Length: +{SPLIT}", length=False),
    "hexadecimal length": request("POST", CHAT, BODY, JSON_TYPE, "Content-Length: 0x10", length=False),
    "endless length": request("POST", CHAT, BODY, JSON_TYPE, f"Content-Length: {'9' * 40}", length=False),
    "gzip coding": request("POST", CHAT, BODY, JSON_TYPE, "Transfer-Encoding: gzip", length=False),
    "gzip, chunked coding": request(
        "POST", CHAT, chunked(BODY), JSON_TYPE, "Transfer-Encoding: gzip, chunked", length=False
    ),
    "chunked twice": request(
        "POST", CHAT, chunked(BODY), JSON_TYPE, "Transfer-Encoding: chunked, chunked", length=False
    ),
    "bad chunk size": request("POST", CHAT, b"xyz\r\n", JSON_TYPE, "Transfer-Encoding: chunked", length=False),
    "chunk longer than told": request(
        "POST", CHAT, b"3\r\nabcdef\r\n0\r\n\r\n", JSON_TYPE, "Transfer-Encoding: chunked", length=False
    ),
    "space before the colon": request("POST", CHAT, BODY, "Content-Type : application/json"),
    "folded line": request("POST", CHAT, BODY, JSON_TYPE, "X-A: 1\r\n  folded"),
    "control character": request("POST", CHAT, BODY, JSON_TYPE, "X-A: a\x01b"),
    "NUL in a value": request("POST", CHAT, BODY, JSON_TYPE, "X-A: a\x00b"),
    "bare CR": request("POST", CHAT, BODY, JSON_TYPE, "X-A: a\rX-B: b"),
    "no version": b"GET /v1/models\r\n\r\n",
    "wrong version": b"GET /v1/models HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "space in the target": b"GET /v1/mod els HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n",
    "a foreign protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "too many headers": request("GET", "/v1/models", b"", *(f"X-{n}: {n}" for n in range(2_000))),
    "huge header": request("GET", "/v1/models", b"", f"X-A: {'a' * 2_000_000}"),
    "huge target": request("GET", f"/v1/models?{'a' * 2_000_000}"),
}


@pytest.mark.parametrize("data", HEADS.values(), ids=HEADS)
def test_heads_that_could_be_read_in_two_ways(strict: Penstock, data: bytes) -> None:
    with RawClient(strict.port) as client:
        check_refusal(client.try_send(data).all())


def check_refusal(answer: bytes) -> None:
    """Nothing (closed), or one or more refusals and never a success."""
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    statuses = [int(line.split(b" ")[1]) for line in lines]
    assert all(400 <= status < 500 or status == 505 for status in statuses), answer[:300]
    assert b"Traceback" not in answer


@pytest.mark.parametrize("length_first", [True, False])
def test_a_request_hidden_in_a_body_reaches_no_backend(proxy: Penstock, demo: Demo, length_first: bool) -> None:
    """What one side reads as a body, another may read as the next request (RFC 9112 §11.2)."""
    lines = ["Content-Length: 4", "Transfer-Encoding: chunked"]
    data = request("POST", "/v1/echo", b"", *(lines if length_first else lines[::-1]), length=False)
    before = demo.stats()["requests_total"]
    with RawClient(proxy.port) as client:
        answer = client.try_send(data + END_CHUNK + request("GET", "/v1/echo/hidden")).all()
    assert b"/v1/echo/hidden" not in answer
    assert demo.stats()["requests_total"] - before <= 1


# --- slow and vanishing clients -------------------------------------------------------------------------------------


DRIBBLES = {
    "from the first byte": b"",
    "in the method": b"P",
    "in a header": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-A: ",
}


@pytest.mark.parametrize("start", DRIBBLES.values(), ids=DRIBBLES)
def test_a_head_that_dribbles(strict: Penstock, start: bytes) -> None:
    began = time.monotonic()
    with RawClient(strict.port, timeout_s=0.2) as client:
        client.send(start)
        while time.monotonic() - began < 3:
            client.try_send(b"O")
            if client.ended():
                break
    assert time.monotonic() - began < 2


SILENCES = {
    "no byte": b"",
    "P": b"P",
    "half a line": b"GET /v1/mo",
    "half a head": b"GET /v1/models HTTP/1.1\r\nHost: loc",
    "half an HTTP/2 preface": b"PRI * HTTP/2.0\r\n",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("data", SILENCES.values(), ids=SILENCES)
def test_a_connection_that_falls_silent_before_its_request(strict: Penstock, data: bytes) -> None:
    """Else a few thousand of them hold every file descriptor there is."""
    with RawClient(strict.port, timeout_s=1.5) as client:
        assert client.send(data).ended()


def test_an_idle_connection_is_kept_longer_than_a_head_may_take(strict: Penstock) -> None:
    """Load balancers keep theirs for a minute; closing sooner would be their clients' errors."""
    with RawClient(strict.port, timeout_s=1.5) as client:
        assert client.send(request("GET", "/health/live")).answer().status == 200
        time.sleep(1.0)  # twice server.receive_s
        assert client.send(request("GET", "/health/live")).answer().status == 200


HALF = {
    "JSON": (CHAT, JSON_TYPE, "Content-Length: 1000", b'{"model":"demo'),
    "JSON in chunks": (CHAT, JSON_TYPE, "Transfer-Encoding: chunked", b'e\r\n{"model":"demo\r\n'),
    "an upload": ("/v1/echo", "Content-Type: text/plain", "Content-Length: 1000", b"abc"),
    "an upload in chunks": ("/v1/echo", "Content-Type: text/plain", "Transfer-Encoding: chunked", b"3\r\nabc\r\n"),
    "a form": ("/v1/echo", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 1000", b"--b\r\n"),
}


@pytest.mark.parametrize(("path", "kind", "framing", "start"), HALF.values(), ids=HALF)
def test_a_body_that_stops_half_way(
    hasty: Penstock, demo: Demo, path: str, kind: str, framing: str, start: bytes
) -> None:
    began = time.monotonic()
    with RawClient(hasty.port) as client:
        refused(
            client.send(request("POST", path, b"", kind, framing, length=False) + start).answer(),
            408,
            "request_timeout",
        )
    assert 0.4 < time.monotonic() - began < 2
    wait_until(lambda: demo.stats()["requests_active"] == 0)


REFUSED_EARLY = {
    "no such path": ("/nothing", 404, "not_found", None),
    "no such media type": (CHAT, 415, "unsupported_media_type", "Content-Type"),
    "no default backend": ("/v1/echo", 400, "missing_required_parameter", None),
}


@pytest.mark.parametrize(("path", "status", "code", "param"), REFUSED_EARLY.values(), ids=REFUSED_EARLY)
def test_a_refusal_is_told_though_the_body_stops(
    strict: Penstock, path: str, status: int, code: str, param: str | None
) -> None:
    """The reason was known from the head; the client pauses in its body all the same."""
    with RawClient(strict.port) as client:
        head = request("POST", path, b"", "Content-Type: text/plain", "Content-Length: 1000", length=False)
        refused(client.send(head + b"abc").answer(), status, code, param)


def test_a_slow_but_steady_body_is_taken(strict: Penstock) -> None:
    """`receive_s` bounds silence, not the whole time."""
    body = chat_body()
    with RawClient(strict.port) as client:
        client.send(request("POST", CHAT, body, JSON_TYPE)[: -len(body)])
        for at in range(0, len(body), 16):
            time.sleep(0.15)
            client.send(body[at : at + 16])
        assert client.answer().status == 200


PHASES: dict[str, bytes] = {
    "in the head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: local",
    "before the body": request("POST", CHAT, b"", JSON_TYPE, "Content-Length: 1000", length=False),
    "in the body": request("POST", CHAT, b'{"model":', JSON_TYPE, "Content-Length: 1000", length=False),
    "in a chunk": request("POST", CHAT, b'ff\r\n{"model":', JSON_TYPE, "Transfer-Encoding: chunked", length=False),
    "in an upload": request("POST", "/v1/echo", b"abc", "Content-Length: 1000", length=False),
    "in a chunked upload": request("POST", "/v1/echo", b"3\r\nabc\r\n", "Transfer-Encoding: chunked", length=False),
    "while waiting": request("POST", CHAT, chat_body(), JSON_TYPE, "X-Demo-Fault: never"),
    "in the stream": request("POST", CHAT, chat_body(stream=True), JSON_TYPE, "X-Demo-Fault: stall"),
}


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("data", PHASES.values(), ids=PHASES)
def test_a_client_that_vanishes(proxy: Penstock, demo: Demo, data: bytes, reset: bool) -> None:
    wait_until(lambda: demo.stats()["requests_active"] == 0)
    reaches = b"X-Demo" in data or b"/echo" in data
    with RawClient(proxy.port) as client:
        client.send(data)
        if reaches:
            wait_until(lambda: demo.stats()["requests_active"] == 1)
        if reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    began = time.monotonic()
    wait_until(lambda: demo.stats()["requests_active"] == 0)
    assert time.monotonic() - began < 0.5, "a backend must not work on for a client that left"


def test_nothing_was_a_defect_of_ours(strict: Penstock) -> None:
    """Runs last in this file: none of the above is an internal error in the log."""
    lines = strict.lines()
    assert [line for line in lines if line["message"] == "a defect" or line.get("status") == 500] == []
