"""The only reader of environment and files: a configuration, its secrets, and what was found without one."""

import os
import socket
import tomllib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from penstock.core.address import Address, Url
from penstock.core.config import Config
from penstock.core.config_check import may_listen, open_listener
from penstock.core.config_default import OPENAI_KEY, OPENAI_URL, default_config
from penstock.core.config_places import Places
from penstock.core.config_problem import ConfigError, Problem
from penstock.core.config_read import read_config
from penstock.core.ollama_host import ollama_url
from penstock.core.prices import PriceTable
from penstock.proxy.named_files import file_problems, reason, with_absolute_paths
from penstock.proxy.price_table import price_table
from penstock.proxy.secrets import read_secrets, resolve

FILE_NAME = "penstock.toml"
_PROBE_S = 0.2


@dataclass(frozen=True)
class Overrides:
    """What the command line says louder than the file. None = as the file says."""

    listen: Address | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Settings:
    """Everything a start needs, read once. Paths in `config` are absolute."""

    config: Config
    source: Path | None
    """The configuration file; None = the defaults for a machine without one."""
    secrets: Mapping[str, bytes] = field(repr=False)
    """Backend name -> its API key. A backend without a key is not in it."""
    admin_key: bytes | None = field(default=None, repr=False)
    """What X-Admin-Key must hold; None = there are no admin routes."""
    hash_key: bytes | None = field(default=None, repr=False)
    """What keys are hashed with; None = the secret in state_dir/hash.key."""
    file_keys: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """(name, key) of every [[keys]]; the rest of them is in config.keys."""
    prices: PriceTable = field(default=PriceTable(), repr=False)
    """What providers ask for at list price; empty where every backend is one's own."""
    found: tuple[str, ...] = ()
    """Without a file: one line for people about each backend that was looked for."""
    overrides: Overrides = Overrides()

    def reload(self) -> "Settings":
        """The same file and command line, read again. Raises ConfigError; these settings stay as they are."""
        return load(self.source, self.overrides)


def locate(option: str | None) -> Path | None:
    """The file to read: the one asked for, else penstock.toml in the working folder, else none."""
    if option is not None:
        return Path(option)
    usual = Path(FILE_NAME)
    return usual if usual.exists() else None


def load(
    path: Path | None,
    overrides: Overrides | None = None,
    environ: Mapping[str, str] | None = None,
    answers: Callable[[Url], bool] | None = None,
) -> Settings:
    """Read a configuration file, or with None look around for backends. Raises ConfigError.

    environ: variables, by default the process's own. answers: whether a server takes connections.
    """
    overrides = overrides or Overrides()
    environ = environ if environ is not None else os.environ  # noqa: TID251 - the one place that reads it
    if path is None:
        return _without_file(overrides, environ, answers or takes_connections)
    return _from_file(path, overrides, environ)


def variables() -> MutableMapping[str, str]:
    """The environment of this process, for the few that are told something in it that is no configuration."""
    return os.environ  # noqa: TID251 - as above


def state_dir_of(path: Path | None, environ: Mapping[str, str] | None = None) -> Path:
    """Where the server of a configuration file keeps its state, even if the rest of the file cannot be used.

    Raises ConfigError for a file that is no TOML.
    """
    environ = environ if environ is not None else variables()
    named: object = ""
    folder = Path()
    if path is not None:
        folder = path.absolute().parent
        try:
            named = tomllib.loads(_read_text(path)).get("server", {}).get("state_dir", "")
        except (tomllib.TOMLDecodeError, AttributeError) as error:
            raise ConfigError(str(path), [Problem(0, 0, str(error))]) from None
    if isinstance(named, str) and named:
        return folder / named
    return Path(_with_state_dir(Config(), environ).server.state_dir)


def example_text() -> str:
    """The commented configuration file that `penstock init` writes."""
    from importlib.resources import files

    return files("penstock.config").joinpath("example.toml").read_text(encoding="utf-8")


def takes_connections(url: Url) -> bool:
    """Whether something listens there, found out within 0.2 s."""
    try:
        socket.create_connection((url.host, url.port), timeout=_PROBE_S).close()
    except OSError:
        return False
    return True


# --- with a file ---------------------------------------------------------------------------------------


def _from_file(path: Path, overrides: Overrides, environ: Mapping[str, str]) -> Settings:
    document = read_config(_read_text(path), str(path))
    folder = path.absolute().parent
    config = with_absolute_paths(document.config, folder)
    secrets, unreadable = read_secrets(config, folder, environ)
    if wrong := {**dict(file_problems(config)), **unreadable}:
        raise document.error(wrong)
    return Settings(
        config=_with_state_dir(_overridden(config, overrides, document.places), environ),
        source=path,
        secrets=secrets.backends,
        admin_key=secrets.admin_key,
        hash_key=secrets.hash_key,
        file_keys=secrets.file_keys,
        prices=price_table(config),
        overrides=overrides,
    )


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), [Problem(0, 0, f"cannot read this file: {reason(error)}")]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        column = len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
        problem = Problem(before.count(b"\n") + 1, column, "expected text in UTF-8")
        raise ConfigError(str(path), [problem]) from None


# --- without a file ------------------------------------------------------------------------------------


def _without_file(overrides: Overrides, environ: Mapping[str, str], answers: Callable[[Url], bool]) -> Settings:
    ollama, ollama_line = _find_ollama(environ, answers)
    openai, openai_line = _find_openai(environ)
    config = default_config(ollama, openai)
    secrets = _openai_secret(environ) if openai else {}
    return Settings(
        config=_with_state_dir(_overridden(config, overrides, Places({})), environ),
        source=None,
        secrets=secrets,
        prices=price_table(config),
        found=("demo backend: built in, model demo", ollama_line, openai_line),
        overrides=overrides,
    )


def _find_ollama(environ: Mapping[str, str], answers: Callable[[Url], bool]) -> tuple[Url | None, str]:
    try:
        url = ollama_url(environ.get("OLLAMA_HOST", ""))
    except ValueError as error:
        return None, f"Ollama: not looked for, OLLAMA_HOST is not an address: {error}"
    if answers(url):
        return url, f"Ollama at {url}: found"
    return None, f"Ollama at {url}: nothing answers"


def _openai_secret(environ: Mapping[str, str]) -> dict[str, bytes]:
    try:
        return {"openai": resolve(OPENAI_KEY, Path(), environ)}
    except ValueError as error:
        raise ConfigError("environment", [Problem(0, 0, str(error))]) from None


def _find_openai(environ: Mapping[str, str]) -> tuple[Url | None, str]:
    if not environ.get(OPENAI_KEY.name, "").strip():
        return None, f"OpenAI: {OPENAI_KEY.name} is not set"
    try:
        url = Url.parse(environ.get("OPENAI_BASE_URL", "").strip() or OPENAI_URL)
    except ValueError as error:
        raise ConfigError("environment", [Problem(0, 0, f"OPENAI_BASE_URL: {error}")]) from None
    return url, f"OpenAI at {url}: {OPENAI_KEY.name} is set"


# --- both ----------------------------------------------------------------------------------------------


def _overridden(config: Config, overrides: Overrides, places: Places) -> Config:
    listen, workers = overrides.listen, overrides.workers
    server = config.server
    if listen is not None:
        if not may_listen(listen, places):
            raise ConfigError("--listen", [Problem(0, 0, f"{open_listener(listen)} in {FILE_NAME}")])
        server = replace(server, listen=listen)
    if workers is not None:
        server = replace(server, workers=workers)
    return replace(config, server=server)


def _with_state_dir(config: Config, environ: Mapping[str, str]) -> Config:
    """Where nothing is said: the user's state folder (XDG Base Directory Specification)."""
    if config.server.state_dir:
        return config
    base = environ.get("XDG_STATE_HOME", "")
    # The specification: a relative path is to be ignored.
    folder = Path(base) if Path(base).is_absolute() else _home(environ) / ".local" / "state"
    return replace(config, server=replace(config.server, state_dir=str(folder / "penstock")))


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        message = 'no home folder to keep state in; write state_dir = "/var/lib/penstock" under [server]'
        raise ConfigError("environment", [Problem(0, 0, message)]) from None
