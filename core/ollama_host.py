"""OLLAMA_HOST as Ollama itself reads it, so that one variable names the same server for both of us."""

from penstock.core.address import Url, bracketed

DEFAULT_PORT = 11434
_EVERY_ADDRESS = (
    ("", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.1"),
    ("::", "::1"),
)  # a server's words, not a client's


def ollama_url(value: str) -> Url:
    """The server that OLLAMA_HOST means; "" is Ollama's usual address. Raises ValueError.

    Outer spaces and quotes are dropped, a scheme brings its own default port (80, 443), a port that is no
    number from 0 to 65535 counts as left out. An address to listen on everywhere is called on loopback.
    """
    text = value.strip().strip("\"'").strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "http", text
    authority, slash, path = rest.partition("/")
    host, port = _host_and_port(authority)
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if mark else DEFAULT_PORT
    number = int(port) if port.isdecimal() and int(port) <= 65535 else default
    host = dict(_EVERY_ADDRESS).get(host, host)
    return Url.parse(f"{scheme}://{bracketed(host)}:{number}{slash}{path}")


def _host_and_port(authority: str) -> tuple[str, str]:
    """Host without brackets and port as text; a bare IPv6 address has no port."""
    bare = authority.strip("[]")
    if authority.count(":") > 1 and "]:" not in authority:
        return bare, ""
    host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "")
    return host.strip("[]"), port
