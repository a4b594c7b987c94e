"""Tokens that are bad before anybody knows it, and what processes of their own tell each other of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.tokens.affinity import beginning, ranked
from support.live import LiveGateway
from support.server_process import ServerProcess
from upstream import ByToken, Kimi, ScriptedUpstream, Status, Step, error, rate_limited

GOOD, *BAD = TOKENS = tuple(f"sk-upstream-{name}" for name in ("good", "one", "two", "three", "four"))
REFUSED = Status(401, error("invalid_authentication_error", "Invalid Authentication"))
NO_MONEY = rate_limited("exceeded_current_quota")


def conversation(*tokens: str) -> list[dict[str, str]]:
    """One that prefers these tokens in this order."""
    wanted = [Token.of(token) for token in tokens]
    for number in range(100_000):
        messages = [{"role": "user", "content": f"conversation {number}"}]
        if ranked(beginning({"messages": messages}), wanted) == wanted:
            return messages
    raise AssertionError("no conversation prefers them so")


def unknown(up: ScriptedUpstream, **chats: Step) -> None:
    """Nothing is learnt at the start; `good` answers, the others by name, else they refuse."""
    up.at("/v1/users/me/balance", Status(500))
    up.always(
        ByToken({token: chats.get(token.rpartition("-")[2], REFUSED) for token in BAD} | {GOOD: Kimi()})
    )


@pytest.mark.parametrize("bad", [REFUSED, NO_MONEY], ids=["dead", "broke"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_four_bad_tokens_that_nobody_knows_of_cost_a_request_no_attempt(
    up: ScriptedUpstream, tmp_path: Path, bad: Step, stream: bool
) -> None:
    unknown(up, two=bad, four=bad)
    with LiveGateway(tmp_path, up.url, TOKENS) as gateway:
        key = gateway.key()
        messages = conversation(*BAD, GOOD)
        assert gateway.chat(key, messages=messages, stream=stream).status_code == 200
        assert [request.token for request in up.chats] == [*BAD, GOOD]
        gateway.until(lambda: gateway.lines("request"))
        assert gateway.lines("request")[0]["attempts"] == 5
        assert gateway.account(key).credits == 99


def test_bad_tokens_give_no_further_attempt_to_other_failures(up: ScriptedUpstream, tmp_path: Path) -> None:
    unknown(up, three=Status(500), four=Status(500))
    up.always(
        ByToken({token: REFUSED for token in BAD[:2]} | {token: Status(500) for token in (*BAD[2:], GOOD)})
    )
    with LiveGateway(tmp_path, up.url, TOKENS) as gateway:
        answer = gateway.chat(gateway.key(), messages=conversation(*BAD, GOOD))
    assert answer.status_code == 503
    assert len(up.chats) == 2 + 3


def test_all_tokens_bad_are_each_asked_once(up: ScriptedUpstream, tmp_path: Path) -> None:
    unknown(up)
    with LiveGateway(tmp_path, up.url, tuple(BAD)) as gateway:
        key = gateway.key()
        assert gateway.chat(key).status_code == 503
        assert Counter(request.token for request in up.chats) == dict.fromkeys(BAD, 1)
        assert gateway.account(key).credits == 100


def test_what_one_process_learns_another_knows_and_the_next_after_a_restart(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    unknown(up)
    tokens = (BAD[0], GOOD)
    messages = conversation(*tokens)

    def asked(server: ServerProcess, key: str) -> list[str | None]:
        """Whom it asks for this conversation, which prefers the dead one."""
        before = len(up.chats)
        with server.client(key) as client:
            answer = client.post("/v1/chat/completions", json={"model": "kimi-k3", "messages": messages})
        assert answer.status_code == 200
        return [request.token for request in up.chats[before:]]

    # The second runs before the first learns anything; it looks into the record with its first chat.
    with (
        ServerProcess(tmp_path, up.url, tokens=tokens) as first,
        ServerProcess(tmp_path, up.url, tokens=tokens) as second,
    ):
        key = first.key(None)
        assert asked(first, key) == [BAD[0], GOOD]
        first.until(lambda: first.outages() == [(Token.of(BAD[0]).id, "authentication")])
        assert asked(second, key) == [GOOD]
        for server in (first, second):
            server.terminate()
            assert server.ended() == 0
    with ServerProcess(tmp_path, up.url, tokens=tokens) as restarted:
        assert asked(restarted, key) == [GOOD]
