"""What comes back of a chat, row by row of docs/contract.md: stop strings, usage, ends, tool calls."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from kimi_gateway.pivot.call_ids import vendors
from support.live import LiveGateway, events, text_of
from upstream import Kimi, NoDone, ScriptedUpstream, Sse, chat_events
from upstream.kimi import TEXT

TOOL = {"type": "function", "function": {"name": "abc", "parameters": {"type": "object"}}}
LONG_STOP = "=== the end of it all, as agreed ==="


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("pieces", [1, 3, 7, 60])
def test_a_long_stop_string_is_found_across_chunks_and_never_shown(
    gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool, pieces: int
) -> None:
    upstream.plan(Kimi(f"Before it. {LONG_STOP} After it.", pieces=pieces))
    answer = gateway.chat(gateway.key(), stop=[LONG_STOP], stream=stream)
    if stream:
        assert text_of(answer.text) == "Before it. "
        assert json.loads(events(answer.text)[-2])["choices"][0]["finish_reason"] == "stop"
        assert events(answer.text)[-1] == "[DONE]"
    else:
        assert answer.json()["choices"][0]["message"]["content"] == "Before it. "
        assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "step", [Kimi("So == the end"), NoDone(Kimi("So == the end"))], ids=["done", "no done"]
)
def test_what_only_begins_like_a_stop_string_is_shown_after_all(
    gateway: LiveGateway, upstream: ScriptedUpstream, step: Kimi
) -> None:
    upstream.plan(step)
    assert text_of(gateway.chat(gateway.key(), stop=LONG_STOP, stream=True).text) == "So == the end"


def test_held_back_text_is_shown_where_done_comes_without_a_finish_reason(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.plan(Sse(chat_events("So ===", pieces=2)[:-1]))
    answer = gateway.chat(gateway.key(), stop=LONG_STOP, stream=True)
    assert (text_of(answer.text), events(answer.text)[-1]) == ("So ===", "[DONE]")


def chunks_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert events(answer.text)[-1] == "[DONE]"
    return [json.loads(data) for data in events(answer.text)[:-1]]


def row_of(gateway: LiveGateway, key: str) -> tuple[int, int, int]:
    (row,) = gateway.usage(key)
    return row.requests, row.input, row.output


@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "not asked for"])
def test_usage_sent_in_three_places_is_shown_once_if_asked_for(
    gateway: LiveGateway, upstream: ScriptedUpstream, asked: bool
) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16, "cached_tokens": 4}
    told = {**usage, "prompt_tokens_details": {"cached_tokens": 4}}  # where OpenAI's clients look
    upstream.plan(Kimi(usage=usage))
    key = gateway.key()
    chunks = chunks_of(gateway.chat(key, stream=True, stream_options={"include_usage": asked}))
    shown = [chunk for chunk in chunks if chunk.get("usage")]
    assert [chunk["usage"] for chunk in shown] == [told] * asked
    assert [chunk for chunk in chunks if not chunk["choices"]] == shown
    assert row_of(gateway, key) == (1, 11, 5)


def only_in_the_choice() -> list[dict[str, Any]]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    chunks = chat_events(usage=usage)
    del chunks[-1]["usage"]
    return chunks


def odd_chunks() -> list[dict[str, Any]]:
    chunks = chat_events(usage={"prompt_tokens": None, "completion_tokens": None, "total_tokens": None})
    return [chunks[0], {"id": "x", "choices": []}, {"choices": [], "usage": None}, *chunks[1:]]


STREAMS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "usage in the choice alone fills the ledger": (Sse(only_in_the_choice()), (1, 3, 2)),
    "null counters and chunks of nothing count as nothing": (Sse(odd_chunks()), (1, 0, 0)),
    "a finish reason is a proof without [DONE]": (
        NoDone(Kimi(usage={"prompt_tokens": 1, "completion_tokens": 1})), (1, 1, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", STREAMS)
def test_stream(gateway: LiveGateway, upstream: ScriptedUpstream, row: str) -> None:
    step, counted = STREAMS[row]
    upstream.plan(step)
    key = gateway.key(5)
    answer = gateway.chat(key, stream=True)
    assert text_of(answer.text) == TEXT
    assert chunks_of(answer)[-1]["choices"][0]["finish_reason"] == "stop"
    assert row_of(gateway, key) == counted
    assert gateway.account(key).credits == 4


@pytest.mark.parametrize("stream", [True, False])
def test_tool_calls_without_an_index_are_told_apart(
    gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    function = {"name": "abc", "arguments": ""}
    pieces: list[dict[str, Any]] = [
        {"id": "abc:0", "type": "function", "function": function},
        {"function": {"arguments": '{"a":'}},
        {"function": {"arguments": "1}"}},
        {"id": "abc:1", "type": "function", "function": function},
        {"function": {"arguments": "{}"}},
    ]
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces]
    upstream.plan(Sse([*deltas, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]))
    answer = gateway.chat(gateway.key(), tools=[TOOL], stream=stream)
    if stream:
        calls = [c["delta"].get("tool_calls") for chunk in chunks_of(answer) for c in chunk["choices"]]
        assert [call[0]["index"] for call in calls if call] == [0, 0, 0, 1, 1]
    else:
        calls = answer.json()["choices"][0]["message"]["tool_calls"]
        assert [(vendors(c["id"]), c["function"]["arguments"]) for c in calls] == [
            ("abc:0", '{"a":1}'),
            ("abc:1", "{}"),
        ]
