"""Kept answers on the table. DynamoDB deletes them after their time.

ANSWERS#<account>  <name>      who has the name: fp fingerprint, ow owner, un until; n parts, if it is done
                   <name> <i>  a part of the answer

A claim costs one write unit. An answer costs one more, and one for each KiB of its parts.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode

from kimi_gateway.accounts.store import StoreThrottled
from kimi_gateway.storage.answers import Claim
from kimi_gateway.storage.dynamodb.item import Raw, number
from kimi_gateway.storage.dynamodb.outages import TTL
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

PART = 256 * 1024  # bytes; an item holds 400 KB
TRIES = 5  # of a claim, if its name was freed between a refusal and the read behind it


class DynamoAnswers:
    """`storage.answers.AnswerStore` on a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def claim_answer(self, account: str, name: str, claim: Claim, now: int) -> Claim | None:
        change = Change(
            sets=["fp = :fp", "ow = :ow", "un = :until", "#ttl = :until"],
            removes=["n"],
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
        await asyncio.gather(*(self._put(account, name, at, part, until) for at, part in enumerate(parts)))
        change = Change(
            sets=["n = :n", "un = :until", "#ttl = :until"],
            conditions=["ow = :ow", "(attribute_not_exists(n) OR n = :n)"],
            names={"#ttl": TTL},
            values={":n": number(len(parts)), ":until": number(until), ":ow": {"S": owner}},
        )
        try:
            await self._table.update(_partition(account), name, change)
        except Conflict as conflict:
            return conflict.item is not None and conflict.item["ow"]["S"] == owner
        return True

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

    async def _put(self, account: str, name: str, at: int, part: bytes, until: int) -> None:
        item = {"v": {"B": b64encode(part).decode()}, TTL: number(until)}
        await self._table.put(_partition(account), _part(name, at), item)

    async def _read(self, account: str, name: str, held: Raw, fingerprint: str) -> Claim:
        """The answer is read only for the same request."""
        claim = Claim(held["fp"]["S"], held["ow"]["S"], int(held["un"]["N"]), "n" in held)
        count = int(held["n"]["N"]) if claim.done and claim.fingerprint == fingerprint else 0
        if not count:
            return claim
        names = [_part(name, at) for at in range(count)]
        items = {item["sk"]["S"]: item for item in await self._table.get_many(_partition(account), names)}
        if len(items) < count:
            return claim
        whole = b"".join([b64decode(items[each]["v"]["B"]) for each in names])
        return Claim(claim.fingerprint, claim.owner, claim.until, True, whole)


def _partition(account: str) -> str:
    return f"ANSWERS#{account}"


def _part(name: str, at: int) -> str:
    return f"{name} {at}"
