"""What does not depend on the format of a request: who is let in, what is charged, which headers tell of it,
how an error is told, silence. Faults of the upstream: test_faults; clients that leave: test_disconnect; the
server's end: test_shutdown; the same on each edge: test_edges.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Limits
from support.exchange import CHARGED, NOT_CHARGED, UNTOUCHED, Exchange, ask
from support.exchange import ledger as account_of
from support.fault_table import TEXT, WHOLE
from support.formats import CHAT, EACH, FORMATS, MESSAGES, MODES, RESPONSES, Format
from support.inprocess import NOW, Answered, InProcess, streamed, told
from support.inprocess import Told as Reply
from support.live import LiveGateway
from upstream import ErrorEvent, Gated, HtmlError, ScriptedUpstream, Silence, Status, Step, chat_events, error
from upstream.kimi import usage_of

MINE = ("x-request-id", "mine/1")
HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-credits-remaining", "retry-after", "allow")
PATHS = ["", "/api"]
TO_THE_MINUTE = str(60 - NOW % 60)


def shown(answer: Answered) -> dict[str, str]:
    return {name: answer.headers[name] for name in HEADERS if name in answer.headers}


def ledger(desk: InProcess, key: str) -> tuple[int, int, int, int]:
    """Credits, reserved, requests charged, errors counted."""
    account = desk.account(key)
    rows = desk.run(desk.store.usage(0, account.id))
    charged, errors = sum(row.requests for row in rows), sum(row.errors for row in rows)
    return account.credits, account.reserved, charged, errors


@EACH
@MODES
@pytest.mark.parametrize("prefix", PATHS)
def test_an_answer_is_charged_counted_and_told_of_alike(
    desk: InProcess, format: Format, stream: bool, prefix: str
) -> None:
    usage = usage_of(30, 7, cached=12)
    desk.client.answer = lambda sent: streamed(*chat_events(TEXT, usage=usage))
    key = desk.key(5)
    answer = desk.call("POST", prefix + format.path, format.asked(stream=stream), key, MINE)
    said = format.read(answer.body.decode(), stream)
    assert (answer.status, said.content, said.finishes, said.whole) == (200, TEXT, [format.stop], True)
    assert shown(answer) == {
        "x-ratelimit-limit": "20",
        "x-ratelimit-remaining": "19",
        "x-credits-remaining": "4",
    }
    is_named(answer, format)
    kind = "text/event-stream; charset=utf-8" if stream else "application/json"
    assert answer.headers["content-type"] == kind
    assert (answer.headers.get("cache-control") == "no-cache") == stream
    assert (answer.headers.get("x-accel-buffering") == "no") == stream
    assert ledger(desk, key) == (4, 0, 1, 0)
    (row,) = desk.run(desk.store.usage(0, desk.account(key).id))
    assert (row.model, row.input, row.output) == ("kimi-k3", 30, 7)


@EACH
@MODES
@pytest.mark.parametrize("model", ["kimi-k3", "qwen/qwen3.8-max"])
def test_parts_are_gathered_only_where_the_client_gets_one_piece(
    format: Format, stream: bool, model: str
) -> None:
    reply = streamed(*chat_events(TEXT))
    with InProcess(vendor_tokens={"qwen": ("tok-qwen-1",)}) as desk:
        desk.client.answer = lambda sent: reply
        answer = desk.call("POST", format.path, format.asked(stream=stream, model=model), desk.key(5))
        assert (answer.status, reply.asked) == (200, [not stream])


def is_named(answer: Answered, format: Format) -> None:
    """By the client's own id; Anthropic's SDKs look for it under another name."""
    assert answer.headers["x-request-id"] == "mine/1"
    assert answer.headers.get("request-id") == ("mine/1" if format is MESSAGES else None)
    assert answer.headers["access-control-allow-origin"] == "*"


@dataclass(frozen=True)
class Refusal:
    """`shown` are the headers of HEADERS that an answer has; `ledger` is what it leaves of an account with 50
    credits. `asked`: the last answer counts."""

    status: int
    code: str
    more: dict[str, Any] = field(default_factory=dict)
    raw: bytes | None = None
    method: str = "POST"
    key: str = "good"
    credits: int = 50
    limits: Limits | None = None
    asked: int = 1
    upstream: Reply | None = None
    closing: bool = False
    shown: dict[str, str] = field(default_factory=dict)
    ledger: tuple[int, int, int, int] = (50, 0, 0, 0)


def window(limit: int, remaining: int, credits: object = None, retry_after: object = None) -> dict[str, str]:
    values = zip(HEADERS, (limit, remaining, credits, retry_after), strict=False)
    return {name: str(value) for name, value in values if value is not None}


LIMITED = told(error("rate_limit_reached_error", "please try again after 30 seconds"), 429)
REFUSALS: dict[str, Refusal] = {
    "no key": Refusal(401, "invalid_api_key", key="none"),
    "an unknown key": Refusal(401, "invalid_api_key", key="unknown"),
    "a revoked key": Refusal(401, "invalid_api_key", key="revoked"),
    "not JSON": Refusal(400, "invalid_request", raw=b"{"),
    "no object": Refusal(400, "invalid_request", raw=b"[]"),
    "no model": Refusal(400, "invalid_request", raw=b"{}"),
    "a field of the wrong type": Refusal(400, "invalid_request", {"temperature": "warm"}),
    "an unknown model": Refusal(404, "model_not_found", {"model": "gpt-x"}),
    "a token for a model": Refusal(400, "invalid_request", {"model": "abcdefghij0123456789"}),
    "another method": Refusal(405, "method_not_allowed", method="GET", shown={"allow": "OPTIONS, POST"}),
    "no credit": Refusal(
        403, "insufficient_credits", credits=0, ledger=(0, 0, 0, 0), shown={"x-credits-remaining": "0"}
    ),
    "a full window": Refusal(
        429, "rate_limit_exceeded", limits=Limits(minute=1), asked=2, ledger=(49, 0, 1, 0),
        shown=window(1, 0, None, TO_THE_MINUTE),
    ),
    "a limit upstream": Refusal(
        429, "rate_limit_exceeded", upstream=LIMITED, ledger=(50, 0, 0, 1), shown=window(20, 19, 50, 30)
    ),
    "a refusal upstream": Refusal(
        400, "content_filter", upstream=told(error("content_filter", "high risk"), 400),
        ledger=(50, 0, 0, 1), shown=window(20, 19, 50),
    ),
    "a page upstream": Refusal(
        503, "service_unavailable", upstream=Reply(504, {"content-type": "text/html"}, b"<html>nginx"),
        ledger=(50, 0, 0, 1), shown=window(20, 19, 50, 1),
    ),
    "the server's end": Refusal(503, "service_unavailable", closing=True, shown={"retry-after": "1"}),
}  # fmt: skip


@EACH
@MODES
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_its_status_headers_and_price_in_each_format(
    desk: InProcess, name: str, format: Format, stream: bool
) -> None:
    case, key = REFUSALS[name], desk.key(REFUSALS[name].credits, REFUSALS[name].limits)
    if case.upstream is not None:
        desk.client.answer = lambda sent: case.upstream  # type: ignore[assignment, return-value]
    if case.key == "revoked":
        assert desk.call("POST", format.path, b"{", key).status == 400
        desk.run(desk.store.revoke_key(keys.digest(key), NOW))
    desk.running.gateway.closing = case.closing
    body = format.asked(stream=stream, **case.more) if case.raw is None else case.raw
    sent = {"none": None, "unknown": keys.new_key()}.get(case.key, key)
    for _ in range(case.asked):
        answer = desk.call(case.method, format.path, body, sent, MINE)
    assert answer.status == case.status
    told_of = format.error(answer.json)
    assert told_of["type"] == format.types[case.status]
    assert told_of.get("code") == (case.code if format.codes else None)
    assert answer.json.get("request_id") == (None if format.codes else "mine/1")
    assert answer.headers["content-type"] == "application/json"
    is_named(answer, format)
    assert shown(answer) == case.shown
    assert ledger(desk, key) == case.ledger
    if case.upstream is None:
        assert len(desk.client.chats) == case.asked - 1


@pytest.mark.parametrize("format", [MESSAGES, RESPONSES], ids=["messages", "responses"])
@MODES
def test_tools_that_nobody_here_runs_are_left_out_and_named(
    gateway: LiveGateway, upstream: ScriptedUpstream, format: Format, stream: bool
) -> None:
    """Once each, in the header and the log; what no header can carry is escaped, and the end is cut off."""
    kinds = ["web_search_9", "mcp", "web_search_9", "two words", "long" * 20, *(f"x{at}" for at in range(40))]
    asked = ask(gateway, stream, format=format, tools=[{"type": kind, "name": kind} for kind in kinds])
    assert asked.seen.status == 200
    names = asked.seen.headers["x-param-ignored"].split(", ")
    assert names[:4] == ["tools.web_search_9", "tools.mcp", "tools.two%20words", f"tools.{'long' * 20}"]
    assert (len(names), names[-1]) == (32, "...")
    assert "tools" not in asked.requests(upstream)[0].body
    gateway.until(lambda: gateway.lines("request"))
    assert gateway.lines("request")[-1]["ignored"] == names


BAD = {"type": "object", "properties": {"a": {"$ref": "https://a.test/schema"}}}
TOO_MUCH = 2**21
FOUND_LATE: dict[str, tuple[Format, dict[str, Any], str]] = {
    "chat: the output": (CHAT, {"max_tokens": TOO_MUCH}, "max_tokens"),
    "messages: the answer's schema": (
        MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": BAD}}},
        "output_config.format.schema.properties.a.$ref",
    ),
    "messages: the answer's schema by its older name": (
        MESSAGES, {"output_format": {"type": "json_schema", "schema": BAD}},
        "output_format.schema.properties.a.$ref",
    ),
    "messages: the output": (MESSAGES, {"max_tokens": TOO_MUCH}, "max_tokens"),
    "responses: the output": (RESPONSES, {"max_output_tokens": TOO_MUCH}, "max_output_tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND_LATE)
def test_what_a_models_rules_find_is_named_as_the_client_called_it(desk: InProcess, name: str) -> None:
    format, more, field = FOUND_LATE[name]
    key = desk.key(5)
    answer = desk.call("POST", format.path, format.asked(**more), key)
    assert answer.status == 400
    assert format.error(answer.json)["message"].startswith(f"{field}: ")
    assert ledger(desk, key) == (5, 0, 0, 0)


@pytest.mark.parametrize("path", ["/v1/messages/nothing", "/anthropic/v1/nothing", "/v1/chat", "/v1/respond"])
def test_an_unknown_path_is_reported_in_the_shape_of_its_neighbours(desk: InProcess, path: str) -> None:
    format = MESSAGES if "messages" in path or "anthropic" in path else FORMATS["chat"]
    answer = desk.call("POST", path, b"{}", desk.key(), MINE)
    assert (answer.status, format.error(answer.json)["type"]) == (404, format.types[404])
    is_named(answer, format)


def at_once(gateway: LiveGateway, key: str, each: int) -> Counter[int]:
    """So many requests of each format, streamed and not, all at the same time; the errors' shapes checked."""

    async def storm() -> Counter[int]:
        headers, pool = {"authorization": f"Bearer {key}"}, httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(limits=pool, headers=headers, timeout=60, trust_env=False) as client:

            async def one(format: Format, stream: bool) -> int:
                answer = await client.post(gateway.url + format.path, json=format.asked(stream=stream))
                if answer.status_code != 200:
                    assert format.error(answer.json())["type"] == format.types[answer.status_code]
                return answer.status_code

            ways = [(format, number % 2 == 0) for number in range(each) for format in FORMATS.values()]
            return Counter(await asyncio.gather(*(one(*way) for way in ways)))

    return asyncio.run(storm())


def test_the_last_credit_is_given_once_whatever_the_format(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key(1)
    assert at_once(gateway, key, 12) == {200: 1, 403: 35}
    assert len(upstream.chats) == 1
    gateway.nothing_left(key)
    account = gateway.account(key)
    assert (account.credits, account.reserved, account.consumed) == (0, 0, 1)


def test_a_window_is_shared_by_the_formats(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key = gateway.key(None, Limits(minute=100, hour=100, day=7))
    assert at_once(gateway, key, 8) == {200: 7, 429: 17}
    assert len(upstream.chats) == 7


def asked_late(gateway: LiveGateway, up: ScriptedUpstream, step: Step, format: Format) -> Exchange:
    """The upstream says nothing until signs of life are due."""
    gate = Gated(step)
    up.always(gate)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, gateway, True, format=format)
        up.until(lambda: up.chats)
        for _ in range(3):
            gateway.pass_time(gateway.settings.ping_interval)
        gate.let(1000)
        return asking.result()


@EACH
def test_silence_is_filled_with_signs_of_life(up: ScriptedUpstream, tmp_path: Path, format: Format) -> None:
    with LiveGateway(tmp_path, up.url) as gateway:
        asked = asked_late(gateway, up, WHOLE, format)
        said = asked.seen.told
        assert (said.content, said.finishes, said.whole) == (TEXT, [format.stop], True)
        assert said.signs >= 2
        assert asked.ledger == CHARGED
        assert ask(gateway, False, format=format).seen.content  # JSON has no room for them


@EACH
def test_a_client_that_leaves_after_a_sign_of_life_pays_nothing(
    up: ScriptedUpstream, tmp_path: Path, format: Format
) -> None:
    up.plan(Silence())
    with LiveGateway(tmp_path, up.url, ping_interval=0.05) as gateway:
        key = gateway.key(100)
        with (
            gateway.client(key) as client,
            client.stream("POST", format.path, json=format.asked(stream=True)) as answer,
        ):
            assert answer.status_code == 200
            assert next(answer.iter_bytes())
        up.until(lambda: up.chats[0].closed_early.is_set())
        gateway.nothing_left(key)
        assert account_of(gateway, key) == UNTOUCHED
        assert gateway.lines("request")[-1]["outcome"] == "left_released"


LATE: dict[str, tuple[Step, int, str]] = {
    "a page": (HtmlError(), 503, "service_unavailable"),
    "a refusal": (Status(400, error("content_filter", "high risk")), 400, "content_filter"),
    "an error in the stream": (ErrorEvent(1, error("content_filter", "x")), 400, "content_filter"),
}


@EACH
@pytest.mark.parametrize("name", LATE)
def test_what_fails_after_a_sign_of_life_is_reported_in_the_stream(
    up: ScriptedUpstream, tmp_path: Path, name: str, format: Format
) -> None:
    step, status, code = LATE[name]
    with LiveGateway(tmp_path, up.url) as gateway:
        asked = asked_late(gateway, up, step, format)
        seen = asked.seen
        assert (seen.status, seen.done, seen.finishes, seen.content) == (200, False, [], "")
        assert seen.error is not None
        assert seen.error["type"] == format.types[status]
        assert seen.error.get("code") == (code if format.codes else None)
        assert asked.ledger == NOT_CHARGED
        gateway.nothing_left(asked.key)
