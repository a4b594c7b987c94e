"""The sweep of the cloud, where no process has a heartbeat: EventBridge calls one function by a schedule."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.app import Running
from kimi_gateway.edge.aws.function import Function
from kimi_gateway.edge.aws.lambda_runtime import Context, Streamed
from kimi_gateway.observe import emit

SPARED = 2.0  # seconds of the function's time that are left
LONGEST = 28.0  # seconds of a request, below API Gateway's 29; the function's own time is for the sweep


class SweepingFunction(Function):
    """It also sweeps, if EventBridge calls it. The sweep may take all of the function's time, a request only
    what API Gateway waits for."""

    longest = LONGEST

    async def __call__(self, event: Any, context: Context) -> Streamed | dict[str, Any]:
        if not _is_scheduled(event):
            return await super().__call__(event, context)
        if self._running is None:  # a loop without `lifecycle`
            await self.start()
        assert self._running is not None  # noqa: S101
        await _sweep(self._running, context.get_remaining_time_in_millis() / 1000 - SPARED)
        return {}


def _is_scheduled(event: Any) -> bool:
    """Whether EventBridge sent it. Clients cannot: their requests are inside of API Gateway's events."""
    return isinstance(event, dict) and event.get("source") == "aws.events" and "httpMethod" not in event


async def _sweep(running: Running, seconds: float) -> None:
    """The next sweep does the rest, if the function's time is over."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await running.attachments.cleaner.sweep()
            await running.endpoints.batches().following.sweep(patient=True)
            while busy := running.attachments.busy | running.gateway.background:
                await asyncio.wait(busy)
    except (StoreDown, TimeoutError) as exc:
        cause = exc.cause if isinstance(exc, StoreDown) else "sweep_unfinished"
        emit(cause, logging.WARNING, step="sweep", detail=str(exc))
