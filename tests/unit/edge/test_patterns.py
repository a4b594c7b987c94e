"""Routing: any table against a slow reading of its patterns, and our own table at every path and method."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_gateway.edge.patterns import Pattern
from kimi_gateway.edge.router import Access, Paths, Route, Router
from kimi_gateway.edge.routes import routes
from kimi_gateway.http import Headers, Request, Response
from support.examples import examples

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW")
WORDS = ("a", "b", "files", "v1")
SEGMENTS = st.sampled_from([*WORDS, "{x}", "{y}"])
PATTERNS = st.builds(
    lambda segments, rest: "/" + "/".join([*segments, *rest]),
    st.lists(SEGMENTS, max_size=3).filter(lambda parts: parts.count("{x}") < 2 and parts.count("{y}") < 2),
    st.sampled_from([[], ["{z+}"], ["end"]]),
).filter(lambda text: text != "/")
PATHS = st.lists(st.sampled_from([*WORDS, "end", "", "x y"]), max_size=6).map(
    lambda parts: "/" + "/".join(parts)
)


async def endpoint(request: Request, **_: str) -> Response:
    return Response(200, [])


def expression(pattern: str) -> str:
    """A pattern as a regular expression."""
    text = re.sub(r"\\\{(\w+)\\\+\\\}", r"(?P<\1>(?s:.+))", re.escape(pattern))
    return re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", text)


def rank(pattern: str) -> list[int]:
    """Literal before one segment before the rest."""
    return [2 if part.endswith("+}") else 1 if part.startswith("{") else 0 for part in pattern.split("/")]


@settings(max_examples=examples(300), deadline=None)
@given(
    patterns=st.lists(PATTERNS, unique_by=lambda text: re.sub(r"\{\w+", "{", text), max_size=6), path=PATHS
)
def test_a_path_finds_its_most_specific_pattern_and_its_parameters(patterns: list[str], path: str) -> None:
    paths = Paths(tuple(Route("GET", pattern, endpoint, "") for pattern in patterns))
    matching = [(pattern, re.fullmatch(expression(pattern), path)) for pattern in patterns]
    wanted = min([(rank(pattern), pattern, m.groupdict()) for pattern, m in matching if m], default=None)
    methods, parameters = paths.find(path)
    if wanted is None:
        assert (methods, parameters) == ({}, {})
    else:
        assert (methods["GET"].path, parameters) == wanted[1:]


@pytest.mark.parametrize("text", ["a", "/{x}/{x}", "/{x+}/a", "/a{x}", "/{}", "/{x", "/x}", "/{X}"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"pattern"):
        Pattern.of(text)


@pytest.mark.parametrize(
    "table",
    [
        [("GET", "/a"), ("GET", "/a")],
        [("GET", "/{x}"), ("GET", "/{y}")],
        [("GET", "/{x}"), ("POST", "/{y}")],
        [("GET", "/a", ("/{x}",))],
        [("GET", "/{x}", ("/b/{y}",))],
    ],
)
def test_a_table_that_is_ambiguous_is_refused(table: list[Any]) -> None:
    made = [Route(method, path, endpoint, "", aliases=tuple(*aliases)) for method, path, *aliases in table]
    with pytest.raises(ValueError, match="two routes|other names"):
        Router(tuple(made))


def test_work_does_not_grow_with_the_slashes_of_a_path() -> None:
    paths = Paths((Route("GET", "/a/{x}", endpoint, ""), Route("GET", "/b/{x+}", endpoint, "")))
    assert paths.find("/a/" + "/" * 10**6)[0] == {}
    assert paths.find("/b/" + "/x" * 10**6)[1] == {"x": "/x" * 10**6}


# Our own table


class Anything:
    def __getattr__(self, name: str) -> Anything:
        return self


TABLE = routes(Anything(), Anything())  # type: ignore[arg-type]


class Seen:
    """Our table with endpoints that note how they were called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        noted = [Route(**{**self._fields(route), "endpoint": self._noting(route)}) for route in TABLE]
        self.router = Router(tuple(noted), ("/docs",))

    def _fields(self, route: Route) -> dict[str, Any]:
        return {name: getattr(route, name) for name in Route.__dataclass_fields__}

    def _noting(self, route: Route) -> Any:
        async def noted(request: Request, **parameters: str) -> Response:
            self.calls.append((route.method, route.path, parameters))
            return Response(200, [])

        return noted

    def ask(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        headers = Headers((("content-type", "application/json"),))
        response = asyncio.run(self.router.handle(Request(method, path, headers, "r")))
        assert isinstance(response.body, bytes)
        return response.status, dict(response.headers), response.body


VALUE = st.text("abc-_.1é %{}+", min_size=1, max_size=8)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Route, str, dict[str, str]]:
    route = draw(st.sampled_from(TABLE))
    path = draw(st.sampled_from((route.path, *route.aliases)))
    given = {}
    for name in route.pattern.names:
        rest = f"{{{name}+}}" in path
        value = draw(VALUE if not rest else st.lists(VALUE, min_size=1, max_size=3).map("/".join))
        given[name] = value
        path = path.replace(f"{{{name}+}}" if rest else f"{{{name}}}", value)
    slash = draw(st.sampled_from(["", "/"]))
    return route, draw(st.sampled_from(["", "/api"])) + path + slash, given


@settings(max_examples=examples(300), deadline=None)
@given(asked=asked(), method=st.sampled_from(METHODS))
def test_every_route_is_served_and_every_other_method_is_405(
    asked: tuple[Route, str, dict[str, str]], method: str
) -> None:
    seen, (route, path, parameters) = Seen(), asked
    own = {
        each.method
        for each in TABLE
        if any(Pattern.of(one).shape == Pattern.of(route.path).shape for one in (each.path, *each.aliases))
    }
    status, headers, body = seen.ask(method, path)
    wanted = "GET" if method == "HEAD" else method
    if method == "OPTIONS":
        assert status == (403 if _own_pages_only(path) else 204)
    elif wanted in own:
        assert (status, seen.calls) == (200, [(wanted, route.path, parameters)])
        assert method != "HEAD" or body == b""
    else:
        allowed = {*own, "OPTIONS", *(["HEAD"] if "GET" in own else [])}
        assert (status, set(headers["allow"].split(", "))) == (405, allowed)
    assert ("access-control-allow-origin" in headers) != _own_pages_only(path)


@settings(max_examples=examples(100), deadline=None)
@given(asked=asked())
def test_a_path_with_v1_missing_or_twice_gets_the_hint(asked: tuple[Route, str, dict[str, str]]) -> None:
    route, path, _ = asked
    if not route.path.startswith("/v1/"):
        return
    seen = Seen()
    path = path.removeprefix("/api").rstrip("/") or "/"
    for bad, hint in ((path.removeprefix("/v1"), b"lacks /v1"), (f"/v1{path}", b"/v1 twice")):
        if seen.router._paths.find(bad)[0]:
            continue  # is a path of its own
        status, _, body = seen.ask(route.method, bad)
        assert status == 404
        assert hint in body or not path.startswith("/v1/")


def test_the_openapi_page_has_every_path_and_says_how_to_upload() -> None:
    from kimi_gateway.edge.home.docs import schema

    paths = schema(TABLE)["paths"]
    described = [route for route in TABLE if route.access is not Access.PAGE]
    assert set(paths) == {route.shown for route in described}
    for route in described:
        operation = paths[route.shown][route.method.lower()]
        assert ("multipart/form-data" in operation.get("requestBody", {}).get("content", {})) == route.streams
        named = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
        assert named == list(route.pattern.names)
        assert ("security" in operation) == (route.access is not Access.OPEN)


def _own_pages_only(path: str) -> bool:
    """Open routes that write, or tell about a token, are not for pages of other origins."""
    return any(each in path for each in ("/token/check", "/user/register", "/webhooks/"))
