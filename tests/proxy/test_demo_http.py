"""The demo backend's own HTTP parser: the same result for any split of the input, and 400 for the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from demo_wire import Raw, running, split

from penstock.proxy.demo import Server
from penstock.proxy.demo.http import BadRequest, Head, Parser
from penstock.proxy.demo.multipart import Form, Part

TWO_REQUESTS = (
    b"POST /a?b=%20c HTTP/1.1\r\nHost: x\r\nX-Odd-CASE:  v \r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;ext=1\r\nhello\r\nA\r\n, world...\r\n0\r\nTrailer: t\r\n\r\n"
    b"PUT /second HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def requests(data: bytes, step: int) -> list[tuple[Head, bytes]]:
    parser, found = Parser(), []
    head: Head | None = None
    body = b""
    for i in range(0, len(data), step):
        parser.feed(data[i : i + step])
        while True:
            head = head or parser.head()
            if head is None:
                break
            while piece := parser.body():
                body += piece
            if piece is None:
                break
            found.append((head, body))
            head, body = None, b""
    return found


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, 1000])
def test_any_split_gives_the_same_requests(step: int) -> None:
    (first, hello), (second, body) = requests(TWO_REQUESTS, step)
    assert first.headers[1] == ("X-Odd-CASE", "v") and (first.path, first.query) == ("/a", "b=%20c")
    assert first.is_chunked and hello == b"hello, world..."
    assert (second.method, second.target, body) == ("PUT", "/second", b"body")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nspace : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: x\nB: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 300_000,
    ],
)
def test_what_is_not_http_is_refused(server: Server, head: bytes) -> None:
    with pytest.raises(BadRequest):
        requests(head, 1000)
    if len(head) < 1000:
        with Raw(server) as raw:
            raw.socket.sendall(head)
            assert raw.all().startswith(b"HTTP/1.1 400 ") and raw.ended == "closed"


def test_echo_tells_what_arrived_to_the_letter(server: Server) -> None:
    with Raw(server) as raw:
        raw.socket.sendall(b"PATCH /v1/echo/%2F?x=1&x HTTP/1.1\r\nHOST: h\r\nx-b: 2\r\nX-B: 1\r\n\r\n")
        seen = json.loads(split(raw.all())[1])
    assert seen["headers"] == [["HOST", "h"], ["x-b", "2"], ["X-B", "1"]]
    assert (seen["method"], seen["target"]) == ("PATCH", "/v1/echo/%2F?x=1&x")
    assert (seen["body_bytes"], seen["chunked"], seen["body"]) == (0, False, "")


@pytest.mark.parametrize(("body", "text"), [(b"hi", "hi"), (b"\xff", None), (b"x" * 70_000, None)])
def test_echo_hashes_bodies_and_shows_short_text(server: Server, body: bytes, text: str | None) -> None:
    with Raw(server) as raw:
        for sent, headers in (
            (body, {}),
            (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), {"Transfer_Encoding": "chunked"}),
        ):
            seen = json.loads(split(raw.send("POST", "/v1/echo", sent, **headers).all())[1])
            assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()
            assert (seen["body_bytes"], seen["body"]) == (len(body), text)
            assert seen["chunked"] == bool(headers)


def test_head_is_answered_without_a_body(server: Server) -> None:
    with Raw(server) as raw:
        for target in ("/v1/models", "/v1/echo"):
            head, body = split(raw.send("HEAD", target).all())
            assert head.startswith(b"HTTP/1.1 200 ") and b"Content-Length: " in head and body == b""


def test_expect_100_continue(server: Server) -> None:
    with Raw(server) as raw:
        raw.send("PUT", "/v1/echo", Content_Length="2", Expect="100-continue")
        assert raw.some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.socket.sendall(b"ok")
        assert json.loads(split(raw.all())[1])["body"] == "ok"


def test_a_next_request_that_comes_early_waits(server: Server) -> None:
    with Raw(server) as raw:
        raw.chat(stream=True, X_Demo_First_Ms="10").send("GET", "/v1/models")
        data = raw.until(b"demo-embed")
    assert data.index(b"[DONE]") < data.index(b'"object":"list"')


def test_connection_close_and_http_1_0(server: Server) -> None:
    with Raw(server) as raw:
        assert b"Connection: close" in raw.send("GET", "/v1/models", Connection="close").all()
        assert raw.ended == "closed"
    with Raw(server) as raw:
        raw.socket.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert raw.all() and raw.ended == "closed"


@pytest.mark.parametrize(
    ("method", "target", "status"), [("GET", "/api/tags", 404), ("GET", "/v1/chat/completions", 405)]
)
def test_unknown_paths_and_methods(server: Server, method: str, target: str, status: int) -> None:
    with Raw(server) as raw:
        head, body = split(raw.send(method, target).all())
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert json.loads(body)["error"]["type"] == "invalid_request_error"


def form(step: int) -> list[Part]:
    found = Form('multipart/form-data; boundary="b-1"')
    content = b"\r\n--b-\r\n" * 3 + b"\0" * 70_000
    data = (
        b'--b-1\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b-1\r\nContent-Type: text/plain\r\ncontent-disposition: form-data; name="file"; filename="a b;\\".txt"'
        b"\r\n\r\n" + content + b"\r\n--b-1--\r\n"
    )
    for i in range(0, len(data), step):
        found.feed(data[i : i + step])
    assert found.is_complete
    assert found.parts[1].sha256 == hashlib.sha256(content).hexdigest()
    return found.parts


@pytest.mark.parametrize("step", [13, 4096, 1_000_000])
def test_forms_in_any_split(step: int) -> None:
    purpose, file = form(step)
    assert (purpose.name, purpose.value, purpose.is_whole) == ("purpose", b"batch", True)
    assert (file.filename, file.size, file.is_whole) == ('a b;".txt', 70_024, False)
