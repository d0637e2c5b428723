"""Every way a request can fail: one tree, from which status, body, log level, blame and retry all come.

An error names its *fault* (whose it is) by class, so logs, metrics and the `X-Penstock-Error` header cannot
disagree. Backend errors also carry the *phase* they happened in, which is what `core.retry` decides by.
"""

from math import ceil
from typing import Any, ClassVar, Literal

Fault = Literal["caller", "policy", "backend", "penstock", "capacity"]
Phase = Literal["connect", "send", "first_byte", "status", "body"]
"""How far an attempt had come; status = an answer came, and it says that the backend failed."""
Level = Literal["debug", "info", "warning", "error"]


class PenstockError(Exception):
    """A request that cannot be answered as asked.

    message: for the caller: what is wrong and what to change; never a secret, a body or a stack trace.
    param: the field or header it is about, in OpenAI's sense.
    retry_after_s: whole seconds until trying again makes sense; None where waiting does not help.
    headers: further lines for the answer (Allow).
    """

    status: int
    code: ClassVar[str]
    type: ClassVar[str] = "invalid_request_error"
    fault: ClassVar[Fault]
    level: ClassVar[Level] = "info"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers


# --- the caller's ---------------------------------------------------------------------------------


class CallerError(PenstockError):
    fault = "caller"


class InvalidRequest(CallerError):
    """Bad framing, bad Host, a field of the wrong type."""

    status = 400
    code = "invalid_request"


class InvalidJson(CallerError):
    status = 400
    code = "invalid_json"


class IncompleteBody(CallerError):
    status = 400
    code = "incomplete_body"


class MissingField(CallerError):
    status = 400
    code = "missing_required_parameter"


class NotFound(CallerError):
    status = 404
    code = "not_found"


class ModelNotFound(CallerError):
    status = 404
    code = "model_not_found"


class MethodNotAllowed(CallerError):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(CallerError):
    """The client sent its request too slowly (`server.receive_s`)."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(CallerError):
    status = 413
    code = "body_too_large"


class WrongContentType(CallerError):
    status = 415
    code = "unsupported_media_type"


class NotCached(CallerError):
    """The client wants nothing but a kept answer (Cache-Control: only-if-cached), and there is none."""

    status = 504
    code = "not_cached"
    type = "server_error"


class AuthError(CallerError):
    """The credential is missing or not good. The words never say which part of it is wrong."""

    status = 401

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, headers=((b"www-authenticate", b"Bearer"),))


class MissingKey(AuthError):
    code = "missing_api_key"


class InvalidKey(AuthError):
    """Unknown, or no possible key at all (over-long, not visible ASCII)."""

    code = "invalid_api_key"


class KeyExpired(AuthError):
    code = "api_key_expired"


class KeyRevoked(AuthError):
    code = "api_key_revoked"


class KeysDisagree(AuthError):
    """Two headers carry different keys."""

    code = "api_keys_disagree"


class AdminKeyRequired(AuthError):
    """X-Admin-Key is missing or wrong."""

    code = "admin_key_required"


# --- a rule of the operator's ----------------------------------------------------------------------


class PolicyError(PenstockError):
    fault = "policy"


class OriginRefused(PolicyError):
    status = 403
    code = "origin_not_allowed"


class TierUnknown(PolicyError):
    """The key's tier is no longer in the configuration: nobody can say what it may."""

    status = 403
    code = "tier_not_configured"
    level = "warning"


class ModelNotAllowed(PolicyError):
    status = 403
    code = "model_not_allowed"


class OutputLimit(PolicyError):
    """More output asked for than the tier allows."""

    status = 403
    code = "output_limit_exceeded"


class NoPrice(PolicyError):
    """A money limit holds and nobody knows what the model costs."""

    status = 403
    code = "model_has_no_price"
    level = "warning"


class OverLimit(PolicyError):
    """The worst case of this one request is above a limit itself: waiting cannot help."""

    status = 403
    code = "request_over_limit"


class RateLimited(PolicyError):
    """A limit is used up. `upgrade`: the next tier and what it changes, None if the limit is not a tier's."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: int,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        upgrade: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, headers=headers)
        self.upgrade = upgrade


class BudgetExceeded(RateLimited):
    """A limit in money is used up."""

    code = "budget_exceeded"


# --- a backend's -----------------------------------------------------------------------------------


class BackendError(PenstockError):
    """A backend failed. `phase` says how far the attempt had come, `stale` that a pooled connection had died."""

    status = 502
    code = "backend_failed"
    type = "server_error"
    fault = "backend"
    level = "warning"

    def __init__(self, message: str, *, phase: Phase, stale: bool = False) -> None:
        super().__init__(message)
        self.phase: Phase = phase
        self.stale = stale


class ConnectFailed(BackendError):
    code = "backend_unreachable"


class BadAnswer(BackendError):
    """What came is not HTTP, or ended before it was whole."""

    code = "backend_bad_answer"


class IncompleteReply(BackendError):
    """The body ended in good order, the model's reply had not (no [DONE], no finish_reason, "done": false)."""

    code = "backend_incomplete_reply"


class BackendTimeout(BackendError):
    status = 504
    code = "backend_timeout"


class BackendStatus(BackendError):
    """A whole answer that says the backend failed (5xx) or has no room (429): elsewhere the request may work.

    status: as the backend sent it. retry_after_s: what its Retry-After says.
    """

    code = "backend_status"

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, phase="status")
        self.status = status
        self.retry_after_s = None if retry_after_s is None else ceil(retry_after_s)


# --- room ------------------------------------------------------------------------------------------


class CapacityError(PenstockError):
    fault = "capacity"
    type = "server_error"
    level = "warning"


class NoHealthyTarget(CapacityError):
    """No backend is there for this request, or all its connections are taken."""

    status = 503
    code = "no_healthy_target"


class TargetsOpen(NoHealthyTarget):
    """The breakers of all targets are open; retry_after_s: until the first of them is tried again."""


class QueueFull(CapacityError):
    """Every target is full, and the line in front of them too, or the wait in it was over.

    retry_after_s: when there may be room. headers: the place and the estimate (x-penstock-queue).
    """

    status = 503
    code = "queue_full"


class Draining(CapacityError):
    status = 503
    code = "draining"


class SpoolFull(CapacityError):
    """No room for the request's usage record, and without one it may not run."""

    status = 503
    code = "usage_spool_full"


class StoreUnavailable(CapacityError):
    """The store of keys and usage cannot be read or written now."""

    status = 503
    code = "store_unavailable"


class StateFullError(CapacityError):
    """No room for another counter in the shared memory."""

    status = 503
    code = "state_full"


# --- ours ------------------------------------------------------------------------------------------


class InternalError(PenstockError):
    """A defect of penstock. The log has the stack trace, the caller only the request id."""

    status = 500
    code = "internal_error"
    type = "server_error"
    fault = "penstock"
    level = "error"
