"""Counters and histograms of this process, in Prometheus' text format (version 0.0.4).

FAMILIES is the one table of names. Label values come from fixed tables or are bounded: a family keeps at most
MOST_SERIES series, and counts what comes after them under "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kimi_gateway.observe.record import RequestRecord

MOST_SERIES = 500
OTHER = "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Family(NamedTuple):
    """A metric: its labels, its help, and the upper bounds of a histogram in seconds."""

    kind: str
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()


FAMILIES = {
    "requests_total": Family("counter", ("route", "status"), "Answered requests."),
    "admitted_total": Family("counter", ("model", "outcome"), "Requests that reserved a credit."),
    "refusals_total": Family("counter", ("cause",), "Requests that the gateway refused with a 4xx."),
    "failures_total": Family("counter", ("cause",), "Requests that failed with a 5xx or within a stream."),
    "attempt_failures_total": Family("counter", ("cause",), "Failed attempts upstream."),
    "tokens_total": Family("counter", ("model", "kind"), "Tokens: input, cached (a part of input), output."),
    "cost_usd_total": Family("counter", ("model",), "Cost of charged requests at list prices, in USD."),
    "credits_total": Family("counter", (), "Credits that were charged."),
    "searches_total": Family("counter", (), "Calls of search tools that the upstream bills."),
    "events_total": Family("counter", ("event",), "Warnings and errors in the log, by event."),
    "request_seconds": Family("histogram", ("stream",), "Duration of admitted requests.", SECONDS),
    "first_content_seconds": Family("histogram", ("model",), "Time to the first content.", SECONDS),
    "overhead_seconds": Family("histogram", (), "The gateway's own part of a request.", SHORT),
    "requests_running": Family("gauge", (), "Requests that hold a reservation now."),
    "upstream_token_up": Family("gauge", ("token",), "Whether an upstream token is available, by its hash."),
    "process_resident_bytes": Family("gauge", (), "Resident memory."),
    "process_cpu_seconds_total": Family("counter", (), "CPU time of the process."),
}
PREFIX = "kimi_gateway_"
_TOKENS = {"input": "input_tokens", "cached": "cached_tokens", "output": "output_tokens"}

Labels = tuple[str, ...]
Gauges = Mapping[str, Mapping[Labels, float]]


class Metrics:
    """Counts what `observe.emit` and `observe.finished` say. It takes no lock: all calls are on one loop."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, list[float]]] = {}

    def event(self, event: str, warns: bool, fields: Mapping[str, Any]) -> None:
        if event == "attempt_failed":
            self._add("attempt_failures_total", (str(fields.get("cause")),))
        elif warns:
            self._add("events_total", (event,))

    def request(self, record: RequestRecord) -> None:
        self._add("requests_total", (record.route or OTHER, str(record.status)))
        if record.refused:
            self._add("refusals_total", (record.cause or OTHER,))
        elif record.failed:
            self._add("failures_total", (record.cause or OTHER,))
        if record.outcome is None:
            return
        model = record.upstream_model or OTHER
        self._add("admitted_total", (model, record.outcome))
        stream = "true" if record.stream else "false"
        self._observe("request_seconds", (stream,), record.total_ms / 1000)
        if record.first_content_ms is not None:
            self._observe("first_content_seconds", (model,), record.first_content_ms / 1000)
        if record.overhead_ms is not None:
            self._observe("overhead_seconds", (), record.overhead_ms / 1000)
        if not record.charged:
            return
        for kind, name in _TOKENS.items():
            self._add("tokens_total", (model, kind), getattr(record, name) or 0)
        self._add("cost_usd_total", (model,), record.cost_usd or 0)
        self._add("credits_total", (), record.credits or 0)
        self._add("searches_total", (), record.searches or 0)

    def _add(self, name: str, labels: Labels, number: float = 1) -> None:
        series = self._numbers.setdefault(name, {})
        labels = _bounded(series, labels)
        series[labels] = series.get(labels, 0) + number

    def _observe(self, name: str, labels: Labels, value: float) -> None:
        bounds = FAMILIES[name].bounds
        series = self._histograms.setdefault(name, {})
        labels = _bounded(series, labels)
        counts = series.get(labels)
        if counts is None:
            counts = series[labels] = [0.0] * (len(bounds) + 2)  # a count for each bound, above all, the sum
        counts[bisect_left(bounds, value)] += 1
        counts[-1] += value

    def text(self, gauges: Gauges) -> str:
        """All families, with what is read at the moment of a scrape in `gauges`."""
        lines: list[str] = []
        for name, family in FAMILIES.items():
            full = PREFIX + name
            numbers = self._numbers.get(name) or gauges.get(name, {})
            lines += [f"# HELP {full} {family.help}", f"# TYPE {full} {family.kind}"]
            lines += [f"{full}{_labels(family.labels, key)} {value:.12g}" for key, value in numbers.items()]
            for key, counts in self._histograms.get(name, {}).items():
                lines += _histogram(full, family, key, counts)
        return "\n".join(lines) + "\n"


def _bounded(series: Mapping[Labels, object], labels: Labels) -> Labels:
    return labels if labels in series or len(series) < MOST_SERIES else (OTHER,) * len(labels)


def _histogram(full: str, family: Family, key: Labels, counts: list[float]) -> Iterable[str]:
    total = 0.0
    for bound, count in zip((*family.bounds, "+Inf"), counts[:-1], strict=True):
        total += count
        yield f"{full}_bucket{_labels((*family.labels, 'le'), (*key, str(bound)))} {total:.12g}"
    yield f"{full}_sum{_labels(family.labels, key)} {counts[-1]:.12g}"
    yield f"{full}_count{_labels(family.labels, key)} {total:.12g}"


def _labels(names: Labels, values: Labels) -> str:
    escaped = [value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in values]
    pairs = [f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)]
    return f"{{{','.join(pairs)}}}" if pairs else ""
