"""The stores of the contract suite, and a client of one account to try them with."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kimi_gateway.accounts.store import Store
from kimi_gateway.accounts.values import Account, Admission, Key, Usage
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.storage.dynamodb.store import DynamoStore
from kimi_gateway.storage.memory import MemoryStore
from kimi_gateway.storage.sqlite.store import SqliteStore
from support import dynamo

NOW = 1_800_000_000 - 1_800_000_000 % 86_400  # a midnight: all three windows begin
LEASE = 660


@asynccontextmanager
async def memory(folder: Path, url: str) -> AsyncIterator[Store]:
    yield MemoryStore()


@asynccontextmanager
async def sqlite(folder: Path, url: str) -> AsyncIterator[Store]:
    store = SqliteStore(folder / "accounts.db")
    yield store
    await store.close()


@asynccontextmanager
async def dynamodb(folder: Path, url: str) -> AsyncIterator[Store]:
    client = Http1Client()
    aws = dynamo.aws(url, client)
    yield DynamoStore(await dynamo.new_table(aws), aws)
    await client.close()


STORES = {"memory": memory, "sqlite": sqlite, "moto": dynamodb, "dynalite": dynamodb}
ON_DYNAMODB = ("moto", "dynalite")

# For tests of many requests: moto takes four times as long, and it serves one after the other.
one_of_each = pytest.mark.parametrize("store", ["memory", "sqlite", "dynalite"], indirect=True)
one_table = pytest.mark.parametrize("shared", ["dynalite"], indirect=True)


@dataclass
class Client:
    """One key of one account, and the clock its requests come at."""

    store: Store
    id: str
    key: Key
    now: int = NOW
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def admit(self, request: str | None = None, cost: int = 1) -> Admission:
        name = request or f"request-{next(self.numbers)}"
        return await self.store.admit(name, self.key, cost, self.now + LEASE, self.now)

    async def settle(self, admission: Admission, usage: Usage | None = None) -> bool:
        return await self.store.settle(admission, "kimi-k2", usage or Usage(), self.now)

    async def release(self, admission: Admission, error: bool = False) -> bool:
        return await self.store.release(admission, "kimi-k2", error, self.now)

    async def spend(self, credits: int) -> None:
        await self.settle(await self.admit(cost=credits))

    async def account(self) -> Account:
        return await self.store.account(self.id, self.now)

    async def spendable(self) -> int:
        account = await self.account()
        return account.credits - account.reserved


MakeClient = Callable[..., Awaitable[Client]]
