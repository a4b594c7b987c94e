"""A deployed stack as a target of commands: its outputs, table and secret. Needs boto3 and credentials."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.cli.entry import NOT_FOUND, WRONG_USAGE, Failed
from kimi_gateway.cli.target import Change, Kept, KeptIn
from kimi_gateway.dataclass import dataclass
from kimi_gateway.observe import redact
from kimi_gateway.settings import FIELDS, Settings

if TYPE_CHECKING:
    from boto3 import Session

    from kimi_gateway.cli.target import TargetStore
    from kimi_gateway.net.aws import Aws
    from kimi_gateway.net.http import Client
    from kimi_gateway.net.sigv4 import Credentials
    from kimi_gateway.providers.provider import Token

NO_BOTO3 = (
    "--stack needs boto3, which is not installed here. In a clone of the repository: scripts/setup cloud"
)
NO_CREDENTIALS = "No AWS credentials were found. Set AWS_PROFILE, or run: aws configure (or aws sso login)."
NO_REGION = "No AWS region is set. Set AWS_REGION, or a region in the AWS profile."
# Parameters of the template that commands need too.
PARAMETERS = {
    "Packages": "KIMI_GATEWAY_PACKAGES",
    "SignupCredits": "KIMI_GATEWAY_SIGNUP_CREDITS",
    "KeepUsage": "KIMI_GATEWAY_KEEP_USAGE",
}
TRIES = 8  # of a change, while other commands change the secret too
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")


@dataclass(frozen=True, slots=True)
class Stack:
    """`status` is CloudFormation's; the rest are the stack's outputs."""

    name: str
    status: str
    url: str
    table: str
    secret: str
    settings: Settings
    session: Session
    kept_in: ClassVar[KeptIn] = "secret"

    @classmethod
    def find(cls, name: str) -> Stack:
        """Find a stack and read its outputs. Raises Failed."""
        try:
            import boto3
        except ImportError:
            raise Failed(NO_BOTO3, "no_boto3") from None

        from kimi_gateway.net.aws import region_of

        with told(f"the stack {name}"):
            session = boto3.Session(region_name=region_of(os.environ) or None)  # boto3 knows no AWS_REGION
            if session.region_name is None:
                raise Failed(NO_REGION, "no_region", WRONG_USAGE)
            if session.get_credentials() is None:
                raise Failed(NO_CREDENTIALS, "no_credentials", WRONG_USAGE)
        with told(f"the stack {name}", session.region_name):
            found = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}
        wanted = ("ApiUrl", "TableName", "SecretArn", "BaseUrl")
        if missing := [each for each in wanted if each not in outputs]:
            text = (
                f"The stack {name} ({found['StackStatus']}) is not a gateway: it has no {', '.join(missing)}."
            )
            raise Failed(text, "not_found", NOT_FOUND)
        url, table, secret, upstream = (outputs[each] for each in wanted)
        given = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", ())}
        texts = {"KIMI_BASE_URL": upstream} | {PARAMETERS[name]: given.get(name) for name in PARAMETERS}
        parsed = {FIELDS[name][0]: FIELDS[name][1](text) for name, text in texts.items() if text}
        values = Settings(**parsed)
        return cls(name, found["StackStatus"], url, table, secret, values, session)

    def begun(self) -> bool:
        return True

    def serving(self) -> None:
        """None: the functions read their tokens from the secret, never from an environment."""

    @asynccontextmanager
    async def store(self) -> AsyncIterator[TargetStore]:
        from kimi_gateway.accounts.usage import DAY
        from kimi_gateway.app import http_client
        from kimi_gateway.net.aws import DYNAMODB, endpoints
        from kimi_gateway.storage.dynamodb.store import DynamoStore

        client = http_client(endpoints(os.environ, self.session.region_name)(DYNAMODB), os.environ)
        try:
            yield DynamoStore(self.table, self._aws(client), keep_usage=self.settings.keep_usage * DAY)
        finally:
            await client.close()

    def _aws(self, client: Client) -> Aws:
        from kimi_gateway.net.aws import Aws, endpoints

        region = self.session.region_name
        return Aws(client, region, self._credentials, endpoints(os.environ, region))

    def _credentials(self) -> Credentials:
        from kimi_gateway.net.sigv4 import Credentials

        with told("AWS"):
            credentials = self.session.get_credentials()
            if credentials is None:
                raise Failed(NO_CREDENTIALS, "no_credentials", WRONG_USAGE)
            frozen = credentials.get_frozen_credentials()
        return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)

    def pinned(self) -> tuple[Token, ...]:
        return ()

    def kept(self) -> tuple[Token, ...]:
        from kimi_gateway.providers.provider import Token

        return tuple(map(Token.of, self.all_kept().get(PLATFORM, ())))

    def all_kept(self) -> Kept:
        return self._read()[0]

    def _read(self) -> tuple[Kept, str]:
        """The tokens, and the version of the secret that holds them."""
        from kimi_gateway.providers.tokens.kept import parsed, secrets

        with told("the secret"):
            found = self._secrets().get_secret_value(SecretId=self.secret)
        try:
            kept = parsed(found.get("SecretString"))
        except ValueError as exc:
            raise Failed(f"The secret {exc}.", "tokens_secret") from None
        redact.learn(secrets(kept))
        return kept, found["VersionId"]

    def change_kept(self, change: Change) -> None:
        """A new version becomes the current one only in the place of that which was read. Its write alone
        cannot depend on that, but moving the label AWSCURRENT can (API reference, UpdateSecretVersionStage,
        RemoveFromVersionId; read 2026-11)."""
        for _ in range(TRIES):
            kept, version = self._read()
            changed = change(kept)
            if changed is None or self._replaced(version, changed):
                return
        raise Failed("Other commands change the secret at this moment. Try again.", "aws")

    def _replaced(self, version: str, kept: Kept) -> bool:
        """False if `version` is no longer the current one."""
        from functools import partial
        from secrets import token_hex

        from botocore.exceptions import ClientError

        from kimi_gateway.providers.tokens.kept import written

        client, label = self._secrets(), f"kimi-gateway-{token_hex(8)}"
        with told("the secret"):
            text, move = written(kept), partial(client.update_secret_version_stage, SecretId=self.secret)
            put = client.put_secret_value(SecretId=self.secret, SecretString=text, VersionStages=[label])
            new = put["VersionId"]
            try:
                move(VersionStage="AWSCURRENT", MoveToVersionId=new, RemoveFromVersionId=version)
            except ClientError:
                if self._read()[1] == version:
                    raise
                return False
            finally:  # a version without a label is deleted by the service
                with suppress(ClientError):
                    move(VersionStage=label, RemoveFromVersionId=new)
        return True

    def _secrets(self) -> Any:
        return self.session.client("secretsmanager")


@contextmanager
def told(what: str, region: str | None = None) -> Iterator[None]:
    """Turn AWS's errors about `what` into texts for the operator. Raises Failed."""
    from botocore import exceptions

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise Failed(NO_CREDENTIALS, "no_credentials", WRONG_USAGE) from None
    except exceptions.ClientError as exc:
        code = exc.response.get("Error", {}).get("Code", "")
        message = exc.response.get("Error", {}).get("Message", "")
        if code == "ValidationError" and "does not exist" in message:
            text = f"There is no {what.removeprefix('the ')} in {region}."
            raise Failed(text, "not_found", NOT_FOUND) from None
        if code in EXPIRED:
            raise Failed("The AWS credentials have expired. Sign in again.", "no_credentials") from None
        raise Failed(f"AWS refused {what}: {code}: {message}", "aws") from None
    except exceptions.BotoCoreError as exc:
        raise Failed(f"AWS cannot be asked about {what}: {exc}", "aws") from None
