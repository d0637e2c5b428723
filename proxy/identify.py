"""Who a request is from: its credential becomes a `Caller`, with the same work for right, wrong and unknown keys.

Always one keyed hash, one look-up and one comparison in constant time. The look-up is by a hash whose secret nobody
outside knows, so its own time tells nothing about how much of a key is right.
"""

from collections.abc import Callable
from hmac import compare_digest
from math import inf

import msgspec

from penstock.core.errors import (
    AdminKeyRequired,
    InvalidKey,
    KeyExpired,
    KeyRevoked,
    KeysDisagree,
    MissingKey,
    NotFound,
)
from penstock.core.keys import LONGEST_KEY_BYTES
from penstock.core.limits import Allowance, Rules, allowance
from penstock.core.principal import Principal
from penstock.ext import Account, KeyHasher, State
from penstock.proxy.exchange import Exchange
from penstock.proxy.held import NOBODY, UNREAD, Held
from penstock.proxy.keys import KeyRing, unavailable


class Caller(msgspec.Struct, frozen=True):
    """A principal with what it may do, ready to be held against the limits.

    restricted: not every model, or not every length of answer, is allowed. bounded: tokens or money are limited, so
    the most that a request can need must be known. on_budget: money is.
    """

    principal: Principal
    allowance: Allowance
    account: Account
    restricted: bool
    bounded: bool
    on_budget: bool


def caller_maker(rules: Rules, state: State) -> Callable[[Principal], Caller]:
    """What makes callers of principals, by the limits of a configuration and the counters in shared memory."""

    def make(principal: Principal) -> Caller:
        allowed = allowance(principal, rules)
        names = (principal.key_id, principal.tenant_id, principal.user_id, principal.tier)
        account = Account(state, allowed.cells(), *(name.encode() for name in names))
        restricted = not allowed.tier_known or allowed.models is not None or allowed.max_output_tokens is not None
        bounded = account.has_tokens or account.has_money
        return Caller(principal, allowed, account, restricted, bounded, account.has_money)

    return make


class Identify:
    """Called with an exchange. One per worker.

    make_caller: what a principal may do, decided on its first request. anonymous: everybody, where no keys are asked
    for; None = keys are. admin_key: what X-Admin-Key must hold; None = there are no endpoints for administrators.
    wall_s: epoch seconds, for keys that expire.
    """

    def __init__(
        self,
        ring: KeyRing,
        hasher: KeyHasher,
        make_caller: Callable[[Principal], Caller],
        *,
        anonymous: Principal | None,
        admin_key: bytes | None,
        wall_s: Callable[[], float],
    ) -> None:
        self._ring = ring
        self._digest = hasher.digest
        self._digest_of = hasher.digest_of
        self._wall_s = wall_s
        self._admin_digest = None if admin_key is None else hasher.digest(admin_key)
        self._anonymous_principal = anonymous
        self.renew(make_caller)

    def renew(self, make_caller: Callable[[Principal], Caller]) -> None:
        """The configuration changed: what each principal may do is decided anew, on its next request."""
        self._make_caller = make_caller
        self._anonymous = None if self._anonymous_principal is None else make_caller(self._anonymous_principal)
        self._ring.forget_callers()

    @property
    def admin(self) -> bool:
        """There are endpoints for administrators."""
        return self._admin_digest is not None

    def __call__(self, exchange: Exchange) -> Caller | None:
        """Who sent it; None = only the store can tell: await `by_store`.

        Raises MissingKey, KeysDisagree, InvalidKey, KeyExpired, KeyRevoked, StoreUnavailable.
        """
        if self._anonymous is not None:
            return self._anonymous
        digest = self._digest_of(exchange.head, LONGEST_KEY_BYTES)
        held = self._held(digest) if digest is not None else self.recognise(sent_key(exchange))
        caller = held.caller  # of a key that was not revoked: a key that changes is held anew, without its caller
        if caller is not None and (held.until_s == inf or held.until_s > self._wall_s()):
            return caller
        return None if self._ring.may_be_elsewhere(held) else self._caller(held)

    async def by_store(self, exchange: Exchange) -> Caller:
        """Who sent it, of a key that is not in this worker's snapshot. Raises what a call raises."""
        return self._caller(await self._asked(sent_key(exchange)))

    async def verify(self, key: bytes) -> Principal | None:
        """Whose key this is, if it holds now. Raises StoreUnavailable."""
        held = self.recognise(key)
        if self._ring.may_be_elsewhere(held):
            held = await self._asked(key)
        if held is UNREAD:
            raise unavailable()
        return None if held.revoked or held.until_s <= self._wall_s() else held.principal

    def caller_of(self, principal: Principal) -> Caller:
        """What a principal may, for somebody who asks about it."""
        return self._make_caller(principal)

    def is_admin(self, exchange: Exchange) -> bool:
        """The request shows the admin key."""
        sent = exchange.head.admin_key or b""
        wanted = self._admin_digest
        return wanted is not None and compare_digest(self._digest(sent[: LONGEST_KEY_BYTES + 1]), wanted)

    def require_admin(self, exchange: Exchange) -> None:
        """Raises NotFound without an admin key configured, AdminKeyRequired for a request that does not show it."""
        if self._admin_digest is None:
            raise NotFound("no such path; the API is under /v1 (OpenAI) and /api (Ollama)")
        if not self.is_admin(exchange):
            raise AdminKeyRequired("this needs the admin key in the header X-Admin-Key", param="X-Admin-Key")

    def recognise(self, key: bytes) -> Held:
        """The credential this key is; NOBODY, UNREAD or ELSEWHERE for one that is not held."""
        held = self._held(self._digest(key[:LONGEST_KEY_BYTES]))
        return held if len(key) <= LONGEST_KEY_BYTES else NOBODY

    def _held(self, digest: bytes) -> Held:
        held = self._ring.find(digest)
        same = compare_digest(held.digest, digest)
        # No shortcuts: "|" does the same work whichever side is true.
        return held if same | (held.principal is None) else NOBODY

    async def _asked(self, key: bytes) -> Held:
        return await self._ring.ask(self._digest(key)) if len(key) <= LONGEST_KEY_BYTES else NOBODY

    def _caller(self, held: Held) -> Caller:
        """The caller of a credential that holds; else the error. Only who has the key learns why it holds no longer."""
        if held is UNREAD:
            raise unavailable()
        if held.principal is None:
            raise InvalidKey("this API key is not valid")
        if held.revoked:
            raise KeyRevoked("this API key has been revoked")
        if held.until_s <= self._wall_s():
            how = "was replaced by another one" if held.replaced else "has expired"
            raise KeyExpired(f"this API key {how}")
        if held.caller is None:
            held.caller = self._make_caller(held.principal)
        return held.caller


def sent_key(exchange: Exchange) -> bytes:
    """The credential of a request. Raises MissingKey, KeysDisagree."""
    head = exchange.head
    key: bytes | None = head.api_key
    if key is None:
        raise MissingKey("an API key is needed: send Authorization: Bearer KEY (or X-API-Key, or api-key)")
    if head.api_keys_disagree:
        raise KeysDisagree("the request carries two different API keys; send one")
    return key
