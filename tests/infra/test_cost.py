"""docs/cost.md says what infra/cost.py computes, and that is right where it can be reckoned by hand."""

from __future__ import annotations

import runpy
import subprocess
from typing import Any

import pytest

from kimi_gateway.accounts.values import Grant, Usage
from kimi_gateway.catalog.models import ROWS, cost
from kimi_gateway.edge.aws.cloudwatch import UNITS
from support import ROOT
from support.dynamo import size
from support.dynamo_table import NOW, SharedTable

MODEL: dict[str, Any] = runpy.run_path(str(ROOT / "infra" / "cost.py"))
PAGE = (ROOT / "docs" / "cost.md").read_text("utf-8")


def test_the_page_holds_every_table_as_it_is_computed_now() -> None:
    printed = subprocess.run(["scripts/cost"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for part in printed.strip().split("\n\n"):
        assert part in PAGE


def test_a_request_costs_what_the_prices_say() -> None:
    parts = MODEL["request"](10, 512)
    assert parts["Lambda, time x memory"] == pytest.approx(10 * 0.5 * 0.0000133334)
    assert parts["API Gateway"] == pytest.approx(3.5e-6)
    assert parts["DynamoDB"] == pytest.approx(2 * 0.625e-6)
    assert MODEL["standing"](0) == pytest.approx(0.40 + 7 * 0.10)


@pytest.mark.anyio
async def test_the_ceiling_of_an_account_is_reckoned_with_the_stores_own_bytes(moto_url: str) -> None:
    shared = await SharedTable.on(moto_url)
    try:
        store, key = shared.stores[0], await shared.key(Grant(10**6))
        for number in range(3):
            admission = await store.admit(f"s{number}", key, 1, NOW + 660, NOW)
            await store.settle(admission, "kimi-k2.6", Usage(10**5, 10**4), NOW)
        before = size(await shared.hot(key))
        for number in range(50):
            await store.admit(f"r{number}", key, 1, NOW + 660, NOW)
        after = size(await shared.hot(key))
    finally:
        await shared.client.close()
    assert after - before == 50 * MODEL["LEASE_BYTES"]
    assert before <= MODEL["ITEM"]
    rate = MODEL["most"](10, before)
    assert rate == MODEL["most"](10) == 55
    operations = " ".join((ROOT / "docs" / "operations.md").read_text("utf-8").split())
    assert f"about {rate} requests a second of 10 s" in operations


def test_the_readme_names_the_same_prices() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    cents = 100 * 1000 * sum(MODEL["request"](10, 512).values())
    assert f"${MODEL['standing'](0):.2f} a month" in readme
    assert f"about {cents:.0f} cents for 1,000 answers of 10 s" in readme


def test_the_container_costs_the_same_where_the_page_says_so() -> None:
    number = MODEL["break_even"]()
    here = MODEL["standing"](number) + number * sum(MODEL["request"](10, 512).values())
    assert here == pytest.approx(MODEL["container"](), rel=1e-4)


def test_the_models_own_price_on_the_page_is_the_catalogs() -> None:
    (k26,) = [row for row in ROWS if row.id == "kimi-k2.6"]
    one = cost("moonshot", k26, 2000, 1000, 500)
    assert one is not None
    assert f"${1000 * one[0]:.2f}" in PAGE


def test_what_the_model_counts_is_what_is_deployed(alarms: Any) -> None:
    counted = [
        len(
            [each for each in alarm["Properties"].get("Metrics", [{"MetricStat": 1}]) if "MetricStat" in each]
        )
        for alarm in alarms["Resources"].values()
        if alarm["Type"] == "AWS::CloudWatch::Alarm"
    ]
    assert sum(counted) == MODEL["ALARM_METRICS"]
    assert len(UNITS) <= MODEL["METRICS"]
