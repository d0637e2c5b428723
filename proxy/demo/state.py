"""What one demo server remembers: its options, its figures, the files it was given, its clock and dice."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from penstock.proxy.demo.options import Control, DemoOptions, control_for, default_control
from penstock.proxy.demo.stats import Stats

_MAX_FILES = 1000


class StoredFile(msgspec.Struct, frozen=True):
    id: str
    size: int
    created_at: int
    filename: str
    purpose: str
    sha256: str
    content: bytes | None
    """None where it was too large to keep."""


class Demo:
    def __init__(self, options: DemoOptions, clock: Callable[[], int]) -> None:
        self.options = options
        self.now_s = clock
        self.rng = Random(options.seed)
        self.stats = Stats()
        self.files: dict[str, StoredFile] = {}
        self.control = default_control(options)
        self.calm_control = msgspec.structs.replace(self.control, fault=None)
        self._salt = f"{self.rng.getrandbits(32):08x}"
        self._count = 0

    def next_id(self, prefix: str) -> str:
        """A new one each time, so that a cached answer shows; repeatable with a seed."""
        self._count += 1
        return f"{prefix}{self._salt}{self._count:016x}"

    def control_for(self, fields: dict[str, str]) -> Control:
        return control_for(fields, self.control, self.calm_control, self.options, self.rng)

    def keep_file(self, file: StoredFile) -> None:
        self.files[file.id] = file
        if len(self.files) > _MAX_FILES:
            del self.files[next(iter(self.files))]
