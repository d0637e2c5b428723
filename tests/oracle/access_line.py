"""The slow, obvious twin of access_line: a struct that msgspec encodes."""

import msgspec


class Line(msgspec.Struct, omit_defaults=True):
    timestamp: str
    level: str
    message: str
    service: str
    requestId: str
    method: str
    url: str
    route: str
    status: int
    duration: float
    ip: str
    userAgent: str
    firstByte: float | None = None
    keyId: str | None = None
    userId: str | None = None
    tenantId: str | None = None
    model: str | None = None
    backend: str | None = None
    attempts: int | None = None
    promptTokens: int | None = None
    completionTokens: int | None = None
    costUsd: float | None = None
    fault: str | None = None
    error: str | None = None
    detail: str | None = None


def access_line(
    timestamp: str,
    level: str,
    request_id: bytes,
    method: str,
    path: bytes,
    route: str,
    status: int,
    started: float,
    ended: float,
    first_byte: float,
    ip: str,
    user_agent: bytes | None,
    key_id: str | None,
    user_id: str | None,
    tenant_id: str | None,
    model: str | None,
    backend: str | None,
    attempts: int,
    prompt_tokens: int | None,
    completion_tokens: int | None,
    cost_nano: int,
    fault: str | None,
    error: str | None,
    detail: str | None,
) -> bytes:
    line = Line(
        timestamp=timestamp,
        level=level,
        message="request",
        service="penstock",
        requestId=request_id.decode("latin-1"),
        method=method,
        url=path.decode("latin-1"),
        route=route,
        status=status,
        duration=round((ended - started) * 1000, 3),
        ip=ip,
        userAgent=(user_agent or b"").decode("latin-1"),
        firstByte=round((first_byte - started) * 1000, 3) if first_byte else None,
        keyId=key_id or None,
        userId=user_id or None,
        tenantId=tenant_id or None,
        model=model,
        backend=backend or None,
        attempts=attempts if backend else None,
        promptTokens=prompt_tokens,
        completionTokens=completion_tokens,
        costUsd=cost_nano / 1e9 if cost_nano else None,
        fault=fault,
        error=error,
        detail=detail,
    )
    return msgspec.json.encode(line) + b"\n"
