"""AWS services with signed JSON calls (DynamoDB, Secrets Manager), over the gateway's own HTTP client.

AwsError
├── AwsRefused   the service refused and would refuse again: `code`, and its answer as `detail`
└── AwsDown      every try failed or got no answer; the operation may have been carried out
    └── AwsThrottled   the service works but accepts no more calls at present
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.net import jsonio
from kimi_gateway.net.http import Client, NetError, Timeouts
from kimi_gateway.net.sigv4 import Credentials, Scope, presigned, signed

LONGEST_ANSWER = 8 * 2**20  # a page of a query has 1 MB, and its JSON is longer
# Codes that allow another try whatever the status (AWS, "Error handling with DynamoDB"; read 2026-11).
THROTTLED = frozenset(
    (
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    )
)
PASSING = THROTTLED | {
    "RequestTimeoutException",
    "TransactionConflictException",
    "TransactionInProgressException",
}


class AwsError(Exception): ...


class AwsRefused(AwsError):
    def __init__(self, operation: str, code: str, detail: dict[str, Any]) -> None:
        super().__init__(f"{operation}: {code}")
        self.code = code
        self.detail = detail


class AwsDown(AwsError): ...


class AwsThrottled(AwsDown): ...


@dataclass(frozen=True, slots=True)
class Service:
    """`name` is used in addresses and signatures, `target` in X-Amz-Target before the operation, `json` is
    the version of the JSON protocol, `variable` the suffix of AWS_ENDPOINT_URL_…"""

    name: str
    target: str
    json: str
    variable: str


DYNAMODB = Service("dynamodb", "DynamoDB_20120810", "1.0", "DYNAMODB")
SECRETS = Service("secretsmanager", "secretsmanager", "1.1", "SECRETS_MANAGER")
S3 = Service("s3", "", "", "S3")  # its calls are not JSON; see net/s3.py


@dataclass(frozen=True, slots=True)
class Patience:
    """Retries: at most `tries` within `total` seconds. The pause between two tries is random, up to `pause`
    seconds at first, doubled each time, at most `longest`."""

    tries: int = 5
    total: float = 5.0
    pause: float = 0.05
    longest: float = 1.0
    each: Timeouts = Timeouts(connect=1.5, first_byte=1.0)


class _Failed(Exception):
    """A try failed; the text has no secrets."""

    def __init__(self, why: str, throttled: bool = False) -> None:
        super().__init__(why)
        self.throttled = throttled


class Aws:
    """`credentials` is called for each try. It returns credentials or an awaitable, and raises AwsDown if
    there are none. `endpoint` returns a service's address."""

    def __init__(
        self,
        client: Client,
        region: str,
        credentials: Callable[[], Credentials | Awaitable[Credentials]],
        endpoint: Callable[[Service], str],
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._region = region
        self._credentials = credentials
        self._endpoint = endpoint
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    async def call(self, service: Service, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call `operation` and return the JSON of its answer. A lost call is repeated, so the operation must
        be safe to apply twice.

        Raises AwsRefused and AwsDown; AwsThrottled if the last try was throttled.
        """
        body = jsonio.dumps(request)
        patience, why, throttled = self._patience, "", False
        try:
            async with asyncio.timeout(patience.total):
                for number in range(patience.tries):
                    if number:
                        await self.pause(number)
                    try:
                        return await self._try(service, operation, body)
                    except _Failed as failed:
                        why, throttled = str(failed), failed.throttled
        except TimeoutError:
            why = why or f"no answer within {patience.total:g} s"
        raise (AwsThrottled if throttled else AwsDown)(f"{operation}: {why}")

    async def presigned(
        self, method: str, bucket: str, key: str, headers: Mapping[str, str], seconds: int
    ) -> str:
        """A URL for one operation on an object of S3. `key` must need no escaping. Raises AwsDown."""
        base = self._endpoint(S3)
        own = f"://s3.{self._region}.amazonaws."  # an emulator has no name for each bucket
        place = base.replace("://", f"://{bucket}.") if own in base else f"{base}{bucket}/"
        scope = Scope(self._region, S3.name)
        credentials = await self._current()
        return presigned(credentials, scope, method, place + key, headers, seconds, self._clock())

    async def _current(self) -> Credentials:
        found = self._credentials()
        return found if isinstance(found, Credentials) else await found

    async def pause(self, number: int) -> None:
        """Wait as long as before try `number`; the first try is 0."""
        longest = min(self._patience.longest, self._patience.pause * 2 ** (number - 1))
        await self._sleep(self._jitter() * longest)

    async def _try(self, service: Service, operation: str, body: bytes) -> dict[str, Any]:
        url = self._endpoint(service)
        headers = {
            "Content-Type": f"application/x-amz-json-{service.json}",
            "X-Amz-Target": f"{service.target}.{operation}",
        }
        scope = Scope(self._region, service.name)
        credentials = await self._current()
        headers = signed(credentials, scope, "POST", url, headers, body, self._clock())
        try:
            async with self._client.send("POST", url, headers, body, self._patience.each) as answer:
                status, raw = answer.status, await answer.read(LONGEST_ANSWER)
        except NetError as error:
            raise _Failed(str(error)) from error
        try:
            told = jsonio.loads(raw)
        except (ValueError, RecursionError):
            raise _Failed(f"status {status}, and an answer that is not JSON") from None
        if status == 200 and isinstance(told, dict):
            return told
        code = _code(told)
        if status >= 500 or status == 429 or code in PASSING or not code:
            raise _Failed(f"status {status} {code}", status == 429 or code in THROTTLED)
        raise AwsRefused(operation, code, told)


def _code(told: Any) -> str:
    """The error code: the part after "#" in
    "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"."""
    kind = told.get("__type") if isinstance(told, dict) else None
    return kind.rpartition("#")[2].partition(":")[0] if isinstance(kind, str) else ""


def endpoints(environ: Mapping[str, str], region: str) -> Callable[[Service], str]:
    """Addresses of services: AWS_ENDPOINT_URL_DYNAMODB and the like, else AWS_ENDPOINT_URL, else the region's
    own."""
    everywhere = environ.get("AWS_ENDPOINT_URL", "")
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"

    def endpoint(service: Service) -> str:
        own = environ.get(f"AWS_ENDPOINT_URL_{service.variable}", "")
        url = own or everywhere or f"https://{service.name}.{region}.{domain}"
        return url.rstrip("/") + "/"

    return endpoint


def region_of(environ: Mapping[str, str]) -> str:
    """The region; empty if none is set."""
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""
