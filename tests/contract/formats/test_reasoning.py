"""Reasoning survives a client that drops it, in every dialect, streamed or not, and across processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts.store import StoreDown
from support.exchange import streaming
from support.live import HELLO, LiveGateway
from support.tool_loop import LOOPS, TOOLS, ChatLoop
from upstream import InTurn, Kimi, ScriptedUpstream
from upstream.kimi import chat_events
from upstream.steps import Sse

TURNS = 50
THINKING = ["kimi-k2.6", "kimi-k2.7-code", "kimi-k3"]


def reasoning_of(turn: int) -> str:
    return f"Thought {turn}: “überlegt” 思考 👋\n\\ \t" + "so, " * turn


def plan(upstream: ScriptedUpstream, turns: int, first: int = 0) -> None:
    """The vendor counts ids in an answer, so that all turns have the same ones."""
    upstream.plan(
        *(
            Kimi(text="", reasoning=reasoning_of(turn), tools=(("step", {"n": turn}), ("look", {})))
            for turn in range(first, first + turns)
        )
    )


def sent_reasoning(upstream: ScriptedUpstream) -> list[str | None]:
    """Of the assistant's messages in the last request."""
    messages = upstream.chats[-1].body["messages"]
    return [message.get("reasoning_content") for message in messages if message["role"] == "assistant"]


@pytest.mark.parametrize("model", THINKING)
@pytest.mark.parametrize("dialect", LOOPS)
def test_fifty_turns_bring_each_reasoning_back_byte_for_byte(
    gateway: LiveGateway, upstream: ScriptedUpstream, dialect: str, model: str
) -> None:
    """Each dialect with one model; a few turns with the others, whose rules differ in the first ones."""
    turns = TURNS if [*LOOPS].index(dialect) == THINKING.index(model) else 6
    plan(upstream, turns)
    loop = LOOPS[dialect](gateway.key(None), model)
    for turn in range(turns):
        assert loop.turn(gateway, stream=turn % 2 == 0) == [("step", {"n": turn}), ("look", {})]
        assert sent_reasoning(upstream) == [reasoning_of(earlier) for earlier in range(turn)]


def test_two_conversations_of_an_account_keep_their_reasoning_apart(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key(None)
    first, second = ChatLoop(key, "kimi-k3"), ChatLoop(key, "kimi-k3")
    second.messages = [{"role": "user", "content": "Something else"}]
    plan(upstream, 6)
    for _ in range(2):
        first.turn(gateway, stream=True)
        second.turn(gateway, stream=True)
    first.turn(gateway, stream=True)
    assert sent_reasoning(upstream) == [reasoning_of(0), reasoning_of(2)]
    second.turn(gateway, stream=True)
    assert sent_reasoning(upstream) == [reasoning_of(1), reasoning_of(3)]


def test_another_account_that_says_the_same_gets_none_of_it(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    mine, theirs = ChatLoop(gateway.key(None), "kimi-k2.6"), ChatLoop(gateway.key(None), "kimi-k2.6")
    plan(upstream, 2)
    mine.turn(gateway, stream=True)
    theirs.messages = mine.messages
    theirs.turn(gateway, stream=True)
    assert sent_reasoning(upstream) == [" "]


def test_reasoning_is_found_by_the_next_process(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    plan(upstream, 3)
    with LiveGateway(tmp_path, upstream.url) as first:
        loop = ChatLoop(first.key(None), "kimi-k3")
        for stream in (True, False):
            loop.turn(first, stream)
    with LiveGateway(tmp_path, upstream.url) as second:
        loop.turn(second, stream=True)
    assert sent_reasoning(upstream) == [reasoning_of(0), reasoning_of(1)]


def test_the_clients_own_reasoning_wins_and_its_placeholder_does_not(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    plan(upstream, 3)
    loop = ChatLoop(gateway.key(None), "kimi-k2.6")
    loop.turn(gateway, stream=True)
    loop.messages[1]["reasoning_content"] = "My own."
    loop.turn(gateway, stream=True)
    assert sent_reasoning(upstream) == ["My own."]
    loop.messages[1]["reasoning_content"] = " "
    loop.turn(gateway, stream=True)
    assert sent_reasoning(upstream) == [reasoning_of(0), reasoning_of(1)]


@pytest.mark.parametrize(("model", "placeholder"), [("kimi-k2.6", " "), ("kimi-k3", None)])
def test_what_nobody_knows_is_a_placeholder_where_one_must_be(
    gateway: LiveGateway, upstream: ScriptedUpstream, model: str, placeholder: str | None
) -> None:
    call = {"id": "step:0", "type": "function", "function": {"name": "step", "arguments": '{"n":1}'}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "step:0", "content": "done"},
    ]
    assert gateway.chat(gateway.key(), model=model, messages=messages).status_code == 200
    assert sent_reasoning(upstream) == [placeholder]


def test_arguments_written_anew_are_the_same_call(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    plan(upstream, 2)
    loop = ChatLoop(gateway.key(None), "kimi-k3")
    loop.turn(gateway, stream=False)
    for call in loop.messages[1]["tool_calls"]:
        call["function"]["arguments"] = call["function"]["arguments"].replace('"n": 0', ' "n" : 0.0 ')
    loop.turn(gateway, stream=False)
    assert sent_reasoning(upstream) == [reasoning_of(0)]


@pytest.mark.parametrize("stream", [True, False])
def test_of_several_choices_the_one_that_was_taken_gets_its_own(
    gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    key, messages = gateway.key(None), [{"role": "user", "content": f"Choose {stream}"}]
    upstream.always(
        InTurn([Kimi(text="", reasoning=reasoning_of(n), tools=(("step", {"n": n}),)) for n in range(3)])
    )
    tools = [{"type": "function", "function": {"name": "step", "parameters": TOOLS["step"]}}]
    answer = gateway.chat(key, model="kimi-k3", messages=messages, tools=tools, n=3)
    whole = answer.json()["choices"]
    upstream.always(Kimi())
    for choice in whole:
        message = {**choice["message"]}
        mine = message.pop("reasoning_content")
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "done"}
        gateway.chat(key, model="kimi-k3", messages=[*messages, message, result], tools=tools)
        assert sent_reasoning(upstream) == [mine]


def test_stop_strings_of_our_own_leave_reasoning_alone(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    plan(upstream, 2)
    loop = ChatLoop(gateway.key(None), "kimi-k3")
    tools = [{"type": "function", "function": {"name": name, "parameters": TOOLS[name]}} for name in TOOLS]
    stop = "x" * 33
    body = gateway.chat(loop.key, messages=loop.messages, tools=tools, stop=stop, n=1).json()
    message = body["choices"][0]["message"]
    del message["reasoning_content"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in message["tool_calls"]
    ]
    gateway.chat(loop.key, messages=[*loop.messages, message, *results], tools=tools)
    assert sent_reasoning(upstream) == [reasoning_of(0)]


class Watched:
    """A replay store that counts, and is down when told to be."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.down = inner, False
        self.hold: asyncio.Event | None = None
        self.kept: list[list[str]] = []
        self.asked: list[list[str]] = []

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        self.kept.append(list(entries))
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            raise StoreDown("down")
        await self.inner.keep(account, entries, until)

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        self.asked.append(list(names))
        if self.down:
            raise StoreDown("down")
        found: dict[str, bytes] = await self.inner.recall(account, names, now)
        return found


@pytest.fixture
def watched(gateway: LiveGateway) -> Iterator[Watched]:
    assert gateway.app.running is not None
    conversations = gateway.app.running.gateway.conversations
    watched = conversations._cache = Watched(conversations._cache)  # type: ignore[assignment]
    yield watched
    conversations._cache = watched.inner


def test_ordinary_requests_ask_the_store_nothing_and_keep_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, watched: Watched
) -> None:
    key = gateway.key(None)
    tools = [{"type": "function", "function": {"name": "step", "parameters": TOOLS["step"]}}]
    for body in ({}, {"tools": tools}, {"model": "kimi-k2", "tools": tools}):
        for stream in (True, False):
            assert gateway.chat(key, stream=stream, **body).status_code == 200
    assert (watched.kept, watched.asked) == ([], [])


def test_a_client_that_keeps_its_reasoning_costs_one_write_a_call_and_no_read(
    gateway: LiveGateway, upstream: ScriptedUpstream, watched: Watched
) -> None:
    plan(upstream, 3)
    loop = ChatLoop(gateway.key(None), "kimi-k3")
    for turn in range(3):
        loop.turn(gateway, stream=True)
        loop.messages[-3]["reasoning_content"] = reasoning_of(turn)
    assert ([len(names) for names in watched.kept], watched.asked) == ([1, 1, 1], [])


def test_without_thinking_nothing_is_asked_or_kept(
    gateway: LiveGateway, upstream: ScriptedUpstream, watched: Watched
) -> None:
    upstream.always(Kimi(text="", tools=(("step", {"n": 1}), ("look", {}))))
    loop = ChatLoop(gateway.key(None), "kimi-k2")
    for _ in range(3):
        loop.turn(gateway, stream=True)
    assert (watched.kept, watched.asked) == ([], [])


def test_a_store_that_is_down_fails_no_request(
    gateway: LiveGateway, upstream: ScriptedUpstream, watched: Watched
) -> None:
    plan(upstream, 2)
    watched.down = True
    key = gateway.key(100)
    loop = ChatLoop(key, "kimi-k2.6")
    loop.turn(gateway, stream=True)
    loop.turn(gateway, stream=False)
    assert sent_reasoning(upstream) == [" "]
    assert gateway.account(key).credits == 98
    assert {line["step"] for line in gateway.lines("replay_down")} == {"keep", "recall"}


def test_what_is_kept_is_in_the_store_before_the_client_sees_the_end(
    gateway: LiveGateway, upstream: ScriptedUpstream, watched: Watched
) -> None:
    plan(upstream, 1)
    watched.hold = asyncio.Event()
    tools = [{"type": "function", "function": {"name": name, "parameters": TOOLS[name]}} for name in TOOLS]
    seen: list[str] = []
    with streaming(gateway, gateway.key(), tools=tools) as (_, lines):
        reader = threading.Thread(target=lambda: [seen.append(line) for line in lines])
        reader.start()
        gateway.until(lambda: watched.kept)
        assert "[DONE]" not in "".join(seen)
        gateway.call(watched.hold.set)
        reader.join()
    assert seen[-1] == "data: [DONE]"
    assert '"finish_reason":"tool_calls"' in seen[-2]


def test_an_answer_that_broke_keeps_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, watched: Watched
) -> None:
    whole = chat_events("", reasoning_of(1), (("step", {"n": 1}),))
    upstream.plan(Sse(whole[:-2], done=False))
    tools = [{"type": "function", "function": {"name": "step", "parameters": TOOLS["step"]}}]
    assert '"error"' in gateway.chat(gateway.key(), stream=True, tools=tools).text
    assert watched.kept == []
