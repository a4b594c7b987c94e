"""kimi-gateway keys: the secrets of clients."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from kimi_gateway.accounts.keys import digest, new_key
from kimi_gateway.accounts.store import Unlimited
from kimi_gateway.accounts.values import Account, Grant, Key, NewKey
from kimi_gateway.cli.access import (
    Credits,
    Reference,
    account_of,
    ask,
    credits_or_unlimited,
    key_of,
    key_taken,
    name_given,
    opening,
    reference,
    taken,
)
from kimi_gateway.cli.entry import Failed
from kimi_gateway.cli.key_options import (
    joined,
    key_options,
    shown_once,
    unknown_models,
    with_options,
    without_any,
)
from kimi_gateway.cli.show import (
    credits_of,
    json_option,
    key_document,
    key_text,
    keys_table,
    limits_in_force,
    out,
    spent_document,
    utc,
    warned,
)

if TYPE_CHECKING:
    from kimi_gateway.cli.target import TargetStore

SPANS = {"m": 60, "h": 3_600, "d": 86_400}


@click.group("keys")
def group() -> None:
    """The keys that clients use.

    KEY is a key's id or name, or the key itself.
    """


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
@key_options
@json_option
def create(
    account: Reference | None, name: str, credits: Credits | None, as_json: bool, **given: Any
) -> None:
    """Create a key. It is shown only once."""
    if account is not None and credits == "unlimited":
        raise click.UsageError("--credits unlimited works for a new account only, not with --account.")
    secret = new_key()
    terms = with_options(Key("", digest(secret), "", name), given)

    async def make(store: TargetStore, now: int) -> tuple[Account, Key, str | None]:
        _refuse_past(given["expires"], now)
        warning = await (key_taken if account is not None else taken)(store, name, now)
        if account is None:
            holder = await store.create_account(name, opening(credits), now)
        else:
            holder = await account_of(store, account, now)
            if credits and holder.unlimited:
                raise Unlimited(holder.id)
        made = await store.create_key(_new(terms, holder.id), now)
        if account is not None and isinstance(credits, int) and credits:
            holder = await store.grant(holder.id, Grant(credits), now)
        return holder, made, warning

    holder, made, warning = ask(make)
    warning = joined(warning, unknown_models(given["models"]))
    document = {"key": secret, "id": made.id, "account": holder.id, "credits": credits_of(holder)}
    lines = [f"{field:<9}{value}" for field, value in document.items()]
    text = "\n".join([*lines, "", "The key is shown only once; the gateway stores its hash."])
    with shown_once(made.id, "revoke"):
        out(as_json, warned(document, warning, as_json), text)


def _new(terms: Key, account: str) -> NewKey:
    return NewKey(
        terms.digest,
        account,
        terms.name,
        terms.limits,
        terms.see_balance,
        terms.models,
        terms.expires,
        terms.note,
        terms.budgets,
        terms.in_flight,
        terms.tokens,
        terms.search,
        terms.files,
        terms.manages,
        operator=terms.operator,
    )


def _refuse_past(expires: int | None, now: int) -> None:
    if expires is not None and expires <= now:
        raise click.UsageError(
            "--expires is in the past. To stop a key now, use keys suspend or keys revoke."
        )


@group.command("list")
@click.option("--account", callback=reference, metavar="A", help="Only the keys of this account.")
@json_option
def list_(account: Reference | None, as_json: bool) -> None:
    """List the keys, including revoked ones."""

    async def held(store: TargetStore, now: int) -> tuple[int, list[Account]]:
        if account is None:
            return now, await store.accounts(now)
        return now, [await account_of(store, account, now)]

    now, holders = ask(held)
    found = [key for holder in holders for key in holder.keys]
    out(as_json, {"keys": [key_document(key) for key in found]}, keys_table(found, now))


@group.command("show")
@click.argument("key", callback=reference, metavar="KEY")
@json_option
def show(key: Reference, as_json: bool) -> None:
    """Show a key and the limits in force, each with its source."""

    async def find(store: TargetStore, now: int) -> tuple[int, Account, Key]:
        found = await key_of(store, key, now)
        return now, await store.account(found.account, now), found

    now, holder, found = ask(find)
    spent = [each for each in holder.spent if each.scope in ("", found.id)]
    document = key_document(found) | {
        "limits_in_force": limits_in_force(found, holder),
        "spent": spent_document(spent),
    }
    out(as_json, document, key_text(found, holder, now))


@group.command("update")
@click.argument("key", callback=reference, metavar="KEY")
@click.option("--name", callback=name_given, default=None, help="Another name.")
@key_options
@json_option
def update(key: Reference, name: str | None, as_json: bool, **given: Any) -> None:
    """Change a key, at once in every process. Options that are not given change nothing."""
    given |= {"name": name}
    if without_any(given):
        raise click.UsageError("Give at least one option that changes something.")

    async def change(store: TargetStore, now: int) -> tuple[Key, str | None]:
        _refuse_past(given["expires"], now)
        found = await key_of(store, key, now)
        warning = await key_taken(store, name or "", now, but=found.id)
        return await store.update_key(found.id, lambda old: with_options(old, given), now), warning

    changed, warning = ask(change)
    warning = joined(warning, unknown_models(given["models"]))
    out(as_json, warned(key_document(changed), warning, as_json), f"{changed.id} is changed.")


async def _valid(store: TargetStore, key: Reference, now: int) -> Key:
    """Raises Failed for a revoked key."""
    found = await key_of(store, key, now)
    if found.revoked:
        raise Failed(f"Key {found.id} is revoked for good. Make a new one with keys create.", "revoked")
    return found


def _suspended(key: Reference, suspended: bool, as_json: bool, told: str) -> None:
    async def change(store: TargetStore, now: int) -> Key:
        found = await _valid(store, key, now)
        return await store.update_key(found.id, lambda old: replace(old, suspended=suspended), now)

    changed = ask(change)
    out(as_json, key_document(changed), f"{changed.id} {told}.")


@group.command("suspend")
@click.argument("key", callback=reference, metavar="KEY")
@json_option
def suspend(key: Reference, as_json: bool) -> None:
    """Stop a key until it is resumed. Every process refuses it at once."""
    _suspended(key, True, as_json, "is suspended")


@group.command("resume")
@click.argument("key", callback=reference, metavar="KEY")
@json_option
def resume(key: Reference, as_json: bool) -> None:
    """Let a suspended key work again."""
    _suspended(key, False, as_json, "works again")


def _span(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Seconds of a text such as 24h."""
    match = re.fullmatch(r"([0-9]{1,5})([mhd])|0", value.strip().lower())
    if match is None:
        raise click.BadParameter("give a time such as 30m, 24h or 7d, or 0.")
    return int(match[1] or 0) * SPANS[match[2] or "m"]


@group.command("rotate")
@click.argument("key", callback=reference, metavar="KEY")
@click.option(
    "--overlap",
    callback=_span,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the present secret still works: 30m, 24h, 7d, or 0.",
)
@json_option
def rotate(key: Reference, overlap: int, as_json: bool) -> None:
    """Give a key a new secret, shown only once. Id, limits and usage stay the same.

    Both secrets work during the overlap. A secret replaced by an earlier rotation ends at once.
    """
    secret = new_key()

    async def change(store: TargetStore, now: int) -> Key:
        found = await _valid(store, key, now)
        return await store.rotate_key(found.id, digest(secret), now + overlap, now)

    rotated = ask(change)
    ends = utc(rotated.old_until)
    document = {"key": secret, "id": rotated.id, "account": rotated.account, "old_key_ends": ends}
    lines = [f"{field:<14}{value}" for field, value in document.items()]
    text = "\n".join([*lines, "", "The key is shown only once; the gateway stores its hash."])
    with shown_once(rotated.id, "rotate"):
        out(as_json, document, text)


@group.command("revoke")
@click.argument("key", callback=reference, metavar="KEY")
@json_option
def revoke(key: Reference, as_json: bool) -> None:
    """Revoke a key for good. Every process refuses it at once."""

    async def end(store: TargetStore, now: int) -> Key:
        return await store.revoke_key((await key_of(store, key, now)).id, now)

    ended = ask(end)
    out(as_json, key_document(ended), f"{ended.id} is revoked.")
