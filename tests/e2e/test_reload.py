"""Reload: by signal, changed file and control socket; under load, with running streams, with bad files; and no leak."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import trustme
from hammer import CHAT, Hammer
from raw_client import JSON_TYPE, RawClient, ask, chat, chat_body, request, sse_data, wait_until

from running import PENSTOCK, Demo, Penstock, config

RELOADS = 1_000 if os.environ.get("PENSTOCK_SOAK") else 100
LEVELS = ('"warning"', '"error"')
STREAM: dict[str, object] = {**CHAT, "stream": True}


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--rate", "0") as process:
        yield process


def named(demo: Demo, model: str, more: str = "", **parts: str) -> str:
    """A configuration with two workers and a model of that name."""
    text = config(
        demo.port, more=f'[models.{model}]\ntargets = [{{ backend = "demo", model = "demo" }}]\n{more}', **parts
    )
    return text.replace("workers = 1", "workers = 2")


@pytest.fixture
def proxy(demo: Demo) -> Iterator[Penstock]:
    with Penstock(named(demo, "first")) as process:
        process.up()
        yield process


def knows(process: Penstock, model: str) -> bool:
    """Every worker does, as far as sixteen connections tell."""
    return {chat(process.port, model=model).status for _ in range(16)} == {200}


def forgot(process: Penstock, model: str) -> bool:
    return {chat(process.port, model=model).status for _ in range(16)} == {404}


# --- three ways to ask for it -----------------------------------------------------------------------------------


def test_by_command(proxy: Penstock, demo: Demo) -> None:
    proxy.rewrite(named(demo, "second"))
    done = subprocess.run(
        [PENSTOCK, "reload", "--config", str(proxy.file)],
        env={**os.environ, "XDG_STATE_HOME": proxy.folder.name},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{proxy.file}: reloaded\n", "")
    assert knows(proxy, "second") and forgot(proxy, "first")
    assert f"penstock: {proxy.file}: reloaded\n" in proxy.text()


def test_by_signal(proxy: Penstock, demo: Demo) -> None:
    proxy.rewrite(named(demo, "second"))
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_for("reloaded")
    assert knows(proxy, "second") and forgot(proxy, "first")


def test_by_a_changed_file(proxy: Penstock, demo: Demo) -> None:
    proxy.rewrite(named(demo, "second"))
    proxy.wait_for("reloaded")
    assert knows(proxy, "second") and forgot(proxy, "first")


def test_by_a_changed_secret(demo: Demo, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("first-key-of-laptop")
    more = f'[auth]\nmode = "keys"\n[[keys]]\nname = "laptop"\nkey = "file:{secret}"\n'
    with Penstock(config(demo.port, more=more)) as process:
        process.up()
        assert chat(process.port, "X-API-Key: first-key-of-laptop").status == 200
        secret.write_text("second-key-of-laptop")
        process.wait_for("reloaded")
        assert chat(process.port, "X-API-Key: first-key-of-laptop").status == 401
        assert chat(process.port, "X-API-Key: second-key-of-laptop").status == 200


def test_of_a_server_that_is_not_there(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(config(demo.port, server=f'state_dir = "{tmp_path}/state"'))
    done = subprocess.run([PENSTOCK, "reload", "--config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"penstock: no server answers at {tmp_path}/state/control.sock: No such file")


def test_status(proxy: Penstock) -> None:
    done = subprocess.run(
        [PENSTOCK, "status", "--config", str(proxy.file)],
        env={**os.environ, "XDG_STATE_HOME": proxy.folder.name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert f"process {proxy.process.pid}, up " in done.stdout and "workers: 2 of 2 ready, 0 died" in done.stdout


def test_the_control_socket_is_its_owners_alone(proxy: Penstock) -> None:
    assert (proxy.state_dir / "control.sock").stat().st_mode & 0o777 == 0o600
    assert proxy.control("nonsense") == {"ok": False, "lines": ["a request says what to do: reload, upgrade or status"]}


# --- what changes, and what cannot ------------------------------------------------------------------------------


def test_a_bad_file_is_refused_and_changes_nothing(proxy: Penstock, demo: Demo) -> None:
    workers = {worker.pid for worker in proxy.workers()}
    proxy.rewrite(named(demo, "second").replace("targets", "tragets"))
    told = proxy.control("reload")
    assert told["ok"] is False
    assert told["lines"][0] == "not reloaded, all stays as it was:"
    assert all(line.startswith(f"{proxy.file}:") for line in told["lines"][1:])
    assert "tragets" in "".join(told["lines"])
    assert "not reloaded, all stays as it was" in proxy.text() and "tragets" in proxy.text()
    assert knows(proxy, "first") and forgot(proxy, "second")
    assert {worker.pid for worker in proxy.workers()} == workers
    proxy.rewrite(named(demo, "third"))
    assert proxy.control("reload")["ok"] is True
    assert knows(proxy, "third")


def test_a_bad_file_is_told_once(proxy: Penstock, demo: Demo) -> None:
    proxy.rewrite("[nonsense")
    proxy.wait_for("not reloaded")
    proxy.rewrite(named(demo, "second"))
    proxy.wait_for(": reloaded")
    assert proxy.text().count("not reloaded") == 1


def test_what_only_some_workers_could_use_is_used_by_none(demo: Demo, tmp_path: Path) -> None:
    """A log file that cannot be opened: the configuration is right, and no App can be built by it."""
    with Penstock(named(demo, "first")) as process:
        process.up()
        process.rewrite(named(demo, "second", f'[log]\nfile = "{tmp_path}"\n'))
        told = process.control("reload")
        assert told["ok"] is False and "Is a directory" in told["lines"][1]
        assert knows(process, "first") and forgot(process, "second")


def test_what_only_a_restart_changes_is_said(proxy: Penstock, demo: Demo) -> None:
    text = named(demo, "second").replace("workers = 2", "workers = 1").replace("127.0.0.1:0", "127.0.0.1:1")
    proxy.rewrite(text)
    told = proxy.control("reload")
    stays = "only a restart or `penstock upgrade` changes it"
    assert told == {
        "ok": True,
        "lines": [
            f"{proxy.file}: reloaded",
            f"server.listen stays 127.0.0.1:0: {stays}",
            f"server.workers stays 2: {stays}",
        ],
    }
    assert len(proxy.workers()) == 2 and knows(proxy, "second")


def test_limits_follow(demo: Demo) -> None:
    key = '[auth]\nmode = "keys"\n[[keys]]\nname = "a"\nkey = "env:KEY_A"\ntier = "free"\n[tiers.free]\n'
    with Penstock(config(demo.port, more=f"{key}requests_per_hour = 2\n"), env={"KEY_A": "a" * 20}) as process:
        process.up()
        line = f"X-API-Key: {'a' * 20}"
        assert [chat(process.port, line).status for _ in range(3)] == [200, 200, 429]
        process.rewrite(config(demo.port, more=f"{key}requests_per_hour = 4\n"))
        assert process.control("reload")["ok"]
        assert [chat(process.port, line).status for _ in range(3)] == [200, 200, 429]


def test_keys_of_the_store_stay(demo: Demo) -> None:
    auth = '[auth]\nmode = "keys"\n[admin]\nkey = "env:ADMIN"\n[tiers.free]\nrequests_per_hour = {}\n'
    admin = "a" * 32
    with Penstock(config(demo.port, more=auth.format(2)), env={"ADMIN": admin}) as process:
        process.up()
        wish = b'{"name":"x","tenant_id":"t","user_id":"u","tier":"free"}'
        made = ask(process.port, request("POST", "/auth/create-key", wish, JSON_TYPE, f"X-Admin-Key: {admin}")).json()
        line = f"X-API-Key: {made['api_key']}"
        assert [chat(process.port, line).status for _ in range(3)] == [200, 200, 429]
        process.rewrite(config(demo.port, more=auth.format(3)))
        assert process.control("reload")["ok"]
        assert [chat(process.port, line).status for _ in range(2)] == [200, 429]


def test_the_keeper_is_replaced_where_its_work_changes(demo: Demo) -> None:
    with Penstock(named(demo, "first")) as process:
        process.up()
        keeper = process.keeper()
        process.rewrite(named(demo, "second"))
        assert process.control("reload")["ok"]
        assert process.keeper() == keeper
        process.rewrite(named(demo, "second", "[store]\nkeep_days = 7\n"))
        assert process.control("reload")["ok"]
        wait_until(lambda: process.keeper() not in (keeper, None))
        assert "died" not in process.text()
        process.rewrite(named(demo, "second", '[store]\nurl = "none"\n'))
        assert process.control("reload")["ok"]
        wait_until(lambda: process.control("status")["keeper"] is None)
        process.rewrite(named(demo, "second"))
        assert process.control("reload")["ok"]
        wait_until(lambda: process.control("status")["keeper"] is not None)
        assert chat(process.port).status == 200


def test_a_log_file_is_opened_anew(demo: Demo, tmp_path: Path) -> None:
    """As log rotation wants it: the file is moved away, and SIGHUP brings a new one."""
    file = tmp_path / "penstock.log"
    with Penstock(config(demo.port, more=f'[log]\nfile = "{file}"\n')) as process:
        process.up()
        chat(process.port)
        wait_until(lambda: file.stat().st_size)
        file.rename(tmp_path / "old.log")
        process.process.send_signal(signal.SIGHUP)
        process.wait_for(": reloaded")
        chat(process.port)
        wait_until(lambda: file.stat().st_size)


# --- under load -----------------------------------------------------------------------------------------------


def test_a_running_stream_ends_on_the_old_configuration(proxy: Penstock, demo: Demo) -> None:
    """Its backend is gone from the new one, and it goes on to its end."""
    with RawClient(proxy.port) as client:
        lines = (JSON_TYPE, "X-Demo-Tokens: 150", "X-Demo-Rate: 100")
        client.send(request("POST", "/v1/chat/completions", chat_body(stream=True, model="first"), *lines))
        client.until(b"data: ")
        other = named(demo, "second").replace("backends.demo", "backends.other").replace('"demo"', '"other"')
        proxy.rewrite(other.replace('model = "other"', 'model = "demo"'))
        assert proxy.control("reload")["ok"]
        assert forgot(proxy, "first") and knows(proxy, "second")
        assert sse_data(client.until(b"0\r\n\r\n"))[-1] == "[DONE]"
    wait_until(lambda: demo.stats()["requests_active"] == 0)


@contextlib.asynccontextmanager
async def load(*hammers: Hammer, connections: int = 6) -> AsyncIterator[None]:
    """They ask, for as long as this lasts."""
    tasks = [asyncio.ensure_future(each.ask(connections, 1_000_000)) for each in hammers]
    try:
        yield
    finally:
        for each in hammers:
            each.over = True
        await asyncio.gather(*tasks)


def variants(demo: Demo) -> list[str]:
    """Configurations that differ in everything a worker holds: backends, models, keys, limits, the log."""
    return [
        named(demo, "first"),
        named(demo, "second", "[backends.demo.timeout]\nconnect_s = 3\n"),
        named(demo, "third", '[tiers.free]\nrequests_per_hour = 5\n[log]\nlevel = "warning"\n'),
        named(demo, "fourth", '[backends.more]\nkind = "demo"\n'),
    ]


def test_many_reloads_under_load(demo: Demo) -> None:
    texts = variants(demo)
    with Penstock(named(demo, "first", '[log]\nlevel = "warning"\n')) as process:
        process.up()
        plain, streams = Hammer(process.port), Hammer(process.port, body=STREAM, prefix="s")
        figures: list[list[Figures]] = []

        async def reload_all() -> None:
            async with load(plain, streams):
                for number in range(RELOADS):
                    process.rewrite(texts[number % len(texts)])
                    told = await asyncio.to_thread(process.control, "reload")
                    assert told["ok"], told
                    if number + 1 in (RELOADS // 2, RELOADS):
                        figures.append([Figures(worker) for worker in process.workers()])

        began = time.monotonic()
        asyncio.run(reload_all())
        answered = len(plain.told.answered) + len(streams.told.answered)
        print(f"{RELOADS} reloads and {answered} requests in {time.monotonic() - began:.1f} s; {figures}")
        assert plain.told.lost == streams.told.lost == set()
        assert set(plain.told.statuses) == set(streams.told.statuses) == {200}
        assert answered > RELOADS
        assert process.control("status")["worker_deaths"] == 0
        half, whole = figures
        for before, after in zip(half, whole, strict=True):
            assert after.fds < before.fds + 30
            assert after.threads <= before.threads + 4
            assert after.rss - before.rss < 24 << 20


def test_who_waits_in_line_keeps_the_place(demo: Demo) -> None:
    """Those of before a reload and those of after it stand in one line: nobody is overtaken until the wait is over."""
    more = "[queue]\nmax_wait_s = 3\n"
    with Demo("--first-ms", "20") as slow:
        texts = [
            config(slow.port, backend="max_in_flight = 1", more=f"{more}[log]\nlevel = {level}\n") for level in LEVELS
        ]
        with Penstock(texts[0]) as process:
            process.up()
            hammer = Hammer(process.port)

            async def reload_all() -> None:
                async with load(hammer, connections=40):
                    for number in range(20):
                        before = len(hammer.told.answered)
                        process.rewrite(texts[number % 2])
                        assert (await asyncio.to_thread(process.control, "reload"))["ok"]
                        while len(hammer.told.answered) < before + 10:
                            await asyncio.sleep(0.01)

            asyncio.run(reload_all())
            assert hammer.told.lost == set()
            assert set(hammer.told.statuses) == {200}, hammer.told.statuses


class Figures:
    """Of a worker."""

    def __init__(self, worker: psutil.Process) -> None:
        self.fds = worker.num_fds()
        self.threads = worker.num_threads()
        self.rss = worker.memory_info().rss

    def __repr__(self) -> str:
        return f"{self.fds} files, {self.threads} threads, {self.rss >> 20} MiB"


def test_a_worker_that_dies_in_the_middle(demo: Demo) -> None:
    """Its replacement takes part in the reload."""
    with Penstock(named(demo, "first")) as process:
        process.up()
        for number in range(6):
            process.rewrite(named(demo, f"model{number}"))
            victim = process.workers()[number % 2]
            process.process.send_signal(signal.SIGHUP)
            victim.kill()
            assert process.control("reload")["ok"]
            wait_until(lambda: ready(process) == 2)
            assert knows(process, f"model{number}")


def ready(process: Penstock) -> int:
    return sum(worker["ready"] for worker in process.control("status")["workers"])


def test_many_at_once_are_few(proxy: Penstock) -> None:
    """Who asks while a reload runs is answered by the next one."""
    for _ in range(50):
        proxy.process.send_signal(signal.SIGHUP)
    assert proxy.control("reload")["ok"]
    assert 1 <= proxy.text().count(": reloaded") <= 10


def test_https_too(demo: Demo, certificates: Path) -> None:
    """The TLS listener hands new requests to the new App, also on connections that were there before."""
    tls = f'[server.tls]\ncert_file = "{certificates}/server.pem"\nkey_file = "{certificates}/server.key"\n'
    late = '[models.late]\ntargets = [{ backend = "demo", model = "demo" }]\n'
    trust = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with Penstock(config(demo.port, more=tls)) as process:
        process.up()
        with httpx.Client(base_url=process.url, verify=trust, http2=True) as client:
            ask_late = partial(client.post, "/v1/chat/completions", json={**CHAT, "model": "late"})
            assert ask_late().status_code == 404
            process.rewrite(config(demo.port, more=tls + late))
            assert process.control("reload")["ok"]
            assert ask_late().status_code == 200
            process.rewrite(config(demo.port, more=tls))
            assert process.control("reload")["ok"]
            assert ask_late().status_code == 404


def test_a_renewed_certificate_is_taken_up(demo: Demo, tmp_path: Path) -> None:
    """By new workers, which serve before the old ones go; a certificate without its key changes nothing."""
    authority = trustme.CA()
    names = ("localhost", "127.0.0.1")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    def issue(*, key: bool = True) -> bytes:
        issued = authority.issue_cert(*names)
        if key:
            issued.private_key_pem.write_to_path(tmp_path / "key.pem")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    def served() -> bytes | None:
        with RawClient(process.port, tls=trust) as client:
            assert client.send(request("GET", "/health/live")).answer().status == 200
            assert isinstance(client.socket, ssl.SSLSocket)
            return client.socket.getpeercert(binary_form=True)

    first = issue()
    tls = f'[server.tls]\ncert_file = "{tmp_path}/cert.pem"\nkey_file = "{tmp_path}/key.pem"\n'
    with Penstock(config(demo.port, more=tls).replace("workers = 1", "workers = 2")) as process:
        process.up()
        workers = {worker.pid for worker in process.workers()}
        assert served() == first
        issue(key=False)
        assert process.control("reload")["ok"] is False
        assert served() == first and {worker.pid for worker in process.workers()} == workers
        second = issue()
        told = process.control("reload")
        assert told["ok"] and "server.tls changed" in told["lines"][1]
        wait_until(
            lambda: len(process.workers()) == 2 and not workers & {worker.pid for worker in process.workers()}, 20
        )
        assert {served() for _ in range(8)} == {second}
        assert "died" not in process.text()
