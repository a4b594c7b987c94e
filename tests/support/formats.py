"""The three formats as a client speaks them: one prompt in each, and what its answer came to. Each reader
holds the answer to its format's own grammar on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from support.error_shape import anthropic_error, openai_error
from support.live import events
from support.messages_stream import Folded
from support.messages_stream import events_of as messages_events
from support.response_events import Checker, events_of

Json = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """`finishes`: why it ended, in the format's word, once for each choice; nothing where it broke. `whole`:
    the stream has its proper end. `signs`: of life, while the upstream was silent. `error`: in one shape for
    all, Anthropic's without `code` and `param`."""

    content: str
    finishes: list[str]
    whole: bool
    signs: int = 0
    error: Json | None = None


@dataclass(frozen=True)
class Format:
    """`body` holds a prompt besides the model; `read` takes a body and whether it was streamed. `types`
    are the error types by status; `codes`: errors have a code and a param besides. `stop` is its word for an
    answer that came to its end."""

    path: str
    body: Callable[[str], Json]
    read: Callable[[str, bool], Told]
    types: Mapping[int, str]
    codes: bool
    stop: str

    def asked(self, prompt: str = "Hello", **more: Any) -> Json:
        return {"model": "kimi-k3", **self.body(prompt), **more}

    def error(self, body: Any) -> Json:
        """The error of a JSON body, its shape checked whole."""
        return openai_error(body) if self.codes else anthropic_error(body)


def _messages_of(prompt: str) -> Json:
    return {"messages": [{"role": "user", "content": prompt}]}


def _chat(text: str, streamed: bool) -> Told:
    if not streamed:
        return _chat_body(json.loads(text))
    *bodies, last = [json.loads(data) if data != "[DONE]" else None for data in events(text)] or [{}]
    whole = last is None
    bodies += [] if last is None else [last]
    error = openai_error(bodies.pop()) if bodies and "error" in bodies[-1] else None
    choices = [choice for body in bodies for choice in body.get("choices", ())]
    for index in {choice["index"] for choice in choices}:
        roles = [choice["delta"].get("role") for choice in choices if choice["index"] == index]
        assert set(roles[1:]) <= {None}, "an answer begins once"
    content = "".join(choice["delta"].get("content") or "" for choice in choices)
    finishes = [choice["finish_reason"] for choice in choices if choice.get("finish_reason") is not None]
    return Told(content, finishes, whole, text.count(": ping\n\n"), error)


def _chat_body(body: Json) -> Told:
    if "error" in body:
        return Told("", [], True, error=openai_error(body))
    content = "".join(choice["message"]["content"] or "" for choice in body["choices"])
    return Told(content, [choice["finish_reason"] for choice in body["choices"]], True)


def _messages(text: str, streamed: bool) -> Told:
    if not streamed:
        body = json.loads(text)
        if body["type"] == "error":
            return Told("", [], True, error=anthropic_error(body))
        return Told(_text(body), [body["stop_reason"]], True)
    result, coming = Folded(), messages_events(text.encode())
    for event in coming:
        result.take(event)
    signs = sum(event["type"] == "ping" for event in coming)
    deltas = [event["delta"] for event in coming if event["type"] == "content_block_delta"]
    content = "".join(delta.get("text", "") for delta in deltas)
    if not result.ended:
        return Told(content, [], False, signs, result.error)
    assert content == _text(result.message)
    return Told(content, [result.message["stop_reason"]], True, signs)


def _text(message: Json) -> str:
    return "".join(block["text"] for block in message.get("content", ()) if block["type"] == "text")


def _responses(text: str, streamed: bool) -> Told:
    if not streamed:
        body = json.loads(text)
        if body.keys() == {"error"}:
            return Told("", [], True, error=openai_error(body))
        return Told(_output(body), [body["status"]], True)
    assert not re.search("^:", text, re.MULTILINE), "clients that wait for events do not count comments"
    checker, coming = Checker(), events_of(text.encode())
    checker.feed(coming)
    assert checker.response is not None, "a stream ends with what became of the response"
    content = "".join(event["delta"] for event in coming if event["type"] == "response.output_text.delta")
    signs = sum(event["type"] == "response.in_progress" for event in coming) - 1
    if checker.response["status"] != "failed":
        assert content == _output(checker.response)
        return Told(content, [checker.response["status"]], True, signs)
    assert coming[-1]["type"] == "error"
    assert checker.response["error"]["message"] == coming[-1]["message"]
    return Told(content, [], False, signs, openai_error({"error": coming[-1]["error"]}))


def _output(response: Json) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


_OPENAI = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "insufficient_quota",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "api_error",
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "api_error",
}
CHAT = Format("/v1/chat/completions", _messages_of, _chat, _OPENAI, True, "stop")
MESSAGES = Format(
    "/v1/messages",
    lambda prompt: {"max_tokens": 1000, **_messages_of(prompt)},
    _messages, _ANTHROPIC, False, "end_turn",
)  # fmt: skip
RESPONSES = Format("/v1/responses", lambda prompt: {"input": prompt}, _responses, _OPENAI, True, "completed")
FORMATS = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}
EACH = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
MODES = pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
