"""The worker's snapshot of keys: what it takes in and when, and what it does while the store cannot be read."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from keyed import Keyed, bearer, wish
from scripted import play, starts, until

from penstock.core.config import Key
from penstock.core.errors import InvalidKey, KeyExpired, KeyRevoked, StoreUnavailable
from penstock.core.key_requests import RotateKey, UpdateKey
from penstock.core.secret import Secret
from penstock.ext import KeyHasher
from penstock.proxy.held import ELSEWHERE, NOBODY, UNREAD, held_of_file
from penstock.proxy.keys import POLL_S, RETRY_S, KeyRing
from penstock.proxy.store import StoreError


def test_a_key_of_the_store_is_known_once_it_was_read(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        key, record = keyed.register.create(wish())
        await keyed.ring.refresh()
        caller = await keyed.caller(bearer(key))
        assert caller.principal.key_id == record.id
        assert (caller.principal.tenant_id, caller.principal.user_id, caller.principal.tier) == ("home", "ada", "free")
        assert await keyed.caller(bearer(key)) is caller
        with pytest.raises(InvalidKey):
            await keyed.caller(bearer(key[:-1] + ("A" if key[-1] != "A" else "B")))

    play(scene())


def test_a_new_key_holds_at_once_in_every_worker(tmp_path: Path) -> None:
    """Until the change is read, a key the snapshot does not have is looked up."""

    async def scene() -> None:
        keyed = Keyed(tmp_path)
        await keyed.ring.refresh()
        key, record = keyed.register.create(wish())
        assert (await keyed.caller(bearer(key))).principal.key_id == record.id
        await keyed.ring.refresh()
        assert (await keyed.caller(bearer(key))).principal.key_id == record.id

    play(scene())


def test_due_says_when_there_is_something_to_read(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        assert keyed.ring.due()
        await keyed.ring.refresh()
        assert not keyed.ring.due()
        keyed.state.bump_keys()
        assert keyed.ring.due()
        await keyed.ring.refresh()
        assert not keyed.ring.due()
        keyed.clock.now_s += POLL_S  # another host says nothing in our shared memory
        assert keyed.ring.due()
        assert not Keyed(tmp_path, stored=False).ring.due()

    play(scene())


def test_a_revoked_key_ends_with_the_next_reading(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        key, record = keyed.register.create(wish())
        other, _ = keyed.register.create(wish("other"))
        await keyed.ring.refresh()
        await keyed.caller(bearer(key))
        keyed.register.revoke(record.id)
        assert keyed.ring.due()
        await keyed.ring.refresh()
        with pytest.raises(KeyRevoked):
            await keyed.caller(bearer(key))
        await keyed.caller(bearer(other))

    play(scene())


def test_a_changed_tier_makes_another_caller(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        key, record = keyed.register.create(wish())
        await keyed.ring.refresh()
        before = await keyed.caller(bearer(key))
        assert any(limit.of_tier for limit in before.allowance.limits)
        keyed.register.update(UpdateKey(id=record.id, tier="pro", quota_requests_per_hour=7))
        await keyed.ring.refresh()
        after = await keyed.caller(bearer(key))
        assert (before.principal.tier, after.principal.tier) == ("free", "pro")
        assert [limit.amount for limit in after.allowance.limits if limit.amount >= 0] == [7]

    play(scene())


def test_an_expired_key_ends_at_that_second(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        key, _ = keyed.register.create(wish(expires_at=keyed.clock.now().replace(minute=30)))
        await keyed.ring.refresh()
        keyed.clock.now_s += 1799
        await keyed.caller(bearer(key))
        keyed.clock.now_s += 1
        with pytest.raises(KeyExpired, match="has expired"):
            await keyed.caller(bearer(key))
        keyed.clock.now_s -= 3600  # a clock that steps back makes it hold again, and nothing breaks
        await keyed.caller(bearer(key))

    play(scene())


def test_both_keys_hold_until_the_grace_ends(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        old, record = keyed.register.create(wish())
        new, rotated = keyed.register.rotate(RotateKey(id=record.id, grace_s=60))
        assert old != new
        assert rotated.id == record.id
        await keyed.ring.refresh()
        for key in (old, new):
            assert (await keyed.caller(bearer(key))).principal.key_id == record.id
        keyed.clock.now_s += 60
        with pytest.raises(KeyExpired, match="replaced"):
            await keyed.caller(bearer(old))
        await keyed.caller(bearer(new))
        newest, _ = keyed.register.rotate(RotateKey(id=record.id, grace_s=0))
        await keyed.ring.refresh()
        with pytest.raises(KeyExpired, match="replaced"):
            await keyed.caller(bearer(new))
        with pytest.raises(InvalidKey):
            await keyed.caller(bearer(old))
        await keyed.caller(bearer(newest))

    play(scene())


def test_keys_of_the_file(tmp_path: Path) -> None:
    async def scene() -> None:
        keys = [Key(name="laptop", key=Secret("env", "K"), tenant_id="home", user_id="ada", tier="pro")]
        of_file = held_of_file(keys, [("laptop", b"a-key-of-my-own-1")], KeyHasher(bytes(range(32))))
        keyed = Keyed(tmp_path, of_file=of_file)
        keyed.source.store = None
        caller = await keyed.caller(bearer("a-key-of-my-own-1"))  # without any store, too
        assert (caller.principal.key_id, caller.principal.name) == ("file:laptop", "laptop")
        keyed.source.store = keyed.store
        await keyed.ring.refresh()
        assert await keyed.caller(bearer("a-key-of-my-own-1")) is caller

    play(scene())


def test_a_key_that_was_looked_up_first_is_held_like_any_other(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path, most_borrowed=1)
        await keyed.ring.refresh()
        made = []
        for number in range(3):
            made.append(keyed.register.create(wish(f"k{number}"))[0])
            await keyed.caller(bearer(made[-1]))
            await keyed.ring.refresh()
        asked = keyed.source.asked
        for key in made:
            await keyed.caller(bearer(key))
        assert keyed.source.asked == asked == 3

    play(scene())


# --- a store that cannot be read ----------------------------------------------------------------------------


def test_until_the_store_was_read_nobody_is_turned_away_as_unknown(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        key, _ = keyed.register.create(wish())
        keyed.source.store = None
        assert keyed.ring.find(bytes(32)) is UNREAD
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as caught:
                await keyed.caller(bearer(key))
            assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
            await keyed.ring.refresh()
        assert keyed.ring.trouble == "the database is locked"
        assert not keyed.ring.due()
        keyed.source.store = keyed.store
        keyed.clock.now_s += RETRY_S
        assert keyed.ring.due()
        await keyed.ring.refresh()
        assert keyed.ring.trouble == ""
        await keyed.caller(bearer(key))

    play(scene())


def test_what_was_read_stays_while_the_store_is_away(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        key, _ = keyed.register.create(wish())
        await keyed.ring.refresh()
        keyed.source.store = None
        keyed.state.bump_keys()
        await keyed.ring.refresh()
        assert keyed.ring.trouble
        assert not keyed.ring.due()  # it is tried again in a second, not at every tick
        await keyed.caller(bearer(key))
        with pytest.raises(StoreUnavailable):  # a change waits to be read, so an unknown key may be a new one
            await keyed.caller(bearer("psk_unknown"))

    play(scene())


def test_values_that_are_none_end_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        key, _ = keyed.register.create(wish())
        broken, record = keyed.register.create(wish("broken"))
        with closing(sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)) as by_hand:
            by_hand.execute("UPDATE ai_api_keys SET key_hash = 'no hash' WHERE id = ?", (record.id,))
        await keyed.ring.refresh()
        await keyed.caller(bearer(key))
        with pytest.raises(InvalidKey):
            await keyed.caller(bearer(broken))
        with closing(sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)) as by_hand:
            by_hand.execute("UPDATE ai_api_keys SET created_at = 'noon', revision = 9 WHERE id = ?", (record.id,))
        await keyed.ring.refresh()
        assert "backup" in keyed.ring.trouble
        await keyed.caller(bearer(key))

    play(scene())


def test_while_the_store_is_in_trouble_it_is_not_asked_about_each_key(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path, most=0)
        keyed.register.create(wish())
        await keyed.ring.refresh()
        keyed.source.store = None
        keyed.clock.now_s += POLL_S
        await keyed.ring.refresh()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await keyed.caller(bearer("psk_unknown"))
        assert keyed.source.asked == 0

    play(scene())


def test_without_a_store_the_file_has_all_keys(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path, stored=False)
        keyed.state.bump_keys()
        with pytest.raises(InvalidKey):
            await keyed.caller(bearer("psk_unknown"))

    play(scene())


def test_another_database_is_read_from_its_beginning(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        old, _ = keyed.register.create(wish())
        await keyed.ring.refresh()
        (tmp_path / "restored").mkdir()
        restored = Keyed(tmp_path / "restored")
        restored.count = 100
        new, _ = restored.register.create(wish("restored"))

        class Moved:
            def keys_since(self, revision: int) -> Any:
                raise StoreError("moved", "the database was moved away")

        keyed.source.store = Moved()  # type: ignore[assignment]
        await keyed.ring.refresh()
        await keyed.caller(bearer(old))
        keyed.source.store = restored.store
        await keyed.ring.refresh()
        await keyed.caller(bearer(new))
        with pytest.raises(InvalidKey):
            await keyed.caller(bearer(old))

    play(scene())


# --- more keys than are held ----------------------------------------------------------------------------------


def test_beyond_the_bound_keys_are_looked_up_and_kept_for_a_while(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path, most=3, most_borrowed=2)
        made = [keyed.register.create(wish(f"k{number}")) for number in range(8)]
        await keyed.ring.refresh()
        for _ in range(2):
            for key, record in made:
                assert (await keyed.caller(bearer(key))).principal.key_id == record.id
        assert len(keyed.ring._held) == 5
        asked = keyed.source.asked
        for key, _ in (*made[:3], *made[-2:]):
            await keyed.caller(bearer(key))
        assert keyed.source.asked == asked

    play(scene())


def test_a_borrowed_key_is_revoked_like_any_other(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path, most=1, most_borrowed=2)
        keyed.register.create(wish("held"))
        key, record = keyed.register.create(wish("borrowed"))
        await keyed.ring.refresh()
        await keyed.caller(bearer(key))
        keyed.register.revoke(record.id)
        await keyed.ring.refresh()
        with pytest.raises(KeyRevoked):
            await keyed.caller(bearer(key))

    play(scene())


def test_unknown_keys_are_remembered_for_a_second(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path, most=0, most_borrowed=2)
        keyed.register.create(wish())
        await keyed.ring.refresh()
        assert keyed.ring.find(bytes(32)) is ELSEWHERE
        for _ in range(3):
            with pytest.raises(InvalidKey):
                await keyed.caller(bearer("psk_unknown"))
        assert keyed.source.asked == 1
        for number in range(10):
            assert await keyed.ring.ask(bytes([number]) * 32) is NOBODY
        assert len(keyed.ring._missing) <= 2
        keyed.clock.now_s += 1
        asked = keyed.source.asked
        with pytest.raises(InvalidKey):
            await keyed.caller(bearer("psk_unknown"))
        assert keyed.source.asked == asked + 1

    play(scene())


def test_a_change_that_is_read_during_a_look_up_is_not_undone_by_it(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path, most=0)
        key, record = keyed.register.create(wish())
        await keyed.ring.refresh()
        loop = asyncio.get_running_loop()
        read = keyed.source.key_by_hash

        def overtaken(key_hash: str) -> Any:
            """In its thread: between the answer and its return the key is revoked, and the ring reads that."""
            found = read(key_hash)
            if found is not None and found.is_active:
                keyed.register.revoke(record.id)
                asyncio.run_coroutine_threadsafe(keyed.ring.refresh(), loop).result(5)
            return found

        keyed.source.key_by_hash = overtaken  # type: ignore[method-assign]
        assert (await keyed.ring.ask(keyed.hasher.digest(key.encode()))).revoked
        with pytest.raises(KeyRevoked):
            await keyed.caller(bearer(key))

    play(scene())


def test_the_ring_says_in_one_line_what_it_is(tmp_path: Path) -> None:
    keyed = Keyed(tmp_path)
    assert repr(keyed.ring) == "<KeyRing of 0 credentials at revision 0 well>"
    key, _ = keyed.register.create(wish())
    play(keyed.ring.refresh())
    assert repr(keyed.ring) == "<KeyRing of 1 credentials at revision 1 well>"
    held = keyed.ring.find(keyed.hasher.digest(key.encode()))
    assert key not in repr(held)


def test_a_revoked_key_ends_within_a_second_without_a_word(tmp_path: Path) -> None:
    """As when another program changes the store: the generation stays, and the clock is real."""

    async def scene() -> None:
        keyed = Keyed(tmp_path)
        key, record = keyed.register.create(wish())
        ring = KeyRing(keyed.store, (), generation=lambda: 0, monotonic=monotonic)
        await ring.refresh()
        digest = keyed.hasher.digest(key.encode())
        running = starts(ring.run())
        keyed.register.revoke(record.id)
        began = monotonic()
        await until(lambda: ring.find(digest).revoked)
        assert monotonic() - began < 1.0
        running.cancel()

    play(scene())
