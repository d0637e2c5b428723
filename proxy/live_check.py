"""Asks every backend whether it answers, for `penstock check --live`: one short call each, in a thread."""

import asyncio
import http.client
import socket
import ssl
import time
from dataclasses import dataclass

from penstock.core.address import Url
from penstock.core.config import Backend
from penstock.core.health import check_path
from penstock.proxy.settings import Settings

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What a backend said."""

    backend: str
    ok: bool
    words: str

    def __str__(self) -> str:
        return f"{self.backend}: {'ok' if self.ok else 'failed'}: {self.words}"


def check_backends(settings: Settings) -> list[Answer]:
    """Every backend's answer, in the order of the file, asked at the same time."""

    async def ask_all() -> list[Answer]:
        backends = settings.config.backends.items()
        calls = (asyncio.to_thread(_ask, name, each, settings.secrets.get(name)) for name, each in backends)
        return await asyncio.gather(*calls)

    return asyncio.run(ask_all())


def _ask(name: str, backend: Backend, key: bytes | None) -> Answer:
    if backend.url is None:
        return Answer(name, True, "built in")
    path = check_path(backend)
    target = f"{backend.url.scheme}://{backend.url.authority}{path}"
    started = time.monotonic()
    try:
        status = _get(backend.url, path, _headers(backend, key), backend.ca_file)
    except (OSError, http.client.HTTPException) as error:
        return Answer(name, False, f"{target}: {_reason(error)}")
    took_ms = (time.monotonic() - started) * 1000
    return Answer(name, status == 200, f"{target} answered {status} in {took_ms:.0f} ms{_advice(backend.kind, status)}")


def _get(url: Url, path: str, headers: dict[str, str], ca_file: str) -> int:
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context()
        if ca_file:
            context.load_verify_locations(ca_file)
        connection = http.client.HTTPSConnection(url.host, url.port, timeout=_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(url.host, url.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def _headers(backend: Backend, key: bytes | None) -> dict[str, str]:
    version = {"anthropic-version": "2023-06-01"} if backend.kind == "anthropic" else {}
    if key is None:
        return version
    text = key.decode("ascii")
    return {"x-api-key": text, **version} if backend.kind == "anthropic" else {"Authorization": f"Bearer {text}"}


def _advice(kind: str, status: int) -> str:
    if status in (401, 403):
        return "; it refuses the API key"
    return "; is the url right? It often ends in /v1" if status == 404 and kind == "openai" else ""


def _reason(error: Exception) -> str:
    match error:
        case TimeoutError():
            return f"no answer within {_TIMEOUT_S:g} s"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case socket.gaierror():
            return "its name is not known"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return f"not an HTTP answer ({type(error).__name__})"
