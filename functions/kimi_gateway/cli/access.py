"""How a command reaches what it works on: the store, an account or key by any of its names, amounts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.store import Unknown
from kimi_gateway.accounts.values import Account, Grant
from kimi_gateway.cli.entry import NOT_FOUND, SECRET_LENGTH, Failed
from kimi_gateway.cli.place import place

if TYPE_CHECKING:
    from kimi_gateway.cli.place import Ledger

T = TypeVar("T")
MOST = 10**9  # of credits at once, and of requests in a limit
Credits = int | Literal["unlimited"]


@dataclass(frozen=True, slots=True)
class Reference:
    """An account or key as the operator named it: `wanted` goes to the store, `shown` may be printed."""

    wanted: str
    shown: str


def reference(ctx: click.Context, param: click.Parameter, value: str | None) -> Reference | None:
    if value is None:
        return None
    text = value.strip()
    if not text or not text.isprintable():
        raise click.BadParameter("that is no id, name or key.")
    if text.startswith("sk-"):
        return Reference(keys.digest(text), keys.masked(text))
    return Reference(text, text if len(text) < SECRET_LENGTH else text[:4] + "…")


def credits_or_unlimited(ctx: click.Context, param: click.Parameter, value: str | None) -> Credits | None:
    if value is None:
        return None
    text = value.strip().lower()
    if text == "unlimited":
        return "unlimited"
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > MOST:
        raise click.BadParameter(f"a whole number from 0 to {MOST} or 'unlimited' is needed.")
    return int(text)


def name_given(ctx: click.Context, param: click.Parameter, value: str) -> str:
    text = value.strip()
    if len(text) > 100 or not text.isprintable() or text.startswith("sk-"):
        raise click.BadParameter("a name is at most 100 printable characters, and no key.")
    return text


def ask(job: Callable[[Ledger, int], Coroutine[Any, Any, T]]) -> T:
    """The job's result; it gets the store and the time. Raises SettingsFault, Failed, StoreDown, OSError."""
    here = place()

    async def run() -> T:
        async with here.store() as store:
            return await job(store, int(time.time()))

    return asyncio.run(run())


async def account_of(store: Ledger, reference: Reference, now: int) -> Account:
    try:
        return await store.account(reference.wanted, now)
    except Unknown:
        raise missing("account or key", reference) from None


def missing(what: str, reference: Reference) -> Failed:
    text = f"No {what} goes by {reference.shown!r}; a name that several accounts share needs the id."
    return Failed(text, "not_found", NOT_FOUND)


def opening(credits: Credits | None) -> Grant | None:
    """The balance of a new account; None is unlimited."""
    if credits == "unlimited":
        return None
    return Grant(place().settings.signup_credits if credits is None else credits)
