"""Accounts, keys and budgets as documents, the same for the command line and the operator's API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.moments import utc
from kimi_gateway.accounts.payments import invite_code
from kimi_gateway.accounts.values import NEVER, Account, Budget, Grant, Key, Spent


def credits_of(account: Account) -> int | str:
    return "unlimited" if account.unlimited else account.credits


def grant_document(grant: Grant) -> dict[str, Any]:
    return {"amount": grant.amount, "expires": None if grant.expires >= NEVER else utc(grant.expires)}


def budget_name(budget: Budget) -> str:
    return f"{budget.unit}/{budget.period}"


def amount_of(budget: Budget, amount: int) -> float | int:
    """In USD, or in tokens."""
    return amount / 1_000_000 if budget.unit == "usd" else amount


def budget_document(budgets: Sequence[Budget]) -> dict[str, Any]:
    return {budget_name(budget): amount_of(budget, budget.limit) for budget in budgets}


def spent_document(spent: Sequence[Spent]) -> list[dict[str, Any]]:
    """The spent or reserved part of each budget in its present period."""
    return [
        {
            "key": each.scope or None,
            "budget": budget_name(each.budget),
            "limit": amount_of(each.budget, each.budget.limit),
            "spent": amount_of(each.budget, each.amount),
            "resets": None if each.resets >= NEVER else utc(each.resets),
        }
        for each in spent
    ]


def key_document(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "account": key.account,
        "name": key.name,
        "limits": {"rpm": key.limits.minute, "rph": key.limits.hour, "rpd": key.limits.day},
        "in_flight": key.in_flight,
        "tokens": key.tokens,
        "search": key.search,
        "files": key.files,
        "manages": key.manages,
        "made_by": key.made_by or None,
        "see_balance": key.see_balance,
        "budgets": budget_document(key.budgets),
        "models": list(key.models),
        "expires": None if key.expires >= NEVER else utc(key.expires),
        "note": key.note,
        "suspended": key.suspended,
        "revoked": key.revoked,
        "created": utc(key.created),
        **({"role": "operator"} if key.operator else {}),
    }


def state_of(key: Key, now: int) -> str:
    if key.revoked:
        return "revoked"
    if key.suspended:
        return "suspended"
    return "expired" if key.expires <= now else "active"


def limits_in_force(key: Key, holder: Account) -> dict[str, dict[str, Any]]:
    """Each limit of a new window, with its source: the key's own, its maker's, the tier at the present
    balance, the account, the model, or none."""
    tier = None if holder.unlimited else rules.tier(rules.rank(holder.credits - holder.reserved))
    found = {}
    for name, window in (("rpm", "minute"), ("rph", "hour"), ("rpd", "day")):
        of_tier = (None, "unlimited account") if tier is None else (getattr(tier, window), "tier")
        owned = [(getattr(each.limits, window), _whose(each, key)) for each in key.line]
        if key.maker is not None and getattr(key.root.limits, window) is None:
            owned.append(of_tier)  # of the maker's window
        found[name] = _lowest(owned, of_tier)
    per_minute = [
        (budget.limit, whose)
        for budgets, whose in (
            *((each.budgets, _whose(each, key)) for each in key.line),
            (key.shared, "account"),
        )
        for budget in budgets
        if budget.period == "minute"
    ]
    found["tpm"] = _lowest(per_minute, (None, "none"))
    found["tokens"] = _lowest([(each.tokens, _whose(each, key)) for each in key.line], (None, "model"))
    found["in_flight"] = _lowest([(each.in_flight, _whose(each, key)) for each in key.line], (None, "none"))
    return found


def _whose(each: Key, key: Key) -> str:
    return "own" if each is key else "maker"


def _lowest(owned: Sequence[tuple[int | None, str]], default: tuple[int | None, str]) -> dict[str, Any]:
    """The lowest limit with its source."""
    known = [(limit, source) for limit, source in owned if limit is not None]
    limit, source = min(known, key=lambda each: each[0]) if known else default
    return {"limit": limit, "source": source}


def account_document(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "unlimited": account.unlimited,
        "credits": credits_of(account),
        "reserved": account.reserved,
        "consumed": account.consumed,
        "expired": account.expired,
        "created": utc(account.created),
        "invite_code": invite_code(account.id),
        "invited_by": account.invited_by or None,
        "budgets": budget_document(account.budgets),
        "spent": spent_document(account.spent),
        "grants": [grant_document(grant) for grant in account.grants],
        "keys": [key_document(key) for key in account.keys],
    }
