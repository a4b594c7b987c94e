"""An uploaded picture or video keeps its `ms://` id for the next turns of its account."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.errors import GatewayError
from kimi_gateway.files import cleaning
from kimi_gateway.files.reading import Reader
from kimi_gateway.files.shared import LOOKED_FOR_EVERY
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.storage.memory import MemoryStore
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.fetching import port_of
from support.raw_server import RawServer
from support.resolving import LARGE, MP4, SMALL, SPARE, A, B, Resolving, at, inline, resolving
from upstream import ScriptedUpstream, Status

pytestmark = pytest.mark.anyio

VIDEO, PICTURE = inline(MP4, "video"), inline(LARGE, "image")
OUT = UpstreamFailure("authentication", "refused")


def answer(data: bytes) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data), data]


async def swept(made: Resolving) -> tuple[int, int]:
    """Uploads less deletions, and what is left at the provider, once the time of all uploads is over."""
    made.time += made.bounds.keep
    await made.cleaner.sweep()
    assert await made.left() == (0, 0)
    return made.cleaner.uploads - made.cleaner.deletions, len(made.up.files.files)


@pytest.mark.parametrize("way", ["bytes", "address"])
async def test_the_next_turn_of_the_account_gets_the_same_id(up: ScriptedUpstream, way: str) -> None:
    async with (
        RawServer([answer(MP4)]) as server,
        resolving(up, shares=True, ports=[port_of(server)], bounds=SMALL) as made,
    ):
        video = VIDEO if way == "bytes" else at(f"http://a.example:{port_of(server)}/a.mp4", "video")
        first = await made.one(video)
        made.time += 3_600
        assert await made.one(video) == first
        assert (up.files.uploads, up.files.deletions) == (1, 0)
        assert await made.left() == (1, 1)
        assert await made.one(video, "acc_b") != first
        assert await swept(made) == (0, 0)


async def test_only_with_earlier_uploads_are_bytes_read_before_their_upload(
    up: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = Reader.known_digest

    async def counted(self: Reader) -> str | None:
        read.append("whole")
        return await digest(self)

    monkeypatch.setattr(Reader, "known_digest", counted)
    async with resolving(up, shares=True) as made:
        await made.one(VIDEO)
        assert read == []
        await made.one(VIDEO)
        assert read == ["whole"]
        assert up.files.uploads == 1
        assert len([each for each in up.requests if each.method == "POST"]) == 1


async def test_the_same_content_by_two_ways_is_one_upload(up: ScriptedUpstream) -> None:
    async with (
        RawServer([answer(LARGE)]) as server,
        resolving(up, shares=True, ports=[port_of(server)], bounds=SMALL) as made,
    ):
        both = [PICTURE, at(f"http://a.example:{port_of(server)}/x.png", "image")]
        async with made.resolver.resolve("acc_a", both) as found:
            assert found.results[0] == found.results[1]
        assert up.files.uploads == 1


async def test_a_turn_never_begins_to_use_an_upload_that_may_end_within_it(up: ScriptedUpstream) -> None:
    async with resolving(up, shares=True) as made:
        first = await made.one(VIDEO)
        made.time += made.bounds.keep - SPARE - 1
        async with made.resolver.resolve("acc_a", [VIDEO]) as found:
            assert found.results == [first]
            made.time += SPARE
            await made.cleaner.sweep()
            assert await made.left() == (1, 1)
        assert await made.one(VIDEO) != first
        assert await swept(made) == (0, 0)


async def test_without_the_token_it_is_uploaded_anew(up: ScriptedUpstream) -> None:
    async with resolving(up, shares=True, tokens=(A, B)) as made:
        first = await made.one(VIDEO)
        (used,) = {file.token for file in up.files.files.values()}
        out = A if used == A.secret else B
        made.pool.learn(out, "", OUT)
        async with made.resolver.resolve("acc_a", [VIDEO]) as found:
            assert found.token == (B if out is A else A).id
            assert found.results != [first]
        async with made.resolver.resolve("acc_a", [VIDEO], frozenset((B.id, A.id)) - {out.id}) as found:
            assert found.token == out.id  # no other one may be used
        made.tokens = (B if out is A else A,)
        async with made.resolver.resolve("acc_a", [VIDEO]) as found:
            assert found.token == made.tokens[0].id
        assert up.files.uploads == 2


async def test_media_of_a_turn_share_the_token(up: ScriptedUpstream) -> None:
    async with resolving(up, shares=True, tokens=(A, B), bounds=SMALL) as made:
        for out in (A, B):  # the picture is in one account, the video in the other one
            made.tokens = (B,) if out is A else (A,)
            await made.one(PICTURE if out is A else VIDEO)
        made.tokens = (A, B)
        async with made.resolver.resolve("acc_a", [PICTURE, VIDEO]) as found:
            ids = {each.url.removeprefix("ms://") for each in found.results}  # type: ignore[union-attr]
            assert len({up.files.files[id].token for id in ids}) == 1
        async with made.resolver.resolve("acc_a", [PICTURE, VIDEO]) as again:
            assert again.results == found.results
        assert up.files.uploads == 3


@pytest.mark.parametrize("silent", [False, True])
async def test_one_that_is_gone_at_the_provider_is_uploaded_anew(up: ScriptedUpstream, silent: bool) -> None:
    async with resolving(up, shares=True) as made:
        first = await made.one(VIDEO)
        up.files.files.clear()
        assert await made.one(VIDEO) == first  # it was seen a moment ago
        made.time += LOOKED_FOR_EVERY
        if silent:
            up.files.refused["GET"] = [Status(500, {"error": {"type": "server_error", "message": "no"}})]
            assert await made.one(VIDEO) == first
        assert await made.one(VIDEO) != first
        assert await made.left() == (1, 1)
        assert await swept(made) == (0, 0)


async def test_an_account_has_room_for_some_and_the_others_end_with_their_turn(
    up: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "_ROOM", cleaning.Room(2, 2 * len(MP4) + 5))
    async with resolving(up, shares=True) as made:
        videos = [inline(MP4 + bytes([number] * 4), "video") for number in range(3)]
        first = [await made.one(each) for each in videos]
        again = [await made.one(each) for each in videos]
        assert [a == b for a, b in zip(first, again, strict=True)] == [True, False, False]
        assert len(up.files.files) == 1
        assert await swept(made) == (0, 0)


async def test_many_turns_at_once_leave_no_more_than_the_room(up: ScriptedUpstream) -> None:
    async with resolving(up, shares=True) as made:
        videos = [inline(MP4 + bytes([number]), "video") for number in range(30)]
        await asyncio.gather(*(made.one(each) for each in videos))
        await made.cleaner.rest(10)
        assert len(up.files.files) == 20
        assert await swept(made) == (0, 0)


class Deaf(MemoryStore):
    """It cannot tell which files are shared, or keep one shared."""

    deaf = ""

    async def shared_files(self, account: str, now: int) -> Any:
        if self.deaf == "look":
            raise StoreDown("down")
        return await super().shared_files(account, now)

    async def change_file(self, old: Any, new: Any, room: Any) -> bool:
        if self.deaf == "share" and new.filename:
            raise StoreDown("down")
        return await super().change_file(old, new, room)


@pytest.mark.parametrize("deaf", ["look", "share"])
async def test_a_store_that_fails_costs_an_upload_only(up: ScriptedUpstream, deaf: str) -> None:
    store = Deaf()
    async with resolving(up, shares=True, store=store) as made:
        store.deaf = deaf
        await made.one(VIDEO)
        await made.one(VIDEO)
        assert up.files.uploads == 2
        store.deaf = ""
        await made.one(VIDEO)
        assert await swept(made) == (0, 0)


async def test_an_upload_that_fails_leaves_nothing_to_share(up: ScriptedUpstream) -> None:
    async with resolving(up, shares=True) as made:
        up.files.most = 0
        with pytest.raises(GatewayError):
            await made.one(VIDEO)
        assert await made.left() == (0, 0)


async def test_after_a_crash_another_process_uses_it_and_sweeps_it(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "store")
    async with resolving(up, shares=True, store=store) as made:
        first = await made.one(VIDEO)
    async with resolving(up, shares=True, store=store) as other:
        assert await other.one(VIDEO) == first
        other.time += other.bounds.keep
        assert (await other.cleaner.sweep()).deleted == 1
        assert await other.left() == (0, 0)
        assert (made.cleaner.uploads, other.cleaner.deletions) == (1, 1)
    await store.close()
