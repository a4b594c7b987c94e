"""Spans and metrics as OTLP's JSON (opentelemetry-proto 1.x): ids are hex, 64-bit integers are strings."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kimi_gateway.observe.families import FAMILIES, Family, Labels
from kimi_gateway.observe.metrics import Snapshot
from kimi_gateway.observe.otlp import names
from kimi_gateway.observe.otlp.context import Trace
from kimi_gateway.observe.record import RequestRecord

SERVER, CLIENT = 2, 3  # kinds of spans
FAILED = 2  # a status
CUMULATIVE = 2
OWN = "kimi_gateway."
Ended = tuple[Trace, RequestRecord, int]  # with the time of its end in unix nanoseconds


def spans(resource: Mapping[str, str], version: str, ended: Iterable[Ended]) -> dict[str, Any]:
    """An ExportTraceServiceRequest."""
    every = [span for each in ended for span in _spans(*each)]
    return {"resourceSpans": [_scoped(resource, version, "scopeSpans", "spans", every)]}


def metrics(
    resource: Mapping[str, str], version: str, snapshot: Snapshot, begun: int, now: int
) -> dict[str, Any]:
    """An ExportMetricsServiceRequest; times in unix nanoseconds."""
    every = [_metric(name, FAMILIES[name], series, begun, now) for name, series in snapshot.items() if series]
    return {"resourceMetrics": [_scoped(resource, version, "scopeMetrics", "metrics", every)]}


def _scoped(
    resource: Mapping[str, str], version: str, of_scope: str, of_items: str, items: Sequence[Any]
) -> dict[str, Any]:
    scope = {"name": names.SCOPE, "version": version}
    return {
        "resource": {"attributes": _attributes(resource.items())},
        of_scope: [{"scope": scope, of_items: items, "schemaUrl": names.SCHEMA}],
        "schemaUrl": names.SCHEMA,
    }


def _spans(trace: Trace, record: RequestRecord, end: int) -> Iterator[dict[str, Any]]:
    start = end - int(record.total_ms * 1e6)
    route = record.route or ""
    error = record.cause if record.failed else None
    yield _span(
        trace, trace.span, trace.parent, f"{record.method[:20]} {route}".strip(), SERVER, start, end, error,
        {
            names.METHOD: record.method[:20],
            names.ROUTE: route or None,
            names.PATH: None if route else record.path,
            names.STATUS: record.status,
            names.REQUEST_ID: record.id,
            names.KEY: record.key,
            names.ACCOUNT: record.account,
            names.OUTCOME: record.outcome,
        },
    )  # fmt: skip
    if record.overhead_ms is None or record.upstream_model is None:
        return
    for number, each in enumerate(record.tries, 1):
        ended = end if each.end is None else start + int(each.end * 1e6)
        yield _span(
            trace, secrets.token_hex(8), trace.call, f"attempt {number}", CLIENT,
            start + int(each.start * 1e6), ended, each.cause,
            {
                names.PROVIDER: provider_of(each.provider),
                names.MODEL: each.model,
                names.TOKEN: each.token,
            },
        )  # fmt: skip
    first = record.first_content_ms if record.stream else None
    error = record.cause
    yield _span(
        trace, trace.call, trace.span, f"{names.CHAT} {record.upstream_model}", CLIENT,
        start + int(record.overhead_ms * 1e6), end, error,
        {
            names.OPERATION: names.CHAT,
            names.PROVIDER: provider_of(record.provider or ""),
            names.MODEL: record.upstream_model,
            names.STREAM: record.stream,
            names.FIRST_CHUNK: None if first is None else (first - record.overhead_ms) / 1000,
            names.INPUT: record.input_tokens,
            names.OUTPUT: record.output_tokens,
            names.CACHED: record.cached_tokens,
            names.ATTEMPTS: record.attempts,
            names.COST: record.cost_usd,
        },
    )  # fmt: skip


def provider_of(name: str) -> str:
    return names.PROVIDERS.get(name, name)


def _span(
    trace: Trace, id: str, parent: str, name: str, kind: int, start: int, end: int, error: str | None,
    attributes: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    span: dict[str, Any] = {
        "traceId": trace.id,
        "spanId": id,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(end),
        "attributes": _attributes([*attributes.items(), (names.ERROR, error)]),
        "status": {"code": FAILED} if error is not None else {},
        "flags": 1,
    }
    if parent:
        span["parentSpanId"] = parent
    if trace.state:
        span["traceState"] = trace.state
    return span


def _metric(
    name: str, family: Family, series: Mapping[Labels, Sequence[float]], begun: int, now: int
) -> dict[str, Any]:
    kind = {"gauge": "gauge", "counter": "sum", "histogram": "histogram"}[family.kind]
    points = [_point(family, labels, cells, begun, now) for labels, cells in series.items()]
    data: dict[str, Any] = {"dataPoints": points}
    if kind != "gauge":
        data["aggregationTemporality"] = CUMULATIVE
    if kind == "sum":
        data["isMonotonic"] = True
    called = family.otlp or OWN + name.removesuffix("_total")
    return {"name": called, "description": family.help, "unit": family.unit or "1", kind: data}


def _point(family: Family, labels: Labels, cells: Sequence[float], begun: int, now: int) -> dict[str, Any]:
    values = {
        names.ATTRIBUTES.get(label, label): value for label, value in zip(family.labels, labels, strict=True)
    }
    if names.PROVIDER in values:
        values[names.PROVIDER] = provider_of(values[names.PROVIDER])
    if family.otlp:
        values[names.OPERATION] = names.CHAT
    point: dict[str, Any] = {
        "attributes": _attributes((name, value or None) for name, value in values.items()),
        "startTimeUnixNano": str(begun),
        "timeUnixNano": str(now),
    }
    if not family.bounds:
        return point | {"asDouble": cells[0]}
    counts = [int(count) for count in cells[:-1]]
    return point | {
        "count": str(sum(counts)),
        "sum": cells[-1],
        "bucketCounts": list(map(str, counts)),
        "explicitBounds": list(family.bounds),
    }


def _attributes(pairs: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in pairs if value is not None]


def _value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": str(value)}
