"""The shared record of token outages (providers.tokens.outages.OutageLog) on a table.

Each instance reads it once in 30 s, for half a unit or less. Tokens are named by their hash.
"""

from __future__ import annotations

from kimi_gateway.storage.dynamodb.item import number
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

NEWS = "NEWS"
KEPT = 7 * 86_400  # seconds after its end that an item is kept; if nobody renews it, the token is gone
TTL = "ttl"  # the attribute by which DynamoDB deletes items


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
    """Claim the probe of a token for one process. An end too far ahead (the clock was set back)
    counts as due."""
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
