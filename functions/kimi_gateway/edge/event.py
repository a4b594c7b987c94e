"""API Gateway's REST proxy events in and out of `handle`: the handler of every Lambda function.

A function streams or buffers, as its integration does. Nobody tells a function that its client has left;
deadlines bound what that costs. Event and answer: the API Gateway guide, Lambda proxy integrations.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import random
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from kimi_gateway import settings
from kimi_gateway.assemble import Running, start
from kimi_gateway.cloudwatch import to_cloudwatch
from kimi_gateway.edge.http import Front, Route, of_every_answer, request_id, routes
from kimi_gateway.edge.lambda_runtime import Context, Lifecycle, Streamed
from kimi_gateway.errors import BodyTooLarge, GatewayError, InvalidRequest, NotFound, Unavailable
from kimi_gateway.gateway import error_response
from kimi_gateway.values import Headers, Request, Response

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
        self._front = Front(())

    async def start(self) -> None:
        """From the environment. Raises SettingsFault, and what `assemble.start` raises."""
        values = settings.read()
        to_cloudwatch(values.log_level)
        self.serve(await start(values, renewing=False))

    def serve(self, running: Running) -> None:
        table = routes(running.gateway, running.queries)
        missing = {*self._paths, *self._elsewhere} - {route.path for route in table}
        if missing:
            raise LookupError(f"no route for {missing}")
        self._running = running
        own = [route for route in table if not self._paths or route.path in self._paths]
        self._front = Front(tuple(_refused(each) if each.path in self._elsewhere else each for each in own))

    async def __call__(self, event: Mapping[str, Any], context: Context) -> Streamed | dict[str, Any]:
        if self._running is None:  # a loop that knows nothing of `lifecycle`
            await self.start()
        assert self._running is not None  # noqa: S101
        request = request_of(event, context, self._running.gateway.settings.body_limit)
        exchange = _Exchange(request, self._front)
        if self._streamed:
            return await exchange.streamed(self._patience)
        return await exchange.buffered()

    async def _idle(self) -> None:
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
    async def refuse(request: Request) -> Response:
        raise NotFound(f"Spelt this way the path is not served; use {route.path}.")

    return replace(route, endpoint=refuse)


async def _restored() -> None:
    """Every copy of a snapshot would draw the same numbers."""
    random.seed()


class _Exchange:
    """One request and its answer. The response is finished once, whatever happens."""

    def __init__(self, request: Request, front: Front) -> None:
        self._request = request
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
                refusal = self._refusal(
                    GatewayError("The answer is larger than the 6 MiB that Lambda sends.")
                )
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
        response = error_response(error, self._request)
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


def request_of(event: Mapping[str, Any], context: Context, body_limit: int) -> Request:
    about = event.get("requestContext") or {}
    headers = _headers(event)
    given = headers.get("x-request-id") or about.get("requestId") or context.aws_request_id

    async def body() -> bytes:
        raw = _body(event)
        if len(raw) > body_limit:
            raise BodyTooLarge(f"The body is larger than {body_limit} bytes.")
        return raw

    return Request(
        method=event["httpMethod"],
        path=_path(event),
        headers=headers,
        id=request_id(given),
        body=body,
        client=(about.get("identity") or {}).get("sourceIp") or "",
        notes={"aws_request_id": context.aws_request_id},
        deadline=time.monotonic() + context.get_remaining_time_in_millis() / 1000 - ENDED_BY,
    )


def _path(event: Mapping[str, Any]) -> str:
    """`path` may begin with a custom domain's base path; `resource` with its parameters put in does not."""
    path: str = unquote(event["path"])
    inner: str = event.get("resource") or path
    for name, value in (event.get("pathParameters") or {}).items():
        inner = inner.replace(f"{{{name}+}}", value).replace(f"{{{name}}}", value)
    inner = unquote(inner)
    return inner if path.rstrip("/").endswith(inner.rstrip("/")) else path


def _headers(event: Mapping[str, Any]) -> Headers:
    several = event.get("multiValueHeaders")
    if several is None:
        several = {name: [value] for name, value in (event.get("headers") or {}).items()}
    return Headers(tuple((name.lower(), value) for name, values in several.items() for value in values))


def _body(event: Mapping[str, Any]) -> bytes:
    text: str = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return text.encode("utf-8", "surrogatepass")  # half a pair is refused where JSON is read
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise InvalidRequest("The body is not what its encoding says.") from exc


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
