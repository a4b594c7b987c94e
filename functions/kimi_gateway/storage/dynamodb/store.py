"""The store of the cloud: one DynamoDB table, exact across all instances that share it.

A successful request costs two calls, no read, and two write units while its account's item fits into 1 KiB.
Every step may be sent twice, so a call whose answer was lost is simply repeated.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from kimi_gateway.accounts import keys, rules
from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.store import (
    NOTHING,
    UNUSED,
    InFlightFull,
    KeyStale,
    StoreDown,
    StoreThrottled,
    Unknown,
    Unlimited,
    WindowFull,
)
from kimi_gateway.accounts.values import (
    Account,
    Admission,
    Amount,
    Balance,
    Bound,
    Budget,
    Grant,
    Key,
    NewKey,
    Usage,
)
from kimi_gateway.net.aws import Aws
from kimi_gateway.storage.dynamodb import accounts as directory
from kimi_gateway.storage.dynamodb import budgets as meters
from kimi_gateway.storage.dynamodb import funds, history, standing, steps
from kimi_gateway.storage.dynamodb import keys as records
from kimi_gateway.storage.dynamodb.item import Image, Lease, counted_by
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table
from kimi_gateway.storage.dynamodb.usage import DynamoUsage

if TYPE_CHECKING:
    from kimi_gateway.storage.moving import Mover

TRIES = 20  # tries of a step while other processes change the account
BUSY = "others changed the account each time it was tried"


class DynamoStore(DynamoUsage):
    def __init__(
        self,
        table: str,
        aws: Aws,
        below: keys.Below = secrets.randbelow,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        forsaken: int = 0,
        keep_usage: int = usages.KEPT * usages.DAY,
    ) -> None:
        super().__init__(Table(table, aws), sleep, jitter)
        self._below = below
        self._forsaken = forsaken
        self._keep_usage = keep_usage
        self._tidying: set[str] = set()

    async def find_key(self, digest: str) -> Key | None:
        found = await records.find_key(self._table, digest)
        return None if found is None else self._met(*found)

    async def admit(
        self, request: str, key: Key, cost: int, lease_until: int, now: int, bound: Bound | None = None
    ) -> Admission:
        image = self._images.get(key.account)
        for number in range(TRIES):
            await self._pause(number)
            output = meters.guess(key, bound, image)
            change = steps.admit(request, key, cost, lease_until, now, image, bound, output)
            try:
                image = await self._write(key.account, change)
                lease = Lease(0 if image.unlimited else cost, lease_until, output)
                return standing.admission(request, key, lease, image, now, bound)
            except Conflict as conflict:
                image = self._seen(key.account, conflict)
            if image is None:
                raise KeyStale
            if known := standing.known(request, key, image, now, bound):
                return known
            balance, ended = standing.as_it_is(image, cost, now)
            standings = image.standing(key, now, rules.rank(balance.spendable))
            if full := rules.last(rules.full_window(*each) for each in standings):
                raise WindowFull(full)
            if (limit := rules.crowded(key, image.running)) is not None:
                ended = standing.some(image.ended(now))
                if not any(map(counted_by, ended)):
                    raise InFlightFull(limit)
                balance = rules.returned(balance, standing.credits(ended), now)
            else:
                meters.fitted(key, bound, image)
            if balance != image.balance or ended:
                await self._rewrite(key.account, image, balance, ended)
                image = self._images.get(key.account)
        raise StoreThrottled(BUSY)

    async def hold(self, request: str, key: Key, lease_until: int, now: int, bound: Bound) -> Admission:
        key, image = rules.uncounted(key), self._images.get(key.account)
        for number in range(TRIES):
            await self._pause(number)
            output = meters.guess(key, bound, image)
            try:
                image = await self._write(key.account, steps.hold(request, key, lease_until, bound, output))
                lease = Lease(0, lease_until, output)
                return standing.admission(request, key, lease, image, now, bound)
            except Conflict as conflict:
                image = self._seen(key.account, conflict)
            if image is None:
                raise KeyStale
            if known := standing.known(request, key, image, now, bound):
                return known
            meters.fitted(key, bound, image)
        raise StoreThrottled(BUSY)

    async def settle(
        self, admission: Admission, model: str, usage: Usage, now: int, billed: Amount | None = None
    ) -> bool:
        account = admission.key.account
        try:
            image = await self._write(account, steps.settle(admission, model, usage, now, billed))
        except Conflict as conflict:
            self._seen(account, conflict)
            return False
        await self._tidy(account, image, now)
        return True

    async def release(
        self,
        admission: Admission,
        model: str,
        error: bool,
        now: int,
        billed: Amount | None = NOTHING,
        usage: Usage = UNUSED,
        cause: str = "",
    ) -> bool:
        account = admission.key.account
        change = steps.release(admission, model, error, now, billed, usage, cause)
        for number in range(TRIES):
            await self._pause(number)
            try:
                image = await self._write(account, change)
            except Conflict as conflict:
                seen = self._seen(account, conflict)
                if seen is None or seen.lease(admission.id, admission.key) is None:
                    return False
                await self._rewrite(account, seen, rules.folded(seen.balance, now), {})
            else:
                await self._tidy(account, image, now)
                return True
        raise StoreThrottled(BUSY)

    async def renew(self, admissions: Sequence[Admission], lease_until: int) -> None:
        by_account: dict[str, list[Admission]] = defaultdict(list)
        for admission in admissions:
            by_account[admission.key.account].append(admission)
        for account, theirs in by_account.items():
            for start in range(0, len(theirs), steps.TOGETHER):
                await self._renew(account, theirs[start : start + steps.TOGETHER], lease_until)

    async def _renew(self, account: str, admissions: Sequence[Admission], lease_until: int) -> None:
        for number in range(TRIES):
            await self._pause(number)
            try:
                await self._write(account, steps.renew(admissions, lease_until))
                return
            except Conflict as conflict:
                image = self._seen(account, conflict)
            if image is None or not (admissions := steps.renewable(admissions, lease_until, image)):
                return
        raise StoreThrottled(BUSY)

    async def purge(self, now: int) -> int:
        """Ends expired leases of accounts that this process met; it searches for no others. Those end when
        credit runs short, or with the account's next request."""
        late = [account for account, image in self._images.items() if image.ended(now)]
        return sum([await self._purge(account, now) for account in late])

    async def _purge(self, account: str, now: int) -> int:
        count = 0
        for number in range(TRIES):
            await self._pause(number)
            image = self._read(account, await records.image_of(self._table, account))
            if image is None or not (ended := standing.some(image.ended(now))):
                return count
            balance = rules.returned(image.balance, standing.credits(ended), now)
            if await self._rewrite(account, image, balance, ended):
                count += len(ended)
        raise StoreThrottled(BUSY)

    async def create_account(
        self, name: str, credits: Grant | None, now: int, invited_by: str = ""
    ) -> Account:
        account = keys.account_id(self._below)
        hot = steps.opened(credits, now)
        await directory.add_account(self._table, account, name, hot, now, invited_by)
        return await self._shown(account, now)

    async def open_account(self, credits: Grant, new: NewKey, now: int, invited_by: str = "") -> Account:
        id = keys.account_id(self._below)
        key = rules.made(replace(new, account=id), keys.key_id(self._below), now)
        await directory.open_account(self._table, key, steps.opened(credits, now), now, invited_by)
        return await self._shown(id, now)

    async def create_key(self, new: NewKey, now: int, most: int | None = None) -> Key:
        return self._met(*await records.add_key(self._table, new, now, self._below, most))

    async def update_key(self, key: str, change: Callable[[Key], Key], now: int) -> Key:
        return await self._changed(key, lambda old: rules.changed(old, change(old)))

    async def rotate_key(self, key: str, digest: str, until: int, now: int) -> Key:
        await records.add_digest(self._table, key, digest)
        return await self._changed(key, lambda old: rules.rotated(old, digest, until))

    async def _changed(self, key: str, change: Callable[[Key], Key]) -> Key:
        for number in range(TRIES):
            await self._pause(number)
            if changed := await records.change_key(self._table, key, change):
                return self._met(*changed)
        raise StoreThrottled(BUSY)

    async def revoke_key(self, key: str, now: int) -> Key:
        return self._met(*await records.end_key(self._table, key))

    async def rename_account(self, account: str, name: str, now: int) -> Account:
        await directory.rename(self._table, account, name)
        return await self._shown(account, now)

    async def set_budgets(self, account: str, wanted: Sequence[Budget], now: int) -> Account:
        await directory.set_budgets(self._table, account, wanted)
        return await self._shown(account, now)

    async def delete_account(self, account: str) -> None:
        await directory.remove(self._table, account)
        self._images.pop(account, None)

    async def grant(self, account: str, grant: Grant, now: int) -> Account:
        return await self._funded(
            account, lambda balance: rules.granted(balance, grant, now), now, lifts=True
        )

    async def deduct(self, account: str, credits: int, now: int) -> Account:
        return await self._funded(account, lambda balance: rules.deducted(balance, credits, now), now)

    async def _funded(
        self, account: str, step: Callable[[Balance], Balance], now: int, lifts: bool = False
    ) -> Account:
        """Change the balance exactly once, even if answers are lost. `lifts`: open windows of lower tiers get
        the new balance's tier."""
        id = keys.key_id(secrets.randbelow)[-6:]
        for number in range(TRIES):
            await self._pause(number)
            image = await records.image_of(self._table, account)
            if image is None:
                raise Unknown(account)
            if image.unlimited:
                raise Unlimited(account)
            done, change = steps.has_grant(image, id), Change()
            balance = image.balance if done else step(image.balance)
            if not done:
                change = steps.with_grant(steps.rewritten(image, balance, {}), image, id, now)
            rank = rules.rank(balance.spendable) if lifts else 0
            try:
                if not done or image.below(rank, now):
                    image = await self._write(account, steps.lift(change, image, rank, now))
            except Conflict:
                continue
            if not image.below(rank, now):
                return await self._shown(account, now)
        raise StoreThrottled(BUSY)

    async def fund(self, account: str, name: str, change: Callable[[Balance], Balance], now: int) -> bool:
        call = keys.key_id(secrets.randbelow)[-6:]
        for number in range(TRIES):
            await self._pause(number)
            done = await funds.fund(self._table, account, name, change, now, call, self._write)
            if done is not None:
                return done
        raise StoreThrottled(BUSY)

    async def funded(self, account: str, name: str) -> int | None:
        return await funds.funded(self._table, account, name)

    async def tally(self, name: str, most: int, until: int, now: int) -> bool:
        return await funds.tally(self._table, name, most, until)

    async def account(self, name: str, now: int) -> Account:
        return await self._shown(await directory.resolve(self._table, name), now)

    async def accounts(self, now: int) -> list[Account]:
        async def shown(id: str) -> Account | None:
            with suppress(Unknown):  # it is being opened or deleted, or its opening was interrupted
                return await self._shown(id, now)
            return None

        every = await directory.each(await directory.every(self._table), shown)
        found = [each for each in every if each is not None]
        return sorted(found, key=lambda account: (account.created, account.id))

    async def close(self) -> None:
        """Does nothing: the owner of the client closes it."""

    def moving(self) -> Mover:
        from kimi_gateway.storage.dynamodb.moving import DynamoMover

        return DynamoMover(self._table, self, self._keep_usage)

    async def _shown(self, account: str, now: int) -> Account:
        held = await directory.held(self._table, account)
        self._images[account] = held.image
        return directory.shown(held, now)

    async def _tidy(self, account: str, image: Image, now: int) -> None:
        """Tidy up a part of the account behind a request; failures are left to a later request."""
        late = image.ended(now - self._forsaken)
        if account in self._tidying or not (late or history.over(image, now)):
            return
        self._tidying.add(account)
        try:
            with suppress(StoreDown, Conflict):
                if late:
                    await self._write(account, steps.swept(image, standing.some(late), now))
                else:
                    await history.move(self._table, account, image, now, self._keep_usage)
        finally:
            self._tidying.discard(account)
