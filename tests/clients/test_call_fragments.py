"""Every shape in which upstreams cut and number tool calls folds to the same calls: in the three formats, in
the JSON answer and in what the official SDKs put together of a stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clients import anthropic_sdk, sdk
from kimi_gateway.dialects.messages import ids
from kimi_gateway.pivot.call_ids import vendors
from support.call_shapes import FUNCTION, SHAPES, Called, answer_of
from support.live import LiveGateway
from upstream import ScriptedUpstream

Json = dict[str, Any]
HI: Any = [{"role": "user", "content": "Hi"}]


def chat(url: str, key: str, streamed: bool) -> Called:
    body: Any = {
        "model": "kimi-k3",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": FUNCTION}],
    }
    with sdk.Blocking(f"{url}/v1", key) as blocking:
        client = blocking.client
        if streamed:
            with client.chat.completions.stream(**body) as stream:
                answer: Any = stream.get_final_completion()
        else:
            answer = client.chat.completions.create(**body)
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    return [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls]


def responses(url: str, key: str, streamed: bool) -> Called:
    body: Any = {"model": "kimi-k3", "input": "Hi", "tools": [{"type": "function", **FUNCTION}]}
    with sdk.Blocking(f"{url}/v1", key) as blocking:
        client = blocking.client
        if streamed:
            with client.responses.stream(**body) as stream:
                answer: Any = stream.get_final_response()
        else:
            answer = client.responses.create(**body)
    calls = [item for item in answer.output if item.type == "function_call"]
    return [(call.call_id, call.name, json.loads(call.arguments)) for call in calls]


def messages(url: str, key: str, streamed: bool) -> Called:
    tool = {"name": "run", "input_schema": FUNCTION["parameters"]}
    body: Any = {
        "model": "kimi-k3", "max_tokens": 99, "tools": [tool], "messages": HI,
    }  # fmt: skip
    with anthropic_sdk.Blocking(url, api_key=key) as blocking:
        client = blocking.client
        if streamed:
            with client.messages.stream(**body) as stream:
                answer: Any = stream.get_final_message()
        else:
            answer = client.messages.create(**body)
    assert answer.stop_reason == "tool_use"
    calls = [block for block in answer.content if block.type == "tool_use"]
    return [(ids.upstream(call.id), call.name, call.input) for call in calls]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("ask", [chat, responses, messages])
def test_the_sdks_fold_every_shape_of_fragments_to_the_same_calls(
    gateway: LiveGateway,
    upstream: ScriptedUpstream,
    ask: Callable[[str, str, bool], Called],
    streamed: bool,
    shape: str,
) -> None:
    upstream.plan(answer_of(shape))
    called = ask(gateway.url, gateway.key(), streamed)
    assert [(vendors(id), name, arguments) for id, name, arguments in called] == SHAPES[shape][1]
    assert len({id for id, _, _ in called}) == len(called)
