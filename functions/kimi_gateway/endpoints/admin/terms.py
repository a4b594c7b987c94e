"""The members of bodies of the operator's API. Unknown ones are refused, so that a typo changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from kimi_gateway.accounts.packages import Package
from kimi_gateway.accounts.values import WINDOWS, Grant, Key
from kimi_gateway.endpoints.key_documents import budgets_of, check_limits, check_name, models_of, moment_of
from kimi_gateway.http import Request
from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import fail

MOST = 10**9  # credits, and requests in a limit
COUNTS = ("in_flight", "tokens")
SWITCHES = ("see_balance", "search", "files", "manages", "suspended")
TERMS = ("name", "limits", *WINDOWS, *COUNTS, *SWITCHES, "models", "expires", "note", "budgets")
_credits = fields.integer(1, MOST)


async def body_of(request: Request, names: tuple[str, ...]) -> Mapping[str, Any]:
    """The members of a JSON object; an empty body is an empty one. Raises InvalidRequest."""
    raw = await request.body()
    values = dict(fields.json_object(raw or b"{}").values)
    for name in values:
        if name not in names:
            fail(name[:80], f"is not one of {', '.join(names)}" if names else "is not expected here")
    return values


def with_terms(key: Key, given: Mapping[str, Any]) -> Key:
    """The key with what was given; null takes a limit away. The limits of requests may stand in `limits`, as
    a key's document has them, or beside the others. Raises InvalidRequest."""
    told: dict[str, Any] = {}
    if "limits" in given:
        check_limits(given["limits"], "limits")
        given = {**(given["limits"] or dict.fromkeys(WINDOWS)), **given}
    limits = {WINDOWS[name]: _limit(given[name], name) for name in WINDOWS if name in given}
    for name in given:
        value = given[name]
        if name in COUNTS:
            told[name] = _limit(value, name)
        elif name in SWITCHES:
            fields.boolean(value, name)
            told[name] = value
        elif name == "name":
            told[name] = name_of(value)
        elif name == "note":
            told[name] = _text(value, name, 500)
        elif name == "models":
            told[name] = models_of(value, name)
        elif name == "expires":
            told[name] = moment_of(value, name)
        elif name == "budgets":
            told[name] = budgets_of(value, name)
    return replace(key, limits=replace(key.limits, **limits), **told)


def _limit(value: Any, name: str) -> int | None:
    if value is not None:
        _credits(value, name)
    return cast("int | None", value)


def _text(value: Any, name: str, most: int) -> str:
    fields.string(value, name)
    if len(value) > most or not value.isprintable():
        fail(name, f"must have at most {most} printable characters")
    return str(value)


def name_of(value: Any) -> str:
    text = _text(value, "name", 100).strip()
    check_name(text, "name")
    return text


def opening_of(value: Any, default: int) -> Grant | None:
    """The opening balance: a number, "unlimited", or null for the default."""
    if value == "unlimited":
        return None
    if value is not None:
        fields.integer(0, MOST)(value, "credits")
    return Grant(default if value is None else value)


def grant_of(given: Mapping[str, Any], packages: Mapping[str, Package], now: int) -> Grant:
    """Credits with their expiry, or a package. Raises InvalidRequest."""
    if ("credits" in given) == ("package" in given):
        fail("credits", "give either credits or package")
    if "package" in given:
        package = given["package"]
        if not isinstance(package, str) or package not in packages:
            fail("package", f"must be one of {', '.join(sorted(packages))}")
        return packages[package].bought(now)
    expires = moment_of(given.get("expires"), "expires")
    if expires <= now:
        fail("expires", "is in the past")
    return Grant(credits_of(given), expires)


def credits_of(given: Mapping[str, Any]) -> int:
    _credits(given.get("credits"), "credits")
    return int(given["credits"])
