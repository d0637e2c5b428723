"""Many clients with the same request, on one loop of raw sockets: some leave, some read slowly, all keep what came."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

END = b"0\r\n\r\n"


class Member:
    """One client. `wire`: all it got. leaves_after: it goes once it has so many bytes; None = it stays to the end."""

    def __init__(self, port: int, request: bytes, leaves_after: int | None = None) -> None:
        self.wire = b""
        self.left = False
        self._port = port
        self._request = request
        self._leaves_after = leaves_after

    async def run(self) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._request)
            while not self.is_whole:
                data = await reader.read(1 << 16)
                if not data:
                    break
                self.wire += data
                if self._leaves_after is not None and len(self.wire) >= self._leaves_after:
                    self.left = True
                    break
        finally:
            writer.transport.abort()
        return self

    @property
    def head(self) -> bytes:
        return self.wire.partition(b"\r\n\r\n")[0]

    @property
    def is_whole(self) -> bool:
        return self.wire.endswith(END)

    @property
    def body(self) -> bytes:
        """What the chunks hold."""
        parts, rest = [], self.wire.partition(b"\r\n\r\n")[2]
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            parts.append(rest[:length])
            rest = rest[length + 2 :]
        return b"".join(parts)

    def line(self, name: bytes) -> bytes | None:
        """The value of a header line."""
        for line in self.head.split(b"\r\n"):
            if line.lower().startswith(name + b": "):
                return line.partition(b": ")[2]
        return None


async def crowd(members: list[Member], first_s: float = 0.0) -> list[Member]:
    """Run them all; the first one begins so long before the others."""
    tasks = [asyncio.ensure_future(members[0].run())]
    await asyncio.sleep(first_s)
    tasks += [asyncio.ensure_future(member.run()) for member in members[1:]]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
