"""The estimate of what the upstream charges."""

from __future__ import annotations

import pytest

from kimi_gateway.catalog.models import ROWS
from kimi_gateway.catalog.prices import PRICES, cost


def test_every_model_of_the_catalog_has_a_price() -> None:
    assert {row.upstream for row in ROWS} == set(PRICES["moonshot"])


def test_cached_input_is_cheaper_and_part_of_the_input() -> None:
    assert cost("moonshot", "kimi-k3", 1_000_000, 0, 0) == pytest.approx(3.0)
    assert cost("moonshot", "kimi-k3", 1_000_000, 1_000_000, 0) == pytest.approx(0.3)
    assert cost("moonshot", "kimi-k3", 10, 1_000_000, 1_000_000) == pytest.approx(15.000003)


def test_what_is_not_known_has_no_cost() -> None:
    assert cost("moonshot", "a-new-model", 10, 0, 10) is None
    assert cost("demo", "kimi-k3", 10, 0, 10) is None
