"""Payments, refunds, and rewards of invitations. Each is booked once, however often it is reported.

A call that broke off between two bookings is finished by the next one. The reward for a first payment belongs
to the payment that earned it: its refund takes it back, and the next payment earns it again.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from kimi_gateway.accounts import packages, rules
from kimi_gateway.accounts.store import Store, Unknown, Unlimited
from kimi_gateway.accounts.values import Account, Balance, Grant

LONGEST_ID = 200  # characters of a payment's id
INVITE = "inv_"
MOST_REWARDS = 20  # for payments of one account, if each one before was refunded


def invite_code(account: str) -> str:
    """The invitation of an account, by its id."""
    return INVITE + account.removeprefix("acc_")


async def pay(store: Store, account: Account, payment: str, grant: Grant, now: int) -> bool:
    """Book a payment by its id; the first one rewards who invited the account. False if it was booked before.
    Raises Unknown, Unlimited."""
    booked = await store.fund(
        account.id, _payment(payment), partial(rules.granted, grant=grant, now=now), now
    )
    if _invited(account) and await store.funded(account.id, _refund(payment)) is None:
        await _reward_payment(store, account, payment, now)
    return booked


async def refund(store: Store, account: Account, payment: str, now: int) -> int | None:
    """Take a payment's credits away, as far as they can be spent, and the reward that it earned in the same
    way. Returns how many of the account's own that were, None if no such payment was booked. Raises Unknown,
    Unlimited."""
    credits = await store.funded(account.id, _payment(payment))
    if credits is None:
        return None
    name = _refund(payment)
    await store.fund(account.id, name, partial(rules.taken, most=credits, now=now), now)
    if _invited(account):
        await _take_reward_back(store, account, payment, now)
    return -(await store.funded(account.id, name) or 0)


async def registered(store: Store, account: Account, now: int) -> None:
    """Reward who invited a new account."""
    await _reward(store, account, packages.INVITE_REGISTERED, f"registered/{account.id}", now)


async def _reward(store: Store, account: Account, reward: Grant, name: str, now: int) -> None:
    if not _invited(account):
        return
    with suppress(Unknown, Unlimited):  # a deleted account, and one that needs no credits
        await store.fund(account.invited_by, name, partial(rules.granted, grant=reward, now=now), now)


def _invited(account: Account) -> bool:
    return account.invited_by not in ("", account.id)


async def _reward_payment(store: Store, account: Account, payment: str, now: int) -> None:
    """One reward exists at a time. A mark names the payment that earned it; it comes first, so that a refund
    finds it."""
    with suppress(Unknown, Unlimited):
        for number in range(MOST_REWARDS):
            if await store.funded(account.invited_by, _taken_back(account, number)) is not None:
                continue
            if await store.funded(account.invited_by, _earned(account, number)) is None:
                await store.fund(account.id, _mark(number, payment), _unchanged, now)
                name = _earned(account, number)
                await _reward(store, account, packages.INVITE_FIRST_PAYMENT, name, now)
            return


async def _take_reward_back(store: Store, account: Account, payment: str, now: int) -> None:
    """A reward that is marked and not there yet is booked as empty, so that it never comes."""
    inviter = account.invited_by
    with suppress(Unknown, Unlimited):
        for number in range(MOST_REWARDS):
            if await store.funded(account.id, _mark(number, payment)) is not None:
                await store.fund(inviter, _earned(account, number), _unchanged, now)
                earned = await store.funded(inviter, _earned(account, number)) or 0
                take = partial(rules.taken, most=earned, now=now)
                await store.fund(inviter, _taken_back(account, number), take, now)
            if await store.funded(inviter, _taken_back(account, number)) is None:
                return


def _earned(account: Account, number: int) -> str:
    return f"paid/{account.id}" + (f"/{number}" if number else "")


def _taken_back(account: Account, number: int) -> str:
    return f"unpaid/{account.id}/{number}"


def _mark(number: int, payment: str) -> str:
    return f"reward/{number}/{payment}"


def _unchanged(balance: Balance) -> Balance:
    return balance


def _payment(id: str) -> str:
    return f"payment/{id}"


def _refund(id: str) -> str:
    return f"refund/{id}"
