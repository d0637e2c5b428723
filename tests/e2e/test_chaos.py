"""Faults on purpose, as an administrator sets them and clients meet them, over two workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from raw_client import END_CHUNK, JSON_TYPE, Answer, RawClient, ask, chat, chat_body, request, wait_until

from running import Demo, Penstock, config

ADMIN_KEY = "the-admin-key-of-these-tests"
SHOWN = f"X-Admin-Key: {ADMIN_KEY}"
ENV = {"ADMIN_KEY": ADMIN_KEY}
SETTINGS = """
[admin]
key = "env:ADMIN_KEY"
[backends.demo.health]
interval_s = 0
[backends.demo.timeout]
first_byte_s = 1
"""
ENABLED = SETTINGS + "[chaos]\nenabled = true\n"
OF_FILE = '[[chaos.faults]]\nname = "of-the-file"\nkind = "error_status"\nmodel = "demo-large"\nstatus = 418\n'
# A connection goes to one of two workers; so many go to both, but for one time in 2**39.
OF_BOTH = 40


@pytest.fixture(scope="module")
def started(demo: Demo) -> Iterator[Penstock]:
    text = config(demo.port, more=ENABLED + OF_FILE).replace("workers = 1", "workers = 2")
    with Penstock(text, env=ENV) as process:
        yield process


@pytest.fixture
def penstock(started: Penstock) -> Iterator[Penstock]:
    """Without a fault that an administrator set; the file's own is for another model."""
    yield started
    for fault in faults(started):
        if fault["source"] == "admin":
            admin(started, "DELETE", f"/{fault['id']}")
    wait_until(lambda: all("x-penstock-chaos" not in names(chat(started.port)) for _ in range(OF_BOTH)))


def admin(process: Penstock, method: str, path: str = "", body: Any = None, status: int = 200) -> Any:
    data = b"" if body is None else json.dumps(body).encode()
    answer = ask(process.port, request(method, f"/admin/chaos{path}", data, SHOWN, *([JSON_TYPE] if data else [])))
    assert answer.status == status, answer
    return answer.json()


def faults(process: Penstock) -> list[dict[str, Any]]:
    return list(admin(process, "GET")["faults"])


def begin(process: Penstock, kind: str, **fields: Any) -> None:
    """Set a fault, and wait until both workers have it."""
    admin(process, "POST", body={"name": "f", "kind": kind, **fields})
    wait_until(lambda: all(chaos_of(chat(process.port)) in ("f", "half") for _ in range(OF_BOTH)))


def chaos_of(answer: Answer) -> str | None:
    return answer.header("x-penstock-chaos")


def names(answer: Answer) -> set[str]:
    return {name.lower() for name, _ in answer.headers}


# --- the six -----------------------------------------------------------------------------------------------------


def test_latency(penstock: Penstock) -> None:
    admin(penstock, "POST", body={"name": "f", "kind": "latency", "latency_ms": 300, "model": "demo"})
    wait_until(lambda: chaos_of(chat(penstock.port)) == "f")
    began = time.monotonic()
    answer = chat(penstock.port)
    assert answer.status == 200 and chaos_of(answer) in ("f", None)
    assert chaos_of(answer) is None or time.monotonic() - began > 0.29


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_error_status(penstock: Penstock, demo: Demo, stream: bool) -> None:
    begin(penstock, "error_status", status=529)
    before = demo.stats()["requests_total"]
    answer = chat(penstock.port, stream=stream)
    assert (answer.status, chaos_of(answer)) == (529, "f")
    assert answer.json()["error"]["code"] == "chaos" and "on purpose: f" in answer.json()["error"]["message"]
    assert demo.stats()["requests_total"] == before


def test_connection_reset(penstock: Penstock) -> None:
    begin(penstock, "connection_reset")
    answer = chat(penstock.port)
    assert (answer.status, chaos_of(answer)) == (502, "f")
    assert answer.json()["error"]["code"] == "backend_unreachable"


def test_cut_stream(penstock: Penstock) -> None:
    begin(penstock, "cut_stream", after_bytes=1500)
    answer = chat(penstock.port, stream=True)
    assert (answer.status, chaos_of(answer)) == (200, "f")
    *events, last = answer.data
    assert json.loads(last)["error"]["code"] == "backend_bad_answer" and "[DONE]" not in events
    assert len(events) > 2 and not answer.clean and not answer.wire.endswith(END_CHUNK)


def test_cut_stream_of_a_whole_answer(penstock: Penstock) -> None:
    begin(penstock, "cut_stream", after_bytes=10)
    answer = chat(penstock.port)
    assert (answer.status, chaos_of(answer)) == (502, "f")


def test_slow_tokens(penstock: Penstock) -> None:
    begin(penstock, "slow_tokens", gap_ms=20)
    began = time.monotonic()
    answer = chat(penstock.port, "X-Demo-Tokens: 20", stream=True)
    assert (answer.status, chaos_of(answer), answer.data[-1]) == (200, "f", "[DONE]")
    assert answer.clean and time.monotonic() - began > 20 * 0.02


def test_bad_body(penstock: Penstock) -> None:
    begin(penstock, "bad_body", after_bytes=300)
    answer = chat(penstock.port, stream=True)
    assert (answer.status, chaos_of(answer)) == (200, "f")
    assert b"#####" in answer.body and "backend_incomplete_reply" in answer.data[-1] and not answer.clean


# --- whom, how many, how long --------------------------------------------------------------------------------------


def test_a_fault_of_the_configuration_file(penstock: Penstock) -> None:
    answer = chat(penstock.port, model="demo-large")
    assert (answer.status, chaos_of(answer)) == (418, "of-the-file")
    assert "x-penstock-chaos" not in names(chat(penstock.port))


def test_a_share(penstock: Penstock) -> None:
    """Half of 200, within what chance allows (six sigma)."""
    admin(penstock, "POST", body={"name": "half", "kind": "slow_tokens", "gap_ms": 1, "share": 0.5})
    begin(penstock, "slow_tokens", gap_ms=1)  # who has this one has the other
    admin(penstock, "DELETE", "/f")
    wait_until(lambda: not any(chaos_of(chat(penstock.port)) == "f" for _ in range(OF_BOTH)))
    hit = sum(chaos_of(chat(penstock.port)) == "half" for _ in range(200))
    assert 57 < hit < 143


def test_native_and_other_answers_say_it_too(penstock: Penstock) -> None:
    begin(penstock, "slow_tokens", gap_ms=1)
    answer = ask(penstock.port, request("GET", "/v1/files"))
    assert answer.status == 200 and chaos_of(answer) == "f"


def test_what_is_no_fault(penstock: Penstock) -> None:
    for body, param in (
        ({"kind": "latency", "latency_ms": 5}, "name"),
        ({"name": "x", "kind": "latency"}, "latency_ms"),
        ({"name": "x", "kind": "earthquake"}, "kind"),
        ({"name": "x", "kind": "bad_body", "backend": "dmeo"}, "backend"),
        ({"name": "x", "kind": "bad_body", "share": 2}, "share"),
        ({"name": "x y", "kind": "bad_body"}, "name"),
        ({"name": "of-the-file", "kind": "bad_body"}, "name"),
    ):
        assert admin(penstock, "POST", body=body, status=400)["error"]["param"] == param
    admin(penstock, "DELETE", "/nothing", status=404)


# --- stopping ------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(demo: Demo) -> Iterator[Penstock]:
    """Of this test alone: what is stopped here stays stopped."""
    text = config(demo.port, more=ENABLED + OF_FILE).replace("workers = 1", "workers = 2")
    with Penstock(text, env=ENV) as process:
        yield process


def test_a_stop_ends_all_in_every_worker_within_a_second(own: Penstock) -> None:
    """Also the waits that are under way."""
    begin(own, "error_status")
    admin(own, "POST", body={"name": "g", "kind": "bad_body", "share": 0.5})
    assert {fault["id"]: fault["state"] for fault in faults(own)} == {
        "of-the-file": "active",
        "f": "active",
        "g": "active",
    }
    told = admin(own, "DELETE")["faults"]
    stopped = time.monotonic()
    assert [(fault["id"], fault["state"]) for fault in told] == [("of-the-file", "stopped")]
    wait_until(lambda: all(chat(own.port).status == 200 for _ in range(OF_BOTH)), 1.0)
    assert time.monotonic() - stopped < 1.5  # so many requests take their time too
    for _ in range(OF_BOTH):
        assert chat(own.port, model="demo-large").status == 200


def test_a_restart_keeps_faults_and_stops(demo: Demo, tmp_path: Path) -> None:
    text = config(demo.port, server=f'state_dir = "{tmp_path}"', more=ENABLED + OF_FILE)
    with Penstock(text, env=ENV) as process:
        admin(process, "DELETE", "/of-the-file")
        admin(process, "POST", body={"name": "f", "kind": "error_status"})
    with Penstock(text, env=ENV) as process:
        assert [chat(process.port, model=model).status for model in ("demo", "demo-large")] == [503, 503]
        assert chaos_of(chat(process.port, model="demo-large")) == "f"
        admin(process, "DELETE")
    with Penstock(text, env=ENV) as process:
        assert [chat(process.port, model=model).status for model in ("demo", "demo-large")] == [200, 200]


def test_a_reload_takes_the_files_faults_as_they_are_then(own: Penstock) -> None:
    """And what is under way meets none of the old ones any more."""
    begin(own, "slow_tokens", gap_ms=50)
    with RawClient(own.port) as client:
        body = chat_body(stream=True)
        client.send(request("POST", "/v1/chat/completions", body, JSON_TYPE, "X-Demo-Tokens: 400"))
        client.until(b"data: ")
        own.rewrite(own.config.replace(OF_FILE, OF_FILE.replace("418", "410").replace("demo-large", "demo")))
        assert own.control("reload")["ok"]
        began = time.monotonic()
        wait_until(lambda: all(chat(own.port).status == 410 for _ in range(OF_BOTH)))
        assert client.until(END_CHUNK).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert time.monotonic() - began < 5  # of 20 s
    own.rewrite(own.config.replace("enabled = true", "enabled = false"))
    assert own.control("reload")["ok"]
    wait_until(lambda: all(chat(own.port).status == 200 for _ in range(OF_BOTH)))
    admin(own, "GET", status=404)


# --- where it is not allowed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_not_enabled(demo: Demo, method: str) -> None:
    text = config(demo.port, more=SETTINGS + "[chaos]\nenabled = false\n" + OF_FILE)
    with Penstock(text, env=ENV) as process:
        assert chat(process.port, model="demo-large").status == 200
        answer = admin(process, method, status=404)
        assert "chaos.enabled" in answer["error"]["message"]


def test_only_for_administrators(penstock: Penstock) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert ask(penstock.port, request(method, "/admin/chaos")).status == 401
    assert ask(penstock.port, request("DELETE", "/admin/chaos/of-the-file")).status == 401
    assert faults(penstock)[0]["state"] == "active"
