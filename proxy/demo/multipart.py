"""multipart/form-data as it streams in (RFC 7578): each part hashed, only the start of its value kept."""

from __future__ import annotations

import hashlib
import re

from penstock.proxy.demo.http import BadRequest

KEPT_BYTES = 64 * 1024
_MAX_PART_HEAD_BYTES = 16 * 1024
_MAX_PARTS = 1000
_PARAMETER = re.compile(r';\s*([\w*-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))')


def parameters(value: str) -> dict[str, str]:
    """The parameters of a header value, by lower-case name."""
    found = _PARAMETER.findall(value)
    return {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain for name, quoted, plain in found}


class Part:
    """One field or file of a form."""

    def __init__(self, name: str, filename: str | None) -> None:
        self.name = name
        self.filename = filename
        self.size = 0
        self.value = b""
        """The first KEPT_BYTES of it."""
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def is_whole(self) -> bool:
        return self.size == len(self.value)

    def feed(self, data: bytes) -> None:
        self._sha256.update(data)
        if len(self.value) < KEPT_BYTES:
            self.value += data[: KEPT_BYTES - len(self.value)]
        self.size += len(data)


class Form:
    """Fed with the body in any pieces; `parts` is complete once `is_complete`."""

    def __init__(self, content_type: str) -> None:
        boundary = parameters(content_type).get("boundary", "")
        if not boundary or not content_type.lower().startswith("multipart/form-data"):
            raise BadRequest("expected multipart/form-data with a boundary")
        self.parts: list[Part] = []
        self.is_complete = False
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._buffer = b"\r\n"  # so that the first delimiter looks like the others
        self._part: Part | None = None

    def get(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)

    def text(self, name: str, default: str = "") -> str:
        part = self.get(name)
        return default if part is None else part.value.decode("utf-8", "replace")

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while not self.is_complete and self._advance():
            pass

    def _advance(self) -> bool:
        """One delimiter further; False when more input is needed."""
        at = self._buffer.find(self._delimiter)
        if at < 0:
            self._give(max(0, len(self._buffer) - len(self._delimiter) + 1))
            return False
        self._give(at)
        behind = len(self._delimiter)
        mark = self._buffer[behind : behind + 2]
        if mark == b"--":
            self.is_complete = True
            return True
        end = self._buffer.find(b"\r\n\r\n", behind)
        if end < 0:
            if len(self._buffer) > _MAX_PART_HEAD_BYTES:
                raise BadRequest("the head of a part is too long")
            return False
        self._open(self._buffer[behind:end].decode("utf-8", "replace"))
        self._buffer = self._buffer[end + 4 :]
        return True

    def _give(self, count: int) -> None:
        """The first `count` bytes of the buffer belong to the part that is open."""
        if count and self._part is not None:
            self._part.feed(self._buffer[:count])
        self._buffer = self._buffer[count:]

    def _open(self, head: str) -> None:
        if len(self.parts) >= _MAX_PARTS:
            raise BadRequest("too many parts")
        for line in head.split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-disposition":
                found = parameters(value)
                self._part = Part(found.get("name", ""), found.get("filename"))
                self.parts.append(self._part)
                return
        raise BadRequest("a part without Content-Disposition")
