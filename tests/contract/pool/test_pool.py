"""The pool of upstream tokens over real sockets: accounts that fail each in its way, gateways on one file."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from kimi_gateway.accounts.values import Limits
from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.tokens.health import READ_EVERY
from kimi_gateway.providers.tokens.outages import PROBE_EVERY
from support.exchange import ask
from support.live import LiveGateway, text_of
from support.wire import connect, post
from upstream import (
    ByToken,
    Gated,
    InTurn,
    Kimi,
    ScriptedUpstream,
    Status,
    Step,
    balance,
    error,
    rate_limited,
)

DEAD, BROKE, LIMITED, SLOW, GOOD = FIVE = tuple(f"sk-upstream-{name}" for name in ("d", "b", "l", "s", "g"))
BALANCE = "/v1/users/me/balance"
REFUSED = Status(401, error("invalid_authentication_error", "Invalid Authentication"))
NO_MONEY = rate_limited("exceeded_current_quota")
PLENTY = Limits(100_000, 100_000, 100_000)


class Clock:
    """The real one, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


def accounts(up: ScriptedUpstream, **changed: Step) -> None:
    """What each of the five accounts answers; a keyword names another answer for one, by its last letter."""
    chats: dict[str, Step] = {
        DEAD: REFUSED,
        BROKE: NO_MONEY,
        LIMITED: rate_limited("rate_limit_reached", 60),
        SLOW: Kimi(gap=0.01),
        GOOD: Kimi(),
    }
    money: dict[str, Step] = {token: Status(200, balance(10)) for token in FIVE}
    money |= {DEAD: REFUSED, BROKE: Status(200, balance(0, 0))}
    named = {f"sk-upstream-{letter}": step for letter, step in changed.items()}
    up.always(ByToken(chats | named))
    up.at(BALANCE, ByToken(money))


def checked(gateway: LiveGateway) -> None:
    """It knows by now which of its tokens are dead or broke."""
    ids = {Token.of(token).id for token in (DEAD, BROKE)}
    gateway.until(lambda: ids <= {line["token"] for line in gateway.lines("token_out")})


def talk(gateway: LiveGateway, key: str, number: int, turns: int) -> list[httpx.Response]:
    """A conversation, one turn after the other."""
    messages, answers = [{"role": "user", "content": f"conversation {number}"}], []
    with gateway.client(key) as client:
        for turn in range(turns):
            body = {"model": "kimi-k3", "messages": messages, "stream": bool(turn % 2)}
            answers.append(client.post("/v1/chat/completions", json=body))
            messages += [
                {"role": "assistant", "content": "well"},
                {"role": "user", "content": f"turn {turn}"},
            ]
    return answers


def answered(response: httpx.Response) -> bool:
    if response.headers["content-type"].startswith("text/event-stream"):
        return text_of(response.text) == Kimi().text and response.text.endswith("data: [DONE]\n\n")
    return response.status_code == 200 and response.json()["choices"][0]["message"]["content"] == Kimi().text


def asked_of(up: ScriptedUpstream) -> Counter[str]:
    return Counter(str(request.token) for request in up.chats)


def test_five_accounts_of_which_two_serve_are_seen_by_no_client(
    up: ScriptedUpstream, tmp_path: Path, clock: Clock
) -> None:
    accounts(up)
    with LiveGateway(tmp_path, up.url, FIVE, clock) as gateway:
        key = gateway.key(None, PLENTY)
        checked(gateway)
        with ThreadPoolExecutor(16) as pool:
            talks = list(pool.map(lambda number: talk(gateway, key, number, 5), range(40)))
        assert all(answered(response) for answers in talks for response in answers)
        assert len([response for answers in talks for response in answers]) == 200
        asked = asked_of(up)
        assert (asked[DEAD], asked[BROKE]) == (0, 0)
        assert 1 <= asked[LIMITED] <= 16  # those that were under way when the first was refused
        gateway.nothing_left(key)
    by_conversation: dict[str, list[str]] = defaultdict(list)
    for request in up.chats:
        if request.token != LIMITED:
            by_conversation[request.body["messages"][0]["content"]].append(str(request.token))
    assert len(by_conversation) == 40
    stayed = sum(Counter(tokens).most_common(1)[0][1] for tokens in by_conversation.values())
    assert stayed >= 0.95 * 200
    assert {token for tokens in by_conversation.values() for token in tokens} == {SLOW, GOOD}


def test_the_dead_one_is_asked_once_a_minute_and_no_client_sees_it(
    up: ScriptedUpstream, tmp_path: Path, clock: Clock
) -> None:
    accounts(up)
    with LiveGateway(tmp_path, up.url, FIVE, clock) as gateway:
        key = gateway.key(None, PLENTY)
        checked(gateway)
        for minute in range(4):
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda number: talk(gateway, key, number, 1)[0], range(16)))
            assert all(map(answered, answers))
            assert asked_of(up)[DEAD] == asked_of(up)[BROKE] == minute
            clock.ahead += PROBE_EVERY + 1


def test_a_dead_one_that_is_mended_comes_back_with_its_next_try(
    up: ScriptedUpstream, tmp_path: Path, clock: Clock
) -> None:
    accounts(up)
    with LiveGateway(tmp_path, up.url, (DEAD, GOOD), clock) as gateway:
        key = gateway.key(None, PLENTY)
        gateway.until(lambda: gateway.lines("token_out"))
        accounts(up, d=Kimi())
        assert all(answered(talk(gateway, key, number, 1)[0]) for number in range(10))
        assert asked_of(up)[DEAD] == 0
        clock.ahead += PROBE_EVERY + 1
        assert all(answered(talk(gateway, key, number, 1)[0]) for number in range(30))
        assert asked_of(up)[DEAD] > 5
        assert gateway.lines("token_in")[0]["token"] == Token.of(DEAD).id


def test_what_the_pool_knows_outlives_the_gateway(up: ScriptedUpstream, tmp_path: Path, clock: Clock) -> None:
    accounts(up)
    up.at(BALANCE, Status(500))  # nothing is learnt at the start
    tokens = (DEAD, LIMITED, GOOD)
    with LiveGateway(tmp_path, up.url, tokens, clock) as gateway:
        key = gateway.key(None, PLENTY)
        assert all(answered(talk(gateway, key, number, 1)[0]) for number in range(20))
    assert asked_of(up) == {DEAD: 1, LIMITED: 1, GOOD: 20}
    with LiveGateway(tmp_path, up.url, tokens, clock) as again:
        assert all(answered(talk(again, key, number, 1)[0]) for number in range(20, 40))
        assert asked_of(up) == {DEAD: 1, LIMITED: 1, GOOD: 40}
        clock.ahead += PROBE_EVERY + 1
        assert all(answered(talk(again, key, number, 1)[0]) for number in range(10))
        assert asked_of(up)[DEAD] == 2


def test_what_one_gateway_learns_reaches_the_other_on_its_file(
    up: ScriptedUpstream, tmp_path: Path, clock: Clock
) -> None:
    accounts(up)
    up.at(BALANCE, Status(500))
    with (
        LiveGateway(tmp_path, up.url, (DEAD, GOOD), clock) as ours,
        LiveGateway(tmp_path, up.url, (DEAD, GOOD), clock) as theirs,
    ):
        key = ours.key(None, PLENTY)

        def reach_the_dead(number: int, *gateways: LiveGateway) -> int:
            """How many of these gateways ask the dead one, all at once."""
            before = asked_of(up)[DEAD]
            with ThreadPoolExecutor(2) as pool:
                answers = pool.map(lambda gateway: talk(gateway, key, number, 1)[0], gateways)
                assert all(map(answered, answers))
            for gateway in gateways:  # what it learns it writes behind the request
                assert gateway.app.running is not None
                gateway.do(gateway.app.running.pool.close())
            return asked_of(up)[DEAD] - before

        with theirs.client(key) as client:
            assert client.get("/v1/models").status_code == 200  # its first look into the record
        of_the_dead = next(number for number in range(100) if reach_the_dead(number, ours))
        clock.ahead += READ_EVERY + 1
        assert [reach_the_dead(of_the_dead, theirs) for _ in range(3)] == [0, 0, 0]
        clock.ahead += READ_EVERY + 1
        assert [reach_the_dead(number, ours, theirs) for number in range(5)] == [1, 0, 0, 0, 0]
        accounts(up, d=Kimi())
        clock.ahead += PROBE_EVERY + 1
        assert reach_the_dead(of_the_dead, ours) == 1
        clock.ahead += READ_EVERY + 1
        assert reach_the_dead(of_the_dead, ours, theirs) == 2


def test_the_balance_is_the_sum_of_the_accounts_that_live(up: ScriptedUpstream, tmp_path: Path) -> None:
    accounts(up)
    with (
        LiveGateway(tmp_path, up.url, FIVE) as gateway,
        gateway.client(gateway.key(see_balance=True)) as client,
    ):
        assert client.get("/v1/users/me/balance").json()["data"]["available_balance"] == 30
        up.at(BALANCE, REFUSED)
        assert client.get("/v1/users/me/balance").status_code == 503


@pytest.mark.parametrize("refusal", [REFUSED, NO_MONEY], ids=["dead", "broke"])
def test_one_token_that_is_mended_works_with_the_very_next_request(
    up: ScriptedUpstream, tmp_path: Path, refusal: Step
) -> None:
    with LiveGateway(tmp_path, up.url) as gateway:
        up.plan(refusal)
        assert ask(gateway, True).seen.status == 503
        assert ask(gateway, True).seen.finishes == ["stop"]
        assert [ask(gateway, False).seen.status for _ in range(3)] == [200, 200, 200]


def test_the_last_token_if_dead_is_asked_by_one_and_the_others_are_reported_at_once(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with LiveGateway(tmp_path, up.url) as gateway, ThreadPoolExecutor(1) as pool:
        up.plan(REFUSED)
        ask(gateway, True)
        gate = Gated()
        up.plan(gate)
        trying = pool.submit(ask, gateway, True)
        up.until(lambda: len(up.chats) == 2)
        assert [ask(gateway, stream).seen.status for stream in (True, False)] == [503, 503]
        assert len(up.chats) == 2
        gate.let(100)
        assert trying.result().seen.finishes == ["stop"]


def test_a_token_that_answers_elsewhere_is_not_dead(up: ScriptedUpstream, tmp_path: Path) -> None:
    with LiveGateway(tmp_path, up.url) as gateway, gateway.client(gateway.key(None)) as client:
        up.plan(REFUSED)
        assert ask(gateway, True).seen.status == 503
        body = {"model": "kimi-k3", "messages": [{"role": "user", "content": "hi"}]}
        assert client.post("/v1/tokenizers/estimate-token-count", json=body).status_code == 200
        gateway.until(lambda: gateway.lines("token_in"))


@pytest.mark.parametrize(("shown", "back"), [(1, False), (3, True)], ids=["before content", "after content"])
def test_a_dead_token_is_back_with_its_first_content_and_not_when_the_client_leaves_before(
    up: ScriptedUpstream, tmp_path: Path, shown: int, back: bool
) -> None:
    with LiveGateway(tmp_path, up.url) as gateway:
        up.plan(REFUSED)
        assert ask(gateway, True).seen.status == 503
        gate = Gated()
        gate.let(shown)
        up.plan(gate)
        with connect(gateway) as client:
            client.sendall(post(gateway.key(None)))
            up.until(lambda: gate.sent == shown)
            if back:
                gateway.until(lambda: gateway.lines("token_in"))
                assert ask(gateway, True).seen.finishes == ["stop"]
            gateway.rest()
        up.until(up.chats[1].closed_early.is_set)
        assert bool(gateway.lines("token_in")) is back


FLAPS: dict[str, Step] = {
    "server": Status(500, error("server_error", "oops")),
    "limited": rate_limited("rate_limit_reached", 1),
    "dead at times": REFUSED,
}


@pytest.mark.parametrize("failing", FLAPS.values(), ids=FLAPS)
def test_a_token_that_fails_every_other_time_is_seen_by_no_client(
    up: ScriptedUpstream, tmp_path: Path, clock: Clock, failing: Step
) -> None:
    flapping = InTurn([failing, Kimi()])
    up.always(ByToken({SLOW: flapping, GOOD: Kimi()}))
    with LiveGateway(tmp_path, up.url, (SLOW, GOOD), clock) as gateway:
        key = gateway.key(None, PLENTY)
        for number in range(20):
            assert answered(talk(gateway, key, number, 1)[0])
            clock.ahead += 15
    assert asked_of(up)[SLOW] > 3
