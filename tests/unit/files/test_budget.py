"""Bounds on the bytes of all attachments of a request, and of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from kimi_gateway.errors import BodyTooLarge, Unavailable
from kimi_gateway.files.bounds import Bounds
from kimi_gateway.files.budget import Memory, Share
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
    share = Share(memory, 100, 100)
    share.hold(inline(TEXT), 60)
    share.end()
    share.end()
    assert memory.held == share.held == 0
