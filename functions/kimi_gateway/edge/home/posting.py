"""A POST to a receiver of telemetry or alerts, tried again while the receiver is busy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

from kimi_gateway import __version__
from kimi_gateway.net.http import Client, NetError, Timeouts

RETRIED = (429, 500, 502, 503, 504)
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries
FLUSH = 1.0  # seconds for what is unsent when the gateway stops, of all receivers together
LONGEST_ANSWER = 64 * 1024  # bytes

Sleep = Callable[[float], Awaitable[None]]


class Failed(Exception):
    """A POST that was given up. The text is for the log and has no address."""


async def post(
    client: Client,
    url: str,
    body: bytes,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    sleep: Sleep = asyncio.sleep,
) -> bytes:
    """The receiver's answer to JSON. `timeout` is in seconds, with all tries. Raises Failed."""
    sent = {
        **(headers or {}),
        "content-type": "application/json",
        "user-agent": f"kimi-gateway/{__version__}",
    }
    try:
        async with asyncio.timeout(timeout):
            return await _tried(client, url, sent, body, Timeouts(timeout, timeout), sleep)
    except TimeoutError:
        raise Failed("no answer in time") from None
    except (NetError, OSError) as exc:
        raise Failed(str(exc)) from exc


async def _tried(
    client: Client, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts, sleep: Sleep
) -> bytes:
    for number in range(TRIES):
        after: float | None = None
        try:
            async with client.send("POST", url, headers, body, timeouts) as answer:
                if 200 <= answer.status < 300:
                    return await answer.read(LONGEST_ANSWER)
                if answer.status not in RETRIED or number == TRIES - 1:
                    raise Failed(f"the receiver answered {answer.status}")
                given = answer.headers.get("retry-after", "")
                after = float(given) if given.isascii() and given.isdigit() and len(given) < 6 else None
        except NetError:
            if number == TRIES - 1:
                raise
        pause = min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311
        await sleep(pause if after is None else after)
    raise AssertionError("the last try returned or raised")
