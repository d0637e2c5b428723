"""Faults on purpose: which ones hold in this worker now, and which attempts they hit.

They come from [[chaos.faults]] and from admin calls (`endpoints/chaos.py`), which write `state_dir/chaos.json` and
raise a number in shared memory; every worker sees it within a tick. What a fault then does to an attempt is in
`upstream/faulty.py`.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from random import random
from typing import Any

import msgspec

from penstock.core.chaos import OF_KINDS
from penstock.core.config import ChaosFault, Config
from penstock.core.errors import InvalidRequest, NotFound, StoreUnavailable
from penstock.core.nearest import suggestion
from penstock.core.plan import PlannedTarget
from penstock.ext import Targets
from penstock.proxy.chaos_file import ChaosFile, Kept, mark
from penstock.proxy.exchange import Exchange
from penstock.proxy.log import Log
from penstock.proxy.upstream.faulty import Fault, Hit
from penstock.proxy.wall_clock import WallClock

TICK_S = 0.1
HEADER = b"x-penstock-chaos"
Lines = tuple[tuple[bytes, bytes], ...]
OF_ALL = ("backend", "model", "share", "start", "end")


class Chaos:
    """One per worker, where chaos.enabled = true; its methods are for the event loop's thread.

    of_file: [[chaos.faults]]. generation: the number in shared memory that rises with each change, changed: raises it.
    random: from 0 to below 1.
    """

    on = False
    """Some fault holds now: `of` has to be asked."""

    def __init__(
        self,
        of_file: Iterable[ChaosFault],
        file: ChaosFile,
        *,
        generation: Callable[[], int],
        changed: Callable[[], object],
        clock: Callable[[], datetime],
        random: Callable[[], float],
        log: Log,
    ) -> None:
        self._of_file = {fault.name: fault for fault in of_file}
        self._file = file
        self._generation = generation
        self._changed = changed
        self._clock = clock
        self._random = random
        self._log = log
        self._kept: Kept | None = None
        self._seen = -1
        self._trouble = ""
        self._active: tuple[Fault, ...] = ()

    def __repr__(self) -> str:
        return f"<Chaos: {', '.join(fault.name for fault in self._active) or 'none'}>"

    # --- on the way of every attempt

    def of(self, target: PlannedTarget, exchange: Exchange) -> Hit | None:
        """What goes wrong with an attempt, if anything does: the first fault that meets it. The answer will say so."""
        for fault in self._active:
            facts = fault.facts
            if facts.meets(target.upstream.name, exchange.model) and self._random() < facts.share:
                exchange.told = _also_told(exchange.told, fault.name.encode())
                return Hit(fault, target.upstream.timeouts)
        return None

    # --- taking note of changes

    async def run(self) -> None:
        """Take note of changes, and of the time, until it is cancelled: then another configuration holds, and what
        is still under way under this one meets no fault any more. Owned by the lifespan."""
        try:
            while True:
                await asyncio.sleep(TICK_S)
                await self.tick()
        finally:
            self._hold(())

    async def tick(self) -> None:
        """Read the file again if it has changed, then begin and end what the time says."""
        generation = self._generation()
        if generation != self._seen:
            try:
                self._kept = await asyncio.to_thread(self._file.read)
                self._seen, self._trouble = generation, ""
            except (OSError, msgspec.MsgspecError) as error:
                self._cannot_read(str(error))
        self._choose()

    def _cannot_read(self, trouble: str) -> None:
        """Nobody knows what has been stopped, so nothing may go wrong on purpose."""
        self._kept = None
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.event("error", "no faults on purpose: their file cannot be read", error=trouble)

    def _choose(self) -> None:
        now = self._clock()
        wanted = tuple(facts for facts, stopped in self._all() if not stopped and facts.is_active(now))
        if wanted == tuple(fault.facts for fault in self._active):
            return
        self._hold(wanted)
        self._log.event("warning", "faults on purpose", faults=[fault.name for fault in self._active])

    def _hold(self, wanted: tuple[ChaosFault, ...]) -> None:
        """These, and no others."""
        held = {fault.facts: fault for fault in self._active}
        self._active = tuple(held[facts] if facts in held else Fault(facts) for facts in wanted)
        for facts in held.keys() - set(wanted):
            held[facts].over.set()
        self.on = bool(self._active)

    def _all(self) -> Iterator[tuple[ChaosFault, bool]]:
        """Every fault there is, and whether it has been stopped."""
        if self._kept is not None:
            for fault in self._of_file.values():
                yield fault, mark(fault) in self._kept.stopped
            for fault in self._kept.faults:
                yield fault, fault.name in self._of_file

    # --- administrators

    async def add(self, fault: ChaosFault) -> None:
        """From now on in every worker, in place of the one of its name. Raises InvalidRequest, StoreUnavailable."""
        if fault.name in self._of_file:
            raise InvalidRequest(f'the configuration file has a fault "{fault.name}"; take another name', param="name")
        now = self._clock()

        def change(kept: Kept) -> Kept:
            others = tuple(each for each in kept.faults if each.name != fault.name and not _is_over(each, now))
            return msgspec.structs.replace(kept, faults=(*others, fault))

        await self._write(change)

    async def stop(self, name: str) -> None:
        """End one fault in every worker. Raises NotFound, StoreUnavailable."""
        mine = self._of_file.get(name)

        def change(kept: Kept) -> Kept:
            if mine is not None:
                return msgspec.structs.replace(kept, stopped=_with(kept.stopped, mark(mine)))
            others = tuple(each for each in kept.faults if each.name != name)
            if len(others) == len(kept.faults):
                names = [*self._of_file, *(each.name for each in kept.faults)]
                raise NotFound(f"no fault of that name{suggestion(name, names)}")
            return msgspec.structs.replace(kept, faults=others)

        await self._write(change)

    async def stop_all(self) -> None:
        """End every fault in every worker. Raises StoreUnavailable."""
        marks = [mark(fault) for fault in self._of_file.values()]
        await self._write(lambda kept: Kept(stopped=_with(kept.stopped, *marks)), mends=True)

    async def _write(self, change: Callable[[Kept], Kept], *, mends: bool = False) -> None:
        try:
            self._kept = await asyncio.to_thread(self._file.change, change, mends=mends)
        except (OSError, msgspec.MsgspecError) as error:
            raise StoreUnavailable(f"the file of faults cannot be written: {error}", retry_after_s=1) from None
        self._changed()
        self._choose()

    def told(self) -> list[dict[str, Any]]:
        """Every fault, for people: its fields, where it comes from, and active, waiting, over or stopped."""
        now = self._clock()
        return [
            {**_fields(fault), "source": self._source(fault), "state": _state(fault, stopped, now)}
            for fault, stopped in self._all()
        ]

    def _source(self, fault: ChaosFault) -> str:
        return "file" if fault is self._of_file.get(fault.name) else "admin"


def make_chaos(config: Config, shared: Targets, clock: WallClock, log: Log) -> Chaos | None:
    """None where nothing may go wrong on purpose."""
    if not config.chaos.enabled:
        return None
    return Chaos(
        config.chaos.faults,
        ChaosFile(Path(config.server.state_dir)),
        generation=lambda: shared.generation,
        changed=shared.bump,
        clock=clock.now,
        random=random,
        log=log,
    )


def _also_told(told: Lines, name: bytes) -> Lines:
    """Header lines that name one more fault."""
    names = next((value for header, value in told if header == HEADER), b"")
    if name in names.split(b", "):
        return told
    others = tuple(line for line in told if line[0] != HEADER)
    return (*others, (HEADER, b"%b, %b" % (names, name) if names else name))


def _fields(fault: ChaosFault) -> Mapping[str, Any]:
    """What the fault has a use for."""
    own = [name for name, kinds in OF_KINDS.items() if fault.kind in kinds]
    return {"id": fault.name} | {name: getattr(fault, name) for name in ("name", "kind", *OF_ALL, *own)}


def _state(fault: ChaosFault, stopped: bool, now: datetime) -> str:
    if stopped:
        return "stopped"
    if fault.is_active(now):
        return "active"
    return "over" if _is_over(fault, now) else "waiting"


def _is_over(fault: ChaosFault, now: datetime) -> bool:
    return fault.end is not None and fault.end <= now


def _with(marks: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*marks, *more)))
