"""kimi-gateway accounts: the accounts and their credits."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

import click

from kimi_gateway.accounts import payments
from kimi_gateway.accounts.packages import Package, months_later, with_own
from kimi_gateway.accounts.values import NEVER, Account, Grant
from kimi_gateway.cli.access import (
    MOST,
    Credits,
    Reference,
    account_of,
    ask,
    credits_or_unlimited,
    moment,
    name_given,
    opening,
    reference,
    taken,
)
from kimi_gateway.cli.budget_option import budget_option, with_budgets
from kimi_gateway.cli.entry import NOT_FOUND, Failed
from kimi_gateway.cli.selection import target
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
    from kimi_gateway.cli.target import TargetStore


@click.group("accounts")
def group() -> None:
    """The accounts that hold the credits.

    A is an account's id or name, or one of its keys, or the id of that key.
    """


@group.command("create")
@click.option("--name", callback=name_given, default="", help="A name for the account.")
@click.option(
    "--credits",
    callback=credits_or_unlimited,
    metavar="N|unlimited",
    help="The opening balance (default: KIMI_GATEWAY_SIGNUP_CREDITS).",
)
@json_option
def create(name: str, credits: Credits | None, as_json: bool) -> None:
    """Create an account without a key."""

    async def make(store: TargetStore, now: int) -> tuple[Account, str | None]:
        warning = await taken(store, name, now)
        return await store.create_account(name, opening(credits), now), warning

    made, warning = ask(make)
    out(as_json, warned(account_document(made), warning, as_json), account_text(made))


class Amounts(click.Command):
    """Explains a negative number, which click would report as an unknown option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for before, word in zip(["", *args], args, strict=False):
            if re.fullmatch(r"-[0-9]+", word) and not before.startswith("--"):
                raise click.UsageError(f"{NEGATIVE[self.name or '']} ({word})", ctx)
        return super().parse_args(ctx, args)


NEGATIVE = {
    "grant": "Credits cannot be taken away with grant; use accounts deduct.",
    "deduct": "N is the number of credits to take away, so it must be positive.",
}


def package_of(name: str) -> Package:
    """One of the packages, with those of KIMI_GATEWAY_PACKAGES. Raises UsageError."""
    known = with_own(target().settings.packages)
    if name not in known:
        raise click.UsageError(f"--package is one of {', '.join(sorted(known))}.")
    return known[name]


@group.command("grant", cls=Amounts)
@click.argument("account", callback=reference, metavar="A")
@click.argument("credits", type=click.IntRange(1, MOST), metavar="[N]", required=False)
@click.option("--expires", callback=moment, metavar="DATE", help="The grant ends then (UTC). Default: never.")
@click.option("--months", type=click.IntRange(1, 1200), help="The grant ends this number of months from now.")
@click.option("--package", metavar="NAME", help="Grant the credits of a package for its time.")
@json_option
def grant(
    account: Reference,
    credits: int | None,
    expires: int | None,
    months: int | None,
    package: str | None,
    as_json: bool,
) -> None:
    """Add N credits, or a package, to an account."""
    if (credits is None) == (package is None):
        raise click.UsageError("Give either N or --package.")
    if sum(given is not None for given in (expires, months, package)) > 1:
        raise click.UsageError("Give only one of --expires, --months and --package.")

    bought = None if package is None else package_of(package)

    def given(now: int) -> Grant:
        if bought is not None:
            return bought.bought(now)
        until = NEVER if expires is None else expires
        if until <= now:
            raise click.UsageError("--expires is in the past.")
        return Grant(credits or 0, until if months is None else months_later(now, months))

    async def add(store: TargetStore, now: int) -> Account:
        addition = given(now)
        return await store.grant((await account_of(store, account, now)).id, addition, now)

    holder = ask(add)
    out(as_json, account_document(holder), account_text(holder))


@group.command("deduct", cls=Amounts)
@click.argument("account", callback=reference, metavar="A")
@click.argument("credits", type=click.IntRange(1, MOST), metavar="N")
@json_option
def deduct(account: Reference, credits: int, as_json: bool) -> None:
    """Take N credits away from an account: all N or none, and never reserved ones."""

    async def take(store: TargetStore, now: int) -> Account:
        return await store.deduct((await account_of(store, account, now)).id, credits, now)

    holder = ask(take)
    out(as_json, account_document(holder), account_text(holder))


@group.command("payment")
@click.argument("account", callback=reference, metavar="A")
@click.option("--package", metavar="NAME", help="The package that was paid for.")
@click.option("--credits", type=click.IntRange(1, MOST), metavar="N", help="Credits, in place of a package.")
@click.option("--months", type=click.IntRange(1, 120), help="With --credits: they end after these months.")
@click.option("--id", "payment", metavar="ID", help="The payment's id, such as an invoice's number.")
@click.option("--refund", is_flag=True, help="Take the credits of the payment with this --id away again.")
@json_option
def payment(
    account: Reference,
    package: str | None,
    credits: int | None,
    months: int | None,
    payment: str | None,
    refund: bool,
    as_json: bool,
) -> None:
    """Book a payment, or its refund, once for each --id.

    The first payment rewards the account that invited this one.
    """
    given = (package is not None) + (credits is not None)
    if refund and (payment is None or given or months):
        raise click.UsageError("With --refund give --id, and nothing that was paid for.")
    if not refund and (given != 1 or (months is not None and credits is None)):
        raise click.UsageError("Give either --package, or --credits and perhaps --months.")
    if payment is not None and not 1 <= len(payment) <= payments.LONGEST_ID:
        raise click.UsageError(f"--id has 1 to {payments.LONGEST_ID} characters.")
    bought = package_of(package) if package is not None else Package(credits or 0, months)
    name = payment or secrets.token_hex(8)

    async def book(store: TargetStore, now: int) -> tuple[Account, bool, int]:
        holder = await account_of(store, account, now)
        if refund:
            taken = await payments.refund(store, holder, name, now)
            if taken is None:
                raise Failed(f"No payment {name!r} was booked for {holder.id}.", "not_found", NOT_FOUND)
            return await store.account(holder.id, now), True, -taken
        booked = await payments.pay(store, holder, name, bought.bought(now), now)
        return await store.account(holder.id, now), booked, bought.credits if booked else 0

    holder, booked, change = ask(book)
    document = {
        "id": name,
        "account": holder.id,
        "booked": booked,
        "credits": change,
        "balance": holder.credits,
    }
    text = f"{name} was booked before." if not booked else f"{change:+} credits for {holder.id} ({name})."
    out(as_json, document, f"{text} The balance is {holder.credits}.")


@group.command("rename")
@click.argument("account", callback=reference, metavar="A")
@click.argument("name", callback=name_given, metavar="NAME")
@json_option
def rename(account: Reference, name: str, as_json: bool) -> None:
    """Give an account another name. Its id stays the same."""

    async def change(store: TargetStore, now: int) -> tuple[Account, str | None]:
        holder = await account_of(store, account, now)
        warning = await taken(store, name, now) if name != holder.name else None
        return await store.rename_account(holder.id, name, now), warning

    holder, warning = ask(change)
    out(as_json, warned(account_document(holder), warning, as_json), account_text(holder))


@group.command("update")
@click.argument("account", callback=reference, metavar="A")
@click.option("--name", callback=name_given, default=None, help="Another name.")
@budget_option
@json_option
def update(account: Reference, name: str | None, budgets: Any, as_json: bool) -> None:
    """Change an account's name or the budgets that all its keys share. Every process follows at once."""
    if name is None and budgets is None:
        raise click.UsageError("Give at least one option that changes something.")

    async def change(store: TargetStore, now: int) -> tuple[Account, str | None]:
        holder = await account_of(store, account, now)
        warning = None
        if name is not None and name != holder.name:
            warning = await taken(store, name, now)
            holder = await store.rename_account(holder.id, name, now)
        if budgets is not None:
            holder = await store.set_budgets(holder.id, with_budgets(holder.budgets, budgets), now)
        return holder, warning

    holder, warning = ask(change)
    out(as_json, warned(account_document(holder), warning, as_json), account_text(holder))


@group.command("delete")
@click.argument("account", callback=reference, metavar="A")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(account: Reference, yes: bool, as_json: bool) -> None:
    """Delete an account with its keys, credits and usage. Its keys end at once.

    Its files and batches at the provider are deleted by the next sweep of a running gateway, or by
    `kimi-gateway files sweep`.
    """
    holder = ask(lambda store, now: account_of(store, account, now))
    if not yes:
        if as_json:
            raise click.UsageError("With --json this needs --yes.")
        credits = "unlimited credits" if holder.unlimited else f"{holder.credits} credits"
        name = holder.name or "without a name"
        count = "1 key" if len(holder.keys) == 1 else f"{len(holder.keys)} keys"
        click.confirm(f"Delete {holder.id} ({name}) with {count} and {credits}?", abort=True)

    async def remove(store: TargetStore, now: int) -> None:
        await store.delete_account(holder.id)

    ask(remove)
    out(as_json, {"id": holder.id, "deleted": True}, f"{holder.id} is deleted.")


@group.command("show")
@click.argument("account", callback=reference, metavar="A")
@json_option
def show(account: Reference, as_json: bool) -> None:
    """Show one account: the settled balance, reserved credits, grants and keys."""
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
