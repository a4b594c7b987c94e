"""Many large bodies of one account at once: what a turn of the loop does for them, and who comes first."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.edge.home.connections import ARENA, FEW, LEAST_READ, TURN
from kimi_gateway.edge.home.protocol import Protocol
from kimi_gateway.files import reading
from kimi_gateway.flow import apart as module
from kimi_gateway.flow.apart import LARGE, apart
from kimi_gateway.observe import current_account
from support.live import LiveGateway
from support.wire import head, rest_of, statuses
from upstream import ScriptedUpstream

MANY = 12  # bodies at once
SIZE = 3_000_000  # bytes of each
LONG = "word " * (LARGE // 4)


class Turns(asyncio.SelectorEventLoop):
    """Counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


@contextmanager
def working(job: Callable[[], object]) -> Iterator[None]:
    """The thread for large bodies is busy with `job`."""
    begun = threading.Event()

    def work() -> None:
        begun.set()
        job()

    running = module._turns().add("another gateway", work)
    begun.wait()
    yield
    running.result(30)


async def of(account: str, step: Callable[[], object]) -> None:
    current_account.set(account)
    await apart(LARGE, step)


@pytest.mark.anyio
async def test_accounts_take_turns_at_the_thread() -> None:
    done, go = list[str](), threading.Event()
    with working(lambda: go.wait(30)):
        steps = [asyncio.create_task(of(who, lambda who=who: done.append(who))) for who in "aaaaabbc"]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*steps)
    assert done == list("abcabaaa")


@pytest.mark.anyio
async def test_a_step_of_a_request_that_was_given_up_does_not_run() -> None:
    done, go = list[str](), threading.Event()
    with working(lambda: go.wait(30)):
        steps = [asyncio.create_task(of(who, lambda who=who: done.append(who))) for who in "aab"]
        await asyncio.sleep(0)
        steps[1].cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*steps, return_exceptions=True)
    assert done == ["a", "b"]


def test_a_large_body_does_not_wait_behind_all_those_of_another_account(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    crowd, other, go = gateway.key(), gateway.key(), threading.Event()
    waiting = module._turns()._waiting
    with ThreadPoolExecutor(6) as pool:
        with working(lambda: go.wait(60)):
            asked = [pool.submit(gateway.chat, crowd, messages=[user(LONG)]) for _ in range(5)]
            gateway.until(lambda: len(waiting) == 5)
            asked.append(pool.submit(gateway.chat, other, messages=[user(LONG)]))
            gateway.until(lambda: len(waiting) == 6)
            order = [owner for owner, _ in waiting]
            go.set()
        assert [each.result().status_code for each in asked] == [200] * 6
    assert order == [gateway.account(key).id for key in (crowd, other, *[crowd] * 4)]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def sent_at_once(gateway: LiveGateway, key: str, body: bytes) -> list[int]:
    """The statuses of MANY requests whose bodies arrive at the same time."""

    def one(_: int) -> int:
        lines = f"authorization: Bearer {key}", f"content-length: {len(body)}", "connection: close"
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(head("/v1/chat/completions", "host: x", *lines) + body)
            return statuses(rest_of(client))[0]

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(one, range(MANY)))


@pytest.fixture(scope="module")
def turning(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    """A gateway whose loop counts its turns."""
    folder = tmp_path_factory.mktemp("turning")
    with LiveGateway(folder, module_upstream.url, new_loop=Turns, body_memory=2**30) as gateway:
        yield gateway


@contextmanager
def watched(gateway: LiveGateway, look: Callable[[Any, str, Any, int], None]) -> Iterator[None]:
    """`look` gets the calls of the loop's own thread, with the number of the turn."""
    loop: Any = gateway._loop
    gateway.call(lambda: sys.setprofile(lambda *event: look(*event, loop.turns)))  # type: ignore[call-arg]
    try:
        yield
    finally:
        gateway.call(lambda: sys.setprofile(None))
        gateway.rest()


def test_a_turn_of_the_loop_reads_a_bounded_part_of_all_bodies_and_joins_none(turning: LiveGateway) -> None:
    body = json.dumps({"model": "kimi-k3", "messages": [user("word " * (SIZE // 5))]}).encode()
    read, joined = Counter[int](), list[int]()
    waiting = turning.app.connections._waits

    def look(frame: Any, event: str, value: Any, turn: int) -> None:
        if event == "call" and frame.f_code is Protocol.buffer_updated.__code__ and len(waiting) > FEW:
            read[turn] += frame.f_locals["size"]
        if event == "return" and frame.f_code.co_name == "joined":
            joined.append(len(value))

    with watched(turning, look):
        assert set(sent_at_once(turning, turning.key(), body)) <= {200, 400}
    assert sum(read.values()) > MANY * SIZE // 2
    # A body that has just come to its end, or its beginning, counts no longer or not yet.
    assert max(read.values()) <= TURN + 2 * ARENA
    assert max(joined, default=0) < LARGE
    assert turning.app.connections.share() == ARENA


def test_however_many_bodies_arrive_each_goes_on() -> None:
    from kimi_gateway.edge.home.connections import Connections

    connections = Connections(10_000, 10_000)
    for number in range(FEW + 1):
        assert connections.share() == ARENA
        arriving(connections, number)
    assert connections.share() == TURN // (FEW + 1)
    for number in range(1000):
        arriving(connections, number + FEW + 1)
    assert connections.share() == LEAST_READ


def arriving(connections: Any, number: int) -> None:
    class One:
        idle = False

    one = One()
    connections.add(one, "")
    connections.know(one)
    connections.wait(one, f"account-{number}")


def test_large_pictures_are_not_decoded_to_see_that_they_are_large(
    turning: LiveGateway, tmp_path: Path
) -> None:
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(5 * 2**20)).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    body = json.dumps({"model": "kimi-k3", "messages": [user([part])]}).encode()
    pieces = Counter[int]()

    def look(frame: Any, event: str, value: Any, turn: int) -> None:
        if event == "call" and frame.f_code.co_name == "b64decode":
            pieces[turn] += len(frame.f_locals["s"])

    with watched(turning, look):
        assert set(sent_at_once(turning, turning.key(), body)) == {200}
    assert pieces
    assert max(pieces.values()) <= 2 * MANY * reading._GROUP
