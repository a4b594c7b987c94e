"""Every shape of call fragments folds to the same calls in the accumulators of Node's official SDKs, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from clients.drivers import Driver
from kimi_gateway.dialects.messages import ids
from kimi_gateway.pivot.call_ids import vendors
from support.call_shapes import FUNCTION, SHAPES, Called, answer_of
from support.live import HELLO, LiveGateway
from upstream import ScriptedUpstream

Json = dict[str, Any]


def chat(answer: Json) -> Called:
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    calls = [(each["id"], each["function"]) for each in choice["message"]["tool_calls"]]
    return [(id, function["name"], json.loads(function["arguments"])) for id, function in calls]


def messages(answer: Json) -> Called:
    assert answer["stop_reason"] == "tool_use"
    calls = [block for block in answer["content"] if block["type"] == "tool_use"]
    return [(ids.upstream(each["id"]), each["name"], each["input"]) for each in calls]


def responses(answer: Json) -> Called:
    assert answer["status"] == "completed"
    calls = [item for item in answer["output"] if item["type"] == "function_call"]
    return [(each["call_id"], each["name"], json.loads(each["arguments"])) for each in calls]


@dataclass(frozen=True)
class Way:
    """Which SDK, what it is asked, and how its answer is read. `verbs`: for JSON, and for a stream."""

    sdk: str
    base: str
    body: Json
    read: Any
    verbs: tuple[str, str] = ("whole", "accumulated")


CHAT: Json = {"model": "kimi-k3", "messages": HELLO, "tools": [{"type": "function", "function": FUNCTION}]}
TOOL = {"name": "run", "input_schema": FUNCTION["parameters"]}
MESSAGES: Json = {"model": "kimi-k3", "max_tokens": 99, "messages": HELLO, "tools": [TOOL]}
RESPONSES: Json = {"model": "kimi-k3", "input": "Hi", "tools": [{"type": "function", **FUNCTION}]}
WAYS = {
    "chat": Way("openai", "/v1", CHAT, chat),
    "chat, old": Way("openai-old", "/v1", CHAT, chat),
    "responses": Way("openai", "/v1", RESPONSES, responses, ("responded", "response-accumulated")),
    "messages": Way("@anthropic-ai/sdk", "", MESSAGES, messages),
    "messages, old": Way("anthropic-old", "", MESSAGES, messages),
}


@pytest.fixture(scope="module", params=WAYS.values(), ids=WAYS)
def way(request: pytest.FixtureRequest, gateway: LiveGateway) -> Iterator[tuple[Way, Driver]]:
    with Driver("node", request.param.sdk, gateway.url + request.param.base) as driver:
        yield request.param, driver


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "json"])
def test_nodes_sdks_fold_every_shape_of_fragments_to_the_same_calls(
    way: tuple[Way, Driver], gateway: LiveGateway, upstream: ScriptedUpstream, shape: str, streamed: bool
) -> None:
    asked, sdk = way
    upstream.plan(answer_of(shape))
    outcome = sdk(asked.verbs[streamed], key=gateway.key(), body=asked.body)
    assert not outcome.classes, outcome
    called = asked.read(outcome.value)
    assert [(vendors(id), name, arguments) for id, name, arguments in called] == SHAPES[shape][1]
    assert len({id for id, _, _ in called}) == len(called)
