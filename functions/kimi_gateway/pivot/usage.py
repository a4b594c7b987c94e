"""Token counters in the pivot: read safely from an upstream, and summed over calls."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

MOST_COUNTED = 10**12  # tokens; larger numbers are errors
MOST_MEMBERS = 64  # of usage


def counts(usage: dict[str, Any], depth: int = 3) -> dict[str, Any]:
    """An upstream's usage in a safe form: token counters are whole numbers from 0 to MOST_COUNTED, null
    stays, and other values and members beyond MOST_MEMBERS are dropped."""
    counted: dict[str, Any] = {}
    for name, value in islice(usage.items(), MOST_MEMBERS):
        if isinstance(value, dict):
            if depth > 1:
                counted[name] = counts(value, depth - 1)
        elif type(value) is int or type(value) is float and math.isfinite(value):
            bounded = min(max(value, 0), MOST_COUNTED)
            counted[name] = int(bounded) if "tokens" in name else bounded
        elif value is None or "tokens" not in name and type(value) in (str, bool) and len(str(value)) < 256:
            counted[name] = value
    return counted


def add_usage(total: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    """Counters summed by name, including details; of other values the later one counts."""
    summed = dict(total)
    for name, value in usage.items():
        before = summed.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            summed[name] = add_usage(before, value)
        elif isinstance(value, int | float) and isinstance(before, int | float):
            summed[name] = before + value
        elif value is not None or name not in summed:
            summed[name] = value
    return summed
