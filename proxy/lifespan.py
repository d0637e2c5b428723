"""A worker's beginning and end: settings become an `App`, and whatever it holds is closed again."""

import asyncio
import secrets
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import inf

from penstock.core.address import Url
from penstock.core.config import Backend, Config, Timeout
from penstock.core.limits import IpRules
from penstock.core.origin import OriginRules
from penstock.core.plan import TermsOf, Timeouts, Upstream, upstream
from penstock.core.prices import PriceTable, Terms, terms
from penstock.core.route import Routes, Target
from penstock.proxy import demo
from penstock.proxy.address_limits import AddressLimits
from penstock.proxy.admission import Admission
from penstock.proxy.app import App
from penstock.proxy.client_address import ClientAddresses
from penstock.proxy.discovery import Discovery
from penstock.proxy.entrance import Entrance
from penstock.proxy.log import Log
from penstock.proxy.request_id import RequestIds
from penstock.proxy.settings import Settings
from penstock.proxy.shared import Shared, keeps_state, open_shared
from penstock.proxy.upstream.pool import Pool, resolve
from penstock.proxy.wall_clock import WallClock

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
    clock = WallClock(time.time_ns)
    log = Log(config.log.level, config.log.file, clock)
    demos: list[demo.Server] = []
    upstreams: dict[str, Upstream] = {}
    pools: dict[str, Pool] = {}
    for name, backend in config.backends.items():
        url = backend.url
        if url is None:
            demos.append(await demo.start(host="127.0.0.1", port=0, options=demo.DemoOptions()))
            url = Url.parse(f"http://127.0.0.1:{demos[-1].port}/v1")
        upstreams[name] = upstream(
            name,
            backend.kind,
            str(url),
            settings.secrets.get(name, b""),
            timeouts(backend.timeout),
            backend.heartbeat_s,
        )
        pools[name] = pool(name, backend, url)
    discovered = tuple(name for name, b in config.backends.items() if b.discover or b.kind == "demo")
    discovery = Discovery(discovered, upstreams, pools, log)
    shared = open_shared(settings, now_ns=time.monotonic_ns, wall_ns=clock.read) if keeps_state(config) else None
    app = App(
        config,
        routes=Routes.of(config),
        origins=origin_rules(config),
        entrance=entrance(config, shared, clock),
        shared=shared,
        admission=admission(config, shared, clock, log),
        upstreams=upstreams,
        terms_of=terms_of(config, settings.prices),
        pools=pools,
        discovery=discovery,
        log=log,
        request_ids=RequestIds(secrets.token_hex(4).encode()),
        loop=loop,
        clock=clock.now,
        version=version("penstock"),
    )
    tasks = [loop.create_task(discovery.run()), loop.create_task(_tick(pools, log))]
    if shared is not None:
        await shared.ring.refresh()  # the keys of the store are known before the first request
        tasks.append(loop.create_task(shared.ring.run()))
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


def entrance(config: Config, shared: Shared | None, clock: WallClock) -> Entrance:
    addresses = ClientAddresses(config.server.trusted_proxies)
    if shared is None:
        return Entrance(addresses, None, None)
    rules = IpRules.of(config)
    limits = None
    if any(rules.kinds.values()) or rules.unauthenticated:
        limits = AddressLimits(rules, shared.state, monotonic_ns=time.monotonic_ns, wall_ns=clock.read)
    return Entrance(addresses, shared.identify, limits)


def admission(config: Config, shared: Shared | None, clock: WallClock, log: Log) -> Admission | None:
    if shared is None or shared.spool is None:
        return None
    waits = config.store.when_full == "wait"
    return Admission(
        shared.spool,
        waits=waits,
        log_lines=log.lines if log.writes("info") else None,
        monotonic_ns=time.monotonic_ns,
        wall_ns=clock.read,
    )


def terms_of(config: Config, table: PriceTable) -> TermsOf:
    """What a model costs at a target."""

    def of(model: str | None, target: Target) -> Terms:
        name = target.model or model or ""
        return terms(config.models.get(model or ""), config.backends[target.backend], name, table)

    return of


def origin_rules(config: Config) -> OriginRules:
    """On loopback only loopback names and server.hosts; elsewhere any name unless server.hosts lists some."""
    server = config.server
    hosts = {name.lower() for name in server.hosts}
    if not hosts and not server.listen.is_loopback:
        return OriginRules(hosts=None, origins=frozenset(config.cors.origins))
    return OriginRules(hosts=frozenset(hosts | {server.listen.host}), origins=frozenset(config.cors.origins))
