"""Large bodies are worked on apart from the loop, small ones are not; what a client sees is the same."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from kimi_gateway.flow import apart as module
from kimi_gateway.flow.apart import LARGE
from support.formats import FORMATS, Format
from support.live import LiveGateway
from upstream import ScriptedUpstream

LONG = "word " * (LARGE // 4)


def workers() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("large-body")}


def ask(gateway: LiveGateway, key: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    with gateway.client(key) as client:
        answer = client.post(path, json=body)
    return answer.status_code, answer


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_large_request_is_answered_as_a_small_one(
    gateway: LiveGateway, upstream: ScriptedUpstream, format: Format, stream: bool
) -> None:
    key = gateway.key()
    told = []
    for question in ("Hello", LONG):
        status, answer = ask(gateway, key, format.path, format.asked(question, stream=stream))
        assert status == 200, answer.text
        told.append(format.read(answer.text, stream).content)
        assert json.dumps(question) in json.dumps(upstream.chats[-1].body["messages"])
    assert told[0] == told[1] != ""
    assert 1 <= len(workers()) <= module.THREADS
    assert gateway.account(key).consumed == 2


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_what_is_wrong_with_a_large_request_is_reported_as_ever(
    gateway: LiveGateway, upstream: ScriptedUpstream, format: Format
) -> None:
    key = gateway.key()
    for change in ({"temperature": "warm"}, {"model": 7}, {"top_p": 9}):
        small, large = (
            ask(gateway, key, format.path, format.asked(each, **change))[1] for each in ("Hi", LONG)
        )
        assert (small.status_code, format.error(large.json())["message"]) == (
            400,
            format.error(small.json())["message"],
        )
    assert not upstream.requests
    gateway.nothing_left(key)


def test_a_client_that_leaves_meanwhile_leaves_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key()
    raw = json.dumps({"model": "kimi-k3", "messages": [{"role": "user", "content": LONG}] * 60}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n"
    head += f"content-length: {len(raw)}\r\n\r\n"
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(head.encode() + raw)
    gateway.nothing_left(key)
    account = gateway.account(key)
    assert account.credits + account.consumed == 100


@pytest.mark.anyio
async def test_small_work_makes_no_thread() -> None:
    before = workers()
    assert await module.apart(LARGE - 1, threading.get_ident) == threading.get_ident()
    assert await module.apart(LARGE, threading.get_ident) != threading.get_ident()
    assert len(workers() | before) <= module.THREADS
