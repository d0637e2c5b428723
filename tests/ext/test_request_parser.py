"""RequestParser: good requests are read whole however they are split, anything of two readings is refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ext import MESSAGE_DONE, MESSAGE_OPEN, Request, RequestHead, RequestParser, RequestRefused

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: u\r\n\r\n"


def head(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def one(data: bytes) -> Request:
    request, _, _ = RequestParser().feed(data)
    assert request is not None
    return request


def read_all(pieces: list[bytes]) -> list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes]]:
    """Every request in the pieces, each answered as soon as it is whole."""
    parser = RequestParser()
    requests: list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes]] = []
    current: Request | None = None
    body = b""
    for piece in pieces:
        request, part, end = parser.feed(piece)
        while True:
            current = request or current
            body += part
            if end != MESSAGE_DONE:
                break
            assert current is not None
            requests.append((current.method, current.path, current.headers, body))
            current, body = None, b""
            request, part, end = parser.next()
    assert current is None
    assert not parser.pending
    return requests


def test_a_whole_request() -> None:
    data = head(
        b"X-Request-ID:  r1 \t",
        b"Content-Type: application/json",
        b"X-Odd: \xe4",
        b"Content-Length: 2",
        b"Origin: http://o",
        start=b"POST /a%2Fb?x=1?y HTTP/1.1",
    )
    parser = RequestParser()
    request, body, end = parser.feed(data + b"{}")
    assert request is not None
    assert (request.method, request.path, request.query) == ("POST", b"/a%2Fb", b"x=1?y")
    assert request.headers == [
        (b"host", b"a"),
        (b"x-request-id", b"r1"),
        (b"content-type", b"application/json"),
        (b"x-odd", b"\xe4"),
        (b"content-length", b"2"),
        (b"origin", b"http://o"),
    ]
    assert (body, end) == (b"{}", MESSAGE_DONE)
    assert (request.http10, request.keep_alive, request.expects_continue) == (False, True, False)
    again = RequestHead(request.headers)
    for name in ("problem", "host", "origin", "media", "content_type", "content_length", "has_body", "request_id"):
        assert getattr(request.head, name) == getattr(again, name), name
    assert request.head.encode(b"X\r\n", 2, b"{}") == again.encode(b"X\r\n", 2, b"{}")


@pytest.mark.parametrize(
    ("start", "path", "query"),
    [
        (b"GET / HTTP/1.1", b"/", b""),
        (b"GET /? HTTP/1.1", b"/", b""),
        (b"GET //a/../b HTTP/1.1", b"//a/../b", b""),
        (b"GET http://a/b?c HTTP/1.1", b"/b", b"c"),
        (b"GET HTTPS://A HTTP/1.1", b"/", b""),
        (b"GET http://a?c HTTP/1.1", b"/", b"c"),
        (b"OPTIONS * HTTP/1.1", b"*", b""),
        (b"\r\n\r\nGET /x HTTP/1.1", b"/x", b""),
    ],
)
def test_targets(start: bytes, path: bytes, query: bytes) -> None:
    request = one(head(start=start))
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("version", "line", "keep_alive"),
    [
        (b"1.1", b"X: y", True),
        (b"1.1", b"Connection: Close", False),
        (b"1.1", b"Connection: x, close", False),
        (b"1.1", b"Connection: keep-alive, close", False),
        (b"1.0", b"X: y", False),
        (b"1.0", b"Connection: Keep-Alive", True),
        (b"1.0", b"Connection: keep-alive, close", False),
    ],
)
def test_keep_alive(version: bytes, line: bytes, keep_alive: bool) -> None:
    request = one(head(line, start=b"GET / HTTP/" + version))
    assert request.keep_alive is keep_alive
    assert request.http10 is (version == b"1.0")


def test_expect() -> None:
    assert one(head(b"Expect: 100-Continue")).expects_continue
    assert not one(head(b"Expect: something")).expects_continue
    assert not one(head(b"Expect: 100-continue", start=b"GET / HTTP/1.0")).expects_continue


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, head(host=b"")),
        (400, head(host=b"", start=b"GET / HTTP/1.0")),
        (400, head(b"Host: a")),
        (400, head(host=b"Host: a b")),
        (400, head(b"Content-Length: 1", b"Content-Length: 1")),
        (400, head(b"Content-Length: 1", b"Transfer-Encoding: chunked")),
        (400, head(b"Content-Length: +1")),
        (400, head(b"Content-Length: 1, 1")),
        (400, head(b"Content-Length: 18446744073709551616")),
        (400, head(b"Transfer-Encoding: gzip, chunked")),
        (400, head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
        (400, head(b"Transfer-Encoding: identity")),
        (400, head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0")),
        (400, head(b"Transfer-Encoding : chunked")),
        (400, head(b"Origin: a", b"Origin: b")),
        (400, head(b"a: b", b" c")),
        (400, head(b" a: b")),
        (400, head(b": b")),
        (400, head(b"a")),
        (400, head(b"a b: c")),
        (400, head(b"a: \x00")),
        (400, head(b"a: b\rc")),
        (400, head(b"a: b\nc: d")),
        (400, head(b"a: \x7f")),
        (400, GET.replace(b"\r\n", b"\n")),
        (400, b"\n" + GET),
        (400, b"\r\n" * 5 + GET),
        (400, head(start=b"GET  / HTTP/1.1")),
        (400, head(start=b"GET /  HTTP/1.1")),
        (400, head(start=b" GET / HTTP/1.1")),
        (400, head(start=b"G(T / HTTP/1.1")),
        (400, head(start=b"GET / http/1.1")),
        (400, head(start=b"GET /")),
        (400, head(start=b"GET / HTTP/1.1 ")),
        (400, head(start=b"GET /a#b HTTP/1.1")),
        (400, head(start=b"GET /\xc3\xa4 HTTP/1.1")),
        (400, head(start=b"GET /\xe4 HTTP/1.1")),
        (400, head(start=b"GET /\x7f HTTP/1.1")),
        (400, head(start=b"GET a HTTP/1.1")),
        (400, head(start=b"GET * HTTP/1.1")),
        (400, head(start=b"GET ftp://a/ HTTP/1.1")),
        (400, head(start=b"GET http://b/ HTTP/1.1")),
        (400, head(start=b"GET http://u@a/ HTTP/1.1")),
        (400, head(start=b"GET http:///b HTTP/1.1")),
        (400, CHUNKED + b"x\r\n"),
        (400, CHUNKED + b"3\nabc"),
        (400, CHUNKED + b"3\r\nabcd\r\n"),
        (400, CHUNKED + b"-1\r\n"),
        (400, CHUNKED + b"0x1\r\n"),
        (400, CHUNKED + b"10000000000000000\r\n"),
        (400, b"\x16\x03\x01\x02\x00\r\n"),
        (431, head(*[b"a: b"] * 128)),
        (431, head(b"a: " + b"b" * 65536)),
        (431, b"GET /" + b"a" * 65536),
        (501, head(start=b"CONNECT a:443 HTTP/1.1", host=b"Host: a:443")),
        (505, head(start=b"GET / HTTP/1.2")),
        (505, head(start=b"GET / HTTP/3.0")),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ],
)
def test_refused(status: int, data: bytes) -> None:
    texts = set()
    for step in (len(data), 7, 1):
        parser = RequestParser()
        with pytest.raises(RequestRefused) as caught:
            for at in range(0, len(data), step):
                parser.feed(data[at : at + step])
        assert caught.value.args[0] == status
        texts.add(caught.value.args[1])
        with pytest.raises(RequestRefused):
            parser.feed(GET)
        assert not parser.pending
    assert len(texts) == 1


def test_words() -> None:
    for data, text in [
        (head(*[b"a: b"] * 128), "more than 128 header lines"),
        (b"a" * 65536, "the head is over 65536 bytes"),
        (CHUNKED + b"x", "the chunked body is broken: a chunk size is not a number"),
        (b"PRI * HTTP/2.0\r\n", "HTTP/2 is served over TLS only"),
        (head(start=b"CONNECT a:1 HTTP/1.1"), "CONNECT is not served"),
    ]:
        with pytest.raises(RequestRefused) as caught:
            RequestParser().feed(data)
        assert caught.value.args[1] == text


def test_limits_themselves_are_within() -> None:
    exact = head(b"a: b")
    for step in (len(exact), 1):
        parser = RequestParser(len(exact), 2)
        found = [parser.feed(exact[at : at + step])[0] for at in range(0, len(exact), step)]
        assert found[-1] is not None
    with pytest.raises(RequestRefused):
        RequestParser(len(exact) - 1, 2).feed(exact)
    with pytest.raises(RequestRefused):
        RequestParser(len(exact), 1).feed(exact)


def test_body_bytes_are_given_themselves() -> None:
    parser = RequestParser()
    request, body, end = parser.feed(head(b"Content-Length: 4000"))
    assert request is not None
    assert (body, end) == (b"", MESSAGE_OPEN)
    piece = bytes(2000)
    for expected in (MESSAGE_OPEN, MESSAGE_DONE):
        request, body, end = parser.feed(piece)
        assert (request, end) == (None, expected)
        assert body is piece


def test_pipelining_and_pending() -> None:
    parser = RequestParser()
    assert not parser.pending
    assert parser.next() == (None, b"", MESSAGE_OPEN)
    request, body, end = parser.feed(POST + CHUNKED + CHUNKS + GET[:5])
    assert request is not None
    assert (body, end, parser.pending) == (b"hello", MESSAGE_DONE, True)
    request, body, end = parser.next()
    assert request is not None
    assert (request.path, body, end, parser.pending) == (b"/c", b"abcde", MESSAGE_DONE, True)
    assert parser.feed(GET[5:9]) == (None, b"", MESSAGE_DONE)
    assert parser.next() == (None, b"", MESSAGE_OPEN)
    assert parser.pending
    request, body, end = parser.feed(GET[9:])
    assert request is not None
    assert (request.path, body, end, parser.pending) == (b"/", b"", MESSAGE_DONE, False)


def test_next_inside_a_body_is_refused() -> None:
    parser = RequestParser()
    parser.feed(POST[:-1])
    with pytest.raises(RequestRefused):
        parser.next()


@given(
    requests=st.lists(st.sampled_from([GET, POST, CHUNKED + CHUNKS, b"\r\n" + GET]), max_size=5),
    cuts=st.lists(st.integers(0, 600), max_size=10),
)
def test_any_split(requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    whole = read_all([data])
    assert len(whole) == len(requests)
    assert read_all(pieces) == whole
    assert read_all([data[at : at + 1] for at in range(len(data))]) == whole
