"""A tool loop at the gateway at home: each request finds the one before it in the vendor's prefix cache,
across a restart on the same file and three days. The upstream counts its cached tokens itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from kimi_gateway import app
from kimi_gateway.edge.router import Router
from kimi_gateway.edge.routes import routes
from support.inprocess import InProcess, Sent, Told, kimi, streamed
from upstream import chat_events
from upstream.kimi import usage_of

Json = dict[str, Any]
HOURS = 60  # the whole walk; an entry lives 24
WALKED = 60  # calls one by one: those of a client that drops reasoning, out of the store
STRETCHES = (1, 495, 995, 1_190)  # where a walk of the sealed forms, which need no store, goes on
STEPS = 10  # in each stretch


class AtHome(InProcess):
    """With the store of its own: SQLite in the folder `data`, opened anew by each."""

    def __enter__(self) -> Self:
        started = app.start(self._settings, client=self.client, clock=lambda: self.now)
        self.running = self.run(started)
        self.store = self.running.store
        self.router = Router(routes(self.running.gateway, self.running.endpoints))
        return self


class PrefixCache:
    """Thinks and calls a tool at each turn. What a request has in common with the one before is cached."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.shares: list[float] = []

    def __call__(self, sent: Sent) -> Told:
        if sent.path != "/v1/chat/completions":
            return kimi(sent)
        seen = [json.dumps(message) for message in sent.body["messages"]]
        same = 0
        while same < min(len(self.before), len(seen)) and self.before[same] == seen[same]:
            same += 1
        cached, had = (sum(map(len, self.before[:end])) for end in (same, len(self.before)))
        if had:
            self.shares.append(cached / had)
        self.before = seen
        n = sum(message["role"] == "tool" for message in sent.body["messages"])
        usage = usage_of(sum(map(len, seen)), 9, cached=cached)
        made = chat_events("", f"thought {n}", (("step", {"n": n}),), usage=usage, first_call=n % 7, pieces=1)
        return streamed(*made)


def chat(desk: InProcess, key: str, history: list[Json]) -> None:
    tools = [{"type": "function", "function": {"name": "step", "parameters": {"type": "object"}}}]
    answer = desk.chat(key, {"messages": [{"role": "user", "content": "Go"}, *history], "tools": tools})
    assert answer.status == 200, answer.body
    (call,) = answer.json["choices"][0]["message"]["tool_calls"]
    history.append({"role": "assistant", "content": None, "tool_calls": [call]})
    history.append({"role": "tool", "tool_call_id": call["id"], "content": "ok"})


def messages(desk: InProcess, key: str, history: list[Json]) -> None:
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
    history.append({"role": "assistant", "content": [thought, call]})
    history.append({"role": "user", "content": [result]})


def responses(desk: InProcess, key: str, history: list[Json]) -> None:
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


def test_what_the_store_gives_back_stays_in_the_prefix_across_a_restart(tmp_path: Path) -> None:
    upstream, history, key, now = PrefixCache(), list[Json](), "", 0.0
    for _ in range(2):
        with AtHome(data=tmp_path / "data") as desk:
            desk.client.answer = upstream
            desk.now = now or desk.now
            key = key or desk.key(None)
            for _ in range(WALKED // 2):
                chat(desk, key, history)
                desk.now += HOURS * 3600 / WALKED
            now = desk.now
    assert len(upstream.shares) == WALKED - 1
    assert [(at, share) for at, share in enumerate(upstream.shares) if share < 0.99] == []
    assert all("thought" in message for message in upstream.before if '"tool_calls"' in message)


@pytest.mark.parametrize("step", [messages, responses])
def test_sealed_thoughts_stay_in_the_prefix_at_every_length(
    step: Callable[[InProcess, str, list[Json]], None], tmp_path: Path
) -> None:
    """Another account and another process for each stretch: nothing is found in any store."""
    upstream, history = PrefixCache(), list[Json]()
    for stretch, length in enumerate(STRETCHES):
        with AtHome(data=tmp_path / f"data{stretch}") as desk:
            desk.client.answer = upstream
            key = desk.key(None)
            if history:
                history = prolonged(history, length)
            upstream.before, upstream.shares = [], []
            for _ in range(STEPS):
                step(desk, key, history)
            assert len(upstream.shares) == STEPS - 1
            assert [(at, share) for at, share in enumerate(upstream.shares) if share < 0.99] == []
            told = [message for message in upstream.before if '"tool_calls"' in message]
            assert len(told) >= length - 1
            assert all("thought" in message for message in told)


def prolonged(history: list[Json], calls: int) -> list[Json]:
    """As many turns as that: the last one again and again, each under a call id of its own."""
    at = len(history) - (2 if history[-1].get("role") == "user" else 3)
    text, id = json.dumps(history[at:]), call_id(history[-1])
    done = json.dumps(history).count('ok"')
    more = [turn for n in range(calls - done) for turn in json.loads(text.replace(id, f"step:again{n}"))]
    return [*history, *more]


def call_id(result: Json) -> str:
    found: str = result.get("call_id") or result["content"][0]["tool_use_id"]
    return found
