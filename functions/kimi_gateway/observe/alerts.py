"""The rules of alerts: which facts are a problem, and what has begun or ended since the last look. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from kimi_gateway.dataclass import dataclass

TOKEN_DEAD, TOKEN_EMPTY, BALANCE = "token_dead", "token_empty", "balance_low"
BUDGET, ERRORS, STORE, DISK = "budget", "error_rate", "store_down", "disk_full"
KINDS = (TOKEN_DEAD, TOKEN_EMPTY, BALANCE, BUDGET, ERRORS, STORE, DISK)
WINDOW = 300.0  # seconds for the rate of errors
FAILURES, SHARE = 5, 0.05  # more failures than both, as the cloud's alarm has it
STEPS = (80, 100)  # per cent of a budget
MIB, GIB = 2**20, 2**30
_OF_TOKEN = {
    "authentication": (TOKEN_DEAD, "The vendor refuses upstream token {}. Replace it (kimi-gateway tokens)."),
    "quota": (TOKEN_EMPTY, "The account of upstream token {} has no balance left. Top it up."),
}


class Problem(NamedTuple):
    """`id` names the cause, so that it is reported once. `within` is the id of a milder problem that this
    one includes."""

    id: str
    kind: str
    text: str
    within: str = ""


@dataclass(frozen=True, slots=True)
class Spending:
    """The use of one budget: whose it is, the budget in words, its share from 0, and its period's end."""

    whose: str
    budget: str
    share: float
    resets: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one look; None where it could not be learned. `outages` are tokens with their causes;
    `requests` and `failures` are counts of the last WINDOW; `store` is its fault, empty if it works; `disk`
    has the free bytes and all."""

    outages: Sequence[tuple[str, str]]
    requests: float
    failures: float
    store: str
    disk: tuple[int, int] | None = None
    balance: float | None = None
    least: float = 0.0
    budgets: Sequence[Spending] | None = None


def unknown(facts: Facts) -> set[str]:
    """Kinds about which the facts say nothing: their problems stay as they are."""
    given = {BALANCE: facts.balance, BUDGET: facts.budgets, DISK: facts.disk}
    return {kind for kind, fact in given.items() if fact is None}


def problems(facts: Facts) -> list[Problem]:
    found = []
    for token, cause in facts.outages:
        if cause in _OF_TOKEN:
            kind, text = _OF_TOKEN[cause]
            found.append(Problem(f"{kind}:{token}", kind, text.format(token)))
    if facts.balance is not None and facts.balance < facts.least:
        text = f"The upstream balance is {facts.balance:.2f}, below {facts.least:.2f}."
        found.append(Problem(BALANCE, BALANCE, text))
    for each in facts.budgets or ():
        found += _of_budget(each)
    if facts.failures > FAILURES and facts.failures > SHARE * facts.requests:
        text = f"{facts.failures:.0f} of {facts.requests:.0f} requests failed within 5 minutes."
        found.append(Problem(ERRORS, ERRORS, text))
    if facts.store:
        found.append(Problem(STORE, STORE, f"The store does not answer: {facts.store}"))
    if facts.disk is not None and facts.disk[0] < _least_free(facts.disk[1]):
        free, size = facts.disk
        text = f"Only {free / MIB:,.0f} MiB of {size / GIB:,.1f} GiB are free on the disk of the data folder."
        found.append(Problem(DISK, DISK, text))
    return found


def _of_budget(spending: Spending) -> list[Problem]:
    found, before = [], ""
    for step in STEPS:
        if spending.share * 100 >= step:
            id = f"{BUDGET}:{spending.whose}:{spending.budget}:{step}"
            text = f"{spending.whose} has used {step} % of its budget of {spending.budget}.{spending.resets}"
            found.append(Problem(id, BUDGET, text, before))
            before = id
    return found


def _least_free(size: int) -> float:
    """5 per cent, but at least 200 MiB and at most 10 GiB."""
    return min(max(size * 0.05, 200 * MIB), 10 * GIB)


@dataclass(frozen=True, slots=True)
class Change:
    """Problems that hold now, by id, and those to report: begun and ended, without milder ones that are part
    of a reported one."""

    active: Mapping[str, Problem]
    begun: Sequence[Problem]
    ended: Sequence[Problem]


def changed(before: Mapping[str, Problem], found: Sequence[Problem], unknown: Collection[str]) -> Change:
    active = {each.id: each for each in found}
    for id, each in before.items():
        if id in active:
            active[id] = each  # its first text
        elif each.kind in unknown:
            active[id] = each
    begun = [each for id, each in active.items() if id not in before]
    ended = [each for id, each in before.items() if id not in active]
    return Change(active, _outer(begun), _outer(ended))


def _outer(problems: Sequence[Problem]) -> list[Problem]:
    inner = {each.within for each in problems}
    return [each for each in problems if each.id not in inner]
