"""Where the parts meet: marked call ids, reasoning found by the vendor's id, repaired histories, reserved
names in arguments, renamed tools, several choices, counting and the native way, in one conversation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kimi_gateway.dialects.messages import ids
from kimi_gateway.pivot.call_ids import vendors
from support.inprocess import InProcess, Sent, Told, kimi, streamed, told
from support.messages_stream import folded
from support.tool_loop import _streamed
from upstream import chat_events, messages, rules
from upstream.kimi import WINDOWS, usage_of

Json = dict[str, Any]
REASONING = "Überlegt: 思考 👋"
NAMES = ("$defs", "$ref", "anyOf", "required", "required_", "additionalProperties", "plain", "ü")
TOOL = "☂ run"  # which the vendor refuses
SCHEMA = {"type": "object", "properties": {name: {"type": "string"} for name in NAMES}}
SPOILS = ("orphan", "unanswered", "empty", "between")
values = st.dictionaries(
    st.sampled_from(NAMES), st.text(st.characters(codec="utf-8"), max_size=6), max_size=4
)
calls = st.lists(
    st.tuples(st.sampled_from(["run:0", "run:1", "functions.run:0"]), values), min_size=1, max_size=3
)
few = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Model:
    """Thinks and makes the calls, under the names of tools and properties that it was sent."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Json]] = []
        self.sent: list[Json] = []

    def __call__(self, sent: Sent) -> Told:
        if sent.path not in ("/v1/chat/completions", messages.PATH):
            return kimi(sent)
        refused = (
            rules.refusal(sent.body, WINDOWS)
            if sent.path != messages.PATH
            else messages.refusal(dict(sent.headers), sent.body, WINDOWS)
        )
        if refused is not None:
            return told(refused[1], refused[0])
        self.sent.append(sent.body)
        (tool,) = sent.body["tools"]
        name = tool.get("name") or tool["function"]["name"]
        made = [(name, self.written(arguments)) for _, arguments in self.calls]
        if sent.path == messages.PATH:
            shape: Any = {"usage": usage_of(9, 9), "model": "kimi-k3", "finish": None, "pieces": 2}
            frames = messages.events("", REASONING, made, **shape)
            return Told(200, {"content-type": "text/event-stream"}, b"".join(frames))
        events = chat_events("", REASONING, made)
        fresh = iter(id for id, _ in self.calls)
        for event in events:
            for choice in event["choices"]:
                for call in choice["delta"].get("tool_calls") or ():
                    if "id" in call:
                        call["id"] = next(fresh)
        return streamed(*events)

    @staticmethod
    def written(arguments: Json) -> Json:
        """Reserved names have one `_` more upstream (docs/contract.md, Schemas)."""
        base = {name.rstrip("_") for name in NAMES} - {"plain", "ü"}
        return {f"{name}_" if name.rstrip("_") in base else name: value for name, value in arguments.items()}


@pytest.fixture(scope="module", params=["openai", "native"])
def desk(request: pytest.FixtureRequest) -> Iterator[InProcess]:
    with InProcess(anthropic="native" if request.param == "native" else "pivot") as desk:
        desk.client.answer = Model()
        yield desk


def asked(desk: InProcess, path: str, body: Json, key: str) -> Any:
    answer = desk.call("POST", path, {"model": "kimi-k3", **body}, key)
    assert answer.status == 200, answer.body
    return answer


def chat(desk: InProcess, key: str, stream: bool, n: int, spoils: set[str]) -> list[tuple[str, Json]]:
    function = {"name": TOOL, "parameters": SCHEMA}
    history: list[Json] = [{"role": "user", "content": "Go"}]
    body: Json = {"tools": [{"type": "function", "function": function}], "n": n, "stream": stream}
    answer = asked(desk, "/v1/chat/completions", {**body, "messages": history}, key)
    if stream:
        made = _streamed(
            re.sub(r'"index":[1-9]\d*,"delta":\{[^\n]*', '"index":9,"delta":{}}]}', answer.body.decode())
        )
    else:
        assert len(answer.json["choices"]) == n
        made = answer.json["choices"][-1]["message"]["tool_calls"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in made]
    spoil(results, spoils, "content")
    more: list[Json] = [{"role": "user", "content": "Wait"}] if "between" in spoils else []
    history += [{"role": "assistant", "content": None, "tool_calls": made}, *more, *results]
    if "orphan" in spoils:
        history.append({"role": "tool", "tool_call_id": "nowhere", "content": "lost"})
    asked(desk, "/v1/chat/completions", {**body, "n": 1, "messages": history}, key)
    assert {call["function"]["name"] for call in made} == {TOOL}
    return [(call["id"], json.loads(call["function"]["arguments"])) for call in made]


def anthropic(desk: InProcess, key: str, stream: bool, n: int, spoils: set[str]) -> list[tuple[str, Json]]:
    history: list[Json] = [{"role": "user", "content": "Go"}]
    body: Json = {"tools": [{"name": TOOL, "input_schema": SCHEMA}], "max_tokens": 2_000, "stream": stream}
    answer = asked(desk, "/v1/messages", {**body, "messages": history}, key)
    content = folded(answer.body).message["content"] if stream else answer.json["content"]
    made = [block for block in content if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "ok"} for call in made]
    spoil(results, spoils, "content")
    more = [{"type": "text", "text": "Wait"}] if "between" in spoils or not results else []
    lost = (
        [{"type": "tool_result", "tool_use_id": "nowhere", "content": "lost"}] if "orphan" in spoils else []
    )
    history += [{"role": "assistant", "content": made}, {"role": "user", "content": [*more, *results, *lost]}]
    counted = asked(desk, "/v1/messages/count_tokens", {"tools": body["tools"], "messages": history}, key)
    assert counted.json["input_tokens"] > 0
    asked(desk, "/v1/messages", {**body, "messages": history}, key)
    assert {call["name"] for call in made} == {TOOL}
    return [(ids.upstream(call["id"]), call["input"]) for call in made]


def responses(desk: InProcess, key: str, stream: bool, n: int, spoils: set[str]) -> list[tuple[str, Json]]:
    history: list[Json] = [{"role": "user", "content": "Go"}]
    body: Json = {"tools": [{"type": "function", "name": TOOL, "parameters": SCHEMA}], "stream": stream}
    answer = asked(desk, "/v1/responses", {**body, "input": history}, key)
    lines = answer.body.decode().splitlines()
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    whole = told[-1]["response"] if stream else answer.json
    made = [item for item in whole["output"] if item["type"] == "function_call"]
    results = [{"type": "function_call_output", "call_id": call["call_id"], "output": "ok"} for call in made]
    spoil(results, spoils, "output")
    more: list[Json] = [{"role": "user", "content": "Wait"}] if "between" in spoils else []
    history += [*made, *more, *results]
    if "orphan" in spoils:
        history.append({"type": "function_call_output", "call_id": "nowhere", "output": "lost"})
    counted = asked(desk, "/v1/responses/input_tokens", {"tools": body["tools"], "input": history}, key)
    assert counted.json["input_tokens"] > 0
    asked(desk, "/v1/responses", {**body, "input": history}, key)
    assert {call["name"] for call in made} == {TOOL}
    return [(call["call_id"], json.loads(call["arguments"])) for call in made]


def spoil(results: list[Json], spoils: set[str], content: str) -> None:
    if "empty" in spoils:
        results[0][content] = ""
    if "unanswered" in spoils:
        results.pop()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("talk", [chat, anthropic, responses])
@few
@given(calls=calls, n=st.integers(1, 2), spoils=st.sets(st.sampled_from(SPOILS)))
def test_a_spoilt_history_of_calls_is_sent_whole(
    desk: InProcess, talk: Any, stream: bool, calls: list[tuple[str, Json]], n: int, spoils: set[str]
) -> None:
    model: Any = desk.client.answer
    model.calls, model.sent = calls, []
    key = desk.key(5)
    had = talk(desk, key, stream, n, spoils)
    assert desk.account(key).credits == 3
    assert [arguments for _, arguments in had] == [arguments for _, arguments in calls]
    assert len({id for id, _ in had}) == len(calls)
    last = model.sent[-1]["messages"]
    if any("tool_calls" in message for message in last):
        (call,) = [message for message in last if message.get("tool_calls")]
        assert [vendors(id) for id, _ in had] == [id for id, _ in calls]
        sent = [(each["id"], json.loads(each["function"]["arguments"])) for each in call["tool_calls"]]
        assert [re.sub(r"_\d+$", "", id) for id, _ in sent] == [id for id, _ in calls]
        assert [arguments for _, arguments in sent] == [model.written(arguments) for _, arguments in calls]
        assert call["reasoning_content"] == REASONING
