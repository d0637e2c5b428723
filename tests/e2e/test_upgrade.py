"""A new process takes the listening socket over: under load, with running streams, with a broken configuration; and the
sockets and messages of systemd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hammer import CHAT, Hammer
from raw_client import JSON_TYPE, RawClient, chat, chat_body, request, sse_data, wait_until

from running import PENSTOCK, Demo, Penstock, Process, config, free_port

LIVE = request("GET", "/health/live")
STREAM: dict[str, object] = {**CHAT, "stream": True}


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--rate", "0") as process:
        yield process


class Upgradable(Penstock):
    """A penstock whose successors are ended with it."""

    def pid(self) -> int:
        """The process that serves now."""
        return int(self.control("status")["pid"])

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError, psutil.Error):
            now = psutil.Process(self.pid())
            now.terminate()
            wait_until(lambda: not now.is_running() or now.status() == psutil.STATUS_ZOMBIE, 10)
        super().__exit__(*exc)  # type: ignore[arg-type]


def two_workers(demo: Demo, **parts: str) -> str:
    return config(demo.port, **parts).replace("workers = 1", "workers = 2")


@pytest.fixture
def proxy(demo: Demo) -> Iterator[Upgradable]:
    with Upgradable(two_workers(demo)) as process:
        process.up()
        yield process


def test_by_command(proxy: Upgradable) -> None:
    old = proxy.process.pid
    done = subprocess.run(
        [PENSTOCK, "upgrade", "--config", str(proxy.file)],
        env={**os.environ, "XDG_STATE_HOME": proxy.folder.name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    new = proxy.pid()
    words = f"process {new} has taken over; process {old} ends with its requests\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, words, "")
    assert new != old
    assert chat(proxy.port).status == 200
    assert proxy.process.wait(10) == 0
    assert proxy.pid() == new and chat(proxy.port).status == 200
    assert (proxy.state_dir / "control.sock").exists()


def test_again_and_again(proxy: Upgradable) -> None:
    pids = {proxy.pid()}
    for _ in range(3):
        assert proxy.control("upgrade")["ok"]
        pids.add(proxy.pid())
        assert chat(proxy.port).status == 200
    assert len(pids) == 4


def test_under_load(proxy: Upgradable) -> None:
    plain, streams = Hammer(proxy.port), Hammer(proxy.port, body=STREAM, prefix="s")

    async def upgrade() -> None:
        asking = [asyncio.ensure_future(each.ask(12, 1_000_000)) for each in (plain, streams)]
        for _ in range(3):
            before = len(plain.told.answered)
            told = await asyncio.to_thread(proxy.control, "upgrade")
            assert told["ok"], told
            while len(plain.told.answered) < before + 500:
                await asyncio.sleep(0.01)
        plain.over = streams.over = True
        await asyncio.gather(*asking)

    began = time.monotonic()
    asyncio.run(upgrade())
    answered = len(plain.told.answered) + len(streams.told.answered)
    print(f"3 upgrades under {answered} requests in {time.monotonic() - began:.1f} s")
    assert plain.told.lost == streams.told.lost == set()
    assert set(plain.told.statuses) == set(streams.told.statuses) == {200}
    assert proxy.process.wait(15) == 0


def test_under_load_with_tls(demo: Demo, certificates: Path) -> None:
    tls = f'[server.tls]\ncert_file = "{certificates}/server.pem"\nkey_file = "{certificates}/server.key"\n'
    trust = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with Upgradable(two_workers(demo, more=tls)) as process:
        process.up()
        plain = Hammer(process.port, tls=trust)

        async def upgrade() -> None:
            asking = asyncio.ensure_future(plain.ask(12, 1_000_000))
            told = await asyncio.to_thread(process.control, "upgrade")
            assert told["ok"], told
            await asyncio.to_thread(process.process.wait, 20)
            plain.over = True
            await asking

        asyncio.run(upgrade())
        print(f"an upgrade under {len(plain.told.answered)} requests over TLS")
        assert plain.told.lost == set() and set(plain.told.statuses) == {200}


def test_a_running_stream_ends_where_it_is(proxy: Upgradable) -> None:
    with RawClient(proxy.port) as client:
        lines = (JSON_TYPE, "X-Demo-Tokens: 150", "X-Demo-Rate: 100")
        client.send(request("POST", "/v1/chat/completions", chat_body(stream=True), *lines))
        client.until(b"data: ")
        assert proxy.control("upgrade")["ok"]
        assert chat(proxy.port).status == 200
        assert proxy.process.poll() is None
        assert sse_data(client.until(b"0\r\n\r\n"))[-1] == "[DONE]"
        # Its head promised to keep the connection, so that there is one more request, whose answer says "close".
        answer = client.send(LIVE).answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert client.ended()
    assert proxy.process.wait(10) == 0


def test_an_idle_connection_gets_one_more_request(proxy: Upgradable) -> None:
    with RawClient(proxy.port) as client, RawClient(proxy.port, timeout_s=10) as idle:
        client.send(LIVE).answer()
        idle.send(LIVE).answer()
        assert proxy.control("upgrade")["ok"]
        answer = client.send(LIVE).answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert idle.ended(), "but an idle one does not hold the old process for ever"
    assert proxy.process.wait(10) == 0


def test_a_second_signal_hastens_the_old_one(proxy: Upgradable) -> None:
    with RawClient(proxy.port) as idle:
        idle.send(LIVE).answer()
        assert proxy.control("upgrade")["ok"]
        began = time.monotonic()
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.process.wait(10) == 0
        assert time.monotonic() - began < 3
    assert chat(proxy.port).status == 200


def test_what_only_a_restart_changes(proxy: Upgradable, demo: Demo) -> None:
    proxy.rewrite(two_workers(demo).replace("workers = 2", "workers = 3"))
    assert proxy.control("upgrade")["ok"]
    assert len(proxy.control("status")["workers"]) == 3


def test_usage_rows_go_on(proxy: Upgradable) -> None:
    """The new keeper waits until the old one has booked what the old workers did last."""
    chat(proxy.port)
    assert proxy.control("upgrade")["ok"]
    chat(proxy.port)
    proxy.process.wait(10)
    chat(proxy.port)

    def rows() -> str:
        usage = [PENSTOCK, "usage", "--config", str(proxy.file), "--by", "model", "--json"]
        environ = {**os.environ, "XDG_STATE_HOME": proxy.folder.name}
        return subprocess.run(usage, env=environ, capture_output=True, text=True, check=False).stdout

    wait_until(lambda: '"requests":3' in rows().replace(" ", ""), 10)


# --- when the new one does not come up ----------------------------------------------------------------------------


def test_a_broken_configuration(proxy: Upgradable, demo: Demo) -> None:
    pid = proxy.pid()
    proxy.rewrite(two_workers(demo) + "\n[nonsense]\n")
    told = proxy.control("upgrade")
    assert told["ok"] is False
    assert told["lines"][0] == "the new process did not come up, so this one goes on:"
    assert "nonsense" in told["lines"][1]
    assert proxy.pid() == pid and chat(proxy.port).status == 200
    assert {worker["ready"] for worker in proxy.control("status")["workers"]} == {True}
    proxy.rewrite(two_workers(demo))
    assert proxy.control("upgrade")["ok"]


def test_workers_that_cannot_start(proxy: Upgradable, demo: Demo, tmp_path: Path) -> None:
    proxy.rewrite(two_workers(demo) + f'\n[log]\nfile = "{tmp_path}"\n')
    told = proxy.control("upgrade")
    assert told["ok"] is False
    assert "no worker could start" in told["lines"][1] and "directory" in told["lines"][1]
    assert chat(proxy.port).status == 200


def test_a_port_that_is_taken(proxy: Upgradable, demo: Demo) -> None:
    proxy.rewrite(two_workers(demo).replace("127.0.0.1:0", f"127.0.0.1:{demo.port}"))
    told = proxy.control("upgrade")
    assert told["ok"] is False
    assert f"cannot listen on 127.0.0.1:{demo.port}" in told["lines"][1]
    assert chat(proxy.port).status == 200


def test_another_port(demo: Demo) -> None:
    """The new process listens where the file says now; the old one ends all the same."""
    with Upgradable(two_workers(demo)) as process:
        process.up()
        port = free_port()
        process.rewrite(two_workers(demo).replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        assert process.control("upgrade")["ok"]
        assert chat(port).status == 200
        assert process.process.wait(10) == 0


# --- systemd ------------------------------------------------------------------------------------------------------


class Manager:
    """What systemd does: a listening socket as descriptor 3, and a socket to be told on."""

    START = (
        "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); "
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='penstock.socket'); "
        "os.execv(sys.argv[2], sys.argv[2:])"
    )

    def __init__(self, folder: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self.listener.getsockname()[1]
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(20)
        self.environ = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "XDG_STATE_HOME": str(folder)}

    def start(self, file: Path) -> subprocess.Popen[str]:
        fd = self.listener.fileno()
        return subprocess.Popen(
            [sys.executable, "-c", self.START, str(fd), PENSTOCK, "serve", "--config", str(file)],
            pass_fds=[fd],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def told(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.notify.recv(4096).decode().splitlines())

    def close(self) -> None:
        self.listener.close()
        self.notify.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


def test_socket_activation(manager: Manager, demo: Demo, tmp_path: Path) -> None:
    """A connection that was made before the server started is served, and the port is the socket's."""
    file = tmp_path / "penstock.toml"
    file.write_text(config(demo.port))
    with RawClient(manager.port, timeout_s=20) as early:
        early.send(LIVE)
        process = manager.start(file)
        try:
            assert early.answer().status == 200
            assert manager.told()["READY"] == "1"
            assert chat(manager.port).status == 200
            process.send_signal(signal.SIGHUP)
            told = manager.told()
            assert told["RELOADING"] == "1" and int(told["MONOTONIC_USEC"]) > 0
            assert manager.told()["READY"] == "1"
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=20)
    assert f"penstock serves http://127.0.0.1:{manager.port}/v1" in output
    assert process.returncode == 0
    assert manager.told() == {"STOPPING": "1"}
    # The socket is systemd's: it goes on taking connections for the next one.
    RawClient(manager.port).socket.close()


def test_an_upgrade_tells_systemd_of_the_new_main_process(manager: Manager, demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(config(demo.port))
    process = manager.start(file)
    assert manager.told()["READY"] == "1"
    upgrade = [PENSTOCK, "upgrade", "--config", str(file)]
    assert subprocess.run(upgrade, env=manager.environ, check=False, capture_output=True, timeout=60).returncode == 0
    told = [manager.told(), manager.told()]
    (main,) = [each for each in told if "MAINPID" in each]
    new = psutil.Process(int(main["MAINPID"]))
    assert process.wait(15) == 0
    assert chat(manager.port).status == 200
    new.terminate()
    assert manager.told() == {"STOPPING": "1"}
    wait_until(lambda: not new.is_running() or new.status() == psutil.STATUS_ZOMBIE, 10)
    process.communicate()


def test_a_given_socket_that_is_open_to_all_needs_keys(tmp_path: Path, demo: Demo) -> None:
    """Whoever opened it, the rule is the same: beyond loopback the mode must be written out."""
    file = tmp_path / "penstock.toml"
    file.write_text(config(demo.port))
    with socket.create_server(("0.0.0.0", 0)) as listener:
        argv = [sys.executable, "-c", Manager.START, str(listener.fileno()), PENSTOCK, "serve", "--config", str(file)]
        done = subprocess.run(
            argv, pass_fds=[listener.fileno()], capture_output=True, text=True, check=False, timeout=20
        )
    assert done.returncode == 1 and "auth" in done.stderr


def test_what_is_no_listening_socket(tmp_path: Path) -> None:
    with socket.socket() as no_listener:
        argv = [sys.executable, "-c", Manager.START, str(no_listener.fileno()), PENSTOCK, "serve"]
        done = subprocess.run(
            argv, pass_fds=[no_listener.fileno()], capture_output=True, text=True, check=False, timeout=20
        )
    assert done.returncode == 1
    assert done.stderr == "penstock: the socket that was given as descriptor 3 is not a listening TCP socket\n"


def test_sockets_for_another_process_are_left_alone(tmp_path: Path, demo: Demo) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(config(demo.port))
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "XDG_STATE_HOME": str(tmp_path)}
    with Process("serve", "--config", str(file), env=environ) as process:
        process.wait_for(r"penstock serves http://127.0.0.1:\d+/v1")
