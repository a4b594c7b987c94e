"""POST /user/register: an account with its first key, for somebody who has none."""

from __future__ import annotations

import asyncio
import logging
from hashlib import sha256

from kimi_gateway.accounts import keys, payments
from kimi_gateway.accounts.gate import credentials
from kimi_gateway.accounts.store import Store, StoreDown, Unknown
from kimi_gateway.accounts.values import Account, Grant, NewKey
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.key_documents import check_name
from kimi_gateway.endpoints.own_keys import NO_STORE
from kimi_gateway.errors import InvalidKey, InvalidRequest, RateLimited, Unavailable
from kimi_gateway.http import Request, Response
from kimi_gateway.observe import emit
from kimi_gateway.pivot import fields
from kimi_gateway.settings import Settings

DAY = 86_400
OF_AN_ADDRESS = 3  # accounts a day


async def register(store: Store, settings: Settings, request: Request, now: int) -> Response:
    """Raises InvalidRequest, RateLimited, Unavailable."""
    body = fields.json_object(await request.body()).values
    name, code = body.get("name") or "", body.get("invite_code") or ""
    check_name(name, "name")
    fields.string(code, "invite_code")
    if settings.register == "invite" and not code:
        fields.fail("invite_code", "is required: this gateway takes new accounts by invitation")
    try:
        inviter = await _inviter(store, code, request, now) if code else None
        await _count(store, settings, request.client, now)
        opened = asyncio.ensure_future(_opened(store, settings.signup_credits, name, inviter, now))
        account, key, secret = await asyncio.shield(opened)  # also if the client leaves between two writes
    except StoreDown as exc:
        raise Unavailable("No account can be opened at present.", cause=exc.cause) from exc
    request.record.account = account.id
    shown = {
        "object": "account",
        "account": account.id,
        "key": secret,
        "id": key,
        "name": name,
        "credits": account.credits,
        "invite_code": payments.invite_code(account.id),
    }
    response = answer(shown)
    response.headers.append(NO_STORE)
    return response


async def _inviter(store: Store, code: str, request: Request, now: int) -> Account:
    """Raises InvalidRequest."""
    id = "acc_" + code.removeprefix(payments.INVITE)
    try:
        found = await store.account(id, now) if code.startswith(payments.INVITE) and len(code) < 40 else None
    except Unknown:
        found = None
    if found is None or found.id != id:
        raise InvalidRequest("invite_code: there is no such invitation", param="invite_code")
    if await _account_of(store, request) == found.id:
        raise InvalidRequest("invite_code: an account cannot invite itself", param="invite_code")
    return found


async def _account_of(store: Store, request: Request) -> str:
    """The account of a key that the request names; none is needed."""
    try:
        given = [each for each in credentials(request.headers) if keys.well_formed(each)]
    except InvalidKey:
        return ""
    found = [await store.find_key(keys.digest(each)) for each in given]
    return next((key.account for key in found if key is not None), "")


async def _count(store: Store, settings: Settings, client: str, now: int) -> None:
    """Raises RateLimited."""
    day = now // DAY
    ends = (day + 1) * DAY
    address = sha256(client.encode()).hexdigest()[:24]
    of_address = await store.tally(f"register/{day}/{address}", OF_AN_ADDRESS, ends, now)
    if not of_address or not await store.tally(f"register/{day}", settings.register_daily, ends, now):
        whose = "of all" if of_address else "from this address"
        raise RateLimited(
            f"No more accounts {whose} are opened today. Try again tomorrow (UTC).",
            retry_after=ends - now,
            cause="registrations",
        )


async def _opened(
    store: Store, credits: int, name: str, inviter: Account | None, now: int
) -> tuple[Account, str, str]:
    """The account, the id of its key, and the key. The account and its key are one step. The reward follows;
    if that breaks off, the guest's next look at its keys finishes it."""
    secret = keys.new_key()
    by = inviter.id if inviter is not None else ""
    account = await store.open_account(Grant(credits), NewKey(keys.digest(secret), "", name), now, by)
    try:
        await payments.registered(store, account, now)
    except StoreDown as exc:  # the account is there, so its key must be told
        emit("reward_unbooked", logging.WARNING, account=account.id, inviter=by, cause=exc.cause)
    return account, account.keys[0].id, secret
