"""Real penstock processes for tests: `serve` and `demo-backend` on free loopback ports, stopped at the end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

import psutil

from penstock.proxy.control import NAME as CONTROL
from penstock.proxy.control import ask

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
START_S = 20.0
# Of a backend whose connections are counted: no health check makes one.
UNASKED = "health = { interval_s = 0 }\n"


class Process:
    """A child process whose output is kept for the test's report."""

    def __init__(self, *argv: str, env: dict[str, str] | None = None) -> None:
        self.output = Path(tempfile.mkstemp(prefix="penstock-test-", suffix=".log")[1])
        with self.output.open("wb") as sink:
            self.process = subprocess.Popen(
                [PENSTOCK, *argv], stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None:
            print(f"--- {self.process.args}\n{self.text()[-4000:]}")
        self.output.unlink()

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines written so far."""
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 10.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    child.kill()
                self.process.kill()
        return self.process.wait()

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """The first match of `pattern` in the output."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if found := re.search(pattern, self.text()):
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"{self.process.args} did not print {pattern!r}:\n{self.text()[-4000:]}")


class Demo(Process):
    """`penstock demo-backend` with its statistics."""

    def __init__(self, *options: str) -> None:
        super().__init__("demo-backend", "--listen", "127.0.0.1:0", "--print-port", *options)
        self.port = int(self.wait_for(r"(\d+)\n")[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        with urlopen(f"{self.url}/demo/stats", timeout=5) as answer:
            return dict(json.load(answer))


class Penstock(Process):
    """`penstock serve` with a configuration text; the listener's port is free for anyone until it starts."""

    def __init__(self, config: str, *options: str, env: dict[str, str] | None = None, scheme: str = "http") -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-test-")
        self.file = file = Path(self.folder.name) / "penstock.toml"
        file.write_text(config)
        self.config = config
        self.state_dir = Path(self.folder.name) / "penstock"
        state = {"XDG_STATE_HOME": self.folder.name}
        super().__init__("serve", "--config", str(file), *options, env={**state, **(env or {})})
        found = self.wait_for(r"penstock serves (https?)://\S+?:(\d+)/v1")
        self.port = int(found[2])
        self.url = f"{found[1]}://127.0.0.1:{self.port}"

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self.folder.cleanup()

    def keeper(self) -> int | None:
        """The process that stores usage rows; None where there is none."""
        if 'url = "none"' in self.config:
            return None
        until = time.monotonic() + START_S
        lock = self.state_dir / "keeper.lock"
        while time.monotonic() < until:
            children = {child.pid for child in psutil.Process(self.process.pid).children()}
            if lock.exists() and (text := lock.read_text()) and int(text) in children:
                return int(text)
            time.sleep(0.01)
        raise TimeoutError(f"no keeper: {self.text()[-2000:]}")

    def rewrite(self, config: str) -> None:
        """Another configuration, put in place in one step, as editors and deployments do."""
        draft = self.file.with_suffix(".new")
        draft.write_text(config)
        draft.replace(self.file)
        self.config = config

    def control(self, what: str) -> dict[str, Any]:
        """What the server answers on its control socket."""
        return ask(self.state_dir, {"do": what}, 60.0)

    def up(self) -> None:
        """Wait until every worker is ready, for the control socket is there then."""
        until = time.monotonic() + START_S
        while not (self.state_dir / CONTROL).exists():
            assert self.process.poll() is None and time.monotonic() < until, self.text()[-2000:]
            time.sleep(0.01)

    def workers(self) -> list[psutil.Process]:
        """The worker processes, at least one, the keeper of the store not among them."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            keeper = self.keeper()
            found = [child for child in psutil.Process(self.process.pid).children() if child.pid != keeper]
            if found:
                return found
            time.sleep(0.01)
        raise TimeoutError(f"no worker: {self.text()[-2000:]}")


# Most tests break a backend that others use too: its breaker stays out of their way.
NEVER_OPENS = "[breaker]\nfailures = 1_000_000\nmin_requests = 1_000_000\n"


def config(demo_port: int, *, server: str = "", backend: str = "", more: str = "", breaker: str = NEVER_OPENS) -> str:
    """A configuration with one openai backend "demo" on a loopback port, and port 0 for ourselves."""
    return f"""
[server]
listen = "127.0.0.1:0"
workers = 1
default_backend = "demo"
{server}
[backends.demo]
kind = "openai"
url = "http://127.0.0.1:{demo_port}/v1"
discover = true
{backend}
{breaker}
{more}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
