"""Several backends of which some fail: what has not begun does not fail, what has begun says so."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from puppet import Puppet, ask_many, several
from raw_client import JSON_TYPE, RawClient, chat, chat_body, request, wait_until

from running import Demo, Penstock, free_port

NEVER_OPENS = "[breaker]\nfailures = 1_000_000\nmin_requests = 1_000_000\n"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--rate", "0") as process:
        yield process


def requests(proxy: Penstock) -> list[dict[str, Any]]:
    """The access lines of chat requests."""
    return [line for line in proxy.lines() if line.get("route") == "/v1/chat/completions"]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", ["status=429", "status=503;retry-after=3600", "status=500", "reset", "close"])
def test_what_one_backend_cannot_another_does(demo: Demo, fault: str, stream: bool) -> None:
    with Demo("--rate", "0", "--fault", fault) as bad, Penstock(several({"bad": bad.port, "good": demo.port})) as proxy:
        for answer in ask_many(proxy.port, 40, 4, stream=stream):
            assert (answer.status, answer.clean) == (200, True)
            assert not stream or answer.data[-1] == "[DONE]"
        wait_until(lambda: len(requests(proxy)) == 40)
        lines = requests(proxy)
        assert {line["backend"] for line in lines} == {"good"}
        assert max(line["attempts"] for line in lines) == 2
        # A machine that stalls may leave it with too few requests to open.
        assert [line["breaker"] for line in proxy.lines() if "breaker" in line] in (["open"], [])


@pytest.mark.parametrize("fault", ["cut;after=0", "cut;after=30", "rst", "shortlength", "nofinish"])
def test_a_whole_answer_that_breaks_off_is_asked_for_elsewhere(demo: Demo, fault: str) -> None:
    with Demo("--rate", "0", "--fault", fault) as bad, Penstock(several({"bad": bad.port, "good": demo.port})) as proxy:
        for answer in ask_many(proxy.port, 20, 2):
            assert answer.status == 200 and answer.json()["choices"][0]["finish_reason"] == "stop"


def test_a_fallback_model_answers_under_its_own_name(demo: Demo) -> None:
    text = several({"gone": free_port(), "good": demo.port}, targets=["gone"], model='fallback = ["other"]')
    text += '[models.other]\ntargets = [{ backend = "good", model = "demo-large" }]\n'
    with Penstock(text) as proxy:
        answer = chat(proxy.port)
        assert (answer.status, answer.json()["model"]) == (200, "demo-large")


def test_the_answer_of_the_last_that_failed_is_the_clients() -> None:
    with Puppet() as one, Puppet() as two, Penstock(several({"a": one.port, "b": two.port})) as proxy:
        one.status = two.status = 500
        answer = chat(proxy.port)
        assert answer.status == 500 and answer.json() == {"error": {"message": "on purpose"}}
        assert (len(one.seen), len(two.seen)) == (1, 1)


def test_requests_share_the_targets_evenly() -> None:
    with Puppet() as one, Puppet() as two, Puppet() as three:
        ports = {"a": one.port, "b": two.port, "c": three.port}
        for each in (one, two, three):
            each.delay_s = 0.02
        with Penstock(several(ports, workers=2)) as proxy:
            ask_many(proxy.port, 120, 6)
            assert all(20 <= len(each.seen) <= 60 for each in (one, two, three))


def test_by_weight() -> None:
    with Puppet() as one, Puppet() as two:
        targets = 'balance = "weighted"'
        text = several({"a": one.port, "b": two.port}, model=targets)
        text = text.replace('["a", "b"]', '[{ backend = "a", weight = 9 }, "b"]')
        with Penstock(text) as proxy:
            ask_many(proxy.port, 200, 4)
        assert len(one.seen) + len(two.seen) == 200 and 5 <= len(two.seen) <= 45


def test_the_quicker_one_gets_more() -> None:
    with Puppet() as one, Puppet() as two:
        one.delay_s, two.delay_s = 0.005, 0.05
        with Penstock(several({"a": one.port, "b": two.port}, model='balance = "latency"')) as proxy:
            ask_many(proxy.port, 100, 2)
        assert len(one.seen) > 3 * len(two.seen) > 0


def test_killed_and_started_again_under_load(demo: Demo) -> None:
    """0 failed requests that had not begun streaming; those that had end with an error event, and not in good order."""
    victims = [Demo("--rate", "400")]
    port = victims[0].port
    text = several({"a": port, "b": demo.port}, workers=2, more="[breaker]\nrecovery_s = 0.3\n")
    with Penstock(text) as proxy:
        until = time.monotonic() + 4
        failures: list[str] = []
        counts = {"whole": 0, "streams": 0, "cut": 0}

        def load(stream: bool) -> None:
            body = chat_body(stream=stream)
            data = request("POST", "/v1/chat/completions", body, JSON_TYPE, "X-Demo-Tokens: 40")
            while time.monotonic() < until:
                with RawClient(proxy.port, timeout_s=10) as client:
                    answer = client.send(data).answer()
                counts["streams" if stream else "whole"] += 1
                if answer.status != 200:
                    failures.append(repr(answer))
                elif stream and answer.data[-1] != "[DONE]":
                    counts["cut"] += 1
                    if answer.clean or "error" not in json.loads(answer.data[-1]):
                        failures.append(repr(answer))
                elif not answer.clean:
                    failures.append(repr(answer))

        threads = [threading.Thread(target=load, args=(number % 2 == 0,)) for number in range(12)]
        for thread in threads:
            thread.start()
        try:
            while time.monotonic() < until - 0.5:
                time.sleep(0.4)
                victims[-1].stop(signal.SIGKILL)
                time.sleep(0.1)
                victims.append(Demo("--rate", "400", "--listen", f"127.0.0.1:{port}"))
        finally:
            for thread in threads:
                thread.join()
            for each in victims:
                each.stop()
                each.output.unlink(missing_ok=True)
        assert not failures, (counts, failures[:3])
        assert counts["whole"] > 20 and counts["streams"] > 10, counts


def test_places_and_connections_are_free_after_clients_have_left(demo: Demo) -> None:
    text = several({"a": demo.port}, backend="max_in_flight = 2", more=NEVER_OPENS)
    with Penstock(text) as proxy:
        data = request("POST", "/v1/chat/completions", chat_body(), JSON_TYPE, "X-Demo-First-Ms: 60000")
        for _ in range(3):
            clients = [RawClient(proxy.port).send(data) for _ in range(4)]
            wait_until(lambda: demo.stats()["requests_active"] == 2)
            for client in clients:
                client.socket.close()
            wait_until(lambda: demo.stats()["requests_active"] == 0, 0.5)
        began = time.monotonic()
        assert chat(proxy.port).status == 200
        assert time.monotonic() - began < 1
