"""The record of bad news that processes share: what reaches whom and when, and what if it is down."""

from __future__ import annotations

import asyncio

from kimi_gateway.providers.tokens.health import READ_EVERY
from kimi_gateway.providers.tokens.outages import PROBE_EVERY, LocalOutageLog
from support.idle import settle
from support.pooling import A, B, C, Clock, Scene, ShakyRecord, failure, on_a_loop, preferring


@on_a_loop
async def test_outages_outlive_the_process_and_reach_others_at_their_next_look() -> None:
    clock, record = Clock(), ShakyRecord()
    ours, theirs = (Scene(A, B, record=record, clock=clock) for _ in range(2))
    assert await theirs.serving() == {A, B}
    await ours.fails("authentication", about=preferring(A, (A, B)))
    await settle()
    assert await Scene(A, B, record=record, clock=clock).serving() == {B}
    clock.now += READ_EVERY - 1
    assert await theirs.serving() == {A, B}
    clock.now += 1
    assert await theirs.serving() == {B}
    clock.now += READ_EVERY
    assert await ours.works() == A
    await settle()
    clock.now += READ_EVERY
    assert await theirs.serving() == {A, B}


@on_a_loop
async def test_of_all_processes_one_tries_a_dead_token() -> None:
    clock, record = Clock(), ShakyRecord()
    scenes = [Scene(A, B, record=record, clock=clock) for _ in range(5)]
    await scenes[0].fails("authentication", about=preferring(A, (A, B)))
    await settle()
    clock.now += PROBE_EVERY
    leases = [await scene.lease(str(number)) for scene in scenes for number in range(4)]
    assert [lease.token for lease in leases].count(A) == 1


@on_a_loop
async def test_a_breaker_that_another_process_opened_opens_longer_when_the_try_fails() -> None:
    clock, record = Clock(), ShakyRecord()
    ours, about = Scene(A, B, record=record, clock=clock), preferring(A, (A, B))
    for _ in range(3):
        await ours.fails("server", about=about)
    await settle()
    theirs = Scene(A, B, record=record, clock=clock)
    clock.now += 5
    assert await theirs.fails("server", about=about) == A
    clock.now += 14
    assert await theirs.serving() == {B}


@on_a_loop
async def test_the_record_is_read_by_one_for_all_that_wait_and_not_again_for_half_a_minute() -> None:
    record = ShakyRecord()
    scene = Scene(A, B, record=record)
    await record.publish(A.id, "", "rate", int(scene.clock.now) + 60)
    record.hanging = asyncio.Event()
    first = [asyncio.create_task(scene.lease(str(number))) for number in range(20)]
    await settle()
    first[0].cancel()
    record.hanging.set()
    leases = await asyncio.gather(*first[1:])
    assert {lease.token for lease in leases} == {B}
    assert await scene.serving() == {B}
    assert record.reads == 1
    scene.clock.now += READ_EVERY
    await scene.serving()
    assert record.reads == 2


@on_a_loop
async def test_a_record_that_hangs_is_waited_for_once_and_heard_when_it_speaks() -> None:
    record = ShakyRecord()
    scene = Scene(A, B, record=record)
    await record.publish(A.id, "", "rate", int(scene.clock.now) + 60)
    record.hanging = asyncio.Event()
    assert await scene.serving() == {A, B}
    record.hanging.set()
    await settle()
    assert (await scene.serving(), record.reads) == ({B}, 1)


@on_a_loop
async def test_a_record_that_is_down_fails_nothing_and_is_told_when_it_is_back() -> None:
    record = ShakyRecord()
    record.down = True
    scene = Scene(A, B, record=record)
    await scene.fails("authentication", about=preferring(A, (A, B)))
    assert await scene.serving() == {B}
    scene.clock.now += PROBE_EVERY
    assert [await scene.fails("authentication"), await scene.works()] == [A, B]
    await settle()
    assert await LocalOutageLog.published(record) == []
    record.down = False
    scene.clock.now += READ_EVERY
    assert await scene.serving() == {B}
    await scene.pool.close()
    assert [(token, cause) for token, _, cause, _ in await record.published()] == [(A.id, "authentication")]


@on_a_loop
async def test_what_is_learnt_while_the_record_is_being_read_is_not_lost() -> None:
    record = ShakyRecord()
    scene = Scene(A, B, C, record=record)
    await scene.fails("authentication", tried=(B, C))
    leases = {about: await scene.lease(preferring(about)) for about in (B, C)}
    await settle()
    scene.clock.now += READ_EVERY
    record.hanging = asyncio.Event()
    looking = asyncio.create_task(scene.lease())
    await settle()
    leases[B].end(failure("rate", 60))
    record.hanging.set()
    await looking
    assert await scene.serving() == {C}
    await scene.pool.close()
    assert sorted(token for token, *_ in await record.published()) == sorted((A.id, B.id))


@on_a_loop
async def test_closing_the_pool_tells_what_is_to_be_told() -> None:
    record = ShakyRecord()
    scene = Scene(A, record=record)
    await scene.fails("quota")
    await scene.pool.close()
    assert [cause for _, _, cause, _ in await record.published()] == ["quota"]
    await scene.works()
    await scene.pool.close()
    assert await record.published() == []
