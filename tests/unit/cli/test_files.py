"""kimi-gateway files sweep, after a process that was killed with files at the provider."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.storage.sqlite.opening import STORE_NAME
from support.command import Cli
from upstream import ScriptedUpstream, Status

TOKEN = "sk-upstream-files-a"
# A turn that runs forever, with a video at the provider and a document whose upload is not complete.
TURN = """
import asyncio, sys, time
from pathlib import Path
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.resolving import MP4, Resolving, inline


async def main(url, path):
    made = Resolving(type("Up", (), {"url": url})(), store=SqliteStore(Path(path)))
    made.time = time.time()
    await made.start()
    async with made.resolver.resolve("acc_a", [inline(MP4, "video")]):
        print("runs", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.fixture
def killed(
    up: ScriptedUpstream, cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any]
) -> ScriptedUpstream:
    """The emulator with what a killed process left there."""
    monkeypatch.setenv("KIMI_BASE_URL", up.url)
    monkeypatch.setenv("MOONSHOT_API_KEY", TOKEN)
    ask("keys", "create")
    environ = {**os.environ, "PYTHONPATH": "functions:tests"}
    command = [sys.executable, "-c", TURN, up.url, str(data / STORE_NAME)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGKILL)
    assert len(up.files.files) == 1
    return up


def test_what_a_killed_process_left_is_swept(killed: ScriptedUpstream, ask: Callable[..., Any]) -> None:
    assert ask("files", "sweep") == {"deleted": 1, "left": 0}
    assert killed.files.files == {}
    assert ask("files", "sweep") == {"deleted": 0, "left": 0}


def test_what_cannot_be_deleted_is_reported_and_stays_known(
    killed: ScriptedUpstream, cli: Cli, ask: Callable[..., Any]
) -> None:
    killed.files.refused["DELETE"] = [Status(500, {"error": {"type": "server_error", "message": "no"}})]
    result = cli("files", "sweep")
    assert (result.exit_code, result.stdout) == (1, "0 deleted, 1 could not be deleted now\n")
    assert ask("files", "sweep") == {"deleted": 1, "left": 0}


def test_doctor_tells_what_waits_to_be_deleted(cli: Cli, data: Path, ask: Callable[..., Any]) -> None:
    from kimi_gateway.accounts.files import FileRecord, Room
    from kimi_gateway.storage.sqlite.store import SqliteStore

    ask("keys", "create")

    async def add() -> None:
        store = SqliteStore(data / STORE_NAME)
        await store.add_file(FileRecord("file-1", "acc_a", "tok_1", "passing", 1, 2), Room())
        await store.close()

    asyncio.run(add())
    result = cli("doctor")
    assert "1 wait to be deleted at the provider" in result.stdout
    assert "files sweep" in result.stdout


def test_without_a_store_there_is_nothing_to_sweep(ask: Callable[..., Any], data: Path) -> None:
    assert ask("files", "sweep") == {"deleted": 0, "left": 0}
    assert not data.exists()
