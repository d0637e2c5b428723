"""Who a request is for."""

import msgspec


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A key and whom it stands for. "" = none.

    key_id: "key_…" of the store, "file:NAME" of the configuration file; a rotation keeps it.
    quota_requests_per_hour: the key's own, instead of the tier's. None = as the tier says.
    expires_at: epoch seconds, of the key as shown: a key from before a rotation ends with its grace. None = never.
    """

    key_id: str
    name: str = ""
    tenant_id: str = ""
    user_id: str = ""
    tier: str = ""
    quota_requests_per_hour: int | None = None
    expires_at: float | None = None

    @property
    def is_anonymous(self) -> bool:
        return not self.key_id


ANONYMOUS = Principal(key_id="")
"""Everybody, where no key is asked for."""
