"""API Gateway's part: a REST request as a Lambda proxy event, a function's answer as its client gets it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

Pairs = Iterable[tuple[str, str]]


def event(
    method: str, path: str, headers: Pairs = (), body: bytes = b"", *, base_path: str = "",
    resource: str | None = None, parameters: dict[str, str] | None = None, source: str = "192.0.2.7",
) -> dict[str, Any]:  # fmt: skip
    """`path` as it stands in the request line. A `base_path` is a custom domain's."""
    path, _, query = path.partition("?")
    named: dict[str, list[str]] = {}
    for name, value in headers:
        named.setdefault(name, []).append(value)
    text, encoded = _text(body)
    pairs = [pair.partition("=")[::2] for pair in query.split("&")] if query else []
    return {
        "resource": resource or "/{proxy+}",
        "path": f"{base_path}{path}",
        "httpMethod": method,
        "headers": {name: values[-1] for name, values in named.items()} or None,
        "multiValueHeaders": named or None,
        "queryStringParameters": {name: unquote(value) for name, value in pairs} or None,
        "multiValueQueryStringParameters": {name: [unquote(value)] for name, value in pairs} or None,
        "pathParameters": parameters or ({"proxy": path.lstrip("/")} if resource is None else None),
        "stageVariables": None,
        "requestContext": {
            "resourcePath": resource or "/{proxy+}",
            "httpMethod": method,
            "path": f"/prod{path}",
            "stage": "prod",
            "requestId": "0f9a4b5e-0000-4000-8000-5d2a4c6b7e8f",
            "identity": {"sourceIp": source, "userAgent": "test"},
        },
        "body": text,
        "isBase64Encoded": encoded,
    }


def unpacked(headers: Pairs, body: bytes) -> bytes:
    """A request body on its way to the integration (API Gateway's guide, compressed payloads). Raises where a
    client would get 415."""
    codings = [value for name, value in headers if name.lower() == "content-encoding"]
    return gzip.decompress(body) if codings == ["gzip"] else body


def _text(body: bytes) -> tuple[str | None, bool]:
    if not body:
        return None, False
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), True


@dataclass(frozen=True)
class Answered:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


def of_proxy(answer: dict[str, Any]) -> Answered:
    """A BUFFERED integration's."""
    assert answer.keys() == {"statusCode", "multiValueHeaders", "body", "isBase64Encoded"}
    body = base64.b64decode(answer["body"]) if answer["isBase64Encoded"] else answer["body"].encode()
    pairs = [(name, value) for name, values in answer["multiValueHeaders"].items() for value in values]
    return Answered(answer["statusCode"], pairs, body)


def of_stream(sent: bytes) -> Answered:
    """A STREAM integration's: prelude, eight NULs within 16 KiB, body."""
    head, mark, body = sent.partition(bytes(8))
    assert mark
    assert len(head) + 8 <= 16 * 1024
    prelude = json.loads(head)
    assert prelude.keys() <= {"statusCode", "headers", "multiValueHeaders", "cookies"}
    pairs = list(prelude.get("headers", {}).items())
    pairs += [(name, v) for name, values in prelude.get("multiValueHeaders", {}).items() for v in values]
    return Answered(prelude["statusCode"], pairs, body)
