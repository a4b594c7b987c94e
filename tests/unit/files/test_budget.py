"""Bounds on the bytes of all attachments of a request, and of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from kimi_gateway.errors import BodyTooLarge, Unavailable
from kimi_gateway.files.bounds import Bounds
from kimi_gateway.files.budget import Memory, Places, Share
from kimi_gateway.pivot.attachments import DocumentText, MediaUrl
from support.resolving import at, inline, resolving
from support.web import Web
from upstream import ScriptedUpstream

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 9_000
TEXT = b"Hello. " * 1_000


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(a_png=PNG, b_png=PNG + b"2", c_png=PNG + b"3", a_txt=TEXT) as web:
        yield web


def named(web: Web, *names: str) -> list[str]:
    port = web.target.rpartition(":")[2]
    return [f"http://a.example:{port}/{name}" for name in names]


async def test_the_bytes_that_a_request_reads_are_bounded(web: Web, upstream: ScriptedUpstream) -> None:
    """The field of the attachment that is too much is named."""
    ports = (int(web.target.rpartition(":")[2]),)
    async with resolving(upstream, ports=ports, bounds=Bounds(read=20_000)) as made:
        attachments = [
            at(url, "image", field=f"messages.0.content.{number}")
            for number, url in enumerate(named(web, "a.png", "b.png", "c.png"))
        ]
        async with made.resolver.resolve("acc_a", attachments[:2]) as resolution:
            assert all(isinstance(each, MediaUrl) for each in resolution.results)
        with pytest.raises(BodyTooLarge, match=r"messages\.0\.content\.\d: .* 20000 bytes in all") as refused:
            async with made.resolver.resolve("acc_a", attachments):
                pass
        assert refused.value.status == 413
        assert refused.value.param in [each.field for each in attachments]
        assert await made.left() == (0, 0)


async def test_the_bytes_that_a_request_holds_are_bounded(web: Web, upstream: ScriptedUpstream) -> None:
    ports = (int(web.target.rpartition(":")[2]),)
    async with resolving(upstream, ports=ports, bounds=Bounds(held=30_000)) as made:
        (url,) = named(web, "a.txt")
        async with made.resolver.resolve("acc_a", [at(url)]) as resolution:
            assert isinstance(resolution.results[0], DocumentText)
        with pytest.raises(BodyTooLarge, match="pictures and texts in all"):
            async with made.resolver.resolve("acc_a", [inline(TEXT + bytes([n])) for n in range(65, 70)]):
                pass


async def test_a_process_holds_so_many_bytes_for_all_requests(web: Web, upstream: ScriptedUpstream) -> None:
    async with resolving(upstream) as made:
        memory = made.resolver._memory = Memory(20_000)
        async with made.resolver.resolve("acc_a", [inline(TEXT)]):
            assert memory.held == len(TEXT)
            async with made.resolver.resolve("acc_b", [inline(TEXT)]):
                assert memory.held == 2 * len(TEXT)
                with pytest.raises(Unavailable) as refused:
                    async with made.resolver.resolve("acc_c", [inline(TEXT)]):
                        pass
                assert (refused.value.status, refused.value.retry_after) == (503, 1)
        assert memory.held == 0
        async with made.resolver.resolve("acc_c", [inline(TEXT)]):  # there is room again
            pass
        assert memory.held == 0


async def test_who_leaves_gives_everything_back(upstream: ScriptedUpstream) -> None:
    async with resolving(upstream) as made:
        memory = made.resolver._memory
        entered = asyncio.Event()

        async def turn() -> None:
            async with made.resolver.resolve("acc_a", [inline(TEXT)]):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(turn())
        await entered.wait()
        assert memory.held
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert memory.held == 0


def test_a_share_is_given_back_once() -> None:
    memory = Memory(100)
    share = Share(memory, "acc_a", 100, 60)
    share.hold(inline(TEXT), 50)
    share.end()
    share.end()
    assert memory.held == share.held == 0


def test_one_account_cannot_take_what_others_need() -> None:
    """It gets half, the next one half of the rest, and so on; there is always some left."""
    memory = Memory(1_024)
    taken = {}
    for account in ("acc_a", "acc_b", "acc_c"):
        taken[account] = 0
        while memory.fits(account, 1):
            memory.take(account, 1)
            taken[account] += 1
    assert taken == {"acc_a": 512, "acc_b": 256, "acc_c": 128}
    for account, size in taken.items():
        memory.take(account, -size)
    assert memory.held == 0
    assert not memory._of


async def test_fetches_of_one_account_leave_places_for_others() -> None:
    places, entered, end = Places(8), list[str](), asyncio.Event()

    async def fetch(account: str) -> None:
        async with places.place(account, 30):
            entered.append(account)
            await end.wait()

    many = [asyncio.create_task(fetch("acc_a")) for _ in range(20)]
    for _ in range(3):
        await asyncio.sleep(0)
    other = asyncio.create_task(fetch("acc_b"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert entered == ["acc_a"] * 4 + ["acc_b"]
    for task in many[4:6]:  # they wait, and their clients leave
        task.cancel()
    end.set()
    await asyncio.gather(*many, other, return_exceptions=True)
    assert entered.count("acc_a") == 18
    assert (places.held, places._of, places._waiting) == (0, {}, {})


async def test_accounts_get_free_places_in_turn() -> None:
    places, entered = Places(2), list[str]()
    first = places.place("acc_a", 30)
    await first.__aenter__()

    async def fetch(account: str) -> None:
        async with places.place(account, 30):
            entered.append(account)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(fetch(each)) for each in ("acc_a", "acc_a", "acc_b", "acc_b", "acc_c")]
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)
    await asyncio.gather(*tasks)
    assert sorted(entered) == ["acc_a", "acc_a", "acc_b", "acc_b", "acc_c"]
    assert entered.index("acc_c") < 4
    assert places.held == 0


async def test_who_waits_too_long_for_a_place_is_told_to_try_again() -> None:
    places = Places(2)
    async with places.place("acc_a", 30):
        with pytest.raises(Unavailable):
            async with places.place("acc_a", 0.01):
                pass
        async with places.place("acc_b", 30):
            pass
    assert (places.held, places._waiting) == (0, {})


async def test_a_place_goes_past_a_task_that_is_just_cancelled() -> None:
    places, entered = Places(2), list[int]()
    held = places.place("acc_a", 30)
    await held.__aenter__()

    async def fetch(number: int) -> None:
        async with places.place("acc_a", 30):
            entered.append(number)

    tasks = [asyncio.create_task(fetch(number)) for number in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await held.__aexit__(None, None, None)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert entered == [1]
    assert (places.held, places._waiting) == (0, {})
