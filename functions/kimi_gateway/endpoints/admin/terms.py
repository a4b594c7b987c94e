"""The members of bodies of the operator's API. Unknown ones are refused, so that a typo changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

from kimi_gateway.accounts.moments import unix_seconds
from kimi_gateway.accounts.packages import Package
from kimi_gateway.accounts.values import NEVER, WINDOWS, Budget, Grant, Key, Period, Unit
from kimi_gateway.http import Request
from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import fail

MOST = 10**9  # credits, and requests in a limit
COUNTS = ("in_flight", "tokens")
SWITCHES = ("see_balance", "search", "files", "manages", "suspended")
TERMS = ("name", *WINDOWS, *COUNTS, *SWITCHES, "models", "expires", "note", "budgets")
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
    """The key with what was given; null takes a limit away. Raises InvalidRequest."""
    told: dict[str, Any] = {}
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
            told[name] = _models(value)
        elif name == "expires":
            told[name] = moment(value, name)
        elif name == "budgets":
            told[name] = budgets_of(value)
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
    if text.startswith("sk-"):
        fail("name", "must not be a key")
    return text


def _models(value: Any) -> tuple[str, ...]:
    fields.array(value, "models")
    if len(value) > 100:
        fail("models", "must have at most 100 names")
    for at, name in enumerate(value):
        if not _text(name, f"models[{at}]", 100) or " " in name:
            fail(f"models[{at}]", "must be a name without blanks")
    return tuple(dict.fromkeys(value))


def moment(value: Any, name: str) -> int:
    """Unix seconds of a date or time; null never comes."""
    if value is None:
        return NEVER
    fields.string(value, name)
    try:
        seconds = unix_seconds(value)
    except (ValueError, OverflowError):
        fail(name, "must be a date or a time such as 2027-01-31T12:00:00Z, or null")
    if not 0 < seconds < NEVER:
        fail(name, "is out of range")
    return seconds


def budgets_of(value: Any) -> tuple[Budget, ...]:
    """Budgets of an object such as {"usd/day": 5, "tokens/month": 1000000}, in place of all others."""
    fields.mapping(value, "budgets")
    found = []
    for name, limit in value.items():
        unit, _, period = name.partition("/")
        where = f"budgets.{name[:80]}"
        if (
            unit not in get_args(Unit)
            or period not in get_args(Period)
            or (unit, period) == ("usd", "minute")
        ):
            fail(where, "must be usd or tokens, then /day, /week, /month or /total (tokens/minute too)")
        fields.number(0.000001 if unit == "usd" else 1, MOST)(limit, where)
        if unit == "tokens":
            fields.integer(1)(limit, where)
        found.append(Budget(unit, period, round(limit * 1_000_000) if unit == "usd" else limit))
    return tuple(found)


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
    expires = moment(given.get("expires"), "expires")
    if expires <= now:
        fail("expires", "is in the past")
    return Grant(credits_of(given), expires)


def credits_of(given: Mapping[str, Any]) -> int:
    _credits(given.get("credits"), "credits")
    return int(given["credits"])
