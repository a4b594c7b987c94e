"""Reads path, query and the length of the body from the head of a request."""

from __future__ import annotations

from urllib.parse import unquote

import httptools

from kimi_gateway.http import Headers


def split(target: bytes) -> tuple[str, str]:
    """The decoded path, and the query as it is. Raises ValueError or HttpParserError."""
    if not target.startswith(b"/"):
        url = httptools.parse_url(target)
        target = b"%b?%b" % (url.path or b"/", url.query or b"")
    line, _, query = target.partition(b"?")
    path = line.decode("ascii")
    return unquote(path) if "%" in path else path, query.decode("utf-8", "replace")


def length_of(headers: Headers) -> int | None:
    """The body's length as declared; None for chunks. The parser has refused invalid numbers."""
    if headers.all("transfer-encoding"):
        return None
    length = headers.get("content-length")
    return int(length) if length.isdigit() else 0
