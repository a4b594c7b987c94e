"""The HTTP client of tests, which threads may share."""

from __future__ import annotations

import httpx

from support.tls import NO_TLS

# httpcore closes idle connections above 20, also one that another thread has just been given.
ALL_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None)


def client(url: str, headers: dict[str, str], timeout: float) -> httpx.Client:
    return httpx.Client(
        base_url=url, headers=headers, timeout=timeout, limits=ALL_KEPT, trust_env=False, verify=NO_TLS
    )
