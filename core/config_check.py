"""The rules of a configuration that go across its fields; each is one function that yields what breaks it."""

from collections.abc import Iterable, Iterator

from penstock.core.address import Address
from penstock.core.config import Backend
from penstock.core.config_check_access import WHO_MAY_CALL
from penstock.core.config_check_backends import TARGETS_AND_FAULTS
from penstock.core.config_check_cache import KEPT_ANSWERS
from penstock.core.config_check_limits import MONEY_AND_LIMITS
from penstock.core.config_places import Path, Places, Reading, label
from penstock.core.config_problem import Problem


def check(reading: Reading) -> Iterator[Problem]:
    """Every broken rule."""
    for rule in (
        _some_backend,
        _backend_fits_kind,
        _default_backend_for_unknown,
        _open_listener,
        _nothing_twice,
        *TARGETS_AND_FAULTS,
        *KEPT_ANSWERS,
        *MONEY_AND_LIMITS,
        *WHO_MAY_CALL,
    ):
        yield from rule(reading)


def open_listener(listen: Address) -> str:
    """The refusal of a listener that other machines reach, when nobody has said that this is meant."""
    return (
        f'"{listen}" can be reached from other machines and nobody would be asked for a key; '
        'write mode = "keys", or mode = "none" if everybody who reaches it may use it, under [auth]'
    )


def may_listen(listen: Address, places: Places) -> bool:
    """On loopback always; elsewhere only if the file says in so many words whether keys are asked for."""
    return listen.is_loopback or places.is_written(("auth", "mode"))


def _some_backend(reading: Reading) -> Iterator[Problem]:
    tried = any(path[:1] == ("backends",) for path in reading.failed)
    if not reading.config.backends and not tried:
        yield reading.places.at_key(
            ("backends",), 'no backend: write for example [backends.demo] and under it kind = "demo"'
        )


def _backend_fits_kind(reading: Reading) -> Iterator[Problem]:
    for name, backend in reading.config.backends.items():
        path: Path = ("backends", name)
        if backend.kind == "demo":
            yield from _demo_is_built_in(reading, path, backend)
        elif backend.url is None:
            if (*path, "url") not in reading.failed:
                yield reading.places.at_key(path, f'{label(path)} needs "url": kind "{backend.kind}" is a server')
        else:
            yield from _url_fits(reading, path, backend)


def _demo_is_built_in(reading: Reading, path: Path, backend: Backend) -> Iterator[Problem]:
    for key in ("url", "api_key", "ca_file"):
        if getattr(backend, key):
            yield reading.places.at_key((*path, key), f'{key}: a backend of kind "demo" is built in and takes none')


def _url_fits(reading: Reading, path: Path, backend: Backend) -> Iterator[Problem]:
    url = backend.url
    if url is None:
        return
    if backend.ca_file and url.scheme == "http":
        yield reading.places.at_key((*path, "ca_file"), "ca_file is for https, but the url begins with http://")
    if backend.kind != "openai" and url.path.endswith(("/v1", "/api")):
        root = str(url).rpartition("/")[0]
        message = f'url: for kind "{backend.kind}" write the server\'s root, "{root}"'
        yield reading.places.at_value((*path, "url"), message)


def _default_backend_for_unknown(reading: Reading) -> Iterator[Problem]:
    server = reading.config.server
    path: Path = ("server", "default_backend")
    if server.unknown_models == "default_backend" and not server.default_backend and path not in reading.failed:
        yield reading.places.at_value(
            ("server", "unknown_models"),
            'unknown_models = "default_backend" needs a default_backend in [server]',
        )


def _open_listener(reading: Reading) -> Iterator[Problem]:
    listen = reading.config.server.listen
    if not may_listen(listen, reading.places):
        yield reading.places.at_value(("server", "listen"), f"listen: {open_listener(listen)}")


def _nothing_twice(reading: Reading) -> Iterator[Problem]:
    config = reading.config
    yield from _repeated(reading, ("server", "hosts"), config.server.hosts)
    yield from _repeated(reading, ("server", "trusted_proxies"), config.server.trusted_proxies)
    yield from _repeated(reading, ("alerts", "budget_percent"), map(str, config.alerts.budget_percent))
    yield from _repeated(reading, ("cors", "origins"), config.cors.origins)
    for name, tier in config.tiers.items():
        yield from _repeated(reading, ("tiers", name, "models"), tier.models or ())
    for name, model in config.models.items():
        yield from _repeated(reading, ("models", name, "fallback"), model.fallback)


def _repeated(reading: Reading, path: Path, values: Iterable[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield reading.places.at_value((*path, index), f'{path[-1]}[{index}]: "{value}" is there already')
        seen.add(value)
