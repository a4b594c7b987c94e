"""A POST to a receiver of telemetry or alerts: which answers are tried again, and how long."""

from __future__ import annotations

import asyncio

import pytest

from kimi_gateway.edge.home.posting import LONGEST_PAUSE, TRIES, Failed, post
from kimi_gateway.net.http1 import Http1Client
from support.otlp import Receiver


async def posted(receiver: Receiver, timeout: float = 20) -> tuple[str, list[float]]:
    """The failure or the answer, and the pauses."""
    client, pauses = Http1Client(), list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    try:
        answer = await post(client, receiver.url, b"{}", timeout, {"x-own": "1"}, sleep)
        return answer.decode(), pauses
    except Failed as failure:
        return str(failure), pauses
    finally:
        await client.close()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_receiver_is_asked_again_with_growing_pauses(status: int) -> None:
    with Receiver() as receiver:
        receiver.answers = [(status, {}, b"")] * TRIES
        failure, pauses = asyncio.run(posted(receiver))
    assert failure == f"the receiver answered {status}"
    assert len(pauses) == TRIES - 1
    for number, pause in enumerate(pauses):
        assert 0.5 * 2**number <= pause <= min(2**number, LONGEST_PAUSE)


def test_it_waits_as_long_as_the_receiver_says() -> None:
    with Receiver() as receiver:
        receiver.answers = [(429, {"retry-after": "7"}, b""), (503, {"retry-after": "soon"}, b"")]
        answer, pauses = asyncio.run(posted(receiver))
    assert (answer, pauses[0], len(pauses)) == ("{}", 7.0, 2)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413])
def test_a_refusal_is_final(status: int) -> None:
    with Receiver() as receiver:
        receiver.answers = [(status, {"location": "http://127.0.0.1:9/"}, b"")]
        assert asyncio.run(posted(receiver)) == (f"the receiver answered {status}", [])


def test_nobody_listens() -> None:
    with Receiver() as receiver:
        pass
    failure, pauses = asyncio.run(posted(receiver))
    assert "refuses connections" in failure
    assert len(pauses) == TRIES - 1
