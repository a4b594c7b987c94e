"""kimi-gateway files: files at the provider that should be gone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kimi_gateway.cli.entry import FAILED
from kimi_gateway.cli.progress import progress
from kimi_gateway.cli.selection import target
from kimi_gateway.cli.show import json_option, out
from kimi_gateway.cli.target import Target

if TYPE_CHECKING:
    from kimi_gateway.files.cleaning import Swept
    from kimi_gateway.providers.provider import Token
    from kimi_gateway.providers.tokens.pool import Pool

LOOK = 0.2  # seconds between two looks at the progress
ALL = 10_000  # records that one sweep takes at most


@click.group("files")
def group() -> None:
    """The files at the provider."""


@group.command("sweep")
@json_option
def sweep(as_json: bool) -> None:
    """Delete the files and conversations of turns whose process died, and files whose time has come.

    A running gateway does this by itself every few minutes. At home without a running server, files of all
    turns are deleted, because none can still use them. The exit code is 1 if some cannot be deleted now.
    """
    chosen = target()
    swept = asyncio.run(_swept(chosen))
    text = f"{swept.deleted} deleted" + (f", {swept.left} could not be deleted now" if swept.left else "")
    out(as_json, {"deleted": swept.deleted, "left": swept.left}, text)
    if swept.left:
        raise click.exceptions.Exit(FAILED)


async def _swept(chosen: Target) -> Swept:
    """Raises StoreDown."""
    from kimi_gateway.app import http_client
    from kimi_gateway.cli import vendors
    from kimi_gateway.files.cleaning import Cleaner, Swept
    from kimi_gateway.files.conversations import ConversationTraces
    from kimi_gateway.net.http import Timeouts
    from kimi_gateway.providers.moonshot.provider import Moonshot
    from kimi_gateway.providers.provider import Upstream

    if not chosen.begun():
        return Swept()
    values = chosen.settings
    tokens = tuple({token.id: token for token in (*chosen.pinned(), *chosen.kept())}.values())
    alone = chosen.kept_in == "file" and chosen.serving() is None
    client = http_client(values.base_url, os.environ)
    timeouts = Timeouts(values.connect_timeout, values.first_byte_timeout)
    platform = Moonshot(client, values.base_url, timeouts, values.event_limit)
    upstream = Upstream(platform, _pool_of(tokens))
    webs = [
        Upstream(vendors.provider_of(chosen, vendor, client), _pool_of(tokens))
        for vendor, _, tokens in vendors.used(chosen)
        if vendor.wire == "kimi-web"
    ]
    try:
        async with chosen.store() as store:
            cleaner = Cleaner(store, lambda: upstream, time.time)
            ConversationTraces(cleaner, lambda: webs)
            with progress("files deleted") as step:
                sweeping = asyncio.create_task(cleaner.sweep(ALL, abandoned=alone))
                while not (await asyncio.wait({sweeping}, timeout=LOOK))[0]:
                    step(cleaner.deletions)
                return sweeping.result()
    finally:
        await client.close()


def _pool_of(tokens: Sequence[Token]) -> Pool:
    from kimi_gateway.providers.tokens.outages import LocalOutageLog
    from kimi_gateway.providers.tokens.pool import Pool

    return Pool(lambda: tuple(tokens), LocalOutageLog(), time.time)


async def due(chosen: Target) -> int:
    """The number of files that wait to be deleted. Raises StoreDown."""
    async with chosen.store() as store:
        return len(await store.due_files(int(time.time()), ALL))
