"""Every name a configuration file may hold, with type, unit and default; all of it frozen.

Durations are seconds (`_s`), sizes bytes (`_bytes`). Start at Config. How text becomes this: config_read.py,
the rules that go across fields: config_check.py.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from penstock.core.address import Address, HostName, Origin, Url, Webhook
from penstock.core.keys import KeyPrefix
from penstock.core.network import Network
from penstock.core.secret import Secret

YEAR_S = 31_536_000
Seconds = Annotated[float, Meta(ge=0, le=YEAR_S)]
"""A duration; the bound keeps infinity and slips of the unit out. 0 has a meaning of its own everywhere."""
SomeSeconds = Annotated[float, Meta(ge=0.01, le=86_400)]
"""A duration that cannot be 0."""
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 50)]
FilePath = Annotated[str, Meta(min_length=1)]
"""Relative to the configuration file's folder, or absolute."""
BackendName = Annotated[str, Meta(min_length=1, extra={"refers_to": "backends"})]
"""Must be the NAME of a [backends.NAME]."""
ModelName = Annotated[str, Meta(min_length=1, extra={"refers_to": "models"})]
"""Must be the NAME of a [models.NAME]."""
TierName = Annotated[str, Meta(extra={"refers_to": "tiers"})]
"""Must be the NAME of a [tiers.NAME], or "" for none."""
Name = Annotated[str, Meta(min_length=1, max_length=200)]
"""What people call a key, tenant or user."""
Tokens = Annotated[int, Meta(ge=1, le=1 << 40)]
Rate = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""How many in a second or a minute. 0 = none at all."""
Count = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]
"""How many in an hour, day or month. 0 = none at all."""
Usd = Annotated[float, Meta(ge=0, le=250_000)]
"""US dollars in a window. 0 = nothing that costs."""
UsdPrice = Annotated[float, Meta(ge=0, le=1_000_000)]
"""US dollars for a unit of something. 0 = free of charge, which is a price too."""
Weight = Annotated[int, Meta(ge=1, le=1000)]
"""How much more of the requests it gets than one of weight 1."""
Balance = Literal["least_in_flight", "weighted", "latency"]
"""How one of several targets is chosen."""
RequestPath = Annotated[
    str, Meta(pattern=r"^(/[!-~]*)?\Z", description='a path without spaces, such as "/health", or "" for the usual one')
]
Time = Annotated[datetime, Meta(tz=True, description="a time with its offset, such as 2026-11-21T12:00:00Z")]
FaultName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="1 to 64 letters, digits, dots, hyphens and underscores")
]
"""It goes into a header."""
FaultKind = Literal["latency", "error_status", "connection_reset", "cut_stream", "slow_tokens", "bad_body"]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""

    shorthand: ClassVar[str] = ""
    """Where a string may stand for the whole table: the field it fills."""


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


class Timeout(Section, frozen=True):
    """[backends.NAME.timeout]: the longest time for each phase of a request to the backend. 0 = no limit."""

    connect_s: Seconds = 2
    """TCP and TLS."""
    send_s: Seconds = 30
    """Until the request is written, body and all, while the backend takes none of it."""
    first_byte_s: Seconds = 120
    """From the request's end to the first byte of the answer: a model may have to be loaded."""
    idle_s: Seconds = 60
    """Between two pieces of the answer."""
    total_s: Seconds = 600
    """From the first try to the last byte."""


class Pool(Section, frozen=True):
    """[backends.NAME.pool]: the connections each worker keeps to the backend."""

    max_connections: Annotated[int, Meta(ge=1, le=65535)] = 100
    """Open connections, busy and idle ones."""
    idle_s: Seconds = 30
    """How long an idle connection is kept. 0 = none is used twice."""


class Health(Section, frozen=True):
    """[backends.NAME.health]: asking a backend whether it is there, by a GET that costs no token."""

    path: RequestPath = ""
    """On the backend's host, as written. "" = its list of models: /api/tags for kind ollama, else {url}/models."""
    interval_s: Seconds = 10
    """From one check to the next; one worker checks for all. 0 = it is never asked."""
    timeout_s: SomeSeconds = 5
    """The longest time for one check."""


class Backend(Section, frozen=True):
    """[backends.NAME]: a server we call."""

    kind: Literal["openai", "ollama", "anthropic", "demo"]
    """openai = any OpenAI-shaped server; demo = built in, needs no url."""
    url: Url | None = None
    """openai: the API's base, our /v1/X goes to {url}/X. ollama, anthropic: the server's root. demo: none."""
    api_key: Secret = Secret()
    """A reference: "env:NAME" or "file:PATH". "" = no credential is sent."""
    ca_file: str = ""
    """PEM; certificate authorities trusted beside the system's. "" = only the system's."""
    timeout: Timeout = Timeout()
    pool: Pool = Pool()
    health: Health = Health()
    weight: Weight = 1
    """Its share of a model's requests, beside that of the other targets."""
    max_in_flight: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Requests it works on at one time, over all workers; more wait in line ([queue]). 0 = no limit."""
    heartbeat_s: Seconds = 0
    """While it is silent, streams (SSE) get a comment line this often. 0 = none."""
    discover: bool = False
    """The models it reports are ours too."""
    usd_per_gpu_hour: UsdPrice | None = None
    """What an hour of the backend's work costs. Absent = no price by time."""
    power_watts: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    """What it draws at work. Needs usd_per_kwh."""
    usd_per_kwh: UsdPrice | None = None
    """The price of electricity. Needs power_watts."""


class Target(Section, frozen=True):
    """One place a model is served: a backend, and the model's name there."""

    shorthand: ClassVar[str] = "backend"

    backend: BackendName
    model: str = ""
    """"" = the model's public name."""
    weight: Weight | None = None
    """Its share of the model's requests. Absent = the backend's weight."""


class ModelPrice(Section, frozen=True):
    """[models.NAME.price]: US dollars for what a model does. At least one; what is absent costs nothing."""

    input_usd_per_mtok: UsdPrice | None = None
    """A million tokens in."""
    cached_input_usd_per_mtok: UsdPrice | None = None
    """Of these, the ones the backend had cached. Absent = as any input."""
    output_usd_per_mtok: UsdPrice | None = None
    """A million tokens out."""
    reasoning_usd_per_mtok: UsdPrice | None = None
    """Of these, the ones spent on reasoning. Absent = as any output."""
    usd_per_image: UsdPrice | None = None
    usd_per_second: UsdPrice | None = None
    """Of audio."""


class Model(Section, frozen=True):
    """[models.NAME]: a public name and who serves it."""

    targets: Annotated[tuple[Target, ...], Meta(min_length=1)]
    """Those that share the requests; a string is the backend's name."""
    balance: Balance = "least_in_flight"
    """Which target a request goes to: the one with the least at work, one by weight, or the quicker of two."""
    fallback: tuple[ModelName, ...] = ()
    """Models to answer with, in this order, when no target of this one can. Their own fallbacks are not followed."""
    price: ModelPrice | None = None
    """Absent = the backend's price by time, else that of the shipped price table."""
    max_output_tokens: Tokens | None = None
    """The longest answer it gives. Absent = what the price table says, else 4,096."""
    context_tokens: Tokens | None = None
    """Its whole context. Absent = what the price table says, else unknown."""


class Breaker(Section, frozen=True):
    """[breaker]: when a target that fails gets no more requests, and for how long."""

    failures: Annotated[int, Meta(ge=1, le=1_000_000)] = 5
    """It opens at so many failures in a row."""
    failure_ratio: Annotated[float, Meta(ge=0.01, le=1)] = 0.5
    """Or when this share of the window's requests failed."""
    window_s: SomeSeconds = 30
    """How far back the window reaches."""
    min_requests: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    """Requests in the window below which the share says nothing."""
    recovery_s: SomeSeconds = 60
    """How long it stays open; then one request at a time tries whether the target works again."""


class Retry(Section, frozen=True):
    """[retry]: trying again, before the first byte of an answer has gone to the client."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Tries at all targets together. 1 = nothing is tried again."""
    backoff_ms: Milliseconds = 100
    """When every target was tried: a random wait of up to this, then up to twice this, and so on. 0 = at once."""


class Queue(Section, frozen=True):
    """[queue]: the line in front of backends that have max_in_flight requests."""

    max_waiting: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """Requests that wait, over all workers. 0 = none waits: a full backend is 503 at once."""
    max_wait_s: Seconds = 60
    """How long one waits before it is 503. 0 = no limit."""


class Hedge(Section, frozen=True):
    """[hedge]: a second attempt on an idle target when the first is slow; the later answer is dropped."""

    max_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Of all requests, those that may get a second attempt. 0 = none."""


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
    """From then on. Absent = from now."""
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
    chaos: Chaos = Chaos()
    store: Store = Store()
    alerts: Alerts = Alerts()
    log: Log = Log()
    cors: Cors = Cors()
