"""Every shape in which upstreams cut and number tool calls folds to the same calls: in the three formats, in
the JSON answer and in what the official SDKs put together of a stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from kimi_gateway.dialects.messages import ids
from kimi_gateway.pivot.call_ids import vendors
from support.live import LiveGateway
from upstream import ScriptedUpstream, Sse

Json = dict[str, Any]
Called = list[tuple[str, str, Any]]  # the vendor's id, name and arguments
HI: Any = [{"role": "user", "content": "Hi"}]
FUNCTION = {"name": "run", "parameters": {"type": "object", "properties": {}}}


def at(index: Any, arguments: Any = None, id: str | None = None, name: str | None = None) -> Json:
    """A fragment; what is None is not there."""
    function: Json = {} if arguments is None else {"arguments": arguments}
    if name is not None:
        function = {"name": name, **function}
    made: Json = {"function": function} if index is None else {"index": index, "function": function}
    return made | ({} if id is None else {"id": id, "type": "function"})


ONE = [("run:0", "run", {"command": "ls"})]
TWO = [*ONE, ("run:1", "run", {"b": 2})]
LS = '{"command": "ls"}'
SHAPES: dict[str, tuple[list[Json], Called]] = {
    "whole": ([at(0, LS, "run:0", "run")], ONE),
    "the vendor's": ([at(0, "", "run:0", "run"), at(0, '{"command'), at(0, '": "ls"}')], ONE),
    "an id of its own for each fragment": (
        [at(0, "", "run:0", "run"), at(0, '{"', "f:0"), at(0, "command", "f:1"), at(0, '": "ls"}', "f:2")],
        ONE,
    ),
    "id and name in each fragment": (
        [at(0, '{"command"', "run:0", "run"), at(0, ': "ls"}', "run:0", "run")], ONE,
    ),
    "the name again": ([at(0, '{"command"', "run:0", "run"), at(0, ': "ls"}', name="run")], ONE),
    "the name later than the id": ([at(0, id="run:0"), at(0, LS, name="run")], ONE),
    "arguments that are an object": ([at(0, {"command": "ls"}, "run:0", "run")], ONE),
    "arguments that are null": (
        [{**at(0, None, "run:0", "run"), "function": {"name": "run", "arguments": None}}, at(0, LS)], ONE,
    ),
    "no index": ([at(None, "", "run:0", "run"), at(None, LS)], ONE),
    "a negative index": ([at(-1, "", "run:0", "run"), at(-1, LS)], ONE),
    "a huge index": ([at(10**12, "", "run:0", "run"), at(10**12, LS)], ONE),
    "an index that is text": ([at("0", "", "run:0", "run"), at("0", LS)], ONE),
    "two calls": ([at(0, LS, "run:0", "run"), at(1, '{"b"', "run:1", "run"), at(1, ": 2}")], TWO),
    "two that interleave": (
        [at(0, "", "run:0", "run"), at(1, "", "run:1", "run"), at(1, '{"b"'), at(0, LS), at(1, ": 2}")], TWO,
    ),
    "two at one index": ([at(0, LS, "run:0", "run"), at(0, "", "run:1", "run"), at(0, '{"b": 2}')], TWO),
    "two without an index": ([at(None, LS, "run:0", "run"), at(None, '{"b": 2}', "run:1", "run")], TWO),
    "two that begin at the second": ([at(1, LS, "run:0", "run"), at(0, '{"b": 2}', "run:1", "run")], TWO),
    "two of one id": (
        [at(0, LS, "run:0", "run"), at(1, '{"b": 2}', "run:0", "run")],
        [*ONE, ("run:0", "run", {"b": 2})],
    ),
    "two of one id at one index": (
        [at(0, LS, "run:0", "run"), at(0, '{"b": 2}', "run:0", "run")],
        [*ONE, ("run:0", "run", {"b": 2})],
    ),
    "no id": ([at(0, "", name="run"), at(0, LS)], [("call_0", "run", {"command": "ls"})]),
    "a raw line end": (
        [at(0, '{"command": "a', "run:0", "run"), at(0, '\nb\\'), at(0, 'd"} {'), at(0, "}")],
        [("run:0", "run", {"command": "a\nb\\d"})],
    ),
}  # fmt: skip


def chat(url: str, key: str, streamed: bool) -> Called:
    body: Any = {
        "model": "kimi-k3",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": FUNCTION}],
    }
    with openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0) as client:
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
    with openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0) as client:
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
    with anthropic.Anthropic(api_key=key, base_url=url, max_retries=0) as client:
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
    fragments, expected = SHAPES[shape]
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [each]}}]} for each in fragments]
    upstream.plan(Sse([*deltas, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]))
    called = ask(gateway.url, gateway.key(), streamed)
    assert [(vendors(id), name, arguments) for id, name, arguments in called] == expected
    assert len({id for id, _, _ in called}) == len(called)
