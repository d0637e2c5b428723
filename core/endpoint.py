"""What penstock answers: the table of endpoints, and which one a request line means."""

from enum import Enum

import msgspec

from penstock.core.errors import InvalidRequest, MethodNotAllowed, NotFound
from penstock.ext import DIALECT_CHAT, DIALECT_MESSAGES, DIALECT_OLLAMA, DIALECT_RESPONSES


class Shape(Enum):
    """Whose error envelope and body rules an endpoint follows."""

    OPENAI = "openai"
    OLLAMA = "ollama"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table.

    route: the path template, as logs and metrics name it.
    methods: the methods it takes; empty = any.
    own: answered by penstock itself, under this name (`proxy/endpoints`); "" = by a backend.
    model_required: a body without "model" is 400 unless there is a default backend.
    json_only: any other Content-Type is 415, and the body is held; else bodies that are not JSON stream through.
    dialect: how its replies mark their end; None = by framing alone.
    """

    route: str
    methods: frozenset[str] = frozenset()
    own: str = ""
    shape: Shape = Shape.OPENAI
    model_required: bool = False
    json_only: bool = False
    dialect: int | None = None


GET = frozenset({"GET", "HEAD"})
POST = frozenset({"POST"})


def _model(route: str, dialect: int) -> Endpoint:
    return Endpoint(route=route, methods=POST, model_required=True, json_only=True, dialect=dialect)


def _own(route: str, name: str) -> Endpoint:
    return Endpoint(route=route, methods=GET, own=name)


def _ollama(route: str, methods: frozenset[str] = POST, *, dialect: int | None = None) -> Endpoint:
    return Endpoint(route=route, methods=methods, shape=Shape.OLLAMA, dialect=dialect)


EXACT: dict[bytes, Endpoint] = {
    endpoint.route.encode(): endpoint
    for endpoint in (
        _model("/v1/chat/completions", DIALECT_CHAT),
        _model("/v1/completions", DIALECT_CHAT),
        _model("/v1/embeddings", DIALECT_CHAT),
        _model("/v1/responses", DIALECT_RESPONSES),
        Endpoint(route="/v1/messages", methods=POST, json_only=True, dialect=DIALECT_MESSAGES),
        _own("/v1/models", "models"),
        _own("/health", "health"),
        _own("/health/live", "live"),
        _own("/health/ready", "ready"),
        _ollama("/api/chat", dialect=DIALECT_OLLAMA),
        _ollama("/api/generate", dialect=DIALECT_OLLAMA),
        _ollama("/api/embed", dialect=DIALECT_OLLAMA),
        _ollama("/api/embeddings"),
        _ollama("/api/tags", GET),
        _ollama("/api/ps", GET),
        _ollama("/api/show"),
        _ollama("/api/version", GET),
        _ollama("/api/pull"),
        _ollama("/api/create"),
        _ollama("/api/copy"),
        _ollama("/api/delete", frozenset({"DELETE"})),
        _ollama("/api/push"),
    )
}

PREFIXES: tuple[tuple[bytes, Endpoint], ...] = (
    (b"/v1/models/", Endpoint(route="/v1/models/{id}", methods=GET, own="model")),
    (b"/v1/", Endpoint(route="/v1/*")),
    (b"/api/blobs/", _ollama("/api/blobs/*", frozenset({"HEAD", "POST"}))),
)


def match(method: str, path: bytes) -> Endpoint:
    """The endpoint of a request line; `path` is the raw one, escapes as sent.

    Raises NotFound, MethodNotAllowed (with Allow), InvalidRequest for dot segments.
    """
    endpoint = EXACT.get(path) or _by_prefix(method, path)
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
        if path.startswith(prefix) and len(path) > len(prefix) and (method in endpoint.methods or not endpoint.own):
            return endpoint
    raise NotFound("no such path; the API is under /v1 (OpenAI) and /api (Ollama)")
