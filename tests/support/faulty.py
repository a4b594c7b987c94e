"""A client before a real one that spoils what it is told to: the faults of a service and of a network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Any

from kimi_gateway.net.http import Answer, Client, ConnectFailed, ConnectionLost, TimedOut, Timeouts
from support.inprocess import Told, told


class Fault(Enum):
    REFUSED = auto()  # no connection
    LOST_BEFORE = auto()  # the request never arrives
    LOST_AFTER = auto()  # it is applied, its answer never arrives
    SILENT = auto()  # applied, and timed out
    THROTTLED = auto()
    BROKEN = auto()  # 500
    HTML = auto()  # a 503 of something in between
    CONFLICT = auto()  # another one's transaction has the item


NETWORK = {Fault.REFUSED: ConnectFailed, Fault.LOST_BEFORE: ConnectionLost}
APPLIED = {Fault.LOST_AFTER: ConnectionLost, Fault.SILENT: TimedOut}
ANSWERS = {
    Fault.THROTTLED: told({"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException"}, 400),
    Fault.BROKEN: told({"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError"}, 500),
    Fault.HTML: Told(503, {"content-type": "text/html"}, b"<html>Service Unavailable</html>"),
    Fault.CONFLICT: told({"__type": "com.amazonaws.dynamodb.v20120810#TransactionConflictException"}, 400),
}
Plan = Callable[[str, Any], Fault | None]


def none(operation: str, request: Any) -> Fault | None:
    return None


class Faulty:
    """`plan` says what becomes of a call, given its operation and its request; `calls` counts them all."""

    def __init__(self, client: Client, plan: Plan = none) -> None:
        self.plan = plan
        self.waiting: Callable[[], Awaitable[object]] | None = None  # before each call
        self.before: Callable[[], Awaitable[None]] | None = None  # each update, but its own
        self.calls = Counter[str]()
        self._client = client

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AsyncIterator[Answer]:
        operation, request = headers["X-Amz-Target"].partition(".")[2], json.loads(body)
        self.calls[operation] += 1
        before, self.before = self.before, None
        if before is not None and operation == "UpdateItem":
            await before()
        self.before = before
        if self.waiting is not None:
            await self.waiting()
        fault = self.plan(operation, request)
        if fault in NETWORK:
            raise NETWORK[fault](fault.name)
        if fault in ANSWERS:
            yield ANSWERS[fault]
            return
        async with self._client.send(method, url, headers, body, timeouts) as answer:
            if fault in APPLIED:
                await answer.read(2**20)
                raise APPLIED[fault](fault.name)
            yield answer

    async def close(self) -> None:
        await self._client.close()


def in_turn(*faults: Fault | None, operation: str = "UpdateItem") -> Plan:
    """One for each call of the operation, then none."""
    left: Iterator[Fault | None] = iter(faults)
    return lambda asked, request: next(left, None) if asked == operation else None


def always(fault: Fault) -> Plan:
    return lambda operation, request: fault
