"""Upstream tokens in the cloud, from AWS Secrets Manager. They are read again every few minutes, and when the
upstream refuses a token. If the service is down, known tokens stay in use; requests wait little for it."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable

from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.errors import Unavailable
from kimi_gateway.net.aws import SECRETS, Aws, AwsError
from kimi_gateway.observe import emit, redact
from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.tokens.kept import Kept, parsed, secrets

LASTS = 300.0  # seconds, and up to a fifth more, so that instances that started together do not read together
AGAIN = 10.0  # seconds between two reads for a refused token, or while the service fails
COLD_AGAIN = 1.0  # seconds, while nothing is known yet
WAITED = 1.0  # seconds that requests wait for a read while older tokens are known


class SecretTokens:
    """`secret` is a name or an ARN. Its text: see kept.py."""

    def __init__(
        self,
        aws: Aws,
        secret: str,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.known = False
        self._fault = ""  # of the last read
        self._aws = aws
        self._secret = secret
        self._clock = clock
        self._jitter = jitter
        self._tokens: tuple[Token, ...] = ()
        self._kept: Kept = {}
        self._begun = (
            self._forced
        ) = -math.inf  # times at which the last read began, and the last one after a refusal
        self._lasts = 0.0
        self._reading: asyncio.Task[None] | None = None

    def tokens(self) -> tuple[Token, ...]:
        """The platform's tokens as last read; none before that."""
        return self._tokens

    def kept(self) -> Kept:
        """All tokens as last read, by vendor."""
        return self._kept

    def faults(self) -> list[str]:
        return [] if self.known else [f"tokens: {self._fault or 'not read yet'}"]

    async def fresh(self) -> None:
        """Await it before tokens are used. Raises Unavailable while none were ever read."""
        if abs(self._clock() - self._begun) >= self._lasts:  # absolute, because the clock may be set back
            self._begin()
        await self._read_if_begun()
        if not self.known:
            raise Unavailable(
                "The operator's Kimi tokens cannot be read; tell them.", retry_after=1, cause="tokens"
            )

    async def doubted(self) -> None:
        """Read again after the upstream refused a token, because it may have been replaced."""
        now = self._clock()
        if abs(now - self._forced) >= AGAIN:
            self._forced = now
            self._begin()
        await self._read_if_begun()

    def _begin(self) -> None:
        if self._reading is None:
            self._begun = self._clock()
            self._reading = asyncio.create_task(self._read())

    async def _read_if_begun(self) -> None:
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=WAITED if self.known else None)

    async def _read(self) -> None:
        try:
            told = await self._aws.call(SECRETS, "GetSecretValue", {"SecretId": self._secret})
            kept = parsed(told.get("SecretString"))
        except (AwsError, ValueError) as error:
            self._fault = f"the secret {error}" if isinstance(error, ValueError) else str(error)
            self._lasts = AGAIN if self.known else COLD_AGAIN
            emit("secret_unread", logging.ERROR, detail=self._fault)
        else:
            redact.learn(secrets(kept))
            self._kept, self._tokens = kept, tuple(map(Token.of, kept.get(PLATFORM, ())))
            self.known, self._fault = True, ""
            self._lasts = LASTS * (1 + self._jitter() / 5)
        finally:
            self._reading = None
