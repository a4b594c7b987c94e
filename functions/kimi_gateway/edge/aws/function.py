"""The handler of every Lambda function: API Gateway's REST proxy events to `handle` and back.

A function streams or buffers, as its integration does. Lambda does not report that a client has left;
deadlines bound the cost. Formats: the API Gateway guide, Lambda proxy integrations.
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
from dataclasses import replace
from itertools import chain
from typing import Any
from urllib.parse import unquote

from kimi_gateway import settings
from kimi_gateway.app import Running, start
from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects import errors
from kimi_gateway.edge.aws.cloudwatch import to_cloudwatch
from kimi_gateway.edge.aws.lambda_runtime import Context, Lifecycle, Streamed
from kimi_gateway.edge.body import too_large
from kimi_gateway.edge.router import Route, Router, of_every_answer, request_id
from kimi_gateway.edge.routes import routes
from kimi_gateway.errors import GatewayError, InvalidRequest, NotFound, Unavailable
from kimi_gateway.http import Headers, Pairs, Query, Request, Response
from kimi_gateway.observe import RequestRecord, current_request, emit

ENDED_BY = 2.0  # seconds before the function's deadline at which a turn ends itself
GIVEN_UP = 0.4  # seconds after that, when everything that still waits is cancelled
LEFT_BEHIND = 1.5  # seconds for ledger and pool before the process may be frozen
DRAINED = 0.2  # seconds for streams at SIGTERM; Lambda gives 500 ms in total, and leases must be returned
LARGEST = 6 * 2**20  # bytes of a buffered answer, as Lambda counts them


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. API Gateway cuts a connection after 300 s of silence, so a late JSON answer begins with
    blanks, which JSON allows."""

    silent: float = 240
    between_blanks: float = 15


class Function:
    """A handler for `paths` of the routing table; without names for all.

    Paths in `elsewhere` belong to another function. A spelling that API Gateway does not know (such as a
    trailing slash) arrives here, where the answer would be buffered and cut after seconds, so it is refused.
    A request takes at most `longest` seconds, even if the function has more.
    """

    longest = math.inf

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
        self._router = Router(())
        self._limit: int | None = None  # bytes of a body; set when it serves

    async def start(self) -> None:
        """Start from the environment. Raises SettingsFault and the errors of `app.start`."""
        values = settings.read()
        to_cloudwatch(values.log_level)
        self.serve(await start(values, renewing=False))

    def serve(self, running: Running) -> None:
        table = routes(running.gateway, running.endpoints)
        missing = {*self._paths, *self._elsewhere} - {route.path for route in table}
        if missing:
            raise LookupError(f"no route for {missing}")
        self._running, self._limit = running, running.gateway.settings.body_limit
        own = [route for route in table if not self._paths or route.path in self._paths]
        self._router = Router(tuple(_refused(each) if each.path in self._elsewhere else each for each in own))

    async def __call__(self, event: Any, context: Context) -> Streamed | dict[str, Any]:
        if self._limit is None:  # a loop without `lifecycle`
            await self.start()
        assert self._limit is not None  # noqa: S101
        try:
            request = request_of(event, context, self._limit, self.longest)
        except InvalidRequest as error:
            return self._unreadable(error, context)
        exchange = _Exchange(request, self._router)
        if self._streamed:
            return await exchange.streamed(self._patience)
        return await exchange.buffered()

    def _unreadable(self, error: InvalidRequest, context: Context) -> Streamed | dict[str, Any]:
        """The answer to an event that does not come from API Gateway, for example from a manual
        invocation."""
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
    """Seed again, because all copies of a snapshot would draw the same numbers."""
    random.seed()


class _Exchange:
    """One request and its answer. The response is finished once, whatever happens."""

    def __init__(self, request: Request, router: Router) -> None:
        self._request = request
        current_request.set(request.id)  # here too, because a stream is written in the task of the invocation
        self._handling = asyncio.create_task(router.handle(request))

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
        """Body after an early 200; a failure becomes a JSON error in it."""
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
                refusal = self._refusal(
                    GatewayError("The answer is larger than the 6 MiB that Lambda allows.")
                )
                answer = _proxied(refusal, await _whole(refusal))
            return answer
        finally:
            await asyncio.shield(asyncio.ensure_future(self._finish()))

    async def _response(self, within: float) -> Response | None:
        """The response; None if it takes longer than `within` seconds; an error if the deadline comes
        first."""
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
        self._handling.cancel()  # no effect if it is done
        await asyncio.wait({self._handling})
        if not self._handling.cancelled():
            await self._handling.result().finish()


async def _whole(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([piece async for piece in response.body])


def request_of(told: Any, context: Context, body_limit: int, longest: float = math.inf) -> Request:
    """The request of an event. The body is decoded when it is read, so only for a caller with a key. Raises
    InvalidRequest if the event does not come from API Gateway."""
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
        deadline=time.monotonic() + min(longest, context.get_remaining_time_in_millis() / 1000) - ENDED_BY,
    )
    return request


# Members of an event that are required, and those that may be missing or null.
_NEEDED = ("httpMethod", "path")
_TEXTS = ("resource", "body")
_SINGLE = ("headers", "queryStringParameters", "pathParameters")  # tables of texts
_SEVERAL = ("multiValueHeaders", "multiValueQueryStringParameters")  # tables of lists of texts
_TABLES = (*_SINGLE, *_SEVERAL, "requestContext")


def _checked(event: Any) -> dict[str, Any]:
    """The event, with members of the right types. Raises InvalidRequest."""
    if not isinstance(event, dict):
        raise _not_ours("is not an object")
    for name in _NEEDED:
        if not isinstance(event.get(name), str):
            raise _not_ours(f"has a {name} that is not a string")
    for name in _TEXTS:
        if not isinstance(event.get(name), str | None):
            raise _not_ours(f"has a {name} that is not a string")
    for name in _TABLES:
        if not isinstance(event.get(name), dict | None):
            raise _not_ours(f"has a {name} that is not an object")
    about = event.get("requestContext") or {}
    identity = about.get("identity") or {}
    single = chain.from_iterable([(event.get(name) or {}).values() for name in _SINGLE])
    several = list(chain.from_iterable([(event.get(name) or {}).values() for name in _SEVERAL]))
    if not (isinstance(identity, dict) and all(isinstance(each, list) for each in several)):
        raise _not_ours(f"has a wrong form of requestContext.identity, {' or '.join(_SEVERAL)}")
    texts = [about.get("requestId") or "", identity.get("sourceIp") or "", *single, *chain(*several)]
    if not all(isinstance(each, str) for each in texts):
        raise _not_ours("has a header, a path parameter, a request id or an address that is not a string")
    return event


def _not_ours(why: str) -> InvalidRequest:
    return InvalidRequest(
        "This function accepts events of an API Gateway REST API with Lambda proxy integration;"
        f" this event {why}."
    )


def _path(event: Mapping[str, Any]) -> str:
    """The path without a custom domain's base path, which `path` may have. `resource` with its parameters
    inserted does not."""
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
    # API Gateway unpacks a compressed body and passes it on as text, but may leave the header. It passes an
    # answer on as it is only if it is text, so none may be compressed.
    gone = {"accept-encoding"} if event.get("isBase64Encoded") else {"accept-encoding", "content-encoding"}
    pairs = ((name.lower(), value) for name, values in several.items() for value in values)
    return Headers(tuple(pair for pair in pairs if pair[0] not in gone))


def _least(event: Mapping[str, Any]) -> int:
    """The least size of the body in bytes, without decoding it."""
    size = len(event.get("body") or "")
    return size // 4 * 3 - 2 if event.get("isBase64Encoded") else size


def _body(event: Mapping[str, Any]) -> bytes:
    text: str = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        if text.startswith("\x1f\ufffd"):  # gzip's first bytes; the second is not valid UTF-8
            raise InvalidRequest(
                "The compressed body was damaged on its way. Send it without Content-Encoding."
            )
        return text.encode("utf-8", "surrogatepass")  # half a pair is refused where JSON is read
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise InvalidRequest("The body does not match its encoding.") from exc


def _proxied(response: Response, body: bytes) -> dict[str, Any]:
    """Lambda proxy output. API Gateway counts the length itself."""
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
