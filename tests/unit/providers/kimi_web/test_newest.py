"""The newest refresh tokens, which several processes write."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from kimi_gateway.private_file import changing
from kimi_gateway.providers.kimi_web.newest import NAME, NewestFile
from kimi_gateway.providers.kimi_web.sessions import Pair, Sessions
from kimi_gateway.providers.provider import Token

pytestmark = pytest.mark.anyio


async def test_the_loop_goes_on_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    path, asked = tmp_path / NAME, asyncio.Event()

    async def refresh(text: str) -> Pair:
        asked.set()
        return Pair("fake-access-1", "fake-refresh-2")

    token = Token.of("fake-refresh-1")
    sessions = Sessions(refresh, NewestFile(path), time.time)
    with changing(path):
        renewing = asyncio.create_task(sessions.access(token))
        await asked.wait()
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not renewing.done()
        assert not path.exists()
    assert await renewing == "fake-access-1"
    assert json.loads(path.read_text()) == {token.id: "fake-refresh-2"}


def test_what_could_not_be_written_is_written_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "missing" / NAME
    newest = NewestFile(path)
    newest.write("first", "fake-refresh-1")
    assert newest.read("first") == "fake-refresh-1"
    path.parent.mkdir()
    newest.write("second", "fake-refresh-2")
    assert NewestFile(path).read("first") == "fake-refresh-1"
    assert newest._unwritten == {}
