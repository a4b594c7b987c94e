"""A key as a JSON document, and the changes that such a document asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

from kimi_gateway.accounts.moments import unix_seconds, utc
from kimi_gateway.accounts.values import NEVER, WINDOWS, Budget, Key, Period, Unit
from kimi_gateway.pivot import fields

MOST = 10**9  # requests in a limit
MOST_BUDGET = 10**15  # micro-dollars, or tokens
MOST_MODELS, LONGEST_MODELS = 50, 1_000  # names; characters of all


def document(key: Key) -> dict[str, Any]:
    """Limits are those in force, of the key itself or of its maker."""
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "limits": {
            name: _lowest(*[getattr(each.limits, window) for each in key.line])
            for name, window in WINDOWS.items()
        },
        "in_flight": _lowest(*[each.in_flight for each in key.line]),
        "tokens": _lowest(*[each.tokens for each in key.line]),
        "budgets": {
            f"{each.unit}/{each.period}": each.limit / 1_000_000 if each.unit == "usd" else each.limit
            for each in key.budgets
        },
        "models": list(key.models),
        "search": all(each.search for each in key.line),
        "files": all(each.files for each in key.line),
        "manages": key.manages,
        "made_by": key.made_by or None,
        "expires": None if key.expires >= NEVER else utc(key.expires),
        "suspended": key.suspended,
        "created": utc(key.created),
    }


def _lowest(*limits: int | None) -> int | None:
    return min([limit for limit in limits if limit is not None], default=None)


def changed(key: Key, body: Mapping[str, Any]) -> Key:
    """`key` with the members of `body`, which `check` has accepted."""
    new: dict[str, Any] = {name: body[name] for name in ("name", "search", "files") if name in body}
    new |= {name: body[name] for name in ("in_flight", "tokens") if name in body}
    if "limits" in body:
        windows = {WINDOWS[name]: limit for name, limit in (body["limits"] or {}).items()}
        new["limits"] = replace(key.limits, **windows)
    if "models" in body:
        new["models"] = models_of(body["models"], "models")
    if "budgets" in body:
        new["budgets"] = budgets_of(body["budgets"], "budgets")
    if "expires" in body:
        new["expires"] = moment_of(body["expires"], "expires")
    return replace(key, **new)


def check(body: Mapping[str, Any], now: int) -> None:
    """Raises InvalidRequest for an unknown member or a wrong value."""
    for name, value in body.items():
        if name not in CHECKS:
            fields.fail(name[:80], f"is unknown; a key has {', '.join(CHECKS)}")
        CHECKS[name](value, name)
    if moment_of(body.get("expires"), "expires") <= now:
        fields.fail("expires", "is in the past")


def check_name(value: Any, where: str) -> None:
    fields.string(value, where)
    if len(value) > 100 or not value.isprintable() or value.startswith(("sk-", "acc_", "key_")):
        fields.fail(where, "must have at most 100 printable characters, and be neither a key nor an id")


def _limit(value: Any, where: str) -> None:
    if value is not None:
        fields.integer(1, MOST)(value, where)


def check_limits(value: Any, where: str) -> None:
    if value is None:
        return
    fields.mapping(value, where)
    for name, limit in value.items():
        if name not in WINDOWS:
            fields.fail(where, f"has {', '.join(WINDOWS)} and no other member")
        _limit(limit, f"{where}.{name}")


def models_of(value: Any, where: str) -> tuple[str, ...]:
    """Names of models and aliases; null means all, as an empty list does. Raises InvalidRequest."""
    if value is None:
        return ()
    fields.array(value, where)
    if len(value) > MOST_MODELS or sum(len(str(each)) for each in value) > LONGEST_MODELS:
        fields.fail(where, f"has at most {MOST_MODELS} names with {LONGEST_MODELS} characters")
    for place, each in enumerate(value):
        if type(each) is not str or not each or not each.isprintable() or " " in each:
            fields.fail(
                f"{where}[{place}]", "must be the name of a model, in which * stands for any characters"
            )
    return tuple(dict.fromkeys(value))


def budgets_of(value: Any, where: str) -> tuple[Budget, ...]:
    """Budgets of an object such as {"usd/day": 5, "tokens/month": 1000000}, in place of all others; null is
    none. Raises InvalidRequest."""
    if value is None:
        return ()
    fields.mapping(value, where)
    found = []
    for name, limit in value.items():
        unit, _, period = name.partition("/")
        place = f"{where}.{name[:80]}"
        if unit not in get_args(Unit) or period not in get_args(Period) or name == "usd/minute":
            fields.fail(
                place, "must be usd or tokens, then /day, /week, /month or /total (tokens/minute too)"
            )
        fields.number(0, MOST_BUDGET / 1_000_000 if unit == "usd" else MOST_BUDGET)(limit, place)
        scaled = Decimal(str(limit)) * (1_000_000 if unit == "usd" else 1)
        if scaled % 1:
            fields.fail(place, "has at most 6 decimals in USD, and none in tokens")
        found.append(Budget(unit, period, int(scaled)))
    return tuple(found)


def moment_of(value: Any, where: str) -> int:
    """Unix seconds of a date or time; null never comes. Raises InvalidRequest."""
    if value is None:
        return NEVER
    fields.string(value, where)
    try:
        seconds = unix_seconds(value)
    except (ValueError, OverflowError):
        fields.fail(where, "must be a date or a time such as 2027-01-31T12:00:00Z, or null")
    if not 0 < seconds < NEVER:
        fields.fail(where, "is out of range")
    return seconds


CHECKS: dict[str, Callable[[Any, str], object]] = {
    "name": check_name,
    "limits": check_limits,
    "in_flight": _limit,
    "tokens": _limit,
    "budgets": budgets_of,
    "models": models_of,
    "search": fields.boolean,
    "files": fields.boolean,
    "expires": moment_of,
}
