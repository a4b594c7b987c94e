"""Several upstream tokens: a conversation stays with one, and one that fails is replaced unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_gateway.accounts.values import Limits
from support.exchange import CHARGED, NOT_CHARGED, ask
from support.live import LiveGateway
from upstream import (
    ErrorEvent,
    HtmlError,
    Kimi,
    ResetBeforeHeaders,
    ScriptedUpstream,
    Status,
    Step,
    error,
    rate_limited,
)

TOKENS = ("sk-upstream-a", "sk-upstream-b", "sk-upstream-c")
MODES = pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])


@pytest.fixture
def gateway(up: ScriptedUpstream, tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path, up.url, TOKENS) as gateway:
        yield gateway


# Of one token: the next is asked at once, whatever the wait that this one names.
OF_A_TOKEN: dict[str, Step] = {
    "dead": Status(401, error("invalid_authentication_error", "Invalid Authentication")),
    "broke": rate_limited("exceeded_current_quota"),
    "limited for a minute": rate_limited("rate_limit_reached", 60),
    "overloaded for a minute": rate_limited("engine_overloaded", 60),
    "forbidden": Status(403, error("permission_denied_error", "The API you are accessing is not open")),
    "without the model": Status(404, error("resource_not_found_error", "Not found the model kimi-k3")),
    "behind a page": HtmlError(403),
    "broke, told in the stream": ErrorEvent(1, error("exceeded_current_quota_error", "balance")),
}


@MODES
@pytest.mark.parametrize("step", OF_A_TOKEN.values(), ids=OF_A_TOKEN)
def test_a_token_that_fails_is_replaced_by_the_next(
    gateway: LiveGateway, up: ScriptedUpstream, step: Step, stream: bool
) -> None:
    up.plan(step)
    asked = ask(gateway, stream)
    assert (asked.seen.status, asked.seen.finishes, asked.seen.error) == (200, ["stop"], None)
    first, second = asked.requests(up)
    assert first.token != second.token
    assert asked.ledger == CHARGED


@MODES
def test_a_second_token_may_fail_another_way(
    gateway: LiveGateway, up: ScriptedUpstream, stream: bool
) -> None:
    up.plan(OF_A_TOKEN["dead"], OF_A_TOKEN["limited for a minute"])
    asked = ask(gateway, stream)
    assert asked.seen.finishes == ["stop"]
    assert {request.token for request in asked.requests(up)} == set(TOKENS)


def test_three_tokens_are_tried_and_no_more(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.always(
        OF_A_TOKEN["limited for a minute"]
    )  # those found dead or broke are not counted: test_token_start
    with LiveGateway(tmp_path, up.url, (*TOKENS, "sk-upstream-d", "sk-upstream-e")) as gateway:
        asked = ask(gateway, True)
        assert (asked.seen.status, asked.ledger) == (429, NOT_CHARGED)
    assert len({request.token for request in asked.requests(up)}) == 3


def test_when_every_token_is_limited_the_client_is_told_when_to_come_back(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    up.always(rate_limited("rate_limit_reached", 7))
    asked = ask(gateway, True)
    assert (asked.seen.status, asked.seen.headers["retry-after"]) == (429, "7")
    assert {request.token for request in asked.requests(up)} == set(TOKENS)


def test_a_server_that_fails_is_tried_again_with_another_token(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    up.plan(ResetBeforeHeaders())
    first, second = ask(gateway, True).requests(up)
    assert first.token != second.token


@pytest.mark.parametrize("type", ["invalid_request_error", "content_filter"])
def test_what_the_vendor_refuses_is_not_asked_of_another_token(
    gateway: LiveGateway, up: ScriptedUpstream, type: str
) -> None:
    up.always(Status(400, error(type, "no")))
    asked = ask(gateway, True)
    assert (asked.seen.status, len(asked.requests(up))) == (400, 1)


@MODES
def test_after_content_no_token_steps_in(gateway: LiveGateway, up: ScriptedUpstream, stream: bool) -> None:
    up.always(ErrorEvent(6, error("exceeded_current_quota_error", "balance"), Kimi()))
    asked = ask(gateway, stream)
    assert asked.seen.error is not None
    assert asked.seen.error["code"] == "service_unavailable"
    assert asked.seen.status == (200 if stream else 503)
    assert len(asked.requests(up)) == 1
    assert asked.ledger == NOT_CHARGED


def test_a_conversation_stays_with_its_token_and_conversations_are_spread(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    key = gateway.key(1000, Limits(1000, 1000, 1000))
    for number in range(24):
        turns: list[dict[str, str]] = []
        for _ in range(3):
            turns += [{"role": "user", "content": f"question {number}"}]
            assert gateway.chat(key, messages=turns).status_code == 200
            turns += [{"role": "assistant", "content": "answer"}]
    used = [request.token for request in up.chats]
    conversations = [used[start : start + 3] for start in range(0, 72, 3)]
    assert all(len(set(tokens)) == 1 for tokens in conversations)
    assert set(used) == set(TOKENS)
