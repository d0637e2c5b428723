"""Each fault of the demo backend as it looks on the wire."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator

import pytest
from demo_wire import Raw, events, running, split, unchunk

from penstock.proxy.demo import Server
from penstock.proxy.demo.faults import FAULTS


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    with Raw(server) as connection:
        yield connection


def test_without_a_fault_the_connection_stays_and_is_used_again(raw: Raw) -> None:
    for _ in range(3):
        head, body = split(raw.chat().all())
        assert head.startswith(b"HTTP/1.1 200 OK") and raw.ended == "open"
        assert json.loads(body)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
def test_status(raw: Raw, status: int) -> None:
    head, body = split(raw.chat(f"status={status}").all())
    assert head.startswith(b"HTTP/1.1 %d " % status) and b"Retry-After" not in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert raw.ended == "open"


def test_status_with_retry_after(raw: Raw) -> None:
    head, _ = split(raw.chat("status=429;retry-after=2", stream=True).all())
    assert head.startswith(b"HTTP/1.1 429 ") and b"\r\nRetry-After: 2\r\n" in head


def test_status_without_a_body_leaves_the_connection_usable(raw: Raw) -> None:
    assert raw.chat("status=204").all().endswith(b"\r\n\r\n")
    assert raw.chat().all().startswith(b"HTTP/1.1 200 OK")


def test_status_on_the_messages_endpoint_is_anthropics(raw: Raw) -> None:
    body = b'{"max_tokens":9,"messages":[{"role":"user","content":"x"}]}'
    _, answer = split(raw.send("POST", "/v1/messages", body, X_Demo_Fault="status=529").all())
    assert json.loads(answer)["error"]["type"] == "overloaded_error"


def test_reset(raw: Raw) -> None:
    assert raw.chat("reset").all() == b"" and raw.ended == "reset"


def test_close(raw: Raw) -> None:
    assert raw.chat("close").all() == b"" and raw.ended == "closed"


def test_never(raw: Raw) -> None:
    assert raw.chat("never").all(first_s=0.03) == b"" and raw.ended == "open"


@pytest.mark.parametrize(("fault", "ended"), [("cut", "closed"), ("rst", "reset"), ("stall", "open")])
def test_truncated_stream(raw: Raw, fault: str, ended: str) -> None:
    chunks, rest = unchunk(split(raw.chat(f"{fault};after=2", stream=True).all())[1])
    assert [e["choices"][0]["delta"]["content"] for e in events(chunks)] == ["", "You", " said:"]
    assert rest == b"<no last chunk>" and raw.ended == ended


@pytest.mark.parametrize(("fault", "ended"), [("cut", "closed"), ("rst", "reset"), ("stall", "open")])
def test_truncated_whole_body(raw: Raw, fault: str, ended: str) -> None:
    head, body = split(raw.chat(f"{fault};after=20").all())
    assert len(body) == 20 and raw.ended == ended
    assert int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]) > 20


def test_truncated_binary_of_many_blocks(raw: Raw) -> None:
    raw.send("POST", "/v1/audio/speech", b'{"input":"x"}', X_Demo_Bytes="300000", X_Demo_Fault="cut;after=100001")
    chunks, rest = unchunk(split(raw.all())[1])
    assert sum(map(len, chunks)) == 100_001 and rest == b"<no last chunk>" and raw.ended == "closed"


def test_rst_delivers_all_that_was_promised_first(raw: Raw) -> None:
    chunks, _ = unchunk(split(raw.chat("rst;after=5000", stream=True, X_Demo_Tokens="9000").all())[1])
    assert len(chunks) == 5001 and raw.ended == "reset"


def test_noend(raw: Raw) -> None:
    chunks, rest = unchunk(split(raw.chat("noend;after=2", stream=True).all())[1])
    assert rest == b"" and raw.ended == "open"
    assert [e["choices"][0]["finish_reason"] for e in events(chunks)] == [None] * 3


def test_noend_of_a_whole_body(raw: Raw) -> None:
    chunks, rest = unchunk(split(raw.chat("noend;after=7").all())[1])
    assert b"".join(chunks) == b'{"id":"' and rest == b""


def test_nodone_has_the_finish_reason_only(raw: Raw) -> None:
    chunks, rest = unchunk(split(raw.chat("nodone", stream=True).all())[1])
    assert events(chunks)[-1]["choices"][0]["finish_reason"] == "stop" and rest == b""


def test_nofinish(raw: Raw) -> None:
    _, body = split(raw.chat("nofinish").all())
    assert json.loads(body)["choices"][0]["finish_reason"] is None
    chunks, _ = unchunk(split(raw.chat("nofinish", stream=True).all())[1])
    *seen, done = events(chunks)
    assert done == "[DONE]" and all(e["choices"][0]["finish_reason"] is None for e in seen)


def test_inband(raw: Raw) -> None:
    chunks, rest = unchunk(split(raw.chat("inband;after=1", stream=True).all())[1])
    assert rest == b"" and raw.ended == "open"
    assert [next(iter(e)) for e in events(chunks)] == ["id", "id", "error"]


def test_inband_in_a_whole_answer(raw: Raw) -> None:
    head, body = split(raw.chat("inband").all())
    assert head.startswith(b"HTTP/1.1 200 ") and "error" in json.loads(body)


def test_slowhead(raw: Raw) -> None:
    raw.chat("slowhead=1")
    first = raw.some()
    assert len(first) < 20, "one byte at a time"
    head, body = split(first + raw.all())
    assert head.startswith(b"HTTP/1.1 200 OK") and json.loads(body)


def test_slowhead_waits_50_ms_unless_told(raw: Raw) -> None:
    raw.chat("slowhead")
    assert raw.some() == b"H"
    before = time.monotonic()
    assert raw.some() == b"T"
    assert 0.03 < time.monotonic() - before < 0.5


@pytest.mark.parametrize("stream", [False, True])
def test_shortlength(raw: Raw, stream: bool) -> None:
    head, body = split(raw.chat("shortlength", stream=stream).all())
    assert b"Content-Length: %d\r\n" % (len(body) + 10) in head + b"\r\n" and raw.ended == "closed"


@pytest.mark.parametrize("stream", [False, True])
def test_longlength(raw: Raw, stream: bool) -> None:
    head, body = split(raw.chat("longlength", stream=stream).all())
    assert b"Content-Length: %d\r\n" % (len(body) - 10) in head + b"\r\n" and raw.ended == "open"


@pytest.mark.parametrize("stream", [False, True])
def test_badchunk(raw: Raw, stream: bool) -> None:
    _, body = split(raw.chat("badchunk;after=1", stream=stream).all())
    chunks, rest = unchunk(body)
    assert chunks and rest == b"ZZ\r\nnot a chunk\r\n" and raw.ended == "closed"


@pytest.mark.parametrize("stream", [False, True])
def test_twoheads(raw: Raw, stream: bool) -> None:
    data = raw.chat("twoheads", stream=stream).all()
    assert data.endswith(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nunsolicited") and raw.ended == "open"


@pytest.mark.parametrize("size", [100, 30_000, 1_000_000])
def test_hugehead(raw: Raw, size: int) -> None:
    head, body = split(raw.chat(f"hugehead={size}").all())
    assert size <= len(head) < size + 200 and json.loads(body)


def test_redirect(raw: Raw) -> None:
    head, _ = split(raw.chat("redirect").all())
    assert head.startswith(b"HTTP/1.1 307 ") and b"\r\nLocation: /demo/redirected\r\n" in head
    _, body = split(raw.send("POST", "/demo/redirected", b"{}", X_Demo_Fault="redirect").all())
    assert json.loads(body)["redirected"]


def test_early_answers_before_the_body_and_asks_for_none(raw: Raw) -> None:
    raw.send("POST", "/v1/files", X_Demo_Fault="early", Content_Length="1000000", Expect="100-continue")
    head, body = split(raw.all())
    assert head.startswith(b"HTTP/1.1 413 ") and raw.ended == "closed" and "error" in json.loads(body)


def test_early_with_another_status(raw: Raw) -> None:
    raw.send("POST", "/v1/echo", X_Demo_Fault="early=401", Content_Length="5")
    assert raw.all().startswith(b"HTTP/1.1 401 ")


def test_idleclose(raw: Raw) -> None:
    head, body = split(raw.chat("idleclose").all())
    assert b"Connection:" not in head and json.loads(body)["choices"] and raw.ended == "closed"


def test_gzip(raw: Raw) -> None:
    head, body = split(raw.chat("gzip").all())
    assert b"\r\nContent-Encoding: gzip" in head and json.loads(gzip.decompress(body))["choices"]


def test_gzip_of_a_stream_shows_each_event_when_it_comes(raw: Raw) -> None:
    chunks, rest = unchunk(split(raw.chat("gzip", stream=True).all())[1])
    unzip = zlib.decompressobj(wbits=31)
    pieces = [unzip.decompress(chunk) for chunk in chunks]
    assert pieces[0].endswith(b"\n\n") and pieces[1].endswith(b"\n\n")
    assert events(pieces)[-1] == "[DONE]" and unzip.eof and rest == b""


@pytest.mark.parametrize("stream", [False, True])
def test_http10(raw: Raw, stream: bool) -> None:
    head, body = split(raw.chat("http10", stream=stream).all())
    assert head.startswith(b"HTTP/1.0 200 OK") and b"chunked" not in head and raw.ended == "closed"
    assert events([body])[-1] == "[DONE]" if stream else json.loads(body)


def test_contentlength(raw: Raw) -> None:
    head, body = split(raw.chat("contentlength", stream=True).all())
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n" and b"Transfer-Encoding" not in head
    assert events([body])[-1] == "[DONE]" and raw.ended == "open"


@pytest.mark.parametrize("fault", ["nonsense", "cut;after=x", "cut;until=3", "status", "status=99", "early=99"])
def test_a_fault_that_does_not_exist_is_told(raw: Raw, fault: str) -> None:
    head, body = split(raw.chat(fault).all())
    assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["error"]["param"] == "x-demo-fault"


def test_faults_of_the_whole_server_hit_their_share_and_can_be_left_out() -> None:
    with running(fault="status=503", fault_probability=0.5) as server, Raw(server) as raw:
        seen = [raw.chat().until(b"}").split(b" ")[1] for _ in range(60)]
        assert 15 < seen.count(b"503") < 45 and seen.count(b"200") + seen.count(b"503") == 60
        assert all(raw.chat("none").until(b"}").split(b" ")[1] == b"200" for _ in range(20))


def test_idle_connections_turn_out_closed_in_both_ways() -> None:
    """While idle, and when the next request arrives."""
    ended = {"idle": 0, "on request": 0}
    with running(idle_close_probability=1.0) as server:
        for _ in range(12):
            with Raw(server) as raw:
                assert raw.chat().until(b"usage").startswith(b"HTTP/1.1 200")
                raw.all(first_s=0.02, idle_s=0.02)
                if raw.ended == "closed":
                    ended["idle"] += 1
                else:
                    assert raw.chat().all() == b"" and raw.ended in ("closed", "reset")
                    ended["on request"] += 1
    assert ended["idle"] and ended["on request"]


def test_every_fault_is_tested_here() -> None:
    """A new fault comes with a test of its bytes."""
    with open(__file__) as source:
        text = source.read()
    assert [name for name in FAULTS if f'"{name}' not in text] == []
