"""What an administrator may ask about keys: the fields of each body, and what is wrong with one, in words.

A field is converted on its own, so that a mistake names it; values are never repeated: one might be a key.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from penstock.core.errors import InvalidRequest, MissingField
from penstock.core.json_object import read_object
from penstock.core.keys import LATEST_EXPIRY_S, LONGEST_GRACE_S
from penstock.core.nearest import suggestion

T = TypeVar("T", bound=Struct)

# Control characters, line ends, and marks that turn the direction of a line: a name is printed in tables.
_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*\Z"
_LONGEST_SHOWN = 100

Name = Annotated[
    str, Meta(min_length=1, max_length=200, pattern=_ONE_LINE, description="1 to 200 characters, none of them control")
]
Tier = Annotated[
    str, Meta(max_length=200, pattern=_ONE_LINE, description='the name of a tier of the configuration, or "" for none')
]
Quota = Annotated[int, Meta(ge=0, le=10**12, description="a whole number from 0 to 1,000,000,000,000")]
Expiry = Annotated[datetime, Meta(tz=True, description='a time with its offset, such as "2030-01-01T00:00:00Z"')]
Grace = Annotated[float, Meta(ge=0, le=LONGEST_GRACE_S, description=f"seconds from 0 to {LONGEST_GRACE_S:,} (30 days)")]
Credential = Annotated[str, Meta(description="an API key")]


class CreateKey(Struct, frozen=True, kw_only=True):
    """POST /auth/create-key."""

    tenant_id: Name
    user_id: Name
    name: Name
    tier: Tier
    """"" = no tier: without limits, but for overrides."""
    quota_requests_per_hour: Quota | None = None
    """None = as the tier says."""
    expires_at: Expiry | None = None
    """None = never."""


class NamedKey(Struct, frozen=True, kw_only=True):
    """POST /auth/revoke-key."""

    id: Name


class RotateKey(Struct, frozen=True, kw_only=True):
    """POST /auth/rotate-key."""

    id: Name
    grace_s: Grace = 86_400.0
    """How long the old key holds beside the new one. 0 = it ends at once."""


class UpdateKey(Struct, frozen=True, kw_only=True):
    """POST /auth/update-key: what is left out stays; null takes a quota or an expiry away."""

    id: Name
    name: Name | UnsetType = UNSET
    tier: Tier | UnsetType = UNSET
    quota_requests_per_hour: Quota | UnsetType | None = UNSET
    expires_at: Expiry | UnsetType | None = UNSET


class VerifyKey(Struct, frozen=True, kw_only=True):
    """POST /auth/verify-key."""

    api_key: Credential


def read_body(body: bytes, kind: type[T]) -> T:
    """A JSON body as one of the above. Raises InvalidJson; MissingField and InvalidRequest, which name the field."""
    return read_fields(read_object(body), kind)


def read_fields(raw: Mapping[str, Any], kind: type[T]) -> T:
    """Named values as one of the above. Raises MissingField, InvalidRequest."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name in raw:
        if name not in fields:
            shown = name[:_LONGEST_SHOWN]
            raise InvalidRequest(f'unknown field "{shown}"{suggestion(name, fields)}', param=shown)
    values = {}
    for name, field in fields.items():
        if name in raw:
            values[name] = _value(name, raw[name], field.type)
        elif field.required:
            raise MissingField(f'"{name}" is missing: {_words(field.type)}', param=name)
    return kind(**values)


def expiry_s(at: datetime | None, now_s: float) -> float | None:
    """An expiry as epoch seconds; None = never. Raises InvalidRequest unless it lies ahead."""
    if at is None:
        return None
    seconds = at.timestamp()
    if not now_s < seconds <= LATEST_EXPIRY_S:
        raise InvalidRequest(
            f"expires_at must lie ahead; it is {datetime.fromtimestamp(now_s, UTC):%Y-%m-%dT%H:%M:%SZ} now",
            param="expires_at",
        )
    return seconds


def check_tier(tier: str, tiers: Collection[str]) -> None:
    """Raises InvalidRequest for a tier that the configuration does not have; "" = none."""
    if tier and tier not in tiers:
        raise InvalidRequest(f"no tier of that name is in the configuration{suggestion(tier, tiers)}", param="tier")


def _value(name: str, raw: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        raise InvalidRequest(f'"{name}" must be {_words(kind)}', param=name) from None


def _words(kind: Any) -> str:
    """What a field must be, as its type's description says."""
    alternatives = [kind, *get_args(kind)]
    notes = (note for each in alternatives for note in getattr(each, "__metadata__", ()))
    words = next((note.description for note in notes if note.description), "of another type")
    return f"{words}, or null" if type(None) in alternatives else words
