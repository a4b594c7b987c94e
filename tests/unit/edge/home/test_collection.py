"""The garbage collector rests while the server starts, and works afterwards."""

from __future__ import annotations

import subprocess
import sys

SERVE = """
import asyncio, gc, sys
import uvicorn
from kimi_gateway import settings
from kimi_gateway.cli import serve
from kimi_gateway.edge.home import server

async def start():
    app = server.create()
    seen.append(gc.isenabled())
    async with asyncio.timeout(30):
        while not gc.isenabled():
            await asyncio.sleep(0.01)
    seen.append(gc.get_freeze_count() > 0)
    seen.append(gc.get_threshold() == server.COLLECTED)

seen = []
uvicorn.run = lambda *args, **options: asyncio.run(start())
serve._run(settings.read(), "127.0.0.1", 0, 1)
print(*seen, gc.isenabled())
"""
SEVERAL = """
import gc
import uvicorn
from kimi_gateway import settings
from kimi_gateway.cli import serve

uvicorn.run = lambda *args, **options: print(gc.isenabled())
serve._run(settings.read(), "127.0.0.1", 0, 2)
"""
FAILING = """
import gc
import uvicorn
from kimi_gateway import settings
from kimi_gateway.cli import serve

def fail(*args, **options):
    raise SystemExit(3)

uvicorn.run = fail
try:
    serve._run(settings.read(), "127.0.0.1", 0, 1)
except Exception:
    print(gc.isenabled())
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_collector_rests_until_the_server_has_started() -> None:
    assert run(SERVE) == ["stopped", "False", "True", "True", "True"]


def test_the_process_that_watches_over_workers_collects() -> None:
    assert run(SEVERAL) == ["True", "stopped"]


def test_a_start_that_fails_turns_the_collector_on_again() -> None:
    assert run(FAILING) == ["True"]
