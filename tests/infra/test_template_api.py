"""What the operator decides about the API, and what API Gateway answers, counts and logs by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.reading import decided, integrations, resources
from kimi_gateway.dialects import errors as dialect_errors
from kimi_gateway.errors import BodyTooLarge, GatewayError, NotFound, RateLimited, Unavailable
from support import ROOT

TOO_LARGE = (
    "The request body is larger than the 6 MB that this gateway takes on AWS."
    " Send fewer or smaller images, or a shorter conversation;"
    " name a larger file by an https address, or send it by POST /v1/files/uploads."
)


def test_the_api_is_regional_throttled_and_logs_without_what_is_private(template: Any) -> None:
    (api,) = resources(template, "AWS::ApiGateway::RestApi").values()
    assert api["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    (stage,) = resources(template, "AWS::ApiGateway::Stage").values()
    (method,) = stage["MethodSettings"]
    assert method["ThrottlingRateLimit"] == {"Ref": "ThrottleRate"}
    assert method["ThrottlingBurstLimit"] == {"Ref": "ThrottleBurst"}
    assert not method.get("DataTraceEnabled")
    line = json.loads(stage["AccessLogSetting"]["Fn::If"][1]["Format"])
    assert line == {
        "id": "$context.requestId",
        "ip": "$context.identity.sourceIp",
        "method": "$context.httpMethod",
        "path": "$context.path",
        "status": "$context.status",
        "bytes": "$context.responseLength",
        "ms": "$context.responseLatency",
        "error": "$context.error.responseType",
        "mode": "$context.integration.responseTransferMode",
        "content_ms": "$context.integration.timeToFirstContent",
        "integration_status": "$context.integration.status",
        "integration_error": "$context.integration.error",
    }


def test_the_throttle_is_said_to_be_each_methods(raw: Any, template: Any) -> None:
    """API Gateway counts a stage's limit by method, so that all together may take so many times as much."""
    methods = len(integrations(template))
    text = raw["raw"]["Parameters"]["ThrottleRate"]["Description"]
    assert f"each of the {methods} methods" in text
    page = " ".join((ROOT / "docs" / "operations.md").read_text("utf-8").split())
    rate = raw["raw"]["Parameters"]["ThrottleRate"]["Default"]
    assert f"{methods} methods, so {methods * rate} requests a second" in page


def test_a_bound_of_concurrency_is_the_operators_choice(raw: Any, template: Any) -> None:
    given = {
        name: function["ReservedConcurrentExecutions"]
        for name, function in resources(template, "AWS::Lambda::Function").items()
        if "ReservedConcurrentExecutions" in function
    }
    none = {"Ref": "AWS::NoValue"}
    assert given == {
        "TokenCheck": {"Fn::If": ["HasTokenCheckConcurrency", {"Ref": "TokenCheckConcurrency"}, none]},
        "Models": {"Fn::If": ["HasBufferedConcurrency", {"Ref": "BufferedConcurrency"}, none]},
        "Files": {"Fn::If": ["HasBufferedConcurrency", {"Ref": "BufferedConcurrency"}, none]},
        "Users": {"Fn::If": ["HasBufferedConcurrency", {"Ref": "BufferedConcurrency"}, none]},
        "Pages": {"Fn::If": ["HasBufferedConcurrency", {"Ref": "BufferedConcurrency"}, none]},
        "Admin": {"Fn::If": ["HasBufferedConcurrency", {"Ref": "BufferedConcurrency"}, none]},
        "Account": {"Fn::If": ["HasBufferedConcurrency", {"Ref": "BufferedConcurrency"}, none]},
    }
    for name in ("TokenCheckConcurrency", "BufferedConcurrency"):
        assert raw["raw"]["Parameters"][name]["Default"] == 0
        assert raw["raw"]["Conditions"][f"Has{name}"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": name}, 0]}]}


def test_traces_are_taken_only_where_they_are_asked_for(raw: Any, template: Any) -> None:
    assert raw["raw"]["Parameters"]["Tracing"]["Default"] == "PassThrough"
    functions = resources(template, "AWS::Lambda::Function").values()
    assert all(function["TracingConfig"] == {"Mode": {"Ref": "Tracing"}} for function in functions)
    (stage,) = resources(template, "AWS::ApiGateway::Stage").values()
    assert stage["TracingEnabled"] == {"Fn::If": ["HasTracing", True, False]}
    traces = template["Resources"]["Traces"]
    assert traces["Condition"] == "HasTracing"
    (statement,) = traces["Properties"]["PolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Action": ["xray:PutTraceSegments", "xray:PutTelemetryRecords"],
        "Resource": "*",  # X-Ray knows no resources for these two
    }
    roles = {function["Role"]["Fn::GetAtt"][0] for function in functions}
    assert {role["Ref"] for role in decided(traces["Properties"]["Roles"], True)} == roles
    assert {role["Ref"] for role in decided(traces["Properties"]["Roles"], False)} == roles - {"AdminRole"}


def test_only_a_body_that_is_too_large_is_told_apart_among_failures_of_an_integration(template: Any) -> None:
    (api,) = resources(template, "AWS::ApiGateway::RestApi").values()
    told = api["Body"]["x-amazon-apigateway-gateway-responses"]
    statuses = {kind: each.get("statusCode") for kind, each in told.items()}
    assert statuses["REQUEST_TOO_LARGE"] == "413"
    assert statuses["DEFAULT_5XX"] == "503"
    assert not {"INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT", "API_CONFIGURATION_ERROR"} & set(statuses)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("DEFAULT_5XX", Unavailable("The gateway is not available at present.")),
        ("MISSING_AUTHENTICATION_TOKEN", NotFound("There is no such path here.")),
        ("REQUEST_TOO_LARGE", BodyTooLarge(TOO_LARGE)),
        ("THROTTLED", RateLimited("The gateway takes no more requests in this second.")),
        ("WAF_FILTERED", RateLimited("Too many requests from this address.")),
    ],
)
def test_what_api_gateway_answers_itself_has_the_gateways_shapes(
    template: Any, kind: str, error: GatewayError
) -> None:
    (api,) = resources(template, "AWS::ApiGateway::RestApi").values()
    answer = api["Body"]["x-amazon-apigateway-gateway-responses"][kind]
    assert answer["statusCode"] == str(error.status)
    body = json.loads(answer["responseTemplates"]["application/json"])
    assert body["error"] == dialect_errors.body(error, "openai")["error"]
    anthropic = dialect_errors.body(error, "anthropic")
    assert (body["type"], body["error"]["message"]) == (anthropic["type"], anthropic["error"]["message"])
    headers = answer["responseParameters"]
    assert headers["gatewayresponse.header.Access-Control-Allow-Origin"] == "'*'"
    assert ("gatewayresponse.header.Retry-After" in headers) == (error.status == 429)


def test_without_a_word_from_the_operator_there_is_no_waf_and_no_domain(raw: Any) -> None:
    defaults = {name: each["Default"] for name, each in raw["raw"]["Parameters"].items()}
    assert (defaults["WafRate"], defaults["DomainName"], defaults["AlarmEmail"]) == (0, "", "")
    optional = {
        name for name, resource in raw["raw"]["Resources"].items()
        if resource.get("Condition") in ("HasWaf", "HasDomain", "HasRecord")
    }  # fmt: skip
    assert optional == {"Waf", "WafOnApi", "Domain", "DomainMapping", "DomainRecord"}
