"""Any valid configuration, written as TOML and read again, is the same."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.address import Address, HostName, Origin, Url, Webhook
from penstock.core.cache_rules import ROUTES
from penstock.core.config import (
    Admin,
    Alerts,
    Auth,
    Backend,
    Breaker,
    Cache,
    CacheFacts,
    Chaos,
    ChaosFault,
    Config,
    Cors,
    Health,
    Hedge,
    IpLimits,
    Key,
    Limits,
    Log,
    Model,
    ModelPrice,
    Override,
    Pool,
    Queue,
    Retry,
    Server,
    Store,
    Target,
    Tier,
    Timeout,
    Tls,
)
from penstock.core.config_read import read_config
from penstock.core.keys import KeyPrefix
from penstock.core.measures import MEASURED
from penstock.core.network import Network
from penstock.core.secret import Secret


def toml(value: Any) -> str:
    """A value as TOML writes it, tables inline."""
    if isinstance(value, Address | Url | Secret | str):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(toml(each) for each in value)}]"
    if isinstance(value, int | float):
        return repr(value)
    table = dict(value) if isinstance(value, Mapping) else msgspec.structs.asdict(value)
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
references = st.builds(Secret, st.just("env"), st.from_regex(r"[A-Z_]{1,9}", fullmatch=True))
secrets = st.just(Secret()) | references
usd = st.floats(0, 1000)
# 0, no limit, is refused where a backend is paid by time and money is limited (config_check_limits.py).
ends = st.floats(1, 31_536_000) | st.integers(1, 31_536_000)
timeouts = st.builds(Timeout, connect_s=seconds, send_s=seconds, first_byte_s=seconds, idle_s=seconds, total_s=ends)
pools = st.builds(Pool, max_connections=ports, idle_s=seconds)
some_seconds = st.floats(0.01, 86_400) | st.integers(1, 86_400)
health = st.builds(Health, path=st.sampled_from(["", "/", "/health?a=b"]), interval_s=seconds, timeout_s=some_seconds)
weights = st.integers(1, 1000)
servers_called = st.builds(
    Backend,
    kind=st.sampled_from(["openai", "ollama", "anthropic"]),
    url=urls,
    api_key=secrets,
    timeout=timeouts,
    pool=pools,
    health=health,
    weight=weights,
    max_in_flight=st.integers(0, 1_000_000),
    heartbeat_s=seconds,
    discover=st.booleans(),
    usd_per_gpu_hour=st.none() | usd,
)
powered = st.builds(Backend, kind=st.just("demo"), power_watts=usd, usd_per_kwh=usd)
backends = powered | servers_called | st.builds(Backend, kind=st.just("demo"), discover=st.booleans())
origins = st.builds(lambda url: Origin(f"{url.scheme}://{url.authority}"), urls) | st.just(Origin("*"))


def unique(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=3, unique=True).map(tuple)


priced = st.builds(
    ModelPrice, input_usd_per_mtok=usd, output_usd_per_mtok=st.none() | usd, usd_per_second=st.none() | usd
)
networks = st.ip_addresses().map(lambda ip: Network.parse(str(ip))) | st.just(Network("10.0.0.0/8"))
amounts = st.dictionaries(st.sampled_from([name for name in MEASURED if "usd" not in name]), st.integers(0, 10**9))
some_amounts = amounts.filter(bool).map(lambda each: dict(list(each.items())[:2]))


def tiers(known: st.SearchStrategy[str]) -> st.SearchStrategy[Tier]:
    rest = st.fixed_dictionaries(
        {},
        optional={
            "usd_per_day": usd,
            "max_output_tokens": st.integers(1, 10**9),
            "models": unique(names),
            "upgrade_to": known,
        },
    )
    return st.builds(lambda amounts, rest: Tier(**amounts, **rest), some_amounts, rest)


@st.composite
def who_may_call(draw: st.DrawFn) -> dict[str, Any]:
    """The parts of a configuration about keys and limits."""
    top = draw(st.dictionaries(names, tiers(st.just("")), max_size=2))
    below = {f"{name} below": draw(tiers(st.just(name))) for name in top}
    known = st.sampled_from([*top, *below, ""])
    keys = draw(st.lists(st.builds(Key, name=names, key=references, tenant_id=texts, user_id=texts, tier=known)))
    named = st.fixed_dictionaries({"key": names}) | st.fixed_dictionaries({"user_id": names})
    overrides = unique(st.builds(lambda named, amounts: Override(**named, **amounts), named, some_amounts))
    return {
        "tiers": {**top, **below},
        "keys": tuple({key.name: key for key in keys}.values()),
        "auth": Auth(mode="keys", key_prefix=KeyPrefix("sk_test"), hash_key=draw(secrets)),
        "admin": Admin(key=draw(secrets)),
        "limits": Limits(override=draw(overrides.filter(_none_twice)), ip=IpLimits(chat_per_s=draw(ports))),
        "alerts": Alerts(webhook=Webhook("https://a.example/b?c"), budget_percent=draw(unique(st.integers(1, 100)))),
        "store": draw(
            st.builds(Store, keep_days=st.integers(0, 36_500), when_full=st.sampled_from(["wait", "refuse"]))
        ),
    }


def _none_twice(overrides: tuple[Override, ...]) -> bool:
    named = [(each.key, each.user_id) for each in overrides]
    return len(set(named)) == len(named)


breakers = st.builds(
    Breaker,
    failures=st.integers(0, 1_000_000),
    failure_ratio=st.floats(0, 1),
    window_s=some_seconds,
    min_requests=st.integers(1, 1_000_000),
    recovery_s=some_seconds,
)
caches = st.builds(
    Cache,
    max_bytes=st.integers(0, 1 << 50),
    ttl_s=seconds,
    routes=st.dictionaries(st.sampled_from(ROUTES), seconds),
    scope=st.sampled_from(["tenant", "key", "all"]),
    max_entry_share=st.floats(0.0001, 1),
    replay_chunks_per_s=st.floats(0, 1_000_000),
    facts=st.builds(CacheFacts, flush_s=st.floats(1, 86_400), bodies=st.booleans()),
)
milliseconds = st.integers(0, 3_600_000)
times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@st.composite
def faults(draw: st.DrawFn) -> ChaosFault:
    kind, of_kind = draw(
        st.sampled_from(["connection_reset"]).map(lambda kind: (kind, {}))
        | st.integers(1, 1000).map(lambda ms: ("latency", {"latency_ms": ms}))
        | st.integers(1, 1000).map(lambda ms: ("slow_tokens", {"gap_ms": ms}))
        | st.integers(400, 599).map(lambda status: ("error_status", {"status": status}))
        | st.integers(0, 1 << 40).map(lambda after: ("cut_stream", {"after_bytes": after}))
    )
    start, end = sorted(draw(st.tuples(times, times).filter(lambda pair: pair[0] != pair[1])))
    return ChaosFault(
        name=draw(st.from_regex(r"[A-Za-z0-9_.-]{1,9}", fullmatch=True)),
        kind=kind,
        model=draw(texts),
        share=draw(st.floats(0, 1)),
        start=draw(st.sampled_from([None, start])),
        end=draw(st.sampled_from([None, end])),
        **of_kind,
    )


@st.composite
def what_fails(draw: st.DrawFn) -> dict[str, Any]:
    """The parts of a configuration about what happens when a backend fails."""
    named = {fault.name: fault for fault in draw(st.lists(faults(), max_size=3))}
    return {
        "breaker": draw(breakers),
        "retry": draw(st.builds(Retry, attempts=st.integers(1, 10), backoff_ms=milliseconds)),
        "queue": draw(st.builds(Queue, max_waiting=st.integers(0, 1_000_000), max_wait_s=seconds)),
        "hedge": draw(st.builds(Hedge, max_share=st.floats(0, 0.5))),
        "chaos": Chaos(enabled=draw(st.booleans()), faults=tuple(named.values())),
    }


@st.composite
def models(draw: st.DrawFn, backends: st.SearchStrategy[str]) -> dict[str, Model]:
    """Those that come later may have those before them as fallback."""
    made: dict[str, Model] = {}
    targets = unique(st.builds(Target, backend=backends, model=texts, weight=st.none() | weights))
    for name in draw(st.lists(names, max_size=3, unique=True)):
        made[name] = Model(
            targets=draw(targets.filter(lambda found, name=name: _no_place_twice(found, name))),
            balance=draw(st.sampled_from(["least_in_flight", "weighted", "latency"])),
            fallback=draw(unique(st.sampled_from(sorted(made)))) if made else (),
            price=draw(st.none() | priced),
            context_tokens=draw(st.none() | ports),
            cache_ttl_s=draw(st.none() | seconds),
        )
    return made


def _no_place_twice(targets: tuple[Target, ...], name: str) -> bool:
    places = [(each.backend, each.model or name) for each in targets]
    return bool(targets) and len(set(places)) == len(places)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    some = draw(st.dictionaries(names, backends, min_size=1, max_size=3))
    known = st.sampled_from(sorted(some))
    bytes_ = st.integers(1, 1 << 50)
    return Config(
        **draw(who_may_call()),
        **draw(what_fails()),
        server=draw(
            st.builds(
                Server,
                listen=st.builds(Address, hosts, ports),
                workers=st.integers(0, 1024),
                max_body_bytes=bytes_,
                max_upload_bytes=bytes_,
                hosts=unique(hosts.map(HostName)),
                state_dir=texts,
                trusted_proxies=unique(networks),
                default_backend=known,
                unknown_models=st.sampled_from(["reject", "default_backend"]),
                receive_s=seconds,
                drain_s=seconds,
                environment=texts,
                tls=st.none() | st.builds(Tls, cert_file=names, key_file=names, client_ca_file=texts),
            )
        ),
        backends=some,
        models=draw(models(known)),
        cache=draw(caches),
        log=draw(st.builds(Log, level=st.sampled_from(["debug", "info", "warning", "error"]), file=texts)),
        cors=Cors(origins=draw(unique(origins))),
    )


@settings(deadline=None)
@given(configs())
def test_written_and_read_again(config: Config) -> None:
    assert read_config(document(config), "f").config == config
