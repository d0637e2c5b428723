"""How settings become an `App`: at a worker's start, and at each reload anew, with what fits of the one before."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any, Protocol

from penstock.core.config import Cache as CacheSection
from penstock.core.config import Config
from penstock.core.limits import IpRules, Rules
from penstock.core.origin import OriginRules
from penstock.core.plan import TermsOf, upstream
from penstock.core.prices import PriceTable, Terms, terms
from penstock.core.route import Routes, Target
from penstock.ext import CacheStore
from penstock.proxy.address_limits import AddressLimits
from penstock.proxy.admission import Admission
from penstock.proxy.app import App
from penstock.proxy.backend_parts import BackendParts, backend_parts, timeouts
from penstock.proxy.cache import Cache
from penstock.proxy.cache_facts import CacheFacts
from penstock.proxy.chaos import make_chaos
from penstock.proxy.client_address import ClientAddresses
from penstock.proxy.discovery import Discovery
from penstock.proxy.entrance import Entrance
from penstock.proxy.health_checks import health_checks
from penstock.proxy.identify import caller_maker
from penstock.proxy.log import Log
from penstock.proxy.processors import cores
from penstock.proxy.request_id import RequestIds
from penstock.proxy.settings import Settings
from penstock.proxy.shared import Memory, Shared, keeps_state, open_shared
from penstock.proxy.upstream.attempt import HOLD_BYTES, Attempts
from penstock.proxy.upstream.targets import TargetCells
from penstock.proxy.wall_clock import WallClock

Work = Callable[[], Coroutine[Any, Any, None]]
"""What goes on in the background for as long as an App is the current one."""


class Closable(Protocol):
    def close(self) -> None: ...


class WorkerParts:
    """What outlives every reload: made once in a worker, and each App is built on it."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.clock = WallClock(time.time_ns)
        self.memory = Memory(settings.config.server.state_dir)
        self.name = secrets.token_hex(4)
        self.request_ids = RequestIds(self.name.encode())
        self.version = version("penstock")
        self.started: float = loop.time()
        self.started_at: datetime = self.clock.now()


@dataclass(eq=False)
class Generation:
    """An App and what it was built from. Background work runs from `begin` to `end`."""

    settings: Settings
    app: App
    backends: Mapping[str, BackendParts]
    work: tuple[Work, ...]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def holds(self) -> Iterator[Closable]:
        """What must stay open until its last request has ended. Another generation may hold the same."""
        yield from self.backends.values()
        yield self.app.log

    def begin(self) -> None:
        """It is the current one now."""
        self.tasks.extend(self.app.loop.create_task(work()) for work in self.work)

    def end(self) -> None:
        """It is the current one no longer; its requests go on."""
        for task in self.tasks:
            task.cancel()
        self.tasks.clear()


async def build(settings: Settings, parts: WorkerParts, previous: Generation | None = None) -> Generation:
    """Everything a worker holds, ready to take requests; nothing runs yet. What fails leaves all as it was.

    Raises OSError, ssl.SSLError, ConfigError.
    """
    kept = () if previous is None else tuple(previous.holds())
    made: list[Closable] = []
    try:
        return await _build(settings, parts, previous, made)
    except BaseException:
        for each in made:
            if each not in kept:
                each.close()
        raise


async def _build(
    settings: Settings, parts: WorkerParts, previous: Generation | None, made: list[Closable]
) -> Generation:
    """made: gets everything that has to be closed if this fails."""
    config, clock = settings.config, parts.clock
    log = log_of(config, clock, previous)
    made.append(log)
    backends: dict[str, BackendParts] = {}
    for name, backend in config.backends.items():
        backends[name] = await backend_parts(settings, name, backend, previous.backends if previous else {})
        made.append(backends[name])
    upstreams = {
        name: upstream(
            name,
            backend.kind,
            str(backends[name].url),
            settings.secrets.get(name, b""),
            timeouts(backend.timeout),
            backend.heartbeat_s,
        )
        for name, backend in config.backends.items()
    }
    pools = {name: each.pool for name, each in backends.items()}
    discovered = tuple(name for name, b in config.backends.items() if b.discover or b.kind == "demo")
    discovery = Discovery(discovered, upstreams, pools, log)
    if previous is not None:
        same = {name for name, each in backends.items() if previous.backends.get(name) is each}
        discovery.take_over(previous.app.discovery, same)
    shared = await shared_of(settings, parts, previous)
    targets = parts.memory.targets()
    chaos = make_chaos(config, targets, clock, log)
    attempts = Attempts(
        config,
        pools=pools,
        cells=TargetCells(config, targets),
        log=log,
        loop=parts.loop,
        now_ns=time.monotonic_ns,
        draw=random.getrandbits,
        chaos=chaos,
        previous=None if previous is None else previous.app.attempts,
    )
    health = health_checks(
        config,
        upstreams,
        pools,
        attempts.cells,
        lambda: discovery.by_name,
        log,
        monotonic_ns=time.monotonic_ns,
        wall_ns=clock.read,
        random=random.random,
    )
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
        attempts=attempts,
        health=health,
        discovery=discovery,
        log=log,
        request_ids=parts.request_ids,
        loop=parts.loop,
        clock=clock.now,
        version=parts.version,
    )
    app.started, app.started_at = parts.started, parts.started_at
    app.cache = cache_of(app, parts, previous)
    # Whatever else works in the background belongs here; it is cancelled when another App takes its place.
    work: list[Work] = [discovery.run, health.run]
    if chaos is not None:
        await chaos.tick()  # before the first request
        work.append(chaos.run)
    if shared is not None:
        work.append(shared.ring.run)
    if app.cache is not None and app.cache.facts is not None:
        work.append(app.cache.facts.run)
    return Generation(settings, app, backends, tuple(work))


def log_of(config: Config, clock: WallClock, previous: Generation | None) -> Log:
    """The log of before where it goes to standard error as it did; a file is opened anew, as it may have been moved."""
    if previous is not None and not config.log.file and config.log == previous.settings.config.log:
        return previous.app.log
    return Log(config.log.level, config.log.file, clock)


async def shared_of(settings: Settings, parts: WorkerParts, previous: Generation | None) -> Shared | None:
    """What all workers share, where something outlives a request; the store's keys are known before the first."""
    if not keeps_state(settings.config):
        return None
    before = None
    if previous is not None and previous.app.shared is not None:
        before = (previous.settings, previous.app.shared)
    shared = open_shared(settings, parts.memory, now_ns=time.monotonic_ns, wall_ns=parts.clock.read, previous=before)
    if before is None or shared.ring is not before[1].ring:
        await shared.ring.refresh()
    return shared


def cache_of(app: App, parts: WorkerParts, previous: Generation | None) -> Cache | None:
    """This worker's part of the cache, with all that is in it where its size is what it was. None = there is none."""
    section, before = app.config.cache, None if previous is None else previous.app
    if not section.max_bytes:
        return None
    clears = parts.memory.cache_clears()
    if before is not None and before.cache is not None and same_size(section, before.config.cache):
        store = before.cache.store
    else:
        most_bytes = section.max_bytes // (app.config.server.workers or cores())
        store = CacheStore(most_bytes, clears, int(most_bytes * section.max_entry_share))
    facts = None
    if app.shared is not None and app.shared.store is not None:
        facts = CacheFacts(store, app.shared.store, section.facts, parts.name, parts.clock.read, app.log)
    return Cache(
        app.config,
        store=store,
        facts=facts,
        clears=clears,
        attempts=app.attempts,
        admission=app.admission,
        active=app.active,
        settle=app.settle,
        log=app.log,
        most_bytes=max(int(store.max_bytes * section.max_entry_share), HOLD_BYTES),
    )


def same_size(one: CacheSection, other: CacheSection) -> bool:
    """Whether what is kept can stay where it is."""
    return (one.max_bytes, one.max_entry_share) == (other.max_bytes, other.max_entry_share)


def succeed(new: Generation, old: Generation) -> None:
    """The moment of a reload: one App's work ends and the other's begins. Keys that both hold get the new limits."""
    old.end()
    before, now = old.app.shared, new.app.shared
    if before is not None and now is not None and before.ring is now.ring:
        before.identify.renew(caller_maker(Rules.of(new.settings.config), now.state))
    old.app.discovery.on_change = _nobody
    new.begin()


def _nobody() -> None:
    """Plans of an App that takes no more requests need no renewal."""


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
