"""What a failure puts out and for how long, without a pool; and what every record promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kimi_gateway.providers.tokens.outages import (
    BREAKER,
    PAIR_OUT,
    PROBE_EVERY,
    LocalOutageLog,
    Outage,
    OutageLog,
    cleared,
    due_back,
    of_failure,
)
from kimi_gateway.storage.dynamodb.store import DynamoStore
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.pooling import MODEL, NOW, failure
from support.store_client import ON_DYNAMODB, STORES

T = "tok_1"


def put(cause: str, after: float | None = None, in_a_row: int = 1, model: str = MODEL) -> Outage | None:
    return of_failure(failure(cause, after), T, model, in_a_row, NOW + 0.5)


@pytest.mark.parametrize("cause", ["authentication", "quota"])
def test_a_dead_or_broke_token_is_out_for_all_models_and_due_a_try_in_a_minute(cause: str) -> None:
    assert put(cause) == Outage(T, "", cause, NOW + PROBE_EVERY)


@pytest.mark.parametrize("cause", ["permission", "model"])
def test_a_model_that_a_token_may_not_use_is_out_with_this_token_alone(cause: str) -> None:
    assert put(cause) == Outage(T, MODEL, cause, NOW + PAIR_OUT)
    assert put(cause, model="") is None


@pytest.mark.parametrize("cause", ["rate", "overload"])
@pytest.mark.parametrize(("after", "out"), [(None, 2), (0, 1), (0.6, 2), (60, 61)])
def test_a_limited_token_is_out_until_its_time_rounded_up(cause: str, after: float | None, out: int) -> None:
    assert put(cause, after) == Outage(T, "", cause, NOW + out)


@pytest.mark.parametrize("cause", ["server", "connect", "broken"])
def test_the_breaker_opens_at_the_third_failure_and_longer_at_each_more(cause: str) -> None:
    assert [put(cause, in_a_row=count) for count in (1, 2)] == [None, None]
    opened = [put(cause, in_a_row=count) for count in (3, 4, 5, 6, 60)]
    assert opened == [Outage(T, "", cause, NOW + seconds) for seconds in (*BREAKER, BREAKER[-1], BREAKER[-1])]


@pytest.mark.parametrize("cause", ["timeout", "invalid", "content_filter", "context"])
def test_nothing_else_puts_a_token_out(cause: str) -> None:
    assert put(cause, in_a_row=99) is None


@pytest.mark.parametrize(
    ("cause", "holds"), [("authentication", True), ("quota", True), ("rate", False), ("model", False)]
)
def test_time_ends_all_but_death_and_poverty(cause: str, holds: bool) -> None:
    bad = Outage(T, "", cause, NOW)
    assert [bad.holds(NOW - 1), bad.holds(NOW), bad.due(NOW - 1), bad.due(NOW)] == [True, holds, False, True]


@pytest.mark.parametrize(("cause", "longest"), [("authentication", 60), ("model", 600), ("rate", 86_400)])
def test_outages_of_a_clock_that_went_back_are_over(cause: str, longest: int) -> None:
    bad = Outage(T, "", cause, NOW + longest)
    assert not bad.due(NOW)
    assert not bad.due(NOW - longest)
    assert bad.due(NOW - 3 * longest)


WIDE, PAIR = Outage(T, "", "authentication", NOW), Outage(T, MODEL, "model", NOW)


@pytest.mark.parametrize(
    ("cause", "ends"),
    [
        (None, [WIDE, PAIR]),
        ("invalid", [WIDE, PAIR]),
        ("content_filter", [WIDE, PAIR]),
        ("context", [WIDE, PAIR]),
        ("model", [WIDE]),
        ("permission", [WIDE]),
        ("rate", []),
        ("quota", []),
        ("server", []),
        ("connect", []),
        ("broken", []),
        ("timeout", []),
    ],
)
def test_an_answer_ends_what_it_disproves(cause: str | None, ends: list[Outage]) -> None:
    failed = failure(cause) if cause else None
    bad = of_failure(failed, T, MODEL, 1, NOW) if failed else None
    assert cleared(failed, bad, [WIDE, PAIR]) == ends


def test_the_first_due_is_asked_first_and_the_dead_last_unless_their_minute_is_over() -> None:
    def order(*known: Outage) -> list[str]:
        return [each.cause for each in sorted(known, key=lambda each: due_back([each], NOW))]

    dead, limited = Outage(T, "", "authentication", NOW + 10), Outage(T, "", "rate", NOW + 50)
    assert order(dead, limited) == ["rate", "authentication"]
    assert order(limited, Outage(T, "", "authentication", NOW)) == ["authentication", "rate"]
    assert order(limited, Outage(T, "", "server", NOW + 5)) == ["server", "rate"]


@pytest.fixture(params=["local", "sqlite", "moto", "dynalite"])
async def record(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[OutageLog]:
    if request.param == "local":
        yield LocalOutageLog()
        return
    url = request.getfixturevalue(f"{request.param}_url") if request.param in ON_DYNAMODB else ""
    async with STORES[request.param](tmp_path, url) as store:
        assert isinstance(store, SqliteStore | DynamoStore)
        yield store


@pytest.mark.anyio
async def test_a_record_keeps_the_last_outage_of_each_token_and_model(record: OutageLog) -> None:
    await record.publish(T, "", "rate", NOW + 1)
    await record.publish(T, "", "quota", NOW + 2)
    await record.publish(T, MODEL, "model", NOW + 3)
    await record.publish("tok_2", "", "server", NOW + 4)
    await record.retract("tok_2", "")
    await record.retract("tok_3", "")
    assert sorted(await record.published()) == [(T, "", "quota", NOW + 2), (T, MODEL, "model", NOW + 3)]


@pytest.mark.anyio
async def test_a_try_that_is_due_is_given_once_a_minute(record: OutageLog) -> None:
    assert not await record.claim(T, NOW, NOW + 60)
    await record.publish(T, "", "quota", NOW)
    await record.publish("tok_2", MODEL, "model", NOW)
    assert [await record.claim(T, NOW, NOW + 60) for _ in range(3)] == [True, False, False]
    assert not await record.claim(T, NOW + 59, NOW + 119)
    assert await record.claim(T, NOW + 60, NOW + 120)
    assert not await record.claim("tok_2", NOW, NOW + 60)
    assert (T, "", "quota", NOW + 120) in await record.published()


@pytest.mark.anyio
async def test_a_try_is_due_when_the_clock_went_back(record: OutageLog) -> None:
    await record.publish(T, "", "quota", NOW + 60)
    assert await record.claim(T, NOW - 10_000, NOW - 9_940)


@pytest.mark.anyio
async def test_the_file_forgets_tokens_that_nobody_has_any_more(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store")
    await store.publish("gone", "", "quota", NOW)
    await store.publish(T, "", "quota", NOW + 86_400)
    assert len(await store.published()) == 2
    await store.publish(T, "", "quota", NOW + 8 * 86_400)
    assert await store.published() == [(T, "", "quota", NOW + 8 * 86_400)]
    await store.close()
