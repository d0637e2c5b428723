"""The models that backends report: asked for at start, at an interval, and when somebody asks for an unknown one."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from penstock.core.errors import PenstockError
from penstock.core.plan import Upstream
from penstock.proxy.log import Log
from penstock.proxy.upstream.fetch import fetch_json
from penstock.proxy.upstream.pool import Pool

REFRESH_S = 30.0
# An unknown name makes us ask again, but not more often than this: anybody can send unknown names.
ASK_AGAIN_S = 2.0
FETCH_S = 5.0


class Discovery:
    """backends: those whose models are ours too, in the file's order."""

    def __init__(
        self,
        backends: tuple[str, ...],
        upstreams: Mapping[str, Upstream],
        pools: Mapping[str, Pool],
        log: Log,
    ) -> None:
        self._backends = backends
        self._upstreams = upstreams
        self._pools = pools
        self._log = log
        self._reports: dict[str, list[dict[str, Any]]] = {}
        self._failing: dict[str, str] = {}
        self._asked = float("-inf")
        self._refresh: asyncio.Task[None] | None = None
        self.by_name: dict[str, tuple[str, ...]] = {}
        """Every backend that reports a name, in the file's order."""
        self.on_change: Callable[[], None] = lambda: None

    @property
    def models(self) -> list[dict[str, Any]]:
        """The model objects as reported, without doubles."""
        seen: dict[str, dict[str, Any]] = {}
        for backend in self._backends:
            for model in self._reports.get(backend, ()):
                seen.setdefault(model["id"], model)
        return list(seen.values())

    def take_over(self, previous: "Discovery", same: Collection[str]) -> None:
        """Before the first refresh: know what an earlier one was told by the backends that are still the same ones."""
        for backend in self._backends:
            if backend in same and backend in previous._reports:
                self._reports[backend] = previous._reports[backend]
                if backend in previous._failing:
                    self._failing[backend] = previous._failing[backend]
        if len(self._reports) == len(self._backends):
            self._asked = previous._asked
        self._index()

    async def run(self) -> None:
        """Refresh for ever; owned by the lifespan."""
        await asyncio.sleep(max(self._asked + REFRESH_S - asyncio.get_running_loop().time(), 0.0))
        while self._backends:
            await self.refresh()
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Ask every backend now; joins a refresh that is under way, and does nothing right after one."""
        loop = asyncio.get_running_loop()
        if self._refresh is None:
            if loop.time() - self._asked < ASK_AGAIN_S:
                return
            self._asked = loop.time()
            self._refresh = loop.create_task(self._ask_all())
        await asyncio.shield(self._refresh)

    async def _ask_all(self) -> None:
        try:
            await asyncio.gather(*(self._ask(backend) for backend in self._backends))
            self._index()
        finally:
            self._refresh = None

    async def _ask(self, backend: str) -> None:
        try:
            answer = await fetch_json(self._upstreams[backend], self._pools[backend], b"/v1/models", timeout_s=FETCH_S)
            listed = answer.get("data") if isinstance(answer, dict) else None
            self._reports[backend] = [m for m in listed or () if isinstance(m, dict) and isinstance(m.get("id"), str)]
            self._failing.pop(backend, None)
        except PenstockError as error:
            # The last report stays: a backend that is away for a moment must not make its models unknown.
            if self._failing.get(backend) != error.message:
                self._failing[backend] = error.message
                self._log.event("warning", "a backend does not tell its models", backend=backend, error=error.message)

    def _index(self) -> None:
        names = serving(
            (backend, [model["id"] for model in self._reports.get(backend, ())]) for backend in self._backends
        )
        if names != self.by_name:
            self.by_name = names
            self.on_change()


def serving(reports: Iterable[tuple[str, Iterable[str]]]) -> dict[str, tuple[str, ...]]:
    """Every backend that reports a name, in the order of `reports`: (backend, names) each."""
    names: dict[str, tuple[str, ...]] = {}
    for backend, reported in reports:
        for name in dict.fromkeys(reported):
            names[name] = (*names.get(name, ()), backend)
    # Ollama's clients leave the tag out where it is "latest".
    for name in [name for name in names if name.endswith(":latest")]:
        names.setdefault(name.removesuffix(":latest"), names[name])
    return names
