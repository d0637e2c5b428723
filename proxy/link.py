"""Messages between two processes over a stream socket: a word and some bytes, in whole frames."""

import socket
import struct
from collections.abc import Callable
from typing import NamedTuple, Self

_HEAD = struct.Struct("!BI")
# Settings with 10,000 keys are some 2 MB.
_READ_BYTES = 1 << 20


class Message(NamedTuple):
    """word: what it is about, at most 255 ASCII characters."""

    word: str
    payload: bytes = b""

    @property
    def text(self) -> str:
        return self.payload.decode(errors="replace")


class Link:
    """One end of it, never blocking. on_message is called for each message, on_end when the other end is closed."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._in = bytearray()
        self._out = bytearray()
        self.on_message: Callable[[Message], None] = lambda message: None
        self.on_end: Callable[[], None] = lambda: None

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def send(self, word: str, payload: bytes | str = b"") -> None:
        """Say something; to an end that is closed it says nothing."""
        data = payload.encode() if isinstance(payload, str) else payload
        name = word.encode()
        self._out += _HEAD.pack(len(name), len(data)) + name + data
        self.writable()

    def writable(self) -> None:
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()  # `readable` tells that the other end is closed

    def finish(self) -> None:
        """Wait until everything is sent, before this process ends."""
        self._socket.setblocking(True)
        self.writable()

    def read_all(self) -> None:
        """Take everything the other end, which is closed, has said."""
        while self.fileno() >= 0 and self.readable():
            pass

    def readable(self) -> bool:
        """Take what has come; False if nothing had, or nothing more will."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._in += data
        while (message := self._next()) is not None:
            self.on_message(message)
        if not data:
            self.on_end()
        return bool(data)

    def close(self) -> None:
        self._socket.close()

    def detach(self) -> int:
        """The descriptor, which is the caller's from now on."""
        return self._socket.detach()

    def _next(self) -> Message | None:
        if len(self._in) < _HEAD.size:
            return None
        name_bytes, data_bytes = _HEAD.unpack_from(self._in)
        begin = _HEAD.size + name_bytes
        end = begin + data_bytes
        if len(self._in) < end:
            return None
        message = Message(self._in[_HEAD.size : begin].decode("ascii", "replace"), bytes(self._in[begin:end]))
        del self._in[:end]
        return message
