"""Access for commands: the store, accounts and keys by any of their names, amounts of credits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.moments import unix_seconds
from kimi_gateway.accounts.store import Ambiguous, Unknown
from kimi_gateway.accounts.values import NEVER, Account, Grant, Key
from kimi_gateway.cli.entry import NOT_FOUND, SECRET_LENGTH, Failed, program
from kimi_gateway.cli.selection import target
from kimi_gateway.dataclass import dataclass

if TYPE_CHECKING:
    from kimi_gateway.cli.target import TargetStore

T = TypeVar("T")
MOST = 10**9  # credits in one command, and requests in a limit
COUNTS = {2: "Two", 3: "Three", 4: "Four", 5: "Five"}
Credits = int | Literal["unlimited"]


@dataclass(frozen=True, slots=True)
class Reference:
    """An account or key as the operator named it. `wanted` goes to the store; only `shown` may be printed."""

    wanted: str
    shown: str


def reference(ctx: click.Context, param: click.Parameter, value: str | None) -> Reference | None:
    if value is None:
        return None
    text = value.strip()
    if not text or not text.isprintable():
        raise click.BadParameter("this is not an id, a name or a key.")
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
        raise click.BadParameter(f"give a whole number from 0 to {MOST}, or 'unlimited'.")
    return int(text)


def name_given(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    text = value.strip()
    if len(text) > 100 or not text.isprintable() or text.startswith(("sk-", "acc_", "key_")):
        raise click.BadParameter(
            "a name has at most 100 printable characters and is neither a key nor an id."
        )
    return text


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A date or time in UTC, as unix seconds."""
    if value is None:
        return None
    try:
        seconds = unix_seconds(value)
    except (ValueError, OverflowError):
        raise click.BadParameter("give a date such as 2027-01-31 or 2027-01-31T12:00:00Z.") from None
    if not 0 < seconds < NEVER:
        raise click.BadParameter("this date is out of range.")
    return seconds


def ask(job: Callable[[TargetStore, int], Coroutine[Any, Any, T]]) -> T:
    """Run `job` with the store and the time (unix seconds).

    Raises SettingsFault, Failed, StoreDown, OSError."""
    chosen = target()

    async def run() -> T:
        async with chosen.store() as store:
            return await job(store, int(time.time()))

    return asyncio.run(run())


async def account_of(store: TargetStore, reference: Reference, now: int) -> Account:
    """Find an account by its id or name, or by the id, name or secret of one of its keys."""
    try:
        return await store.account(reference.wanted, now)
    except Ambiguous as exc:
        raise Failed(
            f"{named_alike(reference.shown, exc.accounts)} Use an id.", "not_found", NOT_FOUND
        ) from None
    except Unknown:
        named = await keys_named(store, reference.wanted, now)
        accounts = {key.account for key in named}
        if len(accounts) == 1:
            return await store.account(accounts.pop(), now)
        if named:
            raise _several(named, reference.shown) from None
        raise missing("account or key", reference) from None


async def key_of(store: TargetStore, reference: Reference, now: int) -> Key:
    """By id, name or secret."""
    try:
        held = (await store.account(reference.wanted, now)).keys
    except Unknown:
        held = ()
    for key in held:
        if reference.wanted in (key.id, key.digest, key.old_digest):
            return key
    named = await keys_named(store, reference.wanted, now)
    if not named:
        raise missing("key", reference)
    if len(named) > 1:
        raise _several(named, reference.shown)
    return named[0]


async def keys_named(store: TargetStore, name: str, now: int) -> list[Key]:
    """The keys with this name that are not revoked."""
    every = await store.accounts(now) if name else []
    return [key for account in every for key in account.keys if key.name == name and not key.revoked]


def _several(named: Sequence[Key], name: str) -> Failed:
    ids = ", ".join(key.id for key in named[:10])
    return Failed(
        f"{len(named)} keys are named {name!r}, among them: {ids}. Use an id.", "not_found", NOT_FOUND
    )


async def key_taken(store: TargetStore, name: str, now: int, but: str = "") -> str | None:
    """A warning if another key has this name, because the name alone is then ambiguous."""
    others = [key.id for key in await keys_named(store, name, now) if key.id != but]
    if not others:
        return None
    return f"A key is named {name!r} already: {others[0]}. Use ids to tell them apart."


def missing(what: str, reference: Reference) -> Failed:
    text = f"No {what} {reference.shown!r} exists. {program()} keys list shows keys and accounts."
    return Failed(text, "not_found", NOT_FOUND)


def named_alike(name: str, accounts: Sequence[str]) -> str:
    """A sentence that lists the accounts with this name, at most ten."""
    count = COUNTS.get(len(accounts), str(len(accounts)))
    more = f" and {len(accounts) - 10} more" if len(accounts) > 10 else ""
    return f"{count} accounts are named {name!r}: {', '.join(accounts[:10])}{more}."


async def taken(store: TargetStore, name: str, now: int) -> str | None:
    """A warning if accounts with this name exist, because the name alone is then ambiguous."""
    try:
        others = (await store.account(name, now),) if name else ()
    except Ambiguous as exc:
        return f"{named_alike(name, exc.accounts)} Use ids to tell the new one apart."
    except Unknown:
        return None
    named = [account for account in others if account.name == name]
    return (
        f"An account is named {name!r} already: {named[0].id}. Use ids to tell them apart." if named else None
    )


def opening(credits: Credits | None) -> Grant | None:
    """The first grant of a new account; None for an unlimited one."""
    if credits == "unlimited":
        return None
    return Grant(target().settings.signup_credits if credits is None else credits)
