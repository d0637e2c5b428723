"""Who may call: the Host a request may carry, the Origins a browser may call from (DNS rebinding, CSRF, CORS)."""

import ipaddress
from urllib.parse import urlsplit

import msgspec


class OriginRules(msgspec.Struct, frozen=True, kw_only=True):
    """hosts: names allowed in Host; None = any. origins: scheme://host[:port] that CORS allows; "*" = all."""

    hosts: frozenset[str] | None
    origins: frozenset[str] = frozenset()

    def host_allowed(self, host: bytes) -> bool:
        """Is this a name the listener goes by? Names are compared without the port."""
        if self.hosts is None:
            return True
        name = host_name(host)
        return name in self.hosts or is_loopback_name(name)

    def cors_allowed(self, origin: bytes) -> bool:
        return "*" in self.origins or origin.decode("latin-1").lower() in self.origins

    def origin_allowed(self, origin: bytes, host: bytes) -> bool:
        """Does a request with this Origin come from our own pages, or from where CORS allows?"""
        return self.cors_allowed(origin) or (bool(host) and _authority(origin) == host.decode("latin-1").lower())


def _authority(origin: bytes) -> str:
    """host[:port] of an Origin; "" for null and for what is not a URL."""
    try:
        return urlsplit(origin.decode("latin-1").lower()).netloc
    except ValueError:
        return ""


def host_name(host: bytes) -> str:
    """The name or address in a Host value, in lower case, without port and brackets."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def is_loopback_name(name: str) -> bool:
    """localhost and names under it (RFC 6761 §6.3), 127.0.0.0/8, ::1."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
