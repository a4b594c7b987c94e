"""The vendor's account is full: the gateway's own uploads make room, and who has few of them loses none."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_gateway.errors import Conflict
from kimi_gateway.files.cleaning import EVICTED
from kimi_gateway.pivot.attachments import MediaUrl
from support.resolving import LARGE, SMALL, A, B, Resolving, inline, resolving
from upstream import ScriptedUpstream
from upstream.files import File

pytestmark = pytest.mark.anyio

MOST = 20


def picture(number: int) -> Any:
    return inline(LARGE + bytes([number]), "image")


async def filled(made: Resolving, up: ScriptedUpstream, accounts: dict[str, int]) -> dict[str, list[str]]:
    """Shared uploads of each account, a second after each other; users' files take the rest of the room.
    Returns the ids at the provider."""
    ids: dict[str, list[str]] = {}
    for account, count in accounts.items():
        for number in range(count):
            made.time += 1
            found = await made.one(picture(number), account)
            ids.setdefault(account, []).append(found.url.removeprefix("ms://"))
    up.files.most = MOST
    for number in range(MOST - len(up.files.files)):
        up.files.files[f"kept_{number}"] = File(f"kept_{number}", A.secret, "kept.pdf", "", "image", b"x")
    return ids


async def test_the_account_with_most_uploads_loses_its_oldest(up: ScriptedUpstream) -> None:
    async with resolving(up, shares=True, bounds=SMALL) as made:
        ids = await filled(made, up, {"victim": 2, "greedy": 15})
        assert isinstance(await made.one(picture(99), "newcomer"), MediaUrl)
        assert set(ids["victim"]) <= set(up.files.files)
        assert [id in up.files.files for id in ids["greedy"]] == [False] * EVICTED + [True] * (15 - EVICTED)
        assert sum(id.startswith("kept_") for id in up.files.files) == 3
        made.time += made.bounds.keep
        await made.cleaner.sweep()
        assert (await made.left())[1] == 0
        assert made.cleaner.uploads == made.cleaner.deletions


async def test_an_upload_that_a_turn_uses_stays(up: ScriptedUpstream) -> None:
    async with resolving(up, shares=True, bounds=SMALL) as made:
        (id,) = (await filled(made, up, {"acc_a": 1}))["acc_a"]
        async with made.resolver.resolve("acc_a", [picture(0)]):
            with pytest.raises(Conflict, match="no room for more files. Delete files"):
                await made.one(picture(1), "acc_b")
            assert id in up.files.files
        assert made.cleaner.using == {}
        assert isinstance(await made.one(picture(1), "acc_b"), MediaUrl)
        assert id not in up.files.files


async def test_nothing_is_deleted_while_another_token_has_room(up: ScriptedUpstream) -> None:
    async with resolving(up, shares=True, bounds=SMALL) as made:
        ids = await filled(made, up, {"acc_a": 3})
        made.tokens = (A, B)
        for number in range(8):
            assert isinstance(await made.one(picture(50 + number), f"acc_{number}"), MediaUrl)
        assert set(ids["acc_a"]) <= set(up.files.files)


async def test_an_account_that_is_full_of_kept_files_ends_in_an_error_after_one_try(
    up: ScriptedUpstream,
) -> None:
    async with resolving(up, shares=True, bounds=SMALL) as made:
        await filled(made, up, {})
        with pytest.raises(Conflict) as full:
            await made.one(picture(1))
        assert "DELETE /v1/files/ID" in full.value.message
        assert len(up.files.files) == MOST
        assert (await made.left())[1] == 0
