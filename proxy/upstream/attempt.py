"""Attempts: take a request to the first target that answers it.

One attempt is: a place at a target, a connection, the request, and so much of the answer that nothing is left that
could be tried elsewhere: the whole of a model's whole answer, of others the head and the first bytes of the body. A
failure goes to `course.py`, which asks the table in `core/retry.py`. Once `run` has returned, the answer belongs to
the client and nothing is tried again.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from penstock.core.config import Config
from penstock.core.errors import BackendError, BackendStatus, BadAnswer, IncompleteReply, NoHealthyTarget
from penstock.core.plan import Plan
from penstock.core.retry import is_failure, read_retry_after, source_of
from penstock.ext import MEDIA_JSON, TAKE_PROBE, ResponseHead, scan_answer
from penstock.proxy.decoding import decoded
from penstock.proxy.exchange import Exchange
from penstock.proxy.heartbeat import IDLE, begin_heartbeat
from penstock.proxy.log import Log
from penstock.proxy.upstream.connection import Connection
from penstock.proxy.upstream.course import Course
from penstock.proxy.upstream.hedge import Hedge
from penstock.proxy.upstream.lease import Draw, Lease, Search
from penstock.proxy.upstream.line import Line
from penstock.proxy.upstream.notice import Notice
from penstock.proxy.upstream.pool import Pool
from penstock.proxy.upstream.retry_budget import RetryBudget
from penstock.proxy.upstream.sending import JOIN_BYTES, request, request_lines, send_slowly
from penstock.proxy.upstream.targets import TargetCells

if TYPE_CHECKING:
    from penstock.proxy.chaos import Chaos

# How long a request waits for a breaker that is about to let somebody through, and how often it looks.
PATIENCE_S = 1.0
LOOK_S = 0.02
# A whole answer above this is not held: it goes on as it comes.
HOLD_BYTES = 16_777_216


class Reply(msgspec.Struct, frozen=True):
    """A backend's answer. connection: where the rest of it comes from, to be given back to the pool; None = `body` is
    all of it, else what was read of it already."""

    head: ResponseHead
    connection: Connection | None
    pool: Pool
    body: bytes = b""


class Refused(BackendStatus):
    """An answer that says the backend failed, under way. Whoever drops it closes it."""

    def __init__(self, reply: Reply) -> None:
        head = reply.head
        wait_s = None
        if head.retry_after is not None:
            date = next((value for name, value in head.headers if name == b"date"), None)
            wait_s = read_retry_after(head.retry_after, date)
        super().__init__(
            f"the backend {reply.pool.name!r} answered {head.status}", status=head.status, retry_after_s=wait_s
        )
        self.reply: Reply | None = reply


class Attempts:
    """One per App. now_ns: monotonic. draw: random bits. chaos: None = there are no faults on purpose.

    previous: of the App whose place it takes in this worker.
    """

    def __init__(
        self,
        config: Config,
        *,
        pools: Mapping[str, Pool],
        cells: TargetCells,
        log: Log,
        loop: asyncio.AbstractEventLoop,
        now_ns: Callable[[], int],
        draw: Draw,
        chaos: "Chaos | None" = None,
        previous: "Attempts | None" = None,
    ) -> None:
        self.rules = config.retry
        self.pools = pools
        self.cells = cells
        self.log = log
        self.loop = loop
        self._time = loop.time
        self.now_ns = now_ns
        self.draw = draw
        self.chaos = chaos
        self.budget = RetryBudget()
        notice = Notice() if previous is None else previous.line.notice
        self.line: Line = Line(cells, config.queue, loop, now_ns, draw, notice)
        self._hedge = Hedge(config.hedge.max_share) if config.hedge.max_share else None

    async def run(self, plan: Plan, exchange: Exchange) -> Reply:
        """The first answer a target gives that need not be tried elsewhere.

        Raises BackendError, NoHealthyTarget, QueueFull. `exchange.lease` is the place at the target, until `settle`.
        """
        self.budget.requests += 1
        if plan.heartbeat_s:
            begin_heartbeat(plan.heartbeat_s, exchange, self.comment, self.loop)
        now_ns = self.now_ns()
        group = plan.groups[0]
        taken = group.balancer.take(now_ns, self.draw(64))
        if taken >= 0:
            exchange.lease = lease = Lease(group, taken, now_ns)
        else:
            exchange.lease = lease = await self.seek(Search(plan), exchange)
            now_ns = self.now_ns()  # what it waited in line says nothing of the target
        if lease.taken >= TAKE_PROBE:
            self.tell_probe(lease)
        try:
            if self._hedge is None or not self._hedge.applies(plan, exchange):
                reply = await self.attempt(lease, exchange, now_ns)
            else:
                reply = await self._hedge.attempt(self, lease, exchange)
        except (BackendError, NoHealthyTarget) as error:
            return await Course(self, plan, exchange, exchange.lease or lease).run(error, now_ns)
        if exchange.explains:
            exchange.tried((exchange.lease or lease).target, now_ns, self.now_ns(), "answered", reply.head.status)
        if reply.connection is None:
            self.release(exchange)
        return reply

    async def seek(self, search: Search, exchange: Exchange) -> Lease:
        """A place at a target, standing in line for it if need be. Raises NoHealthyTarget, QueueFull."""
        found = await self.take_soon(search)
        if isinstance(found, Lease):
            return found
        if found is None:
            raise search.refusal(self.now_ns())
        return await self.line.wait(search, found, exchange)

    async def take_soon(self, search: Search) -> Lease | int | None:
        """As `Search.take`; where all breakers are open and one is about to close, or a probe is out that tells, wait a
        moment: a backend that comes back is no reason to refuse anybody."""
        until = self._time() + PATIENCE_S
        while (found := search.take(self.now_ns(), self.draw(64))) is None:
            if search.opens_in_ns(self.now_ns()) > PATIENCE_S * 1e9 or self._time() >= until:
                return None
            await asyncio.sleep(LOOK_S)
        return found

    async def attempt(self, lease: Lease, exchange: Exchange, began_ns: int, fresh: bool = False) -> Reply:
        """One attempt at one target, which `lease` is a place at; on a new connection if fresh.

        Raises BackendError (Refused: the answer says it), NoHealthyTarget. One frame for all of it, and what stands
        here costs every request: a call more is 0.1 us.
        """
        target = lease.group.targets[lease.taken % TAKE_PROBE]
        pool = self.pools[target.upstream.name]
        exchange.backend = pool.name
        exchange.attempts += 1
        # A streamed body can be sent once only, so it never goes on a connection that may have died while idle.
        fresh = fresh or exchange.upload is not None
        hit = self.chaos.of(target, exchange) if self.chaos is not None and self.chaos.on else None
        if hit is not None and (instead := await hit.before(exchange)) is not None:
            return _of_chaos(Reply(instead.response, None, pool, instead.take()))
        connection = None if fresh else pool.take()
        if connection is None:
            exchange.since = exchange.since or self._time()
            connection = await pool.connect(fresh=fresh)
            began_ns = self.now_ns()
        try:
            timeouts = target.upstream.timeouts
            now = self._time()
            exchange.since = since = exchange.since or now
            connection.total_deadline = since + timeouts.total_s
            connection.deadline = now + timeouts.first_byte_s
            exchange.target = target
            exchange.sent = perf_counter()
            start = target.start if target.start and not exchange.query else request_lines(target, exchange)
            if exchange.upload is not None or len(exchange.body) > JOIN_BYTES:
                await send_slowly(target, exchange, connection, start)
            else:
                connection.send(request(target, exchange, start), exchange.method == "HEAD")
            while (head := connection.response) is None:
                await connection.news()
            answered_ns = self.now_ns()
            if hit is not None:
                connection = hit.wrap(connection)
            body = b""
            status = head.status
            failing = status >= 429 and is_failure(status)
            if status == 200 and head.media == MEDIA_JSON and (dialect := held_dialect(head, exchange)) is not None:
                body = connection.take()
                if not connection.complete:
                    body = await _rest(connection, body)
                if connection.complete:
                    check_whole(head, body, dialect, exchange)
            elif not failing:
                while not connection.readable:
                    await connection.news()
        except BaseException:
            # A failure, or the client left: either way the backend must stop working on it now.
            connection.close()
            raise
        if failing:
            raise Refused(Reply(head, connection, pool))
        if lease.group.balancer.answered(lease.taken, answered_ns, answered_ns - began_ns):
            self._tell(lease, "closed", "the probe was answered")
        if self._hedge is not None:
            self._hedge.measure(lease, answered_ns - began_ns)
        if body and connection.complete:
            pool.release(connection)
            return Reply(head, None, pool, body)
        return Reply(head, connection, pool, body)

    def comment(self, exchange: Exchange) -> bytes:
        """What a heartbeat says."""
        if exchange.waiter is None:
            return IDLE
        return b": waiting place=%d estimate_s=%d\n\n" % self.line.standing(exchange.waiter)

    # --- places, and what targets are told -------------------------------------------------------------------

    def settle(self, exchange: Exchange) -> None:
        """The request has ended: its place is free, and its target told if the answer broke off."""
        error = exchange.error
        if exchange.lease is not None and isinstance(error, BackendError):
            self.failed(exchange.lease, error, late=True)
        self.release(exchange)

    def release(self, exchange: Exchange) -> None:
        lease, exchange.lease = exchange.lease, None
        if lease is not None:
            lease.group.balancer.release(lease.taken)
            if self.line.lanes:
                self.line.freed(lease, perf_counter() - exchange.sent if exchange.sent else 0.0)

    def failed(self, lease: Lease, error: Exception, *, late: bool = False) -> None:
        """Tell the target's breaker of a failure; what is no fault of the target's is none. late: it had answered."""
        if not isinstance(error, BackendError) or error.stale:
            return
        now_ns = self.now_ns()
        # A backend that broke its connections may have died and be back: a health check can tell.
        vanished = error.phase == "connect" or source_of(error) == "lost"
        if lease.group.balancer.failed(lease.taken, now_ns, vanished, late, lease.taken_ns):
            cell = self.cells.members(lease.group.balancer)[lease.index].target
            requests, failures = cell.window(now_ns)
            self._tell(
                lease,
                "open",
                f"{cell.failures_in_row} failures in a row, {failures} of {requests} requests in the window; "
                f"the last: {error.message}",
            )

    def tell_probe(self, lease: Lease) -> None:
        self._tell(lease, "half_open", "one request tries whether it works again")

    def _tell(self, lease: Lease, state: str, why: str) -> None:
        target = lease.target
        self.cells.change(self.log, target.upstream.name, target.model, state, why)


def held_dialect(head: ResponseHead, exchange: Exchange) -> int | None:
    """The dialect of a model's whole answer, which is held; None = it is another answer, or too long."""
    if exchange.endpoint is None or (head.content_length or 0) > HOLD_BYTES:
        return None
    return exchange.endpoint.dialect


def _of_chaos(reply: Reply) -> Reply:
    """An answer no backend gave. Raises Refused."""
    if is_failure(reply.head.status):
        raise Refused(reply)
    return reply


async def _rest(connection: Connection, first: bytes) -> bytes:
    """The rest of a body that is held, as far as it is."""
    parts, size = [first], len(first)
    while not connection.complete and size <= HOLD_BYTES:
        parts.append(await connection.read())
        size += len(parts[-1])
    return b"".join(parts)


def check_whole(head: ResponseHead, body: bytes, dialect: int, exchange: Exchange) -> None:
    """Read the usage of a model's answer. Raises IncompleteReply if it is a cut one, BadAnswer if it is none."""
    text = decoded(body, head.headers) if head.encoded else body
    answer = None if text is None else scan_answer(text, dialect)
    if answer is not None:
        exchange.usage, exchange.finish_reason = answer.usage, answer.finish_reason
        if not answer.complete:
            raise IncompleteReply("the backend's answer has no finish_reason: it was cut off", phase="body")
    elif text is not None and not _is_json(text):
        raise BadAnswer("the backend's answer is not JSON, though it says so", phase="body")


def _is_json(text: bytes) -> bool:
    """As generously as clients read it: with a byte order mark, with NaN, and lists."""
    if text[:1] == b"[":
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
