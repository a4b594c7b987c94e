"""A request in wire format: the address from a URL, and the head, which cannot contain a second header or
request. Errors do not quote the text that they refuse."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from kimi_gateway import __version__
from kimi_gateway.net.http import ConnectFailed

PORTS = {"http": 80, "https": 443}
BODILESS = frozenset(
    {"GET", "HEAD", "DELETE", "OPTIONS"}
)  # methods that usually have no body; then no length is sent
METHODS = BODILESS | {"POST", "PUT", "PATCH"}
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
OURS = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
DEFAULTS = {"user-agent": f"kimi-gateway/{__version__}", "accept-encoding": "identity"}


class Address(NamedTuple):
    origin: tuple[str, str, int]  # scheme, host, port
    host: str  # as in the Host header
    target: str


@lru_cache(maxsize=256)
def locate(url: str) -> Address:
    """Parse a URL, which must be escaped already. Raises ConnectFailed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConnectFailed("the request cannot be sent (address)") from None
    if (
        not url.isascii()
        or not url.isprintable()
        or " " in url
        or parts.scheme not in PORTS
        or not host
        or parts.username is not None
    ):
        raise ConnectFailed("the request cannot be sent (address)")
    shown = f"[{host}]" if ":" in host else host
    if port is None or port == PORTS[parts.scheme]:
        port = PORTS[parts.scheme]
    else:
        shown += f":{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address((parts.scheme, host, port), shown, target)


def head(method: str, address: Address, headers: Mapping[str, str], length: int) -> bytes:
    """The head of a request. Framing headers are the client's own; raises ConnectFailed if `headers` contain
    one."""
    fixed = _lines(method, address, tuple(headers.items()))
    return (
        b"%bcontent-length: %d\r\n\r\n" % (fixed, length)
        if length or method not in BODILESS
        else fixed + b"\r\n"
    )


def streamed_head(method: str, address: Address, headers: Mapping[str, str]) -> tuple[bytes, int | None]:
    """The head of a request whose body is streamed, and the body's length: that of `content-length` in
    `headers`, or None for chunks. Raises ConnectFailed."""
    told = {name: value for name, value in headers.items() if name != "content-length"}
    length = headers.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 16):
        raise ConnectFailed("the request cannot be sent (length)")
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    head = b"%b%b\r\n\r\n" % (_lines(method, address, tuple(told.items())), framing.encode())
    return head, None if length is None else int(length)


@lru_cache(maxsize=256)
def _lines(method: str, address: Address, headers: tuple[tuple[str, str], ...]) -> bytes:
    """The lines that are the same for all requests with one token."""
    names = {name.lower() for name, _ in headers}
    text = "".join([value for _, value in headers])
    if (
        method not in METHODS
        or len(names) < len(headers)
        or not names.isdisjoint(OURS)
        or not all(NAME.fullmatch(name) for name, _ in headers)
        or not (text.isascii() and text.replace("\t", " ").isprintable())
    ):
        raise ConnectFailed("the request cannot be sent (method or headers)")
    lines = [f"{method} {address.target} HTTP/1.1"]
    if "host" not in names:
        lines.append(f"host: {address.host}")
    lines += [f"{name}: {value}" for name, value in headers]
    lines += [f"{name}: {value}" for name, value in DEFAULTS.items() if name not in names]
    return ("\r\n".join(lines) + "\r\n").encode("ascii")
