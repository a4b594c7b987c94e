"""The packaged template created on moto, as far as moto goes, and what a function then finds around it.

Not moto's: secrets and stages of CloudFormation (the secret is made through the API, with the template's
properties; the stage stands by its name), an API's body (asserted in test_template), nested stacks, alarms.
Nothing here proves what AWS does.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from click.testing import CliRunner, Result

from infra.reading import resources
from kimi_gateway.cli import main

REGION = "us-east-1"
STACK = "kimi-gateway-test"
BUCKET = "artefacts"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": REGION}
NOT_MOTOS = (
    "AWS::ApiGateway::Account",
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::Stage",
    "AWS::CloudFormation::Stack",
)


@dataclass(frozen=True)
class Cloud:
    """`session` is of an operator whose AWS is moto at `url`."""

    url: str
    session: boto3.Session

    @classmethod
    def at(cls, url: str) -> Cloud:
        return cls(url, boto3.Session("testing", "testing", region_name=REGION))

    def client(self, service: str) -> Any:
        return self.session.client(service, endpoint_url=self.url)  # type: ignore[call-overload]

    @property
    def credentials(self) -> dict[str, str]:
        """With the address, what a program needs to find it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.url}

    @property
    def environ(self) -> dict[str, str]:
        """The same in an environment without this machine's own settings."""
        hidden = ("AWS_", "KIMI", "MOONSHOT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        own = {name: value for name, value in os.environ.items() if not name.upper().startswith(hidden)}
        return own | self.credentials

    def command(self, *words: str, typed: str = "", stack: str = STACK, **environ: str) -> Result:
        """Without an interpreter of its own, which takes most of a second to load boto3."""
        own = self.environ | environ
        hidden = {name: None for name in os.environ if name not in own}
        done = CliRunner().invoke(main, ["--stack", stack, *words], input=typed, env=hidden | own)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    def function(self, logical: str) -> dict[str, Any]:
        """A function's configuration, by its name in the template, which CloudFormation makes the name of."""
        made = self.client("lambda").list_functions()["Functions"]
        (found,) = [each for each in made if each["FunctionName"].startswith(f"{STACK}-{logical}-")]
        return dict(found)

    @property
    def outputs(self) -> dict[str, str]:
        (stack,) = self.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}


@contextmanager
def deployed(url: str, template: Any, api: str, **parameters: str) -> Iterator[Cloud]:
    """The stack, made and unmade. Its ApiUrl is `api`, where something answers."""
    cloud = Cloud.at(url)
    (properties,) = resources(template, "AWS::SecretsManager::Secret").values()
    made = cloud.client("secretsmanager").create_secret(Name=STACK, SecretString=properties["SecretString"])
    body = for_moto(template, made["ARN"])
    body["Outputs"]["ApiUrl"]["Value"] = api
    stacks = cloud.client("cloudformation")
    stacks.create_stack(
        StackName=STACK, TemplateBody=json.dumps(body), Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )  # fmt: skip
    try:
        yield cloud
    finally:
        # Nor does moto delete a protected table: the protection is taken off as docs/operations.md says.
        table = cloud.outputs["TableName"]
        cloud.client("dynamodb").update_table(TableName=table, DeletionProtectionEnabled=False)
        stacks.delete_stack(StackName=STACK)


def for_moto(template: Any, secret: str) -> Any:
    """What moto does not know taken out, and named by its value where others refer to it."""
    template = copy.deepcopy(template)
    kept, values = {}, {"Secret": secret}
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::ApiGateway::Stage":
            values[name] = resource["Properties"]["StageName"]
        if resource["Type"] not in NOT_MOTOS and name not in values:
            kept[name] = resource
        kept.get(name, {}).pop("DependsOn", None)
    template["Resources"] = kept
    return named(template, values)


def named(part: Any, values: dict[str, Any]) -> Any:
    """References to these names resolved."""
    if isinstance(part, list):
        return [named(each, values) for each in part]
    if not isinstance(part, dict):
        if isinstance(part, str):
            for name, value in values.items():
                part = part.replace(f"${{{name}}}", str(value))
        return part
    if set(part) == {"Ref"} and part["Ref"] in values:
        return values[part["Ref"]]
    return {name: named(each, values) for name, each in part.items()}


def unsubstituted(part: Any) -> Any:
    """Fn::Sub taken off texts in which nothing is left to put in."""
    if isinstance(part, dict):
        if set(part) == {"Fn::Sub"}:
            return part["Fn::Sub"]
        return {name: unsubstituted(each) for name, each in part.items()}
    return [unsubstituted(each) for each in part] if isinstance(part, list) else part
