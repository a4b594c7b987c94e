"""kimi-gateway keys: the secrets of clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kimi_gateway.accounts.keys import digest, new_key
from kimi_gateway.accounts.store import Unknown, Unlimited
from kimi_gateway.accounts.values import Account, Grant, Key, Limits, NewKey
from kimi_gateway.cli.access import (
    MOST,
    Credits,
    Reference,
    account_of,
    ask,
    credits_or_unlimited,
    missing,
    name_given,
    opening,
    reference,
    taken,
)
from kimi_gateway.cli.show import credits_of, json_option, key_document, keys_table, out, warned

if TYPE_CHECKING:
    from kimi_gateway.cli.target import TargetStore

LIMIT = click.IntRange(1, MOST)


@click.group("keys")
def group() -> None:
    """The keys that clients use."""


@group.command("create")
@click.option(
    "--account",
    callback=reference,
    metavar="A",
    help="The account: its id or name, or one of its keys. Default: a new account.",
)
@click.option(
    "--name", callback=name_given, default="", help="A name for the key; a new account gets it too."
)
@click.option(
    "--credits",
    callback=credits_or_unlimited,
    metavar="N|unlimited",
    help="The opening balance of a new account (default: KIMI_GATEWAY_SIGNUP_CREDITS);"
    " with --account, a grant to that account (default: none).",
)
@click.option("--rpm", type=LIMIT, help="Requests a minute, instead of the tier's limit.")
@click.option("--rph", type=LIMIT, help="Requests an hour.")
@click.option("--rpd", type=LIMIT, help="Requests a day.")
@click.option("--see-balance", is_flag=True, help="The key may read the upstream balance.")
@json_option
def create(
    account: Reference | None,
    name: str,
    credits: Credits | None,
    rpm: int | None,
    rph: int | None,
    rpd: int | None,
    see_balance: bool,
    as_json: bool,
) -> None:
    """Create a key. It is shown only once."""
    if account is not None and credits == "unlimited":
        raise click.UsageError("--credits unlimited works for a new account only, not with --account.")
    limits, secret = Limits(rpm, rph, rpd), new_key()

    async def make(store: TargetStore, now: int) -> tuple[Account, Key, str | None]:
        warning = await taken(store, name, now) if account is None else None
        if account is None:
            holder = await store.create_account(name, opening(credits), now)
        else:
            holder = await account_of(store, account, now)
            if credits and holder.unlimited:
                raise Unlimited(holder.id)
        made = await store.create_key(NewKey(digest(secret), holder.id, name, limits, see_balance), now)
        if account is not None and isinstance(credits, int) and credits:
            holder = await store.grant(holder.id, Grant(credits), now)
        return holder, made, warning

    holder, made, warning = ask(make)
    document = {"key": secret, "id": made.id, "account": holder.id, "credits": credits_of(holder)}
    lines = [f"{field:<9}{value}" for field, value in document.items()]
    out(
        as_json,
        warned(document, warning, as_json),
        "\n".join([*lines, "", "The key is shown only once; the gateway stores its hash."]),
    )


@group.command("list")
@click.option("--account", callback=reference, metavar="A", help="Only the keys of this account.")
@json_option
def list_(account: Reference | None, as_json: bool) -> None:
    """List the keys, including revoked ones."""

    async def held(store: TargetStore, now: int) -> list[Account]:
        return await store.accounts(now) if account is None else [await account_of(store, account, now)]

    found = [key for holder in ask(held) for key in holder.keys]
    out(as_json, {"keys": [key_document(key) for key in found]}, keys_table(found))


@group.command("revoke")
@click.argument("key", callback=reference, metavar="ID|KEY")
@json_option
def revoke(key: Reference, as_json: bool) -> None:
    """Revoke a key. Every process refuses it at once."""

    async def end(store: TargetStore, now: int) -> Key:
        try:
            return await store.revoke_key(key.wanted, now)
        except Unknown:
            raise missing("key", key) from None

    ended = ask(end)
    out(as_json, key_document(ended), f"{ended.id} is revoked.")
