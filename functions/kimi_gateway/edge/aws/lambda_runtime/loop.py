"""The loop: next invocation, handler, response, until SIGTERM; concurrently if the platform says so."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import suppress
from typing import NoReturn

from .api import ERROR_BODY, ERROR_TYPE, Api, ApiLost, Reply, chunk, last_chunk, prelude, read
from .extension import Extension
from .handling import Context, Handler, Lifecycle, Pairs, Streamed, request_id, trace_id

LAST_RESORT = 1.0  # seconds before the deadline at which a running handler is ended
REST = 2.0  # seconds for remaining work of an invocation before the process may be frozen
CLOSING = 1.5  # most seconds for running work after SIGTERM, and again for the handler to stop

log = logging.getLogger("lambda_runtime")


class Cut(Exception):
    """The platform reads no further: it ended the invocation."""


class Runtime:
    """Runs `concurrency` loops in one process; 0 means one loop in a process that is frozen between
    invocations."""

    def __init__(self, address: str, handler: Handler, lifecycle: Lifecycle, concurrency: int = 0) -> None:
        self._address = address
        self._handler = handler
        self._lifecycle = lifecycle
        self._alone = concurrency < 1
        self._loops = max(1, concurrency)
        self._polling: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def serve(self) -> None:
        """Serve until SIGTERM. Raises ApiLost."""
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        ending = asyncio.create_task(_set(told))
        loops = {asyncio.create_task(self._loop()) for _ in range(self._loops)}
        await asyncio.wait({ending, *loops}, return_when=asyncio.FIRST_COMPLETED)
        self._stopping = True
        for task in self._polling:
            task.cancel()
        await _within(CLOSING, self._lifecycle.closing())
        await asyncio.wait(loops, timeout=CLOSING)
        for task in (ending, *loops):
            task.cancel()
        ended = await asyncio.gather(*loops, return_exceptions=True)
        await _within(CLOSING, self._lifecycle.stop())
        for exc in ended:
            if isinstance(exc, Exception):
                raise exc

    async def _loop(self) -> None:
        api, task = Api(self._address), asyncio.current_task()
        try:
            while not self._stopping and task is not None:
                self._polling.add(task)
                try:
                    reply = await api.ask("GET", "invocation/next")
                finally:
                    self._polling.discard(task)
                if reply.status != 200:
                    raise ApiLost(f"next: status {reply.status}")
                await self._invoke(api, _context(reply.headers), reply.body)
                if self._alone:
                    await _within(REST, self._lifecycle.idle())
        finally:
            api.close()

    async def _invoke(self, api: Api, context: Context, event: bytes) -> None:
        request_id.set(context.aws_request_id)
        trace_id.set(context.trace_id)
        if self._alone:  # otherwise only the context variable is right
            os.environ["_X_AMZN_TRACE_ID"] = context.trace_id
        ends = asyncio.get_running_loop().time() + context.remaining() - LAST_RESORT
        limit = asyncio.timeout_at(ends)
        try:
            async with limit:
                answer = await self._handler(json.loads(event), context)
            if isinstance(answer, Streamed):
                await _stream(api, context, answer, ends)
                return
            body = json.dumps(answer, separators=(",", ":")).encode()
        except ApiLost:
            raise
        except (Exception, asyncio.CancelledError) as exc:
            if _ending(exc):
                raise
            kind, detail = _fault(exc, limit)
            log.error("invocation %s failed: %s", context.aws_request_id, kind, exc_info=exc)
            await _post(api, context, "error", detail, (ERROR_TYPE, kind))
        else:
            await _post(api, context, "response", body)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _post(api: Api, context: Context, what: str, body: bytes, *more: tuple[str, str]) -> None:
    headers = [("Content-Type", "application/json"), *_echo(context), *more]
    reply = await api.ask("POST", f"invocation/{context.aws_request_id}/{what}", headers, body)
    _look(reply, context)


async def _stream(api: Api, context: Context, answer: Streamed, ends: float) -> None:
    """Send the answer on its own connection. Raises ValueError before the first byte if the head is too
    large."""
    try:
        first = prelude(answer.status, answer.headers)
        reader, writer = await api.connect()
        replied = asyncio.create_task(read(reader))
        replied.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            path = f"invocation/{context.aws_request_id}/response"
            writer.write(api.stream_head(path, _echo(context)) + chunk(first))
            with suppress(Cut):  # its reply may say why
                trailers = await _send(answer.body, writer, replied, ends)
                writer.write(last_chunk(trailers))
            _look(await replied, context)
        except (OSError, EOFError) as exc:
            log.error("the answer of %s was cut: %r", context.aws_request_id, exc)
        finally:
            replied.cancel()
            writer.close()
    finally:
        await asyncio.shield(asyncio.ensure_future(_close(answer)))


async def _send(
    body: bytes | AsyncGenerator[bytes, None],
    writer: asyncio.StreamWriter,
    replied: asyncio.Task[Reply],
    ends: float,
) -> Pairs:
    """Write the body, no faster than it is read. Returns trailers, which report a failure."""
    limit = asyncio.timeout_at(ends)
    try:
        async with limit:
            if isinstance(body, bytes):
                writer.write(chunk(body))
                return ()
            async for piece in body:
                await _write(writer, chunk(piece))
                if replied.done():  # refused in the middle, so nobody reads the rest
                    break
    except Cut:
        raise
    except (Exception, asyncio.CancelledError) as exc:
        if _ending(exc):
            raise
        kind, detail = _fault(exc, limit)
        log.error("the answer of %s failed: %s", request_id.get(), kind, exc_info=exc)
        return [(ERROR_TYPE, kind), (ERROR_BODY, base64.b64encode(detail).decode())]
    return ()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Raises Cut, so that a connection error does not count as an error of the body."""
    try:
        writer.write(data)
        await writer.drain()
    except OSError as exc:
        raise Cut(str(exc)) from exc


async def _close(answer: Streamed) -> None:
    """Close body and answer in one task, so that no cancellation comes between the two."""
    try:
        if not isinstance(answer.body, bytes):
            await answer.body.aclose()
        await answer.close()
    except (Exception, asyncio.CancelledError):
        log.exception("closing the answer of %s failed", request_id.get())


async def _within(seconds: float, hook: Awaitable[None]) -> None:
    try:
        await asyncio.wait_for(hook, seconds)
    except Exception:
        log.exception("a hook of the lifecycle failed")


def _context(headers: Mapping[str, str]) -> Context:
    def of(name: str) -> str:
        return headers.get(f"lambda-runtime-{name}", "")

    return Context(
        of("aws-request-id"), int(of("deadline-ms")), of("invoked-function-arn"), of("trace-id"),
        of("aws-tenant-id"), of("invocation-id"), of("client-context"), of("cognito-identity"),
    )  # fmt: skip


def _echo(context: Context) -> Pairs:
    """Headers by which the platform distinguishes a late answer from a newer invocation with the same request
    id."""
    return [("Lambda-Runtime-Invocation-Id", context.invocation_id)] if context.invocation_id else []


def _look(reply: Reply, context: Context) -> None:
    """Log a refusal. 410: the invocation had timed out. 413: the answer is too large. The platform tells the
    caller. Raises ApiLost for 5xx."""
    if reply.status >= 400:
        detail = reply.body[:300].decode("utf-8", "replace")
        log.error("the answer of %s was refused: %d %s", context.aws_request_id, reply.status, detail)
    if reply.status >= 500:
        raise ApiLost(f"response: status {reply.status}")


def _ending(exc: BaseException) -> bool:
    """Whether this task is cancelled, not only something that the handler waited for."""
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _fault(exc: BaseException, limit: asyncio.Timeout | None = None) -> tuple[str, bytes]:
    """Type and JSON of an error in Lambda's format. The trace has lines of code but no values."""
    import traceback  # imported only after a failure, not at each start

    kind, message = type(exc).__name__, str(exc)
    if limit is not None and limit.expired():
        kind, message = "DeadlineExceeded", "The handler did not end before the function's deadline."
    body = {
        "errorMessage": message,
        "errorType": kind,
        "stackTrace": traceback.format_tb(exc.__traceback__),
    }
    return f"Function.{kind}", json.dumps(body).encode()


def load(name: str) -> Handler:
    """Import a handler by Lambda's name for it, `folder.module.attribute`. Raises the errors of the
    import."""
    module, _, attribute = name.replace("/", ".").rpartition(".")
    handler: Handler = getattr(importlib.import_module(module), attribute)
    return handler


async def _failed(api: Api, path: str, exc: Exception) -> None:
    kind, detail = _fault(exc)
    log.error("%s: %s", path, kind, exc_info=exc)
    with suppress(ApiLost):
        await api.ask("POST", path, [("Content-Type", "application/json"), (ERROR_TYPE, kind)], detail)


async def run(environ: Mapping[str, str]) -> int:
    """Run until the process ends; returns the exit code. The codes around snapshots are those of AWS's Python
    runtime."""
    extension = Extension(environ["AWS_LAMBDA_RUNTIME_API"])  # it registers while the handler starts
    try:
        return await _run(environ, extension)
    finally:
        await extension.close()


async def _run(environ: Mapping[str, str], extension: Extension) -> int:
    api = Api(environ["AWS_LAMBDA_RUNTIME_API"])
    stage, code = "init/error", 1
    try:
        handler = load(environ["_HANDLER"])
        lifecycle: Lifecycle = getattr(handler, "lifecycle", Lifecycle())
        await lifecycle.start()
        await extension.registered()
        if environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
            code = 64
            await lifecycle.before_snapshot()
            await api.ask("GET", "restore/next")  # the process is copied while it waits
            stage, code = "restore/error", 65
            api.close()
            await lifecycle.after_restore()
    except Exception as exc:
        await _failed(api, stage, exc)
        return code
    finally:
        api.close()
    concurrency = int(environ.get("AWS_LAMBDA_MAX_CONCURRENCY") or 0)
    try:
        await Runtime(api.address, handler, lifecycle, concurrency).serve()
    except ApiLost as exc:
        log.error("the Runtime API is lost: %s", exc)
        return 1
    return 0


def main() -> NoReturn:
    sys.exit(asyncio.run(run(os.environ)))
