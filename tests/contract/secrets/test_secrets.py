"""Secrets and texts planted as canaries: none of them may come out where it does not belong."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway import observe
from kimi_gateway.accounts import keys
from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.http import Headers, Request
from kimi_gateway.pivot import request as chat
from kimi_gateway.providers.moonshot.adapt import adapt
from kimi_gateway.providers.provider import Call, Token
from kimi_gateway.settings import Settings
from support.error_shape import openai_error
from support.inprocess import InProcess, Sent, Told, kimi, streamed
from support.live import LiveGateway, text_of
from upstream import (
    Cut,
    ErrorEvent,
    HtmlError,
    Kimi,
    Malformed,
    ResetBeforeHeaders,
    ScriptedUpstream,
    Sse,
    Status,
    Step,
    chat_events,
    error,
)

# One of the usual shape, one that no pattern knows: quotes and backslashes are spelt otherwise in JSON.
TOKENS = ("sk-CANARYupstream0123456789", 'tok"en\\CANARY+of/no~shape')
ORG, AK = "org-CANARY0123456789", "ak-CANARY0123456789"
PROMPT, ANSWER = "CANARY-prompt-text", "CANARY-answer-text"
BLABBER = f'Bearer {TOKENS[0]} of {ORG}<{AK}>\n{ORG} is "Bearer {TOKENS[1]}" {TOKENS[1]} eyJCANARYabc.eyJ.x'


@pytest.fixture(scope="module")
def gateway(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path_factory.mktemp("gateway"), module_upstream.url, TOKENS) as gateway:
        yield gateway


def said(type: str) -> dict[str, Any]:
    return error(type, BLABBER)


STEPS: dict[str, Step] = {
    "success": Kimi(ANSWER),
    "400": Status(400, said("invalid_request_error")),
    "content filter": Status(400, said("content_filter")),
    "401": Status(401, said("incorrect_api_key_error")),
    "403": Status(403, said("permission_denied_error")),
    "404": Status(404, said("resource_not_found_error")),
    "429": Status(429, said("rate_limit_reached_error"), {"retry-after": "30"}),
    "429 of an empty account": Status(429, said("exceeded_current_quota_error")),
    "500": Status(500, said("server_error")),
    "500 in words": Status(500, BLABBER),
    "an error that is a word": Status(400, {"error": BLABBER}),
    "HTML": replace(HtmlError(), body=f"<html>{BLABBER}</html>"),
    "no stream": Status(200, BLABBER),
    "an error as the first event": ErrorEvent(0, said("server_error"), Kimi(ANSWER)),
    "an error after content": ErrorEvent(4, said("server_error"), Kimi(ANSWER, reasoning="")),
    "an event that is not JSON": Malformed(4, Kimi(ANSWER, reasoning="")),
    "a cut": Cut(900, Kimi(ANSWER, reasoning="")),
    "a reset": ResetBeforeHeaders(),
    "telling headers": Sse(
        chat_events(ANSWER), headers={"x-echo": TOKENS[0], "set-cookie": f"t={TOKENS[0]}", "msh-org-id": ORG}
    ),
}  # fmt: skip


def gone(text: str, *also: str) -> None:
    """`also` may be spelt as they are or as JSON spells them."""
    for secret in (*TOKENS, ORG, AK, *also):
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("case", STEPS)
def test_nothing_leaks(gateway: LiveGateway, upstream: ScriptedUpstream, case: str, stream: bool) -> None:
    upstream.always(STEPS[case])
    key, before = gateway.key(), len(gateway.log.getvalue())
    messages = [{"role": "user", "content": PROMPT}]
    answer = gateway.chat(key, messages=messages, stream=stream, user=PROMPT)
    gateway.nothing_left(key)
    gateway.until(lambda: '"request"' in gateway.log.getvalue()[before:])
    logged = gateway.log.getvalue()[before:]
    gone(logged, key, PROMPT, ANSWER, ANSWER[:10])
    gone(f"{answer.headers}\n{answer.text}", key, PROMPT)
    assert "CANARY" not in str(answer.headers)
    assert {request.token for request in upstream.chats} <= set(TOKENS)
    assert key not in str([(request.headers, request.raw) for request in upstream.requests])
    for line in logged.splitlines():
        assert isinstance(json.loads(line), dict)


def test_a_request_is_one_line_of_json_with_its_facts(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.plan(Kimi(usage={"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}))
    key = gateway.key()
    answer = gateway.chat(key, model="kimi-k2", stream=True)
    assert text_of(answer.text)
    gateway.until(lambda: gateway.lines("request")[-1]["id"] == answer.headers["x-request-id"])
    line = gateway.lines("request")[-1]
    account = gateway.account(key)
    facts = {
        "event": "request",
        "level": "info",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "key": account.keys[0].id,
        "account": account.id,
        "model": "kimi-k2",
        "upstream_model": "kimi-k2.6",
        "provider": "moonshot",
        "stream": True,
        "attempts": 1,
        "outcome": "settled",
        "input_tokens": 11,
        "output_tokens": 5,
    }
    assert {name: line[name] for name in facts} == facts
    assert line["upstream_tokens"][0] in {Token.of(token).id for token in TOKENS}
    assert 0 <= line["overhead_ms"] <= line["first_content_ms"] <= line["total_ms"]
    assert "cause" not in line


@pytest.mark.parametrize(
    ("step", "status", "cause"),
    [
        (Status(400, said("invalid_request_error")), 400, "upstream_invalid"),
        (Status(401, said("incorrect_api_key_error")), 503, "upstream_authentication"),
        (ErrorEvent(4, said("server_error"), Kimi(reasoning="")), 200, "upstream_server"),
    ],
)
def test_a_failure_is_logged_with_its_cause(
    gateway: LiveGateway, upstream: ScriptedUpstream, step: Step, status: int, cause: str
) -> None:
    upstream.always(step)
    answer = gateway.chat(gateway.key(), stream=True)
    gateway.until(lambda: gateway.lines("request")[-1]["id"] == answer.headers["x-request-id"])
    line = gateway.lines("request")[-1]
    assert (line["status"], line["cause"], line["outcome"]) == (status, cause, "failed")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the gateway's one sink writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(observe.JsonLines())
    observe.log.addHandler(handler)
    yield stream
    observe.log.removeHandler(handler)


class Blabbing(Told):
    """Breaks in the middle with an exception that quotes everything."""

    async def chunks(self, gathered: bool = False) -> Any:
        yield self.body
        raise RuntimeError(BLABBER)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("late", [True, False], ids=["after content", "before it"])
def test_a_crash_tells_the_client_nothing_and_charges_nothing(
    log: io.StringIO, stream: bool, late: bool
) -> None:
    def crash(sent: Sent) -> Told:
        if not late:
            raise RuntimeError(BLABBER)
        begun = streamed(*chat_events(ANSWER)[:4], done=False)
        return Blabbing(begun.status, begun.headers, begun.body)

    with InProcess(moonshot_api_key=TOKENS) as desk:
        desk.client.answer = crash
        key = desk.key(5)
        answer = desk.chat(key, {"stream": stream, "messages": [{"role": "user", "content": PROMPT}]})
        account = desk.account(key)
    assert (account.credits, account.reserved, account.consumed) == (5, 0, 0)
    body = answer.body.decode()
    gone(f"{answer.headers} {body}", key)
    gone(log.getvalue(), key, PROMPT, ANSWER)
    if stream and late:
        assert answer.status == 200
        assert "[DONE]" not in body
        assert openai_error(json.loads(body.split("data: ")[-1]))["code"] == "internal_error"
    else:
        assert answer.status == 500
        assert openai_error(answer.json)["code"] == "internal_error"
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in events if line["event"] in ("crash", "request")] == ["crash", "request"]
    (told_of,) = (line for line in events if line["event"] == "crash")
    assert "RuntimeError" in told_of["traceback"]
    assert events[-1]["cause"] == "internal_error"


def test_reprs_show_no_secret() -> None:
    settings = Settings(moonshot_api_key=TOKENS)
    token = Token.of(TOKENS[1])
    gone(f"{settings!r} {settings} {token!r} {token} {[token]}")
    assert token.id in repr(token)
    messages = [{"role": "user", "content": PROMPT}]
    call = Call(Catalog().rows["kimi-k3"], {"messages": messages}, b"", {"x-a": TOKENS[0]})
    gone(repr(call), PROMPT)
    ask = chat.read(json.dumps({"model": "kimi-k3", "messages": messages}).encode())
    gone(f"{ask!r} {adapt(ask, Catalog().rows['kimi-k3'])!r}", PROMPT)
    headers = Headers((("authorization", f"Bearer {TOKENS[0]}"), ("cookie", TOKENS[1])))
    request = Request("POST", "/v1/chat/completions", headers, "req_1")
    gone(f"{request!r} {headers!r}")
    assert "req_1" in repr(request)
    with InProcess(moonshot_api_key=TOKENS) as desk:
        gone(repr(desk.running))


def test_a_key_is_kept_nowhere_but_as_a_hash() -> None:
    with InProcess() as desk:
        key = desk.key(5)
        assert desk.chat(key, {}).status == 200
        record = desk.run(desk.store.find_key(keys.digest(key)))
        assert key not in repr(vars(desk.store))
        assert key not in repr(record)
        assert key not in repr(desk.running)


def test_whatever_is_logged_stays_one_line_of_json(log: io.StringIO) -> None:
    observe.redact.learn(TOKENS)
    nasty = [BLABBER, f'"{TOKENS[1]}"', "half \ud83d", "line\nfeed\u2028", "\x00", {"a": [TOKENS[1]]}, object]
    for value in nasty:
        observe.emit("odd", detail=value)
    lines = log.getvalue().split("\n")[:-1]
    assert len(lines) == len(nasty)
    for line in lines:
        assert json.loads(line)["event"] == "odd"
        line.encode()
    gone(log.getvalue())


def test_the_vendors_own_words_reach_the_client_without_its_ids() -> None:
    with InProcess(moonshot_api_key=TOKENS) as desk:
        desk.client.answer = lambda sent: Told(
            400,
            {"content-type": "application/json"},
            json.dumps(error("invalid_request_error", BLABBER)).encode(),
        )
        refused = openai_error(desk.chat(desk.key(), {}).json)
        assert "[redacted]" in refused["message"]
        gone(refused["message"])
        desk.client.answer = kimi
        assert desk.chat(desk.key(), {}).status == 200
