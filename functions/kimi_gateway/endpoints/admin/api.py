"""The operator's API. It does what the command line does, with the same documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from kimi_gateway.accounts import keys, rules
from kimi_gateway.accounts.documents import (
    account_document,
    key_document,
    limits_in_force,
    spent_document,
    state_of,
)
from kimi_gateway.accounts.gate import Gate, store_down
from kimi_gateway.accounts.moments import utc
from kimi_gateway.accounts.packages import with_own
from kimi_gateway.accounts.rules import TooMuch
from kimi_gateway.accounts.store import Ambiguous, Store, StoreDown, Unknown, Unlimited
from kimi_gateway.accounts.usage import BY, DAY
from kimi_gateway.accounts.usage_report import since_of
from kimi_gateway.accounts.values import Account, Grant, Key
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.admin.pool import problems, shown
from kimi_gateway.endpoints.admin.terms import (
    TERMS,
    body_of,
    credits_of,
    grant_of,
    name_of,
    opening_of,
    with_terms,
)
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate_account
from kimi_gateway.endpoints.health import Health
from kimi_gateway.endpoints.key_documents import budgets_of
from kimi_gateway.endpoints.usage import MOST, PAGE, Page
from kimi_gateway.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from kimi_gateway.http import Request, Response
from kimi_gateway.observe import events
from kimi_gateway.pivot.fields import fail
from kimi_gateway.providers.registry import Registry
from kimi_gateway.settings import Settings

OVERLAP = "24h"  # for which a replaced secret works


async def allowed(gate: Gate, request: Request) -> None:
    """Raises PermissionDenied for a key without the operator's role, and what `authenticate_account`
    raises."""
    key = await authenticate_account(gate, request)
    if not key.operator or key.made_by:
        raise PermissionDenied("This needs a key of an operator: keys create --role operator.")


@dataclass(frozen=True, slots=True)
class Admin:
    gate: Gate
    store: Store
    registry: Registry
    settings: Settings
    clock: Callable[[], float]
    health: Health

    async def run(self, name: str, request: Request, **names: str) -> Response:
        """One of the methods below, for an operator. Raises what `allowed` raises, NotFound, Conflict,
        InvalidRequest, Unavailable."""
        await allowed(self.gate, request)
        step: Callable[..., Awaitable[dict[str, Any]]] = getattr(self, name)
        try:
            return answer(await step(request, **names))
        except Ambiguous as exc:
            named = ", ".join(exc.accounts[:10])
            raise Conflict(f"Several accounts have this name: {named}. Use an id.") from exc
        except Unknown as exc:
            raise NotFound(f"No account or key {str(exc)[:80]!r} exists.") from exc
        except Unlimited as exc:
            raise Conflict("The account is unlimited, so it has no balance.") from exc
        except TooMuch as exc:
            raise Conflict(f"Only {exc.spendable} credits can be taken away.") from exc
        except StoreDown as exc:
            raise store_down(name, exc) from exc

    @property
    def _now(self) -> int:
        return int(self.clock())

    async def accounts(self, request: Request) -> dict[str, Any]:
        every = [account_document(each) for each in await self.store.accounts(self._now)]
        return _paged(request, every)

    async def create_account(self, request: Request) -> dict[str, Any]:
        given = await body_of(request, ("name", "credits"))
        opening = opening_of(given.get("credits"), self.settings.signup_credits)
        name = name_of(given.get("name", ""))
        return account_document(await self.store.create_account(name, opening, self._now))

    async def account(self, request: Request, account: str) -> dict[str, Any]:
        return account_document(await self.store.account(account, self._now))

    async def update_account(self, request: Request, account: str) -> dict[str, Any]:
        given = await body_of(request, ("name", "budgets"))
        name = name_of(given["name"]) if "name" in given else None
        budgets = budgets_of(given["budgets"], "budgets") if "budgets" in given else None
        holder = await self.store.account(account, self._now)
        if name is not None:
            holder = await self.store.rename_account(holder.id, name, self._now)
        if budgets is not None:
            holder = await self.store.set_budgets(holder.id, budgets, self._now)
        return account_document(holder)

    async def delete_account(self, request: Request, account: str) -> dict[str, Any]:
        holder = await self.store.account(account, self._now)
        await self.store.delete_account(holder.id)
        return {"id": holder.id, "deleted": True}

    async def grant(self, request: Request, account: str) -> dict[str, Any]:
        given = await body_of(request, ("credits", "expires", "package"))
        grant = grant_of(given, with_own(self.settings.packages), self._now)
        holder = await self.store.account(account, self._now)
        return account_document(await self.store.grant(holder.id, grant, self._now))

    async def deduct(self, request: Request, account: str) -> dict[str, Any]:
        credits = credits_of(await body_of(request, ("credits",)))
        holder = await self.store.account(account, self._now)
        return account_document(await self.store.deduct(holder.id, credits, self._now))

    async def packages(self, request: Request) -> dict[str, Any]:
        """`months` is how long the credits last, null for ever."""
        known = with_own(self.settings.packages).items()
        data = [{"name": name, "credits": each.credits, "months": each.months} for name, each in known]
        return {"object": "list", "data": data}

    async def keys(self, request: Request) -> dict[str, Any]:
        """With the time of each key's last request within the days that usage is kept."""
        only, now = request.query.get("account"), self._now
        holders = [await self.store.account(only, now)] if only else await self.store.accounts(now)
        account = holders[0].id if only else None
        used = await self.store.usage_sums(now - self.settings.keep_usage * DAY, ("key",), account)
        last = {row.key: utc(row.last) for row in used}
        found = [
            key_document(key) | {"state": state_of(key, now), "last_used": last.get(key.id)}
            for holder in holders
            for key in holder.keys
        ]
        return _paged(request, found)

    async def create_key(self, request: Request) -> dict[str, Any]:
        """The key itself is in this answer only. Without an account it gets a new one."""
        given = dict(await body_of(request, ("account", "credits", *TERMS)))
        account, credits, now = given.pop("account", None), given.pop("credits", None), self._now
        secret = keys.new_key()
        wanted = with_terms(Key("", keys.digest(secret), ""), given)
        if wanted.suspended:
            fail("suspended", "is not possible for a new key")
        if wanted.expires <= now:
            fail("expires", "is in the past")
        holder = await self._holder(account, credits, wanted.name, now)
        made = await self.store.create_key(rules.wanted(replace(wanted, account=holder.id)), now)
        return {"key": secret} | key_document(made) | {"state": state_of(made, now)}

    async def _holder(self, account: Any, credits: Any, name: str, now: int) -> Account:
        if account is None:
            return await self.store.create_account(
                name, opening_of(credits, self.settings.signup_credits), now
            )
        if not isinstance(account, str):
            fail("account", "must be a string")
        holder = await self.store.account(account, now)
        if credits is not None:
            grant = Grant(credits_of({"credits": credits}))
            holder = await self.store.grant(holder.id, grant, now)
        return holder

    async def key(self, request: Request, key: str) -> dict[str, Any]:
        holder, found = await self._found(key)
        spent = [each for each in holder.spent if each.scope in ("", found.id)]
        return key_document(found) | {
            "state": state_of(found, self._now),
            "limits_in_force": limits_in_force(found, holder),
            "spent": spent_document(spent),
        }

    async def update_key(self, request: Request, key: str) -> dict[str, Any]:
        given = await body_of(request, TERMS)
        with_terms(Key("", "", ""), given)
        _, found = await self._found(key)
        return self._shown(
            await self.store.update_key(found.id, lambda old: with_terms(old, given), self._now)
        )

    async def suspend_key(self, request: Request, key: str) -> dict[str, Any]:
        return await self._suspended(key, True)

    async def resume_key(self, request: Request, key: str) -> dict[str, Any]:
        return await self._suspended(key, False)

    async def _suspended(self, key: str, suspended: bool) -> dict[str, Any]:
        found = await self._valid(key)
        return self._shown(
            await self.store.update_key(found.id, lambda old: replace(old, suspended=suspended), self._now)
        )

    async def rotate_key(self, request: Request, key: str) -> dict[str, Any]:
        """The new secret is in this answer only."""
        overlap = (await body_of(request, ("overlap",))).get("overlap", OVERLAP)
        now = self._now
        try:
            lasts = 0 if overlap == "0" else now - since_of(str(overlap), now)
        except ValueError:
            lasts = -1
        if not 0 <= lasts <= 365 * DAY or not str(overlap)[-1:].isalnum():
            fail("overlap", "must be a time such as 24h or 7d, or 0")
        found = await self._valid(key)
        secret = keys.new_key()
        rotated = await self.store.rotate_key(found.id, keys.digest(secret), now + lasts, now)
        return {"key": secret, "old_key_ends": utc(rotated.old_until)} | self._shown(rotated)

    async def revoke_key(self, request: Request, key: str) -> dict[str, Any]:
        _, found = await self._found(key)
        return self._shown(await self.store.revoke_key(found.id, self._now))

    def _shown(self, key: Key) -> dict[str, Any]:
        return key_document(key) | {"state": state_of(key, self._now)}

    async def _valid(self, key: str) -> Key:
        """Raises Conflict for a revoked key, and Unknown."""
        _, found = await self._found(key)
        if found.revoked:
            raise Conflict(f"Key {found.id} is revoked for good. Make a new one.")
        return found

    async def _found(self, key: str) -> tuple[Account, Key]:
        """By id only: a secret does not belong into a path, which is logged. Raises Unknown."""
        holder = await self.store.account(key, self._now)
        for each in holder.keys:
            if each.id == key:
                return holder, each
        raise Unknown(key)

    async def usage(self, request: Request) -> dict[str, Any]:
        page = Page.of(request, self._now, self.settings.keep_usage, BY)
        only = request.query.get("account")
        account = (await self.store.account(only, self._now)).id if only else None
        rows = await self.store.usage_sums(page.since, (page.by,), account)
        names: dict[str, str] | None = None
        if page.by in ("account", "key"):
            names = {}
            for each in await self.store.accounts(self._now):
                names |= {each.id: each.name} | {key.id: key.name for key in each.keys}
        return page.document(rows, names)

    async def pool(self, request: Request) -> dict[str, Any]:
        """The upstream tokens, by their hashes, as this process knows them. `balance=now` asks for their
        balances first."""
        fresh = request.query.get("balance") == "now"
        return {
            "object": "list",
            "data": [await shown(each, fresh) for each in self.registry.all_directories],
        }

    async def problems(self, request: Request) -> dict[str, Any]:
        """The known problems, worst first. `doctor` checks files and settings too."""
        accounts = await self.store.accounts(self._now)
        found = await problems(self.health, self.registry.all_directories, accounts, self._now)
        return {"object": "list", "data": [each.document() for each in found]}

    async def requests(self, request: Request) -> dict[str, Any]:
        """The latest requests of this process, newest first: facts of their log lines, never bodies."""
        query, limit = request.query, _limit(request)
        wanted = {name: query.get(name) for name in ("key", "account", "status", "cause", "model")}
        found = []
        for at, record in reversed(events.recent.copy()):
            line = record.fields()
            if all(not value or str(line.get(name, "")) == value for name, value in wanted.items()):
                found.append({"at": utc(int(at)), **line})
        return {"object": "list", "data": found[:limit], "has_more": len(found) > limit}


def _limit(request: Request) -> int:
    limit = request.query.get("limit") or str(PAGE)
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MOST):
        raise InvalidRequest(f"limit: must be between 1 and {MOST}", param="limit")
    return int(limit)


def _paged(request: Request, every: list[dict[str, Any]]) -> dict[str, Any]:
    """One page of a list; `after` is the id of the last entry of the page before."""
    limit, after = _limit(request), request.query.get("after")
    ids = [each["id"] for each in every]
    if after and after not in ids:
        raise InvalidRequest("after: there is no such entry", param="after")
    start = ids.index(after) + 1 if after else 0
    shown = every[start : start + limit]
    more = len(every) > start + limit
    return {"object": "list", "data": shown, "has_more": more, "next": shown[-1]["id"] if more else None}
