"""The sweep of the cloud, where no process has a heartbeat: EventBridge calls one function by a schedule."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.app import Running
from kimi_gateway.edge.aws.lambda_runtime import Context
from kimi_gateway.observe import emit

SPARED = 2.0  # seconds of the function's time that are left


def is_scheduled(event: Any) -> bool:
    """Whether EventBridge sent it. Clients cannot: their requests are inside of API Gateway's events."""
    return isinstance(event, dict) and event.get("source") == "aws.events" and "httpMethod" not in event


async def sweep(running: Running, context: Context) -> dict[str, Any]:
    """The next sweep does the rest, if the function's time is over."""
    left = context.get_remaining_time_in_millis() / 1000 - SPARED
    try:
        async with asyncio.timeout(max(left, 0)):
            await running.sweep()
    except (StoreDown, TimeoutError) as exc:
        cause = exc.cause if isinstance(exc, StoreDown) else "sweep_unfinished"
        emit(cause, logging.WARNING, step="sweep", detail=str(exc))
    return {}
