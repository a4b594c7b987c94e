"""A handler that does what its event says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from kimi_gateway.edge.aws.lambda_runtime import Context, Lifecycle, Streamed, request_id, trace_id

happened: list[str] = []  # in the life of this process
waiting: dict[str, asyncio.Event] = {}
meetings: dict[int, asyncio.Barrier] = {}  # by the number of invocations that wait for one another


def hook(name: str) -> Any:
    async def note() -> None:
        happened.append(name)
        if os.environ.get("FAILS_IN") == name:
            raise ValueError(f"{name} went wrong")
        if name == "closing":
            for event in waiting.values():
                event.set()
        if name == "stop":
            print("stopped after", *happened, flush=True)

    return note


async def cancelled() -> None:
    """Waits for what another one cancels."""
    waited = asyncio.get_running_loop().create_future()
    waited.cancel()
    await waited


async def pieces(event: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    try:
        for number in range(event.get("pieces", 0)):
            while "gate" in event and not Path(event["gate"], str(number)).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            yield b"piece %d\n" % number
            await asyncio.sleep(event.get("gap", 0))
            if event.get("fails_after") == number + 1:
                raise RuntimeError("the middle is missing")
            if event.get("cancelled_after") == number + 1:
                await cancelled()
        if size := event.get("flood"):
            for _ in range(size // 65_536):
                yield bytes(65_536)
    finally:
        happened.append("body ended")


def where(context: Context) -> dict[str, Any]:
    return {
        "request": context.aws_request_id,
        "request_variable": request_id.get(),
        "trace": context.trace_id,
        "trace_variable": trace_id.get(),
        "trace_environ": os.environ.get("_X_AMZN_TRACE_ID"),
        "tenant": context.tenant_id,
        "arn": context.invoked_function_arn,
        "name": context.function_name,
        "left": context.get_remaining_time_in_millis(),
        "process": os.getpid(),
    }


async def handler(event: dict[str, Any], context: Context) -> Any:
    async def close() -> None:
        happened.append(f"closed {context.aws_request_id}")

    match event["do"]:
        case "stream":
            headers = [tuple(pair) for pair in event.get("headers", [])]
            status = event.get("status", 200)
            body = event["whole"].encode() if "whole" in event else pieces(event)
            return Streamed(status, headers, body, close)
        case "where":
            before = where(context)
            await meetings.setdefault(event.get("meets", 1), asyncio.Barrier(event.get("meets", 1))).wait()
            return {"before": before, "after": where(context)}
        case "wait":
            waiting[event["name"]] = asyncio.Event()
            print(event["name"], "waits", flush=True)
            await waiting[event["name"]].wait()
            return "told to end"
        case "sleep":
            await asyncio.sleep(event["seconds"])
        case "fail":
            raise LookupError("no such thing")
        case "cancelled":
            await cancelled()
        case "unwritable":
            return {1, 2}
        case "happened":
            return happened
    return event


names = ("start", "idle", "closing", "stop", "before_snapshot", "after_restore")
handler.lifecycle = Lifecycle(*map(hook, names))  # type: ignore[attr-defined]
