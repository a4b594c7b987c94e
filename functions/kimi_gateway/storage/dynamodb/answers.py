"""Kept answers on the table. DynamoDB deletes them after their time.

ANSWERS#<account>      <name>      who has the name: fp fingerprint, ow owner, un until; n parts in the
                                   segment g, if it is done
ANSWERS#<account>#     -           g the segment that is being filled, b its bytes
ANSWERS#<account>#<g>  <name> <owner> <i>  a part of the answer

The newest SEGMENTS segments stay, so an account has a bound of bytes. Its oldest answers end together.
Answers from before 2026-11-28 have no segment; their parts are beside their claims.

A claim costs one write unit. An answer costs two more, and one for each KiB of its parts.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode

from kimi_gateway.accounts.store import StoreThrottled
from kimi_gateway.storage.answers import MOST_OF_ACCOUNT, Claim
from kimi_gateway.storage.dynamodb.item import Raw, number
from kimi_gateway.storage.dynamodb.outages import TTL
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

PART = 256 * 1024  # bytes; an item holds 400 KB
ONE = "-"
SEGMENTS = 8  # of one account; the oldest ends when a new one begins
TRIES = 5  # of a claim, if its name was freed between a refusal and the read behind it


class DynamoAnswers:
    """`storage.answers.AnswerStore` on a table. `most_of_account` is in bytes."""

    def __init__(self, table: Table, most_of_account: int = MOST_OF_ACCOUNT) -> None:
        self._table = table
        self._segment = most_of_account // SEGMENTS

    async def claim_answer(self, account: str, name: str, claim: Claim, now: int) -> Claim | None:
        change = Change(
            sets=["fp = :fp", "ow = :ow", "un = :until", "#ttl = :until"],
            removes=["n", "g"],
            conditions=["(attribute_not_exists(pk) OR un <= :now OR (ow = :ow AND attribute_not_exists(n)))"],
            names={"#ttl": TTL},
            values={
                ":fp": {"S": claim.fingerprint},
                ":ow": {"S": claim.owner},
                ":until": number(claim.until),
                ":now": number(now),
            },
        )
        for _ in range(TRIES):
            try:
                await self._table.update(_partition(account), name, change)
                return None
            except Conflict as conflict:
                held = conflict.item
            if held is not None and int(held["un"]["N"]) > now:
                return await self._read(account, name, held, claim.fingerprint)
        raise StoreThrottled("others changed the claim each time it was tried")

    async def find_answer(self, account: str, name: str, now: int) -> Claim | None:
        held = await self._table.get(_partition(account), name)
        if held is None or int(held["un"]["N"]) <= now:
            return None
        return await self._read(account, name, held, held["fp"]["S"])

    async def renew_claim(self, account: str, name: str, owner: str, until: int) -> None:
        await self._change_running(account, name, owner, until)

    async def keep_answer(
        self, account: str, name: str, owner: str, answer: bytes | None, until: int
    ) -> bool:
        whole = answer or b""
        parts = [whole[start : start + PART] for start in range(0, len(whole), PART)]
        segment = await self._room(account, len(whole), until) if parts else 0
        into, names = _segment(account, segment), [_part(name, at, owner) for at in range(len(parts))]
        await asyncio.gather(*(self._put(into, names[at], part, until) for at, part in enumerate(parts)))
        values = {":n": number(len(parts)), ":g": number(segment)}
        change = Change(
            sets=["n = :n", "g = :g", "un = :until", "#ttl = :until"],
            conditions=["ow = :ow", "(attribute_not_exists(n) OR (n = :n AND g = :g))"],
            names={"#ttl": TTL},
            values={**values, ":until": number(until), ":ow": {"S": owner}},
        )
        try:
            await self._table.update(_partition(account), name, change)
        except Conflict as conflict:
            held = conflict.item
            mine = held is not None and held["ow"]["S"] == owner
            if parts and not (held is not None and mine and _place(account, held) == into):
                await self._table.delete_many(into, names)
            return mine
        return True

    async def _room(self, account: str, size: int, until: int) -> int:
        """The number of the segment with room for these bytes. A new one ends the oldest."""
        state, values = _segment(account), {":size": number(size), ":until": number(until)}
        added = Change(
            adds=["b :size"],
            sets=["#ttl = :until"],
            conditions=["b <= :left"],
            names={"#ttl": TTL},
            values={**values, ":left": number(self._segment - size)},
        )
        for _ in range(TRIES):
            try:
                return int((await self._table.update(state, ONE, added))["g"]["N"])
            except Conflict as conflict:
                full = int(conflict.item["g"]["N"]) if conflict.item else 0
            begun = Change(
                sets=["g = :next", "b = :size", "#ttl = :until"],
                conditions=["(attribute_not_exists(g) OR g = :full)"],
                names={"#ttl": TTL},
                values={**values, ":next": number(full + 1), ":full": number(full)},
            )
            try:
                await self._table.update(state, ONE, begun)
            except Conflict:
                continue
            await self._table.delete_all(_segment(account, full + 1 - SEGMENTS))
            return full + 1
        raise StoreThrottled("others filled the segment each time it was tried")

    async def drop_claim(self, account: str, name: str, owner: str) -> None:
        await self._change_running(account, name, owner, 0)

    async def _change_running(self, account: str, name: str, owner: str, until: int) -> None:
        change = Change(
            sets=["un = :until"],
            conditions=["ow = :ow", "attribute_not_exists(n)"],
            values={":until": number(until), ":ow": {"S": owner}},
        )
        if until:  # the time to live must not pass before the claim's end
            change.sets.append("#ttl = :until")
            change.names["#ttl"] = TTL
        try:
            await self._table.update(_partition(account), name, change)
        except Conflict:
            return

    async def _put(self, into: str, name: str, part: bytes, until: int) -> None:
        item = {"v": {"B": b64encode(part).decode()}, TTL: number(until)}
        await self._table.put(into, name, item)

    async def _read(self, account: str, name: str, held: Raw, fingerprint: str) -> Claim:
        """The answer is read only for the same request."""
        claim = Claim(held["fp"]["S"], held["ow"]["S"], int(held["un"]["N"]), "n" in held)
        count = int(held["n"]["N"]) if claim.done and claim.fingerprint == fingerprint else 0
        if not count:
            return claim
        owner = claim.owner if "g" in held else ""
        names = [_part(name, at, owner) for at in range(count)]
        items = {item["sk"]["S"]: item for item in await self._table.get_many(_place(account, held), names)}
        if len(items) < count:
            return claim
        whole = b"".join([b64decode(items[each]["v"]["B"]) for each in names])
        return Claim(claim.fingerprint, claim.owner, claim.until, True, whole)


async def end(table: Table, account: str) -> None:
    """The account is deleted. A request that still runs keeps nothing, because its claim is gone."""
    await table.delete_all(_partition(account))
    if state := await table.get(_segment(account), ONE):
        newest = int(state["g"]["N"])
        for number in range(newest, newest - SEGMENTS, -1):
            await table.delete_all(_segment(account, number))
        await table.delete(_segment(account), ONE)


def _place(account: str, held: Raw) -> str:
    """The partition with the parts of a claim."""
    return _segment(account, int(held["g"]["N"])) if "g" in held else _partition(account)


def _segment(account: str, number: int | str = "") -> str:
    return f"ANSWERS#{account}#{number}"


def _partition(account: str) -> str:
    return f"ANSWERS#{account}"


def _part(name: str, at: int, owner: str) -> str:
    return f"{name} {owner} {at}" if owner else f"{name} {at}"
