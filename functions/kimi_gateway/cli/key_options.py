"""The options for the rights of a key, for `keys create` and `keys update`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

import click

from kimi_gateway.accounts.values import NEVER, WINDOWS, Key
from kimi_gateway.cli.access import MOST, moment
from kimi_gateway.cli.budget_option import budget_option, with_budgets
from kimi_gateway.cli.entry import Failed, program
from kimi_gateway.cli.selection import target

F = TypeVar("F", bound=Callable[..., Any])
NONE: Literal["none"] = "none"  # takes a limit away


class Limit(click.ParamType):  # type: ignore[type-arg]
    """A whole number from 1, or `none`."""

    name = "N|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value).strip().lower()
        if text == NONE:
            return NONE
        if not (text.isascii() and text.isdigit()) or len(text) > 10 or not 1 <= int(text) <= MOST:
            self.fail(f"give a whole number from 1 to {MOST}, or 'none'.", param, ctx)
        return int(text)


def models_given(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names by commas or blanks; `all` is every model."""
    if value is None:
        return None
    names = tuple(dict.fromkeys(value.replace(",", " ").split()))
    if not names or len(value) > 1_000 or not value.isprintable():
        raise click.BadParameter("give names of models and aliases, separated by commas, or 'all'.")
    return () if names == ("all",) else names


def expiry_given(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return NEVER if value is not None and value.strip().lower() == "never" else moment(ctx, param, value)


def note_given(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and (len(value) > 500 or not value.isprintable()):
        raise click.BadParameter("a note has at most 500 printable characters.")
    return value


def role_given(ctx: click.Context, param: click.Parameter, value: str | None) -> bool | None:
    return None if value is None else value == "operator"


OPTIONS = (
    click.option("--rpm", type=Limit(), help="Requests a minute, instead of the tier's limit."),
    click.option("--rph", type=Limit(), help="Requests an hour."),
    click.option("--rpd", type=Limit(), help="Requests a day."),
    click.option("--tpm", type=Limit(), help="Tokens of input and output a minute."),
    click.option("--tokens", type=Limit(), help="Tokens of input and output of one request."),
    click.option("--in-flight", type=Limit(), help="Requests that run at one time."),
    budget_option,
    click.option(
        "--models",
        callback=models_given,
        metavar="NAMES|all",
        help="The models and aliases that the key may use, separated by commas; * stands for any characters.",
    ),
    click.option(
        "--expires",
        callback=expiry_given,
        metavar="DATE|never",
        help="The key stops working then (UTC).",
    ),
    click.option("--search/--no-search", default=None, help="The key may search the web (default: yes)."),
    click.option("--files/--no-files", default=None, help="The key may use files (default: yes)."),
    click.option(
        "--manage/--no-manage",
        "manages",
        default=None,
        help="The key may make keys of its account, within its own limits: /user/keys (default: no).",
    ),
    click.option(
        "--role",
        "operator",
        type=click.Choice(("user", "operator")),
        callback=role_given,
        help="An operator's key may use the operator's API, /admin (default: user).",
    ),
    click.option("--note", callback=note_given, metavar="TEXT", help="A note for yourself."),
    click.option(
        "--see-balance/--no-see-balance", default=None, help="The key may read the upstream balance."
    ),
)


def key_options(command: F) -> F:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def with_options(key: Key, given: Mapping[str, Any]) -> Key:
    """The key with the options that were given."""
    told: dict[str, Any] = {
        name: None if value == NONE and name != "budgets" else value
        for name, value in given.items()
        if value is not None
    }
    limits = {WINDOWS[name]: told.pop(name) for name in WINDOWS if name in told}
    changes = told.pop("budgets", {})
    budgets = key.budgets if changes == {} else with_budgets(key.budgets, changes)
    if "tpm" in told:
        budgets = with_budgets(budgets, {("tokens", "minute"): told.pop("tpm")})
    return replace(key, limits=replace(key.limits, **limits), budgets=budgets, **told)


def unknown_models(names: Sequence[str] | None) -> str | None:
    """A warning about names that are neither models nor aliases: a key that is limited to them can use
    nothing. A model that only the upstream knows is among them."""
    from kimi_gateway.catalog import catalog
    from kimi_gateway.catalog.names import parted

    plain = [name for name in names or () if "*" not in name]
    try:
        known = catalog.of_settings(target().settings) if plain else None
    except catalog.CatalogFault:  # the doctor names it
        return None
    lost = [name for name in plain if known is not None and known.find(parted(name)[0]) is None]
    if not lost or known is None:
        return None
    from kimi_gateway.catalog.faults import near

    like = near(lost[0], (*known.rows, *known.named))
    return f"No model or alias {lost[0]!r} is known" + (f"; did you mean {like!r}?" if like else ".")


def joined(*warnings: str | None) -> str | None:
    return " ".join(filter(None, warnings)) or None


@contextmanager
def shown_once(key: str, command: str) -> Iterator[None]:
    """Around the output of a new secret of `key`. If it cannot be written, the secret is lost, and the error
    has the command that ends it. Raises Failed."""
    try:
        yield
    except OSError as exc:
        why, after = exc.strerror or str(exc), f"{program()} keys {command} {key}"
        raise Failed(f"The secret of {key} could not be shown: {why}. It is lost. Then: {after}") from exc


def without_any(given: Mapping[str, Any]) -> bool:
    return all(value is None for value in given.values())
