"""Settings and the template's parameters: what is passed, and that each value that may be given is taken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from infra.reading import resources
from kimi_gateway import settings
from unit.test_settings import BAD, GOOD

# Settings that the template does not pass, and why.
NOT_PASSED = {
    "MOONSHOT_API_KEY": "the secret holds the tokens",
    "KIMI_GATEWAY_DATA": "the table holds what would be in the folder",
    "KIMI_GATEWAY_ANSWER_LIMIT": "a bound of memory; the default fits the smallest function",
    "KIMI_GATEWAY_EVENT_LIMIT": "the same",
    "KIMI_GATEWAY_BODY_MEMORY": "a function holds one body at a time",
    "KIMI_GATEWAY_CONNECT_TIMEOUT": "the deadline of the function bounds it",
    "KIMI_GATEWAY_FIRST_BYTE_TIMEOUT": "the same",
    "KIMI_GATEWAY_TOKEN_CONCURRENCY": "it counts in one process, which here serves one request at a time",
    "KIMI_GATEWAY_ACCOUNT_CONCURRENCY": "the same",
    "KIMI_GATEWAY_PASSTHROUGH_LIMITS": "counted in each process; ThrottleRate and WafRate bound a flood",
    "KIMI_GATEWAY_FETCH_ALLOWED": "a function reaches no private network",
    "KIMI_GATEWAY_EXTRACT": "the bundle has no reader of PDFs",
    "KIMI_GATEWAY_CONNECTIONS": "API Gateway holds the connections",
    "KIMI_GATEWAY_KEYLESS_PER_ADDRESS": "the same",
    "KIMI_GATEWAY_TRUSTED_PROXIES": "API Gateway tells the client's address",
    "KIMI_GATEWAY_PING_INTERVAL": "the default is below every limit of AWS",
    "KIMI_GATEWAY_DRAIN": "Lambda gives 500 ms",
    "KIMI_GATEWAY_KIMI_WEB": "it is for home only",
    "KIMI_GATEWAY_METRICS": "CloudWatch gets the metrics with the log lines",
    "KIMI_GATEWAY_ALERTS_URL": "CloudWatch has alarms",
    "KIMI_GATEWAY_ALERTS_BALANCE": "CloudWatch has alarms",
    "KIMI_GATEWAY_LOG_FORMAT": "the log is for CloudWatch",
}


def test_every_setting_is_passed_or_has_a_reason_not_to_be(raw: Any, template: Any) -> None:
    """A parameter has the default of its setting, so that a deployment without one changes nothing."""
    passed: dict[str, Any] = {}
    for function in resources(template, "AWS::Lambda::Function").values():
        passed |= function["Environment"]["Variables"]
    assert not passed.keys() & NOT_PASSED.keys()
    assert {name for name in passed if name in settings.FIELDS} | NOT_PASSED.keys() == set(settings.FIELDS)
    defaults = {name: each["Default"] for name, each in raw["raw"]["Parameters"].items()}
    usual = settings.Settings(data=Path())
    compared = 0
    for name, value in passed.items():
        text = defaults.get(value.get("Ref", "")) if isinstance(value, dict) else None
        if name in settings.FIELDS and text not in (None, ""):
            attribute, parse = settings.FIELDS[name]
            assert parse(str(text)) == getattr(usual, attribute), name
            compared += 1
    assert compared > 10


# Texts that a pattern of CloudFormation cannot tell apart; scripts/deploy refuses them.
BEYOND_PATTERNS = {
    "https://a.test:99999/v1", "https://a.test:http/v1", "https://[::1/v1",
    "a=b,a=c", "a=b;a=c", "trial=50,trial=60", "/no/such/file.json", "/",
}  # fmt: skip


def test_parameters_take_what_the_gateway_takes_and_nothing_else(raw: Any, template: Any) -> None:
    """A function does not start with a setting that the gateway refuses, so a wrong one is an outage."""
    found = resources(template, "AWS::Lambda::Function").values()
    passed = {
        value["Ref"]: name
        for function in found
        for name, value in function["Environment"]["Variables"].items()
        if isinstance(value, dict) and "Ref" in value and name in settings.FIELDS
    }
    looked = 0
    for parameter, each in raw["raw"]["Parameters"].items():
        name = passed.get(parameter)
        if name is None:
            continue
        _, parse = settings.FIELDS[name]
        if "AllowedValues" in each:
            texts = each["AllowedValues"]
        elif each["Type"] == "Number":
            texts = each["MinValue"], each["MaxValue"]
            with pytest.raises(ValueError, match="must be between"):
                parse(str(each["MaxValue"] + 1))
        else:
            pattern = re.compile(each.get("AllowedPattern", ".*"))
            bad = {text for of, text in BAD if of == name}
            assert not {text for text in bad if pattern.fullmatch(text)} - BEYOND_PATTERNS, parameter
            texts = [text for of, text, _ in GOOD if of == name and text == text.strip()]
            assert all(map(pattern.fullmatch, texts)), parameter
        for text in texts:
            parse(str(text))
        looked += 1
    assert looked > 20


def test_functions_are_given_settings_that_the_gateway_takes(raw: Any, template: Any) -> None:
    given = {name: each["Default"] for name, each in raw["raw"]["Parameters"].items()}
    given |= {"Table": "a-table", "Secret": "arn:aws:secretsmanager:us-east-1:123456789012:secret:a-secret"}
    given["Uploads"] = "a-bucket"
    for function in resources(template, "AWS::Lambda::Function").values():
        variables = function["Environment"]["Variables"]
        environ = {
            name: given.get(value.get("Ref"), "") if isinstance(value, dict) else value
            for name, value in variables.items()
        }
        assert all(isinstance(value, str) for value in environ.values())
        values = settings.read(environ | {"AWS_REGION": "us-east-1"})
        assert (values.table, values.secret) == (given["Table"], given["Secret"])
