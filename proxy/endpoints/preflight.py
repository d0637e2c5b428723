"""CORS (Fetch standard §3.2): the answer to a preflight, and the lines that let a page read an answer."""

from penstock.core.origin import OriginRules
from penstock.proxy.exchange import Exchange

Lines = tuple[tuple[bytes, bytes], ...]

EXPOSED = b"x-request-id, x-penstock-error, retry-after"
MAX_AGE_S = b"600"


def cors_lines(exchange: Exchange, rules: OriginRules) -> Lines:
    """Header lines for an answer to this request; none unless its Origin is one that CORS allows."""
    origin = exchange.head.origin
    if origin is None or not rules.cors_allowed(origin):
        return ()
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED),
        (b"vary", b"origin"),
    )


def is_preflight(exchange: Exchange) -> bool:
    return (
        exchange.method == "OPTIONS"
        and bool(exchange.cors)
        and _sent(exchange, b"access-control-request-method") != b""
    )


async def preflight(exchange: Exchange) -> None:
    """Allow what was asked for: who may call is decided by Origin, and what they may do by the routes."""
    lines = [
        *exchange.cors,
        (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
        (b"access-control-max-age", MAX_AGE_S),
        (b"x-request-id", exchange.request_id),
    ]
    if wanted := _sent(exchange, b"access-control-request-headers"):
        lines.append((b"access-control-allow-headers", wanted))
    await exchange.start(204, lines)
    await exchange.finish()


def _sent(exchange: Exchange, name: bytes) -> bytes:
    for key, value in exchange.scope["headers"]:
        if key == name:
            return bytes(value)
    return b""
