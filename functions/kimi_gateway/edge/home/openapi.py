"""The OpenAPI document, from the routing table: bodies, answers, errors and headers of each route."""

from __future__ import annotations

from typing import Any

from kimi_gateway import __version__
from kimi_gateway.accounts.documents import account_document, key_document
from kimi_gateway.accounts.limit_headers import NAMES
from kimi_gateway.accounts.usage import BY
from kimi_gateway.accounts.usage_report import counted
from kimi_gateway.accounts.values import Account, Budget, Grant, Key, Overview, Spent, Window
from kimi_gateway.edge.router import Access, Route
from kimi_gateway.endpoints.usage import BY as OF_USER
from kimi_gateway.endpoints.usage import MOST, credits_of, status_of
from kimi_gateway.pivot import ignored

TITLE = "Kimi Gateway"
UPLOAD = {
    "type": "object",
    "required": ["file"],
    "properties": {"purpose": {"type": "string"}, "file": {"type": "string", "format": "binary"}},
}
# The statuses that a route may answer with, by its access.
STATUSES: dict[Access, tuple[int, ...]] = {
    Access.OPEN: (400, 429, 503),
    Access.KEY: (400, 401, 403, 404, 429, 503),
    Access.CREDIT: (400, 401, 403, 404, 409, 413, 429, 503),
    Access.OPERATOR: (400, 401, 403, 404, 409, 429, 503),
}
MEANINGS = {
    400: "A member of the request is wrong; `param` names it.",
    401: "The key is missing, unknown, revoked, suspended or expired.",
    403: "The key may not do this, or credits or a budget are used up.",
    404: "There is no such path, model, account, key or object.",
    409: "The state does not allow this now.",
    413: "The body is too large.",
    429: "A limit is reached; `Retry-After` says how long.",
    503: "The gateway or the upstream cannot answer now; nothing is charged.",
}
_KEY = Key("key_abcdefghij", "", "acc_abcdefghij", "alice", budgets=(Budget("usd", "day", 5_000_000),))
_SPENT = (Spent(_KEY.id, _KEY.budgets[0], 1_000_000, 1_800_000_000),)
_ACCOUNT = Account(
    _KEY.account, "alice", False, 100, 1, 9, 0, 0, (Grant(99, 1_800_000_000),), (_KEY,), _KEY.budgets, _SPENT
)
_SEEN = Overview(_ACCOUNT, (Window(20, 19, 1_800_000_000),), ())


def schema(table: tuple[Route, ...]) -> dict[str, Any]:
    """OpenAPI from the routing table."""
    info = {"title": TITLE, "version": __version__}
    document: dict[str, Any] = {"openapi": "3.1.0", "info": info, "paths": {}}
    for route in table:
        if route.access is Access.PAGE:
            continue
        document["paths"].setdefault(route.shown, {})[route.method.lower()] = _operation(route)
    document["components"] = {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        },
        "schemas": _schemas(),
        "headers": {name: {"schema": {"type": "string"}} for name in _headers()},
    }
    return document


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.path.split("/")[1] or "gateway"],
        "responses": {"200": _answer(route)} | _errors(route),
    }
    if route.access is not Access.OPEN:
        operation["security"] = [{"bearer": []}, {"api_key": []}]
    parameters = [_parameter(name, "path", {"type": "string"}) for name in route.pattern.names]
    parameters += _query(route)
    if parameters:
        operation["parameters"] = parameters
    if route.streams:
        operation["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": UPLOAD}},
        }
    elif route.example is not None:
        body = {"schema": of_example(route.example), "example": route.example}
        operation["requestBody"] = {
            "required": bool(route.example),
            "content": {"application/json": body},
        }
    return operation


def _parameter(name: str, place: str, of: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": of}


def _query(route: Route) -> list[dict[str, Any]]:
    text: dict[str, Any] = {"type": "string"}
    number: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": MOST}
    page = {"limit": number, "after": text}
    by: dict[str, dict[str, Any]] = {
        "/user/usage": {"by": {"enum": list(OF_USER)}, "since": text, **page},
        "/admin/usage": {"by": {"enum": list(BY)}, "since": text, "account": text, **page},
        "/admin/pool": {"balance": {"enum": ["now"]}},
        "/admin/requests": {
            **dict.fromkeys(("key", "account", "model", "status", "cause"), text), "limit": number
        },
    }  # fmt: skip
    if route.method != "GET":
        return []
    if route.path in ("/admin/accounts", "/admin/keys"):
        return [_parameter(name, "query", of) for name, of in page.items()]
    return [_parameter(name, "query", of) for name, of in by.get(route.path, {}).items()]


def _answer(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _answered(route)}}
    if route.access is Access.CREDIT:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    headers = ["x-request-id"]
    if route.access is Access.CREDIT:
        headers = list(_headers())
    return {"description": "Success", "headers": _named(headers), "content": content}


def _answered(route: Route) -> dict[str, Any]:
    lists = {"/admin/accounts": "Account", "/admin/keys": "Key"}
    named = {"/user/credits": "Credits", "/user/status": "Status"}
    if route.path in named:
        return _ref(named[route.path])
    if route.path in ("/user/usage", "/admin/usage"):
        return _ref("UsagePage")
    if route.method == "GET" and route.path in lists:
        return _page(_ref(lists[route.path]))
    for path, name in lists.items():
        if route.path.startswith(path) and (route.method != "DELETE" or name == "Key"):
            return _ref(name)
    return {"type": "object"}


def _errors(route: Route) -> dict[str, Any]:
    anthropic = "messages" in route.path
    body = _ref("AnthropicError" if anthropic else "Error")
    return {
        str(status): {
            "description": MEANINGS[status],
            "headers": _named(("x-request-id", *(("retry-after",) if status in (429, 503) else ()))),
            "content": {"application/json": {"schema": body}},
        }
        for status in STATUSES[route.access]
    }


def _headers() -> tuple[str, ...]:
    return ("x-request-id", *NAMES, ignored.HEADER, "retry-after", "x-should-retry", "idempotent-replayed")


def _named(names: list[str] | tuple[str, ...]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _page(of: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["object", "data", "has_more", "next"],
        "properties": {
            "object": {"type": "string"},
            "data": {"type": "array", "items": of},
            "has_more": {"type": "boolean"},
            "next": {"type": ["string", "null"]},
        },
    }


def _schemas() -> dict[str, Any]:
    error = {"message": "text", "type": "invalid_request_error", "param": None, "code": "invalid_request"}
    anthropic = {"type": "error", "error": {"type": "invalid_request_error", "message": "text"}}
    counts = of_example(counted(None))
    counts["properties"]["causes"] = {"type": "object", "additionalProperties": {"type": "integer"}}
    place = {name: {"type": "string"} for name in (*BY, "account_name", "key_name")}
    row = {**counts, "properties": {**place, **counts["properties"]}}
    usage = _page(row)
    usage["properties"] |= {"by": {"type": "string"}, "since": {"type": "string"}, "total": counts}
    return {
        "Error": of_example({"error": error}),
        "AnthropicError": of_example(anthropic),
        "Account": of_example(account_document(_ACCOUNT)),
        "Key": of_example(key_document(_KEY)),
        "Credits": of_example(credits_of(_SEEN, 0)),
        "Status": of_example(status_of(_SEEN, 0)),
        "UsagePage": usage,
    }


def of_example(value: Any) -> dict[str, Any]:
    """A JSON schema that describes a value like this one. Null may be anything, and any value may be null."""
    if isinstance(value, dict):
        properties = {name: of_example(each) for name, each in value.items()}
        return {"type": "object", "properties": properties}
    if isinstance(value, list):
        return {"type": "array", "items": of_example(value[0]) if value else {}}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": [kinds[type(value)], "null"]} if type(value) in kinds else {}
