"""Whatever happens to keys and in whatever order: once the ring has read, it says of each key what the store says."""

import asyncio
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.proxy.held import ELSEWHERE, NOBODY, Held
from penstock.proxy.keys import KeyRing
from penstock.proxy.store import KeyRecord

NAMES = st.integers(0, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), NAMES),
        st.tuples(st.just("revoke"), NAMES),
        st.tuples(st.just("rotate"), NAMES),
        st.tuples(st.just("rename"), NAMES),
        st.tuples(st.just("ask"), NAMES),
        st.tuples(st.just("create and ask"), NAMES),
        st.tuples(st.just("refresh"), st.just(0)),
    ),
    max_size=60,
)


class Table:
    """The keys of a store, in memory. Every hash that ever was is in `hashes`."""

    def __init__(self) -> None:
        self.rows: dict[int, KeyRecord] = {}
        self.hashes: list[bytes] = []
        self.revision = 0

    def keys_since(self, revision: int) -> list[KeyRecord]:
        changed = [row for row in self.rows.values() if row.revision > revision]
        return sorted(changed, key=lambda row: row.revision)

    def key_by_hash(self, key_hash: str) -> KeyRecord | None:
        return next((row for row in self.rows.values() if key_hash in (row.key_hash, row.previous_key_hash)), None)

    def create(self, name: int) -> None:
        if name not in self.rows:
            self._put(
                name,
                KeyRecord(
                    id=f"key_{name}",
                    tenant_id="t",
                    user_id="u",
                    key_name="n",
                    key_hash=self._hash(),
                    tier="",
                    created_at=0.0,
                ),
            )

    def change(self, name: int, **fields: Any) -> None:
        if name in self.rows:
            self._put(name, msgspec.structs.replace(self.rows[name], **fields))

    def rotate(self, name: int) -> None:
        if name in self.rows:
            old = self.rows[name].key_hash
            self.change(name, key_hash=self._hash(), previous_key_hash=old, previous_valid_until=9e9)

    def hash_of(self, name: int) -> bytes:
        """Of a key by that name, else of none."""
        return bytes.fromhex(self.rows[name].key_hash) if name in self.rows else bytes([name]) * 32

    def _hash(self) -> str:
        self.hashes.append(b"h" + len(self.hashes).to_bytes(31, "big"))
        return self.hashes[-1].hex()

    def _put(self, name: int, row: KeyRecord) -> None:
        self.revision += 1
        self.rows[name] = msgspec.structs.replace(row, revision=self.revision)


def said(held: Held) -> tuple[str, str, bool, bool] | None:
    who = held.principal
    return None if who is None else (who.key_id, who.name, held.revoked, held.replaced)


def true(table: Table, digest: bytes) -> tuple[str, str, bool, bool] | None:
    row = table.key_by_hash(digest.hex())
    return None if row is None else (row.id, row.key_name, not row.is_active, digest.hex() != row.key_hash)


async def act(table: Table, ring: KeyRing, step: str, name: int) -> None:
    match step:
        case "create":
            table.create(name)
        case "revoke":
            table.change(name, is_active=False)
        case "rotate":
            table.rotate(name)
        case "rename":
            table.change(name, key_name=f"n{table.revision}")
        case "create and ask":
            table.create(name)
            await act(table, ring, "ask", name)
        case "ask":
            held = ring.find(table.hash_of(name))
            if ring.may_be_elsewhere(held):
                await ring.ask(table.hash_of(name))
        case "refresh":
            await ring.refresh()


@settings(deadline=None, max_examples=300)
@given(STEPS, st.integers(0, 6), st.integers(1, 3))
def test_the_ring_agrees_with_the_store(steps: list[tuple[str, int]], most: int, most_borrowed: int) -> None:
    async def scene() -> None:
        table = Table()
        clock = iter(range(0, 1_000_000, 2))  # what is remembered of misses is over at the next look
        ring = KeyRing(
            table,
            (),
            generation=lambda: table.revision,
            monotonic=lambda: float(next(clock)),
            most=most,
            most_borrowed=most_borrowed,
        )
        await ring.refresh()
        for step, name in steps:
            await act(table, ring, step, name)
        await ring.refresh()
        for digest in table.hashes:
            held = ring.find(digest)
            if held is ELSEWHERE:
                held = await ring.ask(digest)
            assert said(held) == true(table, digest)
        assert ring.find(b"x" * 32) in (NOBODY, ELSEWHERE)
        credentials = 2 * (most + most_borrowed)  # a rotated key has two
        assert len(ring._held) <= credentials + 1

    asyncio.run(scene())
