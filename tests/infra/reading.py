"""A transformed template as tests ask about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support import api_gateway

BUFFERED_LIMIT = 29_000  # ms that API Gateway waits where an integration names nothing
ANY = "x-amazon-apigateway-any-method"


@dataclass(frozen=True)
class Integration:
    """One method of one path of the API, and the function behind it."""

    method: str
    path: str
    function: str
    streamed_mode: bool
    streaming_uri: bool
    timeout: int


def resources(template: Any, kind: str) -> dict[str, Any]:
    return {
        name: resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def decided(part: Any, holds: bool) -> Any:
    """With its Fn::If decided: all conditions hold, or none; what is then AWS::NoValue is left out."""
    if isinstance(part, list):
        return [each for each in (decided(each, holds) for each in part) if each is not None]
    if not isinstance(part, dict):
        return part
    if set(part) == {"Fn::If"}:
        chosen = part["Fn::If"][1 if holds else 2]
        return None if chosen == {"Ref": "AWS::NoValue"} else decided(chosen, holds)
    kept = {name: decided(each, holds) for name, each in part.items()}
    return {name: each for name, each in kept.items() if each is not None or part[name] is None}


def integrations(template: Any, admin: bool = True) -> list[Integration]:
    """With the operator's API, or as they are without a word from the operator."""
    (api,) = resources(template, "AWS::ApiGateway::RestApi").values()
    return [
        _integration(
            "ANY" if method == ANY else method.upper(), path, spec["x-amazon-apigateway-integration"]
        )
        for path, methods in decided(api["Body"]["paths"], admin).items()
        for method, spec in methods.items()
    ]


def _integration(method: str, path: str, spec: dict[str, Any]) -> Integration:
    assert (spec["type"], spec["httpMethod"]) == ("aws_proxy", "POST")
    uri = spec["uri"]["Fn::Sub"]
    found = re.search(r"/functions/\$\{(\w+)\.Arn\}/(invocations|response-streaming-invocations)$", uri)
    assert found is not None, uri
    return Integration(
        method, path, found[1], spec.get("responseTransferMode") == "STREAM",
        found[2] == "response-streaming-invocations", spec.get("timeoutInMillis", BUFFERED_LIMIT),
    )  # fmt: skip


def chosen(template: Any, method: str, path: str, admin: bool = True) -> Integration:
    """The integration that API Gateway takes: an exact path, else one with a parameter, else the longest
    greedy one; a method by name before ANY. It stays with the path once that is chosen."""
    table: dict[str, dict[str, Integration]] = {}
    for each in integrations(template, admin):
        table.setdefault(each.path, {})[each.method] = each
    greedy = sorted((each for each in table if each.endswith("+}")), key=len, reverse=True)
    fitting = [each for each in greedy if path.startswith(each[: each.index("{")])]
    parts = path.split("/")
    named = [each for each in table if "{" in each and "+}" not in each and _fits(each.split("/"), parts)]
    place = table[path] if path in table else table[(named or fitting)[0]]
    return place[method] if method in place else place["ANY"]


def _fits(pattern: list[str], parts: list[str]) -> bool:
    pairs = zip(pattern, parts, strict=False)
    return len(pattern) == len(parts) and all(
        one == part or (one.startswith("{") and part) for one, part in pairs
    )


def gateway_response(template: Any, kind: str) -> api_gateway.Answered:
    """What API Gateway answers by itself, without what it puts in at the time of asking."""
    (api,) = resources(template, "AWS::ApiGateway::RestApi").values()
    told = api["Body"]["x-amazon-apigateway-gateway-responses"][kind]
    headers = [
        (name.removeprefix("gatewayresponse.header."), value.strip("'"))
        for name, value in told["responseParameters"].items()
        if value.startswith("'")
    ]
    body = told["responseTemplates"]["application/json"].encode()
    return api_gateway.Answered(
        int(told["statusCode"]), [*headers, ("content-type", "application/json")], body
    )


def statements(template: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each statement of each role's own policies."""
    for name, role in resources(template, "AWS::IAM::Role").items():
        for policy in role.get("Policies", ()):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
