"""The interface of a provider that runs batches: files of requests that are answered within hours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from kimi_gateway.dataclass import dataclass
from kimi_gateway.providers.provider import Token

ENDPOINT = "/v1/chat/completions"  # the only one that the platform's batches know (2026-08-17)
ENDED = ("failed", "completed", "expired", "cancelled")
PRICE = 0.6  # of the list price (platform's page on batches, "40 % off", 2026-09)
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


@dataclass(frozen=True, slots=True)
class UpstreamBatch:
    """A batch as the provider knows it. `told` has its times, counts and faults, and no ids. `output` and
    `errors` are the provider's ids of its files, empty while there are none."""

    id: str
    status: Status
    told: Mapping[str, Any]
    output: str = ""
    errors: str = ""
    tag: str = ""

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Batches(Protocol):
    """Every method raises UpstreamFailure. A batch belongs to the account of the token that made it."""

    async def create(self, token: Token, file: str, window: str, tag: str) -> UpstreamBatch:
        """Start a batch with the provider's id of its input file. `window` is such as 24h. `tag` is kept with
        the batch, so that it can be found if the answer is lost."""
        ...

    async def get(self, token: Token, id: str) -> UpstreamBatch | None:
        """The batch; None if the provider does not know it."""
        ...

    async def cancel(self, token: Token, id: str) -> UpstreamBatch: ...

    async def tagged(self, token: Token, tag: str) -> UpstreamBatch | None:
        """The batch with this tag, if it is among the newest ones."""
        ...


@runtime_checkable
class RunsBatches(Protocol):
    """A provider with batches."""

    @property
    def batches(self) -> Batches: ...
