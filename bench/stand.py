"""The test stand: penstock and nginx side by side, before the same upstreams, on free loopback ports."""

import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.machine import nginx as nginx_program
from bench.processes import PENSTOCK, ROOT, START_S, Child, Failure
from bench.wire import ANSWER

CONFIG = ROOT / "config" / "bench.toml"

HEAD = """
daemon off;
worker_processes 1;
error_log stderr crit;
pid {folder}/nginx.pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""
UPSTREAM = """
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{answer}'; }} }}
}}
"""
PROXY = """
    upstream plain {{ server 127.0.0.1:{to_plain}; keepalive 128; keepalive_requests 1000000000; }}
    upstream streams {{ server 127.0.0.1:{to_streams}; keepalive 128; keepalive_requests 1000000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://plain; }} }}
    server {{ listen 127.0.0.1:{streams}; location / {{ proxy_pass http://streams; proxy_buffering off; }} }}
}}
"""


@dataclass(frozen=True)
class Way:
    """One way to the upstreams; child is None for the direct one."""

    name: str
    plain: int
    streams: int
    child: Child | None

    @property
    def server(self) -> Child:
        assert self.child is not None
        return self.child


@dataclass(frozen=True)
class Stand:
    """The three ways that are compared."""

    direct: Way
    penstock: Way
    nginx: Way


@contextlib.contextmanager
def stand(*, chunk_gap_s: float, chunks: int) -> Iterator[Stand]:
    """All servers, up and answering; gone at the end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        enter = stack.enter_context
        plain, proxy_plain, proxy_streams = free_ports(3)
        source = enter(Child(sys.executable, "-m", "bench.upstream", str(chunk_gap_s), str(chunks)))
        streams = int(source.wait_for(r"(\d+)\n")[1])
        enter(_nginx(folder / "upstream", UPSTREAM.format(port=plain, answer=ANSWER.decode())))
        ports = {"to_plain": plain, "to_streams": streams, "plain": proxy_plain, "streams": proxy_streams}
        nginx = enter(_nginx(folder / "proxy", PROXY.format(**ports)))
        for port in (plain, proxy_plain, proxy_streams):
            _wait_port(port)
        penstock = enter(_penstock(folder, CONFIG.read_text(), plain, streams))
        port = _port(penstock)
        yield Stand(
            Way("direct", plain, streams, None),
            Way("penstock", port, port, penstock),
            Way("nginx", proxy_plain, proxy_streams, nginx),
        )


@contextlib.contextmanager
def returner() -> Iterator[Way]:
    """An nginx that answers everything itself."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        (port,) = free_ports(1)
        with _nginx(Path(folder) / "returner", UPSTREAM.format(port=port, answer=ANSWER.decode())) as child:
            _wait_port(port)
            yield Way("nginx", port, port, child)


def _nginx(folder: Path, rest: str) -> Child:
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(HEAD.format(folder=folder) + rest)
    program = nginx_program()
    assert program is not None, "machine.check comes first"
    return Child(program, "-p", str(folder), "-c", str(file))


@contextlib.contextmanager
def variant(stand: Stand, name: str, text: str, env: dict[str, str]) -> Iterator[Way]:
    """Another penstock before the same upstreams: `text` is its whole configuration."""
    upstreams = stand.direct.plain, stand.direct.streams
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        _penstock(Path(folder), text, *upstreams, env) as child,
    ):
        port = _port(child)
        yield Way(name, port, port, child)


def _penstock(folder: Path, text: str, plain: int, streams: int, env: dict[str, str] | None = None) -> Child:
    """`penstock serve` with a configuration whose backends' ports are put in; its state is in `folder`."""
    for mark, port in (("127.0.0.1:1/", plain), ("127.0.0.1:2/", streams)):
        if mark not in text:
            raise Failure(f"the configuration must name the backend {mark}")
        text = text.replace(mark, f"127.0.0.1:{port}/")
    file = folder / "penstock.toml"
    file.write_text(text)
    return Child(PENSTOCK, "serve", "--config", str(file), env={"XDG_STATE_HOME": str(folder), **(env or {})})


def _port(penstock: Child) -> int:
    return int(penstock.wait_for(r"penstock serves \S+?:(\d+)/v1")[1])


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _wait_port(port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise Failure(f"nothing listens on 127.0.0.1:{port}")
