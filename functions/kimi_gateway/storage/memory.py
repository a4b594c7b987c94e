"""The executable specification of a store, in one process and without a disk."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from kimi_gateway.accounts import budgets, keys, rules
from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.store import (
    NOTHING,
    UNUSED,
    Ambiguous,
    InFlightFull,
    KeyStale,
    NoCredit,
    Taken,
    TooManyKeys,
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
    Limits,
    NewKey,
    Overview,
    Usage,
    UsageRow,
)
from kimi_gateway.storage.memory_account import Held, Lease
from kimi_gateway.storage.memory_files import MemoryFiles
from kimi_gateway.storage.memory_tallies import MemoryTallies
from kimi_gateway.storage.memory_usage import MemoryUsage


class MemoryStore(MemoryFiles, MemoryTallies):
    def __init__(
        self, below: keys.Below = secrets.randbelow, keep_usage: int = usages.KEPT * usages.DAY
    ) -> None:
        MemoryFiles.__init__(self)
        MemoryTallies.__init__(self)
        self._below = below
        self._accounts: dict[str, Held] = {}
        self._keys: dict[str, Key] = {}  # by id
        self._counts: dict[str, rules.Counts] = {}  # by key id
        self._usage = MemoryUsage(keep_usage)

    async def find_key(self, digest: str) -> Key | None:
        found = (rules.found_by(self._current(key), digest) for key in self._keys.values())
        return next((key for key in found if key is not None), None)

    async def admit(
        self, request: str, key: Key, cost: int, lease_until: int, now: int, bound: Bound | None = None
    ) -> Admission:
        held, known = self._accounts.get(key.account), self._keys.get(key.id)
        if held is None or known is None:
            raise KeyStale
        if lease := held.leases.get(request):
            return self._admission(request, key, held, lease, now, bound)
        if known.revoked or key.generation != held.generation:
            raise KeyStale
        balance = rules.folded(held.balance, now)
        ended: list[str] = []
        if held.unlimited:
            cost = 0
        elif balance.spendable < cost:
            ended = held.ended(now)
            balance = rules.returned(balance, sum(held.leases[name].cost for name in ended), now)
            if balance.spendable < cost:
                raise NoCredit
        rank = rules.rank(balance.spendable)
        standing = self._standing(key, held, now, rank)
        if full := rules.last(rules.full_window(*each) for each in standing):
            raise WindowFull(full)
        if (limit := rules.crowded(key, held.running)) is not None:
            if not any(held.leases[name].counted for name in held.ended(now)):
                raise InFlightFull(limit)
            held.purge(now)
            return await self.admit(request, key, cost, lease_until, now, bound)
        output = self._reserved(held, key, bound)
        held.end(ended, now)
        held.balance = rules.reserved(balance, cost)
        counted = tuple(each.id for each in rules.in_flight(key))
        lease = held.leases[request] = Lease(cost, lease_until, output, counted)
        for (each, _), (_, counts) in zip(rules.counting(key, held.unlimited), standing, strict=True):
            self._counts[each.id] = rules.counted(counts)
        return self._admission(request, key, held, lease, now, bound)

    async def hold(self, request: str, key: Key, lease_until: int, now: int, bound: Bound) -> Admission:
        held, known = self._accounts.get(key.account), self._keys.get(key.id)
        if held is None or known is None:
            raise KeyStale
        lease = held.leases.get(request)
        if lease is None:
            if known.revoked or key.generation != held.generation:
                raise KeyStale
            lease = held.leases[request] = Lease(0, lease_until, self._reserved(held, key, bound))
        return self._admission(request, rules.uncounted(key), held, lease, now, bound)

    def _reserved(self, held: Held, key: Key, bound: Bound | None) -> int:
        """The output limit that the budgets allow; its cost is booked. Raises BudgetFull."""
        if bound is None:
            return 0
        metered = budgets.meters(key, bound.at)
        output = budgets.fitted(bound, [(meter, held.amount(meter)) for meter in metered])
        for meter in metered:
            held.book(meter, budgets.reserved(meter, bound, output))
        return output

    def _standing(self, key: Key, held: Held, now: int, rank: int) -> list[tuple[Limits, rules.Counts]]:
        """The limits in force, and the counts, of each key in whose windows a request counts."""
        standing = []
        for each, tiered in rules.counting(key, held.unlimited):
            counts = rules.rolled_over(self._counts[each.id], now, rank)
            standing.append((rules.limits_in_force(each.limits, counts if tiered else None), counts))
        return standing

    def _admission(
        self, request: str, key: Key, held: Held, lease: Lease, now: int, bound: Bound | None
    ) -> Admission:
        spendable = None if held.unlimited else held.balance.spendable
        standing = self._standing(key, held, now, rules.rank(held.balance.spendable + lease.cost))
        window = rules.tightest(rules.minute_window(*each) for each in standing)
        tokens = budgets.token_window(key, bound, held.amount)
        reserved = lease.cost, lease.expires, spendable
        return Admission(request, key, *reserved, window, bound, lease.output, tokens)

    async def settle(
        self, admission: Admission, model: str, usage: Usage, now: int, billed: Amount | None = None
    ) -> bool:
        held = self._accounts.get(admission.key.account)
        lease = held.leases.pop(admission.id, None) if held is not None else None
        if held is None or lease is None:
            return False
        held.balance = replace(held.balance, consumed=held.balance.consumed + lease.cost)
        self._book(held, admission, billed, now)
        self._usage.count(usages.settled(admission, model, usage, lease.cost, now))
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
        held = self._accounts.get(admission.key.account)
        if held is None or admission.id not in held.leases:
            return False
        held.end([admission.id], now)
        self._book(held, admission, billed, now)
        self._usage.count(usages.released(admission, model, error, usage, cause, now))
        return True

    def _book(self, held: Held, admission: Admission, billed: Amount | None, now: int) -> None:
        of = admission.key, admission.bound, admission.output
        for meter, change in budgets.corrections(*of, billed, now):
            held.book(meter, change)

    async def renew(self, admissions: Sequence[Admission], lease_until: int) -> None:
        for admission in admissions:
            held = self._accounts.get(admission.key.account)
            if held is not None and (lease := held.leases.get(admission.id)):
                lease.expires = max(lease.expires, lease_until)

    async def purge(self, now: int) -> int:
        self._usage.purge(now)
        self._answers.purge(now)
        return sum(held.purge(now) for held in self._accounts.values())

    async def create_account(
        self, name: str, credits: Grant | None, now: int, invited_by: str = ""
    ) -> Account:
        held = Held(keys.account_id(self._below), name, credits is None, now, invited_by=invited_by)
        if credits is not None:
            held.balance = rules.granted(held.balance, credits, now)
        self._accounts[held.id] = held
        return self._shown(held, now)

    async def open_account(self, credits: Grant, new: NewKey, now: int, invited_by: str = "") -> Account:
        self._refuse_taken(new.digest)
        id = (await self.create_account("", credits, now, invited_by)).id
        await self.create_key(replace(new, account=id), now)
        return await self.account(id, now)

    async def create_key(self, new: NewKey, now: int, most: int | None = None) -> Key:
        if new.account not in self._accounts:
            raise Unknown(new.account)
        self._refuse_taken(new.digest)
        theirs = [key for key in self._keys.values() if key.account == new.account and not key.revoked]
        if most is not None and len(theirs) >= most:
            raise TooManyKeys(new.account)
        key = rules.made(new, keys.key_id(self._below), now)
        self._keys[key.id], self._counts[key.id] = key, rules.UNCOUNTED
        return self._current(key)

    def _current(self, key: Key) -> Key:
        held = self._accounts[key.account]
        maker = self._current(self._keys[key.made_by]) if key.made_by else None
        return replace(key, generation=held.generation, shared=held.budgets, maker=maker)

    async def update_key(self, key: str, change: Callable[[Key], Key], now: int) -> Key:
        found = self._found(key)
        return self._changed(rules.changed(found, change(self._current(found))))

    async def rotate_key(self, key: str, digest: str, until: int, now: int) -> Key:
        found = self._found(key)
        self._refuse_taken(digest, but=found.id)
        return self._changed(rules.rotated(found, digest, until))

    def _refuse_taken(self, digest: str, but: str = "") -> None:
        if any(rules.found_by(key, digest) and key.id != but for key in self._keys.values()):
            raise Taken

    async def revoke_key(self, key: str, now: int) -> Key:
        return self._changed(replace(self._found(key), revoked=True))

    def _found(self, key: str) -> Key:
        for known in self._keys.values():
            if key == known.id or rules.found_by(known, key):
                return known
        raise Unknown(key)

    def _changed(self, key: Key) -> Key:
        self._keys[key.id] = key
        self._accounts[key.account].generation += 1
        return self._current(key)

    async def rename_account(self, account: str, name: str, now: int) -> Account:
        self._held(account).name = name
        return self._shown(self._held(account), now)

    async def set_budgets(self, account: str, wanted: Sequence[Budget], now: int) -> Account:
        held = self._held(account)
        held.budgets = tuple(wanted)
        held.generation += 1
        return self._shown(held, now)

    async def delete_account(self, account: str) -> None:
        del self._accounts[self._held(account).id]
        self._keys = {id: key for id, key in self._keys.items() if key.account != account}
        self._counts = {id: counts for id, counts in self._counts.items() if id in self._keys}
        self._usage.forget(account)
        self.leave(account)

    def _held(self, account: str) -> Held:
        if account not in self._accounts:
            raise Unknown(account)
        return self._accounts[account]

    async def grant(self, account: str, grant: Grant, now: int) -> Account:
        held = self._limited(account)
        held.balance = rules.granted(held.balance, grant, now)
        self._lift(held)
        return self._shown(held, now)

    def _lift(self, held: Held) -> None:
        rank = rules.rank(held.balance.spendable)
        for key in self._keys.values():
            if key.account == held.id:
                self._counts[key.id] = rules.lifted(self._counts[key.id], rank)

    async def fund(self, account: str, name: str, change: Callable[[Balance], Balance], now: int) -> bool:
        held = self._limited(account)
        if name in held.funded:
            return False
        before = rules.folded(held.balance, now)
        held.balance = change(before)
        held.funded[name] = held.balance.spendable - before.spendable
        if held.funded[name] > 0:
            self._lift(held)
        return True

    async def funded(self, account: str, name: str) -> int | None:
        return self._held(account).funded.get(name)

    async def deduct(self, account: str, credits: int, now: int) -> Account:
        held = self._limited(account)
        held.balance = rules.deducted(held.balance, credits, now)
        return self._shown(held, now)

    def _limited(self, account: str) -> Held:
        held = self._held(account)
        if held.unlimited:
            raise Unlimited(account)
        return held

    async def account(self, name: str, now: int) -> Account:
        fitting = {held.id for held in self._accounts.values() if name in (held.id, held.name)}
        fitting |= {key.account for key in self._keys.values() if name == key.id or rules.found_by(key, name)}
        if len(fitting) > 1:
            raise Ambiguous(name, fitting)
        if not fitting:
            raise Unknown(name)
        return self._shown(self._accounts[fitting.pop()], now)

    async def accounts(self, now: int) -> list[Account]:
        shown = [self._shown(each, now) for each in self._accounts.values()]
        return sorted(shown, key=lambda account: (account.created, account.id))

    def _shown(self, held: Held, now: int) -> Account:
        held.balance = rules.folded(held.balance, now)
        held.purge(now)
        balance, reserved = held.balance, sum(lease.cost for lease in held.leases.values())
        theirs = [self._current(key) for key in self._keys.values() if key.account == held.id]
        own = sorted(theirs, key=lambda key: (key.created, key.id))
        return Account(
            id=held.id,
            name=held.name,
            unlimited=held.unlimited,
            credits=balance.spendable + reserved,
            reserved=reserved,
            consumed=balance.consumed,
            expired=balance.expired,
            created=held.created,
            grants=rules.unspent(balance),
            keys=tuple(own),
            budgets=held.budgets,
            spent=budgets.spent(own, held.budgets, now, held.amount),
            invited_by=held.invited_by,
        )

    async def usage(self, since: int, account: str | None = None) -> list[UsageRow]:
        return self._usage.rows(since, account)

    async def usage_sums(self, since: int, by: Sequence[str], account: str | None = None) -> list[UsageRow]:
        return usages.summed(self._usage.rows(since, account), by)

    async def overview(self, key: Key, since: int, now: int) -> Overview:
        held, known = self._accounts.get(key.account), self._keys.get(key.id)
        if held is None or known is None or known.revoked or key.generation != held.generation:
            raise KeyStale
        account = rules.seen_by(self._shown(held, now), key)
        standing = self._standing(key, held, now, rules.rank(held.balance.spendable))
        rows = await self.usage_sums(since, ("hour",), held.id)
        return Overview(account, rules.windows(standing), tuple(rows))

    async def close(self) -> None: ...
