"""What keys that do not exist cost the gate, and whether they hurt those that do."""

from __future__ import annotations

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.gate import CACHED, Gate
from kimi_gateway.accounts.values import Grant, Key, NewKey
from kimi_gateway.errors import InvalidKey
from kimi_gateway.http import Headers
from kimi_gateway.storage.memory import MemoryStore

NOW = 1_795_212_030
A, B = keys.new_key(), keys.new_key()


def bearer(key: str) -> Headers:
    return Headers((("authorization", f"Bearer {key}"),))


@pytest.mark.anyio
async def test_wrong_keys_of_many_addresses_push_no_valid_key_out_and_hold_bounded_memory() -> None:
    """Each costs one question to the store, and nothing is remembered of it but its address."""
    store, asked = MemoryStore(), list[str]()

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        async def find_key(self, digest: str) -> Key | None:
            asked.append(digest)
            return await store.find_key(digest)

    account = await store.create_account("a", Grant(5), NOW)
    for key in (A, B):
        await store.create_key(NewKey(keys.digest(key), account.id), NOW)
    gate = Gate(Counting(), lambda: NOW, 660)  # type: ignore[arg-type]
    await gate.authenticate(bearer(A), "first")
    for number in range(CACHED + 500):
        with pytest.raises(InvalidKey):
            await gate.authenticate(bearer(keys.new_key()), f"address-{number}")
    assert len(asked) == 1 + CACHED + 500
    assert list(gate._keys) == [keys.digest(A)]
    assert len(gate._unknown._levels) == CACHED
    await gate.authenticate(bearer(A), "elsewhere")
    assert len(asked) == 1 + CACHED + 500  # it is still known
    await gate.authenticate(bearer(B), "address-3")  # one that was never seen comes in from any address
    assert len(gate._keys) == 2
