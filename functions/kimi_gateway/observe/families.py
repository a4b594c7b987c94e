"""The one table of metrics: /metrics, OTLP, alerts, `top`, the documentation and the dashboard use it.

Label values come from fixed tables or are bounded: a family keeps at most MOST_SERIES series, and counts what
comes after them under "other".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MOST_SERIES = 500
OTHER = "other"
PREFIX = "kimi_gateway_"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
STORE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)
# Bounds that the conventions for generative AI ask for (observe/otlp/names.py has their version).
OPERATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4.0**power for power in range(14))

Labels = tuple[str, ...]


class Family(NamedTuple):
    """A metric: its labels, its help, and the upper bounds of a histogram.

    `live`: it is read at the moment of a scrape, and only of workers that run. `merge` says how the values of
    several workers become one: sum, min or max. `otlp` is the name in OTLP, if a convention has one.
    """

    kind: str
    labels: Labels
    help: str
    bounds: tuple[float, ...] = ()
    unit: str = ""
    live: bool = False
    merge: str = "sum"
    otlp: str = ""

    @property
    def cells(self) -> int:
        """Numbers of one series: a histogram has a count for each bound, one above all, and the sum."""
        return len(self.bounds) + 2 if self.bounds else 1


def _counter(help: str, *labels: str, unit: str = "") -> Family:
    return Family("counter", labels, help, unit=unit)


def _histogram(help: str, bounds: tuple[float, ...], *labels: str, unit: str = "s", otlp: str = "") -> Family:
    return Family("histogram", labels, help, bounds, unit, otlp=otlp)


def _gauge(help: str, *labels: str, merge: str = "sum", unit: str = "", kind: str = "gauge") -> Family:
    return Family(kind, labels, help, unit=unit, live=True, merge=merge)


FAMILIES: Mapping[str, Family] = {
    "requests_total": _counter("Answered requests.", "route", "status"),
    "admitted_total": _counter("Requests that reserved a credit.", "model", "outcome"),
    "refusals_total": _counter("Requests that the gateway refused with a 4xx.", "cause"),
    "failures_total": _counter("Requests that failed with a 5xx or within a stream.", "cause"),
    "attempt_failures_total": _counter("Failed attempts upstream.", "cause"),
    "tokens_total": _counter("Tokens: input, cached (a part of input), output.", "model", "kind"),
    "cost_usd_total": _counter("Cost of charged requests at list prices, in USD.", "model", unit="USD"),
    "cost_cny_total": _counter("The same for prices in CNY.", "model", unit="CNY"),
    "credits_total": _counter("Credits that were charged."),
    "searches_total": _counter("Calls of search tools that the upstream bills."),
    "events_total": _counter("Warnings and errors in the log, by event.", "event"),
    "request_seconds": _histogram("Duration of admitted requests.", SECONDS, "stream"),
    "first_content_seconds": _histogram(
        "Time to the first content.", SECONDS, "provider", "model", otlp="gen_ai.server.time_to_first_token"
    ),
    "chunk_interval_seconds": _histogram("Time between two pieces of an answer.", SECONDS),
    "operation_seconds": _histogram(
        "Time of the upstream's part, with all attempts.",
        OPERATION, "provider", "model", "error", otlp="gen_ai.client.operation.duration",
    ),
    "request_tokens": _histogram(
        "Tokens of one charged request: input, output.",
        TOKENS, "provider", "model", "type", unit="{token}", otlp="gen_ai.client.token.usage",
    ),
    "overhead_seconds": _histogram("The gateway's own part of a request.", SHORT),
    "store_seconds": _histogram("Time of one step of the store.", STORE, "step"),
    "requests_running": _gauge("Requests that hold a reservation now."),
    "upstream_token_up": _gauge(
        "Whether an upstream token is available, by its hash.", "token", merge="min"
    ),
    "upstream_token_out": _gauge("1 while a token is unavailable, by cause.", "token", "cause", merge="max"),
    "upstream_token_requests": _gauge("Requests that a token serves now.", "token"),
    "upstream_balance": _gauge("Balance of all tokens, in the platform's currency.", merge="max"),
    "alert_active": _gauge("1 while an alert holds.", "alert", merge="max"),
    "alerts_total": _counter("Messages of alerts: sent, failed, dropped.", "result"),
    "otlp_items_total": _counter("Spans and exports of metrics: sent, failed, dropped.", "signal", "result"),
    "workers": _gauge("Worker processes."),
    "process_resident_bytes": _gauge("Resident memory of all workers.", unit="By"),
    "process_cpu_seconds_total": _gauge("CPU time of all workers.", unit="s", kind="counter"),
}  # fmt: skip
CELLS = sum(family.cells for family in FAMILIES.values()) * (MOST_SERIES + 1)  # the most that a process needs
