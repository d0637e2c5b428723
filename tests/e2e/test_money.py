"""What requests cost: by tokens, images and time, whole and cut short; and who is told of a budget nearly spent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
from governed import AUTH, CHAT, ENV, configuration, governed, rows

from running import Demo, Penstock

PRICED = """
[models.demo]
targets = ["demo"]
price = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0 }
"""
PAINTER = """
[models.painter]
targets = [{ backend = "demo", model = "demo" }]
price = { usd_per_image = 0.04 }
"""


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address that takes alerts, and those it has."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat(penstock: Penstock, tokens: int, **more: Any) -> httpx.Response:
    headers = {**AUTH, "X-Demo-Tokens": str(tokens)}
    return httpx.post(f"{penstock.url}/v1/chat/completions", json={**CHAT, **more}, headers=headers)


def test_a_webhook_is_told_once_for_each_threshold(demo: Demo) -> None:
    budget = "usd_per_day = 0.0011"
    with (
        webhook() as (url, told),
        governed(demo, budget, more=f'{PRICED}[alerts]\nwebhook = "{url}"') as penstock,
    ):
        for _ in range(10):
            assert chat(penstock, 45, max_tokens=45).status_code == 200
        until = time.monotonic() + 20
        while len(told) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        assert [alert["percent"] for alert in told] == [50, 80]
        assert (told[0]["scope"], told[0]["id"], told[0]["limit_usd"]) == ("key", "file:test", 0.0011)
        assert told[0]["spent_usd"] >= 0.00055


def test_a_client_that_leaves_pays_for_what_it_got(demo: Demo) -> None:
    with governed(demo, "usd_per_day = 1", more=PRICED) as penstock:
        headers = {**AUTH, "X-Demo-Tokens": "3000", "X-Demo-Rate": "200"}
        with (
            httpx.Client(base_url=penstock.url) as client,
            client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}, headers=headers) as stream,
        ):
            chunks = stream.iter_lines()
            for _ in range(40):
                next(chunks)
        ((outcome, completion, estimated, cost),) = rows(
            penstock, 1, "outcome, completion_tokens, usage_estimated, cost_nano_usd"
        )
        assert (outcome, estimated) == ("cancelled", 1)
        assert 10 <= completion <= 200
        assert 0 < cost < 1_000_000, "what was held, 4,096 tokens of an answer, came back"
        used = httpx.get(f"{penstock.url}/usage", headers=AUTH).json()["cost_usd"]
        assert used == cost / 1e9


def test_images_are_paid_by_number(demo: Demo) -> None:
    with governed(demo, "usd_per_day = 0.1", more=PAINTER) as penstock:
        body = {"model": "painter", "prompt": "a penstock", "n": 2}
        assert httpx.post(f"{penstock.url}/v1/images/generations", json=body, headers=AUTH).status_code == 200
        assert rows(penstock, 1, "cost_nano_usd, endpoint") == [(80_000_000, "/v1/images/*")]
        refused = httpx.post(f"{penstock.url}/v1/images/generations", json=body, headers=AUTH)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")


def test_a_backend_of_ones_own_is_paid_by_time() -> None:
    """3,600 USD an hour are one USD a second."""
    with Demo("--rate", "0", "--first-ms", "200") as slow:
        own = "usd_per_gpu_hour = 3600\n[backends.demo.timeout]\ntotal_s = 5"
        text = configuration(slow, "usd_per_day = 20").replace("discover = true", f"discover = true\n{own}")
        with Penstock(text, env=ENV) as penstock:
            assert chat(penstock, 5).status_code == 200
            ((cost,),) = rows(penstock, 1, "cost_usd")
            assert 0.2 <= cost < 5
            used = httpx.get(f"{penstock.url}/usage", headers=AUTH).json()
            assert used["cost_usd"] == cost


def test_embeddings_cost_their_input(demo: Demo) -> None:
    with governed(demo, "usd_per_day = 1\ntokens_per_day = 10000", more=PRICED) as penstock:
        answer = httpx.post(
            f"{penstock.url}/v1/embeddings", json={"model": "demo", "input": "some words"}, headers=AUTH
        )
        assert answer.status_code == 200
        tokens = answer.json()["usage"]["prompt_tokens"]
        assert rows(penstock, 1, "prompt_tokens, completion_tokens, cost_nano_usd") == [(tokens, 0, tokens * 1000)]


def test_a_compressed_answer_is_read_along_and_passed_on_as_it_is(demo: Demo) -> None:
    with governed(demo, "usd_per_day = 1", more=PRICED) as penstock:
        stream = httpx.post(
            f"{penstock.url}/v1/chat/completions",
            json={**CHAT, "stream": True},
            headers={**AUTH, "Accept-Encoding": "gzip, br"},
        )
        assert stream.headers.get("content-encoding", "identity") == "identity"
        assert rows(penstock, 1, "usage_estimated") == [(0,)]
