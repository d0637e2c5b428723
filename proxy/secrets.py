"""References to secrets become the secrets: read once from environment and files, with words that never hold them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.core.config import Config
from penstock.core.config_places import Path as KeyPath
from penstock.core.keys import LONGEST_KEY_BYTES, SHORTEST_OWN_KEY_BYTES
from penstock.core.secret import Secret
from penstock.proxy.named_files import reason

_KEY = re.compile(rb"[!-~]+")  # what may stand in a header line without changing its meaning


@dataclass(frozen=True)
class Secrets:
    """Every secret of a configuration. `repr` shows none."""

    backends: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Backend name -> its API key. A backend without a key is not in it."""
    admin_key: bytes | None = field(default=None, repr=False)
    """None = there are no admin routes."""
    hash_key: bytes | None = field(default=None, repr=False)
    """What keys are hashed with; None = the one in state_dir."""
    file_keys: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """(name, key) of every [[keys]]."""


def read_secrets(config: Config, folder: Path, environ: Mapping[str, str]) -> tuple[Secrets, dict[KeyPath, str]]:
    """All secrets, and what is wrong with those that could not be read. `folder`: where relative paths count from."""
    found: dict[KeyPath, bytes] = {}
    wrong: dict[KeyPath, str] = {}
    for path, secret, least in _references(config):
        try:
            found[path] = resolve(secret, folder, environ, least)
        except ValueError as error:
            wrong[path] = f"{path[-1]}: {error}"
    wrong.update(_same_twice(config, found))
    return Secrets(
        backends={name: found[path] for name in config.backends if (path := ("backends", name, "api_key")) in found},
        admin_key=found.get(("admin", "key")),
        hash_key=found.get(("auth", "hash_key")),
        file_keys=tuple(
            (key.name, found["keys", index, "key"])
            for index, key in enumerate(config.keys)
            if ("keys", index, "key") in found
        ),
    ), wrong


def resolve(secret: Secret, folder: Path, environ: Mapping[str, str], least_bytes: int = 1) -> bytes:
    """The secret a reference means. Raises ValueError in words that never hold it."""
    if secret.kind == "env":
        value, origin = _variable(secret.name, environ), f"the environment variable {secret.name}"
    else:
        value, origin = _contents(folder / secret.name), f"the file {folder / secret.name}"
    if not value:
        raise ValueError(f"{origin} is empty")
    if not _KEY.fullmatch(value):
        raise ValueError(f"{origin} holds more than a key: expected visible ASCII characters without spaces")
    if len(value) < least_bytes:
        raise ValueError(f"{origin} holds a key that can be guessed: expected at least {least_bytes} characters")
    if least_bytes > 1 and len(value) > LONGEST_KEY_BYTES:
        raise ValueError(f"{origin} holds {len(value)} characters; a key has at most {LONGEST_KEY_BYTES}")
    return value


def secret_files(config: Config, folder: Path) -> Iterator[Path]:
    """The files that secrets are read from."""
    for _, secret, _ in _references(config):
        if secret.kind == "file":
            yield folder / secret.name


def _references(config: Config) -> Iterator[tuple[KeyPath, Secret, int]]:
    """Where a reference stands, the reference, and how long the secret must be: ours are compared with guesses."""
    for name, backend in config.backends.items():
        if backend.api_key:
            yield ("backends", name, "api_key"), backend.api_key, 1
    if config.admin.key:
        yield ("admin", "key"), config.admin.key, SHORTEST_OWN_KEY_BYTES
    if config.auth.hash_key:
        yield ("auth", "hash_key"), config.auth.hash_key, SHORTEST_OWN_KEY_BYTES
    for index, key in enumerate(config.keys):
        yield ("keys", index, "key"), key.key, SHORTEST_OWN_KEY_BYTES


def _same_twice(config: Config, found: Mapping[KeyPath, bytes]) -> Iterator[tuple[KeyPath, str]]:
    """One key cannot say who calls if two have it; and whoever may call must not be the admin by that."""
    owners: dict[bytes, str] = {}
    if admin := found.get(("admin", "key")):
        owners[admin] = "[admin]"
    for index, key in enumerate(config.keys):
        value = found.get(("keys", index, "key"))
        if value is None:
            continue
        if owner := owners.get(value):
            yield ("keys", index, "key"), f"key: {owner} has the same secret"
        owners[value] = f'the key "{key.name}"'


def _variable(name: str, environ: Mapping[str, str]) -> bytes:
    if name not in environ:
        raise ValueError(f"the environment variable {name} is not set")
    return environ[name].strip().encode("utf-8", "surrogateescape")


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {reason(error)}") from None
