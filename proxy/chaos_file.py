"""Faults that administrators set, and which ones they have stopped: one file for all workers."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec

from penstock.core.config import ChaosFault

FILE_NAME = "chaos.json"
LOCK_NAME = "chaos.lock"


class Kept(msgspec.Struct, frozen=True):
    """faults: set by admin calls. stopped: marks of faults of the configuration file that must not happen."""

    faults: tuple[ChaosFault, ...] = ()
    stopped: tuple[str, ...] = ()


def mark(fault: ChaosFault) -> str:
    """A fault of the configuration file, as it stands there: one that is edited is another fault."""
    return f"{fault.name} {blake2b(msgspec.json.encode(fault), digest_size=8).hexdigest()}"


class ChaosFile:
    """In a state folder, which must exist. All calls block."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        self._lock = state_dir / LOCK_NAME

    def read(self) -> Kept:
        """Nothing where there is no file. Raises OSError, msgspec.MsgspecError."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()

    def change(self, change: Callable[[Kept], Kept], *, mends: bool = False) -> Kept:
        """Write what `change` makes of it; nobody else's change comes between.

        mends: a file that is broken counts as none. Raises OSError, msgspec.MsgspecError, and what `change` does.
        """
        with self._locked():
            try:
                before = self.read()
            except msgspec.MsgspecError:
                if not mends:
                    raise
                before = Kept()
            after = change(before)
            draft = self._path.with_suffix(".new")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(after))
            draft.rename(self._path)
            return after

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The kernel gives the lock back when its holder dies."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
