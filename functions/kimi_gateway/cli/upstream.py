"""Upstream tokens for commands: which ones are in use, and whether the upstream accepts them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from kimi_gateway.accounts.moments import utc
from kimi_gateway.cli.target import KeptIn, Target
from kimi_gateway.dataclass import dataclass
from kimi_gateway.observe import redact
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.cli.serving import Serving
    from kimi_gateway.providers.provider import Provider, Token
    from kimi_gateway.providers.tokens.outages import Outage

Source = Literal["environment", "none"] | KeptIn
OF_THE_MOMENT = ("rate", "overload")  # the token is valid, but the upstream is busy


@dataclass(frozen=True, slots=True)
class Verdict:
    """`live` is None if the upstream could not say. `unasked`: this process does not have the token."""

    id: str
    live: bool | None
    detail: str
    passing: bool = False
    unasked: bool = False


@dataclass(frozen=True, slots=True)
class InUse:
    """The tokens in use. `elsewhere` has the ids of tokens that only the environment of `server` has."""

    source: Source
    tokens: tuple[Token, ...]
    elsewhere: tuple[str, ...] = ()
    server: Serving | None = None

    @property
    def ids(self) -> set[str]:
        return {token.id for token in self.tokens} | set(self.elsewhere)


def configured(chosen: Target) -> tuple[Source, tuple[Token, ...]]:
    """The tokens of a server that starts now: those of the environment, else the stored ones."""
    fixed = chosen.pinned()
    if fixed:
        return "environment", fixed
    kept = chosen.kept()
    return (chosen.kept_in, kept) if kept else ("none", ())


def in_use(chosen: Target) -> InUse:
    """The tokens of the running server, else `configured`. The server may have a different environment."""
    server = chosen.serving()
    if server is None:
        return InUse(*configured(chosen))
    kept = chosen.kept()
    if server.source != "environment":
        return InUse(chosen.kept_in if kept else "none", kept, server=server)
    known = {token.id: token for token in (*chosen.pinned(), *kept)}
    ours = tuple(known[id] for id in server.tokens if id in known)
    return InUse("environment", ours, tuple(id for id in server.tokens if id not in known), server)


def unasked(found: InUse, outages: dict[str, list[Outage]]) -> list[Verdict]:
    """Verdicts about tokens that only the running server has, from the recorded outages."""
    pid = found.server.pid if found.server else 0
    verdicts = []
    for id in found.elsewhere:
        dead = [each for each in outages.get(id, ()) if each.cause in ("authentication", "quota")]
        told = f"failed: {', '.join(map(why, dead))}" if dead else "no failure is recorded"
        detail = f"only the running server (pid {pid}) has it, in its environment; {told}"
        verdicts.append(Verdict(id, False if dead else None, detail, unasked=not dead))
    return verdicts


def recorded_outages(chosen: Target) -> dict[str, list[Outage]]:
    """The recorded outages that still apply, by token id. Raises StoreDown."""
    from kimi_gateway.providers.tokens.outages import Outage

    if not chosen.begun():
        return {}

    async def read() -> Sequence[tuple[str, str, str, int]]:
        async with chosen.store() as store:
            return await store.published()

    found: dict[str, list[Outage]] = defaultdict(list)
    for row in sorted(asyncio.run(read())):
        outage = Outage(*row)
        if outage.holds(time.time()):
            found[outage.token].append(outage)
    return found


def why(outage: Outage) -> str:
    """A text for the operator."""
    of = f" for {outage.model}" if outage.model else ""
    when = "tried again at" if outage.cause in ("authentication", "quota") else "until"
    return f"{outage.cause}{of}, {when} {utc(outage.until)}"


def verdicts(values: Settings, tokens: tuple[Token, ...]) -> list[Verdict]:
    """Ask the upstream about each token."""
    from kimi_gateway.app import http_client
    from kimi_gateway.net.http import Timeouts
    from kimi_gateway.providers.moonshot.provider import Moonshot

    async def run() -> list[Verdict]:
        client = http_client(values.base_url, os.environ)
        timeouts = Timeouts(values.connect_timeout, values.first_byte_timeout)
        moonshot = Moonshot(client, values.base_url, timeouts, values.event_limit)
        try:
            return await asyncio.gather(*(verdict(moonshot, token) for token in tokens))
        finally:
            await client.close()

    return asyncio.run(run())


async def verdict(provider: Provider, token: Token) -> Verdict:
    """Ask a provider about a token."""
    from kimi_gateway.providers.failures import UpstreamFailure

    try:
        live = await provider.live(token)
    except UpstreamFailure as failure:
        return Verdict(token.id, None, redact(str(failure)), failure.cause in OF_THE_MOMENT)
    return Verdict(token.id, live, "live" if live else "the upstream refuses it")
