"""Counters and histograms of this process; `families.py` has their names, `exposition.py` their text.

The numbers of all series are cells of one row. A process alone has a list; several workers have a file each
that the others read (`shared.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kimi_gateway.observe.families import FAMILIES, MOST_SERIES, OTHER, STORE, TOKENS, Labels
from kimi_gateway.observe.record import RequestRecord

_BOUNDS = {name: family.bounds for name, family in FAMILIES.items()}
GONE = float("nan")  # the value of a series that is read at a scrape and was not there the last time

# By family and labels: the cells of a series.
Snapshot = Mapping[str, Mapping[Labels, Sequence[float]]]
Gauges = Mapping[str, Mapping[Labels, float]]


class Row(Protocol):
    """A row of numbers, which can be set."""

    def __getitem__(self, place: int, /) -> float: ...
    def __setitem__(self, place: int, number: float, /) -> None: ...


class Cells(Protocol):
    @property
    def row(self) -> Row: ...

    def known(self) -> Iterable[tuple[str, Labels, int]]:
        """Series that have a place already: family, labels, place."""
        ...

    def placed(self, name: str, labels: Labels, count: int) -> int:
        """The place of a new series' cells, all 0."""
        ...


class _OfModel(NamedTuple):
    """Places of the series of one model that each charged request changes."""

    input: int
    cached: int
    output: int
    input_of_one: int
    output_of_one: int
    usd: int


class OwnCells:
    """The cells of a process alone."""

    def __init__(self) -> None:
        self.row: list[float] = []

    def known(self) -> Iterable[tuple[str, Labels, int]]:
        return ()

    def placed(self, name: str, labels: Labels, count: int) -> int:
        place = len(self.row)
        self.row += [0.0] * count
        return place


class Metrics:
    """A sink of `observe`. It takes no lock: all calls are on one loop."""

    def __init__(self, cells: Cells | None = None) -> None:
        self._cells: Cells = cells or OwnCells()
        self._row = self._cells.row
        self._places: dict[str, dict[Labels, int]] = {name: {} for name in FAMILIES}
        for name, labels, place in self._cells.known():
            self._places[name][labels] = place
        self._intervals = FAMILIES["chunk_interval_seconds"].bounds
        self._models: dict[tuple[str, str], _OfModel] = {}
        self._steps: dict[str, int] = {}
        self._first_interval = self._placed("chunk_interval_seconds", ())

    def event(self, event: str, warns: bool, fields: Mapping[str, Any]) -> None:
        if event == "attempt_failed":
            self.add("attempt_failures_total", (str(fields.get("cause")),))
        elif warns:
            self.add("events_total", (event,))

    def piece(self, seconds: float) -> None:
        first = self._first_interval
        self._row[first + bisect_left(self._intervals, seconds)] += 1
        self._row[first + len(self._intervals) + 1] += seconds

    def step(self, name: str, seconds: float) -> None:
        place = self._steps.get(name)
        if place is None:  # names of methods, so there are few
            place = self._steps[name] = self._placed("store_seconds", (name,))
        self._row[place + bisect_left(STORE, seconds)] += 1
        self._row[place + len(STORE) + 1] += seconds

    def request(self, record: RequestRecord) -> None:
        self.add("requests_total", (record.route or OTHER, str(record.status)))
        if record.refused:
            self.add("refusals_total", (record.cause or OTHER,))
        elif record.failed:
            self.add("failures_total", (record.cause or OTHER,))
        if record.outcome is None:
            return
        model, provider = record.upstream_model or OTHER, record.provider or OTHER
        self.add("admitted_total", (model, record.outcome))
        stream = "true" if record.stream else "false"
        self.observe("request_seconds", (stream,), record.total_ms / 1000)
        if record.first_content_ms is not None:
            self.observe("first_content_seconds", (provider, model), record.first_content_ms / 1000)
        if record.overhead_ms is not None:
            self.observe("overhead_seconds", (), record.overhead_ms / 1000)
            error = record.cause or ""
            self.observe("operation_seconds", (provider, model, error), record.upstream_seconds)
        if record.charged:
            self._charged(record, provider, model)

    def _charged(self, record: RequestRecord, provider: str, model: str) -> None:
        row, of = self._row, self._models.get((provider, model)) or self._of_model(provider, model)
        input, output = record.input_tokens or 0, record.output_tokens or 0
        row[of.input] += input
        row[of.cached] += record.cached_tokens or 0
        row[of.output] += output
        row[of.usd] += record.cost_usd or 0
        for place, count in ((of.input_of_one, input), (of.output_of_one, output)):
            row[place + bisect_left(TOKENS, count)] += 1
            row[place + len(TOKENS) + 1] += count
        if record.cost_cny is not None:
            self.add("cost_cny_total", (model,), record.cost_cny)
        if record.credits:
            self.add("credits_total", (), record.credits)
        if record.searches:
            self.add("searches_total", (), record.searches)

    def _of_model(self, provider: str, model: str) -> _OfModel:
        of = _OfModel(
            self._placed("tokens_total", (model, "input")),
            self._placed("tokens_total", (model, "cached")),
            self._placed("tokens_total", (model, "output")),
            self._placed("request_tokens", (provider, model, "input")),
            self._placed("request_tokens", (provider, model, "output")),
            self._placed("cost_usd_total", (model,)),
        )
        if len(self._models) < MOST_SERIES:
            self._models[provider, model] = of
        return of

    def add(self, name: str, labels: Labels, number: float = 1) -> None:
        place = self._places[name].get(labels)
        self._row[self._placed(name, labels) if place is None else place] += number

    def observe(self, name: str, labels: Labels, value: float) -> None:
        bounds, place = _BOUNDS[name], self._places[name].get(labels)
        if place is None:
            place = self._placed(name, labels)
        self._row[place + bisect_left(bounds, value)] += 1
        self._row[place + len(bounds) + 1] += value

    def read(self, gauges: Gauges) -> None:
        """Set the values that are read at the moment of a scrape. Series that are not given are gone."""
        for name, values in gauges.items():
            for place in self._places[name].values():
                self._row[place] = GONE
            for labels, value in values.items():
                self._row[self._placed(name, labels)] = value

    def snapshot(self) -> Snapshot:
        return {
            name: {
                labels: [self._row[place + cell] for cell in range(FAMILIES[name].cells)]
                for labels, place in series.items()
            }
            for name, series in self._places.items()
        }

    def _placed(self, name: str, labels: Labels) -> int:
        """The place of a series, or of "other" if it has none and there are too many."""
        series = self._places[name]
        if labels not in series and len(series) >= MOST_SERIES:
            labels = (OTHER,) * len(labels)
        if labels not in series:
            series[labels] = self._cells.placed(name, labels, FAMILIES[name].cells)
        return series[labels]


def since(before: Snapshot, now: Snapshot) -> Snapshot:
    """The counts that came after `before`; values that are read at a scrape stay as they are."""
    return {
        name: {
            labels: [cell - old for cell, old in zip(cells, earlier[labels], strict=True)]
            if labels in earlier and not FAMILIES[name].live
            else cells
            for labels, cells in series.items()
        }
        for name, series in now.items()
        for earlier in (before.get(name, {}),)
    }


_MERGES: Mapping[str, Callable[[Iterable[float]], float]] = {"sum": sum, "min": min, "max": max}


def merged(snapshots: Sequence[Snapshot]) -> dict[str, dict[Labels, list[float]]]:
    """The values of all workers together, without series that are gone or have never counted."""
    together: dict[str, dict[Labels, list[float]]] = {}
    for name, family in FAMILIES.items():
        found: dict[Labels, list[list[float]]] = {}
        for snapshot in snapshots:
            for labels, cells in snapshot.get(name, {}).items():
                if not any(cell != cell for cell in cells) and (family.labels or family.live or any(cells)):
                    found.setdefault(labels, []).append(list(cells))
        merge = _MERGES[family.merge]
        together[name] = {
            labels: [float(merge(cells)) for cells in zip(*each, strict=True)]
            for labels, each in found.items()
        }
    return together
