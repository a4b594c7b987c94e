"""DynamoDB alone: reading ends, however long the service leaves keys unread or another process moves rows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kimi_gateway.accounts.store import StoreDown, StoreThrottled
from kimi_gateway.accounts.values import Grant
from kimi_gateway.net.aws import DYNAMODB
from kimi_gateway.net.http import Answer, Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.storage.dynamodb import history
from kimi_gateway.storage.dynamodb.table import FRUITLESS, TOGETHER, Table
from support import dynamo
from support.dynamo_table import SharedTable
from support.inprocess import told
from support.store_client import NOW

pytestmark = pytest.mark.anyio


class Withholding:
    """A client whose BatchGetItem processes none of the keys in its first `idle` answers, then one at a time.
    Each key is found."""

    def __init__(self, idle: int) -> None:
        self.idle, self.answers, self.pauses = idle, 0, 0

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AsyncIterator[Answer]:
        self.answers += 1
        ((table, asked),) = json.loads(body)["RequestItems"].items()
        keys = asked["Keys"]
        taken = int(self.answers > self.idle)
        left = {table: {"Keys": keys[taken:]}} if keys[taken:] else {}
        yield told({"Responses": {table: keys[:taken]}, "UnprocessedKeys": left})

    async def pause(self, seconds: float) -> None:
        self.pauses += 1

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("idle", [0, FRUITLESS - 1, FRUITLESS, 10**9])
async def test_keys_left_unprocessed_are_asked_for_again_a_bounded_number_of_times(idle: int) -> None:
    client = Withholding(idle)
    table = Table("t", dynamo.aws("http://db.test/", client, sleep=client.pause))
    names = [f"n{number}" for number in range(2 * TOGETHER)]
    if idle >= FRUITLESS:
        with pytest.raises(StoreThrottled, match="processed no key"):
            await table.get_many("p", names)
        assert (client.answers, client.pauses) == (FRUITLESS, FRUITLESS - 1)
    else:
        found = await table.get_many("p", names)
        assert sorted(item["sk"]["S"] for item in found) == sorted(names)
        assert (client.answers, client.pauses) == (len(names) + idle, idle)


@pytest.mark.parametrize("shared", ["dynalite"], indirect=True)
@pytest.mark.parametrize("moves", [1, history.READINGS, 10**9])
async def test_usage_that_is_being_moved_is_read_a_bounded_number_of_times(
    shared: SharedTable, moves: int
) -> None:
    """Another process moves rows during each of the first `moves` readings."""
    key, other = await shared.key(Grant(10)), Http1Client()
    outside = dynamo.aws(shared.url, other)
    hot = {"pk": {"S": f"A#{key.account}"}, "sk": {"S": "-"}}
    readings, moved = 0, 0

    def read(operation: str, request: Any) -> None:
        nonlocal readings
        readings += operation == "Query" and "H#" in json.dumps(request)

    async def move() -> None:
        nonlocal moved
        if moved < min(readings, moves):
            moved += 1
            change = {"UpdateExpression": "ADD f :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
            await outside.call(DYNAMODB, "UpdateItem", {"TableName": shared.name, "Key": hot, **change})

    shared.client.plan, shared.client.waiting = read, move
    reading = shared.stores[0].usage(NOW, key.account)
    try:
        if moves < history.READINGS:
            assert await reading == []
        else:
            with pytest.raises(StoreDown, match="being moved"):
                await reading
    finally:
        await other.close()
    assert readings == min(moves + 1, history.READINGS)
