"""Active health checks: one worker asks every backend and writes what it finds into the memory all workers share.

A check tells whether a backend is there, so it sets the backend down and up, and lets a breaker that opened because
no connection could be made try again at once. When the last check was stands in a file: only the leader knows it, and
any worker may be asked.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from penstock.core.config import Backend, Config
from penstock.core.errors import StateFullError
from penstock.core.health import Check, following, is_down, pause_s, place
from penstock.core.plan import Upstream
from penstock.core.route import RouteGroup, Routes
from penstock.ext import BREAKER_OPEN
from penstock.proxy.log import Log
from penstock.proxy.probe import Probes
from penstock.proxy.upstream.pool import Pool
from penstock.proxy.upstream.targets import TargetCells

TICK_S = 0.2
LEAD_S = 1.0
"""How often a worker that does not lead tries to: a leader that died is replaced within this."""
FILE = "health.json"
Checks = dict[str, Check]
Discovered = Mapping[str, tuple[str, ...]]


class Leader(Protocol):
    """What is used of ext.Targets."""

    def lead(self) -> bool: ...


class HealthChecks:
    """One per App; only the leading worker's asks. folder: where the file of last checks stands.

    groups: all targets known by now, those of the configuration and those discovered. monotonic_ns: of this boot.
    random: 0 to 1.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        probes: Probes,
        cells: TargetCells,
        groups: Callable[[], Iterable[RouteGroup]],
        leader: Leader,
        folder: Path,
        log: Log,
        *,
        monotonic_ns: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        self._backends = backends
        self.probes = probes
        self._cells = cells
        self._groups = groups
        self._leader = leader
        self._file = folder / FILE
        self._log = log
        self.now_ns = monotonic_ns
        self._random = random
        self._last: Checks = {}
        self._began_s: dict[str, float] = {}
        self._spread: dict[str, float] = {}
        self._checking: dict[str, asyncio.Task[None]] = {}
        self._meet_at_s = 0.0
        self._leads = False
        self._changed = False
        self._writer: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Check for as long as the worker runs; owned by the lifespan, which cancels it."""
        try:
            while True:
                if self._lead():
                    self.check_due()
                await asyncio.sleep(TICK_S if self._leads else LEAD_S)
        finally:
            for task in tuple(self._checking.values()):
                task.cancel()
            self.probes.close()

    async def last(self) -> Checks:
        """The last check of each backend, whoever made it; those never made are not in it."""
        return self._last if self._leads else self._of_ours(await asyncio.to_thread(read_checks, self._file))

    def meet(self) -> None:
        """Find the cells of all targets: what other workers know of those that no request here was for."""
        try:
            for group in self._groups():
                self._cells.balancer_of(group.targets, group.balance)
        except StateFullError:
            pass  # those that found no room have no state either

    def check_due(self) -> list[asyncio.Task[None]]:
        """Begin the checks whose time has come; a backend is never asked twice at once."""
        now_s = self.now_ns() / 1e9
        if now_s >= self._meet_at_s:
            self._meet_at_s = now_s + LEAD_S
            self.meet()
        open_at = self._open_at()
        begun = []
        for name, backend in self._backends.items():
            if name in self._checking or not self._is_due(name, backend, name in open_at, now_s):
                continue
            self._began_s[name], self._spread[name] = now_s, self._random()
            task = asyncio.get_running_loop().create_task(self._check(name))
            task.add_done_callback(lambda _, name=name: self._checking.pop(name, None))  # type: ignore[misc]
            self._checking[name] = task
            begun.append(task)
        return begun

    # --- who leads

    def _lead(self) -> bool:
        try:
            leads = self._leader.lead()
        except OSError:  # the state folder is away: nobody leads until it is back
            leads = False
        if leads and not self._leads:
            self._go_on()
        self._leads = leads
        return leads

    def _go_on(self) -> None:
        """Go on where the leader before ended, which a reload may have been: nobody is asked again at once for it."""
        now_s, wall_s = self.now_ns() / 1e9, self.probes.wall_s()
        self._last = self._of_ours(read_checks(self._file))
        for name, check in self._last.items():
            self._began_s[name], self._spread[name] = now_s - max(0.0, wall_s - check.at), 0.5
        for name, backend in self._backends.items():
            if not backend.health.interval_s:
                # Set down by a check of another time, and nothing would set it up again.
                self._cells.backends[name].down = False

    def _of_ours(self, checks: Checks) -> Checks:
        """Those that asked what is asked now."""
        places = {name: place(backend) for name, backend in self._backends.items()}
        return {name: check for name, check in checks.items() if places.get(name) == check.where}

    # --- one check

    def _is_due(self, name: str, backend: Backend, is_open: bool, now_s: float) -> bool:
        interval_s = backend.health.interval_s
        if not interval_s:
            return False
        if name not in self._began_s:
            return True
        last = self._last.get(name)
        in_trouble = is_open or self._cells.backends[name].down or (last is not None and not last.ok)
        return now_s - self._began_s[name] >= pause_s(interval_s, in_trouble, self._spread[name])

    def _open_at(self) -> set[str]:
        """The backends that have a target with an open breaker."""
        now_ns = self.now_ns()
        return {name for (name, _), cell in self._cells.targets.items() if cell.breaker(now_ns) == BREAKER_OPEN}

    async def _check(self, name: str) -> None:
        check = following(self._last.get(name), await self.probes.ask(name))
        self._last[name] = check
        self._changed = True
        self._tell(name, check)
        if check.ok:
            self._let_probe(name, check)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._keep())

    def _tell(self, name: str, check: Check) -> None:
        cell = self._cells.backends[name]
        down = is_down(cell.down, check)
        if down == cell.down:
            return
        cell.down = down
        if down:
            why = f"{check.failed_in_row} health checks in a row failed: {check.words}"
            self._log.event("warning", "a backend is down", backend=name, why=why)
        else:
            self._log.event("info", "a backend is up again", backend=name, why=f"a health check: {check.words}")

    def _let_probe(self, name: str, check: Check) -> None:
        """The backend can be reached: breakers that opened because it could not may try again now."""
        for (backend, model), cell in tuple(self._cells.targets.items()):
            if backend == name and cell.probe_early():
                self._cells.change(self._log, name, model, "half_open", f"a health check: {check.words}")

    # --- what other workers may read

    async def _keep(self) -> None:
        """A task of its own: a disk that hangs keeps nobody from checking."""
        while self._changed:
            self._changed = False
            try:
                await asyncio.to_thread(write_checks, self._file, dict(self._last))
            except OSError as error:
                self._log.event("debug", "the file of health checks cannot be written", error=str(error))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Checks).decode


def write_checks(file: Path, checks: Checks) -> None:
    """Whole or not at all: readers never see half a file. Raises OSError."""
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.write_bytes(_encode(checks))
    new.replace(file)


def read_checks(file: Path) -> Checks:
    """What stands there; nothing if that cannot be read, for it is only told to people."""
    try:
        return _decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}


def health_checks(
    config: Config,
    upstreams: Mapping[str, Upstream],
    pools: Mapping[str, Pool],
    cells: TargetCells,
    discovered: Callable[[], Discovered],
    log: Log,
    *,
    monotonic_ns: Callable[[], int],
    wall_ns: Callable[[], int],
    random: Callable[[], float],
) -> HealthChecks:
    """Of a configuration. discovered: the backends that report each name, by now."""
    probes = Probes(
        config.backends, upstreams, pools, monotonic=lambda: monotonic_ns() / 1e9, wall_s=lambda: wall_ns() / 1e9
    )
    routes = Routes.of(config)
    return HealthChecks(
        config.backends,
        probes,
        cells,
        lambda: known_groups(routes, discovered()),
        cells.shared,
        Path(config.server.state_dir),
        log,
        monotonic_ns=monotonic_ns,
        random=random,
    )


def known_groups(routes: Routes, discovered: Discovered) -> Iterator[RouteGroup]:
    """Wherever a request can go."""
    for name in (*routes.models, *discovered):
        if (route := routes.of_model(name, discovered)) is not None:
            yield from route.groups
    if routes.ollama:
        yield from routes.of_no_model(native=True, required=False).groups
    if routes.default_backend:
        yield from routes.of_no_model(native=False, required=False).groups
