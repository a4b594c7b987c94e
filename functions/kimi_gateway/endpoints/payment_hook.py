"""POST /webhooks/payment: what a payment service reports, signed with a secret that both sides know.

`X-Signature: t=<unix seconds>,v1=<hex>`, where v1 is HMAC-SHA256 of "<t>.<body>". The body names a payment,
or the refund of one, by an id that makes repeating it harmless.
"""

from __future__ import annotations

import hmac
from typing import Any

from kimi_gateway.accounts import payments
from kimi_gateway.accounts.packages import Package
from kimi_gateway.accounts.store import Store, StoreDown, Unknown, Unlimited
from kimi_gateway.accounts.values import Account, Grant
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.errors import Conflict, NotFound, PermissionDenied, Unavailable
from kimi_gateway.http import Request, Response
from kimi_gateway.observe import emit
from kimi_gateway.pivot import fields

WINDOW = 300  # seconds by which a signature may be older or newer
HEADER = "x-signature"
MOST_CREDITS, MOST_MONTHS = 10**9, 120


async def payment(
    store: Store, secrets: tuple[str, ...], packages: dict[str, Package], request: Request, now: int
) -> Response:
    """Raises PermissionDenied, InvalidRequest, NotFound, Conflict, Unavailable."""
    raw = await request.body()
    verify(request.headers.get(HEADER), raw, secrets, now)
    body = fields.json_object(raw).values
    for name in ("id", "type", "account"):
        fields.string(body.get(name), name)
    for name in ("id", "payment"):
        if len(str(body.get(name, ""))) > payments.LONGEST_ID or body.get(name) == "":
            fields.fail(name, f"must have 1 to {payments.LONGEST_ID} characters")
    fields.one_of("payment", "refund")(body["type"], "type")
    try:
        account = await store.account(body["account"], now)
        if account.id != body["account"]:
            raise Unknown(body["account"])
        booked = await _booked(store, account, body, packages, now)
        left = await store.account(account.id, now)
    except StoreDown as exc:
        raise Unavailable("The payment cannot be booked at present.", cause=exc.cause) from exc
    except Unlimited as exc:
        raise Conflict("This account is unlimited, so a payment would change nothing.") from exc
    except Unknown as exc:
        raise NotFound("There is no account with this id.") from exc
    request.record.account = account.id
    emit(body["type"], id=body["id"], account=account.id, **booked)
    return answer({"object": body["type"], "id": body["id"], "account": account.id, **booked,
                   "credits_remaining": left.credits})  # fmt: skip


async def _booked(
    store: Store, account: Account, body: dict[str, Any], packages: dict[str, Package], now: int
) -> dict[str, Any]:
    if body["type"] == "payment":
        grant = granted(body, packages, now)
        return {"credits": grant.amount, "booked": await payments.pay(store, account, body["id"], grant, now)}
    fields.string(body.get("payment"), "payment")
    taken = await payments.refund(store, account, body["payment"], now)
    if taken is None:
        raise Conflict("No payment with this id was booked for this account, so it cannot be refunded yet.")
    return {"credits": -taken, "payment": body["payment"]}


def granted(body: dict[str, Any], packages: dict[str, Package], now: int) -> Grant:
    """The credits of a package, or of the payment's own `credits` and `months`. Raises InvalidRequest."""
    if "package" in body:
        if "credits" in body or "months" in body:
            fields.fail("package", "give either package, or credits and months")
        fields.one_of(*packages)(body["package"], "package")
        return packages[body["package"]].bought(now)
    fields.integer(1, MOST_CREDITS)(body.get("credits"), "credits")
    months = body.get("months")
    if months is not None:
        fields.integer(1, MOST_MONTHS)(months, "months")
    return Package(body["credits"], months).bought(now)


def verify(header: str, raw: bytes, secrets: tuple[str, ...], now: int) -> None:
    """Raises PermissionDenied unless the header has a fresh signature of the body with one of the secrets."""
    parts = [part.strip().partition("=") for part in header.split(",")[:8]]
    times = [value for name, _, value in parts if name == "t"]
    given = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit()) or len(times[0]) > 12 or not given:
        raise PermissionDenied("X-Signature must be t=<unix seconds>,v1=<HMAC-SHA256 in hex>.")
    if abs(now - int(times[0])) > WINDOW:
        raise PermissionDenied(f"The signature's time differs from now by more than {WINDOW} seconds.")
    signed = times[0].encode() + b"." + raw
    wanted = [hmac.digest(secret.encode(), signed, "sha256").hex().encode() for secret in secrets]
    matches = [
        hmac.compare_digest(each, mine.encode()) for each in wanted for mine in given if mine.isascii()
    ]
    if not any(matches):
        raise PermissionDenied("The signature does not fit the body.")
