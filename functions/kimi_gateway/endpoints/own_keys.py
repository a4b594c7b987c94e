"""The keys that a key makes for itself: GET, POST, PATCH and DELETE /user/keys.

A key sees itself and the keys that it made, and changes only those. No member of a document makes a key
better than its maker (accounts/made_keys.py), and none resumes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kimi_gateway.accounts import keys, made_keys, payments, rules
from kimi_gateway.accounts.store import Store, StoreDown, TooManyKeys, Unknown
from kimi_gateway.accounts.values import Key
from kimi_gateway.endpoints import key_documents
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.errors import (
    Conflict,
    InvalidKey,
    NotFound,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from kimi_gateway.http import Response
from kimi_gateway.pivot import fields

DAY = 86_400
MADE_A_DAY = 100  # by one account, revoked ones included
NO_STORE = ("cache-control", "no-store")


async def listed(store: Store, caller: Key, now: int) -> Response:
    try:
        account = await store.account(caller.account, now)
        await payments.registered(store, account, now)  # in case its registration broke off before
    except (StoreDown, Unknown) as exc:
        raise _failed(exc) from exc
    own = [key for key in account.keys if key.id == caller.id]
    own += [key for key in account.keys if key.made_by == caller.id and not key.revoked]
    found = {"object": "list", "data": [key_documents.document(key) for key in own]}
    return answer(found | {"invite_code": payments.invite_code(account.id)})


async def made(store: Store, caller: Key, raw: bytes, most: int, now: int) -> Response:
    """The new key; its secret is shown this one time."""
    _require_right(caller)
    body = _body(raw, caller, now)
    secret = keys.new_key()
    blank = Key("", keys.digest(secret), caller.account, maker=caller)
    key = made_keys.capped(key_documents.changed(blank, body), caller)
    day = now // DAY
    try:
        if not await store.tally(f"keys/{caller.account}/{day}", MADE_A_DAY, (day + 1) * DAY, now):
            raise RateLimited(
                f"This account has made {MADE_A_DAY} keys today, as many as it may. Try again tomorrow.",
                retry_after=(day + 1) * DAY - now,
            )
        new = await store.create_key(rules.wanted(key), now, most)
    except TooManyKeys as exc:
        raise Conflict(f"This account has {most} keys, as many as it may have. Delete one first.") from exc
    except (StoreDown, Unknown) as exc:
        raise _failed(exc) from exc
    response = answer(key_documents.document(new) | {"key": secret})
    response.headers.append(NO_STORE)
    return response


async def changed(store: Store, caller: Key, id: str, raw: bytes, now: int) -> Response:
    _require_right(caller)
    body = _body(raw, caller, now)
    await _made_by(store, caller, id, now)

    def change(old: Key) -> Key:
        return made_keys.capped(key_documents.changed(old, body), old.maker or caller)

    try:
        return answer(key_documents.document(await store.update_key(id, change, now)))
    except (StoreDown, Unknown) as exc:
        raise _failed(exc) from exc


async def deleted(store: Store, caller: Key, id: str, now: int) -> Response:
    _require_right(caller)
    await _made_by(store, caller, id, now)
    try:
        await store.revoke_key(id, now)
    except (StoreDown, Unknown) as exc:
        raise _failed(exc) from exc
    return answer({"id": id, "object": "key", "deleted": True})


def _require_right(caller: Key) -> None:
    if not caller.manages:
        raise PermissionDenied("This API key may not manage keys. Ask the operator to allow it.")


async def _made_by(store: Store, caller: Key, id: str, now: int) -> None:
    """Raises PermissionDenied for the caller itself, NotFound for any key that it did not make."""
    if id == caller.id:
        raise PermissionDenied("A key cannot change itself. Ask the operator.")
    try:
        account = await store.account(caller.account, now)
    except (StoreDown, Unknown) as exc:
        raise _failed(exc) from exc
    if not any(key.id == id and key.made_by == caller.id and not key.revoked for key in account.keys):
        raise NotFound("This key has made no key with this id. GET /user/keys lists them.")


def _body(raw: bytes, caller: Key, now: int) -> Mapping[str, Any]:
    body = fields.json_object(raw).values
    key_documents.check(body, now)
    if name := made_keys.beyond(body.get("models") or (), caller):
        fields.fail("models", f"this key may not use {name[:80]!r}; it may use {', '.join(caller.models)}")
    if caller.models and "models" in body and not body["models"]:
        return {**body, "models": list(caller.models)}
    return body


def _failed(exc: StoreDown | Unknown) -> Unavailable | InvalidKey:
    if isinstance(exc, StoreDown):
        return Unavailable("Keys cannot be read or changed at present.", cause=exc.cause)
    return InvalidKey("Invalid API key provided.")
