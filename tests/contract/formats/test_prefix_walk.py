"""A tool loop at the gateway at home: each request finds the one before it in the vendor's prefix cache,
across a restart on the same file and three days. The upstream counts its cached tokens itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.prefix_walk import STEPS, AtHome, PrefixCache, Step, Walk, messages, responses

Json = dict[str, Any]
HOURS = 60  # the whole walk; an entry lives 24
WALKED = 60  # calls one by one
STRETCHES = (1, 495, 995, 1_190)  # where a walk of the sealed forms, which need no store, goes on
IN_EACH = 5  # calls


@pytest.mark.parametrize("kind", ["chat", "previous"])
def test_what_the_store_gives_back_stays_in_the_prefix_across_a_restart(kind: str, tmp_path: Path) -> None:
    """`scripts/walk` does the same with 1,200 calls and each kind of client."""
    walk = Walk(STEPS[kind], tmp_path / "data", WALKED, HOURS)
    turns = list(walk)
    assert [(at, turn.share) for at, turn in enumerate(turns) if turn.share < 0.99] == []
    assert len(walk.upstream.shares) == WALKED - 1
    assert walk.upstream.restored()
    assert max(turn.reads + turn.writes for turn in turns) <= 5


@pytest.mark.parametrize("step", [messages, responses])
def test_sealed_reasoning_stays_in_the_prefix_at_every_length(step: Step, tmp_path: Path) -> None:
    """Another account and another process for each stretch: nothing is found in any store."""
    upstream, history = PrefixCache(), list[Json]()
    for stretch, length in enumerate(STRETCHES):
        with AtHome(data=tmp_path / f"data{stretch}") as desk:
            desk.client.answer = upstream
            key = desk.key(None)
            if history:
                history = prolonged(history, length)
            upstream.before, upstream.sizes, upstream.shares = [], [], []
            for _ in range(IN_EACH):
                step(desk, key, history)
            assert len(upstream.shares) == IN_EACH - 1
            assert [(at, share) for at, share in enumerate(upstream.shares) if share < 0.99] == []
            told = [message for message in upstream.before if message.get("tool_calls")]
            assert len(told) >= length - 1
            assert all("thought" in message["reasoning_content"] for message in told)


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
