"""An upstream that answers without end: the answer is broken off at its limit, whatever the format."""

from __future__ import annotations

import pytest

from support.formats import FORMATS, Format
from support.live import LiveGateway
from upstream import Flood, ScriptedUpstream

LIMIT = 2**20


SETTINGS = {"answer_limit": LIMIT}  # of the gateway of this module


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_an_answer_without_end_is_broken_off_and_free(
    gateway: LiveGateway, upstream: ScriptedUpstream, format: Format, stream: bool
) -> None:
    key, flood = gateway.key(), Flood(64 * LIMIT)
    upstream.plan(flood)
    with gateway.client(key) as client:
        answer = client.post(format.path, json=format.asked(stream=stream))
    assert answer.status_code == (200 if stream else 503)
    told = format.read(answer.text, stream) if stream else None
    assert told is None or (not told.whole and told.error)
    assert flood.written < 16 * LIMIT  # the sockets between hold some
    assert len(upstream.chats) == 1  # content had begun, so it is not asked for again
    gateway.nothing_left(key)
    assert gateway.account(key).credits == 100


def test_an_answer_below_the_limit_is_whole(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key = gateway.key()
    upstream.plan(Flood(LIMIT // 2))
    answer = gateway.chat(key)
    assert answer.status_code == 200
    assert len(answer.json()["choices"][0]["message"]["content"]) == LIMIT // 2
