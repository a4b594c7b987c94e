"""Proxy events in, requests out; what a function does around its answers."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Admission, Amount, Usage
from kimi_gateway.edge.aws.function import Function, request_of
from kimi_gateway.edge.aws.lambda_runtime import Streamed
from kimi_gateway.errors import BodyTooLarge, InvalidRequest
from kimi_gateway.storage.memory import MemoryStore
from support import api_gateway
from support.inprocess import InProcess
from support.proxy_events import CHAT, body, bound, context, request

PATHS: dict[str, tuple[dict[str, Any], str]] = {
    "greedy": ({}, "/v1/models/kimi-k3"),
    "greedy below a custom domain's base path": ({"base_path": "/llm"}, "/v1/models/kimi-k3"),
    "of two levels": ({"base_path": "/llm/v2"}, "/v1/models/kimi-k3"),
    "named": (
        {"resource": "/v1/models/{model+}", "parameters": {"model": "kimi-k3"}, "base_path": "/llm"},
        "/v1/models/kimi-k3",
    ),
    "literal": ({"resource": "/v1/models/kimi-k3", "base_path": "/llm"}, "/v1/models/kimi-k3"),
    "of no resource": ({"resource": "/elsewhere"}, "/v1/models/kimi-k3"),
}


@pytest.mark.parametrize("name", PATHS)
def test_the_path_is_that_below_stage_and_base_path(name: str) -> None:
    more, expected = PATHS[name]
    event = api_gateway.event("GET", "/v1/models/kimi-k3", **more)
    assert request_of(event, context(), 10).path == expected


def test_a_path_is_decoded_once() -> None:
    event = api_gateway.event("GET", "/v1/models/a%20b", base_path="/llm")
    assert request_of(event, context(), 10).path == "/v1/models/a b"
    event |= {"pathParameters": {"proxy": "v1/models/a b"}}  # were the parameters decoded already
    assert request_of(event, context(), 10).path == "/v1/models/a b"


def test_the_root_of_a_custom_domain_is_the_root() -> None:
    event = api_gateway.event("GET", "/", base_path="/llm", resource="/", parameters=None)
    assert request_of(event, context(), 10).path == "/"


def test_headers_come_in_lower_case_each_value_of_them() -> None:
    seen = request(multiValueHeaders={"X-Two": ["a", "b"], "Host": ["h"]})
    assert seen.headers.all("x-two") == ["a", "b"]
    assert request(multiValueHeaders=None, headers={"X-One": "a"}).headers.pairs == (("x-one", "a"),)
    assert request(multiValueHeaders=None, headers=None).headers.pairs == ()


def test_the_address_is_the_connections_and_no_header_changes_it() -> None:
    assert request(multiValueHeaders={"X-Forwarded-For": ["203.0.113.9"]}).client == "192.0.2.7"


def test_the_request_id_is_the_clients_else_api_gateways() -> None:
    assert request(multiValueHeaders={"X-Request-Id": ["mine"]}).id == "mine"
    assert request().id == "0f9a4b5e-0000-4000-8000-5d2a4c6b7e8f"
    assert request(requestContext={}).id == "aws-1"


def test_the_deadline_is_two_seconds_before_the_functions() -> None:
    left = request(seconds=30).deadline - time.monotonic()
    assert 27 < left <= 28


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"body": None}, b""),
        ({"body": "Grüße"}, "Grüße".encode()),
        ({"body": base64.b64encode(b"\xff\0").decode(), "isBase64Encoded": True}, b"\xff\0"),
        ({"body": "\ud83d"}, b"\xed\xa0\xbd"),
    ],
)
def test_a_body_is_bytes_again(event: dict[str, Any], expected: bytes) -> None:
    assert body(request(**event)) == expected


def test_a_body_over_the_limit_is_refused() -> None:
    with pytest.raises(BodyTooLarge):
        body(request(limit=4, body="12345"))


def test_a_body_that_is_not_base64_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        body(request(body="?", isBase64Encoded=True))


class Deaf(MemoryStore):
    """Its first settlements are lost on the way."""

    deaf = 1

    async def settle(
        self, admission: Admission, model: str, usage: Usage, now: int, billed: Amount | None = None
    ) -> bool:
        if self.deaf:
            self.deaf -= 1
            raise StoreDown("no answer")
        return await super().settle(admission, model, usage, now, billed)


def ask(gateway: InProcess, function: Function, key: str, seconds: float = 60, **more: Any) -> Any:
    headers = [("Authorization", f"Bearer {key}")]
    event = api_gateway.event("POST", "/v1/chat/completions", headers, json.dumps(CHAT | more).encode())
    return gateway.run(function(event, context(seconds)))


def test_what_a_request_left_to_be_written_is_written_before_the_process_may_be_frozen() -> None:
    with InProcess(Deaf()) as gateway:
        function, key = bound(gateway), gateway.key(5)
        assert ask(gateway, function, key)["statusCode"] == 200
        assert (gateway.account(key).credits, gateway.account(key).reserved) == (5, 1)
        gateway.run(function.lifecycle.idle())
        assert (gateway.account(key).credits, gateway.account(key).reserved) == (4, 0)


def test_that_wait_is_bounded_and_gives_nothing_up() -> None:
    with InProcess(Deaf()) as gateway:
        gateway.store.deaf = 2  # type: ignore[attr-defined]
        function, key = bound(gateway), gateway.key(5)
        ask(gateway, function, key)
        gateway.run(asyncio.wait_for(gateway.running.rest(0.3), 5))
        assert gateway.account(key).reserved == 1
        gateway.run(gateway.running.rest(5))
        assert (gateway.account(key).credits, gateway.account(key).reserved) == (4, 0)


def test_nothing_left_is_no_wait() -> None:
    with InProcess() as gateway:
        function = bound(gateway)
        ask(gateway, function, gateway.key())
        idle: Callable[[], Awaitable[None]] = function.lifecycle.idle
        assert not gateway.running.gateway.ledger.late
        gateway.run(asyncio.wait_for(idle(), 5))


def test_a_buffered_answer_too_large_for_lambda_is_an_error_that_says_so() -> None:
    with InProcess() as gateway:
        function = bound(gateway)
        rows = gateway.running.endpoints.models.registry.rows
        rows["long"] = replace(rows["kimi-k3"], id="x" * 7_000_000)
        headers = [("Authorization", f"Bearer {gateway.key()}")]
        event = api_gateway.event("GET", "/v1/models", headers)
        answer = api_gateway.of_proxy(gateway.run(function(event, context())))
    assert answer.status == 500
    assert "larger than the 6 MiB" in answer.json["error"]["message"]
    assert answer.header("x-request-id")


def test_what_still_waits_at_the_deadline_is_reported_so() -> None:
    """Before there is a turn that ends itself: here the list of models hangs."""
    with InProcess() as gateway:
        hangs = asyncio.Event()

        async def resolve(*_: object) -> None:
            await hangs.wait()

        gateway.running.gateway.registry.resolve = resolve  # type: ignore[method-assign]
        for streamed in (True, False):
            function, key = bound(gateway, streamed=streamed), gateway.key(5)
            answer = ask(gateway, function, key, 2.1)
            if isinstance(answer, Streamed):
                status, text = answer.status, answer.body
                gateway.run(answer.close())
            else:
                status, text = answer["statusCode"], answer["body"].encode()
            assert status == 503
            assert b"took too long" in text  # type: ignore[operator]
            assert gateway.account(key).reserved == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1/chat%2Fcompletions"])
def test_a_chat_that_api_gateway_led_to_a_buffered_function_is_refused_and_not_cut(path: str) -> None:
    with InProcess() as gateway:
        key = gateway.key()
        function = bound(gateway, elsewhere=("/v1/chat/completions",))
        event = api_gateway.event(
            "POST", path, [("Authorization", f"Bearer {key}")], json.dumps(CHAT).encode()
        )
        answer = gateway.run(function(event, context()))
        assert (answer["statusCode"], gateway.client.chats) == (404, [])
        assert "use /v1/chat/completions" in answer["body"]
        event = api_gateway.event("GET", "/v1/chat/completions")
        assert gateway.run(function(event, context()))["statusCode"] == 405


def test_a_path_without_a_route_is_found_at_the_start() -> None:
    with InProcess() as gateway, pytest.raises(LookupError):
        bound(gateway, "/v1/chat")


def test_copies_of_a_snapshot_draw_numbers_of_their_own() -> None:
    function = Function()
    before, drawn = random.getstate(), []
    for _ in range(2):
        random.setstate(before)
        asyncio.run(function.lifecycle.after_restore())  # type: ignore[arg-type]
        drawn.append(random.random())
    assert drawn[0] != drawn[1]
