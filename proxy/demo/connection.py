"""The requests of one connection: taken in, handed to their endpoint, answered one at a time."""

from __future__ import annotations

from typing import TypeGuard

from penstock.proxy.demo import faults, http, routes
from penstock.proxy.demo.answer import BLOCK_BYTES, Answer, Refused, Whole
from penstock.proxy.demo.options import Control
from penstock.proxy.demo.request import Body, Request
from penstock.proxy.demo.script import script_for
from penstock.proxy.demo.sender import send
from penstock.proxy.demo.state import Demo
from penstock.proxy.demo.wire import Wire

_IDLE_CLOSE_MAX_S = 0.005
_IDLE_CLOSE_FAULT_MAX_S = 0.020


class Connection(Wire):
    def __init__(self, demo: Demo, connections: set[Wire]) -> None:
        super().__init__(demo, connections)
        self._parser = http.Parser()
        self._head: http.Head | None = None
        self._route = routes.UNKNOWN
        self._control = demo.control
        self._is_fresh = True  # no request yet
        self._closes_on_next_request = False

    def data_received(self, data: bytes) -> None:
        if self._closes_on_next_request:
            # both happen to clients in nature, so both happen here
            self.reset() if self._demo.rng.random() < 0.5 else self.close()
            return
        self.stay_open()
        self._parser.feed(data)
        if self._task is None:
            self._advance()

    def _advance(self) -> None:
        """Takes in and answers what has arrived; the bytes of a next request wait for the answer's end."""
        try:
            while self._task is None and not self._closed:
                if self._head is None:
                    head = self._parser.head()
                    if head is None:
                        return
                    self._begin(head)
                while data := self._parser.body():
                    self._body.feed(data)
                if data is None:
                    return
                self._answer()
        except http.BadRequest as error:
            self._refuse_and_close(Refused(400, str(error)))
        except Refused as refused:
            self._refuse_and_close(refused)

    def _begin(self, head: http.Head) -> None:
        """The head is there, the body is not."""
        self._head = head
        self.begin_request(head.path)
        self._observe_or_not()
        self._route = routes.find(head.method, head.path)
        self._control = self._demo.calm_control if self._is_observer else self._demo.control_for(head.fields)
        fault = self._control.fault
        if fault is not None and fault.name == "early":
            raise Refused(fault.value or 413, "refused before the body was read")
        self._body = Body(self._route.keep, head.fields.get("content-type", ""))
        if head.expects_continue:
            self.write(http.CONTINUE)

    def _observe_or_not(self) -> None:
        if self._is_observer and self._is_fresh:
            self._is_counted = False
            self._demo.stats.connection_is_observer()
        self._is_fresh = False

    def _answer(self) -> None:
        assert self._head is not None  # noqa: S101 - for the type checker
        head, self._head = self._head, None
        self.phase = "waiting"
        try:
            answer = self._route.handler(Request(head, head.path, self._control, self._body), self._demo)
        except Refused as refused:
            answer = self._refusal(refused)
        if _is_plain(answer, head, self._control):
            self._answer_at_once(answer, keep_alive=head.wants_keep_alive, version=head.version)
        else:
            self._task = self._loop.create_task(self._send(answer, head))

    def _answer_at_once(self, answer: Whole, *, keep_alive: bool, version: str = "HTTP/1.1") -> None:
        """What a script would send, without a task: most requests of a benchmark."""
        body = b"".join(answer.pieces())
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(body))), *answer.headers]
        if not keep_alive:
            headers.append(("Connection", "close"))
        elif version == "HTTP/1.0":
            headers.append(("Connection", "keep-alive"))
        self.write(http.answer_head(answer.status, headers) + body)
        self.finish(keep_alive=keep_alive)

    async def _send(self, answer: Answer, head: http.Head) -> None:
        is_sent = False
        try:
            script = script_for(answer, head, self._route.error)
            if self._control.fault is not None:
                faults.apply(self._control.fault, script)
            await send(self, script, first_s=self._control.first_s, rate=self._control.rate)
            is_sent = True
        finally:
            if not is_sent:
                self.abort()
        self._task = None
        self._advance()

    def _refuse_and_close(self, refused: Refused) -> None:
        """The rest of the request is not read, so the connection is of no more use."""
        self._answer_at_once(self._refusal(refused), keep_alive=False)

    def _refusal(self, refused: Refused) -> Whole:
        body = self._route.error(refused.status, refused.message, refused.param, refused.code)
        return Whole(body, refused.status)

    def finish(self, *, keep_alive: bool) -> None:
        was_observer = self._is_observer
        super().finish(keep_alive=keep_alive)
        if keep_alive and not was_observer:
            self._maybe_close_while_idle()

    def _maybe_close_while_idle(self) -> None:
        options, rng = self._demo.options, self._demo.rng
        if self._control.has_fault("idleclose"):
            self.close_in(rng.uniform(0, _IDLE_CLOSE_FAULT_MAX_S))
        elif options.idle_close_probability and rng.random() < options.idle_close_probability:
            if rng.random() < 0.5:
                self.close_in(rng.uniform(0, _IDLE_CLOSE_MAX_S))
            else:
                self._closes_on_next_request = True


def _is_plain(answer: Answer, head: http.Head, control: Control) -> TypeGuard[Whole]:
    """Nothing to wait for, nothing to break, small enough for one write."""
    return (
        isinstance(answer, Whole)
        and (control.fault is None or faults.leaves_answer_alone(control.fault))
        and not control.first_s
        and not answer.chunked
        and len(answer.body) <= BLOCK_BYTES
        and head.method != "HEAD"
    )
