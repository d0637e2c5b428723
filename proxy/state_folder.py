"""The state folder: what stands in it by what name, and how it is made ready before anything is served."""

from pathlib import Path
from secrets import token_bytes

from penstock.ext import KeyHasher, State
from penstock.proxy.hash_key import hash_key

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StateFolder:
    """Names in `server.state_dir`. Everything in it is readable by its owner alone."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.database = self.path / "penstock.db"
        self.shared = self.path / "state.shm"
        self.targets = self.path / "targets.shm"
        self.cache = self.path / "cache.shm"
        self.spool = self.path / "spool"

    def make(self) -> None:
        """Make the folders that are missing. Raises OSError."""
        for folder in (self.path, self.spool):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open_state(self) -> State:
        """The memory all workers share. Raises OSError."""
        return State(str(self.shared), boot_id())

    def hasher(self, secret: bytes | None) -> KeyHasher:
        """What keys are hashed with: `auth.hash_key`, else a secret of this folder's own. Raises ConfigError."""
        return KeyHasher(secret or hash_key(self.path, token_bytes))


def boot_id() -> bytes:
    """What changes with each boot of this machine, where the monotonic clock begins anew."""
    return BOOT_ID.read_bytes().strip() if BOOT_ID.exists() else b"unknown"
