"""What a request costs on DynamoDB: calls, reads, and write units by the size of the account's item."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kimi_gateway.accounts.store import NoCredit
from kimi_gateway.accounts.values import Admission, Grant, Key, Limits, Usage
from kimi_gateway.net.aws import DYNAMODB
from kimi_gateway.net.http import Answer, Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.storage.dynamodb.store import DynamoStore
from support import dynamo
from support.dynamo_table import WIDE, SharedTable
from support.faulty import Faulty
from support.inprocess import Told
from support.store_client import LEASE, NOW

pytestmark = pytest.mark.anyio
MODEL = "kimi-k2-thinking"
LARGE = Usage(123_456, 65_537)
REQUEST = "3f2a9c51b7d84e06a1c5d9e8f7b64012"


class Metered(Http1Client):
    """Asks the service what each call consumed, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.units: list[float] = []

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AsyncIterator[Answer]:
        asked = json.dumps({**json.loads(body), "ReturnConsumedCapacity": "TOTAL"}).encode()
        async with super().send(method, url, headers, asked, timeouts) as answer:
            told = json.loads(await answer.read(2**20))
        if "ConsumedCapacity" in told:
            self.units.append(told["ConsumedCapacity"]["CapacityUnits"])
        yield Told(answer.status, answer.headers, json.dumps(told).encode())


@pytest.fixture
async def metered(dynalite_url: str, anyio_backend: str) -> AsyncIterator[tuple[Metered, SharedTable]]:
    meter = Metered()
    client = Faulty(meter)
    aws = dynamo.aws(dynalite_url, client)
    yield meter, SharedTable(dynalite_url, client, aws, await dynamo.new_table(aws))
    await client.close()


async def filled(store: DynamoStore, key: Key, count: int, now: int) -> list[Admission]:
    return [await store.admit(f"{REQUEST}{number}", key, 1, now + LEASE, now) for number in range(count)]


@pytest.mark.parametrize("limits", [Limits(), WIDE], ids=["tier", "own limits"])
async def test_a_request_costs_two_calls_no_read_and_two_units_with_forty_in_flight(
    metered: tuple[Metered, SharedTable], limits: Limits
) -> None:
    """In the first minute of a day, when the counters of the last windows and the usage of the last hour are
    still in the item."""
    meter, table = metered
    store, key = table.stores[0], await table.key(Grant(20_000, NOW + 10**6), limits)
    await store.settle(await store.admit("yesterday", key, 1, NOW, NOW - 1), MODEL, LARGE, NOW - 1)
    await filled(store, key, 39, NOW)
    table.client.calls.clear()
    meter.units.clear()
    admission = await store.admit(REQUEST, key, 1, NOW + LEASE, NOW)
    assert await store.settle(admission, MODEL, LARGE, NOW - 1)
    assert table.client.calls == {"UpdateItem": 2}
    assert meter.units == [1, 1]
    await store.admit(REQUEST, key, 1, NOW + LEASE, NOW)
    hot = await table.hot(key)
    assert sum(name[0] == "r" for name in hot) == 40
    assert dynamo.size(hot) <= 1024


async def test_a_refusal_costs_one_call(metered: tuple[Metered, SharedTable]) -> None:
    """And a read on dynalite, which gives no item with it."""
    _, table = metered
    store, key = table.stores[0], await table.key(Grant(0))
    table.client.calls.clear()
    with pytest.raises(NoCredit):
        await store.admit(REQUEST, key, 1, NOW + LEASE, NOW)
    assert table.client.calls == {"UpdateItem": 1, "GetItem": 1}


@pytest.mark.parametrize(("keys", "in_flight"), [(1, 0), (1, 25), (10, 10), (1, 45), (20, 20)])
async def test_our_size_of_an_item_gives_the_units_that_are_consumed(
    metered: tuple[Metered, SharedTable], keys: int, in_flight: int
) -> None:
    meter, table = metered
    store, key = table.stores[0], await table.key(Grant(20_000), WIDE, keys)
    account = await store.account(key.account, NOW)
    for each in account.keys:
        for n in range(max(1, in_flight // keys)):
            admission = await store.admit(f"{REQUEST}{each.id}{n}", each, 1, NOW + LEASE, NOW)
            if not in_flight:
                await store.settle(admission, MODEL, LARGE, NOW)
    consumed = meter.units[-1]
    size = dynamo.size(await table.hot(key))
    assert math.ceil(size / 1024) == consumed
    assert size <= 190 + 60 * keys + 16 * in_flight


async def test_our_size_of_an_item_is_right_to_the_byte(metered: tuple[Metered, SharedTable]) -> None:
    meter, table = metered
    item: dict[str, Any] = {
        "pk": {"S": "a"}, "sk": {"S": "-"}, "n": {"N": "11800000660"}, "z": {"N": "0"}, "m": {"N": "1200"},
        "e": {"N": "120"}, "o": {"M": {"q": {"N": "10000000012"}, "l": {"N": "7"}}}, "b": {"BOOL": True},
    }  # fmt: skip
    rest = 1024 - dynamo.size(item) - 1
    for more, units in ((0, 1), (1, 2)):
        filled = {**item, "f": {"S": "x" * (rest + more)}}
        assert dynamo.size(filled) == 1024 + more
        await table.aws.call(DYNAMODB, "PutItem", {"TableName": table.name, "Item": filled})
        assert meter.units[-1] == units
