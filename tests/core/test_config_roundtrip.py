"""Any valid configuration, written as TOML and read again, is the same."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.address import Address, HostName, Origin, Url
from penstock.core.config import (
    Backend,
    Config,
    Cors,
    Log,
    Model,
    Pool,
    Server,
    Target,
    Timeout,
    Tls,
)
from penstock.core.config_read import read_config
from penstock.core.secret import Secret


def toml(value: Any) -> str:
    """A value as TOML writes it, tables inline."""
    if isinstance(value, Address | Url | Secret | str):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(toml(each) for each in value)}]"
    if isinstance(value, int | float):
        return repr(value)
    table = value if isinstance(value, dict) else msgspec.structs.asdict(value)
    return f"{{ {', '.join(f'{toml(k)} = {toml(v)}' for k, v in table.items() if v is not None)} }}"


def document(config: Config) -> str:
    return "".join(f"{name} = {toml(value)}\n" for name, value in msgspec.structs.asdict(config).items())


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z", "C")), min_size=1, max_size=12)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
seconds = st.floats(0, 31_536_000) | st.integers(0, 31_536_000)
hosts = (
    st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){0,2}", fullmatch=True)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
)
ports = st.integers(1, 65535)
paths = st.from_regex(r"(/[a-uw-z0-9]{1,5}){0,3}", fullmatch=True).filter(lambda path: not path.endswith("/api"))
urls = st.builds(Url, st.sampled_from(["http", "https"]), hosts, ports, paths)
secrets = st.just(Secret()) | st.builds(Secret, st.just("env"), st.from_regex(r"[A-Z_]{1,9}", fullmatch=True))
timeouts = st.builds(Timeout, connect_s=seconds, send_s=seconds, first_byte_s=seconds, idle_s=seconds, total_s=seconds)
pools = st.builds(Pool, max_connections=ports, idle_s=seconds)
servers_called = st.builds(
    Backend,
    kind=st.sampled_from(["openai", "ollama", "anthropic"]),
    url=urls,
    api_key=secrets,
    timeout=timeouts,
    pool=pools,
    discover=st.booleans(),
)
backends = servers_called | st.builds(Backend, kind=st.just("demo"), discover=st.booleans())
origins = st.builds(lambda url: Origin(f"{url.scheme}://{url.authority}"), urls) | st.just(Origin("*"))


def unique(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=3, unique=True).map(tuple)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    some = draw(st.dictionaries(names, backends, min_size=1, max_size=3))
    known = st.sampled_from(sorted(some))
    targets = unique(st.builds(Target, backend=known, model=texts)).filter(bool)
    bytes_ = st.integers(1, 1 << 50)
    return Config(
        server=draw(
            st.builds(
                Server,
                listen=st.builds(Address, hosts, ports),
                workers=st.integers(0, 1024),
                max_body_bytes=bytes_,
                max_upload_bytes=bytes_,
                hosts=unique(hosts.map(HostName)),
                default_backend=known,
                unknown_models=st.sampled_from(["reject", "default_backend"]),
                receive_s=seconds,
                drain_s=seconds,
                environment=texts,
                tls=st.none() | st.builds(Tls, cert_file=names, key_file=names, client_ca_file=texts),
            )
        ),
        backends=some,
        models=draw(st.dictionaries(names, st.builds(Model, targets=targets), max_size=3)),
        log=draw(st.builds(Log, level=st.sampled_from(["debug", "info", "warning", "error"]), file=texts)),
        cors=Cors(origins=draw(unique(origins))),
    )


@given(configs())
def test_written_and_read_again(config: Config) -> None:
    assert read_config(document(config), "f").config == config
