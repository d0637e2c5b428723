"""Faults made on purpose: their tables in a configuration file, what is wrong with one, and one in a request."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penstock.core.config_section import Milliseconds, Section
from penstock.core.config_types import expected, plain
from penstock.core.errors import InvalidRequest, MissingField
from penstock.core.json_object import read_object
from penstock.core.nearest import suggestion

Time = Annotated[datetime, Meta(tz=True, description="a time with its offset, such as 2026-11-21T12:00:00Z")]
FaultName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="1 to 64 letters, digits, dots, hyphens and underscores")
]
"""It goes into a header."""
FaultKind = Literal["latency", "error_status", "connection_reset", "cut_stream", "slow_tokens", "bad_body"]


class ChaosFault(Section, frozen=True):
    """[[chaos.faults]]: something that goes wrong on purpose."""

    name: FaultName
    """Told in logs and in X-Penstock-Chaos."""
    kind: FaultKind
    backend: Annotated[str, Meta(extra={"refers_to": "backends"})] = ""
    """Attempts at this backend. "" = at any."""
    model: Annotated[str, Meta(max_length=200)] = ""
    """Requests for this public name. "" = for any."""
    share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Of these attempts, the ones it hits."""
    start: Time | None = None
    """From then on. Absent = at once."""
    end: Time | None = None
    """Until then. Absent = until it is taken away."""
    latency_ms: Milliseconds = 0
    """Of kind latency: the wait before an attempt."""
    status: Annotated[int, Meta(ge=400, le=599)] = 503
    """Of kind error_status: the answer instead of the backend's."""
    after_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    """Of kinds cut_stream and bad_body: how much of the answer's body is left as it is."""
    gap_ms: Milliseconds = 0
    """Of kind slow_tokens: the wait before each piece of the answer."""

    def is_active(self, now: datetime) -> bool:
        """Whether `now` (with an offset) lies between start and end."""
        return (self.start is None or self.start <= now) and (self.end is None or now < self.end)

    def meets(self, backend: str, model: str | None) -> bool:
        """Whether an attempt at this backend for this public name is one it may hit."""
        return self.backend in ("", backend) and self.model in ("", model)


class Chaos(Section, frozen=True):
    """[chaos]: faults made on purpose, to see what happens. Nothing of it is ever on without `enabled`."""

    enabled: bool = False
    """Faults may happen, and the admin calls for them exist."""
    faults: tuple[ChaosFault, ...] = ()


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
    fault = ChaosFault(**_values(read_object(body)))
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
