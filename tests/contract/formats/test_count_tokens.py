"""Counting a message's tokens: free, by the upstream's count, and by an estimate rather than an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.net.http import ConnectFailed
from kimi_gateway.providers.tokens.file import NAME
from support.error_shape import anthropic_error
from support.inprocess import InProcess, Sent, Told, told
from support.live import LiveGateway
from upstream import ScriptedUpstream, Silence
from upstream.kimi import error

HI = {"role": "user", "content": "Hi"}
ASK = {"model": "kimi-k3", "max_tokens": 100, "messages": [HI]}
TOOL = {"name": "get", "input_schema": {"type": "object", "properties": {}}}
PATHS = [
    "/v1/messages",
    "/anthropic/v1/messages",
    "/v1/v1/messages",
    "/api/v1/messages",
    "/api/v1/v1/messages",
]


def count(desk: InProcess, key: str, path: str = "/v1/messages", **body: Any) -> int:
    asked = {name: value for name, value in (ASK | body).items() if name != "max_tokens"}
    answer = desk.call("POST", f"{path}/count_tokens", asked, key)
    assert answer.status == 200, answer.body
    assert answer.json.keys() == {"input_tokens"}
    tokens: int = answer.json["input_tokens"]
    return tokens


@pytest.mark.parametrize("path", PATHS)
def test_counting_asks_the_upstream_and_costs_nothing(desk: InProcess, path: str) -> None:
    key = desk.key(1)
    assert count(desk, key, path, system="Be kind.") == 7
    (sent,) = desk.client.sent
    assert sent.path == "/v1/tokenizers/estimate-token-count"
    assert sent.body["messages"] == [{"role": "system", "content": "Be kind."}, HI]
    assert desk.account(key).credits == 1


def test_tools_are_added_to_the_count(desk: InProcess) -> None:
    assert count(desk, desk.key(), tools=[TOOL]) > 7


def down(sent: Sent) -> Told:
    raise ConnectFailed("no route")


DOWN = {
    "unreachable": down,
    "broken": lambda sent: told(error("server_error", "x"), 500),
    "without money": lambda sent: told(error("exceeded_current_quota_error", "x"), 429),
    "without this endpoint": lambda sent: told(error("resource_not_found_error", "x"), 404),
    "of another mind": lambda sent: told({"data": {}}),
    "a page of HTML": lambda sent: Told(504, {"content-type": "text/html"}, b"<html>"),
}


@pytest.mark.parametrize("name", DOWN)
def test_counting_works_while_the_upstream_is_down(desk: InProcess, name: str) -> None:
    desk.client.answer = DOWN[name]
    long = {"role": "user", "content": "word " * 400}
    assert 400 <= count(desk, desk.key(), messages=[long], system="Be kind.", tools=[TOOL]) <= 800
    assert count(desk, desk.key()) > 0


def test_counting_works_while_the_upstream_says_nothing(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.at("/v1/tokenizers/estimate-token-count", Silence())
    with LiveGateway(tmp_path, up.url) as gateway, gateway.client(gateway.key()) as client:
        assert gateway.app.running is not None
        gateway.app.running.endpoints.counts.counting = 0.1
        answer = client.post("/v1/messages/count_tokens?beta=true", json=ASK)
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": 5})


def test_counting_works_while_the_tokens_cannot_be_read(tmp_path: Path) -> None:
    with InProcess(moonshot_api_key=(), data=tmp_path) as desk:
        (tmp_path / NAME).write_text("{")
        key = desk.key()
        assert desk.call("POST", "/v1/messages", ASK, key).status == 503
        assert count(desk, key) == 5


def test_counting_refuses_what_a_message_would_be_refused_for(desk: InProcess) -> None:
    key = desk.key()
    for body, status in (({"messages": []}, 400), ({"model": "gpt-4"}, 404), ({"max_tokens": 0}, 400)):
        answer = desk.call("POST", "/v1/messages/count_tokens", ASK | body, key)
        assert answer.status == status
        anthropic_error(answer.json)
    assert desk.call("POST", "/v1/messages/count_tokens", ASK).status == 401
