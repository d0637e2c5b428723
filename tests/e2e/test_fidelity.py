"""What penstock does not have to change reaches the other side byte for byte, in both directions."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from raw_client import JSON_TYPE, Answer, RawClient, ask, chat_body, chunked, request, wait_until

from running import Demo, Penstock

ECHO = "/v1/echo"
MIB = 1 << 20
BOUNDARY = "a boundary' of :its own"


def echo(process: Penstock, method: str, target: str, body: bytes = b"", *lines: str, **options: Any) -> dict[str, Any]:
    """What the backend says arrived."""
    answer = ask(process.port, request(method, target, body, *lines, **options))
    assert answer.status == 200, answer
    return dict(answer.json())


def sent_json(process: Penstock, body: bytes) -> str:
    return str(echo(process, "POST", ECHO, body, JSON_TYPE)["body"])


def named(seen: dict[str, Any], name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key.lower() == name]


# --- a request's body ------------------------------------------------------------------------------------

BODIES = {
    "white space": b' \t{\r\n  "model" :\t"demo"  ,\n "messages":[ ]\r\n}\n\n',
    "unknown fields": b'{"model":"demo","x":{"y":[1,{"z":null}]},"":true}',
    "duplicate keys": b'{"model":"demo","a":1,"a":2,"model":"demo"}',
    "escapes": b'{"model":"demo","s":"\\u00e9\\/\\b\\ud83d\\ude00\\u0000"}',
    "escaped model": b'{"\\u006dodel":"d\\u0065mo","s":1}',
    "raw UTF-8": '{"model":"demo","s":"é😀\u2028"}'.encode(),
    "big numbers": b'{"model":"demo","n":[123456789012345678901234567890,1e400,-0.0,1.10,1E+2]}',
    "lone surrogate": b'{"model":"demo","s":"\\ud800"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_json_bodies_arrive_as_sent(proxy: Penstock, body: bytes) -> None:
    seen = echo(proxy, "POST", ECHO, body, JSON_TYPE)
    assert seen["body"].encode() == body
    assert named(seen, "content-length") == [str(len(body))]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8", "Application/JSON"])
def test_the_content_type_goes_as_sent(proxy: Penstock, kind: str) -> None:
    seen = echo(proxy, "POST", ECHO, b'{"model":"demo"}', f"Content-Type: {kind}")
    assert named(seen, "content-type") == [kind]


def test_a_chunked_json_body_arrives_whole(proxy: Penstock) -> None:
    body = b'{"model": "demo", "pad": "' + b"x" * 100_000 + b'"}'
    parts = chunked(body[:1], body[1:17], body[17:])
    with RawClient(proxy.port) as client:
        head = request("POST", ECHO, b"", JSON_TYPE, "Transfer-Encoding: chunked", length=False)
        seen = client.send(head + parts).answer().json()
    assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("split", [1, 7, 1000])
def test_a_body_in_many_small_writes(proxy: Penstock, split: int) -> None:
    data = request("POST", ECHO, b'{"model":"demo","s":"' + b"y" * 50 + b'"}', JSON_TYPE)
    with RawClient(proxy.port) as client:
        for at in range(0, len(data), split):
            client.send(data[at : at + split])
        assert client.answer().status == 200


@pytest.mark.parametrize("body", [b"", b"\x00\xff\r\n0\r\n\r\n", b'{"not": json'], ids=["empty", "bytes", "not json"])
def test_bodies_that_are_not_json_go_as_sent(proxy: Penstock, body: bytes) -> None:
    seen = echo(proxy, "POST", ECHO, body, "Content-Type: application/octet-stream")
    assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert named(seen, "content-length") == [str(len(body))]


# --- the model's name --------------------------------------------------------------------------------------

RENAMES = {
    "plain": (b'{ "model" : "renamed" , "a":1}', b'{ "model" : "demo-large" , "a":1}'),
    "escaped": (b'{"m\\u006fdel":"ren\\u0061med","a":[1.0]}', b'{"m\\u006fdel":"demo-large","a":[1.0]}'),
    "twice": (b'{"model":"x","model":"renamed"}', b'{"model":"demo-large","model":"demo-large"}'),
    "nested ones stay": (
        b'{"a":{"model":"renamed"},"model":"renamed","b":["model","renamed"]}',
        b'{"a":{"model":"renamed"},"model":"demo-large","b":["model","renamed"]}',
    ),
    "shrinks": (
        b'{"model":"na\\u00efve \\"quoted\\"","t":"\\u00e9"}',
        b'{"model":"demo","t":"\\u00e9"}',
    ),
    "needs escapes": (
        b'{"model":"far","t":"far"}',
        '{"model":"a-näme \\"of\\" \\\\ its own","t":"far"}'.encode(),
    ),
}


@pytest.mark.parametrize(("sent", "arrived"), RENAMES.values(), ids=RENAMES)
def test_a_rename_touches_only_the_model_value(proxy: Penstock, sent: bytes, arrived: bytes) -> None:
    seen = echo(proxy, "POST", ECHO, sent, JSON_TYPE)
    assert seen["body"].encode() == arrived
    assert named(seen, "content-length") == [str(len(arrived))]


def test_a_rename_in_a_large_body(proxy: Penstock) -> None:
    tail = b', "pad": "' + b"z" * 2 * MIB + b'"}'
    seen = echo(proxy, "POST", ECHO, b'{"model": "renamed"' + tail, JSON_TYPE)
    assert seen["body_sha256"] == hashlib.sha256(b'{"model": "demo-large"' + tail).hexdigest()


def test_a_rename_in_a_form(proxy: Penstock) -> None:
    seen = echo(proxy, "POST", ECHO, form("renamed", b"audio"), form_type())
    assert seen["body"].encode() == form("demo-large", b"audio")


def test_a_rename_in_a_chunked_form(proxy: Penstock) -> None:
    body = form("renamed", b"audio")
    head = request("POST", ECHO, b"", form_type(), "Transfer-Encoding: chunked", length=False)
    seen = ask(proxy.port, head + chunked(body[:30], body[30:])).json()
    assert seen["body"].encode() == form("demo-large", b"audio") and seen["chunked"]


# --- uploads -------------------------------------------------------------------------------------------------


def form(model: str, content: bytes) -> bytes:
    start = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="model"\r\n\r\n{model}\r\n--{BOUNDARY}\r\n'
    middle = 'Content-Disposition: form-data; name="file"; filename="é.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    return start.encode() + middle.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def form_type() -> str:
    return f'Content-Type: multipart/form-data; boundary="{BOUNDARY}"'


def blocks(count: int) -> Iterator[bytes]:
    """Mebibytes that do not repeat."""
    dice = random.Random(5)
    for _ in range(count):
        yield dice.randbytes(MIB)


def peak_rss(process: psutil.Process) -> int:
    """Bytes, since the start of the process (proc(5), VmHWM)."""
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_fifty_megabytes_go_through_in_flat_memory(proxy: Penstock, framing: str) -> None:
    (worker,) = proxy.workers()
    ask(proxy.port, request("POST", ECHO, b"x" * 2 * MIB, "Content-Type: application/octet-stream"))
    before = peak_rss(worker)
    digest = hashlib.sha256()

    def content() -> Iterator[bytes]:
        for block in blocks(50):
            digest.update(block)
            yield block

    headers = {"content-type": "application/octet-stream"}
    if framing == "length":
        headers["content-length"] = str(50 * MIB)
    seen = httpx.post(proxy.url + ECHO, content=content(), headers=headers, timeout=30).json()
    assert (seen["body_bytes"], seen["body_sha256"]) == (50 * MIB, digest.hexdigest())
    assert seen["chunked"] is (framing == "chunked")
    assert peak_rss(worker) - before < 8 * MIB


def test_a_large_form_arrives_identical(proxy: Penstock) -> None:
    body = form("demo", b"".join(blocks(5)))
    seen = echo(proxy, "POST", ECHO, body, form_type())
    assert (seen["body_bytes"], seen["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert named(seen, "content-type") == [form_type().partition(": ")[2]]


def test_an_upload_begins_before_it_is_whole(proxy: Penstock, demo: Demo) -> None:
    with RawClient(proxy.port) as client:
        client.send(request("POST", ECHO, b"", "Transfer-Encoding: chunked", length=False) + b"5\r\nhello\r\n")
        wait_until(lambda: demo.stats()["requests_active"])
        assert client.send(b"0\r\n\r\n").answer().json()["body"] == "hello"


def test_a_backend_that_answers_before_the_uploads_end_is_heard_at_once(proxy: Penstock) -> None:
    """The client has paused in its body; the backend has refused after the head (RFC 9112 §9.5)."""
    with RawClient(proxy.port, timeout_s=2) as client:
        client.send(request("POST", ECHO, b"", "Transfer-Encoding: chunked", "X-Demo-Fault: early", length=False))
        client.send(b"5\r\nhello\r\n")
        assert client.answer().status == 413


# --- the request line and headers ------------------------------------------------------------------------------

TARGETS = {
    "query": f"{ECHO}?a=1&a=2&&b&c=%2F%20+%C3%A9",
    "empty value": f"{ECHO}?=",
    "query of marks": f"{ECHO}?a=b?c=d/../e&x[]=%00",
    "escapes": f"{ECHO}/a%2Fb%20c%2e%2Ed/%E2%82%AC%ff",
    "marks": f"{ECHO}/:@!$&'()*+,;=~-._",
    "slashes": f"{ECHO}//a///b/",
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_targets_arrive_as_sent(proxy: Penstock, target: str) -> None:
    assert echo(proxy, "GET", target)["target"] == target


@pytest.mark.parametrize(
    "path", ["/v1/../demo/stats", "/v1/./echo", "/v1/echo/..", "/v1/%2e%2E/x", "/v1/.%2e/x", "/v1/a/%2E"]
)
def test_dot_segments_are_refused(proxy: Penstock, path: str) -> None:
    answer = ask(proxy.port, request("GET", path))
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_unknown_headers_pass_in_order_and_repeated(proxy: Penstock) -> None:
    sent = [
        ("x-c", "1"),
        ("x-a", "2"),
        ("x-b", "first"),
        ("x-b", "second"),
        ("x-b", "first"),
        ("x-empty", ""),
        ("cookie", "a=b"),
        ("x-latin", "é; q=1"),
    ]
    seen = echo(proxy, "GET", ECHO, b"", *(f"{name}: {value}" for name, value in sent))
    names = {name for name, _ in sent}
    assert [(key.lower(), value) for key, value in seen["headers"] if key.lower() in names] == sent


def test_values_of_a_repeated_header_keep_their_order(proxy: Penstock) -> None:
    """Lines of other names between them may move: their order means nothing (RFC 9110 §5.3)."""
    seen = echo(proxy, "GET", ECHO, b"", "X-B: 1", "x-a: 0", "X-b: 3", "x-B: 2")
    assert (named(seen, "x-b"), named(seen, "x-a")) == (["1", "3", "2"], ["0"])


def test_what_sdks_tell_of_themselves_passes(proxy: Penstock) -> None:
    lines = {
        "user-agent": "OpenAI/Python 9",
        "openai-organization": "org",
        "x-stainless-lang": "python",
        "accept": "*/*",
    }
    seen = echo(proxy, "GET", ECHO, b"", *(f"{name}: {value}" for name, value in lines.items()))
    assert {name: named(seen, name) for name in lines} == {name: [value] for name, value in lines.items()}


HOP_BY_HOP = {
    "keep-alive": "timeout=5",
    "proxy-connection": "keep-alive",
    "proxy-authorization": "Basic eDp5",
    "te": "trailers",
    "trailer": "x-sum",
    "upgrade": "h2c",
}


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_headers_end_here(proxy: Penstock, name: str) -> None:
    seen = echo(proxy, "GET", ECHO, b"", f"{name}: {HOP_BY_HOP[name]}", "x-stays: 1")
    assert (named(seen, name), named(seen, "x-stays")) == ([], ["1"])


def test_headers_named_by_connection_end_here(proxy: Penstock) -> None:
    seen = echo(proxy, "GET", ECHO, b"", "Connection: X-One, x-two", "x-one: 1", "X-TWO: 2", "x-three: 3")
    assert [named(seen, name) for name in ("connection", "x-one", "x-two", "x-three")] == [[], [], [], ["3"]]


@pytest.mark.parametrize("line", ["Authorization: Bearer sk-client", "X-API-Key: sk-client", "api-key: sk-client"])
def test_the_clients_credential_is_replaced(proxy: Penstock, backend_key: str, line: str) -> None:
    seen = echo(proxy, "GET", ECHO, b"", line)
    assert named(seen, "authorization") == [f"Bearer {backend_key}"]
    assert "sk-client" not in json.dumps(seen)


def test_no_credential_is_sent_where_none_is_configured(hasty: Penstock) -> None:
    seen = echo(hasty, "GET", ECHO, b"", "Authorization: Bearer sk-client")
    assert named(seen, "authorization") == []


def test_host_is_the_backends(proxy: Penstock, demo: Demo) -> None:
    assert named(echo(proxy, "GET", ECHO), "host") == [f"127.0.0.1:{demo.port}"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
@pytest.mark.parametrize("body", [b"", b"abc"], ids=["no body", "body"])
def test_methods(proxy: Penstock, method: str, body: bytes) -> None:
    seen = echo(proxy, method, ECHO, body, "content-type: text/plain")
    assert (seen["method"], seen["body"]) == (method, body.decode())


def test_expect_100_continue(proxy: Penstock) -> None:
    with RawClient(proxy.port) as client:
        body = chat_body()
        whole = request("POST", ECHO, body, JSON_TYPE, "Expect: 100-continue")
        client.send(whole[: -len(body)])
        assert client.interim().startswith(b"HTTP/1.1 100 ")
        seen = client.send(body).answer().json()
    assert seen["body"].encode() == body and named(seen, "expect") == []


def test_a_refusal_needs_no_body_of_who_expects_to_be_told(proxy: Penstock) -> None:
    lines = ("Expect: 100-continue", "Content-Length: 99999999", JSON_TYPE)
    with RawClient(proxy.port) as client:
        client.send(request("POST", "/v1/chat/completions", b"", *lines, length=False))
        assert client.answer().status == 413


# --- request ids ---------------------------------------------------------------------------------------------------


def test_a_request_id_goes_in(proxy: Penstock) -> None:
    assert named(echo(proxy, "GET", ECHO, b"", "X-Request-ID: my-id-1"), "x-request-id") == ["my-id-1"]


def test_a_request_id_comes_out(proxy: Penstock) -> None:
    answers = [ask(proxy.port, request("GET", ECHO)) for _ in range(2)]
    ids = {answer.header("x-request-id") for answer in answers}
    assert len(ids) == 2 and None not in ids


@pytest.mark.parametrize("path", [ECHO, "/v1/models", "/nothing"])
def test_the_clients_request_id_is_kept(proxy: Penstock, path: str) -> None:
    """Who sends an id finds it in the answer, so that both sides' logs can be joined."""
    answer = ask(proxy.port, request("GET", path, b"", "X-Request-ID: my-id-2"))
    assert answer.header("x-request-id") == "my-id-2"


# --- answers -------------------------------------------------------------------------------------------------------

VOLATILE = re.compile(rb'"(id|created|created_at|item_id|response_id)":("[^"]*"|\d+)')


def both(proxy: Penstock, demo: Demo, data: bytes, method: str = "GET") -> tuple[Answer, Answer]:
    return ask(demo.port, data, method), ask(proxy.port, data, method)


def steady(body: bytes) -> bytes:
    """The body without ids and times, which differ from call to call."""
    return VOLATILE.sub(rb'"\1":0', body)


STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {}),
    "chat of two choices": ("/v1/chat/completions", {"n": 2}),
    "chat with usage": ("/v1/chat/completions", {"stream_options": {"include_usage": True}}),
    "chat with a tool": (
        "/v1/chat/completions",
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    ),
    "completions": ("/v1/completions", {"prompt": "Hello"}),
    "responses": ("/v1/responses", {"input": "Hello"}),
    "messages": ("/v1/messages", {"max_tokens": 50}),
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("path", "fields"), STREAMS.values(), ids=STREAMS)
def test_answers_are_the_backends_bytes(
    proxy: Penstock, demo: Demo, path: str, fields: dict[str, Any], stream: bool
) -> None:
    direct, through = both(proxy, demo, request("POST", path, chat_body(stream=stream, **fields), JSON_TYPE))
    assert through.clean and through.status == direct.status == 200
    assert steady(through.body) == steady(direct.body)
    assert through.header("content-type") == direct.header("content-type")


def test_events_go_on_when_they_come(proxy: Penstock) -> None:
    """The first events are here while the backend still holds back the rest."""
    lines = (JSON_TYPE, "X-Demo-Fault: stall;after=2")
    with RawClient(proxy.port) as client:
        client.send(request("POST", "/v1/chat/completions", chat_body(stream=True), *lines))
        assert client.until(b'"content":" '), "the second token"


def test_binary_answers_are_identical(proxy: Penstock, demo: Demo) -> None:
    body = b'{"model":"demo","input":"say it","voice":"alloy"}'
    direct, through = both(proxy, demo, request("POST", "/v1/audio/speech", body, JSON_TYPE, "X-Demo-Bytes: 3000001"))
    assert through.clean and len(through.body) == 3_000_001
    assert through.body == direct.body and through.header("content-type") == "audio/mpeg"


FAULTS = {
    "gzip": "gzip",
    "declared length": "contentlength",
    "HTTP/1.0": "http10",
    "head byte by byte": "slowhead=1",
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_answers_in_odd_forms(proxy: Penstock, demo: Demo, fault: str, stream: bool) -> None:
    line = f"X-Demo-Fault: {fault}"
    data = request("POST", "/v1/chat/completions", chat_body(stream=stream), JSON_TYPE, line)
    direct, through = both(proxy, demo, data)
    assert through.clean and through.header("content-encoding") == direct.header("content-encoding")
    if fault == "gzip":
        direct.body, through.body = gzip.decompress(direct.body), gzip.decompress(through.body)
    assert steady(through.body) == steady(direct.body)


def test_compressed_bytes_are_not_touched(proxy: Penstock, demo: Demo) -> None:
    line = "X-Demo-Fault: gzip"
    data = request("POST", "/v1/embeddings", b'{"model":"demo","input":"a"}', JSON_TYPE, line)
    direct, through = both(proxy, demo, data)
    assert through.body == direct.body and through.body[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    "status", [200, 201, 202, 206, 400, 401, 403, 404, 409, 418, 422, 451, 500, 501, 502, 503, 529]
)
def test_status_codes_pass(proxy: Penstock, demo: Demo, status: int) -> None:
    direct, through = both(proxy, demo, request("GET", "/v1/files", b"", f"X-Demo-Fault: status={status}"))
    assert (through.status, through.body) == (status, direct.body)
    assert through.header("x-penstock-error") is None


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(proxy: Penstock, status: int) -> None:
    with RawClient(proxy.port) as client:
        client.send(request("GET", "/v1/files", b"", f"X-Demo-Fault: status={status}"))
        assert client.answer().status == status
        assert client.send(request("GET", ECHO)).answer().status == 200, "the connection is still in step"


def test_redirects_are_passed_not_followed(proxy: Penstock) -> None:
    answer = ask(proxy.port, request("GET", "/v1/files", b"", "X-Demo-Fault: redirect"))
    assert (answer.status, answer.header("location")) == (307, "/demo/redirected")


def test_head(proxy: Penstock, demo: Demo) -> None:
    data = request("HEAD", "/v1/files")
    direct, through = both(proxy, demo, data, "HEAD")
    assert (through.status, through.header("content-length")) == (200, direct.header("content-length"))
    with RawClient(proxy.port) as client:
        client.send(data + request("GET", ECHO))
        assert client.answer("HEAD").status == 200 and client.answer().status == 200


def test_unknown_headers_of_an_answer_pass(proxy: Penstock, demo: Demo) -> None:
    line = "X-Demo-Fault: hugehead=9000"
    direct, through = both(proxy, demo, request("GET", "/v1/files", b"", line))
    padding = {name: value for name, value in direct.headers if name.startswith("X-Demo-Padding")}
    assert len(padding) == 3
    assert {name: through.header(name) for name in padding} == padding


def test_retry_after_passes(proxy: Penstock) -> None:
    answer = ask(proxy.port, request("GET", "/v1/files", b"", "X-Demo-Fault: status=429;retry-after=7"))
    assert (answer.status, answer.header("retry-after")) == (429, "7")


def test_an_answer_is_not_dressed_up(proxy: Penstock, demo: Demo) -> None:
    """Only the request id, and what HTTP asks of the server next to the client, is added."""
    direct, through = both(proxy, demo, request("GET", "/v1/files"))
    added = {name.lower() for name, _ in through.headers} - {name.lower() for name, _ in direct.headers}
    assert added <= {"x-request-id", "date", "server"}


def test_many_requests_on_one_connection(proxy: Penstock) -> None:
    with RawClient(proxy.port) as client:
        for number in range(20):
            body = json.dumps({"model": "demo", "n": number}).encode()
            assert client.send(request("POST", ECHO, body, JSON_TYPE)).answer().json()["body"].encode() == body


def test_pipelined_requests_are_answered_in_order(proxy: Penstock) -> None:
    with RawClient(proxy.port) as client:
        client.send(b"".join(request("GET", f"{ECHO}/{number}") for number in range(5)))
        assert [client.answer().json()["target"] for _ in range(5)] == [f"{ECHO}/{number}" for number in range(5)]
