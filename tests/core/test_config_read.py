"""Configuration files that are wrong, and the exact words about it."""

import pytest

from penstock.core.config_problem import ConfigError
from penstock.core.config_read import read_config
from penstock.core.measures import MEASURED

DEMO = '[backends.demo]\nkind = "demo"\n'


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(text, "f")
    return str(caught.value).split("\n")


PRICE_IS_EMPTY = "f:5:9: price is empty: write for example { input_usd_per_mtok = 2.5 }"
ONE_MISTAKE = {
    "unknown key, near one": (
        "[server]\nworker = 4\n",
        'f:4:1: unknown key "worker" in [server]; did you mean "workers"?',
    ),
    "unknown key, none near": (
        "zzz = 1\n",
        'f:3:1: unknown key "zzz" in [backends.demo]; there are kind, url, api_key, ca_file, timeout, pool, health, '
        "weight, max_in_flight, heartbeat_s, discover, usd_per_gpu_hour, power_watts, usd_per_kwh",
    ),
    "unknown section": (
        "[zzz.free]\n",
        'f:3:2: unknown key "zzz" at the top level; there are server, admin, auth, keys, tiers, limits, backends, '
        "models, breaker, retry, queue, hedge, cache, chaos, store, alerts, log, cors",
    ),
    "unknown key with a line break in it": (
        '"pool\\nx" = 1\n',
        'f:3:1: unknown key "pool\\nx" in [backends.demo]; did you mean "pool"?',
    ),
    "integer too small": ("[server]\nworkers = -1\n", "f:4:11: workers must be from 0 to 1024, not -1"),
    "string for an integer": (
        '[server]\nworkers = "four"\n',
        "f:4:11: workers must be an integer, not a string",
    ),
    "boolean for an integer": (
        "[server]\nmax_body_bytes = true\n",
        "f:4:18: max_body_bytes must be an integer, not a boolean",
    ),
    "fraction for an integer": (
        "[server]\nworkers = 1.5\n",
        "f:4:11: workers must be an integer, not a number",
    ),
    "integer for a boolean": ("discover = 1\n", "f:3:12: discover must be a boolean, not an integer"),
    "date for a string": (
        "[server]\nenvironment = 2024-01-01\n",
        "f:4:15: environment must be a string, not a date or time",
    ),
    "infinity": ("[server]\ndrain_s = inf\n", "f:4:11: drain_s must be from 0 to 31536000, not inf"),
    "not a number": (
        "timeout = { idle_s = nan }\n",
        "f:3:22: idle_s must be from 0 to 31536000, not nan",
    ),
    "enum, near one": (
        '[log]\nlevel = "warnin"\n',
        'f:4:9: level must be one of "debug", "info", "warning", "error", not "warnin"; did you mean "warning"?',
    ),
    "a route whose answers cannot be kept, near one": (
        '[cache.routes]\n"/v1/chat/completion" = 60\n',
        'f:4:1: routes: there is no route "/v1/chat/completion" whose answers could be kept; '
        'did you mean "/v1/chat/completions"?',
    ),
    "a route whose answers cannot be kept": (
        '[cache]\nroutes = { "/usage" = 60 }\n',
        'f:4:12: routes: there is no route "/usage" whose answers could be kept; there are /api/chat, /api/embed, '
        "/api/embeddings, /api/generate, /api/ps, /api/show, /api/tags, /api/version, /v1/chat/completions, "
        "/v1/completions, /v1/embeddings, /v1/messages, /v1/moderations, /v1/rerank, /v1/responses, /ai/generate, "
        "simple_chat",
    ),
    "a route's time that is none": (
        '[cache.routes]\n"/api/tags" = "1h"\n',
        "f:4:15: /api/tags must be a number, not a string",
    ),
    "a cache of less than nothing": (
        "[cache]\nmax_bytes = -1\n",
        "f:4:13: max_bytes must be from 0 to 1125899906842624, not -1",
    ),
    "a share of nothing": ("[cache]\nmax_entry_share = 0\n", "f:4:19: max_entry_share must be from 0.0001 to 1, not 0"),
    "auth by token": ('[auth]\nmode = "jwt"\n', 'f:4:8: mode must be one of "none", "keys", not "jwt"'),
    "scalar for a table": ("[server]\ntls = 1\n", "f:4:7: tls must be a table, not an integer"),
    "scalar for an array": ('[server]\nhosts = "a"\n', "f:4:9: hosts must be an array, not a string"),
    "number for an address": ("[server]\nlisten = 8080\n", "f:4:10: listen must be a string, not an integer"),
    "listen without host": (
        '[server]\nlisten = ":8080"\n',
        'f:4:10: listen: expected host:port: write "127.0.0.1:8080" for this machine alone, '
        '"0.0.0.0:8080" for every address it has',
    ),
    "listen without brackets": (
        '[server]\nlisten = "::1:8080"\n',
        'f:4:10: listen: expected host:port such as "127.0.0.1:8080"; an IPv6 address stands in brackets: "[::1]:8080"',
    ),
    "listen on every address": (
        '[server]\nlisten = "0.0.0.0:8080"\n',
        'f:4:10: listen: "0.0.0.0:8080" can be reached from other machines and nobody would be asked for a key; '
        'write mode = "keys", or mode = "none" if everybody who reaches it may use it, under [auth]',
    ),
    "unknown default backend": (
        '[server]\ndefault_backend = "demon"\n',
        'f:4:19: default_backend names "demon", but there is no [backends.demon]; did you mean "demo"?',
    ),
    "unknown models to no backend": (
        '[server]\nunknown_models = "default_backend"\n',
        'f:4:18: unknown_models = "default_backend" needs a default_backend in [server]',
    ),
    "host with scheme": (
        '[server]\nhosts = ["a.example", "http://b"]\n',
        'f:4:23: hosts[1]: expected a host name alone, such as "llm.example.org", without scheme, port or path',
    ),
    "host twice": ('[server]\nhosts = ["a", "A."]\n', 'f:4:15: hosts[1]: "a" is there already'),
    "tls with half a pair": ('[server.tls]\ncert_file = "c"\n', 'f:3:9: [server.tls] needs "key_file"'),
    "tls with an empty name": (
        '[server.tls]\ncert_file = "c"\nkey_file = ""\n',
        "f:5:12: key_file must be a string that is not empty",
    ),
    "a key in the file": (
        '[backends.x]\nkind = "openai"\nurl = "http://x"\napi_key = "sk-abc"\n',
        'f:6:11: api_key: a secret itself must not stand here; write "env:NAME" for an environment variable '
        'or "file:PATH" for a file that holds it',
    ),
    "a secret store of later": (
        '[backends.x]\nkind = "openai"\nurl = "http://x"\napi_key = "aws-sm:id#key"\n',
        'f:6:11: api_key: "aws-sm:" is not supported in this version; write "env:NAME" for an environment '
        'variable or "file:PATH" for a file that holds it',
    ),
    "a number as a key": (
        '[backends.x]\nkind = "openai"\nurl = "http://x"\napi_key = 123456\n',
        "f:6:11: api_key must be a string, not an integer",
    ),
    "no url": (
        '[backends.x]\nkind = "openai"\n',
        'f:3:11: [backends.x] needs "url": kind "openai" is a server',
    ),
    "url with password": (
        '[backends.x]\nkind = "openai"\nurl = "http://u:secret@x"\n',
        "f:5:7: url: an address must not hold a user name or password; use api_key",
    ),
    "url with query": (
        '[backends.x]\nkind = "openai"\nurl = "http://x/v1?a=b"\n',
        "f:5:7: url: an address must not have a query (?) or a fragment (#)",
    ),
    "url without scheme": (
        '[backends.x]\nkind = "openai"\nurl = "localhost:8000"\n',
        'f:5:7: url: expected an address such as "http://127.0.0.1:8000/v1" or "https://host/v1"',
    ),
    "url for Ollama's OpenAI side": (
        '[backends.x]\nkind = "ollama"\nurl = "http://x:11434/v1/"\n',
        'f:5:7: url: for kind "ollama" write the server\'s root, "http://x:11434"',
    ),
    "demo with url": (
        'url = "http://x"\n',
        'f:3:1: url: a backend of kind "demo" is built in and takes none',
    ),
    "ca_file without https": (
        '[backends.x]\nkind = "openai"\nurl = "http://x"\nca_file = "ca.pem"\n',
        "f:6:1: ca_file is for https, but the url begins with http://",
    ),
    "no kind": ('[backends.x]\nurl = "http://x"\n', 'f:3:11: [backends.x] needs "kind"'),
    "empty backend name": (
        '[backends.""]\nkind = "demo"\n',
        "f:3:11: a name in [backends] must not be empty",
    ),
    "model without targets": ('[models."a:b"]\n', 'f:3:9: [models."a:b"] needs "targets"'),
    "model with no target": ("[models.m]\ntargets = []\n", "f:4:11: targets must not be empty"),
    "target unknown": (
        '[models.m]\ntargets = ["dmo"]\n',
        'f:4:12: backend names "dmo", but there is no [backends.dmo]; did you mean "demo"?',
    ),
    "target unknown, long form": (
        '[models.m]\ntargets = ["demo", { model = "x", backend = "dmo" }]\n',
        'f:4:45: backend names "dmo", but there is no [backends.dmo]; did you mean "demo"?',
    ),
    "target of the wrong type": (
        "[models.m]\ntargets = [3]\n",
        "f:4:12: targets[0] must be a string or a table, not an integer",
    ),
    "target twice": (
        '[models.m]\ntargets = ["demo", "demo"]\n',
        'f:4:20: targets[1]: "demo" is there already',
    ),
    "a target twice, in other words": (
        '[models.m]\ntargets = ["demo", { backend = "demo", model = "m", weight = 3 }]\n',
        'f:4:20: targets[1]: "demo: m" is there already',
    ),
    "a balance of later": (
        '[models.m]\ntargets = ["demo"]\nbalance = "latencies"\n',
        'f:5:11: balance must be one of "least_in_flight", "weighted", "latency", not "latencies"; '
        'did you mean "latency"?',
    ),
    "a weight of nothing": (
        '[models.m]\ntargets = [{ backend = "demo", weight = 0 }]\n',
        "f:4:41: weight must be from 1 to 1000, not 0",
    ),
    "a fallback that is not there": (
        '[models.m]\ntargets = ["demo"]\nfallback = ["m2"]\n[models.m-2]\ntargets = ["demo"]\n',
        'f:5:13: fallback[0] names "m2", but there is no [models.m2]; did you mean "m-2"?',
    ),
    "a fallback to itself": (
        '[models.m]\ntargets = ["demo"]\nfallback = ["m"]\n',
        "f:5:13: fallback[0]: a model cannot be its own fallback",
    ),
    "a fallback twice": (
        '[models.m]\ntargets = ["demo"]\nfallback = ["n", "n"]\n[models.n]\ntargets = ["demo"]\n',
        'f:5:18: fallback[1]: "n" is there already',
    ),
    "a health check of a whole address": (
        'health = { path = "http://x/health" }\n',
        'f:3:19: path must be a path without spaces, such as "/health", or "" for the usual one',
    ),
    "a health check that ends a line": (
        'health = { path = "/health\\n" }\n',
        'f:3:19: path must be a path without spaces, such as "/health", or "" for the usual one',
    ),
    "a health check without time": (
        "health.timeout_s = 0\n",
        "f:3:20: timeout_s must be from 0.01 to 86400, not 0",
    ),
    "fewer than no requests": ("max_in_flight = -1\n", "f:3:17: max_in_flight must be from 0 to 1000000, not -1"),
    "a ratio in percent": (
        "[breaker]\nfailure_ratio = 50\n",
        "f:4:17: failure_ratio must be from 0 to 1, not 50",
    ),
    "a breaker that never lets try again": (
        "[breaker]\nrecovery_s = 0\n",
        "f:4:14: recovery_s must be from 0.01 to 86400, not 0",
    ),
    "attempts without end": ("[retry]\nattempts = 11\n", "f:4:12: attempts must be from 1 to 10, not 11"),
    "a unit left out": (
        "[retry]\nbackoff = 100\n",
        'f:4:1: unknown key "backoff" in [retry]; did you mean "backoff_ms"?',
    ),
    "a section spelt otherwise": (
        "[breakers]\nfailures = 5\n",
        'f:3:2: unknown key "breakers" at the top level; did you mean "breaker"?',
    ),
    "more hedging than half": ("[hedge]\nmax_share = 0.6\n", "f:4:13: max_share must be from 0 to 0.5, not 0.6"),
    "a fault that a header could not hold": (
        '[[chaos.faults]]\nname = "a b"\nkind = "bad_body"\n',
        "f:4:8: name must be 1 to 64 letters, digits, dots, hyphens and underscores",
    ),
    "a fault of nowhere": (
        '[[chaos.faults]]\nname = "a"\nkind = "bad_body"\nbackend = "dmo"\n',
        'f:6:11: backend names "dmo", but there is no [backends.dmo]; did you mean "demo"?',
    ),
    "a fault's name twice": (
        '[[chaos.faults]]\nname = "a"\nkind = "bad_body"\n[[chaos.faults]]\nname = "a"\nkind = "bad_body"\n',
        'f:7:8: name: there is a fault "a" already',
    ),
    "a fault that would do nothing": (
        '[[chaos.faults]]\nname = "a"\nkind = "latency"\n',
        "f:3:1: latency_ms: a fault of kind latency needs it, in ms, more than 0",
    ),
    "a fault with the wrong field": (
        '[[chaos.faults]]\nname = "a"\nkind = "bad_body"\nstatus = 500\n',
        "f:6:10: status: only faults of kind error_status have it, and this one is bad_body",
    ),
    "a fault whose field is wrong in itself": (
        '[[chaos.faults]]\nname = "a"\nkind = "latency"\nlatency_ms = "5"\n',
        "f:6:14: latency_ms must be an integer, not a string",
    ),
    "a fault that ends before it begins": (
        '[[chaos.faults]]\nname = "a"\nkind = "bad_body"\nstart = 2026-11-21T12:00:00Z\nend = 2026-11-21T11:00:00Z\n',
        "f:7:7: end: must be later than start",
    ),
    "a time without offset": (
        '[[chaos.faults]]\nname = "a"\nkind = "bad_body"\nstart = 2026-11-21T12:00:00\n',
        "f:6:9: start must be a time with its offset, such as 2026-11-21T12:00:00Z",
    ),
    "origin with path": (
        '[cors]\norigins = ["https://app.example/"]\n',
        'f:4:12: origins[0]: expected "*" or an origin such as "https://app.example.org", '
        "without path or trailing slash",
    ),
    "a network with bits too many": (
        '[server]\ntrusted_proxies = ["10.0.0.1/8"]\n',
        'f:4:20: trusted_proxies[0]: expected an IP address or network such as "10.0.0.7", "10.0.0.0/8" or "fd00::/8", '
        'without bits beyond its length: "10.0.0.0/8"',
    ),
    "a prefix with a hyphen": (
        '[auth]\nkey_prefix = "sk-"\n',
        'f:4:14: key_prefix: expected 1 to 16 letters, digits and underscores, such as "psk_"',
    ),
    "an API key in the file": (
        '[auth]\nmode = "keys"\n[[keys]]\nname = "a"\nkey = "psk_123"\n',
        'f:7:7: key: a secret itself must not stand here; write "env:NAME" for an environment variable '
        'or "file:PATH" for a file that holds it',
    ),
    "an API key that is empty": (
        '[auth]\nmode = "keys"\n[[keys]]\nname = "a"\nkey = ""\n',
        'f:7:7: key must not be empty: write "env:NAME" or "file:PATH"',
    ),
    "keys nobody is asked for": (
        '[[keys]]\nname = "a"\nkey = "env:A"\n',
        'f:3:1: [[keys]]: nobody is asked for a key in mode "none"; write mode = "keys" under [auth]',
    ),
    "a key's name twice": (
        '[auth]\nmode = "keys"\n[[keys]]\nname = "a"\nkey = "env:A"\n[[keys]]\nname = "a"\nkey = "env:B"\n',
        'f:9:8: name: there is a key "a" already',
    ),
    "a tier that is not there": (
        '[auth]\nmode = "keys"\n[[keys]]\nname = "a"\nkey = "env:A"\ntier = "fre"\n[tiers.free]\n',
        'f:8:8: tier names "fre", but there is no [tiers.fre]; did you mean "free"?',
    ),
    "a tier where there is none": (
        '[auth]\nmode = "keys"\n[[keys]]\nname = "a"\nkey = "env:A"\ntier = "free"\n',
        'f:8:8: tier names "free", but there is no [tiers.free]',
    ),
    "no key can be": (
        '[auth]\nmode = "keys"\n[store]\nurl = "none"\n',
        'f:4:8: mode = "keys", but there can be none: no [[keys]] here, and [store] says url = "none"',
    ),
    "an admin without a store": (
        '[admin]\nkey = "env:A"\n[store]\nurl = "none"\n',
        'f:4:1: key: the admin routes need a store, and [store] says url = "none"',
    ),
    "a store of later": (
        '[store]\nurl = "postgresql://x"\n',
        'f:4:7: url must be one of "sqlite", "none", not "postgresql://x"; this version has no other database',
    ),
    "a limit below nothing": (
        "[tiers.free]\nrequests_per_hour = -1\n",
        "f:4:21: requests_per_hour must be from 0 to 1000000000000, not -1",
    ),
    "a budget above all measure": (
        "[tiers.free]\nusd_per_day = 1e9\n",
        "f:4:15: usd_per_day must be from 0 to 250000, not 1000000000.0",
    ),
    "a limit nobody has": (
        "[tiers.free]\nrequests_per_our = 1\n",
        'f:4:1: unknown key "requests_per_our" in [tiers.free]; did you mean "requests_per_hour"?',
    ),
    "an upgrade to nowhere": (
        '[tiers.free]\nupgrade_to = "pro"\n',
        'f:4:14: upgrade_to names "pro", but there is no [tiers.pro]',
    ),
    "upgrades in a circle": (
        '[tiers.x]\nupgrade_to = "a"\n[tiers.a]\nupgrade_to = "b"\n[tiers.b]\nupgrade_to = "a"\n',
        "f:6:14: upgrade_to goes in a circle: a -> b -> a",
    ),
    "an override of nobody": (
        "[[limits.override]]\nin_flight = 1\n",
        "f:3:1: [[limits.override]] names exactly one key, user_id, tenant_id or tier",
    ),
    "an override of two": (
        '[[limits.override]]\nkey = "a"\nuser_id = "b"\nin_flight = 1\n',
        "f:3:1: [[limits.override]] names exactly one key, user_id, tenant_id or tier",
    ),
    "an override of nothing": (
        '[[limits.override]]\nkey = "a"\n',
        "f:3:1: [[limits.override]] sets no limit, such as requests_per_hour = 5000",
    ),
    "two overrides of one limit": (
        '[[limits.override]]\nkey = "a"\nin_flight = 1\n[[limits.override]]\nkey = "a"\nin_flight = 2\n',
        'f:8:1: in_flight of key "a" is set already',
    ),
    "a price without a part": ('[models.m]\ntargets = ["demo"]\nprice = {}\n', PRICE_IS_EMPTY),
    "power without its price": ("power_watts = 300\n", "f:3:1: power_watts needs usd_per_kwh beside it"),
    "time without end against a budget": (
        "usd_per_gpu_hour = 1.0\ntimeout.total_s = 0\n[tiers.free]\nusd_per_day = 1.0\n",
        "f:4:19: total_s: [backends.demo] is paid by time and there are limits in USD, so its requests must end: not 0",
    ),
    "a webhook with a password": (
        '[alerts]\nwebhook = "https://u:p@x"\n',
        'f:4:11: webhook: expected an address such as "https://hooks.example.org/x", or "" for none',
    ),
    "a percent above all": (
        "[alerts]\nbudget_percent = [50, 101]\n",
        "f:4:23: budget_percent[1] must be from 1 to 100, not 101",
    ),
    "dotted key": (
        "pool.idle_s = 1\npool.max_connections = 0\n",
        "f:4:24: max_connections must be from 1 to 65535, not 0",
    ),
    "unknown part of a dotted key": (
        "timeout.conect_s = 1\n",
        'f:3:9: unknown key "conect_s" in [backends.demo.timeout]; did you mean "connect_s"?',
    ),
    "unknown key of an inline table": (
        "timeout = { send_s = 1, first_bite_s = 2 }\n",
        'f:3:25: unknown key "first_bite_s" in [backends.demo.timeout]; did you mean "first_byte_s"?',
    ),
    "table in an array of tables": (
        '[models.m]\n[[models.m.targets]]\nbackend = "demo"\n[[models.m.targets]]\nbackend = "demo2"\n',
        'f:7:11: backend names "demo2", but there is no [backends.demo2]; did you mean "demo"?',
    ),
    "after a string of many lines": (
        '[server]\nenvironment = """\n[log]\nlevel = 3\n"""\nworkers = -1\n',
        "f:8:11: workers must be from 0 to 1024, not -1",
    ),
    "columns are characters": (
        'timeout = { "ü" = 1 } # ü\n',
        'f:3:13: unknown key "ü" in [backends.demo.timeout]; there are '
        "connect_s, send_s, first_byte_s, idle_s, total_s",
    ),
    "key twice": ("[server]\nworkers = 1\n  workers = 2\n", "f:5:3: this key or table is written twice"),
    "backend twice": ('[backends.demo]\nkind = "demo"\n', "f:3:1: this key or table is written twice"),
    "no value": ("[server]\nworkers =\n", "f:4:10: not valid TOML: Invalid value"),
    "string without end": ('[server]\nlisten = "x\n', "f:4:12: not valid TOML: Illegal character '\\n'"),
    "end too early": ("[server]\nhosts = [", "f:4:10: not valid TOML: Invalid value"),
    "too deep": (f"a = {'[' * 5000}", "f:1:1: tables or arrays are nested too deeply"),
}


@pytest.mark.parametrize(("addition", "message"), ONE_MISTAKE.values(), ids=ONE_MISTAKE)
def test_a_mistake_is_told_with_its_place(addition: str, message: str) -> None:
    assert complaints(DEMO + addition) == [message]


def test_nothing_to_serve() -> None:
    assert complaints("") == ['f:1:1: no backend: write for example [backends.demo] and under it kind = "demo"']


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
servr = 1
[server]
workers = "x"
default_backend = "clod"
receive_s = -1
[backends.cloud]
kind = "opnai"
url = "ftp://x"
api_key = "sk-1"
timeout = { send_s = -2.5, total = 1 }
[models.m]
targets = ["cloud", "clud", 3]
[log]
level = "loud"
"""
    assert complaints(text) == [
        'f:1:1: unknown key "servr" at the top level; did you mean "server"?',
        "f:3:11: workers must be an integer, not a string",
        'f:4:19: default_backend names "clod", but there is no [backends.clod]; did you mean "cloud"?',
        "f:5:13: receive_s must be from 0 to 31536000, not -1",
        'f:7:8: kind must be one of "openai", "ollama", "anthropic", "demo", not "opnai"; did you mean "openai"?',
        'f:8:7: url: expected an address such as "http://127.0.0.1:8000/v1" or "https://host/v1"',
        'f:9:11: api_key: a secret itself must not stand here; write "env:NAME" for an environment variable '
        'or "file:PATH" for a file that holds it',
        "f:10:22: send_s must be from 0 to 31536000, not -2.5",
        'f:10:28: unknown key "total" in [backends.cloud.timeout]; did you mean "total_s"?',
        'f:12:21: backend names "clud", but there is no [backends.clud]; did you mean "cloud"?',
        "f:12:29: targets[2] must be a string or a table, not an integer",
        'f:14:9: level must be one of "debug", "info", "warning", "error", not "loud"',
    ]


def test_a_broken_url_is_not_also_a_missing_one() -> None:
    text = '[backends.x]\nkind = "openai"\nurl = 3\n'
    assert complaints(text) == ["f:3:7: url must be a string, not an integer"]


def test_what_may_be_a_secret_is_never_repeated() -> None:
    text = '[backends.x]\nkind = "openai"\nurl = "http://u:hush@x"\napi_key = "hush"\ndiscover = "hush"\n'
    assert "hush" not in "\n".join(complaints(text))


def test_listening_everywhere_can_be_asked_for() -> None:
    text = f'{DEMO}[server]\nlisten = "0.0.0.0:80"\n[auth]\nmode = "none"\n'
    assert str(read_config(text, "f").config.server.listen) == "0.0.0.0:80"


def test_a_target_may_be_a_string() -> None:
    short = read_config(f'{DEMO}[models.m]\ntargets = ["demo"]\n', "f").config
    long = read_config(f'{DEMO}[models.m]\ntargets = [{{ backend = "demo" }}]\n', "f").config
    assert short == long
    assert short.models["m"].targets[0].backend == "demo"


def test_more_targets_than_can_be_held() -> None:
    targets = ", ".join(f'{{ backend = "demo", model = "m{number}" }}' for number in range(64))
    read_config(f"{DEMO}[models.m]\ntargets = [{targets}]\n", "f")
    column = len(f"targets = [{targets}, ") + 1
    assert complaints(f'{DEMO}[models.m]\ntargets = [{targets}, "demo"]\n') == [
        f"f:4:{column}: targets: a model can have 64, not 65"
    ]


def test_more_backends_than_can_be_held() -> None:
    text = "".join(f'[backends.b{number}]\nkind = "demo"\n' for number in range(512))
    read_config(text, "f")
    assert complaints(f"{text}{DEMO}") == ["f:1025:11: [backends.demo]: there can be 512 backends"]


def test_windows_line_ends() -> None:
    assert complaints(DEMO.replace("\n", "\r\n") + "[server]\r\nworkers = -1\r\n") == [
        "f:4:11: workers must be from 0 to 1024, not -1"
    ]


def test_more_limits_than_can_be_held() -> None:
    names = [name for name in MEASURED if name != "in_flight"][:15]
    assert "requests_per_hour" in names
    tier = "[tiers.free]\n" + "".join(f"{name} = 1\n" for name in names)
    override = '[[limits.override]]\nkey = "a"\nin_flight = 1\n'
    read_config(DEMO + tier + override, "f")
    assert complaints(f"{DEMO}{tier}{override}requests_per_s = 5\n") == [
        "f:3:8: [tiers.free] and the overrides that may meet it are 17 limits; 16 can be held"
    ]


def test_more_overrides_than_can_be_held_without_a_tier() -> None:
    names = [name for name in MEASURED if name != "in_flight"][:8]
    limits = "".join(f"{name} = 1\n" for name in names)
    override = f'[[limits.override]]\nkey = "a"\n{limits}[[limits.override]]\nuser_id = "b"\n{limits}'
    assert complaints(f"{DEMO}{override}") == [
        "f:3:10: the overrides that may meet at a key without tier, and its quota, are 17 limits; 16 can be held"
    ]
    read_config(DEMO + override.removesuffix(f"{names[-1]} = 1\n"), "f")


def test_keys_may_be_in_the_store_alone() -> None:
    config = read_config(f'{DEMO}[auth]\nmode = "keys"\n[server]\nlisten = "0.0.0.0:80"\n', "f").config
    assert (config.auth.mode, config.keys) == ("keys", ())


def test_a_webhook_is_not_shown() -> None:
    config = read_config(f'{DEMO}[alerts]\nwebhook = "https://hooks.example.org/hush?a=hush"\n', "f").config
    assert "hush" not in repr(config)
    assert config.alerts.webhook == "https://hooks.example.org/hush?a=hush"
