"""Every endpoint of the demo backend on one screen."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from penstock.proxy.demo import anthropic, chat, completions, control, echo, embeddings, files, media, models
from penstock.proxy.demo import responses as openai_responses
from penstock.proxy.demo.answer import Answer, Refused, anthropic_error, openai_error
from penstock.proxy.demo.request import Keep, Request
from penstock.proxy.demo.script import ErrorBody
from penstock.proxy.demo.state import Demo


class Route(msgspec.Struct, frozen=True):
    handler: Callable[[Request, Demo], Answer]
    keep: Keep = Keep.JSON
    error: ErrorBody = openai_error
    """How errors look here."""


_ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/v1/chat/completions"): Route(chat.answer),
    ("POST", "/v1/completions"): Route(completions.answer),
    ("POST", "/v1/responses"): Route(openai_responses.answer),
    ("POST", "/v1/embeddings"): Route(embeddings.answer),
    ("POST", "/v1/messages"): Route(anthropic.answer, error=anthropic_error),
    ("POST", "/v1/moderations"): Route(media.moderations),
    ("POST", "/v1/rerank"): Route(media.rerank),
    ("POST", "/v1/images/generations"): Route(media.images),
    ("POST", "/v1/audio/speech"): Route(media.speech),
    ("POST", "/v1/audio/transcriptions"): Route(media.transcription, Keep.FORM),
    ("GET", "/v1/models"): Route(models.listing),
    ("GET", "/v1/models/*"): Route(models.one),
    ("POST", "/v1/files"): Route(files.upload, Keep.FORM),
    ("GET", "/v1/files"): Route(files.listing),
    ("GET", "/v1/files/*"): Route(files.one),
    ("DELETE", "/v1/files/*"): Route(files.delete),
    ("GET", "/v1/files/*/content"): Route(files.content),
    ("GET", "/demo/stats"): Route(control.stats),
    ("POST", "/demo/reset"): Route(control.reset),
    ("GET", "/demo/redirected"): Route(control.redirected),
    ("POST", "/demo/redirected"): Route(control.redirected),
}
_ECHO = Route(echo.answer, Keep.HASH)


def find(method: str, path: str) -> Route:
    """UNKNOWN where there is none; HEAD is answered where GET is."""
    method = "GET" if method == "HEAD" and not path.startswith("/v1/echo") else method
    route = _ROUTES.get((method, path))
    if route is not None:
        return route
    if path == "/v1/echo" or path.startswith("/v1/echo/"):
        return _ECHO
    pattern = _pattern(path)
    if (method, pattern) in _ROUTES:
        return _ROUTES[method, pattern]
    return _NOT_ALLOWED if any(known == pattern for _, known in _ROUTES) else UNKNOWN


def _pattern(path: str) -> str:
    """`/v1/files/abc/content` → `/v1/files/*/content`; the id of a model may have slashes of its own."""
    if path.startswith("/v1/models/"):
        return "/v1/models/*"
    if path.startswith("/v1/files/"):
        return "/v1/files/*/content" if path.endswith("/content") else "/v1/files/*"
    return path


def _no_such_path(request: Request, demo: Demo) -> Answer:
    raise Refused(404, f"Invalid URL ({request.head.method} {request.path})")


def _no_such_method(request: Request, demo: Demo) -> Answer:
    raise Refused(405, f"Not allowed to {request.head.method} on {request.path}.", code="method_not_supported")


UNKNOWN = Route(_no_such_path, Keep.HASH)
_NOT_ALLOWED = Route(_no_such_method, Keep.HASH)
