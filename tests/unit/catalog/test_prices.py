"""The estimate of what the upstream charges, and the page's table of models."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from kimi_gateway.catalog.catalog import CatalogFault, load
from kimi_gateway.catalog.models import ROWS, Model, Price, cost, neutral
from support import ROOT

BY_ID = {row.id: row for row in ROWS}
K3 = BY_ID["kimi-k3"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_model_of_the_catalog_has_the_price_of_what_runs_and_its_source(row: Model) -> None:
    price = row.price
    assert price is not None
    assert price == BY_ID[row.upstream].price
    assert 0 < price.cached < price.input < price.output
    assert "2026-" in price.source


def test_cached_input_is_cheaper_and_part_of_the_input() -> None:
    assert cost("moonshot", K3, 1_000_000, 0, 0) == (pytest.approx(3.0), "USD")
    assert cost("moonshot", K3, 1_000_000, 1_000_000, 0) == (pytest.approx(0.3), "USD")
    assert cost("moonshot", K3, 10, 1_000_000, 1_000_000) == (pytest.approx(15.000003), "USD")


def test_what_is_not_known_has_no_cost() -> None:
    assert cost("moonshot", neutral("a-new-model"), 10, 0, 10) is None
    assert cost("demo", K3, 10, 0, 10) is None


def rows(path: Path, **more: object) -> dict[str, Model]:
    path.write_text(json.dumps({"models": [{"id": "mine", **more}]}))
    return load(path).rows


def test_a_row_of_the_operators_has_its_own_price_else_that_of_what_runs(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    price = {"input": 1, "cached": 0.5, "output": 2.5}
    mine = rows(file, upstream="kimi-new", price=price)["mine"]
    assert mine.price == Price(1, 0.5, 2.5)
    assert cost("moonshot", mine, 2_000_000, 1_000_000, 1_000_000) == (pytest.approx(4.0), "USD")
    for base in ({"upstream": "kimi-k3"}, {"like": "kimi-k3"}):
        assert cost("moonshot", rows(file, **base)["mine"], 1_000_000, 0, 0) == (pytest.approx(3.0), "USD")


@pytest.mark.parametrize(
    ("price", "told"),
    [
        ({"input": -1, "cached": 0, "output": 1}, "price of mine must not be negative"),
        ({"input": 1, "output": 1}, "cached is missing"),
        ({"input": "1", "cached": 0, "output": 1}, "price.input"),
        ({"input": 1, "cached": 0, "output": 1, "currency": "EUR"}, "currency should be 'USD' or 'CNY'"),
    ],
)
def test_a_wrong_price_is_named(tmp_path: Path, price: object, told: str) -> None:
    with pytest.raises(CatalogFault, match=told):
        rows(tmp_path / "models.json", upstream="x", price=price)


def test_the_page_has_the_table_of_these_models() -> None:
    table = runpy.run_path(str(ROOT / "infra" / "models_table.py"))
    page = (ROOT / "docs" / "upstream.md").read_text("utf-8")
    assert page == table["written"](page), "run scripts/models"
    for model in ROWS:
        assert f"| `{model.id}` | `{model.upstream}` | {model.window:,} |" in page
