"""Telling systemd how the server is (sd_notify(3)): one datagram for each change, and nothing where nobody listens."""

import socket
from collections.abc import Callable


class Notify:
    """address: NOTIFY_SOCKET; "" = nobody is told. monotonic_ns: of CLOCK_MONOTONIC."""

    def __init__(self, address: str, monotonic_ns: Callable[[], int]) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._monotonic_ns = monotonic_ns

    def ready(self, status: str) -> None:
        """It serves."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """It reads its configuration again; `ready` or `heir_ready` ends that."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def heir_ready(self, pid: int) -> None:
        """Another process is the server now; the last word of this one."""
        self._tell(f"MAINPID={pid}", "READY=1")
        self._address = ""

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass  # nobody listens any more, and nothing here depends on it
