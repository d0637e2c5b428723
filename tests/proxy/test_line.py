"""The line in front of full targets: bounded, fair between keys, left at once, and the same over several workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted import Side, asks, play, starts, stop, target, turns, until

from penstock.core.config import Breaker, Queue
from penstock.core.errors import ConnectFailed, NoHealthyTarget, QueueFull, TargetsOpen
from penstock.ext import Targets
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.lease import Lease, Search
from penstock.proxy.upstream.line import LOOK_S

NOBODY: dict[str, None] = {"a": None}


def side(most: int = 1, *, shared: Targets | None = None, queue: Queue | None = None, **sections: object) -> Side:
    """A worker in front of backend a, which takes `most` requests at a time."""
    names = dict.fromkeys(sections.pop("names", "a"))  # type: ignore[call-overload]
    return Side(names, shared=shared, most=dict.fromkeys(names, most), queue=queue or Queue(), **sections)


class Worker:
    """Requests of several keys, as one worker has them."""

    def __init__(self, made: Side, names: str = "a") -> None:
        self.side = made
        self.plan = made.plan(*((target(1, name=name),) for name in names))
        self.served: list[tuple[str, Exchange, Lease]] = []

    def ask(self, key: str) -> asyncio.Task[None]:
        return starts(self._ask(key))

    async def _ask(self, key: str) -> None:
        sent = asks()
        sent.address = key
        try:
            sent.lease = await self.side.attempts.seek(Search(self.plan), sent)
            sent.sent = 1.0
            self.served.append((key, sent, sent.lease))
        except BaseException:
            sent.close()
            raise

    def end(self, number: int = 0) -> str:
        """The request that was served so long ago has ended; whose it was."""
        key, sent, _ = self.served.pop(number)
        self.side.attempts.settle(sent)
        sent.close()
        return key

    @property
    def keys(self) -> str:
        return "".join(key for key, _, _ in self.served)

    @property
    def waiting(self) -> int:
        return self.side.attempts.line.waiting


async def asked(worker: Worker, keys: str) -> list[asyncio.Task[None]]:
    """One request after the other."""
    tasks = []
    for key in keys:
        tasks.append(worker.ask(key))
        await turns(2)
    return tasks


async def order_of(worker: Worker, count: int) -> str:
    """In which order so many requests are served, one place at a time."""
    order = ""
    for _ in range(count):
        await until(lambda: worker.served)
        order += worker.end()
    return order


def test_a_place_that_becomes_free_goes_to_who_waits() -> None:
    async def scene() -> None:
        worker = Worker(side(2))
        await asked(worker, "xyz")
        assert (worker.keys, worker.waiting, worker.side.in_flight, worker.side.shared.waiting) == ("xy", 1, 2, 1)
        worker.end()
        await turns()
        assert (worker.keys, worker.waiting, worker.side.in_flight, worker.side.shared.waiting) == ("yz", 0, 2, 0)
        assert worker.side.cells.backends["a"].waiting == 0
        assert await order_of(worker, 2) == "yz" and worker.side.in_flight == 0

    play(scene())


def test_a_newcomer_does_not_pass_those_who_wait() -> None:
    async def scene() -> None:
        worker = Worker(side())
        await asked(worker, "xy")
        key, sent, lease = worker.served.pop()
        lease.release()  # a place is free, and nobody has looked yet
        newcomer = worker.ask("z")
        await turns(2)
        assert worker.keys != "z"
        assert await order_of(worker, 2) == "yz"
        await newcomer
        assert key == "x" and not sent.over

    play(scene())


def test_one_keys_flood_does_not_delay_anothers_first() -> None:
    async def scene() -> None:
        worker = Worker(side())
        await asked(worker, "x" * 200 + "y")
        order = await order_of(worker, 201)
        assert order.index("y") <= 2

    play(scene())


def test_keys_that_wait_share_the_places() -> None:
    async def scene() -> None:
        worker = Worker(side())
        await asked(worker, "x" * 60 + "y" * 20 + "z" * 20)
        order = await order_of(worker, 100)
        assert all(abs(order[:48].count(key) - 16) <= 2 for key in "xyz")

    play(scene())


def test_a_key_alone_is_served_in_order() -> None:
    async def scene() -> None:
        worker = Worker(side())
        tasks = await asked(worker, "x" * 20)
        for number in range(20):
            await until(lambda: worker.served)
            assert [task.done() for task in tasks].count(True) == number + 1 and tasks[number].done()
            worker.end()

    play(scene())


# --- bounded -------------------------------------------------------------------------------------------------


def test_a_full_line_refuses_and_says_when_to_come_again() -> None:
    async def scene() -> None:
        worker = Worker(side(2, queue=Queue(max_waiting=3)))
        await asked(worker, "xxxxx")
        with pytest.raises(QueueFull) as caught:
            await worker.ask("x")
        assert (caught.value.status, caught.value.retry_after_s) == (503, 2)  # 1 s each until one has ended
        assert caught.value.headers == ((b"x-penstock-queue", b"place=4; estimate_s=2"),)
        assert (worker.waiting, worker.side.shared.waiting) == (3, 3)
        await order_of(worker, 5)

    play(scene())


def test_the_estimate_is_of_what_was_measured() -> None:
    async def scene() -> None:
        worker = Worker(side(4, queue=Queue(max_waiting=7)))
        await asked(worker, "x" * 11)
        (lane,) = worker.side.attempts.line.lanes.values()
        lane.measure(10.0)
        with pytest.raises(QueueFull) as caught:
            await worker.ask("x")
        assert caught.value.retry_after_s == 20  # the eighth at four places, 10 s each
        await order_of(worker, 11)

    play(scene())


def test_no_line_at_all() -> None:
    async def scene() -> None:
        worker = Worker(side(queue=Queue(max_waiting=0)))
        await asked(worker, "x")
        with pytest.raises(QueueFull):
            await worker.ask("x")
        worker.end()

    play(scene())


def test_who_fills_the_line_makes_room_for_others() -> None:
    async def scene() -> None:
        worker = Worker(side(queue=Queue(max_waiting=10)))
        flood = await asked(worker, "x" * 11)
        await asked(worker, "y")
        (out,) = [task for task in flood if task.done() and task.exception()]
        assert out is flood[-1] and isinstance(out.exception(), QueueFull)
        assert worker.waiting == worker.side.shared.waiting == 10
        order = await order_of(worker, 11)
        assert order.index("y") <= 2 and order.count("x") == 10

    play(scene())


def test_a_key_that_fills_the_line_no_more_than_others_is_not_pushed_out() -> None:
    async def scene() -> None:
        worker = Worker(side(queue=Queue(max_waiting=4)))
        await asked(worker, "z" + "xxyy")
        for key in "xy":
            with pytest.raises(QueueFull):
                await worker.ask(key)
        assert worker.waiting == 4
        await order_of(worker, 5)

    play(scene())


def test_refused_requests_do_not_put_their_key_back() -> None:
    """Else a key that was refused a thousand times would wait behind all others for as long."""

    async def scene() -> None:
        worker = Worker(side(queue=Queue(max_waiting=2)))
        await asked(worker, "zxx")
        for _ in range(50):
            with pytest.raises(QueueFull):
                await worker.ask("x")
        await order_of(worker, 3)
        await asked(worker, "zyyx"[:3])
        assert await order_of(worker, 3) == "zyy"
        await asked(worker, "zyx")
        assert "x" in (await order_of(worker, 3))

    play(scene())


def test_the_longest_wait() -> None:
    async def scene() -> None:
        worker = Worker(side(queue=Queue(max_wait_s=0.02)))
        await asked(worker, "x")
        with pytest.raises(QueueFull, match="no place came free"):
            await worker.ask("y")
        assert (worker.waiting, worker.side.shared.waiting) == (0, 0)
        worker.end()

    play(scene())


# --- leaving ---------------------------------------------------------------------------------------------------


def test_leaving_the_line() -> None:
    async def scene() -> None:
        worker = Worker(side())
        tasks = await asked(worker, "xyz")
        await stop(tasks[1])
        assert (worker.waiting, worker.side.shared.waiting, worker.side.cells.backends["a"].waiting) == (1, 1, 1)
        assert await order_of(worker, 2) == "xz"

    play(scene())


def test_leaving_in_the_moment_of_ones_turn() -> None:
    async def scene() -> None:
        worker = Worker(side())
        tasks = await asked(worker, "xyz")
        worker.end()  # y's turn, and y does not know yet
        await stop(tasks[1])
        await tasks[2]
        assert (worker.keys, worker.side.in_flight) == ("z", 1)
        worker.end()
        assert worker.side.in_flight == 0

    play(scene())


def test_leaving_at_any_moment_keeps_no_place() -> None:
    async def scene() -> None:
        worker = Worker(side(2))
        for moment in range(40):
            tasks = [worker.ask(key) for key in "abcdef"]
            await turns(moment // 4)
            for number, task in enumerate(tasks):
                if number % 2:
                    task.cancel()
            while worker.served:
                worker.end()
                await turns(moment % 3)
            while not all(task.done() for task in tasks):
                await turns()
                while worker.served:
                    worker.end()
            await asyncio.gather(*tasks, return_exceptions=True)
            while worker.served:
                worker.end()
            assert (worker.side.in_flight, worker.waiting, worker.side.shared.waiting) == (0, 0, 0)

    play(scene())


# --- what becomes of the targets meanwhile -------------------------------------------------------------------------


def test_all_targets_open_while_one_waits() -> None:
    async def scene() -> None:
        worker = Worker(side(breaker=Breaker(failures=1)))
        (_, waiter) = await asked(worker, "xy")
        worker.side.attempts.failed(worker.served[0][2], ConnectFailed("x", phase="connect"))
        with pytest.raises(TargetsOpen):
            await waiter
        assert worker.waiting == 0
        worker.end()

    play(scene())


def test_a_fallback_takes_over_while_one_waits() -> None:
    async def scene() -> None:
        worker = Worker(side(breaker=Breaker(failures=1), names="ab"), names="ab")
        (_, waiter) = await asked(worker, "xy")
        worker.side.attempts.failed(worker.served[0][2], ConnectFailed("x", phase="connect"))
        await waiter
        assert worker.served[1][2].target.upstream.name == "b"
        await order_of(worker, 2)

    play(scene())


def test_a_backend_drained_while_one_waits() -> None:
    async def scene() -> None:
        worker = Worker(side())
        (_, waiter) = await asked(worker, "xy")
        worker.side.cells.backends["a"].drained = True
        with pytest.raises(NoHealthyTarget, match="drained"):
            await waiter
        worker.end()

    play(scene())


def test_the_answer_says_how_long_it_waited() -> None:
    async def scene() -> None:
        worker = Worker(side())
        await asked(worker, "xyz")
        await order_of(worker, 2)
        await until(lambda: worker.served)
        _, sent, _ = worker.served[0]
        ((name, value),) = sent.told
        assert name == b"x-penstock-queue" and value.startswith(b"place=2; waited_ms=")
        worker.end()

    play(scene())


def test_who_failed_over_waits_for_the_others_only() -> None:
    async def scene() -> None:
        worker = Worker(side(names="ab"))
        worker.plan = worker.side.plan((target(1, name="a"), target(1, name="b")))
        await asked(worker, "xy")
        search = Search(worker.plan)
        a = next(lease for _, _, lease in worker.served if lease.target.upstream.name == "a")
        search.failed(a, for_good=True)
        sent = asks()
        waiting = starts(worker.side.attempts.seek(search, sent))
        await turns()
        cells = worker.side.cells.backends
        assert (cells["a"].waiting, cells["b"].waiting) == (0, 1)
        newcomer = worker.ask("z")
        worker.end(worker.served.index(next(row for row in worker.served if row[2] is a)))
        await newcomer  # nobody waits for a
        assert not waiting.done()
        worker.end(0)
        lease = await waiting
        assert lease.target.upstream.name == "b" and list(worker.side.attempts.line.lanes) == []
        lease.release()
        sent.close()
        worker.end()
        assert worker.side.in_flight == 0

    play(scene())


# --- over several workers ----------------------------------------------------------------------------------------


def workers(folder: Path, count: int, most: int, queue: Queue | None = None) -> list[Worker]:
    return [Worker(side(most, shared=Targets(str(folder / "targets.shm"), b"boot"), queue=queue)) for _ in range(count)]


async def settled(met: Callable[[], object]) -> None:
    """Long enough for every worker to look."""
    await until(met)
    await asyncio.sleep(2 * LOOK_S)


def test_two_workers_share_one_line(tmp_path: Path) -> None:
    async def scene() -> None:
        here, there = workers(tmp_path, 2, most=1)
        await asked(here, "xxxxx")
        await asked(there, "yz")
        assert (here.keys, there.keys, here.side.shared.waiting) == ("x", "", 6)
        order = ""
        while len(order) < 7:
            await settled(lambda: here.served or there.served)
            assert here.side.in_flight == 1
            order += (here if here.served else there).end()
        # Of each key the first that waits, and then the rest of the flood.
        assert sorted(order[1:4]) == ["x", "y", "z"] and order[4:] == "xxx"
        assert here.side.in_flight == there.side.in_flight == 0

    play(scene())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_flood_over_all_workers_and_never_too_many(tmp_path: Path, count: int) -> None:
    async def scene() -> None:
        all_workers = workers(tmp_path, count, most=3)
        for worker in all_workers:
            await asked(worker, "x" * 40)
        await asked(all_workers[-1], "y" * 5)
        order = ""
        while len(order) < 40 * count + 5:
            assert sum(len(worker.served) for worker in all_workers) <= 3
            assert all_workers[0].side.in_flight <= 3
            for worker in all_workers:
                if worker.served:
                    order += worker.end()
            await turns(1)
        await until(lambda: all_workers[0].side.in_flight == 0)
        last = len(order) - order[::-1].index("y")
        assert last <= 3 + 2 * 5 + 3 * count + 3
        assert all_workers[0].side.shared.waiting == 0

    play(scene())


def test_a_full_line_is_full_for_all_workers(tmp_path: Path) -> None:
    async def scene() -> None:
        here, there = workers(tmp_path, 2, most=1, queue=Queue(max_waiting=2))
        await asked(here, "xxx")
        with pytest.raises(QueueFull):
            await there.ask("x")
        await order_of(here, 3)

    play(scene())


def test_the_place_counts_over_all_workers(tmp_path: Path) -> None:
    async def scene() -> None:
        here, there = workers(tmp_path, 2, most=1)
        await asked(here, "abc")
        (task,) = await asked(there, "d")
        (lane,) = there.side.attempts.line.lanes.values()
        assert there.side.attempts.line.standing(lane.waiters[0])[0] >= 1
        await stop(task)
        await order_of(here, 3)

    play(scene())


def test_the_lines_of_two_generations_in_one_worker() -> None:
    """After a reload the old line's requests still count, for newcomers and for what other workers see."""

    async def scene() -> None:
        shared = Targets("", b"boot")
        old = Worker(side(1, shared=shared))
        new = Worker(side(1, shared=shared, previous=old.side.attempts))
        await asked(old, "xyz")
        await asked(new, "uv")
        cell = new.side.cells.backends["a"]
        assert (old.keys, new.keys, cell.waiting) == ("x", "", 4)
        order = ""
        while len(order) < 5:
            await settled(lambda: old.served or new.served)
            assert cell.in_flight == 1
            order += (old if old.served else new).end()
        assert sorted(order) == sorted("xyzuv")
        assert (cell.waiting, cell.in_flight, shared.waiting) == (0, 0, 0)

    play(scene())


def test_after_a_reload_those_of_before_keep_their_place() -> None:
    """A place that becomes free goes to the lowest tag, whichever App of the worker gave it back."""

    async def scene() -> None:
        before = Worker(side())
        after = Worker(side(shared=before.side.shared, previous=before.side.attempts))
        for worker in (before, after, before, after, before, before, after):
            await asked(worker, "x")  # one key, so that who comes later has the higher tag
        order = ""
        for _ in range(7):
            await until(lambda: before.served or after.served)
            assert len(before.served) + len(after.served) == 1
            order += "b" if before.served else "a"
            (before if before.served else after).end()
        assert order == "bababba"
        assert before.side.shared.waiting == 0 and before.side.in_flight == 0

    play(scene())
