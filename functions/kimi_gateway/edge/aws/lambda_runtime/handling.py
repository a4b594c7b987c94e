"""The interface of handlers, without the loop. Another runtime may take its place."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

Pairs = Sequence[tuple[str, str]]
Hook = Callable[[], Awaitable[None]]

# Of the invocation that this task works for, also if many run at once.
request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")


async def _nothing() -> None:
    return None


@dataclass(slots=True)
class Streamed:
    """An HTTP answer that is sent as it comes. `close` is awaited once, whatever happened to the body."""

    status: int
    headers: Pairs
    body: bytes | AsyncGenerator[bytes, None]
    close: Hook = _nothing


def _of_function(name: str) -> property:
    return property(lambda self: os.environ.get(name, ""))


@dataclass(frozen=True, slots=True)
class Context:
    """One invocation. `deadline_ms` is in unix milliseconds; the last two fields are JSON, as Lambda sends
    them."""

    aws_request_id: str
    deadline_ms: int
    invoked_function_arn: str = ""
    trace_id: str = ""
    tenant_id: str = ""
    invocation_id: str = ""
    client_context: str = field(default="", repr=False)
    cognito_identity: str = field(default="", repr=False)

    function_name = _of_function("AWS_LAMBDA_FUNCTION_NAME")
    function_version = _of_function("AWS_LAMBDA_FUNCTION_VERSION")
    memory_limit_in_mb = _of_function("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    log_group_name = _of_function("AWS_LAMBDA_LOG_GROUP_NAME")
    log_stream_name = _of_function("AWS_LAMBDA_LOG_STREAM_NAME")

    def remaining(self) -> float:
        """Seconds until the platform ends the invocation."""
        return self.deadline_ms / 1000 - time.time()

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round(self.remaining() * 1000))


class Handler(Protocol):
    """A handler; it may have a `Lifecycle` as its attribute `lifecycle`. Invocations run one at a time unless
    AWS_LAMBDA_MAX_CONCURRENCY is set."""

    def __call__(self, event: Any, context: Context) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Hooks around invocations, awaited on the handler's loop."""

    start: Hook = _nothing  # before the first invocation, in Lambda's init phase
    idle: Hook = _nothing  # after an invocation, before the process may be frozen: see loop.REST
    closing: Hook = _nothing  # at SIGTERM, for running work: see loop.CLOSING
    stop: Hook = _nothing  # when nothing runs any more
    before_snapshot: Hook = _nothing
    after_restore: Hook = _nothing
