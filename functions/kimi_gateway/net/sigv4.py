"""AWS Signature Version 4, in headers and in URLs. Tests compare it with botocore's signers. Rules: AWS,
"Create a signed AWS API request" and "Authenticating requests: using query parameters" (read 2026-11)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache
from hashlib import sha256
from hmac import digest
from posixpath import normpath
from urllib.parse import quote, urlsplit

from kimi_gateway.dataclass import dataclass
from kimi_gateway.net.wire import PORTS

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = frozenset({"expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"})  # proxies change them


@dataclass(frozen=True, slots=True)
class Credentials:
    """`session_token` belongs to temporary credentials."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """The region and service that a signature is valid for."""

    region: str
    service: str


def signed(
    credentials: Credentials,
    scope: Scope,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    now: float,
) -> dict[str, str]:
    """`headers` with X-Amz-Date, X-Amz-Security-Token and Authorization added. `url` must be escaped already;
    `now` is in unix seconds."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    added = {"X-Amz-Date": stamp}
    if credentials.session_token:
        added["X-Amz-Security-Token"] = credentials.session_token
    sent = {**headers, **added}
    parts = urlsplit(url)
    covered = {
        name: " ".join(value.split())
        for name, value in sorted((name.lower(), value) for name, value in sent.items())
        if name not in UNSIGNED
    }
    if "host" not in covered:
        covered = dict(sorted({**covered, "host": _host(url)}.items()))
    names = ";".join(covered)
    lines = [method.upper(), _path(parts.path), _query(parts.query)]
    lines += [f"{name}:{value}" for name, value in covered.items()]
    lines += ["", names, sha256(body).hexdigest()]
    signature = _signature(credentials, scope, stamp, lines)
    sent["Authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key}/{_range(scope, stamp)}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return sent


def presigned(
    credentials: Credentials,
    scope: Scope,
    method: str,
    url: str,
    headers: Mapping[str, str],
    seconds: int,
    now: float,
) -> str:
    """A URL of S3 that anyone may ask with `method` for `seconds`, if they send `headers` (names in lower
    case). The body is not signed. `url` must be escaped already and have no query."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    covered = dict(sorted({**headers, "host": _host(url)}.items()))
    names = ";".join(covered)
    told = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{_range(scope, stamp)}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": names,
    }
    if credentials.session_token:
        told["X-Amz-Security-Token"] = credentials.session_token
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(told.items()))
    lines = [method.upper(), urlsplit(url).path or "/", query]
    lines += [f"{name}:{value}" for name, value in covered.items()]
    lines += ["", names, "UNSIGNED-PAYLOAD"]
    return f"{url}?{query}&X-Amz-Signature={_signature(credentials, scope, stamp, lines)}"


def _range(scope: Scope, stamp: str) -> str:
    return f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"


def _signature(credentials: Credentials, scope: Scope, stamp: str, lines: list[str]) -> str:
    """`lines` are the canonical request."""
    canonical = sha256("\n".join(lines).encode()).hexdigest()
    text = "\n".join((ALGORITHM, stamp, _range(scope, stamp), canonical))
    key = _key(credentials.secret_key, stamp[:8], scope.region, scope.service)
    return digest(key, text.encode(), "sha256").hex()


@lru_cache(maxsize=16)
def _key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = digest(key, part.encode(), "sha256")
    return key


@lru_cache(maxsize=64)
def _host(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if parts.port in (None, PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _path(path: str) -> str:
    """The path, escaped once more: all services except S3 require it."""
    if not path:
        return "/"
    plain = normpath("/" + path.lstrip("/"))
    return quote(plain + "/" if path.endswith("/") and plain != "/" else plain, safe="/~")


def _query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&")) if query else ()
    return "&".join(f"{name}={value}" for name, _, value in sorted(pairs))
