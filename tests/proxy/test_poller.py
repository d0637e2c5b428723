"""The parent's loop: timers in their order, sources that come and go, signals as something to be read."""

import os
import signal
import socket
from collections.abc import Callable

from penstock.proxy.link import Link
from penstock.proxy.poller import Poller, Signals


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_timers_fire_in_their_order_unless_cancelled() -> None:
    clock, fired = Clock(), list[str]()
    poller = Poller(clock)
    poller.later(0.2, lambda: fired.append("second"))
    poller.later(0.1, lambda: fired.append("first"))
    poller.later(0.15, lambda: fired.append("never")).cancel()
    clock.now = 0.1
    poller.turn()
    assert fired == ["first"]
    clock.now = 0.3
    poller.turn()
    assert fired == ["first", "second"]
    poller.close()


def test_a_source_that_is_removed_in_its_own_turn() -> None:
    poller = Poller(Clock())
    ours, theirs = Link.pair()
    other, others = Link.pair()
    heard = list[str]()

    def hear_and_go(link: Link) -> Callable[[object], None]:
        def hear(message: object) -> None:
            heard.append("heard")
            for each in (ours, other):
                poller.remove(each)

        return hear

    for link in (ours, other):
        link.on_message = hear_and_go(link)
        poller.add(link)
    theirs.send("a")
    others.send("b")
    poller.turn()
    assert heard == ["heard"] and ours.fileno() == other.fileno() == -1
    poller.remove(ours)
    theirs.close()
    others.close()
    poller.close()


def test_more_is_written_when_there_is_room() -> None:
    poller = Poller(Clock())
    ours, theirs = Link.pair()
    sizes = list[int]()
    theirs.on_message = lambda message: sizes.append(len(message.payload))
    poller.add(ours)
    poller.add(theirs)
    ours.send("build", b"x" * 5_000_000)
    assert ours.wants_write
    while not sizes:
        poller.turn()
    assert sizes == [5_000_000] and not ours.wants_write
    poller.close()


def test_signals_are_read_and_end_with_the_loop() -> None:
    caught = list[int]()
    poller = Poller(Clock())
    poller.add(Signals([signal.SIGUSR1], caught.append))
    os.kill(os.getpid(), signal.SIGUSR1)
    poller.turn()
    assert caught == [signal.SIGUSR1]
    poller.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_closing_in_a_fork_leaves_the_parents_loop_alone() -> None:
    """What poll(2) is there for."""
    poller = Poller(Clock())
    ours, theirs = Link.pair()
    heard = list[str]()
    ours.on_message = lambda message: heard.append(message.word)
    poller.add(ours)
    if not (pid := os.fork()):
        poller.close()
        os._exit(0)
    os.waitpid(pid, 0)
    theirs.send("still")
    poller.turn()
    assert heard == ["still"]
    theirs.close()
    poller.close()


def test_an_end_is_told() -> None:
    poller = Poller(Clock())
    one, other = socket.socketpair()
    link, over = Link(one), list[int]()
    link.on_end = lambda: over.append(1)
    poller.add(link)
    other.close()
    poller.turn()
    assert over == [1]
    poller.close()
