"""The ASGI application: the life of a request, top to bottom in `App.handle`.

Each phase stands in the file its name says; each may raise a `PenstockError`, which becomes the answer in
`reply.refuse`. Whatever happens, the request reaches `settle`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from time import perf_counter
from typing import Any

from penstock.core.cache_rules import keep_s
from penstock.core.config import Config
from penstock.core.endpoint import Endpoint, Shape, match
from penstock.core.errors import Draining, IncompleteBody, InternalError, NotFound, PenstockError, RequestTimeout
from penstock.core.origin import OriginRules
from penstock.core.plan import Plan, TermsOf, Upstream, make_plan
from penstock.core.route import Routes, unknown_model
from penstock.proxy.admission import Admission
from penstock.proxy.cache import Cache
from penstock.proxy.discovery import Discovery
from penstock.proxy.endpoints import OWN
from penstock.proxy.endpoints.preflight import cors_lines, is_preflight, preflight
from penstock.proxy.entrance import Entrance
from penstock.proxy.exchange import ClientLeft, Exchange
from penstock.proxy.explain import begin_explaining
from penstock.proxy.health_checks import HealthChecks
from penstock.proxy.inbound import Gate, Sizes, check, discard, read_body
from penstock.proxy.log import Log
from penstock.proxy.relay import relay
from penstock.proxy.reply import cut, refuse
from penstock.proxy.request_id import RequestIds
from penstock.proxy.shared import Shared
from penstock.proxy.upstream.attempt import Attempts
from penstock.proxy.upstream.pool import Pool
from penstock.proxy.watch import Watch

# Names are strangers' input where unknown models pass to the default backend.
MAX_PLANS = 10_000
DRAINED = "this server is shutting down and the time for running requests is over"


class App:
    """Everything a worker holds, made by `lifespan.start`; one per worker, passed to whoever needs it."""

    def __init__(
        self,
        config: Config,
        *,
        routes: Routes,
        origins: OriginRules,
        entrance: Entrance,
        shared: Shared | None,
        admission: Admission | None,
        upstreams: Mapping[str, Upstream],
        terms_of: TermsOf,
        pools: Mapping[str, Pool],
        attempts: Attempts,
        health: HealthChecks,
        discovery: Discovery,
        log: Log,
        request_ids: RequestIds,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], datetime],
        version: str,
    ) -> None:
        """shared, admission: None where nothing is limited and nothing is kept."""
        self.config = config
        self._receive_s = config.server.receive_s
        self._sizes = Sizes(config.server.max_body_bytes, config.server.max_upload_bytes)
        self.routes = routes
        self.gate = Gate(origins)
        self.entrance = entrance
        self.shared = shared
        self.admission = admission
        self.watch = Watch(loop)
        self.upstreams = upstreams
        self._terms_of = terms_of
        self.pools = pools
        self.attempts = attempts
        self.cells = attempts.cells
        self.health = health
        self.discovery = discovery
        self.cache: Cache | None = None
        self.log = log
        self.request_ids = request_ids
        self.loop = loop
        self.clock = clock
        self.version = version
        self.started = loop.time()
        self.started_at = clock()
        self.draining = False
        self.active: set[Exchange] = set()
        self._plans: dict[tuple[str, str | None], Plan] = {}
        discovery.on_change = self._plans.clear

    @property
    def uptime_s(self) -> float:
        return self.loop.time() - self.started

    @property
    def kept(self) -> Shared:
        """What outlives a request. Raises NotFound where nothing does."""
        if self.shared is None:
            raise NotFound('there are no keys here and usage is not kept (store.url = "none")')
        return self.shared

    def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        """ASGI. Not a coroutine itself: one frame less on every step of every request."""
        if scope["type"] == "http":
            return self.handle(Exchange(scope, receive, send, self.loop, self._receive_s, self.request_ids.next()))
        return refuse_other(scope, receive, send)

    async def handle(self, exchange: Exchange) -> None:
        """A request, from its head to its last byte."""
        self.active.add(exchange)
        if exchange.lasts:
            self.watch.add(exchange)
        try:
            check(exchange, self.gate)
            if exchange.head.origin is not None:
                exchange.cors = cors_lines(exchange, self.gate.rules)
                if is_preflight(exchange):
                    return await preflight(exchange)
            exchange.endpoint = endpoint = match(exchange.method, exchange.path, admin=self.entrance.admin)
            if not self.entrance.enter(exchange, endpoint):
                await self.entrance.enter_by_store(exchange)
            if endpoint.own:
                return await OWN[endpoint.own](self, exchange)
            if (reading := read_body(exchange, endpoint, self._sizes)) is not None:
                await reading
            key = (endpoint.route, exchange.model)
            plan = self._plans.get(key) or await self.plan(endpoint, exchange.model)
            if exchange.head.admin_key is not None:
                begin_explaining(self, plan, exchange)
            if plan.keep_s and self.cache is not None and (kept := self.cache.serve(plan, exchange)) is not None:
                return await kept
            if self.admission is not None and endpoint.counted and not self.admission.admit(plan, exchange):
                await self.admission.admit_when_room(plan, exchange)
            reply = await self.attempts.run(plan, exchange)
            await relay(reply, exchange, endpoint)
        except PenstockError as error:
            await self._failed(exchange, error)
        except ClientLeft:
            # Also said of a body whose framing is broken, and that client is still there to be told.
            await self._failed(exchange, IncompleteBody("the body ended before it was whole, or its framing is broken"))
        except asyncio.CancelledError:
            await self._cancelled(exchange)
        except Exception as error:  # noqa: BLE001 - the outermost place: a defect costs one request, not the worker
            self.log.defect(exchange, error)
            await self._failed(exchange, InternalError("an internal error; the log has more under the request id"))
        finally:
            self.settle(exchange)

    async def plan(self, endpoint: Endpoint, model: str | None) -> Plan:
        """Decide where this endpoint and model go; the decision is kept until discovery says something new."""
        native = endpoint.shape is Shape.OLLAMA
        if model is None:
            route = self.routes.of_no_model(native=native, required=endpoint.model_required)
        else:
            found = self.routes.of_model(model, self.discovery.by_name)
            if found is None:
                await self.discovery.refresh()
                found = self.routes.of_model(model, self.discovery.by_name)
            if found is None:
                raise unknown_model(model, [*self.routes.models, *self.discovery.by_name])
            route = found
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        kept_s = keep_s(self.config, endpoint, model)
        plan = make_plan(
            endpoint, model, route, self.upstreams, self._terms_of, self.attempts.cells.balancer_of, kept_s
        )
        self._plans[endpoint.route, model] = plan
        return plan

    async def _failed(self, exchange: Exchange, error: PenstockError) -> None:
        """Answer with the error, unless part of another answer has gone out."""
        exchange.error = error
        if exchange.heartbeat is not None:
            exchange.heartbeat.stop()
        if exchange.answering:
            if exchange.heartbeat is not None and not exchange.over:
                await cut(exchange, error)  # a comment of ours has gone out, and with it the head
            return
        try:
            await discard(exchange)
            await refuse(exchange, error)
        except asyncio.CancelledError:
            if not exchange.client_left:
                raise

    async def _cancelled(self, exchange: Exchange) -> None:
        """The task was cancelled: by the client's leaving, its silence, or the end of draining."""
        if exchange.client_left:
            return
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if exchange.timed_out:
            exchange.body_read()
            limit = self.config.server.receive_s
            await self._failed(exchange, RequestTimeout(f"no byte of the body came for {limit:g} s"))
        elif exchange.answering:
            await cut(exchange, Draining(DRAINED))
        else:
            await self._failed(exchange, Draining(DRAINED, retry_after_s=1))

    def settle(self, exchange: Exchange) -> None:
        """The one end of every request: what it held is given back, its usage is booked, and one line is written."""
        ended = perf_counter()
        exchange.close()
        self.active.discard(exchange)
        if exchange.lease is not None:
            self.attempts.settle(exchange)
        if exchange.leads is not None and not exchange.leads.let_go():
            return  # its flight goes on, and settles this request at its end
        if self.admission is None or not self.admission.settle(exchange, ended):
            self.log.request(exchange, ended)
        if exchange.error is not None:
            forget_frames(exchange.error)


def forget_frames(error: BaseException) -> None:
    """An error holds its frames, they hold the request and its body, and the request holds its error.

    The collector would take the cycle apart, but it runs rarely here: 30 bad bodies of 10 MiB stayed for minutes.
    """
    error.__traceback__ = None
    error.__context__ = None


async def refuse_other(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """WebSockets are not served; lifespan is the worker's own (`proxy/lifespan.py`)."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
