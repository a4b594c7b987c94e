"""Places at tokens over real sockets: requests of one token overlap as far as it allows, the others wait."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from kimi_gateway.accounts.values import Limits
from kimi_gateway.providers.tokens.pool import QUEUE
from support.exchange import NOT_CHARGED, ask
from support.formats import FORMATS, Format
from support.live import LiveGateway
from support.wire import connect, post
from upstream import Gated, Kimi, Reply, Request, ScriptedUpstream, Step


@pytest.mark.parametrize("shown", [1, 3], ids=["before content", "after content"])
def test_a_client_that_leaves_keeps_no_place(up: ScriptedUpstream, tmp_path: Path, shown: int) -> None:
    with LiveGateway(tmp_path, up.url, token_concurrency=1) as gateway:
        key, gate = gateway.key(None), Gated()
        gate.let(shown)
        up.plan(gate)
        with connect(gateway) as client:
            client.sendall(post(key))
            up.until(lambda: gate.sent == shown)
            gateway.rest()
        assert ask(gateway, True).seen.finishes == ["stop"]
        gateway.nothing_left(key)


class Overlap:
    """The inner answer; `most` is how many were under way at a time with one token."""

    def __init__(self, inner: Step) -> None:
        self.inner = inner
        self.most = 0
        self._running: list[Request] = []

    def reply(self, request: Request) -> Reply:
        self._running = [each for each in self._running if not each.answered.is_set()] + [request]
        self.most = max(self.most, *Counter(each.token for each in self._running).values())
        return self.inner.reply(request)


@pytest.mark.parametrize("places", [1, 3])
def test_requests_of_one_token_overlap_no_more_than_its_places_and_all_are_served(
    up: ScriptedUpstream, tmp_path: Path, places: int
) -> None:
    overlap = Overlap(Kimi(gap=0.005))
    up.always(overlap)
    with LiveGateway(
        tmp_path, up.url, ("sk-upstream-a", "sk-upstream-b"), token_concurrency=places
    ) as gateway:
        with ThreadPoolExecutor(12) as pool:
            asked = list(pool.map(lambda number: ask(gateway, bool(number % 2)), range(24)))
        assert [each.seen.finishes for each in asked] == [["stop"]] * 24
        assert overlap.most == places


def test_a_request_waits_while_the_only_place_is_taken_and_then_gets_it(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with LiveGateway(tmp_path, up.url, token_concurrency=1) as gateway, ThreadPoolExecutor(2) as pool:
        gate = Gated()
        up.plan(gate)
        first = pool.submit(ask, gateway, True)
        up.until(lambda: len(up.chats) == 1)
        second = pool.submit(ask, gateway, True)
        gateway.until(lambda: len(gateway.app.running.gateway.turns) == 2)  # type: ignore[union-attr]
        assert len(up.chats) == 1
        gate.let(100)
        assert first.result().seen.finishes == second.result().seen.finishes == ["stop"]
        assert up.chats[0].answered.is_set()


def test_when_all_are_busy_for_too_long_the_client_is_told_to_come_back(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with LiveGateway(tmp_path, up.url, token_concurrency=1) as gateway, ThreadPoolExecutor(1) as pool:
        gateway.app.running.pool.patience = 0.2  # type: ignore[union-attr]
        gate = Gated()
        up.plan(gate)
        first = pool.submit(ask, gateway, True)
        up.until(lambda: len(up.chats) == 1)
        for stream in (True, False):
            refused = ask(gateway, stream)
            assert (refused.seen.status, refused.seen.headers["retry-after"]) == (429, "1")
            assert refused.seen.error is not None
            assert refused.seen.error["code"] == "rate_limit_exceeded"
            assert refused.ledger == NOT_CHARGED
        assert len(up.chats) == 1
        gate.let(100)
        assert first.result().seen.finishes == ["stop"]
        assert ask(gateway, True).seen.finishes == ["stop"]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_an_account_that_fills_the_queue_keeps_no_other_one_waiting(
    up: ScriptedUpstream, tmp_path: Path, format: Format
) -> None:
    with LiveGateway(tmp_path, up.url, token_concurrency=1) as gateway, ThreadPoolExecutor(80) as pool:
        many_more = Limits(10**6, 10**6, 10**6)
        crowd, other, gate = gateway.key(limits=many_more), gateway.key(), Gated()
        up.plan(gate)

        def asked(key: str, prompt: str) -> httpx.Response:
            with gateway.client(key) as client:
                return client.post(format.path, json=format.asked(prompt))

        first = pool.submit(asked, crowd, "first")
        up.until(lambda: len(up.chats) == 1)
        waiting = gateway.app.running.pool._queue  # type: ignore[union-attr]
        many = [pool.submit(asked, crowd, f"crowd {number}") for number in range(QUEUE)]
        gateway.until(lambda: len(waiting) == QUEUE)
        late = [pool.submit(asked, crowd, "one too many").result() for _ in range(3)]
        mine = pool.submit(asked, other, "mine")
        gateway.until(lambda: sum(each.done() for each in many) == 1)  # it made room
        gate.let(100)
        assert mine.result().status_code == first.result().status_code == 200
        statuses = Counter(each.result().status_code for each in many)
        assert statuses == {200: QUEUE - 1, 429: 1}
        late += [each.result() for each in many if each.result().status_code == 429]
        for answer in late:
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            told = format.error(answer.json())
            assert f"{QUEUE - 1} other requests" in told["message"] or f"{QUEUE} other" in told["message"]
            assert told["type"] == format.types[429]
        came = ["mine" in json.dumps(each.body) for each in up.chats]
        assert came.index(True) <= 2  # behind what ran, and one of the crowd
        for key, spent in ((crowd, QUEUE), (other, 1)):
            account = gateway.account(key)
            assert (account.consumed, account.credits, account.reserved) == (spent, 100 - spent, 0)
