"""Lookups of names that clients choose."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from kimi_gateway.net.fetch.fetcher import RESOLVED_AT_ONCE, resolve

pytestmark = pytest.mark.anyio


async def test_silent_name_servers_of_clients_leave_the_upstreams_names_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More lookups hang than the loop's own executor has threads."""
    asked, over, real = list[str](), threading.Event(), socket.getaddrinfo
    loop, full = asyncio.get_running_loop(), asyncio.Event()

    def lookup(host: Any, *args: Any, **more: Any) -> Any:
        if str(host).endswith(".slow.example"):
            asked.append(host)
            if len(asked) == RESOLVED_AT_ONCE:
                loop.call_soon_threadsafe(full.set)
            over.wait(30)
            raise OSError
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    hanging = [asyncio.create_task(resolve(f"{number}.slow.example", 80)) for number in range(80)]
    try:
        async with asyncio.timeout(10):
            await full.wait()
            assert await loop.getaddrinfo("localhost", 80)
        assert len(asked) == RESOLVED_AT_ONCE
    finally:
        over.set()
        ended = await asyncio.gather(*hanging, return_exceptions=True)
    assert all(isinstance(each, OSError) for each in ended)
