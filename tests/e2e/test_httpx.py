"""httpx as a client: kept connections, streams piece by piece, many at once, uploads, and leaving in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from raw_client import chat_body, sse_data, wait_until

from running import UNASKED, Demo, Penstock, config

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(proxy: Penstock) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, timeout=10) as client:
        yield client


def ask(number: int, **fields: Any) -> dict[str, Any]:
    talk = [{"role": "user", "content": f"Please repeat the number {number} to me in words"}]
    return {"model": "demo", "messages": talk, **fields}


def test_chat(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask(7))
    assert answer.status_code == 200 and " 7 " in answer.json()["choices"][0]["message"]["content"]


def test_a_connection_is_kept(client: httpx.Client) -> None:
    """Over whole answers, streams, refusals and errors."""

    def port() -> int:
        with client.stream("GET", "/health/live") as answer:
            answer.read()
            return int(answer.extensions["network_stream"].get_extra_info("client_addr")[1])

    first = port()
    client.post(CHAT, json=ask(1))
    client.post(CHAT, json=ask(1, stream=True))
    client.post(CHAT, content=b"{", headers=JSON)
    client.post(CHAT, json={"model": "none"})
    client.get("/nothing")
    assert port() == first


def test_events_come_one_by_one(client: httpx.Client) -> None:
    """A paced stream is felt as paced: no piece waits for the next."""
    headers = {"X-Demo-Tokens": "20", "X-Demo-Rate": "50"}
    arrivals = []
    with client.stream("POST", CHAT, json=ask(1, stream=True), headers=headers) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                arrivals.append(time.monotonic())
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert len(arrivals) == 23 and arrivals[-1] - arrivals[0] > 0.35
    assert sorted(gaps)[len(gaps) // 2] > 0.01


def test_a_slow_reader_is_not_cut_off(proxy: Penstock) -> None:
    """More than all buffers hold, taken with a pause: the backend waits, and every byte arrives."""
    headers = {"X-Demo-Bytes": "20000000", **JSON}
    body = b'{"model":"demo","input":"x"}'
    with httpx.stream("POST", f"{proxy.url}/v1/audio/speech", content=body, headers=headers) as answer:
        pieces = answer.iter_raw()
        size = len(next(pieces))
        time.sleep(0.5)
        assert size + sum(map(len, pieces)) == 20_000_000


def test_memory_is_flat_while_a_client_is_slow(proxy: Penstock) -> None:
    (worker,) = proxy.workers()
    before = worker.memory_info().rss
    headers = {"X-Demo-Bytes": "100000000", **JSON}
    body = b'{"model":"demo","input":"x"}'
    with httpx.stream("POST", f"{proxy.url}/v1/audio/speech", content=body, headers=headers) as answer:
        next(answer.iter_raw())
        time.sleep(0.3)
        assert worker.memory_info().rss - before < 16 << 20


@pytest.mark.parametrize("fault", ["never", "stall", "stall;after=0"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_leaving_frees_the_backend(proxy: Penstock, demo: Demo, fault: str, stream: bool) -> None:
    wait_until(lambda: demo.stats()["requests_active"] == 0)
    timeout = httpx.Timeout(5, read=0.15)
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=proxy.url, timeout=timeout) as client:
        client.post(CHAT, json=ask(1, stream=stream), headers={"X-Demo-Fault": fault})
    began = time.monotonic()
    wait_until(lambda: demo.stats()["requests_active"] == 0)
    assert time.monotonic() - began < 0.3
    last = demo.stats()["aborted"][-1]
    assert last["path"] == CHAT and last["phase"] in ("waiting", "streaming", "body")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_hundred_at_once(proxy: Penstock, demo: Demo, stream: bool) -> None:
    async def one(client: httpx.AsyncClient, number: int) -> str:
        answer = await client.post(CHAT, json=ask(number, stream=stream))
        return answer.text if answer.status_code == 200 and f" {number} " in text_of(answer, stream) else ""

    async def main() -> list[str]:
        async with httpx.AsyncClient(base_url=proxy.url, timeout=20) as client:
            return await asyncio.gather(*(one(client, 1000 + number) for number in range(100)))

    assert all(asyncio.run(main()))
    wait_until(lambda: demo.stats()["requests_active"] == 0)


def text_of(answer: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(answer.json()["choices"][0]["message"]["content"])
    *events, done = sse_data(answer.content)
    assert done == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)


def test_more_at_once_than_the_pool_holds(demo: Demo) -> None:
    """They wait their turn for a connection, and each gets one."""

    async def main(url: str) -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            headers = {"X-Demo-First-Ms": "20"}
            asked = (client.post(CHAT, json=ask(number), headers=headers) for number in range(40))
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    with Penstock(config(demo.port, backend=UNASKED, more="[backends.demo.pool]\nmax_connections = 4\n")) as process:
        before = demo.stats()["connections_total"]
        assert asyncio.run(main(process.url)) == [200] * 40
        assert demo.stats()["connections_total"] - before <= 4


def test_an_upload_of_unknown_length(client: httpx.Client) -> None:
    parts = [bytes([number]) * 10_000 for number in range(50)]
    seen = client.post("/v1/echo", content=iter(parts), headers={"content-type": "audio/wav"}).json()
    assert seen["chunked"] and seen["body_sha256"] == hashlib.sha256(b"".join(parts)).hexdigest()


def test_a_form(client: httpx.Client) -> None:
    answer = client.post("/v1/audio/transcriptions", data={"model": "demo"}, files={"file": ("a.wav", b"1234567")})
    assert "7 bytes" in answer.json()["text"]


def test_json_of_unknown_length(client: httpx.Client) -> None:
    async def parts() -> AsyncIterator[bytes]:
        body = chat_body()
        for at in range(0, len(body), 10):
            yield body[at : at + 10]

    async def main() -> int:
        async with httpx.AsyncClient(base_url=client.base_url) as other:
            return (await other.post(CHAT, content=parts(), headers=JSON)).status_code

    assert asyncio.run(main()) == 200


def test_compressed_answers_are_readable(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask(3), headers={"X-Demo-Fault": "gzip"})
    assert answer.headers["content-encoding"] == "gzip" and " 3 " in text_of(answer, False)
    streamed = client.post(CHAT, json=ask(4, stream=True), headers={"X-Demo-Fault": "gzip"})
    assert " 4 " in text_of(streamed, True)


@pytest.mark.parametrize("fault", ["cut", "rst", "noend", "stall"])
def test_a_cut_stream_raises(hasty: Penstock, fault: str) -> None:
    """The connection ends without the end of its framing, which no client takes for a whole answer."""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("POST", hasty.url + CHAT, json=ask(1, stream=True), headers={"X-Demo-Fault": fault}) as answer,
    ):
        answer.read()
