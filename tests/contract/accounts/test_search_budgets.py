"""Searches of keys with budgets: each round and each search is reserved before it runs, and nothing is spent
beyond a budget, whatever the upstream does."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Budget, Limits, NewKey
from kimi_gateway.catalog.models import FEES
from kimi_gateway.flow.search.tools import SEARCH
from kimi_gateway.http import Headers
from kimi_gateway.net.http import ConnectFailed, ConnectionLost, TimedOut
from support.budgeting import limit, spent
from support.inprocess import NOW, InProcess, Sent, Told, streamed, told
from upstream.kimi import chat_events, error, usage_of
from upstream.search import result

K26 = "kimi-k2.6"  # 0.95 USD for a million tokens of input, 4.00 for output
FEE = round(FEES["search"] * 1_000_000)
QUESTION = [{"role": "user", "content": "What is new?"}]


def booked(desk: InProcess, unit: str) -> int:
    """What is spent or reserved at this moment of the only account."""
    (held,) = desk.store._accounts.values()
    return sum(amount for place, amount in held.spent.items() if place[1] == unit)


def cost(prompt: int, completion: int) -> int:
    """Micro-dollars, as the gateway rounds them."""
    return -(-(prompt * 950_000 + completion * 4_000_000) // 1_000_000)


@dataclass
class Vendor:
    """Bills what it likes within what it was asked for. `rounds` say what becomes of each chat; after them
    the model answers. `searches` say what becomes of each search; after them they find a page."""

    rounds: list[Any] = field(default_factory=list)
    searches: list[Any] = field(default_factory=list)
    part: float = 1.0  # of the largest bill
    bill: int = 0
    tokens: int = 0
    chats: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, sent: Sent) -> Told:
        return self.chat(sent.body) if sent.path == "/v1/chat/completions" else self.tool()

    def tool(self) -> Told:
        what = self.searches.pop(0) if self.searches else "found"
        if isinstance(what, Exception):
            self.bill += FEE if isinstance(what, TimedOut) else 0
            raise what
        if what == "refused":
            return told({"error": {"type": "rate_limited"}}, 429)
        self.bill += FEE if what == "found" else 0
        return told({"search_results": [result(1)] if what == "found" else []})

    def chat(self, body: dict[str, Any]) -> Told:
        self.chats.append(body)
        what = self.rounds.pop(0) if self.rounds else 0
        if isinstance(what, ConnectFailed):
            raise what
        if what == "refused":
            return told(error("invalid_request_error", "no"), 400)
        prompt = int(self.part * len(json.dumps(body, ensure_ascii=False)))
        completion = int(self.part * body["max_completion_tokens"])
        self.bill += cost(prompt, completion)
        self.tokens += prompt + completion
        if isinstance(what, Exception):
            raise what
        tools = [(SEARCH, {"query": f"{len(self.chats)}-{number}"}) for number in range(what)] if what else []
        if "tools" not in body:
            tools = []
        events = chat_events("Well.", tools=tools, usage=usage_of(prompt, completion), model=K26)
        return streamed(*events)


def ask(desk: InProcess, key: str, **more: Any) -> Any:
    body = {"model": K26, "messages": QUESTION, "use_search": True, "max_tokens": 500, **more}
    return desk.call("POST", "/v1/chat/completions", body, key)


def test_fees_and_rounds_are_booked_at_their_true_cost(desk: InProcess) -> None:
    key, vendor = desk.key(), Vendor([2, 1], part=0.1)
    limit(desk, key, Budget("usd", "day", 10**7), Budget("tokens", "month", 10**7))
    desk.client.answer = vendor
    answer = ask(desk, key)
    assert answer.status == 200
    assert "x-param-ignored" not in answer.headers
    assert len(vendor.chats) == 3
    assert vendor.bill > 3 * FEE
    assert spent(desk, key) == [vendor.bill, vendor.tokens]
    account = desk.account(key)
    assert (account.consumed, account.reserved) == (1, 0)


def test_without_room_for_another_round_the_model_answers_without_more_search(desk: InProcess) -> None:
    """The budget pays for the first round, a search and the kept answer, but not for what was found."""
    key, vendor = desk.key(), Vendor([1, 1], part=1.0)
    first = 2 * (cost(1_300, 300)) + FEE
    limit(desk, key, Budget("usd", "day", first))
    desk.client.answer = vendor
    answer = ask(desk, key, max_tokens=300)
    assert answer.status == 200, answer.json
    choice = answer.json["choices"][0]
    assert (choice["finish_reason"], "Well." in choice["message"]["content"]) == ("stop", True)
    assert len(vendor.chats) == 2
    assert "tools" not in vendor.chats[-1]
    assert spent(desk, key)[0] == vendor.bill <= first


def test_a_budget_for_one_round_serves_the_request_without_a_search(desk: InProcess) -> None:
    key, vendor = desk.key(), Vendor([1])
    limit(desk, key, Budget("usd", "day", cost(1_300, 400)))
    desk.client.answer = vendor
    answer = ask(desk, key, max_tokens=400)
    assert (answer.status, answer.headers["x-param-ignored"]) == (200, "use_search")
    assert "tools" not in vendor.chats[0]
    assert spent(desk, key)[0] == vendor.bill


def test_a_search_that_the_budget_does_not_pay_for_is_refused_and_shown(desk: InProcess) -> None:
    """The refused one is an error in the format's own form."""
    key, vendor = desk.key(), Vendor([3], part=0.999)
    limit(desk, key, Budget("usd", "day", cost(700, 300) * 2 + 2 * FEE))
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body = {"model": K26, "messages": QUESTION, "max_tokens": 300, "tools": tools}
    desk.client.answer = vendor
    answer = desk.call("POST", "/v1/messages", body, key)
    assert answer.status == 200
    results = [block["content"] for block in answer.json["content"] if block["type"].endswith("_result")]
    errors = [each["error_code"] for each in results if isinstance(each, dict)]
    assert errors
    assert set(errors) == {"max_uses_exceeded"}
    assert spent(desk, key)[0] == vendor.bill <= cost(700, 300) * 2 + 2 * FEE


def test_a_changed_key_goes_on_with_its_new_budget(desk: InProcess) -> None:
    """The operator changes the key while the first round runs; the next reservation reads it again."""
    key = desk.key()
    limit(desk, key, Budget("usd", "day", 10**7))

    def answer(sent: Sent) -> Told:
        if sent.path == "/v1/tools/search":
            desk.store._keys = {id: replace(each, budgets=()) for id, each in desk.store._keys.items()}
            for held in desk.store._accounts.values():
                held.generation += 1
        return vendor(sent)

    vendor = Vendor([1, 1], part=0.5)
    desk.client.answer = answer
    assert ask(desk, key).status == 200
    assert len(vendor.chats) == 3


def minutes(desk: InProcess) -> list[int]:
    """Tokens that were counted in each minute."""
    (held,) = desk.store._accounts.values()
    return [amount for place, amount in sorted(held.spent.items()) if place[2] == "minute"]


@pytest.mark.parametrize("other", [(), (Budget("tokens", "day", 10**6),), (Budget("usd", "total", 20_000),)])
def test_each_round_counts_in_the_minute_in_which_it_runs(desk: InProcess, other: tuple[Budget, ...]) -> None:
    """By its estimate; by its true tokens when it ends in that minute."""
    key, vendor, seen = desk.key(), Vendor([1, 1], part=0.5), list[int]()
    limit(desk, key, Budget("tokens", "minute", 50_000), *other)

    def answer(sent: Sent) -> Told:
        if sent.path == "/v1/tools/search":
            desk.now += 60
            return vendor(sent)
        seen.append(minutes(desk)[-1])
        last[0] = vendor.tokens
        return vendor(sent)

    last = [0]
    desk.client.answer = answer
    assert ask(desk, key).status == 200
    assert len(seen) == 3
    assert min(seen) > 500, "a round ran that was not counted"
    assert minutes(desk) == [*seen[:-1], vendor.tokens - last[0]]
    if other:
        assert spent(desk, key)[1] == (vendor.tokens if other[0].unit == "tokens" else vendor.bill)
    assert not any(held.leases for held in desk.store._accounts.values())


def test_rounds_of_one_minute_are_trued_up_and_a_full_minute_ends_the_search(desk: InProcess) -> None:
    key, vendor = desk.key(), Vendor([1, 1, 1, 1], part=0.5)
    limit(desk, key, Budget("tokens", "minute", 2_000))
    desk.client.answer = vendor
    answer = ask(desk, key)
    assert (answer.status, answer.json["choices"][0]["finish_reason"]) == (200, "stop")
    assert 2 <= len(vendor.chats) < 5
    assert "tools" not in vendor.chats[-1]
    assert minutes(desk) == spent(desk, key) == [vendor.tokens]


FAULTS = [ConnectionLost("reset"), TimedOut("late"), ConnectFailed("no route"), "refused"]
rounds = st.lists(st.integers(0, 4) | st.sampled_from(FAULTS), max_size=7)
searches = st.lists(
    st.sampled_from(["found", "nothing", "refused", ConnectFailed("x"), TimedOut("x"), ConnectionLost("x")]),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(
    rounds=rounds,
    searches=searches,
    part=st.sampled_from([0.0, 0.03, 0.5, 1.0]),
    budget=st.integers(500, 60_000),
    tokens=st.none() | st.integers(1_000, 60_000),
    most=st.sampled_from([50, 300, 2_000]),
    stream=st.booleans(),
)
def test_nothing_is_spent_beyond_a_budget_whatever_fails_in_a_round(
    rounds: list[Any],
    searches: list[Any],
    part: float,
    budget: int,
    tokens: int | None,
    most: int,
    stream: bool,
) -> None:
    with InProcess() as desk:
        key, vendor = desk.key(), Vendor(list(rounds), list(searches), part)
        both = [Budget("usd", "day", budget)] + ([Budget("tokens", "total", tokens)] if tokens else [])
        limit(desk, key, *both)
        sound = True

        def answer(sent: Sent) -> Told:
            nonlocal sound
            usd, used = booked(desk, "usd"), booked(desk, "tokens")
            try:
                return vendor(sent)
            finally:  # it was reserved before it was sent
                sound &= vendor.bill <= usd <= budget
                sound &= tokens is None or vendor.tokens <= used <= tokens

        desk.client.answer = answer
        for _ in range(3):
            told = ask(desk, key, max_tokens=most, stream=stream)
            assert told.status in (200, 400, 403, 502, 503, 504), told.body
            if told.status == 403:
                break
        assert sound
        amounts = spent(desk, key)
        assert vendor.bill <= amounts[0] <= budget
        if tokens:
            assert vendor.tokens <= amounts[1] <= tokens
        if not any(isinstance(each, Exception) for each in (*rounds, *searches)):
            assert amounts[0] == vendor.bill  # nothing is unknown, so the books are exact
        assert desk.account(key).reserved == 0
        assert not any(held.leases for held in desk.store._accounts.values())
        assert not desk.running.gateway.ledger.late


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"use_search": True, "messages": QUESTION}),
        ("/v1/responses", {"tools": [{"type": "web_search"}], "input": "What is new?"}),
        (
            "/v1/messages",
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}], "messages": QUESTION},
        ),
    ],
)
def test_a_key_without_the_right_to_search_is_served_without_it(
    desk: InProcess, path: str, body: dict[str, Any]
) -> None:
    key = desk.key()
    asked = {"model": K26, "max_tokens": 300, **body} if path == "/v1/messages" else {"model": K26, **body}
    may = desk.call("POST", path, asked, key)
    assert "x-param-ignored" not in may.headers
    assert len(desk.client.chats[-1].body["tools"]) >= 1
    desk.run(desk.store.update_key(keys.digest(key), lambda old: replace(old, search=False), int(desk.now)))
    may_not = desk.call("POST", path, asked, key)
    assert may_not.status == 200
    assert ("use_search" in may_not.headers["x-param-ignored"]) or "tools.web" in may_not.headers[
        "x-param-ignored"
    ]
    assert "tools" not in desk.client.chats[-1].body


def test_500_searches_at_once_spend_exactly_the_credits_of_an_account(desk: InProcess) -> None:
    """Over 50 keys with 100 credits in all: each answer costs one, however many rounds it has."""
    first = desk.key(100)
    account = desk.account(first).id
    wide = Limits(10**6, 10**6, 10**6)
    secrets = [keys.new_key() for _ in range(50)]
    for secret in secrets:
        desk.run(desk.store.create_key(NewKey(keys.digest(secret), account, limits=wide), NOW))
    rounds: Counter[bool] = Counter()

    def answer(sent: Sent) -> Told:
        if sent.path != "/v1/chat/completions":
            return told({"search_results": [result(1)]})
        searched = sent.body["messages"][-1]["role"] == "tool"
        rounds[searched] += 1
        tools = [] if searched else [(SEARCH, {"query": "news"})]
        return streamed(*chat_events("Well.", tools=tools, model=K26))

    desk.client.answer = answer
    body = json.dumps({"model": K26, "messages": QUESTION, "use_search": True, "stream": True}).encode()

    async def one(number: int) -> int:
        head = Headers(
            (("authorization", f"Bearer {secrets[number % 50]}"), ("content-type", "application/json"))
        )
        answered = await desk._call("POST", "/v1/chat/completions", body, head, "192.0.2.1")
        assert answered.status != 200 or b"[DONE]" in answered.body
        return answered.status

    async def all_at_once() -> list[int]:
        return await asyncio.gather(*map(one, range(500)))

    statuses = Counter(desk.run(all_at_once()))
    assert statuses[200] == 100
    assert set(statuses) <= {200, 403, 429}
    assert rounds == {False: 100, True: 100}
    left = desk.account(first)
    assert (left.credits, left.reserved, left.consumed) == (0, 0, 100)
    gateway = desk.running.gateway
    assert (len(gateway.turns), gateway.gate.places._taken, gateway.ledger._running) == (0, {}, {})
