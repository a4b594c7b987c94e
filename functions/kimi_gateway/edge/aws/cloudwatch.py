"""Log lines in the cloud, with Powertools: the lines of home plus CloudWatch's metrics (EMF) in the same
line.

Only the Lambda edge loads this module. infra/alarms.yaml and docs/operations.md rely on the names here.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

from kimi_gateway.observe import RequestRecord, line_of, log
from kimi_gateway.observe.lines import of_request

UNITS = {
    "Requests": "Count",
    "Refusals": "Count",  # 4xx of the gateway's own
    "Failures": "Count",  # 5xx, and streams that ended in an error
    "UpstreamFailures": "Count",  # attempts, so one request may have several and still succeed
    "StoreDown": "Count",
    "StoreThrottled": "Count",
    "Misconfigured": "Count",
    "FirstContentMs": "Milliseconds",
    "TotalMs": "Milliseconds",  # of admitted requests
    "OverheadMs": "Milliseconds",
    "InputTokens": "Count",
    "CachedTokens": "Count",
    "OutputTokens": "Count",
    "Credits": "Count",
    "CostUSD": "None",
}
_OF_RECORD = {
    "first_content_ms": "FirstContentMs",
    "overhead_ms": "OverheadMs",
    "credits": "Credits",
    "cost_usd": "CostUSD",
}
_OF_EVENTS = {
    "store_down": "StoreDown",
    "store_throttled": "StoreThrottled",
    "misconfigured": "Misconfigured",
    "secret_unread": "Misconfigured",
}
_TOKENS = {
    "input_tokens": "InputTokens",
    "cached_tokens": "CachedTokens",
    "output_tokens": "OutputTokens",
}
_OF_BATCH = {**_TOKENS, "cost_usd": "CostUSD"}
_WORD = re.compile(r"[a-z_]{1,40}")

# A dimension besides `service`, and its values.
Measured = tuple[dict[str, str], dict[str, float]]


def measured(
    event: str, fields: Mapping[str, Any], record: RequestRecord | None = None
) -> Iterator[Measured]:
    """The metrics of a log line; those of a request come from its `record`. Dimensions are few and have fixed
    words, because each combination is a metric that costs money."""
    if record is not None:
        yield from _of_request(record)
    elif event == "attempt_failed":
        yield {}, {"UpstreamFailures": 1}
        yield {"cause": _word(fields.get("cause"))}, {"UpstreamFailures": 1}
    elif event == "batch_ended":
        yield {}, {metric: fields[name] for name, metric in _OF_BATCH.items() if name in fields}
    elif event in _OF_EVENTS:
        yield {}, {_OF_EVENTS[event]: 1}


def _of_request(record: RequestRecord) -> Iterator[Measured]:
    refused, failed = record.refused, record.failed
    values: dict[str, float] = {"Requests": 1, "Refusals": refused, "Failures": failed}
    taken = dict(_OF_RECORD)
    if record.outcome is not None:
        taken["total_ms"] = "TotalMs"
    if record.charged:
        taken |= _TOKENS
    found = {metric: getattr(record, name) for name, metric in taken.items()}
    yield {}, values | {metric: value for metric, value in found.items() if value is not None}
    if refused or failed:
        yield {"reason": _word(record.cause)}, {"Refusals" if refused else "Failures": 1}


def _word(value: object) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else "other"


class Lines(LambdaPowertoolsFormatter):
    """Formats a log record; its `fields` become members of the line, with its metrics."""

    def __init__(self, namespace: str, service: str) -> None:
        super().__init__(
            log_record_order=["level", "message", "timestamp"], utc=True, use_rfc3339=True,
            serialize_stacktrace=False, location=None, xray_trace_id=None,
        )  # fmt: skip
        self._namespace = namespace
        self._service = service

    def serialize(self, log: dict[str, Any]) -> str:  # type: ignore[override]
        """Names and order are those of `observe.JsonLines`."""
        fields, event = log.get("fields", {}), log["message"]
        time, level = log["timestamp"].replace("+00:00", "Z"), log["level"].lower()
        line = {"time": time, "level": level, "event": event, **fields, **of_request()}
        line["service"] = self._service
        if "exception" in log:
            line["traceback"] = log["exception"]
        return line_of(line | self._metrics(event, fields, log.get("record")))

    def _metrics(self, event: str, fields: Mapping[str, Any], record: RequestRecord | None) -> dict[str, Any]:
        """EMF's members. Each line has its own provider, because Powertools' shared one would mix concurrent
        requests."""
        members: dict[str, Any] = {}
        directives: list[Any] = []
        for dimensions, values in measured(event, fields, record):
            provider = AmazonCloudWatchEMFProvider(namespace=self._namespace, service=self._service)
            for name, value in dimensions.items():
                provider.add_dimension(name, value)
            for name, number in values.items():
                provider.add_metric(name, UNITS[name], number)
            part: Any = provider.serialize_metric_set()
            directives += part["_aws"]["CloudWatchMetrics"]
            members |= part
        if directives:
            members["_aws"] = {**members["_aws"], "CloudWatchMetrics": directives}
        return members


def to_cloudwatch(level: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send the lines of this program and its libraries to stdout, where Lambda reads them."""
    lines = Lines(
        environ.get("POWERTOOLS_METRICS_NAMESPACE", "KimiGateway"),
        environ.get("POWERTOOLS_SERVICE_NAME", "kimi-gateway"),
    )
    handler = logging.StreamHandler(sys.stdout)
    Logger(service=log.name, level=level.upper(), logger_handler=handler, logger_formatter=lines)
    log.propagate = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
