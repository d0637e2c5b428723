"""RequestHead: agrees with its twin on random heads, and never writes a line a client did not send as one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import http1 as oracle
from penstock.ext import MEDIA_JSON, MEDIA_NONE, RequestHead

HOST = (b"host", b"example.com:8080")
START = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:9000\r\n"

names = st.sampled_from(
    [
        *sorted(oracle.HOP_BY_HOP | oracle.OURS),
        *(
            b"origin",
            b"content-type",
            b"x-request-id",
            b"x-forwarded-for",
            b"user-agent",
            b"accept",
            b"accept-encoding",
            b"cookie",
            b"x-a",
            b"x-b",
            b"",
            b"x y",
            b"a:b",
            b"x\r",
        ),
    ]
)
values = st.one_of(
    st.sampled_from(
        [
            *(
                b"chunked",
                b"gzip, chunked",
                b"5",
                b"007",
                b"5, 5",
                b"18446744073709551616",
                b"",
                b"close",
                b"keep-alive",
            ),
            *(
                b"x-a",
                b"x-a , X-B",
                b"te, cookie",
                b"content-type",
                b"application/json",
                b"text/event-stream; charset=x",
            ),
            *(
                b"Application/Vnd.api+JSON",
                b"multipart/form-data; boundary=b",
                b"application/x-ndjson",
                b"[::1]:80",
                b"a b",
            ),
            *(b"Bearer k", b"bearer\tk ", b" BEARER  k2", b"Bearer", b"Bearer ", b"Bearerk", b"Basic k", b"k", b" k\t"),
            *(b"a\r\nb: c", b"a\nb", b"\0", b"\xc3\xa4", b"x:99999", b"[::1%25a]"),
        ]
    ),
    st.binary(max_size=6),
)
lines_without_host = st.lists(st.tuples(names, values), max_size=6)
heads = st.one_of(lines_without_host, lines_without_host.map(lambda lines: [HOST, *lines]))
quiet = st.sampled_from(
    [
        *(
            b"origin",
            b"content-type",
            b"x-request-id",
            b"Accept-Encoding",
            b"cookie",
            b"x-a",
            b"x-b",
            b"te",
            b"connection",
        ),
        *(b"authorization", b"X-Api-Key", b"api-key", b"x-admin-key", b"x-forwarded-for", b"user-agent"),
        b"X-Penstock-Explain",
    ]
)
sound_heads = (
    st.lists(st.tuples(quiet, values.map(lambda v: v.translate(None, b"\r\n\0"))), max_size=6)
    .map(lambda lines: [HOST, *lines])
    .filter(lambda lines: oracle.problem(lines) is None)
)


def facts(head: RequestHead) -> oracle.Request:
    return oracle.Request(
        head.problem,
        head.host,
        head.origin,
        head.media,
        head.content_type,
        head.content_length,
        head.has_body,
        head.request_id,
        head.api_key,
        head.api_keys_disagree,
        head.admin_key,
        head.forwarded_for,
        head.user_agent,
    )


@settings(max_examples=300, deadline=None)
@given(heads)
def test_facts_agree_with_the_oracle(lines: oracle.Lines) -> None:
    head, expected = RequestHead(lines), oracle.request(lines)
    assert head.problem == expected.problem
    if expected.problem is None:
        assert facts(head) == expected
    else:
        with pytest.raises(ValueError, match="a request with a problem is not sent"):
            head.encode(START, 0)


@settings(max_examples=300, deadline=None)
@given(sound_heads, st.integers(-2, 2**63 - 1), st.binary(max_size=5), st.booleans())
def test_encoding_agrees_with_the_oracle(lines: oracle.Lines, body_length: int, body: bytes, identity: bool) -> None:
    head = RequestHead(lines)
    assert facts(head) == oracle.request(lines)
    expected = oracle.encode(lines, START, body_length, body, identity)
    assert head.encode(START, body_length, body, identity) == expected
    if not identity:
        assert head.encode(START, body_length, body) == expected


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=8), st.text("[]:%a0f.1-", max_size=12).map(str.encode)))
def test_hosts_agree_with_the_oracle(value: bytes) -> None:
    assert RequestHead([(b"host", value)]).problem == oracle.problem([(b"host", value)])


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "missing Host header"),
        ([HOST, HOST], "more than one Host header"),
        ([(b"host", b"")], "Host is not a valid host[:port]"),
        ([(b"host", b"user@example.com")], "Host is not a valid host[:port]"),
        ([(b"host", b"a, b")], "Host is not a valid host[:port]"),
        ([(b"host", b"[::1")], "Host is not a valid host[:port]"),
        (
            [HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
            "both Content-Length and Transfer-Encoding",
        ),
        ([HOST, (b"content-length", b"5"), (b"content-length", b"5")], "more than one Content-Length"),
        ([HOST, (b"content-length", b"+5")], "Content-Length is not a number"),
        ([HOST, (b"content-length", b"5, 5")], "Content-Length is not a number"),
        ([HOST, (b"content-length", b"18446744073709551616")], "Content-Length is too large"),
        ([HOST, (b"transfer-encoding", b"chunked, gzip")], "unsupported Transfer-Encoding"),
        ([HOST, (b"x", b"1\r\nx-api-key: stolen")], "a header value has a CR, LF or NUL byte in it"),
        ([HOST, (b"x\r\ny", b"1")], "a header name has a byte in it that names cannot have"),
        (
            [HOST, (b"transfer-encoding\t", b"chunked")],
            "a header name has a byte in it that names cannot have",
        ),
    ],
)
def test_problems(lines: oracle.Lines, problem: str) -> None:
    head = RequestHead(lines)
    assert head.problem == problem
    with pytest.raises(ValueError, match="a request with a problem is not sent"):
        head.encode(START, 0)


def test_values_are_handed_back_as_the_objects_they_were() -> None:
    content_type, host = b"application/json; x", b"h"
    head = RequestHead([(b"host", host), (b"content-type", content_type)])
    assert head.content_type is content_type
    assert head.host is host


@pytest.mark.parametrize(
    ("lines", "key", "disagree"),
    [
        ([], None, False),
        ([(b"authorization", b"Bearer psk_a")], b"psk_a", False),
        ([(b"authorization", b"bEARER \t psk_a \t")], b"psk_a", False),
        ([(b"x-api-key", b"psk_a"), (b"authorization", b"Bearer psk_a")], b"psk_a", False),
        ([(b"api-key", b"psk_b"), (b"x-api-key", b"psk_a")], b"psk_b", True),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], b"a", True),
        ([(b"authorization", b"Basic a"), (b"api-key", b"b")], b"b", False),
        ([(b"authorization", b"Bearer "), (b"api-key", b""), (b"x-api-key", b"b")], b"b", False),
        ([(b"authorization", b"psk_a")], None, False),
    ],
)
def test_the_key(lines: oracle.Lines, key: bytes | None, disagree: bool) -> None:
    for connection in ([], [(b"connection", b"authorization, api-key, x-api-key")]):
        head = RequestHead([HOST, *connection, *lines])
        assert (head.api_key, head.api_keys_disagree) == (key, disagree)
        assert head.encode(b"", -1) == b"\r\n"


def test_what_goes_on_is_read_too() -> None:
    lines = [(b"x-forwarded-for", b"1.2.3.4"), (b"user-agent", b"curl"), (b"x-forwarded-for", b"::1, 5.6.7.8")]
    head = RequestHead([HOST, *lines, (b"x-admin-key", b"secret")])
    assert (head.forwarded_for, head.user_agent, head.admin_key) == (b"1.2.3.4, ::1, 5.6.7.8", b"curl", b"secret")
    assert head.encode(b"", -1) == b"".join(name + b": " + value + b"\r\n" for name, value in lines) + b"\r\n"


def test_any_sequence_of_pairs_will_do() -> None:
    for lines in ((HOST,), [list(HOST)], iter([HOST])):
        assert RequestHead(lines).host == HOST[1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "headers", [None, 5, [b"ab"], [("host", "a")], [(b"host",)], [(b"a", b"b", b"c")], [(b"a", None)]]
)
def test_wrong_types(headers: object) -> None:
    with pytest.raises(TypeError):
        RequestHead(headers)  # type: ignore[arg-type]


def test_a_body_of_any_size_follows_the_head() -> None:
    head = RequestHead([HOST, (b"accept", b"*/*")])
    for size in (0, 1, 1000, 16383, 16384, 100_000):
        body = b"x" * size
        sent = head.encode(START, size, body)
        assert sent == START + b"accept: */*\r\ncontent-length: %d\r\n\r\n" % size + body


@pytest.mark.parametrize("body_length", [-3, -(2**63)])
def test_body_lengths_that_mean_nothing(body_length: int) -> None:
    with pytest.raises(ValueError, match="body_length"):
        RequestHead([HOST]).encode(START, body_length)


def test_a_changed_list_changes_nothing() -> None:
    lines = [HOST, (b"accept", b"*/*")]
    head = RequestHead(lines)
    lines[1] = (b"x", b"a\r\nb: c")
    assert head.encode(b"", -1) == b"accept: */*\r\n\r\n"


def test_empty_head_has_no_facts() -> None:
    head = RequestHead([])
    assert (head.host, head.origin, head.media, head.content_length, head.has_body) == (
        b"",
        None,
        MEDIA_NONE,
        None,
        False,
    )
    assert RequestHead([(b"content-type", b"application/json")]).media == MEDIA_JSON
    assert repr(RequestHead([HOST])) == "<RequestHead host=example.com:8080 problem=none>"
