"""Targets shared by real processes with threads: never over the limit, one probe, fair, also while they are killed."""

import mmap
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.ext import BALANCE_LEAST_IN_FLIGHT, TAKE_FULL, TAKE_NONE, TAKE_PROBE, Balancer, Targets

SECOND = 10**9
NOW = 10**15
RECOVERY = 60 * SECOND
RULE = (5, 0.5, 30 * SECOND, 10, RECOVERY)
PROCESSES, THREADS = 4, 4
MOST = 7


class Tally:
    """Counters that forked processes share: one each, written by nobody else."""

    def __init__(self, count: int) -> None:
        self._words = memoryview(mmap.mmap(-1, 8 * count)).cast("q")

    def add(self, index: int, n: int = 1) -> None:
        self._words[index] += n

    def set(self, index: int, n: int) -> None:
        self._words[index] = n

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    @property
    def total(self) -> int:
        return sum(self._words)

    def at_once(self) -> list[int] | None:
        """What all stood at at one moment; None if they change too fast. Only if they never go back."""
        for _ in range(10):
            if (words := self._words.tolist()) == self._words.tolist():
                return words
        return None


class Held:
    """The places that processes hold: what each took, and what it gave back."""

    def __init__(self, count: int) -> None:
        self._both = Tally(count)
        self.most = Tally(count)
        self.looks = Tally(count)

    def take(self, index: int) -> None:
        """Also looks how many all hold."""
        self._both.add(index, 1 << 32)
        words = self._both.at_once()
        if words is not None:
            held = sum((word >> 32) - (word & (1 << 32) - 1) for word in words)
            self.most.set(index, max(self.most[index], held))
            self.looks.add(index)

    def give(self, index: int) -> None:
        self._both.add(index)

    def give_all(self, index: int) -> None:
        self._both.set(index, (self._both[index] >> 32) * ((1 << 32) + 1))


class World:
    """A backend with one target, at most MOST in flight; every process opens it for itself."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "targets.shm")
        self.targets, self.balancer = self.open()

    def open(self, most: int = MOST) -> tuple[Targets, Balancer]:
        targets = Targets(self.path, b"boot")
        member = (targets.backend(1), targets.target(1), 1, most)
        return targets, Balancer(targets, [member], BALANCE_LEAST_IN_FLIGHT, RULE)

    @property
    def in_flight(self) -> int:
        return self.targets.backend(1).in_flight

    def break_it(self) -> None:
        while not self.balancer.failed(0, NOW):
            pass


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def family() -> Iterator["Family"]:
    family = Family()
    yield family
    for child in list(family.children):
        family.kill(child)


class Family:
    """The children of a test, which do not outlive it."""

    def __init__(self) -> None:
        self.children: list[int] = []

    def fork(self, work: Callable[[int], None], index: int) -> int:
        """The process id of a child that does work(index) and exits with 0 if it did not raise."""
        child = os.fork()
        if child:
            self.children.append(child)
            return child
        try:
            work(index)
            os._exit(0)
        finally:
            os._exit(1)

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        self.end(child)

    def end(self, child: int) -> int:
        """Waits for a child; what it exited with."""
        self.children.remove(child)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def end_all(self) -> None:
        assert {self.end(child) for child in list(self.children)} <= {0}


def in_threads(work: Callable[[int], None], process: int) -> None:
    threads = [threading.Thread(target=work, args=(process * THREADS + n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_never_more_in_flight_than_may_be(world: World, family: Family) -> None:
    held = Held(PROCESSES * THREADS)

    def work(process: int) -> None:
        _, balancer = world.open()

        def take(index: int) -> None:
            for number in range(5_000):
                if (got := balancer.take(NOW, number)) != TAKE_FULL:
                    held.take(index)
                    held.give(index)
                    balancer.release(got)

        in_threads(take, process)

    for process in range(PROCESSES):
        family.fork(work, process)
    family.end_all()
    assert 1 <= max(held.most[index] for index in range(PROCESSES * THREADS)) <= MOST
    assert held.looks.total > 1_000
    assert world.in_flight == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_places_of_the_killed_come_back(world: World, family: Family, seed: int) -> None:
    """Whenever it strikes: nobody sees more than may be, and a sweep gives back all that the dead held."""
    rng = random.Random(seed)
    held = Held(16)

    def work(process: int) -> None:
        _, balancer = world.open()
        chance, ours = random.Random(process), 0
        while True:
            if ours and chance.random() < 0.5:
                held.give(process)
                balancer.release(0)
                ours -= 1
            elif balancer.take(NOW, 0) >= 0:
                held.take(process)
                ours += 1

    def wait_for_all() -> None:
        """Else one that just opens it may claim the slot of one that is just killed, and take its places away."""
        while not all(held.looks[child] for child in children):
            os.sched_yield()

    children = {process: family.fork(work, process) for process in range(3)}
    for process in range(3, 15):
        wait_for_all()
        victim = rng.choice(list(children))
        at = held.looks[victim] + rng.randrange(1, 300)
        while held.looks[victim] < at:
            os.sched_yield()
        family.kill(children.pop(victim))
        held.give_all(victim)
        # Only now its places are free for others.
        assert world.targets.sweep() == 1
        children[process] = family.fork(work, process)
    wait_for_all()
    for child in children.values():
        family.kill(child)
    assert world.targets.sweep() == 3
    assert world.in_flight == 0
    assert 1 <= max(held.most[index] for index in range(16)) <= MOST


def test_one_probe_over_all_processes(world: World, family: Family) -> None:
    world.break_it()
    probes, none = Tally(PROCESSES * THREADS), Tally(PROCESSES * THREADS)
    rounds = 50

    def work(process: int) -> None:
        targets, balancer = world.open(0)
        waiting = targets.backend(1)

        def take(index: int) -> None:
            for turn in range(rounds):
                while targets.generation < turn:
                    os.sched_yield()
                got = balancer.take(NOW + (2 * turn + 1) * RECOVERY, 0)
                probes.add(index, got == TAKE_PROBE)
                none.add(index, got == TAKE_NONE)

        in_threads(take, process)
        assert waiting.in_flight <= rounds * PROCESSES * THREADS

    for process in range(PROCESSES):
        family.fork(work, process)
    for turn in range(rounds):
        while probes.total + none.total < (turn + 1) * PROCESSES * THREADS:
            os.sched_yield()
        assert probes.total == turn + 1
        assert world.balancer.take(NOW + (2 * turn + 1) * RECOVERY, 0) == TAKE_NONE
        assert world.balancer.failed(TAKE_PROBE, NOW + (2 * turn + 1) * RECOVERY), "open again, for another round"
        world.targets.bump()
    family.end_all()


def test_a_probe_whose_process_died_is_anothers(world: World, family: Family) -> None:
    world.break_it()
    at = NOW + RECOVERY

    def work(_: int) -> None:
        _, balancer = world.open()
        assert balancer.take(at, 0) == TAKE_PROBE
        os.kill(os.getpid(), signal.SIGKILL)

    assert family.end(family.fork(work, 0)) == -signal.SIGKILL
    assert world.balancer.take(at, 0) == TAKE_NONE
    assert world.targets.sweep() == 1
    assert world.balancer.take(at, 0) == TAKE_PROBE


def test_who_is_killed_in_line_leaves_it(world: World, family: Family) -> None:
    ready, wait = os.pipe()

    def work(_: int) -> None:
        targets, _ = world.open()
        tags = [targets.join_line(7) for _ in range(3)]
        targets.backend(1).wait(tags[0], 3)
        os.write(wait, b"!")
        signal.pause()

    child = family.fork(work, 0)
    assert os.read(ready, 1) == b"!"
    assert (world.targets.waiting, world.targets.ahead(9)) == (3, 3)
    assert world.balancer.take(NOW, 0) == TAKE_FULL, "who comes now waits behind those who wait"
    family.kill(child)
    world.targets.sweep()
    assert (world.targets.waiting, world.targets.ahead(9)) == (0, 0)
    assert world.balancer.take(NOW, 0) == 0


def test_turns_in_line_are_fair_to_keys(world: World, family: Family) -> None:
    """Three processes ask for one key, one for another; both keys get half of the places, whoever polls faster."""
    served = Tally(4)
    turns = 2_000

    def work(process: int) -> None:
        targets, balancer = world.open(1)
        cell, key = targets.backend(1), min(process, 1)
        tags = [targets.join_line(key) for _ in range(2)]
        cell.wait(min(tags), len(tags))
        # All wait before the first is served.
        targets.bump()
        while targets.generation < 4:
            os.sched_yield()
        while served.total < turns:
            cell.wait(min(tags), len(tags))
            got = balancer.take(NOW, 0, 0, min(tags))
            if got == TAKE_FULL:
                os.sched_yield()
                continue
            tag = min(tags)
            tags.remove(tag)
            targets.served(tag)
            targets.leave_line(tag)
            tags.append(targets.join_line(key))
            served.add(process)
            balancer.release(got)
        cell.wait(0, 0)

    for process in range(4):
        family.fork(work, process)
    family.end_all()
    assert served.total >= turns
    assert 0.45 <= served[0] / served.total <= 0.55


def test_one_process_leads_and_another_when_it_is_no_more(world: World, family: Family) -> None:
    ready, told = os.pipe()

    def work(_: int) -> None:
        targets, _ = world.open()
        os.write(told, b"%d" % targets.lead())
        signal.pause()

    first = family.fork(work, 0)
    assert os.read(ready, 1) == b"1"
    family.fork(work, 1)
    assert os.read(ready, 1) == b"0"
    assert not world.targets.lead()
    family.kill(first)
    assert world.targets.lead()
    assert world.targets.lead()


def test_a_fork_that_ends_takes_nothing_away(world: World, family: Family) -> None:
    """What was opened before a fork is the parent's: the child's copies go without a trace."""
    targets, balancer = world.open()
    balancer.take(NOW, 0)
    held = [targets.backend(number) for number in range(2, 6)]

    def work(_: int) -> None:
        nonlocal targets, balancer
        held.clear()
        del targets, balancer

    family.fork(work, 0)
    family.end_all()
    assert world.targets.sweep() == 0
    assert world.in_flight == 1
