"""AWS from the process environment: region, addresses, and credentials from variables or the container's
address."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path

from kimi_gateway.net import jsonio
from kimi_gateway.net.aws import Aws, AwsDown, Patience, endpoints, region_of
from kimi_gateway.net.http import Client, NetError
from kimi_gateway.net.sigv4 import Credentials

CONTAINER = "http://169.254.170.2"  # base of a relative address
RENEWED = 300.0  # seconds before expiry at which credentials are read again
LONGEST = 64 * 1024


def of_environment(client: Client, environ: Mapping[str, str]) -> Aws:
    """An `Aws` with the current keys of the environment, else those of the container."""
    region, container = region_of(environ), ContainerCredentials(client, environ)

    def credentials() -> Credentials | Awaitable[Credentials]:
        access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if access and secret:
            return Credentials(access, secret, environ.get("AWS_SESSION_TOKEN") or None)
        return container.current()

    return Aws(client, region, credentials, endpoints(environ, region))


class ContainerCredentials:
    """Credentials from the address that the platform names if it sets no keys: Lambda with SnapStart, ECS,
    EKS.

    Rules: AWS SDKs and Tools Reference Guide, "Container credential provider" (read 2026-11).
    """

    def __init__(
        self, client: Client, environ: Mapping[str, str], clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._environ = environ
        self._clock = clock
        self._known: Credentials | None = None
        self._until = 0.0
        self._reading = asyncio.Lock()

    async def current(self) -> Credentials:
        """Valid credentials. Raises AwsDown."""
        async with self._reading:
            if self._known is None or self._clock() >= self._until - RENEWED:
                await self._read()
            if self._known is None or self._clock() >= self._until:
                raise AwsDown("no AWS credentials in the environment or at the container's address")
            return self._known

    async def _read(self) -> None:
        """Read new credentials. If that fails, the known ones stay in use until they expire."""
        try:
            headers = {"accept": "application/json", **self._authorization()}
            async with self._client.send("GET", self._address(), headers, b"", Patience().each) as answer:
                told = jsonio.loads(await answer.read(LONGEST))
            known = Credentials(told["AccessKeyId"], told["SecretAccessKey"], told.get("Token"))
            end = told.get("Expiration")
            until = datetime.fromisoformat(end).timestamp() if end else math.inf
        except (NetError, OSError, ValueError, LookupError, TypeError):
            return
        self._known, self._until = known, until

    def _address(self) -> str:
        relative = self._environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
        full = self._environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
        return CONTAINER + relative if relative else full

    def _authorization(self) -> dict[str, str]:
        file = self._environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        token = self._environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        if file:
            token = Path(file).read_text("utf-8").strip()
        return {"authorization": token} if token else {}
