"""The error tree: every class says status, code, type, fault and level, in the words of logs and metrics."""

from collections.abc import Iterator
from typing import get_args

import pytest

from penstock.core import errors
from penstock.core.errors import (
    BackendError,
    BackendStatus,
    BadAnswer,
    BudgetExceeded,
    Fault,
    InvalidKey,
    Level,
    MethodNotAllowed,
    NoHealthyTarget,
    PenstockError,
)

FAMILIES = {"PenstockError", "CallerError", "PolicyError", "CapacityError", "AuthError"}


def tree(kind: type[PenstockError]) -> Iterator[type[PenstockError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


# Those of the proxy (an answer that says the backend failed) are the same errors with something in their hands.
KINDS = [
    kind
    for kind in tree(PenstockError)
    if kind.__name__ not in FAMILIES and kind.__module__ == PenstockError.__module__
]


def test_the_words_for_whose_fault_it_is() -> None:
    assert get_args(Fault) == ("caller", "policy", "backend", "penstock", "capacity")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_says_everything(kind: type[PenstockError]) -> None:
    assert 400 <= kind.status <= 599
    assert kind.code == kind.code.lower().strip()
    assert kind.code.isidentifier()
    assert kind.fault in get_args(Fault)
    assert kind.level in get_args(Level)
    assert kind.type in ("invalid_request_error", "rate_limit_error", "server_error")
    assert (kind.type == "server_error") == (kind.status >= 500)
    assert (kind.type == "rate_limit_error") == (kind.status == 429)


TABLE = [
    ("InvalidRequest", 400, "invalid_request", "caller", "info"),
    ("InvalidJson", 400, "invalid_json", "caller", "info"),
    ("IncompleteBody", 400, "incomplete_body", "caller", "info"),
    ("MissingField", 400, "missing_required_parameter", "caller", "info"),
    ("MissingKey", 401, "missing_api_key", "caller", "info"),
    ("InvalidKey", 401, "invalid_api_key", "caller", "info"),
    ("KeyExpired", 401, "api_key_expired", "caller", "info"),
    ("KeyRevoked", 401, "api_key_revoked", "caller", "info"),
    ("KeysDisagree", 401, "api_keys_disagree", "caller", "info"),
    ("AdminKeyRequired", 401, "admin_key_required", "caller", "info"),
    ("TierUnknown", 403, "tier_not_configured", "policy", "warning"),
    ("ModelNotAllowed", 403, "model_not_allowed", "policy", "info"),
    ("OutputLimit", 403, "output_limit_exceeded", "policy", "info"),
    ("NoPrice", 403, "model_has_no_price", "policy", "warning"),
    ("OverLimit", 403, "request_over_limit", "policy", "info"),
    ("OriginRefused", 403, "origin_not_allowed", "policy", "info"),
    ("NotFound", 404, "not_found", "caller", "info"),
    ("NotCached", 504, "not_cached", "caller", "info"),
    ("ModelNotFound", 404, "model_not_found", "caller", "info"),
    ("MethodNotAllowed", 405, "method_not_allowed", "caller", "info"),
    ("RequestTimeout", 408, "request_timeout", "caller", "info"),
    ("BodyTooLarge", 413, "body_too_large", "caller", "info"),
    ("WrongContentType", 415, "unsupported_media_type", "caller", "info"),
    ("RateLimited", 429, "rate_limit_exceeded", "policy", "info"),
    ("BudgetExceeded", 429, "budget_exceeded", "policy", "info"),
    ("InternalError", 500, "internal_error", "penstock", "error"),
    ("BackendError", 502, "backend_failed", "backend", "warning"),
    ("ConnectFailed", 502, "backend_unreachable", "backend", "warning"),
    ("BadAnswer", 502, "backend_bad_answer", "backend", "warning"),
    ("IncompleteReply", 502, "backend_incomplete_reply", "backend", "warning"),
    ("BackendStatus", 502, "backend_status", "backend", "warning"),
    ("NoHealthyTarget", 503, "no_healthy_target", "capacity", "warning"),
    ("TargetsOpen", 503, "no_healthy_target", "capacity", "warning"),
    ("QueueFull", 503, "queue_full", "capacity", "warning"),
    ("Draining", 503, "draining", "capacity", "warning"),
    ("SpoolFull", 503, "usage_spool_full", "capacity", "warning"),
    ("StoreUnavailable", 503, "store_unavailable", "capacity", "warning"),
    ("StateFullError", 503, "state_full", "capacity", "warning"),
    ("BackendTimeout", 504, "backend_timeout", "backend", "warning"),
]


@pytest.mark.parametrize(("name", "status", "code", "fault", "level"), TABLE, ids=[row[0] for row in TABLE])
def test_table(name: str, status: int, code: str, fault: str, level: str) -> None:
    kind = getattr(errors, name)
    assert (kind.status, kind.code, kind.fault, kind.level) == (status, code, fault, level)


def test_every_class_is_in_the_table() -> None:
    assert {kind.__name__ for kind in KINDS} == {row[0] for row in TABLE}


def test_codes_are_unique() -> None:
    with_their_own = [kind for kind in KINDS if "code" in vars(kind)]
    assert len({kind.code for kind in with_their_own}) == len(with_their_own)
    assert {kind.__name__ for kind in KINDS} - {kind.__name__ for kind in with_their_own} == {"TargetsOpen"}


def test_what_an_error_carries() -> None:
    error = MethodNotAllowed("no", headers=((b"allow", b"GET"),))
    assert (str(error), error.message, error.param, error.retry_after_s) == ("no", "no", None, None)
    assert error.headers == ((b"allow", b"GET"),)
    assert NoHealthyTarget("full", param="model", retry_after_s=3).retry_after_s == 3


def test_a_backends_error_carries_its_phase() -> None:
    assert (BadAnswer("x", phase="send").phase, BadAnswer("x", phase="send").stale) == ("send", False)
    assert BackendError("x", phase="body", stale=True).stale


def test_a_backends_answer_keeps_its_status() -> None:
    error = BackendStatus("busy", status=429, retry_after_s=1.2)
    assert (error.status, error.retry_after_s, error.phase, error.fault) == (429, 2, "status", "backend")
    assert BackendStatus("broken", status=500).retry_after_s is None


def test_a_bad_key_names_the_scheme() -> None:
    assert InvalidKey("no").headers == ((b"www-authenticate", b"Bearer"),)


def test_a_limit_carries_the_way_up() -> None:
    error = BudgetExceeded("spent", retry_after_s=3, upgrade={"tier": "pro"})
    assert (error.retry_after_s, error.upgrade) == (3, {"tier": "pro"})
