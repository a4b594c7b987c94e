"""A tool loop at the gateway at home, call by call: what of each request the vendor's prefix cache has from
the one before, and what each turn costs the store. The upstream counts its cached tokens itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kimi_gateway import app
from kimi_gateway.edge.router import Router
from kimi_gateway.edge.routes import routes
from kimi_gateway.storage.cache import Cache
from kimi_gateway.storage.memory_cache import RememberingCache
from kimi_gateway.storage.sqlite.opening import open_store
from support.inprocess import InProcess, Sent, Told, kimi, streamed
from upstream import chat_events
from upstream.kimi import usage_of

Json = dict[str, Any]


class CountedCache:
    """A store of what accounts may refer to again; it counts its calls and the entries in them."""

    def __init__(self, store: Cache) -> None:
        self._store = store
        self.forget()

    def forget(self) -> None:
        self.reads = self.read = self.writes = self.written = 0

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        self.writes += 1
        self.written += len(entries)
        await self._store.keep(account, entries, until)

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        self.reads += 1
        self.read += len(names)
        return await self._store.recall(account, names, now)


class AtHome(InProcess):
    """With the store of its own: SQLite in the folder `data`, opened anew by each, and counted."""

    def __enter__(self) -> Self:
        store = open_store(self._settings)
        self.counted = CountedCache(store)
        started = app.start(
            self._settings,
            store=store,
            cache=RememberingCache(self.counted),
            client=self.client,
            clock=lambda: self.now,
        )
        self.running = self.run(started)
        self.store = self.running.store  # type: ignore[assignment]
        self.router = Router(routes(self.running.gateway, self.running.endpoints))
        return self


class PrefixCache:
    """Thinks and calls a tool at each turn. What a request has in common with the one before is cached."""

    def __init__(self) -> None:
        self.before: list[Json] = []
        self.sizes: list[int] = []
        self.shares: list[float] = []

    def __call__(self, sent: Sent) -> Told:
        if sent.path != "/v1/chat/completions":
            return kimi(sent)
        seen = sent.body["messages"]
        same = 0
        while same < min(len(self.before), len(seen)) and self.before[same] == seen[same]:
            same += 1
        cached, had = sum(self.sizes[:same]), sum(self.sizes)
        if had:
            self.shares.append(cached / had)
        self.before = seen
        self.sizes = [*self.sizes[:same], *(len(json.dumps(message)) for message in seen[same:])]
        n = sum(message["role"] == "tool" for message in seen)
        usage = usage_of(sum(self.sizes), 9, cached=cached)
        made = chat_events("", f"thought {n}", (("step", {"n": n}),), usage=usage, first_call=n % 7, pieces=1)
        return streamed(*made)

    def restored(self) -> bool:
        """Whether each call of the last request has its reasoning."""
        calls = [message for message in self.before if message.get("tool_calls")]
        return bool(calls) and all(
            message.get("reasoning_content") == f"thought {n}" for n, message in enumerate(calls)
        )


def chat(desk: InProcess, key: str, history: list[Json]) -> None:
    """Drops the reasoning."""
    tools = [{"type": "function", "function": {"name": "step", "parameters": {"type": "object"}}}]
    answer = desk.chat(key, {"messages": [{"role": "user", "content": "Go"}, *history], "tools": tools})
    assert answer.status == 200, answer.body
    (call,) = answer.json["choices"][0]["message"]["tool_calls"]
    history.append({"role": "assistant", "content": None, "tool_calls": [call]})
    history.append({"role": "tool", "tool_call_id": call["id"], "content": "ok"})


def messages(desk: InProcess, key: str, history: list[Json], drops: bool = False) -> None:
    """Keeps the thought, which is sealed in the signature of an empty block; `drops` does not."""
    body = {
        "model": "kimi-k3", "max_tokens": 2_000, "thinking": {"type": "adaptive", "display": "omitted"},
        "tools": [{"name": "step", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": "Go"}, *history],
    }  # fmt: skip
    answer = desk.call("POST", "/v1/messages", body, key)
    assert answer.status == 200, answer.body
    thought, call = answer.json["content"]
    assert thought["thinking"] == ""
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "ok"}
    history.append({"role": "assistant", "content": [call] if drops else [thought, call]})
    history.append({"role": "user", "content": [result]})


def responses(desk: InProcess, key: str, history: list[Json]) -> None:
    """Keeps the thought sealed in `encrypted_content`."""
    body = {
        "model": "kimi-k3", "store": False, "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "step", "parameters": {"type": "object"}}],
        "input": [{"role": "user", "content": "Go"}, *history],
    }  # fmt: skip
    answer = desk.call("POST", "/v1/responses", body, key)
    assert answer.status == 200, answer.body
    output = answer.json["output"]
    history += output
    history.append({"type": "function_call_output", "call_id": output[-1]["call_id"], "output": "ok"})


def previous(desk: InProcess, key: str, history: list[Json]) -> None:
    """Names the kept answer, and sends the new result only; `history` has both."""
    asked = {"previous_response_id": history[0]["id"], "input": history[1:]} if history else {"input": "Go"}
    tools = [{"type": "function", "name": "step", "parameters": {"type": "object"}}]
    answer = desk.call("POST", "/v1/responses", {"model": "kimi-k3", "tools": tools, **asked}, key)
    assert answer.status == 200, answer.body
    call = answer.json["output"][-1]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "ok"}
    history[:] = [{"id": answer.json["id"]}, result]


Step = Callable[[InProcess, str, list[Json]], None]
STEPS: dict[str, Step] = {
    "chat": chat,
    "messages": messages,
    "messages without thoughts": lambda desk, key, history: messages(desk, key, history, drops=True),
    "responses": responses,
    "previous": previous,
}


@dataclass(frozen=True, slots=True)
class Turn:
    """`share`: of the request before, that was cached (1 for the first). The rest are calls of the store, and
    entries in them."""

    share: float
    reads: int
    read: int
    writes: int
    written: int


@dataclass
class Walk:
    """`turns` calls over `hours`, in `lives` processes on one file after another."""

    step: Step
    folder: Path
    turns: int
    hours: float
    lives: int = 2
    upstream: PrefixCache = field(default_factory=PrefixCache)

    def __iter__(self) -> Iterator[Turn]:
        history, key, now = list[Json](), "", 0.0
        for life in range(self.lives):
            with AtHome(data=self.folder) as desk:
                desk.client.answer = self.upstream
                desk.now = now or desk.now
                key = key or desk.key(None)
                first, end = (self.turns * at // self.lives for at in (life, life + 1))
                for _ in range(first, end):
                    desk.counted.forget()
                    desk.client.sent.clear()
                    self.step(desk, key, history)
                    count = desk.counted
                    share = self.upstream.shares[-1] if self.upstream.shares else 1.0
                    yield Turn(share, count.reads, count.read, count.writes, count.written)
                    desk.now += self.hours * 3600 / self.turns
                now = desk.now
