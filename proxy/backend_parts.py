"""What a worker holds for one backend: its connections and, for a built-in demo backend, the server of it.

After a reload a backend that is defined as before keeps all of it, so that no connection is opened anew.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from penstock.core.address import Url
from penstock.core.config import Backend, Timeout
from penstock.core.plan import Timeouts
from penstock.proxy import demo
from penstock.proxy.settings import Settings
from penstock.proxy.upstream.pool import Pool, resolve


@dataclass(frozen=True, eq=False)
class BackendParts:
    """definition: equal for two backends that can share all of this."""

    definition: tuple[object, ...] = field(repr=False)
    url: Url
    pool: Pool
    server: demo.Server | None = None
    """Of a demo backend."""

    def close(self) -> None:
        self.pool.close()
        if self.server is not None:
            self.server.close()


async def backend_parts(
    settings: Settings, name: str, backend: Backend, previous: Mapping[str, BackendParts]
) -> BackendParts:
    """Those of before if they still fit, else new ones. Raises OSError, ssl.SSLError."""
    definition = _definition(settings, name, backend)
    before = previous.get(name)
    if before is not None and before.definition == definition:
        return before
    if backend.url is not None:
        return BackendParts(definition, backend.url, pool(name, backend, backend.url, await _tls(backend)))
    server = await demo.start(host="127.0.0.1", port=0, options=demo.DemoOptions())
    url = Url.parse(f"http://127.0.0.1:{server.port}/v1")
    return BackendParts(definition, url, pool(name, backend, url, None), server)


def _definition(settings: Settings, name: str, backend: Backend) -> tuple[object, ...]:
    """All that a pool's connections depend on, the contents of files included."""
    authorities = Path(backend.ca_file).read_bytes() if backend.ca_file else b""
    secret = settings.secrets.get(name, b"")
    return backend.kind, backend.url, backend.timeout, backend.pool, secret, authorities


def pool(name: str, backend: Backend, url: Url, tls: ssl.SSLContext | None) -> Pool:
    return Pool(
        name,
        url.host,
        url.port,
        tls=tls,
        connect_s=timeouts(backend.timeout).connect_s,
        max_connections=backend.pool.max_connections,
        idle_s=backend.pool.idle_s,
        resolve=resolve,
        silence_s=timeouts(backend.timeout).idle_s,
    )


def timeouts(timeout: Timeout) -> Timeouts:
    """Seconds, with 0 (no limit) as infinity."""
    return Timeouts(
        connect_s=timeout.connect_s or inf,
        send_s=timeout.send_s or inf,
        first_byte_s=timeout.first_byte_s or inf,
        idle_s=timeout.idle_s or inf,
        total_s=timeout.total_s or inf,
    )


async def _tls(backend: Backend) -> ssl.SSLContext | None:
    """The system's authorities and the backend's own; names are always verified. In a thread: it takes some 10 ms."""
    if backend.url is None or backend.url.scheme != "https":
        return None
    return await asyncio.to_thread(_trusting, backend.ca_file)


def _trusting(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
