"""An account for the holder of one of its keys, in SQLite."""

from __future__ import annotations

import sqlite3

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.store import KeyStale, Unknown
from kimi_gateway.accounts.values import Key, Overview
from kimi_gateway.storage.sqlite import accounts
from kimi_gateway.storage.sqlite.steps import standing_of


def overview(db: sqlite3.Connection, key: Key, now: int) -> Overview:
    """Without usage. Raises KeyStale."""
    try:
        account = accounts.account(db, key.account, now)
    except Unknown:
        raise KeyStale from None
    known = next((each for each in account.keys if each.id == key.id), None)
    if known is None or known.revoked or known.generation != key.generation:
        raise KeyStale
    rank = rules.rank(account.credits - account.reserved)
    windows = rules.windows(standing_of(db, key, account.unlimited, now, rank))
    return Overview(rules.seen_by(account, key), windows, ())
