"""References to secrets: the configuration says where a key is kept, never the key itself."""

import re
from typing import Literal, Self

import msgspec

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOW = 'write "env:NAME" for an environment variable or "file:PATH" for a file that holds it'


class Secret(msgspec.Struct, frozen=True):
    """Where a secret is kept. False if there is none. It knows the place only, so printing it is safe."""

    kind: Literal["", "env", "file"] = ""
    name: str = ""
    """The variable's name or the file's path, relative to the configuration file's folder."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference; "" is none. Raises ValueError, which never repeats the text: it may be a key."""
        kind, colon, name = text.partition(":")
        if not text:
            return cls()
        if colon and kind == "aws-sm":
            raise ValueError(f'"aws-sm:" is not supported in this version; {_HOW}')
        if not colon or kind not in ("env", "file"):
            raise ValueError(f"a secret itself must not stand here; {_HOW}")
        if kind == "env":
            return cls("env", _variable(name))
        return cls("file", _path(name))

    def __bool__(self) -> bool:
        return bool(self.kind)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.kind else ""


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError('"env:" must be followed by a variable\'s name: letters, digits and underscores')
    return name


def _path(name: str) -> str:
    if not name or "\0" in name:
        raise ValueError('"file:" must be followed by the path of a file that holds the secret')
    return name
