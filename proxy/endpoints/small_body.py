"""The body of a call to penstock itself: small JSON, read whole, each mistake named."""

from typing import TypeVar

from msgspec import Struct

from penstock.core.errors import BodyTooLarge, WrongContentType
from penstock.core.key_requests import read_body
from penstock.ext import MEDIA_JSON
from penstock.proxy.exchange import Exchange

T = TypeVar("T", bound=Struct)

MOST_BYTES = 65_536


async def read_small(exchange: Exchange, kind: type[T], most_bytes: int = MOST_BYTES) -> T:
    """Raises WrongContentType, BodyTooLarge, InvalidJson, MissingField, InvalidRequest, ClientLeft."""
    return read_body(await small_json(exchange, most_bytes), kind)


async def small_json(exchange: Exchange, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of it. Raises WrongContentType, BodyTooLarge, ClientLeft."""
    if exchange.head.media != MEDIA_JSON:
        raise WrongContentType("Content-Type must be application/json", param="Content-Type")
    _bound(exchange.head.content_length or 0, most_bytes)
    body = b""
    while exchange.body_open:
        body += exchange.part(await exchange.message())
        _bound(len(body), most_bytes)
    return body


def _bound(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise BodyTooLarge(f"the body is over {most_bytes} bytes")
