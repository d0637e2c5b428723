"""The table of endpoints: what each request line means, and what is refused."""

import pytest

from penstock.core.endpoint import EXACT, PREFIXES, Shape, match
from penstock.core.errors import InvalidRequest, MethodNotAllowed, NotFound
from penstock.ext import DIALECT_CHAT, DIALECT_MESSAGES, DIALECT_OLLAMA, DIALECT_RESPONSES


@pytest.mark.parametrize(
    ("line", "route"),
    [
        ("POST /v1/chat/completions", "/v1/chat/completions"),
        ("POST /v1/completions", "/v1/completions"),
        ("POST /v1/embeddings", "/v1/embeddings"),
        ("POST /v1/responses", "/v1/responses"),
        ("POST /v1/messages", "/v1/messages"),
        ("GET /v1/models", "/v1/models"),
        ("HEAD /v1/models", "/v1/models"),
        ("GET /v1/models/gpt-4o", "/v1/models/{id}"),
        ("GET /v1/models/org/name", "/v1/models/{id}"),
        ("DELETE /v1/models/ft:x", "/v1/*"),  # fine-tuned models are deleted where they are
        ("POST /v1/audio/speech", "/v1/audio/*"),
        ("GET /v1/files", "/v1/*"),
        ("DELETE /v1/files/file-1", "/v1/*"),
        ("GET /v1/responses/resp_1", "/v1/*"),
        ("POST /v1/responses/resp_1/cancel", "/v1/*"),
        ("GET /v1/chat/completions/id/messages", "/v1/*"),
        ("PATCH /v1/anything", "/v1/*"),
        ("GET /v1/a%20b", "/v1/*"),
        ("GET /v1/..a", "/v1/*"),
        ("GET /v1/a..", "/v1/*"),
        ("GET /v1/...", "/v1/*"),
        ("POST /api/chat", "/api/chat"),
        ("POST /api/generate", "/api/generate"),
        ("POST /api/embed", "/api/embed"),
        ("POST /api/embeddings", "/api/embeddings"),
        ("GET /api/tags", "/api/tags"),
        ("GET /api/ps", "/api/ps"),
        ("POST /api/show", "/api/show"),
        ("GET /api/version", "/api/version"),
        ("POST /api/pull", "/api/pull"),
        ("POST /api/create", "/api/create"),
        ("POST /api/copy", "/api/copy"),
        ("DELETE /api/delete", "/api/delete"),
        ("POST /api/push", "/api/push"),
        ("HEAD /api/blobs/sha256:0", "/api/blobs/*"),
        ("POST /api/blobs/sha256:0", "/api/blobs/*"),
        ("GET /health", "/health"),
        ("GET /health/live", "/health/live"),
        ("GET /health/ready", "/health/ready"),
        ("GET /api/llm/health", "/api/llm/health"),
        ("GET /admin/backends", "/admin/backends"),
        ("POST /admin/backends/gpu%201/drain", "/admin/backends/{name}/{do}"),
        ("POST /admin/explain", "/admin/explain"),
    ],
)
def test_found(line: str, route: str) -> None:
    method, path = line.split(" ")
    assert match(method, path.encode()).route == route


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v2/chat/completions", "/api", "/api/", "/api/nothing", "/api/blobs/", "/v1x", "/V1/x"],
)
def test_no_such_path(path: str) -> None:
    with pytest.raises(NotFound) as caught:
        match("GET", path.encode())
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("line", "allow"),
    [
        ("GET /v1/chat/completions", b"POST"),
        ("DELETE /v1/models", b"GET, HEAD"),
        ("POST /health", b"GET, HEAD"),
        ("POST /api/delete", b"DELETE"),
        ("POST /api/tags", b"GET, HEAD"),
        ("GET /api/blobs/sha256:0", b"HEAD, POST"),
        ("GET /admin/backends/gpu/drain", b"POST"),
    ],
)
def test_wrong_method_says_which_are_right(line: str, allow: bytes) -> None:
    method, path = line.split(" ")
    with pytest.raises(MethodNotAllowed) as caught:
        match(method, path.encode())
    assert caught.value.status == 405
    assert caught.value.headers == ((b"allow", allow),)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/..",
        "/v1/.",
        "/v1/./x",
        "/v1/x/%2e%2e/y",
        "/v1/%2E%2e/y",
        "/v1/.%2E",
        "/v1/%2e/x",
        "/api/blobs/../x",
        "/../v1/x",
    ],
)
def test_dot_segments_are_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="dot segment"):
        match("GET", path.encode())


def test_the_exact_table_knows_each_route_by_its_own_path() -> None:
    assert all(path.decode() == endpoint.route for path, endpoint in EXACT.items())


def test_native_paths_speak_ollama_and_no_others() -> None:
    for endpoint in (*EXACT.values(), *(endpoint for _, endpoint in PREFIXES)):
        native = endpoint.route.startswith("/api/") and endpoint.route != "/api/llm/health"
        assert (endpoint.shape is Shape.OLLAMA) == native


def test_native_paths_ignore_the_content_type() -> None:
    assert not any(e.json_only for e in EXACT.values() if e.shape is Shape.OLLAMA)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", DIALECT_CHAT),
        ("/v1/completions", DIALECT_CHAT),
        ("/v1/embeddings", DIALECT_CHAT),
        ("/v1/responses", DIALECT_RESPONSES),
        ("/v1/messages", DIALECT_MESSAGES),
        ("/api/chat", DIALECT_OLLAMA),
        ("/api/generate", DIALECT_OLLAMA),
        ("/api/embed", DIALECT_OLLAMA),
        ("/v1/rerank", None),
        ("/api/pull", None),
    ],
)
def test_how_replies_end(path: str, dialect: int | None) -> None:
    assert match("POST", path.encode()).dialect == dialect


@pytest.mark.parametrize(
    ("line", "repeatable"),
    [
        ("POST /v1/chat/completions", True),
        ("POST /v1/completions", True),
        ("POST /v1/embeddings", True),
        ("POST /v1/responses", True),
        ("POST /v1/messages", True),
        ("POST /v1/rerank", True),
        ("POST /v1/moderations", True),
        ("POST /v1/images/generations", True),
        ("POST /v1/audio/transcriptions", True),
        ("POST /api/chat", True),
        ("POST /api/generate", True),
        ("POST /api/embed", True),
        ("POST /api/embeddings", True),
        ("POST /api/show", True),
        ("POST /api/pull", False),
        ("POST /api/create", False),
        ("DELETE /api/delete", False),
        ("POST /api/blobs/sha256:0", False),
        ("POST /v1/files", False),
        ("POST /v1/batches", False),
        ("POST /v1/fine_tuning/jobs", False),
        ("POST /v1/responses/resp_1/cancel", False),
        ("DELETE /v1/models/ft:x", False),
    ],
)
def test_what_only_computes_may_be_sent_again(line: str, repeatable: bool) -> None:
    method, path = line.split(" ")
    assert match(method, path.encode()).repeatable == repeatable


def test_what_needs_a_model_is_held_as_json() -> None:
    assert all(e.json_only for e in EXACT.values() if e.model_required)


# --- who may call, and what counts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "counted", "ip_class"),
    [
        ("POST /v1/chat/completions", True, "chat"),
        ("POST /v1/completions", True, "chat"),
        ("POST /v1/responses", True, "chat"),
        ("POST /v1/messages", True, "chat"),
        ("POST /v1/embeddings", True, "search"),
        ("POST /v1/rerank", True, "search"),
        ("POST /api/chat", True, "chat"),
        ("POST /api/generate", True, "chat"),
        ("POST /api/embed", True, "search"),
        ("POST /api/embeddings", True, "search"),
        ("POST /v1/audio/speech", True, "general"),
        ("POST /v1/images/generations", True, "general"),
        ("POST /v1/chat/completions/", True, "general"),  # some backends take it for the path without the slash
        ("PUT /v1/anything", True, "general"),
        ("GET /v1/models", False, "general"),
        ("GET /v1/responses/resp_1", False, "general"),
        ("DELETE /v1/responses/resp_1", False, "general"),
        ("POST /v1/files", False, "general"),
        ("POST /v1/uploads/u/parts", False, "general"),
        ("GET /api/tags", False, "general"),
        ("POST /api/show", False, "general"),
        ("POST /api/pull", False, "general"),
        ("POST /api/blobs/sha256:0", False, "general"),
        ("GET /usage", False, "general"),
        ("GET /health", False, "general"),
    ],
)
def test_what_counts_as_a_request_to_a_model(line: str, counted: bool, ip_class: str) -> None:
    method, path = line.split(" ")
    endpoint = match(method, path.encode())
    assert (endpoint.counted, endpoint.ip_class) == (counted, ip_class)


def test_only_health_and_the_look_at_a_key_are_open() -> None:
    everything = (*EXACT.values(), *(endpoint for _, endpoint in PREFIXES))
    opened = {endpoint.route for endpoint in everything if endpoint.access == "open"}
    assert opened == {"/health", "/health/live", "/health/ready", "/auth/verify-key"}
    assert {endpoint.route for endpoint in everything if endpoint.tells_of_keys} == {"/auth/verify-key"}


def test_the_paths_of_administrators() -> None:
    admins = {endpoint.route for endpoint in EXACT.values() if endpoint.access == "admin"}
    assert all(route.startswith(("/auth/", "/admin/")) for route in admins)
    assert len(admins) == 12


@pytest.mark.parametrize(
    "line",
    [
        "POST /auth/create-key",
        "GET /auth/create-key",
        "GET /admin/stats",
        "PUT /auth/keys",
        "GET /admin/backends/x/drain",
    ],
)
def test_without_an_admin_key_they_do_not_exist(line: str) -> None:
    method, path = line.split(" ")
    with pytest.raises(NotFound) as caught:
        match(method, path.encode(), admin=False)
    with pytest.raises(NotFound) as unknown:
        match(method, b"/nothing", admin=False)
    assert caught.value.message == unknown.value.message
