"""Several workers behind one port: both serve, a dead one is replaced, a dead parent takes them along, drains end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hammer import Hammer
from raw_client import JSON_TYPE, Answer, RawClient, ask, chat, chat_body, request, sse_data, wait_until

from running import PENSTOCK, Demo, Penstock, config, free_port

KILLS = 50 if os.environ.get("PENSTOCK_SOAK") else 10
LIVE = request("GET", "/health/live")
LASTING = ("X-Demo-Tokens: 100000", "X-Demo-Rate: 100")


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--rate", "0") as process:
        yield process


def two_workers(demo: Demo, server: str = "") -> Penstock:
    return Penstock(config(demo.port, server=server).replace("workers = 1", "workers = 2"))


def ready(proxy: Penstock, count: int = 2) -> list[psutil.Process]:
    """The workers, once each of them answers."""
    wait_until(lambda: len(proxy.workers()) == count)
    wait_until(lambda: len(serving(proxy)) == count)
    return proxy.workers()


def serving(proxy: Penstock) -> set[int]:
    """Workers that hold one of many connections made at once: only those that are ready accept any."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(proxy.port)) for _ in range(24)]
        for client in clients:
            client.send(LIVE).answer()
        return set(holders(proxy, clients).values())


def holders(proxy: Penstock, clients: list[RawClient]) -> dict[RawClient, int]:
    """Which worker holds each client's connection."""
    by_port = {
        connection.raddr.port: worker.pid
        for worker in proxy.workers()
        for connection in worker.net_connections("tcp4")
        if connection.raddr and connection.laddr.port == proxy.port
    }
    return {client: by_port[client.socket.getsockname()[1]] for client in clients}


def stream(proxy: Penstock, *lines: str) -> RawClient:
    """A client in the middle of a stream."""
    client = RawClient(proxy.port)
    client.send(request("POST", "/v1/chat/completions", chat_body(stream=True), JSON_TYPE, *(lines or LASTING)))
    client.until(b"data: ")
    return client


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


# --- workers ------------------------------------------------------------------------------------------------


def test_both_serve(demo: Demo) -> None:
    with two_workers(demo) as proxy:
        workers = ready(proxy)
        wait_until(lambda: serving(proxy) == {worker.pid for worker in workers})
        assert {chat(proxy.port).status for _ in range(10)} == {200}


def test_a_killed_worker_costs_only_its_own_connections(demo: Demo) -> None:
    with two_workers(demo) as proxy:
        workers = ready(proxy)
        clients = [stream(proxy) for _ in range(8)]
        while len(set((held := holders(proxy, clients)).values())) < 2:  # who accepts is up to the kernel
            clients.append(stream(proxy))
        victim = workers[0]
        victim.kill()
        lost = [client for client in clients if held[client] == victim.pid]
        for client in lost:
            assert client.ended()
        statuses = [chat(proxy.port).status for _ in range(20)]  # while the other one comes up
        assert set(statuses) == {200}
        wait_until(lambda: len(serving(proxy)) == 2)
        assert victim.pid not in {worker.pid for worker in proxy.workers()}
        assert f"penstock: worker {victim.pid} died (SIGKILL); starting another" in proxy.text()
        for client in clients:
            if client not in lost:
                client.until(b"data: ")
            client.socket.close()
        wait_until(lambda: demo.stats()["requests_active"] == 0)


def test_workers_that_die_again_and_again_are_replaced(demo: Demo) -> None:
    with two_workers(demo) as proxy:
        for _ in range(3):
            for worker in ready(proxy):
                worker.kill()
        ready(proxy)
        assert chat(proxy.port).status == 200
        assert proxy.text().count("starting another") == 6


def test_many_that_die_under_load_cost_only_what_they_had(demo: Demo) -> None:
    """A victim is stopped first, so that its connections can be counted: no more requests than that may be lost."""
    text = config(demo.port, more='[log]\nlevel = "warning"\n').replace("workers = 1", "workers = 3")
    with Penstock(text) as proxy:
        ready(proxy, 3)
        hammer = Hammer(proxy.port)
        at_stake = 0
        killed = set[int]()

        async def kill_all() -> None:
            nonlocal at_stake
            asking = asyncio.ensure_future(hammer.ask(24, 1_000_000))
            for number in range(KILLS):
                before = len(hammer.told.answered)
                while not (alive := [worker for worker in proxy.workers() if worker.pid not in killed]):
                    await asyncio.sleep(0.001)
                victim = random.Random(number).choice(alive)
                killed.add(victim.pid)
                victim.suspend()
                at_stake += sum(c.laddr.port == proxy.port and bool(c.raddr) for c in victim.net_connections("tcp4"))
                victim.kill()
                while len(hammer.told.answered) < before + 100:
                    await asyncio.sleep(0.001)
            hammer.over = True
            await asyncio.wait_for(asking, 20)

        began = time.monotonic()
        asyncio.run(kill_all())
        told = hammer.told
        print(
            f"{KILLS} workers killed in {time.monotonic() - began:.1f} s under {len(told.answered)} requests: "
            f"{len(told.lost)} lost of {at_stake} that were theirs"
        )
        assert set(told.statuses) == {200}
        assert len(told.lost) <= at_stake
        ready(proxy, 3)
        assert proxy.control("status")["worker_deaths"] == KILLS


def test_what_a_dead_worker_held_is_free_again(demo: Demo) -> None:
    """The only place at a backend, and the only request a key may have in flight."""
    more = '[auth]\nmode = "keys"\n[[keys]]\nname = "a"\nkey = "env:KEY_A"\ntier = "one"\n[tiers.one]\nin_flight = 1\n'
    text = config(demo.port, backend="max_in_flight = 1", more=more).replace("workers = 1", "workers = 2")
    with Penstock(text, env={"KEY_A": "a" * 20}) as proxy:
        workers = ready(proxy)
        key = f"X-API-Key: {'a' * 20}"
        with stream(proxy, key, *LASTING) as client:
            assert chat(proxy.port, key).status == 429
            held = holders(proxy, [client])[client]
            next(worker for worker in workers if worker.pid == held).kill()
            wait_until(lambda: chat(proxy.port, key).status == 200)


def test_a_slot_whose_workers_cannot_start_is_tried_again(demo: Demo, tmp_path: Path) -> None:
    """Ever more slowly, without holding anything else up, and never given up while the others serve."""
    folder = tmp_path / "log"
    folder.mkdir()
    text = config(demo.port, more=f'[log]\nfile = "{folder}/a.log"\n')
    with Penstock(text.replace("workers = 1", "workers = 2")) as proxy:
        workers = ready(proxy)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        began = time.monotonic()
        workers[0].kill()
        proxy.wait_for(r"starting another in 0\.8 s")
        assert 0.6 < time.monotonic() - began < 5
        assert {chat(proxy.port).status for _ in range(5)} == {200}
        assert proxy.control("status")["ok"]
        folder.mkdir()
        ready(proxy)
        assert {chat(proxy.port).status for _ in range(5)} == {200}


def test_a_killed_parent_takes_its_workers_along(demo: Demo) -> None:
    with two_workers(demo) as proxy:
        workers = ready(proxy)
        proxy.process.kill()
        proxy.process.wait()
        gone, alive = psutil.wait_procs(workers, timeout=5)
        assert not alive, gone
        assert not listens(proxy.port)
        with Penstock(config(demo.port).replace("127.0.0.1:0", f"127.0.0.1:{proxy.port}")) as after:
            assert chat(after.port).status == 200


# --- draining -------------------------------------------------------------------------------------------------


def test_sigterm_lets_a_stream_end(demo: Demo) -> None:
    with two_workers(demo) as proxy:
        ready(proxy)
        with stream(proxy, "X-Demo-Tokens: 50", "X-Demo-Rate: 100") as client:
            proxy.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not listens(proxy.port))
            assert proxy.process.poll() is None
            rest = client.rest()
        assert b"data: [DONE]\n\n" in rest
        assert rest.endswith(b"0\r\n\r\n")
        assert proxy.process.wait(10) == 0


def test_sigterm_lets_a_whole_answer_end(demo: Demo) -> None:
    with two_workers(demo) as proxy, RawClient(proxy.port) as client:
        ready(proxy)
        before = demo.stats()["requests_total"]
        client.send(request("POST", "/v1/chat/completions", chat_body(), JSON_TYPE, "X-Demo-First-Ms: 500"))
        wait_until(lambda: demo.stats()["requests_total"] > before)
        proxy.process.send_signal(signal.SIGTERM)
        assert client.answer().status == 200
        assert proxy.process.wait(10) == 0


def test_idle_connections_do_not_hold_a_drain_up(demo: Demo) -> None:
    with two_workers(demo) as proxy:
        ready(proxy)
        clients = [RawClient(proxy.port) for _ in range(4)]
        for client in clients:
            client.send(LIVE).answer()
        before = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - before < 5
        for client in clients:
            assert client.ended()
            client.socket.close()


def test_the_time_for_draining_ends_a_stream_with_an_error_event(demo: Demo) -> None:
    with two_workers(demo, "drain_s = 0.3") as proxy:
        ready(proxy)
        with stream(proxy) as client:
            proxy.process.send_signal(signal.SIGTERM)
            rest = client.rest()
        error = last_event(rest)
        assert (error["code"], error["type"]) == ("draining", "server_error")
        assert not rest.endswith(b"0\r\n\r\n")
        assert b"[DONE]" not in rest
        assert proxy.process.wait(10) == 0
        (line,) = [line for line in proxy.lines() if line.get("error") == "draining"]
        assert (line["fault"], line["status"]) == ("capacity", 200)
        wait_until(lambda: demo.stats()["requests_active"] == 0)


def last_event(body: bytes) -> dict[str, Any]:
    data = [line for line in sse_data(body) if line.startswith('{"error"')]
    return dict(json.loads(data[-1])["error"])


def test_the_time_for_draining_ends_a_waiting_request_with_503(demo: Demo) -> None:
    with two_workers(demo, "drain_s = 0.3") as proxy, RawClient(proxy.port) as client:
        ready(proxy)
        before = demo.stats()["requests_total"]
        client.send(request("POST", "/v1/chat/completions", chat_body(), JSON_TYPE, "X-Demo-Fault: never"))
        wait_until(lambda: demo.stats()["requests_total"] > before)
        proxy.process.send_signal(signal.SIGTERM)
        answer = client.answer()
        assert (answer.status, answer.json()["error"]["code"], answer.header("retry-after")) == (503, "draining", "1")
        assert answer.header("x-penstock-error") == "capacity"
        assert proxy.process.wait(10) == 0


def test_a_client_that_does_not_read_does_not_hold_the_end_up(demo: Demo) -> None:
    with two_workers(demo, "drain_s = 0.2") as proxy:
        ready(proxy)
        with stream(proxy, "X-Demo-Tokens: 1000000"):
            before = time.monotonic()
            proxy.process.send_signal(signal.SIGTERM)
            assert proxy.process.wait(15) == 0
            assert time.monotonic() - before < 8


def test_ctrl_c_goes_to_the_whole_group_and_is_quiet(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    port = free_port()
    text = config(demo.port, server="drain_s = 0.3").replace("workers = 1", "workers = 2")
    file.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    process = subprocess.Popen(
        [PENSTOCK, "serve", "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        start_new_session=True,
    )
    wait_until(lambda: listens(port), 20)
    wait_until(lambda: first_answer(port) is not None)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=15)
    assert process.returncode == 0
    assert output.startswith("penstock serves http://127.0.0.1:")
    assert [line for line in errors.splitlines() if not line.startswith("{")] == []


# --- starting ---------------------------------------------------------------------------------------------------


def first_answer(port: int) -> Answer | None:
    try:
        return ask(port, LIVE)
    except OSError:
        return None


def test_port_in_use(demo: Demo) -> None:
    with Penstock(config(demo.port)) as proxy:
        done = subprocess.run(
            [PENSTOCK, "serve", "--listen", f"127.0.0.1:{proxy.port}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr == (
            f"penstock: cannot listen on 127.0.0.1:{proxy.port}: Address already in use; "
            "--listen takes another address\n"
        )
        assert chat(proxy.port).status == 200


def test_from_start_to_first_answer(demo: Demo) -> None:
    """The greeting comes when the port is bound, so whoever waits for it can ask at once and is answered."""
    began = time.monotonic()
    with Penstock(config(demo.port)) as proxy:
        greeted = time.monotonic()
        answer = chat(proxy.port)
        answered = time.monotonic()
    print(f"greeting after {greeted - began:.2f} s, first answer after {answered - began:.2f} s")
    assert answer.status == 200
    assert began < greeted < answered


def test_clients_that_come_before_the_workers_are_ready_wait(demo: Demo) -> None:
    with two_workers(demo) as proxy:
        clients = [RawClient(proxy.port) for _ in range(10)]  # right after the greeting
        for client in clients:
            client.send(LIVE)
        assert {client.answer().status for client in clients} == {200}
        for client in clients:
            client.socket.close()
