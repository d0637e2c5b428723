"""Small requests of our own to a backend (its model list, its health), over the same pool as everybody's."""

import asyncio
from typing import Any

import msgspec

from penstock.core.errors import BackendError, BadAnswer
from penstock.core.plan import Upstream
from penstock.proxy.upstream.pool import Pool

# A model list is some hundred bytes a model; what is larger is not one.
MAX_BYTES = 8_388_608


async def fetch(upstream: Upstream, pool: Pool, path: bytes, *, timeout_s: float) -> tuple[int, bytes]:
    """GET a path of ours (/v1/..., /api/...) from a backend: status and body. Raises BackendError, NoHealthyTarget."""
    request = b"GET %b HTTP/1.1\r\n%baccept: application/json\r\n\r\n" % (upstream.path(path), upstream.lines)
    connection = pool.take() or await pool.connect()
    try:
        connection.deadline = connection.total_deadline = asyncio.get_running_loop().time() + timeout_s
        connection.send(request)
        while (head := connection.response) is None:
            await connection.news()
        parts: list[bytes] = []
        size = 0
        while not connection.complete:
            parts.append(await connection.read())
            size += len(parts[-1])
            if size > MAX_BYTES:
                raise BadAnswer(f"the backend's answer is over {MAX_BYTES} bytes", phase="body")
        return head.status, b"".join(parts)
    finally:
        pool.release(connection)


async def fetch_json(upstream: Upstream, pool: Pool, path: bytes, *, timeout_s: float) -> Any:
    """As `fetch`, for a 200 with a JSON body; once more if a pooled connection turns out to be stale."""
    try:
        status, body = await fetch(upstream, pool, path, timeout_s=timeout_s)
    except BackendError as error:
        if not error.stale:
            raise
        status, body = await fetch(upstream, pool, path, timeout_s=timeout_s)
    if status != 200:
        raise BadAnswer(f"the backend answered {status} on {path.decode()}", phase="body")
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise BadAnswer(f"the backend's answer on {path.decode()} is not JSON: {error}", phase="body") from None
