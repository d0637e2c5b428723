"""Many keep-alive connections that ask one after the other, and what became of each request."""

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Told:
    """What the clients were told. answered: the request ids of whole answers. lost: no answer came."""

    statuses: Counter[int] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    retry_after: set[int] = field(default_factory=set)


class Hammer:
    """`connections` clients of a penstock; each request carries an id of its own.

    A connection that breaks is opened again: a worker may be killed at any time.
    """

    def __init__(
        self,
        port: int,
        key: str = "",
        body: dict[str, object] | None = None,
        prefix: str = "r",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._port = port
        self._tls = tls
        self._body = json.dumps(body or CHAT).encode()
        self._lines = f"Authorization: Bearer {key}\r\n" if key else ""
        self._ids = (f"{prefix}-{number}" for number in count())
        self.told = Told()
        self.over = False

    async def ask(self, connections: int, requests: int) -> Told:
        """`requests` requests over all connections, or until `over`."""
        numbers = iter(range(requests))
        await asyncio.gather(*(self._client(numbers) for _ in range(connections)))
        return self.told

    async def _client(self, numbers: Iterator[int]) -> None:
        streams = None
        for _ in numbers:
            if self.over:
                break
            name = next(self._ids)
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
                if not await self._one(name, *streams):
                    streams[1].close()
                    streams = None
            except (OSError, asyncio.IncompleteReadError, ValueError):
                self.told.lost.add(name)
                if streams is not None:
                    streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()

    async def _one(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once; whether the connection takes another request."""
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nX-Request-ID: {name}\r\n"
            f"Content-Type: application/json\r\n{self._lines}Content-Length: {len(self._body)}\r\n\r\n".encode()
            + self._body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if "content-length" in fields:
            await reader.readexactly(int(fields["content-length"]))
        else:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readuntil(b"\r\n")
        self.told.answered.add(name)
        self.told.statuses[int(head[0].split()[1])] += 1
        if "retry-after" in fields:
            self.told.retry_after.add(int(fields["retry-after"]))
        return fields.get("connection") != "close"
