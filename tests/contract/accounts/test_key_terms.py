"""The terms of a key in all formats: tokens of a request, requests in flight, files, credits by model."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Admission
from kimi_gateway.net.http import ConnectFailed
from support.error_shape import anthropic_error, openai_error
from support.inprocess import Answered, InProcess, Sent, Told, kimi, told

LONG = "word " * 2_000  # 10,000 bytes
FORMATS = {
    "chat": ("/v1/chat/completions", "messages", "max_tokens"),
    "messages": ("/v1/messages", "messages", "max_tokens"),
    "responses": ("/v1/responses", "input", "max_output_tokens"),
}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def change(desk: InProcess, key: str, **wanted: Any) -> None:
    desk.run(desk.store.update_key(keys.digest(key), lambda old: replace(old, **wanted), int(desk.now)))


def counted(tokens: int) -> Any:
    """An upstream that counts that many tokens."""

    def answer(sent: Sent) -> Told:
        if sent.path == "/v1/tokenizers/estimate-token-count":
            return told({"data": {"total_tokens": tokens}})
        return kimi(sent)

    return answer


def refused(answer: Answered, format: str, status: int, code: str) -> str:
    assert answer.status == status, answer.body
    if format == "messages":
        kinds = {400: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}
        error = anthropic_error(answer.json)
        assert error["type"] == kinds[status]
    else:
        error = openai_error(answer.json)
        assert error["code"] == code
    return str(error["message"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_tokens_of_a_request_lower_the_output_limit(desk: InProcess, format: str, stream: bool) -> None:
    path, member, name = FORMATS[format]
    key = desk.key()
    change(desk, key, tokens=5_000)
    desk.client.answer = counted(2_000)
    answer = desk.call(
        "POST", path, {"model": "kimi-k2.6", name: 8_000, "stream": stream, member: said(LONG)}, key
    )
    assert answer.status == 200
    sent = desk.client.chats[-1].body
    assert 2_900 <= sent["max_completion_tokens"] <= 3_000
    assert name in answer.headers["x-param-ignored"]
    short = desk.call(
        "POST", path, {"model": "kimi-k2.6", name: 500, "stream": stream, member: said("Hello")}, key
    )
    assert short.status == 200
    assert desk.client.chats[-1].body["max_completion_tokens"] == 500
    assert name not in short.headers.get("x-param-ignored", "")


@pytest.mark.parametrize("format", FORMATS)
def test_a_request_that_needs_more_tokens_than_its_key_has_is_refused(desk: InProcess, format: str) -> None:
    path, member, name = FORMATS[format]
    key = desk.key()
    change(desk, key, tokens=1_000)
    desk.client.answer = counted(900)
    before = desk.account(key).credits
    answer = desk.call("POST", path, {"model": "kimi-k2.6", name: 8_000, member: said(LONG)}, key)
    text = refused(answer, format, 400, "context_length_exceeded")
    assert "1000 tokens" in text
    assert "1156" in text
    assert not desk.client.chats
    assert desk.account(key).credits == before


def test_without_a_count_of_the_upstream_the_estimate_is_generous(desk: InProcess) -> None:
    def answer(sent: Sent) -> Told:
        if sent.path == "/v1/tokenizers/estimate-token-count":
            raise ConnectFailed
        return kimi(sent)

    key = desk.key()
    change(desk, key, tokens=8_000)
    desk.client.answer = answer
    body = {"model": "kimi-k2.6", "max_tokens": 8_000, "messages": [{"role": "user", "content": LONG}]}
    assert desk.chat(key, body).status == 200
    assert desk.client.chats[-1].body["max_completion_tokens"] < 3_500


def test_each_choice_gets_its_part_of_the_tokens(desk: InProcess) -> None:
    key = desk.key()
    change(desk, key, tokens=6_000)
    assert desk.chat(key, {"model": "kimi-k2.6", "n": 2, "max_tokens": 8_000}).status == 200
    assert [2_900 < sent.body["max_completion_tokens"] <= 3_000 for sent in desk.client.chats] == [True, True]


@pytest.mark.parametrize("format", FORMATS)
def test_a_key_with_its_requests_in_flight_waits(desk: InProcess, format: str) -> None:
    path, member, _ = FORMATS[format]
    key = desk.key()
    change(desk, key, in_flight=1)
    found = desk.run(desk.store.find_key(keys.digest(key)))
    running = desk.run(desk.store.admit("other process", found, 1, int(desk.now) + 600, int(desk.now)))
    answer = desk.call("POST", path, {"model": "kimi-k3", "max_tokens": 9, member: said("Hello")}, key)
    text = refused(answer, format, 429, "rate_limit_exceeded")
    assert "1 request in flight" in text
    assert answer.headers["retry-after"] == "1"
    desk.run(desk.store.release(running, "", False, int(desk.now)))
    for _ in range(3):  # each ends before the next one
        assert (
            desk.call("POST", path, {"model": "kimi-k3", "max_tokens": 9, member: said("Hello")}, key).status
            == 200
        )


def test_a_refusal_in_flight_is_not_remembered_and_costs_nothing(desk: InProcess) -> None:
    key = desk.key()
    change(desk, key, in_flight=2)

    async def flood() -> list[object]:
        found = await desk.store.find_key(keys.digest(key))
        assert found is not None
        gate = desk.running.gateway.gate
        asked = (gate.admit(f"r{number}", found, 1) for number in range(20))
        return await asyncio.gather(*asked, return_exceptions=True)

    admitted = [each for each in desk.run(flood()) if isinstance(each, Admission)]
    assert len(admitted) == desk.account(key).reserved == 2
    for each in admitted:
        desk.run(desk.store.release(each, "", False, int(desk.now)))
    assert desk.chat(key, {}).status == 200


IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
FILE = {"type": "file", "file": {"file_id": "file-abc"}}
PDF = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQK"}}
ADDRESS = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@pytest.mark.parametrize("part", [FILE, PDF, ADDRESS], ids=["id", "document", "address"])
def test_a_key_without_files_attaches_none(desk: InProcess, part: dict[str, Any]) -> None:
    key = desk.key()
    change(desk, key, files=False)
    body = {
        "model": "kimi-k2.6",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, part]}],
    }
    answer = desk.chat(key, body)
    assert answer.status == 403, answer.body
    assert "may not use files" in refused(answer, "chat", 403, "permission_denied")
    assert not desk.client.sent
    assert desk.account(key).consumed == 0
    body["messages"][0]["content"][1] = IMAGE  # type: ignore[index]
    assert desk.chat(key, body).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/files"),
        ("POST", "/v1/files/uploads"),
        ("GET", "/v1/files"),
        ("GET", "/v1/files/file-abc"),
        ("DELETE", "/v1/files/file-abc"),
        ("GET", "/v1/files/file-abc/content"),
    ],
)
def test_a_key_without_files_has_no_files_api(desk: InProcess, method: str, path: str) -> None:
    key = desk.key()
    change(desk, key, files=False)
    answer = desk.call(method, path, b"", key)
    assert answer.status == 403
    assert "may not use files" in refused(answer, "chat", 403, "permission_denied")


def test_a_model_costs_its_credits(tmp_path: Path) -> None:
    models = tmp_path / "models.json"
    models.write_text(json.dumps({"models": [{"id": "dear", "like": "kimi-k2.6", "credits": 3}]}))
    with InProcess(models=models) as desk:
        key = desk.key(4)
        answer = desk.chat(key, {"model": "dear"})
        assert (answer.status, answer.headers["x-credits-remaining"]) == (200, "1")
        assert desk.account(key).consumed == 3
        again = desk.chat(key, {"model": "dear"})
        assert "3 credits" in refused(again, "chat", 403, "insufficient_credits")
        assert desk.chat(key, {"model": "kimi-k2.6"}).status == 200
        assert desk.account(key).credits == 0
