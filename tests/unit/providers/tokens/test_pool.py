"""Which token a request gets, and what the pool remembers of failures: by cause, by model, by time."""

from __future__ import annotations

import pytest

from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.tokens.outages import PAIR_OUT, PROBE_EVERY
from support.pooling import MODEL, A, B, C, Scene, failure, on_a_loop, preferring

DEAD = pytest.mark.parametrize("cause", ["authentication", "quota"])
OF_BREAKER = pytest.mark.parametrize("cause", ["server", "connect", "broken"])


@on_a_loop
async def test_without_a_token_there_is_a_failure_of_the_operators() -> None:
    with pytest.raises(UpstreamFailure, match="no upstream token"):
        await Scene().lease()


@on_a_loop
async def test_a_conversation_stays_with_its_token_and_moves_only_when_that_goes_out() -> None:
    scene = Scene(A, B, C)
    mine = {token: preferring(token) for token in (A, B, C)}
    assert [await scene.works(mine[token]) for token in (A, B, C)] == [A, B, C]
    await scene.fails("rate", 60, about=mine[A])
    assert await scene.works(mine[A]) != A
    assert [await scene.works(mine[token]) for token in (B, C)] == [B, C]
    scene.clock.now += 62
    assert await scene.works(mine[A]) == A


@on_a_loop
async def test_without_a_conversation_the_idlest_token_is_asked_then_each_in_turn() -> None:
    scene = Scene(A, B, C)
    leases = [await scene.pool.lease(None, set()) for _ in range(6)]
    assert sorted(lease.token.id for lease in leases) == sorted(token.id for token in (A, A, B, B, C, C))
    leases[0].end()
    assert (await scene.pool.lease(None, set())).token == leases[0].token


@on_a_loop
async def test_the_next_attempt_gets_another_token() -> None:
    scene = Scene(A, B)
    first = await scene.fails("server")
    assert await scene.works(tried=(first,)) != first


@DEAD
@on_a_loop
async def test_a_dead_token_is_out_until_one_request_a_minute_finds_it_mended(cause: str) -> None:
    scene = Scene(A, B)
    await scene.fails(cause, about=preferring(A, (A, B)))
    for _ in range(3):
        assert await scene.serving() == {B}
        scene.clock.now += PROBE_EVERY
        asked = [await scene.fails(cause) if n == 0 else await scene.works() for n in range(5)]
        assert asked == [A, B, B, B, B]
    scene.clock.now += PROBE_EVERY
    assert await scene.works() == A
    assert await scene.serving() == {A, B}


@on_a_loop
async def test_a_second_attempt_and_other_endpoints_are_no_tries_of_a_dead_token() -> None:
    scene = Scene(A, B)
    await scene.fails("quota", about=preferring(A, (A, B)))
    scene.clock.now += PROBE_EVERY
    assert (await scene.pool.lease(None, set())).token == B
    assert await scene.works(tried=(C,)) == B
    assert await scene.works() == A


@on_a_loop
async def test_another_endpoint_that_answers_says_nothing_of_money_but_of_the_secret() -> None:
    scene = Scene(A)
    for cause, is_over in (("quota", False), ("authentication", True)):
        await scene.fails(cause)
        lease = await scene.pool.lease(None, set())
        lease.answered()
        lease.end()
        assert await scene.pool.another(set(), MODEL) is is_over


@on_a_loop
async def test_what_is_known_of_a_model_holds_for_this_model_ten_minutes() -> None:
    scene = Scene(A, B)
    await scene.fails("model", about=preferring(A, (A, B)))
    assert await scene.serving() == {B}
    assert await scene.serving("kimi-k2.6") == {A, B}
    scene.clock.now += PAIR_OUT - 1
    assert await scene.serving() == {B}
    scene.clock.now += 1
    assert await scene.serving() == {A, B}


@on_a_loop
async def test_an_endpoint_that_the_account_lacks_puts_nothing_out() -> None:
    scene = Scene(A, B)
    lease = await scene.pool.lease(None, set())
    lease.end(failure("model"))
    assert await scene.serving() == {A, B}


@pytest.mark.parametrize("cause", ["rate", "overload"])
@on_a_loop
async def test_a_limited_token_is_out_until_its_time(cause: str) -> None:
    scene = Scene(A, B)
    await scene.fails(cause, 7, about=preferring(A, (A, B)))
    scene.clock.now += 6.9
    assert await scene.serving() == {B}
    scene.clock.now += 1.1
    assert await scene.serving() == {A, B}


@OF_BREAKER
@on_a_loop
async def test_the_breaker_opens_at_three_in_a_row_and_lets_one_request_try(cause: str) -> None:
    scene, about = Scene(A, B), preferring(A, (A, B))
    assert [await scene.fails(cause, about=about) for _ in range(3)] == [A, A, A]
    for seconds in (5, 15, 60, 60):
        scene.clock.now += seconds - 1
        assert await scene.serving() == {B}
        scene.clock.now += 1
        trying = await scene.lease(about)
        assert trying.token == A
        assert await scene.serving() == {B}
        trying.end(failure(cause))
    scene.clock.now += 60
    assert await scene.works(about) == A
    assert await scene.serving() == {A, B}
    assert [await scene.fails(cause, about=about) for _ in range(3)] == [A, A, A]
    scene.clock.now += 5
    assert await scene.works(about) == A


@on_a_loop
async def test_two_failures_and_an_answer_are_not_three_in_a_row() -> None:
    scene, about = Scene(A, B), preferring(A, (A, B))
    for cause in ("server", "connect", "invalid", "broken", "server", "content_filter", "server", "server"):
        assert await scene.fails(cause, about=about) == A
    assert await scene.serving() == {A, B}


@on_a_loop
async def test_many_that_fail_at_once_are_one_incident() -> None:
    scene, about = Scene(A, B), preferring(A, (A, B))
    for lease in [await scene.lease(about) for _ in range(20)]:
        lease.end(failure("server"))
    scene.clock.now += 5
    assert await scene.serving() == {A, B}


@on_a_loop
async def test_a_try_that_its_client_left_or_that_timed_out_leaves_the_breaker_to_the_next() -> None:
    scene, about = Scene(A, B), preferring(A, (A, B))
    for _ in range(3):
        await scene.fails("server", about=about)
    scene.clock.now += 5
    for ending in (None, failure("timeout")):
        trying = await scene.lease(about)
        assert (trying.token, await scene.works(about)) == (A, B)
        trying.end(ending)
    assert await scene.works(about) == A


@pytest.mark.parametrize("cause", ["invalid", "content_filter", "context"])
@on_a_loop
async def test_a_fault_of_the_clients_is_an_answer_and_the_token_is_in_again(cause: str) -> None:
    scene = Scene(A)
    await scene.fails("authentication")
    assert not await scene.pool.another(set(), MODEL)
    await scene.fails(cause)
    assert await scene.pool.another(set(), MODEL)


@pytest.mark.parametrize("ending", [None, "timeout", "server"])
@on_a_loop
async def test_what_is_no_answer_brings_no_dead_token_back(ending: str | None) -> None:
    scene = Scene(A)
    await scene.fails("authentication")
    for _ in range(4):
        (await scene.lease()).end(failure(ending) if ending else None)
    assert not await scene.pool.another(set(), MODEL)


@on_a_loop
async def test_an_answer_to_what_was_asked_before_the_outage_does_not_end_it() -> None:
    scene, about = Scene(A, B), preferring(A, (A, B))
    early, late = await scene.lease(about), await scene.lease(about)
    late.end(failure("rate", 60))
    early.answered()
    early.end()
    assert await scene.serving() == {B}


@on_a_loop
async def test_an_answer_ends_the_outage_that_it_disproves_and_no_newer_ones() -> None:
    scene = Scene(A)
    await scene.fails("rate", 10)
    early, late = await scene.lease(), await scene.lease()
    late.end(failure("rate", 60))
    early.answered()
    early.end()
    assert not await scene.pool.another(set(), MODEL)
    scene.clock.now += 61
    assert await scene.pool.another(set(), MODEL)


@on_a_loop
async def test_a_stream_that_began_brings_its_token_back_before_it_ends() -> None:
    scene = Scene(A)
    await scene.fails("quota")
    lease = await scene.lease()
    lease.answered()
    assert await scene.pool.another(set(), MODEL)
    lease.end()
    assert await scene.pool.another(set(), MODEL)


@DEAD
@on_a_loop
async def test_the_last_token_if_dead_is_asked_by_one_request_at_a_time(cause: str) -> None:
    scene = Scene(A, B)
    for token in (A, B):
        await scene.fails(cause, tried=tuple({A, B} - {token}))
    trying = await scene.lease()
    for _ in range(3):
        with pytest.raises(UpstreamFailure, match="being tried"):
            await scene.lease()
    trying.end(failure(cause))
    assert {await scene.fails(cause) for _ in range(4)} == {A, B}


@on_a_loop
async def test_one_token_that_is_mended_serves_the_very_next_request() -> None:
    scene = Scene(A)
    await scene.fails("authentication")
    assert await scene.works() == A
    leases = [await scene.lease() for _ in range(3)]
    assert {lease.token for lease in leases} == {A}


@on_a_loop
async def test_when_none_is_in_the_first_due_back_is_asked_and_the_dead_only_when_a_try_is_due() -> None:
    scene = Scene(A, B, C)
    await scene.fails("authentication", tried=(B, C))
    await scene.fails("rate", 300, tried=(A, C))
    await scene.fails("rate", 200, tried=(A, B))
    assert [await scene.fails("timeout") for _ in range(3)] == [C, C, C]
    scene.clock.now += PROBE_EVERY
    assert [await scene.fails("authentication"), await scene.fails("timeout")] == [A, C]
    scene.clock.now += 140
    assert await scene.fails("timeout") != B


@on_a_loop
async def test_a_token_that_is_taken_out_of_the_file_while_it_is_out_leaves_no_trace_in_the_choice() -> None:
    scene = Scene(A, B)
    lease = await scene.lease(preferring(A, (A, B)))
    await scene.fails("authentication", about=preferring(A, (A, B)))
    scene.held = (B,)
    scene.clock.now += PROBE_EVERY
    assert await scene.serving() == {B}
    lease.end(failure("server"))
    scene.held = (B, C)
    assert await scene.serving() == {B, C}


@on_a_loop
async def test_a_clock_that_goes_back_keeps_no_token_out_for_longer() -> None:
    scene = Scene(A, B)
    await scene.fails("authentication", about=preferring(A, (A, B)))
    await scene.fails("model", about=preferring(B, (A, B)), tried=(A,))
    scene.clock.now -= 1_000_000
    assert await scene.works() == A
    assert await scene.serving() == {A, B}
