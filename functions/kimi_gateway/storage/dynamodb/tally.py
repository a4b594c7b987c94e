"""Usage of an hour in an account's hot item and in its history: attributes that can be added to. Pure.

Behind each letter stand the hour, the key's short id and the model. One number packs several counts, because
names cost more than digits, and a number has 38 digits.

q   credits, free requests, requests, errors
t   input and output tokens
i   tokens written to the vendor's cache, cached tokens, reasoning tokens
p   micro-dollars: fees, saved by the cache, cost
l   of the last request: its cost, and its second within the hour
e   errors with one cause, whose code follows the letter
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from kimi_gateway.accounts.usage import CAUSES, HOUR
from kimi_gateway.accounts.values import UsageRow
from kimi_gateway.storage.dynamodb.item import Raw, base36, kid, kid_length, number
from kimi_gateway.storage.dynamodb.table import Change

COUNTED = "qtip"
PARTS = "qtiple"
_SIZES: Mapping[str, tuple[tuple[str, int], ...]] = {  # a count and its digits, from the right
    "q": (("errors", 8), ("requests", 8), ("credits", 14), ("free", 8)),
    "t": (("output", 13), ("input", 13)),
    "i": (("reasoning", 12), ("cached", 13), ("written", 13)),
    "p": (("cost", 14), ("saved", 14), ("fees", 10)),
}
_CODES = dict(zip(CAUSES, "abcdefghijklmnopqrs", strict=True))
_CAUSES = {code: cause for cause, code in _CODES.items()}


def name_of(at: int, key: str, model: str) -> str:
    """The part of an attribute behind its letter, for the hour that contains `at`."""
    return f"{base36(at // HOUR)}{kid(key)}{model}"


def part_of(name: str) -> str | None:
    """The part behind the letter, if the attribute is one of usage."""
    if len(name) < 6 or name[0] not in PARTS:
        return None
    return name[2:] if name[0] == "e" else name[1:]


def count(change: Change, row: UsageRow | None) -> None:
    """Add a row to an hour. `q` is always written, so that an unchanged `q` means an unchanged row."""
    if row is None:
        return
    rest = name_of(row.hour, row.key, row.model)
    for letter, sizes in _SIZES.items():
        packed = _packed(row, sizes)
        if packed or letter == "q":
            _add(change, letter, letter + rest, packed)
    for cause, errors in row.causes:
        code = _CODES[cause]
        _add(change, f"e{code}", f"e{code}{rest}", errors)
    change.sets.append("#l = :l")
    change.names["#l"] = f"l{rest}"
    change.values[":l"] = number(row.last_cost * HOUR + row.last % HOUR)


def _add(change: Change, place: str, name: str, value: int) -> None:
    change.adds.append(f"#{place} :{place}")
    change.names[f"#{place}"] = name
    change.values[f":{place}"] = number(value)


def _packed(row: UsageRow, sizes: tuple[tuple[str, int], ...]) -> int:
    total, factor = 0, 1
    for name, digits in sizes:
        total += getattr(row, name) * factor
        factor *= 10**digits
    return total


def _unpacked(number: int, sizes: tuple[tuple[str, int], ...]) -> dict[str, int]:
    found = {}
    for name, digits in sizes[:-1]:
        number, found[name] = divmod(number, 10**digits)
    return found | {sizes[-1][0]: number}


def rows(raw: Raw, account: str, keys: Mapping[str, str]) -> Iterator[UsageRow]:
    """The rows in an item. `keys` are key ids by short id; an unknown one stands for itself."""
    causes: dict[str, list[tuple[str, int]]] = {}
    for name, value in raw.items():
        if name[0] == "e" and (part := part_of(name)):
            causes.setdefault(part, []).append((_CAUSES.get(name[1], name[1]), int(value["N"])))
    for name in raw:
        if name[0] == "q" and (rest := part_of(name)):
            row = _row(raw, rest, account, keys)
            yield replace(row, causes=tuple(sorted(causes.get(rest, ()))))


def _row(raw: Raw, rest: str, account: str, keys: Mapping[str, str]) -> UsageRow:
    behind = 4 + kid_length(rest[4])
    hour, short, model = int(rest[:4], 36) * HOUR, rest[4:behind], rest[behind:]
    counts: dict[str, Any] = {}
    for letter, sizes in _SIZES.items():
        value = raw.get(letter + rest)
        counts |= _unpacked(int(value["N"]) if value else 0, sizes)
    last_cost, second = divmod(int(raw[f"l{rest}"]["N"]), HOUR)
    return UsageRow(
        hour=hour,
        account=account,
        key=keys.get(short, short),
        model=model,
        last=hour + second,
        last_cost=last_cost,
        **counts,
    )


def hours(raw: Raw) -> set[int]:
    """The hours that have rows in an item."""
    return {hour_in(name) for name in raw if name[0] == "q" and part_of(name)}


def hour_in(name: str) -> int:
    """The hour of an attribute of usage."""
    start = 2 if name[0] == "e" else 1
    return int(name[start : start + 4], 36) * HOUR
