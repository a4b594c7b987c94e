"""Authentication of requests that cost no credit."""

from __future__ import annotations

from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.values import Key
from kimi_gateway.http import Request


async def authenticate(gate: Gate, request: Request) -> Key:
    """The key, which is also noted for the request's log line. Raises the errors of
    `Gate.authenticate_free`."""
    key = await gate.authenticate_free(request.headers, request.client)
    request.record.key, request.record.account = key.id, key.account
    return key
