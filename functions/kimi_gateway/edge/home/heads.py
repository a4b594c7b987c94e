"""Reads path, query and the length of the body from the head of a request, and answers what is not HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

import httptools

from kimi_gateway.dialects import errors
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.http import Headers, Pairs
from kimi_gateway.net import jsonio


def split(target: bytes) -> tuple[str, str]:
    """The decoded path, and the query as it is. Raises ValueError or HttpParserError."""
    if not target.startswith(b"/"):
        url = httptools.parse_url(target)
        target = b"%b?%b" % (url.path or b"/", url.query or b"")
    line, _, query = target.partition(b"?")
    path = line.decode("ascii")
    return unquote(path) if "%" in path else path, query.decode("utf-8", "replace")


def pairs(fields: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Headers with their names in small letters."""
    return tuple([(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in fields])


def length_of(headers: Headers) -> int | None:
    """The body's length as declared; None for chunks. The parser has refused invalid numbers."""
    if headers.all("transfer-encoding"):
        return None
    length = headers.get("content-length")
    return int(length) if length.isdigit() else 0


def bad_request(message: str) -> bytes:
    """The answer to what cannot be read as HTTP; the connection ends with it."""
    body = jsonio.dumps(errors.body(InvalidRequest(message), "openai"))
    head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\nconnection: close\r\n\r\n" + body
