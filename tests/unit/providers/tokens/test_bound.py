"""A request that one token only may serve: it waits for no other, and says when that is of no use."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from kimi_gateway.flow.attempts import of_bound
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.tokens.outages import LASTING, PAIR_OUT
from kimi_gateway.providers.tokens.pool import TokenLease
from support.pooling import A, B, C, Scene, call, failure, on_a_loop, preferring

PASSING = ("rate", "overload", "server", "connect", "broken")


async def bound(scene: Scene, about: str = "", tried: frozenset[str] = frozenset()) -> TokenLease:
    return await scene.pool.lease(replace(call(about), only=B.id), set(tried))


async def put_out(scene: Scene, cause: str) -> None:
    """Until it is out, which takes several failures for some causes."""
    for _ in range(3):
        lease = await bound(scene)
        lease.end(failure(cause, 60))


@on_a_loop
async def test_it_gets_its_token_whatever_the_conversation_prefers() -> None:
    scene = Scene(A, B, C)
    for about in map(preferring, (A, B, C)):
        for tried in (frozenset[str](), frozenset((B.id,))):
            lease = await bound(scene, about, tried)
            assert lease.token == B
            lease.end()


@pytest.mark.parametrize("cause", sorted(LASTING))
@on_a_loop
async def test_with_its_token_out_for_long_it_fails_at_once_while_others_go_on(cause: str) -> None:
    scene = Scene(A, B, C)
    lease = await bound(scene)
    lease.end(failure(cause))
    with pytest.raises(UpstreamFailure) as caught:
        await bound(scene)
    assert caught.value.cause == "bound"
    assert await scene.serving() == {A, C}
    scene.clock.now += PAIR_OUT + 1  # a dead token comes back by a probe only, the others by time
    if cause in ("permission", "model"):
        (await bound(scene)).end()


@pytest.mark.parametrize("cause", sorted(LASTING))
@on_a_loop
async def test_as_the_last_token_it_is_asked_since_an_upload_would_not_help(cause: str) -> None:
    scene = Scene(B)
    for _ in range(2):
        lease = await bound(scene)
        assert lease.token == B
        lease.end(failure(cause))


@pytest.mark.parametrize("cause", PASSING)
@on_a_loop
async def test_a_passing_outage_is_the_vendors_to_tell(cause: str) -> None:
    scene = Scene(A, B, C)
    await put_out(scene, cause)
    assert await scene.serving() == {A, C}
    lease = await bound(scene)
    assert lease.token == B
    lease.end()


@on_a_loop
async def test_a_token_that_is_gone_fails_whoever_is_left() -> None:
    scene = Scene(A)
    with pytest.raises(UpstreamFailure) as caught:
        await bound(scene)
    assert caught.value.cause == "bound"
    scene.held = ()
    with pytest.raises(UpstreamFailure) as caught:
        await bound(scene)
    assert caught.value.cause == "authentication"  # nobody can serve anything


@on_a_loop
async def test_it_waits_for_a_place_at_its_own_token() -> None:
    scene = Scene(A, B, places=1)
    first = await bound(scene)
    second = asyncio.create_task(bound(scene))
    await asyncio.sleep(0)
    assert not second.done()
    other = await scene.lease(preferring(A, (A, B)))
    other.end()
    await asyncio.sleep(0)
    assert not second.done()
    first.end()
    lease = await second
    assert lease.token == B
    lease.end()


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("cause", [*sorted(LASTING), *PASSING, "timeout", "invalid", "context"])
def test_a_failure_names_the_files_where_another_token_would_do(cause: str, other: bool) -> None:
    shown = of_bound(failure(cause), other)
    assert shown.cause == ("bound" if cause in LASTING and other else cause)
