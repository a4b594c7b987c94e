"""Accounts with a month of usage, and pages of the gateway before them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Budget, Grant, Key, Limits, NewKey, Usage
from support.browsing import Browser
from support.live import LiveGateway

HOSTILE = "<img src=x onerror=alert(1)>"
HOUR = 3600
CAUSES = ("rate", "timeout", "context")
OPEN = """
kept.page?.context().close();
kept.page = await tab(args.options);
await kept.page.addInitScript((key) => key && sessionStorage.setItem("kimi-gateway.key", key), args.key);
await kept.page.goto(args.url);
await kept.page.waitForSelector(args.until);
"""


@dataclass(frozen=True)
class Busy:
    """A gateway whose first account has usage, and the keys of its user and of an operator."""

    gateway: LiveGateway
    user: str
    boss: str

    def open(self, browser: Browser, path: str, until: str, key: str = "", **options: Any) -> None:
        browser.run(OPEN, url=self.gateway.url + path, key=key, until=until, options=options)


async def _used(store: Any, key: Key, random: Random, now: int, hours: int) -> None:
    for hour in range(hours):
        at = now - hour * HOUR
        admission = await store.admit(f"{key.id}-{hour}", key, 1, at + 660, at)
        given, output = random.randint(2_000, 60_000), random.randint(200, 4_000)
        cached = given * random.randint(20, 90) // 100
        if hour % 9 == 8:
            await store.release(admission, "kimi-k3", True, at, cause=CAUSES[hour % 3])
        else:
            model = random.choice(("kimi-k3", "kimi-k2.6"))
            cost = int(0.6 * (given - cached) + 0.15 * cached + 2.5 * output)
            await store.settle(admission, model, Usage(given, output, cached, cost=cost), at)


def busy(gateway: LiveGateway, names: tuple[str, ...] = ("Alice", HOSTILE), hours: int = 60) -> Busy:
    random, now = Random(7), int(gateway.clock()) - 120  # the present minute has no requests
    secrets = [keys.new_key() for _ in names]

    async def fill() -> None:
        store = gateway.store
        for name, secret in zip(names, secrets, strict=True):
            account = await store.create_account(name, Grant(50_000), now - 40 * 24 * HOUR)
            budgets = (Budget("usd", "day", 5_000_000), Budget("tokens", "month", 90_000_000))
            terms = NewKey(
                keys.digest(secret), account.id, f"{name} laptop", Limits(60, None, 5_000), manages=True
            )
            key = await store.create_key(terms, now - 40 * 24 * HOUR)
            await _used(store, key, random, now, hours)
            change = lambda old, mine=budgets: replace(old, budgets=mine)  # noqa: E731
            await store.update_key(keys.digest(secret), change, now)

    gateway.do(fill())
    boss = gateway.key(None)
    change = lambda old: replace(old, operator=True, name="boss")  # noqa: E731
    gateway.do(gateway.store.update_key(keys.digest(boss), change, now))
    return Busy(gateway, secrets[0] if secrets else "", boss)
