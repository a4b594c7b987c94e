"""Upstream tokens of a secret: read seldom, kept while the service is down, read anew when one is refused."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest

from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.errors import Unavailable
from kimi_gateway.net.aws import SECRETS, Patience
from kimi_gateway.net.http import Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.observe import redact
from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.tokens import kept as secret
from kimi_gateway.providers.tokens.file import token_source
from kimi_gateway.providers.tokens.secret import AGAIN, COLD_AGAIN, LASTS, SecretTokens
from kimi_gateway.settings import Settings
from support import dynamo
from support.faulty import Fault, Faulty, always, none
from support.pooling import Clock

pytestmark = pytest.mark.anyio
A, B = "sk-upstream-secret-a", "sk-upstream-secret-b"
_numbers = itertools.count()


class Kept:
    """A secret at the service, what stands before it, and the source that reads it."""

    def __init__(self, url: str, name: str) -> None:
        self.client, self.name, self.clock = Faulty(Http1Client()), name, Clock()
        self.aws = dynamo.aws(url, self.client, Patience(tries=2, pause=0, total=60, each=Timeouts(30, 30)))
        self.source = SecretTokens(self.aws, name, self.clock, jitter=lambda: 0.5)

    async def put(self, text: str) -> None:
        asked = {"SecretId": self.name, "SecretString": text, "ClientRequestToken": token()}
        await self.aws.call(SECRETS, "PutSecretValue", asked)

    async def now(self) -> list[str]:
        await self.source.fresh()
        return [token.secret for token in self.source.tokens()]

    @property
    def reads(self) -> int:
        return self.client.calls["GetSecretValue"]


def token() -> str:
    return f"{next(_numbers):032d}"


@pytest.fixture
async def kept(moto_url: str, anyio_backend: str) -> AsyncIterator[Kept]:
    kept = Kept(moto_url, f"tokens/{next(_numbers)}")
    made = {"Name": kept.name, "SecretString": json.dumps([A]), "ClientRequestToken": token()}
    await kept.aws.call(SECRETS, "CreateSecret", made)
    yield kept
    await kept.client.close()


@pytest.mark.parametrize("text", [json.dumps([A, B, A]), f" {A},{B} ,, {A}", f'\n["{A}", "{B}"]\n'])
async def test_the_text_is_a_json_list_or_joined_by_commas(kept: Kept, text: str) -> None:
    await kept.put(text)
    assert await kept.now() == [A, B]
    assert kept.source.tokens() == (Token.of(A), Token.of(B))
    assert redact(f"{A} and {B}") == "[redacted] and [redacted]"


@pytest.mark.parametrize("text", ["[]", ""])
def test_a_secret_may_hold_no_token_yet(text: str) -> None:
    assert secret.parsed(text) == {PLATFORM: ()}


@pytest.mark.parametrize(
    "text", [None, b"sk-a", '["sk-a", 1]', '["sk-secret', '["sk secret"]', "sk secret", "[" * 100_000]
)
def test_what_is_no_list_of_tokens_is_reported_without_a_word_of_it(text: object) -> None:
    with pytest.raises(ValueError, match=r"^(is|holds) ") as caught:
        secret.parsed(text)
    assert "secret" not in str(caught.value)


async def test_it_is_read_again_when_its_time_is_over_and_not_before(kept: Kept) -> None:
    assert [await kept.now() for _ in range(3)] == [[A]] * 3
    await kept.put(B)
    kept.clock.now += LASTS * 1.1 - 1
    assert await kept.now() == [A]
    kept.clock.now += 1
    assert await kept.now() == [B]
    kept.clock.now -= 10_000  # the clock was set back
    await kept.now()
    assert kept.reads == 3


async def test_one_reads_for_all_that_wait(kept: Kept) -> None:
    assert await asyncio.gather(*(kept.now() for _ in range(20))) == [[A]] * 20
    assert kept.reads == 1


async def test_known_tokens_hold_while_the_service_is_down(kept: Kept) -> None:
    await kept.now()
    kept.client.plan = always(Fault.BROKEN)
    kept.clock.now += 2 * LASTS
    before = kept.reads
    assert [await kept.now() for _ in range(5)] == [[A]] * 5
    assert kept.reads - before == 2  # the tries of one read
    assert kept.source.faults() == []
    kept.clock.now += AGAIN
    kept.client.plan = none
    await kept.put(B)
    assert await kept.now() == [B]


async def test_known_tokens_hold_when_the_secret_becomes_unreadable(kept: Kept) -> None:
    await kept.now()
    await kept.put("not a token")
    kept.clock.now += 2 * LASTS
    assert await kept.now() == [A]


async def test_a_service_that_hangs_is_waited_for_little(kept: Kept) -> None:
    await kept.now()
    hanging = asyncio.Event()
    kept.client.waiting = hanging.wait
    kept.clock.now += 2 * LASTS
    assert await kept.now() == [A]
    kept.client.waiting = None
    await kept.put(B)
    hanging.set()
    kept.clock.now += LASTS
    assert await kept.now() == [B]  # by the read that went on behind
    assert kept.reads == 2


async def test_without_any_token_known_a_request_is_refused_and_the_next_second_tries_again(
    kept: Kept,
) -> None:
    kept.client.plan = always(Fault.THROTTLED)
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await kept.now()
        assert (caught.value.status, caught.value.cause, caught.value.retry_after) == (503, "tokens", 1)
    assert kept.reads == 2
    assert kept.source.faults() == ["tokens: GetSecretValue: status 400 ThrottlingException"]
    kept.client.plan = none
    kept.clock.now += COLD_AGAIN
    assert await kept.now() == [A]
    assert kept.source.faults() == []


async def test_a_secret_that_is_not_there_is_named_as_the_fault(kept: Kept) -> None:
    source = SecretTokens(kept.aws, "no/such")
    with pytest.raises(Unavailable):
        await source.fresh()
    assert source.faults() == ["tokens: GetSecretValue: ResourceNotFoundException"]


async def test_a_refused_token_has_it_read_at_once_but_not_again_and_again(kept: Kept) -> None:
    await kept.now()
    await kept.put(B)
    await kept.source.doubted()
    assert await kept.now() == [B]
    for _ in range(5):
        await kept.source.doubted()
    assert kept.reads == 2
    kept.clock.now += AGAIN
    await kept.source.doubted()
    assert kept.reads == 3


async def test_vendors_tokens_are_read_although_the_platforms_are_in_the_environment(kept: Kept) -> None:
    await kept.put(json.dumps({PLATFORM: [A], "qwen": [B]}))
    settings = Settings(secret=kept.name, moonshot_api_key=("sk-of-the-environment",))
    source = token_source(settings, kept.aws, kept.clock)
    assert (source.kept(), source.known()) == ({}, False)
    await source.begin()
    assert source.kept()["qwen"] == (B,)
    assert (source.known(), [each.secret for each in source.tokens()]) == (True, ["sk-of-the-environment"])
    assert source.renewal is None, "the platform's pool never waits for the service"
    assert source.reading is not None, "and the vendors' pools do"
