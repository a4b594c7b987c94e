"""The upstream tokens as commands see them: which are in use, and what the upstream says of each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kimi_gateway.cli.entry import Failed
from kimi_gateway.observe import redact
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.providers.moonshot import Moonshot
    from kimi_gateway.providers.provider import Token

Source = Literal["environment", "file", "none"]
OF_THE_MOMENT = ("rate", "overload")  # the token is taken, the upstream is busy


@dataclass(frozen=True, slots=True)
class Verdict:
    """`live` is None where the upstream did not say."""

    id: str
    live: bool | None
    detail: str
    passing: bool = False


def in_file(values: Settings) -> tuple[Token, ...]:
    from kimi_gateway.providers.tokens import NAME, TokenFile

    path = values.data / NAME
    try:
        return TokenFile(path).tokens()
    except ValueError:
        raise Failed(f"{path} is not a JSON list of tokens.", "tokens_file") from None


def in_environment(values: Settings) -> tuple[Token, ...]:
    from kimi_gateway.providers.provider import Token

    redact.learn(values.moonshot_api_key)
    return tuple(map(Token.of, values.moonshot_api_key))


def in_use(values: Settings) -> tuple[Source, tuple[Token, ...]]:
    """The environment's, else the file's."""
    fixed = in_environment(values)
    if fixed:
        return "environment", fixed
    kept = in_file(values)
    return ("file", kept) if kept else ("none", ())


def verdicts(values: Settings, tokens: tuple[Token, ...]) -> list[Verdict]:
    """Asks the upstream about each token."""
    from kimi_gateway.net.http import HttpxClient, Timeouts
    from kimi_gateway.providers.moonshot import Moonshot

    async def run() -> list[Verdict]:
        client = HttpxClient()
        timeouts = Timeouts(values.connect_timeout, values.first_byte_timeout)
        moonshot = Moonshot(client, values.base_url, timeouts, values.event_limit)
        try:
            return await asyncio.gather(*(_verdict(moonshot, token) for token in tokens))
        finally:
            await client.close()

    return asyncio.run(run())


async def _verdict(moonshot: Moonshot, token: Token) -> Verdict:
    from kimi_gateway.providers.failures import UpstreamFailure

    try:
        live = await moonshot.live(token)
    except UpstreamFailure as failure:
        return Verdict(token.id, None, redact(str(failure)), failure.cause in OF_THE_MOMENT)
    return Verdict(token.id, live, "live" if live else "the upstream does not take it")
