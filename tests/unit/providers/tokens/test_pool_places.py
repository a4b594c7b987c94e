"""Places at tokens: never more than allowed, never lost, given to those who wait in their order."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_gateway.observe import current_account
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.tokens.health import READ_EVERY
from kimi_gateway.providers.tokens.outages import PROBE_EVERY, LocalOutageLog
from kimi_gateway.providers.tokens.pool import QUEUE, TokenLease
from support.examples import examples
from support.idle import settle
from support.pooling import A, B, C, Clock, Scene, failure, on_a_loop, preferring


def asking(scene: Scene, about: str = "", model: str = "kimi-k3") -> asyncio.Task[TokenLease]:
    return asyncio.create_task(scene.lease(about, model=model))


@on_a_loop
async def test_a_full_token_hands_its_conversations_to_the_next() -> None:
    scene = Scene(A, B, places=1)
    first, second = await scene.lease("q"), await scene.lease("q")
    assert {first.token, second.token} == {A, B}


@on_a_loop
async def test_those_who_wait_are_served_in_their_order_and_before_any_who_come_later() -> None:
    scene = Scene(A, places=1)
    held = await scene.lease()
    waiting = [asking(scene) for _ in range(3)]
    await settle()
    for task in waiting:
        held.end()
        late = asking(scene)
        await settle()
        assert task.done()
        assert not late.done()
        late.cancel()
        held = task.result()


@on_a_loop
async def test_one_that_is_served_and_leaves_in_the_same_moment_passes_its_place_on() -> None:
    scene = Scene(A, places=1)
    held = await scene.lease()
    first, second = asking(scene), asking(scene)
    await settle()
    held.end()
    first.cancel()
    await settle()
    assert (first.cancelled(), second.done()) == (True, True)
    second.result().end()
    (await scene.lease()).end()


@on_a_loop
async def test_ending_a_lease_twice_frees_one_place() -> None:
    scene = Scene(A, places=1)
    held = await scene.lease()
    held.end()
    held.end(failure("authentication"))
    await scene.lease()
    waiting = asking(scene)
    await settle()
    assert not waiting.done()
    waiting.cancel()


@on_a_loop
async def test_a_wait_that_is_too_long_ends_as_overload_and_keeps_no_place() -> None:
    scene = Scene(A, places=1)
    scene.pool.patience = 0.02
    held = await scene.lease()
    with pytest.raises(UpstreamFailure, match="busy") as caught:
        await scene.lease()
    assert caught.value.cause == "overload"
    held.end()
    (await scene.lease()).end()


@on_a_loop
async def test_a_queue_that_is_full_refuses_at_once() -> None:
    scene = Scene(A, places=1)
    await scene.lease()
    waiting = [asking(scene) for _ in range(QUEUE)]
    await settle()
    with pytest.raises(UpstreamFailure, match="busy"):
        await scene.lease()
    for task in waiting:
        task.cancel()


@on_a_loop
async def test_one_who_waits_gets_another_token_that_comes_back() -> None:
    scene = Scene(A, B, places=1)
    held = [await scene.lease() for _ in range(2)]
    waiting = asking(scene)
    await settle()
    held[0].end(failure("rate", 60))
    await settle()
    assert not waiting.done()
    held[1].end()
    await settle()
    assert waiting.result().token == held[1].token


@on_a_loop
async def test_when_all_go_out_those_who_wait_get_the_first_due_back_within_its_places() -> None:
    scene = Scene(A, B, places=1)
    held = [await scene.lease() for _ in range(2)]
    waiting = [asking(scene) for _ in range(3)]
    await settle()
    held[0].end(failure("rate", 60))
    held[1].end(failure("rate", 30))
    await settle()
    assert [task.done() for task in waiting] == [True, False, False]
    assert waiting[0].result().token == held[1].token
    for task in waiting[1:]:
        task.cancel()


@on_a_loop
async def test_those_who_wait_for_a_token_that_turns_out_dead_are_reported_while_one_tries_it() -> None:
    scene = Scene(A, places=1)
    held = await scene.lease()
    waiting = [asking(scene) for _ in range(3)]
    await settle()
    held.end(failure("authentication"))
    await settle()
    assert waiting[0].result().token == A
    for task in waiting[1:]:
        with pytest.raises(UpstreamFailure, match="being tried"):
            task.result()


@on_a_loop
async def test_tokens_taken_away_or_unreadable_end_the_wait() -> None:
    scene = Scene(A, places=1)
    held = await scene.lease()
    waiting = asking(scene)
    await settle()
    scene.held = ()
    held.end()
    await settle()
    with pytest.raises(UpstreamFailure, match="no upstream token"):
        waiting.result()


@on_a_loop
async def test_a_try_of_a_dead_token_keeps_to_its_places() -> None:
    scene = Scene(A, B, places=1)
    held = await scene.lease("q")
    scene.pool.learn(held.token, "", failure("quota"))
    scene.clock.now += PROBE_EVERY
    other = await scene.lease("q")
    assert other.token != held.token


@on_a_loop
async def test_a_token_that_time_brings_back_goes_to_those_who_wait_first() -> None:
    scene = Scene(A, B, places=1)
    await scene.lease(preferring(A, (A, B)))
    await scene.fails("rate", 60, tried=(A,))
    waiting = asking(scene)
    await settle()
    scene.clock.now += 61
    late = asking(scene)
    await settle()
    assert (waiting.done(), late.done()) == (True, False)
    late.cancel()


@on_a_loop
async def test_a_try_that_another_process_got_takes_no_place_here() -> None:
    clock, record = Clock(), LocalOutageLog()
    ours, theirs = (Scene(A, B, places=1, record=record, clock=clock) for _ in range(2))
    ours.pool.learn(A, "", failure("quota"))
    await settle()
    clock.now += PROBE_EVERY - 1
    for scene in (ours, theirs):
        await scene.works(preferring(B, (A, B)))
    clock.now += 1
    trying, served = await ours.lease(), await theirs.lease()
    assert (trying.token, served.token) == (A, B)
    trying.answered()
    await settle()
    clock.now += READ_EVERY
    assert (await theirs.lease()).token == A


causes = st.sampled_from(
    ["answered", None, "authentication", "quota", "model", "rate", "server", "connect", "timeout", "invalid"]
)
Script = list[tuple[str, object, object]]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 5), st.sampled_from(["kimi-k3", "kimi-k2.6"])),
        st.tuples(st.just("end"), st.integers(0, 20), causes),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.just("")),
        st.tuples(st.just("end and cancel"), st.integers(0, 20), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.sampled_from([-100, 1, 5, 30, 60, 600]), st.just("")),
        st.tuples(st.just("hold"), st.sampled_from([(A,), (A, B), (A, B, C)]), st.just("")),
        st.tuples(st.just("settle"), st.just(0), st.just("")),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(places=st.integers(1, 3), script=steps)
@on_a_loop
async def test_places_are_never_exceeded_and_never_lost(
    places: int, script: list[tuple[str, object, object]]
) -> None:
    scene = Scene(A, B, C, places=places)
    tasks: list[asyncio.Task[TokenLease]] = []
    ended: set[asyncio.Task[TokenLease]] = set()

    def held() -> list[asyncio.Task[TokenLease]]:
        return [t for t in tasks if t.done() and not t.cancelled() and not t.exception() and t not in ended]

    def end(at: int, cause: object) -> None:
        if mine := held():
            task = mine[at % len(mine)]
            ended.add(task)
            if cause == "answered":
                task.result().answered()
            task.result().end(failure(str(cause)) if cause not in (None, "answered") else None)

    for what, one, other in script:
        match what:
            case "ask":
                tasks.append(asking(scene, str(one), str(other)))
            case "end":
                end(int(str(one)), other)
            case "cancel" if tasks:
                tasks[int(str(one)) % len(tasks)].cancel()
            case "end and cancel" if tasks:
                end(int(str(one)), None)
                tasks[int(str(other)) % len(tasks)].cancel()
            case "wait":
                scene.clock.now += int(str(one))
            case "hold":
                scene.held = one  # type: ignore[assignment]
        if what != "end and cancel":
            await settle()
            assert all(count <= places for count in Counter(t.result().token for t in held()).values())
    scene.held = (A, B, C)
    while any(not task.done() for task in tasks) or held():
        end(0, None)
        await settle()
        scene.clock.now += 1000
        if not held():
            for task in tasks:
                task.cancel()
    for task in tasks:
        assert task.cancelled() or not task.exception() or isinstance(task.exception(), UpstreamFailure)
    for token in (A, B, C):
        scene.pool.learn(token, "kimi-k3", None)
    all_places = [await asyncio.wait_for(scene.lease(), 5) for _ in range(3 * places)]
    assert Counter(lease.token for lease in all_places) == {A: places, B: places, C: places}


def asking_as(scene: Scene, account: str) -> asyncio.Task[TokenLease]:
    async def lease() -> TokenLease:
        current_account.set(account)
        return await scene.lease()

    return asyncio.create_task(lease())


@on_a_loop
async def test_accounts_that_wait_are_served_in_turn() -> None:
    scene = Scene(A, places=1)
    held = await scene.lease()
    waiting = [(who, asking_as(scene, who)) for who in "aaaaabbc"]
    await settle()
    order = ""
    for _ in range(8):
        held.end()
        await settle()
        (served,) = [(who, task) for who, task in waiting if task.done()]
        waiting.remove(served)
        order += served[0]
        held = served[1].result()
    assert order == "abcabaaa"


@on_a_loop
async def test_a_full_queue_refuses_the_newest_of_the_account_that_has_most_in_it() -> None:
    scene = Scene(A, places=1)
    held = await scene.lease()
    crowd = [asking_as(scene, "crowd") for _ in range(QUEUE)]
    await settle()
    others = [asking_as(scene, f"other {number % 4}") for number in range(8)]
    await settle()
    assert [task.done() for task in crowd] == [False] * (QUEUE - 8) + [True] * 8
    for number, task in enumerate(reversed(crowd[-8:])):
        with pytest.raises(UpstreamFailure, match=f"busy, and {QUEUE - number - 1} other") as caught:
            task.result()
        error = caught.value.shown()
        assert (error.status, error.retry_after, error.cause) == (429, 1, "upstream_overload")
    refused = asking_as(scene, "crowd")
    await settle()
    with pytest.raises(UpstreamFailure, match=f"busy, and {QUEUE - 8} other"):
        refused.result()
    assert not any(task.done() for task in others)
    for task in (crowd[0], *others[:4], crowd[1], *others[4:]):
        held.end()
        await settle()
        held = task.result()


@on_a_loop
async def test_accounts_that_have_one_each_in_a_full_queue_keep_it() -> None:
    scene = Scene(A, places=1)
    await scene.lease()
    waiting = [asking_as(scene, f"account {number}") for number in range(QUEUE)]
    await settle()
    late = asking_as(scene, "late")
    await settle()
    with pytest.raises(UpstreamFailure, match="all upstream tokens are busy"):
        late.result()
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
