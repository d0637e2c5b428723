"""A backend whose behaviour a test changes while it runs, and configurations with several backends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from raw_client import JSON_TYPE, Answer, RawClient, chat_body, request

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
WHOLE = json.dumps({"id": "x", "object": "chat.completion", "model": "demo", "choices": [CHOICE]}).encode()


class Puppet(ThreadingHTTPServer):
    """status, delay_s: of the answers from now on. seen: when each request came. busiest: the most at one time."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = int(self.server_address[1])
        self.status = 200
        self.delay_s = 0.0
        self.slow_once_s = 0.0
        self.seen: list[float] = []
        self.left = 0
        self.active = self.busiest = 0
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left."""
        with self.lock:
            self.left += 1


class _Handler(BaseHTTPRequestHandler):
    server: Puppet
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._say(200, b'{"data":[{"id":"demo","object":"model"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        server = self.server
        with server.lock:
            server.seen.append(time.monotonic())
            server.active += 1
            server.busiest = max(server.busiest, server.active)
            status, delay_s = server.status, server.slow_once_s or server.delay_s
            server.slow_once_s = 0.0
        if delay_s:
            time.sleep(delay_s)
        with server.lock:
            server.active -= 1
        self._say(status, WHOLE if status == 200 else b'{"error":{"message":"on purpose"}}')

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Nowhere."""


def several(
    ports: Mapping[str, int],
    *,
    targets: Iterable[str] | None = None,
    backend: str = "",
    model: str = "",
    more: str = "",
    workers: int = 1,
) -> str:
    """A configuration with a backend for each port and a model "demo" over all of them, or over `targets`.

    backend: lines of every backend. model: lines of the model. more: further tables.
    """
    names = json.dumps(list(targets if targets is not None else ports))
    tables = "".join(
        f'[backends.{name}]\nkind = "openai"\nurl = "http://127.0.0.1:{port}/v1"\n{backend}\n'
        for name, port in ports.items()
    )
    return (
        f'[server]\nlisten = "127.0.0.1:0"\nworkers = {workers}\n'
        f"{tables}[models.demo]\ntargets = {names}\n{model}\n{more}\n"
    )


def ask_many(port: int, count: int, clients: int, *lines: str, stream: bool = False, **fields: Any) -> list[Answer]:
    """So many chat requests over so many connections at once, each connection one after the other."""
    data = request("POST", "/v1/chat/completions", chat_body(stream=stream, **fields), JSON_TYPE, *lines)
    left = iter(range(count))
    lock = threading.Lock()

    def work() -> list[Answer]:
        answers = []
        with RawClient(port, timeout_s=20) as client:
            while True:
                with lock:
                    if next(left, None) is None:
                        return answers
                answers.append(client.send(data).answer())

    with ThreadPoolExecutor(clients) as pool:
        return [answer for worker in [pool.submit(work) for _ in range(clients)] for answer in worker.result()]
