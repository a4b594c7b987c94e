"""The OpenAPI document, from the routing table: bodies, answers, errors and headers of each route."""

from __future__ import annotations

from typing import Any

from kimi_gateway import __version__
from kimi_gateway.accounts.documents import account_document, key_document, limits_in_force, spent_document
from kimi_gateway.accounts.limit_headers import NAMES
from kimi_gateway.accounts.usage import BY
from kimi_gateway.accounts.usage_report import counted
from kimi_gateway.accounts.values import Account, Budget, Grant, Key, Overview, Spent, Window
from kimi_gateway.catalog.models import ROWS
from kimi_gateway.edge.home.schemas.notation import TEXT, WHOLE, either, maybe, one, page
from kimi_gateway.edge.home.schemas.table import ROUTES, SCHEMAS, Described
from kimi_gateway.edge.router import Access, Route
from kimi_gateway.endpoints.models import entry_of
from kimi_gateway.endpoints.usage import BY as OF_USER
from kimi_gateway.endpoints.usage import MOST, credits_of, status_of
from kimi_gateway.pivot import ignored

TITLE = "Kimi Gateway"
EVENTS = "x-event-schema"  # of a stream: the schema of the JSON in one event
# The statuses that a route may answer with, by its access.
STATUSES: dict[Access, tuple[int, ...]] = {
    Access.OPEN: (400, 429, 503),
    Access.KEY: (400, 401, 403, 404, 409, 429, 503),
    Access.CREDIT: (400, 401, 403, 404, 409, 422, 429, 503),
    Access.OPERATOR: (400, 401, 403, 404, 409, 429, 503),
}
OF_BODY = (408, 413, 415)  # of routes with a body as well
OF_OPEN = {"/user/register": (403, 404), "/webhooks/payment": (403, 404, 409)}
MEANINGS = {
    400: "A member of the request is wrong; `param` names it.",
    401: "The key is missing, unknown, revoked, suspended or expired.",
    403: "The key may not do this, or credits or a budget are used up.",
    404: "There is no such path, model, account, key or object.",
    409: "The state does not allow this now.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body has another media type or encoding than the route takes.",
    422: "Another request had this `Idempotency-Key`.",
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
        "headers": {name: {"schema": {"type": "string"}} for name in (*_headers(), "www-authenticate")},
    }
    return document


def _operation(route: Route) -> dict[str, Any]:
    of = ROUTES[f"{route.method} {route.shown}"]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.path.split("/")[1] or "gateway"],
        "responses": ({} if of.refuses else {"200": _answer(route, of)}) | _errors(route, of),
    }
    if route.access is not Access.OPEN:
        operation["security"] = [{"bearer": []}, {"api_key": []}]
    parameters = [_parameter(name, "path", {"type": "string"}) for name in route.pattern.names]
    parameters += _query(route)
    if parameters:
        operation["parameters"] = parameters
    if of.body:
        content: dict[str, Any] = {"application/json": {"schema": _ref(of.body)}}
        if route.example is not None:
            content["application/json"]["example"] = route.example
        if route.streams:
            content = {
                "multipart/form-data": {"schema": _ref(of.body)},
                "application/json": {"schema": _ref("FileCompletion")},
            }
        operation["requestBody"] = {"required": of.body != "Empty", "content": content}
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


def _answer(route: Route, of: Described) -> dict[str, Any]:
    whole = _ref(of.answer) if of.answer else {"type": "string"}
    content: dict[str, Any] = {of.kind: {"schema": whole}}
    if of.events:
        told = f"Server-sent events; the data of each is a {of.events}"
        events = {"type": "string", "description": told, EVENTS: _ref(of.events)}
        content["text/event-stream"] = {"schema": events}
    headers = list(_headers()) if route.access is Access.CREDIT else ["x-request-id"]
    return {"description": "Success", "headers": _named(headers), "content": content}


def statuses(route: Route) -> tuple[int, ...]:
    """The errors that a route may answer with, beside those of its path and method (404, 405)."""
    body = OF_BODY if route.streams or route.method in ("POST", "PATCH") else ()
    return tuple(sorted({*STATUSES[route.access], *OF_OPEN.get(route.path, ()), *body}))


def _errors(route: Route, of: Described) -> dict[str, Any]:
    both = ("/v1/files", "/v1/batches")  # their dialect follows a header
    if "messages" in route.path:
        body = _ref("AnthropicError")
    elif route.path.startswith(both):
        body = {"anyOf": [_ref("Error"), _ref("AnthropicError")]}
    else:
        body = _ref("Error")
    found = {}
    for status in statuses(route):
        shape = {"anyOf": [body, _ref(of.answer)]} if (route.path, status) == ("/health", 503) else body
        retry = ("retry-after",) if status in (429, 503) else ()
        asks = ("www-authenticate",) if status == 401 else ()
        final = ("x-should-retry",) if status in (401, 403, 404, 409, 413, 422) else ()
        found[str(status)] = {
            "description": MEANINGS[status],
            "headers": _named(("x-request-id", *asks, *retry, *final)),
            "content": {"application/json": {"schema": shape}},
        }
    return found


def _headers() -> tuple[str, ...]:
    return ("x-request-id", *NAMES, ignored.HEADER, "retry-after", "x-should-retry", "idempotent-replayed")


def _named(names: list[str] | tuple[str, ...]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    counts = of_example(counted(None))
    counts["properties"]["causes"] = {"type": "object", "additionalProperties": {"type": "integer"}}
    place = {name: TEXT for name in BY} | dict.fromkeys(("account_name", "key_name"), maybe(TEXT))
    row = {**counts, "properties": {**place, **counts["properties"]}}
    usage = page(row, next=maybe(TEXT), by=TEXT, since=TEXT, total=counts)
    key = of_example(key_document(_KEY) | {"role": "operator", "state": "active", "last_used": "", "key": ""})
    key["properties"] |= {
        "limits_in_force": of_example(limits_in_force(_KEY, _ACCOUNT)),
        "spent": of_example(spent_document(_SPENT)),
        "old_key_ends": TEXT,
        "budgets": {"type": "object"},
    }
    account = of_example(account_document(_ACCOUNT))
    account["properties"] |= {"keys": {"type": "array", "items": _ref("Key")}, "budgets": {"type": "object"}}
    account["properties"]["credits"] = either(WHOLE, one("unlimited"))
    return SCHEMAS | {
        "Account": account,
        "AccountPage": page(_ref("Account"), next=maybe(TEXT)),
        "Key": key,
        "KeyPage": page(_ref("Key"), next=maybe(TEXT)),
        "Credits": of_example(credits_of(_SEEN, 0)),
        "Status": of_example(status_of(_SEEN, 0)),
        "UsagePage": usage,
        "Model": of_example(entry_of(ROWS[0])) | {"additionalProperties": True},  # some are of the upstream
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
