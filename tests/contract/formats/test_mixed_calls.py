"""A search beside a call of the client's own tools: both run, and the next request has both results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kimi_gateway.flow.search.tools import OPEN_PAGE, SEARCH
from support import sdks
from support.live import LiveGateway
from upstream import Kimi, ScriptedUpstream
from upstream.search import PATHS, refused

MINE = {"type": "object", "properties": {"city": {"type": "string"}}}
CALLS: Any = [
    (SEARCH, {"query": "news"}),
    ("mine", {"city": "Paris"}),
    (OPEN_PAGE, {"url": "https://example.com/9"}),
]
MIXED = Kimi("Both. ", "Hm.", tools=CALLS)
ASK = "What is new at https://example.com/9 ?"
DONE = Kimi("It is new [1].")


@pytest.fixture(scope="module")
def gateway(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path_factory.mktemp("gateway"), module_upstream.url) as gateway:
        yield gateway


def evidence(upstream: ScriptedUpstream) -> list[tuple[list[str], list[str]]]:
    """The calls and the results of each message of the last chat upstream that has calls."""
    messages = upstream.chats[-1].body["messages"]
    found = []
    for at, message in enumerate(messages):
        if calls := message.get("tool_calls"):
            results = {
                each["tool_call_id"]: each["content"] for each in messages[at + 1 : at + 1 + len(calls)]
            }
            texts = [results[call["id"]] for call in calls]  # each call has its result right behind it
            found.append(([call["function"]["name"] for call in calls], texts))
    return found


def chat(gateway: LiveGateway, key: str) -> sdks.openai.OpenAI:
    return sdks.openai.OpenAI(
        api_key=key, base_url=f"{gateway.url}/v1", max_retries=0, _strict_response_validation=True
    )


@pytest.mark.parametrize("stream", [False, True])
def test_chat_completions(
    gateway: LiveGateway, upstream: ScriptedUpstream, closing: ExitStack, stream: bool
) -> None:
    upstream.web.pages = {"https://example.com/9": "# Nine"}
    upstream.plan(MIXED, DONE, DONE)
    client = closing.enter_context(chat(gateway, gateway.key(9)))
    asked: Any = {
        "model": "kimi-k3",
        "messages": [{"role": "user", "content": ASK}],
        "tools": [{"type": "function", "function": {"name": "mine", "parameters": MINE}}],
        "web_search_options": {},
    }
    if stream:
        with client.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            choice = events.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(**asked).choices[0]
    calls = choice.message.tool_calls
    assert calls is not None
    assert [call.function.name for call in calls] == ["mine"]
    assert choice.finish_reason == "tool_calls"
    assert len(upstream.searches) == 2
    said = {"role": "assistant", "content": choice.message.content, "tool_calls": [calls[0].model_dump()]}
    history = [*asked["messages"], said, {"role": "tool", "tool_call_id": calls[0].id, "content": "Sunny"}]
    client.chat.completions.create(**{**asked, "messages": history})
    names, texts = evidence(upstream)[-1]
    assert names == ["mine", SEARCH, OPEN_PAGE]
    assert texts[0] == "Sunny"
    assert "The snippet of page 1." in texts[1]
    assert "# Nine" in texts[2]
    first = upstream.chats[-1].body["messages"]
    client.chat.completions.create(
        **{
            **asked,
            "messages": [
                *history,
                {"role": "assistant", "content": "x"},
                {"role": "user", "content": "More?"},
            ],
        }
    )
    assert upstream.chats[-1].body["messages"][: len(first)] == first  # the prefix stays
    stranger = closing.enter_context(chat(gateway, gateway.key(9)))  # for whom the cache has nothing
    stranger.chat.completions.create(**{**asked, "messages": history})
    assert evidence(upstream)[-1] == (["mine"], ["Sunny"])


@pytest.mark.parametrize("kept", [True, False])
def test_responses(gateway: LiveGateway, upstream: ScriptedUpstream, closing: ExitStack, kept: bool) -> None:
    """With `store: false` nothing is kept; the conversation goes on without what was found."""
    upstream.web.pages = {"https://example.com/9": "# Nine"}
    upstream.plan(MIXED, DONE)
    client = closing.enter_context(chat(gateway, gateway.key(9)))
    asked: Any = {
        "model": "kimi-k3",
        "input": [{"role": "user", "content": ASK}],
        "tools": [
            {"type": "web_search"},
            {"type": "function", "name": "mine", "parameters": MINE, "strict": False},
        ],
        "store": kept,
    }
    with client.responses.stream(**asked) as events:
        for _ in events:
            pass
        final = events.get_final_response()
    kinds = [item.type for item in final.output]
    assert sorted(kinds) == ["function_call", "message", "reasoning", "web_search_call", "web_search_call"]
    assert final.status == "completed"
    call = next(item for item in final.output if item.type == "function_call")
    told: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}
    more: Any = {"input": [told], "previous_response_id": final.id}
    if not kept:
        more = {
            "input": [*asked["input"], *[item.model_dump(exclude_none=True) for item in final.output], told]
        }
    client.responses.create(**{**asked, **more})
    names, texts = evidence(upstream)[-1]
    assert names == (["mine", SEARCH, OPEN_PAGE] if kept else ["mine"])
    assert texts[0] == "Sunny"
    assert not kept or "The snippet of page 1." in texts[1]


@pytest.mark.parametrize("stream", [False, True])
def test_messages(gateway: LiveGateway, upstream: ScriptedUpstream, closing: ExitStack, stream: bool) -> None:
    """The client's own blocks bring the results back, sealed; nothing is added to them."""
    upstream.web.pages = {"https://example.com/9": "# Nine"}
    upstream.plan(MIXED, DONE)
    opened = sdks.anthropic.Anthropic(
        api_key=gateway.key(9), base_url=gateway.url, max_retries=0, _strict_response_validation=True
    )
    client = closing.enter_context(opened)
    asked: Any = {
        "model": "kimi-k3",
        "max_tokens": 2_000,
        "messages": [{"role": "user", "content": ASK}],
        "tools": [
            {"type": "web_search_20250305", "name": "web_search"},
            {"type": "web_fetch_20250910", "name": "web_fetch"},
            {"name": "mine", "input_schema": MINE},
        ],
    }
    if stream:
        with client.messages.stream(**asked) as events:
            for _ in events:
                pass
            final: Any = events.get_final_message()
    else:
        final = client.messages.create(**asked)
    kinds = [block.type for block in final.content]
    assert kinds.count("tool_use") == 1
    assert kinds.count("server_tool_use") == 2
    assert final.stop_reason == "tool_use"
    for at, kind in enumerate(kinds):
        if kind.endswith("_tool_result"):
            assert any(
                block.id == final.content[at].tool_use_id
                for block in final.content[:at]
                if block.type == "server_tool_use"
            )
    used = next(block for block in final.content if block.type == "tool_use")
    assert used.input == {"city": "Paris"}
    result: Any = {"type": "tool_result", "tool_use_id": used.id, "content": "Sunny"}
    history = [
        *asked["messages"],
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in final.content]},
        {"role": "user", "content": [result]},
    ]
    client.messages.create(**{**asked, "messages": history})
    names, texts = evidence(upstream)[-1]
    assert (names, texts) == (["mine"], ["Sunny"])
    sent = json.dumps(upstream.chats[-1].body["messages"])
    assert sent.count("The snippet of page 1.") == 1
    assert "# Nine" in sent


@pytest.mark.parametrize("stream", [False, True])
def test_a_search_that_fails_leaves_the_clients_call_alone(
    gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    for path in PATHS:
        upstream.at(path, refused(500, "internal_error"))
    upstream.plan(MIXED)
    key = gateway.key(9)
    mine = {"type": "function", "function": {"name": "mine", "parameters": MINE}}
    messages = [{"role": "user", "content": ASK}]
    answer = gateway.chat(key, messages=messages, tools=[mine], use_search=True, stream=stream)
    assert answer.status_code == 200
    assert '"mine"' in answer.text
    assert '"finish_reason":"tool_calls"' in answer.text
    gateway.nothing_left(key)
    assert gateway.account(key).credits == 8
