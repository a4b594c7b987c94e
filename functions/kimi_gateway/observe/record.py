"""The facts of one request. The flow fills them in; the log line and the metrics read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from kimi_gateway.dataclass import dataclass

if TYPE_CHECKING:
    from kimi_gateway.observe.otlp.context import Trace

PAID = ("settled", "left_settled")  # outcomes that spent the credit
LEFT = 499  # the status in the log if the client left before it was answered


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of several attempts of a request: its time in milliseconds since the request began, and the cause
    of its failure. The one that answered has neither end nor cause."""

    start: float
    end: float | None
    model: str
    provider: str
    token: str
    cause: str | None


@dataclass(slots=True)
class RequestRecord:
    """Facts of one request; None means unknown or not applicable, and is not in the line.

    `id` is the client's own if it sent a usable one; `admission_id` is the gateway's, of the reserved credit.
    Times are in milliseconds, sizes in tokens. `route` is the table's path, `path` the
    client's. `cause` is the reason of an error, also after a status 200. `input_tokens` include
    `cached_tokens`. `fell_back` are the models that failed before another one answered, with the causes.
    `credits`, `cost_usd` and `cost_cny` exist for charged requests only. `searches` are the calls of search
    tools that the upstream bills.
    """

    id: str = ""
    method: str = ""
    path: str = ""
    status: int = 0
    total_ms: float = 0.0
    aws_request_id: str | None = None
    route: str | None = None
    key: str | None = None
    account: str | None = None
    admission_id: str | None = None
    model: str | None = None
    stream: bool | None = None
    ignored: Sequence[str] | None = None
    overhead_ms: float | None = None
    first_content_ms: float | None = None
    provider: str | None = None
    upstream_model: str | None = None
    fell_back: list[str] | None = None
    upstream_tokens: list[str] | None = None
    attempts: int | None = None
    outcome: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    credits: int | None = None
    cost_usd: float | None = None
    cost_cny: float | None = None
    searches: int | None = None
    cause: str | None = None
    trace: Trace | None = None  # if something traces; its id is in each line of the request
    tries: Sequence[Attempt] = ()  # if there were several attempts

    @property
    def charged(self) -> bool:
        return self.outcome in PAID

    @property
    def refused(self) -> bool:
        """Whether the gateway refused it with a 4xx. A client that left was not refused."""
        return 400 <= self.status < LEFT

    @property
    def failed(self) -> bool:
        """Whether it failed with a 5xx or in the middle of a stream."""
        return self.status >= 500 or (self.status < 400 and self.cause is not None)

    @property
    def upstream_seconds(self) -> float:
        """From the first call upstream to the end of the answer."""
        return max(self.total_ms - (self.overhead_ms or 0), 0) / 1000

    def fields(self) -> dict[str, Any]:
        """The members of its log line."""
        named = zip(_NAMES, _values(self), strict=True)
        return {name: value for name, value in named if value is not None}


_NAMES = tuple(each.name for each in fields(RequestRecord) if each.name not in ("trace", "tries"))
_values = attrgetter(*_NAMES)
