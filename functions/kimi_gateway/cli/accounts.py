"""kimi-gateway accounts: who holds the credits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kimi_gateway.accounts.rules import PACKAGES, months_later
from kimi_gateway.accounts.values import NEVER, Account, Grant
from kimi_gateway.cli.access import (
    MOST,
    Credits,
    Reference,
    account_of,
    ask,
    credits_or_unlimited,
    name_given,
    opening,
    reference,
    taken,
)
from kimi_gateway.cli.show import (
    account_document,
    account_text,
    credits_of,
    json_option,
    out,
    table,
    utc,
    warned,
)

if TYPE_CHECKING:
    from kimi_gateway.cli.place import Ledger


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A day or moment of UTC, in unix seconds."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise click.BadParameter("a date such as 2027-01-31 or 2027-01-31T12:00:00Z is needed.") from None
    if not 0 < seconds < NEVER:
        raise click.BadParameter("that date is out of range.")
    return seconds


@click.group("accounts")
def group() -> None:
    """The accounts that hold the credits.

    A is an account's id or name, or the id of a key of it, or the key itself.
    """


@group.command("create")
@click.option("--name", callback=name_given, default="", help="A name to tell it by.")
@click.option(
    "--credits",
    callback=credits_or_unlimited,
    metavar="N|unlimited",
    help="The whole opening balance (default: KIMI_GATEWAY_SIGNUP_CREDITS).",
)
@json_option
def create(name: str, credits: Credits | None, as_json: bool) -> None:
    """Make an account without a key."""

    async def make(store: Ledger, now: int) -> tuple[Account, str | None]:
        warning = await taken(store, name, now)
        return await store.create_account(name, opening(credits), now), warning

    made, warning = ask(make)
    out(as_json, warned(account_document(made), warning, as_json), account_text(made))


def _amount(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A whole number of credits; a negative one is told of the command that takes them away."""
    if value is None:
        return None
    if value.startswith("-") and not value.strip("-").isdecimal():
        raise click.NoSuchOption(value.partition("=")[0], ctx=ctx)
    if value.startswith("-"):
        raise click.UsageError(f"Credits cannot be taken away with {ctx.info_name}; use accounts deduct.")
    if not (value.isascii() and value.isdecimal()) or len(value) > 10 or not 1 <= int(value) <= MOST:
        raise click.BadParameter(f"a whole number from 1 to {MOST} is needed.")
    return int(value)


def _positive(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value.startswith("-") and value.strip("-").isdecimal():
        raise click.UsageError(f"N is what is taken away, so it is positive: {value.strip('-')}.")
    return _amount(ctx, param, value)


NEGATIVES = {"ignore_unknown_options": True}  # or -20 would be an option


@group.command("grant", context_settings=NEGATIVES)
@click.argument("account", callback=reference, metavar="A")
@click.argument("credits", callback=_amount, metavar="[N]", required=False)
@click.option("--expires", callback=_moment, metavar="DATE", help="Gone from then on (UTC). Default: never.")
@click.option("--months", type=click.IntRange(1, 1200), help="Gone so many months from now.")
@click.option("--package", type=click.Choice(sorted(PACKAGES)), help="A package's credits and time.")
@json_option
def grant(
    account: Reference,
    credits: int | None,
    expires: int | None,
    months: int | None,
    package: str | None,
    as_json: bool,
) -> None:
    """Add N credits, or a package's, to an account."""
    if (credits is None) == (package is None):
        raise click.UsageError("Either N or --package is needed.")
    if sum(given is not None for given in (expires, months, package)) > 1:
        raise click.UsageError("Only one of --expires, --months and --package can hold.")

    def given(now: int) -> Grant:
        if package is not None:
            return PACKAGES[package].bought(now)
        until = NEVER if expires is None else expires
        if until <= now:
            raise click.UsageError("--expires lies in the past.")
        return Grant(credits or 0, until if months is None else months_later(now, months))

    async def add(store: Ledger, now: int) -> Account:
        addition = given(now)
        return await store.grant((await account_of(store, account, now)).id, addition, now)

    holder = ask(add)
    out(as_json, account_document(holder), account_text(holder))


@group.command("deduct", context_settings=NEGATIVES)
@click.argument("account", callback=reference, metavar="A")
@click.argument("credits", callback=_positive, metavar="N")
@json_option
def deduct(account: Reference, credits: int, as_json: bool) -> None:
    """Take N credits away from an account: never those that are reserved, and all of N or nothing."""

    async def take(store: Ledger, now: int) -> Account:
        return await store.deduct((await account_of(store, account, now)).id, credits, now)

    holder = ask(take)
    out(as_json, account_document(holder), account_text(holder))


@group.command("show")
@click.argument("account", callback=reference, metavar="A")
@json_option
def show(account: Reference, as_json: bool) -> None:
    """Show one account: the settled balance, what is reserved, grants and keys."""
    found = ask(lambda store, now: account_of(store, account, now))
    out(as_json, account_document(found), account_text(found))


@group.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the accounts."""
    found = ask(lambda store, now: store.accounts(now))
    rows = [
        (
            each.id,
            each.name,
            credits_of(each),
            each.reserved,
            each.consumed,
            len(each.keys),
            utc(each.created),
        )
        for each in found
    ]
    heading = ("ACCOUNT", "NAME", "CREDITS", "RESERVED", "CONSUMED", "KEYS", "CREATED")
    out(as_json, {"accounts": [account_document(each) for each in found]}, table(heading, rows))
