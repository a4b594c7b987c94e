"""Searches that wait in the cache for the client's results: their entries, and a cache that is wrong."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.flow.search import replay
from kimi_gateway.flow.search.replay import LONGEST, Searched
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.storage.memory_cache import MemoryCache

ASKED = [{"role": "user", "content": "News?"}]
CALL = {"id": "mine:0", "type": "function", "function": {"name": "mine", "arguments": '{"a": 1}'}}
FOUND = Searched("gateway_web_search", '{"query":"x"}', "A page.")


def chat(messages: list[dict[str, Any]]) -> ChatRequest:
    return ChatRequest("kimi-k3", {"messages": messages}, False, 1, ())


def after(call: dict[str, Any] = CALL) -> list[dict[str, Any]]:
    told = {"role": "tool", "tool_call_id": call["id"], "content": "1"}
    return [*ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}, told]


def restored(entries: dict[str, bytes], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        cache = ConversationCache(MemoryCache(), lambda: 1.0)
        await cache.keep("a", entries)
        made, _ = await replay.restored(cache, "a", chat(messages))
        found: list[dict[str, Any]] = made.body["messages"]
        return found

    return asyncio.run(run())


def test_it_comes_back_beside_the_call_however_its_arguments_are_written() -> None:
    entries = replay.kept(ASKED, CALL, [FOUND])
    call = {**CALL, "function": {"name": "mine", "arguments": '{"a":1.0}'}}
    messages = restored(entries, after(call))
    assert [each["id"] for each in messages[1]["tool_calls"]] == ["mine:0", "mine:0-s0"]
    assert messages[2] == {"role": "tool", "tool_call_id": "mine:0-s0", "content": "A page."}
    assert messages[3]["tool_call_id"] == "mine:0"


@pytest.mark.parametrize("place", [[{"role": "user", "content": "Other?"}], after(), []])
def test_the_same_call_elsewhere_gets_nothing(place: list[dict[str, Any]]) -> None:
    assert restored(replay.kept(place, CALL, [FOUND]), after()) == after()


@pytest.mark.parametrize("entry", [b"", b"x", zlib.compress(b"{}"), zlib.compress(b"[[1]]")])
def test_a_spoiled_entry_is_as_good_as_none(entry: bytes) -> None:
    (name,) = replay.kept(ASKED, CALL, [FOUND])
    assert restored({name: entry}, after()) == after()


def test_an_entry_that_unpacks_to_too_much_is_as_good_as_none() -> None:
    (name,) = replay.kept(ASKED, CALL, [FOUND])
    assert restored({name: zlib.compress(b" " * 10**8, 1)}, after()) == after()


def test_an_entry_is_bounded_and_loses_its_earliest_searches() -> None:
    many = [Searched("gateway_web_search", str(number), "x" * (LONGEST // 3)) for number in range(9)]
    messages = restored(replay.kept(ASKED, CALL, many), after())
    assert [each["function"]["arguments"] for each in messages[1]["tool_calls"][1:]] == ["7", "8"]
    assert replay.kept(ASKED, CALL, [Searched("a", "b", "x" * 2 * LONGEST)]) == {}
