"""The control socket of a running server, state_dir/control.sock: a line of JSON in, a line of JSON out.

For whoever may write to the state folder: its owner. `penstock reload`, `upgrade` and `status` are its clients.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from penstock.proxy.poller import Poller

NAME = "control.sock"
LONGEST_LINE_BYTES = 4096
# sun_path of unix(7), with the end mark.
LONGEST_PATH_BYTES = 108

Answer = Callable[[dict[str, Any]], None]
Handle = Callable[[dict[str, Any], Answer], None]
"""Takes a request and what to call with its answer, now or later."""


class Control:
    """The server's side. Raises OSError if the socket cannot be made; an old one in its place is replaced."""

    wants_write = False

    def __init__(self, folder: Path, poller: Poller, handle: Handle) -> None:
        self._path = folder / NAME
        self._poller = poller
        self._handle = handle
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        draft = folder / f"{NAME}.{os.getpid()}"
        try:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            with address_of(draft) as address:
                before = os.umask(0o177)
                try:
                    self._socket.bind(address)
                finally:
                    os.umask(before)
            self._socket.listen(16)
            self._socket.setblocking(False)
            self._inode = draft.stat().st_ino
            draft.rename(self._path)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def readable(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        self._poller.add(Caller(connection, self._poller, self._handle))

    def writable(self) -> None:
        pass

    def close(self) -> None:
        self._socket.close()

    def unlink(self) -> None:
        """Leave nothing behind, unless another server has put its own socket there."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


class Caller:
    """One client of it: asks once, is answered once."""

    def __init__(self, connection: socket.socket, poller: Poller, handle: Handle) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._poller = poller
        self._handle = handle
        self._in = b""
        self._out = b""
        self._asked = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def readable(self) -> None:
        try:
            data = self._socket.recv(LONGEST_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._in += data
        if not data or len(self._in) > LONGEST_LINE_BYTES:
            self._poller.remove(self)
        elif not self._asked and b"\n" in self._in:
            self._asked = True
            try:
                request = msgspec.json.decode(self._in, type=dict[str, Any])
            except msgspec.MsgspecError:
                self.answer({"ok": False, "lines": ["the request is not a line of JSON"]})
            else:
                self._handle(request, self.answer)

    def answer(self, value: dict[str, Any]) -> None:
        """Nothing happens if the client has left."""
        self._out = msgspec.json.encode(value) + b"\n"
        self.writable()

    def writable(self) -> None:
        if self.fileno() < 0:
            return
        try:
            while self._out:
                self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self._out = b""
        self._poller.remove(self)

    def close(self) -> None:
        self._socket.close()


def ask(folder: Path, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """A running server's answer. Raises OSError where none answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, address_of(folder / NAME) as address:
        sock.settimeout(timeout_s)
        sock.connect(address)
        sock.sendall(msgspec.json.encode(request) + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            data = sock.recv(65_536)
            if not data:
                raise ConnectionError("it ended before it answered")
            answer += data
    return msgspec.json.decode(answer, type=dict[str, Any])


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """The path as the kernel takes it: a long one by way of its folder's descriptor."""
    if len(os.fsencode(path)) < LONGEST_PATH_BYTES or sys.platform != "linux":
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
