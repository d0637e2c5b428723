"""Targets against their slow twin on random histories of three processes' worth of slots."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import targets as oracle
from penstock.ext import BackendCell, Balancer, TargetCell, Targets

US = 1000
SECOND = 10**9
START = 10**15
SLOTS, BACKENDS, TARGETS = 3, 3, 5
ids = st.integers(0, 2**64 - 1)
STEPS = {
    "take": 30,
    "queued": 6,
    "idle": 4,
    "release": 22,
    "answered": 14,
    "failed": 14,
    "join": 4,
    "leave": 2,
    "served": 2,
    "publish": 3,
    "drain": 1,
    "down": 2,
    "early": 3,
    "reset": 0.3,
    "pass": 12,
}


class Worker:
    """One process's slot: ours and the twin's balancer, and what it holds there."""

    def __init__(self, world: "World", slot: int, balance: int, rule: oracle.Rule) -> None:
        self.shared = Targets(str(world.path), b"boot", 8, 8)
        assert self.shared.slot == slot
        self.slot = slot
        self.backends = [self.shared.backend(number) for number in range(BACKENDS)]
        self.targets = [self.shared.target(number) for number in range(TARGETS)]
        ours: list[tuple[BackendCell, TargetCell, int, int]] = []
        theirs = []
        for target, weight in world.members:
            backend = target % BACKENDS
            ours.append((self.backends[backend], self.targets[target], weight, world.limits[backend]))
            twin = (world.backends[backend], world.targets[target], weight, world.limits[backend])
            theirs.append(oracle.Member(*twin))
        numbers = (rule.failures, rule.ratio, rule.window_ns, rule.min_requests, rule.recovery_ns)
        self.ours = Balancer(self.shared, ours, balance, numbers)
        self.theirs = oracle.Balancer(slot, theirs, balance, rule)
        self.taken: list[int] = []
        self.tags: list[int] = []


class World:
    """What all slots share, on the twin's side, and every step on both sides."""

    def __init__(self, folder: Path, members: list[tuple[int, int]], limits: list[int]) -> None:
        self.path = folder / "targets.shm"
        self.members, self.limits = members, limits
        self.backends = [oracle.Backend() for _ in range(BACKENDS)]
        self.targets = [oracle.Target() for _ in range(TARGETS)]
        self.line = oracle.Line()
        self.now = START

    def do(self, what: str, worker: Worker, number: int, avoid: int) -> None:
        if what in ("take", "queued", "idle"):
            self.take(what, worker, number, avoid)
        elif what in ("release", "answered", "failed"):
            self.tell(what, worker, number)
        elif what in ("join", "leave", "served", "publish"):
            self.wait(what, worker, number)
        elif what == "pass":
            self.now += number % 30_000_000 * US
        else:
            self.set(what, worker, number)

    def take(self, what: str, worker: Worker, number: int, avoid: int) -> None:
        chance = number * 0x9E3779B97F4A7C15 % 2**64
        if what == "idle":
            got = worker.ours.take_idle(self.now, chance, avoid)
            assert got == worker.theirs.take_idle(self.now, chance, avoid)
        else:
            tag = worker.tags[chance % len(worker.tags)] if what == "queued" and worker.tags else 0
            got = worker.ours.take(self.now, chance, avoid, tag)
            assert got == worker.theirs.take(self.now, chance, avoid, tag)
        if got >= 0:
            worker.taken.append(got)

    def tell(self, what: str, worker: Worker, number: int) -> None:
        if not worker.taken:
            return
        index = number % len(worker.taken)
        taken = worker.taken[index]
        if what == "answered":
            assert worker.ours.answered(taken, self.now, number) == worker.theirs.answered(taken, self.now, number)
        elif what == "failed":
            arguments = (taken, self.now, number % 3 == 0, number % 3 == 1, self.now - number % 4 * 10**9)
            assert worker.ours.failed(*arguments) == worker.theirs.failed(*arguments)
        else:
            worker.taken.pop(index)
            worker.ours.release(taken)
            worker.theirs.release(taken)

    def wait(self, what: str, worker: Worker, number: int) -> None:
        if what == "join":
            tag = worker.shared.join_line(number % 3)
            assert tag == self.line.join(worker.slot, number % 3)
            worker.tags.append(tag)
        elif what == "publish":
            waits = (min(worker.tags, default=0), len(worker.tags))
            worker.backends[number % BACKENDS].wait(*waits)
            self.backends[number % BACKENDS].wait(worker.slot, *waits)
        elif worker.tags:
            tag = worker.tags.pop(number % len(worker.tags))
            worker.shared.leave_line(tag)
            self.line.leave(worker.slot)
            if what == "served":
                worker.shared.served(tag)
                self.line.served(tag)

    def set(self, what: str, worker: Worker, number: int) -> None:
        backend, target = number % BACKENDS, number % TARGETS
        if what == "drain":
            worker.backends[backend].drained = self.backends[backend].drained = number // 7 % 2 == 0
        elif what == "down":
            worker.backends[backend].down = self.backends[backend].down = number // 7 % 2 == 0
        elif what == "early":
            assert worker.targets[target].probe_early() == self.targets[target].probe_early()
        else:
            worker.targets[target].reset()
            self.targets[target].reset()

    def check(self, worker: Worker) -> None:
        """Everything that can be seen, from this slot."""
        ours, theirs = worker.ours, worker.theirs
        assert ours.view(self.now) == theirs.view(self.now)
        assert ours.retry_in_ns(self.now) == theirs.retry_in_ns(self.now)
        assert [ours.full(self.now, avoid) for avoid in (0, 1)] == [theirs.full(self.now, avoid) for avoid in (0, 1)]
        assert worker.shared.waiting == self.line.waiting.total()
        for cell, backend in zip(worker.backends, self.backends, strict=True):
            facts = (cell.in_flight, cell.waiting, cell.drained, cell.down)
            assert facts == (backend.in_flight.total(), backend.waiting, backend.drained, backend.down)
        used = {target for target, _ in self.members}
        for number in used:
            cell, target = worker.targets[number], self.targets[number]
            assert (cell.breaker(self.now), cell.retry_in_ns(self.now)) == (
                target.shown(self.now),
                target.retry_in(self.now),
            )
            assert (cell.failures_in_row, cell.latency_ns) == (target.row, target.latency_ns)
            assert cell.window(self.now) == target.window(self.now, theirs.rule.window_ns)


@pytest.mark.parametrize("seed", range(120))
def test_any_history(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    # A target and its weight; the limit is its backend's.
    members = [(rng.randrange(TARGETS), rng.randint(1, 4)) for _ in range(rng.choice([0, 1, 2, 3, 5]))]
    world = World(tmp_path, members, [rng.randint(0, 4) for _ in range(BACKENDS)])
    recovery = rng.choice([SECOND, 60 * SECOND])
    rule = oracle.Rule(rng.choice([0, 2, 4]), rng.choice([0, 0.25, 0.5, 1]), 30 * SECOND, rng.randint(1, 8), recovery)
    workers = [Worker(world, slot, seed % 3, rule) for slot in range(SLOTS)]
    for what in rng.choices(list(STEPS), list(STEPS.values()), k=400):
        number = rng.choice([rng.getrandbits(16), rng.getrandbits(26), rng.getrandbits(33)])
        world.do(what, rng.choice(workers), number, rng.choice([0, 0, 0, 1, 2, 5]))
        world.check(rng.choice(workers))


@settings(max_examples=300, deadline=None)
@given(st.lists(ids | st.integers(0, 6), max_size=40), st.data())
def test_cells_are_a_map(names: list[int], data: st.DataObject) -> None:
    """A cell stays its id's as long as anyone has it; one that nobody has may be anybody's when all were used."""
    with tempfile.TemporaryDirectory() as folder:
        targets = [Targets(f"{folder}/targets.shm", b"boot", 4, 4) for _ in range(2)]
        held: dict[int, list[BackendCell]] = {}
        for name in names:
            if name not in held and len(held) == 4:
                forget(held)
            cell = data.draw(st.sampled_from(targets)).backend(name)
            assert (cell.id, cell.waiting) == (name, name % 1000 + 1 if name in held else 0)
            if name not in held:
                cell.wait(1, name % 1000 + 1)
            held.setdefault(name, []).append(cell)
            del cell
            assert all(one.waiting == other % 1000 + 1 for other, cells in held.items() for one in cells)


def forget(held: dict[int, list[BackendCell]]) -> None:
    """Nobody waits at the first cell any more, and nobody has it."""
    for cell in held.pop(next(iter(held))):
        cell.wait(0, 0)
