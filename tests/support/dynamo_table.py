"""One table with several instances of the store on it, behind a client that counts and spoils calls."""

from __future__ import annotations

from typing import Any

from kimi_gateway.accounts.values import Grant, Key, Limits, NewKey
from kimi_gateway.net.aws import DYNAMODB, Aws
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.storage.dynamodb.store import DynamoStore
from support import dynamo
from support.faulty import Faulty

NOW = 1_800_000_000 - 1_800_000_000 % 86_400
WIDE = Limits(10**6, 10**6, 10**6)


class SharedTable:
    def __init__(self, url: str, client: Faulty, aws: Aws, name: str, stores: int = 4) -> None:
        self.url, self.client, self.aws, self.name = url, client, aws, name
        self.kind = ""  # moto or dynalite
        self.stores = [DynamoStore(name, aws) for _ in range(stores)]

    @classmethod
    async def on(cls, url: str) -> SharedTable:
        client = Faulty(Http1Client())
        aws = dynamo.aws(url, client)
        return cls(url, client, aws, await dynamo.new_table(aws))

    async def key(self, credits: Grant | None, limits: Limits = WIDE, keys: int = 1) -> Key:
        """The last key of a new account."""
        account = await self.stores[0].create_account("shared", credits, NOW)
        made = [
            await self.stores[0].create_key(NewKey(f"digest-{number}", account.id, limits=limits), NOW)
            for number in range(keys)
        ]
        return made[-1]

    async def item(self, pk: str, sk: str = "-") -> dict[str, Any]:
        """Empty where there is none."""
        where = {"pk": {"S": pk}, "sk": {"S": sk}}
        told = await self.aws.call(DYNAMODB, "GetItem", {"TableName": self.name, "Key": where})
        item: dict[str, Any] = told.get("Item", {})
        return item

    async def hot(self, key: Key) -> dict[str, Any]:
        return await self.item(f"A#{key.account}")
