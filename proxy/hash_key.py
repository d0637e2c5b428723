"""The secret under which API keys are hashed: the configuration's own, or one made once in the state folder."""

import os
from collections.abc import Callable
from pathlib import Path

from penstock.core.config_problem import ConfigError, Problem
from penstock.core.keys import KEY_BYTES
from penstock.proxy.named_files import reason

FILE_NAME = "hash.key"


def hash_key(state_dir: Path, random: Callable[[int], bytes]) -> bytes:
    """The secret of a state folder, which is made with its folder if it is missing; for its owner alone.

    Whoever loses it loses every key in the store. Raises ConfigError.
    """
    path = state_dir / FILE_NAME
    try:
        if not path.exists():
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make(path, random(KEY_BYTES).hex().encode())
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(str(path), [Problem(0, 0, f"cannot keep the secret of the keys: {reason(error)}")]) from None
    if len(secret) < KEY_BYTES:
        raise ConfigError(str(path), [Problem(0, 0, "too short for a secret: put the right one back, from a backup")])
    return secret


def _make(path: Path, secret: bytes) -> None:
    """Write it whole or not at all; of several processes at once, one wins and the others take what it made."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
