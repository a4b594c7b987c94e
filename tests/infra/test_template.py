"""What the SAM transform makes of template.yaml: paths, permissions, limits, and what is kept."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.conftest import Sam
from infra.reading import chosen, integrations, listed, resources, statements
from kimi_gateway.edge.aws.scheduled import SweepingFunction
from kimi_gateway.edge.router import Access, Route
from kimi_gateway.edge.routes import routes
from kimi_gateway.flow.ask import Gateway
from kimi_gateway.storage.dynamodb.outages import TTL
from support import ROOT
from support.dynamo import KEYS

FUNCTIONS = {"Chat", "Models", "Files", "Users", "Admin", "TokenCheck", "Pages", "Account"}
PREFIXES = ("", "/api")


class Anything:
    def __getattr__(self, name: str) -> Anything:
        return self


def table() -> tuple[Route, ...]:
    return routes(Anything(), Anything())  # type: ignore[arg-type]


def asks_a_model(route: Route) -> bool:
    """What may stream: the routes of the dialects, which all enter through `Gateway.ask`."""
    return isinstance(route.endpoint, partial) and route.endpoint.func is Gateway.ask


def places(route: Route) -> list[str]:
    """Every path that it is served at. Pages in the cloud have no other prefix than the stage."""
    if route.access is Access.PAGE:
        return [route.path]
    own = (route.path, *getattr(route, "aliases", ()))
    return [prefix + path for prefix in PREFIXES for path in own]


def reached(template: Any, route: Route) -> str:
    """The function behind it."""
    return chosen(template, route.method, route.path.replace("{model+}", "kimi/k3")).function


def test_sam_and_cfn_lint_find_nothing(sam: Sam) -> None:
    done = sam("sam", "validate", "--lint", "--template-file", "template.yaml")
    assert (done.returncode, "valid SAM Template" in done.stdout) == (0, True), done.stdout + done.stderr
    linted = sam("cfn-lint", "infra/alarms.yaml")  # which SAM does not take for a template of its own
    assert (linted.returncode, linted.stdout) == (0, ""), linted.stdout


def test_exactly_the_routes_that_ask_a_model_stream(template: Any) -> None:
    wanted = {(route.method, path) for route in table() if asks_a_model(route) for path in places(route)}
    assert wanted
    found = integrations(template)
    assert {(each.method, each.path) for each in found if each.streaming_uri} == wanted
    assert [each for each in found if each.streaming_uri != each.streamed_mode] == []
    assert {each.function for each in found if each.streaming_uri} == {"Chat"}


@pytest.mark.parametrize("route", table(), ids=lambda route: route.path)
def test_every_route_reaches_the_function_that_is_meant_for_it(template: Any, route: Route) -> None:
    meant = {"/v1/models": "Models", "/v1/models/{model+}": "Models", "/token/check": "TokenCheck"}
    files = ("/v1/files", "/v1/files/uploads", "/v1/files/{file}", "/v1/files/{file}/content")
    batches = ("/v1/batches", "/v1/batches/{batch}", "/v1/batches/{batch}/cancel")
    meant |= {path: "Files" for path in (*files, *batches)}
    users = ("/user/register", "/user/keys", "/user/keys/{key}", "/webhooks/payment")
    meant |= {path: "Users" for path in users}
    meant |= {path: "Pages" for path in ("/", "/my-credits", "/admin", "/pages/{file+}")}
    operators = route.access is Access.OPERATOR
    wanted = "Admin" if operators else meant.get(route.path, "Chat" if asks_a_model(route) else "Account")
    for place in places(route):
        path = place.replace("{model+}", "kimi/k3")
        found = chosen(template, route.method, path)
        assert found.function == wanted
        users = re.sub(r"/user/(credits|usage|status)$", "/user/{proxy+}", place)
        below = place[: place.index("/admin/")] + "/admin/{proxy+}" if operators else users
        assert found.path == below, "it hangs on the fallback"
        assert not chosen(template, "OPTIONS", path).streaming_uri


def test_the_operators_api_is_there_only_if_the_operator_says_so(raw: Any, template: Any) -> None:
    """Else its paths are unknown ones, and neither its function nor its rights exist."""
    assert raw["raw"]["Parameters"]["AdminApi"]["Default"] == "off"
    assert raw["raw"]["Conditions"]["HasAdmin"] == {"Fn::Equals": [{"Ref": "AdminApi"}, "on"]}
    operators = [route for route in table() if route.access is Access.OPERATOR]
    assert operators
    for route in operators:
        for place in places(route):
            assert chosen(template, route.method, place, admin=False).path == "/{proxy+}"
    conditional = {
        name for name, each in template["Resources"].items() if each.get("Condition") == "HasAdmin"
    }
    permissions = {"AdminAdminPermissionlive", "AdminApiAdminPermissionlive"}
    assert conditional == {"Admin", "AdminRole", "AdminLogs", *permissions}
    given = {
        name: each["Environment"]["Variables"].get("KIMI_GATEWAY_ADMIN")
        for name, each in resources(template, "AWS::Lambda::Function").items()
    }
    assert {name for name, value in given.items() if value} == {"Admin"}


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/v1/chat", "/api/v1/chat/completions/more"])
def test_unknown_paths_reach_the_gateway_and_its_own_404(template: Any, path: str) -> None:
    assert chosen(template, "GET", path).function == "Account"


def test_no_function_outlives_the_integration_that_waits_for_it(template: Any) -> None:
    functions = resources(template, "AWS::Lambda::Function")
    assert (set(functions), functions["Files"]["Timeout"]) == (FUNCTIONS, 900)
    for each in integrations(template):
        seconds = {"Files": SweepingFunction.longest}.get(each.function, functions[each.function]["Timeout"])
        longest = 900_000 if each.streaming_uri else 29_000  # API Gateway's own
        assert seconds * 1000 <= each.timeout <= longest, each
    chat = functions["Chat"]["Environment"]["Variables"]
    assert int(chat["KIMI_GATEWAY_MAX_REQUEST"]) < functions["Chat"]["Timeout"] - 2
    assert int(chat["KIMI_GATEWAY_LEASE"]) >= int(chat["KIMI_GATEWAY_MAX_REQUEST"]) + 60


def test_api_gateway_may_invoke_what_its_paths_name_and_nobody_else(template: Any) -> None:
    granted = set()
    for permission in resources(template, "AWS::Lambda::Permission").values():
        if permission["Principal"] == "events.amazonaws.com":
            assert permission["FunctionName"] == {"Ref": "Files"}
            assert permission["SourceArn"] == {"Fn::GetAtt": ["FilesSweep", "Arn"]}
            continue
        assert (permission["Action"], permission["Principal"]) == (
            "lambda:InvokeFunction", "apigateway.amazonaws.com",
        )  # fmt: skip
        text, names = permission["SourceArn"]["Fn::Sub"]
        assert names["__ApiId__"] == {"Ref": "Api"}
        method, path = text.split("${__Stage__}/")[1].split("/", 1)
        granted.add((permission["FunctionName"]["Ref"], method, path))
    for each in integrations(template):
        method = "*" if each.method == "ANY" else each.method
        path = each.path.strip("/")
        path = path[: path.index("{")] + "*" if "{" in path else path
        assert (each.function, method, path) in granted, each


def test_a_functions_permissions_fit_into_its_policy(template: Any) -> None:
    """Lambda takes 20 KB of them for one function."""
    sizes: dict[str, int] = {}
    for permission in resources(template, "AWS::Lambda::Permission").values():
        text, _ = permission["SourceArn"].get("Fn::Sub", ("", None))
        around = 420  # bytes of a statement besides, with long names of stack and function
        name = permission["FunctionName"]["Ref"]
        sizes[name] = sizes.get(name, 0) + around + len(text)
    assert max(sizes.values()) < 20 * 1024, sizes


def test_functions_are_one_artefact_on_arm_with_the_interpreter_that_it_was_built_for(
    template: Any,
) -> None:
    for name, function in resources(template, "AWS::Lambda::Function").items():
        assert function["Code"] == {"S3Bucket": "file", "S3Key": "build/bundle"}, name
        assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
        assert function["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"] == "/var/task/stream"


def test_each_function_has_a_role_of_its_own_and_no_role_a_wildcard(template: Any) -> None:
    functions = resources(template, "AWS::Lambda::Function")
    roles = [function["Role"]["Fn::GetAtt"][0] for function in functions.values()]
    assert len(set(roles)) == len(functions)
    for role in roles:
        assert "ManagedPolicyArns" not in template["Resources"][role]["Properties"]
    objects = {"Fn::Sub": "${Uploads.Arn}/*"}  # of one bucket; S3 knows no other way to name them all
    for role, statement in statements(template):
        resource = "" if statement["Resource"] == objects else statement["Resource"]
        assert "*" not in json.dumps([statement["Action"], resource]), role
        assert (
            {"Effect", "Action", "Resource"}
            <= set(statement)
            <= {"Effect", "Action", "Resource", "Condition"}
        )


def test_a_function_may_write_its_own_log_and_use_one_table_and_one_secret(template: Any) -> None:
    allowed: dict[str, dict[str, Any]] = {}
    for role, statement in statements(template):
        for action in listed(statement["Action"]):
            allowed.setdefault(role, {})[action] = statement["Resource"]
    for name, function in resources(template, "AWS::Lambda::Function").items():
        role = allowed[function["Role"]["Fn::GetAtt"][0]]
        log = function["LoggingConfig"]["LogGroup"]["Ref"]
        assert role["logs:PutLogEvents"] == role["logs:CreateLogStream"] == {"Fn::GetAtt": [log, "Arn"]}
        if name == "Pages":
            assert set(role) == {"logs:PutLogEvents", "logs:CreateLogStream"}
            continue
        assert role["secretsmanager:GetSecretValue"] == {"Ref": "Secret"}
        tables = [role[action] for action in role if action.startswith("dynamodb:")]
        assert tables
        assert all(each == {"Fn::GetAtt": ["Table", "Arn"]} for each in tables)
        services = {action.partition(":")[0] for action in role}
        assert services == {"logs", "secretsmanager", "dynamodb"} | ({"s3"} if name == "Files" else set())


def test_only_files_reaches_the_bucket_which_is_private_and_keeps_nothing(raw: Any, template: Any) -> None:
    ((name, bucket),) = resources(template, "AWS::S3::Bucket").items()
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", {"Ref": "UploadDays"})
    assert raw["raw"]["Parameters"]["UploadDays"]["Default"] == 1
    told = {
        function: each["Environment"]["Variables"].get("KIMI_GATEWAY_UPLOADS")
        for function, each in resources(template, "AWS::Lambda::Function").items()
    }
    assert {function for function, value in told.items() if value} == {"Files"}
    assert told["Files"] == {"Ref": name}
    (allowed,) = [each for _, each in statements(template) if "s3:" in json.dumps(each["Action"])]
    assert set(allowed["Action"]) == {"s3:PutObject", "s3:GetObject", "s3:DeleteObject"}


def test_every_handler_is_there_and_streams_where_its_integration_does(template: Any) -> None:
    streaming = {each.function for each in integrations(template) if each.streaming_uri}
    chats = {route.path for route in table() if asks_a_model(route)}
    for name, function in resources(template, "AWS::Lambda::Function").items():
        module, _, attribute = function["Handler"].rpartition(".")
        source = (ROOT / "functions" / module.replace(".", "/")).with_suffix(".py").read_text("utf-8")
        assert re.search(rf"^{attribute} = (Sweeping|Pages)?Function\(", source, re.M), name
        assert ("streamed=True" in source) == (name in streaming), name
        # A function without paths serves all but what it names; another what API Gateway sends it.
        served = set(re.findall(r'"(/[^"]*)"', source))
        sent = {route.path for route in table() if reached(template, route) == name}
        assert served == (chats if name == "Account" else sent), name
    assert os.access(ROOT / "functions" / "stream", os.X_OK)


def test_logs_are_kept_as_long_as_the_operator_says(template: Any) -> None:
    groups = resources(template, "AWS::Logs::LogGroup")
    assert len(groups) == len(FUNCTIONS) + 1
    assert {json.dumps(group["RetentionInDays"]) for group in groups.values()} == {'{"Ref": "LogRetention"}'}
    logs = {
        f["LoggingConfig"]["LogGroup"]["Ref"] for f in resources(template, "AWS::Lambda::Function").values()
    }
    assert len(logs) == len(FUNCTIONS)


def test_the_table_and_the_secret_stay_when_the_stack_goes(raw: Any, template: Any) -> None:
    for name in ("Table", "Secret"):
        kept = template["Resources"][name]
        # What a first deployment made before it failed is not kept: the next one would find no use for it.
        assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    table = template["Resources"]["Table"]["Properties"]
    assert table["DeletionProtectionEnabled"] == {"Ref": "TableProtection"}
    assert raw["raw"]["Parameters"]["TableProtection"]["Default"] == "true"
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["TimeToLiveSpecification"] == {"AttributeName": TTL, "Enabled": True}
    assert {name: table[name] for name in KEYS} == KEYS  # what the store's tests run on


def test_nothing_that_only_sam_knows_is_left(template: Any) -> None:
    assert "Transform" not in template
    assert "AWS::Serverless" not in json.dumps(template)
    assert "Api.Stage" not in json.dumps(template)
    assert template["Rules"]["DomainNeedsCertificate"]


def test_samconfig_names_parameters_that_the_template_has(raw: Any) -> None:
    import tomllib

    config = tomllib.loads((ROOT / "samconfig.toml").read_text("utf-8"))
    known = set(raw["raw"]["Parameters"])
    for profile in ("default", "dev", "prod"):
        deploy = config[profile]["deploy"]["parameters"]
        # The roles, and the nested stack in a template with a transform; --guided offers these.
        assert deploy["capabilities"] == ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
        assert deploy["resolve_s3"] is True
        assert deploy["stack_name"].startswith("kimi-gateway")
        given = {word.partition("=")[0] for word in deploy["parameter_overrides"]}
        assert given <= known


def test_no_template_names_a_file_that_is_not_there(raw: Any) -> None:
    nested = raw["raw"]["Resources"]["Alarms"]["Properties"]["TemplateURL"]
    assert (ROOT / Path(nested)).is_file()
