"""Accounts as lines of JSON, to back them up or move them to another store. Pure.

The first line names the format, the last one has the number of lines before it and their SHA-256. Between
them each account is followed by its keys and its usage. Keys are hashes, as in the stores. Fields that a
release does not know are ignored and missing ones have their default, so files of later and earlier releases
can be read as long as the format has the same number.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

from kimi_gateway.accounts import budgets
from kimi_gateway.accounts.budgets import Meter
from kimi_gateway.accounts.usage import CAUSES
from kimi_gateway.accounts.values import Account, Grant, Key, Limits, Spent, UsageRow
from kimi_gateway.dataclass import dataclass

FORMAT = 1
HEAD, ACCOUNT, KEY, USAGE, END = "kimi-gateway-export", "account", "key", "usage", "end"
NOT_MOVED = ("generation", "shared", "maker")  # of a key; they follow from the account
T = TypeVar("T")


class BadExport(ValueError):
    """A file that is not a complete export; the text says why."""


@dataclass(frozen=True, slots=True)
class Moved:
    """An account with its keys, at one moment, and its usage. `counters` are what is spent of budgets.
    `funded` are the changes of its balance that are made once, with their credits, by `place_of` their names.
    `mark` is the hash of its lines, by which a repeated import knows it."""

    account: Account
    usage: tuple[UsageRow, ...] = ()
    counters: tuple[tuple[Meter, int], ...] = ()
    mark: str = ""
    funded: tuple[tuple[str, int], ...] = ()


class Snapshot(NamedTuple):
    """All accounts, all usage, and `Moved.funded` by account."""

    accounts: list[Account]
    usage: list[UsageRow]
    funded: Mapping[str, Sequence[tuple[str, int]]]


def place_of(name: str) -> str:
    """96 bits of the hash of a name."""
    return urlsafe_b64encode(sha256(name.encode()).digest()[:12]).decode()


def lines(snapshot: Snapshot, at: int) -> Iterator[str]:
    """The lines of an export at the unix second `at`, each with its end."""
    digest, count = sha256(), 0
    for document in _documents(snapshot, at):
        line = json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"
        digest.update(line.encode())
        count += 1
        yield line
    yield json.dumps({"type": END, "lines": count, "sha256": digest.hexdigest()}) + "\n"


def _documents(snapshot: Snapshot, at: int) -> Iterator[dict[str, Any]]:
    by_account: dict[str, list[UsageRow]] = {}
    for row in snapshot.usage:
        by_account.setdefault(row.account, []).append(row)
    yield {"type": HEAD, "format": FORMAT, "at": at}
    for account in snapshot.accounts:
        yield {
            "type": ACCOUNT,
            "id": account.id,
            "name": account.name,
            "unlimited": account.unlimited,
            "credits": account.credits,
            "reserved": account.reserved,
            "consumed": account.consumed,
            "expired": account.expired,
            "created": account.created,
            "invited_by": account.invited_by,
            "grants": [[grant.amount, grant.expires] for grant in account.grants],
            "budgets": budgets.packed(account.budgets),
            "funded": [list(each) for each in snapshot.funded.get(account.id, ())],
            "spent": [[each.scope, budgets.packed([each.budget]), each.amount] for each in account.spent],
        }
        for key in account.keys:
            yield {"type": KEY, **_key(key)}
        for row in by_account.get(account.id, ()):
            yield {"type": USAGE, **{each.name: getattr(row, each.name) for each in fields(UsageRow)}}


def _key(key: Key) -> dict[str, Any]:
    named = {each.name: getattr(key, each.name) for each in fields(Key) if each.name not in NOT_MOVED}
    limits = key.limits
    return named | {
        "limits": [limits.minute, limits.hour, limits.day],
        "budgets": budgets.packed(key.budgets),
    }


def checked(raw: Iterable[bytes]) -> Iterator[Moved]:
    """The accounts of an export. Raises BadExport, before the last one if the file is not complete."""
    digest, at, held = sha256(), 0, list[bytes]()
    for number, line in enumerate(raw, 1):
        document = _read(line, number)
        kind = document.get("type")
        if number == 1:
            at = _begun(document)
        elif kind == ACCOUNT and held:
            yield _moved(held, at)
            held = []
        if kind == END:
            if (document.get("lines"), document.get("sha256")) != (number - 1, digest.hexdigest()):
                raise BadExport("its end does not match its content")
            if held:
                yield _moved(held, at)
            return
        digest.update(line)
        if kind in (ACCOUNT, KEY, USAGE):
            held.append(line)
    raise BadExport("its end is missing")


def _read(line: bytes, number: int) -> dict[str, Any]:
    try:
        document = json.loads(line)
        if isinstance(document, dict):
            return document
    except (ValueError, RecursionError):
        pass
    raise BadExport(f"line {number} is not a JSON object")


def _begun(document: Mapping[str, Any]) -> int:
    if document.get("type") != HEAD or not isinstance(document.get("at"), int):
        raise BadExport("it does not begin like an export of this gateway")
    if document.get("format") != FORMAT:
        raise BadExport(f"it has format {document.get('format')}, and this release knows {FORMAT}")
    return int(document["at"])


def _moved(held: list[bytes], at: int) -> Moved:
    first, *others = [json.loads(line) for line in held]
    name = str(first.get("id"))[:60]
    try:
        if first["type"] != ACCOUNT:
            raise ValueError("no account")
        keys = tuple(_key_of(each, first["id"]) for each in others if each["type"] == KEY)
        rows = tuple(_row_of(each) for each in others if each["type"] == USAGE)
        account = _account(first, keys)
        counters = tuple(
            (Meter(scope, budget, budgets.bucket(budget.period, at)), int(amount))
            for scope, packed, amount in first["spent"]
            for budget in budgets.unpacked(packed)
        )
        funded = tuple((str(place), int(credits)) for place, credits in first.get("funded", ()))
        _check(account, rows)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise BadExport(f"account {name!r} is not readable: {type(exc).__name__} {exc}") from exc
    return Moved(account, rows, counters, sha256(b"".join(held)).hexdigest(), funded)


def _check(account: Account, rows: Iterable[UsageRow]) -> None:
    """Raises ValueError if the account contradicts itself."""
    if not 0 <= account.reserved <= account.credits or min(account.consumed, account.expired) < 0:
        raise ValueError("its credits are negative")
    known = sum(grant.amount for grant in account.grants)
    if not account.unlimited and known != account.credits - account.reserved:
        raise ValueError("its grants are not its credits")
    if any(key.account != account.id for key in account.keys) or any(
        row.account != account.id for row in rows
    ):
        raise ValueError("a line is another account's")
    ids = [key.id for key in account.keys]
    digests = [digest for key in account.keys for digest in (key.digest, key.old_digest) if digest]
    if len({*ids}) < len(ids) or len({*digests}) < len(digests):
        raise ValueError("two of its keys are the same")
    if {key.made_by for key in account.keys} - {"", *ids}:
        raise ValueError("the maker of a key is missing")


def _account(told: Mapping[str, Any], keys: tuple[Key, ...]) -> Account:
    shared = budgets.unpacked(told["budgets"])
    return Account(
        id=str(told["id"]),
        name=str(told["name"]),
        unlimited=bool(told["unlimited"]),
        credits=int(told["credits"]),
        reserved=int(told["reserved"]),
        consumed=int(told["consumed"]),
        expired=int(told["expired"]),
        created=int(told["created"]),
        grants=tuple(Grant(int(amount), int(expires)) for amount, expires in told["grants"]),
        keys=keys,
        budgets=shared,
        spent=tuple(
            Spent(scope, budget, int(amount), 0)
            for scope, packed, amount in told["spent"]
            for budget in budgets.unpacked(packed)
        ),
        invited_by=str(told.get("invited_by", "")),
    )


def _key_of(told: Mapping[str, Any], account: str) -> Key:
    made = {
        "account": account,
        "limits": Limits(*told["limits"]),
        "budgets": budgets.unpacked(told["budgets"]),
        "models": tuple(told["models"]),
    }
    return _of(Key, {name: value for name, value in told.items() if name not in NOT_MOVED} | made)


def _row_of(told: Mapping[str, Any]) -> UsageRow:
    """Errors with a cause that this release does not know are counted without one."""
    known = [[cause, int(errors)] for cause, errors in told.get("causes", ()) if cause in CAUSES]
    return _of(UsageRow, {**told, "causes": known})


def _of(kind: type[T], told: Mapping[str, Any]) -> T:
    """A value of a data class; lists become tuples, unknown members are ignored."""
    known = [each for each in fields(kind) if each.name in told]  # type: ignore[arg-type]
    if missing := [
        each.name
        for each in fields(kind)  # type: ignore[arg-type]
        if each not in known and each.default is MISSING and each.default_factory is MISSING
    ]:
        raise KeyError(missing[0])
    return kind(**{each.name: _frozen(told[each.name]) for each in known})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
