"""kimi-gateway tokens: the secrets that the gateway carries to the upstream."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kimi_gateway import home, settings
from kimi_gateway.cli.entry import FAILED
from kimi_gateway.cli.show import json_option, out, table, utc
from kimi_gateway.cli.upstream import bad_news, in_environment, in_file, in_use, verdicts, why
from kimi_gateway.observe import redact

if TYPE_CHECKING:
    from kimi_gateway.providers.news import News

ENVIRONMENT_WINS = "MOONSHOT_API_KEY is set, and the environment wins: the file is not used while it is."


@click.group("tokens")
def group() -> None:
    """The tokens for the upstream (Kimi Open Platform)."""


@group.command("add")
@click.argument("token", default="-")
@json_option
def add(token: str, as_json: bool) -> None:
    """Keep a token, or several joined by commas, in a file of mode 0600.

    Without TOKEN, or with -, it is read from stdin or asked for, so that it stays out of the shell's history.
    """
    from kimi_gateway.providers.provider import Token
    from kimi_gateway.providers.tokens import NAME, TokenFile

    values = settings.read()
    secrets = _parsed(_typed() if token == "-" else token)  # noqa: S105
    redact.learn(secrets)
    in_file(values)  # tells of a file that cannot be read before one is written
    home.prepare_data(values.data)
    file = TokenFile(values.data / NAME)
    added = [{"id": Token.of(secret).id, "added": file.add(secret)} for secret in secrets]
    lines = [f"{each['id']} {'added' if each['added'] else 'was there already'}" for each in added]
    if values.moonshot_api_key:
        lines.append(f"No effect now. {ENVIRONMENT_WINS}")
    out(as_json, {"tokens": added, "effective": not values.moonshot_api_key}, "\n".join(lines))


def _typed() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True, err=True))
    return ",".join(sys.stdin.read().splitlines())


def _parsed(text: str) -> tuple[str, ...]:
    """By the rule of the environment's variable."""
    _, parse = settings.FIELDS["MOONSHOT_API_KEY"]
    try:
        secrets: tuple[str, ...] = parse(text)
    except ValueError as exc:
        raise click.UsageError(f"The input {exc}.") from None
    if not secrets:
        raise click.UsageError("No token was given.")
    return secrets


@group.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the tokens by their hashes, where they come from, and what has put them out."""
    values = settings.read()
    source, _ = in_use(values)
    found = [(token.id, "environment", True) for token in in_environment(values)]
    found += [(token.id, "file", source == "file") for token in in_file(values)]
    bad = bad_news(values) if found else {}
    document = {
        "source": source,
        "tokens": [
            {"id": id, "source": origin, "used": used, "out": list(map(_out, bad.get(id, ()))) or None}
            for id, origin, used in found
        ],
    }
    rows = [(*row, ", ".join(map(why, bad.get(row[0], ())))) for row in found]
    text = table(("TOKEN", "SOURCE", "USED", "OUT"), rows)
    if not all(used for _, _, used in found):
        text += f"\n\n{ENVIRONMENT_WINS}"
    out(as_json, document, text if found else "No token: the built-in demo answers.")


def _out(bad: News) -> dict[str, str | None]:
    return {"cause": bad.cause, "model": bad.model or None, "until": utc(bad.until)}


@group.command("check")
@json_option
def check(as_json: bool) -> None:
    """Ask the upstream about each token in use. Exit code 1 if one is not live."""
    values = settings.read()
    _, tokens = in_use(values)
    found = verdicts(values, tokens)
    document = {"tokens": [{"id": each.id, "live": each.live, "detail": each.detail} for each in found]}
    rows = [(each.id, "unknown" if each.live is None else each.live, each.detail) for each in found]
    text = table(("TOKEN", "LIVE", "DETAIL"), rows) if found else "No token: the built-in demo answers."
    out(as_json, document, text)
    if not all(each.live for each in found):
        raise click.exceptions.Exit(FAILED)
