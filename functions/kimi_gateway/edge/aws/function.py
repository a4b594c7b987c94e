"""API Gateway's REST proxy events in and out of `handle`: the handler of every Lambda function.

A function streams or buffers, as its integration does. Nobody tells a function that its client has left;
deadlines bound what that costs. Event and answer: the API Gateway guide, Lambda proxy integrations.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any
from urllib.parse import unquote

from kimi_gateway import settings
from kimi_gateway.app import Running, start
from kimi_gateway.dialects import errors
from kimi_gateway.edge.aws.cloudwatch import to_cloudwatch
from kimi_gateway.edge.aws.lambda_runtime import Context, Lifecycle, Streamed
from kimi_gateway.edge.body import too_large
from kimi_gateway.edge.router import Route, Router, of_every_answer, request_id
from kimi_gateway.edge.routes import routes
from kimi_gateway.errors import GatewayError, InvalidRequest, NotFound, Unavailable
from kimi_gateway.http import Headers, Pairs, Query, Request, Response
from kimi_gateway.observe import RequestRecord, current_request, emit

ENDED_BY = 2.0  # seconds before the function's deadline, by which a turn ends itself
GIVEN_UP = 0.4  # seconds after that, when whatever else still waits is cancelled
LEFT_BEHIND = 1.5  # seconds for ledger and pool before the process may be frozen
DRAINED = 0.2  # seconds that streams get at SIGTERM; Lambda gives 500 ms for all, and leases must go back
LARGEST = 6 * 2**20  # bytes of a buffered answer, as Lambda counts it


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. API Gateway cuts a connection that is silent for 300; so a JSON answer that takes its time
    begins with blanks, as JSON may."""

    silent: float = 240
    between_blanks: float = 15


class Function:
    """A handler that serves `paths` of the routing table, all of it where none are named.

    Those `elsewhere` are another function's: a spelling of theirs that API Gateway does not know, as with
    a slash behind it, leads here, where an answer would be buffered and cut after seconds.
    """

    def __init__(
        self,
        *paths: str,
        elsewhere: tuple[str, ...] = (),
        streamed: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.lifecycle = Lifecycle(self.start, self._idle, self._closing, self._stop, after_restore=_restored)
        self._paths = paths
        self._elsewhere = elsewhere
        self._streamed = streamed
        self._patience = patience or Patience()
        self._running: Running | None = None
        self._front = Router(())

    async def start(self) -> None:
        """From the environment. Raises SettingsFault, and what `app.start` raises."""
        values = settings.read()
        to_cloudwatch(values.log_level)
        self.serve(await start(values, renewing=False))

    def serve(self, running: Running) -> None:
        table = routes(running.gateway, running.endpoints)
        missing = {*self._paths, *self._elsewhere} - {route.path for route in table}
        if missing:
            raise LookupError(f"no route for {missing}")
        self._running = running
        own = [route for route in table if not self._paths or route.path in self._paths]
        self._front = Router(tuple(_refused(each) if each.path in self._elsewhere else each for each in own))

    async def __call__(self, event: Any, context: Context) -> Streamed | dict[str, Any]:
        if self._running is None:  # a loop that knows nothing of `lifecycle`
            await self.start()
        assert self._running is not None  # noqa: S101
        try:
            request = request_of(event, context, self._running.gateway.settings.body_limit)
        except InvalidRequest as error:
            return self._unreadable(error, context)
        exchange = _Exchange(request, self._front)
        if self._streamed:
            return await exchange.streamed(self._patience)
        return await exchange.buffered()

    def _unreadable(self, error: InvalidRequest, context: Context) -> Streamed | dict[str, Any]:
        """API Gateway sends no such event, but who calls the function by hand may."""
        emit("bad_event", logging.WARNING, id=context.aws_request_id, detail=str(error))
        refusal = errors.response(error, Request("", "", Headers(()), context.aws_request_id))
        assert isinstance(refusal.body, bytes)  # noqa: S101
        if self._streamed:
            return Streamed(refusal.status, refusal.headers, refusal.body)
        return _proxied(refusal, refusal.body)

    async def _idle(self) -> None:
        current_request.set("")
        if self._running is not None:
            await self._running.rest(LEFT_BEHIND)

    async def _closing(self) -> None:
        if self._running is not None:
            gateway = self._running.gateway
            await gateway.drain(min(DRAINED, gateway.settings.drain) if gateway.turns else 0)

    async def _stop(self) -> None:
        if self._running is not None:
            await self._running.stop()


def _refused(route: Route) -> Route:
    async def refuse(request: Request, **_: str) -> Response:
        raise NotFound(f"This spelling of the path is not served; use {route.path}.")

    return replace(route, endpoint=refuse)


async def _restored() -> None:
    """Every copy of a snapshot would draw the same numbers."""
    random.seed()


class _Exchange:
    """One request and its answer. The response is finished once, whatever happens."""

    def __init__(self, request: Request, front: Router) -> None:
        self._request = request
        current_request.set(request.id)  # here too: a stream is written in the task of the invocation
        self._handling = asyncio.create_task(front.handle(request))

    async def streamed(self, patience: Patience) -> Streamed:
        try:
            response = await self._response(patience.silent)
        except BaseException:
            await self._finish()
            raise
        if response is not None:
            return Streamed(response.status, response.headers, response.body, self._finish)
        headers = [("content-type", "application/json"), *of_every_answer(self._request)]
        return Streamed(200, headers, self._late(patience.between_blanks), self._finish)

    async def _late(self, every: float) -> AsyncGenerator[bytes, None]:
        """Of an answer whose status went out unseen: a failure shows as the error in its body."""
        yield b" "
        while (response := await self._response(every)) is None:
            yield b" "
        yield await _whole(response)

    async def buffered(self) -> dict[str, Any]:
        try:
            response = await self._response(math.inf)
            assert response is not None  # noqa: S101
            answer = _proxied(response, await _whole(response))
            if len(answer["body"]) > LARGEST // 6 and len(json.dumps(answer)) > LARGEST:
                refusal = self._refusal(GatewayError("The answer is larger than Lambda's limit of 6 MiB."))
                answer = _proxied(refusal, await _whole(refusal))
            return answer
        finally:
            await asyncio.shield(asyncio.ensure_future(self._finish()))

    async def _response(self, within: float) -> Response | None:
        """None if it takes longer; where the deadline comes first, an error."""
        left = self._request.deadline + GIVEN_UP - time.monotonic()
        await asyncio.wait({self._handling}, timeout=max(0, min(within, left)))
        if self._handling.done():
            return self._handling.result()
        if within < left:
            return None
        self._handling.cancel()
        return self._refusal(Unavailable("The request took too long.", cause="deadline"))

    def _refusal(self, error: GatewayError) -> Response:
        response = errors.response(error, self._request)
        response.headers += of_every_answer(self._request)
        return response

    async def _finish(self) -> None:
        self._handling.cancel()  # does nothing where it is done
        await asyncio.wait({self._handling})
        if not self._handling.cancelled():
            await self._handling.result().finish()


async def _whole(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([piece async for piece in response.body])


def request_of(told: Any, context: Context, body_limit: int) -> Request:
    """The body is decoded when it is asked for, so only for a caller with a key. Raises InvalidRequest where
    the event is not one of API Gateway's."""
    event = _checked(told)
    about = event.get("requestContext") or {}
    headers = _headers(event)
    given = headers.get("x-request-id") or about.get("requestId") or context.aws_request_id

    async def body() -> bytes:
        if _least(event) <= request.limit and len(raw := _body(event)) <= request.limit:
            return raw
        raise too_large(request.limit)

    async def stream() -> AsyncGenerator[bytes, None]:
        if raw := await body():
            yield raw

    request = Request(
        method=event["httpMethod"],
        path=_path(event),
        headers=headers,
        id=request_id(given),
        body=body,
        client=(about.get("identity") or {}).get("sourceIp") or "",
        stream=stream,
        query=Query(_query(event)),
        limit=body_limit,
        record=RequestRecord(aws_request_id=context.aws_request_id),
        deadline=time.monotonic() + context.get_remaining_time_in_millis() / 1000 - ENDED_BY,
    )
    return request


# The members that are read: those that an event must have, then those that may be missing or null.
_NEEDED = ("httpMethod", "path")
_TEXTS = ("resource", "body")
_SINGLE = ("headers", "queryStringParameters", "pathParameters")  # tables of texts
_SEVERAL = ("multiValueHeaders", "multiValueQueryStringParameters")  # tables of lists of texts
_TABLES = (*_SINGLE, *_SEVERAL, "requestContext")


def _checked(event: Any) -> dict[str, Any]:
    """Raises InvalidRequest."""
    if not isinstance(event, dict):
        raise _not_ours("it is no object")
    for name in _NEEDED:
        if not isinstance(event.get(name), str):
            raise _not_ours(f"{name} is no text")
    for name in _TEXTS:
        if not isinstance(event.get(name), str | None):
            raise _not_ours(f"{name} is no text")
    for name in _TABLES:
        if not isinstance(event.get(name), dict | None):
            raise _not_ours(f"{name} is no object")
    about = event.get("requestContext") or {}
    identity = about.get("identity") or {}
    single = chain.from_iterable([(event.get(name) or {}).values() for name in _SINGLE])
    several = list(chain.from_iterable([(event.get(name) or {}).values() for name in _SEVERAL]))
    if not (isinstance(identity, dict) and all(isinstance(each, list) for each in several)):
        raise _not_ours(f"requestContext.identity, {' or '.join(_SEVERAL)} has a wrong form")
    texts = [about.get("requestId") or "", identity.get("sourceIp") or "", *single, *chain(*several)]
    if not all(isinstance(each, str) for each in texts):
        raise _not_ours("a header, a path parameter, the request's id or its address is no text")
    return event


def _not_ours(why: str) -> InvalidRequest:
    return InvalidRequest(
        "This function takes events of an API Gateway REST API with Lambda proxy integration;"
        f" of this one {why}."
    )


def _path(event: Mapping[str, Any]) -> str:
    """`path` may begin with a custom domain's base path; `resource` with its parameters put in does not."""
    path: str = unquote(event["path"])
    inner: str = event.get("resource") or path
    for name, value in (event.get("pathParameters") or {}).items():
        inner = inner.replace(f"{{{name}+}}", value).replace(f"{{{name}}}", value)
    inner = unquote(inner)
    return inner if path.rstrip("/").endswith(inner.rstrip("/")) else path


def _query(event: Mapping[str, Any]) -> Pairs:
    """API Gateway has decoded it."""
    several = event.get("multiValueQueryStringParameters")
    if several is None:
        several = {name: [value] for name, value in (event.get("queryStringParameters") or {}).items()}
    return tuple((name, value) for name, values in several.items() for value in values)


def _headers(event: Mapping[str, Any]) -> Headers:
    several = event.get("multiValueHeaders")
    if several is None:
        several = {name: [value] for name, value in (event.get("headers") or {}).items()}
    # API Gateway unpacks a compressed body and passes it on as text, but may leave the header.
    gone = "" if event.get("isBase64Encoded") else "content-encoding"
    pairs = ((name.lower(), value) for name, values in several.items() for value in values)
    return Headers(tuple(pair for pair in pairs if pair[0] != gone))


def _least(event: Mapping[str, Any]) -> int:
    """Bytes that the body has at least, known without decoding it."""
    size = len(event.get("body") or "")
    return size // 4 * 3 - 2 if event.get("isBase64Encoded") else size


def _body(event: Mapping[str, Any]) -> bytes:
    text: str = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        if text.startswith("\x1f\ufffd"):  # gzip's first bytes, of which the second is no UTF-8
            raise InvalidRequest(
                "The compressed body was damaged on its way. Send it without Content-Encoding."
            )
        return text.encode("utf-8", "surrogatepass")  # half a pair is refused where JSON is read
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise InvalidRequest("The body does not match its encoding.") from exc


def _proxied(response: Response, body: bytes) -> dict[str, Any]:
    """Lambda proxy output; API Gateway counts the length itself."""
    named: dict[str, list[str]] = {}
    for name, value in response.headers:
        if name != "content-length":
            named.setdefault(name, []).append(value)
    try:
        text, encoded = body.decode(), False
    except UnicodeDecodeError:
        text, encoded = base64.b64encode(body).decode(), True
    return {
        "statusCode": response.status,
        "multiValueHeaders": named,
        "body": text,
        "isBase64Encoded": encoded,
    }
