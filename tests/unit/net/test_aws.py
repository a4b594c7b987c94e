"""Signed calls: addresses, credentials, what is tried again and for how long, and what an error tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kimi_gateway.net import aws
from kimi_gateway.net.aws import DYNAMODB, SECRETS, THROTTLED, AwsDown, AwsRefused, AwsThrottled, Patience
from kimi_gateway.net.http import Answer, Timeouts
from support import dynamo
from support.faulty import ANSWERS, Fault, Faulty, always, in_turn
from support.inprocess import Told, told

pytestmark = pytest.mark.anyio
CHINA = "cn-north-1"
PASSING = [Fault.REFUSED, Fault.LOST_BEFORE, Fault.SILENT, *ANSWERS]


class Service:
    """Answers, and keeps what it was sent."""

    def __init__(self, answer: Told | None = None) -> None:
        self.answer = answer or told({"ok": True})
        self.sent: list[tuple[str, Mapping[str, str], bytes]] = []

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AsyncIterator[Answer]:
        self.sent.append((url, headers, body))
        yield self.answer

    async def close(self) -> None:
        pass


class Pauses(list[float]):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def test_a_call_is_a_signed_post_of_json() -> None:
    service = Service()
    answer = await dynamo.aws("http://127.0.0.1:9/", service).call(DYNAMODB, "GetItem", {"TableName": "té"})
    assert answer == {"ok": True}
    ((url, headers, body),) = service.sent
    assert (url, body) == ("http://127.0.0.1:9/", '{"TableName":"té"}'.encode())
    assert headers["X-Amz-Target"] == "DynamoDB_20120810.GetItem"
    assert headers["Content-Type"] == "application/x-amz-json-1.0"
    assert "/eu-central-1/dynamodb/aws4_request" in headers["Authorization"]
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-target" in headers["Authorization"]


@pytest.mark.parametrize("fault", PASSING)
async def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    service = Faulty(Service(), in_turn(fault, fault, operation="GetItem"))
    pauses = Pauses()
    caller = dynamo.aws("http://127.0.0.1:9/", service, sleep=pauses, jitter=lambda: 1.0)
    assert await caller.call(DYNAMODB, "GetItem", {}) == {"ok": True}
    assert service.calls["GetItem"] == 3
    assert pauses == [0.05, 0.1]


@pytest.mark.parametrize("fault", PASSING)
async def test_tries_end(fault: Fault) -> None:
    service, pauses = Faulty(Service(), always(fault)), Pauses()
    patience = Patience(tries=7, longest=0.5)
    caller = dynamo.aws("http://127.0.0.1:9/", service, patience, sleep=pauses, jitter=lambda: 1.0)
    with pytest.raises(AwsDown, match="GetItem: ") as caught:
        await caller.call(DYNAMODB, "GetItem", {})
    assert isinstance(caught.value, AwsThrottled) == (fault is Fault.THROTTLED)
    assert service.calls["GetItem"] == 7
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]


@pytest.mark.parametrize(
    ("status", "code"),
    [*((400, code) for code in sorted(THROTTLED)), (429, "Anything"), (503, "ThrottlingException")],
)
async def test_a_service_that_is_well_and_takes_no_more_is_reported_from_one_that_is_down(
    status: int, code: str
) -> None:
    service = Service(told({"__type": f"com.amazonaws.dynamodb.v20120810#{code}"}, status))
    with pytest.raises(AwsThrottled, match=code):
        await dynamo.aws("http://127.0.0.1:9/", service, Patience(tries=1)).call(DYNAMODB, "GetItem", {})


async def test_pauses_are_of_any_length_up_to_their_longest() -> None:
    pauses = Pauses()
    caller = dynamo.aws("http://127.0.0.1:9/", Faulty(Service(), always(Fault.BROKEN)), sleep=pauses)
    for _ in range(20):
        with pytest.raises(AwsDown):
            await caller.call(DYNAMODB, "GetItem", {})
    first = pauses[:: Patience().tries - 1]
    assert max(first) <= 0.05
    assert max(first) - min(first) > 0.01


async def test_a_call_ends_after_its_time_whatever_it_waits_for() -> None:
    class Hanging(Service):
        @asynccontextmanager
        async def send(self, *args: Any) -> AsyncIterator[Answer]:
            await asyncio.Event().wait()
            yield self.answer

    caller = dynamo.aws("http://127.0.0.1:9/", Hanging(), Patience(total=0.05))
    with pytest.raises(AwsDown, match=r"no answer within 0\.05 s"):
        await caller.call(DYNAMODB, "GetItem", {})


async def test_a_refusal_is_not_tried_again_and_tells_its_code() -> None:
    detail = {"__type": "com.amazonaws.dynamodb.v20120810#ValidationException", "message": "secret text"}
    service = Service(told(detail, 400))
    with pytest.raises(AwsRefused, match="^PutItem: ValidationException$") as refused:
        await dynamo.aws("http://127.0.0.1:9/", service).call(DYNAMODB, "PutItem", {})
    assert (refused.value.code, refused.value.detail) == ("ValidationException", detail)
    assert len(service.sent) == 1


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b"[" * 100_000])
async def test_an_answer_that_is_no_object_is_a_failure_of_the_service(raw: bytes) -> None:
    caller = dynamo.aws("http://127.0.0.1:9/", Service(Told(200, {}, raw)), Patience(pause=0))
    with pytest.raises(AwsDown):
        await caller.call(DYNAMODB, "GetItem", {})


@pytest.mark.parametrize(
    ("environ", "region", "address"),
    [
        ({}, dynamo.REGION, "https://dynamodb.eu-central-1.amazonaws.com/"),
        ({}, CHINA, "https://dynamodb.cn-north-1.amazonaws.com.cn/"),
        ({"AWS_ENDPOINT_URL": "http://a.test:4566"}, CHINA, "http://a.test:4566/"),
        ({"AWS_ENDPOINT_URL": "http://a.test", "AWS_ENDPOINT_URL_DYNAMODB": "http://b.test/"}, CHINA,
         "http://b.test/"),
        ({"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://b.test"}, dynamo.REGION,
         "https://dynamodb.eu-central-1.amazonaws.com/"),
    ],
)  # fmt: skip
def test_the_address_is_the_regions_unless_the_environment_names_another(
    environ: dict[str, str], region: str, address: str
) -> None:
    assert aws.endpoints(environ, region)(DYNAMODB) == address


def test_each_service_has_its_own_variable() -> None:
    environ = {"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://b.test"}
    assert aws.endpoints(environ, dynamo.REGION)(SECRETS) == "http://b.test/"


async def test_no_error_shows_a_credential() -> None:
    for fault in (*PASSING, None):
        service = Faulty(Service(told({"__type": "AccessDeniedException"}, 400)))
        if fault is not None:
            service.plan = always(fault)
        caller = dynamo.aws("http://127.0.0.1:9/", service, Patience(pause=0))
        with pytest.raises(aws.AwsError) as caught:
            await caller.call(DYNAMODB, "GetItem", {"Key": "request text"})
        shown = f"{caught.value!r} {caught.value} {caller!r}"
        for secret in (dynamo.FAKE.secret_key, dynamo.FAKE.access_key, "request text", "Signature"):
            assert secret not in shown
