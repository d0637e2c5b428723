"""A worker's beginning and end: settings become an `App`, and whatever it holds is closed again."""

import asyncio
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import inf

from penstock.core.address import Url
from penstock.core.config import Backend, Config, Timeout
from penstock.core.origin import OriginRules
from penstock.core.plan import Timeouts, Upstream, upstream
from penstock.core.route import Routes, Target
from penstock.proxy import demo
from penstock.proxy.app import App
from penstock.proxy.discovery import Discovery
from penstock.proxy.log import Log
from penstock.proxy.request_id import RequestIds
from penstock.proxy.settings import Settings
from penstock.proxy.upstream.pool import Pool, resolve

# A timeout is late by at most this; a sweep over 1,000 open streams takes about 0.1 ms.
TICK_S = 0.1


@dataclass
class Running:
    """An App and what it needs closed. Made by `start`, ended by `stop`."""

    app: App
    demos: list[demo.Server]
    tasks: list[asyncio.Task[None]]


async def start(settings: Settings) -> Running:
    """Build everything a worker holds and begin its background work."""
    loop = asyncio.get_running_loop()
    config = settings.config
    log = Log(config.log.level, config.log.file, lambda: datetime.now(UTC))
    demos: list[demo.Server] = []
    upstreams: dict[str, Upstream] = {}
    pools: dict[str, Pool] = {}
    for name, backend in config.backends.items():
        url = backend.url
        if url is None:
            demos.append(await demo.start(host="127.0.0.1", port=0, options=demo.DemoOptions()))
            url = Url.parse(f"http://127.0.0.1:{demos[-1].port}/v1")
        upstreams[name] = upstream(
            name, backend.kind, str(url), settings.secrets.get(name, b""), timeouts(backend.timeout)
        )
        pools[name] = pool(name, backend, url)
    discovered = tuple(name for name, b in config.backends.items() if b.discover or b.kind == "demo")
    discovery = Discovery(discovered, upstreams, pools, log)
    app = App(
        config,
        routes=routes(config),
        origins=origin_rules(config),
        upstreams=upstreams,
        pools=pools,
        discovery=discovery,
        log=log,
        request_ids=RequestIds(secrets.token_hex(4).encode()),
        loop=loop,
        clock=lambda: datetime.now(UTC),
        version=version("penstock"),
    )
    tasks = [loop.create_task(discovery.run()), loop.create_task(_tick(pools, log))]
    return Running(app, demos, tasks)


async def stop(running: Running) -> None:
    """Close everything; requests that are still under way fail."""
    for task in running.tasks:
        task.cancel()
    await asyncio.gather(*running.tasks, return_exceptions=True)
    for each in running.app.pools.values():
        each.close()
    for server in running.demos:
        server.close()
    running.app.log.close()


async def _tick(pools: Mapping[str, Pool], log: Log) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(TICK_S)
        for each in pools.values():
            each.sweep(loop.time())
        log.flush()


def timeouts(timeout: Timeout) -> Timeouts:
    """Seconds, with 0 (no limit) as infinity."""
    return Timeouts(
        connect_s=timeout.connect_s or inf,
        send_s=timeout.send_s or inf,
        first_byte_s=timeout.first_byte_s or inf,
        idle_s=timeout.idle_s or inf,
        total_s=timeout.total_s or inf,
    )


def pool(name: str, backend: Backend, url: Url) -> Pool:
    return Pool(
        name,
        url.host,
        url.port,
        tls=_tls(backend) if url.scheme == "https" else None,
        connect_s=timeouts(backend.timeout).connect_s,
        max_connections=backend.pool.max_connections,
        idle_s=backend.pool.idle_s,
        resolve=resolve,
        silence_s=timeouts(backend.timeout).idle_s,
    )


def _tls(backend: Backend) -> ssl.SSLContext:
    """The system's authorities and the backend's own; names are always verified."""
    context = ssl.create_default_context()
    if backend.ca_file:
        context.load_verify_locations(backend.ca_file)
    return context


def routes(config: Config) -> Routes:
    return Routes(
        models={
            name: tuple(Target(t.backend, t.model or None) for t in model.targets)
            for name, model in config.models.items()
        },
        ollama=tuple(name for name, backend in config.backends.items() if backend.kind == "ollama"),
        default_backend=config.server.default_backend,
        send_unknown=config.server.unknown_models == "default_backend",
    )


def origin_rules(config: Config) -> OriginRules:
    """On loopback only loopback names and server.hosts; elsewhere any name unless server.hosts lists some."""
    server = config.server
    hosts = {name.lower() for name in server.hosts}
    if not hosts and not server.listen.is_loopback:
        return OriginRules(hosts=None, origins=frozenset(config.cors.origins))
    return OriginRules(hosts=frozenset(hosts | {server.listen.host}), origins=frozenset(config.cors.origins))
