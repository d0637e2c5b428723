"""Faults made on purpose: what is wrong with one, and reading one from an administrator's request."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from penstock.core.config import ChaosFault, FaultKind
from penstock.core.config_types import expected, plain
from penstock.core.errors import InvalidJson, InvalidRequest, MissingField
from penstock.core.nearest import suggestion

FIELDS = {field.name: field for field in msgspec.structs.fields(ChaosFault)}
OF_KINDS: Mapping[str, tuple[FaultKind, ...]] = {
    "latency_ms": ("latency",),
    "status": ("error_status",),
    "after_bytes": ("cut_stream", "bad_body"),
    "gap_ms": ("slow_tokens",),
}
"""What only some kinds have a use for."""
NEEDED: Mapping[FaultKind, str] = {"latency": "latency_ms", "slow_tokens": "gap_ms"}
"""What says how long; 0 would be no fault at all."""
_LONGEST_SHOWN = 100


def mistakes(fault: ChaosFault) -> Iterator[tuple[str, str]]:
    """What is wrong across the fields of a fault: (field, words)."""
    for field, kinds in OF_KINDS.items():
        if fault.kind not in kinds and getattr(fault, field) != FIELDS[field].default:
            yield field, f"only faults of kind {' and '.join(kinds)} have it, and this one is {fault.kind}"
    needed = NEEDED.get(fault.kind)
    if needed and not getattr(fault, needed):
        yield needed, f"a fault of kind {fault.kind} needs it, in ms, more than 0"
    if fault.start is not None and fault.end is not None and fault.end <= fault.start:
        yield "end", "must be later than start"


def read_fault(body: bytes, backends: Collection[str]) -> ChaosFault:
    """A fault from a JSON body. Raises InvalidJson; MissingField and InvalidRequest, which name the field."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidJson("the body is not valid JSON; a JSON object is needed") from None
    if not isinstance(raw, dict):
        raise InvalidJson("the body must be a JSON object")
    fault = ChaosFault(**_values(raw))
    if fault.backend and fault.backend not in backends:
        raise InvalidRequest(
            f"no backend of that name is in the configuration{suggestion(fault.backend, backends)}", param="backend"
        )
    for field, words in mistakes(fault):
        raise InvalidRequest(f"{field}: {words}", param=field)
    return fault


def _values(raw: Mapping[str, Any]) -> dict[str, Any]:
    for name in raw:
        if name not in FIELDS:
            shown = name[:_LONGEST_SHOWN]
            raise InvalidRequest(f'unknown field "{shown}"{suggestion(name, FIELDS)}', param=shown)
    for name, field in FIELDS.items():
        if field.required and name not in raw:
            raise MissingField(f'"{name}" is missing; a fault needs a name and a kind', param=name)
    return {name: _value(name, value) for name, value in raw.items()}


def _value(name: str, raw: Any) -> Any:
    kind = FIELDS[name].type
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        raise InvalidRequest(f'"{name}" must be {expected(plain(kind), raw)}', param=name) from None
