"""docs/operations.md names what there is: alarms, metrics, parameters, commands."""

from __future__ import annotations

import re
from typing import Any

from infra.reading import resources
from kimi_gateway.cli import main
from kimi_gateway.edge.aws.cloudwatch import UNITS
from support import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")


def test_every_alarm_is_explained(alarms: Any) -> None:
    names = {
        alarm["AlarmName"]["Fn::Sub"].removeprefix("${Service}")
        for alarm in resources(alarms, "AWS::CloudWatch::Alarm").values()
    }
    assert set(re.findall(r"^\| `(-[a-z-]+)` \|", PAGE, re.M)) == names


def test_every_metric_is_explained() -> None:
    table = PAGE.partition("| Metric | What |\n")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(UNITS)


def test_commands_that_are_named_exist() -> None:
    commands = set(re.findall(r"`kg ([a-z]+)(?: ([a-z]+))?", PAGE))
    assert commands
    for first, second in commands:
        command = main.commands[first]
        assert not hasattr(command, "commands") or second in command.commands, (first, second)


def test_parameters_that_are_named_exist(raw: Any) -> None:
    for name in ("AccessLogs", "AlarmEmail", "DailyCost", "ThrottleRate", "ThrottleBurst", "LogRetention"):
        assert f"`{name}" in PAGE
        assert name in raw["raw"]["Parameters"]


def test_the_functions_have_the_memory_that_the_page_names(raw: Any) -> None:
    assert f"`Chat` ({raw['raw']['Parameters']['ChatMemory']['Default']} MB)" in PAGE
    assert f"`Account` ({raw['raw']['Globals']['Function']['MemorySize']} MB)" in PAGE


def test_the_readmes_way_into_the_cloud_is_short() -> None:
    block = README.partition("## In the cloud")[2].partition("```\n")[2].partition("```")[0]
    assert len(block.splitlines()) < 10
    assert block.startswith("scripts/deploy")
