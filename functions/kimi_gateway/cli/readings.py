"""Readings of /metrics: the text of a scrape as numbers, and how they change. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping

from kimi_gateway.dataclass import dataclass
from kimi_gateway.observe.families import PREFIX

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([0-9eE.+-]+|[+-]Inf|NaN)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"n": "\n"}
Labels = tuple[tuple[str, str], ...]
KEPT = 60  # readings


@dataclass(frozen=True, slots=True)
class Reading:
    """One scrape: `at` is a time of time.monotonic(), `values` are by name without its prefix, and labels."""

    at: float
    values: Mapping[str, Mapping[Labels, float]]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all series that have these labels; 0 if there are none."""
        wanted = set(labels.items())
        return sum(value for key, value in self.values.get(name, {}).items() if wanted <= set(key))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The same for each value of a label."""
        found: dict[str, float] = {}
        wanted = set(labels.items())
        for key, value in self.values.get(name, {}).items():
            if wanted <= set(key):
                of = dict(key).get(label, "")
                found[of] = found.get(of, 0) + value
        return found


def parse(text: str, at: float) -> Reading:
    """Raises ValueError if the text is not a scrape of this gateway."""
    values: dict[str, dict[Labels, float]] = {}
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match is None or not match[1].startswith(PREFIX):
            continue
        labels = tuple((name, _unescaped(value)) for name, value in _LABEL.findall(match[2] or ""))
        values.setdefault(match[1].removeprefix(PREFIX), {})[labels] = float(match[3])
    if "workers" not in values:
        raise ValueError("this is not /metrics of a Kimi Gateway")
    return Reading(at, values)


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), value)


class History:
    """The latest readings."""

    def __init__(self, kept: int = KEPT) -> None:
        self.readings = deque[Reading](maxlen=kept)

    @property
    def last(self) -> Reading:
        return self.readings[-1]

    def rate(self, name: str, over: float = 10.0, **labels: str) -> float:
        """Change a second within the last `over` seconds; a counter that went back counts from 0."""
        first = next((each for each in self.readings if self.last.at - each.at <= over), self.last)
        if first is self.last and len(self.readings) > 1:
            first = self.readings[-2]
        return _rate(first, self.last, name, labels)

    def course(self, name: str, **labels: str) -> list[float]:
        """The change a second between each two readings."""
        pairs = zip(self.readings, list(self.readings)[1:], strict=False)
        return [_rate(before, after, name, labels) for before, after in pairs]

    def levels(self, name: str) -> list[float]:
        return [each.sum(name) for each in self.readings]


def _rate(before: Reading, after: Reading, name: str, labels: Mapping[str, str]) -> float:
    passed = after.at - before.at
    if passed <= 0:
        return 0.0
    start, end = before.sum(name, **labels), after.sum(name, **labels)
    return (end - start if end >= start else end) / passed


def median(reading: Reading, before: Reading, name: str) -> float | None:
    """The upper bound of the bucket of a histogram in which the median of the time between is."""
    counts = dict[float, float]()
    for sign, each in ((1, reading), (-1, before)):
        for bound, value in each.by(f"{name}_bucket", "le").items():
            counts[float(bound)] = counts.get(float(bound), 0) + sign * value
    total = max(counts.values(), default=0)
    half = [bound for bound, count in sorted(counts.items()) if count * 2 >= total > 0]
    return half[0] if half else None


def bars(values: Iterable[float], width: int) -> str:
    """A line of blocks, the highest value full."""
    shown = list(values)[-width:]
    top = max(shown, default=0)
    if top <= 0:
        return "▁" * len(shown)
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(value / top * 7.999))] for value in shown)
