"""OpenAI's count of a Responses request: free, by the upstream's count, with what is only referred to."""

from __future__ import annotations

from typing import Any

import pytest

from support.error_shape import openai_error
from support.inprocess import InProcess, Sent, Told, kimi, told

PATHS = ["/v1/responses/input_tokens", "/api/v1/responses/input_tokens"]
ASK = {"model": "kimi-k3", "input": "Hi"}
TOOL = {"type": "function", "name": "get", "parameters": {"type": "object", "properties": {}}}


def count(desk: InProcess, key: str, path: str = PATHS[0], **body: Any) -> int:
    answer = desk.call("POST", path, ASK | body, key)
    assert answer.status == 200, answer.body
    assert answer.json.keys() == {"object", "input_tokens"}
    assert answer.json["object"] == "response.input_tokens"
    tokens: int = answer.json["input_tokens"]
    return tokens


@pytest.mark.parametrize("path", PATHS)
def test_counting_asks_the_upstream_and_costs_nothing(desk: InProcess, path: str) -> None:
    key = desk.key(1)
    assert count(desk, key, path, instructions="Be kind.") == 7
    (sent,) = desk.client.sent
    assert sent.path == "/v1/tokenizers/estimate-token-count"
    assert [message["content"] for message in sent.body["messages"]] == ["Be kind.", "Hi"]
    assert desk.account(key).credits == 1
    assert count(desk, key, tools=[TOOL]) > 7


def test_an_earlier_answer_counts_too_and_only_for_its_account(desk: InProcess) -> None:
    key = desk.key()
    first = desk.call("POST", "/v1/responses", ASK, key).json
    assert count(desk, key, previous_response_id=first["id"]) == 7
    assert [message["role"] for message in desk.client.sent[-1].body["messages"]] == [
        "user",
        "assistant",
        "user",
    ]
    other = desk.call("POST", PATHS[0], ASK | {"previous_response_id": first["id"]}, desk.key())
    assert (other.status, openai_error(other.json)["param"]) == (400, "previous_response_id")


def test_an_upstream_that_fails_leaves_an_estimate(desk: InProcess) -> None:
    def down(sent: Sent) -> Told:
        return told({}, 500) if sent.path.endswith("count") else kimi(sent)

    desk.client.answer = down
    assert count(desk, desk.key(), input="word " * 400) > 100


@pytest.mark.parametrize("body", [{"model": "kimi-k3"}, {"input": "Hi"}, {**ASK, "tools": 3}])
def test_a_wrong_request_is_400(desk: InProcess, body: dict[str, Any]) -> None:
    answer = desk.call("POST", PATHS[0], body, desk.key())
    assert answer.status == 400
    openai_error(answer.json)


def test_it_needs_a_key(desk: InProcess) -> None:
    assert desk.call("POST", PATHS[0], ASK).status == 401
