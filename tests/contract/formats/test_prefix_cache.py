"""A long tool loop keeps its prefix: what was once in it stays in it, at a cost that does not grow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.providers.moonshot import reasoning
from kimi_gateway.providers.moonshot.reasoning import Lost, MissingReasoning
from kimi_gateway.storage.memory_cache import MemoryCache
from support.inprocess import InProcess, Sent, Told, kimi, streamed
from upstream import chat_events

Json = dict[str, Any]
CALLS = 1_200
MINUTES = 3  # between two calls: the whole takes 60 hours, an entry lives 24
MODEL: Any = type("Row", (), {"replay": "wanted"})


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Counted:
    """A store that counts its calls and the entries in them."""

    def __init__(self) -> None:
        self.store, self.read, self.written = MemoryCache(), 0, 0

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        self.written += len(entries)
        await self.store.keep(account, entries, until)

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        self.read += len(names)
        return await self.store.recall(account, names, now)


def turn(n: int) -> list[Json]:
    call = {"id": f"step:{n}", "type": "function", "function": {"name": "step", "arguments": f'{{"n":{n}}}'}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"step:{n}", "content": "done"},
    ]


@pytest.mark.anyio
async def test_1200_calls_keep_their_prefix_across_days_and_processes_at_a_constant_cost() -> None:
    """A client that drops all reasoning. Each request is held against the one before it."""
    clock, store = Clock(), Counted()
    cache = ConversationCache(store, clock)
    messages: list[Json] = [{"role": "user", "content": "Begin"}]
    missing: list[MissingReasoning] = []
    before: list[Json] = []
    for n in range(CALLS):
        body = {"messages": messages}
        store.read = store.written = 0
        await cache.restore("acc", Lost(body, missing, MODEL.replay))
        assert body["messages"][: len(before)] == before, f"the prefix changed at call {n}"
        known = [message.get("reasoning_content") for message in body["messages"] if "tool_calls" in message]
        assert known[-1:] == [f"thought {n - 1}"] * bool(n)
        assert store.read <= 2 * (CALLS // reasoning.PAGE + reasoning.PAGE)
        assert store.written <= 64 + 1
        before = list(body["messages"])
        found = _lacking(messages, n)
        if n < 3:  # the very name under which the answer is kept, and for which the next request asks
            gatherer = reasoning.ReasoningCollector(messages)
            gatherer.add([_chunk(n)])
            assert list(gatherer.kept()) == list(found.calls)
            assert reasoning.lacking([*messages, *turn(n)])[-1] == found
        await cache.keep("acc", {found.calls[0]: reasoning._packed(f"thought {n}")})
        missing.append(found)
        messages = [*messages, *turn(n)]
        clock.now += MINUTES * 60
        if n % 400 == 399:
            cache = ConversationCache(store, clock)
    body = {"messages": messages}
    await cache.restore("acc", Lost(body, missing, MODEL.replay))
    told = [message["reasoning_content"] for message in body["messages"] if "tool_calls" in message]
    assert told == [f"thought {n}" for n in range(CALLS)]


def _chunk(n: int) -> Any:
    delta = {"reasoning_content": f"thought {n}", "tool_calls": [{"index": 0, **turn(n)[0]["tool_calls"][0]}]}
    return type("Chunk", (), {"body": {"choices": [{"index": 0, "delta": delta}]}})


def _lacking(messages: list[Json], n: int) -> MissingReasoning:
    """As `reasoning.lacking` names the last of them, without reading the whole history again."""
    function = turn(n)[0]["tool_calls"][0]["function"]
    place = hashlib.sha256(b"Begin").digest() + (len(messages) - 1).to_bytes(4, "big")
    return MissingReasoning(len(messages), (reasoning._name(place, f"step:{n}", function["arguments"]),))


def test_the_border_never_moves_in_the_first_thousand_and_then_once_in_a_thousand() -> None:
    missing = [MissingReasoning(at, (f"n{at}",)) for at in range(4_100)]
    starts = []
    for size in range(0, 4_100, 10):
        pages, rest = reasoning.pages(missing[:size])
        members = [each for page in pages for each in page.members] + list(rest)
        starts.append(members[0].index if members else 0)
        assert len(members) >= min(size, 1_000)
    moves = [at * 10 for at in range(1, len(starts)) if starts[at] != starts[at - 1]]
    assert moves == [2_000, 3_000, 4_000]


@pytest.mark.parametrize("stream", [True, False])
def test_reasoning_whose_text_is_not_shown_comes_back_sealed_and_needs_no_store(stream: bool) -> None:
    thinking = "Überlegt: 思考 👋"

    def answer(sent: Sent) -> Told:
        if not sent.path.endswith("completions"):
            return kimi(sent)
        return streamed(*chat_events("", thinking, (("step", {"n": 1}),)))

    with InProcess() as desk:
        desk.client.answer = answer
        body = {
            "model": "kimi-k3", "max_tokens": 1_000, "stream": stream,
            "thinking": {"type": "adaptive", "display": "omitted"},
            "tools": [{"name": "step", "input_schema": {"type": "object"}}],
            "messages": [{"role": "user", "content": "Go"}],
        }  # fmt: skip
        first = desk.call("POST", "/v1/messages", body, desk.key())
        content = _folded(first.body) if stream else first.json["content"]
        assert content[0]["thinking"] == ""
        assert "思考" not in first.body.decode()
        result = {"type": "tool_result", "tool_use_id": content[1]["id"], "content": "done"}
        body["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        other = desk.key()  # another account: nothing is kept for it
        desk.call("POST", "/v1/messages", body, other)
        assert desk.client.chats[-1].body["messages"][1]["reasoning_content"] == thinking
        for broken in ("kg1.!!", "kg1." + "A" * 9_000_000, "kg1._w==", "foreign", ""):
            content[0]["signature"] = broken
            assert desk.call("POST", "/v1/messages", body, other).status == 200
            assert "reasoning_content" not in desk.client.chats[-1].body["messages"][1]


def _folded(stream: bytes) -> list[Json]:
    from support.messages_stream import Folded, events_of

    result = Folded()
    for event in events_of(stream):
        result.take(event)
    content: list[Json] = json.loads(json.dumps(result.message["content"]))
    return content
