"""What the contract suites run on."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kimi_gateway.accounts.store import Store
from kimi_gateway.accounts.values import Grant, Limits, NewKey
from support.dynamo_table import SharedTable
from support.inprocess import InProcess
from support.store_client import NOW, ON_DYNAMODB, STORES, Client, MakeClient


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Store]:
    url = request.getfixturevalue(f"{request.param}_url") if request.param in ON_DYNAMODB else ""
    async with STORES[request.param](tmp_path, url) as store:
        yield store


@pytest.fixture(params=ON_DYNAMODB)
async def shared(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[SharedTable]:
    """A table of the test's own, for what only DynamoDB does."""
    table = await SharedTable.on(request.getfixturevalue(f"{request.param}_url"))
    table.kind = request.param
    yield table
    await table.client.close()


@pytest.fixture
def client(store: Store) -> MakeClient:
    """A new account's client: `credits` None is an unlimited account."""
    numbers = itertools.count()

    async def make(credits: int | Grant | None = 100, limits: Limits | None = None, now: int = NOW) -> Client:
        opening = Grant(credits) if isinstance(credits, int) else credits
        number = next(numbers)
        account = await store.create_account(f"account-{number}", opening, now)
        key = await store.create_key(NewKey(f"digest-{number}", account.id, limits=limits or Limits()), now)
        return Client(store, account.id, key, now)

    return make


@pytest.fixture
def desk() -> Iterator[InProcess]:
    """The gateway without sockets, in front of an upstream that a test scripts."""
    with InProcess() as desk:
        yield desk


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes the SDKs' clients, whose sockets would be left to the collector."""
    with ExitStack() as stack:
        yield stack
