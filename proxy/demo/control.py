"""/demo/…: the figures of the demo backend; no fault ever hits these."""

from __future__ import annotations

from penstock.proxy.demo.answer import Answer, json_answer
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo


def stats(request: Request, demo: Demo) -> Answer:
    return json_answer(demo.stats.report())


def reset(request: Request, demo: Demo) -> Answer:
    demo.stats.reset()
    return json_answer(demo.stats.report())


def redirected(request: Request, demo: Demo) -> Answer:
    """Where the fault `redirect` points: a proxy that follows by itself gives itself away."""
    return json_answer({"redirected": True, "method": request.head.method})
