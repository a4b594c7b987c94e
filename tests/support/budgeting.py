"""Budgets of a key, and what is spent of them."""

from __future__ import annotations

from dataclasses import replace

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Budget
from support.inprocess import InProcess


def limit(desk: InProcess, key: str, *budgets: Budget) -> None:
    desk.run(
        desk.store.update_key(keys.digest(key), lambda old: replace(old, budgets=budgets), int(desk.now))
    )


def spent(desk: InProcess, key: str) -> list[int]:
    return [each.amount for each in desk.account(key).spent]
