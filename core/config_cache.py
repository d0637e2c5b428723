"""The table of a configuration file about answers that are kept and given again."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from penstock.core.config_section import Seconds, Section


class CacheFacts(Section, frozen=True):
    """[cache.facts]: what the store's table ai_cache is told of kept answers."""

    flush_s: Annotated[float, Meta(ge=1, le=86_400)] = 60
    """How often."""
    bodies: bool = False
    """Also what was answered, in response_data."""


class Cache(Section, frozen=True):
    """[cache]: answers given again to the same request, without a backend. Nothing is kept that has no TTL."""

    max_bytes: Annotated[int, Meta(ge=0, le=1 << 50)] = 268_435_456
    """Over all workers, each of which has its part. 0 = no cache."""
    ttl_s: Seconds = 0
    """How long answers of models that say nothing are kept. 0 = not at all."""
    routes: Mapping[str, Seconds] = {}
    """How long a route's answers are kept, whatever the model's cache_ttl_s is. 0 = not at all."""
    scope: Literal["tenant", "key", "all"] = "tenant"
    """Who may get an answer that was made for somebody else: the same tenant, only the same key, everybody."""
    max_entry_share: Annotated[float, Meta(ge=0.0001, le=1)] = 0.125
    """Of a worker's part: larger answers are not kept."""
    replay_chunks_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 0
    """How fast a kept stream is given again, in its own chunks. 0 = at once."""
    facts: CacheFacts = CacheFacts()
