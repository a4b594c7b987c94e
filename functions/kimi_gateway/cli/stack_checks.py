"""The checks of `doctor` for a deployed stack: its table, tokens, and the gateway's own /health."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.cli.checks import Check, files, keys_of, tokens

if TYPE_CHECKING:
    from kimi_gateway.accounts.values import Account
    from kimi_gateway.cli.stack import Stack

SETTLED = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")
LONGEST = 64 * 1024


def of_stack(stack: Stack) -> Iterator[Check]:
    if stack.status in SETTLED:
        yield Check("stack", "ok", f"{stack.name}: {stack.status}")
    else:
        fix = "read the stack's events in CloudFormation, then run scripts/deploy again"
        yield Check("stack", "warn", f"{stack.name}: {stack.status}", fix)
    yield from _table(stack)
    yield from tokens(stack)
    yield from files(stack)
    yield asyncio.run(_health(stack))


def _table(stack: Stack) -> Iterator[Check]:
    async def accounts() -> list[Account]:
        async with stack.store() as store:
            return await store.accounts(int(time.time()))

    try:
        found = asyncio.run(accounts())
    except StoreDown as exc:
        yield Check("table", "FAIL", f"{stack.table}: {exc}", "check whether your AWS user may use the table")
        return
    yield Check("table", "ok", stack.table)
    yield keys_of(found)


async def _health(stack: Stack) -> Check:
    """Ask for /health like a client, through API Gateway and Lambda."""
    from kimi_gateway.app import http_client
    from kimi_gateway.net.http import NetError, Timeouts

    url = f"{stack.url}/health"
    client = http_client(url, os.environ)
    fix = f"read the log group /aws/lambda/{stack.name}-account"
    try:
        async with client.send("GET", url, {}, b"", Timeouts(10, 30)) as answer:
            text = (await answer.read(LONGEST)).decode("utf-8", "replace")
            if answer.status == 200 and '"degraded"' not in text:
                return Check("health", "ok", f"{url} answers")
            if answer.status == 200:
                return Check(
                    "health",
                    "warn",
                    f"{url}: {text[:500]}",
                    "check the tokens above; otherwise the upstream fails",
                )
            return Check("health", "FAIL", f"{url}: status {answer.status}: {text[:500]}", fix)
    except NetError as exc:
        return Check("health", "FAIL", f"{url}: {exc}", fix)
    finally:
        await client.close()
