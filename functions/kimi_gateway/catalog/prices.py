"""The vendor's list prices, for an estimate of cost beside the token counts. The vendor's bill is what
counts.

USD for a million tokens, list price of api.moonshot.ai: model pages and price table of 2026-09-03; for K3.1
two price digests of 2026-10-23 and later (docs/upstream.md). Cache writes and vouchers are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """USD for a million tokens of input without a cache hit, input with one, and output."""

    input: float
    cached: float
    output: float


_MOONSHOT: Mapping[str, Price] = {
    "kimi-k3.1-pro": Price(2.00, 0.20, 10.00),
    "kimi-k3.1-pro-highspeed": Price(4.00, 0.20, 20.00),
    "kimi-k3": Price(3.00, 0.30, 15.00),
    "kimi-k2.7-code": Price(0.95, 0.19, 4.00),
    "kimi-k2.7-code-highspeed": Price(1.90, 0.38, 8.00),
    "kimi-k2.6": Price(0.95, 0.16, 4.00),
}
PRICES: Mapping[str, Mapping[str, Price]] = {"moonshot": _MOONSHOT}  # by provider and upstream id


def cost(provider: str, upstream: str, input: int, cached: int, output: int) -> float | None:
    """USD of one answer; None if the price is not known. `cached` is part of `input`."""
    price = PRICES.get(provider, {}).get(upstream)
    if price is None:
        return None
    hit = min(cached, input)
    total = (input - hit) * price.input + hit * price.cached + output * price.output
    return round(total / MILLION, 8)
