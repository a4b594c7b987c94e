"""The gateway with its table and its secret in the cloud, as far as an emulator goes, on a real socket."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.net.aws import SECRETS, Aws
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.storage.dynamodb.store import DynamoStore
from support import dynamo
from support.error_shape import openai_error
from support.live import LiveGateway
from upstream import ScriptedUpstream

OLD, NEW = "sk-upstream-old-token", "sk-upstream-new-token"
_numbers = itertools.count()


class Cloud:
    """An account of AWS with a table and a secret."""

    def __init__(self, url: str) -> None:
        self.url = url
        ahead = 60 - time.time() % 60
        self.clock = lambda: time.time() + ahead  # a minute of its own begins with a test
        self.table = self.do(dynamo.new_table)
        self.secret = f"kimi/{next(_numbers)}"

    def do(self, step: Any) -> Any:
        async def run() -> Any:
            client = Http1Client()
            try:
                return await step(dynamo.aws(self.url, client))
            finally:
                await client.close()

        return asyncio.run(run())

    def keep(self, operation: str, *tokens: str) -> None:
        name = "Name" if operation == "CreateSecret" else "SecretId"
        asked = {
            name: self.secret,
            "SecretString": json.dumps(tokens),
            "ClientRequestToken": f"{next(_numbers):032}",
        }

        def step(aws: Aws) -> Coroutine[Any, Any, Any]:
            return aws.call(SECRETS, operation, asked)

        self.do(step)


@pytest.fixture
def cloud(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    for name, value in {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_REGION": dynamo.REGION,
        "AWS_ACCESS_KEY_ID": dynamo.FAKE.access_key,
        "AWS_SECRET_ACCESS_KEY": dynamo.FAKE.secret_key,
    }.items():
        monkeypatch.setenv(name, value)
    return Cloud(moto_url)


@contextmanager
def gateway(cloud: Cloud, folder: Path, upstream: ScriptedUpstream) -> Iterator[LiveGateway]:
    kept = {"moonshot_api_key": (), "table": cloud.table, "secret": cloud.secret}
    with LiveGateway(folder, upstream.url, clock=cloud.clock, **kept) as gateway:
        yield gateway
    assert not (folder / "data").exists()


def test_a_request_is_admitted_answered_and_charged(
    cloud: Cloud, tmp_path: Path, up: ScriptedUpstream
) -> None:
    cloud.keep("CreateSecret", OLD)
    with gateway(cloud, tmp_path, up) as first, gateway(cloud, tmp_path, up) as second:
        assert isinstance(first.store, DynamoStore)
        key = first.key(credits=5)
        answers = [each.chat(key) for each in (first, second, first)]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert [answer.headers["x-credits-remaining"] for answer in answers] == ["4", "3", "2"]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["19", "18", "17"]
        (row,) = second.usage(key)
        assert (second.account(key).credits, row.requests, row.credits) == (2, 3, 3)
        first.nothing_left(key)
        assert {request.token for request in up.chats} == {OLD}


def test_a_rotated_token_works_in_the_request_that_finds_the_old_one_dead(
    cloud: Cloud, tmp_path: Path, up: ScriptedUpstream
) -> None:
    cloud.keep("CreateSecret", OLD)
    up.tokens = {OLD}
    with gateway(cloud, tmp_path, up) as live:
        key = live.key()
        assert live.chat(key).status_code == 200
        cloud.keep("PutSecretValue", NEW)
        up.tokens = {NEW}
        answer = live.chat(key)
        assert answer.status_code == 200
        assert [request.token for request in up.chats] == [OLD, OLD, NEW]
        assert NEW not in live.log.getvalue()


def test_a_secret_that_cannot_be_read_is_reported_until_it_can(
    cloud: Cloud, tmp_path: Path, up: ScriptedUpstream
) -> None:
    with gateway(cloud, tmp_path, up) as live, live.client() as client:
        key = live.key(credits=None)
        refused = live.chat(key)
        assert openai_error(refused.json())["code"] == "service_unavailable"
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        health = client.get("/health")
        assert health.status_code == 503
        assert health.json()["problems"] == ["tokens: GetSecretValue: ResourceNotFoundException"]
        cloud.keep("CreateSecret", OLD)
        live.until(lambda: live.chat(key).status_code == 200)
        assert client.get("/health").status_code == 200
        (row,) = live.usage(key)
        assert row.requests == 1


def test_a_secret_without_a_token_leaves_the_demo_to_answer(
    cloud: Cloud, tmp_path: Path, up: ScriptedUpstream
) -> None:
    cloud.keep("CreateSecret")
    with gateway(cloud, tmp_path, up) as live:
        assert live.chat(live.key()).status_code == 200
        assert up.chats == []


def test_what_one_instance_learns_of_a_token_the_next_one_knows(
    cloud: Cloud, tmp_path: Path, up: ScriptedUpstream
) -> None:
    cloud.keep("CreateSecret", OLD, NEW)
    up.tokens = {NEW}
    with gateway(cloud, tmp_path, up) as first:
        key = first.key()
        first.until(lambda: first.lines("token_out"))  # each is asked for its balance at the start
    up.requests.clear()
    with gateway(cloud, tmp_path, up) as second:
        assert [second.chat(key).status_code for _ in range(4)] == [200] * 4
        assert {request.token for request in up.chats} == {NEW}
