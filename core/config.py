"""Every name a configuration file may hold, with type, unit and default; all of it frozen.

Durations are seconds (`_s`), sizes bytes (`_bytes`). Start at Config. Tables about backends and models stand in
config_backends.py, that about the cache in config_cache.py, those about faults in chaos.py. How text becomes this:
config_read.py, the rules that go across fields: config_check.py.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from penstock.core.address import Address, HostName, Origin, Webhook
from penstock.core.chaos import Chaos, ChaosFault
from penstock.core.config_backends import (
    Backend,
    Balance,
    Breaker,
    Health,
    Hedge,
    Model,
    ModelPrice,
    Pool,
    Queue,
    Retry,
    Target,
    Timeout,
)
from penstock.core.config_cache import Cache, CacheFacts
from penstock.core.config_section import Bytes, Seconds, Section, Tokens
from penstock.core.keys import KeyPrefix
from penstock.core.network import Network
from penstock.core.secret import Secret

__all__ = [
    "Backend",
    "Balance",
    "Breaker",
    "Cache",
    "CacheFacts",
    "Chaos",
    "ChaosFault",
    "Health",
    "Hedge",
    "Model",
    "ModelPrice",
    "Pool",
    "Queue",
    "Retry",
    "Section",
    "Target",
    "Timeout",
]

FilePath = Annotated[str, Meta(min_length=1)]
"""Relative to the configuration file's folder, or absolute."""
TierName = Annotated[str, Meta(extra={"refers_to": "tiers"})]
"""Must be the NAME of a [tiers.NAME], or "" for none."""
Name = Annotated[str, Meta(min_length=1, max_length=200)]
"""What people call a key, tenant or user."""
Rate = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""How many in a second or a minute. 0 = none at all."""
Count = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]
"""How many in an hour, day or month. 0 = none at all."""
Usd = Annotated[float, Meta(ge=0, le=250_000)]
"""US dollars in a window. 0 = nothing that costs."""


class Tls(Section, frozen=True):
    """[server.tls]: serve HTTPS. Without this table the listener speaks plain HTTP."""

    cert_file: FilePath
    """The certificate and its chain, PEM."""
    key_file: FilePath
    """The certificate's private key, PEM."""
    client_ca_file: str = ""
    """PEM; clients must show a certificate signed by it (mTLS). "" = none is asked for."""


class Server(Section, frozen=True):
    """[server]: the listener and what holds for every request."""

    listen: Address = Address("127.0.0.1", 8080)
    """host:port. Port 0 = any free port."""
    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Processes. 0 = one per core."""
    state_dir: str = ""
    """Folder of the database, shared memory and spool. "" = the user's state folder. Made when missing."""
    max_body_bytes: Bytes = 10_485_760
    """The largest JSON body; such bodies are held in memory."""
    max_upload_bytes: Bytes = 536_870_912
    """The largest body that is streamed through (multipart, blobs)."""
    hosts: tuple[HostName, ...] = ()
    """Names allowed in Host beside the listener's own. Empty = loopback names on loopback, else any."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses and networks whose X-Forwarded-For counts. Empty = the peer is the client."""
    default_backend: Annotated[str, Meta(extra={"refers_to": "backends"})] = ""
    """Takes requests that name no model. "" = they are refused (400)."""
    unknown_models: Literal["reject", "default_backend"] = "reject"
    """What happens to a model nobody knows: 404, or passed to the default backend."""
    receive_s: Seconds = 15
    """The longest silence while a request's body arrives. 0 = no limit."""
    drain_s: Seconds = 300
    """How long running streams get after SIGTERM. 0 = no limit."""
    environment: str = "production"
    """Told by /health; changes nothing else."""
    tls: Tls | None = None


class Admin(Section, frozen=True):
    """[admin]: who may manage keys and see everybody's usage."""

    key: Secret = Secret()
    """A reference; what X-Admin-Key must hold. "" = the admin routes do not exist."""


class Auth(Section, frozen=True):
    """[auth]: who may call. On loopback "none" is the default; elsewhere the mode must be written out."""

    mode: Literal["none", "keys"] = "none"
    """none = every request is served; keys = only those with a key of [[keys]] or of the store."""
    key_prefix: KeyPrefix = KeyPrefix("psk_")
    """What new keys begin with, so that people and secret scanners know them."""
    hash_key: Secret = Secret()
    """A reference; the secret under which keys are hashed in the store. "" = made once, in state_dir/hash.key."""


class Key(Section, frozen=True):
    """[[keys]]: an API key kept in this file (by reference) and not in the store."""

    name: Name
    """Told in logs and reports; its id is file:NAME."""
    key: Secret
    """A reference to the key itself: at least 16 visible ASCII characters."""
    tenant_id: Annotated[str, Meta(max_length=200)] = ""
    user_id: Annotated[str, Meta(max_length=200)] = ""
    tier: TierName = ""
    """"" = no tier: without limits, but for overrides."""


class Amounts(Section, frozen=True):
    """The names of limits. Absent = no such limit, 0 = nothing at all.

    Per second and minute a bucket of that size refills steadily; hour, day and month are calendar windows in UTC.
    """

    requests_per_s: Rate | None = None
    """Requests to routes that answer with a model."""
    requests_per_minute: Rate | None = None
    requests_per_hour: Count | None = None
    requests_per_day: Count | None = None
    requests_per_month: Count | None = None
    llm_requests_per_s: Rate | None = None
    """Of these, the ones that reach a backend."""
    llm_requests_per_minute: Rate | None = None
    llm_requests_per_hour: Count | None = None
    llm_requests_per_day: Count | None = None
    llm_requests_per_month: Count | None = None
    tokens_per_s: Rate | None = None
    """Tokens in and out. The most a request can need is held until its answer tells what it did need."""
    tokens_per_minute: Rate | None = None
    tokens_per_hour: Count | None = None
    tokens_per_day: Count | None = None
    tokens_per_month: Count | None = None
    usd_per_hour: Usd | None = None
    """Cost, held and settled like tokens."""
    usd_per_day: Usd | None = None
    usd_per_month: Usd | None = None
    in_flight: Rate | None = None
    """Requests at one time, a stream until its end."""

    def amounts(self) -> dict[str, int | float]:
        """The limits that are set, by name."""
        return {name: amount for name in Amounts.__struct_fields__ if (amount := getattr(self, name)) is not None}


class Tier(Amounts, frozen=True):
    """[tiers.NAME]: what each key of this tier may do. The limits count per key."""

    max_output_tokens: Tokens | None = None
    """The largest output a request may ask for; also the cap where it names none and a token or money limit holds."""
    models: tuple[Name, ...] | None = None
    """The models it may use. Absent = all."""
    upgrade_to: TierName = ""
    """The next tier, told to those who meet a limit of this one. "" = there is none."""


class Override(Amounts, frozen=True):
    """[[limits.override]]: limits of one key, user, tenant or tier, counted over all it stands for at once.

    Of a key, user or tenant they replace the tier's limits of the same name; of a tier they stand beside them.
    """

    key: str = ""
    """The key's id or its name."""
    user_id: str = ""
    tenant_id: str = ""
    tier: TierName = ""


class IpLimits(Section, frozen=True):
    """[limits.ip]: requests per client address (IPv6: per /64), whoever calls. Steadily refilled; 0 = no limit."""

    chat_per_s: Rate = 0
    """Chat and completions, whatever the dialect."""
    search_per_s: Rate = 0
    """Embeddings and rerank."""
    general_per_s: Rate = 0
    """All other routes."""
    all_per_5min: Rate = 0
    """All routes together."""
    unauthenticated_per_15min: Rate = 0
    """Requests without a valid key, on all routes; only where keys are asked for."""


class Limits(Section, frozen=True):
    """[limits]: what holds beside the tiers."""

    override: tuple[Override, ...] = ()
    ip: IpLimits = IpLimits()


class Store(Section, frozen=True):
    """[store]: where keys and usage are kept."""

    url: Annotated[Literal["sqlite", "none"], Meta(extra={"hint": "this version has no other database"})] = "sqlite"
    """sqlite = penstock.db in state_dir; none = keys of this file only, and no usage rows."""
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 400
    """Older usage rows go to a monthly archive. 0 = all stay."""
    spool_records: Annotated[int, Meta(ge=256, le=1 << 22)] = 65_536
    """Per worker: usage records that can wait for the store, about 1 KB each."""
    when_full: Literal["wait", "refuse"] = "wait"
    """When the spool is full, requests wait up to 5 s for room or are refused at once (503). No record is dropped."""


class Alerts(Section, frozen=True):
    """[alerts]: tell somebody that a budget (a usd_ limit) is nearly spent."""

    webhook: Webhook = Webhook("")
    """An address that gets a POST with JSON. "" = nobody is told."""
    budget_percent: tuple[Annotated[int, Meta(ge=1, le=100)], ...] = (50, 80, 100)
    """Told once each in a window."""


class Log(Section, frozen=True):
    """[log]: one JSON line per request and per event."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file: str = ""
    """"" = standard error."""


class Cors(Section, frozen=True):
    """[cors]: which web pages' scripts may call us."""

    origins: tuple[Origin, ...] = ()
    """"*" or scheme://host[:port]. Empty = only pages of our own."""


class Config(Section, frozen=True):
    """The whole file."""

    server: Server = Server()
    admin: Admin = Admin()
    auth: Auth = Auth()
    keys: tuple[Key, ...] = ()
    tiers: Mapping[str, Tier] = {}
    limits: Limits = Limits()
    backends: Mapping[str, Backend] = {}
    models: Mapping[str, Model] = {}
    breaker: Breaker = Breaker()
    retry: Retry = Retry()
    queue: Queue = Queue()
    hedge: Hedge = Hedge()
    cache: Cache = Cache()
    chaos: Chaos = Chaos()
    store: Store = Store()
    alerts: Alerts = Alerts()
    log: Log = Log()
    cors: Cors = Cors()
