"""Usage as documents, the same for the command line and the endpoints. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kimi_gateway.accounts import usage
from kimi_gateway.accounts.moments import unix_seconds, utc
from kimi_gateway.accounts.values import UsageRow

_AGO = re.compile(r"(\d{1,5})([hdw])")
_SPANS = {"h": usage.HOUR, "d": usage.DAY, "w": 7 * usage.DAY}
COUNTS = ("requests", "errors", "free", "input", "cached", "written", "output", "reasoning", "credits")
MONEY = ("cost", "fees", "saved")  # in micro-dollars; shown in USD


def since_of(text: str, now: int) -> int:
    """The unix second that a text names: 24h, 7d or 4w ago, a date, or a time with its zone. Raises
    ValueError, whose text says what is accepted."""
    text = text.strip()
    if ago := _AGO.fullmatch(text):
        return max(0, now - int(ago[1]) * _SPANS[ago[2]])
    try:
        return max(0, unix_seconds(text))
    except ValueError:
        raise ValueError("give a time such as 24h, 7d, 4w, 2026-11-01 or 2026-11-01T12:00Z") from None


def usd(micro: int) -> float:
    return micro / 1_000_000


def place(row: UsageRow, name: str) -> str:
    """The value of a row in a column of accounts.usage.BY."""
    if name == "hour":
        return utc(row.hour)
    return utc(row.hour)[:10] if name == "day" else str(getattr(row, name))


def described(row: UsageRow, by: Sequence[str], names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One row. `names` are those of accounts and keys, by id; they stand beside the ids."""
    document: dict[str, Any] = {}
    for name in by:
        document[name] = place(row, name)
        if names is not None and name in ("account", "key"):
            document[f"{name}_name"] = names.get(document[name]) or None
    return document | counted(row)


def counted(row: UsageRow | None) -> dict[str, Any]:
    """The counts of a row; of none they are zero."""
    counts: dict[str, Any] = {name: getattr(row, name, 0) for name in COUNTS}
    counts |= {f"{name}_usd": usd(getattr(row, name, 0)) for name in MONEY}
    causes = dict(row.causes) if row is not None else {}
    if row is not None and (rest := row.errors - sum(causes.values())) > 0:
        causes["other"] = rest
    return counts | {"causes": causes, "last": utc(row.last) if row is not None else None}


def total(rows: Iterable[UsageRow]) -> UsageRow | None:
    return next(iter(usage.summed(rows, ())), None)
