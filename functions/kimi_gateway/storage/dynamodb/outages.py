"""The record of bad news about upstream tokens (providers.news.Record), shared by all instances on a table.

A read costs half a unit or less, and comes once in 30 s from each instance; a token is named by its hash.
"""

from __future__ import annotations

from kimi_gateway.storage.dynamodb.item import number
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

NEWS = "NEWS"
KEPT = 7 * 86_400  # seconds after its time that an item is kept: nobody renewed it, so the token is no more
TTL = "ttl"  # the attribute that DynamoDB ends items by


async def publish(table: Table, token: str, model: str, cause: str, until: int) -> None:
    news = {
        "token": {"S": token},
        "model": {"S": model},
        "cause": {"S": cause},
        "due": number(until),
        TTL: number(until + KEPT),
    }
    await table.put(NEWS, _sort_key(token, model), news)


async def retract(table: Table, token: str, model: str) -> None:
    await table.delete(NEWS, _sort_key(token, model))


async def published(table: Table) -> list[tuple[str, str, str, int]]:
    return [
        (item["token"]["S"], item["model"]["S"], item["cause"]["S"], int(item["due"]["N"]))
        for item in await table.query(NEWS)
    ]


async def claim(table: Table, token: str, now: int, until: int) -> bool:
    """One that lies far ahead was written before the clock went back, and is due as well."""
    moved = Change(
        sets=["due = :until", "#ttl = :ttl"],
        conditions=["attribute_exists(pk)", "NOT (due > :now AND due <= :far)"],
        names={"#ttl": TTL},
        values={
            ":until": number(until),
            ":ttl": number(until + KEPT),
            ":now": number(now),
            ":far": number(2 * until - now),
        },
    )
    try:
        await table.update(NEWS, _sort_key(token, ""), moved)
    except Conflict:
        return False
    return True


def _sort_key(token: str, model: str) -> str:
    return f"{token} {model}"
