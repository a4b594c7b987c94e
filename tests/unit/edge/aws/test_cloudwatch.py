"""The cloud's log lines: those of home, redacted, with the metrics that alarms and dashboard read."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from kimi_gateway.edge.aws.cloudwatch import UNITS, Lines, measured
from kimi_gateway.observe import JsonLines, RequestRecord, log
from support.inprocess import InProcess, streamed, told
from upstream import chat_events
from upstream.kimi import error

CHARGED = {
    "status": 200, "outcome": "settled", "total_ms": 900.0, "first_content_ms": 300.0, "overhead_ms": 1.5,
    "input_tokens": 100, "cached_tokens": 60, "output_tokens": 20, "credits": 1, "cost_usd": 0.0004,
}  # fmt: skip


@pytest.fixture
def written() -> Any:
    """The log's lines as the cloud writes them."""
    lines: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(Lines("KimiGateway", "stack").format(record)))

    handler = Kept()
    log.addHandler(handler)
    level = log.level
    log.setLevel("INFO")
    yield lines
    log.removeHandler(handler)
    log.setLevel(level)


def values(line: dict[str, Any], *dimensions: str) -> dict[str, float]:
    """A line's metrics under `service` and these dimensions, as CloudWatch would take them out of it."""
    found = {}
    for directive in line["_aws"]["CloudWatchMetrics"]:
        assert directive["Namespace"] == "KimiGateway"
        if [set(names) for names in directive["Dimensions"]] == [{"service", *dimensions}]:
            for metric in directive["Metrics"]:
                assert metric["Unit"] == UNITS[metric["Name"]]
                (found[metric["Name"]],) = line[metric["Name"]]
    return found


def numbers_of(**facts: Any) -> list[Any]:
    return list(measured("request", {}, RequestRecord(**facts)))


def test_a_charged_request_measures_time_tokens_credits_and_cost() -> None:
    taken = {
        "TotalMs": 900.0, "FirstContentMs": 300.0, "OverheadMs": 1.5, "InputTokens": 100, "CachedTokens": 60,
        "OutputTokens": 20, "Credits": 1, "CostUSD": 0.0004,
    }  # fmt: skip
    ((dimensions, base),) = numbers_of(**CHARGED)
    assert dimensions == {}
    assert base == {"Requests": 1, "Refusals": 0, "Failures": 0} | taken


@pytest.mark.parametrize(
    ("fields", "counted", "reason"),
    [
        ({"status": 429, "cause": "rate_limit_exceeded"}, "Refusals", "rate_limit_exceeded"),
        ({"status": 401, "cause": "invalid_api_key"}, "Refusals", "invalid_api_key"),
        ({"status": 503, "cause": "store_down"}, "Failures", "store_down"),
        ({"status": 200, "cause": "broken", "outcome": "failed"}, "Failures", "broken"),
        ({"status": 503, "cause": "Something for one request only 8f3a"}, "Failures", "other"),
    ],
)
def test_what_went_wrong_is_counted_once_and_by_its_reason(
    fields: dict[str, Any], counted: str, reason: str
) -> None:
    (_, base), by_reason = numbers_of(**fields)
    assert base["Refusals"] + base["Failures"] == base[counted] == 1
    assert by_reason == ({"reason": reason}, {counted: 1})


def test_a_client_that_left_early_is_neither_refused_nor_failed() -> None:
    ((_, base),) = numbers_of(status=499)
    assert (base["Requests"], base["Refusals"], base["Failures"]) == (1, 0, 0)


def test_tokens_of_an_answer_that_was_not_charged_are_not_counted() -> None:
    (_, base), _ = numbers_of(**CHARGED | {"outcome": "failed", "cause": "broken"})
    assert not {"InputTokens", "CachedTokens", "OutputTokens"} & set(base)


def test_a_line_of_the_gateway_carries_what_the_request_took(written: list[dict[str, Any]]) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200, "cached_tokens": 400}
    with InProcess() as gateway:
        gateway.client.answer = lambda sent: streamed(
            *chat_events(model="kimi-k3"), {"choices": [], "usage": usage}
        )
        assert gateway.chat(gateway.key(), {"stream": True}).status == 200
    (line,) = [line for line in written if line["event"] == "request"]
    found = values(line)
    assert (found["InputTokens"], found["CachedTokens"], found["OutputTokens"]) == (1000, 400, 200)
    assert found["Credits"] == 1
    assert found["CostUSD"] == pytest.approx((600 * 3 + 400 * 0.3 + 200 * 15) / 1e6)
    assert 0 < found["FirstContentMs"] <= found["TotalMs"]
    assert (line["service"], line["level"], line["status"]) == ("stack", "info", 200)


def test_a_line_has_the_members_that_it_has_at_home() -> None:
    record = RequestRecord(**CHARGED)
    line = logging.makeLogRecord(
        {
            "name": log.name,
            "levelname": "INFO",
            "msg": "request",
            "created": 1.5,
            "msecs": 500.0,
            "fields": record.fields(),
            "record": record,
        }
    )
    home, cloud = json.loads(JsonLines().format(line)), json.loads(Lines("KimiGateway", "s").format(line))
    assert list(home)[:3] == list(cloud)[:3]
    assert {name: cloud[name] for name in home} == home
    assert set(cloud) - set(home) <= {"service", "_aws", *UNITS}


def test_upstream_failures_are_counted_by_cause_and_the_request_by_its_reason(
    written: list[dict[str, Any]],
) -> None:
    with InProcess() as gateway:
        gateway.client.answer = lambda sent: told(error("incorrect_api_key_error", "no"), 401)
        assert gateway.chat(gateway.key(), {}).status == 503
    attempt = next(line for line in written if line["event"] == "attempt_failed")
    assert values(attempt) == values(attempt, "cause") == {"UpstreamFailures": 1}
    assert attempt["cause"] == "authentication"
    request = next(line for line in written if line["event"] == "request")
    assert values(request)["Failures"] == 1
    assert values(request, "reason") == {"Failures": 1}
    assert request["reason"] == "upstream_authentication"


def test_lines_hold_no_prompt_no_answer_and_no_secret(written: list[dict[str, Any]]) -> None:
    with InProcess() as gateway:
        key = gateway.key()
        gateway.chat(key, {"messages": [{"role": "user", "content": "a very private question"}]})
        gateway.call("GET", f"/v1/models/{key}", key=key)
    text = json.dumps(written)
    assert "private" not in text
    assert key not in text
    assert len([line for line in written if line["event"] == "request"]) == 2


PROGRAM = """
import logging
from kimi_gateway.edge.aws.cloudwatch import to_cloudwatch
from kimi_gateway.observe import emit, log
to_cloudwatch("info", {"POWERTOOLS_SERVICE_NAME": "stack", "POWERTOOLS_METRICS_NAMESPACE": "KimiGateway"})
emit("store_down", logging.ERROR, step="admit", detail="Bearer abcdefgh")
emit("unseen", logging.DEBUG)
logging.getLogger("some.library").warning("careful with %s", "sk-kg-0123456789abcdef")
try:
    raise ValueError("with sk-kg-0123456789abcdef \\ud800")
except ValueError:
    log.exception("crash", extra={"fields": {"id": "req_1"}})
"""


def test_every_line_of_a_program_goes_to_stdout_once_redacted_and_as_json() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    down, library, crash = map(json.loads, done.stdout.splitlines())
    assert (down["event"], down["step"], down["detail"], down["level"]) == (
        "store_down", "admit", "[redacted]", "error",
    )  # fmt: skip
    assert values(down) == {"StoreDown": 1}
    assert library["event"] == "careful with [redacted]"
    assert "_aws" not in library
    assert crash["id"] == "req_1"
    assert "[redacted]" in crash["traceback"]
    assert "sk-kg-0123" not in done.stdout
