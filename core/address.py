"""Where we listen, where a backend is, which names and origins may call: addresses, read strictly once."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, Self
from urllib.parse import SplitResult, urlsplit

import msgspec

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?\.?")
_PORT = re.compile(r"[0-9]{1,5}")
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_LISTEN = 'expected host:port such as "127.0.0.1:8080"'
_DEFAULT_PORTS = (("http", 80), ("https", 443))


class Address(msgspec.Struct, frozen=True):
    """A TCP address to listen on."""

    host: str
    """A name or an IP address, IPv6 without brackets."""
    port: int
    """0 = any free port."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "host:port" or "[IPv6]:port". Raises ValueError with the right form."""
        host, colon, port = text.rpartition(":")
        if text.count(":") > 1 and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f'{_LISTEN}; an IPv6 address stands in brackets: "[::1]:8080"')
        if not host:
            number = port if _PORT.fullmatch(port) else "8080"
            raise ValueError(
                f'expected host:port: write "127.0.0.1:{number}" for this machine alone, '
                f'"0.0.0.0:{number}" for every address it has'
            )
        if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
            raise ValueError(f"{_LISTEN}; a port is a number from 0 to 65535")
        return cls(_host(host), int(port))

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        ip = _ip(self.host)
        return ip.is_loopback if ip else self.host == "localhost"

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


class Url(msgspec.Struct, frozen=True):
    """The base address of a backend. `str()` gives it without a trailing slash, so that a path can follow."""

    scheme: Literal["http", "https"]
    host: str
    """A name or an IP address, IPv6 without brackets."""
    port: int
    path: str = ""
    """Empty, or begins with a slash and does not end with one."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an http or https address. Raises ValueError, never with the text: it may hold a password."""
        parts, port = _split(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError('expected an address such as "http://127.0.0.1:8000/v1" or "https://host/v1"')
        if "@" in parts.netloc:
            raise ValueError("an address must not hold a user name or password; use api_key")
        if "?" in text or "#" in text:
            raise ValueError("an address must not have a query (?) or a fragment (#)")
        scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
        bare = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
        return cls(scheme, _host(bare), port or dict(_DEFAULT_PORTS)[scheme], parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The value of a Host header: the port only where it is not the scheme's own."""
        return bracketed(self.host) + _port_suffix(self.scheme, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


class Webhook(str):
    """An http or https address that is told something. Its path may be a secret, so `repr` leaves it out."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address, query and all; "" is none. Raises ValueError, never with the text."""
        if not text:
            return cls()
        parts, _ = _split(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or "#" in text:
            raise ValueError('expected an address such as "https://hooks.example.org/x", or "" for none')
        return cls(text)

    def __repr__(self) -> str:
        parts = urlsplit(self)
        return f"<{parts.scheme}://{parts.netloc}/…>" if self else "''"


class HostName(str):
    """A name clients call us by, as it stands in Host without port: lower case, IPv6 without brackets."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a host name or IP address. Raises ValueError."""
        try:
            ip = _ip(text.removeprefix("[").removesuffix("]"))
            return cls(ip or _host(text).rstrip("."))
        except ValueError:
            raise ValueError(
                'expected a host name alone, such as "llm.example.org", without scheme, port or path'
            ) from None


class Origin(str):
    """A web origin that browsers may call from: "*" or scheme://host[:port], lower case, no default port."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an origin as browsers send it. Raises ValueError."""
        if text == "*":
            return cls(text)
        try:
            parts, port = _split(text)
            if not _SCHEME.fullmatch(parts.scheme) or "@" in parts.netloc or parts.path or set("?#") & set(text):
                raise ValueError
            host = HostName.parse(parts.hostname or "")
        except ValueError:
            raise ValueError(
                'expected "*" or an origin such as "https://app.example.org", without path or trailing slash'
            ) from None
        return cls(f"{parts.scheme}://{bracketed(host)}{_port_suffix(parts.scheme, port)}")


def bracketed(host: str) -> str:
    """A host as it stands before a port: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _host(text: str) -> str:
    """The host in lower case, IPv6 without its brackets."""
    if text.startswith("[") and text.endswith("]") and isinstance(ip := _ip(text[1:-1]), IPv6Address):
        return str(ip)
    name = text.lower()
    looks_like_ip = not name.strip("0123456789.")
    if not _NAME.fullmatch(name) or (looks_like_ip and not _ip(name)):
        raise ValueError("expected a host name or an IP address before the port; an IPv6 address stands in brackets")
    return name


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def _split(text: str) -> tuple[SplitResult, int | None]:
    """urlsplit drops line breaks and reads the port late; here both are errors at once."""
    if not _VISIBLE_ASCII.fullmatch(text):
        raise ValueError("an address is written in visible ASCII characters, without spaces")
    try:
        parts = urlsplit(text)
        return parts, parts.port
    except ValueError:
        raise ValueError("expected a host and a port from 0 to 65535 after ://") from None


def _port_suffix(scheme: str, port: int | None) -> str:
    return "" if port is None or (scheme, port) in _DEFAULT_PORTS else f":{port}"
