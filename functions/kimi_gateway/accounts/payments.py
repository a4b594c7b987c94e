"""Payments, refunds, and rewards of invitations. Each is booked once, however often it is reported.

A call that broke off between two bookings is finished by the next one.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from kimi_gateway.accounts import packages, rules
from kimi_gateway.accounts.store import Store, Unknown, Unlimited
from kimi_gateway.accounts.values import Account, Grant

LONGEST_ID = 200  # characters of a payment's id
INVITE = "inv_"


def invite_code(account: str) -> str:
    """The invitation of an account, by its id."""
    return INVITE + account.removeprefix("acc_")


async def pay(store: Store, account: Account, payment: str, grant: Grant, now: int) -> bool:
    """Book a payment by its id; the first one rewards who invited the account. False if it was booked before.
    Raises Unknown, Unlimited."""
    booked = await store.fund(
        account.id, _payment(payment), partial(rules.granted, grant=grant, now=now), now
    )
    await _reward(store, account, packages.INVITE_FIRST_PAYMENT, f"paid/{account.id}", now)
    return booked


async def refund(store: Store, account: Account, payment: str, now: int) -> int | None:
    """Take a payment's credits away, as far as they can be spent. Returns how many that were, None if no such
    payment was booked. Raises Unknown, Unlimited."""
    credits = await store.funded(account.id, _payment(payment))
    if credits is None:
        return None
    name = f"refund/{payment}"
    await store.fund(account.id, name, partial(rules.taken, most=credits, now=now), now)
    return -(await store.funded(account.id, name) or 0)


async def registered(store: Store, account: Account, now: int) -> None:
    """Reward who invited a new account."""
    await _reward(store, account, packages.INVITE_REGISTERED, f"registered/{account.id}", now)


async def _reward(store: Store, account: Account, reward: Grant, name: str, now: int) -> None:
    if not account.invited_by or account.invited_by == account.id:
        return
    with suppress(Unknown, Unlimited):  # a deleted account, and one that needs no credits
        await store.fund(account.invited_by, name, partial(rules.granted, grant=reward, now=now), now)


def _payment(id: str) -> str:
    return f"payment/{id}"
