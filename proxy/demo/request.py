"""One request as the endpoints see it, and what is kept of its body while it streams in."""

from __future__ import annotations

import hashlib
from enum import Enum, auto
from typing import TypeVar

import msgspec

from penstock.proxy.demo.answer import Refused
from penstock.proxy.demo.http import Head
from penstock.proxy.demo.multipart import KEPT_BYTES, Form
from penstock.proxy.demo.options import Control

MAX_JSON_BYTES = 16 * 1024 * 1024

T = TypeVar("T")


class Keep(Enum):
    """What an endpoint needs of a body."""

    JSON = auto()
    """All of it, up to MAX_JSON_BYTES."""
    HASH = auto()
    """Its SHA-256 and its first 64 KB."""
    FORM = auto()
    """The parts of a form, each hashed and its first 64 KB kept."""


class Body:
    def __init__(self, keep: Keep, content_type: str) -> None:
        self.size = 0
        self.form = Form(content_type) if keep is Keep.FORM else None
        self._sha256 = hashlib.sha256() if keep is Keep.HASH else None
        self._limit = MAX_JSON_BYTES if keep is Keep.JSON else KEPT_BYTES
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        if self.form is not None:
            self.form.feed(data)
            return
        if self._sha256 is not None:
            self._sha256.update(data)
        elif self.size > self._limit:
            raise Refused(413, f"the body is larger than {self._limit} bytes")
        if self.size <= self._limit:
            self._pieces.append(data)

    @property
    def sha256(self) -> str:
        return "" if self._sha256 is None else self._sha256.hexdigest()

    @property
    def is_whole(self) -> bool:
        return self.size <= self._limit

    def bytes(self) -> bytes:
        """All of the body where it `is_whole`."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


class Request:
    """A complete request."""

    __slots__ = ("body", "control", "head", "path")

    def __init__(self, head: Head, path: str, control: Control, body: Body) -> None:
        self.head = head
        self.path = path
        self.control = control
        self.body = body

    def decode(self, shape: type[T]) -> T:
        """The JSON body; Refused where it is not JSON or misses a field."""
        try:
            return msgspec.json.decode(self.body.bytes(), type=shape)
        except msgspec.ValidationError as error:
            raise Refused(400, f"Invalid request: {error}", param=_field(str(error))) from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused(400, f"We could not parse the JSON body of your request: {error}") from None

    def form(self) -> Form:
        form = self.body.form
        if form is None or not form.is_complete:
            raise Refused(400, "Could not parse multipart form")
        return form

    def finish(self, reason: str) -> str | None:
        """The finish reason to give: none under the fault that leaves it out."""
        return None if self.control.has_fault("nofinish") else reason


def _field(message: str) -> str | None:
    """The field msgspec's message is about: "... missing required field `x`", "... - at `$.x[0].y`"."""
    quoted = message.split("`")[1::2]
    return quoted[-1].removeprefix("$.") if quoted else None
