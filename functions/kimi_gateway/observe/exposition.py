"""Metrics in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kimi_gateway.observe.families import FAMILIES, PREFIX, Family, Labels
from kimi_gateway.observe.metrics import Snapshot

TYPE = "text/plain; version=0.0.4; charset=utf-8"


def text(snapshot: Snapshot) -> str:
    lines: list[str] = []
    for name, family in FAMILIES.items():
        full = PREFIX + name
        lines += [f"# HELP {full} {family.help}", f"# TYPE {full} {family.kind}"]
        for key, cells in snapshot.get(name, {}).items():
            if family.bounds:
                lines += _histogram(full, family, key, cells)
            else:
                lines.append(f"{full}{_labels(family.labels, key)} {cells[0]:.12g}")
    return "\n".join(lines) + "\n"


def _histogram(full: str, family: Family, key: Labels, cells: Sequence[float]) -> Iterable[str]:
    total = 0.0
    for bound, count in zip((*family.bounds, "+Inf"), cells[:-1], strict=True):
        total += count
        yield f"{full}_bucket{_labels((*family.labels, 'le'), (*key, str(bound)))} {total:.12g}"
    yield f"{full}_sum{_labels(family.labels, key)} {cells[-1]:.12g}"
    yield f"{full}_count{_labels(family.labels, key)} {total:.12g}"


def _labels(names: Labels, values: Labels) -> str:
    escaped = [value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in values]
    pairs = [f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)]
    return f"{{{','.join(pairs)}}}" if pairs else ""
