"""What a request names of earlier answers, when the store does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.errors import Unavailable
from kimi_gateway.flow.conversation_cache import ConversationCache


class Down:
    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        raise StoreDown("locked")

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        raise StoreDown("locked")


def test_a_store_that_is_down_is_not_an_answer_that_was_never_kept() -> None:
    thoughts = ConversationCache(Down(), lambda: 0.0)
    with pytest.raises(Unavailable) as caught:
        asyncio.run(thoughts.recall("acc_1", ["response:a1"]))
    assert caught.value.cause == "store_down"
