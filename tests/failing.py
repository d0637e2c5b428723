"""Three backends of which one after the other fails, under a crowd of clients, and what each request came to."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from raw_client import JSON_TYPE, chat_body, request

from running import Demo, free_port

OPTIONS = ("--rate", "100", "--first-ms", "30")
CHAT = "/v1/chat/completions"
LINE_BYTES = 1 << 22
# Longer than any answer may take: who waits so long has been forgotten.
PATIENCE_S = 40
HEAD_START_S = 1.0


class Fleet:
    """Demo backends in processes of their own, each always on its port."""

    def __init__(self, count: int = 3, *options: str) -> None:
        self.ports = [free_port() for _ in range(count)]
        self._options = options or OPTIONS
        self._demos: list[Demo] = []

    def __enter__(self) -> Self:
        for port in self.ports:
            self._demos.append(self._start(port))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for demo in self._demos:
            demo.__exit__(None, None, None)

    def _start(self, port: int, *options: str) -> Demo:
        return Demo("--listen", f"127.0.0.1:{port}", *self._options, *options)

    def kill(self, number: int) -> None:
        """As the kernel does when memory runs out: its connections are reset, and new ones refused."""
        demo = self._demos[number]
        demo.process.kill()
        demo.process.wait()

    def restart(self, number: int, *options: str) -> None:
        """options: added to the usual ones."""
        self._demos[number].__exit__(None, None, None)
        self._demos[number] = self._start(self.ports[number], *options)

    def asked(self, number: int) -> int:
        """How many requests it has had since it was started."""
        return int(self._demos[number].stats()["requests_total"])

    def sections(self, more: str = "") -> str:
        """Of a configuration: the backends b0, b1… and the model m, which all of them have."""
        backends = [
            f'[backends.b{n}]\nkind = "openai"\nurl = "http://127.0.0.1:{port}/v1"\n{more}\n'
            for n, port in enumerate(self.ports)
        ]
        targets = ", ".join(f'{{ backend = "b{n}", model = "demo" }}' for n in range(len(self.ports)))
        return "".join(backends) + f"[models.m]\ntargets = [{targets}]\n"


@dataclass
class Tally:
    """What requests came to.

    whole: answered to the end. cut: streams that had begun, ended by our error event and without the end of their
    framing. failed: what began no answer of a backend. wrong: streams that ended as none may. The last two in words.
    """

    whole: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    """By X-Penstock-Chaos."""

    @property
    def total(self) -> int:
        return sum(self.whole.values()) + self.cut + len(self.failed) + len(self.wrong)

    def __str__(self) -> str:
        bad = f"{self.cut} cut, {len(self.failed)} failed, {len(self.wrong)} wrong"
        return f"{self.total} requests: {self.whole['plain']} plain and {self.whole['stream']} streams whole, {bad}"


class Crowd:
    """Clients that ask without a pause on connections they keep; every second one streams."""

    def __init__(self, port: int, *lines: str) -> None:
        self._port = port
        self._lines = lines
        self.tally = Tally()
        self.over = False

    async def ask(self, connections: int = 64) -> None:
        """Until `over` is set and every request has come to its end."""
        await asyncio.gather(*(self._client(number) for number in range(connections)))

    def _request(self, kind: str, number: int) -> bytes:
        """Answers of different lengths, so that the crowd does not march in step."""
        tokens = f"X-Demo-Tokens: {20 + number % 16 * 2}"
        return request("POST", CHAT, chat_body(stream=kind == "stream", model="m"), JSON_TYPE, tokens, *self._lines)

    async def _client(self, number: int) -> None:
        kind = "stream" if number % 2 else "plain"
        data = self._request(kind, number)
        streams = None
        while not self.over:
            if streams is None:
                streams = await asyncio.open_connection("127.0.0.1", self._port, limit=LINE_BYTES)
            goes_on = False
            try:
                async with asyncio.timeout(PATIENCE_S):
                    goes_on = await self._one(kind, data, *streams)
            except (OSError, asyncio.IncompleteReadError) as error:  # a timeout is an OSError
                self.tally.failed.append(f"{kind}: no answer ({error!r})")
            if not goes_on:
                streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()

    async def _one(self, kind: str, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether its connection may have another."""
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if "x-penstock-chaos" in fields:
            self.tally.met[fields["x-penstock-chaos"]] += 1
        if "content-length" in fields:
            body, clean = await reader.readexactly(int(fields["content-length"])), True
        else:
            body, clean = await read_chunks(reader)
        if status != 200:
            self.tally.failed.append(f"{kind}: {status} {body[:300]!r}")
        elif kind == "plain":
            self._plain(body, clean)
        else:
            self._stream(body, clean)
        return clean and fields.get("connection") != "close"

    def _plain(self, body: bytes, clean: bool) -> None:
        if clean and json.loads(body)["choices"][0]["finish_reason"]:
            self.tally.whole["plain"] += 1
        else:
            self.tally.failed.append(f"plain: {clean=} {body[-300:]!r}")

    def _stream(self, body: bytes, clean: bool) -> None:
        events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
        if clean and events and events[-1] == "[DONE]":
            self.tally.whole["stream"] += 1
        elif not events or "error" not in json.loads(events[-1]):
            self.tally.wrong.append(f"stream without an error event: {clean=} {body[-300:]!r}")
        elif clean:
            self.tally.wrong.append(f"stream with a clean end behind its error event: {body[-300:]!r}")
        elif len(events) == 1:
            self.tally.failed.append(f"stream that had not begun: {body!r}")
        else:
            self.tally.cut += 1


async def read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """A chunked body as far as it came, and whether it ended as it should."""
    parts = []
    try:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readuntil(b"\r\n")
    except (OSError, asyncio.IncompleteReadError):
        return b"".join(parts), False
    return b"".join(parts), True


async def under_load(crowd: Crowd, trouble: Coroutine[Any, Any, None], connections: int = 64) -> Tally:
    """A crowd that asks as long as the trouble lasts; its tally. It begins first, for retries have to be earned."""
    asking = asyncio.get_running_loop().create_task(crowd.ask(connections))
    try:
        await asyncio.sleep(HEAD_START_S)
        await trouble
    finally:
        crowd.over = True
        await asking
    return crowd.tally


async def every_second(seconds: int, what: Callable[[int], Awaitable[None]]) -> None:
    """`what(0)` at once, `what(1)` after a second and so on; each has its second."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(seconds):
        await what(number)
        await asyncio.sleep(max(0.0, began + number + 1 - loop.time()))
