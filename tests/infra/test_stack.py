"""A deployed gateway from the first command to the bill: the stack on moto, the command line with boto3,
functions from the built artefact with the environment that the stack resolved, an upstream."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result

from infra.cloud import STACK, Cloud, deployed
from infra.conftest import Package
from infra.endpoint import Endpoint
from infra.operating import PLAIN, logged, operated
from infra.reading import integrations
from support import ROOT, sdks
from support.live import HELLO
from upstream import Gated, Kimi, ScriptedUpstream

TOKEN = "sk-upstream-of-the-stack"
Command = Callable[..., Result]


@pytest.fixture(scope="module")
def endpoint(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with Endpoint(package.template, tmp_path_factory.mktemp("functions")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def cloud(package: Package, endpoint: Endpoint, module_upstream: ScriptedUpstream) -> Iterator[Cloud]:
    chosen = {"BaseUrl": module_upstream.url, "AdminApi": "on", "Packages": "trial=70/2m"}
    with deployed(package.url, package.template, endpoint.url, **chosen) as endpoint.cloud:
        yield endpoint.cloud


@pytest.fixture(scope="module")
def command(cloud: Cloud) -> Command:
    return cloud.command


@pytest.fixture(scope="module")
def ask(command: Command) -> Callable[..., Any]:
    def run(*words: str, typed: str = "") -> Any:
        done = command(*words, "--json", typed=typed)
        assert (done.exit_code, done.stderr) == (0, ""), done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def first(ask: Callable[..., Any]) -> Any:
    """What the deployment says at its end."""
    return ask("hello")


@pytest.fixture(scope="module")
def tokens(first: Any, ask: Callable[..., Any]) -> Any:
    return ask("tokens", "add", typed=TOKEN)


def test_a_new_stack_tells_its_address_and_shows_its_first_key_once(
    first: Any, endpoint: Endpoint, command: Command
) -> None:
    assert first["url"] == endpoint.url
    assert first["key"].startswith("sk-kg-")
    again = command("hello")
    assert again.exit_code == 0
    assert endpoint.url in again.stdout
    assert "sk-kg-" not in again.stdout


def test_tokens_are_kept_in_the_secret_and_taken_out_of_it(
    tokens: Any, ask: Callable[..., Any], cloud: Cloud
) -> None:
    assert tokens["effective"] is True
    known = ask("tokens", "list")
    assert [known["source"], *[each["source"] for each in known["tokens"]]] == ["secret", "secret"]
    other = ask("tokens", "add", "sk-second-upstream-token")["tokens"][0]["id"]

    def kept() -> Any:
        secret = cloud.client("secretsmanager").get_secret_value(SecretId=cloud.outputs["SecretArn"])
        return json.loads(secret["SecretString"])

    assert kept() == [TOKEN, "sk-second-upstream-token"]
    assert ask("tokens", "remove", other) == {"id": other, "removed": True}
    assert kept() == [TOKEN]


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"SecretBinary": b"\x00"}, "The secret holds no text."),
        ({"SecretString": "[1]"}, "The secret is not JSON with lists of tokens."),
    ],
)
def test_a_secret_that_holds_no_tokens_is_reported_and_left_as_it_is(
    tokens: Any, command: Command, cloud: Cloud, spoilt: dict[str, Any], says: str
) -> None:
    secrets, id = cloud.client("secretsmanager"), cloud.outputs["SecretArn"]
    secrets.put_secret_value(SecretId=id, **spoilt)
    try:
        done = command("tokens", "add", "--json", typed="sk-another-upstream-token")
        error = json.loads(done.stderr)["error"]
        assert (done.exit_code, error["code"], error["message"]) == (1, "tokens_secret", says)
        kept = secrets.get_secret_value(SecretId=id)
        assert {name: kept[name] for name in spoilt} == spoilt
    finally:
        secrets.put_secret_value(SecretId=id, SecretString=json.dumps([TOKEN]))


def test_a_chat_streams_is_charged_and_shows_in_the_usage(
    tokens: Any, ask: Callable[..., Any], endpoint: Endpoint, upstream: ScriptedUpstream
) -> None:
    made = ask("keys", "create", "--name", "alice", "--credits", "5")
    client = sdks.openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key=made["key"], max_retries=0)
    with client:
        answer = client.chat.completions.create(model="kimi-k3", messages=HELLO, stream=True)  # type: ignore[call-overload]
        said = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    assert said
    assert [request.token for request in upstream.chats] == [TOKEN]
    assert endpoint.served[-1].streaming_uri

    shown = ask("accounts", "show", made["account"])
    assert [shown[name] for name in ("credits", "reserved", "consumed")] == [4, 0, 1]
    usage = ask("usage", "--account", made["account"], "--by", "model")
    assert [(row["model"], row["credits"]) for row in usage["rows"]] == [("kimi-k3", 1)]


def test_content_arrives_while_the_upstream_has_more(
    tokens: Any, first: Any, endpoint: Endpoint, upstream: ScriptedUpstream
) -> None:
    gate = Gated(Kimi(text="one two three four"))
    upstream.plan(gate)
    body = {"model": "kimi-k3", "messages": HELLO, "stream": True}
    url, headers = f"{endpoint.url}/v1/chat/completions", {"authorization": f"Bearer {first['key']}"}
    gate.let(3)
    with httpx.stream("POST", url, json=body, headers=headers, **PLAIN) as answer:
        lines = answer.iter_lines()
        seen = next(line for line in lines if re.search(r'content": ?"[^"]', line))
        assert gate.sent == 3, "the first content came with all the rest"
        gate.let(1000)
        rest = list(lines)
    assert seen.startswith("data: ")
    assert rest[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize("stream", [True, False])
def test_a_compressed_body_is_taken(
    tokens: Any, first: Any, endpoint: Endpoint, upstream: ScriptedUpstream, stream: bool
) -> None:
    """API Gateway unpacks it and leaves its header, as far as its guide tells."""
    body = gzip.compress(json.dumps({"model": "kimi-k3", "messages": HELLO, "stream": stream}).encode())
    headers = {"authorization": f"Bearer {first['key']}", "content-encoding": "gzip"}
    url = f"{endpoint.url}/v1/chat/completions"
    assert httpx.post(url, content=body, headers=headers, **PLAIN).status_code == 200
    assert upstream.chats[-1].body["messages"] == HELLO


def test_a_body_that_lambda_does_not_take_is_413_with_what_to_do(first: Any, endpoint: Endpoint) -> None:
    body = {"model": "kimi-k3", "messages": [{"role": "user", "content": "x" * 6_300_000}]}
    headers = {"authorization": f"Bearer {first['key']}"}
    answer = httpx.post(f"{endpoint.url}/v1/messages", json=body, headers=headers, **PLAIN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "Send fewer or smaller images" in answer.json()["error"]["message"]


def test_the_functions_line_carries_the_metrics_and_no_secret(
    tokens: Any, ask: Callable[..., Any], endpoint: Endpoint, upstream: ScriptedUpstream
) -> None:
    made = ask("keys", "create", "--credits", "5")
    body = {"model": "kimi-k3", "messages": [{"role": "user", "content": "a very private question"}]}
    headers = {"authorization": f"Bearer {made['key']}", "x-request-id": "look-for-me"}
    answer = httpx.post(f"{endpoint.url}/api/v1/chat/completions", json=body, headers=headers, **PLAIN)
    assert answer.status_code == 200, answer.text

    found = logged(endpoint, "look-for-me")
    assert (found["service"], found["Credits"], found["Requests"]) == (STACK, [1.0], [1.0])
    assert found["CostUSD"][0] > 0
    assert found["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "KimiGateway"
    text = endpoint.log("Chat")
    for secret in (made["key"], TOKEN, "private"):
        assert secret not in text


@pytest.mark.parametrize(
    ("method", "path", "status", "function"),
    [
        ("GET", "/v1/models", 200, "Models"),
        ("HEAD", "/api/v1/models", 200, "Models"),
        ("GET", "/v1/models/kimi-k3", 200, "Models"),
        ("DELETE", "/v1/models", 405, "Models"),
        ("POST", "/token/check", 200, "TokenCheck"),
        ("GET", "/user/credits", 200, "Account"),
        ("GET", "/v1/files", 200, "Files"),
        ("GET", "/user/keys", 200, "Users"),
        ("GET", "/my-credits", 200, "Pages"),
        ("POST", "/user/register", 404, "Users"),
        ("GET", "/admin/accounts", 403, "Admin"),
        ("GET", "/api/admin/nowhere", 404, "Admin"),
        ("GET", "/v1/chat/completions", 405, "Account"),
        ("OPTIONS", "/v1/chat/completions", 204, "Account"),
        ("POST", "/v1/chat/completions/", 404, "Account"),
        ("GET", "/v1/nowhere", 404, "Account"),
    ],
)
def test_every_function_answers_what_api_gateway_gives_it(
    tokens: Any, first: Any, endpoint: Endpoint, method: str, path: str, status: int, function: str
) -> None:
    headers = {"authorization": f"Bearer {first['key']}", "content-type": "application/json"}
    body = json.dumps({"token": TOKEN}).encode() if method == "POST" else b""
    answer = httpx.request(method, endpoint.url + path, headers=headers, content=body, **PLAIN)
    assert (answer.status_code, endpoint.served[-1].function) == (status, function), answer.text
    foreign = None if path in ("/token/check", "/user/register") else "*"
    assert answer.headers.get("access-control-allow-origin") == foreign
    if status == 405:
        assert "OPTIONS" in answer.headers["allow"]


def test_the_operators_api_works_from_an_account_to_its_end(
    tokens: Any, ask: Callable[..., Any], endpoint: Endpoint
) -> None:
    operator = ask("keys", "create", "--role", "operator")
    assert TOKEN not in operated(endpoint.url, operator["key"])
    assert {each.function for each in endpoint.served[-8:]} == {"Admin", "Chat"}
    assert ask("accounts", "grant", operator["account"], "--package", "trial")["credits"] == 170


def test_the_doctor_finds_a_deployed_gateway_well(tokens: Any, ask: Callable[..., Any]) -> None:
    document = ask("doctor")
    assert document["ok"]
    checks = {(each["name"], each["status"]) for each in document["checks"]}
    assert checks == {(name, "ok") for name in ("stack", "table", "keys", "token", "health")}


def test_a_revoked_key_ends_at_once(tokens: Any, ask: Callable[..., Any], endpoint: Endpoint) -> None:
    made = ask("keys", "create", "--credits", "5")
    headers = {"authorization": f"Bearer {made['key']}"}
    body = {"model": "kimi-k3", "messages": HELLO}
    url = f"{endpoint.url}/v1/chat/completions"
    assert httpx.post(url, json=body, headers=headers, **PLAIN).status_code == 200
    check = {"url": f"{endpoint.url}/token/check", "json": {"token": made["key"]}, **PLAIN}
    assert httpx.post(**check).json() == {"live": True}
    ask("keys", "revoke", made["id"])
    assert httpx.post(url, json=body, headers=headers, **PLAIN).status_code == 401
    assert httpx.post(**check).json() == {"live": False}


@pytest.mark.parametrize(
    ("stack", "environ", "code", "exit_code", "says"),
    [
        ("no-such-stack", {}, "not_found", 3, "no stack no-such-stack in us-east-1"),
        (STACK, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no_credentials", 2, "aws configure"),
        (STACK, {"AWS_REGION": ""}, "no_region", 2, "AWS_REGION"),
        (STACK, {"AWS_PROFILE": "nobody"}, "aws", 1, "nobody"),
        (STACK, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}, "aws", 1, "127.0.0.1:9"),
    ],
)
def test_what_is_missing_is_named(
    command: Command,
    tmp_path: Path,
    stack: str,
    environ: dict[str, str],
    code: str,
    exit_code: int,
    says: str,
) -> None:
    nothing = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    done = command("keys", "list", "--json", stack=stack, **nothing, **environ)
    error = json.loads(done.stderr)["error"]
    assert (done.exit_code, error["code"]) == (exit_code, code), error
    assert says in error["message"]


def test_without_boto3_the_way_to_it_is_shown(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "boto3.py").write_text("raise ImportError\n")
    environ = cloud.environ | {"PYTHONPATH": str(tmp_path)}
    program = [sys.executable, "-m", "kimi_gateway.cli", "--stack", STACK, "keys", "list"]
    done = subprocess.run(program, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert "scripts/setup cloud" in done.stderr


@pytest.mark.parametrize("words", [("serve",), ("backup", "file")])
def test_what_only_home_has_is_refused(command: Command, words: tuple[str, ...]) -> None:
    assert (done := command(*words)).exit_code == 2
    assert "without --stack" in done.stderr


def test_deploying_builds_then_deploys_then_tells_the_address(
    first: Any, cloud: Cloud, endpoint: Endpoint, tmp_path: Path
) -> None:
    """SAM, which needs AWS, is the one that is doubled: it writes down how it was called."""
    for name in ("scripts/deploy", "samconfig.toml", "template.yaml", "infra/deploy.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    for name in ("scripts/setup", ".venv-sam/bin/sam"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> log\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")

    def deploy(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(tmp_path / "scripts" / "deploy"), *words]
        return subprocess.run(command, env=cloud.environ, capture_output=True, text=True)

    done = deploy("dev", "--stack-name", STACK, "--no-confirm-changeset")
    assert done.returncode == 0, done.stderr
    assert f"Kimi Gateway on {endpoint.url}" in done.stdout
    *before, deployed = [line.strip() for line in (tmp_path / "log").read_text().splitlines()]
    assert before == ["scripts/setup cloud", "scripts/setup sam", ".venv-sam/bin/sam build"]
    assert (
        deployed == f".venv-sam/bin/sam deploy --config-env dev --stack-name {STACK} --no-confirm-changeset"
    )
    assert "no profile 'test'" in deploy("test").stderr
    assert "no stack kimi-gateway in us-east-1" in deploy().stderr
    elsewhere = deploy("dev", "--region=eu-west-1", "--stack-name", STACK)
    assert f"no stack {STACK} in eu-west-1" in elsewhere.stderr


def test_the_table_is_made_as_the_template_says(cloud: Cloud) -> None:
    name = cloud.outputs["TableName"]
    table = cloud.client("dynamodb").describe_table(TableName=name)["Table"]
    assert str(table["DeletionProtectionEnabled"]).lower() == "true"
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"]
    for each in ("Chat", "Models", "TokenCheck", "Account"):
        environ = cloud.function(each)["Environment"]["Variables"]
        assert environ["KIMI_GATEWAY_TABLE"] == name


def test_every_integration_of_the_template_was_met(endpoint: Endpoint) -> None:
    met = {each.function for each in endpoint.served}
    assert met == {each.function for each in integrations(endpoint.template)}


def test_no_function_asked_the_table_for_more_than_its_role_allows(endpoint: Endpoint) -> None:
    assert endpoint.guard.denied == []
    asking = {"Chat", "Models", "TokenCheck", "Account", "Files", "Users", "Admin"}
    assert {each for each, _ in endpoint.guard.passed} == asking
