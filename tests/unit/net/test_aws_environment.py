"""AWS as the environment names it: keys as they are then, else those that the container's address gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kimi_gateway.net.aws import SECRETS, AwsDown, region_of
from kimi_gateway.net.aws_environment import RENEWED, ContainerCredentials, of_environment
from kimi_gateway.net.http import Answer, ConnectFailed, Timeouts
from kimi_gateway.net.sigv4 import Credentials
from support.inprocess import Told, told
from support.pooling import NOW, Clock

pytestmark = pytest.mark.anyio
URL = "http://127.0.0.1:9/creds"
SET = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": URL, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t"}
FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
ENDS = NOW + 3_600
GIVEN = {
    "AccessKeyId": "AKIDCONTAINER",
    "SecretAccessKey": "s",
    "Token": "t",
    "Expiration": "2027-01-15T09:00:00Z",
}


class Platform:
    """Gives credentials at any address but a service's."""

    def __init__(self) -> None:
        self.answer: Told | None = told(GIVEN)
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.called: list[Mapping[str, str]] = []

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AsyncIterator[Answer]:
        if method == "POST":
            self.called.append(headers)
            yield told({})
            return
        self.asked.append((url, headers))
        if self.answer is None:
            raise ConnectFailed("no connection")
        yield self.answer

    async def close(self) -> None:
        pass


async def test_keys_of_the_environment_are_taken_as_they_are_then() -> None:
    platform, environ = Platform(), {"AWS_DEFAULT_REGION": "eu-west-1", **SET}
    caller = of_environment(platform, environ)
    for number in range(2):
        environ |= {"AWS_ACCESS_KEY_ID": f"AKID{number}", "AWS_SECRET_ACCESS_KEY": "s"}
        environ["AWS_SESSION_TOKEN"] = "t"
        await caller.call(SECRETS, "GetSecretValue", {})
        assert f"AKID{number}/" in platform.called[-1]["Authorization"]
        assert "/eu-west-1/secretsmanager/" in platform.called[-1]["Authorization"]
        assert platform.called[-1]["X-Amz-Security-Token"] == "t"
    assert platform.asked == []
    assert region_of({"AWS_REGION": "eu-west-2", **environ}) == "eu-west-2"


async def test_without_keys_the_containers_are_used_and_without_any_it_is_said() -> None:
    platform, environ = Platform(), dict(SET, AWS_REGION="eu-west-1")
    await of_environment(platform, environ).call(SECRETS, "GetSecretValue", {})
    assert "AKIDCONTAINER/" in platform.called[-1]["Authorization"]
    platform.answer = None
    with pytest.raises(AwsDown, match="no AWS credentials"):
        await of_environment(platform, environ).call(SECRETS, "GetSecretValue", {})


@pytest.mark.parametrize(
    ("environ", "url", "authorization"),
    [
        (SET, URL, "t"),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}, "http://169.254.170.2/v2/x", None),
        ({**SET, FILE: "token"}, URL, "of-the-file"),
    ],
)
async def test_the_platform_names_address_and_authorization(
    environ: dict[str, str], url: str, authorization: str | None, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    if FILE in environ:
        environ = {**environ, FILE: str(tmp_path / "token")}
    platform = Platform()
    found = await ContainerCredentials(platform, environ, Clock()).current()
    assert found == Credentials("AKIDCONTAINER", "s", "t")
    ((asked, headers),) = platform.asked
    assert (asked, headers.get("authorization")) == (url, authorization)


async def test_they_are_read_once_until_shortly_before_their_end() -> None:
    platform, clock = Platform(), Clock()
    container = ContainerCredentials(platform, SET, clock)
    await asyncio.gather(*(container.current() for _ in range(5)))
    clock.now = ENDS - RENEWED - 1
    await container.current()
    assert len(platform.asked) == 1
    platform.answer = told({**GIVEN, "AccessKeyId": "AKIDNEXT", "Expiration": "2027-01-15T15:00:00Z"})
    clock.now += 1
    assert (await container.current()).access_key == "AKIDNEXT"


@pytest.mark.parametrize("answer", [None, told({"Code": "no"}, 400), told([]), Told(200, {}, b"<html>")])
async def test_known_ones_hold_to_their_end_while_the_address_fails(answer: Told | None) -> None:
    platform, clock = Platform(), Clock()
    container = ContainerCredentials(platform, SET, clock)
    await container.current()
    platform.answer, clock.now = answer, ENDS - 1
    assert (await container.current()).access_key == "AKIDCONTAINER"
    clock.now = ENDS
    with pytest.raises(AwsDown, match="no AWS credentials"):
        await container.current()
