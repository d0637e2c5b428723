"""What penstock answers: the table of endpoints, and which one a request line means."""

from enum import Enum
from typing import Literal

import msgspec

from penstock.core.errors import InvalidRequest, MethodNotAllowed, NotFound
from penstock.ext import DIALECT_CHAT, DIALECT_MESSAGES, DIALECT_OLLAMA, DIALECT_RESPONSES


class Shape(Enum):
    """Whose error envelope and body rules an endpoint follows."""

    OPENAI = "openai"
    OLLAMA = "ollama"


Access = Literal["open", "key", "admin"]
Unit = Literal["tokens", "input", "images", "audio"]
IpClass = Literal["chat", "search", "general"]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table.

    route: the path template, as logs and metrics name it.
    methods: the methods it takes; empty = any.
    own: answered by penstock itself, under this name (`proxy/endpoints`); "" = by a backend.
    model_required: a body without "model" is 400 unless there is a default backend.
    json_only: any other Content-Type is 415, and the body is held; else bodies that are not JSON stream through.
    dialect: how its replies mark their end; None = by framing alone.
    access: who may call: anyone, whoever has a key, the holder of the admin key.
    counted: answers with a model, so it counts as a request, costs money and has a usage row.
    unit: what its answers are paid by; input = by the request's tokens alone.
    ip_class: which limit per address it counts for.
    tells_of_keys: its answer says whether a key is good, so it counts for the limit of addresses without one.
    repeatable: it only computes, whatever the method: a request that failed may be sent again.
    """

    route: str
    methods: frozenset[str] = frozenset()
    own: str = ""
    shape: Shape = Shape.OPENAI
    model_required: bool = False
    json_only: bool = False
    dialect: int | None = None
    access: Access = "key"
    counted: bool = False
    unit: Unit = "tokens"
    ip_class: IpClass = "general"
    tells_of_keys: bool = False
    repeatable: bool = False


GET = frozenset({"GET", "HEAD"})
POST = frozenset({"POST"})


def _model(route: str, dialect: int, *, ip_class: IpClass = "chat") -> Endpoint:
    return Endpoint(
        route=route,
        methods=POST,
        model_required=True,
        json_only=True,
        dialect=dialect,
        counted=True,
        unit="input" if ip_class == "search" else "tokens",
        ip_class=ip_class,
        repeatable=True,
    )


def _own(route: str, name: str, methods: frozenset[str] = GET, *, access: Access = "key") -> Endpoint:
    return Endpoint(route=route, methods=methods, own=name, access=access)


def _ollama(route: str, methods: frozenset[str] = POST, *, repeatable: bool = False) -> Endpoint:
    return Endpoint(route=route, methods=methods, shape=Shape.OLLAMA, repeatable=repeatable)


def _ollama_model(route: str, *, dialect: int | None = None, ip_class: IpClass = "chat") -> Endpoint:
    return Endpoint(
        route=route,
        methods=POST,
        shape=Shape.OLLAMA,
        dialect=dialect,
        counted=True,
        ip_class=ip_class,
        repeatable=True,
    )


EXACT: dict[bytes, Endpoint] = {
    endpoint.route.encode(): endpoint
    for endpoint in (
        _model("/v1/chat/completions", DIALECT_CHAT),
        _model("/v1/completions", DIALECT_CHAT),
        _model("/v1/embeddings", DIALECT_CHAT, ip_class="search"),
        _model("/v1/responses", DIALECT_RESPONSES),
        Endpoint(
            route="/v1/messages",
            methods=POST,
            json_only=True,
            dialect=DIALECT_MESSAGES,
            counted=True,
            ip_class="chat",
            repeatable=True,
        ),
        Endpoint(route="/v1/rerank", methods=POST, counted=True, unit="input", ip_class="search", repeatable=True),
        Endpoint(route="/v1/moderations", methods=POST, counted=True, unit="input", repeatable=True),
        _own("/v1/models", "models"),
        _own("/health", "health", access="open"),
        _own("/health/live", "live", access="open"),
        _own("/health/ready", "ready", access="open"),
        _own("/api/llm/health", "llm_health"),
        _own("/usage", "usage"),
        Endpoint(route="/auth/verify-key", methods=POST, own="verify_key", access="open", tells_of_keys=True),
        _own("/auth/create-key", "create_key", POST, access="admin"),
        _own("/auth/keys", "list_keys", access="admin"),
        _own("/auth/revoke-key", "revoke_key", POST, access="admin"),
        _own("/auth/rotate-key", "rotate_key", POST, access="admin"),
        _own("/auth/update-key", "update_key", POST, access="admin"),
        _own("/admin/stats", "admin_stats", access="admin"),
        _own("/admin/usage", "admin_usage", access="admin"),
        _own("/admin/cache", "cache", access="admin"),
        _own("/admin/cache/clear", "clear_cache", POST, access="admin"),
        _own("/admin/chaos", "chaos", GET | {"POST", "DELETE"}, access="admin"),
        _own("/admin/backends", "backends", access="admin"),
        _own("/admin/explain", "explain", POST, access="admin"),
        _ollama_model("/api/chat", dialect=DIALECT_OLLAMA),
        _ollama_model("/api/generate", dialect=DIALECT_OLLAMA),
        _ollama_model("/api/embed", dialect=DIALECT_OLLAMA, ip_class="search"),
        _ollama_model("/api/embeddings", ip_class="search"),
        _ollama("/api/tags", GET),
        _ollama("/api/ps", GET),
        _ollama("/api/show", repeatable=True),
        _ollama("/api/version", GET),
        _ollama("/api/pull"),
        _ollama("/api/create"),
        _ollama("/api/copy"),
        _ollama("/api/delete", frozenset({"DELETE"})),
        _ollama("/api/push"),
    )
}

# Everything else under /v1 goes to a backend as it is. Whatever may be a model's answer counts, however its path is
# spelt: a backend may take /v1/chat/completions/ for the same as the path without the slash.
PASSED = Endpoint(route="/v1/*")
PASSED_COUNTED = Endpoint(route="/v1/*", counted=True)
READING = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
STORING = (b"/v1/files", b"/v1/uploads", b"/v1/vector_stores")

PREFIXES: tuple[tuple[bytes, Endpoint], ...] = (
    (b"/v1/models/", Endpoint(route="/v1/models/{id}", methods=GET, own="model")),
    (b"/admin/chaos/", _own("/admin/chaos/{id}", "chaos_fault", frozenset({"DELETE"}), access="admin")),
    (b"/v1/images/", Endpoint(route="/v1/images/*", counted=True, unit="images", repeatable=True)),
    (b"/v1/audio/", Endpoint(route="/v1/audio/*", counted=True, unit="audio", repeatable=True)),
    (b"/v1/", PASSED),
    (b"/api/blobs/", _ollama("/api/blobs/*", frozenset({"HEAD", "POST"}))),
    (b"/admin/backends/", _own("/admin/backends/{name}/{do}", "backend_do", POST, access="admin")),
)


def match(method: str, path: bytes, *, admin: bool = True) -> Endpoint:
    """The endpoint of a request line; `path` is the raw one, escapes as sent.

    admin: whether the endpoints for administrators exist: only with an admin key.
    Raises NotFound, MethodNotAllowed (with Allow), InvalidRequest for dot segments.
    """
    endpoint = EXACT.get(path) or _by_prefix(method, path)
    if endpoint.access == "admin" and not admin:
        raise _no_such_path()
    if endpoint.methods and method not in endpoint.methods:
        allow = ", ".join(sorted(endpoint.methods))
        raise MethodNotAllowed(
            f"{method} is not allowed on {endpoint.route}; use {allow}", headers=((b"allow", allow.encode()),)
        )
    return endpoint


def _by_prefix(method: str, path: bytes) -> Endpoint:
    # A backend may resolve dot segments (RFC 3986 §5.2.4), and then /v1/../admin would leave the API's tree.
    if any(part.lower().replace(b"%2e", b".") in (b".", b"..") for part in path.split(b"/")):
        raise InvalidRequest("the path has a dot segment")
    for prefix, endpoint in PREFIXES:
        if not path.startswith(prefix) or len(path) == len(prefix):
            continue
        # What is under /v1 and not ours there is a backend's; nothing else of ours has another taker.
        if method in endpoint.methods or not endpoint.own or endpoint.access == "admin":
            return _passed(method, path, endpoint)
    raise _no_such_path()


def _passed(method: str, path: bytes, endpoint: Endpoint) -> Endpoint:
    """Of a path under a prefix: whether this call of it is one that counts."""
    if endpoint.counted and method in READING:
        return PASSED
    if endpoint is PASSED and method not in READING and not path.startswith(STORING):
        return PASSED_COUNTED
    return endpoint


def _no_such_path() -> NotFound:
    return NotFound("no such path; the API is under /v1 (OpenAI) and /api (Ollama)")
