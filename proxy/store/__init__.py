"""What a store is: keys and usage rows, kept for good, and facts of cached answers.

`Store` is the contract, sqlite.py the one that needs nothing.

Calls block, so an event loop wraps them in a thread. Times are UTC: seconds since the epoch here, text in the tables.
Money is nano-USD (1e-9 USD) everywhere but in the column cost_usd.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import UNSET, Struct, UnsetType

from penstock.core.measures import NANO as NANO
from penstock.ext import COLUMNS as COLUMNS

Row = tuple[Any, ...]
"""A usage row: a value for each of COLUMNS, in the order the spool gives them."""
Scope = Literal["key", "user", "tenant", "tier"]
SCOPES: tuple[Scope, ...] = ("key", "user", "tenant", "tier")
Grouping = Literal["user", "tenant", "key", "model", "endpoint", "backend", "day"]
Trouble = Literal["locked", "full", "read_only", "damaged", "newer", "moved", "unreachable", "failed"]


class StoreError(Exception):
    """The store cannot do it now; the text is for the person who runs penstock and says what helps."""

    def __init__(self, trouble: Trouble, words: str) -> None:
        super().__init__(words)
        self.trouble: Trouble = trouble


class KeyExists(Exception):
    """A key with this id or hash is there already."""


class KeyRecord(Struct, frozen=True, kw_only=True):
    """A line of ai_api_keys."""

    id: str
    tenant_id: str
    user_id: str
    key_name: str
    key_hash: str
    """Hex of the keyed hash; the key itself is nowhere."""
    tier: str
    quota_requests_per_hour: int | None = None
    """None = the tier's."""
    is_active: bool = True
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    """A few seconds late."""
    previous_key_hash: str | None = None
    """The hash before the last rotation, good until previous_valid_until."""
    previous_valid_until: float | None = None
    revoked_at: float | None = None
    revision: int = 0
    """Rises with every change to any key; the store sets it."""


class KeyChange(Struct, frozen=True, kw_only=True):
    """What may change about a key; what is UNSET stays."""

    key_name: str | UnsetType = UNSET
    tier: str | UnsetType = UNSET
    quota_requests_per_hour: int | UnsetType | None = UNSET
    expires_at: float | UnsetType | None = UNSET


class Sums(NamedTuple):
    """What was used in a window."""

    requests: int = 0
    """Those that were not refused."""
    llm_requests: int = 0
    tokens: int = 0
    nano_usd: int = 0


class Starts(NamedTuple):
    """When the calendar windows of an instant began, epoch s."""

    hour: float
    day: float
    month: float


WindowSums = Mapping[tuple[Scope, str], tuple[Sums, Sums, Sums]]
"""(scope, id) -> its sums since the start of the hour, the day and the month."""


class ReportLine(NamedTuple):
    """A line of a report over usage rows."""

    name: str
    """What was grouped by; "" = rows without it, and the total."""
    requests: int
    failed: int
    """Outcomes failed and lost."""
    refused: int
    cancelled: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    nano_usd: int
    cached: int
    """Answered from the cache."""
    average_ms: float | None
    """Of what was answered, as are the percentiles."""
    p50_ms: float | None
    p95_ms: float | None


class Report(NamedTuple):
    """Lines, dearest first (days in order), and all of them in one."""

    lines: list[ReportLine]
    total: ReportLine


class Stats(NamedTuple):
    """The figures of GET /admin/stats."""

    total_requests: int
    cache_hit_rate: float
    """Cache hits / answered, 0 to 1."""
    active_api_keys: int
    avg_response_time_ms: float
    total_tokens: int
    nano_usd: int


class Alert(Struct, frozen=True, kw_only=True):
    """A budget reached `percent` of its amount: said once in a window."""

    scope: Scope
    id: str
    window: Literal["hour", "day", "month"]
    window_start: float
    percent: int
    limit_nano_usd: int
    spent_nano_usd: int


class CacheFact(Struct, frozen=True, kw_only=True):
    """What a worker tells of an answer it keeps."""

    key: str
    """Hex."""
    entry: str
    """Tells this entry from other workers' and from later ones of that key. The same each time it is told."""
    model: str
    created_at: float
    expires_at: float
    hits: int
    """Of the entry, from its beginning."""
    response: str | None = None
    """What was answered, where that is asked for."""


class Store(Protocol):
    """Keys and usage rows. Every call may raise StoreError; one that writes has then changed nothing."""

    def migrate(self) -> int:
        """Bring the tables to this version, or make them; the version. One process at a time does it."""

    def close(self) -> None: ...

    # --- usage rows
    def insert_rows(self, rows: Collection[Row]) -> int:
        """Add rows; one whose id is there already changes nothing. How many were new."""

    def window_sums(self, starts: Starts, key_id: str | None = None) -> WindowSums:
        """What was used in the windows that began at `starts`, of all or of one key."""

    def report(self, by: Grouping, since: float, until: float, key_id: str | None = None) -> Report:
        """Usage of rows made in [since, until), grouped."""

    def stats(self, now: float, since: float = 0.0) -> Stats:
        """Figures of rows made at or after `since`; keys that are active at `now`."""

    # --- keys
    def all_keys(self) -> list[KeyRecord]:
        """All, also revoked ones, oldest first."""

    def keys_since(self, revision: int) -> list[KeyRecord]:
        """Keys that changed after that revision, in the order of their changes."""

    def key(self, key_id: str) -> KeyRecord | None: ...

    def key_by_hash(self, key_hash: str) -> KeyRecord | None:
        """The key with this hash, also as its previous one; whether it is still good is the caller's question."""

    def create_key(self, key: KeyRecord) -> KeyRecord:
        """Add it; as stored. Raises KeyExists."""

    def revoke_key(self, key_id: str, now: float) -> KeyRecord | None:
        """End it; as stored, None if there is no such key. A key that was revoked before keeps its time."""

    def rotate_key(self, key_id: str, key_hash: str, previous_valid_until: float) -> KeyRecord | None:
        """Give it a new hash; the one before is kept as the previous. Raises KeyExists for a hash in use."""

    def change_key(self, key_id: str, change: KeyChange) -> KeyRecord | None: ...

    def touch_keys(self, used_at: Mapping[str, str]) -> None:
        """Set last_used_at where it is older; times as in the rows' created_at. No new revision."""

    # --- alerts
    def open_alerts(self, alerts: Iterable[Alert]) -> list[Alert]:
        """Note alerts to be sent; those that were not there yet."""

    def unsent_alerts(self) -> list[Alert]: ...

    def close_alert(self, alert: Alert, now: float) -> None:
        """It was sent."""

    # --- kept answers
    def keep_cache_facts(self, facts: Iterable[CacheFact], expired_before: float) -> None:
        """Add what is new of them, hits of all workers' entries of a key in sum; telling the same again adds nothing.
        Lines that expired before that go."""

    # --- archive
    def months(self, before: float) -> Sequence[str]:
        """The calendar months ("2026-11") that hold rows and ended at or before `before`, oldest first."""

    def rows_of_month(self, month: str) -> Iterable[Row]:
        """Its rows in the order of their ids, read as one state of the table."""

    def delete_rows(self, ids: Collection[int]) -> int:
        """How many there were."""
