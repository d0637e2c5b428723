"""The shipped price table: which provider a backend is, and which line of the table a model's name means."""

import datetime
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Self

import msgspec

from penstock.core.address import Url
from penstock.core.config import Backend, Model, ModelPrice
from penstock.core.cost import Price, backend_price, model_price

# What a name may have behind the table's: a date, a month, a build, "latest". Anything else is another model.
_VERSION = re.compile(
    r"[-@](latest|\d{4}-\d{2}-\d{2}|\d{8}|\d{3,4}|preview|preview-\d{2}-\d{2}|preview-\d{2}-\d{4})",
)


class Listed(ModelPrice, frozen=True):
    """A model's line in the table."""

    max_output_tokens: int | None = None
    context_tokens: int | None = None


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who sells models: source is the address of its price list, hosts are those of its API."""

    source: str
    hosts: frozenset[str]
    models: Mapping[str, Listed]

    def find(self, model: str) -> Listed | None:
        """The line of a model: its name, else the longest name in the table that it is a version of."""
        if listed := self.models.get(model):
            return listed
        cut = [found.start() for found in re.finditer("[-@]", model)]
        for end in reversed(cut):
            if _VERSION.fullmatch(model, end) and (listed := self.models.get(model[:end])):
                return listed
        return None


class PriceTable(msgspec.Struct, frozen=True):
    """The table; as_of: the day its figures are of. False if it is empty."""

    as_of: datetime.date = datetime.date.min
    providers: Mapping[str, Provider] = {}

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """From the parsed TOML. Raises msgspec.ValidationError."""
        providers = {name: value for name, value in raw.items() if name != "as_of"}
        return msgspec.convert({"as_of": raw["as_of"], "providers": providers}, type=cls)

    def __bool__(self) -> bool:
        return bool(self.providers)

    def find(self, host: str, model: str) -> Listed | None:
        """A model's line. At a host nobody here owns, that of the first provider that knows the name, also without
        the part before a slash, which such hosts put there ("openai/gpt-4o")."""
        for provider in self.providers.values():
            if host in provider.hosts:
                return provider.find(model)
        for name in (model, model.rpartition("/")[2]):
            for provider in self.providers.values():
                if listed := provider.find(name):
                    return listed
        return None


def is_listed(backend: Backend) -> bool:
    """Whether the table can say what a backend's models cost: not those of one's own machines."""
    return backend.kind in ("openai", "anthropic") and backend.url is not None and not _is_own(backend.url)


class Terms(msgspec.Struct, frozen=True):
    """What a model costs at a backend, and how long its prompts and answers can be. None = not known."""

    price: Price | None = None
    max_output_tokens: int | None = None
    context_tokens: int | None = None


def terms(model: Model | None, backend: Backend, name: str, table: PriceTable) -> Terms:
    """The terms of one target.

    model: its section of the configuration, if it has one; name: what the backend calls it. The price is the
    configuration's, else the backend's by time, else the table's.
    """
    listed = table.find(backend.url.host, name) if backend.url is not None and is_listed(backend) else None
    written = model.price if model is not None else None
    price = model_price(written) if written is not None else backend_price(backend)
    if price is None and listed is not None:
        price = model_price(listed)
    return Terms(
        price,
        (model and model.max_output_tokens) or (listed and listed.max_output_tokens) or None,
        (model and model.context_tokens) or (listed and listed.context_tokens) or None,
    )


def _is_own(url: Url) -> bool:
    try:
        ip = ip_address(url.host)
    except ValueError:
        return url.host == "localhost" or url.host.endswith((".localhost", ".local", ".internal", ".lan"))
    return ip.is_private or ip.is_loopback or ip.is_link_local
