"""The server runs on asyncio's own event loop, whatever else is installed beside it."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from support.live import HELLO
from support.server_process import ServerProcess
from support.tls import NO_TLS
from upstream import ScriptedUpstream

UVLOOP = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()

def new_event_loop():
    raise RuntimeError("not asyncio's")

Loop = install = run = new_event_loop
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_uvloop_is_not_taken_where_it_is_installed(
    tmp_path: Path, up: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """uvicorn takes it by itself. The client for upstreams needs what only asyncio's loop has."""
    (packages := tmp_path / "packages").mkdir()
    (packages / "uvloop.py").write_text(UVLOOP)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")]))
    with ServerProcess(tmp_path, up.url, workers) as server:
        answer = httpx.post(
            f"{server.url}/v1/chat/completions",
            headers={"authorization": f"Bearer {server.key()}"},
            json={"model": "kimi-k3", "messages": HELLO},
            verify=NO_TLS,
        )
    assert answer.status_code == 200, answer.text
    assert not (packages / "imported").exists()
