"""HTTP as values in, values out: routing, methods, CORS, errors, the log line. Every edge calls `handle`."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from kimi_gateway.dialects import errors
from kimi_gateway.edge.body import check_length, unpacked
from kimi_gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PermissionDenied,
    UnsupportedMedia,
    UpgradeRequired,
)
from kimi_gateway.http import Request, Response
from kimi_gateway.observe import current_request, finished

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])?(?::\d{0,5})?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_EXPOSED = (
    "x-request-id, request-id, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset,"
    " x-credits-remaining, x-param-ignored, retry-after, x-should-retry,"
    " msh-request-timestamp, msh-request-signature"
)
_FOREIGN = [("access-control-allow-origin", "*"), ("access-control-expose-headers", _EXPOSED)]
_METHODS = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_NOT_FOREIGN = "/token/check"  # below any prefix: what a page of another origin may not use
_RESPONSES = "/v1/responses"

Endpoint = Callable[..., Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` may end in `{name}`, which takes the rest of a path, slashes included. `aliases` are served
    alike. An `open` route asks for no key; `limit`, in bytes, is of its body, where that is less than the
    edge's."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    open: bool = False
    example: dict[str, Any] | None = None
    aliases: tuple[str, ...] = ()
    limit: float = math.inf

    @property
    def prefix(self) -> str | None:
        return self.path.partition("{")[0] if "{" in self.path else None


def request_id(given: str) -> str:
    """The client's own id where it is one that a log and a header can carry, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"


def of_every_answer(request: Request) -> list[tuple[str, str]]:
    headers = [("x-request-id", request.id)]
    if _NOT_FOREIGN not in request.path:
        headers += _FOREIGN
    if errors.dialect_of(request.path) == "anthropic":  # where its SDKs look for it
        headers.append(("request-id", request.id))
    return headers


class Router:
    """`pages` are the paths that the edge serves to GET by itself."""

    def __init__(self, table: tuple[Route, ...], pages: Collection[str] = ()) -> None:
        self.table = table
        self._pages = pages
        self._exact: dict[str, list[Route]] = {}
        for route in table:
            for path in (route.path, *route.aliases) if route.prefix is None else ():
                self._exact.setdefault(path, []).append(route)
        self._prefixed = [route for route in table if route.prefix is not None]

    async def handle(self, request: Request) -> Response:
        """Never raises but for cancellation; the response's `close` also writes the log line."""
        current_request.set(request.id)
        if ":" in request.client:
            from kimi_gateway.edge.addresses import block  # loads a module that few need

            request.client = block(request.client)
        try:
            response = await self._respond(request)
        except Exception as exc:
            return self.refuse(request, exc if isinstance(exc, GatewayError) else errors.crashed(request))
        except BaseException:
            self._log(request, 499)
            raise
        try:
            return self._finished(request, response)
        except BaseException:  # nobody else knows of the response yet
            await response.finish()
            raise

    def refuse(self, request: Request, error: GatewayError) -> Response:
        """The answer to what an edge, or a route, refuses."""
        current_request.set(request.id)
        response = errors.response(error, request)
        request.record.cause = error.cause
        return self._finished(request, response)

    def _finished(self, request: Request, response: Response) -> Response:
        response.headers += of_every_answer(request)
        if request.method == "HEAD" and isinstance(response.body, bytes):
            response.headers.append(("content-length", str(len(response.body))))
            response.body = b""
        return self._logged(request, response)

    async def _respond(self, request: Request) -> Response:
        hosts = request.headers.all("host")
        if len(hosts) > 1 or not all(_HOST.fullmatch(host) for host in hosts):
            raise InvalidRequest("The Host header is malformed.", cause="host")
        path = request.path.removeprefix("/api").rstrip("/") if request.path != "/" else "/"
        if request.method == "OPTIONS":
            if _NOT_FOREIGN in path:
                raise PermissionDenied("A page of another origin may not use this.", cause="preflight")
            return _preflight(request)
        found, rest = self._find(path)
        if not found and request.path not in self._pages:
            raise NotFound(f"There is no {path[:120] or '/'} here.{self._hint(path)}")
        wanted = "GET" if request.method == "HEAD" else request.method
        for route in found:
            if route.method == wanted:
                request.record.route = route.path
                _prepare(request, route)
                return await (route.endpoint(request, rest) if rest else route.endpoint(request))
        if path == _RESPONSES and request.headers.get("upgrade").lower() == "websocket":
            raise UpgradeRequired(
                f"WebSocket is not served here; send the request over HTTP, as POST {_RESPONSES}.",
                headers=(("upgrade", "HTTP/1.1"),),
            )
        allowed = sorted({route.method for route in found} | {"OPTIONS"}) if found else ["GET", "OPTIONS"]
        if "GET" in allowed:
            allowed.insert(1, "HEAD")
        raise MethodNotAllowed(
            f"{request.method[:20]} is not allowed here; use {' or '.join(allowed)}.",
            headers=(("allow", ", ".join(allowed)),),
        )

    def _hint(self, path: str) -> str:
        """What was probably meant: a base URL without the /v1 that it needs, or with one too many."""
        if self._find(f"/v1{path}")[0]:
            return " Your base URL probably lacks /v1."
        if path.startswith("/v1/v1/") and self._find(path.removeprefix("/v1"))[0]:
            return " Your base URL probably has /v1 twice."
        return " GET /docs lists the paths." if "/docs" in self._pages else ""

    def _find(self, path: str) -> tuple[list[Route], str]:
        exact = self._exact.get(path)
        if exact:
            return exact, ""
        for route in self._prefixed:
            if route.prefix and path.startswith(route.prefix) and len(path) > len(route.prefix):
                return [route], path[len(route.prefix) :]
        return [], ""

    def _logged(self, request: Request, response: Response) -> Response:
        finish = response.close

        async def close() -> None:
            try:
                await finish()
            finally:
                self._log(request, response.status)

        response.close = close
        return response

    def _log(self, request: Request, status: int) -> None:
        record = request.record
        if record.route in ("/ping", "/health") and status == 200:
            return
        record.id, record.method, record.path, record.status = (
            request.id, request.method, request.path[:200], status,
        )  # fmt: skip
        record.total_ms = round((time.monotonic() - request.started) * 1000, 2)
        finished(record)


def _prepare(request: Request, route: Route) -> None:
    """What a route's body must be. Raises UnsupportedMedia, BodyTooLarge."""
    if route.limit < request.limit:
        request.limit = route.limit
    if request.headers.get("content-encoding"):
        request.body = unpacked(request)
    if route.open and route.method == "POST":
        check_length(request.headers, request.limit)
        # A form on a web page cannot send this type.
        kind = request.headers.get("content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMedia("The body must be JSON; send it with Content-Type: application/json.")


def _preflight(request: Request) -> Response:
    """Browser SDKs send headers of their own making (x-stainless-*), so those asked for are allowed."""
    asked = request.headers.get("access-control-request-headers")
    headers = [
        ("access-control-allow-methods", _METHODS),
        ("access-control-allow-headers", asked or "authorization, content-type, x-api-key"),
        ("access-control-max-age", "86400"),
        ("vary", "access-control-request-headers"),
    ]
    return Response(204, headers)
