"""Alerts to a webhook on a socket: each cause once, with its recovery."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Budget
from kimi_gateway.edge.home.alerts import QUEUE, Alerts
from kimi_gateway.edge.home.counting import Counting
from support.live import LiveGateway
from support.otlp import Receiver
from upstream import ScriptedUpstream, Status, rate_limited

PATH = "/services/T000/obviously-a-fake-secret"
DEAD = Status(401, {"error": {"message": "Invalid Authentication", "type": "invalid_authentication_error"}})


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A gateway whose looks happen when a test asks for one."""

    def __init__(self, gateway: LiveGateway, receiver: Receiver, clock: Clock) -> None:
        self.gateway, self.receiver, self.clock = gateway, receiver, clock
        self._read = 0
        self.look()  # counts begin with the first look

    @property
    def alerts(self) -> Alerts:
        assert self.gateway.app.telemetry is not None
        assert self.gateway.app.telemetry.alerts is not None
        return self.gateway.app.telemetry.alerts

    def look(self, number: int = 0) -> list[str]:
        """The next `number` messages after another look, and no more of them."""
        self.clock.now += 61
        self.gateway.do(self.alerts.look())
        self.receiver.until(lambda: len(self.receiver.requests) >= self._read + number)
        self.gateway.rest()
        bodies = [body for _, _, body in self.receiver.requests[self._read :]]
        self._read += len(bodies)
        return [json.loads(body)["text"].partition(": ")[2] for body in bodies]


@contextmanager
def watched(folder: Path, upstream: ScriptedUpstream, receiver: Receiver, **more: Any) -> Iterator[Watched]:
    clock = Clock()
    url = receiver.url + PATH
    with LiveGateway(folder, upstream.url, clock=clock, alerts_url=url, **more) as gateway:
        yield Watched(gateway, receiver, clock)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def one(up: ScriptedUpstream, tmp_path: Path, receiver: Receiver) -> Iterator[Watched]:
    with watched(tmp_path, up, receiver, alerts_balance=10.0) as one:
        yield one


@pytest.mark.parametrize(
    ("failure", "said"),
    [(DEAD, "The vendor refuses"), (rate_limited("exceeded_current_quota"), "no balance left")],
    ids=["dead", "without balance"],
)
def test_a_token(one: Watched, up: ScriptedUpstream, failure: Any, said: str) -> None:
    key = one.gateway.key()
    up.plan(failure)
    one.gateway.chat(key)
    (text,) = one.look(1)
    assert said in text
    assert "sk-upstream" not in text
    assert one.look() == []
    assert one.gateway.chat(key).status_code == 200
    assert one.look(1) == [f"Recovered. Before: {text}"]
    assert one.look() == []
    assert [(line["alert"], line["detail"]) for line in one.gateway.lines("alert_over")] == [
        (one.gateway.lines("alert")[0]["alert"], text)
    ]
    assert PATH not in one.gateway.log.getvalue()


def test_the_balance(one: Watched, up: ScriptedUpstream) -> None:
    for balance, said in (
        (9.5, ["The upstream balance is 9.50, below 10.00."]),
        (8, []),
        (11, ["Recovered"]),
    ):
        up.balance = balance
        one.clock.now += 600
        assert [text.startswith(each) for text, each in zip(one.look(len(said)), said, strict=True)] == [
            True for _ in said
        ]
        assert one.look() == []  # a look between two questions changes nothing


def test_a_budget(one: Watched, up: ScriptedUpstream) -> None:
    key = one.gateway.limit(one.gateway.key(), Budget("tokens", "day", 100_000))
    assert one.gateway.chat(key, max_tokens=500).status_code == 200
    one.gateway.nothing_left(key)
    ((_, _, used, _),) = one.gateway.account(key).spent
    assert one.look() == []
    one.gateway.limit(key, Budget("tokens", "day", int(used / 0.85)))
    (text,) = one.look(1)
    assert "has used 80 % of its budget of" in text
    assert "resets at" in text
    one.gateway.limit(key, Budget("tokens", "day", 100_000))
    assert [each.startswith("Recovered") for each in one.look(1)] == [True]
    one.gateway.limit(key, Budget("tokens", "day", used))
    (text,) = one.look(1)  # both steps at once are one message
    assert "has used 100 %" in text
    one.clock.now += 86_400
    assert one.gateway.chat(one.gateway.key()).status_code == 200  # or no account was used lately
    assert len(one.look(1)) == 1


def test_the_rate_of_errors(one: Watched, up: ScriptedUpstream) -> None:
    key = one.gateway.key()
    up.plan(*[Status(400, {"error": {"message": "x", "type": "server_error"}})] * 2)
    up.plan(*[DEAD] * 7)
    for _ in range(9):
        one.gateway.chat(key)
    assert one.gateway.chat(key).status_code == 200
    one.gateway.rest()
    (text,) = one.look(1)
    assert text.endswith("requests failed within 5 minutes.")
    assert one.look() == []
    one.clock.now += 301
    assert one.look(1) == [f"Recovered. Before: {text}"]


def test_the_store_and_the_disk(one: Watched) -> None:
    class Down:
        async def find_key(self, digest: str) -> None:
            raise StoreDown("disk I/O error")

    running = one.gateway.app.running
    assert running is not None
    store, running.store = running.store, Down()  # type: ignore[assignment]
    (text,) = one.look(1)
    assert text == "The store does not answer: disk I/O error"
    one.alerts.disk = lambda: (100 * 2**20, 100 * 2**30)
    (other,) = one.look(1)
    assert "Only 100 MiB of 100.0 GiB are free" in other
    running.store = store
    assert one.look(1) == [f"Recovered. Before: {text}"]
    one.alerts.disk = lambda: (50 * 2**30, 100 * 2**30)
    assert one.look(1) == [f"Recovered. Before: {other}"]


def test_neither_a_restart_nor_a_second_process_repeats_a_message(
    up: ScriptedUpstream, tmp_path: Path, receiver: Receiver
) -> None:
    with watched(tmp_path, up, receiver) as first:
        first.alerts.disk = lambda: (1, 2**40)
        (text,) = first.look(1)
        counting = Counting(tmp_path / "data")
        counting.running = first.gateway.app.running
        second = Alerts(tmp_path / "data", counting, None, 0, first.clock)
        second.disk = first.alerts.disk
        first.gateway.do(second.look())
        assert len(first.gateway.lines("alert")) == 1
    receiver.requests.clear()
    with watched(tmp_path, up, receiver) as again:
        assert again.gateway.lines("alert") == []
        receiver.until(lambda: receiver.requests)
        assert [json.loads(body)["text"].partition(": ")[2] for _, _, body in receiver.requests] == [
            f"Recovered. Before: {text}"
        ]


def test_the_log_alone(up: ScriptedUpstream, tmp_path: Path) -> None:
    with LiveGateway(tmp_path, up.url, alerts_url="log", metrics=("127.0.0.1", 0)) as gateway:
        telemetry = gateway.app.telemetry
        assert telemetry is not None
        assert telemetry.alerts is not None
        telemetry.alerts.disk = lambda: (1, 2**40)
        gateway.do(telemetry.alerts.look())
        (line,) = gateway.lines("alert")
        assert (line["alert"], line["level"]) == ("disk_full", "warning")
        active = telemetry.counting.look()["alert_active"]
        assert active == {("disk_full",): [1.0]}


def test_a_busy_webhook_is_tried_again_and_a_dead_one_costs_a_bounded_queue(
    one: Watched, receiver: Receiver
) -> None:
    receiver.answers = [(503, {"retry-after": "0"}, b""), (429, {"retry-after": "0"}, b"")]
    one.alerts.disk = lambda: (1, 2**40)
    assert len(one.look(1)) == 1
    receiver.answers = [(404, {}, b"")]
    one.alerts.disk = lambda: (2**40, 2**40)
    one.look()
    one.gateway.until(lambda: one.gateway.lines("alert_unsent"))
    webhook = one.alerts._webhook
    assert webhook is not None

    async def flood() -> None:
        for _ in range(QUEUE + 7):
            webhook.send("<!channel> & more")

    receiver.requests.clear()
    one.gateway.do(flood())
    receiver.until(lambda: len(receiver.requests) >= QUEUE)
    assert json.loads(receiver.requests[-1][2]) == {"text": "&lt;!channel&gt; &amp; more"}
    assert one.gateway.app.telemetry is not None
    counts = one.gateway.app.telemetry.counting.metrics.snapshot()["alerts_total"]
    assert (counts["failed",][0], counts["dropped",][0]) == (1, 7)
