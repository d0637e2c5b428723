"""ResponseParser: agrees with its twin on random responses however they are split, and says what is wrong."""

import sys
import threading
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import http1 as oracle
from penstock.ext import (
    MEDIA_EVENT_STREAM,
    MESSAGE_BROKEN,
    MESSAGE_DONE,
    MESSAGE_DONE_CLOSE,
    MESSAGE_OPEN,
    ProtocolError,
    ResponseHead,
    ResponseParser,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def read(pieces: Iterable[bytes], head_request: bool = False, max_head_bytes: int = 65536) -> oracle.Response:
    """Feed the pieces, then close; in the twin's terms."""
    parser = ResponseParser(max_head_bytes)
    parser.expect(head_request)
    head: ResponseHead | None = None
    body, end = b"", MESSAGE_OPEN
    for piece in pieces:
        if end != MESSAGE_OPEN:
            # In one piece these had been bytes after the end.
            end = MESSAGE_DONE_CLOSE if piece else end
            continue
        new_head, part, end = parser.feed(piece)
        assert new_head is None or head is None
        head = new_head or head
        body += part
        if end == MESSAGE_BROKEN:
            parser.feed_eof()  # raises what is wrong behind the good bytes
    if end == MESSAGE_OPEN:
        end = parser.feed_eof()
        assert end == MESSAGE_DONE_CLOSE
    assert head is not None
    return oracle.Response(
        head.status,
        head.headers,
        head.media,
        head.content_length,
        head.encoded,
        head.retry_after,
        head.answer(b"Fine", b"r7", None, b"date: now\r\n", b"\r\n", b"body"),
        (head.has_date, head.has_request_id, head.has_cors, head.has_rate_limits),
        body,
        end == MESSAGE_DONE,
    )


def expected(data: bytes, head_request: bool, max_head_bytes: int = 65536) -> oracle.Response | None:
    try:
        return oracle.response(data, head_request, max_head_bytes)
    except oracle.Refused:
        return None


def outcome(pieces: Iterable[bytes], head_request: bool, max_head_bytes: int = 65536) -> oracle.Response | None:
    try:
        return read(pieces, head_request, max_head_bytes)
    except ProtocolError:
        return None


def chunk(payload: bytes, extension: bytes) -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(payload), extension, payload)


header_lines = st.sampled_from(
    [
        *(
            b"Server: x",
            b"X-A:\t1 ",
            b"x-b:2",
            b"Connection: close",
            b"Connection: X-A , x-b",
            b"Connection: X-Request-Id, ratelimit",
            b"Date: Tue, 21 Nov 2023 04:00:00 GMT",
            b"X-Request-ID: 7",
            b"Access-Control-Allow-Origin: *",
            b"X-RateLimit-Limit: 5",
            b"X-RateLimit-Remaining: 5",
            b"x-ratelimit-reset: 5",
            b"RateLimit: x",
            b"RateLimit-Policy: x",
            b"X-RateLimit-Limit-Requests: 5",
            b"connection: content-length",
        ),
        *(
            b"Content-Type: text/event-stream; charset=utf-8",
            b"content-type: application/json",
            b"Retry-After: 5",
        ),
        *(
            b"Content-Encoding: gzip",
            b"Content-Encoding: identity",
            b"Keep-Alive: timeout=5",
            b"X-Obs: \xe4",
            b"Upgrade: x",
        ),
        *(
            b"Content-Length: 3",
            b"Content-Length: 3, 3",
            b"Content-Length: 4",
            b"Transfer-Encoding: gzip",
            b"bad line",
        ),
    ]
)
status_lines = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 204",
        b"HTTP/1.1 304 \xe4",
        b"HTTP/1.1 503 ",
    ]
)
interims = st.sampled_from(
    [b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 x\nlink: a\n\n", b"HTTP/1.1 101 x\r\n\r\n"]
)
chunked_bodies = st.builds(
    lambda chunks, trailers: b"Transfer-Encoding: Chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n" + trailers + b"\r\n",
    st.lists(
        st.builds(chunk, st.binary(min_size=1, max_size=20), st.sampled_from([b"", b"", b" ", b';a="b c"'])),
        max_size=4,
    ),
    st.sampled_from([b"", b"", b"x: y\r\n", b"a: 1\r\nb: 2\r\n"]),
)
bodies = st.one_of(
    st.binary(max_size=20).map(lambda body: b"Content-Length: %d\r\n\r\n%s" % (len(body), body)),
    st.binary(max_size=20).map(lambda body: b"\r\n" + body),
    chunked_bodies,
    chunked_bodies,
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    line_end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    lines = [draw(status_lines), *draw(st.lists(header_lines, max_size=3))]
    head = b"".join(line + line_end for line in lines)
    data = bytearray(draw(interims) + head + draw(bodies) + draw(st.sampled_from([b"", b"", b"\r\n", b"HTTP"])))
    for place in draw(st.one_of(st.just([]), st.lists(st.integers(0, len(data) - 1), max_size=2))):
        data[place] = draw(st.sampled_from(b"\r\n\0 :;0f\xff"))
    return bytes(data)


@st.composite
def split(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@settings(max_examples=500, deadline=None)
@given(st.data(), responses(), st.sampled_from([False, False, False, True]))
def test_agrees_with_the_oracle_however_split(data: st.DataObject, whole: bytes, head_request: bool) -> None:
    wanted = expected(whole, head_request)
    assert outcome([whole], head_request) == wanted
    assert outcome(data.draw(split(whole)), head_request) == wanted
    assert outcome([whole[i : i + 1] for i in range(len(whole))], head_request) == wanted


@settings(max_examples=200, deadline=None)
@given(responses(), st.integers(0, 120), st.integers(1, 30))
def test_head_limit_agrees_with_the_oracle(whole: bytes, limit: int, size: int) -> None:
    wanted = expected(whole, False, limit)
    assert outcome([whole], False, limit) == wanted
    assert outcome([whole[i : i + size] for i in range(0, len(whole), size)], False, limit) == wanted


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", OK, CHUNKED]), st.lists(st.binary(max_size=30), max_size=5))
def test_random_bytes_agree_with_the_oracle(start: bytes, pieces: list[bytes]) -> None:
    assert outcome([start, *pieces], False) == expected(start + b"".join(pieces), False)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "closed before an answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed before an answer"),
        (b"HTTP/1.1 200 OK\r\nserv", "closed inside the head"),
        (OK + b"content-length: 500\r\n\r\n" + b"x" * 100, "closed after 100 of 500 body bytes"),
        (CHUNKED, "closed before the last chunk"),
        (CHUNKED + b"5\r\nhel", "closed inside a chunk"),
        (CHUNKED + b"5", "closed inside a chunk size line"),
        (CHUNKED + b"0\r\n", "closed inside the trailers"),
        (OK + b"bad name: x\r\n\r\n", "the response head is not HTTP/1.1: invalid header name"),
        (OK + b"a: b\r\n folded\r\n\r\n", "the response head is not HTTP/1.1: invalid header name"),
        (OK + b"a: \0\r\n\r\n", "the response head is not HTTP/1.1: invalid header value"),
        (b"HTTP/2 200\r\n\r\n", "the response head is not HTTP/1.1: invalid version"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "the response head is not HTTP/1.1: invalid status line"),
        (b"\r\n" + OK, "the response head is not HTTP/1.1: an empty line before it"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "101 Switching Protocols"),
        (OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", "differing Content-Length values"),
        (OK + b"content-length: 5, 6\r\n\r\n", "differing Content-Length values"),
        (OK + b"content-length: 5;\r\n\r\n", "Content-Length is not a number"),
        (OK + b"content-length: 18446744073709551616\r\n\r\n", "Content-Length is too large"),
        (
            OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "both Content-Length and Transfer-Encoding",
        ),
        (OK + b"transfer-encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding is not just chunked"),
        (OK + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n", "Transfer-Encoding is not just chunked"),
        (CHUNKED + b"zz\r\n", "a chunk size is not a number"),
        (CHUNKED + b"0x5\r\n", "a chunk size line has a byte that cannot be there"),
        (CHUNKED + b"5\nhello\r\n", "a chunk size line ends in a bare LF"),
        (CHUNKED + b"10000000000000000\r\n", "a chunk size is over 64 bits"),
        (CHUNKED + b"5;" + b"x" * 1100 + b"\r\n", "a chunk size line is over 1024 bytes"),
        (CHUNKED + b"3\r\nhello\r\n", "a chunk is longer than its size"),
        (CHUNKED + b"0\r\n" + b"x: y\r\n" * 3000, "the trailers are over 16384 bytes"),
        (OK + b"x: " + b"y" * 65536, "response head is over 65536 bytes"),
    ],
)
def test_what_is_told(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError) as told:
        read([data])
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("data", "head_request", "body", "may_reuse"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 2\r\n\r\nok", False, b"ok", True),
        (b"HTTP/1.1 204 No Content\r\n\r\nbody", False, b"", False),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n", False, b"", True),
        (OK + b"content-length: 500\r\n\r\n", True, b"", True),
        (CHUNKED, True, b"", True),
        (CHUNKED + b"1\r\na\r\n0\r\nx: y\r\n\r\n", False, b"a", True),
        (OK + b"\r\nuntil the end", False, b"until the end", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", False, b"ok", False),
        (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok", False, b"ok", False),
        (OK + b"content-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", False, b"ok", False),
        (OK + b"content-length: 2, 2\r\ncontent-length: 2\r\n\r\nok", False, b"ok", True),
    ],
)
def test_framings(data: bytes, head_request: bool, body: bytes, may_reuse: bool) -> None:
    answer = read([data], head_request)
    assert (answer.body, answer.may_reuse) == (body, may_reuse)


def test_one_connection_carries_one_answer_after_another() -> None:
    parser = ResponseParser()
    for _ in range(3):
        parser.expect()
        head, body, end = parser.feed(OK + b"Content-Type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        assert head is not None
        assert (head.status, head.media, body, end) == (200, MEDIA_EVENT_STREAM, b"", MESSAGE_OPEN)
        assert head.headers == [(b"content-type", b"text/event-stream")]
        assert parser.feed(b"5\r\nhello\r\n1;x\r\n!\r\n3") == (None, b"hello!", MESSAGE_OPEN)
        assert parser.feed(b"\r\nend\r\n0\r\n\r\n") == (None, b"end", MESSAGE_DONE)
        assert parser.feed(b"") == (None, b"", MESSAGE_DONE)


def test_bytes_nobody_asked_for() -> None:
    parser = ResponseParser()
    with pytest.raises(ProtocolError, match="no request asked for"):
        parser.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    with pytest.raises(ProtocolError, match="cannot be used again"):
        parser.feed(b"x")
    parser.expect()
    parser.feed(OK + b"content-length: 0\r\n\r\n")
    with pytest.raises(ProtocolError, match="no request asked for"):
        parser.feed(b"\r\n")
    with pytest.raises(ProtocolError):
        parser.feed_eof()


def test_input_that_is_all_body_is_not_copied() -> None:
    data = b"x" * 100
    for head in (b"content-length: 1000\r\n\r\n", b"\r\n", b"transfer-encoding: chunked\r\n\r\n100\r\n"):
        parser = ResponseParser()
        parser.expect()
        parser.feed(OK + head)
        assert parser.feed(data)[1] is data


def test_headers_are_one_list() -> None:
    parser = ResponseParser()
    parser.expect()
    head, _, _ = parser.feed(OK + b"x-a: 1\r\ncontent-length: 0\r\n\r\n")
    assert head is not None
    assert head.headers is head.headers
    head.headers.append((b"x-b", b"2"))
    assert head.headers == [(b"x-a", b"1"), (b"content-length", b"0"), (b"x-b", b"2")]


def test_only_bytes_are_taken() -> None:
    parser = ResponseParser()
    for wrong in ("x", bytearray(b"x"), None):
        with pytest.raises(TypeError):
            parser.feed(wrong)  # type: ignore[arg-type]


def test_repr_says_what_the_connection_does() -> None:
    parser = ResponseParser()
    assert repr(parser) == "<ResponseParser idle>"
    parser.expect()
    assert repr(parser) == "<ResponseParser head, 0 bytes of it>"
    head, _, _ = parser.feed(OK + b"content-length: 9\r\n\r\n1234")
    assert repr(head) == "<ResponseHead 200>"
    assert repr(parser) == "<ResponseParser body, 4 of 9 bytes>"


def test_threads_may_share_a_parser() -> None:
    """No rule says what comes of it, but nothing breaks: each feed is taken whole."""
    parser = ResponseParser()
    parser.expect()
    parser.feed(CHUNKED)
    parts: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: parts.extend(parser.feed(b"2\r\nab\r\n")[1] for _ in range(500)))
        for _ in range(4)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert parts == [b"ab"] * 2000
