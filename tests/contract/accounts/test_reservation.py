"""A reserved credit is settled or released, whatever fails between the admission and the last byte.

A probe raises at each line of the package that runs there, one a request; a client leaves at each turn of the
loop; each call of the store fails. After each the books balance, and no lease, place, turn or task is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import linecache
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import pytest

import kimi_gateway
from kimi_gateway.accounts.ledger import Reservation
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.http import Headers, Request, Response
from kimi_gateway.storage.memory import MemoryStore
from support.inprocess import InProcess

PACKAGE = str(Path(kimi_gateway.__file__).parent) + "/"
HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "get it", "parameters": {"type": "object"}}}]
CHAT = {"model": "kimi-k3", "messages": HELLO, "tools": TOOLS}
MESSAGE = {"model": "kimi-k3", "messages": HELLO, "max_tokens": 50}
ANSWER = {"model": "kimi-k3", "input": "Hello"}
FLOW = (
    "flow/ask.py",
    "flow/attempts.py",
    "flow/preparation.py",
    "flow/rounds.py",
    "flow/turn.py",
    "edge/router.py",
)
STORE = ("accounts/", "storage/memory.py")  # its writes are whole or not at all, and have tests of their own
# Of net/mailbox.py and net/watch.py: parts of the event loop, with tests of their own.
WAIT = ("Wakeup.", "begin", "Alarms.", "within", "_waiting")
Case = tuple[str, dict[str, Any]]
CASES: dict[str, Case] = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat, streamed": ("/v1/chat/completions", CHAT | {"stream": True, "n": 2}),
    "messages": ("/v1/messages", MESSAGE),
    "messages, streamed": ("/v1/messages", MESSAGE | {"stream": True}),
    "responses": ("/v1/responses", ANSWER),
    "responses, streamed": ("/v1/responses", ANSWER | {"stream": True}),
}


class Fault(Exception):
    """What the probe raises."""


class Probe:
    """Raises once, at the chosen place, between an admission and the last byte. `seen` are the places."""

    def __init__(self, at: tuple[str, int] | None = None) -> None:
        self.seen: dict[tuple[str, int], None] = {}
        self.raised = False
        self._at = at
        self._on = False
        self._traced = PACKAGE if at is None else PACKAGE + at[0]

    def __enter__(self) -> Probe:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def stop(self) -> None:
        """The last byte is out; what ends a request begins."""
        self._on = False

    def _enter(self, frame: FrameType, event: str, _: object) -> Any:
        """Lines are traced where they may be the place, since tracing makes them ten times slower."""
        code = frame.f_code
        traced = code.co_filename.startswith(self._traced) or code is Reservation.__aenter__.__code__
        return self._line if traced and not code.co_qualname.startswith(WAIT) else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        place = (frame.f_code.co_filename.removeprefix(PACKAGE), frame.f_lineno)
        if event == "return" and frame.f_code is Reservation.__aenter__.__code__:
            self._on = True
        elif event == "line" and self._on and not place[0].startswith(STORE):
            self.seen[place] = None
            if place == self._at and not self.raised:
                self.raised = True
                raise Fault(place)
        return self._line


class Desk:
    def __init__(self, inner: InProcess) -> None:
        self.inner = inner
        self.key = inner.key(100)

    async def whole(self, case: Case, finishing: Callable[[], None] = lambda: None) -> int:
        """One request as an edge serves it. The status, or 0 where the edge itself met the fault."""
        path, body = case
        response: Response | None = None

        async def raw() -> bytes:
            return json.dumps(body).encode()

        headers = Headers((("authorization", f"Bearer {self.key}"),))
        try:
            response = await self.inner.router.handle(Request("POST", path, headers, "req_1", raw))
            if not isinstance(response.body, bytes):
                async for _ in response.body:
                    pass
            return response.status
        except Fault:
            return 0
        finally:
            finishing()
            if response is not None:
                await asyncio.shield(asyncio.ensure_future(response.finish()))

    async def settled(self) -> None:
        """What goes on behind the request comes to its end."""
        gateway = self.inner.running.gateway
        while left := gateway.ledger.late | gateway.background:
            await asyncio.wait(left)
        for _ in range(3):
            await asyncio.sleep(0)

    def balanced(self, after: str) -> None:
        gateway, account = self.inner.running.gateway, self.inner.account(self.key)
        assert account.reserved == 0, after
        assert account.credits + account.consumed == 100, after
        left = [gateway.turns, gateway.gate.places._taken, gateway.ledger._running, self.inner.run(_tasks())]
        assert not any(left), after


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of faults, each with its traceback."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(desk: Desk, case: Case, at: tuple[str, int] | None = None) -> Probe:
    async def scenario() -> None:
        probe.status = await asyncio.wait_for(desk.whole(case, probe.stop), 5)  # type: ignore[attr-defined]
        await desk.settled()

    with Probe(at) as probe:
        desk.inner.run(scenario())
    return probe


def probed(name: str) -> list[tuple[str, int]]:
    """Where a request of this case is made to fail. Lines of the flow fail in both modes of the first format
    and in one of the two others, by turns; lines of other modules in the first case that runs them: every
    second one in the suite, all in `scripts/fuzz`."""
    step = 2 if hypothesis.settings.get_current_profile_name() == "suite" else 1
    taken, places = set[tuple[str, int]](), list[tuple[str, int]]()
    for at, (each, case) in enumerate(CASES.items()):
        with InProcess() as inner:
            run(Desk(inner), case)  # fills what is remembered
            seen = [place for place in run(Desk(inner), case).seen if not _opens(place)]
        half = at // 2
        places = [
            place
            for place in seen
            if (
                half == 0 or place[1] % 2 == half % 2
                if place[0] in FLOW
                else place not in taken and place[1] % step == 0
            )
        ]
        if each == name:
            break
        taken.update(seen)
    return places


@pytest.mark.fuzz
@pytest.mark.parametrize("name", CASES)
def test_whatever_line_raises_the_books_balance(name: str) -> None:
    case, places = CASES[name], probed(name)
    raised = 0
    for first in range(0, len(places), 25):  # the more accounts a store in memory has, the slower it is
        with InProcess() as inner:
            run(Desk(inner), case)
            for place in places[first : first + 25]:
                desk = Desk(inner)
                raised += run(desk, case, place).raised
                desk.balanced(f"a fault in {place[0]}:{place[1]}")
    assert raised > 0.9 * len(places) > 50


class SlowStore:
    """Answers a turn of the loop after it was asked, and a turn after it has written. `fails` is the number
    of the call that finds it down, before or after it has `written`."""

    def __init__(self, fails: int = -1, written: bool = False) -> None:
        self.inner = MemoryStore()
        self.calls = 0
        self.fails, self._written = fails, written

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)

        async def slow(*given: Any) -> Any:
            self.calls += 1
            number = self.calls
            await asyncio.sleep(0)
            if number == self.fails and not self._written:
                raise StoreDown("before it was written")
            result = await call(*given)
            await asyncio.sleep(0)
            if number == self.fails:
                raise StoreDown("after it was written")
            return result

        return slow


@pytest.mark.parametrize("name", CASES)
def test_whenever_a_client_leaves_the_books_balance(name: str) -> None:
    """At each turn of the loop from the request's begin to its end, the writes of the store included."""
    turns, over = 0, False
    while not over:
        with InProcess(SlowStore()) as inner:  # type: ignore[arg-type]
            desk = Desk(inner)
            over = inner.run(_left_after(desk, CASES[name], turns))
            desk.balanced(f"a client that left after {turns} turns")
        turns += 1
    assert turns > 10


async def _left_after(desk: Desk, case: Case, turns: int) -> bool:
    """Whether the request was over by then."""
    asking = asyncio.ensure_future(desk.whole(case))
    for _ in range(turns):
        await asyncio.sleep(0)
    over = asking.done()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await desk.settled()
    return over


@pytest.mark.parametrize("written", [False, True], ids=["before it wrote", "after it wrote"])
@pytest.mark.parametrize("name", ["chat", "responses, streamed"])
def test_whichever_call_of_the_store_fails_the_books_balance(name: str, written: bool) -> None:
    """But for an admission that may be written: that is left to its lease, which is all that is left then."""
    for number in range(3, 7):
        store = SlowStore(number, written)
        with InProcess(store) as inner:  # type: ignore[arg-type]
            desk = Desk(inner)
            status = inner.run(desk.whole(CASES[name]))
            inner.run(desk.settled())
            store.fails = -1
            if store.calls < number:
                return
            if written and status == 503:
                inner.now += 661
            desk.balanced(f"call {number} of the store that failed")
    raise AssertionError("a request takes fewer calls")


def _opens(place: tuple[str, int]) -> bool:
    """A line that runs nothing but the beginning or the end of a block."""
    return linecache.getline(PACKAGE + place[0], place[1]).strip() in ("try:", "async with reservation:")


async def _tasks() -> list[str]:
    """Upstream calls that still run."""
    names = [str(task.get_coro()) for task in asyncio.all_tasks() if not task.done()]
    return [name for name in names if "UpstreamCall" in name]
