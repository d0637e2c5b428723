"""The supervisor: binding, what it says, which workers it replaces, and how it stops; real processes throughout."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from raw_client import JSON_TYPE, RawClient, ask, chat_body, request, wait_until

from penstock.core.address import Address
from penstock.proxy.processors import cores
from penstock.proxy.serve import bind
from running import PENSTOCK, Demo, Penstock, Process, config, free_port

TRACE = "Traceback"


def test_bind_takes_any_free_port() -> None:
    with bind(Address("127.0.0.1", 0)) as listener:
        assert listener.getsockname()[1] > 0
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_bind_takes_ipv6() -> None:
    with bind(Address("::1", 0)) as listener:
        assert listener.family == socket.AF_INET6


def test_bind_takes_no_port_twice() -> None:
    with bind(Address("127.0.0.1", 0)) as listener, pytest.raises(OSError, match="in use"):
        bind(Address("127.0.0.1", listener.getsockname()[1]))


def test_bind_right_after_a_listener_with_connections() -> None:
    """A restart must not wait for TIME_WAIT."""
    with bind(Address("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
        client = socket.create_connection(where)
        accepted, _ = listener.accept()
        accepted.close()
        client.close()
    bind(Address("127.0.0.1", where[1])).close()


def test_cores_are_those_this_process_may_use() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from penstock.proxy.processors import cores; print(cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_port_in_use_is_said_and_the_exit_code_is_1() -> None:
    with bind(Address("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [PENSTOCK, "serve", "--listen", f"127.0.0.1:{port}"],
            capture_output=True,
            timeout=20,
            check=False,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"penstock: cannot listen on 127.0.0.1:{port}: Address already in use; --listen takes another address\n"
    )
    assert done.stdout == ""


def test_a_name_that_is_not_here(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('[server]\nlisten = "nowhere.invalid:80"\n[auth]\nmode = "none"\n[backends.demo]\nkind = "demo"\n')
    done = subprocess.run(
        [PENSTOCK, "serve", "--config", str(file)], capture_output=True, timeout=20, check=False, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("penstock: cannot listen on nowhere.invalid:80: ")
    assert TRACE not in done.stderr


def test_a_worker_that_cannot_start_ends_the_server_with_its_reason(tmp_path: Path) -> None:
    """A log file in a folder that is gone after the check: every start fails, so nobody must try for ever."""
    listen = f"127.0.0.1:{free_port()}"
    text = config(9).replace("127.0.0.1:0", listen) + f'[log]\nfile = "{tmp_path}"\n'
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    with Process("serve", "--config", str(file)) as process:
        wait_until(lambda: process.process.poll() is not None, 15)
        assert process.process.returncode == 1
        assert "directory" in process.text()


def test_a_damaged_secret_of_the_keys_is_said_in_words(tmp_path: Path) -> None:
    file, state = tmp_path / "penstock.toml", tmp_path / "state"
    state.mkdir()
    (state / "hash.key").write_text("short")
    file.write_text(config(9, server=f'state_dir = "{state}"'))
    done = subprocess.run(
        [PENSTOCK, "serve", "--config", str(file)], capture_output=True, timeout=20, check=False, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"{state}/hash.key: too short for a secret: put the right one back, from a backup\n"


def test_without_a_usable_state_folder_it_serves_what_needs_none(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")
    text = config(9, server=f'state_dir = "{tmp_path}/taken"', more='[store]\nurl = "none"\n')
    with Penstock(text) as server:
        server.wait_for("no control socket in")
        _connected(server.port)


def test_workers_are_as_many_as_asked_for() -> None:
    with Penstock(config(free_port(), backend="").replace("workers = 1", "workers = 3")) as server:
        wait_until(lambda: len(server.workers()) == 3)


def test_the_parent_has_one_thread_and_no_connections() -> None:
    with Penstock(config(free_port())) as server:
        parent = psutil.Process(server.process.pid)
        assert parent.num_threads() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_quietly(number: signal.Signals) -> None:
    with Penstock(config(free_port())) as server:
        workers = server.workers()
        _connected(server.port)
        assert server.stop(number) == 0
        assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
        assert TRACE not in server.text()
        assert "died" not in server.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_quietly_while_it_starts(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group, also to workers that are not ready yet."""
    file = tmp_path / "penstock.toml"
    file.write_text(config(free_port()))
    for delay in range(5):
        process = subprocess.Popen(
            [PENSTOCK, "serve", "--config", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
            start_new_session=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        until = delay * 0.02
        wait_until(lambda p=process, u=until: _age_of_first_worker(p.pid) >= u)  # type: ignore[misc]
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=15)
        assert TRACE not in output, output
        assert process.returncode == 0


def _age_of_first_worker(parent: int) -> float:
    workers = psutil.Process(parent).children()
    return time.time() - workers[0].create_time() if workers else -1.0


def _connected(port: int) -> None:
    """Wait until a worker answers."""
    assert ask(port, request("GET", "/health/live")).status == 200


def test_a_second_signal_ends_a_drain_at_once() -> None:
    with Demo() as demo, Penstock(config(demo.port, server="drain_s = 0")) as server, RawClient(server.port) as client:
        body = chat_body(stream=True)
        client.send(request("POST", "/v1/chat/completions", body, JSON_TYPE, "X-Demo-Tokens: 100000"))
        client.until(b"data: ")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not _listens(server.port))
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert client.ended()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
