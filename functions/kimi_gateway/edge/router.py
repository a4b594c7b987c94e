"""HTTP as values in, values out: routing, methods, CORS, errors, the log line. Every edge calls `handle`."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Collection
from enum import Enum
from typing import Any

from kimi_gateway.accounts import limit_headers
from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects import errors
from kimi_gateway.edge.body import check_length, unpack
from kimi_gateway.edge.patterns import Pattern, split
from kimi_gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PermissionDenied,
    UnsupportedMedia,
    UpgradeRequired,
    forget_frames,
)
from kimi_gateway.http import Request, Response
from kimi_gateway.observe import current_request, finished, tracers
from kimi_gateway.pivot import ignored
from kimi_gateway.providers.moonshot.provider import SIGNATURE

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])?(?::\d{0,5})?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# Headers that a page of another origin may read.
EXPOSED = (
    "x-request-id",
    "request-id",
    *limit_headers.NAMES,
    ignored.HEADER,
    "x-served-by",
    "retry-after",
    errors.NO_RETRY[0],
    "idempotent-replayed",
    *SIGNATURE,
)
_FOREIGN = [("access-control-allow-origin", "*"), ("access-control-expose-headers", ", ".join(EXPOSED))]
_METHODS = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
# Below any prefix: pages of other origins may not use them.
_OF_OWN_PAGES = re.compile("/token/check|/user/register|/webhooks/")
_RESPONSES = "/v1/responses"

Endpoint = Callable[..., Awaitable[Response]]


class Access(Enum):
    """The credential that a route requires. The endpoint checks the key itself, before it reads the body."""

    OPEN = "open"  # none
    KEY = "key"  # a key; the call is free
    CREDIT = "credit"  # a key whose account has a credit left
    OPERATOR = "operator"  # an operator's key
    PAGE = "page"  # none: a page for people or a file of one, outside of the API


@dataclass(frozen=True, slots=True)
class Route:
    """`path` and its `aliases` are patterns (edge/patterns.py); their parameters are the endpoint's keyword
    arguments. `limit` bounds the body in bytes: it lowers the edge's limit, or replaces it if the route
    `streams` the body instead of reading it whole."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    access: Access = Access.KEY
    example: dict[str, Any] | None = None
    aliases: tuple[str, ...] = ()
    limit: float = math.inf
    streams: bool = False

    @property
    def pattern(self) -> Pattern:
        return Pattern.of(self.path)

    @property
    def shown(self) -> str:
        """The path in the form of OpenAPI and the log line."""
        return self.path.replace("+}", "}")


class Paths:
    """Routes by the pattern of their path, and by method."""

    def __init__(self, table: tuple[Route, ...]) -> None:
        """Raises ValueError if two routes share a path and a method, or if the parameters of a pattern, or of
        a route and its alias, have different names."""
        self._exact: dict[str, dict[str, Route]] = {}
        patterns: dict[tuple[tuple[str, str], ...], tuple[Pattern, dict[str, Route]]] = {}
        for route in table:
            for path in (route.path, *route.aliases):
                pattern = Pattern.of(path)
                spelled, methods = patterns.setdefault(pattern.shape, (pattern, {}))
                if route.method in methods:
                    raise ValueError(f"two routes for {route.method} {path}")
                if spelled.text != path or set(pattern.names) != set(route.pattern.names):
                    raise ValueError(f"the parameters of {path} have other names elsewhere")
                methods[route.method] = route
                if not pattern.names:
                    self._exact[path] = methods
        self._patterns = [patterns[shape] for shape in sorted(patterns) if patterns[shape][0].names]
        self._longest = max([len(pattern.segments) for pattern, _ in self._patterns], default=0)

    def find(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        """The routes of the most specific matching pattern, by method, and the path's parameters."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact, {}
        parts = split(path, self._longest)
        for pattern, methods in self._patterns:
            found = pattern.match(parts)
            if found is not None:
                return methods, found
        return {}, {}


def request_id(given: str) -> str:
    """The client's own id if a log and a header can contain it, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else f"req_{os.urandom(16).hex()}"


def of_every_answer(request: Request) -> list[tuple[str, str]]:
    headers = [("x-request-id", request.id)]
    if not _OF_OWN_PAGES.search(request.path):
        headers += _FOREIGN
    if errors.dialect_of(request) == "anthropic":  # where its SDKs look for it
        headers.append(("request-id", request.id))
    return headers


class Router:
    """`pages` are paths for which the edge serves GET itself."""

    def __init__(self, table: tuple[Route, ...], pages: Collection[str] = ()) -> None:
        self.table = table
        self._pages = pages
        self._paths = Paths(table)

    async def handle(self, request: Request) -> Response:
        """Answer a request. Raises only cancellation; the response's `close` also writes the log line."""
        current_request.set(request.id)
        for begin in tracers:
            begin(request.headers, request.record)
        if ":" in request.client:
            from kimi_gateway.edge.addresses import block  # loads a module that few requests need

            request.client = block(request.client)
        try:
            response = await self._respond(request)
        except Exception as exc:
            error = exc if isinstance(exc, GatewayError) else errors.crashed(request)
            forget_frames(exc)
            return self.refuse(request, error)
        except BaseException:
            self._log(request, 499)
            raise
        try:
            return self._finished(request, response)
        except BaseException:  # nobody else knows the response yet
            await response.finish()
            raise

    def refuse(self, request: Request, error: GatewayError) -> Response:
        """The response for an error of an edge or a route."""
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
        if len(hosts) > 1 or (hosts and not _HOST.fullmatch(hosts[0])):
            raise InvalidRequest("The Host header is malformed.", cause="host")
        path = request.path.removeprefix("/api").rstrip("/") or "/"
        if request.method == "OPTIONS":
            if _OF_OWN_PAGES.search(path):
                raise PermissionDenied("A page of another origin may not use this.", cause="preflight")
            return _preflight(request)
        routes, parameters = self._paths.find(path)
        if not routes and request.path not in self._pages:
            raise NotFound(f"There is no {path[:120] or '/'} here.{self._hint(path)}")
        route = routes.get("GET" if request.method == "HEAD" else request.method)
        if route is not None:
            request.record.route = route.shown
            _prepare(request, route)
            return await route.endpoint(request, **parameters)
        if path == _RESPONSES and request.headers.get("upgrade").lower() == "websocket":
            raise UpgradeRequired(
                f"WebSocket is not served here; send the request over HTTP, as POST {_RESPONSES}.",
                headers=(("upgrade", "HTTP/1.1"),),
            )
        allowed = sorted({*(routes or ["GET"]), "OPTIONS"})
        if "GET" in allowed:
            allowed.insert(allowed.index("GET") + 1, "HEAD")
        raise MethodNotAllowed(
            f"{request.method[:20]} is not allowed here; use {' or '.join(allowed)}.",
            headers=(("allow", ", ".join(allowed)),),
        )

    def _hint(self, path: str) -> str:
        """The probable mistake: a base URL without its /v1, or with two."""
        if self._paths.find(f"/v1{path}")[0]:
            return " Your base URL probably lacks /v1."
        if path.startswith("/v1/v1/") and self._paths.find(path.removeprefix("/v1"))[0]:
            return " Your base URL probably has /v1 twice."
        return " GET /docs lists the paths." if "/docs" in self._pages else ""

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
    """Apply the route's rules for a body. Raises UnsupportedMedia, BodyTooLarge."""
    request.limit = route.limit if route.streams else min(route.limit, request.limit)
    if request.headers.get("content-encoding"):
        unpack(request)
    if route.access is Access.OPEN and route.method == "POST":
        check_length(request.headers, request.limit)
        # A form on a web page cannot send this type.
        kind = request.headers.get("content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMedia("The body must be JSON; send it with Content-Type: application/json.")


def _preflight(request: Request) -> Response:
    """Browser SDKs send headers of their own (x-stainless-*), so the requested ones are allowed."""
    asked = request.headers.get("access-control-request-headers")
    headers = [
        ("access-control-allow-methods", _METHODS),
        ("access-control-allow-headers", asked or "authorization, content-type, x-api-key"),
        ("access-control-max-age", "86400"),
        ("vary", "access-control-request-headers"),
    ]
    return Response(204, headers)
