"""Every name a configuration file may hold, with type, unit and default; all of it frozen.

Durations are seconds (`_s`), sizes bytes (`_bytes`). Start at Config. How text becomes this: config_read.py,
the rules that go across fields: config_check.py.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from penstock.core.address import Address, HostName, Origin, Url
from penstock.core.secret import Secret

YEAR_S = 31_536_000
Seconds = Annotated[float, Meta(ge=0, le=YEAR_S)]
"""A duration; the bound keeps infinity and slips of the unit out. 0 has a meaning of its own everywhere."""
Bytes = Annotated[int, Meta(ge=1, le=1 << 50)]
FilePath = Annotated[str, Meta(min_length=1)]
"""Relative to the configuration file's folder, or absolute."""
BackendName = Annotated[str, Meta(min_length=1, extra={"refers_to": "backends"})]
"""Must be the NAME of a [backends.NAME]."""


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
    max_body_bytes: Bytes = 10_485_760
    """The largest JSON body; such bodies are held in memory."""
    max_upload_bytes: Bytes = 536_870_912
    """The largest body that is streamed through (multipart, blobs)."""
    hosts: tuple[HostName, ...] = ()
    """Names allowed in Host beside the listener's own. Empty = loopback names on loopback, else any."""
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


class Auth(Section, frozen=True):
    """[auth]: who may call. On loopback "none" is the default; elsewhere it must be written out."""

    mode: Annotated[Literal["none"], Meta(extra={"hint": "this version has no keys yet"})] = "none"
    """none = every request is served."""


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
    discover: bool = False
    """The models it reports are ours too."""


class Target(Section, frozen=True):
    """One place a model is served: a backend, and the model's name there."""

    shorthand: ClassVar[str] = "backend"

    backend: BackendName
    model: str = ""
    """"" = the model's public name."""


class Model(Section, frozen=True):
    """[models.NAME]: a public name and who serves it."""

    targets: Annotated[tuple[Target, ...], Meta(min_length=1)]
    """In order of preference; a string is the backend's name."""


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
    auth: Auth = Auth()
    backends: Mapping[str, Backend] = {}
    models: Mapping[str, Model] = {}
    log: Log = Log()
    cors: Cors = Cors()
