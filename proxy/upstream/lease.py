"""A place at a target that a request has taken, and the search for one through the groups of a plan."""

from collections.abc import Callable
from math import ceil, inf

import msgspec

from penstock.core.errors import NoHealthyTarget, TargetsOpen
from penstock.core.plan import Group, Plan, PlannedTarget
from penstock.ext import TAKE_FULL, TAKE_PROBE

# Somebody drained them and will enable them again; nobody can say when.
DRAINED_RETRY_S = 10
Draw = Callable[[int], int]
"""(bits) -> a random number of so many bits."""


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A place at one target of a group; it counts as in flight until it is released.

    taken: as the balancer said; taken_ns: when.
    """

    group: Group
    taken: int
    taken_ns: int

    @property
    def index(self) -> int:
        """Which member of the group."""
        return self.taken % TAKE_PROBE

    @property
    def probes(self) -> bool:
        """The request is the one that tries whether an open target works again."""
        return self.taken >= TAKE_PROBE

    @property
    def target(self) -> PlannedTarget:
        return self.group.targets[self.taken % TAKE_PROBE]

    def release(self) -> None:
        """Give the place back, once."""
        self.group.balancer.release(self.taken)


class Search:
    """Where a request may still go: all groups of its plan in order, without what it has tried.

    tried, never: bit masks of the members of each group, tried in this round, and not to be tried again at all.
    """

    __slots__ = ("groups", "never", "rounds", "tried")

    def __init__(self, plan: Plan) -> None:
        self.groups = plan.groups
        self.tried = [0] * len(plan.groups)
        self.never = [0] * len(plan.groups)
        self.rounds = 0

    def take(self, now_ns: int, random: int, tag: int = 0) -> Lease | int | None:
        """A place; or the number of the group that is full, where it has to wait; None = no target is left.

        tag: its place in line, 0 = it is not in line.
        """
        for number, group in enumerate(self.groups):
            taken = group.balancer.take(now_ns, random, self.avoid(number), tag)
            if taken >= 0:
                return Lease(group, taken, now_ns)
            if taken == TAKE_FULL:
                return number
        return None

    def avoid(self, number: int) -> int:
        """The members of a group that are not to be taken."""
        return self.tried[number] | self.never[number]

    def failed(self, lease: Lease, *, for_good: bool) -> None:
        """A target was tried in vain. for_good: it is not to be tried again."""
        bit = 1 << lease.index
        for number, group in enumerate(self.groups):
            if group is lease.group:
                self.tried[number] |= bit
                if for_good:
                    self.never[number] |= bit

    def again(self) -> bool:
        """Begin another round over all targets; False if none is left that may be tried again."""
        self.rounds += 1
        self.tried = [0] * len(self.groups)
        return any(never != (1 << len(group.targets)) - 1 for group, never in zip(self.groups, self.never, strict=True))

    def opens_in_ns(self, now_ns: int) -> float:
        """How long until some target may be tried; inf where all are drained, or not to be tried again."""
        rows = (
            row
            for group, never in zip(self.groups, self.never, strict=True)
            for index, row in enumerate(group.balancer.view(now_ns))
            if not never >> index & 1
        )
        return min((retry_in_ns for _, why, _, _, _, _, retry_in_ns, _ in rows if why != "drained"), default=inf)

    def refusal(self, now_ns: int) -> NoHealthyTarget:
        """The error of a request that no target is left for."""
        wait_ns = self.opens_in_ns(now_ns)
        if wait_ns == inf:
            return NoHealthyTarget("every backend of this model is drained", retry_after_s=DRAINED_RETRY_S)
        return TargetsOpen(
            "every target of this model fails, and none is tried for now", retry_after_s=max(1, ceil(wait_ns / 1e9))
        )
