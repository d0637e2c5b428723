"""What follows when a request's first attempt has failed: other targets, the same again, or the end."""

import asyncio
from typing import TYPE_CHECKING

from penstock.core.errors import BackendError, CapacityError, NoHealthyTarget
from penstock.core.plan import Plan
from penstock.core.retry import MOST_PATIENCE_S, Decision, decide, pause_s
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.lease import Lease, Search

if TYPE_CHECKING:
    from penstock.proxy.upstream.attempt import Attempts, Reply

HARMLESS_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# An answer that says "failed" is kept while another target is tried, if it is whole within this time and size.
KEEP_S = 0.25
KEEP_BYTES = 1_048_576


class Course:
    """One per request that needs it. lease: where its first attempt failed."""

    def __init__(self, attempts: "Attempts", plan: Plan, exchange: Exchange, lease: Lease) -> None:
        self._lease = lease
        self._attempts = attempts
        self._plan = plan
        self._exchange = exchange
        self._search = Search(plan)
        self._made = 1
        self._kept: Reply | None = None

    async def run(self, error: BackendError | NoHealthyTarget, began_ns: int) -> "Reply":
        """The answer after all; or the last a backend gave, which says that it failed. Raises the last error."""
        attempts, exchange = self._attempts, self._exchange
        while (fresh := await self._next(error, began_ns)) is not None:
            began_ns = attempts.now_ns()
            try:
                reply = await attempts.attempt(self._lease, exchange, began_ns, fresh)
            except (BackendError, NoHealthyTarget) as failure:
                error.__traceback__ = None  # it holds frames that hold the error
                error = failure
                continue
            exchange.tried(self._lease.target, began_ns, attempts.now_ns(), "answered", reply.head.status)
            if reply.connection is None:
                attempts.release(exchange)
            return reply
        return self._last(error)

    async def _next(self, error: BackendError | NoHealthyTarget, began_ns: int) -> bool | None:
        """Take the next place; whether a new connection has to be made there. None = nothing is tried any more."""
        attempts, exchange, lease = self._attempts, self._exchange, self._lease
        exchange.tried(lease.target, began_ns, attempts.now_ns(), error.message, status_of(error))
        decision = self._decide(error)
        if decision is Decision.NEW_CONNECTION:
            return True
        attempts.failed(lease, error)
        attempts.release(exchange)
        if decision is Decision.GIVE_UP or not attempts.budget.spend():
            return None
        self._search.failed(lease, for_good=decision is Decision.OTHER_TARGET or asks_for_long(error))
        await self._keep(error)
        found = await self._seek(error)
        if found is None:
            return None
        exchange.lease = self._lease = found
        self._made += 1
        if found.probes:
            attempts.tell_probe(found)
        return False

    def _decide(self, error: BackendError | NoHealthyTarget) -> Decision:
        exchange, attempts = self._exchange, self._attempts.rules.attempts
        if isinstance(error, NoHealthyTarget):  # all connections to it are busy
            return Decision.OTHER_TARGET if self._made < attempts else Decision.GIVE_UP
        return decide(
            error,
            replayable=exchange.upload is None or not exchange.upload.begun,
            repeatable=self._plan.endpoint.repeatable or exchange.method in HARMLESS_METHODS,
            attempt=self._made,
            attempts=attempts,
        )

    async def _seek(self, error: BackendError | NoHealthyTarget) -> Lease | None:
        """A place at a target that was not tried in this round, else, after a pause, at any that may be tried again."""
        attempts, search = self._attempts, self._search
        found = search.take(attempts.now_ns(), attempts.draw(64))
        if found is None and search.again():
            share = attempts.draw(32) / 2**32
            pause = pause_s(search.rounds, attempts.rules.backoff_ms, share, retry_after_s(error))
            if pause is None:
                return None
            await asyncio.sleep(pause)
            found = await attempts.take_soon(search)
        if found is None or isinstance(found, Lease):
            return found
        try:
            return await attempts.line.wait(search, found, self._exchange)
        except CapacityError:
            if self._kept is None:
                raise
            return None

    async def _keep(self, error: BackendError | NoHealthyTarget) -> None:
        """Hold on to an answer that says "failed", in case nothing better comes; its connection is given back."""
        reply = reply_of(error)
        if reply is None or reply.connection is None:
            self._kept = reply or self._kept
            return
        error.reply = None  # type: ignore[union-attr]
        connection = reply.connection
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(KEEP_S):
                while not connection.complete and sum(map(len, parts)) < KEEP_BYTES:
                    parts.append(await connection.read())
            if connection.complete:
                self._kept = type(reply)(reply.head, None, reply.pool, b"".join(parts))
        except (TimeoutError, BackendError):
            pass
        finally:
            reply.pool.release(connection)

    def _last(self, error: BackendError | NoHealthyTarget) -> "Reply":
        reply = reply_of(error) or self._kept
        if reply is None:
            raise error
        self._exchange.backend = reply.pool.name
        return reply


def reply_of(error: Exception) -> "Reply | None":
    """The answer that was the failure, if it was one and is still there."""
    reply: Reply | None = getattr(error, "reply", None)
    return reply


def status_of(error: Exception) -> int:
    """The status a backend answered with; 0 if it did not."""
    return error.status if isinstance(error, BackendError) and error.phase == "status" else 0


def retry_after_s(error: BackendError | NoHealthyTarget) -> float | None:
    """What a backend asked for."""
    return error.retry_after_s if isinstance(error, BackendError) else None


def asks_for_long(error: BackendError | NoHealthyTarget) -> bool:
    wait_s = retry_after_s(error)
    return wait_s is not None and wait_s > MOST_PATIENCE_S
