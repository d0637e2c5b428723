"""The tables of a configuration file about backends, models, and what happens when a backend fails."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from penstock.core.address import Url
from penstock.core.config_section import Milliseconds, Seconds, Section, Tokens
from penstock.core.secret import Secret

SomeSeconds = Annotated[float, Meta(ge=0.01, le=86_400)]
"""A duration that cannot be 0."""
BackendName = Annotated[str, Meta(min_length=1, extra={"refers_to": "backends"})]
"""Must be the NAME of a [backends.NAME]."""
ModelName = Annotated[str, Meta(min_length=1, extra={"refers_to": "models"})]
"""Must be the NAME of a [models.NAME]."""
UsdPrice = Annotated[float, Meta(ge=0, le=1_000_000)]
"""US dollars for a unit of something. 0 = free of charge, which is a price too."""
Weight = Annotated[int, Meta(ge=1, le=1000)]
"""How much more of the requests it gets than one of weight 1."""
Balance = Literal["least_in_flight", "weighted", "latency"]
"""How one of several targets is chosen."""
RequestPath = Annotated[
    str, Meta(pattern=r"^(/[!-~]*)?\Z", description='a path without spaces, such as "/health", or "" for the usual one')
]


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
    cache_ttl_s: Seconds | None = None
    """How long its answers are kept and given again. 0 = not at all; absent = as [cache] says."""


class Breaker(Section, frozen=True):
    """[breaker]: when a target that fails gets no more requests, and for how long."""

    failures: Annotated[int, Meta(ge=0, le=1_000_000)] = 5
    """It opens at so many failures in a row. 0 = not by that."""
    failure_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Or when this share of the window's requests failed. 0 = not by that."""
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
