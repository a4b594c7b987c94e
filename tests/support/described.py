"""Real requests and answers against the OpenAPI document. Members that it does not name are faults, too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from kimi_gateway.edge.home.openapi import EVENTS, schema
from kimi_gateway.edge.router import Access, Route
from kimi_gateway.edge.routes import routes
from kimi_gateway.http import Headers

OF_EDGE = {
    "content-type", "content-length", "allow", "server-timing", "deprecation", "cache-control", "connection",
    "x-served-by", "vary", "transfer-encoding", "request-id", "x-accel-buffering",
}  # fmt: skip


class Anything:
    """Stands for a gateway of which only the table is read."""

    def __getattr__(self, name: str) -> Anything:
        return self


@cache
def table() -> tuple[Route, ...]:
    everything: Any = Anything()
    return tuple(each for each in routes(everything, everything) if each.access is not Access.PAGE)


@cache
def document() -> dict[str, Any]:
    return schema(table())


@cache
def named() -> dict[str, Any]:
    """The schemas of the document, closed: an object has the members that are named, and no others."""
    return {name: closed(each) for name, each in document()["components"]["schemas"].items()}


def closed(part: Any) -> Any:
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    whole = {name: closed(each) for name, each in part.items()}
    if isinstance(part.get("properties"), dict) and part.get("type") == "object":
        whole.setdefault("additionalProperties", False)
    return whole


@cache
def _validator(text: str, strict: bool) -> Draft202012Validator:
    part = json.loads(text)
    schemas = named() if strict else document()["components"]["schemas"]
    return Draft202012Validator({**(closed(part) if strict else part), "components": {"schemas": schemas}})


def faults(part: Mapping[str, Any], value: Any, strict: bool = True) -> list[str]:
    errors = _validator(json.dumps(part), strict).iter_errors(value)
    return [f"{each.json_path}: {each.message[:300]}" for each in errors]


def events(body: bytes) -> Iterator[Any]:
    for line in body.decode().splitlines():
        if line.startswith("data:") and (data := line.removeprefix("data:").strip()) != "[DONE]":
            yield json.loads(data)


def wrong(
    route: Route, raw: bytes, kind: str, status: int, headers: Mapping[str, str], body: bytes
) -> list[str]:
    """What the document does not say of one request and its answer."""
    operation = document()["paths"][route.shown][route.method.lower()]
    found = [
        f"header {name}"
        for name in headers
        if name not in document()["components"]["headers"]
        and name not in OF_EDGE
        and not name.startswith("access-control-")
    ]
    answer = operation["responses"].get(str(status))
    if answer is None:
        return [*found, f"status {status}"]
    content = answer["content"]
    media = Headers(headers.items()).get("content-type").partition(";")[0]
    if media not in content:
        return [*found, f"{status} with {media}"]
    if media == "application/json":
        found += faults(content[media]["schema"], json.loads(body))
    elif media == "text/event-stream":
        of = content[media]["schema"][EVENTS]
        found += [fault for event in events(body) for fault in faults(of, event)]
    asked = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if status == 200 and raw and asked is not None and "multipart" not in kind:
        found += [f"request {each}" for each in faults(asked["schema"], json.loads(raw), strict=False)]
    return found
