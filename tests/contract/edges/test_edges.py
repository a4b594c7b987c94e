"""The same requests on each edge: ASGI, the buffered function, the streamed one. They answer alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts.values import Limits
from support.api_gateway import Answered
from support.edges import EDGES, Case
from support.fault_table import WHOLE
from support.formats import CHAT, FORMATS, MESSAGES, RESPONSES, Format
from support.live import LiveGateway
from upstream import (
    Cut,
    ErrorEvent,
    HtmlError,
    Kimi,
    Malformed,
    ScriptedUpstream,
    Status,
    Step,
    error,
    rate_limited,
)

# The connection's own, what each server adds, and what tells of the time.
NOT_COMPARED = {
    *("date", "server", "content-length", "transfer-encoding", "connection"),
    *("x-ratelimit-reset", "x-ratelimit-reset-requests"),  # seconds from now
}
CHANGING = re.compile(
    rb"_kg\w{7}|Try again in \d+ s|chatcmpl-[0-9a-f-]{36}|(?:resp|msg|rs|fc)_[0-9a-f]{32}(?:_\d+)?"
    rb'|"(?:created|created_at|completed_at)": ?\d+| GET /docs lists the paths\.'
)
JSON = ("content-type", "application/json")


def chat(**more: Any) -> bytes:
    return body(CHAT, **more)


def body(format: Format, **more: Any) -> bytes:
    return json.dumps(format.asked(**more)).encode()


def of_format(format: Format) -> Iterator[tuple[str, Case]]:
    """What all three have in common, in the shapes of one."""
    path = format.path

    def asked(status: int, step: Step | None = None, stream: bool = False, **more: Any) -> Case:
        return Case(status, "POST", path, body(format, stream=stream), step=step, **more)

    yield "whole", asked(200, WHOLE)
    yield "streamed", asked(200, WHOLE, stream=True)
    yield "thinking and calls", asked(200, Kimi("Look.", "Think.", CALLS), stream=True)
    yield "the other prefix", replace(asked(200), path=f"/api{path}/?beta=true")
    yield "wrong method", Case(405, "GET", path)
    yield "no key", asked(401, key=False)
    yield "not JSON", Case(400, "POST", path, b"{")
    yield "an unknown model", Case(404, "POST", path, body(format, model="gpt-x"))
    yield "too large", Case(413, "POST", path, body(format, user="x" * 70_000))
    yield "no credit", asked(403, credits=0)
    yield "a full window", asked(429, limits=Limits(day=1), asked=2)
    yield "what is left out", Case(200, "POST", path, body(format, tools=HOSTED[path], temperature=1))
    yield "upstream 400", asked(400, Status(400, error("content_filter", "high risk")))
    yield "upstream 429", asked(429, rate_limited("rate_limit_reached"), stream=True)
    yield "upstream page", asked(503, HtmlError())
    yield "error event", asked(200, ErrorEvent(3, inner=WHOLE), stream=True)
    yield "cut stream", asked(200, Cut(700, WHOLE), stream=True)
    yield "cut JSON", asked(503, Cut(700, WHOLE))


CALLS = [("get", {"city": "Roma"}), ("get", {})]
HOSTED = {
    CHAT.path: [{"type": "builtin_function", "function": {"name": "$web_search"}}],
    MESSAGES.path: [{"type": "web_search_20250305", "name": "web_search"}],
    RESPONSES.path: [{"type": "web_search"}],
}
COUNT = f"{MESSAGES.path}/count_tokens"
CASES = {
    "ping": Case(200, "GET", "/ping", key=False),
    "health": Case(200, "GET", "/health", key=False),
    "models": Case(200, "GET", "/v1/models"),
    "models with a slash": Case(200, "GET", "/api/v1/models/?beta=true"),
    "a model": Case(200, "GET", "/v1/models/kimi-k2"),
    "an escaped model": Case(200, "GET", "/v1/models/%6Bimi-k2"),
    "an unknown model": Case(404, "GET", "/v1/models/nothing%20of%2Fthe%20kind"),
    "HEAD": Case(200, "HEAD", "/v1/models"),
    "HEAD on chat": Case(405, "HEAD", CHAT.path),
    "unknown path": Case(404, "GET", "/v1/nothing"),
    "unknown path of Anthropic's": Case(404, "POST", "/anthropic/nothing", b"{}"),
    "preflight": Case(
        204, "OPTIONS", CHAT.path, headers=(("access-control-request-headers", "x-stainless-os"),), key=False
    ),
    "malformed host": Case(400, "GET", "/v1/models", headers=(("host", "a b"),)),
    "an unknown key": Case(401, "POST", CHAT.path, chat(), (("authorization", "Bearer sk-kg-x"),), key=False),
    "the key in the other header": Case(401, "GET", "/v1/models", b"", (("x-api-key", "no"),), key=False),
    "not UTF-8": Case(400, "POST", CHAT.path, b'{"model": "\xff"}'),
    "half a surrogate pair": Case(400, "POST", CHAT.path, chat(user="\ud83d")),
    "a wrong field": Case(400, "POST", CHAT.path, chat(temperature="warm")),
    "chat with a parameter dropped": Case(200, "POST", CHAT.path, chat(logit_bias={"1": 1})),
    "stream with usage": Case(
        200, "POST", CHAT.path, chat(stream=True, stream_options={"include_usage": True}), step=WHOLE
    ),
    "a request id of the client's": Case(200, "POST", CHAT.path, chat(), (("x-request-id", "mine/1"),)),
    "malformed event": Case(200, "POST", CHAT.path, chat(stream=True), step=Malformed(3, inner=WHOLE)),
    "token check": Case(200, "POST", "/token/check", b'{"token": "sk-upstream-1"}', key=False),
    "token count": Case(200, "POST", "/v1/tokenizers/estimate-token-count", chat()),
    "credits": Case(200, "GET", "/api/user/credits"),
    "balance not seen": Case(403, "GET", "/v1/users/me/balance"),
    "a message's tokens": Case(200, "POST", COUNT, body(MESSAGES)),
    "a message's tokens, by the other path": Case(
        200, "POST", "/api/anthropic/v1/messages/count_tokens?beta=true", body(MESSAGES), credits=0
    ),
    "tokens of an unknown model": Case(404, "POST", COUNT, body(MESSAGES, model="gpt-x")),
    "tokens of no message": Case(400, "POST", COUNT, b"{}"),
    "tokens without a key": Case(401, "POST", COUNT, body(MESSAGES), key=False),
    "tokens of too large a message": Case(413, "POST", COUNT, body(MESSAGES, user="x" * 70_000)),
    "tokens by GET": Case(405, "GET", COUNT),
    **{f"{kind}: {name}": case for kind, format in FORMATS.items() for name, case in of_format(format)},
}


SETTINGS = {"body_limit": 65_536}  # of the gateway of this module


def normal(answer: Answered, case: Case) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = sorted((name, value) for name, value in answer.headers if name not in NOT_COMPARED)
    if case.limits is not None:  # the time to the window's end goes by from edge to edge
        headers = [(name, "" if name == "retry-after" else value) for name, value in headers]
    return answer.status, headers, CHANGING.sub(b"", answer.body)


def is_in_shape(case: Case, body: bytes) -> None:
    """The path decides. OpenAI's type alone says too little, so its code is looked at elsewhere."""
    format = MESSAGES if {"messages", "anthropic"} & set(case.path.split("/")) else CHAT
    error = format.error(json.loads(body))
    if format is MESSAGES:
        assert error["type"] == format.types[case.status]


@pytest.mark.parametrize("name", CASES)
def test_each_edge_gives_the_same_answer(gateway: LiveGateway, upstream: ScriptedUpstream, name: str) -> None:
    case, seen, ledgers = CASES[name], {}, {}
    for edge, ask in EDGES.items():
        upstream.forget()
        if case.step is not None:
            upstream.always(case.step)
        key = gateway.key(case.credits, case.limits)
        headers = [JSON, ("x-request-id", "fixed"), *case.headers]
        if "x-request-id" in dict(case.headers):
            headers.remove(("x-request-id", "fixed"))
        if case.key:
            headers.append(("authorization", f"Bearer {key}"))
        for _ in range(case.asked):
            answer = ask(gateway, case, headers)
        gateway.until(lambda key=key: gateway.account(key).reserved == 0)
        account = gateway.account(key)
        seen[edge], ledgers[edge] = normal(answer, case), (account.credits, account.consumed)
    assert seen["asgi"][0] == case.status
    if case.status >= 400 and case.method != "HEAD":
        is_in_shape(case, seen["asgi"][2])
    assert seen["buffered"] == seen["asgi"]
    assert seen["streamed"] == seen["asgi"]
    assert len(set(ledgers.values())) == 1
