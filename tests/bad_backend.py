"""Backends that a test plays with raw bytes, for a penstock in another process: each connection gets a thread."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

PATIENCE_S = 10.0
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "good"}}],
}
BODY = json.dumps(ANSWER).encode()
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = b"%bContent-Length: %d\r\n\r\n%b" % (JSON_HEAD, len(BODY), BODY)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
LAST_EVENTS = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Peer:
    """The backend's end of one connection; a penstock that has closed it ends the scene."""

    def __init__(self, sock: socket.socket, backend: BadBackend) -> None:
        self.socket = sock
        self.backend = backend
        self._buffer = b""

    def request(self) -> bytes:
        """A request's head and body, as framed by its Content-Length. Raises ConnectionError at the end."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
        while len(rest) < length:
            self._more()
            rest = self._buffer.partition(b"\r\n\r\n")[2]
        request, self._buffer = head + b"\r\n\r\n" + rest[:length], rest[length:]
        self.backend.requests.append(request)
        return request

    def _more(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError
        self._buffer += data

    def send(self, data: bytes) -> None:
        """Send, and count what the other side has taken (or its socket's buffers have)."""
        view = memoryview(data)
        while view:
            taken = self.socket.send(view[: 1 << 18])
            self.backend.sent += taken
            view = view[taken:]

    def dribble(self, data: bytes, every_s: float) -> None:
        """One byte at a time, until the other side has had enough."""
        for byte in data:
            self.send(bytes([byte]))
            if every_s:
                self.pause(every_s)

    def pause(self, seconds: float) -> None:
        """Silence, which ends when the other side closes."""
        self.socket.settimeout(seconds)
        try:
            if not self.socket.recv(1 << 18):
                raise ConnectionError
        except TimeoutError:
            pass
        finally:
            self.socket.settimeout(PATIENCE_S)

    def wait(self) -> None:
        """Until the other side closes."""
        while self.socket.recv(1 << 18):
            pass

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Scene = Callable[[Peer], None]


def good(peer: Peer) -> None:
    """A backend as it should be."""
    while True:
        peer.request()
        peer.send(GOOD)


class BadBackend:
    """A listener and what happens on its connections. tls: a context = TLS first, for each connection as it is then."""

    def __init__(self, host: str, port: int) -> None:
        self.listener = socket.create_server((host, port))
        self.port = int(self.listener.getsockname()[1])
        self.scene: Scene = good
        self.tls: ssl.SSLContext | None = None
        self.requests: list[bytes] = []
        self.sent = 0
        self.connections = 0
        self.open: set[socket.socket] = set()

    def serve(self, sock: socket.socket) -> None:
        """Play the scene on a new connection, to its end."""
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self.open.add(sock)
        talk = sock
        try:
            if self.tls is not None:
                talk = self.tls.wrap_socket(sock, server_side=True)
            self.scene(Peer(talk, self))
        except (OSError, ValueError):
            pass  # it has been closed, by whomever
        finally:
            self.open.discard(sock)
            talk.close()

    def close(self) -> None:
        """No more connections, and the end of those that are there."""
        self.listener.close()
        for sock in tuple(self.open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class Stage:
    """Many backends behind one thread that accepts."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._backends: list[BadBackend] = []
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Stage:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._wake.close()
        self._thread.join()
        for backend in self._backends:
            backend.close()
        self._woken.close()
        self._selector.close()

    def backend(self, host: str = "127.0.0.1", port: int = 0) -> BadBackend:
        made = BadBackend(host, port)
        self._backends.append(made)
        self._selector.register(made.listener, selectors.EVENT_READ, made)
        return made

    def end(self, backend: BadBackend) -> None:
        """It is switched off."""
        self._selector.unregister(backend.listener)
        backend.close()

    def _accept(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with contextlib.suppress(OSError):
                    sock = key.data.listener.accept()[0]
                    threading.Thread(target=key.data.serve, args=(sock,), daemon=True).start()


def chunks(*parts: bytes) -> bytes:
    """Chunks of a body without its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def megabytes(count: int, block: bytes) -> Iterator[bytes]:
    """So much of a repeated block, in pieces of a megabyte."""
    piece = block * ((1 << 20) // len(block))
    for _ in range(count):
        yield piece
