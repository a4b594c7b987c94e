"""kimi-gateway tokens: the operator's secrets for the upstream."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from kimi_gateway import settings
from kimi_gateway.accounts import keys
from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.cli import vendors
from kimi_gateway.cli.entry import FAILED, NOT_FOUND, Failed
from kimi_gateway.cli.selection import target
from kimi_gateway.cli.show import json_option, out, table, utc
from kimi_gateway.cli.target import Kept, Target
from kimi_gateway.cli.upstream import in_use, recorded_outages, unasked, verdicts, why
from kimi_gateway.observe import redact

if TYPE_CHECKING:
    from kimi_gateway.providers.tokens.outages import Outage

ENVIRONMENT_WINS = "MOONSHOT_API_KEY is set, and the environment wins: the file is not used."
OF_SERVER = (
    "The running server (pid {pid}) has tokens in its environment, and the environment wins."
    " Start it without MOONSHOT_API_KEY to use the file."
)


def _environment_wins(chosen: Target) -> str:
    server = chosen.serving()
    return ENVIRONMENT_WINS if server is None else OF_SERVER.format(pid=server.pid)


@click.group("tokens")
def group() -> None:
    """The tokens for the upstream (Kimi Open Platform)."""


@group.command("add")
@click.argument("token", default="-")
@click.option("--vendor", default=PLATFORM, help="A vendor of docs/vendors.md, or one of your own.")
@json_option
def add(token: str, vendor: str, as_json: bool) -> None:
    """Store a token, or several separated by commas, in a file of mode 0600; with --stack in its secret.

    A token of another vendor needs --vendor. Without TOKEN, or with -, the command reads it from stdin or
    asks for it. That keeps it out of the shell's history.
    """
    chosen = target()
    row = vendors.known(chosen, vendor) if vendor != PLATFORM else None
    typed = _typed() if token == "-" else token  # noqa: S105
    secrets = _parsed(typed) if row is None or row.wire == "openai" else _of_web(typed)
    redact.learn(secrets)
    if row is not None and row.wire == "openai":
        vendors.check_names(row, secrets)
    fresh: list[str] = []

    def change(kept: Kept) -> Kept | None:
        own = kept.get(vendor, ())
        fresh[:] = [secret for secret in secrets if secret not in own]
        return {**kept, vendor: [*own, *fresh]} if fresh else None

    chosen.change_kept(change)
    ids = vendors.ids(chosen, vendor, secrets)
    added = [{"id": id, "added": secret in fresh} for id, secret in zip(ids, secrets, strict=True)]
    lines = [f"{each['id']} {'added' if each['added'] else 'was there already'}" for each in added]
    if vendor != PLATFORM:
        effective = not chosen.settings.vendor_tokens.get(vendor)
        lines += vendors.web_notes(chosen, row) if row is not None else ()
        if not effective:
            lines.append(f"No effect now. {vendors.variable(vendor)} is set, and the environment wins.")
    elif not (effective := in_use(chosen).source != "environment"):
        lines.append(f"No effect now. {_environment_wins(chosen)}")
    out(as_json, {"tokens": added, "effective": effective}, "\n".join(lines))


def _typed() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True, err=True))
    return ",".join(sys.stdin.read().splitlines())


def _of_web(text: str) -> tuple[str, ...]:
    """One token of kimi.com, as people paste it: also a cookie or an array. Raises UsageError."""
    from kimi_gateway.providers.kimi_web.sessions import plain

    return _parsed(plain(text))


def _parsed(text: str) -> tuple[str, ...]:
    """Parse tokens like MOONSHOT_API_KEY. Raises UsageError."""
    if any(part.strip().startswith(keys.PREFIX) for part in text.split(",")):
        raise click.UsageError(
            "That is a key of this gateway, not a Kimi token. Create a token in the console of the Kimi"
            " platform (platform.kimi.ai or platform.moonshot.cn)."
        )
    _, parse = settings.FIELDS["MOONSHOT_API_KEY"]
    try:
        secrets: tuple[str, ...] = parse(text)
    except ValueError as exc:
        raise click.UsageError(f"The input {exc}.") from None
    if not secrets:
        raise click.UsageError("No token was given.")
    return secrets


@group.command("remove")
@click.argument("id")
@json_option
def remove(id: str, as_json: bool) -> None:
    """Remove a token. ID is its hash, as shown by `tokens list`."""
    chosen = target()

    def change(kept: Kept) -> Kept:
        left = {
            vendor: [
                text for text, own in zip(texts, vendors.ids(chosen, vendor, texts), strict=True) if own != id
            ]
            for vendor, texts in kept.items()
        }
        if sum(map(len, left.values())) == sum(map(len, kept.values())):
            raise Failed(f"The {chosen.kept_in} has no token with this id.", "not_found", NOT_FOUND)
        return left

    chosen.change_kept(change)
    out(as_json, {"id": id, "removed": True}, f"{id} removed")


@group.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the tokens by their hashes, with their source and known outages."""
    chosen = target()
    using = in_use(chosen)
    fixed = [token.id for token in chosen.pinned()]
    if using.source == "environment" and using.server is not None:
        fixed = list(dict.fromkeys((*using.server.tokens, *fixed)))
    found = [(id, "environment", using.source == "environment" and id in using.ids) for id in fixed]
    found += [(token.id, chosen.kept_in, using.source == chosen.kept_in) for token in chosen.kept()]
    bad = recorded_outages(chosen) if found else {}
    document: dict[str, Any] = {
        "source": using.source,
        "tokens": [
            {"id": id, "source": origin, "used": used, "out": list(map(_out, bad.get(id, ()))) or None}
            for id, origin, used in found
        ],
    }
    rows = [(*row, ", ".join(map(why, bad.get(row[0], ())))) for row in found]
    text = table(("TOKEN", "SOURCE", "USED", "OUTAGES"), rows)
    if using.server is not None:
        document["server"] = {"pid": using.server.pid, "address": using.server.address}
    if using.source == "environment" and not all(used for _, _, used in found):
        text += f"\n\n{_environment_wins(chosen)}"
    elif not all(used for _, _, used in found):
        pid = using.server.pid if using.server else 0
        text += (
            f"\n\nThe running server (pid {pid}) was started without MOONSHOT_API_KEY, so it uses the file."
        )
    text = text if found else "No token: the built-in demo answers."
    others = _of_vendors(chosen)
    if others:
        document["vendors"] = others
        rows = [(each["id"], each["vendor"], each["source"], each["out"] or "") for each in others]
        text += "\n\n" + table(("TOKEN", "VENDOR", "SOURCE", "OUTAGES"), rows)
    out(as_json, document, text)


def _of_vendors(chosen: Target) -> list[dict[str, Any]]:
    found = []
    for vendor, source, tokens in vendors.used(chosen):
        bad = vendors.outages(chosen, tokens)
        found += [
            {"id": token.id, "vendor": vendor.id, "source": source, "out": bad.get(token.id)}
            for token in tokens
        ]
    return found


def _out(bad: Outage) -> dict[str, str | None]:
    return {"cause": bad.cause, "model": bad.model or None, "until": utc(bad.until)}


@group.command("check")
@json_option
def check(as_json: bool) -> None:
    """Ask the upstream about each token in use. The exit code is 1 if one is not live."""
    chosen = target()
    using = in_use(chosen)
    found = verdicts(chosen.settings, using.tokens)
    found += unasked(using, recorded_outages(chosen) if using.elsewhere else {})
    for vendor, _, tokens in vendors.used(chosen):
        found += vendors.verdicts(chosen, vendor, tokens)
    document = {"tokens": [{"id": each.id, "live": each.live, "detail": each.detail} for each in found]}
    rows = [(each.id, "unknown" if each.live is None else each.live, each.detail) for each in found]
    text = table(("TOKEN", "LIVE", "DETAIL"), rows) if found else "No token: the built-in demo answers."
    out(as_json, document, text)
    if not all(each.live or each.unasked for each in found):
        raise click.exceptions.Exit(FAILED)
