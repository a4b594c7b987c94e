"""What a request names of earlier answers, when the store does not answer, and how long it is kept."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.errors import Unavailable
from kimi_gateway.flow.conversation_cache import KEPT, RENEWED, TOGETHER, ConversationCache
from kimi_gateway.providers.moonshot.reasoning import Lost, lacking
from kimi_gateway.storage.memory_cache import MemoryCache
from support.prefix_walk import CountedCache

CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


class Down:
    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        raise StoreDown("locked")

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        raise StoreDown("locked")


def test_a_store_that_is_down_is_not_an_answer_that_was_never_kept() -> None:
    cache = ConversationCache(Down(), lambda: 0.0)
    with pytest.raises(Unavailable) as caught:
        asyncio.run(cache.recall("acc_1", ["response:a1"]))
    assert caught.value.cause == "store_down"


class Deaf(MemoryCache):
    """It reads at once; a write, once `deaf`, never ends."""

    deaf = False

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        if self.deaf:
            await asyncio.Event().wait()
        await super().keep(account, entries, until)


@pytest.mark.anyio
async def test_a_store_that_cannot_write_again_spoils_nothing_that_it_can_read() -> None:
    now = 1_000_000.0
    store = Deaf()
    cache = ConversationCache(store, lambda: now, patience=0.02)
    (missing,) = lacking([{"role": "user", "content": "Go"}, CALL])
    entry = zlib.compress(b"A thought", 1)
    await cache.keep("acc_1", {"response:a1": b"x", missing.calls[0]: entry})
    now, store.deaf = now + KEPT * 0.6, True
    assert await cache.recall("acc_1", ["response:a1"]) == {"response:a1": b"x"}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Go"}, CALL]}
    await cache.restore("acc_1", Lost(body, [missing], "wanted"))
    assert body["messages"][1]["reasoning_content"] == "A thought"


@pytest.mark.anyio
async def test_one_request_renews_so_many_entries_and_the_next_ones_the_rest() -> None:
    now = 1_000_000.0
    store = CountedCache(MemoryCache())
    cache = ConversationCache(store, lambda: now)
    names = [f"items:{n:x}" for n in range(3 * TOGETHER)]
    await cache.keep("acc_1", dict.fromkeys(names, b"x"))
    now += KEPT * 0.4
    store.forget()
    assert len(await cache.recall("acc_1", names)) == len(names)
    assert store.written == 0
    now += KEPT * 0.2
    assert len(await cache.recall("acc_1", names, renew=False)) == len(names)
    assert store.written == 0
    for left in range(len(names), 0, -RENEWED):
        store.forget()
        assert len(await cache.recall("acc_1", names)) == len(names)
        assert store.written == min(left, RENEWED)
    now += KEPT * 0.9
    assert len(await cache.recall("acc_1", names)) == len(names)
