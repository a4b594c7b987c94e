"""What was uploaded for a turn is deleted, however the turn ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts.files import FileRecord, Room
from kimi_gateway.errors import GatewayError
from kimi_gateway.files.cleaning import LOST, PAUSES, POSTPONED, SWEPT_EVERY, UNREACHABLE
from kimi_gateway.storage.memory import MemoryStore
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.resolving import MP4, NOW, A, B, Resolving, inline, pdf, resolving
from upstream import ScriptedUpstream, Status

pytestmark = pytest.mark.anyio

BROKEN = Status(500, {"error": {"type": "server_error", "message": "no"}})
VIDEO = inline(MP4, "video")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Failed(Exception):
    pass


async def test_after_a_turn_that_failed(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        with suppress(Failed):
            async with made.resolver.resolve("acc_a", [VIDEO]):
                assert await made.left() == (1, 1)
                raise Failed
        await made.cleaner.rest(10)
        assert await made.left() == (0, 0)


async def test_after_a_client_that_left_while_its_answer_came(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        runs = asyncio.Event()

        async def turn() -> None:
            async with made.resolver.resolve("acc_a", [VIDEO]):
                runs.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(turn())
        await runs.wait()
        task.cancel()
        await asyncio.wait([task])
        await made.cleaner.rest(10)
        assert await made.left() == (0, 0)
        assert made.cleaner.uploads == made.cleaner.deletions == 1


async def test_after_a_client_that_left_while_its_document_was_read(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        files, reads = made.moonshot.files, asyncio.Event()

        async def never(token: Any, id: str) -> str:
            reads.set()
            await asyncio.Event().wait()
            return ""

        made.moonshot.files.text = never  # type: ignore[method-assign]
        task = asyncio.create_task(made.one(inline(pdf())))
        await reads.wait()
        task.cancel()
        await asyncio.wait([task])
        await made.cleaner.rest(10)
        assert await made.left() == (0, 0)
        assert files is made.moonshot.files


async def test_after_an_extraction_that_failed(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        up.files.refused["GET"] = [BROKEN]
        with pytest.raises(GatewayError) as refused:
            await made.one(inline(pdf()))
        assert refused.value.status == 503
        assert await made.left() == (0, 0)


@pytest.mark.parametrize("times", [1, len(PAUSES) - 1])
async def test_a_deletion_that_fails_is_tried_again(up: ScriptedUpstream, times: int) -> None:
    async with resolving(up) as made:
        up.files.refused["DELETE"] = [BROKEN] * times
        await made.one(VIDEO)
        assert made.waits == list(PAUSES[: times + 1])
        assert await made.left() == (0, 0)
        assert made.cleaner.deletions == 1


async def test_what_cannot_be_deleted_is_left_to_a_sweep(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        up.files.refused["DELETE"] = [BROKEN] * (len(PAUSES) + 1)
        await made.one(VIDEO)
        assert await made.left() == (1, 1)
        assert (await made.cleaner.sweep()).deleted == 0  # not due yet
        made.time += POSTPONED
        swept = await made.cleaner.sweep()
        assert (swept.deleted, swept.left) == (0, 1)
        made.time += POSTPONED
        swept = await made.cleaner.sweep()
        assert (swept.deleted, swept.left) == (1, 0)
        assert await made.left() == (0, 0)


async def test_a_file_that_is_gone_already_is_as_good_as_deleted(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        async with made.resolver.resolve("acc_a", [VIDEO]):
            up.files.files.clear()
        await made.cleaner.rest(10)
        assert await made.left() == (0, 0)
        assert made.cleaner.deletions == 1


async def test_a_file_whose_upload_was_not_answered_is_found_by_its_name(up: ScriptedUpstream) -> None:
    async with resolving(up, tokens=(A, B)) as made:
        up.files.lost = 1
        async with made.resolver.resolve("acc_a", [VIDEO]) as found:  # by another token
            await made.cleaner.rest(10)
            assert [f"ms://{id}" for id in up.files.files] == [found.results[0].url]  # type: ignore[union-attr]
        await made.cleaner.rest(10)
        assert await made.left() == (0, 0)


async def test_an_upload_that_appears_late_is_looked_for_once_more(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        record = await made.cleaner.begin("acc_a", A, "video", "video/mp4")
        made.cleaner.delete_later(record)
        await made.cleaner.rest(10)
        assert await made.left() == (0, 1)
        await upload(made, f"{record.id}.mp4")
        made.time += LOST
        assert (await made.cleaner.sweep()).deleted == 1
        assert await made.left() == (0, 0)


async def upload(made: Resolving, name: str) -> str:
    async def chunks() -> Any:
        yield MP4

    file = await made.moonshot.files.upload(A, name, "video", chunks(), len(MP4))
    return file.id


@pytest.mark.parametrize("known", [True, False])
async def test_another_process_sweeps_what_a_killed_one_left(
    up: ScriptedUpstream, tmp_path: Path, known: bool
) -> None:
    """With and without the provider's id in its record."""
    store, others = SqliteStore(tmp_path / "a.db"), SqliteStore(tmp_path / "a.db")
    async with resolving(up, store=store) as dead, resolving(up, store=others) as made:
        record = await dead.cleaner.begin("acc_a", A, "video", "video/mp4")
        id = await upload(dead, f"{record.id}.mp4")
        await upload(dead, "somebody's.mp4")
        if known:
            await store.change_file(record, replace(record, upstream=id, state="ready"), Room())
        assert (await made.cleaner.sweep()).deleted == 0
        made.time += 661
        assert (await made.cleaner.sweep()).deleted == 1
        assert [file.filename for file in up.files.files.values()] == ["somebody's.mp4"]
        assert await store.due_files(2**33, 10) == []
    await store.close()
    await others.close()


async def test_a_sweep_ends_kept_files_whose_time_has_come(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        id = await upload(made, "a.mp4")
        record = FileRecord(
            "file-1", "acc_a", A.id, "kept", NOW, NOW + 10, state="ready", upstream=id, size=5
        )
        await made.store.add_file(record, Room())
        assert (await made.cleaner.sweep()).deleted == 0
        made.time += 10
        assert (await made.cleaner.sweep()).deleted == 1
        assert await made.store.files("acc_a", NOW) == []
        assert await made.left() == (0, 0)


async def test_a_file_of_a_token_that_is_gone_is_forgotten_one_day(up: ScriptedUpstream) -> None:
    async with resolving(up, tokens=(A, B)) as made:
        await made.cleaner.begin("acc_a", A, "video", "video/mp4")
        made.cleaner._held.clear()
        made.tokens = (B,)
        made.time += 661
        assert (await made.cleaner.sweep()).left == 1
        assert await made.left() == (0, 1)
        made.time += UNREACHABLE
        assert (await made.cleaner.sweep()).left == 0
        assert await made.left() == (0, 0)


async def test_an_old_file_is_not_forgotten_at_the_first_failure(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        id = await upload(made, "a.mp4")
        old = NOW - 2 * UNREACHABLE
        record = FileRecord("file-1", "acc_a", A.id, "kept", old, NOW, state="ready", upstream=id)
        await made.store.add_file(record, Room())
        up.files.refused["DELETE"] = [BROKEN] * 3
        for _ in range(3):
            assert (await made.cleaner.sweep()).left == 1
            made.time += POSTPONED
        assert (await made.cleaner.sweep()).deleted == 1
        assert await made.left() == (0, 0)


async def test_a_turn_sweeps_what_others_left_where_there_is_no_heartbeat(up: ScriptedUpstream) -> None:
    store = MemoryStore()
    async with resolving(up, store=store) as dead, resolving(up, store=store) as made:
        record = await dead.cleaner.begin("acc_a", A, "video", "video/mp4")
        await upload(dead, f"{record.id}.mp4")
        await made.one(VIDEO)
        assert len(up.files.files) == 1
        made.time += max(SWEPT_EVERY, 661)
        await made.one(VIDEO)
        assert await made.left() == (0, 0)


async def test_a_vendor_that_breaks_while_it_lists_leaves_the_record(up: ScriptedUpstream) -> None:
    async with resolving(up) as made:
        up.files.refused["GET"] = [BROKEN] * len(PAUSES)
        record = await made.cleaner.begin("acc_a", A, "video", "video/mp4")
        made.cleaner.delete_later(record)
        await made.cleaner.rest(10)
        assert await made.left() == (0, 1)
