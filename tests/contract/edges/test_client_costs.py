"""What a client can cost that pays nothing: without a key, without credits, over its limit.

Counted for every route, at home and on Lambda: bytes of the body that are read, calls of the store, calls
upstream, and steps of the gateway's own code.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Grant, Limits, NewKey
from kimi_gateway.edge.router import Access, Route
from kimi_gateway.storage.memory import MemoryStore
from support.client_costs import BIG, CHATS, GOOD, CountedStore, Desk
from support.inprocess import NOW, InProcess, Sent, Told, kimi, told
from upstream.kimi import model_row


@pytest.fixture(params=["home", "lambda"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    store = CountedStore(MemoryStore())
    with InProcess(store) as inner:  # type: ignore[arg-type]
        yield Desk(inner, store, request.param)


def path_of(route: Route) -> str:
    return re.sub(r"\{\w+\+?\}", "unheard-of", route.path)


def body_of(route: Route) -> bytes:
    if route.method != "POST":
        return b""
    return json.dumps(
        GOOD if "messages" in (route.example or {}) or route.path in CHATS else route.example
    ).encode()


def test_a_client_without_a_key_is_heard_nowhere(desk: Desk) -> None:
    for route in desk.routes:
        desk.ask(route.method, path_of(route), b"")  # makes what a process makes once
    desk.counting = True
    for route in desk.routes:
        for key in (None, "sk-other", keys.new_key()):
            spent = desk.ask(route.method, path_of(route), BIG if route.method == "POST" else b"", key)
            if route.access is Access.PAGE:
                assert (spent.status in (200, 404), spent.store, spent.upstream) == (True, Counter(), [])
                continue
            if route.access is Access.OPEN:
                assert spent.writes == 0
                assert len(spent.store) <= 1
                continue
            assert (spent.status, spent.read, spent.upstream) == (401, 0, [])
            looked = Counter(find_key=1) if key and keys.well_formed(key) else Counter[str]()
            assert spent.store == looked
            assert spent.steps < 150


def test_unknown_keys_of_an_address_ask_the_store_no_more_once_they_are_too_many(desk: Desk) -> None:
    known, newcomer, asked = desk.inner.key(), desk.inner.key(), Counter[str]()
    assert desk.ask("GET", "/user/credits", key=known).status == 200
    for _ in range(70):
        for path in CHATS:
            spent = desk.ask("POST", path, BIG, keys.new_key())
            assert (spent.status in (401, 429), spent.read) == (True, 0)
            asked += spent.store
    assert (asked, spent.status) == (Counter(find_key=200), 429)
    assert desk.ask("GET", "/user/credits", key=keys.new_key()).store == Counter()
    assert desk.ask("GET", "/user/credits", key=newcomer).status == 429
    for _ in range(50):
        assert desk.ask("GET", "/user/credits", key=known).status == 200
    desk.inner.now += 1
    for _ in range(15):
        assert desk.ask("POST", CHATS[0], json.dumps(GOOD).encode(), newcomer).status == 200


def test_valid_keys_that_are_new_to_the_process_take_nothing_from_the_address(desk: Desk) -> None:
    for _ in range(210):
        assert desk.ask("GET", "/user/credits", key=desk.inner.key()).status == 200


def test_the_store_is_probed_once_a_second_whoever_asks_for_the_health(desk: Desk) -> None:
    asked = Counter[str]()
    for _ in range(50):
        asked += desk.ask("GET", "/health").store
    assert asked["find_key"] <= 1
    desk.inner.now += 1
    assert desk.ask("GET", "/health").store["find_key"] == 1


def test_a_key_without_credits_gets_local_answers_and_asks_nobody(desk: Desk) -> None:
    inner = desk.inner
    key = inner.key(0, see_balance=True)
    for route in desk.routes:
        first, again = (desk.ask(route.method, path_of(route), body_of(route), key) for _ in range(2))
        if route.access is Access.OPEN:
            continue
        for spent in (first, again):
            assert spent.upstream == [], route.path
            assert sum(spent.store.values()) <= 4, (route.path, spent.store)
        if route.path in CHATS:
            assert (first.status, again.status) == (403, 403)
            assert (again.read, again.writes, again.store) == (0, 0, Counter(account=1))
        else:
            assert again.writes == 0
    assert inner.account(key).consumed == 0


def test_what_it_gets_is_what_was_known_last(desk: Desk) -> None:
    inner = desk.inner
    key, payer = inner.key(0, see_balance=True), inner.key(9, see_balance=True)
    count = json.dumps(GOOD).encode()
    assert desk.ask("GET", "/v1/users/me/balance", key=key).status == 503
    assert "kimi-next" not in {row["id"] for row in desk.ask("GET", "/v1/models", key=key).json["data"]}

    def listing(sent: Sent) -> Told:
        return told({"data": [model_row("kimi-next")]}) if sent.path == "/v1/models" else kimi(sent)

    inner.client.answer = listing
    for path in ("/v1/users/me/balance", "/v1/models"):
        paid, free = desk.ask("GET", path, key=payer), desk.ask("GET", path, key=key)
        assert (len(paid.upstream), free.upstream, free.json) == (1, [], paid.json)
    assert desk.ask("GET", "/v1/models/kimi-next", key=key).status == 200
    estimate = desk.ask("POST", "/v1/tokenizers/estimate-token-count", count, key)
    assert (estimate.status, estimate.upstream) == (200, [])
    assert estimate.json["data"]["total_tokens"] > 0
    counted = desk.ask("POST", "/v1/messages/count_tokens", count, key)
    assert (counted.status, counted.upstream) == (200, [])


def test_a_name_that_nobody_knows_makes_a_key_without_credits_ask_nobody(desk: Desk) -> None:
    key = desk.inner.key(0)
    body = json.dumps(GOOD | {"model": "unheard-of"}).encode()
    for path in CHATS:
        spent = desk.ask("POST", path, body, key)
        assert (spent.status, spent.upstream, spent.writes) == (403, [], 0)
    spent = desk.ask("POST", CHATS[0], body, desk.inner.key(1))
    assert (spent.status, spent.upstream, spent.writes) == (404, ["/v1/models"], 0)


def test_a_grant_counts_at_once(desk: Desk) -> None:
    key, body = desk.inner.key(0), json.dumps(GOOD).encode()
    assert [desk.ask("POST", CHATS[0], body, key).status for _ in range(3)] == [403, 403, 403]
    desk.inner.run(desk.store.inner.grant(desk.inner.account(key).id, Grant(1), NOW))
    assert desk.ask("POST", CHATS[0], body, key).status == 200
    assert [desk.ask("POST", CHATS[0], body, key).status for _ in range(2)] == [403, 403]


def test_a_key_without_credits_asks_the_store_ten_times_a_second_at_most(desk: Desk) -> None:
    key, body, asked = desk.inner.key(0), json.dumps(GOOD).encode(), Counter[str]()
    for _ in range(330):
        spent = desk.ask("POST", CHATS[0], body, key)
        assert spent.status == 403
        asked += spent.store
    assert asked["account"] <= 300
    desk.inner.now += 1
    assert desk.ask("POST", CHATS[0], body, key).store == Counter(account=1)


def test_files_of_a_key_without_credits_count_with_its_other_refused_requests(desk: Desk) -> None:
    """Each costs one read of the store, the first one too, and nothing of it is read."""
    key, body = desk.inner.key(0), json.dumps(GOOD).encode()
    for at in range(40):
        spent = desk.ask("POST", "/v1/files", BIG, key)
        assert (spent.status, spent.read, spent.writes) == (403, 0, 0), at
        assert spent.store["account"] == 1
    asked = [desk.ask("POST", CHATS[0], body, key).store["account"] for _ in range(300)]
    assert asked == [1] * 260 + [0] * 40


COUNTS = ("/v1/messages/count_tokens", "/v1/responses/input_tokens", "/v1/tokenizers/estimate-token-count")


@pytest.mark.parametrize("path", COUNTS)
def test_a_large_body_is_counted_for_accounts_with_credits_only(desk: Desk, path: str) -> None:
    poor, payer = desk.inner.key(0), desk.inner.key()
    large = GOOD | {"messages": [{"role": "user", "content": "word " * 20_000}], "input": "word " * 20_000}
    raw = json.dumps(large).encode()
    for spent in [desk.ask("POST", path, raw, poor) for _ in range(2)]:
        assert (spent.status, spent.read, spent.upstream, spent.store["account"]) == (403, 0, [], 1)
    assert desk.ask("POST", path, json.dumps(GOOD).encode(), poor).status == 200
    assert desk.ask("POST", path, raw, payer).status == 200


def test_large_bodies_that_are_counted_have_a_bucket_by_their_size(desk: Desk) -> None:
    key, body = desk.inner.key(), BIG + b"x" * 2**20
    statuses = [desk.ask("POST", COUNTS[at % 3], body, key).status for at in range(40)]
    assert statuses == [400] * 32 + [429] * 8
    refused = desk.ask("POST", COUNTS[0], body, key)
    assert (refused.read, refused.store["account"]) == (0, 0)
    assert desk.ask("POST", COUNTS[0], json.dumps(GOOD).encode(), key).status == 200
    desk.inner.now += 1
    assert [desk.ask("POST", COUNTS[0], body, key).status for _ in range(2)] == [400, 429]


def test_a_revoked_key_without_credits_is_no_key_any_more(desk: Desk) -> None:
    key, body = desk.inner.key(0), json.dumps(GOOD).encode()
    assert desk.ask("POST", CHATS[0], body, key).status == 403
    desk.inner.run(desk.store.inner.revoke_key(keys.digest(key), NOW))
    assert desk.ask("POST", CHATS[0], body, key).status == 401


def test_a_key_over_its_limit_is_refused_before_its_body_is_read(desk: Desk) -> None:
    key, body = desk.inner.key(limits=Limits(minute=1)), json.dumps(GOOD).encode()
    assert [desk.ask("POST", CHATS[0], body, key).status for _ in range(2)] == [200, 429]
    for path in CHATS:
        spent = desk.ask("POST", path, BIG, key)
        assert (spent.status, spent.read, spent.store, spent.upstream) == (429, 0, Counter(), [])


def test_a_tiers_limit_too_is_refused_before_a_body_is_read_until_a_grant_lifts_it(desk: Desk) -> None:
    key, body, asked = desk.inner.key(50), json.dumps(GOOD).encode(), Counter[str]()
    assert [desk.ask("POST", CHATS[0], body, key).status for _ in range(21)] == [200] * 20 + [429]
    for _ in range(50):
        spent = desk.ask("POST", CHATS[0], BIG, key)
        assert (spent.status, spent.read, spent.writes) == (429, 0, 0)
        asked += spent.store
    assert asked["account"] <= 5
    desk.inner.now += 1
    desk.inner.run(desk.store.inner.grant(desk.inner.account(key).id, Grant(100), NOW))
    assert desk.ask("POST", CHATS[0], body, key).status == 200


def test_the_free_calls_of_a_key_have_a_bucket_before_all_else(desk: Desk) -> None:
    key, count = desk.inner.key(limits=Limits(minute=1)), json.dumps(GOOD).encode()
    free = [route for route in desk.routes if route.access is Access.KEY]
    for number in range(60):
        assert desk.ask("POST", "/v1/messages/count_tokens", count, key).status == 200, number
    for route in free:
        spent = desk.ask(route.method, path_of(route), BIG if route.method == "POST" else b"", key)
        assert (spent.status, spent.read, spent.store, spent.upstream) == (429, 0, Counter(), [])


def test_a_refusal_takes_the_same_steps_whatever_the_body(desk: Desk) -> None:
    desk.counting = True
    poor, limited = desk.inner.key(0), desk.inner.key(limits=Limits(minute=1))
    good = json.dumps(GOOD).encode()
    for key in (poor, limited, limited):
        desk.ask("POST", CHATS[0], good, key)
    for key in (None, poor, limited):
        small, big = (desk.ask("POST", CHATS[0], body, key).steps for body in (b"{}", BIG))
        assert small == big < 150


def test_schemas_are_worked_at_behind_the_admission(desk: Desk) -> None:
    """A key without credits, asking for the first time: nothing is known of it yet."""
    desk.counting = True
    poor, payer = desk.inner.key(0), desk.inner.key()
    for number, path in enumerate(CHATS):
        body = GOOD | {
            "tools": [tool(path, f"{desk.at_home}_{number}_{at}") for at in range(9)]
        }  # below what is worked on in a thread, whose steps are not counted
        refused = desk.ask("POST", path, json.dumps(body).encode(), desk.inner.key(0))
        answered = desk.ask("POST", path, json.dumps(body).encode(), payer)
        again = desk.ask("POST", path, json.dumps(body).encode(), poor)
        assert (refused.status, answered.status, again.status) == (403, 200, 403)
        assert refused.steps < answered.steps / 4


def tool(path: str, name: str) -> dict[str, Any]:
    """One that takes work: alternatives of large objects, each read and merged."""
    members = {
        f"{name}_{at}": {"type": ["string", "null"], "minLength": at, "format": "x"} for at in range(40)
    }
    schema = {"type": "object", "allOf": [{"properties": members}, {"properties": members}]}
    named = {"name": name, "description": "Gets."}
    if path == "/v1/messages":
        return named | {"input_schema": schema}
    function = named | {"parameters": schema}
    return (
        {"type": "function", **function}
        if path == "/v1/responses"
        else {"type": "function", "function": function}
    )


BAD = {
    "no JSON": b"{",
    "no object": b"[]",
    "a wrong type": json.dumps(GOOD | {"model": 7}).encode(),
    "a name twice": b'{"model":"a","model":"b"}',
}


@pytest.mark.parametrize("fault", BAD)
def test_requests_that_are_wrong_have_a_bucket_by_their_size(desk: Desk, fault: str) -> None:
    key, body = desk.inner.key(), BAD[fault]
    statuses = [desk.ask("POST", CHATS[0], body, key).status for _ in range(310)]
    wrong = statuses.index(429)
    assert statuses == [400] * wrong + [429] * (310 - wrong)
    assert 290 <= wrong <= 300
    refused = desk.ask("POST", CHATS[0], BIG, key)
    assert (refused.read, refused.upstream, refused.store) == (0, [], Counter())
    desk.inner.now += 1
    assert [desk.ask("POST", CHATS[0], BIG, key).status for _ in range(2)] == [400, 429]
    other = desk.ask("POST", CHATS[0], json.dumps(GOOD).encode(), desk.inner.key())
    assert other.status == 200
    assert desk.inner.account(key).credits == 100


def test_an_unlimited_account_has_no_such_bucket(desk: Desk) -> None:
    key = desk.inner.key(None)
    assert {desk.ask("POST", CHATS[0], b"{", key).status for _ in range(310)} == {400}


@pytest.mark.parametrize("set_by", [-86_400, -1, 40])
def test_a_clock_that_is_set_prolongs_no_refusal(set_by: float) -> None:
    """The wall clock moves; the other does not."""
    with InProcess() as desk:
        key = desk.key(limits=Limits(day=1))
        assert [desk.chat(key, {}).status for _ in range(3)] == [200, 429, 429]
        desk.now += set_by
        admitted: list[str] = []
        admit: Callable[..., Any] = desk.store.admit

        async def counted(request: str, *about: Any) -> Any:
            admitted.append(request)
            return await admit(request, *about)

        desk.store.admit = counted  # type: ignore[method-assign]
        desk.chat(key, {})
        assert len(admitted) == 1


def test_a_clock_that_stands_still_prolongs_none_either() -> None:
    from kimi_gateway.accounts.gate import Gate

    ticks = 0.0

    async def scenario() -> None:
        nonlocal ticks
        store = CountedStore(MemoryStore())
        account = await store.inner.create_account("", Grant(9), NOW)
        key = await store.inner.create_key(NewKey("d", account.id, limits=Limits(day=0)), NOW)
        gate = Gate(store, lambda: NOW, 660, monotonic=lambda: ticks)  # type: ignore[arg-type]
        for passed, asked in ((0.0, 1), (29.9, 1), (30.1, 2)):
            ticks = passed
            with pytest.raises(Exception, match="0 requests per day reached"):
                await gate.admit("r", key, 1)
            assert store.calls["admit"] == asked

    asyncio.run(scenario())
