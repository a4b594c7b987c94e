"""Errors that clients heal by their words: too long an input, a picture that cannot be read, the window."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest

from kimi_gateway.accounts.values import Limits
from support.formats import CHAT, EACH, FORMATS, MESSAGES, MODES, RESPONSES, Format
from support.inprocess import NOW, InProcess, Sent, Told, kimi, streamed, told
from support.messages_stream import Folded, events_of
from upstream import chat_events
from upstream.kimi import error

WINDOW = 262_144
TOO_LONG = re.compile(r"prompt is too long: (\d+) tokens > (\d+) maximum")
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
LIMITS = {"chat": "max_tokens", "messages": "max_tokens", "responses": "max_output_tokens"}


def counting(tokens: int, finish: str = "length") -> Callable[[Sent], Told]:
    """An upstream that counts so many tokens in whatever it gets."""

    def answer(sent: Sent) -> Told:
        if sent.path.endswith("estimate-token-count"):
            return told({"data": {"total_tokens": tokens}})
        return (
            streamed(*chat_events("Cut", finish=finish)) if sent.path.endswith("completions") else kimi(sent)
        )

    return answer


def refusing(message: str) -> Callable[[Sent], Told]:
    return lambda sent: told(error("invalid_request_error", message), 400)


def folded(body: bytes) -> dict[str, Any]:
    result = Folded()
    for event in events_of(body):
        result.take(event)
    return result.message


def long(name: str, output: int) -> dict[str, Any]:
    return FORMATS[name].asked("word " * 200_000, model="kimi-k2.6") | {LIMITS[name]: output}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("stream", [True, False])
def test_too_long_an_input_has_the_words_that_the_formats_clients_know(
    desk: InProcess, name: str, stream: bool
) -> None:
    desk.client.answer = counting(300_000)
    key = desk.key(5)
    refused = desk.call("POST", FORMATS[name].path, long(name, 2_000) | {"stream": stream}, key)
    told = FORMATS[name].error(refused.json)
    assert refused.status == 400
    if name == "messages":
        found = TOO_LONG.match(told["message"])
        assert found
        assert found.groups() == ("300000", str(WINDOW))
    else:
        assert told["code"] == "context_length_exceeded"
        assert f"exceeded model token limit: {WINDOW} (requested: 300000)" in told["message"]
        assert f"maximum context length is {WINDOW} tokens" in told["message"]
    assert desk.account(key).credits == 5


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("Your request exceeded model token limit: 262144 (requested: 270123)", (270123, 262144)),
        ("Invalid request: Your request exceeded model token limit : 262144", (262145, 262144)),
        ("This model's maximum context length is 200,000 tokens. Your messages resulted in 250,001 tokens",
         (250001, 200000)),
        ("prompt is too long: 213462 tokens > 200000 maximum", (213462, 200000)),
        ("Input token length too long", (1_048_577, 1_048_576)),
    ],
)  # fmt: skip
def test_the_vendors_own_refusal_for_length_is_said_in_the_same_words(
    desk: InProcess, said: str, numbers: tuple[int, int]
) -> None:
    desk.client.answer = refusing(said)
    key = desk.key()
    for name, format in FORMATS.items():
        answer = desk.call("POST", format.path, format.asked(), key)
        told = format.error(answer.json)
        assert answer.status == 400
        if name == "messages":
            found = TOO_LONG.match(told["message"])
            assert found
            assert (int(found[1]), int(found[2])) == numbers
        else:
            assert (told["code"], told["message"]) == ("context_length_exceeded", said)


@MODES
@pytest.mark.parametrize(("left", "asked", "served"), [
    (1_023, 4_096, False), (1_024, 4_096, True), (99, 100, False), (100, 100, True), (0, 1, False),
    (1, 1, True),
])  # fmt: skip
def test_messages_with_no_room_for_a_useful_answer_is_the_overflow_error(
    desk: InProcess, stream: bool, left: int, asked: int, served: bool
) -> None:
    desk.client.answer = counting(WINDOW - left)
    answer = desk.call("POST", MESSAGES.path, long("messages", asked) | {"stream": stream}, desk.key())
    assert (answer.status == 200) is served, answer.body
    if not served:
        found = TOO_LONG.match(answer.json["error"]["message"])
        assert found
        assert int(found[1]) > int(found[2])


@pytest.mark.parametrize("format", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_the_others_go_on_lowering_the_output(desk: InProcess, format: Format) -> None:
    desk.client.answer = counting(WINDOW - 5)
    name = "responses" if format is RESPONSES else "chat"
    assert desk.call("POST", format.path, long(name, 4_096), desk.key()).status == 200
    assert desk.client.chats[-1].body["max_completion_tokens"] == 5


@MODES
@pytest.mark.parametrize(("left", "finish", "reason"), [
    (2_000, "length", "model_context_window_exceeded"),
    (2_000, "stop", "end_turn"),
    (5_000, "length", "max_tokens"),
])  # fmt: skip
def test_an_answer_that_the_window_cut_short_says_so(
    desk: InProcess, stream: bool, left: int, finish: str, reason: str
) -> None:
    desk.client.answer = counting(WINDOW - left, finish)
    answer = desk.call("POST", MESSAGES.path, long("messages", 4_096) | {"stream": stream}, desk.key())
    message = answer.json if not stream else folded(answer.body)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, None)
    assert desk.client.chats[-1].body["max_completion_tokens"] == min(4_096, left)


@pytest.mark.parametrize("source", [
    {"type": "base64", "media_type": "image/tiff", "data": PNG},
    {"type": "base64", "media_type": "image/png", "data": "no base64!"},
])  # fmt: skip
def test_a_picture_that_cannot_be_read_is_named_as_clients_know_it(
    desk: InProcess, source: dict[str, Any]
) -> None:
    content = [{"type": "text", "text": "?"}, {"type": "image", "source": source}]
    body = MESSAGES.asked() | {"messages": [{"role": "user", "content": content}]}
    answer = desk.call("POST", MESSAGES.path, body, desk.key())
    assert answer.status == 400
    assert "Could not process image" in answer.json["error"]["message"]
    assert "messages.0.content.1.source" in answer.json["error"]["message"]


@pytest.mark.parametrize("said", ["failed to decode image", "image_url: unsupported picture"])
def test_the_vendors_refusal_of_a_picture_too(desk: InProcess, said: str) -> None:
    desk.client.answer = refusing(said)
    answer = desk.call("POST", MESSAGES.path, MESSAGES.asked(), desk.key())
    assert answer.json["error"]["message"] == f"Could not process image: {said}"
    assert CHAT.error(desk.chat(desk.key(), {}).json)["message"] == said


def test_another_refusal_speaks_of_no_picture(desk: InProcess) -> None:
    desk.client.answer = refusing("tools.0.function.name image_gen is invalid")
    answer = desk.call("POST", MESSAGES.path, MESSAGES.asked(), desk.key())
    assert "Could not process image" not in answer.json["error"]["message"]


@EACH
def test_trying_again_is_advised_against_where_it_is_useless(desk: InProcess, format: Format) -> None:
    key, broke = desk.key(), desk.key(0)
    body = format.asked()
    shown = {
        401: desk.call("POST", format.path, body, "sk-kg-wrong"),
        403: desk.call("POST", format.path, body, broke),
        404: desk.call("POST", format.path, body | {"model": "gpt-0"}, key),
        405: desk.call("PUT", format.path, body, key),
    }
    for status, answer in shown.items():
        assert (answer.status, answer.headers["x-should-retry"]) == (status, "false")
    assert "x-should-retry" not in desk.call("POST", format.path, body, key).headers
    assert "x-should-retry" not in desk.call("POST", format.path, body | {"model": 1}, key).headers


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(minute=1), "1 request per minute reached (this key's own limit). Try again in 30 s."),
        (Limits(hour=1), "1 request per hour reached (this key's own limit). Try again in 3570 s."),
        (Limits(day=1), "1 request per day reached (this key's own limit)."),
    ],
)
@EACH
def test_a_limit_names_its_window(desk: InProcess, format: Format, limits: Limits, text: str) -> None:
    assert NOW % 60 == 30
    key = desk.key(limits=limits)
    assert desk.call("POST", format.path, format.asked(), key).status == 200
    for _ in range(2):  # refused by the store, then from memory
        answer = desk.call("POST", format.path, format.asked(), key)
        assert (answer.status, format.error(answer.json)["message"][: len(text)]) == (429, text)


def test_a_tiers_limit_says_that_it_goes_by_the_balance(desk: InProcess) -> None:
    key = desk.key(50)
    for _ in range(20):
        assert desk.chat(key, {}).status == 200
    refused = desk.chat(key, {})
    assert refused.json["error"]["message"] == (
        "20 requests per minute reached (this account's limit at its present balance). Try again in 30 s."
    )
