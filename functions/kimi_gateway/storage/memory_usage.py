"""The executable specification of usage rows."""

from __future__ import annotations

from kimi_gateway.accounts import usage
from kimi_gateway.accounts.values import UsageRow


class MemoryUsage:
    """`kept`: seconds that rows are kept."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._rows: dict[tuple[int, str, str, str], UsageRow] = {}

    def count(self, row: UsageRow | None) -> None:
        if row is not None:
            at = (row.hour, row.account, row.key, row.model)
            known = self._rows.get(at)
            self._rows[at] = row if known is None else usage.both(known, row)

    def rows(self, since: int, account: str | None) -> list[UsageRow]:
        first = usage.hour_of(since)
        found = (row for row in self._rows.values() if row.hour >= first and account in (None, row.account))
        return sorted(found, key=lambda row: (row.hour, row.account, row.key, row.model))

    def forget(self, account: str) -> None:
        self._rows = {at: row for at, row in self._rows.items() if row.account != account}

    def purge(self, now: int) -> None:
        self._rows = {at: row for at, row in self._rows.items() if row.hour >= now - self._kept}
