"""Plans: everything about a request that depends only on (endpoint, model), decided once and executed often."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from penstock.core.endpoint import EXACT, Endpoint
from penstock.core.route import Target


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds each phase of an attempt may take; inf = no limit. idle_s is the silence between two reads."""

    connect_s: float
    send_s: float
    first_byte_s: float
    idle_s: float
    total_s: float


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """What every request to one backend shares.

    v1, api: path prefixes our /v1 and /api go to there.
    lines: header lines of ours, each ended by CRLF: Host and the backend's credential.
    """

    name: str
    v1: bytes
    api: bytes
    lines: bytes
    timeouts: Timeouts

    def path(self, path: bytes) -> bytes:
        """The path a request has on this backend: /v1/X -> {url}/X, /api/X -> {url}/api/X."""
        return self.v1 + path[3:] if path.startswith(b"/v1/") else self.api + path

    def start(self, method: str, target: bytes) -> bytes:
        """Request line and our header lines; `target` is our path, and the query if there is one."""
        return b"%b %b HTTP/1.1\r\n%b" % (method.encode(), self.path(target), self.lines)


class PlannedTarget(msgspec.Struct, frozen=True):
    """One place to try.

    start: request line and our header lines, where the endpoint has one method and one path; b"" = made per request.
    rename, rename_json: its name for the model where that differs, as text and as a JSON string.
    """

    upstream: Upstream
    start: bytes
    rename: str | None
    rename_json: bytes | None


class Plan(msgspec.Struct, frozen=True):
    """The decision for one (endpoint, model): targets in the order to try them."""

    endpoint: Endpoint
    model: str | None
    targets: tuple[PlannedTarget, ...]


def upstream(name: str, kind: str, url: str, secret: bytes, timeouts: Timeouts) -> Upstream:
    """The shared part of a backend's requests, from its configuration.

    An openai URL is the API base as SDKs call it (it ends in /v1 as a rule); the others are the server's root.
    """
    parts = urlsplit(url)
    base = parts.path.rstrip("/").encode()
    lines = b"host: %b\r\n" % parts.netloc.encode()
    if secret:
        lines += b"x-api-key: %b\r\n" % secret if kind == "anthropic" else b"authorization: Bearer %b\r\n" % secret
    return Upstream(
        name=name,
        v1=base if kind in ("openai", "demo") else base + b"/v1",
        api=base,
        lines=lines,
        timeouts=timeouts,
    )


def make_plan(
    endpoint: Endpoint, model: str | None, targets: tuple[Target, ...], upstreams: Mapping[str, Upstream]
) -> Plan:
    """Bind targets to their backends and work out what must be rewritten for each."""
    bound = (_planned(endpoint, upstreams[target.backend], model, target.model) for target in targets)
    return Plan(endpoint, model, tuple(bound))


def _planned(endpoint: Endpoint, upstream: Upstream, model: str | None, name: str | None) -> PlannedTarget:
    start = b""
    if len(endpoint.methods) == 1 and (path := endpoint.route.encode()) in EXACT:
        (method,) = endpoint.methods
        start = upstream.start(method, path)
    if model is None or name is None or name == model:
        return PlannedTarget(upstream, start, None, None)
    return PlannedTarget(upstream, start, name, msgspec.json.encode(name))
