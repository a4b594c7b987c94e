"""Measurements to markdown: medians over rounds, and ratios taken within each round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from load import WORKLOADS, Result

DIRECT, RELAY, BARE, GATEWAY = "direct", "relay", "bare proxy", "gateway"
SAYS = {
    "small-1": "Short question, JSON answer, 1 client",
    "small-16": "Short question, JSON answer, 16 clients",
    "small-64": "Short question, JSON answer, 64 clients",
    "json-20": "JSON answer of 20 chunks, 1 client",
    "json-100": "JSON answer of 100 chunks, 1 client",
    "json-500": "JSON answer of 500 chunks, 1 client",
    "stream-1": "Stream of 100 chunks, unpaced, 1 client",
    "stream-16": "Stream of 100 chunks, unpaced, 16 clients",
    "stream-64": "Stream of 100 chunks, unpaced, 64 clients",
    "body-1mb": "Request body of 1 MB, JSON answer, 1 client",
    "beside-8mib": "Short question, 1 client, beside a client that reads events of 8 MiB",
}
PACED = {
    "paced-50": "50 streams at once, a chunk each 10 ms",
    "paced-500": "500 streams at once, a chunk each 100 ms",
    "idle-2000": "2,000 streams at once, two chunks in 10 s",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one workload against one target. CPU in seconds."""

    target: str
    workload: str
    round: int
    result: Result
    cpu: float
    load_cpu: float
    grown: float = 0.0  # MiB by which its memory grew at most, where there are many streams

    @property
    def cpu_ms(self) -> float:
        """Of the target, for one request."""
        return self.cpu * 1000 / max(1, self.result.requests + self.result.failed)

    @property
    def rate(self) -> float:
        return self.result.requests / self.result.seconds


@dataclass(slots=True)
class Life:
    """A target as a process: seconds from exec to the first 200, MiB idle and after all load."""

    starts: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    loaded: float = 0.0


@dataclass(slots=True)
class Findings:
    runs: list[Measured] = field(default_factory=list)
    lives: dict[str, Life] = field(default_factory=dict)
    admission: dict[str, float] = field(default_factory=dict)  # steps of the SQLite store a second

    def targets(self, workload: str) -> list[str]:
        return list(dict.fromkeys(run.target for run in self.runs if run.workload == workload))

    def of(self, target: str, workload: str) -> list[Measured]:
        """By round."""
        return [run for run in self.runs if (run.target, run.workload) == (target, workload)]

    def median(self, target: str, workload: str, value: Callable[[Measured], float]) -> float:
        return statistics.median(map(value, self.of(target, workload)))

    def added(self, target: str, workload: str, value: Callable[[Measured], float]) -> list[float]:
        """What the target adds to the value of the direct run, by round."""
        pairs = zip(self.of(target, workload), self.of(DIRECT, workload), strict=True)
        return [value(run) - value(direct) for run, direct in pairs]

    def ratios(self, target: str, to: str, workload: str, of: Callable[[Measured], float]) -> list[float]:
        pairs = zip(self.of(target, workload), self.of(to, workload), strict=True)
        return [of(run) / of(other) for run, other in pairs if of(other) > 0]


def p50(run: Measured) -> float:
    return run.result.p50


def p99(run: Measured) -> float:
    return run.result.p99


def cpu_ms(run: Measured) -> float:
    return run.cpu_ms


def rate(run: Measured) -> float:
    return run.rate


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """The median, and the range where there are several."""
    if not values:
        return "–"
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}–{number(max(values))})"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heading, ["---", *("---:" for _ in heading[1:])], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def requests_table(found: Findings) -> list[str]:
    heading = [
        "",
        "p50 ms",
        "p99 ms",
        "added p50 ms",
        "first p50, p99 ms",
        "added first p50, p99 ms",
        "answers/s",
        "CPU ms",
        "÷ bare proxy",
        "÷ relay",
        "load side",
    ]
    rows: list[list[str]] = []
    for workload in SAYS:
        for target in found.targets(workload):
            rows += [] if target != DIRECT else [[f"**{SAYS[workload]}**", *[""] * (len(heading) - 1)]]
            rows.append([target, *_request_cells(found, target, workload)])
    return table(heading, rows) if rows else []


def _request_cells(found: Findings, target: str, workload: str) -> list[str]:
    present = found.targets(workload)
    own = target != DIRECT
    cells = [number(found.median(target, workload, value)) for value in (p50, p99)]
    cells.append(number(statistics.median(found.added(target, workload, p50))) if own else "–")
    firsts: list[Callable[[Measured], float]] = [
        lambda run: run.result.first_p50,
        lambda run: run.result.first_p99,
    ]
    streamed = WORKLOADS[workload].stream
    cells.append(
        " · ".join(number(found.median(target, workload, each)) for each in firsts) if streamed else "–"
    )
    added = [number(statistics.median(found.added(target, workload, each))) for each in firsts]
    cells.append(" · ".join(added) if streamed and own else "–")
    cells.append(number(found.median(target, workload, rate)))
    cells.append(number(found.median(target, workload, cpu_ms)) if own else "–")
    for other in (BARE, RELAY):
        compared = own and other in present
        cells.append(spread(found.ratios(target, other, workload, cpu_ms)) if compared else "–")
    busy = found.median(target, workload, lambda run: run.load_cpu / run.result.seconds)
    failed = sum(run.result.failed for run in found.of(target, workload))
    cells.append(f"{busy:.0%}" + (f", {failed} failed" if failed else ""))
    return cells


def paced_table(found: Findings, workload: str) -> list[str]:
    heading = [
        "",
        "lag p50 ms",
        "lag p99 ms",
        "added p50 ms",
        "added p99 ms",
        "gap p99 ms",
        "streams/s ÷ direct",
    ]
    rows = []
    for target in found.targets(workload):
        of = [lambda run: run.result.lag_p50, lambda run: run.result.lag_p99, lambda run: run.result.gap_p99]
        lag50, lag99, gap99 = (number(found.median(target, workload, value)) for value in of)
        added50, added99, share = "–", "–", "–"
        if target != DIRECT:
            added50, added99 = (spread(found.added(target, workload, value)) for value in of[:2])
            share = spread(found.ratios(target, DIRECT, workload, rate))
        cpu = "–" if target == DIRECT else number(found.median(target, workload, cpu_ms))
        grown = found.median(target, workload, lambda run: run.grown) * 1024 / WORKLOADS[workload].clients
        memory = "–" if target == DIRECT or not grown else number(grown)
        failed = sum(run.result.failed for run in found.of(target, workload))
        rows.append([target, lag50, lag99, added50, added99, gap99, share, cpu, memory, str(failed)])
    return table([*heading, "CPU ms", "KiB a stream", "failed"], rows) if rows else []


def bars_table(found: Findings, target: str = GATEWAY) -> list[str]:
    """The promised numbers beside what was measured."""
    rows = []
    for workload, says, bar in (
        ("small-1", "short question, 1 client", 0.5),
        ("small-64", "short question, 64 clients", 0.5),
        ("stream-1", "stream of 100 chunks, 1 client", 0.5),
        ("stream-16", "stream of 100 chunks, 16 clients", 0.5),
        ("body-1mb", "1 MB body", 0.25),
        ("json-20", "JSON answer of 20 chunks", 0.7),
        ("json-100", "JSON answer of 100 chunks", 0.8),
        ("json-500", "JSON answer of 500 chunks", 1.0),
    ):
        if not {target, BARE} <= set(found.targets(workload)):
            continue
        cpu, added = found.ratios(target, BARE, workload, cpu_ms), _added_ratios(found, target, workload)
        rows.append([f"CPU, {says}, ÷ bare proxy", f"≤ {bar}", spread(cpu), _met(cpu, bar)])
        if workload.startswith("small"):
            rows.append([f"added p50, {says}, ÷ bare proxy", f"≤ {bar}", spread(added), _met(added, bar)])
        if workload.startswith(("small", "stream")) and RELAY in found.targets(workload):
            limit = found.ratios(target, RELAY, workload, cpu_ms)
            rows.append([f"CPU, {says}, ÷ relay", "aim 2", spread(limit), _met(limit, 2)])
    if target in found.targets("paced-50"):
        lag = found.added(target, "paced-50", lambda run: run.result.lag_p99)
        share = found.ratios(target, DIRECT, "paced-50", rate)
        rows.append(["50 paced streams, added lag p99, ms", "≤ 10", spread(lag), _met(lag, 10)])
        lost = [1 - each for each in share]
        rows.append(["50 paced streams, streams/s ÷ direct", "≥ 0.98", spread(share), _met(lost, 0.02)])
    if target in found.targets("paced-500"):
        lag = found.added(target, "paced-500", lambda run: run.result.lag_p99)
        rows.append(["500 paced streams, added lag p99, ms", "≤ 10", spread(lag), _met(lag, 10)])
    if target in found.targets("stream-1"):
        for bar, share, name in ((0.6, "first_p50", "p50"), (2, "first_p99", "p99")):
            first = found.added(target, "stream-1", lambda run, share=share: getattr(run.result, share))
            rows.append([f"added first content {name}, ms", f"≤ {bar}", spread(first), _met(first, bar)])
    if {target, RELAY} <= set(found.targets("paced-50")):
        lanes = found.ratios(target, RELAY, "paced-50", cpu_ms)
        rows.append(["CPU, 50 paced streams, ÷ relay", "≤ 2", spread(lanes), _met(lanes, 2)])
    if "admit" in found.admission:
        admit = found.admission["admit"]
        rows.append(["SQLite admissions a second", "≥ 5,000", number(admit), _met([-admit], -5000)])
    return table(["", "bar", "measured", "met"], rows) if rows else []


def _added_ratios(found: Findings, target: str, workload: str) -> list[float]:
    pairs = zip(found.added(target, workload, p50), found.added(BARE, workload, p50), strict=True)
    return [own / other for own, other in pairs if other > 0]


def _met(values: Sequence[float], most: float) -> str:
    return "yes" if values and statistics.median(values) <= most else "no"


def lives_table(found: Findings) -> list[str]:
    rows = [
        [name, spread(life.starts), spread(life.idle), number(life.loaded) if life.loaded else "–"]
        for name, life in found.lives.items()
    ]
    return (
        table(["", "exec → first 200, s", "RSS idle, MiB", "RSS after all load, MiB"], rows) if rows else []
    )


def markdown(found: Findings, about: str) -> str:
    sections = {
        "Against the bars": bars_table(found),
        "Requests": requests_table(found),
        **{says: paced_table(found, workload) for workload, says in PACED.items()},
        "Processes": lives_table(found),
        "SQLite store, one process, 64 callers": table(
            ["step", "a second"], [[step, number(a_second)] for step, a_second in found.admission.items()]
        )
        if found.admission
        else [],
    }
    shown = [f"### {name}\n\n" + "\n".join(lines) for name, lines in sections.items() if lines]
    return "\n\n".join([about, *shown]) + "\n"


assert set(SAYS) | set(PACED) == set(WORKLOADS)  # noqa: S101
