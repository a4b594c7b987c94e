"""Authentication of requests that cost no credit."""

from __future__ import annotations

from kimi_gateway.accounts import terms
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.guests import GuestKey
from kimi_gateway.accounts.values import Key
from kimi_gateway.errors import PermissionDenied
from kimi_gateway.http import Request
from kimi_gateway.observe import asked_by


async def authenticate(gate: Gate, request: Request, fresh: bool = True) -> Key:
    """The key, which is also noted for the request's log line. Raises the errors of
    `Gate.authenticate_free`."""
    key = await gate.authenticate_free(request.headers, request.client, fresh)
    asked_by(request.record, key.id, key.account)
    return key


async def authenticate_account(gate: Gate, request: Request) -> Key:
    """The key of an account of this gateway. Raises PermissionDenied for callers who bring tokens of their
    own, and what `authenticate` raises."""
    return _own(await authenticate(gate, request))


async def authenticate_cached(gate: Gate, request: Request) -> Key:
    """The same for endpoints whose store step refuses an outdated record."""
    return _own(await authenticate(gate, request, fresh=False))


def _own(key: Key) -> Key:
    if isinstance(key, GuestKey):
        raise PermissionDenied(
            "This needs a key of this gateway (sk-kg-…); it is not offered to callers with Kimi tokens of"
            " their own.",
            cause="guest",
        )
    return key


async def authenticate_for_files(gate: Gate, request: Request) -> Key:
    """The same for a key that may use files. Raises PermissionDenied too."""
    key = await authenticate_account(gate, request)
    if not terms.may_use_files(key):
        raise PermissionDenied("This API key may not use files. Ask the operator to allow them.")
    return key
