"""The files a configuration names: where they are, and whether a start could use them."""

import ssl
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from penstock.core.config import Config, Tls
from penstock.core.config_places import Path as KeyPath


def with_absolute_paths(config: Config, folder: Path) -> Config:
    """Relative paths count from the configuration file's folder, wherever the server is started."""

    def absolute(name: str) -> str:
        return str(folder / name) if name else ""

    tls = config.server.tls and Tls(
        cert_file=absolute(config.server.tls.cert_file),
        key_file=absolute(config.server.tls.key_file),
        client_ca_file=absolute(config.server.tls.client_ca_file),
    )
    backends = {name: replace(each, ca_file=absolute(each.ca_file)) for name, each in config.backends.items()}
    return replace(
        config,
        server=replace(config.server, tls=tls, state_dir=absolute(config.server.state_dir)),
        backends=backends,
        log=replace(config.log, file=absolute(config.log.file)),
    )


def file_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Files that are named and cannot be used."""
    if config.server.tls is not None:
        yield from _tls_problems(config.server.tls)
    for name, backend in config.backends.items():
        if backend.ca_file and (words := _authorities_problem(backend.ca_file)):
            yield ("backends", name, "ca_file"), f"ca_file: {words}"
    if config.log.file and not Path(config.log.file).parent.is_dir():
        yield ("log", "file"), f"file: there is no folder {Path(config.log.file).parent}"


def _tls_problems(tls: Tls) -> Iterator[tuple[KeyPath, str]]:
    path: KeyPath = ("server", "tls")
    unreadable = {key: words for key in ("cert_file", "key_file") if (words := _unreadable(getattr(tls, key)))}
    for key, words in unreadable.items():
        yield (*path, key), f"{key}: {words}"
    if not unreadable:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert_file, tls.key_file, password="")
        except (ssl.SSLError, ValueError):
            yield (
                (*path, "cert_file"),
                "cert_file: with key_file this is not a PEM certificate and its key without passphrase",
            )
    if tls.client_ca_file and (words := _authorities_problem(tls.client_ca_file)):
        yield (*path, "client_ca_file"), f"client_ca_file: {words}"


def _authorities_problem(file: str) -> str | None:
    if words := _unreadable(file):
        return words
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return f"{file} holds no certificates in PEM form"
    return None


def _unreadable(file: str) -> str | None:
    try:
        Path(file).open("rb").close()
    except OSError as error:
        return f"cannot read {file}: {reason(error)}"
    return None


def reason(error: OSError) -> str:
    """The system's word for what went wrong, without the path."""
    return error.strerror or str(error)
