"""Alarms and the dashboard look at metrics that the code emits, under dimensions that it gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

from infra.cloud import STACK, Cloud, named, unsubstituted
from infra.reading import decided, resources
from kimi_gateway.edge.aws.cloudwatch import UNITS, measured
from kimi_gateway.observe import RequestRecord
from kimi_gateway.providers.failures import Cause

OURS = "KimiGateway"
Series = tuple[str, frozenset[str]]
LINES: list[tuple[str, dict[str, Any]]] = [
    ("request", {"status": 503, "cause": "store_down"}),
    ("request", {"status": 429, "cause": "rate_limit_exceeded"}),
    ("request", {"status": 200, "outcome": "settled", "total_ms": 2.0, "first_content_ms": 1.0,
                 "overhead_ms": 1.0, "input_tokens": 1, "cached_tokens": 0, "output_tokens": 1, "credits": 1,
                 "cost_usd": 0.1}),
    ("attempt_failed", {"cause": "authentication"}),
    ("store_down", {}),
    ("store_throttled", {}),
    ("misconfigured", {}),
    ("secret_unread", {}),
]  # fmt: skip


def emitted() -> set[Series]:
    return {
        (name, frozenset({"service", *dimensions}))
        for event, fields in LINES
        for dimensions, values in measured(
            event, fields, RequestRecord(**fields) if event == "request" else None
        )
        for name in values
    }


def in_alarms(alarms: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each of our metrics in an alarm, with its dimensions."""
    for alarm in resources(alarms, "AWS::CloudWatch::Alarm").values():
        metrics = decided(alarm.get("Metrics", []), True)
        stats = [each["MetricStat"]["Metric"] for each in metrics if "MetricStat" in each]
        for metric in stats or [alarm]:
            if metric["Namespace"] == OURS:
                yield metric["MetricName"], metric["Dimensions"]


def in_dashboard(alarms: Any) -> Iterator[Series]:
    (dashboard,) = resources(alarms, "AWS::CloudWatch::Dashboard").values()
    body = json.loads(dashboard["DashboardBody"]["Fn::Sub"])
    for widget in body["widgets"]:
        for first, *rest in widget["properties"]["metrics"]:
            if isinstance(first, dict):
                names, metric = re.findall(
                    r"\{KimiGateway,([\w,]+)\}.*MetricName=\"(\w+)\"", first["expression"]
                )[0]
                yield metric, frozenset(names.split(","))
            elif first == OURS:
                yield rest[0], frozenset(name for name in rest[1::2] if isinstance(name, str))


def test_the_lines_tried_here_bring_every_metric_that_has_a_unit() -> None:
    assert {name for name, _ in emitted()} == set(UNITS)


def test_alarms_look_at_metrics_that_are_emitted(alarms: Any) -> None:
    found = list(in_alarms(alarms))
    assert {name for name, _ in found} == {
        "Failures", "Requests", "StoreDown", "StoreThrottled", "UpstreamFailures", "Misconfigured",
        "FirstContentMs", "CostUSD",
    }  # fmt: skip
    for name, dimensions in found:
        assert (name, frozenset(each["Name"] for each in dimensions)) in emitted(), name
        values = {each["Name"]: each["Value"] for each in dimensions}
        assert values.pop("service") == {"Ref": "Service"}
        assert set(values.values()) <= set(get_args(Cause))


def test_the_dashboard_shows_every_metric_but_no_other(alarms: Any) -> None:
    shown = set(in_dashboard(alarms))
    assert shown <= emitted()
    assert {name for name, _ in shown} == set(UNITS) - {"Misconfigured"}  # which has its alarm


def test_every_alarm_tells_somebody_and_rests_while_nothing_happens(alarms: Any) -> None:
    found = resources(alarms, "AWS::CloudWatch::Alarm")
    assert len(found) == 8
    for alarm in found.values():
        assert alarm["AlarmActions"] == [{"Ref": "Topic"}]
        assert alarm["TreatMissingData"] == "notBreaching"
        assert alarm["AlarmDescription"]


def test_all_functions_are_watched(template: Any, alarms: Any) -> None:
    watched = {
        each["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Ref"]
        for each in decided(resources(alarms, "AWS::CloudWatch::Alarm")["Functions"]["Metrics"], True)
        if "MetricStat" in each
    }
    functions = set(resources(template, "AWS::Lambda::Function"))
    assert watched == functions
    given = template["Resources"]["Alarms"]["Properties"]["Parameters"]
    assert {name: decided(given[name], True) for name in functions} == {
        name: {"Ref": name} for name in functions
    }
    assert decided(given["Admin"], False) == ""
    assert set(given) == set(alarms["Parameters"])


def test_metrics_stand_under_the_name_that_the_alarms_are_given(template: Any) -> None:
    stack = {"Ref": "AWS::StackName"}
    assert template["Resources"]["Alarms"]["Properties"]["Parameters"]["Service"] == stack
    for function in resources(template, "AWS::Lambda::Function").values():
        names = function["Environment"]["Variables"]
        assert (names["POWERTOOLS_SERVICE_NAME"], names["POWERTOOLS_METRICS_NAMESPACE"]) == (stack, OURS)


def test_cloudwatch_takes_the_alarms_and_the_dashboard(alarms: Any, moto_url: str) -> None:
    """Through the API, which checks their form; moto makes none of them from a template."""
    names = ("Service", "Chat", "Models", "Files", "Users", "Admin", "TokenCheck", "Pages", "Account")
    given = dict.fromkeys(names, STACK)
    values = given | {"AWS::Region": "us-east-1", "Topic": "arn:aws:sns:us-east-1:123456789012:topic"}
    cloudwatch = Cloud.at(moto_url).client("cloudwatch")
    for alarm in resources(alarms, "AWS::CloudWatch::Alarm").values():
        resolved = unsubstituted(named(decided(alarm, True), values | {"DailyCost": 5}))
        cloudwatch.put_metric_alarm(**resolved)
    made = cloudwatch.describe_alarms()["MetricAlarms"]
    assert len([each for each in made if each["AlarmName"].startswith(STACK)]) == 8
    (dashboard,) = resources(alarms, "AWS::CloudWatch::Dashboard").values()
    cloudwatch.put_dashboard(**unsubstituted(named(dashboard, values)))
    body = cloudwatch.get_dashboard(DashboardName=STACK)["DashboardBody"]
    assert "${" not in body
    assert STACK in body
